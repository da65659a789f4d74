"""What a peer may do with records once the handshake is done: ends of every kind, KeyUpdate, damage.
The answer has to be the same whoever does the records, or a clean end where the kernel cannot go on.
This file also runs where the kernel has TLS; each test does so in both modes there."""
import ctypes
import hmac
import random
import re
import ssl
import threading

import pytest

import conftest
import tls_rig
from conftest import Ended, wait_until
from tls_rig import (ALERTS, MiB, ByteClient, SClient, TlsClient, chunks_of, client_context, config,
                     content, kernel_rekeys, ktls, proxy_to, request_bytes, rig, served, sha,
                     until_closed)

__all__ = ['rig', 'served']
pytestmark = tls_rig.LIMIT

VERSIONS = ['1.2', '1.3']
HANDSHAKE, ALERT, DATA = 22, 21, 23
KEY_UPDATE, KEY_UPDATE_PLEASE = b'\x18\0\0\1\0', b'\x18\0\0\1\1'


# ---- records made by hand (TLS 1.3, AES-128-GCM)

crypto = ctypes.CDLL('libcrypto.so.3')
crypto.EVP_CIPHER_CTX_new.restype = crypto.EVP_aes_128_gcm.restype = ctypes.c_void_p


def gcm(key, nonce, data, associated, tag=None):
    """Seals, or opens with a tag; opening gives None when the tag is wrong."""
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    out, size = ctypes.create_string_buffer(len(data) + 16), ctypes.c_int()
    seal = 1 if tag is None else 0
    try:
        crypto.EVP_CipherInit_ex(context, ctypes.c_void_p(crypto.EVP_aes_128_gcm()), None, key,
                                 nonce, seal)
        crypto.EVP_CipherUpdate(context, None, ctypes.byref(size), associated, len(associated))
        crypto.EVP_CipherUpdate(context, out, ctypes.byref(size), data, len(data))
        if not seal:
            crypto.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, ctypes.create_string_buffer(tag, 16))
        good = crypto.EVP_CipherFinal_ex(context, out, ctypes.byref(size))
        if not seal:
            return out.raw[:len(data)] if good == 1 else None
        made = ctypes.create_string_buffer(16)
        crypto.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, made)
        return out.raw[:len(data)] + made.raw
    finally:
        crypto.EVP_CIPHER_CTX_free(context)


class Keys:
    """Of one direction."""

    def __init__(self, secret):
        self.use(secret)

    def use(self, secret):
        self.secret, self.number = secret, 0
        self.key, self.iv = self.expand(b'key', 16), self.expand(b'iv', 12)

    def expand(self, label, size):
        info = size.to_bytes(2, 'big') + bytes([6 + len(label)]) + b'tls13 ' + label + b'\0'
        return hmac.digest(self.secret, info + b'\1', 'sha256')[:size]

    def update(self):
        self.use(self.expand(b'traffic upd', 32))

    def nonce(self):
        number = self.number.to_bytes(12, 'big')
        self.number += 1
        return bytes(a ^ b for a, b in zip(self.iv, number))


