"""Every time-out of the HTTP path, configured short: what the client is told, what the origin sees,
and that what was cut never looks whole."""
import contextlib
import socket
import time

import pytest

from conftest import Client, Ended, one_listener, wait_until

SHORT = 0.3  # seconds, as configured below
SOON = 5  # an upper bound that a busy machine keeps as well
SHORT_TEXT = '"300ms"'


@contextlib.contextmanager
def takes(seconds, at_most=SOON):
    begin = time.monotonic()
    yield
    spent = time.monotonic() - begin
    assert seconds - 0.02 <= spent <= at_most, spent


def proxy_to(origin, upstream='', server=''):
    return one_listener(f'[upstream.o]\nservers = ["{origin.address}"]\n{upstream}\n'
                        '[[route]]\nproxy = "o"\n'
                        '[[route]]\npath = "/local"\nrespond = {status = 200, body = "local"}\n',
                        server)


def drip(client, data, pause=0.05):
    """Sends byte by byte until the peer has had enough."""
    for at in range(len(data)):
        try:
            client.send(data[at:at + 1])
        except OSError:
            return
        time.sleep(pause)


# ---- the client


@pytest.fixture
def slow_clients(start_weir, start_origin):
    origin = start_origin()
    return start_weir(proxy_to(origin, server=f'client_header_timeout = {SHORT_TEXT}\n'
                               f'client_body_timeout = {SHORT_TEXT}\n')), origin


@pytest.mark.parametrize('start', [b'G', b'GET / HTTP/1.1\r\nHost: t',
                                   b'GET / HTTP/1.1\r\nHost: t\r\n'],
                         ids=['byte', 'field', 'line'])
def test_half_a_head(slow_clients, start):
    weir, origin = slow_clients
    with Client(weir.port()) as client, takes(SHORT):
        client.send(start)
        response = client.read_response()
        assert response.status == 408 and response.get('Connection') == 'close'
        assert client.at_end()
    assert weir.wait_access(status=408)[0]['reason'] == 'client_timeout'
    assert not origin.connections


def test_a_dripping_head_gets_no_more_time(slow_clients):
    with Client(slow_clients[0].port()) as client, takes(SHORT):
        drip(client, b'GET / HTTP/1.1\r\nHost: t\r\nX: y\r\n\r\n')
        assert client.read_response().status == 408
        assert client.at_end()


def test_nothing_at_all(slow_clients):
    """There is no request to answer: the connection just ends."""
    with Client(slow_clients[0].port()) as client, takes(SHORT):
        assert client.at_end() and not client.received


def test_half_a_second_head(slow_clients):
    with Client(slow_clients[0].port()) as client:
        assert client.get('/').status == 200
        with takes(SHORT):
            client.send(b'GET / HTT')
            assert client.read_response().status == 408
        assert client.at_end()


BODIES = [('Content-Length: 10', b'12345'), ('Content-Length: 10', b''),
          ('Transfer-Encoding: chunked', b''), ('Transfer-Encoding: chunked', b'5\r\n123'),
          ('Transfer-Encoding: chunked', b'1\r\n1\r\n0\r\nX: y\r\n'),
          ('Content-Length: 100000', b'x' * 50000)]


@pytest.mark.parametrize('framing,start', BODIES, ids=range(len(BODIES)))
def test_half_a_body(slow_clients, framing, start):
    weir, origin = slow_clients
    with Client(weir.port()) as client, takes(SHORT):
        client.send_request('POST / HTTP/1.1', 'Host: t', framing, body=start)
        response = client.read_response()
        assert response.status == 408 and response.get('Connection') == 'close'
        assert client.at_end()
    assert weir.wait_access(status=408)[0]['reason'] == 'client_timeout'
    wait_until(lambda: all(c.sock.fileno() < 0 for c in origin.connections), what='origin closed')


def test_a_slow_body_that_keeps_moving(slow_clients):
    weir, origin = slow_clients
    with Client(weir.port()) as client, takes(2 * SHORT):
        client.send_request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 14')
        drip(client, b'x' * 14)
        assert client.read_response().status == 200
    assert origin.requests[-1].body == b'x' * 14


def test_half_a_body_at_a_local_answer(slow_clients):
    with Client(slow_clients[0].port()) as client, takes(0):
        client.send_request('POST /local HTTP/1.1', 'Host: t', 'Content-Length: 10', body=b'12345')
        response = client.read_response()
        assert response.get('Connection') == 'close' and client.at_end()


