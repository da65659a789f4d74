"""Bodies that move from file to socket and from socket to socket: who moved them, by the counters
of SIGUSR2, and that every byte is right, over plain connections and TLS, in the kernel and outside
it. Where the kernel does not do the records, the same bodies are copied and must be as right.

This file also runs in an emulated machine with kernel TLS; what needs no TLS and much time is in
test_moved_bodies_host.py."""
import random
import socket
import threading
import time

import pytest

import conftest
import tls_rig
from bodies_rig import (FIRST_BYTES, GiB, IN_MACHINE, KINDS, ORIGINS, Site, check_answer, files,
                        hashes, moves, nothing_leaks, origin_of, proxy, random_file, sparse, take,
                        zeros)
from tls_rig import KiB, MiB, content, rig, sha

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(130))

THRESHOLD = 256 * KiB
SPLICING = f'splice_threshold = "{THRESHOLD // KiB}KiB"\n'
# Around what is read at once, a relay's block and the threshold.
SIZES = [1, 16 * KiB, 32 * KiB + 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, THRESHOLD - 1, THRESHOLD,
         THRESHOLD + 1, THRESHOLD + 16 * KiB, THRESHOLD + 64 * KiB + 1, MiB, 3 * MiB + 7]


# A GiB over plain connections is moved in test_moved_bodies_host.py.
HUGE = 64 * MiB


def warm(site, target, *options):
    site.curl(target, '-o', '/dev/null', *options)
    return site.weir.rss_kib()


# ---- files


@KINDS
def test_a_huge_file_is_not_copied(rig, tmp_path, kind):
    root = tmp_path / 'root'
    root.mkdir()
    # In the machine with kernel TLS this is the proof that a GiB is not copied.
    size = GiB if tls_rig.kernel_tls() and kind == 'kernel' else HUGE
    sparse(root / 'huge', size)
    sparse(root / 'large', 32 * MiB)
    site = Site(rig, kind, files(root))
    before = warm(site, '/large')
    grown = site.moved()
    said = site.curl('/huge', '-o', '/dev/null', '-w', '%{http_code} %{size_download}',
                     limit=120)
    assert said == f'200 {size}'
    got = grown()
    way, other = ('sendfile', 'copied') if moves(kind) else ('copied', 'sendfile')
    assert got[f'file_bytes_{way}'] == size and got[f'file_bytes_{other}'] == 0, got
    assert got['file_bytes_memory'] == 0
    assert site.weir.rss_kib() - before < 12 * KiB


@KINDS
def test_files_by_hash_and_ranges_of_them(rig, tmp_path, kind):
    root = tmp_path / 'root'
    root.mkdir()
    size = 24 * MiB + 12345
    digest = random_file(root / 'big', size)
    data = (root / 'big').read_bytes()
    site = Site(rig, kind, files(root))
    site.get('/big', 'Range: bytes=0-1')  # from here on it is one of the open files
    grown = site.moved()
    with nothing_leaks(site.weir), site.client() as client:
        assert sha(client.get('/big').body) == digest
        for first, last in [(0, 64 * KiB - 1), (1, 64 * KiB), (4095, 4 * MiB),
                            (size - MiB, size - 1), (256 * KiB - 1, 512 * KiB)]:
            answer = client.get('/big', f'Range: bytes={first}-{last}')
            assert answer.status == 206 and answer.body == data[first:last + 1], (first, last)
        client.send_request('GET /big HTTP/1.1', 'Host: a.test')
        client.send_request('GET /big HTTP/1.1', 'Host: a.test', 'Range: bytes=5-9')
        assert sha(client.read_response().body) == digest
        assert client.read_response().body == data[5:10]
    copied = grown()['file_bytes_copied']
    assert copied == 5 if moves(kind) else copied > 2 * size


# ---- proxied


def check_spliced(grown, size, splices):
    """All of it but what came with the head; nothing at all where it cannot be."""
    got = grown()
    total = got['body_bytes_spliced'] + got['body_bytes_direct'] + got['body_bytes_buffered']
    assert total == size, got
    if splices:
        assert got['body_bytes_spliced'] >= size - FIRST_BYTES, got
        assert got['body_bytes_direct'] <= FIRST_BYTES, got
    else:
        assert got['body_bytes_spliced'] == 0, got


