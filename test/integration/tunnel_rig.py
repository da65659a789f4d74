"""What the tests of tunnels (test_tunnel_*.py, test_connect.py) need beyond conftest.py and the
rigs: as much of WebSocket as shows that every byte arrives, and both ends of a tunnel."""
import base64
import hashlib
import os
import selectors
import socket
import ssl
import struct
import threading
import time

import pytest

import conftest
import tls_rig
from conftest import one_listener
from tls_rig import KiB, TlsClient

UPGRADE = ('Host: a.test', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13')
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = base64.b64encode(hashlib.sha1(
    KEY.encode() + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()).decode()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


# ---- WebSocket


def mask(data, key):
    long = (key * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, 'big') ^ int.from_bytes(long, 'big')).to_bytes(len(data), 'big')


def frame(kind, data, final=True, masked=False):
    size = len(data)
    flag = 0x80 if masked else 0
    head = bytes([kind | (0x80 if final else 0)])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += struct.pack('!BH', flag | 126, size)
    else:
        head += struct.pack('!BQ', flag | 127, size)
    if not masked:
        return head + data
    key = os.urandom(4)
    return head + key + mask(data, key)


def read_frame(stream):
    """kind, final, data"""
    first, second = stream.read_bytes(2)
    size = second & 0x7f
    if size == 126:
        size, = struct.unpack('!H', stream.read_bytes(2))
    elif size == 127:
        size, = struct.unpack('!Q', stream.read_bytes(8))
    key = stream.read_bytes(4) if second & 0x80 else None
    data = stream.read_bytes(size)
    return first & 0x0f, bool(first & 0x80), mask(data, key) if key else data


def agree(connection, *fields):
    """An origin reads a request and switches to WebSocket."""
    request = connection.read_request_head()
    assert request.get('Upgrade') == 'websocket', request
    assert request.get('Connection') == 'Upgrade', request
    accept = base64.b64encode(hashlib.sha1(
        (request.get('Sec-WebSocket-Key') or '').encode() +
        b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()).decode()
    lines = ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade',
             f'Sec-WebSocket-Accept: {accept}', *fields]
    connection.send(('\r\n'.join(lines) + '\r\n\r\n').encode())
    return request


def echo_frames(connection):
    """A WebSocket server that sends everything back, pings as pongs."""
    agree(connection)
    while True:
        kind, final, data = read_frame(connection)
        connection.send(frame(PONG if kind == PING else kind, data, final))
        if kind == CLOSE:
            return


def echo_bytes(connection):
    """Switches and sends every byte back; ends when the other side has."""
    agree(connection)
    connection.send(connection.buffer)
    connection.buffer = b''
    while connection.fill():
        connection.send(connection.buffer)
        connection.buffer = b''


REQUEST = '\r\n'.join(
    ('GET /chat HTTP/1.1', *UPGRADE, f'Sec-WebSocket-Key: {KEY}', '\r\n')).encode()


def upgrade(client):
    """The client's side; the 101 is checked and given."""
    client.send(REQUEST)
    answer = client.read_head()
    assert answer.status == 101, answer
    assert answer.get('Upgrade') == 'websocket' and answer.get('Connection') == 'Upgrade', answer
    assert answer.get('Sec-WebSocket-Accept') == ACCEPT, answer
    assert not answer.all('Content-Length') and not answer.all('Transfer-Encoding'), answer
    return answer


def proxying(origin, server='', route=''):
    return one_listener(f'[[route]]\nproxy = "{origin.url}"\n{route}', server)


class Joined:
    """A weir, an origin, and the two ends of one upgraded connection through it."""

    def __init__(self, rig, server='', receive_buffer=None):
        self.there = threading.Event()
        self.over = threading.Event()
        self.origin = rig.origin(self.script)
        self.weir = rig.weir(proxying(self.origin, server))
        self.client = conftest.Client(self.weir.port, receive_buffer=receive_buffer)
        upgrade(self.client)
        assert self.there.wait(10)

    def script(self, connection):
        agree(connection)
        self.server = connection
        self.there.set()
        self.over.wait(50)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.client.close()


class Chat:
    """A weir before an origin, and clients that are joined with it: all over TLS, or none."""

    def __init__(self, rig, secure, script=echo_frames):
        self.secure = secure
        self.origin = rig.origin(script)
        self.weir = rig.weir(tls_rig.config(tls_rig.proxy_to(self.origin)) if secure
                             else proxying(self.origin))
        self.clients = []

    def client(self):
        client = TlsClient(self.weir.port) if self.secure else conftest.Client(self.weir.port)
        self.clients.append(client)
        upgrade(client)
        return client

    def finish(self, client):
        """Ends the client's direction in order."""
        if self.secure:
            tls_rig.say_goodbye(client.sock)
        else:
            client.sock.shutdown(socket.SHUT_WR)

    def expect_end(self, client):
        """The other direction ends in order behind finish(), with nothing more to come."""
        if not self.secure:
            assert client.at_end()
            return
        with pytest.raises(ssl.SSLZeroReturnError):  # Python says so once its own end is said
            client.sock.recv(1)

    def close(self):
        for client in self.clients:
            client.close()


@pytest.fixture(params=['plain', 'tls'])
def chat(rig, request):
    """Chat(rig, ...) for both kinds of clients, by a script for its origin."""
    chats = []

    def start(script=echo_frames):
        chats.append(Chat(rig, request.param == 'tls', script))
        return chats[-1]

    yield start
    for one in chats:
        one.close()


class TlsPump:
    """Sends and receives on one TLS socket at once, from one thread."""

    def __init__(self, sock, data):
        self.sock, self.data = sock, memoryview(data)

    def run(self, expected):
        self.sock.settimeout(0)
        digest, have, end = hashlib.sha256(), 0, time.monotonic() + 100
        selector = selectors.DefaultSelector()
        selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while have < expected:
            assert time.monotonic() < end, have
            selector.modify(self.sock, selectors.EVENT_READ |
                            (selectors.EVENT_WRITE if self.data else 0))
            if not self.sock.pending():
                selector.select(5)
            try:
                if self.data:
                    self.data = self.data[self.sock.send(self.data[:64 * KiB]):]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            try:
                data = self.sock.recv(256 * KiB)
                assert data, have
                digest.update(data)
                have += len(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
        selector.close()
        return digest.hexdigest()
