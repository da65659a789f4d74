"""Bytes that the kernel moves where TLS is on one side or both: files by sendfile(2), bodies and
tunnels by splice(2). What the peers' records do to that: their shapes, KeyUpdate, damage, and ends
of every kind, none of which may look complete unless it is.
This file also runs where the kernel has TLS, and is about that. Otherwise the same bytes are
copied, and nothing else may differ."""
import collections
import contextlib
import functools
import hashlib
import os
import random
import re
import socket
import ssl
import threading

import pytest

import conftest
import tls_rig
import tunnel_rig
from conftest import Ended, wait_until
from test_tls_records import ALERT, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_PLEASE, Forge, Keys, gcm
from tls_rig import (KiB, MiB, ByteClient, Rig, TlsClient, config, content, kernel_rekeys,
                     kernel_release, ktls, pki, records_expected, request_bytes, seconds,
                     server_context, sha)

pytestmark = tls_rig.LIMIT

# That userspace is as right is not asked again where everything takes ten times as long.
MODE = tls_rig.MODES[:1]
THRESHOLD = 64 * KiB
# Around a record, what is copied at once, and the threshold (with what is read before a body begins
# to move).
SIZES = [1, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, 80 * KiB,
         96 * KiB + 1, 256 * KiB - 1, 256 * KiB + 1]
BIG = 3 * MiB + 4321
# Of a body, read into buffers before it begins to move (of an upload, to be sent once more).
FIRST_BYTES = 512 * KiB
# (how the client comes, which origin): TLS on one side, or on both.
WAYS = pytest.mark.parametrize('client, origin', [('tls', 'plain'), ('plain', 'tls1.3'),
                                                  ('plain', 'tls1.2'), ('tls', 'tls1.3')])
DIRECTIONS = pytest.mark.parametrize('direction', ['down', 'up'])


# ---- origins


def take(stream, size):
    """The hash of so many bytes, none of which are kept."""
    digest = hashlib.sha256()
    while size:
        if not stream.buffer and not stream.fill():
            raise Ended()
        data, stream.buffer = stream.buffer[:size], stream.buffer[size:]
        stream.received = bytearray()
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


def head(size, *fields):
    return '\r\n'.join(('HTTP/1.1 200 OK', f'Content-Length: {size}', *fields, '\r\n')).encode()


def moving(heard, connection):
    """A script: /which/WHAT/N. `heard` gets what became of each upload and tunnel."""
    while True:
        request = connection.read_request_head()
        _, _, what, *numbers = request.target.split('/')
        size = int(numbers[0]) if numbers else 0
        if request.get('Upgrade'):
            return tunnel(heard, connection)
        if request.get('Content-Length'):
            try:
                heard.append(take(connection, int(request.get('Content-Length'))))
            except (Ended, OSError):
                heard.append('broken off')
                return None
            connection.answer(heard[-1].encode())
        elif what == 'last':  # of this connection
            return connection.answer(b'bye', 'Connection: close')
        else:
            connection.send(head(size) + content(size))


def tunnel(heard, connection):
    """Sends every byte back until the end, in order or not."""
    connection.send(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
                    b'Connection: Upgrade\r\nSec-WebSocket-Accept: ' +
                    tunnel_rig.ACCEPT.encode() + b'\r\n\r\n')
    how = 'end'
    try:
        while data := connection.buffer or connection.sock.recv(256 * KiB):
            connection.buffer = b''
            connection.sock.sendall(data)
    except ssl.SSLZeroReturnError:
        pass
    except OSError:
        how = 'broken off'
    heard.append(how)
    if how == 'end' and isinstance(connection.sock, ssl.SSLSocket):
        tls_rig.say_goodbye(connection.sock)


