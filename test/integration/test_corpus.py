"""test/corpus through the running proxy: what is refused never reaches the origin, what is not
complete never looks complete."""
import threading

import pytest

from conftest import Client, Ended, Message, one_listener, wait_until
from corpus import read_corpus

REQUESTS = [case for case in read_corpus('h1_requests.txt') if case.get('scope') != 'parser']
RESPONSES = [case for case in read_corpus('h1_responses.txt') if case.get('scope') != 'parser']
CLOSED = [case for case in REQUESTS if case['level'] != 'open']
OPEN = [case for case in REQUESTS if case['level'] == 'open']
ANSWER = b'seen'


def names(cases):
    return [case['id'] for case in cases]


def method_of(case):
    return case['bytes'].lstrip(b'\r\n').split(b' ')[0].decode('latin-1')


def test_the_corpus_is_as_large_as_promised():
    assert len(REQUESTS) + len(RESPONSES) >= 150
    for cases in (REQUESTS, RESPONSES):
        assert len(set(names(cases))) == len(cases)


# ---- requests


def record(connection):
    while True:
        connection.read_request()
        connection.answer(ANSWER)


@pytest.fixture(scope='module')
def requests_setup(start_weir_for_module, start_origin_for_module):
    origin = start_origin_for_module(record)
    # Idle connections to the origin would let one case see bytes of another: one for each request.
    weir = start_weir_for_module(one_listener(
        f'[upstream.o]\nservers = ["{origin.address}"]\nmax_idle_connections_per_host = 0\n'
        '[[route]]\nproxy = "o"\n'))
    return weir, origin


def settled(origin):
    """All connections that the origin has, once weir has closed them."""
    def done():
        with origin.lock:
            return all(connection.sock.fileno() < 0 for connection in origin.connections)
    wait_until(done, what='the origin connections are closed')
    return origin.connections


@pytest.mark.parametrize('case', CLOSED, ids=names(CLOSED))
def test_request(requests_setup, case):
    weir, origin = requests_setup
    connections, requests = len(settled(origin)), len(origin.requests)
    with Client(weir.port()) as client:
        try:
            client.send(case['bytes'])
        except OSError:
            pass  # refused before the last byte
        if case['expect'] == 'ok':
            check_good(case, client, origin, requests)
        else:
            check_refused(case, client, origin, connections)


def check_good(case, client, origin, requests):
    response = client.read_response(method_of(case))
    assert response.status == 200, response
    if 'then' in case:
        then = client.read_response()
        assert then.status == (200 if case['then'] == 'ok' else int(case['then'])), then
        if case['then'] != 'ok':
            assert client.at_end()
    settled(origin)
    got = origin.requests[requests:]
    assert len(got) == (2 if case.get('then') == 'ok' else 1)
    request = got[0]
    assert f'{request.method} {request.target}'.encode('latin-1') == case['origin']
    assert request.version == 'HTTP/1.1'
    assert request.body == case['body']
    check_fields(case, request)


def check_fields(case, message):
    for name, value in case['present']:
        assert value in message.all(name), message
    for name in case['absent']:
        assert not message.all(name), message
    for name, value in case['trailer']:
        assert value in message.all(name, trailers=True), message.trailers
    for name in case['no-trailer']:
        assert not message.all(name, trailers=True), message.trailers


def check_refused(case, client, origin, connections):
    response = client.read_response(method_of(case))
    assert response.status == int(case['expect']), response
    # Framing is lost, but for a path that is refused: there the connection may go on.
    if case['level'] != 'path':
        assert response.get('Connection') == 'close'
        assert client.at_end(), client.buffer
    new = settled(origin)[connections:]
    if case['level'] != 'body':
        assert not new, bytes(new[0].received)
        return
    # The start of a request may have been passed on, never all of it.
    for connection in new:
        assert not whole_chunked_message(bytes(connection.received)), bytes(connection.received)


def whole_chunked_message(data):
    head, end, rest = data.partition(b'\r\n\r\n')
    while end:
        size, line_end, rest = rest.partition(b'\r\n')
        if not line_end:
            return False
        if int(size, 16) == 0:
            return rest.startswith(b'\r\n') or b'\r\n\r\n' in rest
        rest = rest[int(size, 16) + 2:]
    return False


def test_open_requests(start_weir, start_origin):
    """What stops early is answered 408 after the time-out, all at the same time."""
    origin = start_origin(record)
    weir = start_weir(one_listener(
        f'[[route]]\nproxy = "{origin.url}"\n',
        server='client_header_timeout = "600ms"\nclient_body_timeout = "600ms"'))
    assert len(OPEN) >= 6
    clients = [Client(weir.port()).send(case['bytes']) for case in OPEN]
    for case, client in zip(OPEN, clients):
        response = client.read_response()
        assert (case['id'], response.status) == (case['id'], int(case['expect']))
        assert response.get('Connection') == 'close' and client.at_end()
        client.close()
    assert all(not whole_chunked_message(bytes(c.received)) for c in settled(origin))


