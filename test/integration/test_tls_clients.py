"""Clients of every kind over TLS: suites, versions, framings and sizes, with the proof of who did
the records. This file also runs where the kernel has TLS; each test does so in both modes there."""
import hashlib
import re
import ssl
import threading
import time

import pytest

import tls_rig
from conftest import Ended, wait_until
from ops_rig import RELEASE, need
from tls_rig import (KiB, MiB, ByteClient, SClient, TlsClient, chunks_of, client_context, config,
                     content, curl, everything, ktls, kernel_tls, one_by_one, pki, proxy_to,
                     request_bytes, rig, run, served, server_context, sha)

__all__ = ['rig', 'served']
pytestmark = tls_rig.LIMIT

SUITES = [('1.3', 'TLS_AES_128_GCM_SHA256'), ('1.3', 'TLS_AES_256_GCM_SHA384'),
          ('1.3', 'TLS_CHACHA20_POLY1305_SHA256'), ('1.2', 'AES128-GCM-SHA256'),
          ('1.2', 'AES256-GCM-SHA384'), ('1.2', 'CHACHA20-POLY1305')]
RFC_NAMES = {'AES128-GCM-SHA256': 'AES_128_GCM_SHA256', 'AES256-GCM-SHA384': 'AES_256_GCM_SHA384',
             'CHACHA20-POLY1305': 'CHACHA20_POLY1305_SHA256'}
SIZES = [1, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, MiB]


def curl_suite(version, suite, key):
    """Options for curl, and the suite's name in the access log."""
    if version == '1.3':
        return ['--tlsv1.3', '--tls13-ciphers', suite], suite
    kind = {'ec': 'ECDSA', 'rsa': 'RSA'}[key]
    return (['--tlsv1.2', '--tls-max', '1.2', '--ciphers', f'ECDHE-{kind}-{suite}'],
            f'TLS_ECDHE_{kind}_WITH_{RFC_NAMES[suite]}')


# ---- programs


@pytest.mark.parametrize('key', ['ec', 'rsa'])
@pytest.mark.parametrize('version, suite', SUITES)
def test_curl(served, tmp_path, version, suite, key):
    options, logged = curl_suite(version, suite, key)
    body = tmp_path / 'body'
    body.write_bytes(content(70000))
    with served.proof():
        said = curl(served.port, *options, '-w', '#%{num_connects}#',
                    f'https://{key}.test:{served.port}/size/100000', '--next', *CURL, *options,
                    '--data-binary', f'@{body}', '-w', '#%{num_connects}#', name=f'{key}.test',
                    target=f'/echo?{version}{suite}{key}')
    assert said == content(100000) + b'#1#' + content(70000) + b'#0#'
    line = served.weir.line(path=f'/echo?{version}{suite}{key}')
    assert (line['tls'], line['tls_cipher']) == (f'TLSv{version}', logged)
    assert line['tls_records'] == served.expected


CURL = ['--silent', '--show-error', '--http1.1', '--cacert', tls_rig.pki().ca_file]


def test_curl_with_a_suite_that_no_kernel_has(rig, tmp_path):
    """CBC is spoken where it is asked for, and stays in userspace."""
    served = tls_rig.serve(rig, 'kernel', 'ciphers = ["ECDHE-ECDSA-AES128-SHA256"]\n')
    body = tmp_path / 'body'
    body.write_bytes(content(100001))
    said = curl(served.port, '--tlsv1.2', '--tls-max', '1.2', '--data-binary', f'@{body}',
                target='/echo')
    assert said == content(100001)
    line = served.weir.line(path='/echo')
    assert line['tls_cipher'] == 'TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256'
    assert line['tls_records'] == 'userspace'
    assert line['tls_why'] == ('cipher_unknown' if kernel_tls() else 'no_kernel_tls')


@pytest.mark.parametrize('expect', [[], ['-H', 'Expect: 100-continue']])
def test_curl_upload_in_chunks(served, tmp_path, expect):
    body = tmp_path / 'body'
    body.write_bytes(content(MiB))
    said = curl(served.port, '-T', str(body), '-H', 'Transfer-Encoding: chunked', *expect,
                target='/hash')
    assert said.decode() == sha(content(MiB))


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_openssl_s_client(served, version):
    request = request_bytes('/size/20000', 'Connection: close')
    option = f'-tls{version.replace(".", "_")}'
    with served.proof(), SClient(served.port, option, '-ign_eof') as client:
        client.connected().say(request)
        assert client.wait() == 0, 'close_notify was not clean'
        assert content(20000) in client.said
        assert client.said.rstrip().endswith(b'closed')


