"""Clients that leave: the exchange is cancelled, the origin's connection closed, the log says why;
and clients that only close their sending side, who still get their answer."""
import socket
import threading
import time

import pytest

from conftest import Client, one_listener, wait_until


class SlowOrigin:
    """A script that reads a request, waits until told, and answers; notes when weir has gone."""

    def __init__(self):
        self.asked, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, connection):
        connection.read_request()
        self.asked.set()
        connection.sock.settimeout(0.02)
        while not self.go_on.is_set():
            try:
                if not connection.fill():
                    break
            except TimeoutError:
                continue
            except Exception:
                break
        else:
            connection.sock.settimeout(5)
            connection.answer(b'late')
            return
        self.left.set()


@pytest.fixture
def slow(start_weir, start_origin):
    def start(server=''):
        script = SlowOrigin()
        origin = start_origin(script)
        weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n', server))
        return weir, script
    return start


def gone(weir, status=499):
    record = weir.wait_access(reason='client_gone')[0]
    assert record['status'] == status
    return record


REQUESTS = {
    'GET': b'GET / HTTP/1.1\r\nHost: t\r\n\r\n',
    'POST': b'POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc',
    'large POST': b'POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n' + b'x' * 200000,
    'chunked POST': b'POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n'
                    b'186a0\r\n' + b'x' * 100000 + b'\r\n0\r\n\r\n',
    'HTTP/1.0': b'GET / HTTP/1.0\r\n\r\n',
    'pipelined': b'GET / HTTP/1.1\r\nHost: t\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\n',
}


@pytest.mark.parametrize('request_bytes', REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize('how', ['reset', 'close'])
def test_leaving_while_the_origin_thinks(slow, request_bytes, how):
    weir, script = slow('half_close_grace = "200ms"')
    client = Client(weir.port()).send(request_bytes)
    assert script.asked.wait(10)
    client.reset() if how == 'reset' else client.close()
    assert script.left.wait(5), 'the origin was not told'
    gone(weir)


def test_a_reset_does_not_wait_for_the_grace(slow):
    weir, script = slow('half_close_grace = "30s"')
    client = Client(weir.port()).send(REQUESTS['GET'])
    assert script.asked.wait(10)
    client.reset()
    assert script.left.wait(5)
    gone(weir)


def test_no_grace(slow):
    weir, script = slow('half_close_grace = 0')
    client = Client(weir.port()).send(REQUESTS['GET'])
    assert script.asked.wait(10)
    client.sock.shutdown(socket.SHUT_WR)
    assert script.left.wait(5)
    gone(weir)
    client.close()


@pytest.mark.parametrize('request_bytes', REQUESTS.values(), ids=REQUESTS)
def test_half_close_and_an_answer_in_time(slow, request_bytes):
    """`printf ... | nc`: the FIN comes with the request, the answer is still wanted."""
    weir, script = slow('half_close_grace = "10s"')
    with Client(weir.port()) as client:
        client.send(request_bytes)
        client.sock.shutdown(socket.SHUT_WR)
        assert script.asked.wait(10)
        time.sleep(0.1)
        script.go_on.set()
        response = client.read_response()
        assert (response.status, response.body) == (200, b'late')
        if b'/2' in request_bytes:
            assert client.read_response().body == b'late'
        assert client.at_end()


def test_half_close_beyond_the_grace(slow):
    weir, script = slow('half_close_grace = "200ms"')
    with Client(weir.port()) as client:
        client.send(REQUESTS['GET'])
        client.sock.shutdown(socket.SHUT_WR)
        assert script.left.wait(5)
        assert client.at_end()
        gone(weir)


def test_half_close_and_a_long_download(start_weir, start_origin):
    """The grace is for an answer to begin and go on, not for it to end."""
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n')
        for _ in range(20):
            connection.send(b'x')
            time.sleep(0.05)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{start_origin(script).url}"\n',
                                   'half_close_grace = "300ms"'))
    with Client(weir.port()) as client:
        client.send(REQUESTS['GET'])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read_response().body == b'x' * 20