def test_an_idle_connection_is_closed(start_weir, start_origin):
    weir = start_weir(proxy_to(start_origin(), server=f'keepalive_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client:
        assert client.get('/').status == 200
        with takes(SHORT):
            assert client.at_end() and not client.buffer
    with Client(weir.port()) as client:  # a request in time starts it anew
        for _ in range(3):
            assert client.get('/').status == 200
            time.sleep(SHORT / 2)


def test_a_client_that_does_not_read(start_weir, start_origin):
    """Its connection ends, and so does that to the origin; nothing is kept for it."""
    size = 40 * 1048576
    sent = []

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size)
        for _ in range(size // 65536):
            connection.send(b'x' * 65536)
            sent.append(65536)
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin, server=f'send_timeout = {SHORT_TEXT}'))
    with Client(weir.port(), receive_buffer=4096) as client:
        client.send_request('GET / HTTP/1.1', 'Host: t')
        record = weir.wait_access(status=200)[0]
        assert record['reason'] == 'client_timeout'
        wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')
        assert sum(sent) < size
        with pytest.raises(Ended):
            client.read_response()


def read_slowly(weir, client, size, step, pause):
    """A response's content of this size, so much at a time with pauses, the last part at once."""
    client.read_head()
    got = len(client.buffer)
    while got < size:
        piece = client.sock.recv(step)
        assert piece, f'ended after {got} bytes: {weir.access}'
        got += len(piece)
        time.sleep(pause if got < 4_000_000 else 0)
    assert got == size


def test_a_slow_reader_that_keeps_reading(start_weir, start_origin):
    size = 4 * 1048576

    def script(connection):
        connection.read_request()
        connection.answer(b'x' * size)
    weir = start_weir(proxy_to(start_origin(script), server=f'send_timeout = {SHORT_TEXT}'))
    with Client(weir.port(), receive_buffer=65536) as client, takes(2 * SHORT, 30):
        client.send_request('GET / HTTP/1.1', 'Host: t')
        read_slowly(weir, client, size, 200000, 0.02)


@pytest.mark.parametrize('kind', ['proxied', 'file', 'file in memory'])
def test_a_reader_much_slower_than_the_send_buffer(start_weir, start_origin, tmp_path, kind):
    """The kernel asks for more only when a third of its buffer is free, which may be megabytes: a
    client that takes little meanwhile, but takes it, has not stopped."""
    size = 16 * 1048576
    (tmp_path / 'file').write_bytes(b'x' * size)

    def script(connection):
        connection.read_request()
        connection.answer(b'x' * size)
    settings = f'send_timeout = {SHORT_TEXT}'
    if kind == 'proxied':
        config = proxy_to(start_origin(script), server=settings)
    else:
        mode = 'memory' if kind == 'file in memory' else 'sendfile'
        config = one_listener(f'[[route]]\nfile = {{path = "{tmp_path}", mode = "{mode}"}}', settings)
    weir = start_weir(config)
    with Client(weir.port()) as client, takes(4 * SHORT, 40):
        client.send_request('GET /file HTTP/1.1', 'Host: t')
        read_slowly(weir, client, size, 20000, 0.01)
        # Now it stops, and that is noticed in time.
        client.send_request('GET /file HTTP/1.1', 'Host: t')
        start = time.monotonic()
        weir.wait_access(1, reason='client_timeout')
        assert SHORT * 0.8 <= time.monotonic() - start <= SHORT * 10


# ---- the origin


@pytest.fixture
def black_hole():
    """An address that takes no connection: a listener whose queue is full."""
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield f'127.0.0.1:{listener.getsockname()[1]}'
    for sock in (*fillers, listener):
        sock.close()


def test_an_origin_that_does_not_accept(start_weir, black_hole):
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["{black_hole}"]\n'
                                   f'connect_timeout = {SHORT_TEXT}\n[[route]]\nproxy = "o"\n'))
    with Client(weir.port()) as client:
        for _ in range(2):
            with takes(SHORT):
                response = client.get('/')
            assert response.status == 504 and response.get('Connection') is None
    assert weir.wait_access(status=504)[0]['reason'] == 'upstream_timeout'


