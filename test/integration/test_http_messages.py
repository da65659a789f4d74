"""Messages of HTTP/1.1 and HTTP/1.0 through weir: connections kept, pipelines, bodies of every size
and framing both ways, interim responses, heads in pieces, limits."""
import functools
import hashlib
import random
import re
import threading
import time

import pytest

from conftest import Client, Ended, one_listener, wait_until

SIZES = [0, 1, 2, 100, 4095, 4096, 4097, 16384, 32767, 32768, 32769, 65535, 65536, 65537, 1048576,
         5 * 1048576]
SMALL_SIZES = [size for size in SIZES if size <= 65537]


@functools.lru_cache(maxsize=None)
def content(size):
    return random.Random(size).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest().encode()


def chunks(data, sizes=(1, 15, 16, 4095, 4097, 70000), extension=b''):
    """Chunked coding without the last chunk; chunk sizes go round `sizes`."""
    out, at, turn = [], 0, 0
    while at < len(data):
        piece = data[at:at + sizes[turn % len(sizes)]]
        out.append(b'%x%s\r\n%s\r\n' % (len(piece), extension, piece))
        at, turn = at + len(piece), turn + 1
    return b''.join(out)


LAST = b'0\r\n\r\n'


def pause():
    """Lets what was sent be received on its own; nothing depends on how long it takes."""
    time.sleep(0.001)


def in_pieces(stream, data, size=1):
    for at in range(0, len(data), size):
        stream.send(data[at:at + size])
        pause()


def serve(connection):
    """The origin of this module. /get/FRAMING/SIZE answers with content, /put with the digest of
    the body that came, /head/SIZE with a head of that size; everything else with the path."""
    while True:
        request = connection.read_request()
        words = request.target.strip('/').split('/')
        if words[0] == 'get':
            if send_content(connection, request.method, words[1], int(words[2])):
                return
        elif words[0] == 'put':
            connection.answer(digest(request.body))
        elif words[0] == 'head':
            fields = [f'X-{i}: {"v" * 100}' for i in range(int(words[1]) // 110)]
            connection.answer(b'ok', *fields)
        elif words[0] == 'status':
            connection.send(b'HTTP/1.1 %s Some Reason\r\n\r\n' % words[1].encode())
        else:
            connection.answer(request.target.encode())


def send_content(connection, method, framing, size):
    data = b'' if method == 'HEAD' else content(size)
    if framing == 'length':
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size + data)
    elif framing == 'chunked':
        connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        if method != 'HEAD':
            connection.send(chunks(data, extension=b';x="y"') + LAST)
    elif framing == 'tiny':  # many chunks, each smaller than its framing
        connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' +
                        chunks(data, (1, 2, 3)) + LAST)
    elif framing == 'close':
        connection.send(b'HTTP/1.1 200 OK\r\n\r\n' + data)
    elif framing == 'old':
        connection.send(b'HTTP/1.0 200 OK\r\n\r\n' + data)
    elif framing == 'oldlength':
        connection.send(b'HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n' % size + data)
    return framing in ('close', 'old', 'oldlength')


@pytest.fixture(scope='module')
def setup(start_weir_for_module, start_origin_for_module):
    origin = start_origin_for_module(serve)
    weir = start_weir_for_module(one_listener(
        f'[[route]]\nproxy = "{origin.url}"\n'
        '[[route]]\npath = "/local"\nrespond = {status = 200, body = "local"}\n'
        f'[[route]]\npath = "/limited"\nproxy = "{origin.url}/put"\nmax_body_size = 1000\n'))
    return weir, origin


@pytest.fixture
def client(setup):
    with Client(setup[0].port()) as connected:
        yield connected


# ---- connections


def test_one_connection_serves_many_requests(setup, client):
    weir, origin = setup
    before = len(origin.connections)
    for i in range(300):
        response = client.get(f'/n/{i}')
        assert (response.status, response.body) == (200, f'/n/{i}'.encode())
        assert response.get('Connection') is None and response.version == 'HTTP/1.1'
    assert len(origin.connections) <= before + 1