@KINDS
@pytest.mark.parametrize('ends', ['by length', 'with the connection'])
def test_a_huge_response_is_spliced(rig, tmp_path, kind, ends):
    """The default threshold. Until the end of the connection it stays one body without chunks only
    for clients of HTTP/1.0."""
    size = HUGE
    origin = rig.origin(zeros(tmp_path))
    site = Site(rig, kind, proxy(origin))
    closing = ends != 'by length'
    prefix, version = ('/close', '--http1.0') if closing else ('', '--http1.1')
    # curl would name http/1.0 in ALPN.
    version = (version, '--no-alpn')
    before = warm(site, f'{prefix}/{8 * MiB}', *version)
    grown = site.moved()
    said = site.curl(f'{prefix}/{size}', *version, '-o', '/dev/null', '-w',
                     '%{http_code} %{size_download}')
    assert said == f'200 {size}'
    check_spliced(grown, size, moves(kind))
    assert site.weir.rss_kib() - before < 12 * KiB


@KINDS
def test_a_huge_upload_is_spliced(rig, tmp_path, kind):
    size = HUGE
    origin = rig.origin(zeros(tmp_path))
    site = Site(rig, kind, proxy(origin))
    small, large = sparse(tmp_path / 'small', 8 * MiB), sparse(tmp_path / 'large', size)
    options = ('--http1.1', '-H', 'Expect:', '-T')
    assert site.curl('/', *options, str(small)) == f'{8 * MiB}'
    before = site.weir.rss_kib()
    grown = site.moved()
    assert site.curl('/', *options, str(large)) == f'{size}'
    check_spliced(grown, size, moves(kind))
    assert site.weir.rss_kib() - before < 12 * KiB


@KINDS
@ORIGINS
def test_every_size_arrives(rig, kind, behind):
    """On one connection to each side."""
    origin = origin_of(rig, behind, hashes)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    grown = site.moved()
    with site.client() as client:
        for size in SIZES:
            check_answer(client.get(f'/{size}'), f'/{size}')
            answer = client.request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {size}',
                                    body=content(size))
            assert answer.body.decode() == sha(content(size)), size
    assert len(origin.connections) == 1
    spliced = grown()['body_bytes_spliced']
    if moves(kind, behind):
        # Of the largest alone, both ways: so much that neither side can have been left out.
        assert spliced > 2 * (SIZES[-1] - FIRST_BYTES)
    else:
        assert spliced == 0


@KINDS
@ORIGINS
def test_bodies_that_end_with_the_connection(rig, kind, behind):
    origin = origin_of(rig, behind, hashes)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    for version in ['1.0', '1.1']:
        for size in [64 * KiB, THRESHOLD, 2 * THRESHOLD + 1, 3 * MiB + 7]:
            with site.client() as client:
                client.send_request(f'GET /close/{size} HTTP/{version}', 'Host: a.test')
                check_answer(client.read_response(), f'/close/{size}')


@KINDS
def test_never_and_always(rig, kind):
    """A threshold of 0 is none; one of a byte makes everything large that is not there at once."""
    origin = rig.origin(hashes)
    for threshold, spliced in [('0', False), ('1', moves(kind))]:
        site = Site(rig, kind, proxy(origin), performance=f'splice_threshold = {threshold}\n')
        grown = site.moved()
        with site.client() as client:
            for size in [40 * KiB, 4 * MiB]:
                check_answer(client.get(f'/{size}'), f'/{size}')
                answer = client.request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {size}',
                                        body=content(size))
                assert answer.body.decode() == sha(content(size))
        assert (grown()['body_bytes_spliced'] > 0) == spliced


@KINDS
@ORIGINS
def test_what_is_pipelined_behind_a_body(rig, kind, behind):
    """Neither an upload nor an answer takes a byte of what follows."""
    origin = origin_of(rig, behind, hashes)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    size = 2 * MiB + 3
    for _ in range(3):
        with site.client() as client:
            upload = tls_rig.request_bytes('/', method='PUT', body=content(size))
            # One message: the end of the body and the next request are in one segment or record.
            sender = threading.Thread(target=client.send, args=(
                upload + tls_rig.request_bytes(f'/{size}') + tls_rig.request_bytes('/10') +
                upload + tls_rig.request_bytes('/11'),)) if kind == 'plain' else None
            if sender:
                sender.start()
            else:  # a TLS socket is for one thread, and answers to uploads are small
                client.send(upload + tls_rig.request_bytes('/9'))
                assert client.read_response().body.decode() == sha(content(size))
                check_answer(client.read_response(), '/9')
                client.send(tls_rig.request_bytes(f'/{size}') + tls_rig.request_bytes('/10') +
                            tls_rig.request_bytes('/', method='PUT', body=content(3 * KiB)) +
                            tls_rig.request_bytes('/11'))
            if sender:
                assert client.read_response().body.decode() == sha(content(size))
            check_answer(client.read_response(), f'/{size}')
            check_answer(client.read_response(), '/10')
            last = size if sender else 3 * KiB
            assert client.read_response().body.decode() == sha(content(last))
            check_answer(client.read_response(), '/11')
            if sender:
                sender.join()
    assert not site.weir.stats()['upstream_errors']


