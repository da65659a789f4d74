"""Static files under attack: paths that want out of the root, names that are no files, files that
change while they are sent, clients that leave or dawdle. Nothing outside the root is ever seen, and
no response looks complete that is not."""
import hashlib
import itertools
import os
import random
import socket
import ssl
import time

import pytest

import conftest
import tls_rig
from conftest import Ended, wait_until
from test_files import ROUTES, Site, read_through, rig, write
from tls_rig import KiB, MiB, TlsClient, config

__all__ = ['rig']
pytestmark = tls_rig.LIMIT

MARKER = b'SECRET-MARKER-8c1f'
MORE = '''
[[route]]
path = "/follow/"
file = {{path = "{root}", symlinks = "follow"}}
[[route]]
path = "/none/"
file = {{path = "{root}", symlinks = "none"}}
[[route]]
path = "/hidden/"
file = {{path = "{root}", hidden = true, listing = true}}
'''
KINDS = pytest.mark.parametrize('kind', ['plain', 'tls'])


def make_site(rig, folder, extra=''):
    root = folder / 'root'
    write(root / 'index.html', b'home')
    write(root / 'lost.html', b'lost')
    write(root / 'note.txt', b'a note')
    write(root / 'sub/one.txt', b'one')
    write(root / '.env', MARKER)
    write(root / '.git/config', MARKER)
    write(root / 'sub/.htpasswd', MARKER)
    write(folder / 'secret.txt', MARKER)
    write(folder / 'root-other/secret.txt', MARKER)
    text = ROUTES.format(root=root).replace('[performance]', '[performance]\n' + extra)
    weir = rig.weir(config(text + MORE.format(root=root)))
    return Site(weir, root)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('attacks')
    made = tls_rig.Rig(folder)
    try:
        yield make_site(made, folder)
    finally:
        made.close()


def raw(site, request):
    """All that comes for these bytes, with the connection ended from our side too."""
    with site.client() as client:
        client.send(request)
        client.sock.shutdown(socket.SHUT_WR)
        try:
            return client.read_to_end()
        except Ended as end:
            return end.seen


# ---- paths


DOTS = ['..', '%2e%2e', '%2E.', '.%2e', '%252e%252e', '%c0%ae%c0%ae', '%e0%80%ae%e0%80%ae',
        '%f0%80%80%ae%f0%80%80%ae', '\xc0\xae\xc0\xae', '..;', '..;x=1', '...', '....', '.. ',
        '..%20', '..%00', '..%0a', '%u002e%u002e', '..%09', '%2e%2e%3b', '．．', '..\x00', '.%00.']
SLASHES = ['/', '%2f', '%2F', '\\', '%5c', '//', '/./', '/%2e/', '%252f', '%c0%af', '%e0%80%af',
           '\\/', '%u2215', '/;/']


def targets():
    for prefix in ['/s/', '/list/', '/app/', '/follow/', '/hidden/', '/robots.txt/']:
        for dots, slash in itertools.product(DOTS, SLASHES):
            yield f'{prefix}{dots}{slash}secret.txt'
    for dots, slash in itertools.product(DOTS, SLASHES):
        yield f'/s/sub{slash}{dots}{slash}{dots}{slash}secret.txt'
        yield f'/s{slash}{dots}{slash}root-other{slash}secret.txt'
    yield from ['/s-other/secret.txt', '/s/../../secret.txt', '/../secret.txt', '../secret.txt',
                'secret.txt', '/s//secret.txt', '/s/..', '/s/%2e%2e', '/s/../', '//s/../secret.txt',
                '/s/.env', '/s/%2eenv', '/s/./.env', '/s/sub/../.env', '/s/.env/', '/s/.git/config',
                '/s/%2Egit/config', '/s/.git%2fconfig', '/s/sub/.htpasswd', '/s/sub/%2e%68tpasswd',
                '/list/.git/', '/list/.git/config', '/s/.env%00', '/s/.env%00.txt',
                '/s/~/secret.txt',
                '/s/sub/' + '../' * 60 + 'etc/passwd', '/s/' + '%2e%2e/' * 60 + 'etc/passwd',
                '/s/secret.txt?/../secret.txt', '/s/x?/../../secret.txt', '/s/file:///etc/passwd',
                '/s//etc/passwd', '/s/%2fetc/passwd', '/s/proc/self/environ', '/s/C:/secret.txt']


