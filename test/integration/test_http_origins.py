"""Origins that misbehave, and the pool of their connections: a whole truth or a clean 502, never
the answer to somebody else's request, and a retry only where nothing can happen twice."""
import random
import threading
import time

import pytest

from conftest import Client, Ended, Origin, one_listener, respond, wait_until


def proxy_to(origin, upstream='', server=''):
    return one_listener(f'[upstream.o]\nservers = ["{origin.address}"]\n{upstream}\n'
                        '[[route]]\nproxy = "o"\n', server)


def content(size):
    return random.Random(size).randbytes(size)


def chunk(data):
    return b'%x\r\n%s\r\n' % (len(data), data)


# ---- no answer, half an answer


ENDS = {
    'nothing': b'',
    'half a status line': b'HTTP/1.1 2',
    'half a head': b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n',
    'after an interim': b'HTTP/1.1 103 Early Hints\r\n\r\n',
    'after 100': b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n',
    'garbage': b'\x00\x16\x03\x01\x02\x00',
    'a request': b'GET / HTTP/1.1\r\nHost: t\r\n\r\n',
    'too many interims': b'HTTP/1.1 102 Processing\r\n\r\n' * 100,
    'a switch nobody asked for': b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n'
                                 b'Connection: Upgrade\r\n\r\n',
}


@pytest.mark.parametrize('how', ['close', 'reset'])
@pytest.mark.parametrize('said', ENDS)
def test_an_origin_without_an_answer(start_weir, start_origin, said, how):
    def script(connection):
        request = connection.read_request()
        if request.target == '/good':
            return connection.answer(b'good')
        connection.send(ENDS[said])
        if how == 'reset':
            connection.reset()
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        for start, body in (('GET / HTTP/1.1', b''), ('POST / HTTP/1.1', b'abc')):
            response = client.request(start, 'Host: t', f'Content-Length: {len(body)}', body=body)
            assert response.status == 502 and response.get('Connection') is None
            assert client.get('/good').body == b'good'
    record = weir.wait_access(2, status=502)[0]
    assert record['reason'] in ('upstream_closed', 'upstream_reset', 'upstream_malformed')
    assert record['tries'] == 1, 'a fresh connection that fails is not tried again'


def test_sixteen_interims_are_allowed(start_weir, start_origin):
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 102 Processing\r\n\r\n' * 16)
        connection.answer(b'done')
    with Client(start_weir(proxy_to(start_origin(script))).port()) as client:
        response = client.get('/')
        assert len(response.interim) == 16 and response.body == b'done'


def test_an_upgrade_that_no_route_allows_is_not_passed_on(start_weir, start_origin):
    def script(connection):
        request = connection.read_request()
        assert request.get('Upgrade') is None and request.get('Connection') is None
        connection.send(ENDS['a switch nobody asked for'])
        connection.at_end()
    with Client(start_weir(proxy_to(start_origin(script))).port()) as client:
        response = client.get('/', 'Upgrade: irc/6.9', 'Connection: Upgrade')
        assert response.status == 502


CUTS = {
    'length, small': (b'Content-Length: 10\r\n', b'12345'),
    'length, large': (b'Content-Length: 3000000\r\n', content(1000000)),
    'chunked, small': (b'Transfer-Encoding: chunked\r\n', chunk(b'12345')),
    'chunked, in a chunk': (b'Transfer-Encoding: chunked\r\n', b'a\r\n12345'),
    'chunked, large': (b'Transfer-Encoding: chunked\r\n', chunk(content(100000)) * 8),
    'chunked, before the end': (b'Transfer-Encoding: chunked\r\n', chunk(b'x') + b'0\r\n'),
}