def test_wrk(served):
    need('wrk')
    before = served.weir.tls_stats()['clients.full']
    with served.proof(8):
        done = run('wrk', '-t1', '-c8', '-d1s', '-H', 'Connection: keep-alive',
                   f'https://127.0.0.1:{served.port}/size/1000').stdout.decode()
    requests = int(re.search(r'(\d+) requests in', done).group(1))
    assert requests > 8 and 'Socket errors' not in done and 'Non-2xx' not in done, done
    assert served.weir.tls_stats()['clients.full'] == before + 8


def test_h2load(served):
    need('h2load')
    with served.proof(4):
        done = run('h2load', '--h1', '-n', '200', '-c', '4', '-m', '4',
                   f'https://127.0.0.1:{served.port}/size/30000').stdout.decode()
    assert '200 succeeded, 0 failed, 0 errored, 0 timeout' in done, done
    assert 'status codes: 200 2xx' in done, done


# ---- one connection and what goes over it


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('framing', ['size', 'chunked'])
def test_downloads_of_all_sizes(served, version, framing):
    with served.proof(), served.client(context=client_context(version)) as client:
        for size in [*SIZES, 10 * MiB]:
            body = client.get(f'/{framing}/{size}').body
            assert (size, sha(body)) == (size, sha(content(size)))
        client.finish()
        served.check(client, version)


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('framing', ['length', 'chunked'])
def test_uploads_of_all_sizes(served, version, framing):
    with served.proof(), served.client(context=client_context(version)) as client:
        for size in [*SIZES, 10 * MiB]:
            if framing == 'length':
                fields, body = f'Content-Length: {size}', content(size)
            else:
                fields, body = 'Transfer-Encoding: chunked', chunks_of(content(size))
            answer = client.request('POST /hash HTTP/1.1', 'Host: t', fields, body=body)
            assert (size, answer.body.decode()) == (size, sha(content(size)))
        client.finish()
        served.check(client, version)


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('size', [0, 1, 16 * KiB, 64 * KiB + 1, MiB])
def test_a_body_that_ends_with_the_connection(served, version, size):
    """An HTTP/1.0 client knows the end only by close_notify."""
    with served.client(context=client_context(version)) as client:
        answer = client.request(f'GET /close/{size} HTTP/1.0', 'Host: t')
        assert answer.get('Content-Length') is None
        assert sha(answer.body) == sha(content(size))
        served.check(client, version)


