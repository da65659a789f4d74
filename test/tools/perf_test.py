#!/usr/bin/python3
"""tools/perf: folding and the flame graph keep every sample."""
import pathlib
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ElementTree

PERF = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'perf'
SCRIPT = '''\
# captured on: some day
core 0 4711/4712 12.345678:    1003009 cpu-clock:pppH:
\tffffffff81a0b0c0 tcp_sendmsg+0x10 ([kernel.kallsyms])
\t    55d0c0de0010 weir::net::Transport::write(weir::Chunk)+0x44 (/usr/bin/weir)
\t    55d0c0de0000 main+0x1 (/usr/bin/weir)

core 0 4711 12.345679:    1003009 cpu-clock:pppH:
\t    55d0c0de0020 std::pair<int, char>::operator() (int)+0x1 (/usr/bin/weir (deleted))
\t    55d0c0de0000 main+0x1 (/usr/bin/weir)

core 0 4711 12.345680:    1003009 cpu-clock:pppH:
\t    55d0c0de0000 main+0x9 (/usr/bin/weir)

core 0 4711 12.345681:    1003009 cpu-clock:pppH:
\t    7f00c0de0000 [unknown] (/usr/lib/libcrypto.so.3)

'''
FOLDED = {
    'core 0;[libcrypto.so.3]': 1,
    'core 0;main': 1,
    'core 0;main;std::pair<int, char>::operator() (int)': 1,
    'core 0;main;weir::net::Transport::write(weir::Chunk);tcp_sendmsg_[k]': 1,
}


def run(*arguments, text=''):
    return subprocess.run([sys.executable, PERF, *arguments], input=text, text=True,
                          capture_output=True)


class Perf(unittest.TestCase):
    def test_fold(self):
        lines = run('fold', text=SCRIPT).stdout.splitlines()
        self.assertEqual({line.rpartition(' ')[0]: int(line.rpartition(' ')[2]) for line in lines},
                         FOLDED)

    def test_equal_stacks_add_up(self):
        self.assertIn('core 0;main 2\n', run('fold', text=SCRIPT + SCRIPT).stdout)

    def test_svg_boxes_are_as_wide_as_their_samples(self):
        svg = run('svg', '--title', 'a <b> & c', text='a;b<int> 30\na;c 60\nd 10\n').stdout
        root = ElementTree.fromstring(svg)
        boxes = {g.get('data-n'): (float(g.get('data-x')), float(g.get('data-w')), int(g.get('data-d')))
                 for g in root.iter('{http://www.w3.org/2000/svg}g')}
        self.assertEqual(boxes, {'all': (0, 1200, 0), 'a': (0, 1080, 1), 'b<int>': (0, 360, 2),
                                 'c': (360, 720, 2), 'd': (1080, 120, 1)})
        self.assertIn('a &lt;b&gt; &amp; c', svg)

    def test_top_separates_own_time_from_callees(self):
        lines = run('top', text='a;b 75\na 25\n').stdout.splitlines()[1:]
        self.assertEqual([line.split() for line in lines],
                         [['75.00%', '75.00%', 'b'], ['25.00%', '100.00%', 'a']])

    def test_no_samples_and_nonsense_are_errors(self):
        self.assertIn('no samples', run('svg').stderr)
        self.assertEqual(run('svg').returncode, 1)
        self.assertIn('line 2', run('top', text='a;b 1\nnonsense\n').stderr)


if __name__ == '__main__':
    unittest.main()