@pytest.mark.parametrize('version', ['1.1', '1.0'])
@pytest.mark.parametrize('how', ['close', 'reset'])
@pytest.mark.parametrize('cut', CUTS)
def test_an_origin_that_ends_in_its_body(start_weir, start_origin, cut, how, version):
    def script(connection):
        connection.read_request()
        head, body = CUTS[cut]
        connection.send(b'HTTP/1.1 200 OK\r\n' + head + b'\r\n' + body)
        if how == 'reset':
            wait_until(lambda: got_head.is_set())
            connection.reset()
    got_head = threading.Event()
    weir = start_weir(proxy_to(start_origin(script)))
    with Client(weir.port()) as client:
        client.send_request(f'GET / HTTP/{version}', 'Host: t')
        head = client.read_head()
        got_head.set()
        assert head.status == 200
        with pytest.raises(Ended) as ended:
            if head.chunked:
                client.read_chunked(head)
            elif head.get('Content-Length'):
                client.read_bytes(int(head.get('Content-Length')))
            else:
                client.read_to_end()
        if version == '1.0' and 'chunked' in cut:
            assert ended.value.reset, 'a cut that only a reset can show'
    assert weir.wait_access(status=200)[0]['reason'] in ('upstream_closed', 'upstream_reset')


# ---- the pool


def counting(connection):
    """Answers with the number of the connection."""
    while True:
        connection.read_request()
        connection.answer(b'%d' % connection.number)


def test_connections_are_reused(start_weir, start_origin):
    origin = start_origin(counting)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as one, Client(weir.port()) as two:
        for _ in range(10):
            assert one.get('/').body == b'0' and two.get('/').body == b'0'
    assert weir.wait_access(20)[-1]['upstream_reused'] is True


def test_no_idle_connections(start_weir, start_origin):
    origin = start_origin(counting)
    weir = start_weir(proxy_to(origin, 'max_idle_connections_per_host = 0'))
    with Client(weir.port()) as client:
        assert [client.get('/').body for _ in range(4)] == [b'0', b'1', b'2', b'3']


def test_idle_connections_are_closed_in_time(start_weir, start_origin):
    origin = start_origin(counting)
    weir = start_weir(proxy_to(origin, 'idle_connection_timeout = "300ms"'))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'0'
        begin = time.monotonic()
        wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='idle connection closed')
        assert time.monotonic() - begin >= 0.25
        assert client.get('/').body == b'1'


def test_old_connections_are_not_used_again(start_weir, start_origin):
    origin = start_origin(counting)
    weir = start_weir(proxy_to(origin, 'max_connection_lifetime = "300ms"'))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'0' and client.get('/').body == b'0'
        time.sleep(0.35)
        assert client.get('/').body == b'1'


def test_the_limit_on_idle_connections(start_weir, start_origin):
    barrier = threading.Barrier(6)

    def script(connection):
        while True:
            connection.read_request()
            barrier.wait(10)
            connection.answer(b'x')
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin, 'max_idle_connections_per_host = 2'))
    clients = [Client(weir.port()) for _ in range(6)]
    for client in clients:
        client.send_request('GET / HTTP/1.1', 'Host: t')
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    wait_until(lambda: sum(c.sock.fileno() >= 0 for c in origin.connections) == 2,
               what='two are left')


UNSOLICITED = {
    'a response': b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
    'a time-out': b'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n',
    'an interim': b'HTTP/1.1 100 Continue\r\n\r\n',
    'a byte': b'x',
    'much': b'evil' * 20000,
}


@pytest.mark.parametrize('size', [2, 1000000])
@pytest.mark.parametrize('said', UNSOLICITED)
@pytest.mark.parametrize('closes', [False, True])
def test_bytes_on_an_idle_connection(start_weir, start_origin, said, closes, size):
    """They answer nothing: the connection is not used again. After a large answer, too, when the
    connection is read in another way."""
    said_so = threading.Event()

    def script(connection):
        if connection.number > 0:
            return respond(b'good')(connection)
        connection.read_request()
        connection.answer(content(size))
        go_on.wait(10)
        try:
            connection.send(UNSOLICITED[said])
        finally:
            said_so.set()
        if not closes:
            connection.at_end()
    go_on = threading.Event()
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        assert client.get('/').body == content(size)
        go_on.set()
        assert said_so.wait(10)
        time.sleep(0.05)  # it is on its way: what matters is not to take it for an answer
        for _ in range(3):
            response = client.get('/')
            assert (response.status, response.body) == (200, b'good')
    wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='the bad one is closed')