def test_pipelined_requests_are_answered_in_order(client):
    """Local and proxied ones, with bodies, in one go; more than the receive queue holds."""
    expected, sent = [], []
    for i in range(400):
        if i % 4 == 0:
            sent.append(b'GET /local HTTP/1.1\r\nHost: t\r\n\r\n')
            expected.append(b'local')
        elif i % 4 == 1:
            sent.append(b'PUT /put HTTP/1.1\r\nHost: t\r\nContent-Length: 300\r\n\r\n' +
                        content(300))
            expected.append(digest(content(300)))
        elif i % 4 == 2:
            sent.append(b'PUT /put HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n' +
                        chunks(content(200), (7,)) + LAST)
            expected.append(digest(content(200)))
        else:
            sent.append(b'GET /n/%d HTTP/1.1\r\nHost: t\r\n\r\n' % i)
            expected.append(b'/n/%d' % i)
    threading.Thread(target=client.send, args=(b''.join(sent),)).start()
    assert [client.read_response().body for _ in expected] == expected


def test_pipelining_stops_at_connection_close(client):
    client.send(b'GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n'
                b'GET /b HTTP/1.1\r\nHost: t\r\n\r\n')
    response = client.read_response()
    assert response.body == b'/a' and response.get('Connection') == 'close'
    assert client.at_end()


def test_pipelining_behind_a_large_body(client):
    size = 300000
    data = (b'PUT /put HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n' % size + content(size) +
            b'PUT /put HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n' +
            chunks(content(size)) + LAST + b'GET /last HTTP/1.1\r\nHost: t\r\n\r\n') * 3
    threading.Thread(target=client.send, args=(data,)).start()
    for _ in range(3):
        assert client.read_response().body == digest(content(size))
        assert client.read_response().body == digest(content(size))
        assert client.read_response().body == b'/last'


OLD_CLIENTS = [
    # framing of the origin, request's Connection, connection kept
    ('length', 'keep-alive', True),
    ('length', None, False),
    ('chunked', 'keep-alive', False),
    ('close', 'keep-alive', False),
    ('old', None, False),
    ('oldlength', 'Keep-Alive', True),
]


@pytest.mark.parametrize('framing,connection,kept', OLD_CLIENTS)
def test_http10_clients(client, framing, connection, kept):
    fields = [f'Connection: {connection}'] if connection else []
    response = client.request(f'GET /get/{framing}/5000 HTTP/1.0', 'Host: t', *fields)
    assert (response.status, response.body) == (200, content(5000))
    assert response.get('Transfer-Encoding') is None
    if kept:
        assert response.get('Connection').lower() == 'keep-alive'
        assert client.get('/n/1').body == b'/n/1'
    else:
        assert response.get('Connection') in (None, 'close')
        assert client.at_end()


def test_http10_without_host(setup, client):
    response = client.request('GET /n/10 HTTP/1.0')
    assert response.body == b'/n/10'
    host = [request for request in setup[1].requests if request.target == '/n/10'][-1].get('Host')
    assert host == setup[1].address


def test_connection_close_is_obeyed_and_said(client):
    response = client.get('/n/1', 'Connection: close')
    assert response.get('Connection') == 'close' and client.at_end()


def test_max_requests_per_connection(start_weir, setup):
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{setup[1].url}"\n',
                                   server='max_requests_per_connection = 3'))
    with Client(weir.port()) as client:
        said = [client.get('/n').get('Connection') for _ in range(3)]
        assert said == [None, None, 'close'] and client.at_end()


# ---- bodies


@pytest.mark.parametrize('version', ['1.1', '1.0'])
@pytest.mark.parametrize('framing', ['length', 'chunked', 'close', 'old', 'oldlength'])
def test_response_bodies(setup, framing, version):
    client = Client(setup[0].port())
    for size in SIZES:
        if client.sock.fileno() < 0:
            client = Client(setup[0].port())
        response = client.request(f'GET /get/{framing}/{size} HTTP/{version}', 'Host: t',
                                  'Connection: keep-alive')
        assert response.status == 200
        assert len(response.body) == size and response.body == content(size)
        if version == '1.1':
            assert response.chunked == (framing in ('chunked', 'close', 'old'))
        if response.get('Connection') == 'close':
            assert client.at_end()
            client.close()
    client.close()


def test_response_body_of_tiny_chunks(client):
    for size in SMALL_SIZES:
        assert client.get(f'/get/tiny/{size}').body == content(size)


