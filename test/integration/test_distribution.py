"""Shares by weight, over 100,000 requests to five nginx: for every algorithm no server is further
from its share than 1 % of all requests. And of the keys of a consistent hash at most 1/n + 2 % move
when a server leaves."""
import collections
import socket
import struct
import threading

import pytest

import conftest
from conftest import IO_SECONDS, Stream, wait_until
from ops_rig import RELEASE, rig
from upstream_rig import (DOWN, QUICK_CHECKS, SANITIZED, said, server_of, start_nginx, start_wrk,
                          upstream)

__all__ = ['rig', 'start_nginx', 'start_wrk']

WEIGHTS = (5, 4, 3, 2, 1)
# The balancing is the same code in both; where only a sanitizer's build is there, chance has a
# larger part (four standard deviations of the largest share, for independent draws).
FULL = not (SANITIZED and RELEASE == conftest.WEIR)
REQUESTS = 100_000 if FULL else 20_000
TOLERANCE = 0.01 if FULL else 0.0135

pytestmark = pytest.mark.seconds(120)


@pytest.fixture
def five(start_nginx):
    return [start_nginx(str(i)) for i in range(5)]


def start(rig, origins, algorithm, weights=WEIGHTS, more='', threads=1, **tables):
    servers = [server_of(origin, weight=weight) for origin, weight in zip(origins, weights)]
    return rig.weir(upstream(servers, f'balance = "{algorithm}"\n{more}', threads=threads,
                             **tables), binary=RELEASE)


def counts_of(origins):
    return [origin.count() for origin in origins]


def largest_error(counts, weights=WEIGHTS):
    total = sum(counts)
    assert total >= REQUESTS
    return max(abs(count / total - weight / sum(weights))
               for count, weight in zip(counts, weights))


def check_shares(origins, weights=WEIGHTS, tolerance=TOLERANCE):
    counts = counts_of(origins)
    assert largest_error(counts, weights) <= tolerance, counts
    return counts


def load(start_wrk, weir, origins, **more):
    """REQUESTS requests by wrk, by server; none of them may fail."""
    before = counts_of(origins)
    wrk = start_wrk(f'{weir.url}/', 100, **more)
    wait_until(lambda: sum(counts_of(origins)) >= sum(before) + REQUESTS, 90, 'all requests')
    result = wrk.end()
    assert not result.trouble, result.text
    return [now - then for now, then in zip(counts_of(origins), before)]


@pytest.mark.parametrize('threads', [1, 2])
@pytest.mark.parametrize('algorithm', ['round_robin', 'random'])
def test_shares_in_turn_and_by_chance(rig, five, start_wrk, algorithm, threads):
    """What is under way does not matter to them: not even 0.1 % is missing."""
    weir = start(rig, five, algorithm, threads=threads)
    load(start_wrk, weir, five, connections=32)
    check_shares(five, tolerance=0.001)


@pytest.mark.parametrize('algorithm, threads', [('least_connections', 1), ('least_connections', 2),
                                                ('two_choices', 1)])
def test_shares_by_load(rig, start_nginx, start_wrk, algorithm, threads):
    """They go by how fast servers are, and follow the weights where all are alike: their answers
    take a time beside which it does not show which of seven busy processes waits for which. That
    each core counts only what is its own does no harm to the shares. On a machine that is busy with
    other things they are not alike all the time, so that one good measurement of three will do."""
    five = [start_nginx(str(i), delay=0.005) for i in range(5)]
    weir = start(rig, five, algorithm, threads=threads)
    seen = []
    while len(seen) < 3:
        seen.append(load(start_wrk, weir, five, connections=120))
        if largest_error(seen[-1]) <= TOLERANCE:
            return
    raise AssertionError(f'{seen}: {[largest_error(counts) for counts in seen]}')


KEYS = '''
local number = 0
request = function()
  number = number + 1
  return wrk.format("GET", "/key-" .. number)
end
'''


def test_shares_of_a_consistent_hash(rig, five, start_wrk):
    weir = start(rig, five, 'consistent_hash', more='hash_key = "uri"')
    load(start_wrk, weir, five, connections=32, script=KEYS)
    check_shares(five)


def ask_from(port, addresses, each):
    """So many requests from each of these addresses, on one connection each."""
    request = b'GET / HTTP/1.1\r\nHost: t\r\n\r\n' * each
    for address in addresses:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        sock.settimeout(IO_SECONDS)
        sock.bind((address, 0))
        sock.connect(('127.0.0.1', port))
        with Stream(sock) as stream:
            stream.send(request)
            for _ in range(each):
                head = stream.read_until(b'\r\n\r\n')
                assert head.startswith(b'HTTP/1.1 200 '), head
                stream.read_bytes(1)


def test_shares_of_ip_hash(rig, five):
    """Of clients, that is: their addresses are as many as chance needs for 1 %."""
    weir = start(rig, five, 'ip_hash')
    each = 3
    clients = REQUESTS // each + 1
    addresses = [f'127.{i >> 16}.{i >> 8 & 255}.{i & 255}' for i in range(70_000, 70_000 + clients)]
    errors = []

    def run(part):
        try:
            ask_from(weir.port, part, each)
        except Exception as error:  # shown below
            errors.append(error)
    threads = [threading.Thread(target=run, args=(addresses[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    wait_until(lambda: sum(counts_of(five)) == each * clients, what='all requests')
    # A third as many draws as requests.
    check_shares(five, tolerance=0.01 if FULL else 0.025)


# ---- a server leaves


def places(origins):
    """Key to server."""
    where = {}
    for origin in origins:
        for _, _, uri, status in origin.requests():
            assert status == '200'
            where[uri] = origin.name
        (origin.folder / 'access.log').write_text('')
    return where


ASKED = 10_000
BOUNDED_KEYS = '''
local number = 0
request = function()
  number = number %% %d + 1
  return wrk.format("GET", "/key-" .. number)
end
''' % ASKED


def place_all(start_wrk, weir, origins):
    """Where each of ASKED keys is."""
    wrk = start_wrk(f'{weir.url}/', 60, connections=16, script=BOUNDED_KEYS)
    wait_until(lambda: sum(counts_of(origins)) >= ASKED + 100, 50, 'all keys')
    result = wrk.end()
    assert not result.trouble, result.text
    where = places(origins)
    assert len(where) == ASKED
    return where


@pytest.mark.parametrize('how', ['reload', 'health'])
def test_keys_that_move_when_a_server_leaves(rig, five, start_wrk, how):
    weights = (1,) * 5
    health = QUICK_CHECKS if how == 'health' else None
    settings = {'more': 'hash_key = "uri"', 'health': health}
    weir = start(rig, five, 'consistent_hash', weights, **settings)
    before = place_all(start_wrk, weir, five)
    share = collections.Counter(before.values())
    for count in share.values():
        assert abs(count / ASKED - 0.2) <= 0.02, share
    leaving, others = five[2], five[:2] + five[3:]
    if how == 'reload':
        servers = [server_of(origin) for origin in others]
        weir.reload(upstream(servers, 'balance = "consistent_hash"\nhash_key = "uri"'))
    else:
        leaving.kill()
        weir.wait_log(said(DOWN, leaving))
    after = place_all(start_wrk, weir, others)
    moved = sum(before[key] != after[key] for key in before)
    assert share[leaving.name] <= moved <= (1 / 5 + 0.02) * ASKED, (share, moved)
