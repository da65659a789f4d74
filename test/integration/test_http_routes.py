"""What routes do, seen from both sides: local answers, redirects, rewritten and normalised paths,
hosts and conditions, methods that are not served, several servers."""
import collections
import re
import socket
import threading

import pytest

from conftest import Client, one_listener, respond, wait_until


@pytest.fixture(scope='module')
def origin(start_origin_for_module):
    return start_origin_for_module(respond(b'origin'))


# ---- respond


LONG_BODY = 'weir ' * 5000
RESPOND = f'''
[[route]]
path = "/plain"
respond = {{status = 200, body = "hello"}}
[[route]]
path = "/full"
[route.respond]
status = 418
content_type = "text/html"
headers = {{"Cache-Control" = "no-store", "Set-Cookie" = ["a=1", "b=2"], "X-Empty" = ""}}
body = "<p>"
[[route]]
path = "/empty"
respond = {{status = 200}}
[[route]]
path = "/204"
respond = {{status = 204}}
[[route]]
path = "/304"
respond = {{status = 304, headers = {{ETag = '"7"'}}}}
[[route]]
path = "/long"
respond = {{status = 200, body = "{LONG_BODY}"}}
'''


@pytest.fixture(scope='module')
def responding(start_weir_for_module):
    return start_weir_for_module(one_listener(RESPOND))


RESPONSES = [
    # path, status, body, Content-Type
    ('/plain', 200, b'hello', 'text/plain; charset=utf-8'),
    ('/plain/below?x', 200, b'hello', 'text/plain; charset=utf-8'),
    ('/full', 418, b'<p>', 'text/html'),
    ('/empty', 200, b'', None),
    ('/204', 204, b'', None),
    ('/304', 304, b'', None),
    ('/long', 200, LONG_BODY.encode(), 'text/plain; charset=utf-8'),
]


@pytest.mark.parametrize('version', ['1.1', '1.0'])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'OPTIONS', 'BREW'])
def test_respond(responding, method, version):
    with Client(responding.port()) as client:
        for path, status, body, content_type in RESPONSES:
            response = client.request(f'{method} {path} HTTP/{version}', 'Host: t',
                                      'Connection: keep-alive')
            assert (path, response.status) == (path, status)
            assert response.get('Content-Type') == content_type
            assert response.body == (b'' if method == 'HEAD' else body)
            if status in (204, 304):
                assert response.get('Content-Length') is None
            else:
                assert response.get('Content-Length') == str(len(body))
            assert response.get('Server') == 'weir' and response.get('Date')
            assert response.get('Connection') == ('keep-alive' if version == '1.0' else None)


def test_fields_of_a_response(responding):
    with Client(responding.port()) as client:
        response = client.get('/full')
        assert response.all('Set-Cookie') == ['a=1', 'b=2'] and response.get('X-Empty') == ''
        assert response.get('Cache-Control') == 'no-store'
        assert response.reason == ''  # there is no phrase for it, but its space is due
        assert client.get('/304').get('ETag') == '"7"'


def test_no_route(responding):
    with Client(responding.port()) as client:
        for path in ('/', '/plainer', '/Plain', '/other'):
            response = client.get(path)
            assert response.status == 404 and response.get('Connection') is None
            assert response.get('Content-Length') == str(len(response.body))
        assert client.request('HEAD / HTTP/1.1', 'Host: t').status == 404
    assert responding.wait_access(status=404)[0]['reason'] == 'no_route'


# ---- methods


@pytest.fixture(scope='module')
def proxying(start_weir_for_module, origin):
    return start_weir_for_module(one_listener(f'[[route]]\nproxy = "{origin.url}"\n'))


@pytest.mark.parametrize('start,host', [('TRACE / HTTP/1.1', 't'), ('CONNECT t:443 HTTP/1.1',
                                                                    't:443'),
                                        ('CONNECT t:443 HTTP/1.1', 't')])
