"""How tunnels end: one direction after the other, by a reset, for idleness, by a shutdown, and not
by a reload. Who was told everything sees an end, who was not sees a reset."""
import collections
import contextlib
import os
import random
import signal
import socket
import threading
import time

import pytest

import conftest
import tls_rig
from conftest import Ended, wait_until
from tls_rig import MiB, rig
from tunnel_rig import UPGRADE, Chat, Joined, agree, chat, proxying

__all__ = ['chat', 'rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(60))


def test_half_close_by_the_client(chat):
    def script(connection):
        agree(connection)
        said = connection.read_to_end()
        connection.send(said[::-1])
        connection.send(b'and more' * 100_000)

    one = chat(script)
    client = one.client()
    client.send(b'question')
    one.finish(client)
    answer = b'noitseuq' + b'and more' * 100_000
    assert client.read_bytes(len(answer)) == answer
    one.expect_end(client)
    assert not one.weir.line(status=101).get('reason')


def test_half_close_by_the_origin(chat):
    done = []

    def script(connection):
        agree(connection)
        connection.send(b'that is all')
        connection.sock.shutdown(socket.SHUT_WR)
        done.append(connection.read_to_end())

    one = chat(script)
    client = one.client()
    assert client.read_to_end() == b'that is all'
    if one.secure:
        client.sock.setblocking(True)
    for _ in range(50):
        client.send(b'but I ' * 10_000)
    one.finish(client)
    wait_until(lambda: done == [b'but I ' * 500_000], what='all that the client said')
    assert not one.weir.line(status=101).get('reason')


def test_a_reset_by_the_client(rig):
    with Joined(rig) as joined:
        joined.client.send(b'x')
        assert joined.server.read_bytes(1) == b'x'
        joined.client.reset()
        with pytest.raises(Ended) as ended:
            joined.server.read_to_end()
        assert ended.value.reset
        assert joined.weir.line(status=101)['reason'] == 'client_gone'


def test_a_reset_by_the_origin(rig):
    with Joined(rig) as joined:
        joined.server.send(b'x')
        assert joined.client.read_bytes(1) == b'x'
        joined.server.reset()
        with pytest.raises(Ended) as ended:
            joined.client.read_to_end()
        assert ended.value.reset
        assert joined.weir.line(status=101)['reason'] == 'upstream_reset'


def test_a_tls_client_that_only_closes_tcp(rig):
    """Nobody knows whether that was all."""
    there = []

    def script(connection):
        agree(connection)
        try:
            connection.read_to_end()
            there.append('end')
        except Ended as ended:
            there.append('reset' if ended.reset else 'other')

    one = Chat(rig, True, script)
    client = one.client()
    client.send(b'said')
    raw = socket.socket(fileno=client.sock.detach())
    raw.close()
    wait_until(lambda: there == ['reset'], what='a reset')
    one.clients.clear()
    assert one.weir.line(status=101)['reason'] == 'client_gone'


def test_what_was_said_before_a_close_arrives(rig):
    """The origin closes with unread bytes: its reset comes behind its last words."""
    with Joined(rig) as joined:
        joined.client.send(b'x' * 10_000)
        joined.server.read_bytes(1000)
        joined.server.send(b'last words')
        assert joined.client.read_bytes(10) == b'last words'
        joined.server.reset()
        assert joined.client.at_end()


@pytest.mark.parametrize('spoken', [0, 3])
def test_idle_timeout(rig, spoken):
    with Joined(rig, 'tunnel_idle_timeout = "1s"') as joined:
        for turn in range(spoken):  # in one direction only: the other is not idle by itself
            time.sleep(0.6)
            joined.server.send(b'.')
            assert joined.client.read_bytes(1) == b'.'
        begin = time.monotonic()
        assert joined.client.at_end()
        assert 0.8 < time.monotonic() - begin < 4
        assert joined.server.at_end()
        assert joined.weir.line(status=101)['reason'] == 'idle_timeout'


def test_a_client_that_takes_nothing(rig):
    with Joined(rig, 'send_timeout = "1s"', receive_buffer=4096) as joined:
        joined.server.sock.settimeout(20)
        with pytest.raises(OSError):  # it ends although this side never pauses
            while True:
                joined.server.sock.sendall(b'x' * MiB)
        assert joined.weir.line(status=101)['reason'] == 'client_timeout'


def test_a_slow_receiver_holds_its_sender(rig):
    """Nothing is gathered in weir, and nothing is lost."""
    with Joined(rig, receive_buffer=4096) as joined:
        total = 0
        joined.server.sock.settimeout(1)
        block = os.urandom(MiB)
        with pytest.raises(TimeoutError):
            while total < 200 * MiB:
                total += joined.server.sock.send(block[total % MiB:])
        assert total < 30 * MiB
        for start in range(0, total, MiB):
            want = block[:min(MiB, total - start)]
            assert joined.client.read_bytes(len(want)) == want
        joined.client.send(b'the other way')
        joined.server.sock.settimeout(10)
        assert joined.server.read_bytes(13) == b'the other way'


def test_busy_and_quiet_by_turns(rig):
    """Each time it has been quiet, it goes back to shared buffers, and no byte is lost by that."""
    with Joined(rig) as joined:
        for turn in range(3):
            data = os.urandom(3 * MiB)
            sender = threading.Thread(target=joined.server.send, args=(data,), daemon=True)
            sender.start()
            assert joined.client.read_bytes(len(data)) == data
            sender.join(10)
            before = joined.weir.stats()
            assert before['tunnel_bytes_spliced'] > turn * 2 * MiB
            for _ in range(3):
                time.sleep(0.3)  # a pause is what is tested
                joined.server.send(b'quiet')
                assert joined.client.read_bytes(5) == b'quiet'
            after = joined.weir.stats()
            assert after['tunnel_bytes'] - before['tunnel_bytes'] == 15
            assert after['tunnel_bytes_spliced'] - before['tunnel_bytes_spliced'] <= 5


@pytest.mark.seconds(tls_rig.seconds(120))
@pytest.mark.parametrize('seed', range(4))
def test_at_random(rig, seed):
    """Both sides talk, pause, end or break off as chance has it, many at a time. What arrives is
    what was said, an end is only seen behind all of it, and nothing is left behind."""
    total = 60
    said = [os.urandom(MiB), os.urandom(MiB)]

    def play(stream, chance, mine, other, report):
        """`report` gets how much was said, how much was heard, and how each direction ended."""
        speaker = threading.Thread(target=speak, args=(stream, chance, mine, report), daemon=True)
        speaker.start()
        heard = len(stream.buffer)
        assert stream.buffer == other[:heard]
        try:
            while data := stream.sock.recv(chance.choice((1, 1000, 300_000))):
                assert data == (other * 4)[heard % MiB:heard % MiB + len(data)]
                heard += len(data)
                report['heard'] = heard
                if chance.random() < 0.002:
                    time.sleep(0.3)
            report['end'] = 'fin'
        except OSError:
            report['end'] = 'reset'
        report['heard'] = heard
        speaker.join(30)
        assert not speaker.is_alive()
        if report['spoke'] == 'reset':
            stream.reset()
        else:
            stream.close()

    def speak(stream, chance, mine, report):
        sent = 0
        report['spoke'] = 'broken'
        with contextlib.suppress(OSError):
            for _ in range(chance.choice((0, 1, 5, 50))):
                size = chance.choice((1, 100, 5000, 400_000))
                start = sent % MiB
                piece = (mine * 2)[start:start + size]
                stream.sock.sendall(piece)
                sent += len(piece)
                if chance.random() < 0.05:
                    time.sleep(chance.random() * 0.4)
            if chance.random() < 0.2:
                report['spoke'] = 'reset'
                stream.sock.shutdown(socket.SHUT_RD)  # ends the listener, which resets
            else:
                report['spoke'] = 'fin'
                report['said'] = sent
                stream.sock.shutdown(socket.SHUT_WR)

    reports = {}

    def script(connection):
        request = agree(connection)
        number = int(request.get('X-Number'))
        play(connection, random.Random(f'{seed} {number} origin'), said[1], said[0],
             reports[number][1])

    origin = rig.origin(script)
    weir = rig.weir(proxying(origin, 'tunnel_idle_timeout = "20s"'))

    def client(number):
        chance = random.Random(f'{seed} {number} client')
        with conftest.Client(weir.port) as one:
            one.send_request('GET /chat HTTP/1.1', *UPGRADE, f'X-Number: {number}')
            assert one.read_head().status == 101
            play(one, chance, said[0], said[1], reports[number][0])

    failures = []

    def run(numbers):
        for number in numbers:
            try:
                reports[number] = ({}, {})
                client(number)
            except Exception as error:
                failures.append((number, error))

    threads = [threading.Thread(target=run, args=(range(at, total, 12),), daemon=True)
               for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert not failures, failures
    weir.lines(total, status=101)
    wait_until(lambda: weir.stats()['connections'] == 0, what='the end of all connections')
    wait_until(lambda: all('end' in report for pair in reports.values() for report in pair),
               what='all reports')
    ends = collections.Counter()
    for pair in reports.values():
        for me, peer in (pair, pair[::-1]):
            ends[peer['spoke'], me['end']] += 1
            # The kernel tells of a reset once: perhaps it told whoever spoke.
            if me['end'] == 'fin' and me['spoke'] == 'fin':
                assert peer['spoke'] == 'fin' and me['heard'] == peer['said'], (me, peer)
    assert ends['fin', 'fin'] > total / 4, ends
    stats = weir.stats()
    assert stats['buffers_in_use'] <= 64 and stats['tunnels'] == total, stats


# ---- reload and shutdown


def test_reload_during_a_tunnel(rig):
    with Joined(rig) as joined:
        joined.client.send(b'one')
        assert joined.server.read_bytes(3) == b'one'
        other = rig.origin(conftest.respond(b'other'))
        joined.weir.reload(proxying(other))
        with conftest.Client(joined.weir.port) as client:
            assert client.get('/').body == b'other'
        joined.client.send(b'two')
        assert joined.server.read_bytes(3) == b'two'
        joined.server.send(b'three')
        assert joined.client.read_bytes(5) == b'three'
        # Nor does the tunnel hold the old configuration.
        wait_until(lambda: joined.weir.stats()['generations'] == 1, what='one generation')
        joined.client.sock.shutdown(socket.SHUT_WR)
        assert joined.server.read_to_end() == b''


def test_drain_lets_a_tunnel_end(rig):
    with Joined(rig, 'shutdown_timeout = "30s"') as joined:
        joined.weir.tell(signal.SIGTERM)
        joined.weir.wait_log('draining|stopping|shutting')
        time.sleep(0.5)
        joined.client.send(b'still here')
        assert joined.server.read_bytes(10) == b'still here'
        joined.client.sock.shutdown(socket.SHUT_WR)
        assert joined.server.at_end()
        joined.over.set()
        assert joined.client.at_end()
        assert joined.weir.wait() == 0
        assert not joined.weir.line(status=101).get('reason')


@pytest.mark.parametrize('busy', [False, True])
def test_the_end_of_a_drain_ends_it(rig, busy):
    with Joined(rig, 'shutdown_timeout = "1s"', receive_buffer=4096) as joined:
        if busy:  # stuck in a send, with a full pipe
            joined.server.sock.settimeout(1)
            with pytest.raises(TimeoutError):
                while True:
                    joined.server.sock.sendall(b'x' * MiB)
            joined.server.sock.settimeout(10)
        begin = time.monotonic()
        joined.weir.tell(signal.SIGTERM)
        with pytest.raises(Ended) as ended:
            joined.client.read_to_end()
        assert ended.value.reset
        assert time.monotonic() - begin < 8
        assert joined.server.at_end()
        assert joined.weir.wait() == 0
        assert joined.weir.line(status=101)['reason'] == 'shutdown'


def test_at_once_by_sigquit(rig):
    with Joined(rig, 'shutdown_timeout = "30s"') as joined:
        begin = time.monotonic()
        assert joined.weir.stop(signal.SIGQUIT) == 0
        assert time.monotonic() - begin < 8
        assert joined.client.at_end() and joined.server.at_end()
