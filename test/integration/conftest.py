"""What the integration tests share: weir as a child process, a raw client and a scriptable origin.

    def test_something(start_weir, start_origin):
        origin = start_origin(respond(b'hello'))
        weir = start_weir(one_listener(f'[[route]]\\nproxy = "{origin.url}"\\n'))
        with Client(weir.port()) as client:
            response = client.request('GET / HTTP/1.1', 'Host: a.test')
        assert (response.status, response.body) == (200, b'hello')

Every test has TEST_SECONDS unless marked @pytest.mark.seconds(N). A weir that start_weir gave is
ended with SIGTERM behind the test unless the test did so itself, and must then have exit status 0
and nothing of a sanitizer on standard error.
"""
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIR = os.environ.get('WEIR', str(ROOT / 'build-asan' / 'weir'))
TEST_SECONDS = 60
IO_SECONDS = 15  # no single socket operation of a test may take longer
SANITIZER = re.compile(r'AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|WEIR_CHECK')


def pytest_configure(config):
    # A shell without job control starts what it puts in the background with these ignored, and so
    # would every weir be: a signal that comes before it has blocked them would be lost.
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.addinivalue_line('markers', 'seconds(n): the time this test may take')


@pytest.fixture(autouse=True)
def time_limit(request):
    marker = request.node.get_closest_marker('seconds')
    seconds = marker.args[0] if marker else TEST_SECONDS

    def too_long(*_):
        raise TimeoutError(f'the test took longer than {seconds} s')

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def wait_until(condition, seconds=IO_SECONDS, what='condition'):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f'not within {seconds} s: {what}'
        time.sleep(0.01)


# ---- weir -------------------------------------------------------------------------------------


def one_listener(rest, server=''):
    """A configuration with one listener, one thread and quick logs; `server` goes into [server]."""
    return (f'[[listener]]\nname = "main"\naddress = "127.0.0.1:0"\n'
            f'[server]\nthreads = 1\n{server}\n'
            f'[logging]\nflush_interval_ms = 10\n{rest}\n')