def test_request_of_each_kind_in_pieces(requests_setup):
    """A selection again, byte by byte: the outcome may not depend on how the bytes arrive."""
    weir, origin = requests_setup
    cases = [case for case in CLOSED if len(case['bytes']) < 300 and 'then' not in case]
    failures = []

    def run(share):
        for case in share:
            with Client(weir.port()) as client:
                try:
                    for at in range(len(case['bytes'])):
                        client.send(case['bytes'][at:at + 1])
                except OSError:
                    pass
                expected = 200 if case['expect'] == 'ok' else int(case['expect'])
                try:
                    status = client.read_response(method_of(case)).status
                except (Ended, OSError) as error:
                    status = error
                if status != expected:
                    failures.append((case['id'], expected, status))

    threads = [threading.Thread(target=run, args=(cases[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize('local', ['/local', '/limited'])
def test_bad_bodies_at_a_local_answer(start_weir, local):
    """Nobody wants the body, but its framing is lost all the same: one answer, then the end, and
    what follows is never taken for a request."""
    weir = start_weir(one_listener(
        '[[route]]\npath = "/local"\nrespond = {status = 200, body = "local"}\n'
        '[[route]]\npath = "/limited"\nrespond = {status = 200}\nmax_body_size = 1\n'))
    for case in REQUESTS:
        if case['level'] != 'body':
            continue
        with Client(weir.port()) as client:
            bent = case['bytes'].replace(b'POST / ', f'POST {local} '.encode())
            assert bent != case['bytes'], case['id']
            client.send(bent + b'\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n')
            response = client.read_response()
            wanted = {413, int(case['expect'])} if local == '/limited' else {int(case['expect'])}
            assert response.status in wanted, case['id']
            assert response.get('Connection') == 'close', case['id']
            assert client.at_end(), (case['id'], client.buffer)
    assert not [line for line in weir.access if '/smuggled' in line]


# ---- responses


def send_case(by_id):
    """The origin: /ID/close sends the bytes and closes, /ID/stay keeps the connection open,
    /probe/x tells which connection it is."""
    def script(connection):
        while True:
            request = connection.read_request()
            _, ident, after = request.target.split('/')
            if ident == 'probe':
                connection.answer(b'%d' % connection.number)
                continue
            connection.send(by_id[ident]['bytes'])
            if after == 'close':
                return
    return script


@pytest.fixture(scope='module')
def responses_setup(start_weir_for_module, start_origin_for_module):
    origin = start_origin_for_module(send_case({case['id']: case for case in RESPONSES}))
    weir = start_weir_for_module(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    return weir, origin


@pytest.mark.parametrize('case', RESPONSES, ids=names(RESPONSES))
def test_response(responses_setup, case):
    weir, _ = responses_setup
    method = case.get('request', 'GET')
    with Client(weir.port()) as client:
        client.send_request(f'{method} /{case["id"]}/close HTTP/1.1', 'Host: test')
        if case['expect'] == 'cut':
            return check_cut(client, method)
        response = client.read_response(method)
        if case['expect'] == '502':
            assert response.status == 502, response
            assert b'evil' not in response.body
        else:
            assert response.status == int(case['status'])
            assert response.body == case['body']
            check_fields(case, response)
        assert client.get('/probe/x').status == 200  # the client's connection goes on


def check_cut(client, method):
    """502, or the start of an answer that is visibly not complete."""
    try:
        response = client.read_response(method)
    except Ended:
        return
    assert response.status == 502, response


@pytest.mark.parametrize('version', ['1.0', '1.1'])
def test_cut_responses_for_both_versions(responses_setup, version):
    """To HTTP/1.0 clients, whose answers may end with the connection, a cut one ends by a reset."""
    weir, _ = responses_setup
    for case in RESPONSES:
        if case['expect'] != 'cut':
            continue
        with Client(weir.port()) as client:
            client.send_request(f'{case.get("request", "GET")} /{case["id"]}/close HTTP/{version}',
                                'Host: test')
            check_cut(client, case.get('request', 'GET'))


def framing_is_known(case):
    head = case['bytes'].lower()
    return (b'content-length' in head or b'chunked' in head or case['status'] in ('204', '304')
            or case.get('request') == 'HEAD')


def served_by(origin, ident):
    with origin.lock:
        return [connection.number for connection in origin.connections
                if f' /{ident}/stay '.encode() in connection.received]


REUSABLE = [case for case in RESPONSES if case['expect'] == 'ok' and framing_is_known(case)]


@pytest.mark.parametrize('case', REUSABLE, ids=names(REUSABLE))
def test_reuse_of_the_connection(responses_setup, case):
    weir, origin = responses_setup
    method = case.get('request', 'GET')
    with Client(weir.port()) as client:
        client.send_request(f'{method} /{case["id"]}/stay HTTP/1.1', 'Host: test')
        assert client.read_response(method).status == int(case['status'])
        number = wait_until(lambda: served_by(origin, case['id']))[-1]
        probe = client.get('/probe/x')
        assert probe.status == 200
        reused = int(probe.body) == number
        assert reused == (case.get('reuse') != 'no')


def test_every_502_is_on_record(responses_setup):
    weir, _ = responses_setup
    expected = sum(case['expect'] == '502' for case in RESPONSES)
    records = weir.wait_access(count=expected, status=502)
    assert {record['reason'] for record in records} <= {'upstream_malformed', 'upstream_closed'}


def test_messages_helper_reads_what_it_should():
    message = Message(b'HTTP/1.1 200 OK\r\nA: b\r\nA: c\r\n')
    assert message.status == 200 and message.all('a') == ['b', 'c']
    assert whole_chunked_message(b'POST / HTTP/1.1\r\n\r\n1\r\nx\r\n0\r\n\r\n')
    assert not whole_chunked_message(b'POST / HTTP/1.1\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n')
