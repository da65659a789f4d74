"""What becomes a tunnel and what does not: which protocols are offered to the origin, which of its
answers are believed, and where bytes go that come too early."""
import socket
import threading

import pytest

import conftest
import tls_rig
from conftest import wait_until
from tls_rig import MiB, rig
from tunnel_rig import KEY, UPGRADE, agree, echo_bytes, proxying, upgrade

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(60))


@pytest.mark.parametrize('fields, offered', [
    (('Connection: Upgrade', 'Upgrade: websocket'), 'websocket'),
    (('Connection: keep-alive, upgrade', 'Upgrade: WebSocket'), 'WebSocket'),
    (('Connection: Upgrade', 'Upgrade: h2c, websocket'), 'websocket'),
    (('Connection: Upgrade', 'Upgrade: foo/2', 'Upgrade: websocket, IRC/6.9'), 'websocket'),
    (('Connection: Upgrade', 'Upgrade: h2c'), None),
    (('Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAARAAAAA'),
     None),
    (('Connection: Upgrade', 'Upgrade: h2c, H2C'), None),
    (('Connection: Upgrade', 'Upgrade: websocket/13'), None),
    (('Connection: Upgrade', 'Upgrade: IRC/6.9'), None),
    (('Upgrade: websocket',), None),
    (('Connection: keep-alive', 'Upgrade: websocket'), None),
    (('Connection: Upgrade',), None),
], ids=str)
def test_what_is_offered_to_the_origin(rig, fields, offered):
    origin = rig.origin()
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        assert client.get('/', *fields).status == 200
        # An ordinary answer leaves both connections as they were.
        assert client.get('/next').status == 200
    request = origin.requests[0]
    assert request.get('Upgrade') == offered, request
    assert request.get('Connection') == ('Upgrade' if offered else None), request
    assert request.get('HTTP2-Settings') is None
    assert origin.requests[1].get('Upgrade') is None
    assert len(origin.connections) == 1


def test_http_1_0_is_not_upgraded(rig):
    origin = rig.origin()
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        assert client.request('GET / HTTP/1.0', *UPGRADE).status == 200
    assert origin.requests[0].get('Upgrade') is None


@pytest.mark.parametrize('setting, offers, offered', [
    ('upgrade = false', 'websocket', None),
    ('upgrade = ["irc/6.9", "websocket"]', 'IRC/6.9', 'IRC/6.9'),
    ('upgrade = ["irc/6.9", "websocket"]', 'x, websocket, irc/6.9', 'websocket'),
    ('upgrade = "irc/6.9"', 'websocket', None),
])
def test_what_a_route_allows(rig, setting, offers, offered):
    origin = rig.origin()
    weir = rig.weir(proxying(origin, route=setting))
    with conftest.Client(weir.port) as client:
        assert client.get('/', 'Connection: Upgrade', f'Upgrade: {offers}').status == 200
    assert origin.requests[0].get('Upgrade') == offered


def test_another_protocol(rig):
    def script(connection):
        request = connection.read_request_head()
        connection.send(b'HTTP/1.1 101 Welcome\r\nConnection: upgrade\r\n'
                        b'Upgrade: %s\r\nX-Kept: 1\r\nKeep-Alive: no\r\n\r\nhello '
                        % request.get('Upgrade').upper().encode())
        connection.send(connection.read_bytes(5))

    weir = rig.weir(proxying(rig.origin(script), route='upgrade = "Echo/1"'))
    with conftest.Client(weir.port) as client:
        client.send_request('POST / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: echo/1',
                            'Content-Length: 0')
        answer = client.read_head()
        assert (answer.status, answer.reason) == (101, 'Welcome')
        assert answer.get('Upgrade') == 'echo/1' and answer.get('Connection') == 'Upgrade'
        assert answer.get('X-Kept') == '1' and answer.get('Keep-Alive') is None
        assert client.read_bytes(6) == b'hello '
        client.send(b'world')
        assert client.read_to_end() == b'world'


@pytest.mark.parametrize('framing, body', [
    ('Content-Length: 5', b'hello'),
    ('Transfer-Encoding: chunked', b'5\r\nhello\r\n0\r\n\r\n')])
def test_an_upgrade_with_a_body_is_refused(rig, framing, body):
    origin = rig.origin()
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        answer = client.request('POST / HTTP/1.1', *UPGRADE, framing, body=body)
        assert answer.status == 400 and answer.get('Connection') == 'close'
        assert client.at_end()
    with conftest.Client(weir.port) as client:  # what is stripped has never been asked for
        answer = client.request('POST / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: h2c',
                                framing, body=body)
        assert answer.status == 200
    assert [request.body for request in origin.requests] == [b'hello']


