"""Reads test/corpus (format at the top of test/corpus/h1_requests.txt)."""
import re

from conftest import ROOT

PLAIN = {'r': b'\r', 'n': b'\n', 't': b'\t', '0': b'\0', 's': b' ', '\\': b'\\'}
LISTS = ('present', 'absent', 'trailer', 'no-trailer')
ESCAPE = re.compile(r'\\(?:R\{(\d+),([^}]*)\}|x([0-9a-fA-F]{2})|(.))|([^\\]+)')


def unescape(text):
    out = []
    for match in ESCAPE.finditer(text):
        count, piece, code, letter, plain = match.groups()
        if count:
            out.append(unescape(piece) * int(count))
        elif code:
            out.append(bytes([int(code, 16)]))
        else:
            out.append(plain.encode('latin-1') if plain else PLAIN[letter])
    return b''.join(out)


def read_corpus(name):
    """Cases as dictionaries; bytes where escapes are allowed, lists where a key repeats."""
    cases = []
    text = (ROOT / 'test' / 'corpus' / name).read_text(encoding='latin-1')
    for block in re.split(r'\n\n+', text):
        case = {'bytes': b'', 'level': 'head', 'body': b'', **{key: [] for key in LISTS}}
        for line in block.split('\n'):
            if not line or line.startswith('#'):
                continue
            key, _, value = line.partition(':')
            value = value[1:]
            if key == 'bytes':
                case['bytes'] += unescape(value)
            elif key in LISTS:
                pair = unescape(value).decode('latin-1')
                case[key].append(tuple(pair.split(': ', 1)) if ': ' in pair else pair)
            elif key in ('origin', 'body'):
                case[key] = unescape(value)
            else:
                case[key] = value
        if 'id' in case:
            cases.append(case)
    return cases
