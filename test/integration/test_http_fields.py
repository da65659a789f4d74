"""Header policy: what ends at this hop, what weir says itself, what passes unchanged; the same for
trailers."""
import socket

import pytest

from conftest import Client, Stream, one_listener

CHUNKED_BODY = b'1\r\nx\r\n0\r\n'


def mirror(connection):
    """Answers with what the target asks for: fields from `connection.origin.answer_fields`."""
    while True:
        connection.read_request()
        connection.answer(b'ok', *connection.origin.answer_fields)


@pytest.fixture(scope='module')
def origin(start_origin_for_module):
    created = start_origin_for_module(mirror)
    created.answer_fields = []
    return created


@pytest.fixture(scope='module')
def weir(start_weir_for_module, origin):
    return start_weir_for_module(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))


def ask(weir, origin, *fields, start='GET / HTTP/1.1', host='Host: a.test', answer=(), body=b''):
    """One request; gives (what the origin got, what the client got)."""
    origin.answer_fields = list(answer)
    with Client(weir.port()) as client:
        response = client.request(start, *([host] if host else []), *fields, body=body)
    return origin.requests[-1], response


OWN = ['Host', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Real-IP', 'Via']


def others(message, own=OWN):
    """The fields that are not weir's own."""
    return [field for field in message.fields if field[0] not in own]


# ---- hop by hop


HOP_BY_HOP = [
    ['Connection: keep-alive'],
    ['Connection: close'],
    ['Keep-Alive: timeout=5'],
    ['Proxy-Connection: keep-alive'],
    ['TE: trailers'],
    ['TE: gzip;q=0.5, trailers', 'Connection: TE'],
    ['Trailer: X-Sum'],
    ['Upgrade: irc/6.9', 'Connection: Upgrade'],
    ['Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA',
     'Connection: Upgrade, HTTP2-Settings'],
    ['Connection: X-Mine', 'X-Mine: 1'],
    ['Connection: x-mine, close', 'X-MINE: 1', 'x-Mine: 2'],
    ['X-Mine: 1', 'Connection: other', 'Connection: \t, X-Mine ,'],
    ['Connection: X-Mine', 'Connection: X-Other', 'X-Other: 1', 'X-Mine: 2'],
]


@pytest.mark.parametrize('fields', HOP_BY_HOP, ids=[fields[0] for fields in HOP_BY_HOP])
def test_hop_by_hop_fields_end_here(weir, origin, fields):
    request, _ = ask(weir, origin, *fields, 'X-Stays: 1')
    assert others(request) == [('X-Stays', '1')]
    _, response = ask(weir, origin, answer=[*fields, 'X-Stays: 1'])
    left = others(response, ('Date', 'Via', 'Content-Length'))
    assert left == [('X-Stays', '1')]


NOT_NOMINATED = ['X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Real-IP', 'Via',
                 'Host']


@pytest.mark.parametrize('name', NOT_NOMINATED)
def test_connection_cannot_strip_what_weir_says(weir, origin, name):
    request, _ = ask(weir, origin, f'Connection: close, {name}', f'Connection: {name.lower()}')
    assert request.get(name), request


@pytest.mark.parametrize('field', ['Authorization: Basic eDp5', 'Cookie: a=b', 'Content-Type: a/b',
                                   'X-Request-Id: 7', 'Cache-Control: no-store',
                                   'Range: bytes=0-1'])
def test_connection_cannot_strip_end_to_end_fields(weir, origin, field):
    name = field.split(':')[0]
    request, _ = ask(weir, origin, f'Connection: {name}', field)
    assert others(request) == [tuple(field.split(': '))]


def test_connection_cannot_strip_framing(weir, origin):
    request, _ = ask(weir, origin, 'Connection: Content-Length', 'Content-Length: 3',
                     start='POST / HTTP/1.1', body=b'abc')
    assert request.body == b'abc'
    request, _ = ask(weir, origin, 'Connection: Transfer-Encoding', 'Transfer-Encoding: chunked',
                     start='POST / HTTP/1.1', body=CHUNKED_BODY + b'\r\n')
    assert request.body == b'x'
    _, response = ask(weir, origin, answer=['Connection: Content-Length'])
    assert response.body == b'ok' and response.get('Content-Length') == '2'


# ---- what weir says


def test_own_fields(weir, origin):
    request, response = ask(weir, origin, host='Host: A.Test:8080')
    assert request.fields == [
        ('Host', 'A.Test:8080'), ('X-Forwarded-For', '127.0.0.1'), ('X-Forwarded-Proto', 'http'),
        ('X-Forwarded-Host', 'A.Test:8080'), ('X-Real-IP', '127.0.0.1'), ('Via', '1.1 weir')]
    assert response.get('Via') == '1.1 weir'


SPOOFED = ['X-Forwarded-For: 6.6.6.6', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: evil',
           'X-Real-IP: 6.6.6.6', 'Forwarded: for=6.6.6.6', 'X-Forwarded-Port: 1',
           'X-Forwarded-Server: evil', 'x-forwarded-for: 7.7.7.7']
TRICKS = ['X_Forwarded_For: 6.6.6.6', 'x-real_ip: 6.6.6.6', 'X_Forwarded-Proto: https',
          'Content_Length: 5', 'Transfer_Encoding: chunked', 'X-Forwarded_Host: evil']


def test_untrusted_clients_cannot_say_who_they_are(weir, origin):
    request, _ = ask(weir, origin, *SPOOFED, *TRICKS)
    assert others(request) == []
    assert request.get('X-Forwarded-For') == '127.0.0.1' and request.get('X-Real-IP') == '127.0.0.1'
    assert request.get('X-Forwarded-Proto') == 'http' and request.get('Forwarded') is None
    assert request.get('X-Forwarded-Host') == 'a.test'


def test_via_is_extended(weir, origin):
    request, response = ask(weir, origin, 'Via: 1.0 first', 'Via: 1.1 second',
                            answer=['Via: 1.1 third'])
    assert request.all('Via') == ['1.0 first', '1.1 second', '1.1 weir']
    assert response.all('Via') == ['1.1 third', '1.1 weir']
    request, _ = ask(weir, origin, start='GET / HTTP/1.0')
    assert request.get('Via') == '1.0 weir'


@pytest.fixture(scope='module')
def trusting(start_weir_for_module, origin):
    return start_weir_for_module(one_listener(
        f'[[route]]\nproxy = "{origin.url}"\n'
        '[security]\ntrusted_proxies = ["10.0.0.0/8", "127.0.0.1"]\n', server='forwarded = true'))


def test_trusted_proxies_are_believed_and_extended(trusting, origin):
    request, _ = ask(trusting, origin, 'X-Forwarded-For: 6.6.6.6, 5.5.5.5',
                     'X-Forwarded-For: 4.4.4.4',
                     'X-Forwarded-Proto: https', 'X-Forwarded-Host: outer.test',
                     'X-Real-IP: 6.6.6.6',
                     'Forwarded: for=6.6.6.6;proto=https', 'X-Forwarded-Port: 443')
    assert ', '.join(request.all('X-Forwarded-For')) == '6.6.6.6, 5.5.5.5, 4.4.4.4, 127.0.0.1'
    assert request.get('X-Forwarded-Proto') == 'https'
    assert request.get('X-Forwarded-Host') == 'outer.test'
    assert request.get('X-Real-IP') == '6.6.6.6' and request.get('X-Forwarded-Port') == '443'
    assert request.all('Forwarded') == ['for=6.6.6.6;proto=https',
                                        'for=127.0.0.1;proto=http;host="a.test"']


def test_trusted_proxies_that_say_nothing(trusting, origin):
    request, _ = ask(trusting, origin, 'X-Forwarded-For:')
    assert request.get('X-Forwarded-For') == '127.0.0.1'
    assert request.get('X-Forwarded-Proto') == 'http' and request.get('X-Real-IP') == '127.0.0.1'
    assert request.get('Forwarded') == 'for=127.0.0.1;proto=http;host="a.test"'


def test_trust_is_not_for_all(start_weir, origin):
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'
                                   '[security]\ntrusted_proxies = ["10.0.0.0/8"]\n',
                                   server='forwarded = true'))
    request, _ = ask(weir, origin, *SPOOFED)
    assert request.get('X-Forwarded-For') == '127.0.0.1'
    assert request.get('Forwarded') == 'for=127.0.0.1;proto=http;host="a.test"'
    assert request.get('X-Forwarded-Port') is None