class Forge(conftest.Client):
    """A client that makes and opens every record itself. `alerts` are those that came (by name),
    `key_updates` counts the server's."""

    def __init__(self, served, tmp_path):
        log = tmp_path / f'keys{random.random()}'
        context = client_context('1.3')
        context.keylog_filename = str(log)
        client = ByteClient(served.port, context=context)
        self.last_flight = client.handshake()
        assert client.tls.cipher()[0] == 'TLS_AES_128_GCM_SHA256'
        secrets = {line.split()[0]: bytes.fromhex(line.split()[2])
                   for line in log.read_text().splitlines() if line[0] != '#'}
        conftest.Stream.__init__(self, client.sock)
        self.own_port = client.own_port
        self.out = Keys(secrets['CLIENT_TRAFFIC_SECRET_0'])
        self.into = Keys(secrets['SERVER_TRAFFIC_SECRET_0'])
        self.raw, self.alerts, self.key_updates = b'', [], 0
        self.closed = False

    def establish(self):
        self.sock.sendall(self.last_flight)
        return self

    def record(self, content, kind=DATA, padding=0):
        inner = content + bytes([kind]) + bytes(padding)
        head = b'\x17\3\3' + (len(inner) + 16).to_bytes(2, 'big')
        return head + gcm(self.out.key, self.out.nonce(), inner, head)

    def key_update(self, wanted=False):
        """Our next key, and the record that says so."""
        made = self.record(KEY_UPDATE_PLEASE if wanted else KEY_UPDATE, HANDSHAKE)
        self.out.update()
        return made

    def send(self, data):
        self.sock.sendall(b''.join(self.record(data[at:at + 16384])
                                   for at in range(0, len(data), 16384)))
        return self

    def put(self, raw):
        self.sock.sendall(raw)
        return self

    def read_record(self):
        """(type, content); None at the end of the TCP stream."""
        while True:
            if len(self.raw) >= 5 and len(self.raw) >= 5 + int.from_bytes(self.raw[3:5], 'big'):
                break
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                raise Ended(self.buffer, reset=True) from None
            if not data:
                assert not self.raw, f'half a record: {self.raw[:80]}'
                return None
            self.raw += data
        end = 5 + int.from_bytes(self.raw[3:5], 'big')
        head, body, self.raw = self.raw[:5], self.raw[5:end], self.raw[end:]
        assert head[0] == DATA, head
        inner = gcm(self.into.key, self.into.nonce(), body[:-16], head, body[-16:])
        assert inner is not None, 'weir sent a record that does not open'
        inner = inner.rstrip(b'\0')
        return inner[-1], inner[:-1]

    def fill(self):
        """One more record of data; False at close_notify, Ended at an end without one."""
        while not self.closed:
            record = self.read_record()
            if record is None:
                raise Ended(self.buffer)
            kind, data = record
            if kind == DATA:
                self.buffer += data
                return True
            if kind == ALERT:
                self.alerts.append(ALERTS.get(data[1], data[1]))
                self.closed = True
            elif data[0] == 24:
                self.key_updates += 1
                self.into.update()
            else:
                assert data[0] == 4, f'handshake message {data[0]}'  # a ticket
        return False

    def get(self, target='/', *fields):
        return self.request(f'GET {target} HTTP/1.1', 'Host: t', *fields)


@pytest.fixture
def forge(served, tmp_path):
    made = []

    def start():
        made.append(Forge(served, tmp_path))
        return made[-1]
    yield start
    for client in made:
        client.close()


def goes_on(served):
    """Whether a connection survives the client's KeyUpdate."""
    return served.expected == 'userspace' or kernel_rekeys()


def alive(served):
    """Whatever was done to it, the next client is served."""
    with served.client() as client:
        assert client.get('/size/10').body == content(10)


# ---- ends


@pytest.mark.parametrize('version', VERSIONS)
def test_the_client_ends_in_order(served, version):
    before = served.weir.tls_stats()['clients.truncated']
    with served.client(context=client_context(version)) as client:
        client.get('/size/100')
        client.finish()  # fails without weir's close_notify
    assert served.weir.tls_stats()['clients.truncated'] == before


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('asked', ['1.1', '1.0', 'bad'])
def test_weir_ends_in_order(served, version, asked):
    requests = {'1.1': request_bytes('/size/100', 'Connection: close'),
                '1.0': b'GET /size/100 HTTP/1.0\r\n\r\n', 'bad': b'GET / HTTP/1.1\r\n bad\r\n\r\n'}
    with served.client(context=client_context(version)) as client:
        client.send(requests[asked])
        assert client.read_response().status == (400 if asked == 'bad' else 200)
        assert client.read_to_end() == b''
        client.finish()


def test_an_idle_connection_ends_in_order(rig):
    served = tls_rig.serve(rig, 'kernel', server='keepalive_timeout = "200ms"')
    with served.client() as client:
        assert client.get('/size/100').body == content(100)
        assert client.read_to_end() == b''


