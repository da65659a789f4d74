"""Load, large bodies, many connections, and origins that die, with the release build where there is
one; and the tools that people use."""
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ops_rig import (RELEASE, Client, Load, get, need, rig, wait_until, wrk)

__all__ = ['rig']

MIB = 1 << 20
PIECE = os.urandom(MIB)
PIECE_TWICE = PIECE * 2
GIB_PIECES = 1024
BUFFER = 256 * 1024
# A sanitizer's shadow and quarantine would hide what weir itself takes.
PLAIN = b'__asan_init' not in pathlib.Path(RELEASE).read_bytes()

POOL_KIB = 1024 * 4 + 256  # a core's receive buffers and scratch, in use for the first time
STALLED_KIB = 300  # what one transfer may hold: the scratch's 256 KiB, copied aside, and its state

strategies = pytest.mark.parametrize('strategy', ['auto', 'oneshot'])


def proxying(origin, more='', strategy='auto', logging='access_log = "off"'):
    return (f'[[listener]]\naddress = "127.0.0.1:0"\n[logging]\n{logging}\n'
            f'[performance]\nreceive_strategy = "{strategy}"\n'
            f'[[route]]\nproxy = "{origin.url}"\n{more}\n')


def responding(body='hello', more=''):
    return (f'[[listener]]\naddress = "127.0.0.1:0"\n[logging]\naccess_log = "off"\n'
            f'[[route]]\nrespond = {{body = "{body}"}}\n{more}\n')


# ---- bodies of 1 GiB

class Check:
    """Compares what comes with endless repetitions of PIECE."""

    def __init__(self):
        self.bytes = 0

    def take(self, data):
        at = self.bytes % MIB
        assert PIECE_TWICE[at:at + len(data)] == data, f'wrong bytes near {self.bytes}'
        self.bytes += len(data)


def send_pieces(sock, pieces, chunked):
    if not chunked:
        for _ in range(pieces):
            sock.sendall(PIECE)
        return
    framed = b''.join(b'%x\r\n%s\r\n' % (BUFFER, PIECE[at:at + BUFFER])
                      for at in range(0, MIB, BUFFER))
    for _ in range(pieces):
        sock.sendall(framed)
    sock.sendall(b'0\r\n\r\n')


def receive_body(stream, check, length):
    """`stream` is a buffered file; without a length the body is chunked."""
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)

    def content(count):
        while count:
            got = stream.readinto1(view[:min(count, BUFFER)])
            assert got, f'the stream ended after {check.bytes} bytes'
            check.take(bytes(view[:got]))
            count -= got

    if length is not None:
        content(length)
        return
    while size := int(stream.readline().split(b';')[0], 16):
        content(size)
        assert stream.read(2) == b'\r\n'
    assert stream.readline() == b'\r\n'


def read_head(stream):
    """First line, and fields by their names in lower case."""
    first = stream.readline()
    fields = {}
    while (line := stream.readline()) not in (b'\r\n', b''):
        name, value = line.split(b':', 1)
        fields[name.lower()] = value.strip()
    return first, fields


class BulkOrigin:
    """GET /N or /chunked/N gets N MiB; the body of a POST is checked and its size answered."""

    def __init__(self):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{self.listener.getsockname()[1]}'
        self.failure = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        stream = sock.makefile('rb', BUFFER)
        try:
            while (head := read_head(stream))[0]:
                self.answer(sock, stream, *head)
        except OSError:
            pass
        except Exception as error:
            self.failure = error
        finally:
            stream.close()
            sock.close()

    @staticmethod
    def answer(sock, stream, first, fields):
        method, target, _ = first.split(b' ')
        if method == b'POST':
            check = Check()
            length = fields.get(b'content-length')
            receive_body(stream, check, None if length is None else int(length))
            body = b'%d' % check.bytes
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))
            return
        pieces = int(target.rsplit(b'/', 1)[1])
        chunked = b'chunked' in target
        framing = b'Transfer-Encoding: chunked' if chunked else b'Content-Length: %d' % (pieces * MIB)
        sock.sendall(b'HTTP/1.1 200 OK\r\n' + framing + b'\r\n\r\n')
        send_pieces(sock, pieces, chunked)

    def close(self):
        self.listener.close()
        assert self.failure is None, self.failure


@pytest.fixture
def bulk():
    origin = BulkOrigin()
    yield origin
    origin.close()