def test_without_own_fields(start_weir, origin):
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'
                                   '[[route]]\npath = "/local"\nrespond = {status = 200}\n',
                                   server='x_forwarded = false\nvia = ""\nserver_header = ""'))
    request, response = ask(weir, origin, *SPOOFED)
    assert request.fields == [('Host', 'a.test')]
    assert response.get('Via') is None
    _, response = ask(weir, origin, start='GET /local HTTP/1.1')
    assert response.get('Server') is None


def test_names_of_this_proxy(start_weir, origin):
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'
                                   '[[route]]\npath = "/local"\nrespond = {status = 200}\n',
                                   server='via = "edge-1"\nserver_header = "mine"'))
    request, response = ask(weir, origin, answer=['Server: theirs'])
    assert request.get('Via') == '1.1 edge-1' and response.get('Via') == '1.1 edge-1'
    assert response.get('Server') == 'theirs'
    _, response = ask(weir, origin, start='GET /local HTTP/1.1')
    assert response.get('Server') == 'mine'


def test_a_client_over_ipv6(start_weir, origin):
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n',
                                   server='forwarded = true')
                      .replace('127.0.0.1:0', '[::1]:0'))
    sock = socket.socket(socket.AF_INET6)
    sock.settimeout(5)
    sock.connect(('::1', weir.port()))
    with Stream(sock) as client:
        client.send(b'GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n')
        assert client.read_until(b'\r\n') == b'HTTP/1.1 200 OK\r\n'
    request = origin.requests[-1]
    assert request.get('X-Forwarded-For') == '::1' and request.get('X-Real-IP') == '::1'
    assert request.get('Forwarded') == 'for="[::1]";proto=http;host="[::1]:80"'


