"""Connections to origins over TLS: who they are, what is said to them, pooled and resumed, and the
whole truth or a clean 502."""
import contextlib
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

import conftest
import ops_rig
import tls_rig
from conftest import Ended, respond, wait_until
from tls_rig import (Authority, KiB, MiB, TlsClient, chunks_of, client_context, config, connect, content,
                     everything, free_port, pki, rig, seconds, server_context, sha)

__all__ = ['rig']
pytestmark = tls_rig.LIMIT
VERSIONS = ['1.2', '1.3']


def proxying(origin, upstream='', host=None, server='', trust=True, more=''):
    """A plain listener, one upstream with TLS."""
    port = origin if isinstance(origin, int) else origin.port
    ca = f'tls_ca_path = "{pki().ca_file}"\n' if trust else ''
    return (f'[[listener]]\nname = "main"\naddress = "127.0.0.1:0"\n[server]\nthreads = 1\n{server}\n'
            f'[logging]\nflush_interval_ms = 10\n{more}\n'
            f'[upstream.app]\nservers = ["https://{host or "127.0.0.1"}:{port}"]\n{ca}{upstream}\n'
            '[[route]]\nproxy = "app"\n')


def start_nginx(rig, server, pair=None):
    """nginx with TLS and this `server` block's content; its port."""
    port, folder, pair = free_port(), rig.folder / 'nginx', pair or pki().ec
    folder.mkdir()
    (folder / 'nginx.conf').write_text(f'''
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};
    ssl_session_cache shared:s:1m; {server}
  }}
}}
''')
    path = shutil.which('nginx', path=os.environ['PATH'] + ':/usr/sbin')
    assert path, 'nginx is not installed: tools/setup'
    process = rig.process(path, '-p', str(folder), '-c', str(folder / 'nginx.conf'),
                          stderr=subprocess.DEVNULL)

    def listens():
        assert process.poll() is None, 'nginx ended'
        with contextlib.suppress(OSError):
            connect(port).close()
            return True
    wait_until(listens, tls_rig.IO, 'nginx')
    return port


def get(weir, target='/', *fields):
    return ops_rig.get(weir.port, target, *fields)


def fails(rig, origin, upstream='', status=502, **more):
    """A request, and the one after it, fail; gives what the error log says."""
    weir = rig.weir(proxying(origin, upstream, **more))
    with ops_rig.Client(weir.port) as client:
        for _ in range(2):
            answer = client.get('/')
            assert answer.status == status, (answer, weir.log())
    line = weir.lines(2)[0]
    assert line['status'] == status and line['reason'].startswith('upstream_'), line
    return weir.log()


# ---- who it is


def test_a_verified_origin(rig):
    origin = rig.tls_origin(everything)
    weir = rig.weir(proxying(origin))
    with ops_rig.Client(weir.port) as client:
        assert client.get('/size/100000').body == content(100000)
        assert client.post('/echo', content(70000)).body == content(70000)
    assert len(origin.connections) == 1 and origin.names == [None], 'no SNI for an address'
    assert weir.tls_stats()['origins.full'] == 1
    assert weir.lines(2)[1]['upstream_reused'] is True


def test_an_origin_by_name(rig):
    origin = rig.tls_origin(everything)
    weir = rig.weir(proxying(origin, host='localhost'))
    assert get(weir, '/size/10').body == content(10)
    assert origin.names == ['localhost']


def test_another_name_for_it(rig):
    origin = rig.tls_origin(everything)
    weir = rig.weir(proxying(origin, 'tls_server_name = "ec.test"'))
    assert get(weir, '/size/10').body == content(10)
    assert origin.names == ['ec.test']
    assert ops_rig.get(weir.port, '/', host='b.test').status == 200, 'whatever the client asks for'
    assert set(origin.names) == {'ec.test'}


@pytest.mark.parametrize('upstream, host', [('tls_server_name = "other.test"', None),
                                            ('tls_server_name = "127.0.0.2"', None)])