class Records:
    """The server's end of a TLS 1.3 connection, as a socket; it makes each record itself."""

    def __init__(self, sock, context, log):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        before = log.stat().st_size
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self._feed()
        assert self.tls.cipher()[0] == 'TLS_AES_128_GCM_SHA256'
        tickets = self.outgoing.read()
        self.sock.sendall(tickets)
        said = re.search(r'SERVER_TRAFFIC_SECRET_0 \w+ (\w+)', log.read_text()[before:])
        self.keys = Keys(bytes.fromhex(said.group(1)))
        self.keys.number = len(tls_rig.records_in(tickets)[0])

    def _feed(self):
        if data := self.sock.recv(65536):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def recv(self, size):
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._feed()
            except ssl.SSLZeroReturnError:
                return b''

    def record(self, data, kind=23, padding=0):
        inner = data + bytes([kind]) + bytes(padding)
        start = b'\x17\3\3' + (len(inner) + 16).to_bytes(2, 'big')
        return start + gcm(self.keys.key, self.keys.nonce(), inner, start)

    def records(self, data):
        return b''.join(self.record(data[at:at + 16384]) for at in range(0, len(data), 16384))

    def key_update(self, wanted):
        made = self.record(KEY_UPDATE_PLEASE if wanted else KEY_UPDATE, HANDSHAKE)
        self.keys.update()
        return made

    def sendall(self, data):
        self.sock.sendall(self.records(data))

    def shutdown(self, how):
        self.sock.shutdown(how)

    def close(self):
        self.sock.close()


class RecordOrigin(conftest.Origin):
    """An origin that makes its records by hand, for one connection at a time."""

    def __init__(self, script, log):
        self.log = log
        log.touch()
        self.context = server_context()
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        self.context.keylog_filename = str(log)
        super().__init__(script)
        self.url = f'https://{self.address}'

    def _serve(self, connection):
        connection.sock.settimeout(tls_rig.IO)
        try:
            connection.sock = Records(connection.sock, self.context, self.log)
        except OSError as error:
            self.errors.append(error)
            return
        super()._serve(connection)


# ---- weir


def upstream(name, origin):
    secure = origin.url.startswith('https')
    ca = f'tls_ca_path = "{pki().ca_file}"\n' if secure else ''
    return (f'[upstream."{name}"]\nservers = ["{origin.url if secure else origin.address}"]\n{ca}'
            f'[[route]]\npath = "/{name}/"\nproxy = "{name}"\n')


class Moved:
    """A weir before files and before origins of all kinds, in one of MODES: /files/; /plain/,
    /tls1.2/ and /tls1.3/ as moving() has them; /hand/, whose records are made by by_hand()."""

    def __init__(self, made, mode):
        self.rig, self.mode, self.heard = made, mode, []
        self.expected = records_expected(mode)
        # Else the kernel tells of records before they are whole: nothing is read directly.
        self.whole = self.expected == 'kernel' and kernel_release() >= (6, 12)
        self.root = made.folder / 'root'
        self.root.mkdir()
        script = functools.partial(moving, self.heard)
        origins = {'plain': made.origin(script),
                   'tls1.2': made.tls_origin(script, context=server_context(version='1.2')),
                   'tls1.3': made.tls_origin(script),
                   'hand': RecordOrigin(self._serve_by_hand, made.folder / 'keys')}
        made.origins.append(origins['hand'])
        self.weir = made.weir(config(
            ''.join(upstream(*pair) for pair in origins.items()) +
            f'[[route]]\npath = "/files/"\nfile = "{self.root}"\n', ktls(mode),
            more='[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\n[performance]\n'
                 f'splice_threshold = "{THRESHOLD // KiB}KiB"\n'),
            # What a sanitizer keeps of freed memory is not weir's.
            env={'ASAN_OPTIONS': 'quarantine_size_mb=4'})
        self.port = self.weir.port_of('main')
        for name in origins:  # the tickets of an origin come with the first connection to it
            if name != 'plain':
                assert self.get('plain', f'/{name}/last').body == b'bye'

    def by_hand(self, script):
        """From now on script(connection, records) answers /hand/; connection.target says what was
        asked for. Only with "length" in that can there be another request."""
        self.script = script

    def _serve_by_hand(self, connection):
        while True:
            connection.target = connection.read_request_head().target
            if connection.target.endswith('/last'):
                return connection.answer(b'bye', 'Connection: close')
            if connection.target.endswith('/other'):
                connection.answer(b'other')
                continue
            self.script(connection, connection.sock)
            if 'length' not in connection.target:
                return None

    def client(self, kind, receive_buffer=None):
        if kind == 'tls':
            assert receive_buffer is None
            return TlsClient(self.port)
        return conftest.Client(self.weir.port_of('plain'), tls_rig.IO, receive_buffer)

    def get(self, kind, target):
        with self.client(kind) as client:
            return client.get(target)

    def moves(self, direction, client, origin):
        """Whether a body may pass without a copy."""
        reads = (origin if direction == 'down' else client) == 'plain' or self.whole
        if direction == 'up':
            return reads and (origin == 'plain' or self.whole)
        return reads and (client == 'plain' or self.expected == 'kernel')

    def grown(self):
        """By how much counters have grown since."""
        before = self.weir.stats()

        def since():
            return collections.Counter(
                {key: value - before[key] for key, value in self.weir.stats().items()})
        return since

    def goes_on(self, origin=False):
        """Whether a connection survives the KeyUpdate of the client (of the origin)."""
        kernel = self.whole if origin else self.expected == 'kernel'
        return kernel_rekeys() or not kernel

    def wait_heard(self, count):
        wait_until(lambda: len(self.heard) >= count, tls_rig.IO, 'what the origin heard')
        return self.heard[-1]


