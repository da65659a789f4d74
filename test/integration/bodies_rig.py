"""What the tests of bodies that move without copies (test_moved_bodies*.py, test_file_faults.py)
need beyond the other rigs: a weir with a plain listener and one with TLS, bodies of any size that
cost a test no memory, clients with small receive buffers, and what shows that nothing leaks.

Kinds of clients: 'plain', and one for each of tls_rig.MODES, which says who does the records."""
import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import time

import pytest

import conftest
import tls_rig
from conftest import Ended, wait_until
from tls_rig import MiB, MODES, client_context, config, ktls, pki, sha

GiB = 1024 * MiB
IN_MACHINE = tls_rig.SLOWNESS > 1  # where most sizes have to be smaller
KINDS = pytest.mark.parametrize('kind', ['plain', *MODES])
# For origins: without TLS, and with it.
ORIGINS = pytest.mark.parametrize('behind', ['plain', 'tls'])
# Bytes that may have been read into buffers before a relay knows how large its body is.
FIRST_BYTES = 1 * MiB


def moves(kind, behind='plain'):
    """Whether bytes may pass without being copied: no side's records are made in userspace."""
    sides = ([] if kind == 'plain' else [kind]) + ([] if behind == 'plain' else
                                                   ['kernel' if kind == 'plain' else kind])
    return all(tls_rig.records_expected(side) == 'kernel' for side in sides)


def listeners(kind):
    return '' if kind != 'plain' else '[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\n'


class Site:
    """A weir before files or an origin, whose clients are of one kind. Its memory is its own: what
    a sanitizer keeps of freed memory is little."""

    def __init__(self, rig, kind, routes, server='', performance='', **more):
        self.kind = kind
        env = {'ASAN_OPTIONS': 'quarantine_size_mb=4', **more.pop('env', {})}
        self.weir = rig.weir(
            config(routes, ktls(kind), server,
                   more=f'{listeners(kind)}[performance]\n{performance}\n'), env=env, **more)
        self.port = self.weir.port_of('plain' if kind == 'plain' else 'main')

    def client(self, receive_buffer=None):
        return (PlainClient if self.kind == 'plain' else SmallTlsClient)(self.port, receive_buffer)

    def ask(self, target, *fields, method='GET', receive_buffer=None):
        """A client that has sent a request and read the head of the answer."""
        client = self.client(receive_buffer)
        client.send_request(f'{method} {target} HTTP/1.1', 'Host: a.test', *fields)
        client.head = client.read_head()
        return client

    def get(self, target, *fields, method='GET', body=b''):
        with self.client() as client:
            return client.request(f'{method} {target} HTTP/1.1', 'Host: a.test', *fields, body=body)

    def curl(self, target, *options, limit=60):
        """Its standard output. It checks the length of what comes against the head."""
        scheme = 'http' if self.kind == 'plain' else 'https'
        done = subprocess.run(
            ['curl', '--silent', '--show-error', '--cacert', pki().ca_file,
             '--resolve', f'a.test:{self.port}:127.0.0.1', *options,
             f'{scheme}://a.test:{self.port}{target}'],
            capture_output=True, text=True, timeout=tls_rig.seconds(limit))
        assert done.returncode == 0, done.stderr + self.weir.log()[-3000:]
        return done.stdout

    def moved(self):
        """A function that gives by how much each counter of moved bytes has grown."""
        before = self.weir.stats()

        def grown():
            now = self.weir.stats()
            return {key: now[key] - before[key] for key in now
                    if key.startswith(('file_bytes_', 'body_bytes_'))}
        return grown

    def reason(self, **fields):
        """The reason in the one access record with these fields; None: none is given."""
        return self.weir.line(**fields).get('reason')


class PlainClient(conftest.Client):
    def __init__(self, port, receive_buffer=None):
        super().__init__(port, tls_rig.IO, receive_buffer)
        self.own_port = self.sock.getsockname()[1]


class SmallTlsClient(tls_rig.TlsClient):
    """A tls_rig.TlsClient whose receive buffer can be chosen."""

    def __init__(self, port, receive_buffer=None):
        if receive_buffer is None:
            super().__init__(port)
            return
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(tls_rig.IO)
        raw.connect(('127.0.0.1', port))
        self.own_port = raw.getsockname()[1]
        tls = client_context().wrap_socket(raw, server_hostname='a.test',
                                           suppress_ragged_eofs=False)
        conftest.Stream.__init__(self, tls)


class Got:
    """What came of a body. `end` is None when as much came as was asked for, else how it ended:
    'end' (in order: FIN, with TLS close_notify), 'cut' (TLS without close_notify) or 'reset'."""

    def __init__(self, size, digest, end):
        self.size, self.sha, self.end = size, digest, end

    def __repr__(self):
        return f'<{self.size} bytes, end: {self.end}>'