def test_keep_alive_with_many_requests(served):
    with served.proof(), served.client() as client:
        for number in range(50):
            size = number * 37
            assert client.request('POST /echo HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                  body=content(size)).body == content(size)
        client.finish()
        served.check(client)


def test_pipelined_requests(served):
    with served.proof(), served.client() as client:
        client.send(b''.join(request_bytes(f'/size/{size}') for size in range(1, 60000, 3001)))
        for size in range(1, 60000, 3001):
            assert client.read_response().body == content(size)
        client.finish()


def test_head(served):
    with served.client() as client:
        answer = client.request('HEAD /size/5000 HTTP/1.1', 'Host: t')
        assert answer.get('Content-Length') == '5000'
        assert client.get('/size/10').body == content(10)


def test_100_continue(served):
    with served.client() as client:
        client.send_request('POST /echo HTTP/1.1', 'Host: t', 'Expect: 100-continue',
                            'Content-Length: 30000')
        assert client.read_head().status == 100
        client.send(content(30000))
        assert client.read_response().body == content(30000)


def test_connections_at_once(served):
    """Bodies of several connections do not mix."""
    failures = []

    def use(number):
        try:
            with served.client(context=client_context(['1.2', '1.3'][number % 2])) as client:
                for turn in range(5):
                    size = 100000 + 10007 * number + turn
                    answer = client.request('POST /echo HTTP/1.1', 'Host: t',
                                            f'Content-Length: {size}', body=content(size))
                    assert sha(answer.body) == sha(content(size))
                client.finish()
        except Exception as error:
            failures.append(error)

    with served.proof(4):
        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(tls_rig.IO * 2)
    assert not failures, failures


def test_curl_with_http_1_0(served):
    """It offers ALPN http/1.0 and nothing else."""
    assert sha(curl(served.port, '--http1.0', target='/size/70000')) == sha(content(70000))


def test_a_client_that_reads_while_it_sends(served):
    """Both directions at once, more than any buffer holds: nobody waits for the other for ever."""
    size = 4 * MiB
    with ByteClient(served.port).establish() as client:
        # Encrypted before: an SSL object of Python's is not for two threads at once.
        sent = client.encrypt(request_bytes('/echo', method='POST', body=content(size)) * 2)
        thread = threading.Thread(target=client.send_raw, args=(sent,))
        thread.start()
        for _ in range(2):
            assert sha(client.read_response().body) == sha(content(size))
        thread.join()


# ---- limits


class Tap:
    """Counts what goes through an origin, which neither sends nor takes more than there is room."""

    SIZE = 64 * MiB

    def __init__(self):
        self.count = 0
        self.go_on = threading.Event()

    def send(self, connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % self.SIZE)
        for _ in range(self.SIZE // (64 * KiB)):
            connection.send(content(64 * KiB))
            self.count += 64 * KiB

    def take(self, connection):
        connection.read_request_head()
        self.go_on.wait(tls_rig.IO * 2)
        left, found = self.SIZE, hashlib.sha256()
        while left:
            data = connection.read_bytes(64 * KiB)
            found.update(data)
            left -= len(data)
        connection.answer(found.hexdigest().encode())

    def wait_until_it_stands(self):
        def stands():
            before = self.count
            time.sleep(0.3 * tls_rig.SLOWNESS)
            return before and before == self.count
        wait_until(stands, tls_rig.IO * 2, 'the end of what fits')
        assert self.count < self.SIZE * 3 / 4, 'it was all taken, and kept somewhere'


@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_a_client_that_does_not_read(rig, mode):
    """Its answer stays where it comes from; nothing of it is lost."""
    tap = Tap()
    weir = rig.weir(config(proxy_to(rig.origin(tap.send)), ktls(mode)))
    with TlsClient(weir.port, timeout=tls_rig.IO * 4) as client:
        client.send(request_bytes())
        tap.wait_until_it_stands()
        client.read_head()
        for _ in range(tap.SIZE // (64 * KiB)):
            assert client.read_bytes(64 * KiB) == content(64 * KiB)
        client.finish()


@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_an_origin_that_does_not_read(rig, mode):
    """A client is not told to go on either."""
    tap = Tap()
    weir = rig.weir(config(proxy_to(rig.origin(tap.take)), ktls(mode), 'max_body_size = "1GiB"'))
    with TlsClient(weir.port, timeout=tls_rig.IO * 4) as client:
        def send():
            client.send(request_bytes('/', f'Content-Length: {tap.SIZE}', method='POST'))
            for _ in range(tap.SIZE // (64 * KiB)):
                client.send(content(64 * KiB))
                tap.count += 64 * KiB
        thread = threading.Thread(target=send)
        thread.start()
        tap.wait_until_it_stands()
        tap.go_on.set()
        thread.join(tls_rig.IO * 4)
        wanted = hashlib.sha256()
        for _ in range(tap.SIZE // (64 * KiB)):
            wanted.update(content(64 * KiB))
        assert client.read_response().body.decode() == wanted.hexdigest()


@pytest.mark.parametrize('mode', tls_rig.MODES)
@pytest.mark.parametrize('count', [16, 1024])
def test_many_bodies_through_few_receive_buffers(rig, mode, count):
    """Whoever has to wait for a buffer gets one. (1,024 is the default, and is few as well.)"""
    served = tls_rig.serve(rig, mode, more=f'[performance]\nreceive_buffers = {count}\n')
    failures = []

    def use(version):
        try:
            with served.client(context=client_context(version)) as client:
                for size in (1, 70000, MiB, 3 * MiB):
                    answer = client.request('POST /echo HTTP/1.1', 'Host: t',
                                            f'Content-Length: {size}', body=content(size))
                    assert sha(answer.body) == sha(content(size))
        except Exception as error:
            failures.append((version, error))

    threads = [threading.Thread(target=use, args=(version,)) for version in ['1.2', '1.3'] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_more_connections_than_there_may_be(rig):
    """What is refused is not refused in plain text."""
    weir = rig.weir(config(more='[security]\nmax_concurrent_connections = 2\n'))
    with TlsClient(weir.port) as one, TlsClient(weir.port) as two:
        assert one.get('/').status == two.get('/').status == 200
        try:
            with TlsClient(weir.port) as three:
                assert three.get('/').status == 503
        except ssl.SSLError as error:
            assert 'ALERT' in error.reason, error  # plain text would be a WRONG_VERSION_NUMBER
        assert one.get('/').status == 200
        one.finish()

    def admitted():
        try:
            with TlsClient(weir.port) as client:
                return client.get('/').status == 200
        except (OSError, Ended):
            return False
    wait_until(admitted, tls_rig.IO, 'room for one more')


# ---- who does the records


def test_kernel_tls_that_is_required(rig):
    """No fallback: what the kernel does not do is refused, at the start if it does nothing."""
    text = config(tls='ktls_fallback_enabled = false\nciphers = ["ECDHE-ECDSA-AES128-GCM-SHA256", '
                      '"ECDHE-ECDSA-AES128-SHA256"]\n')
    if not kernel_tls():
        said = rig.refused(text)
        assert 'ktls_fallback_enabled' in said or 'kernel TLS' in said, said
        return
    weir = rig.weir(text)
    for version in ('1.2', '1.3'):
        with TlsClient(weir.port, context=client_context(version)) as client:
            assert client.get('/').status == 200
            assert weir.line_of(client)['tls_records'] == 'kernel'
    with pytest.raises((ssl.SSLError, ConnectionError, Ended)):
        context = client_context('1.2', 'ECDHE-ECDSA-AES128-SHA256')
        with TlsClient(weir.port, context=context) as client:
            client.get('/')
    stats = weir.tls_stats()
    assert (stats['clients.kernel'], stats['clients.userspace']) == (2, 0), stats
    assert stats['clients.failed'] == 1, stats


# ---- requests that arrive with the end of the handshake


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize('size', [0, 10, 20000])
def test_requests_in_the_segment_of_finished(served, count, size):
    """All of them are read by whoever did the handshake, if they end where a record does."""
    with ByteClient(served.port, context=client_context('1.3')) as client:
        last = client.handshake()
        for _ in range(count):
            last += client.encrypt(request_bytes('/echo', method='POST', body=content(size)))
        client.send_raw(last)
        for _ in range(count):
            assert client.read_response().body == content(size)
        assert client.get('/size/100').body == content(100)
        line = served.weir.line_of(client)
        if size < 20000 or line['tls_records'] == served.expected:
            served.check(client, '1.3')
        else:  # what was there when the handshake was done may have ended inside a record
            assert line['tls_why'] == 'leftover', line


def test_half_a_request_in_the_segment_of_finished(served):
    """The rest of its record comes later: it has to be found by whoever does the records then."""
    with ByteClient(served.port, context=client_context('1.3')) as client:
        record = client.handshake() + client.encrypt(
            request_bytes('/echo', method='POST', body=content(9000)))
        client.send_raw(record[:-4000])
        one_by_one(client.sock, record[-4000:-3900])
        client.send_raw(record[-3900:])
        assert client.read_response().body == content(9000)
        assert client.get('/size/100000').body == content(100000)


def test_a_request_in_the_segment_of_finished_resumed_1_2(served):
    """With TLS 1.2 the client's Finished is the last message only when a session is resumed."""
    context = client_context('1.2')
    with served.client(context=context) as first:
        first.get('/size/1')
        session = first.sock.session
    with served.proof(), ByteClient(served.port, context=context, session=session) as client:
        last = client.handshake()
        assert client.tls.session_reused
        client.send_raw(last + client.encrypt(request_bytes('/size/30000')))
        assert client.read_response().body == content(30000)
        assert served.check(client, '1.2')['tls_resumed'] is True


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_all_bytes_one_by_one(served, version):
    with served.proof(), ByteClient(served.port, context=client_context(version)) as client:
        def send(data):
            one_by_one(client.sock, data)
        send(client.handshake(send))
        send(client.encrypt(request_bytes('/size/50000')))
        assert client.read_response().body == content(50000)
        served.check(client, version)


# ---- origins with TLS


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_an_origin_with_tls(rig, mode, version):
    """A connection of TLS 1.3 stays in userspace where a ticket is wanted, which comes over it."""
    origin = rig.tls_origin(everything, context=server_context(version=version))
    upstream = f'tls = true\ntls_ca_path = "{pki().ca_file}"\n'
    weir = rig.weir(config(proxy_to(origin, upstream), ktls(mode)))
    for turn in range(3):
        with TlsClient(weir.port, context=client_context(version)) as client:
            for size in (1, 16 * KiB, 64 * KiB + 1, 3 * MiB):
                body = content(size)
                assert sha(client.get(f'/size/{size}').body) == sha(body)
                assert sha(client.get(f'/chunked/{size}').body) == sha(body)
                answer = client.request('POST /echo HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                        body=body)
                assert sha(answer.body) == sha(body)
            client.request('GET /close/300000 HTTP/1.0', 'Host: t')
    stats = weir.tls_stats()
    kernel = stats['origins.kernel']
    if tls_rig.records_expected(mode) == 'userspace' or tls_rig.kernel_release() <= (6, 1):
        assert (kernel, stats['origins.userspace']) == (0, 3), stats
    elif version == '1.2':
        assert (kernel, stats['origins.userspace']) == (3, 0), stats
    else:
        assert kernel >= 1 and kernel + stats['origins.records.awaiting_tickets'] == 3, stats
    assert (stats['origins.full'], stats['origins.resumed']) == (1, 2), stats
    assert stats['origins.bad_records'] == stats['origins.truncated'] == 0, stats


@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_an_origin_with_tls_that_cuts_off_its_body(rig, mode):
    """In the kernel, too, an end without close_notify is not taken for one."""
    origin = rig.tls_origin(everything)
    upstream = f'tls = true\ntls_ca_path = "{pki().ca_file}"\n'
    weir = rig.weir(config(proxy_to(origin, upstream), ktls(mode)))
    for turn in range(3):
        with TlsClient(weir.port) as client, pytest.raises((Ended, ssl.SSLEOFError)):
            assert client.get('/truncated/100000').status == 502, 'it looks complete'
            raise Ended
    assert weir.tls_stats()['origins.truncated'] == 3


# ---- long ones


class Mass:
    """A body without end: the same MiB again and again."""

    BLOCK = content(MiB)
    COUNT = 64 if kernel_tls() else 1024

    def __init__(self):
        self.hash = hashlib.sha256()
        for _ in range(self.COUNT):
            self.hash.update(self.BLOCK)
        self.size = self.COUNT * MiB


def mass_origin(mass):
    """Gives the body, or takes it and answers its hash."""
    def script(connection):
        while True:
            request = connection.read_request_head()
            if request.method == 'GET':
                connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % mass.size)
                for _ in range(mass.COUNT):
                    connection.sock.sendall(mass.BLOCK)
            else:
                early = connection.read_bytes(len(connection.buffer))
                found = hashlib.sha256(early)
                size, buffer = mass.size - len(early), memoryview(bytearray(256 * KiB))
                while size:
                    got = connection.sock.recv_into(buffer)
                    assert 0 < got <= size
                    found.update(buffer[:got])
                    size -= got
                connection.answer(found.hexdigest().encode())
    return script


@pytest.mark.seconds(tls_rig.seconds(120))
@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_a_gigabyte_each_way(rig, mode):
    """In memory that does not grow. (64 MiB in the emulated machine.)"""
    mass = Mass()
    weir = rig.weir(config(proxy_to(rig.origin(mass_origin(mass))), ktls(mode),
                           'max_body_size = "2GiB"'), binary=RELEASE)
    with TlsClient(weir.port) as client:
        client.send_request('GET /down HTTP/1.1', 'Host: t')
        head = client.read_head()
        assert int(head.get('Content-Length')) == mass.size
        early = client.read_bytes(len(client.buffer))
        found = hashlib.sha256(early)
        left, before, most = mass.size - len(early), weir.rss(), 0
        buffer = memoryview(bytearray(64 * KiB))
        while left:
            got = client.sock.recv_into(buffer)
            assert 0 < got <= left
            found.update(buffer[:got])
            left -= got
            if left // (16 * MiB) != (left + got) // (16 * MiB):
                most = max(most, weir.rss())
        assert found.hexdigest() == mass.hash.hexdigest()
        client.send_request('POST /up HTTP/1.1', 'Host: t', f'Content-Length: {mass.size}')
        for number in range(mass.COUNT):
            client.sock.sendall(mass.BLOCK)
            if number % 16 == 0:
                most = max(most, weir.rss())
        assert client.read_response().body.decode() == mass.hash.hexdigest()
        assert most - before < 8 * MiB, (before, most)
        assert weir.line(path='/up')['tls_records'] == tls_rig.records_expected(mode)