@pytest.mark.parametrize('framing', ['length', 'chunked'])
@pytest.mark.parametrize('size', [2, 30000, 1000000])
def test_bytes_behind_an_answer(start_weir, start_origin, size, framing):
    """Together with its last bytes, while the next request waits: they are no answer to it."""
    def script(connection):
        if connection.number > 0:
            return respond(b'good')(connection)
        connection.read_request()
        if framing == 'length':
            data = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size + content(size)
        else:
            data = (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' +
                    chunk(content(size)) + b'0\r\n\r\n')
        connection.send(data[:-1])
        time.sleep(0.05)
        connection.send(data[-1:] + UNSOLICITED['a response'])
        connection.at_end()
    weir = start_weir(proxy_to(start_origin(script)))
    with Client(weir.port()) as client:
        client.send(b'GET / HTTP/1.1\r\nHost: t\r\n\r\n' * 2)
        assert client.read_response().body == content(size)
        assert client.read_response().body == b'good'


@pytest.mark.parametrize('size', [2, 1000000])
@pytest.mark.parametrize('how', ['close', 'reset'])
def test_an_idle_connection_that_the_origin_closes(start_weir, start_origin, how, size):
    """Noticed while idle: the next request does not even try it."""
    def script(connection):
        connection.read_request()
        connection.answer(content(size))
        if how == 'reset':
            assert got_it.acquire(timeout=10)
            connection.reset()
    got_it = threading.Semaphore(0)
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        for number in range(5):
            assert client.get('/').body == content(size)
            got_it.release()
            wait_until(lambda: origin.connections[number].sock.fileno() < 0)
            time.sleep(0.03)
    assert {record['tries'] for record in weir.wait_access(5)} == {1}


def stale(how='close', read='request', first_size=2):
    """The first connection answers once and ends when the next request arrives on it: as if it had
    been closed in the moment in which the request was sent. All others echo."""
    def script(connection):
        while True:
            if connection.number == 0 and connection.received:
                if read == 'request':
                    connection.read_request()
                elif read == 'head':
                    connection.read_request_head()
                else:
                    connection.fill()
                if how == 'reset':
                    connection.reset()
                return
            request = connection.read_request()
            connection.answer(request.body if connection.number else content(first_size))
    return script


REPLAYED = [
    # method, fields, body, replayed when all of it was sent
    ('GET', [], b'', True),
    ('HEAD', [], b'', True),
    ('OPTIONS', [], b'', True),
    ('DELETE', [], b'', True),
    ('PUT', ['Content-Length: 5'], b'hello', True),
    ('PUT', ['Content-Length: 65536'], content(65536), True),
    ('PUT', ['Content-Length: 65537'], content(65537), False),
    ('PUT', ['Content-Length: 300000'], content(300000), False),
    ('PUT', ['Transfer-Encoding: chunked'], chunk(b'hello') + b'0\r\n\r\n', True),
    ('PUT', ['Transfer-Encoding: chunked'], chunk(content(30000)) * 2 + b'0\r\n\r\n', True),
    ('PUT', ['Transfer-Encoding: chunked'], chunk(content(40000)) * 2 + b'0\r\n\r\n', False),
    ('POST', ['Content-Length: 0'], b'', False),
    ('POST', ['Content-Length: 5'], b'hello', False),
    ('PATCH', ['Content-Length: 5'], b'hello', False),
    ('PURGE', [], b'', False),
    ('get', [], b'', False),
]


def decoded(fields, body):
    if 'Transfer-Encoding: chunked' not in fields:
        return body
    out = b''
    while True:
        size, _, body = body.partition(b'\r\n')
        if int(size, 16) == 0:
            return out
        out, body = out + body[:int(size, 16)], body[int(size, 16) + 2:]