def test_methods_that_are_not_served(proxying, origin, start, host):
    before = len(origin.requests)
    with Client(proxying.port()) as client:
        response = client.request(start, f'Host: {host}', 'Max-Forwards: 0')
        assert response.status == 405
        assert set(re.split(', *', response.get('Allow'))) >= {'GET', 'HEAD', 'POST'}
        assert 'TRACE' not in response.get('Allow') and 'CONNECT' not in response.get('Allow')
        if start.startswith('CONNECT'):  # what follows may be meant for the target
            assert response.get('Connection') == 'close' and client.at_end()
        else:  # a client that takes no for an answer goes on
            assert client.get('/').status == 200
    assert len(origin.requests) == before + (0 if start.startswith('CONNECT') else 1)


def test_options_for_the_server(proxying, origin):
    with Client(proxying.port()) as client:
        for start in ('OPTIONS * HTTP/1.1', 'OPTIONS http://t HTTP/1.1'):
            response = client.request(start, 'Host: t')
            assert response.status == 200
            assert (origin.requests[-1].method, origin.requests[-1].target) == ('OPTIONS', '*')
        assert client.request('OPTIONS /a HTTP/1.1', 'Host: t').status == 200
        assert origin.requests[-1].target == '/a'


# ---- redirects


REDIRECTS = [
    # template, status, request target, Host, Location
    ('https://${host}${uri}', 301, '/a/b?x=1&y', 'Example.Test:8080',
     'https://example.test/a/b?x=1&y'),
    ('https://${host}${uri}', 302, '/', 'example.test', 'https://example.test/'),
    ('${scheme}://new.test${path}', 303, '/a?q', 'a.test', 'http://new.test/a'),
    ('/new${path}?${query}', 307, '/a?q=1', 'a.test', '/new/a?q=1'),
    ('/fixed', 308, '/a?q=1', 'a.test', '/fixed'),
    ('https://new.test${path}', 302, '/%7Ea/%2e/b%2Fc', 'a.test', 'https://new.test/~a/b%2Fc'),
    ('https://new.test${uri}', 302, '/a?q="<>^`{|}', 'a.test',
     'https://new.test/a?q=%22%3C%3E%5E%60%7B%7C%7D'),
    # A link must not lead elsewhere than the template says.
    ('${path}', 302, '//evil.test/x', 'a.test', '/evil.test/x'),
    ('${uri}', 302, '///evil.test?x', 'a.test', '/evil.test?x'),
    ('${path}', 302, '/.//evil.test', 'a.test', '/evil.test'),
    ('${path}', 302, '/a/..//evil.test', 'a.test', '/evil.test'),
    ('${path}', 302, '/%2F/evil.test', 'a.test', '/%2F/evil.test'),
]


@pytest.fixture(scope='module')
def redirecting(start_weir_for_module):
    # Each template has a listener's worth of paths; the source of the route is told by a header.
    routes = ''.join(f'[[route]]\nheaders = {{"X-Case" = "{i}"}}\n'
                     f'redirect = {{url = "{case[0]}", status = {case[1]}}}\n'
                     for i, case in enumerate(REDIRECTS))
    return start_weir_for_module(one_listener(routes))


@pytest.mark.parametrize('index', range(len(REDIRECTS)))
def test_redirect(redirecting, index):
    _, status, target, host, location = REDIRECTS[index]
    with Client(redirecting.port()) as client:
        for method in ('GET', 'HEAD', 'POST'):
            response = client.request(f'{method} {target} HTTP/1.1', f'Host: {host}',
                                      f'X-Case: {index}')
            assert (response.status, response.get('Location')) == (status, location)
            assert response.body == b'' and response.get('Content-Length') == '0'


def test_redirect_without_a_host(redirecting):
    """HTTP/1.0 may lack Host: there is no place to send such a client to."""
    with Client(redirecting.port()) as client:
        assert client.request('GET / HTTP/1.0', 'X-Case: 0').status == 400