def test_a_drained_connection_ends_in_order(rig):
    served = tls_rig.serve(rig, 'kernel')
    with served.client() as client:
        client.get('/size/100')
        assert served.weir.stop() == 0
        assert client.read_to_end() == b''


@pytest.mark.parametrize('version', VERSIONS)
def test_a_client_that_just_goes(served, version):
    before = served.weir.tls_stats()['clients.truncated']
    with served.client(context=client_context(version)) as client:
        client.get('/size/100')
    served.weir.wait_stat('clients.truncated', before + 1)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('framing', ['length', 'chunked'])
def test_an_upload_that_is_cut_off(rig, version, framing):
    """Without close_notify anybody on the way may have ended it: the origin must not take what came
    for all there is."""
    for mode in tls_rig.MODES:
        seen = []

        def script(connection):
            try:
                seen.append(connection.read_request())
            except Ended as ended:
                seen.append(ended)
        origin = rig.origin(script)
        weir = rig.weir(config(proxy_to(origin), ktls(mode)))
        with ByteClient(weir.port, context=client_context(version)).establish() as client:
            field = 'Content-Length: 9000' if framing == 'length' else 'Transfer-Encoding: chunked'
            part = content(9000)[:8999] if framing == 'length' else chunks_of(content(9000))[:-5]
            client.send(request_bytes('/', field, method='POST') + part)
            wait_until(lambda: len(origin.received()) > 8999, tls_rig.IO, 'the part at the origin')
            client.sock.shutdown(1)
            wait_until(lambda: seen, tls_rig.IO, 'the end at the origin')
            assert isinstance(seen[0], Ended), seen
        weir.wait_stat('clients.truncated', 1)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('fin', [False, True])
def test_an_answer_to_a_client_that_has_ended(served, version, fin):
    """close_notify is a half close: what was asked for is still answered."""
    context = client_context(version)
    with ByteClient(served.port, context=context).establish() as client:
        client.get('/size/1')  # so that the end does not come with the handshake
        client.send_raw(client.encrypt(request_bytes('/size/300000')) + client.goodbye())
        if fin:
            client.sock.shutdown(1)
        assert client.read_response().body == content(300000)
        assert client.read_to_end() == b''
        served.check(client)


@pytest.mark.parametrize('version', VERSIONS)
def test_an_end_in_the_segment_of_the_request(served, version):
    with ByteClient(served.port, context=client_context(version)) as client:
        last = client.handshake()
        if version == '1.2':
            client.send_raw(last)
            last = b''
        client.send_raw(last + client.encrypt(request_bytes('/size/300000')) + client.goodbye())
        assert client.read_response().body == content(300000)
        assert client.read_to_end() == b''


@pytest.mark.parametrize('version', VERSIONS)
def test_an_end_right_after_the_handshake(served, version):
    before = served.weir.tls_stats()['clients.truncated']
    with ByteClient(served.port, context=client_context(version)) as client:
        client.send_raw(client.handshake() + client.goodbye())
        assert client.read_to_end() == b''
    assert served.weir.tls_stats()['clients.truncated'] == before


@pytest.mark.parametrize('version', VERSIONS)
def test_half_a_record_and_the_end(served, version):
    before = served.weir.tls_stats()['clients.truncated']
    with ByteClient(served.port, context=client_context(version)).establish() as client:
        client.get('/size/1')
        client.send_raw(client.encrypt(request_bytes('/size/5'))[:-7])
        client.sock.shutdown(1)
        until_closed(client.sock)
        served.weir.wait_stat('clients.truncated', before + 1)
        assert len(served.weir.lines(1, client_port=client.own_port)) == 1


@pytest.mark.parametrize('version', VERSIONS)
def test_half_a_record_and_a_reset(served, version):
    with ByteClient(served.port, context=client_context(version)).establish() as client:
        client.get('/size/1')
        client.send_raw(client.encrypt(request_bytes('/size/5'))[:-7])
        client.reset()
    alive(served)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_reset_while_an_answer_is_sent(served, version):
    with served.client(context=client_context(version)) as client:
        client.send(request_bytes(f'/size/{4 * MiB}'))
        client.read_bytes(100000)
        client.reset()
    alive(served)