@pytest.mark.parametrize('framing', ['length', 'chunked'])
def test_request_bodies(setup, client, framing):
    for size in SIZES:
        data = content(size)
        if framing == 'length':
            client.send_request('PUT /put HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                body=data)
        else:
            client.send_request('PUT /put HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked',
                                body=chunks(data) + LAST)
        response = client.read_response()
        assert (size, response.status, response.body) == (size, 200, digest(data))
        request = setup[1].requests[-1]
        assert request.chunked == (framing == 'chunked')
        assert request.get('Content-Length') == (str(size) if framing == 'length' else None)


def test_request_body_of_tiny_chunks(client):
    for size in SMALL_SIZES:
        client.send_request('PUT /put HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked',
                            body=chunks(content(size), (1, 2, 3), b';a=b' if size < 1000 else b'') +
                            LAST)
        assert client.read_response().body == digest(content(size))


def test_request_without_body_has_no_framing(setup, client):
    """A GET must not grow a Content-Length, and a POST with length 0 keeps it."""
    client.get('/n/bare')
    assert setup[1].requests[-1].get('Content-Length') is None
    client.request('POST /n/zero HTTP/1.1', 'Host: t', 'Content-Length: 0')
    assert setup[1].requests[-1].get('Content-Length') == '0'


def test_http10_request_body(client):
    response = client.request('PUT /put HTTP/1.0', 'Content-Length: 70000', body=content(70000))
    assert response.body == digest(content(70000))


def test_many_transfers_at_once(setup):
    """Large bodies both ways over several connections at the same time: they share the scratch."""
    failures = []

    def run(seed):
        order = random.Random(seed)
        try:
            with Client(setup[0].port()) as client:
                for _ in range(12):
                    size = order.choice([5, 5000, 70000, 400000, 900000])
                    framing = order.choice(['length', 'chunked', 'close'])
                    if client.get(f'/get/{framing}/{size}').body != content(size):
                        failures.append(('get', framing, size))
                    if order.random() < 0.5:
                        fields, body = [f'Content-Length: {size}'], content(size)
                    else:
                        fields, body = ['Transfer-Encoding: chunked'], chunks(content(size)) + LAST
                    response = client.request('PUT /put HTTP/1.1', 'Host: t', *fields, body=body)
                    if response.body != digest(content(size)):
                        failures.append(('put', fields, size))
        except (Ended, OSError, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- trailers


def test_trailers_pass_both_ways(setup, start_weir, start_origin):
    def script(connection):
        while True:
            connection.read_request()
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n'
                            b'Trailer: X-Sum\r\n\r\n'
                            b'2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\nContent-Length: 5\r\n\r\n')
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        for _ in range(3):
            client.send(b'POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n'
                        b'3\r\nabc\r\n0\r\nX-Check: 1\r\nHost: evil\r\nX-Other: 2\r\n\r\n')
            response = client.read_response()
            assert response.body == b'hi'
            assert response.trailers == [('X-Sum', '7'), ('X-Sum', '8')]
            assert origin.requests[-1].body == b'abc'
            assert origin.requests[-1].trailers == [('X-Check', '1'), ('X-Other', '2')]
        # HTTP/1.0 has no trailers: the content alone.
        assert client.request('GET / HTTP/1.0').body == b'hi'


def test_large_trailers(start_weir, start_origin):
    """More of them than the place on the stack that is tried first."""
    def script(connection):
        while True:
            request = connection.read_request()
            lines = ''.join(f'{name}: {value}\r\n' for name, value in request.trailers)
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
                            b'1\r\nx\r\n0\r\n' +
                            lines.encode() + b'\r\n')
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    trailers = [(f'X-T{i}', 'v' * 100) for i in range(60)]
    lines = ''.join(f'{name}: {value}\r\n' for name, value in trailers).encode()
    with Client(weir.port()) as client:
        client.send(b'POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n' +
                    lines +
                    b'\r\n')
        assert client.read_response().trailers == trailers
        assert origin.requests[-1].trailers == trailers


# ---- heads, and how bytes arrive


SPLIT_REQUEST = (b'POST /split?x=1 HTTP/1.1\r\nHost: t\r\nX-Long: ' + b'y' * 40 + b'\r\n'
                 b'Transfer-Encoding: chunked\r\n\r\n4;e=f\r\nbody\r\n0\r\nX-T: 1\r\n\r\n')
