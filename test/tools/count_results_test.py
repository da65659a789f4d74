#!/usr/bin/python3
"""test/count_results.py counts what tools/check reports: no failure may get lost in it."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

COUNT = pathlib.Path(__file__).resolve().parents[1] / 'count_results.py'
ALL = 'All tests passed (9 assertions in 4 test cases)\n'
SOME = 'test cases: 10 | 7 passed | 2 failed | 1 skipped\nassertions: 99 | 98 passed | 1 failed\n'


def count(tests, junit='', require=()):
    """Runs the counter over one Meson log and one JUnit file; (status, numbers, stderr)."""
    with tempfile.TemporaryDirectory() as folder:
        log, xml = pathlib.Path(folder, 'testlog.json'), pathlib.Path(folder, 'results.xml')
        log.write_text(''.join(json.dumps(test) + '\n' for test in tests))
        files = [log]
        if junit:
            xml.write_text(f'<testsuites><testsuite>{junit}</testsuite></testsuites>')
            files.append(xml)
        required = [word for suite in require for word in ('--require', suite)]
        result = subprocess.run([sys.executable, COUNT, *required, *files], text=True,
                                capture_output=True)
    return result.returncode, tuple(map(int, result.stdout.split())), result.stderr


def meson(name, result='OK', stdout=''):
    return {'name': f'weir:{name}', 'result': result, 'stdout': stdout}


class CountResults(unittest.TestCase):
    def test_catch2_counts_by_test_case_and_others_as_one(self):
        self.assertEqual(count([meson('unit / base', stdout=ALL), meson('tidy / tidy')])[:2],
                         (0, (5, 0, 0)))
        status, numbers, text = count([meson('unit / base', 'FAIL', SOME)])
        self.assertEqual((status, numbers), (1, (7, 2, 1)))
        self.assertIn('failed: weir:unit / base', text)

    def test_a_crash_or_a_time_limit_is_a_failure_whatever_was_printed(self):
        for result in ('FAIL', 'ERROR', 'TIMEOUT', 'INTERRUPT', 'UNEXPECTEDPASS'):
            self.assertEqual(count([meson('unit / a', result)])[:2], (1, (0, 1, 0)))
            self.assertEqual(count([meson('unit / a', result, ALL)])[:2], (1, (0, 1, 0)))

    def test_a_skip_is_no_pass(self):
        self.assertEqual(count([meson('unit / a', 'SKIP'), meson('unit / b')])[:2], (0, (1, 0, 1)))

    def test_nothing_at_all_is_a_failure(self):
        self.assertEqual(count([])[0], 1)
        self.assertEqual(count([meson('unit / a', 'SKIP')])[0], 1)

    def test_a_required_suite_must_have_run(self):
        tests = [meson('unit+threads / a')]
        self.assertEqual(count(tests, require=['unit', 'threads'])[:2], (0, (1, 0, 0)))
        status, numbers, text = count(tests, require=['sim'])
        self.assertEqual((status, numbers), (1, (1, 1, 0)))
        self.assertIn("no test of suite 'sim' ran", text)

    def test_junit(self):
        cases = ('<testcase name="a"/><testcase name="b"><failure/></testcase>'
                 '<testcase name="c"><error/></testcase><testcase name="d"><skipped/></testcase>')
        self.assertEqual(count([meson('unit / a')], cases)[:2], (1, (2, 2, 1)))


if __name__ == '__main__':
    unittest.main()
