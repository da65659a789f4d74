"""Files where the system is the limit: descriptors that run out, file systems that cannot say what
is in memory, clients that half-close, and what lies behind a body that was passed on."""
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import tempfile

import pytest

import conftest
import tls_rig
from conftest import Client, Origin, one_listener
from tls_rig import KiB, MiB, TlsClient, config, sha

pytestmark = tls_rig.LIMIT

PLAIN = '[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\n'


@contextlib.contextmanager
def origin_of(script):
    origin = Origin(script)
    try:
        yield origin
    finally:
        origin.stop()


@pytest.fixture
def in_memory():
    """A directory of tmpfs, which knows no RWF_NOWAIT."""
    folder = pathlib.Path(tempfile.mkdtemp(dir='/dev/shm'))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize('kind', ['plain', 'tls'])
@pytest.mark.parametrize('mode', ['sendfile', 'memory'])
def test_a_file_system_that_cannot_say(rig, in_memory, kind, mode):
    sizes = [1, 3 * KiB, 64 * KiB, 300 * KiB, 3 * MiB]
    bodies = {size: random.Random(size).randbytes(size) for size in sizes}
    for size, body in bodies.items():
        (in_memory / str(size)).write_bytes(body)
        os.utime(in_memory / str(size), (1e9, 1e9))
    weir = rig.weir(config(f'{PLAIN}[[route]]\nfile = {{path = "{in_memory}", mode = "{mode}"}}\n'))
    make = ((lambda: TlsClient(weir.port_of('main'))) if kind == 'tls'
            else (lambda: Client(weir.port_of('plain'))))
    for _ in range(3):
        with make() as client:
            for size, body in bodies.items():
                answer = client.get(f'/{size}')
                assert (answer.status, sha(answer.body)) == (200, sha(body)), size


@pytest.mark.parametrize('kind', ['plain', 'tls'])
def test_ranges_on_a_file_system_that_cannot_say(rig, in_memory, kind):
    """None of them begins where the file does."""
    body = random.Random(7).randbytes(3 * MiB)
    (in_memory / 'file').write_bytes(body)
    os.utime(in_memory / 'file', (1e9, 1e9))
    weir = rig.weir(config(f'{PLAIN}[[route]]\nfile = "{in_memory}"\n'))
    with (TlsClient(weir.port_of('main')) if kind == 'tls'
          else Client(weir.port_of('plain'))) as client:
        for first, last in [(1, 1), (5, 3000), (100_000, 250_000), (1_000_000, 3_000_000),
                            (2 * MiB, 3 * MiB - 1)]:
            answer = client.request('GET /file HTTP/1.1', 'Host: a.test',
                                    f'Range: bytes={first}-{last}')
            assert (answer.status, sha(answer.body)) == (206, sha(body[first:last + 1]))


def test_a_client_that_half_closes_gets_all_of_a_file(start_weir, tmp_path):
    """The grace is for answers that do not come, not for those that take longer than it."""
    size = 4 << 30
    with open(tmp_path / 'huge', 'wb') as file:
        file.truncate(size)
    os.utime(tmp_path / 'huge', (1e9, 1e9))
    weir = start_weir(one_listener(f'[[route]]\nfile = "{tmp_path}"\n',
                                   'half_close_grace = "50ms"'), listeners=1)
    with socket.create_connection(('127.0.0.1', weir.port()), 20) as sock:
        sock.sendall(b'GET /huge HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
        sock.shutdown(socket.SHUT_WR)
        room, got = bytearray(8 * MiB), 0
        while count := sock.recv_into(room):
            got += count
    assert got > size


@pytest.mark.parametrize('size', [100 * KiB, 256 * KiB, 1 * MiB, 4 * MiB])
@pytest.mark.parametrize('threshold', ['"64KiB"', '0'])
def test_an_origin_that_says_more_than_its_body(start_weir, size, threshold):
    """What is behind a body answers nobody, however the body was passed on."""
    extra = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL'

    def script(connection):
        if connection.read_request().target != '/first':
            return connection.answer(b'good')
        head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size
        connection.send(head + bytes(size) + extra)
        while connection.read_request():
            connection.answer(b'good')
    with origin_of(script) as origin:
        weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n[performance]\n'
                                       f'splice_threshold = {threshold}\n'), listeners=1)
        for _ in range(5):
            with Client(weir.port()) as client:
                for target in ['/first', '/second', '/third']:
                    client.send_request(f'GET {target} HTTP/1.1', 'Host: a.test')
                answers = [client.read_response().body for _ in range(3)]
                assert [len(answers[0]), *answers[1:]] == [size, b'good', b'good']


