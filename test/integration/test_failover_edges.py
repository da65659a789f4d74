"""Where failover meets something else: a reload while a request is under way, sessions and hedged
requests, races of connects without time, servers that are there but take nothing."""
import contextlib
import os
import signal
import ssl
import threading
import time

import pytest

import ops_rig
import tls_rig
from conftest import Client, respond, wait_until
from test_sticky import session, sticky, value_of, with_cookie
from tls_rig import rig
from upstream_rig import (ASIDE, BACK, NO_PASSIVE, SLOWER, TICK, Deaf, Switch, Tries, closing,
                          control, get, reason_of, reload, said, server_of, tries_of, upstream)

__all__ = ['closing', 'control', 'rig']


def test_a_bad_answer_to_content_under_way_after_a_reload(start_weir, start_origin):
    """The answer is refused before anything of it was passed on, while the content still goes to an
    origin that does not take it; the configuration with the policy for this request goes in the
    same moment. (The moment is short: without care this fails in some of the rounds only, and with
    a sanitizer.)"""
    rounds, count = 12, 3
    go_on = threading.Semaphore(0)

    def script(connection):
        connection.read_request_head()
        assert go_on.acquire(timeout=30)
        connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n')
        connection.at_end()
    origin = start_origin(script)
    # As often are old configurations freed.
    config = upstream([origin], 'total_timeout = "10s"', passive=NO_PASSIVE)
    config = config.replace('flush_interval_ms = 10', 'flush_interval_ms = 1')
    weir = start_weir(config)
    piece = b'x' * 262144
    for number in range(rounds):
        clients = [Client(weir.port()) for _ in range(count)]
        for client in clients:
            client.send_request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 100000000')
            client.sock.setblocking(False)

        def stuck():
            sent = 0
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    sent += client.sock.send(piece)
            return sent == 0
        wait_until(lambda: len(origin.requests) == count * (number + 1) and stuck(), what='stuck')
        reload(weir, config.replace('"10s"', f'"{number + 11}s"'))
        for _ in clients:
            go_on.release()
        for client in clients:
            client.sock.settimeout(20)
            assert client.read_response().status == 502
            client.close()
    records = weir.wait_access(rounds * count, status=502)
    assert {record['reason'] for record in records} == {'upstream_malformed'}


def test_a_race_without_time_blames_nobody(start_weir, start_origin, closing, control, tmp_path):
    """The first connect has used up the time of the try before the second one may begin."""
    good = start_origin(respond(b'good'))
    closing(Deaf('::1', good.port))
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.0.0.1 both.test\n::1 both.test\n')
    settings = 'connect_race = "5s"\ntry_timeout = "100ms"\nmax_idle_connections_per_host = 0'
    weir = start_weir(upstream([f'both.test:{good.port}'], settings, control=control,
                               resolver={'hosts': f'"{hosts}"'}, passive=NO_PASSIVE))
    wait_until(lambda: len(control.servers()) == 2)
    records = []
    for number in range(8):
        assert get(weir, f'/{number}').body == b'good'
        records += weir.wait_access(path=f'/{number}')
    assert any(tries_of(record) == 2 for record in records), records  # it did time out
    of_good = control.servers()[f'127.0.0.1:{good.port}']
    assert of_good['failures'] == 0 and of_good['requests'] == 8, of_good


# ---- hedged requests


HEDGE = 'hedge_after = "50ms"\nretry_budget = 100'


def test_a_session_is_not_hedged(start_weir, start_origin):
    """Its server is slow, not down; the other one knows nothing of it."""
    servers = [Switch(start_origin, str(i)) for i in range(2)]
    weir = start_weir(sticky(servers, HEDGE))
    server, value = session(weir)
    mine, other = servers if server == b'0' else servers[::-1]
    mine.mode = 'slow 0.4'
    before = other.count
    response = get(weir, '/', with_cookie(value))
    assert response.body == server and value_of(response) is None
    assert other.count == before
    # Who has none yet gets the quicker one.
    assert {session(weir)[0] for _ in range(2)} == {other.name}


def test_hedging_without_retries(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'hang', 'ok')
    weir = start_weir(upstream(tries.origins, HEDGE + '\nretries = 0'))
    response = get(weir)
    assert (response.status, response.body) == (200, b'%d' % tries.servers()[1])


