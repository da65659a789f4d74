"""WebSocket through weir, every frame made by the test: what comes in goes out, in plain and over
TLS, little and much. test_tunnel_library.py has clients and servers that others wrote."""
import hashlib
import os
import struct
import threading

import pytest

import conftest
import tls_rig
from conftest import wait_until
from tls_rig import MiB, rig
from tunnel_rig import (BINARY, CLOSE, PING, PONG, REQUEST, TEXT, TlsPump, chat, echo_bytes,
                        echo_frames, frame, proxying, read_frame)

__all__ = ['chat', 'rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(60))


def test_messages(chat):
    client = chat().client()
    for kind, data in ((TEXT, 'gr\u00fc\u00dfe'.encode()), (BINARY, bytes(range(256))), (TEXT, b''),
                       (BINARY, os.urandom(70_000))):
        client.send(frame(kind, data, masked=True))
        assert read_frame(client) == (kind, True, data)
    client.send(frame(PING, b'are you there', masked=True))
    assert read_frame(client) == (PONG, True, b'are you there')


def test_fragmented_messages(chat):
    client = chat().client()
    pieces = [(TEXT, b'one ', False), (0, b'two ', False), (PING, b'between', True),
              (0, b'three', True)]
    for byte in b''.join(frame(*piece, masked=True) for piece in pieces):  # no frame comes whole
        client.send(bytes([byte]))
    for kind, data, final in pieces:
        assert read_frame(client) == (PONG if kind == PING else kind, final, data)


def test_an_end_in_order_and_its_record(chat):
    one = chat()
    client = one.client()
    goodbye = struct.pack('!H', 1000)
    sent = frame(TEXT, b'x' * 1000, masked=True) + frame(CLOSE, goodbye, masked=True)
    client.send(sent)
    assert read_frame(client) == (TEXT, True, b'x' * 1000)
    assert read_frame(client) == (CLOSE, True, goodbye)
    assert client.at_end()
    one.finish(client)
    record = one.weir.line(status=101)
    assert record['method'] == 'GET' and record['path'] == '/chat' and record['host'] == 'a.test'
    assert not record.get('reason'), record
    assert record['bytes_in'] == len(REQUEST) + len(sent), record
    assert record['bytes_out'] == len(client.received), record
    assert record['upstream_address'] == one.origin.address, record


@pytest.mark.seconds(tls_rig.seconds(120))
def test_100_mib_there_and_back(chat):
    """One message, echoed as it comes: both directions are busy at once, and neither is held."""
    one = chat(echo_bytes)
    size, block = 100 * MiB, os.urandom(MiB)
    client = one.client()
    head = bytes([0x82, 127]) + struct.pack('!Q', size)

    def send():
        client.send(head)
        for _ in range(size // MiB):
            client.send(block)
        if not one.secure:
            one.finish(client)

    if one.secure:  # an SSL object is not for two threads
        receive = TlsPump(client.sock, head + block * (size // MiB))
        assert receive.run(len(head) + size) == hashlib.sha256(
            head + block * (size // MiB)).hexdigest()
    else:
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert client.read_bytes(len(head)) == head
        for _ in range(size // MiB):
            assert client.read_bytes(MiB) == block
        assert client.at_end()
        sender.join(10)
    counted = one.weir.stats()
    assert counted['tunnel_bytes'] == 2 * (size + len(head)), counted
    if one.secure:
        assert counted['tunnel_bytes_spliced'] == 0 or tls_rig.kernel_tls(), counted
    else:
        assert counted['tunnel_bytes_spliced'] > 1.9 * size, counted


@pytest.mark.seconds(tls_rig.seconds(180))
def test_1000_connections_at_once(rig):
    """Each says a little, over and over; idle ones hold no buffers."""
    def script(connection):
        connection.sock.settimeout(120)
        echo_frames(connection)

    origin = rig.origin(script)
    weir = rig.weir(proxying(origin))
    clients = [conftest.Client(weir.port, timeout=60) for _ in range(1000)]
    try:
        for client in clients:
            client.send(REQUEST)
        for client in clients:
            assert client.read_head().status == 101
        for turn in range(3):
            for number, client in enumerate(clients):
                client.send(frame(TEXT, b'%d of %d' % (turn, number), masked=True))
            for number, client in enumerate(clients):
                assert read_frame(client) == (TEXT, True, b'%d of %d' % (turn, number))
        stats = weir.stats()
        assert stats['connections'] == 1000
        assert stats['buffers_in_use'] < 100, stats
        assert weir.stats()['tunnels'] == 1000
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: weir.stats()['connections'] == 0, what='the end of all connections')
    assert weir.stats()['buffers_in_use'] < 100