@pytest.mark.parametrize('host', ['evil.test/@', 'a b', 'a.test\\@evil', 'user@evil', 'a..b',
                                  'a%2eb', '[::1',
                                  'a:b', 'a:99999', 'a,b', '"a"'])
def test_redirect_to_a_host_that_is_none(redirecting, host):
    with Client(redirecting.port()) as client:
        response = client.get('/')
        assert response.status == 404
        assert client.request('GET / HTTP/1.1', f'Host: {host}', 'X-Case: 0').status == 400


# ---- rewriting


REWRITES = [
    # route, path of the URL (None: none), request, what the origin gets
    ('/api', '/app', '/api/v1', '/app/v1'),
    ('/api', '/app/', '/api/v1', '/app/v1'),
    ('/api/', '/app', '/api/v1', '/app/v1'),
    ('/api/', '/app/', '/api/v1', '/app/v1'),
    ('/api/', '/app/', '/api/v1/', '/app/v1/'),
    ('/api/', '/app/', '/api/', '/app/'),
    ('/api/', '/app/', '/api', '/app'),
    ('/api', '/app', '/api', '/app'),
    ('/api', '/app', '/api/', '/app/'),
    ('/api/', '/', '/api/v1', '/v1'),
    ('/api', '/', '/api/v1', '/v1'),
    ('/api', '/', '/api', '/'),
    ('/api/', '/', '/api/', '/'),
    ('/', '/app', '/v1', '/app/v1'),
    ('/', '/app/', '/v1', '/app/v1'),
    ('/', '/', '/v1', '/v1'),
    ('/api', None, '/api/v1', '/api/v1'),
    ('/api/', None, '/api', '/api'),
    ('/api', '/app', '/api//x', '/app//x'),
    ('/api', '/app', '/api/api/x?y=/api', '/app/api/x?y=/api'),
    ('/api', '/app', '/api/v1?', '/app/v1?'),
    ('/api', '/app', '/api/%2Fx', '/app/%2Fx'),
    ('/api', '/a%20b', '/api/x', '/a%20b/x'),
    ('/api', '/app', '/x/../api/y', '/app/y'),
    ('/api', '/app', '/%61pi/y', '/app/y'),
    ('/api', '/app', '/api/x/..', '/app/'),
    ('/api', '/app', '/api/..', None),
    ('/api', '/app', '/api/../etc', None),
    ('/api', '/app', '/apix', None),
]


@pytest.fixture(scope='module')
def rewriting(start_weir_for_module, origin):
    routes = ''.join(f'[[route]]\nhost = "c{i}.test"\npath = "{route}"\n'
                     f'proxy = "{origin.url}{path or ""}"\n'
                     for i, (route, path, _, _) in enumerate(REWRITES))
    return start_weir_for_module(one_listener(routes))


@pytest.mark.parametrize('index', range(len(REWRITES)))
def test_rewriting(rewriting, origin, index):
    _, _, target, expected = REWRITES[index]
    before = len(origin.requests)
    with Client(rewriting.port()) as client:
        response = client.request(f'GET {target} HTTP/1.1', f'Host: c{index}.test')
        if expected is None:
            assert response.status == 404 and len(origin.requests) == before
        else:
            assert response.status == 200 and origin.requests[-1].target == expected


PATHS = [
    # sent, seen by the origin (None: 400)
    ('/', '/'), ('/a/./b', '/a/b'), ('/a/../b', '/b'), ('/a/b/..', '/a/'), ('/a/.', '/a/'),
    ('/a/%2e%2e/b', '/b'), ('/a/%2E/b', '/a/b'), ('/a/.%2e/b', '/b'),
    ('/%41%7a%7E%2d%5F', '/Az~-_'), ('/%2f%5c%25', '/%2F%5C%25'), ('/%c3%a9', '/%C3%A9'),
    ('/%20', '/%20'), ('/a%3fb', '/a%3Fb'), ('/a%23b', '/a%23b'), ('/%252e%252e/x',
                                                                   '/%252e%252e/x'),
    ('//a', '//a'), ('/a//b', '/a//b'), ('/a//../b', '/a/b'), ('/...', '/...'), ('/.a', '/.a'),
    ('/a;b=c', '/a;b=c'), ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
    ('/a?../..', '/a?../..'), ('/a?%2e%2e%zz', '/a?%2e%2e%zz'), ('/a?b?c', '/a?b?c'),
    ('/..', None), ('/../a', None), ('/a/../..', None), ('/%2e%2e/a', None), ('/a/%2e%2e/%2e%2e/',
                                                                              None),
    ('/%', None), ('/%2', None), ('/%zz', None), ('/%00', None), ('/a%0d%0ab', None),
    ('/%7f', None),
    ('/a\\b', None), ('/a/..%2Fb', None), ('/a/..%5cb', None), ('/caf\xe9', None), ('/a#b', None),
]


