"""What goes wrong while a file or a spliced body is sent: files that change, peers that leave,
stall or say too much, limits. Never does an incomplete body look complete; the reason is logged,
nothing leaks, and the next request is answered.

Over plain connections and TLS, also in the emulated machine with kernel TLS. Disks that fail and
descriptors that run out are in test_moved_bodies_host.py."""
import os
import socket
import ssl
import threading

import pytest

import tls_rig
from bodies_rig import (IN_MACHINE, KINDS, ORIGINS, Site, files, hashes, moves,
                        nothing_leaks, origin_of, pour, proxy, random_file, take)
from conftest import Ended, wait_until
from tls_rig import KiB, MiB, content, rig, sha

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(60))

# More than sockets on the way hold, with clients whose receive buffers are small.
BIG = 24 * MiB
SMALL_BUFFER = 128 * KiB
SPLICING = 'splice_threshold = "256KiB"\n'
CACHED = 'open_file_cache_valid = "1h"\nfile_memory_max_size = "300KiB"\n'


@pytest.fixture
def root(tmp_path):
    made = tmp_path / 'root'
    made.mkdir()
    (made / 'note.txt').write_bytes(b'a note')
    return made


def settle(path):
    """Old enough for what is said about it to be kept."""
    os.utime(path, (1_600_000_000, 1_600_000_000))


# ---- files that change


def replace(path):
    (path.parent / 'fresh').write_bytes(b'another file')
    os.rename(path.parent / 'fresh', path)


def rewrite(path):
    """The same size, from the end: what is sent last has changed."""
    with open(path, 'r+b') as file:
        file.seek(BIG - 100)
        file.write(b'x' * 100)