@pytest.mark.parametrize('mode', tls_rig.MODES)
def test_an_answer_that_is_under_way_at_shutdown(rig, mode):
    """It comes to its end, and so does the connection."""
    go_on = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n' + content(200000)[:100000])
        go_on.wait(tls_rig.IO)
        connection.send(content(200000)[100000:])
    weir = rig.weir(config(proxy_to(rig.origin(script)), ktls(mode)))
    with TlsClient(weir.port) as client:
        client.send(request_bytes())
        client.read_head()
        weir.tell(tls_rig.signal.SIGTERM)
        weir.wait_log('shutting down')
        go_on.set()
        assert client.read_bytes(200000) == content(200000)
        assert client.read_to_end() == b''
        client.finish()
    assert weir.wait() == 0


def test_a_request_that_does_not_come_to_its_end(rig):
    """Answered in the records of the connection, like any error."""
    weir = rig.weir(config(server='client_header_timeout = "300ms"'))
    with TlsClient(weir.port) as client:
        client.send(b'GET / HTTP/1.1\r\nHost: a')
        assert client.read_response().status == 408
        assert client.read_to_end() == b''


# ---- KeyUpdate


@pytest.mark.parametrize('command', [b'k\n', b'K\n'])
def test_key_update_by_s_client(served, command):
    with SClient(served.port, '-tls1_3') as client:
        client.connected().get('/size/10')
        client.say(command).wait_for('KEYUPDATE')
        if goes_on(served):
            client.get('/size/20000').wait_for(re.escape(content(20000)[-100:]))
            client.say(command).wait_for('KEYUPDATE', 2)
            client.get('/size/30000').wait_for(re.escape(content(30000)[-100:]))
        else:
            assert client.wait() == 0 and b'closed' in client.said, client.said
            assert b'error' not in client.said, client.said


@pytest.mark.parametrize('wanted', [False, True])
def test_key_updates_between_requests(served, forge, wanted):
    client = forge().establish()
    client.get('/size/10')
    for number in range(5):
        client.put(client.key_update(wanted))
        if not goes_on(served):
            assert client.at_end() and client.alerts == ['close_notify']
            return
        size = 30000 + number
        answer = client.request('POST /echo HTTP/1.1', 'Host: t', f'Content-Length: {size}',
                                body=content(size))
        assert answer.body == content(size)
        assert client.key_updates == (number + 1 if wanted else 0)
    assert served.weir.line_of(client)['tls_records'] == served.expected


@pytest.mark.parametrize('wanted', [False, True])
def test_a_key_update_while_an_answer_is_sent(served, forge, wanted):
    """Nothing more is needed from the client: the answer is complete, in any case."""
    client = forge().establish()
    client.send(request_bytes(f'/size/{4 * MiB}'))
    client.read_until(b'\r\n\r\n')
    client.put(client.key_update(wanted))
    assert sha(client.read_bytes(4 * MiB)) == sha(content(4 * MiB))
    if goes_on(served):
        assert client.get('/size/10').body == content(10)
        assert client.key_updates == (1 if wanted else 0)
    else:
        assert client.at_end() and client.alerts == ['close_notify']


def test_a_key_update_within_an_upload(served, forge):
    """Where the kernel cannot go on, what comes behind it is not understood: the request fails, and
    that is told in order."""
    client = forge().establish()
    body = content(100000)
    client.send(request_bytes('/echo', 'Content-Length: 100000', method='POST') + body[:50000])
    client.put(client.key_update())
    client.send(body[50000:])
    if goes_on(served):
        assert client.read_response().body == body
    else:
        answer = client.read_to_end()
        assert not answer or not answer.startswith(b'HTTP/1.1 200'), answer
        assert client.alerts == ['close_notify']
    alive(served)