@pytest.fixture(scope='module', params=MODE)
def moved(request, tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp('moved'))
    try:
        yield Moved(made, request.param)
    finally:
        made.close()


@pytest.fixture
def forge(moved, tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Forge(moved, tmp_path)).establish()


def transfer(client, which, direction, size):
    """One body down or up; how many bytes of it were right."""
    if direction == 'down':
        answer = client.get(f'/{which}/size/{size}')
        assert answer.get('Content-Length') == str(size)
        assert sha(answer.body) == sha(content(size)), f'{size} bytes down'
    else:
        answer = client.request(f'POST /{which}/hash HTTP/1.1', 'Host: a.test',
                                f'Content-Length: {size}', body=content(size))
        assert answer.body.decode() == sha(content(size)), f'{size} bytes up'


# ---- files


def discard(sock):
    """How many bytes come until the end; the kernel throws them away."""
    room, total = bytearray(MiB), 0
    while got := sock.recv_into(room, 0, socket.MSG_TRUNC):
        total += got
    return total


@pytest.mark.seconds(seconds(120))
def test_one_gib_of_a_file(moved):
    """By sendfile, none of it copied, in flat memory. The client only counts: what is in records is
    compared below."""
    size = 1024 * MiB if moved.expected == 'kernel' else 64 * MiB
    for name, length in [('gib', size), ('some', 8 * MiB)]:
        with open(moved.root / name, 'wb') as file:
            file.truncate(length)
    assert len(moved.get('tls', '/files/some').body) == 8 * MiB
    memory, grown, stat = moved.weir.rss_kib(), moved.grown(), tls_rig.tls_stat()
    with ByteClient(moved.port) as client:
        client.establish()
        client.send(request_bytes('/files/gib', 'Connection: close'))
        total = discard(client.sock)
        line = moved.weir.line_of(client)
    # 22 bytes for each record, which has 16384 at most.
    assert size + size // 16384 * 22 < total < size + size // 16384 * 22 * 1.1 + 4096
    assert (line['status'], line.get('reason')) == (200, None) and line['bytes_out'] > size, line
    got = {key: value for key, value in grown().items() if key.startswith('file_bytes_')}
    way = 'sendfile' if moved.expected == 'kernel' else 'copied'
    assert got == {'file_bytes_sendfile': 0, 'file_bytes_copied': 0, 'file_bytes_memory': 0,
                   f'file_bytes_{way}': size}
    if stat:
        handed = 1 if moved.expected == 'kernel' else 0
        assert tls_rig.tls_stat()['TlsTxSw'] == stat['TlsTxSw'] + handed
    assert moved.weir.rss_kib() - memory < 12 * KiB


def test_a_file_by_hash_and_its_ranges(moved):
    size = 64 * MiB
    block = content(MiB)
    data = b''.join(number.to_bytes(4, 'big') + block[4:] for number in range(64))
    (moved.root / 'random').write_bytes(data)
    grown = moved.grown()
    with moved.client('tls') as client:
        client.send(request_bytes('/files/random'))
        assert client.read_head().get('Content-Length') == str(size)
        assert take(client, size) == sha(data)
        sent = size
        for first, last in [(0, 99_999), (1, 16384), (65535, 65536 * 3), (size - 300_001, size - 1),
                            (256 * KiB - 1, 512 * KiB), (33 * MiB, 34 * MiB)]:
            answer = client.get('/files/random', f'Range: bytes={first}-{last}')
            assert answer.status == 206 and answer.body == data[first:last + 1], (first, last)
            sent += last + 1 - first
        answer = client.get('/files/random', 'Range: bytes=5-200000,1000000-1200000')
        assert answer.status == 206 and answer.body.count(data[5:200_001]) == 1
        assert answer.body.count(data[1_000_000:1_200_001]) == 1
    if moved.expected == 'kernel':
        assert grown()['file_bytes_sendfile'] == sent + 199_996 + 200_001
        assert grown()['file_bytes_copied'] == 0