@pytest.mark.parametrize('how', ['close', 'reset'])
@pytest.mark.parametrize('read', ['request', 'head', 'byte'])
@pytest.mark.parametrize('first_size', [2, 1000000])
def test_a_stale_connection(start_weir, start_origin, how, read, first_size):
    origins = [start_origin(stale(how, read, first_size)) for _ in REPLAYED]
    weir = start_weir(one_listener(''.join(
        f'[[route]]\npath = "/{i}"\nproxy = "{origin.url}"\n' for i, origin in enumerate(origins))))
    for i, case in enumerate(REPLAYED):
        with Client(weir.port()) as client:
            assert client.get(f'/{i}').body == content(first_size)
            check_stale(client, i, case, origins[i], early=read != 'request')
        record = weir.wait_access(path=f'/{i}/2')[0]
        assert record['tries'] == len(origins[i].connections)


def check_stale(client, i, case, origin, early):
    method, fields, body, replayed = case
    client.send_request(f'{method} /{i}/2 HTTP/1.1', 'Host: t', *fields)
    sender = threading.Thread(target=send_quietly, args=(client, body))
    sender.start()
    response = client.read_response(method)
    sender.join()
    # Where the origin ended before it had all, less may have been sent than is kept for a retry.
    if replayed or (early and method == 'PUT' and response.status == 200):
        assert (case[:2], response.status, len(origin.connections)) == (case[:2], 200, 2)
        if method != 'HEAD':
            assert response.body == decoded(fields, body), case[:2]
    else:
        assert (case[:2], response.status, len(origin.connections)) == (case[:2], 502, 1)


def send_quietly(client, data):
    try:
        client.send(data)
    except OSError:
        pass


def test_a_body_that_comes_later_is_replayed(start_weir, start_origin):
    """The stale connection is noticed in the middle of the upload; all of it is said again."""
    def script(connection):
        if connection.number == 0:
            connection.read_request()
            connection.answer(b'first')
            request = connection.read_request_head()
            connection.read_bytes(3)
            return
        request = connection.read_request()
        connection.answer(request.body)
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'first'
        client.send_request('PUT / HTTP/1.1', 'Host: t', 'Content-Length: 10', body=b'123')
        wait_until(lambda: origin.connections[0].sock.fileno() < 0)
        client.send(b'4567')
        time.sleep(0.05)
        client.send(b'890')
        response = client.read_response()
        assert (response.status, response.body) == (200, b'1234567890')


def test_a_stale_connection_and_expect(start_weir, start_origin):
    """The client waits for 100, which only the fresh connection brings."""
    def script(connection):
        if connection.number == 0:
            connection.read_request()
            connection.answer(b'first')
            connection.read_request_head()
            return
        request = connection.read_request_head()
        connection.send(b'HTTP/1.1 100 Continue\r\n\r\n')
        connection.read_request_body(request)
        connection.answer(request.body)
    weir = start_weir(proxy_to(start_origin(script)))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'first'
        client.send_request('PUT / HTTP/1.1', 'Host: t', 'Content-Length: 5',
                            'Expect: 100-continue')
        assert client.read_head().status == 100
        client.send(b'hello')
        assert client.read_response().body == b'hello'


def test_a_retry_happens_once(start_weir, start_origin):
    """When the fresh connection ends without an answer as well, that is the answer: 502."""
    def script(connection):
        connection.read_request()
        if connection.number == 0:
            connection.answer(b'first')
            connection.read_request()
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'first'
        assert client.get('/').status == 502
    assert len(origin.connections) == 2


def test_no_retry_once_something_was_said(start_weir, start_origin):
    def script(connection):
        connection.read_request()
        connection.answer(b'first')
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Le')
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'first'
        assert client.get('/').status == 502
    assert len(origin.connections) == 1


def test_a_restarted_origin(start_weir):
    """All pooled connections die at once; every request after that is answered."""
    origin = Origin(counting)
    weir = start_weir(proxy_to(origin))
    clients = [Client(weir.port()) for _ in range(8)]
    for client in clients:
        client.send_request('GET / HTTP/1.1', 'Host: t')
    for client in clients:
        assert client.read_response().status == 200
    origin.stop()
    assert [client.get('/').status for client in clients] == [502] * 8
    second = Origin(respond(b'again'), port=origin.port)
    assert [client.get('/').body for client in clients] == [b'again'] * 8
    for client in clients:
        client.close()
    second.stop()


