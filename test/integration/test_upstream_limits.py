"""What an upstream may have under way, and the queue for what is more: its order, its length, its
patience, those who leave it, reloads and the end of weir meanwhile."""
import collections
import signal
import threading
import time

import pytest

from conftest import IO_SECONDS, Client, respond, wait_until
from ops_rig import Load
from test_balance import hold, holders
from upstream_rig import (DOWN, NO_PASSIVE, QUICK_CHECKS, SLOWER, TICK, Refusing, Switch, closing,
                          control, get, reason_of, refusal, reload, said, server_of, tries_of,
                          upstream)

__all__ = ['closing', 'control', 'holders']

ONE = 'max_connections = 1'


def wait_in_line(weir, control, clients, count, start=0):
    """So many more requests that wait, one after the other; their paths tell the order."""
    for number in range(start, start + count):
        before = control.upstream()['pending']
        clients.append(Client(weir.port()))
        clients[-1].send_request(f'GET /{number} HTTP/1.1', 'Host: t')
        control.wait_pending(before + 1)


def in_order(origin):
    return [request.target for request in origin.requests if request.target != '/hold']


@pytest.mark.parametrize('limit', ['upstream', 'server'])
def test_first_come_first_served(start_weir, holders, control, limit):
    one, = holders('one')
    of_server = {'max_connections': 1} if limit == 'server' else {}
    weir = start_weir(upstream([server_of(one.origin, **of_server)],
                               ONE if limit == 'upstream' else '', control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 8)
    assert control.upstream()['active'] == 1
    assert in_order(one.origin) == []
    one.release()
    for client in clients:
        assert client.read_response().status == 200
    assert in_order(one.origin) == [f'/{i}' for i in range(8)]
    assert control.upstream()['pending'] == 0
    # Nobody waits any more, and there is room.
    assert get(weir).status == 200
    # The time in the queue is part of the request's.
    assert {reason_of(record) for record in weir.wait_access(10)} == {'none'}


def test_a_full_queue(start_weir, holders, control):
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE + '\nmax_pending = 2', control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 2)
    began = time.monotonic()
    _, record = refusal(weir, 'upstream_busy')
    assert time.monotonic() - began < 1 and tries_of(record) == 0
    one.release()
    for client in clients:
        assert client.read_response().status == 200
    assert control.upstream()['refused'] == 1 and control.upstream()['waited'] == 2


def test_no_queue(start_weir, holders):
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE + '\nmax_pending = 0'))
    clients = []
    hold(weir, clients, 1, (one,))
    refusal(weir, 'upstream_busy')
    one.release()
    assert clients[0].read_response().status == 200
    assert get(weir).status == 200


def test_patience(start_weir, holders, control):
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE + '\npending_timeout = "300ms"', control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    began = time.monotonic()
    refusal(weir, 'upstream_busy')
    assert 0.3 - TICK <= time.monotonic() - began <= 0.4 + 0.2 * SLOWER
    assert control.upstream()['pending'] == 0
    with Client(weir.port()) as late:
        late.send_request('GET / HTTP/1.1', 'Host: t')
        control.wait_pending(1)
        one.release()
        assert late.read_response().status == 200


def test_the_whole_time_of_a_request_holds_in_the_queue(start_weir, start_origin):
    """Behind an answer that has begun, which may take longer."""
    go_on = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha')
        assert go_on.wait(30)
        connection.send(b'lf')
    weir = start_weir(upstream([start_origin(script)], ONE + '\ntotal_timeout = "300ms"'))
    with Client(weir.port()) as first:
        first.send_request('GET / HTTP/1.1', 'Host: t')
        first.read_head()
        began = time.monotonic()
        refusal(weir, 'upstream_busy')
        assert 0.3 - TICK <= time.monotonic() - began <= 0.4 + 0.2 * SLOWER
        go_on.set()
        assert first.read_bytes(4) == b'half'


@pytest.mark.parametrize('how', ['close', 'reset'])
def test_a_client_that_leaves_the_queue(start_weir, holders, control, how):
    """Its place is free, and its request never reaches the server."""
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE + '\nmax_pending = 2', control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 2)
    leaving = clients.pop(1)
    leaving.reset() if how == 'reset' else leaving.close()
    control.wait_pending(1)
    assert reason_of(weir.wait_access(path='/0')[0]) == 'client_gone'
    wait_in_line(weir, control, clients, 1, start=2)
    refusal(weir, 'upstream_busy')
    one.release()
    for client in clients:
        assert client.read_response().status == 200
    assert in_order(one.origin) == ['/1', '/2']