def rewrite_shorter(path):
    with open(path, 'wb') as file:
        file.write(b'z' * (BIG // 2))


CHANGES = {
    'truncated': (lambda path: os.truncate(path, 2 * MiB), False),
    'emptied': (lambda path: os.truncate(path, 0), False),
    'one byte less': (lambda path: os.truncate(path, BIG - 1), False),
    'cut and longer again': (lambda path: (os.truncate(path, 2 * MiB), os.truncate(path, BIG)),
                             False),
    'rewritten': (rewrite, False),
    'rewritten shorter': (rewrite_shorter, False),
    'replaced': (replace, True),
    'removed': (os.unlink, True),
    'moved away': (lambda path: os.rename(path, path.parent / 'elsewhere'), True),
}


@KINDS
@pytest.mark.parametrize('change', CHANGES)
def test_a_file_that_changes_while_it_is_sent(rig, root, kind, change):
    do, same = CHANGES[change]
    digest = random_file(root / 'big', BIG)
    settle(root / 'big')
    site = Site(rig, kind, files(root), performance=CACHED)
    for path in ['/big', '/note.txt']:
        site.get(path, 'Range: bytes=0-1')  # from here on they are open
    with nothing_leaks(site.weir):
        with site.ask('/big', receive_buffer=SMALL_BUFFER) as client:
            assert client.head.get('Content-Length') == f'{BIG}'
            # Pipelined behind it: it must not be answered in the place of what is missing.
            client.send_request('GET /note.txt HTTP/1.1', 'Host: a.test')
            first = take(client, 100 * KiB)
            do(root / 'big')
            rest = take(client, BIG - first.size)
            if same:
                assert rest.end is None
                assert client.read_response().body == b'a note'
            else:
                assert rest.end is not None and first.size + rest.size < BIG, rest
        line = site.weir.line_of(client)
        assert same or line['path'] == '/big' and line['reason'] == 'internal', line
        assert site.get('/note.txt').body == b'a note'
    if same:
        return
    site.weir.wait_log('a file changed or failed while it was sent')
    # It is looked up at once, however long it could be kept.
    with site.ask('/big') as client:
        got = take(client, int(client.head.get('Content-Length')))
        assert got.end is None and got.sha == sha((root / 'big').read_bytes())
        assert got.sha != digest


@KINDS
@pytest.mark.parametrize('mode', ['sendfile', 'memory'])
@pytest.mark.parametrize('size', [3 * KiB, 200 * KiB, 2 * MiB])
@pytest.mark.parametrize('change', ['shorter', 'empty', 'rewritten'])
def test_a_file_that_changed_since_it_was_looked_up(rig, root, kind, mode, size, change):
    """The open file is kept for an hour. Never the old length with the new bytes; what was kept in
    memory is the old file, whole."""
    file = root / 'file'
    file.write_bytes(content(size))
    settle(file)
    site = Site(rig, kind, files(root, f', mode = "{mode}"'), performance=CACHED)
    assert sha(site.get('/file').body) == sha(content(size))
    if change == 'rewritten':
        with open(file, 'r+b') as out:
            out.write(b'other')
    else:
        os.truncate(file, 0 if change == 'empty' else size - 1)
    new = file.read_bytes()
    kept = mode == 'memory' or size <= 4 * KiB  # the smallest are kept in either mode
    whole = [sha(new)] + ([sha(content(size))] if kept else [])
    with site.client() as client:
        client.send_request('GET /file HTTP/1.1', 'Host: a.test')
        client.send_request('GET /note.txt HTTP/1.1', 'Host: a.test')
        try:
            length = int(client.read_head().get('Content-Length'))
            got = take(client, length)
            if got.end is None:
                assert got.sha in whole and length in (len(new), size)
                assert client.read_response().body == b'a note'
        except (Ended, ssl.SSLError, ConnectionResetError):
            pass  # not even a head
    if not kept:
        assert sha(site.get('/file').body) == sha(new)


@KINDS
def test_a_file_that_grows_is_sent_as_long_as_it_was(rig, root, kind):
    """A log: what is appended is another request's. Neither more bytes than announced nor fewer
    that look complete."""
    random_file(root / 'log', BIG)
    site = Site(rig, kind, files(root), performance='open_file_cache_valid = "1ms"\n')
    with site.ask('/log', receive_buffer=SMALL_BUFFER) as client:
        first = take(client, 100 * KiB)
        with open(root / 'log', 'ab') as log:
            log.write(b'a line\n')
        rest = take(client, BIG - first.size)
        if rest.end is None:  # then it is whole, and nothing follows
            assert client.get('/note.txt').body == b'a note'
    wait_until(lambda: site.get('/log', method='HEAD').get('Content-Length') == f'{BIG + 7}')
    with site.ask('/log') as client:
        assert take(client, BIG + 7).end is None


# ---- clients that leave or stall


def leave(client, how):
    if how == 'reset':
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    elif how == 'half':
        client.sock.shutdown(socket.SHUT_RDWR)
    client.sock.close()


@KINDS
@pytest.mark.parametrize('how', ['reset', 'close', 'half'])
def test_clients_that_leave_amid_a_file(rig, root, kind, how):
    random_file(root / 'big', BIG)
    site = Site(rig, kind, files(root))
    site.get('/big', 'Range: bytes=0-1')
    gone = site.weir.stats()['client_gone']
    with nothing_leaks(site.weir):
        for _ in range(5):
            client = site.ask('/big', receive_buffer=SMALL_BUFFER)
            take(client, 100 * KiB)
            leave(client, how)
    lines = site.weir.lines(5, path='/big', status=200)
    assert [line['reason'] for line in lines] == ['client_gone'] * 5, lines
    assert all(line['bytes_out'] < BIG for line in lines)
    assert site.weir.stats()['client_gone'] == gone + 5
    assert site.get('/note.txt').body == b'a note'


@KINDS
@pytest.mark.parametrize('how', ['reset', 'close', 'half'])
def test_clients_that_leave_amid_a_spliced_response(rig, kind, how):
    """The origin notices too: it is not left to send what nobody reads."""
    ended = []

    def script(connection):
        request = connection.read_request()
        if request.target == '/ok':
            connection.answer(b'ok')
            return
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % BIG)
        try:
            connection.send(content(BIG))
        except OSError as error:
            ended.append(error)

    site = Site(rig, kind, proxy(rig.origin(script)), performance=SPLICING)
    with nothing_leaks(site.weir, pipes=2):
        for number in range(5):
            client = site.ask('/big', receive_buffer=SMALL_BUFFER)
            take(client, MiB)
            leave(client, how)
            wait_until(lambda: len(ended) > number, tls_rig.IO, 'the origin notices')
        assert (site.weir.stats()['body_bytes_spliced'] > 0) == moves(kind)
    lines = site.weir.lines(5, path='/big')
    assert [line['reason'] for line in lines] == ['client_gone'] * 5, lines
    assert site.get('/ok').body == b'ok'


@KINDS
@pytest.mark.parametrize('how', ['reset', 'close'])
def test_clients_that_leave_amid_an_upload(rig, kind, how):
    """The origin never has an upload that looks complete."""
    got, begun = [], threading.Semaphore(0)

    def script(connection):
        request = connection.read_request_head()
        first = take(connection, MiB)
        begun.release()
        got.append(take(connection, int(request.get('Content-Length')) - first.size))

    site = Site(rig, kind, proxy(rig.origin(script)), performance=SPLICING)
    with nothing_leaks(site.weir, pipes=2):
        for number in range(4):
            client = site.client()
            client.send_request('PUT /up HTTP/1.1', 'Host: a.test', f'Content-Length: {4 * MiB}',
                                body=content(4 * MiB)[:3 * MiB])
            assert begun.acquire(timeout=tls_rig.IO)
            leave(client, how)
            wait_until(lambda: len(got) > number, tls_rig.IO, 'the origin notices')
    assert all(one.size < 3 * MiB and one.end is not None for one in got), got
    assert (site.weir.stats()['body_bytes_spliced'] > 0) == moves(kind)
    lines = site.weir.lines(4, path='/up')
    assert [line['reason'] for line in lines] == ['client_gone'] * 4, lines


@pytest.mark.parametrize('what', ['file', 'response'])
def test_a_client_that_only_ended_its_side_gets_all(rig, root, what):
    """It is waited for as long as the body moves, however short the grace is."""
    size = 8 * MiB if IN_MACHINE else 96 * MiB
    digest = random_file(root / 'big', size)

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size)
        pour(connection.sock, root / 'big')

    site = Site(rig, 'plain', files(root) if what == 'file' else proxy(rig.origin(script)),
                'half_close_grace = "100ms"\n', SPLICING)
    for _ in range(3):
        with site.client() as client:
            client.send_request('GET /big HTTP/1.1', 'Host: a.test')
            client.sock.shutdown(socket.SHUT_WR)
            assert client.read_head().get('Content-Length') == f'{size}'
            got = take(client, size, pause=0.004, piece=MiB)
        assert (got.size, got.sha, got.end) == (size, digest, None)