# ---- answers that come early


@pytest.mark.parametrize('after', ['closes', 'reads on', 'stops reading'])
@pytest.mark.parametrize('framing', ['length', 'chunked'])
@pytest.mark.parametrize('size', [50000, 8000000])
def test_an_answer_before_the_request_is_complete(start_weir, start_origin, framing, size, after):
    done = threading.Event()

    def script(connection):
        connection.read_request_head()
        connection.answer(b'too much', status='413 Content Too Large')
        if after == 'reads on':
            while connection.fill():
                connection.buffer = b''
        elif after == 'stops reading':
            done.wait(10)
    origin = start_origin(script)
    weir = start_weir(proxy_to(origin))
    with Client(weir.port()) as client:
        if framing == 'length':
            client.send_request('PUT / HTTP/1.1', 'Host: t', f'Content-Length: {size + 1}')
            data = content(size)
        else:
            client.send_request('PUT / HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked')
            data = chunk(content(size // 10)) * 10
        sender = threading.Thread(target=send_quietly, args=(client, data))
        sender.start()
        response = client.read_response()
        assert (response.status, response.body) == (413, b'too much')
        assert response.get('Connection') == 'close' and client.at_end()
        done.set()
    sender.join()
    wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')


@pytest.mark.parametrize('size', [10, 300000])
def test_a_reset_in_an_early_answer_without_length(start_weir, start_origin, size):
    """The request is still being sent: whoever of the two directions meets the reset first, the
    answer was cut and may not look whole."""
    def script(connection):
        connection.read_request_head()
        connection.send(b'HTTP/1.1 200 OK\r\n\r\n' + b'x' * size + b'half')
        client_has_it.acquire(timeout=10)
        connection.reset()
    client_has_it = threading.Semaphore(0)
    weir = start_weir(proxy_to(start_origin(script)))
    for _ in range(20):
        with Client(weir.port()) as client:
            client.send_request('PUT / HTTP/1.1', 'Host: t', 'Content-Length: 20000000')
            sender = threading.Thread(target=send_quietly, args=(client, bytes(20000000)))
            sender.start()
            head = client.read_head()
            while not client.received.endswith(b'half\r\n'):
                client.fill()
            client_has_it.release()
            with pytest.raises(Ended):
                client.read_chunked(head)
        sender.join()


def test_an_early_answer_that_is_streamed(start_weir, start_origin):
    """Both directions at the same time: an origin that echoes while it reads."""
    def script(connection):
        connection.read_request_head()
        connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        left = 3000000
        while left:
            if not connection.buffer:
                connection.fill()
            data, connection.buffer = connection.buffer, b''
            left -= len(data)
            connection.send(chunk(data))
        connection.send(b'0\r\n\r\n')
    weir = start_weir(proxy_to(start_origin(script)))
    data = content(3000000)
    with Client(weir.port()) as client:
        client.send_request('PUT / HTTP/1.1', 'Host: t', f'Content-Length: {len(data)}')
        threading.Thread(target=send_quietly, args=(client, data)).start()
        assert client.read_response().body == data


def test_a_ping_pong_body(start_weir, start_origin):
    """Each piece of the answer waits for the next piece of the request: nothing is held back."""
    def script(connection):
        connection.read_request_head()
        connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for _ in range(50):
            connection.send(chunk(connection.read_bytes(6)))
        connection.read_until(b'0\r\n\r\n')
        connection.send(b'0\r\n\r\n')
        connection.at_end()
    weir = start_weir(proxy_to(start_origin(script)))
    with Client(weir.port()) as client:
        client.send_request('PUT / HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked')
        assert client.read_head().status == 200
        for i in range(50):
            client.send(chunk(b'%x' % (i % 10)))
            assert client.read_until(b'\r\n') == b'6\r\n'
            assert client.read_bytes(8) == chunk(b'%x' % (i % 10)) + b'\r\n'
        client.send(b'0\r\n\r\n')
        assert client.read_until(b'0\r\n\r\n')