def take(client, limit=None, pause=0.0, piece=1 << 62):
    """Reads `limit` bytes (None: all) and keeps none. Sleeps after each `piece`."""
    digest, have, end, due = hashlib.sha256(), 0, None, piece
    while limit is None or have < limit:
        if not client.buffer:
            client.received = bytearray()
            try:
                if not client.fill():
                    end = 'end'
            except ssl.SSLEOFError:
                end = 'cut'
            except ssl.SSLZeroReturnError:
                end = 'end'
            except (Ended, ConnectionResetError):
                end = 'reset'
            if end is not None:
                break
        data = client.buffer if limit is None else client.buffer[:limit - have]
        client.buffer = client.buffer[len(data):]
        digest.update(data)
        have += len(data)
        if have >= due:
            due += piece
            time.sleep(pause)
    return Got(have, digest.hexdigest(), end)


# ---- files and origins


def sparse(path, size):
    """A file of zeros that takes no room."""
    with open(path, 'wb') as file:
        file.truncate(size)
    return path


def random_file(path, size):
    """Its hash. Every MiB of it is another."""
    block = tls_rig.content(MiB)
    digest = hashlib.sha256()
    with open(path, 'wb') as file:
        for number in range((size + MiB - 1) // MiB):
            data = (number.to_bytes(8, 'big') + block[8:])[:size - number * MiB]
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


def files(root, options=''):
    return f'[[route]]\nfile = {{path = "{root}"{options}}}\n'


def proxy(origin, upstream='', route=''):
    """Everything goes to this origin, whether it speaks TLS or not."""
    secure = origin.url.startswith('https')
    ca = f'tls_ca_path = "{pki().ca_file}"\n' if secure else ''
    server = origin.url if secure else origin.address
    return (f'[upstream.app]\nservers = ["{server}"]\n{ca}{upstream}\n'
            f'[[route]]\nproxy = "app"\n{route}')


def origin_of(rig, behind, script):
    return rig.tls_origin(script) if behind == 'tls' else rig.origin(script)


def zeros(folder):
    """A script: /N is N zeros with Content-Length, /close/N ends with the connection; an upload is
    thrown away and its size is the answer. The bytes cost this side no copies: no TLS."""
    def script(connection):
        while True:
            request = connection.read_request_head()
            if request.get('Content-Length'):
                size = swallow(connection, int(request.get('Content-Length')))
                connection.answer(b'%d' % size)
                continue
            size = int(request.target.rpartition('/')[2])
            closing = request.target.startswith('/close/')
            length = b'' if closing else b'Content-Length: %d\r\n' % size
            connection.send(b'HTTP/1.1 200 OK\r\n' + length + b'\r\n')
            pour(connection.sock, sparse(folder / f'zeros-{connection.number}', size))
            if closing:
                return
    return script


def pour(sock, path):
    """The whole of a file."""
    with open(path, 'rb') as file:
        sock.sendfile(file)


def swallow(connection, size):
    """Drops so many bytes, those that were read already first; the kernel does not copy them."""
    have = min(len(connection.buffer), size)
    connection.buffer = connection.buffer[have:]
    room = bytearray(MiB)
    while have < size:
        got = connection.sock.recv_into(room, min(size - have, MiB), socket.MSG_TRUNC)
        if got == 0:
            break
        have += got
    return have


def hashes(connection):
    """A script: /N is tls_rig.content(N), /close/N ends with the connection; the answer to an
    upload is its hash. A second answer is never mistaken for the first: all have X-Target."""
    while True:
        request = connection.read_request_head()
        target = b'X-Target: ' + request.target.encode() + b'\r\n'
        if request.get('Content-Length'):
            got = take(connection, int(request.get('Content-Length')))
            if got.end is not None:
                raise Ended()
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 64\r\n' + target + b'\r\n' +
                            got.sha.encode())
            continue
        body = tls_rig.content(int(request.target.rpartition('/')[2]))
        if request.target.startswith('/close/'):
            connection.send(b'HTTP/1.1 200 OK\r\n' + target + b'\r\n' + body)
            if isinstance(connection.sock, ssl.SSLSocket):
                tls_rig.say_goodbye(connection.sock)
            return
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n' % len(body) + target +
                        b'\r\n' + body)


def check_answer(response, target):
    """It is the whole answer of hashes() to a GET of this target."""
    assert response.get('X-Target') == target, response
    assert sha(response.body) == sha(tls_rig.content(int(target.rpartition('/')[2]))), response


# ---- descriptors


def descriptors(weir):
    return len(os.listdir(f'/proc/{weir.pid}/fd'))


@contextlib.contextmanager
def nothing_leaks(weir, pipes=0):
    """Behind it there are not more descriptors than before, but for so many pipes that are kept,
    and no client is connected."""
    most = descriptors(weir) + 2 * pipes
    yield
    wait_until(lambda: descriptors(weir) <= most, tls_rig.IO, 'descriptors closed')
    wait_until(lambda: weir.stats()['connections'] == 0, tls_rig.IO, 'clients gone')