def test_a_key_update_with_the_request_in_one_segment(served, forge):
    client = forge().establish()
    client.get('/size/1')
    client.put(client.key_update(True) + client.record(request_bytes('/size/40000')))
    if goes_on(served):
        assert client.read_response().body == content(40000)
        assert client.key_updates == 1
    else:
        assert client.at_end() and client.alerts == ['close_notify']


def test_a_key_update_in_the_segment_of_finished(served, forge):
    """The connection stays in userspace then, on every kernel."""
    client = forge()
    client.put(client.last_flight + client.key_update(True) +
               client.record(request_bytes('/size/40000')))
    assert client.read_response().body == content(40000)
    assert client.get('/size/10').body == content(10)
    line = served.weir.line_of(client)
    assert line['tls_records'] == 'userspace'
    if served.expected == 'kernel':
        assert line['tls_why'] == 'leftover'


def test_a_client_that_only_changes_keys(served, forge):
    """It costs work and brings nothing: there is a limit, and then the connection ends."""
    before = served.weir.tls_stats()
    client = forge().establish()
    client.get('/size/1')
    client.put(b''.join(client.key_update() for _ in range(40)) + client.record(request_bytes()))
    assert client.at_end() and not client.buffer
    if goes_on(served):
        served.weir.wait_stat('clients.bad_records', before['clients.bad_records'] + 1)
        assert 10 < served.weir.tls_stats()['clients.key_updates'] - before[
            'clients.key_updates'] < 20
    else:
        assert client.alerts == ['close_notify']
    alive(served)


def test_a_key_update_in_two_records(served, forge):
    """A handshake message may be split; the kernel does not see that, so such a connection ends."""
    client = forge().establish()
    client.get('/size/1')
    split = client.record(KEY_UPDATE[:3], HANDSHAKE) + client.record(KEY_UPDATE[3:], HANDSHAKE)
    client.out.update()
    client.put(split + client.record(request_bytes('/size/100')))
    try:
        assert client.read_response().body == content(100)
    except Ended as ended:
        assert served.expected == 'kernel' and not ended.seen, ended
    alive(served)


# ---- other messages


def test_renegotiation_is_refused(served):
    with SClient(served.port, '-tls1_2') as client:
        client.connected().get('/size/10')
        client.say(b'R\n').wait_for('RENEGOTIATING')
        client.wait()
        assert client.said.count(b'verify return:1') == client.said[
            :client.said.index(b'RENEGOTIATING')].count(b'verify return:1'), client.said
    alive(served)


@pytest.mark.parametrize('version', VERSIONS)
def test_max_fragment_length(served, version):
    """The kernel would send longer records: it does not get this connection."""
    with SClient(served.port, f'-tls{version.replace(".", "_")}', '-ign_eof', '-msg', '-maxfraglen',
                 '512') as client:
        client.connected().say(request_bytes(f'/size/20000?{version}', 'Connection: close'))
        assert client.wait() == 0
        lengths = re.findall(rb'<<< [^\n]*RecordHeader[^\n]*\n +17 03 03 (\w\w) (\w\w)', client.said)
    lengths = [int(high + low, 16) for high, low in lengths]
    assert len(lengths) > 20000 / 512 and max(lengths) <= 512 + 32, lengths
    line = served.weir.line(path=f'/size/20000?{version}')
    assert line['tls_records'] == 'userspace' and line['bytes_out'] > 20000
    if served.expected == 'kernel':
        assert line['tls_why'] == 'fragment_length'


@pytest.mark.parametrize('description', [80, 42])
def test_a_fatal_alert(served, forge, description):
    client = forge().establish()
    client.get('/size/1')
    client.put(client.record(bytes([2, description]), ALERT))
    until_closed(client.sock)
    alive(served)


def test_a_warning_and_an_end(served, forge):
    """user_canceled comes before close_notify and says nothing more."""
    client = forge().establish()
    client.get('/size/1')
    client.put(client.record(b'\1\x5a', ALERT) + client.record(b'\1\0', ALERT))
    assert client.at_end() and client.alerts == ['close_notify']