def download(port, pieces, chunked):
    with socket.create_connection(('127.0.0.1', port), 20) as sock:
        target = f'/chunked/{pieces}' if chunked else f'/{pieces}'
        sock.sendall(f'GET {target} HTTP/1.1\r\nHost: bulk\r\n\r\n'.encode())
        stream = sock.makefile('rb', BUFFER)
        first, fields = read_head(stream)
        assert first.startswith(b'HTTP/1.1 200 ')
        check = Check()
        length = fields.get(b'content-length')
        assert (length is None) == chunked
        receive_body(stream, check, None if chunked else int(length))
        assert check.bytes == pieces * MIB
        stream.close()


def upload(port, pieces, chunked):
    with socket.create_connection(('127.0.0.1', port), 20) as sock:
        framing = 'Transfer-Encoding: chunked' if chunked else f'Content-Length: {pieces * MIB}'
        sock.sendall(f'POST / HTTP/1.1\r\nHost: bulk\r\n{framing}\r\n\r\n'.encode())
        send_pieces(sock, pieces, chunked)
        stream = sock.makefile('rb', BUFFER)
        first, fields = read_head(stream)
        assert first.startswith(b'HTTP/1.1 200 ')
        assert int(stream.read(int(fields[b'content-length']))) == pieces * MIB
        stream.close()


def peak_kib(server):
    return int(server.status('VmHWM').split()[0])


def forget_peak(server):
    pathlib.Path(f'/proc/{server.pid}/clear_refs').write_text('5')


@pytest.mark.seconds(90)
@strategies
@pytest.mark.parametrize('chunked', [False, True], ids=['length', 'chunked'])
@pytest.mark.parametrize('way', [download, upload])
def test_a_gibibyte_passes_whole_and_memory_stays_flat(rig, bulk, way, chunked, strategy):
    # One thread: what another core takes for the first time is no growth.
    server = rig.weir(proxying(bulk, '[server]\nthreads = 1\n', strategy), binary=RELEASE)
    way(server.port, 64, chunked)
    forget_peak(server)
    before = server.rss_kib()
    begin = time.monotonic()
    way(server.port, GIB_PIECES, chunked)
    took = time.monotonic() - begin
    grown = peak_kib(server) - before
    print(f'{way.__name__}: {took:.1f} s, {grown} KiB more at the peak')
    assert not PLAIN or grown < 4 * 1024
    assert bulk.failure is None


def test_a_client_that_reads_slowly_holds_the_origin_back(rig):
    """Memory stays bounded however fast the origin is: what is not taken is not read."""
    sent = []

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % (1000 * MIB))
        slot = len(sent)
        sent.append(0)
        while True:
            sent[slot] += connection.sock.send(PIECE)

    server = rig.weir(proxying(rig.origin(script), '[server]\nthreads = 1\n'), binary=RELEASE)
    before = server.rss_kib()
    clients = [Client(server.port) for _ in range(100)]
    for client in clients:
        client.ask()
    wait_until(lambda: len(sent) == 100 and stalled(sent), 30)
    # Two socket buffers on the way, each of a few MiB at most (tcp_rmem, tcp_wmem).
    assert max(sent) < 40 * MIB
    grown = peak_kib(server) - before - POOL_KIB
    print(f'{grown / 100:.1f} KiB for each stalled download')
    assert not PLAIN or grown < 100 * STALLED_KIB
    for client in clients:
        client.reset()
    wait_until(lambda: server.stats()['connections'] == 0)
    assert server.stats()['buffers_in_use'] == 0


def stalled(sent):
    before = list(sent)
    time.sleep(0.5)
    return before == sent


def test_an_origin_that_reads_slowly_holds_the_client_back(rig):
    release = threading.Event()

    def script(connection):
        connection.read_request_head()
        release.wait(30)

    server = rig.weir(proxying(rig.origin(script), '[server]\nthreads = 1\n'), binary=RELEASE)
    clients = [Client(server.port) for _ in range(100)]
    for client in clients:
        client.send_request('POST / HTTP/1.1', 'Host: test', f'Content-Length: {1000 * MIB}')
        client.sock.setblocking(False)
    sent = [0] * len(clients)

    def full():
        progress = False
        for i, client in enumerate(clients):
            try:
                sent[i] += client.sock.send(PIECE)
                progress = True
            except BlockingIOError:
                pass
        if progress:
            full.since = time.monotonic()
        return time.monotonic() - full.since > 0.5

    full.since = time.monotonic()
    before = server.rss_kib()
    wait_until(full, 30)
    assert max(sent) < 40 * MIB
    grown = server.rss_kib() - before - POOL_KIB
    print(f'{grown / 100:.1f} KiB for each stalled upload')
    assert not PLAIN or grown < 100 * STALLED_KIB
    for client in clients:
        client.reset()
    release.set()
    wait_until(lambda: server.stats()['connections'] == 0)
    assert server.stats()['buffers_in_use'] == 0