def test_content_that_waits(start_weir, start_origin, control):
    """Of a request in the queue: what is there and what is still to come."""
    go_on = threading.Event()

    def script(connection):
        while True:
            request = connection.read_request()
            if request.target == '/hold':
                assert go_on.wait(30)
            connection.answer(request.body)
    origin = start_origin(script)
    weir = start_weir(upstream([origin], ONE, control=control))
    with Client(weir.port()) as first, Client(weir.port()) as small, Client(weir.port()) as large:
        first.send_request('GET /hold HTTP/1.1', 'Host: t')
        wait_until(lambda: origin.requests)
        small.send_request('POST /small HTTP/1.1', 'Host: t', 'Content-Length: 5', body=b'hello')
        control.wait_pending(1)
        body = bytes(i % 251 for i in range(1_000_000))
        large.send_request('PUT /large HTTP/1.1', 'Host: t', 'Content-Length: 1000000',
                           body=body[:5000])
        control.wait_pending(2)
        go_on.set()
        assert first.read_response().status == 200
        assert small.read_response().body == b'hello'
        large.send(body[5000:])
        assert large.read_response().body == body


def test_room_at_another_server(start_weir, holders, control):
    """Whichever server is the first to have room takes the first that waits."""
    one, two = holders('one', 'two')
    weir = start_weir(upstream([server_of(one.origin, max_connections=1),
                                server_of(two.origin, max_connections=1)], control=control))
    clients = []
    hold(weir, clients, 2, (one, two))
    wait_in_line(weir, control, clients, 2)
    two.release()
    assert [client.read_response().body for client in clients[2:]] == [b'two'] * 2
    one.release()


def test_reloads_and_the_queue(start_weir, holders, control):
    one, two = holders('one', 'two')

    def config(limit, *origins):
        return upstream(origins, f'max_connections = {limit}', control=control)
    weir = start_weir(config(1, one.origin))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 3)
    # Nothing is different for those that wait.
    weir.send_signal(signal.SIGHUP)
    weir.wait_log('config reloaded')
    assert control.upstream()['pending'] == 3
    assert in_order(one.origin) == []
    # There is room for one more.
    reload(weir, config(2, one.origin))
    for client in clients[1:]:
        assert client.read_response().status == 200
    assert in_order(one.origin) == ['/0', '/1', '/2']
    hold(weir, clients, 1, (one,))
    del clients[1:4]
    wait_in_line(weir, control, clients, 2, start=3)
    # Their server is gone and another one there; what is under way still counts.
    reload(weir, config(3, two.origin))
    assert [client.read_response().body for client in clients[2:]] == [b'two'] * 2
    one.release()
    assert [client.read_response().body for client in clients[:2]] == [b'one'] * 2


def test_an_upstream_that_goes_while_requests_wait(start_weir, holders, control):
    one, two = holders('one', 'two')
    weir = start_weir(upstream([one.origin], ONE, control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 1)
    other = upstream([two.origin], control=control).replace('upstream.o]', 'upstream.p]')
    reload(weir, other.replace('proxy = "o"', 'proxy = "p"'))
    assert get(weir).body == b'two'
    began = time.monotonic()
    assert clients[1].read_response().status in (200, 503)
    assert time.monotonic() - began < 2, 'there is nothing to wait for'
    one.release()
    assert clients[0].read_response().body == b'one'


def test_the_queue_when_weir_ends(start_weir, holders, control):
    """Who waits is served still."""
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE, control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 3)
    weir.send_signal(signal.SIGTERM)
    weir.wait_log('shutting down')
    one.release()
    assert [client.read_response().status for client in clients] == [200] * 4
    assert weir.wait() == 0


def test_the_queue_when_weir_is_cut_short(start_weir, holders, control):
    one, = holders('one')
    weir = start_weir(upstream([one.origin], ONE, control=control))
    clients = []
    hold(weir, clients, 1, (one,))
    wait_in_line(weir, control, clients, 3)
    weir.send_signal(signal.SIGQUIT)
    assert weir.wait(10) in (0, 1)
    assert in_order(one.origin) == []


