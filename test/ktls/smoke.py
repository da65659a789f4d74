#!/usr/bin/python3
"""test/ktls/smoke.py: the real weir with kernel TLS, in short; run as root by test/ktls/run_program
in a virtual machine. It needs no pytest: openssl, curl and Python's own ssl.

  smoke.py [--rekey] WEIR     everything below; --rekey: the kernel takes new keys on a live socket
  smoke.py --without WEIR     a weir that was built without kernel TLS, on a kernel that has it
  smoke.py --gone WEIR        the kernel's `tls` was taken away: what weir does without it

What the kernel did is proved by three witnesses that do not know of each other: the access log's
tls_records, the deltas of /proc/net/tls_stat, and the record numbers of weir's own sockets, taken
out of its process by pidfd_getfd(2) and compared with the records counted on the wire. A line a
result; the last is `N passed, N failed`.
"""
import argparse
import contextlib
import ctypes
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

LIMIT = 120  # seconds for anything; the machine is 10 to 50 times slower than a real one
MiB = 1024 * 1024
SUITES = [('1.3', 'TLS_AES_128_GCM_SHA256', 'TLS_AES_128_GCM_SHA256'),
          ('1.3', 'TLS_AES_256_GCM_SHA384', 'TLS_AES_256_GCM_SHA384'),
          ('1.3', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_CHACHA20_POLY1305_SHA256'),
          ('1.2', 'ECDHE-ECDSA-AES128-GCM-SHA256', 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'),
          ('1.2', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384'),
          ('1.2', 'ECDHE-ECDSA-CHACHA20-POLY1305',
           'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256')]


def content(size):
    return (random.Random(7).randbytes(MiB) * (size // MiB + 1))[:size]


def sha(data):
    return hashlib.sha256(data).hexdigest()


def until(condition, what, limit=LIMIT):
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f'not within {limit} s: {what}'
        time.sleep(0.01)
    return value


def expect(got, wanted, what):
    assert got == wanted, f'{what}: {got}, expected {wanted}'


# ---- what the kernel says


def tls_stat():
    lines = pathlib.Path('/proc/net/tls_stat').read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


class Delta:
    """/proc/net/tls_stat between two moments: exactly these, no more."""

    NAMES = ('TlsTxSw', 'TlsRxSw', 'TlsDecryptError', 'TlsTxRekeyOk', 'TlsRxRekeyOk')

    def __init__(self):
        self.before = tls_stat()

    def expect(self, connections, errors=0, rekeys=(0, 0)):
        after = tls_stat()
        got = tuple(after.get(name, 0) - self.before.get(name, 0) for name in self.NAMES)
        expect(got, (connections, connections, errors, *rekeys), '/'.join(self.NAMES))


def borrow(pid, port):
    """weir's socket whose peer has this port; ours to look at, by pidfd_getfd(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for entry in pathlib.Path(f'/proc/{pid}/fd').iterdir():
            try:
                if not os.readlink(entry).startswith('socket:'):
                    continue
            except FileNotFoundError:
                continue
            fd = libc.syscall(438, pidfd, int(entry.name), 0)
            if fd < 0:
                continue
            sock = socket.socket(fileno=fd)
            with contextlib.suppress(OSError, IndexError, TypeError):
                if sock.getpeername()[1] == port:
                    return sock
            sock.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f'weir (pid {pid}) has no connection with port {port}')


def record_numbers(pid, port):
    """(sent, received) of weir's end of a connection, as the kernel counts them."""
    with borrow(pid, port) as sock:
        expect(sock.getsockopt(socket.IPPROTO_TCP, 31, 16).rstrip(b'\0'), b'tls', 'TCP_ULP')
        numbers = []
        for direction in (1, 2):  # TLS_TX, TLS_RX
            _, cipher = struct.unpack('HH', sock.getsockopt(282, direction, 4))
            size = {51: 40, 52: 56, 54: 56}[cipher]  # AES-128-GCM, AES-256-GCM, CHACHA20-POLY1305
            numbers.append(int.from_bytes(sock.getsockopt(282, direction, size)[-8:], 'big'))
        return tuple(numbers)


# ---- programs


class Origin(http.server.BaseHTTPRequestHandler):
    """GET /N: that many bytes; /text/N: the like, of letters. PUT: the body's hash."""

    protocol_version = 'HTTP/1.1'

    def answer(self, pieces, size):
        self.send_response(200)
        self.send_header('Content-Length', str(size))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.wfile.write(piece)

    def do_GET(self):
        size = int(self.path.rpartition('/')[2])
        if self.path.startswith('/text/'):
            return self.answer([letters(size)], size)
        block = content(MiB)
        return self.answer((block[:min(MiB, size - at)] for at in range(0, size, MiB)), size)

    def do_PUT(self):
        left, found = int(self.headers['Content-Length']), hashlib.sha256()
        while left:
            data = self.rfile.read(min(left, MiB))
            assert data, 'the upload was cut off'
            found.update(data)
            left -= len(data)
        self.answer([found.hexdigest().encode()], 64)

    def log_message(self, *_):
        pass


def letters(size):
    return content(size // 2 + 1).hex().encode()[:size]


class Weir:
    """`weir run` with one listener that speaks TLS, before an origin."""

    def __init__(self, program, folder, origin, tls='', upstream='', name='weir'):
        self.folder, self.name = folder, name
        file = folder / f'{name}.toml'
        file.write_text(
            f'[[listener]]\nname = "main"\naddress = "127.0.0.1:0"\ntls = true\n'
            '[server]\nthreads = 1\n[logging]\nflush_interval_ms = 10\n'
            f'[tls]\ncert_path = "{folder}/cert.pem"\nkey_path = "{folder}/key.pem"\n{tls}\n'
            f'[upstream.app]\nservers = ["{origin}"]\n{upstream}\n'
            '[[route]]\nproxy = "app"\n')
        with open(folder / f'{name}.err', 'wb') as err, open(folder / f'{name}.out', 'wb') as out:
            self.process = subprocess.Popen([program, 'run', '-c', str(file)], stdout=out,
                                            stderr=err, stdin=subprocess.DEVNULL)
        self.pid = self.process.pid

    def ready(self):
        def look():
            assert self.process.poll() is None, f'weir ended:\n{self.log()}'
            return ' info control ready cores=' in self.log()
        until(look, 'weir ready')
        self.port = int(re.search(r'listening address="?127\.0\.0\.1:(\d+)', self.log()).group(1))
        return self

    def log(self):
        return (self.folder / f'{self.name}.err').read_text(errors='replace')

    def line(self, **fields):
        """The access log's line with these fields; waits for it."""
        def look():
            text = (self.folder / f'{self.name}.out').read_text()
            lines = [json.loads(line) for line in text[:text.rfind('\n') + 1].splitlines()]
            return [line for line in lines if fields.items() <= line.items()]
        return until(look, f'a line with {fields} in the access log of {self.name}')[-1]

    def sockets(self):
        return sum(os.readlink(entry).startswith('socket:')
                   for entry in pathlib.Path(f'/proc/{self.pid}/fd').iterdir())

    def memory(self, key):
        """Bytes."""
        text = pathlib.Path(f'/proc/{self.pid}/status').read_text()
        return int(re.search(rf'^{key}:\s*(\d+)', text, re.M).group(1)) * 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        expect(self.process.wait(LIMIT), 0, f'exit status of {self.name}; its log:\n{self.log()}')
        bad = re.search(r'Sanitizer|runtime error:|(?i:check failed).*', self.log())
        assert not bad, f'{self.name}: {bad.group()}'

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class WireClient:
    """A client that counts what passes: `sent` and `received` records that carry ciphertext."""

    def __init__(self, port, folder, version):
        self.sock = socket.create_connection(('127.0.0.1', port), LIMIT)
        self.own_port = self.sock.getsockname()[1]
        context = ssl.create_default_context(cafile=folder / 'cert.pem')
        only = {'1.2': ssl.TLSVersion.TLSv1_2, '1.3': ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = only
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname='a.test')
        self.sent = self.received = 0
        self.rest = b''
        self.run(self.tls.do_handshake)

    def run(self, step):
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                result = None
            if data := self.outgoing.read():
                self.put(data)
            if result is not None or step == self.tls.do_handshake and self.tls.cipher() and \
                    self.done():
                return result
            data = self.sock.recv(65536)
            self.count(data)
            self.incoming.write(data) if data else self.incoming.write_eof()

    def done(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            return True
        return False

    def put(self, data):
        self.sent += self.whole(data)[0]
        self.sock.sendall(data)

    def count(self, data):
        number, self.rest = self.whole(self.rest + data)
        self.received += number

    @staticmethod
    def whole(data):
        """Whole records of application data (their type on the wire), and the rest."""
        number = 0
        while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[3:5], 'big')):
            number += data[0] == 23
            data = data[end:]
        return number, data

    def send(self, data):
        for at in range(0, len(data), 65536):
            self.tls.write(data[at:at + 65536])
            self.put(self.outgoing.read())

    def answer(self):
        """The body of the next response, which says its length."""
        data = b''
        while b'\r\n\r\n' not in data:
            data += self.run(lambda: self.tls.read(65536))
        head, _, body = data.partition(b'\r\n\r\n')
        assert b' 200 ' in head, head
        body, size = bytearray(body), int(re.search(rb'(?i)content-length: (\d+)', head).group(1))
        while len(body) < size:
            piece = self.run(lambda: self.tls.read(65536))
            assert piece, f'ended after {len(body)} bytes of {size}'
            body += piece
        return bytes(body)


class SClient:
    """`openssl s_client` that is typed to; all it says in `said`."""

    def __init__(self, port, folder, *options):
        self.said = b''
        self.process = subprocess.Popen(
            ['openssl', 's_client', '-connect', f'127.0.0.1:{port}', '-servername', 'a.test',
             '-CAfile', str(folder / 'cert.pem'), *options], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        self.wait_for(b'Verify return code: 0')

    def read(self):
        while data := self.process.stdout.read(65536):
            self.said += data

    def say(self, data):
        self.process.stdin.write(data)

    def wait_for(self, what):
        until(lambda: what in self.said, f'{what[:60]} from s_client, which said '
              f'{self.said[-500:]}', 30)

    def end(self):
        """Its exit status, once it ends by itself."""
        try:
            return self.process.wait(LIMIT)
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.thread.join(LIMIT)
        self.process.stdin.close()
        self.process.stdout.close()


# ---- the checks


class Smoke:
    def __init__(self, program, folder, rekey):
        self.program, self.folder, self.rekey = program, folder, rekey
        self.passed = self.failed = 0
        self.weirs = []
        subprocess.run(
            ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
             '-nodes', '-keyout', folder / 'key.pem', '-out', folder / 'cert.pem', '-subj',
             '/CN=a.test', '-days', '90', '-addext', 'subjectAltName=DNS:a.test'],
            check=True, capture_output=True, timeout=LIMIT)
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Origin)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f'127.0.0.1:{self.server.server_port}'

    def start(self, name='weir', origin=None, **more):
        self.weirs.append(Weir(self.program, self.folder, origin or self.origin, name=name, **more))
        return self.weirs[-1].ready()

    def check(self, name, step, *arguments):
        """One result."""
        began = time.monotonic()
        try:
            step(*arguments)
        except Exception as error:  # whatever it is, the others are done too
            self.failed += 1
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)
            print(f'FAILED {name}: {error}')
            for weir in self.weirs[-2:]:
                print(f'  the end of the log of {weir.name}:\n{weir.log()[-1500:]}')
        else:
            self.passed += 1
            print(f'ok {name} ({time.monotonic() - began:.1f} s)')
        sys.stdout.flush()

    def curl(self, weir, *requests):
        """Its standard output after these, each a path and options."""
        words = []
        for path, *options in requests:
            words += [*(['--next'] if words else []), '-sS', '--http1.1', '--fail', '--cacert',
                      str(self.folder / 'cert.pem'), *options, f'https://a.test:{weir.port}{path}']
        done = subprocess.run(['curl', '--resolve', f'a.test:{weir.port}:127.0.0.1', *words],
                              capture_output=True, timeout=LIMIT)
        expect(done.returncode, 0, f'exit status of curl, which said {done.stderr}')
        return done.stdout

    def suite(self, weir, records, version, name, logged, size=10 * MiB):
        """Down and up again by hash, on one connection."""
        only = {'1.3': ['--tlsv1.3', '--tls13-ciphers', name],
                '1.2': ['--tlsv1.2', '--tls-max', '1.2', '--ciphers', name]}[version]
        down, up = self.folder / 'down', self.folder / 'up'
        down.unlink(missing_ok=True)
        up.write_bytes(content(size))
        delta = Delta()
        said = self.curl(weir, (f'/{size}', *only, '-o', str(down), '-w', '%{num_connects} '),
                         (f'/{name}', *only, '-T', str(up), '-w', ' %{num_connects}'))
        expect(sha(down.read_bytes()), sha(up.read_bytes()), f'hash of {size} bytes down')
        expect(said.decode().split(), ['1', sha(up.read_bytes()), '0'], 'connects and hash up')
        delta.expect(1 if records == 'kernel' else 0)
        for path in (f'/{size}', f'/{name}'):
            line = weir.line(path=path, tls_cipher=logged)
            expect((line['tls'], line['tls_records']), (f'TLSv{version}', records), 'access log')

    def numbers(self, weir, version):
        """The kernel's record numbers against the records on the wire."""
        delta = Delta()
        client = WireClient(weir.port, self.folder, version)
        with client.sock:
            def turn():
                client.send(b'GET /300000 HTTP/1.1\r\nHost: a.test\r\n\r\n')
                expect(sha(client.answer()), sha(content(300000)), 'hash down')
                client.send(b'PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n')
                client.send(content(1000000))
                expect(client.answer().decode(), sha(content(1000000)), 'hash up')
                return record_numbers(weir.pid, client.own_port), (client.received, client.sent)
            kernel, wire = turn()
            kernel_then, wire_then = turn()
        for i, what in enumerate(('sent', 'received')):
            expect(kernel_then[i] - kernel[i], wire_then[i] - wire[i], f'records {what}')
        # 300000 bytes are 19 records and 1000000 are 62 at least.
        assert wire_then[0] - wire[0] >= 20 and wire_then[1] - wire[1] >= 63, (wire, wire_then)
        delta.expect(1)

    def key_update(self, weir, letter):
        """k and K typed to s_client. A kernel that cannot change keys: a clean end."""
        delta = Delta()
        client = SClient(weir.port, self.folder, '-tls1_3')
        try:
            client.say(b'GET /text/100 HTTP/1.1\r\nHost: a.test\r\n\r\n')
            client.wait_for(letters(100))
            client.say(letter + b'\n')
            client.wait_for(b'KEYUPDATE')
            if self.rekey:
                for size in (20000, 30000):
                    client.say(b'GET /text/%d HTTP/1.1\r\nHost: a.test\r\n\r\n' % size)
                    client.wait_for(letters(size))
                delta.expect(1, rekeys=(1 if letter == b'K' else 0, 1))
                return
            expect(client.end(), 0, f'exit status of s_client, which said {client.said[-500:]}')
            assert client.said.rstrip().endswith(b'closed'), client.said[-500:]
            assert b'error' not in client.said, client.said[-500:]
            delta.expect(1)
        finally:
            client.kill()

    def killed(self, weir):
        """A client that is killed while it takes a body leaves nothing behind."""
        before, sockets = tls_stat(), weir.sockets()
        file = self.folder / 'half'
        curl = subprocess.Popen(
            ['curl', '-sS', '--http1.1', '--limit-rate', '1M', '--cacert', self.folder / 'cert.pem',
             '--resolve', f'a.test:{weir.port}:127.0.0.1', '-o', file,
             f'https://a.test:{weir.port}/{200 * MiB}'], stderr=subprocess.DEVNULL)
        try:
            until(lambda: file.exists() and file.stat().st_size > 100000, 'some of the body')
            expect(tls_stat()['TlsCurrTxSw'], before['TlsCurrTxSw'] + 1, 'TlsCurrTxSw')
        finally:
            curl.kill()
            curl.wait()
        line = weir.line(path=f'/{200 * MiB}')
        expect(line['tls_records'], 'kernel', 'tls_records')
        for name in ('TlsCurrTxSw', 'TlsCurrRxSw'):
            until(lambda name=name: tls_stat()[name] == before[name], f'{name} as before')
        until(lambda: weir.sockets() <= sockets, 'the sockets as before')

    def flat(self, weir, size=64 * MiB):
        """A large body in memory that does not grow."""
        before = weir.memory('VmRSS')
        pathlib.Path(f'/proc/{weir.pid}/clear_refs').write_text('5')  # VmHWM starts anew
        expect(sha(self.curl(weir, (f'/{size}',))), sha(content(size)), 'hash down')
        grown = weir.memory('VmHWM') - before
        assert grown < 8 * MiB, f'it grew by {grown} bytes'

    def damaged(self, weir):
        """The counter of errors counts: one flipped bit ends the connection."""
        delta = Delta()
        client = WireClient(weir.port, self.folder, '1.3')
        with client.sock:
            client.send(b'GET /10 HTTP/1.1\r\nHost: a.test\r\n\r\n')
            expect(client.answer(), content(10), 'body')
            client.tls.write(b'GET /11 HTTP/1.1\r\nHost: a.test\r\n\r\n')
            data = bytearray(client.outgoing.read())
            data[-1] ^= 1
            client.sock.sendall(data)
            try:
                said = client.run(lambda: client.tls.read(65536))
            except (ssl.SSLError, ConnectionResetError) as error:
                said = str(error)
            assert 'BAD_RECORD_MAC' in str(said), f'the client was told {said!r}'
        delta.expect(1, errors=1)

    def origins(self, front, back, number, connections):
        """Kernel TLS on both sides of one weir: to the client, and to an origin with TLS."""
        delta = Delta()
        up = self.folder / 'up'
        up.write_bytes(content(3 * MiB))
        said = self.curl(front, (f'/{number}', '-T', str(up))).decode()
        expect(said, sha(content(3 * MiB)), 'hash up')
        for weir in (front, back):
            line = weir.line(path=f'/{number}')
            expect(line['tls_records'], 'kernel', f'tls_records of {weir.name}')
        expect(line['tls_resumed'], number > 0, 'whether the second connection was resumed')
        delta.expect(connections)

    def run(self):
        weir = self.start()
        before = tls_stat()
        for suite in SUITES:
            self.check(f'curl, {suite[0]} {suite[1]}', self.suite, weir, 'kernel', *suite)
        for version in ('1.2', '1.3'):
            self.check(f'record numbers, {version}', self.numbers, weir, version)
        for letter in (b'k', b'K'):
            self.check(f's_client {letter.decode()}', self.key_update, weir, letter)
        self.check('a client that is killed', self.killed, weir)
        self.check('64 MiB in flat memory', self.flat, weir)
        self.check('a damaged record', self.damaged, weir)
        self.check('stop', weir.stop)
        self.check('nothing stays open', lambda: expect(
            [tls_stat()[name] for name in ('TlsCurrTxSw', 'TlsCurrRxSw')], [0, 0], 'open sockets'))
        grown = tls_stat()['TlsTxSw'] - before['TlsTxSw']
        assert grown >= len(SUITES) + 6, f'only {grown} connections in the kernel'
        # The same with the kernel's part switched off: the proofs above can tell.
        weir = self.start('userspace', tls='ktls_enabled = false')
        for suite in SUITES[::3]:
            self.check(f'in userspace, {suite[1]}', self.suite, weir, 'userspace', *suite)
        self.check('in userspace, stop', weir.stop)

    def run_origins(self):
        """A kernel that tells of half records does those of clients only. With TLS 1.3 those of
        the first connection to an origin stay in userspace, for its tickets."""
        half = tuple(map(int, re.findall(r'\d+', os.uname().release)[:2])) < (6, 12)
        for version in ('1.2', '1.3'):
            back = self.start(f'back-{version}', tls=f'max_version = "{version}"')
            front = self.start(f'front-{version}', origin=f'https://127.0.0.1:{back.port}',
                               upstream=f'tls_ca_path = "{self.folder}/cert.pem"\n'
                                        'tls_server_name = "a.test"\n'
                                        'max_idle_connections_per_host = 0')
            for number in range(2):
                connections = 2 if half or (version, number) == ('1.3', 0) else 3
                self.check(f'an origin with TLS {version}, {("full", "resumed")[number]}',
                           self.origins, front, back, number, connections)
            self.check('front, stop', front.stop)
            self.check('back, stop', back.stop)

    def serves_without(self, reason, told):
        """All records in userspace: told once in the log, and in every line."""
        weir = self.start()
        expect(weir.log().count('TLS records are done in userspace: ' + told), 1, 'warnings')
        size = 3 * MiB
        expect(sha(self.curl(weir, (f'/{size}',))), sha(content(size)), 'hash down')
        line = weir.line(path=f'/{size}')
        expect((line['tls_records'], line['tls_why']), ('userspace', reason), 'access log')
        weir.stop()

    def refuses_without(self, told):
        """No fallback, no start."""
        self.weirs.append(Weir(self.program, self.folder, self.origin, name='strict',
                               tls='ktls_fallback_enabled = false'))
        status = self.weirs[-1].process.wait(LIMIT)
        assert status in (1, 2), f'exit status {status}'
        said = self.weirs[-1].log()
        assert 'there is no kernel TLS: ' + told in said, said

    def run_without(self):
        delta, told = Delta(), 'this weir was built without kernel TLS'
        self.check('built without kernel TLS', self.serves_without, 'not_built', told)
        self.check('built without kernel TLS, no fallback', self.refuses_without, told)
        self.check('built without kernel TLS: not even tried', delta.expect, 0)

    def run_gone(self):
        assert not os.path.exists('/proc/net/tls_stat'), 'the kernel has tls'
        told = 'kernel TLS: not available'
        self.check('a kernel without TLS', self.serves_without, 'no_kernel_tls', told)
        self.check('a kernel without TLS, no fallback', self.refuses_without, told)

    def close(self):
        for weir in self.weirs:
            weir.kill()
        self.server.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weir')
    parser.add_argument('--rekey', action='store_true')
    parser.add_argument('--without', action='store_true')
    parser.add_argument('--gone', action='store_true')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='weir-smoke-') as folder:
        smoke = Smoke(options.weir, pathlib.Path(folder), options.rekey)
        try:
            parts = [('clients', smoke.run), ('origins', smoke.run_origins)]
            if options.without or options.gone:
                parts = [('it', smoke.run_without if options.without else smoke.run_gone)]
            for name, part in parts:
                smoke.check(f'all of {name}', part)
        finally:
            smoke.close()
    print(f'{smoke.passed} passed, {smoke.failed} failed')
    return 0 if smoke.failed == 0 and smoke.passed > 0 else 1


if __name__ == '__main__':
    sys.exit(main())