@KINDS
@pytest.mark.parametrize('what', ['file', 'response'])
def test_a_client_that_stops_reading_is_given_up(rig, root, what, kind):
    random_file(root / 'big', BIG)
    over = threading.Event()

    def script(connection):
        connection.read_request()
        try:
            connection.answer(content(BIG))
        finally:
            over.set()

    site = Site(rig, kind, files(root) if what == 'file' else proxy(rig.origin(script)),
                'send_timeout = "300ms"\n', SPLICING)
    if what == 'file':
        site.get('/big', 'Range: bytes=0-1')
    with nothing_leaks(site.weir, pipes=1):
        with site.ask('/big', receive_buffer=SMALL_BUFFER) as client:
            line = site.weir.line(path='/big', status=200)
            assert line['reason'] == 'client_timeout' and line['bytes_out'] < BIG, line
            got = take(client)
            assert got.size < BIG and got.end is not None
    assert site.weir.stats()['client_timeouts'] == 1
    assert what == 'file' or over.wait(tls_rig.IO)


# ---- origins that leave, stall or say too much


def half_an_answer(how, length, sent=2 * MiB, size=4 * MiB, go_on=None):
    """A script: /half is an answer that stops; /ok is one that does not."""
    def script(connection):
        while True:
            request = connection.read_request()
            if request.target == '/ok':
                connection.answer(b'ok')
                continue
            field = b'Content-Length: %d\r\n' % size if length else b''
            connection.send(b'HTTP/1.1 200 OK\r\n' + field + b'\r\n' + content(size)[:sent])
            if go_on is not None:
                assert go_on.wait(tls_rig.IO)
            if how == 'reset':
                raw = connection.sock
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            elif how == 'end' and isinstance(connection.sock, ssl.SSLSocket):
                tls_rig.say_goodbye(connection.sock)
            elif how == 'stall':
                connection.at_end()
            return
    return script


ENDS = {  # the origin's: the reasons that are true
    ('end', 'plain'): {'upstream_closed'},
    ('end', 'tls'): {'upstream_closed'},
    ('cut', 'tls'): {'upstream_closed', 'upstream_reset'},  # without close_notify
    ('reset', 'plain'): {'upstream_reset', 'upstream_closed'},
    ('reset', 'tls'): {'upstream_reset', 'upstream_closed'},
}


