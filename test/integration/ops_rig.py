"""What the tests of weir's operations (test_ops_*.py) need beyond conftest.py: a weir whose binary,
limits, user and standard output a test can choose, clients with an address of their own, load that
notices every lost response. Everything a test starts ends with it, by process id; a sanitizer's
report, a failed CHECK or an unexpected exit status fails the test."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import conftest
from conftest import ROOT, WEIR, Ended, Origin, wait_until

# For load, and for memory: a sanitizer's own memory would hide weir's.
RELEASE = str(ROOT / 'build' / 'weir') if (ROOT / 'build' / 'weir').exists() else WEIR
SANITIZED = b'__asan_init' in pathlib.Path(WEIR).read_bytes()
BAD_SIGNS = re.compile(r'AddressSanitizer|LeakSanitizer|runtime error:|check failed|CHECK failed|'
                       r'terminate called')


def default_respond(body='ok\n'):
    return f'[[route]]\npath = "/"\nrespond = {{status = 200, body = {json.dumps(body)}}}\n'


class Weir:
    """One `weir run`. The configuration is weir.toml in `folder`, both logs are files there."""

    def __init__(self, folder, config, binary=WEIR, prefix=(), env=None, stdout=None, ready=True,
                 name='weir', **popen):
        self.folder = pathlib.Path(folder)
        self.file = self.folder / f'{name}.toml'
        if config is not None:  # else it is there already
            self.file.write_text(config)
        self.error_file = self.folder / f'{name}.err'
        self.access_file = self.folder / f'{name}.out'
        with open(self.error_file, 'wb') as err, open(self.access_file, 'wb') as out:
            self.process = subprocess.Popen(
                [*prefix, binary, 'run', '-c', str(self.file)], stderr=err, stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout, env={**os.environ, **(env or {})}, **popen)
        self.pid = self.process.pid
        self.expected = {0}
        if ready:
            self.wait_log(r' info control ready cores=', 20)

    # ---- what it says
    def log(self):
        return self.error_file.read_text(errors='replace')

    def wait_log(self, pattern, seconds=10, since=0):
        def look():
            match = re.search(pattern, self.log()[since:])
            if not match and self.process.poll() is not None:
                raise AssertionError(f'weir ended with {self.process.returncode}:\n{self.log()}')
            return match

        try:
            return wait_until(look, seconds, f'"{pattern}" in the log')
        except AssertionError as error:
            raise AssertionError(f'{error}\n{self.log()[-4000:]}') from None

    def access(self, count=0, seconds=5):
        """The access log's JSON lines, at least `count` of them."""
        def lines():
            text = self.access_file.read_text()
            complete = text[:text.rfind('\n') + 1].splitlines()
            return complete if len(complete) >= count else None

        return [json.loads(line) for line in wait_until(lambda: lines() or count == 0 and [None],
                                                        seconds, f'{count} access lines')
                if line is not None]

    def listening(self):
        """Listener name to what it is bound to, of all that were ever opened."""
        found = re.findall(r'listening address=(\S+) listener=(\S+)', self.log())
        return {name.strip('"'): address.strip('"') for address, name in found}

    def port_of(self, name):
        return int(self.listening()[name].rsplit(':', 1)[1])

    @property
    def port(self):
        first = re.search(r'listening address="?(\S+?):(\d+)"? ', self.log())
        return int(first.group(2))

    @property
    def url(self):
        """As Origin has it: a weir is a good origin for another."""
        return f'http://127.0.0.1:{self.port}'

    def stats(self):
        """The counters (SIGUSR2), summed over the cores; generations: the most of any core."""
        since = len(self.log())
        self.tell(signal.SIGUSR2)
        cores = int(re.search(r'ready cores=(\d+)', self.log()).group(1))
        lines = wait_until(
            lambda: (found := re.findall(r'info stats (?:requests|upstreams|moved|core) of_core=.*\n',
                                         self.log()[since:])) and len(found) == 4 * cores and found,
            10, 'the counters in the log')
        sums = {}
        for line in lines:
            for key, value in re.findall(r'(\w+)=(\d+)', line):
                total = sums.get(key, 0)
                sums[key] = max(total, int(value)) if key == 'generations' else total + int(value)
        return sums

    # ---- what is done to it
    def tell(self, number):
        self.process.send_signal(number)

    def write(self, config):
        self.file.write_text(config)

    def reload(self, config=None, seconds=15):
        """By SIGHUP; returns when it is done."""
        since = len(self.log())
        if config is not None:
            # Renamed over, so that a reload by inotify does not see half of it.
            fresh = self.file.with_suffix('.new')
            fresh.write_text(config)
            os.rename(fresh, self.file)
        self.tell(signal.SIGHUP)
        self.wait_log(r'config reloaded generation=', seconds, since)

    def stop(self, number=signal.SIGTERM, seconds=45):
        """Its exit status, after this signal."""
        if self.process.poll() is None:
            self.tell(number)
        return self.wait(seconds)

    def wait(self, seconds=45):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'weir did not end in {seconds} s:\n{self.log()[-3000:]}') from None

    def close(self):
        """Ends it as a test should leave it: in order, without a sign of a bug."""
        try:
            if self.process.poll() is None:
                self.tell(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(5)
            if self.process.poll() is None:
                self.tell(signal.SIGQUIT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
            ended = self.process.poll()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        log = self.log()
        assert not BAD_SIGNS.search(log), log[-6000:]
        assert ended is not None, f'weir does not end, not even by SIGQUIT:\n{log[-3000:]}'
        assert ended in self.expected, f'weir ended with {ended}:\n{log[-3000:]}'

    # ---- what the kernel says
    def status(self, key, thread=None):
        path = f'/proc/{self.pid}/status' if thread is None else f'/proc/{self.pid}/task/{thread}/status'
        text = pathlib.Path(path).read_text()
        return re.search(rf'^{key}:[ \t]*(.*)$', text, re.M).group(1)

    def rss_kib(self):
        return int(self.status('VmRSS').split()[0])

    def core_threads(self):
        """Thread ids of the cores, by index."""
        found = {}
        for task in pathlib.Path(f'/proc/{self.pid}/task').iterdir():
            name = (task / 'comm').read_text().strip()
            if match := re.fullmatch(r'weir-core-(\d+)', name):
                found[int(match.group(1))] = int(task.name)
        return [found[index] for index in sorted(found)]


class Client(conftest.Client):
    """A client of any address: a port of 127.0.0.1, a pair (host, port), or a Unix socket's path."""

    def __init__(self, where, source=None, timeout=conftest.IO_SECONDS):
        if isinstance(where, str):
            super().__init__(where, timeout)
            return
        if isinstance(where, int):
            where = ('127.0.0.1', where)
        sock = socket.create_connection(where, timeout, (source, 0) if source else None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conftest.Stream.__init__(self, sock)

    def get(self, target='/', *fields, host='test'):
        return self.request(f'GET {target} HTTP/1.1', f'Host: {host}', *fields)

    def post(self, target, body, *fields):
        return self.request(f'POST {target} HTTP/1.1', 'Host: test', f'Content-Length: {len(body)}',
                            *fields, body=body)

    def ask(self, target='/', *fields):
        """A request without waiting for its response."""
        return self.send_request(f'GET {target} HTTP/1.1', 'Host: test', *fields)


def get(where, target='/', *fields, **more):
    with Client(where) as client:
        return client.get(target, *fields, **more)


def closing(response):
    return response.get('Connection') == 'close'


class Load:
    """Clients in threads that send requests without a pause until stop(), or until connections are
    refused after `last_one` was set. A failure is a request that was sent on a connection and did not
    get its whole response, or got one with another status than those allowed."""

    def __init__(self, port, clients=8, target='/', keep_alive=True, allowed=(200,)):
        self.port, self.target, self.keep_alive = port, target, keep_alive
        self.allowed = allowed
        self.answered = 0
        self.refused = 0
        self.failures = []
        self.statuses = {}
        self.stopping = self.last_one = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopping:
            try:
                client = Client(self.port)
            except (ConnectionRefusedError, ConnectionResetError):
                with self.lock:
                    self.refused += 1
                if self.last_one:
                    return
                time.sleep(0.005)
                continue
            with client:
                self.use(client)

    def use(self, client):
        fields = [] if self.keep_alive else ['Connection: close']
        done = 0
        while not self.stopping:
            try:
                response = client.get(self.target, *fields)
            except (OSError, Ended) as error:
                with self.lock:
                    self.failures.append(f'request {done} of a connection: {error!r}')
                return
            done += 1
            with self.lock:
                self.answered += 1
                self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
                if response.status not in self.allowed:
                    self.failures.append(f'status {response.status}: {response.body[:80]}')
            if closing(response):
                return

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(30)
        return self


def wrk(url, seconds, connections=32, threads=1, *more):
    """Runs wrk; requests done, and the lines in which it reports errors."""
    done = subprocess.run(['wrk', f'-t{threads}', f'-c{connections}', f'-d{seconds}s', *more, url],
                          capture_output=True, text=True, timeout=seconds + 30)
    assert done.returncode == 0, done.stdout + done.stderr
    return wrk_result(done.stdout)


def wrk_result(text):
    requests = int(re.search(r'(\d+) requests in', text).group(1))
    return requests, re.findall(r'(?:Non-2xx.*|Socket errors.*)', text)


def need(*programs):
    """Fails where a program is missing: tools/setup installs them all, and a proof that is left out
    proves nothing."""
    for program in programs:
        if shutil.which(program, path=os.environ['PATH'] + ':/usr/sbin') is None:
            pytest.fail(f'{program} is not installed: tools/setup')


class Rig:
    def __init__(self, folder):
        self.folder = folder
        self.weirs = []
        self.origins = []

    def weir(self, config, **more):
        name = more.pop('name', f'weir{len(self.weirs)}' if self.weirs else 'weir')
        self.weirs.append(Weir(self.folder, config, name=name, **more))
        return self.weirs[-1]

    def origin(self, script=None, **more):
        self.origins.append(Origin(script or conftest.respond(), **more))
        return self.origins[-1]

    def close(self):
        errors = []
        for end in [weir.close for weir in self.weirs] + [origin.stop for origin in self.origins]:
            try:
                end()
            except Exception as error:  # whatever it is, the others are ended too
                errors.append(f'{type(error).__name__}: {error}')
        assert not errors, '\n'.join(errors)


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    try:
        yield rig
    finally:
        rig.close()