class Weir:
    """A running weir. `lines` is its standard error, `access` its standard output, line by line."""

    def __init__(self, config_text, folder, arguments=(), listeners=None, environment=None):
        self.config = pathlib.Path(folder) / 'weir.toml'
        self.config.write_text(config_text)
        self.lines, self.access = [], []
        self.stopped = False
        self.process = subprocess.Popen(
            [WEIR, 'run', '-c', str(self.config), *arguments], text=True, errors='replace',
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})})
        self.threads = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.process.stderr, self.lines),
                                     (self.process.stdout, self.access))]
        for thread in self.threads:
            thread.start()
        if listeners is not None:
            wait_until(lambda: len(self.ports()) >= listeners, what='listeners')
        self.wait_log(r' control ready ')

    @staticmethod
    def _read(stream, into):
        for line in stream:
            into.append(line.rstrip('\n'))

    @property
    def pid(self):
        return self.process.pid

    def ports(self):
        """Listener name (or address) to port, as logged."""
        found = {}
        for line in list(self.lines):
            match = re.search(r' control listening address=\S*:(\d+)(?: listener="?([^"]*)"?)?$',
                              line)
            if match:
                found[match[2]] = int(match[1])
        return found

    def port(self, name='main'):
        return self.ports()[name]

    def log(self):
        return '\n'.join(self.lines)

    def wait_log(self, pattern, count=1, seconds=IO_SECONDS):
        """Waits until `pattern` is found in at least `count` lines of the error log."""
        def found():
            lines = [line for line in list(self.lines) if re.search(pattern, line)]
            if len(lines) >= count:
                return lines
            ended = self.process.poll()
            assert ended is None, f'weir ended: {ended}\n{self.log()}'
            return None
        try:
            return wait_until(found, seconds, what=f'{pattern!r} in the log')
        except AssertionError as error:
            raise AssertionError(f'{error}\n{self.log()}') from None

    def wait_access(self, count=1, seconds=IO_SECONDS, **fields):
        """Waits for access log records (JSON) with these values; gives them."""
        def found():
            records = [json.loads(line) for line in list(self.access)]
            fit = [r for r in records if all(r.get(key) == value for key, value in fields.items())]
            return fit if len(fit) >= count else None
        try:
            return wait_until(found, seconds, what=f'access records with {fields}')
        except AssertionError as error:
            raise AssertionError(f'{error}\n' + '\n'.join(self.access[-20:])) from None

    def rewrite(self, config_text):
        self.config.write_text(config_text)

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=40):
        """Waits for the end and gives the exit status; no sanitizer may have said anything."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.stopped = True
            raise AssertionError(f'weir did not end in {seconds} s\n{self.log()}') from None
        self.stopped = True
        for thread in self.threads:
            thread.join(5)
        assert not SANITIZER.search(self.log()), self.log()
        return status

    def stop(self, number=signal.SIGTERM, seconds=40):
        """Ends it by a signal; the exit status must be 0."""
        if self.process.poll() is None:
            self.send_signal(number)
        status = self.wait(seconds)
        assert status == 0, f'exit status {status}\n{self.log()}'

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start_weir(tmp_path):
    """start_weir(config_text, ...) -> Weir; see Weir.__init__."""
    running = []

    def start(config_text, **options):
        folder = tmp_path / f'weir{len(running)}'
        folder.mkdir()
        running.append(Weir(config_text, folder, **options))
        return running[-1]

    yield start
    try:
        for weir in running:
            if not weir.stopped:
                weir.stop()
    finally:
        for weir in running:
            weir.kill()


@pytest.fixture(scope='module')
def start_weir_for_module(tmp_path_factory):
    """As start_weir, for one weir that all tests of a module share."""
    running = []

    def start(config_text, **options):
        running.append(Weir(config_text, tmp_path_factory.mktemp('weir'), **options))
        return running[-1]

    yield start
    try:
        for weir in running:
            if not weir.stopped:
                weir.stop()
    finally:
        for weir in running:
            weir.kill()


# ---- messages ---------------------------------------------------------------------------------


class Ended(Exception):
    """The peer ended the connection (`reset`: by a reset) before what was read for was complete."""

    def __init__(self, seen=b'', reset=False):
        super().__init__(f'ended{" by reset" if reset else ""} after {seen[:300]!r}')
        self.seen, self.reset = seen, reset


class Message:
    """A parsed request or response. `fields` and `trailers` are lists of (name, value)."""

    def __init__(self, head):
        self.head = head
        lines = head.decode('latin-1').split('\r\n')
        self.start = lines[0]
        self.fields = [tuple(part.strip(' \t') for part in line.split(':', 1)) for line in lines[1:]
                       if line]
        self.trailers = []
        self.body = b''
        self.interim = []  # of a response: the 1xx that came before it
        words = self.start.split(' ', 2)
        self.is_response = words[0].startswith('HTTP/')
        if self.is_response:
            self.version, self.status = words[0], int(words[1])
            self.reason = words[2] if len(words) > 2 else None
        else:
            self.method, self.target, self.version = words

    def all(self, name, trailers=False):
        return [value for key, value in (self.trailers if trailers else self.fields)
                if key.lower() == name.lower()]

    def get(self, name, trailers=False):
        values = self.all(name, trailers)
        assert len(values) <= 1, f'{name} is there {len(values)} times'
        return values[0] if values else None

    @property
    def chunked(self):
        return (self.get('Transfer-Encoding') or '').lower() == 'chunked'

    def __repr__(self):
        return f'<{self.head!r} + {len(self.body)} bytes>'


class Stream:
    """Buffered reading and raw writing on a socket. Everything received is kept in `received`."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b''
        self.received = bytearray()

    def send(self, data):
        self.sock.sendall(data)
        return self

    def fill(self):
        """One more recv; False at the end of the stream."""
        try:
            data = self.sock.recv(262144)
        except ConnectionResetError:
            raise Ended(self.buffer, reset=True) from None
        self.buffer += data
        self.received += data
        return bool(data)

    def read_until(self, mark):
        searched = 0
        while (at := self.buffer.find(mark, searched)) < 0:
            searched = max(0, len(self.buffer) - len(mark))
            if not self.fill():
                raise Ended(self.buffer)
        data, self.buffer = self.buffer[:at + len(mark)], self.buffer[at + len(mark):]
        return data

    def read_bytes(self, count):
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            self.buffer = b''
            try:
                more = self.fill()
            except Ended:
                raise Ended(b''.join(pieces), reset=True) from None
            if not more:
                raise Ended(b''.join(pieces))
            pieces.append(self.buffer)
            have += len(self.buffer)
        data = b''.join(pieces)
        self.buffer = data[count:]
        return data[:count]

    def read_to_end(self):
        """All that comes until the peer ends its direction; Ended if that is by a reset."""
        pieces = [self.buffer]
        self.buffer = b''
        while self.fill():
            pieces.append(self.buffer)
            self.buffer = b''
        return b''.join(pieces)

    def read_chunked(self, message):
        body = []
        try:
            while True:
                size = int(self.read_until(b'\r\n').split(b';')[0], 16)
                if size == 0:
                    break
                body.append(self.read_bytes(size))
                assert self.read_bytes(2) == b'\r\n'
            while (line := self.read_until(b'\r\n')) != b'\r\n':
                name, value = line[:-2].decode('latin-1').split(':', 1)
                message.trailers.append((name, value.strip(' \t')))
        finally:
            message.body = b''.join(body)

    def at_end(self):
        """Whether the stream has ended (or been reset) with nothing left to read; waits for it."""
        if self.buffer:
            return False
        try:
            return not self.fill()
        except Ended:
            return True

    def reset(self):
        """Closes with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Client(Stream):
    """A raw client connection to 127.0.0.1:`port` (or to a Unix socket's path)."""

    def __init__(self, port, timeout=IO_SECONDS, receive_buffer=None):
        if isinstance(port, (str, bytes)):
            sock = socket.socket(socket.AF_UNIX)
            address = port
        else:
            sock = socket.socket()
            address = ('127.0.0.1', port)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect(address)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock)

    def send_request(self, start, *fields, body=b''):
        """Lines are written as given; nothing is added but `body`."""
        head = ''.join(f'{line}\r\n' for line in (start, *fields))
        return self.send(head.encode('latin-1') + b'\r\n' + body)

    def read_head(self):
        """The next response head, 1xx included."""
        return Message(self.read_until(b'\r\n\r\n')[:-2])

    def read_response(self, method='GET'):
        """The next final response, framed strictly; Ended when it stops before it is complete."""
        interim = []
        while (message := self.read_head()).status < 200 and message.status != 101:
            interim.append(message)
        message.interim = interim
        lengths = message.all('Content-Length')
        assert len(lengths) <= 1, message
        assert not (lengths and message.all('Transfer-Encoding')), message
        if method == 'HEAD' or message.status in (101, 204, 304):
            return message
        if message.chunked:
            self.read_chunked(message)
        elif lengths:
            message.body = self.read_bytes(int(lengths[0]))
        else:
            message.body = self.read_to_end()
        return message

    def request(self, start, *fields, body=b''):
        self.send_request(start, *fields, body=body)
        return self.read_response(start.split(' ')[0])

    def get(self, target, *fields):
        return self.request(f'GET {target} HTTP/1.1', 'Host: test', *fields)