@KINDS
@pytest.mark.parametrize('how,behind', ENDS)
@pytest.mark.parametrize('version', ['1.0', '1.1'])
def test_origins_that_leave_amid_a_spliced_response(rig, kind, how, behind, version):
    """Of an announced length."""
    go_on = threading.Event()
    origin = origin_of(rig, behind, half_an_answer(how, True, go_on=go_on))
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    assert site.get('/ok').body == b'ok'
    with nothing_leaks(site.weir, pipes=1):
        with site.client() as client:
            client.send_request(f'GET /half HTTP/{version}', 'Host: a.test',
                                'Connection: keep-alive')
            client.send_request('GET /ok HTTP/1.1', 'Host: a.test')
            assert client.read_head().get('Content-Length') == f'{4 * MiB}'
            first = take(client, MiB)
            assert (site.weir.stats()['body_bytes_spliced'] > 0) == moves(kind, behind)
            go_on.set()
            rest = take(client, 3 * MiB)
            assert rest.end is not None and first.size + rest.size <= 2 * MiB, rest
            line = site.weir.line_of(client)
    assert line['path'] == '/half' and line['reason'] in ENDS[how, behind], line
    assert site.weir.stats()['upstream_errors'] == 1
    assert site.get('/ok').body == b'ok'


@KINDS
@pytest.mark.parametrize('how,behind', [('cut', 'tls'), ('reset', 'plain'), ('reset', 'tls')])
@pytest.mark.parametrize('version', ['1.0', '1.1'])
def test_origins_that_break_off_a_body_without_a_length(rig, kind, how, behind, version):
    """For HTTP/1.0 only the way the connection ends says that it is not all; for 1.1 there is no
    last chunk."""
    go_on = threading.Event()
    origin = origin_of(rig, behind, half_an_answer(how, False, go_on=go_on))
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    with site.client() as client:
        client.send_request(f'GET /half HTTP/{version}', 'Host: a.test')
        head = client.read_head()
        assert head.get('Content-Length') is None and head.chunked == (version == '1.1')
        if version == '1.0':
            take(client, MiB)
            go_on.set()
            got = take(client)
            assert got.end in ('reset', 'cut'), got
        else:
            go_on.set()
            with pytest.raises((Ended, ssl.SSLError)):
                client.read_chunked(head)
        line = site.weir.line_of(client)
    assert line['reason'] in ENDS[how, behind], line


@KINDS
@ORIGINS
def test_an_origin_that_stalls_amid_a_spliced_response(rig, kind, behind):
    origin = origin_of(rig, behind, half_an_answer('stall', True))
    site = Site(rig, kind, proxy(origin, 'read_timeout = "300ms"\n'), performance=SPLICING)
    with nothing_leaks(site.weir, pipes=1):
        with site.ask('/half') as client:
            got = take(client, 4 * MiB)
            # What came is all there.
            assert got.size == 2 * MiB and got.end is not None, got
            assert got.sha == sha(content(4 * MiB)[:2 * MiB])
            line = site.weir.line_of(client)
    assert line['reason'] == 'upstream_timeout', line
    assert (site.weir.stats()['body_bytes_spliced'] > 0) == moves(kind, behind)
    assert site.get('/ok').body == b'ok'


EVIL = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!'


@KINDS
@ORIGINS
@pytest.mark.parametrize('size', [300 * KiB, 2 * MiB, 2 * MiB + 77])
def test_an_origin_that_says_more_than_it_announced(rig, kind, behind, size):
    """It is nobody's answer, least of all that of a request that waits behind this one."""
    def script(connection):
        while True:
            request = connection.read_request()
            if request.target == '/more':
                connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size +
                                content(size) + EVIL)
            else:
                connection.answer(b'ok')

    origin = origin_of(rig, behind, script)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    for _ in range(10):
        with site.client() as client:
            client.send(tls_rig.request_bytes('/more') + tls_rig.request_bytes('/ok') +
                        tls_rig.request_bytes('/ok'))
            assert sha(client.read_response().body) == sha(content(size))
            assert client.read_response().body == b'ok'
            assert client.read_response().body == b'ok'
    if size >= 2 * MiB:
        assert (site.weir.stats()['body_bytes_spliced'] > 0) == moves(kind, behind)


# ---- uploads