SPLIT_ANSWER = (b'HTTP/1.1 200 OK\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n'
                b'4\r\nback\r\n3\r\nend\r\n0\r\nX-T: 2\r\n\r\n')


def test_messages_split_at_every_position(start_weir, start_origin):
    def script(connection):
        at = 0
        while True:
            assert connection.read_request().body == b'body'
            at = at % (len(SPLIT_ANSWER) - 1) + 1
            connection.send(SPLIT_ANSWER[:at])
            pause()
            connection.send(SPLIT_ANSWER[at:])
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        for at in range(1, len(SPLIT_REQUEST)):
            client.send(SPLIT_REQUEST[:at])
            pause()
            client.send(SPLIT_REQUEST[at:])
            response = client.read_response()
            assert (at, response.status, response.body) == (at, 200, b'backend')
            assert response.trailers == [('X-T', '2')] and response.get('X-One') == '1'
            request = origin.requests[-1]
            assert request.target == '/split?x=1' and request.get('X-Long') == 'y' * 40
            assert request.trailers == [('X-T', '1')]
    assert len(origin.connections) == 1


def test_messages_byte_by_byte(start_weir, start_origin):
    def script(connection):
        while True:
            assert connection.read_request().body == b'body'
            in_pieces(connection, SPLIT_ANSWER)
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        for _ in range(2):
            in_pieces(client, SPLIT_REQUEST)
            assert client.read_response().body == b'backend'


def test_length_bodies_dribbled(start_weir, start_origin):
    data = content(700)

    def script(connection):
        while True:
            request = connection.read_request()
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(request.body))
            in_pieces(connection, request.body)
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        client.send_request('PUT / HTTP/1.1', 'Host: t', f'Content-Length: {len(data)}')
        in_pieces(client, data)
        assert client.read_response().body == data
        assert client.get('/').body == b''


