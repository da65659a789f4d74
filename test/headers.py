#!/usr/bin/python3
"""Compiles every public header alone, with the project's warnings, so that none leans on what its
includer happened to include. A header that passed is not compiled again until it, or a header of
ours that it includes, changes.

usage: headers.py --source TREE --cache DIRECTORY -- COMPILER...
"""
import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys

FLAGS = ['-std=c++23', '-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Wno-sign-conversion',
         '-Werror', '-fno-exceptions', '-fno-rtti', '-fsyntax-only', '-x', 'c++', '-']
INCLUDE = re.compile(r'^\s*#\s*include\s*<(weir/[^>]+)>', re.MULTILINE)


def closure(root, name, seen):
    """The header and every header of ours that it includes, at any depth."""
    path = root / 'include' / name
    if name in seen or not path.exists():
        return seen
    seen[name] = path.read_text()
    for other in INCLUDE.findall(seen[name]):
        closure(root, other, seen)
    return seen


def key_of(root, name, compiler):
    digest = hashlib.sha256(' '.join(compiler + FLAGS).encode())
    for other, text in sorted(closure(root, name, {}).items()):
        digest.update(f'{other}\0{text}\0'.encode())
    return digest.hexdigest()


def compile_alone(root, name, compiler):
    command = compiler + ['-I', str(root / 'include')] + FLAGS
    result = subprocess.run(command, input=f'#include <{name}>\n', text=True, capture_output=True)
    return result.returncode, result.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--source', type=pathlib.Path, required=True)
    parser.add_argument('--cache', type=pathlib.Path, required=True)
    parser.add_argument('compiler', nargs='+')
    options = parser.parse_args()
    root = options.source
    headers = sorted(p.relative_to(root / 'include').as_posix()
                     for p in (root / 'include').rglob('*.h'))
    if not headers:
        sys.exit('no headers found: wrong --source?')
    options.cache.mkdir(parents=True, exist_ok=True)
    keys = {name: key_of(root, name, options.compiler) for name in headers}
    stale = [name for name in headers if not (options.cache / keys[name]).exists()]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(compile_alone, root, name, options.compiler) for name in stale}
        for name, job in jobs.items():
            status, text = job.result()
            if status == 0:
                (options.cache / keys[name]).touch()
            else:
                failed += 1
                print(f'{name}: does not compile alone\n{text}')
    print(f'{len(headers)} headers, {len(stale)} compiled, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