def test_paths_are_normalised_once(proxying, origin):
    for sent, seen in PATHS:
        before = len(origin.requests)
        with Client(proxying.port()) as client:
            response = client.get(sent)
            if seen is None:
                assert (sent, response.status) == (sent, 400) and len(origin.requests) == before
            else:
                assert (sent, response.status) == (sent, 200)
                assert (sent, origin.requests[-1].target) == (sent, seen)


# ---- which route


CHOICE = '''
[[route]]
respond = {status = 200, body = "any"}
[[route]]
host = "a.test"
respond = {status = 200, body = "a"}
[[route]]
host = "*.a.test"
respond = {status = 200, body = "*.a"}
[[route]]
host = "a.test"
path = "/x"
respond = {status = 200, body = "a/x"}
[[route]]
host = "a.test"
path = "/x/y"
match = "exact"
respond = {status = 200, body = "exact"}
[[route]]
host = "a.test"
path = "/x"
methods = ["POST", "PUT"]
respond = {status = 200, body = "post"}
[[route]]
host = "a.test"
path = "/x"
headers = {"X-Version" = "2"}
query = {"debug" = true}
respond = {status = 200, body = "debug"}
[[route]]
host = "a.test"
path = "/inside"
source = ["10.0.0.0/8"]
respond = {status = 200, body = "inside"}
'''

CHOICES = [
    ('GET / HTTP/1.1', ['Host: other'], 'any'),
    ('GET / HTTP/1.0', [], 'any'),
    ('GET / HTTP/1.1', ['Host: a.test'], 'a'),
    ('GET / HTTP/1.1', ['Host: A.TEST.:8080'], 'a'),
    ('GET / HTTP/1.1', ['Host: b.a.test'], '*.a'),
    ('GET / HTTP/1.1', ['Host: c.b.A.test'], '*.a'),
    ('GET / HTTP/1.1', ['Host: xa.test'], 'any'),
    ('GET http://a.test/x HTTP/1.1', ['Host: a.test'], 'a/x'),
    ('GET /x/z HTTP/1.1', ['Host: a.test'], 'a/x'),
    ('GET /xz HTTP/1.1', ['Host: a.test'], 'a'),
    ('GET /x/y HTTP/1.1', ['Host: a.test'], 'exact'),
    ('GET /x/y/ HTTP/1.1', ['Host: a.test'], 'a/x'),
    ('POST /x HTTP/1.1', ['Host: a.test'], 'post'),
    ('post /x HTTP/1.1', ['Host: a.test'], 'a/x'),
    ('GET /x?debug HTTP/1.1', ['Host: a.test', 'x-version: 2'], 'debug'),
    ('GET /x?a=b&debug=1 HTTP/1.1', ['Host: a.test', 'X-Version: 1', 'X-Version: 2'], 'debug'),
    ('GET /x?nodebug HTTP/1.1', ['Host: a.test', 'X-Version: 2'], 'a/x'),
    ('GET /x?debug HTTP/1.1', ['Host: a.test', 'X-Version: 22'], 'a/x'),
    ('GET /inside HTTP/1.1', ['Host: a.test', 'X-Forwarded-For: 10.0.0.1'], 'a'),
]