def test_an_unexpected_handshake_message(served, forge):
    """A second ClientHello, say."""
    client = forge().establish()
    client.get('/size/1')
    client.put(client.record(b'\1\0\0\x04abcd', HANDSHAKE) + client.record(request_bytes('/never')))
    answer = b''
    try:
        answer = client.read_to_end()
    except Ended:
        pass
    assert answer == b'' and not [line for line in served.weir.access() if line['path'] == '/never']
    alive(served)


# ---- records of all shapes


def test_records_in_odd_pieces(served):
    """Segments end anywhere, and several records share one."""
    for version in VERSIONS:
        with ByteClient(served.port, context=client_context(version)).establish() as client:
            data = b''.join(client.encrypt(request_bytes('/echo', method='POST', body=content(size)))
                            for size in (1, 40000, 100, 70001, 5))
            chance = random.Random(version)
            while data:
                size = chance.choice([1, 2, 4, 5, 6, 100, 1400, 5000, 30000])
                client.send_raw(data[:size])
                data = data[size:]
            for size in (1, 40000, 100, 70001, 5):
                assert client.read_response().body == content(size)
            served.check(client, version)


def test_many_small_records_in_one_segment(served):
    for version in VERSIONS:
        with ByteClient(served.port, context=client_context(version)).establish() as client:
            body = content(700)
            head = request_bytes('/echo', 'Content-Length: 700', method='POST')
            client.send_raw(b''.join(client.encrypt(head[at:at + 1]) for at in range(len(head))) +
                            b''.join(client.encrypt(body[at:at + 7]) for at in range(0, 700, 7)))
            assert client.read_response().body == body


def test_padded_and_empty_records(served, forge):
    client = forge().establish()
    empty = client.record(b'')
    padded = client.record(request_bytes('/size/100'), padding=9000)
    client.put(empty + padded + client.record(b'', padding=500))
    assert client.read_response().body == content(100)
    assert client.get('/size/200').body == content(200)
    served.check(client)


def test_the_longest_record(served, forge):
    client = forge().establish()
    head = request_bytes('/echo', 'Content-Length: 20000', method='POST')
    client.put(client.record((head + content(20000))[:16384]) +
               client.record((head + content(20000))[16384:], padding=16384 - 20000 % 16384 - 200))
    assert client.read_response().body == content(20000)


# ---- damage


def alert_of(client):
    """The alert that ends the connection, as OpenSSL calls it."""
    with pytest.raises(ssl.SSLError) as raised:
        client.read_to_end()
    return raised.value.reason


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('where', [5, 20, -1])
def test_a_damaged_record(served, version, where):
    before = served.weir.tls_stats()['clients.bad_records']
    with ByteClient(served.port, context=client_context(version)).establish() as client:
        assert client.get('/size/10').body == content(10)
        record = bytearray(client.encrypt(request_bytes('/damaged')))
        record[where] ^= 1
        with served.proof(0, errors=1):
            client.send_raw(record)
            assert 'BAD_RECORD_MAC' in alert_of(client)
    served.weir.wait_stat('clients.bad_records', before + 1)
    assert not [line for line in served.weir.access() if line['path'] == '/damaged']
    alive(served)


def test_a_damaged_record_within_an_upload(served):
    before = served.weir.tls_stats()['clients.bad_records']
    with ByteClient(served.port).establish() as client:
        client.send(request_bytes('/hash', 'Content-Length: 60000', method='POST'))
        data = bytearray(client.encrypt(content(60000)))
        data[40000] ^= 128
        client.send_raw(data)
        with pytest.raises((ssl.SSLError, Ended)):
            client.read_response()
    served.weir.wait_stat('clients.bad_records', before + 1)
    alive(served)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_record_again(served, version):
    """Replayed as it was: the record number is part of what is authenticated."""
    with ByteClient(served.port, context=client_context(version)).establish() as client:
        record = client.encrypt(request_bytes('/size/10'))
        client.send_raw(record)
        assert client.read_response().body == content(10)
        client.send_raw(record)
        assert 'BAD_RECORD_MAC' in alert_of(client)
        assert len(served.weir.lines(1, client_port=client.own_port)) == 1


