#!/usr/bin/python3
"""Counts test results for tools/check: reads Meson's testlog.json (a line of JSON a test; a Catch2
binary counts by its test cases) and JUnit files of pytest, prints `passed failed skipped`, and names
what failed on stderr. --require SUITE fails where no test of that suite ran: a proof that did not
run is no proof.

usage: count_results.py [--require SUITE]... FILE...
"""
import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

CATCH_ALL = re.compile(r'All tests passed \(\d+ assertions? in (\d+) test cases?\)')
CATCH_SOME = re.compile(r'^test cases:(.*)$', re.MULTILINE)


def count_catch2(output):
    """(passed, failed, skipped) test cases of one Catch2 run, or None if it was not one."""
    match = CATCH_ALL.search(output)
    if match:
        return int(match.group(1)), 0, 0
    match = CATCH_SOME.search(output)
    if not match:
        return None
    numbers = dict((word, int(n)) for n, word in re.findall(r'(\d+) (passed|failed|skipped)',
                                                            match.group(1)))
    return numbers.get('passed', 0), numbers.get('failed', 0), numbers.get('skipped', 0)


def count_meson(path, suites):
    total = [0, 0, 0]
    with open(path, encoding='utf-8') as log:
        for line in log:
            test = json.loads(line)
            result = test['result']
            # Meson writes `project:suite+suite / name`.
            suites.update(test['name'].partition(' / ')[0].rpartition(':')[2].split('+'))
            counts = count_catch2(test.get('stdout') or '')
            if counts is None or (result != 'OK' and counts[1] == 0):
                # Not Catch2, or one that did not get as far as its own count.
                counts = (int(result in ('OK', 'EXPECTEDFAIL')),
                          int(result not in ('OK', 'EXPECTEDFAIL', 'SKIP')), int(result == 'SKIP'))
            for i in range(3):
                total[i] += counts[i]
            if counts[1]:
                print(f"failed: {test['name']} ({result})", file=sys.stderr)
            if counts[2]:
                print(f"skipped: {test['name']}", file=sys.stderr)
    return total


def count_junit(path):
    total = [0, 0, 0]
    for case in ElementTree.parse(path).getroot().iter('testcase'):
        kinds = {child.tag for child in case}
        index = 1 if kinds & {'failure', 'error'} else 2 if 'skipped' in kinds else 0
        total[index] += 1
        if index:
            word = ('', 'failed', 'skipped')[index]
            print(f"{word}: {case.get('classname')}.{case.get('name')}", file=sys.stderr)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--require', action='append', default=[], metavar='SUITE')
    parser.add_argument('files', nargs='+')
    options = parser.parse_args()
    total, suites = [0, 0, 0], set()
    for path in options.files:
        counts = count_junit(path) if path.endswith('.xml') else count_meson(path, suites)
        total = [a + b for a, b in zip(total, counts)]
    for suite in options.require:
        if suite not in suites:
            print(f"failed: no test of suite '{suite}' ran", file=sys.stderr)
            total[1] += 1
    print(*total)
    return 1 if total[1] or not total[0] else 0


if __name__ == '__main__':
    sys.exit(main())