def test_a_client_over_a_unix_socket(start_weir, origin, tmp_path):
    path = str(tmp_path / 'w.sock')
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'
                                   '[security]\ntrusted_proxies = ["0.0.0.0/0", "::/0"]\n',
                                   server='forwarded = true').replace('127.0.0.1:0',
                                                                      f'unix:{path}'))
    with Client(path) as client:
        assert client.get('/', 'X-Forwarded-For: 6.6.6.6').status == 200
    request = origin.requests[-1]
    assert request.get('X-Forwarded-For') == 'unknown'
    assert request.get('X-Real-IP') in (None, 'unknown')
    assert request.get('Forwarded') == 'for=unknown;proto=http;host="test"'
    assert weir.wait_access()[0]['client'] == 'unix'


# ---- Host


@pytest.mark.parametrize('start,host,seen', [
    ('GET / HTTP/1.1', 'Host: a.test', 'a.test'),
    ('GET / HTTP/1.1', 'Host:  A.TEST:81\t', 'A.TEST:81'),
    ('GET / HTTP/1.1', 'Host: [::1]:80', '[::1]:80'),
    ('GET http://a.test/ HTTP/1.1', 'Host: a.test', 'a.test'),
    ('GET http://a.test:81/ HTTP/1.1', 'Host: a.test:81', 'a.test:81'),
    ('GET http://a.test/ HTTP/1.0', None, 'a.test'),
])
def test_host_is_passed_on(weir, origin, start, host, seen):
    request, _ = ask(weir, origin, start=start, host=host)
    assert request.get('Host') == seen and request.get('X-Forwarded-Host') == seen
    assert request.target == '/'


def test_host_header_override(start_weir, origin):
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["{origin.address}"]\n'
                                   'host_header = "inner.test"\n[[route]]\nproxy = "o"\n'))
    request, _ = ask(weir, origin, host='Host: outer.test')
    assert request.get('Host') == 'inner.test' and request.get('X-Forwarded-Host') == 'outer.test'


# ---- what passes unchanged


def test_fields_keep_order_spelling_and_number(weir, origin):
    sent = [('X-B', '1'), ('x-a', 'two words'), ('X-B', '2'), ('Accept', 'a/b, c/d;q=0.1'),
            ('X-Empty', ''),
            ('Cookie', 'a=b'), ('X-B', '3'), ('X-Latin', 'caf\xe9'), ("!#$%&'*+-.^_`|~9", 'token')]
    request, _ = ask(weir, origin, *[f'{name}: {value}' for name, value in sent])
    assert others(request) == sent
    _, response = ask(weir, origin, answer=[f'{name}: {value}' for name, value in sent])
    assert others(response, ('Date', 'Via', 'Content-Length')) == sent