def test_early_data_waits_for_the_101(rig):
    """And is the first thing that the origin gets behind it, with nothing lost, nor an end."""
    asked, go = threading.Event(), threading.Event()

    def script(connection):
        connection.read_request_head()
        asked.set()
        assert go.wait(20)
        connection.sock.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing but the request has come
            connection.sock.recv(1)
        connection.sock.settimeout(20)
        assert connection.buffer == b''
        connection.send(b'HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst')
        connection.send(b' ' + connection.read_to_end())

    weir = rig.weir(proxying(rig.origin(script), 'half_close_grace = "20s"'))
    with conftest.Client(weir.port) as client:
        client.send_request('GET / HTTP/1.1', *UPGRADE, body=b'early' + b'.' * 30_000)
        assert asked.wait(10)
        client.send(b' and more')
        client.sock.shutdown(socket.SHUT_WR)
        go.set()
        assert client.read_head().status == 101
        assert client.read_to_end() == b'first early' + b'.' * 30_000 + b' and more'


def test_early_data_is_the_next_request_when_there_is_no_101(rig):
    origin = rig.origin()
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        client.send_request('GET /one HTTP/1.1', *UPGRADE,
                            body=b'GET /two HTTP/1.1\r\nHost: a\r\n\r\n')
        assert client.read_response().status == 200
        assert client.read_response().status == 200
    assert [request.target for request in origin.requests] == ['/one', '/two']


def test_an_interim_answer_before_the_101(rig):
    def script(connection):
        connection.send(b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n')
        agree(connection)
        connection.send(b'hello')

    weir = rig.weir(proxying(rig.origin(script)))
    with conftest.Client(weir.port) as client:
        client.send_request('GET / HTTP/1.1', *UPGRADE, f'Sec-WebSocket-Key: {KEY}')
        assert client.read_head().status == 103
        assert client.read_head().status == 101
        assert client.read_to_end() == b'hello'


SWITCH = 'HTTP/1.1 101 S\r\n'


@pytest.mark.parametrize('asked, answer', [
    ((), f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket\r\n'),
    (('Connection: Upgrade', 'Upgrade: h2c'), f'{SWITCH}Connection: Upgrade\r\nUpgrade: h2c\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\nUpgrade: h2c\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket/13\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Upgrade: websocket\r\n'),
    (UPGRADE[1:3], 'HTTP/1.0 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'),
    (UPGRADE[1:3], f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n'),
    (UPGRADE[1:3],
     f'{SWITCH}Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n'),
], ids=str)
def test_a_wrong_101(rig, asked, answer):
    seen = []

    def script(connection):
        connection.read_request_head()
        connection.send(f'{answer}\r\nraw'.encode())
        seen.append(connection.read_to_end())

    weir = rig.weir(proxying(rig.origin(script)))
    with conftest.Client(weir.port) as client:
        assert client.get('/', *asked).status == 502
    wait_until(lambda: seen == [b''], what='the end of the connection to the origin')
    assert weir.line(status=502)['reason'] == 'upstream_malformed'
    assert weir.stats()['tunnels'] == 0


def test_a_refusal_is_an_ordinary_answer(rig):
    def script(connection):
        connection.read_request()
        connection.answer(b'no', 'Upgrade: other', 'Connection: upgrade', status='426 Upgrade')
        connection.read_request()
        connection.answer(b'yes')

    origin = rig.origin(script)
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        answer = client.get('/', *UPGRADE[1:])
        assert (answer.status, answer.body, answer.get('Upgrade')) == (426, b'no', None)
        assert client.get('/').body == b'yes'
    assert len(origin.connections) == 1


def test_an_origin_that_has_switched_serves_nobody_else(rig):
    origin = rig.origin(echo_bytes)
    weir = rig.weir(proxying(origin))
    for number in range(3):
        with conftest.Client(weir.port) as client:
            upgrade(client)
            client.send(b'x')
            assert client.read_bytes(1) == b'x'
            client.sock.shutdown(socket.SHUT_WR)
            assert client.at_end()
        assert len(origin.connections) == number + 1
    weir.lines(3, status=101)


def test_behind_a_pooled_connection(rig):
    """It may be the second request of its connection, and the first after a large answer."""
    def script(connection):
        connection.read_request()
        connection.answer(b'x' * MiB)
        echo_bytes(connection)

    origin = rig.origin(script)
    weir = rig.weir(proxying(origin))
    with conftest.Client(weir.port) as client:
        assert len(client.get('/').body) == MiB
        upgrade(client)
        for _ in range(100):
            client.send(b'message')
            assert client.read_bytes(7) == b'message'
    assert len(origin.connections) == 1