UPLOADS = {
    'length': b'POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345',
    'nothing of it': b'POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n',
    'large': b'POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n' + b'x' * 100000,
    'chunked': b'POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n',
    'in a trailer': b'POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n'
                    b'0\r\nX: y\r\n',
}


@pytest.mark.parametrize('start', UPLOADS.values(), ids=UPLOADS)
@pytest.mark.parametrize('how', ['reset', 'close'])
def test_leaving_in_an_upload(start_weir, start_origin, start, how):
    whole, asked = [], threading.Event()

    def script(connection):
        request = connection.read_request_head()
        asked.set()
        connection.read_request_body(request)
        whole.append(request)
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    client = Client(weir.port()).send(start)
    assert asked.wait(10)
    client.reset() if how == 'reset' else client.close()
    gone(weir)
    wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')
    assert not whole, 'what the client cut must not look whole to the origin'


@pytest.mark.parametrize('how', ['reset', 'close'])
@pytest.mark.parametrize('framing', ['length', 'chunked'])
def test_leaving_in_a_download(start_weir, start_origin, how, framing):
    size = 64 * 1048576

    def script(connection):
        connection.read_request()
        if framing == 'length':
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size)
        else:
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for _ in range(size // 65536):
            connection.send((b'' if framing == 'length' else b'10000\r\n') + b'x' * 65536 +
                            (b'' if framing == 'length' else b'\r\n'))
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    for turn in range(20):  # the moment in which it leaves differs
        client = Client(weir.port()).send(REQUESTS['GET'])
        client.read_bytes(100000)
        client.reset() if how == 'reset' else client.close()
        weir.wait_access(turn + 1, status=200, reason='client_gone')
        wait_until(lambda: origin.connections[-1].sock.fileno() < 0, 5, 'origin connection closed')


PAUSES = {
    'chunked': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'large': b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello',
    'small': b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n',
}


@pytest.mark.parametrize('how', ['reset', 'close'])
@pytest.mark.parametrize('start', PAUSES.values(), ids=PAUSES)
def test_leaving_while_the_origin_pauses_in_its_answer(start_weir, start_origin, start, how):
    """An event stream: nothing is sent for minutes, but the client's end must reach the origin."""
    left = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(start)
        connection.at_end()
        left.set()
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{start_origin(script).url}"\n',
                                   'half_close_grace = "200ms"'))
    client = Client(weir.port()).send(REQUESTS['GET'])
    client.read_head()
    client.reset() if how == 'reset' else client.close()
    assert left.wait(5), 'the origin was not told'
    gone(weir, status=200)


def test_leaving_while_connecting(start_weir):
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    weir = start_weir(one_listener(
        f'[upstream.o]\nservers = ["127.0.0.1:{listener.getsockname()[1]}"]\nmax_connecting = 1\n'
        '[[route]]\nproxy = "o"\n', 'half_close_grace = "200ms"'))
    clients = [Client(weir.port()).send(REQUESTS['GET'])
               for _ in range(4)]  # one connects, three wait
    time.sleep(0.2)
    for client in clients[:2]:
        client.reset()
    for client in clients[2:]:
        client.close()
    weir.wait_access(4, seconds=5, reason='client_gone', status=499)
    for sock in (*fillers, listener):
        sock.close()


def test_the_pool_is_sound_after_clients_left(start_weir, start_origin):
    """Hundreds that leave at odd moments; then all is as before."""
    def script(connection):
        while True:
            request = connection.read_request()
            time.sleep(0.001)
            connection.answer(request.target.encode())
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{start_origin(script).url}"\n',
                                   'half_close_grace = "1ms"'))

    def leave(seed):
        for i in range(60):
            client = Client(weir.port())
            client.send_request(f'GET /{seed}/{i} HTTP/1.1', 'Host: t')
            if (i + seed) % 3 == 0:
                client.sock.settimeout(0.002)
                try:
                    client.fill()
                except Exception:
                    pass
            client.reset() if i % 2 else client.close()

    threads = [threading.Thread(target=leave, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(weir.port()) as client:
        for i in range(50):
            assert client.get(f'/last/{i}').body == f'/last/{i}'.encode()
