#!/usr/bin/python3
"""tools/tidy finds what it says it finds: each rule gets a small tree that breaks it, and one that
comes close without breaking it."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'tidy'
HEADER = '// A value. Any thread.\n#pragma once\n'


def complaints(files):
    """What tools/tidy says about a tree of `files`, which gets a header and a user of it besides."""
    files = {'include/weir/base/one.h': HEADER,
             'src/base/two.cc': '#include <weir/base/one.h>\n', **files}
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = pathlib.Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        result = subprocess.run([sys.executable, TIDY, '--root', root], text=True,
                                capture_output=True)
    lines = result.stdout.splitlines()[:-1]
    assert (result.returncode != 0) == bool(lines), result
    return lines


class Tidy(unittest.TestCase):
    def finds(self, path, text, what, line=None):
        found = complaints({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(what, found[0])
        self.assertTrue(found[0].startswith(f'{path}:{line or ""}'), found)

    def accepts(self, path, text):
        self.assertEqual(complaints({path: text}), [])

    def test_a_clean_tree(self):
        self.assertEqual(complaints({}), [])

    def test_rooms(self):
        self.accepts('src/http/a.cc', '#include <weir/base/one.h>\n')
        up = {'src/base/a.cc': '\n#include <weir/http/x.h>\n', 'include/weir/http/x.h': HEADER}
        self.assertIn("room 'base' may not include 'weir/http/x.h'", complaints(up)[0])
        sideways = {'src/route/a.cc': '#include <weir/http/x.h>\n', 'include/weir/http/x.h': HEADER}
        self.assertIn("room 'route' may not include", complaints(sideways)[0])
        deep = {'src/app/a.cc': '#include <weir/http/x.h>\n', 'include/weir/http/x.h': HEADER}
        self.assertEqual(complaints(deep), [])
        self.finds('src/attic/a.cc', '\n', "room 'attic' is not in the table")

    def test_system_calls(self):
        for call in ('socket(AF_INET, 0, 0)', '::write(1, p, n)', 'clock_gettime(0, &t)',
                     'io_uring_submit(&ring)', 'std::chrono::steady_clock::now()',
                     'getrandom(p, n, 0)', '::time(nullptr)', 'splice(a, 0, b, 0, n, 0)'):
            self.finds('src/proxy/a.cc', f'void f() {{\n  {call};\n}}\n', 'go through src/runtime', 2)
            self.accepts('src/runtime/a.cc', f'void f() {{\n  {call};\n}}\n')
        for fine in ('sys::socket(AF_INET)', 'stream.write(1)', 'my_socket(1)', 'Log::write(2)',
                     'io_uring_prep_recv(sqe, 1)', '// socket(2) is a call', 'log("socket(")'):
            self.accepts('src/proxy/a.cc', f'void f() {{\n  {fine};\n}}\n')

    def test_exceptions(self):
        self.finds('src/http/a.cc', 'void f() { throw 1; }\n', 'no exceptions')
        self.finds('src/http/a.cc', 'void f() {\n  try {\n  } while (0);\n}\n', 'no exceptions', 2)
        self.accepts('src/http/a.cc', '// we throw nothing and try (hard)\nint try_read(int catches);\n')
        self.accepts('test/unit/a.cc', 'void f() { throw 1; }\n')

    def test_coroutines(self):
        self.finds('src/net/a.cc', 'void f(H h) { h.resume(); }\n', 'C2')
        self.accepts('src/runtime/a.cc', 'void f(H h) { h.resume(); }\n')
        self.finds('src/net/a.cc', 'auto f = [&x](int a) -> Task<int> { co_return x; };\n', 'C1')
        self.accepts('src/net/a.cc', 'auto f = [](int a) -> Task<int> { co_return a; };\n')
        self.accepts('src/net/a.cc', 'int a[4];\nauto f() -> Task<int>;\n')
        self.finds('src/net/a.cc', 'thread_local int x;\n', 'C4')

    def test_lengths(self):
        self.finds('src/http/a.cc', 'int a;' + ' ' * 95 + '//\n', '103 columns')
        self.accepts('src/http/a.cc', '// https://example.com/' + 'a' * 100 + '\n')
        self.finds('src/http/a.cc', '\n' * 801, '801 lines')
        self.accepts('src/http/a.cc', '\n' * 800)
        body = '  g();\n'
        for head in ('int f(int a)', 'namespace x {\nstruct S {\nint f() const noexcept',
                     'S::S(int a) : a_(a), b_{2}', 'int f(O o = {}, int b = {1})',
                     'template <class T>\nauto f(T a) -> std::vector<T>', 'TEST_CASE("a { b")'):
            tail = '}\n}\n' if 'struct' in head else ''
            self.finds('src/http/a.cc', f'{head} {{\n{body * 69}}}\n{tail}', 'function of 71 lines')
            self.accepts('src/http/a.cc', f'{head} {{\n{body * 68}}}\n{tail}')
        self.accepts('src/http/a.cc', 'namespace x {\n' + 'int f() { return 1; }\n' * 100 + '}\n')
        self.accepts('src/http/a.cc', 'const int table[] = {\n' + '1,\n' * 100 + '};\n')

    def test_headers(self):
        path, user = 'include/weir/base/x.h', '#include <weir/base/x.h>\n'
        self.assertIn('nobody includes', complaints({path: HEADER})[0])
        self.assertIn('nobody includes', complaints({path: HEADER, 'src/base/x.cc': user})[0])
        self.assertEqual(complaints({path: HEADER, 'src/base/y.cc': user}), [])
        self.assertIn('#pragma once', complaints({path: '// A.\n', 'src/base/y.cc': user})[0])
        self.assertIn('opens with a comment',
                      complaints({path: '#pragma once\n', 'src/base/y.cc': user})[0])
        self.finds('src/base/utils.cc', '\n', "'utils' says nothing")

    def test_text(self):
        self.finds('src/base/a.cc', '// FIX' + 'ME: later\n', 'half-done')
        self.finds('src/base/a.cc', '// TO' + 'DO: later\n', 'names its topic')
        self.accepts('src/base/a.cc', '// TO' + 'DO(perf): later\n')
        self.finds('docs/a.md', 'see /ro' + 'ot/x/y\n', 'a path of one machine')
        self.accepts('docs/a.md', 'see docs/work/x, $HOME/root/x and /etc/weir/weir.toml\n')
        self.finds('tools/a.sh', 'curl http://deb.debian.' + 'org/debian\n', 'a package mirror')
        self.accepts('README.md', 'https://github.com/x/y\n')

    def test_subprojects(self):
        mark = '# FIX' + 'ME\n'
        self.finds('subprojects/x.wrap', mark, 'half-done')
        self.finds('subprojects/packagefiles/x/meson.build', mark, 'half-done')
        self.accepts('subprojects/x-1.0/meson.build', mark)
        self.accepts('subprojects/packagecache/x/meson.build', mark)


if __name__ == '__main__':
    unittest.main()