# ---- many connections

@pytest.mark.seconds(120)
@strategies
def test_ten_thousand_idle_connections_are_served_again(rig, strategy):
    wanted = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted + 500:
        wanted = hard - 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    origin = rig.weir(responding(), binary=RELEASE, name='origin')
    server = rig.weir(proxying(origin, '[security]\nmax_concurrent_connections = 100000\n'
                                       '[server]\nkeepalive_timeout = "10m"\n', strategy),
                      binary=RELEASE)
    request = b'GET / HTTP/1.1\r\nHost: idle\r\n\r\n'
    sockets = []
    try:
        def ask(some):
            for sock in some:
                sock.sendall(request)
            for sock in some:
                answer = sock.recv(4096)
                assert answer.startswith(b'HTTP/1.1 200 ') and answer.endswith(b'hello'), answer

        def connect(count):
            some = [socket.create_connection(('127.0.0.1', server.port), 20) for _ in range(count)]
            sockets.extend(some)
            ask(some)

        # What is only taken once: tables, and the pool's buffers when first used.
        for _ in range(4):
            connect(500)
        before = server.rss_kib()
        while len(sockets) < wanted:
            connect(min(500, wanted - len(sockets)))
        wait_until(lambda: server.stats()['connections'] == wanted)
        each = (server.rss_kib() - before) * 1024 / (wanted - 2000)
        print(f'{wanted} connections, {each:.0f} bytes each')
        assert not PLAIN or each < 1536
        for at in range(0, wanted, 500):
            ask(sockets[at:at + 500])
        assert server.stats()['connections'] == wanted
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: server.stats()['connections'] == 0)
    assert server.stats()['buffers_in_use'] == 0


def test_connections_that_come_and_go_leave_nothing(rig):
    origin = rig.weir(responding(), binary=RELEASE, name='origin')
    server = rig.weir(proxying(origin), binary=RELEASE)

    def files():
        return len(os.listdir(f'/proc/{server.pid}/fd'))

    get(server.port)
    before = files()
    for turn in range(300):
        client = Client(server.port)
        if turn % 5 == 0:
            client.send(b'GET / HTT')
        elif turn % 5 == 1:
            client.ask()
        elif turn % 5 == 2:
            client.get()
        elif turn % 5 == 3:
            client.send_request('POST / HTTP/1.1', 'Host: a', 'Content-Length: 1000', body=b'x' * 10)
        client.reset() if turn % 2 else client.close()
    # Those that were pooled to the origin may stay.
    wait_until(lambda: server.stats()['connections'] == 0)
    wait_until(lambda: files() <= before + server.stats()['idle_connections'])
    assert server.stats()['buffers_in_use'] == 0


# ---- origins that die

def test_an_origin_killed_and_restarted_under_load_gives_clean_502s_and_recovers(rig):
    first = rig.weir(responding(), binary=RELEASE, name='origin')
    port = first.port
    server = rig.weir(proxying(first), binary=RELEASE)
    load = Load(server.port, clients=16, allowed=(200, 502))
    wait_until(lambda: load.answered > 500, 20)
    for turn in range(3):
        first.expected = {-signal.SIGKILL}
        first.process.kill()
        first.process.wait()
        before = load.statuses.get(502, 0)
        wait_until(lambda: load.statuses.get(502, 0) > before + 100)
        first = rig.weir(responding().replace('127.0.0.1:0', f'127.0.0.1:{port}'), binary=RELEASE,
                         name=f'origin{turn}')
        answered = load.statuses[200]
        wait_until(lambda: load.statuses[200] > answered + 500, 20)
        failed = load.statuses[502]
        time.sleep(0.3)
        assert load.statuses[502] == failed, '502 long after the origin was back'
    load.stop()
    assert not load.failures, load.failures[:5]
    assert set(load.statuses) == {200, 502}