def encoded(target):
    return target.encode('latin-1' if max(target) <= '\xff' else 'utf-8')


def test_nothing_outside_the_root_is_seen(site):
    root = str(site.root.parent).encode()
    absolute = [str(site.root.parent / 'secret.txt'), '/s/' + str(site.root.parent / 'secret.txt'),
                '/s' + str(site.root.parent / 'secret.txt').replace('/', '%2f')]
    tried = [*targets(), *absolute]
    assert len(set(tried)) > 2000
    for target in tried:
        if '/app/' in target or target.startswith('/hidden/'):
            continue
        data = raw(site, b'GET ' + encoded(target) + b' HTTP/1.1\r\nHost: a.test\r\n'
                   b'Connection: close\r\n\r\n')
        assert MARKER not in data and root not in data and b'root:' not in data, target
        assert data[:9] == b'HTTP/1.1 ' and data[9:12] in (b'400', b'404'), (target, data[:200])


def test_a_fallback_and_hidden_names_lead_nowhere_else(site):
    for target in targets():
        if not target.startswith(('/app/', '/hidden/')):
            continue
        data = raw(site, b'GET ' + encoded(target) + b' HTTP/1.1\r\nHost: a.test\r\n'
                   b'Connection: close\r\n\r\n')
        assert MARKER not in data, target
        known = data.endswith(b'\r\n\r\nhome')  # the fallback
        assert known or data[9:12] in (b'400', b'404'), (target, data[:200])


def test_hidden_files_by_policy(site):
    for target in ['.env', '.git/config', 'sub/.htpasswd']:
        assert site.get(f'/s/{target}').status == 404
        assert site.get(f'/list/{target}').status == 404
        assert site.get(f'/hidden/{target}').body == MARKER
    write(site.root / '.well-known/acme-challenge/x', b'challenge')
    wait_until(lambda: site.get('/s/.well-known/acme-challenge/x').body == b'challenge')


def test_names_that_are_too_long(site):
    for name in ['a' * 255, 'a' * 256, 'a' * 4000, 'a/' * 1900 + 'b', '%61' * 1300]:
        assert site.get(f'/s/{name}').status in (404, 414), name[:20]


def test_symbolic_links_by_policy(site):
    root = site.root
    (root / 'in.txt').symlink_to('note.txt')
    (root / 'sub/up.txt').symlink_to('../note.txt')
    (root / 'in-dir').symlink_to('sub')
    (root / 'absolute.txt').symlink_to(root / 'note.txt')
    (root / 'out.txt').symlink_to('../secret.txt')
    (root / 'out-dir').symlink_to('..')
    (root / 'out-absolute.txt').symlink_to(root.parent / 'secret.txt')
    (root / 'loop').symlink_to('loop')
    (root / 'proc').symlink_to('/proc/self')
    inside = [('in.txt', b'a note'), ('sub/up.txt', b'a note'), ('in-dir/one.txt', b'one')]
    for name, body in inside:
        assert site.get(f'/s/{name}').body == body, name
        assert site.get(f'/follow/{name}').body == body, name
        assert site.get(f'/none/{name}').status == 404, name
    assert site.get('/follow/absolute.txt').body == b'a note'
    outside = ['out.txt', 'out-dir/secret.txt', 'out-absolute.txt', 'out-dir/root-other/secret.txt']
    for name in outside:
        assert site.get(f'/follow/{name}').body == MARKER, name
    for prefix in ['/s/', '/m/', '/none/', '/list/', '/hidden/', '/raw/']:
        for name in [*outside, 'absolute.txt', 'loop', 'proc/environ', 'proc/cwd/x']:
            answer = site.get(prefix + name)
            assert answer.status == 404 and MARKER not in answer.body, prefix + name
    # A precompressed file is a file like others.
    write(root / 'linked.css', b'p { }')
    (root / 'linked.css.gz').symlink_to('../secret.txt')
    answer = site.get('/s/linked.css', 'Accept-Encoding: gzip')
    assert (answer.body, answer.get('Content-Encoding')) == (b'p { }', None)
    # A link that is switched to another target.
    (root / 'current').symlink_to('sub')
    assert site.get('/s/current/one.txt').body == b'one'
    (root / 'next').symlink_to('..')
    os.rename(root / 'next', root / 'current')
    wait_until(lambda: site.get('/s/current/one.txt').status == 404)
    assert site.get('/s/current/secret.txt').status == 404