def test_choice_of_the_route(start_weir):
    weir = start_weir(one_listener(CHOICE))
    with Client(weir.port()) as client:
        for start, fields, expected in CHOICES:
            response = client.request(start, *fields, 'Connection: keep-alive')
            assert (start, fields, response.body.decode()) == (start, fields, expected)


# ---- several servers


def refused_address():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


def named(name):
    return respond(name.encode())


def test_a_server_that_refuses_is_passed_over(start_weir, start_origin):
    good = start_origin(named('good'))
    weir = start_weir(one_listener('[upstream.o]\n'
                                   f'servers = ["{refused_address()}", "{good.address}", '
                                   f'"{refused_address()}"]\n[[route]]\nproxy = "o"\n'))
    with Client(weir.port()) as client:
        for i in range(30):
            body = b'x' * i
            response = client.request('POST / HTTP/1.1', 'Host: t', f'Content-Length: {i}',
                                      body=body)
            assert (response.status, response.body) == (200, b'good')
            assert good.requests[-1].body == body
    assert any(record['tries'] > 1 for record in weir.wait_access(30))


def test_all_servers_refuse(start_weir):
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["{refused_address()}", '
                                   f'"{refused_address()}"]\n[[route]]\nproxy = "o"\n'))
    with Client(weir.port()) as client:
        for body in (b'', b'x' * 100):
            response = client.request('POST / HTTP/1.1', 'Host: t', f'Content-Length: {len(body)}',
                                      body=body)
            assert (response.status, response.get('Retry-After')) == (503, '1')
            assert response.get('Connection') is None
        response = client.request('PUT / HTTP/1.1', 'Host: t', 'Content-Length: 1000000',
                                  'Expect: 100-continue')
        assert (response.status, response.get('Connection')) == (503, 'close')
        assert client.at_end()
    record = weir.wait_access(3, status=503)[0]
    assert record['reason'] == 'upstream_connect' and record['tries'] == 2


@pytest.mark.parametrize('weights', [(1, 1), (1, 2), (3, 1), (5, 1, 1)])
def test_weights(start_weir, start_origin, weights):
    origins = [start_origin(named(str(i))) for i in range(len(weights))]
    servers = ', '.join(f'{{address = "{origin.address}", weight = {weight}}}'
                        for origin, weight in zip(origins, weights))
    weir = start_weir(one_listener(f'[upstream.o]\nservers = [{servers}]\n'
                                   '[[route]]\nproxy = "o"\n'))
    rounds = 20
    with Client(weir.port()) as client:
        answers = [client.get('/').body.decode() for _ in range(rounds * sum(weights))]
    count = collections.Counter(answers)
    assert [count[str(i)] for i in range(len(weights))] == [rounds * weight for weight in weights]
    if weights == (5, 1, 1):  # smooth: never five in a row and then the others
        assert '0' * 5 not in ''.join(answers)


def test_names_are_resolved(start_weir, start_origin):
    good = start_origin(named('good'))
    weir = start_weir(one_listener(f'[[route]]\nproxy = "http://localhost:{good.port}/"\n'))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'good'


def test_an_upstream_on_a_unix_socket(start_weir, tmp_path):
    path = str(tmp_path / 'o.sock')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    seen = []

    def serve():
        sock, _ = listener.accept()
        while data := sock.recv(65536):
            seen.append(data)
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix')

    threading.Thread(target=serve, daemon=True).start()
    weir = start_weir(one_listener(f'[upstream.o]\nservers = ["unix:{path}"]\n'
                                   '[[route]]\nproxy = "o"\n'))
    with Client(weir.port()) as client:
        for _ in range(3):
            assert client.get('/').body == b'unix'
        assert client.request('GET / HTTP/1.0').body == b'unix'
    wait_until(lambda: len(seen) == 4)
    host = re.search(rb'\r\nHost: ([^\r]*)\r\n', seen[-1])[1]
    assert re.fullmatch(rb'[\w.-]+', host), 'a path is no host'
    listener.close()