def test_an_origin_that_restarts_in_order_under_load_loses_nothing(rig):
    """nginx -s reload and the like: idle connections end, requests on them are repeated."""
    first = rig.weir(responding(), binary=RELEASE, name='origin')
    second = rig.weir(responding(), binary=RELEASE, name='other')
    server = rig.weir('[[listener]]\naddress = "127.0.0.1:0"\n[logging]\naccess_log = "off"\n'
                      f'[upstream.app]\nservers = ["127.0.0.1:{first.port}", '
                      f'"127.0.0.1:{second.port}"]\n[[route]]\nproxy = "app"\n', binary=RELEASE)
    load = Load(server.port, clients=16)
    wait_until(lambda: load.answered > 500, 20)
    assert first.stop() == 0
    answered = load.answered
    wait_until(lambda: load.answered > answered + 500, 20)
    load.stop()
    assert not load.failures, load.failures[:5]


@pytest.mark.parametrize('close', ['fin', 'reset'])
def test_an_origin_that_ends_connections_at_random_under_load(rig, close):
    """Between requests only, as keep-alive timeouts do: no client may notice."""
    def script(connection):
        for _ in range(1 + connection.number % 7):
            connection.read_request()
            connection.answer(b'fine')
        if close == 'reset':
            time.sleep(0.002)  # what was answered is taken by then
            connection.reset()

    server = rig.weir(proxying(rig.origin(script)), binary=RELEASE)
    load = Load(server.port, clients=8)
    wait_until(lambda: load.answered > 2000, 40)
    load.stop()
    assert not load.failures, load.failures[:5]
    assert server.stats()['stale_retries'] > 0


# ---- the tools that people use

def curl(*words, **more):
    need('curl')
    return subprocess.run(['curl', '-sS', '--max-time', '20', *map(str, words)], capture_output=True,
                          timeout=30, **more)


class TestCurl:
    @pytest.fixture
    def server(self, rig, bulk):
        return rig.weir(proxying(bulk, '[[route]]\npath = "/local"\nrespond = {body = "here"}\n'))

    def test_get_head_and_1_0(self, server):
        done = curl('-i', f'{server.url}/local')
        assert done.stdout.startswith(b'HTTP/1.1 200 OK\r\n') and done.stdout.endswith(b'\r\n\r\nhere')
        done = curl('-I', f'{server.url}/local')
        assert b'Content-Length: 4\r\n' in done.stdout and done.returncode == 0
        done = curl('-0', f'{server.url}/3')
        assert done.stdout == PIECE * 3 and done.returncode == 0
        done = curl('-0', f'{server.url}/chunked/3')  # ended by the connection's end
        assert done.stdout == PIECE * 3 and done.returncode == 0

    def test_downloads(self, server):
        for target in ('/1', '/chunked/1', '/20', '/chunked/20'):
            done = curl(f'{server.url}{target}')
            assert done.returncode == 0 and done.stdout == PIECE * int(target.rsplit('/', 1)[1])

    @pytest.mark.parametrize('fields', [
        [], ['-H', 'Transfer-Encoding: chunked'], ['-H', 'Expect: 100-continue'], ['-H', 'Expect:'],
        ['-0']], ids=['plain', 'chunked', 'expect', 'no expect', 'HTTP/1.0'])
    def test_uploads(self, server, tmp_path, fields):
        file = tmp_path / 'body'
        file.write_bytes(PIECE * 20)
        done = curl('-X', 'POST', '-T', file, *fields, f'{server.url}/')
        assert done.returncode == 0 and done.stdout == str(20 * MIB).encode(), done.stderr

    def test_connections_are_used_again(self, server):
        done = curl('-v', *[f'{server.url}/local'] * 5)
        assert done.stdout == b'here' * 5
        assert done.stderr.count(b'Re-using existing connection') == 4

    def test_many_in_parallel(self, server):
        done = curl('-Z', '--parallel-max', 20, *[f'{server.url}/local'] * 200)
        assert done.returncode == 0 and done.stdout == b'here' * 200


