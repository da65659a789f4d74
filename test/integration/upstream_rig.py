"""What the tests of upstreams (test_failover.py, test_health.py, test_passive.py, test_names.py,
test_upstream_limits.py, test_sticky.py, test_distribution.py) need beyond conftest.py and
ops_rig.py: real nginx origins that can be killed and started again, origins that fail by script,
load by wrk that tells every failure, name servers, real (dnsmasq) and scripted ones."""
import contextlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import IO_SECONDS, Client, one_listener, wait_until
from ops_rig import SANITIZED, need

# What a sanitizer's build takes longer; for limits that are about time.
SLOWER = 4 if SANITIZED else 1
# weir's clock goes by milliseconds: what it waits for may end so much sooner.
TICK = 0.005

# ---- ports


_ports = set()


def server_port():
    """A free one, and none that some client's socket could get while its server is dead."""
    low = int(pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range').read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(max(1024, low // 2), low)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                tcp.bind(('127.0.0.1', port))
                udp.bind(('127.0.0.1', port))
                if port not in _ports:
                    _ports.add(port)
                    return port
    raise AssertionError('no free port')


def accepts(where):
    """`where`: (host, port), or the path of a Unix socket."""
    try:
        if isinstance(where, tuple):
            socket.create_connection(where, 1).close()
        else:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(where)
        return True
    except OSError:
        return False


# ---- configuration


def server_of(origin, **settings):
    """An entry of `servers`; `origin` may be an address."""
    address = origin if isinstance(origin, str) else origin.address
    pairs = ''.join(f', {key} = {str(value).lower()}' for key, value in settings.items())
    return f'{{address = "{address}"{pairs}}}'


def table(name, settings):
    """A TOML table of these settings; None: no such table."""
    if settings is None:
        return ''
    return f'[{name}]\n' + ''.join(f'{key} = {value}\n' for key, value in settings.items())


QUICK_CHECKS = {'interval': '"200ms"', 'timeout': '"150ms"', 'jitter': 0, 'unhealthy_threshold': 2,
                'healthy_threshold': 2}
NO_PASSIVE = {'enabled': 'false'}


def upstream(servers, settings='', *, health=None, passive=None, circuit=None, sticky=None,
             resolver=None, control=None, more='', route='', server='', threads=1):
    """One listener, and one upstream named o with these servers for every request. The keyword
    arguments are the settings of its tables, in TOML; `control` is a Control."""
    entries = ', '.join(one if one.startswith('{') else f'"{one}"'
                        for one in (s if isinstance(s, str) else s.address for s in servers))
    text = (f'[upstream.o]\nservers = [{entries}]\n{settings}\n'
            + table('upstream.o.health_check', health) + table('upstream.o.passive_check', passive)
            + table('upstream.o.circuit_breaker', circuit) + table('upstream.o.sticky', sticky)
            + table('resolver', resolver)
            + table('control', control and {'socket': f'"{control.path}"'})
            + f'{more}\n[[route]]\nproxy = "o"\n{route}\n')
    return one_listener(text, server).replace('threads = 1', f'threads = {threads}')


# What weir says of a server in its log: by active checks, and by passive ones or a circuit breaker.
DOWN, UP = 'a server is not healthy', 'a server is healthy again'
ASIDE, BACK = 'server put aside', 'server is back'


def said(what, server):
    """A pattern for the log."""
    return rf'{what} .*address="?{re.escape(server.address)}"?( |$)'


def answers(weir, count, target='/', *fields):
    """The contents of so many answers with status 200, one client."""
    with Client(weir.port()) as client:
        responses = [client.get(target, *fields) for _ in range(count)]
    assert all(r.status == 200 for r in responses), responses
    return [r.body.decode() for r in responses]


def wait_only(weir, *names, count=6):
    """Until these servers and no others answer."""
    def these():
        with Client(weir.port()) as client:
            responses = [client.get('/') for _ in range(count)]
        return all(r.status == 200 for r in responses) and \
            {r.body.decode() for r in responses} == set(names)
    wait_until(these, what=f'only {names}')


def reload(weir, config):
    """Returns when it is in force."""
    before = sum('config reloaded' in line for line in list(weir.lines))
    weir.rewrite(config)
    weir.wait_log('config reloaded', before + 1)


def get(weir, target='/', *fields):
    with Client(weir.port()) as client:
        return client.get(target, *fields)


_refused = itertools.count()


def refusal(weir, reason, status=503):
    """A request that weir has to refuse itself: the answer, checked, with its access record."""
    target = f'/refused-{next(_refused)}'
    response = get(weir, target)
    assert response.status == status, response
    assert response.get('Retry-After') == ('1' if status == 503 else None), response
    record = weir.wait_access(path=target)[0]
    assert (record['status'], reason_of(record)) == (status, reason), record
    return response, record


def reason_of(record):
    """Of an access record; those that went well have none."""
    return record.get('reason', 'none')


def tries_of(record):
    return record.get('tries', 0)


# ---- weir ctl


class Control:
    """What weir tells about its upstream o, and is told, through its socket."""

    def __init__(self, folder):
        self.path = str(pathlib.Path(folder) / 'ctl')

    def ask(self, *words):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(IO_SECONDS)
        with contextlib.closing(sock):
            sock.connect(self.path)
            sock.sendall(' '.join(('json', *map(str, words))).encode() + b'\n')
            answer = b''
            while piece := sock.recv(65536):
                answer += piece
        answer = json.loads(answer)
        assert answer['ok'], answer
        return answer

    def upstream(self):
        return next(one for one in self.ask('upstreams')['upstreams'] if one['name'] == 'o')

    def servers(self):
        """By address, or by name where there is none."""
        return {one['address'] or one['name']: one for one in self.ask('servers', 'o')['servers']}

    def set(self, server, state):
        self.ask('set', 'o', server.address, state)

    def wait_pending(self, count):
        wait_until(lambda: self.upstream()['pending'] == count, what=f'{count} that wait')


@pytest.fixture
def control(tmp_path):
    return Control(tmp_path)


# ---- nginx


ECHO_MODULE = '/usr/lib/nginx/modules/ngx_http_echo_module.so'
NGINX = '''
load_module {module}; daemon off; worker_processes 1; {user}
pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format requests '$server_addr $request_method $request_uri $status';
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    {listen}
    access_log {folder}/access.log requests;
    location = /_health {{ access_log off; return 200 "healthy\\n"; }}
    {more}
    location / {{ {answer} }}
  }}
}}
'''


class Nginx:
    """One server: a master and a worker of its own, that answers with its name, after `delay`
    seconds, or with `answer`. Its access log has all requests but those of /_health."""

    def __init__(self, folder, name, listen=None, more='', delay=0, answer=None):
        need('nginx')
        assert os.path.exists(ECHO_MODULE), 'libnginx-mod-http-echo is not installed: tools/setup'
        self.name = name
        self.folder = pathlib.Path(folder) / f'nginx-{name}'
        self.folder.mkdir()
        self.port = server_port()
        self.address = f'127.0.0.1:{self.port}'
        self.listen = f'listen {self.address};' if listen is None else listen(self)
        self.process = None
        self.config = self.folder / 'nginx.conf'
        self.answer = f'echo_sleep {delay}; echo -n {name};' if delay else \
            f'return 200 "{answer or name}";'
        self.write(more)
        self.start()

    def write(self, more=''):
        """Its configuration, with more for its server; in force with the next start."""
        user = 'user root;' if os.geteuid() == 0 else ''
        self.config.write_text(NGINX.format(folder=self.folder, user=user, listen=self.listen,
                                            more=more, answer=self.answer,
                                            module=ECHO_MODULE))

    def start(self):
        path = shutil.which('nginx', path=os.environ['PATH'] + ':/usr/sbin')
        self.process = subprocess.Popen(
            [path, '-e', str(self.folder / 'error.log'), '-p', str(self.folder),
             '-c', str(self.config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(self.ready, what='nginx')
        except BaseException:
            self.stop()
            raise

    def ready(self):
        assert self.process.poll() is None, (self.folder / 'error.log').read_text()
        return self.workers() and self.listens()

    def listens(self):
        where = re.search(r'listen (unix:)?([^; ]+)', self.listen)
        if where.group(1):
            return accepts(where.group(2))
        host, _, port = where.group(2).rpartition(':')
        return accepts((host.strip('[]'), int(port)))

    def workers(self):
        pid = self.process.pid
        try:
            return [int(word) for word in
                    pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
        except OSError:
            return []

    def kill(self):
        """kill -9, master and worker, whatever they are doing."""
        workers = self.workers()
        self.process.kill()
        self.process.wait()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.listens(), what='nginx is dead')

    def signal_workers(self, number):
        for pid in self.workers():
            os.kill(pid, number)

    def stop(self):
        if self.process.poll() is None:
            self.signal_workers(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def requests(self):
        """(address, method, URI, status) of each request up to now."""
        try:
            lines = (self.folder / 'access.log').read_text().splitlines()
        except FileNotFoundError:
            return []
        return [tuple(line.split(' ')) for line in lines]

    def count(self):
        try:
            return (self.folder / 'access.log').read_bytes().count(b'\n')
        except FileNotFoundError:
            return 0


@pytest.fixture
def start_nginx(tmp_path):
    """start_nginx(name, ...) -> Nginx"""
    running = []

    def start(name, **more):
        running.append(Nginx(tmp_path, name, **more))
        return running[-1]
    yield start
    for one in running:
        one.stop()


# ---- wrk


class Wrk:
    """wrk, in the background; result() waits for its end. Without a script: GETs of `url`."""

    def __init__(self, url, seconds, connections=16, threads=1, script=None, folder=None):
        need('wrk')
        words = []
        if script is not None:
            path = pathlib.Path(folder) / 'wrk.lua'
            path.write_text(script)
            words = ['-s', str(path)]
        self.seconds = seconds
        self.process = subprocess.Popen(
            ['wrk', f'-t{threads}', f'-c{connections}', f'-d{seconds}s', '--timeout', '20s',
             '--latency', *words, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self):
        """Its result, now."""
        self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self):
        text, _ = self.process.communicate(timeout=self.seconds + 30)
        assert self.process.returncode == 0, text
        return WrkResult(text)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class WrkResult:
    def __init__(self, text):
        self.text = text
        self.requests = int(re.search(r'(\d+) requests in', text).group(1))
        # Answers that are none of success, connects, reads, writes and timeouts that failed.
        self.trouble = re.findall(r'(?:Non-2xx.*|Socket errors.*)', text)
        number, unit = re.search(r'99%\s+([0-9.]+)(us|ms|s|m)\b', text).groups()
        self.p99_ms = float(number) * {'us': 0.001, 'ms': 1, 's': 1000, 'm': 60000}[unit]


@pytest.fixture
def start_wrk(tmp_path):
    running = []

    def start(url, seconds, **more):
        running.append(Wrk(url, seconds, folder=tmp_path, **more))
        return running[-1]
    yield start
    for one in running:
        one.stop()


# ---- origins by script


class Refusing:
    """An address that refuses every connection, kept from others meanwhile."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(('127.0.0.1', server_port()))
        self.port = self.socket.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'

    def stop(self):
        self.socket.close()


class Deaf:
    """An address where connections neither come about nor fail: its queue is full."""

    def __init__(self, host='127.0.0.1', port=0):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port or server_port()))
        self.port = self.socket.getsockname()[1]
        self.address = f'[{host}]:{self.port}' if ':' in host else f'{host}:{self.port}'
        self.socket.listen(0)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket(family)
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((host, self.port))
            self.fillers.append(filler)
        time.sleep(0.05)  # the handshakes of those that fit

    def stop(self):
        for filler in self.fillers:
            filler.close()
        self.socket.close()


@pytest.fixture
def closing():
    """closing(thing) -> thing, which is stopped behind the test."""
    with contextlib.ExitStack() as stack:
        def add(thing):
            stack.callback(thing.stop)
            return thing
        yield add


class Tries:
    """Origins that share a plan: what becomes of the first request that arrives at any of them, of
    the second, and so on; the last entry also of all that follow. `seen` has (server, request) in
    the order in which they were read.

    ok             200 with the server's name; the connection is kept
    echo           200 with the request's content
    NNN            that status, with "NNN of SERVER" as content
    close, reset   the connection ends so, once the whole request is there
    reset head     reset when the head is there
    reset middle   reset when a part of the content is there
    cut            a head and half of the content, then reset
    garbage        something that is not HTTP
    hang           nothing, until weir closes the connection; `closed` counts them
    slow N         200 after N seconds
    """

    def __init__(self, start_origin, servers, *plan):
        self.plan = list(plan)
        self.seen = []
        self.closed = 0
        self.lock = threading.Lock()
        self.origins = [start_origin(self._script(i)) for i in range(servers)]

    def _script(self, server):
        def serve(connection):
            while True:
                request = connection.read_request_head()
                with self.lock:
                    what = self.plan[min(len(self.seen), len(self.plan) - 1)]
                    self.seen.append((server, request))
                if not self._do(what, server, connection, request):
                    return
        return serve

    def _do(self, what, server, connection, request):
        word, _, rest = what.partition(' ')
        if word == 'reset' and rest:
            if rest == 'middle':
                connection.fill()
            connection.reset()
            return False
        connection.read_request_body(request)
        if word == 'reset':
            connection.reset()
        elif word == 'cut':
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ').reset()
        elif word == 'garbage':
            connection.send(b'220 mail.test ESMTP\r\n\r\n')
        elif word == 'hang':
            self._hang(connection, IO_SECONDS)
        elif word == 'slow':
            if not self._hang(connection, float(rest)):
                connection.answer(b'%d' % server)
                return True
        elif word == 'ok':
            connection.answer(b'%d' % server)
            return True
        elif word == 'echo':
            connection.answer(request.body)
            return True
        elif word != 'close':
            connection.answer(b'%s of %d' % (word.encode(), server), status=f'{word} Whatever')
            return True
        return False

    def _hang(self, connection, seconds):
        """True: weir has ended the connection within that time."""
        connection.sock.settimeout(seconds)
        try:
            ended = connection.at_end()
        except TimeoutError:
            connection.sock.settimeout(IO_SECONDS)
            return False
        if ended:
            with self.lock:
                self.closed += 1
        return ended

    def servers(self):
        with self.lock:
            return [server for server, _ in self.seen]

    def count(self):
        with self.lock:
            return len(self.seen)


class Switch:
    """An origin whose behaviour a test can change: `mode` is an entry of the plan of Tries."""

    def __init__(self, start_origin, name='ok', mode='ok', port=0):
        self.name, self.mode = name.encode(), mode
        self.count = 0
        self.checks = 0  # requests for /_health, which follow `health`
        self.health = 'ok'
        self.lock = threading.Lock()
        self.origin = start_origin(self._serve, port=port)
        self.address, self.port = self.origin.address, self.origin.port

    def _serve(self, connection):
        while True:
            request = connection.read_request()
            check = request.target == '/_health'
            with self.lock:
                self.checks += check
                self.count += not check
            mode = self.health if check else self.mode
            if mode == 'ok':
                connection.answer(self.name)
            elif mode == 'reset':
                return connection.reset()
            elif mode == 'hang':
                return connection.at_end()
            elif mode == 'stream':
                return self._stream(connection)
            elif mode.startswith('slow '):
                time.sleep(float(mode[5:]))
                connection.answer(self.name)
            elif mode == '204':
                connection.answer(status='204 No Content', length=False)
            else:
                connection.answer(mode.encode(), status=f'{mode} Whatever')

    @staticmethod
    def _stream(connection):
        """Without an end, and without a pause that would be one."""
        connection.send(b'HTTP/1.1 200 OK\r\n\r\n')
        while True:
            connection.send(b'more ' * 200)
            time.sleep(0.001)


# ---- name servers


class Dnsmasq:
    """dnsmasq, in the foreground, on a port of its own. All names are below .test; those that it
    does not have are not there (NXDOMAIN). SRV records take a restart."""

    def __init__(self, folder, hosts=(), srv=(), more=''):
        need('dnsmasq')
        self.folder = pathlib.Path(folder) / 'dnsmasq'
        self.folder.mkdir()
        self.port = server_port()
        self.address = f'127.0.0.1:{self.port}'
        self.process = None
        self.hosts_file = self.folder / 'hosts'
        self.log = self.folder / 'log'
        self.write(hosts)
        self.srv, self.more = list(srv), more
        self.start()

    def write(self, hosts):
        """`hosts`: pairs (name, address)."""
        fresh = self.folder / 'fresh'
        fresh.write_text(''.join(f'{address} {name}\n' for name, address in hosts))
        fresh.rename(self.hosts_file)

    def start(self):
        config = self.folder / 'dnsmasq.conf'
        user = 'user=root\ngroup=root\n' if os.geteuid() == 0 else ''
        config.write_text(
            f'no-daemon\nno-resolv\nno-hosts\nport={self.port}\nlisten-address=127.0.0.1\n'
            f'bind-interfaces\nlocal=/test/\nlocal-ttl=1\nneg-ttl=1\ncache-size=1000\n{user}'
            f'addn-hosts={self.hosts_file}\nlog-queries\nlog-facility={self.log}\n'
            f'pid-file={self.folder}/pid\n{self.more}\n' +
            ''.join(f'srv-host={one}\n' for one in self.srv))
        path = shutil.which('dnsmasq', path=os.environ['PATH'] + ':/usr/sbin')
        self.process = subprocess.Popen([path, f'--conf-file={config}'], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: self.process.poll() is None and accepts(('127.0.0.1', self.port)),
                       what='dnsmasq')
        except BaseException:
            self.stop()
            raise

    def set(self, *hosts):
        """Other names, from now on."""
        read = self.log.read_text().count('read ')
        self.write(hosts)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log.read_text().count('read ') > read, what='dnsmasq has read them')

    def queries(self, name):
        return len(re.findall(rf'query\[\w+\] {re.escape(name)} ', self.log.read_text()))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def start_dnsmasq(tmp_path):
    running = []

    def start(*hosts, **more):
        running.append(Dnsmasq(tmp_path, hosts, **more))
        return running[-1]
    yield start
    for one in running:
        one.stop()


A, AAAA, SRV = 1, 28, 33


class DnsQuery:
    def __init__(self, data):
        self.data = data
        self.id = data[:2]
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]])
            at += 1 + data[at]
        self.name = b'.'.join(labels).decode().lower()
        self.kind = struct.unpack('>H', data[at + 1:at + 3])[0]
        self.question = data[12:at + 5]

    def answer(self, *addresses, code=0, ttl=1, count=None):
        """A response with these addresses, as far as they are of the kind that was asked for."""
        family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(self.kind)
        records = b''
        number = 0
        for address in addresses:
            if (':' in address) != (family == socket.AF_INET6):
                continue
            data = socket.inet_pton(family, address)
            records += struct.pack('>HHHIH', 0xC00C, self.kind, 1, ttl, len(data)) + data
            number += 1
        head = struct.pack('>HHHHH', 0x8180 | code, 1, number if count is None else count, 0, 0)
        return self.id + head + self.question + records


class DnsServer:
    """A name server by UDP whose answers are those of `script(query)`: bytes, or None for none. It
    may be changed at any time."""

    def __init__(self, script):
        self.script = script
        self.queries = []
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind(('127.0.0.1', server_port()))
        self.port = self.socket.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.closed = False
        self.thread.start()

    def _serve(self):
        while True:
            try:
                data, client = self.socket.recvfrom(4096)
            except OSError:
                return
            if self.closed:
                return
            query = DnsQuery(data)
            self.queries.append(query)
            if (reply := self.script(query)) is not None:
                self.socket.sendto(reply, client)

    def stop(self):
        self.closed = True
        with socket.socket(type=socket.SOCK_DGRAM) as wake:
            wake.sendto(b'', ('127.0.0.1', self.port))
        self.thread.join(5)
        self.socket.close()