def test_a_certificate_for_another_name(rig, upstream, host):
    origin = rig.tls_origin(everything)
    log = fails(rig, origin, upstream, host=host)
    assert 'mismatch' in log, log
    assert origin.requests == [], 'nothing is said to a stranger'


def test_a_certificate_of_an_unknown_ca(rig):
    stranger = pki().stranger.issue('localhost', 'IP:127.0.0.1')
    origin = rig.tls_origin(everything, context=server_context(stranger))
    log = fails(rig, origin)
    assert 'unable to get local issuer certificate' in log, log
    assert origin.requests == []


def test_the_cas_of_the_system_are_the_default(rig):
    origin = rig.tls_origin(everything)
    log = fails(rig, origin, trust=False)
    assert 'unable to get local issuer certificate' in log, log
    weir = rig.weir(proxying(origin, trust=False), env={'SSL_CERT_FILE': pki().ca_file})
    assert get(weir, '/size/10').body == content(10)


def test_an_expired_certificate(rig):
    old = pki().root.issue_dated('old.test', '20200101000000Z', '20210101000000Z')
    origin = rig.tls_origin(everything, context=server_context(old))
    log = fails(rig, origin, 'tls_server_name = "old.test"')
    assert 'certificate has expired' in log, log


def test_a_self_signed_certificate(rig, tmp_path):
    own = Authority(tmp_path / 'self', 'self')
    origin = rig.tls_origin(everything, context=server_context(own))
    assert 'self' in fails(rig, origin)


def test_verification_switched_off(rig):
    stranger = pki().stranger.issue('whoever', 'whoever.test')
    origin = rig.tls_origin(everything, context=server_context(stranger))
    weir = rig.weir(proxying(origin, 'tls_verify = false', trust=False))
    assert get(weir, '/size/10').body == content(10)
    assert 'tls_verify' in weir.log(), 'an operator is warned'


def test_a_chain_is_followed(rig, tmp_path):
    below = Authority(tmp_path / 'below', 'below', pki().root)
    origin = rig.tls_origin(everything, context=server_context(below.issue('deep', 'IP:127.0.0.1')))
    assert get(rig.weir(proxying(origin)), '/size/10').body == content(10)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_certificate_of_ours(rig, version):
    ours = pki().root.issue('our-own', usage='clientAuth')

    def script(connection):
        connection.read_request()
        connection.answer(str(connection.sock.getpeercert()['subject']).encode())
    origin = rig.tls_origin(script, context=server_context(version=version, client_ca=pki().ca_file))
    weir = rig.weir(proxying(origin, f'tls_cert_path = "{ours.cert}"\ntls_key_path = "{ours.key}"'))
    assert b'our-own' in get(weir).body


@pytest.mark.parametrize('version', VERSIONS)
def test_without_the_certificate_that_is_asked_for(rig, version):
    origin = rig.tls_origin(everything, context=server_context(version=version,
                                                               client_ca=pki().ca_file))
    fails(rig, origin)
    assert origin.requests == []


@pytest.mark.parametrize('key', ['tls_ca_path', 'tls_cert_path'])
def test_files_that_are_not_there(rig, tmp_path, key):
    missing = str(tmp_path / 'missing.pem')
    said = rig.refused(proxying(1, f'{key} = "{missing}"', trust=False))
    assert missing in said and 'No such file' in said, said


# ---- what it speaks


@pytest.mark.parametrize('version', VERSIONS)
def test_bodies_of_all_sizes(rig, version):
    origin = rig.tls_origin(everything, context=server_context(version=version))
    weir = rig.weir(proxying(origin))
    with ops_rig.Client(weir.port) as client:
        for size in (1, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1,
                     MiB, 10 * MiB):
            body = content(size)
            assert sha(client.get(f'/size/{size}').body) == sha(body)
            assert sha(client.get(f'/chunked/{size}').body) == sha(body)
            assert client.post('/hash', body).body.decode() == sha(body)
            assert client.request('POST /hash HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked',
                                  body=chunks_of(body)).body.decode() == sha(body)
    assert len(origin.connections) == 1