def test_a_file_that_shrinks_while_it_is_sent(moved):
    """The end of TCP without close_notify, or a reset: not all of it."""
    path = moved.root / 'shrinks'
    path.write_bytes(content(MiB) * 32)
    with moved.client('tls') as client:
        client.send(request_bytes('/files/shrinks', 'Connection: close'))
        client.read_head()
        os.truncate(path, MiB)
        with pytest.raises((Ended, ssl.SSLEOFError)):
            take(client, 32 * MiB)
    moved.weir.wait_log('a file changed or failed while it was sent')


def test_a_client_that_leaves_a_file(moved):
    path = moved.root / 'left'
    with open(path, 'wb') as file:
        file.truncate(16 * MiB)
    moved.get('tls', '/files/left')  # it stays open
    before = len(os.listdir(f'/proc/{moved.weir.pid}/fd'))
    for how in ('reset', 'close', 'finish'):
        client = moved.client('tls')
        client.send(request_bytes('/files/left'))
        client.read_bytes(100_000)
        if how == 'finish':
            tls_rig.say_goodbye(client.sock)
        if how == 'reset':
            client.reset()
        client.close()
    wait_until(lambda: len(os.listdir(f'/proc/{moved.weir.pid}/fd')) <= before, tls_rig.IO,
               'all descriptors closed')


# ---- bodies


@WAYS
@DIRECTIONS
def test_bodies_of_all_sizes(moved, direction, client, origin):
    with moved.client(client) as one:
        for size in SIZES:
            transfer(one, origin, direction, size)


@WAYS
@DIRECTIONS
def test_a_body_is_not_copied(moved, direction, client, origin):
    grown = moved.grown()
    with moved.client(client) as one:
        transfer(one, origin, direction, BIG)
        transfer(one, origin, direction, BIG)
    got = grown()
    if moved.moves(direction, client, origin):
        assert got['body_bytes_spliced'] > 2 * (BIG - FIRST_BYTES), got
        # At most what came with a head that was read directly.
        assert got['body_bytes_direct'] < FIRST_BYTES, got
    else:
        assert got['body_bytes_spliced'] == 0, got


@WAYS
def test_both_directions_one_behind_the_other(moved, client, origin):
    """What follows a body that was spliced is found, on the same connections."""
    with moved.client(client) as one:
        for size in (200_000, 10, 100_001):
            transfer(one, origin, 'down', size)
            transfer(one, origin, 'up', size)
        one.send(request_bytes(f'/{origin}/hash', method='POST', body=content(300_000)) +
                 request_bytes(f'/{origin}/size/150000') + request_bytes(f'/{origin}/size/3'))
        assert one.read_response().body.decode() == sha(content(300_000))
        assert one.read_response().body == content(150_000)
        assert one.read_response().body == content(3)


# ---- records of clients


def shapes(chance):
    """Contents of records, and padding: empty ones, single bytes, odd and full ones."""
    for _ in range(250):
        size = chance.choice([0, 0, 1, 1, 7, 100, 4096, 5000, 9000, 12_289, 16_000, 16_384])
        yield chance.randbytes(size), chance.choice([0, 0, 0, min(300, 16_384 - size)])


def moving_bytes(grown):
    got = grown()
    return sum(got[f'body_bytes_{way}'] for way in ('spliced', 'direct', 'buffered'))


def until_still(grown):
    """Waits until a body moves, as far as it can."""
    wait_until(lambda: 0 < moving_bytes(grown) == moving_bytes(grown), tls_rig.IO,
               'a body that moves no more')


def test_records_of_all_shapes_in_an_upload(moved, forge):
    client, records = forge(), list(shapes(random.Random(5)))
    body = b''.join(data for data, _ in records)
    grown = moved.grown()
    client.send(request_bytes('/plain/hash', f'Content-Length: {len(body)}', method='POST'))
    for data, padding in records:
        client.put(client.record(data, padding=padding))
    assert client.read_response().body.decode() == sha(body)
    assert client.get('/plain/size/70000').body == content(70_000)
    if moved.moves('up', 'tls', 'plain'):
        assert grown()['body_bytes_spliced'] > len(body) - FIRST_BYTES