HEADERS = {'too long': (b'\x17\3\3\xff\xff', 'RECORD_OVERFLOW'),
           'a little too long': (b'\x17\3\3' + (16384 + 2049).to_bytes(2, 'big'), 'RECORD_OVERFLOW'),
           'an unknown type': (b'\x63\3\3\0\x40', ''),  # it depends on who finds it, and when
           'another version': (b'\x17\5\1\0\x40', ''),
           'no TLS at all': (b'GET / HTTP/1.1\r\n', '')}


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('header', HEADERS)
def test_a_bad_record_header(served, version, header):
    before = served.weir.tls_stats()['clients.bad_records']
    raw, alert = HEADERS[header]
    with ByteClient(served.port, context=client_context(version)).establish() as client:
        client.get('/size/1')
        client.send_raw(raw + bytes(200))
        assert alert in alert_of(client)
    served.weir.wait_stat('clients.bad_records', before + 1)
    alive(served)


def test_damage_does_not_reach_other_connections(served):
    """Many break while one goes on."""
    with served.client() as steady:
        for number in range(10):
            with ByteClient(served.port).establish() as client:
                record = bytearray(client.encrypt(request_bytes('/')))
                record[7 + number] ^= 0x40
                client.send_raw(record)
                until_closed(client.sock)
            assert steady.get(f'/size/{20000 + number}').body == content(20000 + number)
        steady.finish()


# ---- everything at once


def spoil(served, chance):
    """One connection of one kind of trouble."""
    context = client_context(chance.choice(VERSIONS))
    with ByteClient(served.port, context=context) as client:
        kind = chance.randrange(8)
        if kind == 0:
            client.send_raw(client.step()[1][:chance.randrange(1, 200)])
            return chance.choice([client.reset, client.close])()
        client.establish()
        if kind == 1:  # an answer is not read to its end
            client.send(request_bytes('/size/1000000'))
            client.read_bytes(chance.randrange(1, 100000))
            return chance.choice([client.reset, client.close])()
        if kind == 2:  # an upload ends early
            part = content(chance.randrange(1, 200000))
            client.send(request_bytes('/hash', 'Content-Length: 300000', method='POST') + part)
            return chance.choice([client.reset, client.close])()
        if kind == 3:  # damage
            data = bytearray(client.encrypt(request_bytes('/hash', method='POST', body=content(30000))))
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            client.send_raw(data)
            return until_closed(client.sock)
        if kind == 4:  # a half close in front of the answer
            client.send_raw(client.encrypt(request_bytes('/size/70000')) + client.goodbye())
            assert client.read_response().body == content(70000)
            return client.close()
        if kind == 5:  # noise
            client.send_raw(chance.randbytes(chance.randrange(5, 3000)))
            client.sock.shutdown(1)
            return until_closed(client.sock)
        size = chance.randrange(200000)
        # PUT, since the origin may end an idle connection in the very moment in which it is used
        # again: what is not idempotent gets a 502 then, and rightly.
        client.send(request_bytes('/echo', f'Content-Length: {size}', method='PUT') + content(size))
        assert client.read_response().body == content(size)


@pytest.mark.parametrize('seed', [1, 2])
def test_trouble_all_over(served, seed):
    """Of every kind, from several sides at once, while one connection goes on."""
    failures = []

    def run(number):
        chance = random.Random(1000 * seed + number)
        for _ in range(40):
            try:
                spoil(served, chance)
            except OSError:  # so it was closed while we still sent
                pass
            except Exception as error:
                failures.append(error)
                return
    with served.client() as steady:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        number = 0
        while any(thread.is_alive() for thread in threads):
            number += 1
            assert steady.get(f'/size/{1000 + number % 10}').body == content(1000 + number % 10)
        steady.finish()
    assert not failures, failures