def test_a_listing_tells_nothing_of_what_is_not_served(start_weir, tmp_path):
    root = tmp_path / 'root'
    (root / 'sub').mkdir(parents=True)
    (tmp_path / 'secret.txt').write_bytes(b's' * 777)
    (root / 'plain.txt').write_bytes(b'p')
    (root / 'out.txt').symlink_to('../secret.txt')
    (root / 'absolute').symlink_to('/etc/passwd')
    (root / 'etc').symlink_to('/etc')
    (root / 'gone').symlink_to('nowhere')
    (root / 'inside.txt').symlink_to('plain.txt')
    (root / 'sub/up.txt').symlink_to('../plain.txt')
    (root / 'sub/far.txt').symlink_to('../../secret.txt')
    expected = {'inside': ({'plain.txt', 'inside.txt', 'sub'}, {'up.txt'}),
                'none': ({'plain.txt', 'sub'}, set()),
                'follow': ({'plain.txt', 'inside.txt', 'sub', 'out.txt', 'absolute', 'etc'},
                           {'up.txt', 'far.txt'})}
    for rule, (top, below) in expected.items():
        weir = start_weir(one_listener(
            f'[[route]]\nfile = {{path = "{root}", listing = true, symlinks = "{rule}"}}\n'),
            listeners=1)
        with Client(weir.port()) as client:
            for target, wanted in [('/', top), ('/sub/', below)]:
                listed = client.request(f'GET {target} HTTP/1.1', 'Host: a.test',
                                        'Accept: application/json')
                names = {entry['name'].rstrip('/') for entry in json.loads(listed.body)}
                assert names == wanted, (rule, target)
                for name in wanted - {'etc', 'sub'}:
                    assert client.get(target + name).status == 200, (rule, name)


def test_a_large_directory_stops_nobody(start_weir, tmp_path):
    """It is read in turns, and what is not shown counts as well."""
    for number in range(30_000):
        (tmp_path / f'.{number}').touch()
    weir = start_weir(one_listener(f'[[route]]\nfile = {{path = "{tmp_path}", listing = true}}\n'),
                      listeners=1)
    with Client(weir.port()) as client:
        answer = client.request('GET / HTTP/1.1', 'Host: a.test', 'Accept: application/json')
        assert (answer.status, answer.get('X-Listing-Incomplete')) == (200, 'true')


@pytest.fixture
def with_few_descriptors(rig, tmp_path):
    """A weir that may have 300, with a hundred files to serve."""
    for number in range(100):
        (tmp_path / f'{number}.txt').write_bytes(b'%d' % number)

    def start(more=''):
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
        return rig.weir(one_listener(
            f'[[route]]\nfile = {{path = "{tmp_path}", precompressed = false}}\n{more}'),
            preexec_fn=lower)
    return start


def descriptors(weir):
    return len(os.listdir(f'/proc/{weir.pid}/fd'))


def test_open_files_leave_room_for_clients(with_few_descriptors):
    weir = with_few_descriptors()
    idle = descriptors(weir)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(weir.port))
        for number in range(100):
            assert client.get(f'/{number}.txt').body == b'%d' % number
        assert 20 < descriptors(weir) - idle < 60
        for _ in range(120):
            other = stack.enter_context(Client(weir.port, timeout=10))
            assert other.get('/1.txt').body == b'1'
    assert 'cannot accept' not in weir.log()


def test_no_descriptor_for_a_client(with_few_descriptors):
    """What is only kept for later is closed, the log says so, and the client is served."""
    weir = with_few_descriptors('[security]\nmax_concurrent_connections = 1000\n')
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(weir.port))
        for number in range(100):
            assert client.get(f'/{number}.txt').body == b'%d' % number
        for _ in range(300 - descriptors(weir) + 10):  # ten more than there are descriptors for
            other = stack.enter_context(Client(weir.port, timeout=10))
            assert other.get('/99.txt').body == b'99'
    assert 'cannot accept a connection' in weir.log()


def test_a_refused_connect_ends_the_connection(start_weir):
    """What follows it was for the target, and is no request."""
    with origin_of(conftest.respond()) as origin:
        weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'), listeners=1)
        with Client(weir.port()) as client:
            client.send(b'CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n'
                        b'GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n')
            answer = client.read_response()
            assert (answer.status, answer.get('Connection')) == (405, 'close')
            assert client.at_end()


@pytest.fixture
def rig(tmp_path):
    made = tls_rig.Rig(tmp_path)
    try:
        yield made
    finally:
        made.close()