def test_tls_on_both_sides(rig):
    origin = rig.tls_origin(everything)
    text = proxying(origin)
    weir = rig.weir(config(text[text.index('[upstream.app]'):]))
    for version in VERSIONS:
        with TlsClient(weir.port, context=client_context(version)) as client:
            for size in (1, 100000, 3 * MiB):
                answer = client.request('POST /echo HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                        body=content(size))
                assert sha(answer.body) == sha(content(size))
                assert sha(client.get(f'/size/{size}').body) == sha(content(size))
            client.finish()
    assert {line['upstream'] for line in weir.lines(12)} == {'app'}


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion.TLSv1_1')
def test_the_lowest_version(rig):
    context = server_context(version='1.2')
    origin = rig.tls_origin(everything, context=context)
    assert get(rig.weir(proxying(origin)), '/size/10').body == content(10)
    fails(rig, origin, 'tls_min_version = "1.3"')
    old = server_context()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers('ALL:@SECLEVEL=0')
    fails(rig, rig.tls_origin(everything, context=old))


def test_alpn_to_the_origin(rig):
    """Some servers need it: HTTP/1.1 is what is spoken, and said."""
    chosen = []
    context = server_context()
    context.set_alpn_protocols(['h2', 'http/1.1'])

    def script(connection):
        chosen.append(connection.sock.selected_alpn_protocol())
        respond()(connection)
    weir = rig.weir(proxying(rig.tls_origin(script, context=context)))
    assert get(weir).status == 200 and chosen == ['http/1.1']


# ---- the pool


def test_connections_are_pooled(rig):
    origin = rig.tls_origin(everything)
    weir = rig.weir(proxying(origin))
    for number in range(20):
        assert get(weir, f'/size/{number}').body == content(number)
    assert len(origin.connections) == 1
    assert weir.tls_stats()['origins.full'] == 1


def test_a_pooled_connection_outlives_a_reload_of_routes(rig):
    origin = rig.tls_origin(everything)
    text = proxying(origin)
    weir = rig.weir(text)
    get(weir)
    weir.reload(text + '[[route]]\npath = "/more"\nrespond = {body = "more"}\n')
    get(weir)
    assert get(weir, '/more').body == b'more' and len(origin.connections) == 1


def test_a_reload_with_another_ca_drops_pooled_connections(rig):
    """What was verified by the old one says nothing now."""
    origin = rig.tls_origin(everything)
    weir = rig.weir(proxying(origin))
    assert get(weir).status == 200
    weir.reload(proxying(origin, f'tls_ca_path = "{pki().stranger.cert}"', trust=False))
    assert get(weir).status == 502


@pytest.mark.parametrize('how', ['clean', 'fin', 'reset'])
def test_a_pooled_connection_that_was_ended(rig, how):
    """The next request does not notice."""
    def script(connection):
        connection.read_request()
        connection.answer(b'ok')
        if how == 'clean':
            tls_rig.say_goodbye(connection.sock)
        elif how == 'reset':
            connection.reset()
    origin = rig.tls_origin(script)
    weir = rig.weir(proxying(origin))
    for _ in range(10):
        assert get(weir).body == b'ok'
    assert len(origin.connections) == 10


@pytest.mark.parametrize('version', VERSIONS)
def test_sessions_are_resumed(rig, version):
    """A new connection to a known origin costs no full handshake."""
    origin = rig.tls_origin(everything, context=server_context(version=version))
    weir = rig.weir(proxying(origin, 'max_idle_connections_per_host = 0'))
    for _ in range(6):
        assert get(weir, '/size/10').body == content(10)
    assert origin.resumed == [False] + [True] * 5
    stats = weir.tls_stats()
    assert (stats['origins.full'], stats['origins.resumed']) == (1, 5)


def test_nginx_as_origin(rig):
    port = start_nginx(rig, 'location / { return 200 "$ssl_session_reused $ssl_server_name '
                            '$ssl_protocol\\n"; } keepalive_timeout 0; ssl_protocols TLSv1.3;')
    weir = rig.weir(proxying(port, host='localhost'))
    assert get(weir).body == b'. localhost TLSv1.3\n'
    assert get(weir).body == b'r localhost TLSv1.3\n'


def test_load_on_a_pool_over_tls(rig):
    port = start_nginx(rig, f'location / {{ return 200 "{"x" * 3000}"; }} keepalive_requests 100;')
    weir = rig.weir(proxying(port, server='').replace('threads = 1', 'threads = 2'))
    load = ops_rig.Load(weir.port, clients=8, target='/')
    tls_rig.wait_until(lambda: load.answered > 2000, seconds(30), '2,000 answers')
    load.stop()
    assert not load.failures, load.failures[:5]
    stats = weir.tls_stats()
    assert stats['origins.failed'] == 0 and stats['origins.resumed'] > 0, stats


# ---- ends


@pytest.mark.parametrize('version', VERSIONS)
def test_weir_ends_its_connections_in_order(rig, version):
    """Those that were idle for too long, those of a client that has gone, and at shutdown."""
    ends = []

    def script(connection):
        while True:
            try:
                connection.read_request()
            except Ended as ended:
                ends.append(ended)
                return
            except OSError as error:  # ssl.SSLEOFError: no close_notify
                ends.append(error)
                raise
            connection.answer(b'ok')
    origin = rig.tls_origin(script, context=server_context(version=version))
    idle = rig.weir(proxying(origin, 'idle_connection_timeout = "100ms"'))
    get(idle)
    tls_rig.wait_until(lambda: ends, tls_rig.IO, 'the end of an idle connection')
    stopped = rig.weir(proxying(origin))
    get(stopped)
    assert stopped.stop() == 0
    tls_rig.wait_until(lambda: len(ends) == 2, tls_rig.IO, 'the end at shutdown')
    assert all(isinstance(end, Ended) and not end.reset for end in ends), ends


def test_a_body_that_ends_with_close_notify(rig):
    weir = rig.weir(proxying(rig.tls_origin(everything)))
    for size in (0, 10, 100000):
        answer = get(weir, f'/close/{size}')
        assert answer.status == 200 and sha(answer.body) == sha(content(size))


def cut_off(weir, start):
    """Whether a client can tell that it did not get everything."""
    with conftest.Client(weir.port) as client:
        try:
            return client.request(start, 'Host: t').status == 502
        except Ended:
            return True


@pytest.mark.parametrize('size', [10, 100000])
def test_a_body_that_is_cut_off(rig, size):
    """Without close_notify nobody knows whether that was all: it must not look complete."""
    weir = rig.weir(proxying(rig.tls_origin(everything)))
    assert cut_off(weir, f'GET /truncated/{size} HTTP/1.1')
    assert cut_off(weir, f'GET /truncated/{size} HTTP/1.0')
    assert weir.tls_stats()['origins.truncated'] == 2
    assert all(line['reason'].startswith('upstream_') for line in weir.lines(2))


def test_a_head_that_is_cut_off(rig):
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-')
    weir = rig.weir(proxying(rig.tls_origin(script)))
    assert get(weir).status == 502


def test_a_length_does_not_need_close_notify(rig):
    def script(connection):
        connection.read_request()
        connection.answer(content(50000))
    weir = rig.weir(proxying(rig.tls_origin(script)))
    assert get(weir).body == content(50000)


def test_a_damaged_answer(rig):
    """Something on the way changes a byte."""
    def script(connection):
        connection.read_request()
        connection.answer(content(100000))
    origin = rig.tls_origin(script)
    relay = rig.origin(damaging(origin.port))
    weir = rig.weir(proxying(relay))
    assert cut_off(weir, 'GET / HTTP/1.1')
    assert weir.tls_stats()['origins.bad_records'] == 1


def damaging(port):
    """A script that relays to this port and changes one byte of the third 16 KiB that come back."""
    def script(connection):
        with socket.create_connection(('127.0.0.1', port)) as other:
            def forward():
                try:
                    while data := connection.sock.recv(65536):
                        other.sendall(data)
                except OSError:
                    pass
            threading.Thread(target=forward, daemon=True).start()
            seen = 0
            while data := bytearray(other.recv(8192)):
                if seen < 40000 <= seen + len(data):
                    data[40000 - seen] ^= 1
                seen += len(data)
                connection.sock.sendall(data)
    return script


# ---- handshakes that fail


def test_an_origin_without_tls(rig):
    def script(connection):
        connection.read_bytes(5)
        connection.answer(b'what?', status='400 Bad Request')
        connection.read_to_end()
    fails(rig, rig.origin(script))


def test_an_origin_that_speaks_first(rig):
    fails(rig, rig.origin(lambda connection: connection.send(b'220 mail.test ESMTP\r\n' * 50)))


@pytest.mark.parametrize('how', ['fin', 'reset'])
def test_an_origin_that_ends_the_handshake(rig, how):
    def script(connection):
        connection.read_bytes(5)
        if how == 'reset':
            connection.reset()
    fails(rig, rig.origin(script))


def test_an_origin_that_stalls_in_the_handshake(rig):
    def script(connection):
        connection.read_to_end()
    since = time.monotonic()
    fails(rig, rig.origin(script), 'connect_timeout = "300ms"', status=504)
    assert tls_rig.elapsed(since) < seconds(8)


def test_another_server_takes_over(rig):
    """As when a connection is refused: nothing was sent yet."""
    stranger = rig.tls_origin(everything, context=server_context(pki().stranger.issue('no', 'no.test')))
    good = rig.tls_origin(everything)
    text = proxying(good).replace('servers = [', f'servers = ["https://127.0.0.1:{stranger.port}", ')
    weir = rig.weir(text)
    for _ in range(4):
        assert get(weir, '/size/10').body == content(10)
    assert stranger.requests == [] and stranger.refused


def test_no_shared_cipher_with_the_origin(rig):
    context = server_context(pki().rsa, version='1.2')
    context.set_ciphers('AES256-SHA:@SECLEVEL=0')
    fails(rig, rig.tls_origin(everything, context=context), 'tls_server_name = "rsa.test"')


def test_an_origin_that_breaks_while_it_is_sent_to(rig):
    """In the middle of an upload."""
    def script(connection):
        connection.read_request_head()
        connection.read_bytes(50000)
        connection.reset()
    weir = rig.weir(proxying(rig.tls_origin(script)))
    with conftest.Client(weir.port) as client:
        client.send_request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 10000000')
        try:
            client.send(content(MiB) * 9)
        except OSError:
            pass
        try:
            assert client.read_response().status == 502
        except Ended:
            pass
    tls_rig.wait_until(lambda: 'POST' in weir.access_file.read_text(), seconds(10), 'the line')


# ---- by URL


def test_a_route_to_a_url(rig):
    origin = rig.tls_origin(everything)
    text = (f'[[listener]]\nname = "main"\naddress = "127.0.0.1:0"\n[server]\nthreads = 1\n'
            f'[upstream_defaults]\ntls_ca_path = "{pki().ca_file}"\n'
            f'[[route]]\nproxy = "https://localhost:{origin.port}"\n')
    weir = rig.weir(text)
    assert get(weir, '/size/10').body == content(10) and origin.names == ['localhost']


def test_clients_that_leave_while_an_origin_is_being_connected(rig):
    """The connect may be done in the moment in which it is given up: no handshake must go on then."""
    with socket.create_server(('127.0.0.1', 0), backlog=2000) as mute:
        weir = rig.weir(proxying(mute.getsockname()[1], 'connect_timeout = "60s"',
                                 server='shutdown_timeout = "20s"'))
        for number in range(600):
            client = connect(weir.port)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            client.sendall(b'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
            time.sleep(number % 10 * 0.00005)
            client.close()
        began = time.monotonic()
        weir.tell(signal.SIGTERM)
        assert weir.wait() == 0
        assert time.monotonic() - began < seconds(5)