@pytest.mark.parametrize('size', [1, 100, 3000])
def test_padding_and_what_comes_behind_it(moved, forge, size):
    """In one segment, so that one receive brings it all: no byte of the padding is data."""
    client, body = forge(), content(20_000)
    head_bytes = request_bytes('/plain/hash', 'Content-Length: 20000', method='POST')
    for _ in range(5):
        client.get('/plain/size/1')
        client.put(client.record(head_bytes) + client.record(body[:size], padding=300) +
                   client.record(body[size:size + 50]) +
                   client.record(body[size + 50:9000], padding=30) + client.record(body[9000:]))
        assert client.read_response().body.decode() == sha(body)


@pytest.mark.parametrize('wanted', [False, True])
@pytest.mark.parametrize('target', ['/files/4m', '/plain/size/4194304', '/tls1.3/size/4194304'])
def test_a_key_update_while_a_body_is_sent(moved, forge, target, wanted):
    """Nothing more is needed from the client: the answer is complete, in any case."""
    (moved.root / '4m').write_bytes(content(4 * MiB))
    client = forge()
    client.send(request_bytes(target))
    client.read_until(b'\r\n\r\n')
    client.put(client.key_update(wanted))
    assert sha(client.read_bytes(4 * MiB)) == sha(content(4 * MiB))
    if moved.goes_on():
        assert client.get('/files/4m', 'Range: bytes=9-99').body == content(4 * MiB)[9:100]
        assert client.key_updates == (1 if wanted else 0)
    else:
        assert client.at_end() and client.alerts == ['close_notify']


@pytest.mark.parametrize('wanted', [False, True])
def test_a_key_update_within_an_upload(moved, forge, wanted):
    """What comes behind it is not understood where the kernel cannot go on: the request fails."""
    client, count = forge(), len(moved.heard)
    body, half = content(2 * MiB), MiB
    grown = moved.grown()
    client.send(request_bytes('/plain/hash', f'Content-Length: {2 * MiB}', method='POST'))
    client.send(body[:half])
    until_still(grown)
    client.put(client.key_update(wanted))
    client.send(body[half:])
    if moved.goes_on():
        assert client.read_response().body.decode() == sha(body)
        assert client.key_updates == (1 if wanted else 0)
        return
    answer = client.read_to_end()
    assert not answer.startswith(b'HTTP/1.1 200'), answer
    assert client.alerts == ['close_notify']
    assert moved.wait_heard(count + 1) == 'broken off'


def half_close(client):
    with contextlib.suppress(OSError):  # weir may have closed already
        client.sock.shutdown(socket.SHUT_WR)


ENDS = ['close_notify', 'fin', 'reset', 'half a record', 'fatal alert', 'damage']


def last_record(maker, data, end):
    """One more record of data, and what of the end is in records."""
    made = maker.record(data)
    if end == 'half a record':
        return made[:-1]
    if end == 'damage':
        return made[:12] + bytes([made[12] ^ 4]) + made[13:] + maker.record(bytes(10_000))
    alert = {'close_notify': b'\1\0', 'fatal alert': b'\2\x50'}.get(end)
    return made + (maker.record(alert, ALERT) if alert else b'')


@pytest.mark.parametrize('end', ENDS)
@pytest.mark.parametrize('origin', ['plain', 'tls1.3'])
def test_an_upload_that_ends_early(moved, forge, origin, end):
    """The origin must not take what came for all there is, and the client gets no answer to it."""
    client, count, grown = forge(), len(moved.heard), moved.grown()
    client.send(request_bytes(f'/{origin}/hash', f'Content-Length: {2 * MiB}', method='POST') +
                content(2 * MiB)[:MiB])
    until_still(grown)
    client.put(last_record(client, content(2 * MiB)[MiB:MiB + 10_000], end))
    if end == 'reset':
        client.reset()
    elif end != 'damage':
        half_close(client)
    assert moved.wait_heard(count + 1) == 'broken off'
    if end != 'reset':
        answer = b''
        with contextlib.suppress(Ended):
            answer = client.read_to_end()
        assert not answer.startswith(b'HTTP/1.1 2'), answer
        assert end != 'damage' or client.alerts == ['bad_record_mac'], client.alerts
    assert moved.get('plain', '/plain/size/100').body == content(100)


# ---- records of origins