@pytest.mark.parametrize('size', [3900, 4000, 4096, 4200, 8000, 20000, 31000])
def test_large_request_heads(setup, client, size):
    fields = [f'X-{i}: {"v" * 500}' for i in range(size // 510)]
    for _ in range(2):
        response = client.request('PUT /put HTTP/1.1', 'Host: t', *fields, 'Content-Length: 3',
                                  body=b'abc')
        assert response.body == digest(b'abc')
        got = [f'{name}: {value}' for name, value in setup[1].requests[-1].fields]
        assert [line for line in got if line.startswith('X-') and 'vvv' in line] == fields
    head = ''.join(f'{line}\r\n' for line in ('PUT /put HTTP/1.1', 'Host: t', *fields,
                                               'Content-Length: 3', '')).encode()
    in_pieces(client, head + b'abc', 1000)
    assert client.read_response().body == digest(b'abc')


@pytest.mark.parametrize('size', [1000, 3900, 4096, 4400, 9000])
def test_large_response_heads(client, size):
    for _ in range(2):
        response = client.get(f'/head/{size}')
        assert response.body == b'ok'
        assert len([1 for name, value in response.fields if value == 'v' * 100]) == size // 110


def test_long_target(setup, client):
    target = '/n/' + 'a' * 8000
    assert client.get(target).body == target.encode()
    assert setup[1].requests[-1].target == target


# ---- no content, interim responses, Expect


def test_head(client):
    for framing, size in (('length', 0), ('length', 70000), ('chunked', 100), ('close', 100)):
        response = client.request(f'HEAD /get/{framing}/{size} HTTP/1.1', 'Host: t')
        assert response.status == 200
        if framing == 'length':
            assert response.get('Content-Length') == str(size)
        assert client.get('/n/after').body == b'/n/after'  # nothing was left on the connection


@pytest.mark.parametrize('status', [204, 304])
def test_status_without_content(client, status):
    response = client.get(f'/status/{status}')
    assert (response.status, response.reason) == (status, 'Some Reason')
    assert response.get('Content-Length') is None and response.get('Transfer-Encoding') is None
    assert client.get('/n/after').body == b'/n/after'


INTERIM = b'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: close\r\n\r\n'


def interim_origin(connection):
    """Says 103 twice, and 100 when the request expects it, then echoes the body."""
    while True:
        request = connection.read_request_head()
        connection.send(INTERIM + INTERIM)
        if request.get('Expect'):
            connection.send(b'HTTP/1.1 100 Continue\r\n\r\n')
        connection.read_request_body(request)
        connection.answer(request.body)


@pytest.fixture
def interim(start_weir, start_origin):
    origin = start_origin(interim_origin)
    return start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n')), origin


def test_interim_responses_pass(interim):
    with Client(interim[0].port()) as client:
        for _ in range(2):
            response = client.get('/')
            assert [message.status for message in response.interim] == [103, 103]
            hint = response.interim[0]
            assert hint.get('Link') == '</a.css>' and hint.get('Connection') is None
            assert hint.get('Content-Length') is None and response.body == b''


def test_interim_responses_are_not_for_http10(interim):
    with Client(interim[0].port()) as client:
        response = client.request('PUT / HTTP/1.0', 'Content-Length: 3', 'Expect: 100-continue',
                                  body=b'abc')
        assert response.interim == [] and response.body == b'abc'


@pytest.mark.parametrize('framing', ['length', 'chunked'])
@pytest.mark.parametrize('size', [1, 5000, 100000])
def test_expect_continue(interim, framing, size):
    weir, origin = interim
    data = content(size)
    with Client(weir.port()) as client:
        for _ in range(2):
            client.send_request(
                'PUT / HTTP/1.1', 'Host: t', 'Expect: 100-continue',
                f'Content-Length: {size}' if framing == 'length' else 'Transfer-Encoding: chunked')
            heads = [client.read_head().status
                     for _ in range(3)]  # before a byte of the body is sent
            assert heads == [103, 103, 100]
            client.send(data if framing == 'length' else chunks(data) + LAST)
            response = client.read_response()
            assert response.interim == [] and response.body == data
            assert origin.requests[-1].get('Expect') == '100-continue'


def test_expect_refused_by_the_origin(start_weir, start_origin):
    """A final answer in place of 100: the body is never sent, and the connection ends."""
    def script(connection):
        connection.read_request_head()
        connection.answer(b'no', status='417 Expectation Failed')
        assert connection.at_end() and bytes(connection.received).endswith(b'\r\n\r\n')
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        client.send_request('PUT / HTTP/1.1', 'Host: t', 'Expect: 100-continue',
                            'Content-Length: 100000')
        response = client.read_response()
        assert (response.status, response.body) == (417, b'no')
        assert response.get('Connection') == 'close' and client.at_end()
    wait_until(lambda: origin.connections[0].sock.fileno() < 0, what='origin connection closed')


def test_expect_at_a_local_answer(setup, client):
    """Nobody asks for the body: the answer comes without it, and the connection ends."""
    client.send_request('PUT /local HTTP/1.1', 'Host: t', 'Expect: 100-continue',
                        'Content-Length: 10')
    response = client.read_response()
    assert response.status == 200 and response.interim == []
    assert response.get('Connection') == 'close' and client.at_end()


@pytest.mark.parametrize('size,kept', [(10, True), (60000, True), (1000000, False)])
def test_body_at_a_local_answer(client, size, kept):
    """A small body that nobody wants is read away, before a large one the connection ends; the
    answer arrives in any case."""
    threading.Thread(target=send_quietly, args=(client, b'PUT /local HTTP/1.1\r\nHost: t\r\n'
                                                b'Content-Length: %d\r\n\r\n' % size +
                                                content(size))).start()
    response = client.read_response()
    assert (response.status, response.body) == (200, b'local')
    assert response.get('Connection') == (None if kept else 'close')
    if kept:
        assert client.get('/local').body == b'local'


def send_quietly(client, data):
    try:
        client.send(data)
    except OSError:
        pass


# ---- limits


@pytest.fixture(scope='module')
def limited(start_weir_for_module, setup):
    return start_weir_for_module(one_listener(
        f'[[route]]\nproxy = "{setup[1].url}"\n'
        f'[[route]]\npath = "/put"\nproxy = "{setup[1].url}"\nmax_body_size = 100000\n',
        server='max_header_size = "2KiB"\nmax_request_line = 512\nmax_header_fields = 12\n'
               'max_body_size = 2000'))


def line_of(size):
    """A request line of that many bytes, line end not counted."""
    return 'GET /' + 'a' * (size - len('GET / HTTP/1.1')) + ' HTTP/1.1'


def head_of(size):
    """A whole head of that many bytes."""
    fixed = len('GET /n HTTP/1.1\r\nHost: t\r\nX: \r\n\r\n')
    return ('GET /n HTTP/1.1', 'Host: t', 'X: ' + 'v' * (size - fixed))


LIMITS = [
    ('line at the limit', (line_of(512), 'Host: t'), 200),
    ('line beyond', (line_of(513), 'Host: t'), 414),
    ('line far beyond', (line_of(9000), 'Host: t'), 414),
    ('head at the limit', head_of(2048), 200),
    ('head beyond', head_of(2049), 431),
    ('head far beyond', head_of(20000), 431),
    ('fields at the limit', ('GET /n HTTP/1.1', 'Host: t', *['A: b'] * 11), 200),
    ('fields beyond', ('GET /n HTTP/1.1', 'Host: t', *['A: b'] * 12), 431),
]


@pytest.mark.parametrize('name,lines,status', LIMITS, ids=[case[0] for case in LIMITS])
@pytest.mark.parametrize('pieces', [False, True])
def test_head_limits(limited, name, lines, status, pieces):
    with Client(limited.port()) as client:
        data = ''.join(f'{line}\r\n' for line in (*lines, '')).encode()
        if pieces:
            try:
                in_pieces(client, data, 100)
            except OSError:
                pass
        else:
            client.send(data)
        response = client.read_response()
        assert response.status == status
        if status != 200:
            assert response.get('Connection') == 'close' and client.at_end()


def test_request_limits_are_not_for_responses(limited):
    """max_header_size is for requests: an origin may say more."""
    with Client(limited.port()) as client:
        assert client.get('/head/1500').status == 200
        assert client.get('/head/9000').status == 200


BODY_LIMITS = [
    # path, size, framing, status
    ('/n', 2000, 'length', 200),
    ('/n', 2001, 'length', 413),
    ('/n', 2000, 'chunked', 200),
    ('/n', 2001, 'chunked', 413),
    ('/n', 500000, 'length', 413),
    ('/n', 500000, 'chunked', 413),
    ('/put', 100000, 'length', 200),
    ('/put', 100001, 'length', 413),
    ('/put', 100000, 'chunked', 200),
    ('/put', 100001, 'chunked', 413),
]


@pytest.mark.parametrize('path,size,framing,status', BODY_LIMITS)
def test_body_limits(limited, setup, path, size, framing, status):
    origin = setup[1]
    before = len(origin.connections)
    with Client(limited.port()) as client:
        head = f'PUT {path} HTTP/1.1\r\nHost: t\r\n'
        if framing == 'length':
            data = head.encode() + b'Content-Length: %d\r\n\r\n' % size + content(size)
        else:
            data = (head.encode() + b'Transfer-Encoding: chunked\r\n\r\n' +
                    chunks(content(size)) + LAST)
        threading.Thread(target=send_quietly, args=(client, data)).start()
        response = client.read_response()
        assert response.status == status
        if response.get('Connection') == 'close':
            assert status == 413 and client.at_end()
        else:  # all of the body was here
            assert client.get('/n').body == b'/n'
        if status == 413 and framing == 'length':
            assert len(origin.connections) == before, 'refused before an origin was asked'


def test_a_limit_on_a_route_of_another(setup, client):
    assert client.request('PUT /limited HTTP/1.1', 'Host: t', 'Content-Length: 1000',
                          body=content(1000)).body == digest(content(1000))
    assert client.request('PUT /limited HTTP/1.1', 'Host: t', 'Content-Length: 1001',
                          body=content(1001)).status == 413


def test_expect_and_a_body_too_large(limited):
    """413 at once: nobody is asked to send what will be refused."""
    with Client(limited.port()) as client:
        response = client.request('PUT /n HTTP/1.1', 'Host: t', 'Content-Length: 2001',
                                  'Expect: 100-continue')
        assert (response.status, response.interim) == (413, [])


def test_dates(client):
    """Every response has one; an origin's is kept."""
    pattern = r'[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT'
    for path in ('/n', '/local', '/status/204', '/status/304'):
        assert re.fullmatch(pattern, client.get(path).get('Date')), path