# ---- origin -----------------------------------------------------------------------------------


class OriginConnection(Stream):
    """One accepted connection; `number` counts from 0."""

    def __init__(self, sock, origin, number):
        super().__init__(sock)
        self.origin, self.number = origin, number

    def read_request_head(self):
        message = Message(self.read_until(b'\r\n\r\n')[:-2])
        with self.origin.lock:
            self.origin.requests.append(message)
        return message

    def read_request_body(self, message):
        if message.chunked:
            self.read_chunked(message)
        elif (length := message.get('Content-Length')) is not None:
            message.body = self.read_bytes(int(length))
        return message

    def read_request(self):
        """The next request with its body; it is appended to origin.requests."""
        return self.read_request_body(self.read_request_head())

    def answer(self, body=b'', *fields, status='200 OK', length=True):
        lines = [f'HTTP/1.1 {status}', *fields]
        if length:
            lines.append(f'Content-Length: {len(body)}')
        return self.send(('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1') + body)


class Origin:
    """Listens on 127.0.0.1 and calls script(connection) in a thread for each connection, which is
    closed when the script returns. Ended and OSError in a script mean that weir has gone; any other
    exception fails the test. `connections` has them all, with every byte they received."""

    def __init__(self, script, port=0, backlog=1024):
        self.script = script
        self.requests, self.connections, self.errors = [], [], []
        self.lock = threading.Lock()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(('127.0.0.1', port))
        self.socket.listen(backlog)
        self.port = self.socket.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'
        self.url = f'http://{self.address}'
        self.closed = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            sock.settimeout(IO_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                connection = OriginConnection(sock, self, len(self.connections))
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.script(connection)
        except (Ended, OSError):
            pass
        except Exception as error:  # shown by stop()
            self.errors.append(error)
        finally:
            connection.close()

    def received(self):
        """Every byte that any connection brought."""
        with self.lock:
            return b''.join(bytes(connection.received) for connection in self.connections)

    def stop_listening(self):
        """New connections are refused from now on."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        self.thread.join(5)

    def stop(self):
        if self.closed:
            return
        self.closed = True
        self.stop_listening()
        for connection in list(self.connections):
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        assert not self.errors, self.errors


def respond(body=b'ok', *fields, status='200 OK'):
    """A script: the same answer to every request, connections kept."""
    def script(connection):
        while True:
            connection.read_request()
            connection.answer(body, *fields, status=status)
    return script


def echo(connection):
    """A script: answers with the body of the request."""
    while True:
        connection.answer(connection.read_request().body)


@pytest.fixture
def start_origin():
    """start_origin(script) -> Origin."""
    origins = []

    def start(script=None, **options):
        origins.append(Origin(script or respond(), **options))
        return origins[-1]

    yield start
    for origin in origins:
        origin.stop()


@pytest.fixture(scope='module')
def start_origin_for_module():
    origins = []

    def start(script=None, **options):
        origins.append(Origin(script or respond(), **options))
        return origins[-1]

    yield start
    for origin in origins:
        origin.stop()
