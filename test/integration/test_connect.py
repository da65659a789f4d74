"""CONNECT: a tunnel to what a route lists, and to nothing else."""
import os
import socket

import pytest

import conftest
import tls_rig
from conftest import one_listener
from tls_rig import MiB, TlsClient, pki, rig
from tunnel_rig import proxying

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(60))


def connecting(origin, server='', more=''):
    return one_listener(f'[[route]]\nconnect = ["{origin.address}"]\n{more}', server)


def echo_lines(connection):
    """A protocol of its own, that begins with the server."""
    connection.send(b'220 ready\r\n')
    while True:
        line = connection.read_until(b'\r\n')
        connection.send(b'250 ' + line)


def tunnel_to(client, authority, *fields):
    client.send_request(f'CONNECT {authority} HTTP/1.1', f'Host: {authority}', *fields)
    answer = client.read_head()
    assert (answer.status, answer.reason) == (200, 'Connection established'), answer
    assert not answer.all('Content-Length') and not answer.all('Transfer-Encoding'), answer


def test_connect(rig):
    origin = rig.origin(echo_lines)
    weir = rig.weir(connecting(origin))
    with conftest.Client(weir.port) as client:
        tunnel_to(client, origin.address)
        assert client.read_until(b'\r\n') == b'220 ready\r\n'
        for number in range(100):
            client.send(b'GET /%d HTTP/1.1\r\n' % number)
            assert client.read_until(b'\r\n') == b'250 GET /%d HTTP/1.1\r\n' % number
        client.sock.shutdown(socket.SHUT_WR)
        assert client.at_end()
    record = weir.line(status=200)
    assert (record['method'], record['path']) == ('CONNECT', origin.address), record
    assert record['bytes_out'] > 100 * 20 and not record.get('reason')


def test_tls_through_connect(rig):
    origin = rig.tls_origin(conftest.respond(b'secret'))
    weir = rig.weir(connecting(origin))
    outer = conftest.Client(weir.port)
    tunnel_to(outer, origin.address)
    assert outer.buffer == b''
    inner = conftest.Client.__new__(conftest.Client)
    conftest.Stream.__init__(inner, tls_rig.client_context().wrap_socket(
        outer.sock, server_hostname='a.test', suppress_ragged_eofs=False))
    with inner:
        assert inner.sock.getpeercert(True) == pki().ec.der()
        for _ in range(5):
            assert inner.get('/').body == b'secret'


def test_curl_through_connect(rig):
    origin = rig.origin(conftest.respond(b'through'))
    weir = rig.weir(connecting(origin))
    done = tls_rig.run('curl', '-sS', '--fail', '-m', '20', '--proxytunnel', '--proxy',
                       f'http://127.0.0.1:{weir.port}', f'{origin.url}/a')
    assert done.stdout == b'through'
    assert origin.requests[0].get('Via') is None


def test_connect_over_tls(rig):
    origin = rig.origin(echo_lines)
    weir = rig.weir(tls_rig.config(f'[[route]]\nconnect = ["{origin.address}"]\n'))
    with TlsClient(weir.port) as client:
        tunnel_to(client, origin.address)
        assert client.read_until(b'\r\n') == b'220 ready\r\n'
        client.send(b'a\r\n')
        assert client.read_until(b'\r\n') == b'250 a\r\n'


def test_early_data_of_connect(rig):
    """What comes behind the head belongs to the target."""
    origin = rig.origin(echo_lines)
    weir = rig.weir(connecting(origin))
    with conftest.Client(weir.port) as client:
        client.send_request(f'CONNECT {origin.address} HTTP/1.1', f'Host: {origin.address}',
                            body=b'one\r\ntwo\r\n')
        assert client.read_head().status == 200
        for line in (b'220 ready\r\n', b'250 one\r\n', b'250 two\r\n'):
            assert client.read_until(b'\r\n') == line


def test_connect_only_to_what_is_listed(rig):
    origin = rig.origin(echo_lines)
    port = origin.port
    plain = '[[route]]\nrespond = {status = 200, body = "plain"}\n'
    weir = rig.weir(connecting(origin, more=plain))
    for authority in (f'127.0.0.1:{port + 1}', f'127.0.0.2:{port}', f'localhost:{port}',
                      f'127.0.0.1:0{port}', f'127.0.0.1.nip.test:{port}', f'[::1]:{port}',
                      '127.0.0.1:22', 'a.test:443'):
        with conftest.Client(weir.port) as client:
            answer = client.request(f'CONNECT {authority} HTTP/1.1', f'Host: {authority}',
                                    body=b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
            assert answer.status == (400 if ':0' in authority else 403), authority
            assert client.at_end(), authority  # nothing behind it is a request
    assert weir.lines(7, status=403)[0]['reason'] == 'denied'
    with conftest.Client(weir.port) as client:
        assert client.get('/').body == b'plain'
    assert not origin.connections


def test_connect_where_no_route_is_for_it(rig):
    weir = rig.weir(proxying(rig.origin()))
    with conftest.Client(weir.port) as client:
        assert client.request('CONNECT a.test:443 HTTP/1.1', 'Host: a.test:443').status == 405


def test_other_methods_where_only_connect_is(rig):
    weir = rig.weir(connecting(rig.origin()))
    with conftest.Client(weir.port) as client:
        assert client.get('/').status in (404, 405)


@pytest.mark.parametrize('framing', ['Content-Length: 0', 'Content-Length: 5',
                                     'Transfer-Encoding: chunked'])
def test_connect_with_a_body(rig, framing):
    origin = rig.origin(echo_lines)
    weir = rig.weir(connecting(origin))
    with conftest.Client(weir.port) as client:
        answer = client.request(f'CONNECT {origin.address} HTTP/1.1', f'Host: {origin.address}',
                                framing, body=b'hello')
        assert answer.status == 400
        assert client.at_end()
    assert not origin.connections


def test_connect_to_a_target_that_is_down(rig):
    origin = rig.origin()
    weir = rig.weir(connecting(origin))
    origin.stop_listening()
    with conftest.Client(weir.port) as client:
        answer = client.request(f'CONNECT {origin.address} HTTP/1.1', f'Host: {origin.address}',
                                body=b'early bytes\r\n\r\n')
        assert answer.status == 502
        assert client.at_end()
    assert weir.line(status=502)['reason'] == 'upstream_connect'


def test_connect_half_close_and_large_upload(rig):
    digest = []

    def script(connection):
        digest.append(tls_rig.sha(connection.read_to_end()))
        connection.send(b'got it')

    origin = rig.origin(script)
    weir = rig.weir(connecting(origin))
    data = os.urandom(20 * MiB)
    with conftest.Client(weir.port) as client:
        tunnel_to(client, origin.address)
        client.send(data)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b'got it'
    assert digest == [tls_rig.sha(data)]
    assert weir.stats()['tunnel_bytes_spliced'] > 18 * MiB