@pytest.mark.parametrize('limit', ['upstream', 'server'])
def test_the_servers_go_down_while_requests_wait(start_weir, start_origin, control, limit):
    """Then there is nothing to wait for, neither for them nor for those that come."""
    origin = Switch(start_origin, mode='hang')
    of_server = {'max_connections': 1} if limit == 'server' else {}
    weir = start_weir(upstream([server_of(origin, **of_server)], ONE if limit == 'upstream' else '',
                               health=QUICK_CHECKS, control=control))
    clients = [Client(weir.port())]
    clients[0].send_request('GET /hold HTTP/1.1', 'Host: t')
    wait_until(lambda: origin.count == 1)
    wait_in_line(weir, control, clients, 2)
    origin.health = '500'
    weir.wait_log(said(DOWN, origin))
    began = time.monotonic()
    for number, client in enumerate(clients[1:]):
        response = client.read_response()
        assert (response.status, response.get('Retry-After')) == (503, '1')
        assert reason_of(weir.wait_access(path=f'/{number}')[0]) == 'no_upstream'
    refusal(weir, 'no_upstream')
    assert time.monotonic() - began < 2
    clients[0].reset()


@pytest.mark.parametrize('clients', [1, 6])
@pytest.mark.parametrize('failure', ['refused', 'reset', '503'])
def test_a_failed_try_and_the_queue(start_weir, start_origin, closing, failure, clients):
    """The room of a request that its server has failed serves its next try."""
    bad = closing(Refusing()) if failure == 'refused' else Switch(start_origin, 'bad', failure)
    good = start_origin(respond(b'good'))
    weir = start_weir(upstream([bad, good], ONE + '\nretry_on = ["connect", "reset", 503]\n'
                               'retry_budget = 100', passive=NO_PASSIVE))
    load = Load(weir.port(), clients=clients)
    wait_until(lambda: load.answered >= 200, 30)
    load.stop()
    assert not load.failures, load.failures[:3]


@pytest.mark.parametrize('threads', [1, 2])
def test_never_more_than_allowed(start_weir, start_origin, threads):
    """Over all cores it may be one more each: half of five is three."""
    lock = threading.Lock()
    now = collections.Counter()

    def script(connection):
        while True:
            connection.read_request()
            with lock:
                now['active'] += 1
                now['most'] = max(now['most'], now['active'])
            time.sleep(0.005)
            with lock:
                now['active'] -= 1
            connection.answer(b'x')
    weir = start_weir(upstream([start_origin(script), start_origin(script)], 'max_connections = 5',
                               threads=threads))
    load = Load(weir.port(), clients=16)
    wait_until(lambda: load.answered >= 400, 20)
    load.stop()
    assert not load.failures, load.failures[:3]
    assert 3 <= now['most'] <= (5 if threads == 1 else 6)


@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_who_has_lost_a_server_waits_for_the_others(start_weir, start_origin, closing, method):
    """The one refuses, the other has as many requests as it may: there is something to wait for."""
    go = threading.Event()

    def script(connection):
        while True:
            request = connection.read_request()
            if request.target == '/hold':
                assert go.wait(IO_SECONDS)
            connection.answer(request.body or b'late')

    busy = start_origin(script)
    gone = closing(Refusing())
    weir = start_weir(upstream([server_of(gone, max_connections=1),
                                server_of(busy, max_connections=1)], passive=NO_PASSIVE))
    with Client(weir.port()) as one, Client(weir.port()) as other:
        one.send_request('GET /hold HTTP/1.1', 'Host: t')
        wait_until(lambda: busy.requests)
        body = b'content' if method == 'POST' else b''
        other.send_request(f'{method} /late HTTP/1.1', 'Host: t', f'Content-Length: {len(body)}',
                           body=body)
        weir.wait_log('warn upstream connect failed')
        go.set()
        response = other.read_response()
        assert (response.status, response.body) == (200, body or b'late')
        assert one.read_response().status == 200
    record = weir.wait_access(path='/late')[0]
    assert (record['tries'], record['upstream_address']) == (2, busy.address)


def test_who_waits_after_a_failed_try_and_has_nothing_left(start_weir, start_origin, closing,
                                                           control):
    """Then the client is told what its try has failed by, and nobody has paid for a retry."""
    busy = start_origin(lambda connection: connection.read_request() and connection.read_request())
    gone = closing(Refusing())
    weir = start_weir(upstream([server_of(gone, max_connections=1),
                                server_of(busy, max_connections=1)], passive=NO_PASSIVE,
                               control=control))
    with Client(weir.port()) as one, Client(weir.port()) as other:
        one.send_request('GET /hold HTTP/1.1', 'Host: t')
        wait_until(lambda: busy.requests)
        paid = control.upstream()['retries']
        other.send_request('GET /late HTTP/1.1', 'Host: t')
        wait_until(lambda: control.upstream()['pending'] == 1)
        control.set(busy, 'down')
        response = other.read_response()
        assert (response.status, response.get('Retry-After')) == (502, None)
        record = weir.wait_access(path='/late')[0]
        assert (record['reason'], record['tries']) == ('upstream_connect', 1)
        assert control.upstream()['retries'] == paid
