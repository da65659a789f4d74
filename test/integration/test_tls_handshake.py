"""Handshakes that go wrong, and what is agreed in those that do not; plain HTTP beside TLS."""
import re
import signal
import socket
import ssl
import time

import pytest

import conftest
import ops_rig
import tls_rig
from tls_rig import (ByteClient, TlsClient, client_context, config, connect, free_port, one_by_one, pki,
                     proxy_to, records_in, request_bytes, rig, run, s_client, until_closed)

__all__ = ['rig']
pytestmark = tls_rig.LIMIT


@pytest.fixture(scope='module')
def weir(tmp_path_factory):
    made = tls_rig.Rig(tmp_path_factory.mktemp('handshake'))
    try:
        yield made.weir(config())
    finally:
        made.close()


def refusals(weir, before):
    """How clients' handshakes failed since `before`, and how often."""
    now = weir.tls_stats()
    return {key.split('.')[-1]: now[key] - before[key] for key in now
            if re.match(r'clients\.(failures\.|timeouts|gone)', key) and now[key] != before[key]}


def hello(context=None):
    """A ClientHello as it goes on the wire."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = (context or client_context()).wrap_bio(incoming, outgoing, server_hostname='a.test')
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def said_to(port, data, end=False):
    """All that weir answers to these bytes."""
    with connect(port) as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return until_closed(sock)


def served(weir):
    with TlsClient(weir.port) as client:
        assert client.get('/').body == b'ok\n'


# ---- no handshake at all


@pytest.mark.parametrize('request_line', [b'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n',
                                          b'POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc'],
                         ids=['GET', 'POST'])
def test_plain_http_on_the_port_of_https(weir, request_line):
    """A person at a browser gets an answer to read."""
    before = weir.tls_stats()
    answer = said_to(weir.port, request_line)
    head, _, body = answer.partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 400 '), answer
    assert b'https' in body.lower() or b'tls' in body.lower(), answer
    assert refusals(weir, before) == {'plain_http': 1}


@pytest.mark.parametrize('data', [b'\0' * 100, b'SSH-2.0-OpenSSH_9.2\r\n', b'\xff' * 3000,
                                  b'\x16\x03\x01\x00\x00', b'\x17\x03\x03\x00\x10' + bytes(16),
                                  b'\x80\x2e\x01\x00\x02' + bytes(50), b'\r\n\r\n\r\n'],
                         ids=['zeros', 'ssh', 'ones', 'empty record', 'data', 'sslv2', 'lines'])
def test_garbage(weir, data):
    before = weir.tls_stats()
    answer = said_to(weir.port, data, end=True)
    assert not answer.startswith(b'HTTP'), answer
    assert sum(refusals(weir, before).values()) == 1
    served(weir)


def test_garbage_instead_of_finished(weir):
    before = weir.tls_stats()
    with ByteClient(weir.port) as client:
        client.handshake()
        client.send_raw(b'\x17\3\3\0\x40' + bytes(64))
        until_closed(client.sock)
    assert sum(refusals(weir, before).values()) == 1
    served(weir)


# ---- time


def test_a_handshake_has_its_time(rig):
    weir = rig.weir(config(tls='handshake_timeout = "300ms"\n'))
    parts = [b'', hello()[:1], hello()[:100], hello()]
    since = time.monotonic()
    socks = [connect(weir.port) for _ in parts]
    for sock, part in zip(socks, parts):
        sock.sendall(part)
    for sock in socks:
        until_closed(sock)
        sock.close()
        assert tls_rig.elapsed(since) > 0.25, 'before its time'
    assert tls_rig.elapsed(since) < tls_rig.seconds(5)
    weir.wait_stat('clients.timeouts', len(parts))
    served(weir)


def test_bytes_now_and_then_do_not_stretch_the_time(rig):
    weir = rig.weir(config(tls='handshake_timeout = "400ms"\n'))
    since = time.monotonic()
    with connect(weir.port) as sock:
        sock.settimeout(0.05)
        for byte in hello():
            try:
                sock.sendall(bytes([byte]))
                if sock.recv(1000) == b'':
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.3 < tls_rig.elapsed(since) < tls_rig.seconds(5)
    weir.wait_stat('clients.timeouts', 1)


def test_the_time_of_the_handshake_is_not_that_of_the_connection(rig):
    weir = rig.weir(config(tls='handshake_timeout = "300ms"\n'))
    with TlsClient(weir.port) as client:
        assert client.get('/').status == 200
        time.sleep(0.5)
        assert client.get('/').status == 200


# ---- ends within


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('how', ['fin', 'reset'])
@pytest.mark.parametrize('when', ['nothing', 'half a hello', 'hello', 'half of the end'])
def test_a_client_that_goes_in_the_handshake(weir, when, how, version):
    before = weir.tls_stats()
    client = ByteClient(weir.port, context=client_context(version))
    data = client.step()[1]
    if when == 'half a hello':
        client.send_raw(data[:100])
    elif when != 'nothing':
        client.send_raw(data)
        client.receive()
    if when == 'half of the end':
        client.send_raw(client.step()[1][:20])
    if how == 'fin':
        client.sock.shutdown(socket.SHUT_WR)
        until_closed(client.sock)
        client.close()
    else:
        client.reset()
    weir.wait_stat('clients.gone', before['clients.gone'] + 1)
    assert refusals(weir, before) == {'gone': 1}


# ---- pieces


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_a_handshake_byte_by_byte(weir, version):
    with ByteClient(weir.port, context=client_context(version)) as client:
        one_by_one(client.sock, client.handshake(lambda data: one_by_one(client.sock, data)))
        assert client.get('/').body == b'ok\n'


def test_a_hello_in_many_records(weir):
    """Allowed, if pointless."""
    with ByteClient(weir.port) as client:
        whole = client.step()[1]
        pieces = [whole[at:at + 50] for at in range(5, len(whole), 50)]
        client.send_raw(b''.join(b'\x16\3\1' + len(piece).to_bytes(2, 'big') + piece
                                 for piece in pieces))
        client.receive()
        client.establish()
        assert client.get('/').body == b'ok\n'


def test_a_hello_that_is_too_large(weir):
    before = weir.tls_stats()
    context = client_context(alpn=[f'{number:0200}' for number in range(100)] + ['http/1.1'])
    large = hello(context)
    assert len(large) > 20000
    answer = said_to(weir.port, large)
    assert not answer or records_in(answer)[0][-1] == (21, 2), answer
    assert refusals(weir, before) == {'client_hello_too_large': 1}
    served(weir)


def test_a_large_hello(weir):
    context = client_context(alpn=[f'{number:0200}' for number in range(60)] + ['http/1.1'])
    with TlsClient(weir.port, context=context) as client:
        assert client.sock.selected_alpn_protocol() == 'http/1.1'


# ---- nothing in common


@pytest.mark.parametrize('options, alert, counted', [
    (['-tls1_1', '-cipher', 'ALL:@SECLEVEL=0'], 'protocol version', 'version'),
    (['-tls1', '-cipher', 'ALL:@SECLEVEL=0'], 'protocol version', 'version'),
    (['-tls1_2', '-cipher', 'AES128-SHA'], 'handshake failure', 'no_shared_cipher'),
    (['-tls1_2', '-cipher', 'DHE-RSA-AES128-GCM-SHA256'], 'handshake failure', 'no_shared_cipher'),
    (['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-SHA256'], 'handshake failure', 'no_shared_cipher'),
    (['-tls1_3', '-ciphersuites', 'TLS_AES_128_CCM_SHA256'], 'handshake failure',
     'no_shared_cipher'),
    (['-tls1_3', '-groups', 'P-521'], 'handshake failure', 'no_shared_group'),
    (['-tls1_3', '-sigalgs', 'RSA-PSS+SHA256'], 'handshake failure', 'no_shared_signature'),
    (['-alpn', 'h2'], 'no application protocol', 'no_shared_alpn'),
], ids=str)
def test_nothing_in_common(weir, options, alert, counted):
    before = weir.tls_stats()
    said = s_client(weir.port, *options)
    assert f'alert {alert}' in said, said
    assert refusals(weir, before) == {counted: 1}, said


def test_a_limit_on_versions(rig):
    weir = rig.weir(config(tls='min_version = "1.3"\n'))
    assert 'alert protocol version' in s_client(weir.port, '-tls1_2')
    served(weir)
    weir = rig.weir(config(tls='max_version = "1.2"\n'))
    assert 'alert protocol version' in s_client(weir.port, '-tls1_3')
    with TlsClient(weir.port) as client:
        assert client.sock.version() == 'TLSv1.2'


def test_our_order_of_suites_and_groups(rig):
    weir = rig.weir(config(tls='ciphersuites = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]\n'
                               'ciphers = ["ECDHE-ECDSA-CHACHA20-POLY1305", '
                               '"ECDHE-ECDSA-AES128-GCM-SHA256"]\ngroups = ["P-384", "X25519"]\n'))
    said = s_client(weir.port, '-ciphersuites', 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384',
                    '-groups', 'X25519:P-384')
    assert 'Cipher is TLS_AES_256_GCM_SHA384' in said
    said = s_client(weir.port, '-tls1_2', '-cipher',
                    'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305')
    assert 'Cipher is ECDHE-ECDSA-CHACHA20-POLY1305' in said
    assert 'alert handshake failure' in s_client(weir.port, '-groups', 'P-256')
    said = s_client(weir.port, '-groups', 'P-384')
    assert 'Temp Key: ECDH, secp384r1' in said  # "Server", with OpenSSL 3.4 and newer "Peer"


@pytest.mark.parametrize('offered, chosen', [(['http/1.1'], 'http/1.1'), (None, None),
                                             (['h2', 'http/1.1'], 'http/1.1'),
                                             (['http/1.0', 'http/1.1', 'h2'], 'http/1.1')])
def test_alpn(weir, offered, chosen):
    for version in ('1.2', '1.3'):
        with TlsClient(weir.port, context=client_context(version, alpn=offered)) as client:
            assert client.sock.selected_alpn_protocol() == chosen
            assert client.get('/').status == 200


def test_alpn_switched_off(rig):
    weir = rig.weir(config(tls='alpn = []\n'))
    with TlsClient(weir.port, context=client_context(alpn=['h2'])) as client:
        assert client.sock.selected_alpn_protocol() is None


# ---- many


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_a_thousand_handshakes_at_once(weir, version):
    """None of them is done before all have begun."""
    context = client_context(version)
    before = weir.tls_stats()
    clients = [ByteClient(weir.port, context=context) for _ in range(1000)]
    try:
        for client in clients:
            client.send_raw(client.step()[1])
        for client in clients:
            client.receive()
            client.establish()
            client.send(request_bytes('/'))
        for client in clients:
            assert client.read_response().body == b'ok\n'
    finally:
        for client in clients:
            client.close()
    weir.wait_stat('clients.full', before['clients.full'] + 1000)


def test_handshakes_over_all_cores(rig):
    weir = rig.weir(config(server='threads = 2'))
    for _ in range(40):
        served(weir)
    cores = {line['core'] for line in weir.lines(40)}
    assert cores == {0, 1}
    assert weir.tls_stats()['clients.full'] == 40


# ---- shutdown


def test_drain_in_the_middle_of_handshakes(rig):
    """It does not wait for those that do not go on, and does not break those that do."""
    weir = rig.weir(config(server='shutdown_timeout = "20s"'))
    silent = [connect(weir.port) for _ in range(5)]
    half = [ByteClient(weir.port) for _ in range(5)]
    for client in half:
        client.send_raw(client.step()[1])
        client.receive()
    with TlsClient(weir.port) as done:
        assert done.get('/').status == 200
        since = time.monotonic()
        weir.tell(signal.SIGTERM)
        weir.wait_log('shutting down')
        answered = 0
        for client in half:
            try:
                client.establish()
                client.send(request_bytes('/'))
                answered += client.read_response().status == 200
            except (OSError, conftest.Ended):
                pass
        assert weir.wait(tls_rig.seconds(15)) == 0
        assert tls_rig.elapsed(since) < tls_rig.seconds(15)
        assert done.read_to_end() == b''
    for sock in silent:
        sock.close()
    for client in half:
        client.close()


# ---- from http to https


def redirecting(value, more=''):
    return config(more=f'[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\n'
                       f'redirect_https = {value}\n{more}')


@pytest.mark.parametrize('value, host, location', [
    ('true', 'a.test', 'https://a.test'), ('true', 'a.test:8080', 'https://a.test'),
    ('443', 'a.test:80', 'https://a.test'), ('8443', 'a.test', 'https://a.test:8443'),
    ('8443', 'a.test:8080', 'https://a.test:8443'), ('8443', '[::1]:80', 'https://[::1]:8443'),
    ('true', '127.0.0.1', 'https://127.0.0.1')])
def test_redirect_to_https(rig, value, host, location):
    weir = rig.weir(redirecting(value))
    with ops_rig.Client(weir.port_of('plain')) as client:
        for method, status in (('GET', 301), ('HEAD', 301), ('POST', 308), ('DELETE', 308)):
            answer = client.request(f'{method} /a/b%20c?d=e&f=%2F HTTP/1.1', f'Host: {host}')
            assert answer.status == status
            assert answer.get('Location') == f'{location}/a/b%20c?d=e&f=%2F'
    served(weir)


def test_a_redirected_request_leads_to_https(rig):
    port = free_port()
    weir = rig.weir(redirecting(port).replace('127.0.0.1:0', f'127.0.0.1:{port}', 1))
    plain = weir.port_of('plain')
    said = run('curl', '--silent', '--show-error', '--cacert', pki().ca_file, '--location',
               '--connect-to', '::127.0.0.1:', '--write-out', '#%{num_redirects} %{url_effective}',
               f'http://a.test:{plain}/x?y').stdout.decode()
    assert said == f'ok\n#1 https://a.test:{port}/x?y'


def test_plain_http_beside_https(rig):
    """One weir, two listeners; the application is told which."""
    schemes = []

    def script(connection):
        while True:
            schemes.append(connection.read_request().get('X-Forwarded-Proto'))
            connection.answer(b'ok')
    weir = rig.weir(config(proxy_to(rig.origin(script)), more='[[listener]]\nname = "plain"\n'
                                                            'address = "127.0.0.1:0"\n'))
    with ops_rig.Client(weir.port_of('plain')) as client:
        client.get('/')
    with TlsClient(weir.port) as client:
        client.get('/')
    assert schemes == ['http', 'https']
    plain, tls = weir.lines(2)
    assert 'tls' not in plain and tls['tls'] == 'TLSv1.3'