def test_what_is_no_file_is_not_there(site):
    os.mkfifo(site.root / 'fifo')
    (site.root / 'null').symlink_to('/dev/null')
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(site.root)  # a socket's path must be short
        try:
            listening.bind('socket')
        finally:
            os.chdir(before)
        for prefix in ['/s/', '/m/', '/list/', '/follow/']:
            for name in ['fifo', 'socket', 'null', 'sub', 'sub/']:
                if name.startswith('sub') and prefix == '/list/':
                    continue
                assert site.get(prefix + name).status == 404, prefix + name
    os.mkfifo(site.root / 'sub/fifo')
    names = site.get('/list/sub/?format=json').body
    assert b'"one.txt"' in names and b'fifo' not in names and b'.htpasswd' not in names


def test_bytes_that_no_path_has(site):
    for bad in [b'/s/note.txt\0', b'/s/\0', b'/s/a\x7fb', b'/s/note.txt\t', b'/s/%', b'/s/%4',
                b'/s/%zz', b'/s/note.txt%00', b'/s/note.txt%00.html', b'/s/%0d%0aX: y',
                b'/s/note.txt%0a', b'/s/note%5c.txt', b'/s/note.txt#x']:
        data = raw(site, b'GET ' + bad + b' HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
        assert data[9:12] in (b'400', b'404'), (bad, data[:100])
        assert b'a note' not in data, bad


# ---- changes


def body_of(site, target):
    """None if the response broke off, as it may where a file is changed in place."""
    try:
        return site.get(target).body
    except Ended:
        return None


def test_a_replaced_file_is_seen_in_time(rig, tmp_path):
    site = make_site(rig, tmp_path)
    for prefix in ['/s/', '/m/']:
        write(site.root / 'page', b'first')
        wait_until(lambda: site.get(f'{prefix}page').body == b'first')
        for number in range(5):
            write(site.root / 'fresh', b'number %d' % number)
            os.rename(site.root / 'fresh', site.root / 'page')
            end = time.monotonic() + tls_rig.seconds(1)  # open_file_cache_valid is 50 ms
            while site.get(f'{prefix}page').body != b'number %d' % number:
                assert time.monotonic() < end
        for data in [b'in place, another size', b'in place, the same siz']:
            (site.root / 'page').write_bytes(data)
            wait_until(lambda: body_of(site, f'{prefix}page') == data, tls_rig.seconds(1))
        os.unlink(site.root / 'page')
        wait_until(lambda: site.get(f'{prefix}page').status == 404, tls_rig.seconds(1))


def test_a_cached_name_is_not_looked_up_while_it_is_valid(rig, tmp_path):
    site = make_site(rig, tmp_path)
    text = site.weir.file.read_text()
    site.weir.reload(text.replace('"50ms"', '"1h"'))
    assert site.get('/s/sub/one.txt').body == b'one'
    write(site.root / 'fresh', b'two')
    os.rename(site.root / 'fresh', site.root / 'sub/one.txt')
    assert site.get('/s/sub/one.txt').body == b'one'


class Slow:
    """A client that has read the head and a little of a large file, and not more."""

    def __init__(self, site, kind, target, *fields):
        port = site.weir.port_of('main' if kind == 'tls' else 'plain')
        if kind == 'tls':
            self.client = TlsClient(port)
        else:
            self.client = conftest.Client(port, receive_buffer=8 * KiB)
        self.client.send_request(f'GET {target} HTTP/1.1', 'Host: a.test', *fields)
        self.head = self.client.read_head()
        self.length = int(self.head.get('Content-Length'))
        self.first = self.client.read_bytes(10 * KiB)

    def rest(self):
        """How many bytes of the body came in all, and their hash; read until the end if it is not
        complete."""
        hashed = hashlib.sha256(self.first)
        have = len(self.first)
        client = self.client
        while have < self.length:
            if not client.buffer:
                client.received = bytearray()
                try:
                    if not client.fill():
                        break
                except (Ended, ssl.SSLError):
                    break
            data = client.buffer[:self.length - have]
            client.buffer = client.buffer[len(data):]
            hashed.update(data)
            have += len(data)
        return have, hashed.hexdigest()


def big_file(site, size=64 * MiB):
    block = random.Random(1).randbytes(MiB)
    data = b''.join(bytes([n & 255]) + block[1:] for n in range(size // MiB))
    write(site.root / 'big', data)
    return hashlib.sha256(data).hexdigest()


@KINDS
@pytest.mark.parametrize('fields', [[], ['Range: bytes=0-50000000'],
                                    ['Range: bytes=0-30000000,40000000-60000000']])
def test_a_file_that_is_truncated_while_it_is_sent(rig, tmp_path, kind, fields):
    site = make_site(rig, tmp_path)
    big_file(site)
    slow = Slow(site, kind, '/s/big', *fields)
    with slow.client:
        os.truncate(site.root / 'big', 1 * MiB)
        have, _ = slow.rest()
        assert have < slow.length
    site.weir.wait_log('a file changed or failed while it was sent')
    # What was found to have changed is looked up at once.
    assert site.get('/s/big').get('Content-Length') == str(1 * MiB)


@KINDS
def test_a_file_that_is_overwritten_while_it_is_sent(rig, tmp_path, kind):
    site = make_site(rig, tmp_path)
    big_file(site)
    slow = Slow(site, kind, '/s/big')
    with slow.client, open(site.root / 'big', 'r+b') as big:
        big.write(b'other')
        big.flush()
        have, _ = slow.rest()
        assert have < slow.length


@KINDS
@pytest.mark.parametrize('how', ['replaced', 'removed', 'grown'])
def test_a_file_that_goes_while_it_is_sent(rig, tmp_path, kind, how):
    """A name that means another file is no change of this one; one that grows is."""
    site = make_site(rig, tmp_path)
    sha = big_file(site)
    slow = Slow(site, kind, '/s/big')
    with slow.client:
        if how == 'replaced':
            write(site.root / 'fresh', b'new')
            os.rename(site.root / 'fresh', site.root / 'big')
        elif how == 'removed':
            os.unlink(site.root / 'big')
        else:
            with open(site.root / 'big', 'ab') as big:
                big.write(b'more')
        got = slow.rest()
        if how == 'grown':
            assert got[0] < slow.length
        else:
            assert got == (slow.length, sha)
            assert slow.client.get('/s/note.txt').body == b'a note'


# ---- clients


@KINDS
def test_clients_that_leave(rig, tmp_path, kind):
    site = make_site(rig, tmp_path)
    big_file(site, 16 * MiB)
    folder = f'/proc/{site.weir.pid}/fd'
    assert read_through(site.client(), '/s/big') == 16 * MiB
    before = len(os.listdir(folder))
    for number in range(20):
        slow = Slow(site, kind, '/s/big')
        if number % 2 and kind == 'plain':
            slow.client.reset()
        else:
            slow.client.close()
    wait_until(lambda: len(os.listdir(folder)) <= before, what='descriptors closed')
    assert site.get('/s/note.txt').body == b'a note'


@KINDS
def test_a_slow_client_gets_it_all_and_holds_nobody_up(rig, tmp_path, kind):
    site = make_site(rig, tmp_path)
    sha = big_file(site, 32 * MiB)
    slow = [Slow(site, kind, '/s/big') for _ in range(4)]
    began = time.monotonic()
    for _ in range(50):
        assert site.get('/s/note.txt', kind=kind).body == b'a note'
    assert time.monotonic() - began < tls_rig.seconds(10)
    for one in slow:
        assert one.rest() == (32 * MiB, sha)
        one.client.close()


def test_a_client_that_stops_reading_is_given_up(rig, tmp_path):
    site = make_site(rig, tmp_path)
    big_file(site)
    text = site.weir.file.read_text()
    site.weir.reload(text.replace('[server]\n', '[server]\nsend_timeout = "500ms"\n'))
    for kind in ['plain', 'tls']:
        slow = Slow(site, kind, '/s/big')
        with slow.client:
            line = site.weir.lines(1 if kind == 'plain' else 2, path='/s/big')[-1]
            assert line['bytes_out'] < 64 * MiB, line
            assert slow.rest()[0] < slow.length