def test_the_next_server_is_tried_when_one_does_not_accept(start_weir, start_origin, black_hole):
    origin = start_origin()
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["{black_hole}", "{origin.address}"]\n'
                                   f'connect_timeout = {SHORT_TEXT}\n[[route]]\nproxy = "o"\n'))
    with Client(weir.port()) as client:
        for _ in range(4):
            assert client.get('/').status == 200


def test_connects_that_wait_for_their_turn(start_weir, black_hole):
    """max_connecting holds further requests back; they get the same time, then 504."""
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["{black_hole}"]\nmax_connecting = 1\n'
                                   f'connect_timeout = {SHORT_TEXT}\n[[route]]\nproxy = "o"\n'))
    clients = [Client(weir.port()) for _ in range(5)]
    with takes(SHORT, 3):
        for client in clients:
            client.send_request('GET / HTTP/1.1', 'Host: t')
        assert [client.read_response().status for client in clients] == [504] * 5
    for client in clients:
        client.close()


SILENT = {
    'nothing': b'',
    'half a status line': b'HTTP/1.1 20',
    'half a head': b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n',
    'interim only': b'HTTP/1.1 103 Early Hints\r\n\r\n',
}


@pytest.mark.parametrize('said', SILENT)
@pytest.mark.parametrize('size', [0, 100, 200000])
def test_an_origin_that_does_not_answer(start_weir, start_origin, said, size):
    def script(connection):
        connection.read_request()
        connection.send(SILENT[said])
        assert connection.at_end()
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin, f'response_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client:
        with takes(SHORT):
            response = client.request('POST / HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                      body=b'x' * size)
        assert response.status == 504 and response.get('Connection') is None
        wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')
        assert client.get('/local').body == b'local'
    assert weir.wait_access(status=504)[0]['reason'] == 'upstream_timeout'


def test_an_interim_response_gives_no_more_time(start_weir, start_origin):
    def script(connection):
        connection.read_request()
        for _ in range(12):
            connection.send(b'HTTP/1.1 103 Early Hints\r\n\r\n')
            time.sleep(SHORT / 4)
    weir = start_weir(proxy_to(start_origin(script), f'response_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client, takes(SHORT, 3 * SHORT):
        assert client.get('/').status == 504


STALLS = {
    'length': b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n' + b'x' * 50000,
    'length, head only': b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n',
    'chunked': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'chunked, in a trailer': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
                             b'1\r\nx\r\n0\r\nX: y',
    'close': b'HTTP/1.1 200 OK\r\n\r\nhello',
}


@pytest.mark.parametrize('version', ['1.1', '1.0'])
@pytest.mark.parametrize('stall', STALLS)
def test_an_origin_that_stops_in_its_body(start_weir, start_origin, stall, version):
    def script(connection):
        connection.read_request()
        connection.send(STALLS[stall])
        assert connection.at_end()
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin, f'read_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client, takes(SHORT):
        client.send_request(f'GET / HTTP/{version}', 'Host: t')
        with pytest.raises(Ended) as ended:
            client.read_response()
        # Where only the end of the connection ends the content, it must be a reset.
        if version == '1.0' and 'length' not in stall:
            assert ended.value.reset
    assert weir.wait_access(status=200)[0]['reason'] == 'upstream_timeout'
    wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')


def test_an_origin_that_does_not_take_the_request(start_weir, start_origin):
    def script(connection):
        connection.read_request_head()
        wait_until(lambda: weir.wait_access(status=504))
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin, f'send_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client:
        client.send_request('POST / HTTP/1.1', 'Host: t', f'Content-Length: {64 * 1048576}')
        sent = 0
        client.sock.settimeout(1)
        with contextlib.suppress(OSError):
            while sent < 64 * 1048576:
                sent += client.sock.send(b'x' * 262144)
        client.sock.settimeout(10)
        response = client.read_response()
        assert response.status == 504 and response.get('Connection') == 'close'
    assert weir.wait_access(status=504)[0]['reason'] == 'upstream_timeout'


def test_a_long_upload_is_not_a_slow_answer(start_weir, start_origin):
    """response_timeout starts when the request has been sent."""
    weir = start_weir(proxy_to(start_origin(), f'response_timeout = {SHORT_TEXT}'))
    with Client(weir.port()) as client, takes(3 * SHORT):
        client.send_request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 20')
        drip(client, b'x' * 20)
        assert client.read_response().status == 200