# ---- pace


@KINDS
@ORIGINS
def test_slow_readers(rig, kind, behind):
    """They get every byte, and others do not wait for them."""
    size = 6 * MiB + 1
    origin = origin_of(rig, behind, hashes)
    site = Site(rig, kind, proxy(origin), performance=SPLICING)
    # The connections to the origin that stay are opened first.
    clients = [site.client() for _ in range(4)]
    for client in clients:
        client.send_request(f'GET /{size} HTTP/1.1', 'Host: a.test')
    for client in clients:
        check_answer(client.read_response(), f'/{size}')
        client.close()
    conftest.wait_until(lambda: site.weir.stats()['connections'] == 0, tls_rig.IO, 'clients gone')
    with nothing_leaks(site.weir, pipes=4):
        slow = [site.ask(f'/{size}', receive_buffer=128 * KiB) for _ in range(3)]
        began = time.monotonic()
        for _ in range(30):
            check_answer(site.get('/100'), '/100')
        assert time.monotonic() - began < tls_rig.seconds(10)
        for client in slow:
            got = take(client, size, pause=0.002, piece=64 * KiB)
            assert (got.size, got.sha, got.end) == (size, sha(content(size)), None)
            check_answer(client.get('/7'), '/7')
            client.close()


@KINDS
def test_a_slow_origin_takes_an_upload(rig, kind):
    size = 8 * MiB
    seen = {}

    def script(connection):
        # Not smaller: loopback's segments are so large that the kernel's timers would set the pace.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * KiB)
        request = connection.read_request_head()
        seen['got'] = take(connection, int(request.get('Content-Length')), 0.002, 128 * KiB)
        connection.answer(b'done')

    site = Site(rig, kind, proxy(rig.origin(script)), performance=SPLICING)
    grown = site.moved()
    with site.client() as client:
        answer = client.request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {size}',
                                body=content(size))
        assert answer.body == b'done'
    assert seen['got'].sha == sha(content(size))
    check_spliced(grown, size, moves(kind))


@KINDS
def test_an_origin_that_sends_in_pieces(rig, kind):
    """With pauses, in sizes that fit nothing: the end of the body is sent when it is here."""
    size = 1 * MiB
    pieces = random.Random(5)
    go_on = threading.Semaphore(0)

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % size)
        at = 0
        while at < size:
            step = pieces.choice([1, 100, 4095, 16385, 40000])
            connection.send(content(size)[at:at + step])
            at += step
            if pieces.random() < 0.2:
                assert go_on.acquire(timeout=tls_rig.IO)
        connection.read_request_head()

    site = Site(rig, kind, proxy(rig.origin(script)), performance='splice_threshold = "64KiB"\n')
    grown = site.moved()
    with site.ask('/') as client:
        have = b''
        while len(have) < size:
            if not client.buffer:
                go_on.release()
                assert client.fill()
            have, client.buffer = have + client.buffer, b''
        assert have == content(size)
        check_spliced(grown, size, moves(kind))


@KINDS
@ORIGINS
def test_many_at_once(rig, kind, behind):
    """More than there are pipes to be kept."""
    count, size = (20, MiB) if IN_MACHINE else (100, 2 * MiB)
    origin = origin_of(rig, behind, hashes)
    site = Site(rig, kind, proxy(origin, f'max_idle_connections_per_host = {count}\n'),
                performance=SPLICING)
    clients = [site.ask(f'/{size}', receive_buffer=128 * KiB) for _ in range(count)]
    order = random.Random(3)
    order.shuffle(clients)
    for client in clients:
        got = take(client, size)
        assert (got.sha, got.end) == (sha(content(size)), None)
        client.close()
    got = site.weir.stats()
    assert (got['body_bytes_spliced'] > 0) == moves(kind, behind)
    assert got['upstream_errors'] == 0