@pytest.mark.parametrize('words', [['-k'], []], ids=['keep-alive', 'connection each'])
@pytest.mark.parametrize('local', [True, False], ids=['local', 'proxied'])
def test_ab(rig, words, local):
    """It speaks HTTP/1.0, with Connection: Keep-Alive if asked to."""
    need('ab')
    server = rig.weir(responding(), binary=RELEASE)
    if not local:
        server = rig.weir(proxying(server), binary=RELEASE)
    done = subprocess.run(['ab', '-q', '-n', '5000', '-c', '20', *words, f'{server.url}/'],
                          capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert re.search(r'Complete requests: +5000\n', done.stdout)
    assert re.search(r'Failed requests: +0\n', done.stdout), done.stdout
    assert 'Non-2xx' not in done.stdout
    if words:
        assert re.search(r'Keep-Alive requests: +5000\n', done.stdout), done.stdout


def test_wrk_through_three_weirs(rig):
    need('wrk')
    server = rig.weir(responding(), binary=RELEASE)
    for _ in range(2):
        server = rig.weir(proxying(server), binary=RELEASE)
    requests, trouble = wrk(server.url, 2)
    assert requests > 1000 and not trouble, (requests, trouble)


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / 'www'
    folder.mkdir(mode=0o755)
    (folder / 'small.txt').write_text('small\n')
    (folder / 'empty').write_bytes(b'')
    (folder / 'large').write_bytes(PIECE * 20)
    return folder


def child(command, port, **more):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)

    def answers():
        assert process.poll() is None, f'{command[0]} has ended'
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers)
    except BaseException:
        process.kill()
        raise
    return process


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Elsewhere:
    def __init__(self, name, port):
        self.name = name
        self.url = f'http://127.0.0.1:{port}'


def start_nginx(folder, tree, port):
    need('nginx')
    config = folder / 'nginx.conf'
    user = 'user root;' if os.geteuid() == 0 else ''
    paths = ' '.join(f'{name}_temp_path {folder}/{name};'
                     for name in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
    config.write_text(f'''{user} worker_processes 1; pid {folder}/nginx.pid; daemon off;
        events {{ worker_connections 512; }}
        http {{ access_log off; {paths} keepalive_requests 50;
          server {{ listen 127.0.0.1:{port}; root {tree}; }} }}''')
    program = shutil.which('nginx', path=os.environ['PATH'] + ':/usr/sbin')
    return child([program, '-e', f'{folder}/nginx.err', '-c', str(config)], port)


@pytest.fixture(params=['http.server', 'http.server 1.1', 'nginx'])
def real_origin(request, tree, tmp_path):
    port = free_port()
    if request.param == 'nginx':
        process = start_nginx(tmp_path, tree, port)
    else:
        words = ['--protocol', 'HTTP/1.1'] if request.param.endswith('1.1') else []
        process = child([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', '--directory',
                         str(tree), *words, str(port)], port)
    yield Elsewhere(request.param, port)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@strategies
def test_real_origins(rig, real_origin, strategy):
    server = rig.weir(proxying(real_origin, strategy=strategy))
    quick = real_origin.name == 'nginx'
    for _ in range(3):
        assert curl(f'{server.url}/small.txt').stdout == b'small\n'
        assert curl(f'{server.url}/empty').stdout == b''
        assert curl(f'{server.url}/large').stdout == PIECE * 20
    assert b' 404 ' in curl('-I', f'{server.url}/absent').stdout
    head = curl('-I', f'{server.url}/large').stdout
    assert f'content-length: {20 * MIB}\r\n'.encode() in head.lower()
    with Client(server.port) as client:
        # More than nginx's keepalive_requests; http.server waits 40 ms each time (delayed ACK).
        for _ in range(120 if quick else 10):
            assert client.get('/small.txt').body == b'small\n'
    load = Load(server.port, clients=4, target='/small.txt')
    wait_until(lambda: load.answered > (300 if quick else 40), 20)
    load.stop()
    assert not load.failures, load.failures[:5]


def test_wrk_with_nginx_behind(rig, tree, tmp_path):
    need('wrk')
    port = free_port()
    process = start_nginx(tmp_path, tree, port)
    try:
        server = rig.weir(proxying(Elsewhere('nginx', port)), binary=RELEASE)
        # nginx ends a connection after 50 requests, without a word to those on their way.
        requests, trouble = wrk(f'{server.url}/small.txt', 3)
        assert requests > 1000 and not trouble, (requests, trouble)
    finally:
        process.terminate()
        process.wait(10)