def test_records_of_all_shapes_from_an_origin(moved):
    """For a client that takes its time: what it does not take waits, whatever the shapes."""
    records = [pair for seed in range(2) for pair in shapes(random.Random(seed))]
    body = b''.join(data for data, _ in records)

    def script(connection, sock):
        sock.sendall(head(len(body)))
        for data, padding in records:
            sock.sock.sendall(sock.record(data, padding=padding))

    moved.by_hand(script)
    grown = moved.grown()
    for kind, buffer in [('plain', 4096), ('tls', None)]:
        with moved.client(kind, buffer) as client:
            client.send(request_bytes('/hand/length'))
            until_still(grown)
            assert sha(client.read_response().body) == sha(body)
            assert client.get('/hand/other').body == b'other'
    got = grown()
    if moved.moves('down', 'tls', 'tls1.3'):
        assert got['body_bytes_spliced'] > 2 * (len(body) - FIRST_BYTES), got


@pytest.mark.parametrize('framing', ['length', 'close'])
@pytest.mark.parametrize('wanted', [False, True])
def test_a_key_update_of_an_origin(moved, framing, wanted):
    """Where the kernel cannot go on, the rest of the body is lost, and that can be seen."""
    body = content(MiB)

    def script(connection, sock):
        sock.sendall(head(len(body)) if framing == 'length' else
                     b'HTTP/1.0 200 OK\r\n\r\n')
        sock.sendall(body[:MiB // 2])
        sock.sock.sendall(sock.key_update(wanted))
        sock.sendall(body[MiB // 2:])
        if framing == 'close':
            sock.sock.sendall(sock.record(b'\1\0', ALERT))

    moved.by_hand(script)
    for kind in ('plain', 'tls'):
        assert ended(moved, kind, f'/hand/{framing}', body) == (
            'complete' if moved.goes_on(origin=True) else 'cut off'), kind


def ended(moved, kind, target, body):
    """How the answer to a request with HTTP/1.0 ends: 'complete' where nobody could know better.
    What came must be the beginning of the body."""
    with moved.client(kind) as client:
        client.send(f'GET {target} HTTP/1.0\r\n\r\n'.encode())
        try:
            answer = client.read_head()
        except (Ended, ssl.SSLError):
            return 'cut off'
        if answer.status == 502:
            return 'cut off'
        assert answer.status == 200
        pieces = [client.buffer]
        length = answer.get('Content-Length')
        try:
            while data := client.sock.recv(MiB):
                pieces.append(data)
            how = 'complete'
        except OSError:  # a reset; TLS without close_notify
            how = 'cut off'
        got = b''.join(pieces)
        if length is not None:
            assert len(got) <= int(length)
            how = 'complete' if len(got) == int(length) else 'cut off'
        assert body.startswith(got) and (how == 'cut off' or got == body), (how, len(got))
        return how


@pytest.mark.parametrize('end', ENDS)
def test_a_body_that_ends(moved, end):
    """A body that lasts until the end is complete if the origin says so, and only then; one with a
    length never is when there is less."""
    body = content(MiB)

    def script(connection, sock):
        length = 'length' in connection.target
        sock.sendall(head(len(body) + 1) if length else b'HTTP/1.0 200 OK\r\n\r\n')
        sock.sendall(body[:-10_000])
        sock.sock.sendall(last_record(sock, body[-10_000:], end))
        if end == 'reset':
            conftest.Stream(sock.sock).reset()
        raise Ended()

    moved.by_hand(script)
    before = moved.weir.tls_stats()
    for kind in ('plain', 'tls'):
        wanted = 'complete' if end == 'close_notify' else 'cut off'
        assert ended(moved, kind, '/hand/close', body) == wanted, kind
        assert ended(moved, kind, '/hand/length', body) == 'cut off', kind
    # Each of them was counted for what it was.
    after = moved.weir.tls_stats()
    for counter, at in [('bad_records', ['damage']), ('truncated', ['fin', 'half a record'])]:
        grown = after[f'origins.{counter}'] - before[f'origins.{counter}']
        assert grown == (4 if end in at else 0), (counter, grown)


def test_a_length_needs_no_close_notify(moved):
    """All that was promised has come: an origin may end as it likes then."""
    body = content(MiB)

    def script(connection, sock):
        sock.sendall(head(len(body)) + body)
        raise Ended()

    moved.by_hand(script)
    for kind in ('plain', 'tls'):
        for _ in range(3):
            assert moved.get(kind, '/hand/length').body == body


# ---- tunnels


@contextlib.contextmanager
def joined(moved, client, origin):
    """A client that has been switched to the protocol of tunnel()."""
    with client:
        client.send(tunnel_rig.REQUEST.replace(b'/chat', f'/{origin}/chat'.encode()))
        assert client.read_head().status == 101
        yield client


class PlainPump:
    """tunnel_rig.TlsPump for a plain socket."""

    def __init__(self, sock, data):
        self.sock, self.data = sock, data

    def run(self, expected):
        sender = threading.Thread(target=self.sock.sendall, args=(self.data,), daemon=True)
        sender.start()
        digest = take(conftest.Stream(self.sock), expected)
        sender.join(tls_rig.IO)
        return digest


@WAYS
def test_a_busy_tunnel(moved, client, origin):
    """Every byte comes back; both directions are busy at once."""
    size, grown, count = 4 * MiB, moved.grown(), len(moved.heard)
    data = content(MiB) * 4
    with joined(moved, moved.client(client), origin) as one:
        pump = tunnel_rig.TlsPump if client == 'tls' else PlainPump
        assert pump(one.sock, data).run(size) == sha(data)
        got = grown()
        one.sock.settimeout(tls_rig.IO)
        one.sock.sendall(b'quiet again')
        assert one.read_bytes(11) == b'quiet again'
        if client == 'tls':
            tls_rig.say_goodbye(one.sock)
        else:
            one.sock.shutdown(socket.SHUT_WR)
        assert moved.wait_heard(count + 1) == 'end'
    assert got['tunnel_bytes'] == 2 * size, got
    for direction in ('down', 'up'):
        if moved.moves(direction, client, origin):
            assert got['tunnel_bytes_spliced'] > size // 2, got
    if not moved.moves('down', client, origin):
        assert got['tunnel_bytes_spliced'] == 0, got


def hear(moved, client, data):
    """Speaks until the tunnel is busy, and hears it all again."""
    for at in range(0, len(data), 128 * KiB):
        client.send(data[at:at + 128 * KiB])
        assert client.read_bytes(len(data[at:at + 128 * KiB])) == data[at:at + 128 * KiB]


@pytest.mark.parametrize('wanted', [False, True])
@pytest.mark.parametrize('origin', ['plain', 'tls1.3'])
def test_a_key_update_in_a_tunnel(moved, forge, origin, wanted):
    """Where the kernel cannot go on, what the client says then is lost. Nobody may think that it
    had ended in order."""
    count = len(moved.heard)
    with joined(moved, forge(), origin) as client:
        hear(moved, client, content(MiB))
        client.put(client.key_update(wanted) + client.record(b'more'))
        if moved.goes_on():
            assert client.read_bytes(4) == b'more'
            hear(moved, client, content(MiB))
            assert client.key_updates == (1 if wanted else 0)
            client.put(client.record(b'\1\0', ALERT))
            assert moved.wait_heard(count + 1) == 'end'
        else:
            assert moved.wait_heard(count + 1) == 'broken off'


@pytest.mark.parametrize('origin', ['plain', 'tls1.3'])
def test_records_of_all_shapes_in_a_tunnel(moved, forge, origin):
    records = list(shapes(random.Random(9)))
    with joined(moved, forge(), origin) as client:
        hear(moved, client, content(MiB))
        for data, padding in records:
            client.put(client.record(data, padding=padding))
            assert client.read_bytes(len(data)) == data


@pytest.mark.parametrize('end', ENDS)
@pytest.mark.parametrize('origin', ['plain', 'tls1.3'])
def test_a_busy_tunnel_that_ends(moved, forge, origin, end):
    """The other side is told that it ended only if the client said so."""
    count = len(moved.heard)
    with joined(moved, forge(), origin) as client:
        hear(moved, client, content(MiB))
        client.put(last_record(client, b'last words', end))
        if end == 'close_notify':
            assert client.read_bytes(10) == b'last words'
            assert client.at_end() and client.alerts == ['close_notify']
        elif end == 'reset':
            client.reset()
        elif end != 'damage':
            half_close(client)
        assert moved.wait_heard(count + 1) == ('end' if end == 'close_notify' else 'broken off')


def test_every_line_says_who_did_the_records(moved):
    """The access log, of all tests above."""
    lines = [line for line in moved.weir.access() if 'tls_records' in line]
    assert lines and {line['tls_records'] for line in lines} == {moved.expected}