def test_hedged_requests_are_within_the_limit(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'slow 0.3')
    weir = start_weir(upstream(tries.origins, HEDGE + '\nmax_connections = 1'))
    assert get(weir).status == 200
    assert tries.count() == 1


@pytest.mark.parametrize('mode', ['reset', 'close'])
def test_a_second_one_that_fails_is_blamed(start_weir, start_origin, control, mode):
    tries = Tries(start_origin, 2, 'slow 0.3', mode)
    weir = start_weir(upstream(tries.origins, HEDGE, control=control, passive=NO_PASSIVE))
    assert get(weir).status == 200
    first, second = tries.servers()
    servers = control.servers()
    assert servers[tries.origins[first].address]['failures'] == 0
    assert servers[tries.origins[second].address]['failures'] == 1


# ---- hedged requests over TLS


class TlsTries(Tries):
    """Servers that speak TLS. Of handshakes there is a plan too, by the order in which connections
    arrive at any of them; the last entry also of all that follow.

    ok      at once
    deaf    the client's first words are read, and nothing is said
    half    the same with the first half of the server's first words
    slow N  at once, but N seconds later

    `left` counts the connections that weir has closed in the handshake. Answers are large: by
    "ok" and "slow", the content of its server."""

    def __init__(self, rig, servers, *plan, handshakes=('ok',), version=None, gates=()):
        self.handshakes, self.arrived, self.left = list(handshakes), [], 0
        self.gates = gates  # of the first handshakes, where these are "gate"
        self.rig, self.version = rig, version
        super().__init__(self._start, servers, *plan)

    def _start(self, script):
        origin = TlsTries.Origin(self, script, tls_rig.server_context(version=self.version))
        self.rig.origins.append(origin)
        return origin

    def _do(self, what, server, connection, request):
        word, _, rest = what.partition(' ')
        if word not in ('ok', 'slow'):
            return super()._do(what, server, connection, request)
        connection.read_request_body(request)
        if word == 'slow' and self._hang(connection, float(rest)):
            return False
        connection.answer(self.content(server))
        return True

    @staticmethod
    def content(server):
        return tls_rig.content(300_000 + server)

    def server_of(self, body):
        """Whose content it is, whole and right."""
        return next(i for i in range(len(self.origins)) if body == self.content(i))

    class Origin(tls_rig.TlsOrigin):
        def __init__(self, tries, script, context):
            self.tries = tries
            super().__init__(script, context=context)

        def _serve(self, connection):
            tries = self.tries
            with tries.lock:
                number = len(tries.arrived)
                what = tries.handshakes[min(number, len(tries.handshakes) - 1)]
                tries.arrived.append(self)
            if what == 'gate':
                tries.gates[number].wait(10)
            elif what.startswith('slow'):
                time.sleep(float(what[5:]))
            elif what != 'ok':
                return self.stall(connection, what)
            super()._serve(connection)

        def stall(self, connection, what):
            with connection:
                connection.fill()
                if what == 'half':
                    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
                    came.write(connection.buffer)
                    with pytest.raises(ssl.SSLWantReadError):
                        self.context.wrap_bio(came, goes, server_side=True).do_handshake()
                    flight = goes.read()
                    connection.send(flight[:len(flight) // 2])
                connection.buffer = b''
                if connection.at_end():
                    with self.tries.lock:
                        self.tries.left += 1

    def weir(self, control, settings='hedge_after = "300ms"\nretry_budget = 100'):
        settings += f'\ntls_ca_path = "{tls_rig.pki().ca_file}"'
        return self.rig.weir(upstream([origin.url for origin in self.origins], settings,
                                      control=control, passive=NO_PASSIVE))

    def check(self, weir, control, winner, failed, requests=2):
        """What weir tells of one hedged request, to /a, that was answered by this server; whether
        the other one has failed. The winner's connection is kept, the loser's is not."""
        record = weir.line(path='/a')
        assert (tries_of(record), reason_of(record), record['status']) == (2, 'none', 200), record
        assert record['upstream_address'] == self.origins[winner].address
        servers = control.servers()
        won, lost = (servers[self.origins[i].address] for i in (winner, 1 - winner))
        assert (won['idle_connections'], lost['idle_connections']) == (1, 0), servers
        assert (won['active'], lost['active']) == (0, 0), servers
        assert (won['failures'], lost['failures']) == (0, failed), servers
        one = control.upstream()
        assert (one['hedged'], one['retries'], one['requests']) == (1, 1, requests), one
        assert weir.stats()['stale_retries'] == 0
        return record


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('first', ['slow 5', 'hang'])
def test_hedging_over_tls(rig, control, first, version):
    """The first server is slow behind its handshake: its session tickets are no answer."""
    tries = TlsTries(rig, 2, first, 'ok', version=version)
    weir = tries.weir(control)
    began = time.monotonic()
    response = ops_rig.get(weir.port, '/a')
    assert 0.3 - TICK <= time.monotonic() - began < 4
    slow, quick = tries.servers()
    assert slow != quick and tries.server_of(response.body) == quick
    wait_until(lambda: tries.closed == 1, what='the other one is told')
    record = tries.check(weir, control, quick, 1)
    assert record['upstream_reused'] is False
    stats = weir.tls_stats()
    assert (stats['origins.full'], stats['origins.failed'], stats['origins.truncated']) == (2, 0, 0)
    # Each is asked again: the one on its connection, the other one on another.
    with ops_rig.Client(weir.port) as client:
        assert {tries.server_of(client.get('/b').body) for _ in range(4)} == {0, 1}
    assert len(tries.origins[quick].connections) == 1
    assert len(tries.origins[slow].connections) == 2 and tries.closed == 1


def test_hedging_over_tls_on_pooled_connections(rig, control):
    tries = TlsTries(rig, 2, 'ok', 'ok', 'hang', 'ok')
    weir = tries.weir(control)
    with ops_rig.Client(weir.port) as client:
        for _ in range(2):
            assert client.post('/warm', b'never hedged').status == 200
        assert sorted(tries.servers()) == [0, 1]
        response = client.get('/a')
    slow, quick = tries.servers()[2:]
    assert slow != quick and tries.server_of(response.body) == quick
    wait_until(lambda: tries.closed == 1, what='the other one is told')
    assert tries.check(weir, control, quick, 1, requests=4)['upstream_reused'] is True
    assert len(tries.arrived) == 2


def test_the_first_one_wins_over_tls(rig, control):
    tries = TlsTries(rig, 2, 'slow 1', 'hang')
    weir = tries.weir(control)
    response = ops_rig.get(weir.port, '/a')
    slow, other = tries.servers()
    assert slow != other and tries.server_of(response.body) == slow
    wait_until(lambda: tries.closed == 1, what='the other one is told')
    tries.check(weir, control, slow, 0)


@pytest.mark.parametrize('how', ['deaf', 'half'])
def test_the_first_one_wins_while_the_second_shakes_hands(rig, control, how):
    tries = TlsTries(rig, 2, 'slow 1', handshakes=('ok', how))
    weir = tries.weir(control)
    response = ops_rig.get(weir.port, '/a')
    wait_until(lambda: tries.left == 1, what='the other one is left')
    assert tries.count() == 1 and tries.server_of(response.body) == tries.servers()[0]
    tries.check(weir, control, tries.servers()[0], 0)
    assert weir.tls_stats()['origins.full'] == 1


def test_handshakes_longer_than_hedge_after_starve_nobody(rig, control):
    """Another server's kept connection is no rival: a server without one would never get one, and be
    put aside for it."""
    tries = TlsTries(rig, 2, 'ok', handshakes=('slow 0.4',))
    weir = tries.weir(control, 'hedge_after = "200ms"\nretry_budget = 100')
    with ops_rig.Client(weir.port) as client:
        for i in range(12):
            assert client.get(f'/{i}').status == 200
    assert sorted(tries.servers()) == [0] * 6 + [1] * 6
    assert [server['failures'] for server in control.servers().values()] == [0, 0]


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_both_are_connected_in_the_same_moment(rig, control, order):
    """weir is stopped meanwhile. Whichever it keeps must be able to send."""
    gates = [threading.Event(), threading.Event()]
    tries = TlsTries(rig, 2, 'ok', handshakes=('gate', 'gate', 'ok'), gates=gates)
    weir = tries.weir(control, 'hedge_after = "100ms"\nretry_budget = 100\nretries = 0')
    with ops_rig.Client(weir.port) as client:
        client.ask('/a')
        wait_until(lambda: len(tries.arrived) == 2, what='both are asked')
        os.kill(weir.pid, signal.SIGSTOP)
        for i in order:
            gates[i].set()
            time.sleep(0.2)  # its flight is sent then; else this tests less
        os.kill(weir.pid, signal.SIGCONT)
        record = weir.line(path='/a')
    assert (record['status'], reason_of(record)) == (200, 'none'), record


def test_a_request_is_hedged_once(rig, control):
    """The first is connected just after the second was asked to, and answers late."""
    tries = TlsTries(rig, 3, 'slow 1', handshakes=('slow 0.3', 'deaf', 'ok'))
    weir = tries.weir(control, 'hedge_after = "200ms"\nretries = 0\nretry_budget = 100')
    assert ops_rig.get(weir.port, '/a').status == 200
    one = control.upstream()
    assert (one['hedged'], one['retries']) == (1, 1), one
    assert tries_of(weir.line(path='/a')) == 2 and len(tries.arrived) == 2


def test_who_is_asked_late_is_not_blamed(rig, control):
    """The first is deaf; the second would need longer than what is left of the try."""
    tries = TlsTries(rig, 2, 'ok', handshakes=('deaf', 'slow 0.4'))
    weir = tries.weir(control, 'hedge_after = "400ms"\ntry_timeout = "600ms"\nretries = 1\n'
                               'retry_on = ["connect", "timeout"]\nretry_budget = 100')
    assert ops_rig.get(weir.port, '/a').status == 200
    servers = control.servers()
    failures = [servers[origin.address]['failures'] for origin in tries.arrived[:2]]
    assert failures == [1, 0], servers


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('how', ['deaf', 'half'])
def test_a_first_one_that_is_slow_in_the_handshake(rig, control, how, version):
    """Nobody has the request yet; the second one gets it."""
    tries = TlsTries(rig, 2, 'ok', handshakes=(how, 'ok'), version=version)
    weir = tries.weir(control)
    began = time.monotonic()
    response = ops_rig.get(weir.port, '/a')
    assert 0.3 - TICK <= time.monotonic() - began < 4  # connect_timeout is 10 s
    wait_until(lambda: tries.left == 1, what='the other one is left')
    [quick] = tries.servers()
    assert tries.arrived[0] is not tries.origins[quick]
    assert tries.server_of(response.body) == quick
    assert tries.check(weir, control, quick, 1)['upstream_reused'] is False
    assert weir.tls_stats()['origins.full'] == 1
    with ops_rig.Client(weir.port) as client:
        assert {tries.server_of(client.get('/b').body) for _ in range(4)} == {0, 1}
    assert len(tries.arrived) == 3  # the other one once more


def test_a_first_handshake_that_is_done_before_the_second(rig, control):
    tries = TlsTries(rig, 2, 'ok', handshakes=('slow 1', 'deaf'))
    weir = tries.weir(control)
    response = ops_rig.get(weir.port, '/a')
    wait_until(lambda: tries.left == 1, what='the second one is left')
    [server] = tries.servers()
    assert tries.arrived[0] is tries.origins[server]
    assert tries.server_of(response.body) == server
    tries.check(weir, control, server, 0)


def test_a_first_handshake_that_fails_while_the_second_goes_on(rig, control):
    """It was asked already: nobody is asked a third time."""
    tries = TlsTries(rig, 2, 'ok', handshakes=('deaf', 'slow 1.5'))
    weir = tries.weir(control, 'hedge_after = "1s"\nconnect_timeout = "2s"')
    response = ops_rig.get(weir.port, '/a')
    [server] = tries.servers()
    assert tries.arrived[1] is tries.origins[server] and len(tries.arrived) == 2
    assert tries.server_of(response.body) == server
    tries.check(weir, control, server, 1)


def test_both_are_slow_in_the_handshake(rig, control):
    tries = TlsTries(rig, 2, 'ok', handshakes=('deaf',))
    weir = tries.weir(control, 'hedge_after = "300ms"\nconnect_timeout = "600ms"\nretries = 0')
    assert ops_rig.get(weir.port, '/a').status == 504
    wait_until(lambda: tries.left == 2, what='both are left')
    record = weir.line(path='/a')
    assert (tries_of(record), reason_of(record)) == (2, 'upstream_timeout'), record
    assert [one['failures'] for one in control.servers().values()] == [1, 1]
    assert not tries.seen and control.upstream()['active'] == 0


def test_a_client_that_leaves_while_two_shake_hands(rig, control):
    tries = TlsTries(rig, 2, 'ok', handshakes=('deaf',))
    weir = tries.weir(control)
    with ops_rig.Client(weir.port) as client:
        client.ask('/a')
        wait_until(lambda: len(tries.arrived) == 2, what='two handshakes')
        client.reset()
    wait_until(lambda: tries.left == 2, what='both are left')
    assert reason_of(weir.line(path='/a')) == 'client_gone'
    assert [one['failures'] for one in control.servers().values()] == [0, 0]


@pytest.mark.parametrize('why', ['content', 'budget'])
def test_handshakes_that_are_not_hedged(rig, control, why):
    tries = TlsTries(rig, 2, 'ok', handshakes=('deaf', 'ok'))
    weir = tries.weir(control, 'hedge_after = "100ms"\nconnect_timeout = "800ms"\n' +
                      ('retry_budget = 0\nretry_budget_min = 0' if why == 'budget' else ''))
    with ops_rig.Client(weir.port) as client:
        began = time.monotonic()
        if why == 'content':  # nothing was sent: that it is tried again does no harm
            assert tries.server_of(client.post('/a', b'order').body) == tries.servers()[0]
        else:
            assert client.get('/a').status == 504
        assert time.monotonic() - began >= 0.8 - TICK
    assert control.upstream()['hedged'] == 0


def test_a_server_that_takes_no_connection_is_hedged(start_weir, start_origin, closing, control):
    good = start_origin(respond(b'good'))
    deaf = closing(Deaf())
    weir = start_weir(upstream([deaf, good], 'hedge_after = "300ms"\nretry_budget = 100\n'
                               'max_idle_connections_per_host = 0', control=control,
                               passive=NO_PASSIVE))
    began = time.monotonic()
    assert [get(weir, '/a').body for _ in range(4)] == [b'good'] * 4
    assert time.monotonic() - began < 4  # connect_timeout is 10 s
    assert sorted(tries_of(record) for record in weir.wait_access(4)) == [1, 1, 2, 2]
    servers = control.servers()
    assert servers[deaf.address]['failures'] == 2 and servers[good.address]['failures'] == 0
    assert control.upstream()['hedged'] == 2


# ---- passive checks


@pytest.mark.parametrize('idle', ['weight', 'address'])
def test_nothing_rests_on_a_server_that_takes_nothing(start_weir, start_origin, control, idle):
    """The one that all requests go to stays, however bad it is."""
    bad, good = Switch(start_origin, mode='503'), Switch(start_origin)
    other = server_of(good) if idle == 'weight' else '{address = "name.invalid:80"}'
    weir = start_weir(upstream([server_of(bad), other], control=control,
                               passive={'consecutive_errors': 3}))
    if idle == 'weight':
        control.ask('weight', 'o', good.address, 0)
    with Client(weir.port()) as client:
        assert [client.get('/').body for _ in range(10)] == [b'503'] * 10
    assert said(ASIDE, bad) and 'server put aside' not in weir.log()


# ---- the circuit breaker


@pytest.mark.parametrize('successes', [1, 2])
def test_a_trial_is_over_with_its_answer(start_weir, start_origin, successes):
    """Not with the end of a content that may last for hours."""
    bad, end = threading.Event(), threading.Event()
    bad.set()

    def script(connection):
        while True:
            connection.read_request()
            if bad.is_set():
                connection.answer(b'bad', status='503 Bad')
                continue
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha')
            assert end.wait(30)
            connection.send(b'lf')
    origin = start_origin(script)
    weir = start_weir(upstream([origin], passive=NO_PASSIVE, circuit={
        'failures': 2, 'open_time': '"50ms"', 'trials': 1, 'successes': successes}))
    assert [get(weir).body for _ in range(2)] == [b'bad'] * 2
    bad.clear()
    clients = []

    def trial():
        clients.append(Client(weir.port()))
        clients[-1].send_request('GET / HTTP/1.1', 'Host: t')
        return clients[-1].read_head().status
    wait_until(lambda: trial() == 200)
    assert [trial() for _ in range(3)] == [200] * 3
    assert not end.is_set() and weir.wait_log(said(BACK, origin))
    end.set()
    for client in clients[-4:]:
        assert client.read_bytes(4) == b'half'