@KINDS
def test_an_upload_with_more_behind_it(rig, kind):
    """What is no request is refused as one; the origin has what was announced."""
    origin = rig.origin(hashes)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    size = 600 * KiB
    with site.client() as client:
        client.send(tls_rig.request_bytes('/', method='PUT', body=content(size)) +
                    b'more than was said\r\n\r\n')
        assert client.read_response().body.decode() == sha(content(size))
        assert client.read_response().status == 400
        assert client.at_end()
    assert len(origin.requests) == 1
    assert b'more than' not in origin.received()


@KINDS
def test_the_limit_of_a_body(rig, kind):
    origin = rig.origin(hashes)
    site = Site(rig, kind, proxy(origin), 'max_body_size = "1MiB"\n', SPLICING)
    with site.client() as client:
        answer = client.request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {MiB}',
                                body=content(MiB))
        assert answer.body.decode() == sha(content(MiB))
    grown = site.moved()
    with site.client() as client:
        client.send_request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {MiB + 1}')
        assert client.read_response().status == 413
    assert site.weir.line(status=413)['reason'] == 'too_large'
    assert grown()['body_bytes_spliced'] == 0 and len(origin.requests) == 1


@KINDS
def test_a_client_that_stalls_amid_an_upload(rig, kind):
    got = []

    def script(connection):
        request = connection.read_request_head()
        got.append(take(connection, int(request.get('Content-Length'))))

    site = Site(rig, kind, proxy(rig.origin(script)), 'client_body_timeout = "300ms"\n', SPLICING)
    with nothing_leaks(site.weir, pipes=1):
        with site.client() as client:
            client.send_request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {4 * MiB}',
                                body=content(4 * MiB)[:2 * MiB])
            assert client.read_response().status == 408
            assert client.at_end()
        wait_until(lambda: got, tls_rig.IO, 'the origin notices')
    assert got[0].size <= 2 * MiB and got[0].end is not None
    assert site.weir.line(path='/')['reason'] == 'client_timeout'


@KINDS
@pytest.mark.parametrize('how', ['stalls', 'leaves', 'resets'])
def test_an_origin_that_does_not_take_an_upload(rig, kind, how):
    over = threading.Event()

    def script(connection):
        connection.read_request_head()
        connection.read_bytes(MiB)
        if how == 'stalls':
            over.wait(tls_rig.IO)
        elif how == 'resets':
            connection.reset()

    site = Site(rig, kind, proxy(rig.origin(script), 'send_timeout = "300ms"\n'),
                performance=SPLICING)
    body = content(BIG)
    with nothing_leaks(site.weir, pipes=1):
        with site.client() as client:
            try:
                client.send_request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {BIG}',
                                    body=body)
            except OSError:
                pass  # it may be refused before it has all been sent
            line = site.weir.lines(1)[-1]
        over.set()
    wanted = {'stalls': (504, {'upstream_timeout'})}.get(
        how, (502, {'upstream_reset', 'upstream_closed'}))
    assert line['status'] == wanted[0] and line['reason'] in wanted[1], line


# ---- weir's own end


@KINDS
@pytest.mark.parametrize('what', ['file', 'response'])
def test_a_body_that_moves_when_weir_is_to_end(rig, root, what, kind):
    """It is finished; one whose client is too slow for that is cut, and does not look complete."""
    digest = random_file(root / 'big', BIG)

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % BIG)
        with open(root / 'big', 'rb') as file:
            while data := file.read(MiB):
                connection.send(data)

    routes = files(root) if what == 'file' else proxy(rig.origin(script))
    site = Site(rig, kind, routes, 'shutdown_timeout = "SECONDSs"\n'.replace(
        'SECONDS', str(tls_rig.seconds(4))), SPLICING)
    with site.ask('/big', receive_buffer=SMALL_BUFFER) as client, \
            site.ask('/big', receive_buffer=SMALL_BUFFER) as stuck:
        site.weir.tell(15)
        site.weir.wait_log(r' info control \S*(drain|shut|stop)')
        got = take(client, BIG)
        assert (got.sha, got.end) == (digest, None)
        client.close()
        assert site.weir.wait() == 0
        got = take(stuck, BIG)
        assert got.size < BIG and got.end is not None
    reasons = sorted(line.get('reason', '') for line in site.weir.lines(2, path='/big'))
    assert reasons == ['', 'shutdown'], reasons