def test_set_cookie_is_never_joined(weir, origin):
    cookies = ['a=1; Path=/', 'b=2; Expires=Wed, 21 Oct 2015 07:28:00 GMT', 'c=3']
    _, response = ask(weir, origin, answer=[f'Set-Cookie: {cookie}' for cookie in cookies])
    assert response.all('Set-Cookie') == cookies


def test_date_of_the_origin_is_kept(weir, origin):
    date = 'Wed, 21 Oct 2015 07:28:00 GMT'
    _, response = ask(weir, origin, answer=[f'Date: {date}'])
    assert response.all('Date') == [date]
    _, response = ask(weir, origin)
    assert len(response.all('Date')) == 1


def test_no_server_field_is_added_to_an_origins_answer(weir, origin):
    _, response = ask(weir, origin)
    assert response.get('Server') is None
    _, response = ask(weir, origin, answer=['Server: theirs/1'])
    assert response.all('Server') == ['theirs/1']


@pytest.mark.parametrize('status', ['200 Very Well', '200', '299 Odd', '404 Not Here', '599 Last'])
def test_status_and_reason_pass(start_weir, start_origin, status):
    def script(connection):
        while True:
            connection.read_request()
            connection.answer(b'x', status=status)
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        response = client.get('/')
        assert response.status == int(status[:3])
        assert response.version == 'HTTP/1.1'
        if ' ' in status:
            assert response.reason == status[4:]


# ---- trailers


FORBIDDEN_TRAILERS = ['Content-Length: 5', 'Transfer-Encoding: chunked', 'Host: evil',
                      'Connection: close',
                      'X-Forwarded-For: 6.6.6.6', 'x_forwarded_for: 6.6.6.6', 'X-Real-IP: 6.6.6.6',
                      'Authorization: Basic eDp5', 'Set-Cookie: a=b', 'Via: 1.1 x', 'TE: trailers',
                      'Content-Type: a/b', 'Forwarded: for=6.6.6.6', 'Keep-Alive: 5', 'Trailer: a',
                      'Upgrade: h2c', 'Expect: 100-continue', 'Cookie: a=b', 'Date: today',
                      'Age: 1']


def trailer_bytes(lines):
    return ''.join(f'{line}\r\n' for line in lines).encode() + b'\r\n'


def test_trailers_cannot_say_what_fields_may_not(weir, origin):
    request, _ = ask(weir, origin, 'Transfer-Encoding: chunked', start='POST / HTTP/1.1',
                     body=CHUNKED_BODY + trailer_bytes([*FORBIDDEN_TRAILERS, 'X-Sum: 1']))
    assert request.body == b'x' and request.trailers == [('X-Sum', '1')]


def test_forbidden_trailers_of_an_origin(start_weir, start_origin):
    def script(connection):
        while True:
            connection.read_request()
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' +
                            CHUNKED_BODY +
                            trailer_bytes([*FORBIDDEN_TRAILERS, 'X-Sum: 1', 'ETag: "7"']))
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        response = client.get('/')
        assert response.trailers == [('X-Sum', '1'), ('ETag', '"7"')]


def test_nominated_trailers_end_here(start_weir, start_origin):
    """A field that the head's Connection names is for this hop, in the trailer section as well:
    then weir drops all trailers, as every recipient may. Well-known options do not count."""
    def script(connection):
        while True:
            named = connection.read_request().target[1:].encode()
            connection.send(b'HTTP/1.1 200 OK\r\nConnection: ' + named +
                            b'\r\nTransfer-Encoding: chunked\r\n\r\n' +
                            CHUNKED_BODY + trailer_bytes(['X-Hop: 1', 'X-Sum: 2']))
    origin = start_origin(script)
    weir = start_weir(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))
    with Client(weir.port()) as client:
        for named, kept in (('x-hop', []), ('TE', [('X-Hop', '1'), ('X-Sum', '2')])):
            response = client.request(f'POST /{named} HTTP/1.1', 'Host: t', f'Connection: {named}',
                                      'Transfer-Encoding: chunked',
                                      body=CHUNKED_BODY + trailer_bytes(['X-Hop: 1', 'X-Sum: 2']))
            assert response.body == b'x' and origin.requests[-1].body == b'x'
            assert origin.requests[-1].trailers == kept and response.trailers == kept
