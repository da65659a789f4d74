"""What becomes of requests whose server fails: retries by policy and within their budget, timeouts,
hedged requests, circuit breakers; and nginx that are killed, slow, or gone, under load."""
import re
import signal
import time

import pytest

from conftest import Client, Ended, respond, wait_until
from ops_rig import Load, rig
from upstream_rig import (ASIDE, DOWN, NO_PASSIVE, QUICK_CHECKS, SLOWER, TICK, Deaf, Refusing,
                          Switch, Tries, answers, closing, get, reason_of, refusal, reload, said,
                          start_nginx, start_wrk, tries_of, upstream)

__all__ = ['closing', 'rig', 'start_nginx', 'start_wrk']

KiB = 1024


def content(size):
    return bytes(i * 7 % 251 for i in range(size))


def chunked(body):
    half = len(body) // 2
    return b''.join(b'%x\r\n%s\r\n' % (len(part), part) for part in (body[:half], body[half:])
                    if part) + b'0\r\n\r\n'


# ---- real servers under load


def three(start_nginx):
    return [start_nginx(name) for name in ('a', 'b', 'c')]


def status_counts(weir):
    count = {}
    for record in weir.access():
        count[record['status']] = count.get(record['status'], 0) + 1
    return count


INTERVAL = 0.3
CHECKS = {'interval': '"300ms"', 'timeout': '"250ms"', 'jitter': 0}  # thresholds by default: 3, 2


@pytest.mark.parametrize('threads', [1, 2])
def test_kill_one_of_three_under_load(rig, start_nginx, start_wrk, threads):
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, health=CHECKS, threads=threads))
    wrk = start_wrk(f'{weir.url}/', 30)
    wait_until(lambda: all(origin.count() > 100 for origin in origins), what='load')
    origins[1].kill()
    weir.wait_log(said(DOWN, origins[1]))
    before = origins[1].count()
    time.sleep(0.3)
    assert origins[1].count() == before
    origins[1].start()
    started = time.monotonic()
    # A check that is just over when it starts comes an interval later, the second one another.
    wait_until(lambda: origins[1].count() > before, what='traffic is back')
    assert time.monotonic() - started <= 2 * INTERVAL + 0.2 * SLOWER
    count = origins[1].count()
    wait_until(lambda: origins[1].count() > count + 100, what='its share')
    result = wrk.end()
    assert not result.trouble, result.text
    assert result.requests > 1000
    assert set(status_counts(weir)) == {200}


def test_a_restart_that_no_check_has_seen(rig, start_nginx):
    """Put aside because nobody could connect, for longer than the test lasts: the next check that is
    passed says that this is over."""
    def ask(port):
        with Client(port) as client:
            return client.get('/')

    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, health={**CHECKS, 'unhealthy_threshold': 1000},
                             passive={'ejection_time': '"5m"'}))
    wait_until(lambda: ask(weir.port).status == 200 and origins[1].count() > 0)
    origins[1].kill()
    wait_until(lambda: ask(weir.port).status == 200
               and re.search(said(ASIDE, origins[1]), weir.log()), what='ejection')
    before = origins[1].count()
    origins[1].start()
    started = time.monotonic()
    wait_until(lambda: ask(weir.port).status == 200 and origins[1].count() > before,
               what='traffic is back')
    assert time.monotonic() - started <= 2 * INTERVAL + 0.2 * SLOWER
    assert not re.search(said(DOWN, origins[1]), weir.log())


BRIEF = {'ejection_time': '"300ms"', 'ejection_time_max': '"300ms"'}


def test_kill_without_health_checks(rig, start_nginx, start_wrk):
    """Passive checks alone keep requests from it; when it is back they find out by themselves."""
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, passive=BRIEF))
    wrk = start_wrk(f'{weir.url}/', 30)
    wait_until(lambda: all(origin.count() > 100 for origin in origins), what='load')
    for _ in range(2):
        origins[2].kill()
        before = origins[2].count()
        weir.wait_log(said(ASIDE, origins[2]))
        origins[2].start()
        wait_until(lambda: origins[2].count() > before + 50, what='traffic is back')
    result = wrk.end()
    assert not result.trouble, result.text
    assert set(status_counts(weir)) == {200}


def test_kill_while_requests_wait_for_room(rig, start_nginx, start_wrk):
    """A request that has lost its server does not also lose its place to those that wait."""
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, 'max_connections = 3', health=CHECKS, passive=BRIEF))
    wrk = start_wrk(f'{weir.url}/', 30, connections=32)
    wait_until(lambda: all(origin.count() > 100 for origin in origins), what='load')
    for _ in range(3):
        origins[0].kill()
        before = origins[0].count()
        origins[0].start()
        wait_until(lambda: origins[0].count() > before, what='traffic is back')
    result = wrk.end()
    assert not result.trouble, result.text
    assert set(status_counts(weir)) == {200}


def test_a_server_that_stops_answering_under_load(rig, start_nginx, start_wrk):
    """Its process is there and its port open, but nothing comes (SIGSTOP)."""
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, 'try_timeout = "500ms"\nretry_on = ["connect", "reset", '
                             '"timeout"]', health=QUICK_CHECKS))
    wrk = start_wrk(f'{weir.url}/', 30)
    wait_until(lambda: all(origin.count() > 100 for origin in origins), what='load')
    origins[0].signal_workers(signal.SIGSTOP)
    weir.wait_log(said(DOWN, origins[0]))
    before = origins[0].count()
    origins[0].signal_workers(signal.SIGCONT)
    wait_until(lambda: origins[0].count() > before + 100, what='traffic is back')
    result = wrk.end()
    assert not result.trouble, result.text
    assert set(status_counts(weir)) == {200}


def test_a_slow_server_is_put_aside(rig, start_nginx, start_wrk):
    """It takes a second for each answer. Until that shows it holds who comes to it; then the others
    serve all, as quickly as without it."""
    fast = [start_nginx(name) for name in ('a', 'b')]
    slow = start_nginx('slow', delay=1)
    weir = rig.weir(upstream([*fast, slow], passive={'slow_percent': 400,
                                                     'ejection_time': '"20s"'}))
    alone = rig.weir(upstream(fast))
    untouched = start_wrk(f'{alone.url}/', 1).result()
    wrk = start_wrk(f'{weir.url}/', 30)
    weir.wait_log(said(ASIDE, slow))
    wrk.end()
    result = start_wrk(f'{weir.url}/second', 1).result()
    assert not result.trouble, result.text
    assert result.p99_ms <= max(4 * untouched.p99_ms, 20), (result.text, untouched.text)
    assert all(origin.count() > 100 for origin in fast)
    # In a second every connection has been there once, and once more before it was judged.
    assert 10 <= slow.count() <= 48
    assert not any(uri == '/second' for _, _, uri, _ in slow.requests())


def test_all_servers_down(rig, start_nginx, start_wrk):
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins, health=QUICK_CHECKS, threads=2))
    with Client(weir.port) as client:
        assert client.get('/').status == 200
    for origin in origins:
        origin.kill()
    # At first it is the connections that are refused: that is no reason to wait either.
    with Client(weir.port) as client:
        began = time.monotonic()
        response = client.get('/')
        assert time.monotonic() - began < 1
        assert (response.status, response.get('Retry-After')) == (503, '1')

        def none_left():
            client.get('/')
            return reason_of(weir.access(1)[-1]) == 'no_upstream'
        wait_until(none_left, what='all are known to be down')
    result = start_wrk(f'{weir.url}/', 1).result()
    assert result.requests > 100 and result.p99_ms < 200
    with Client(weir.port) as client:
        began = time.monotonic()
        response = client.get('/')
        assert time.monotonic() - began < 1
        assert (response.status, response.get('Retry-After')) == (503, '1')
        assert response.get('Connection') is None
    record = weir.access(1)[-1]
    assert (record['status'], reason_of(record), tries_of(record)) == (503, 'no_upstream', 0)
    for origin in origins:
        origin.start()
    began = time.monotonic()
    with Client(weir.port) as client:
        wait_until(lambda: client.get('/').status == 200, what='recovery')
        assert time.monotonic() - began <= 2 * 0.2 + 0.3 * SLOWER
        wait_until(lambda: {client.get('/').body for _ in range(9)} == {b'a', b'b', b'c'})


def test_all_servers_down_without_checks(rig, start_nginx):
    """The last server is never put aside: nobody has to tell that it is back."""
    origins = three(start_nginx)
    weir = rig.weir(upstream(origins))
    for origin in origins:
        origin.kill()
    with Client(weir.port) as client:
        for _ in range(30):
            response = client.get('/')
            assert (response.status, response.get('Retry-After')) in ((503, '1'), (502, None))
        for origin in origins:
            origin.start()
        assert [client.get('/').status for _ in range(20)] == [200] * 20


# ---- what is tried again


def record_of(weir, path):
    return weir.wait_access(path=path)[-1]


RETRIED = ['reset', 'close', 'reset head', '502', '503', '504', '500', '599']
POLICY = ('retry_on = ["connect", "reset", 500, 502, "503", 504, 599]\n'
          'retry_budget = 100\nretry_budget_min = 1000')


@pytest.mark.parametrize('failure', RETRIED)
def test_another_server_answers(start_weir, start_origin, failure):
    tries = Tries(start_origin, 3, failure, 'ok')
    weir = start_weir(upstream(tries.origins, POLICY))
    response = get(weir, '/a')
    assert response.status == 200
    first, second = tries.servers()
    assert first != second and response.body == b'%d' % second
    record = record_of(weir, '/a')
    assert (tries_of(record), reason_of(record)) == (2, 'none')
    assert record['upstream_address'] == tries.origins[second].address


@pytest.mark.parametrize('failure, status, reason', [
    ('reset', 502, 'upstream_reset'), ('close', 502, 'upstream_closed'), ('503', 503, 'none'),
    ('500', 500, 'none')])
def test_the_last_server_fails_as_well(start_weir, start_origin, failure, status, reason):
    """Each is tried once; what the last one said is the answer."""
    tries = Tries(start_origin, 3, failure)
    weir = start_weir(upstream(tries.origins, POLICY))
    response = get(weir, '/a')
    assert response.status == status
    servers = tries.servers()
    assert sorted(servers) == [0, 1, 2]
    if reason == 'none':
        assert response.body == b'%s of %d' % (failure.encode(), servers[-1])
    record = record_of(weir, '/a')
    assert (tries_of(record), reason_of(record), record['status']) == (3, reason, status)


def test_more_tries_than_servers(start_weir, start_origin):
    tries = Tries(start_origin, 2, '503')
    weir = start_weir(upstream(tries.origins, POLICY + '\nretries = 10'))
    assert get(weir).status == 503
    assert sorted(tries.servers()) == [0, 1]


@pytest.mark.parametrize('failure, status, reason', [
    ('reset', 502, 'upstream_reset'), ('close', 502, 'upstream_closed'), ('503', 503, 'none'),
    ('garbage', 502, 'upstream_malformed')])
def test_what_the_policy_does_not_name(start_weir, start_origin, failure, status, reason):
    tries = Tries(start_origin, 2, failure, 'ok')
    weir = start_weir(upstream(tries.origins, 'retry_on = ["connect", 504]'))
    assert get(weir, '/a').status == status
    assert tries.count() == 1
    record = record_of(weir, '/a')
    assert (tries_of(record), reason_of(record)) == (1, reason)


def test_an_answer_that_has_begun(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'cut', 'ok')
    weir = start_weir(upstream(tries.origins, POLICY))
    with pytest.raises(Ended) as ended:
        get(weir, '/a')
    assert ended.value.seen == b'half '
    assert tries.count() == 1
    assert reason_of(record_of(weir, '/a')) in ('upstream_reset', 'upstream_closed')


def test_no_retries(start_weir, start_origin, closing):
    tries = Tries(start_origin, 2, '503')
    weir = start_weir(upstream(tries.origins, POLICY + '\nretries = 0'))
    for _ in range(4):
        assert get(weir).status == 503
    assert tries.count() == 4
    refusing = closing(Refusing())
    good = start_origin(respond(b'good'))
    weir = start_weir(upstream([refusing, good], 'retries = 0', passive=NO_PASSIVE))
    statuses = [get(weir, '/x').status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 502, 502]
    bad = weir.wait_access(2, status=502)[0]
    assert (tries_of(bad), reason_of(bad)) == (1, 'upstream_connect')


def test_connections_that_fail(start_weir, start_origin, closing):
    """Refused by the first, not made in time by the second; one of three is enough."""
    servers = [closing(Refusing()), closing(Deaf()), start_origin(respond(b'good'))]
    weir = start_weir(upstream(servers, 'connect_timeout = "200ms"', passive=NO_PASSIVE))
    assert answers(weir, 3) == ['good'] * 3
    assert {tries_of(record) for record in weir.wait_access(3)} == {1, 2, 3}
    body = content(3000)
    with Client(weir.port()) as client:
        for method in ('POST', 'PATCH', 'PUT'):
            for _ in range(3):
                response = client.request(f'{method} / HTTP/1.1', 'Host: t', 'Content-Length: 3000',
                                          body=body)
                assert response.status == 200
    assert all(request.body == body for request in servers[2].requests[3:])


def test_no_connection_at_all(start_weir, closing):
    weir = start_weir(upstream([closing(Refusing())], passive=NO_PASSIVE))
    assert tries_of(refusal(weir, 'upstream_connect', 502)[1]) == 1
    weir = start_weir(upstream([closing(Refusing()), closing(Refusing())], passive=NO_PASSIVE))
    assert tries_of(refusal(weir, 'upstream_connect', 503)[1]) == 2
    weir = start_weir(upstream([closing(Deaf()), closing(Deaf())], 'connect_timeout = "100ms"',
                               passive=NO_PASSIVE))
    assert tries_of(refusal(weir, 'upstream_timeout', 504)[1]) == 2


# ---- requests that are not to be repeated, and content


UNSAFE = ['POST', 'PATCH', 'LOCK', 'post']


def send(client, method, body, framing='length', target='/a'):
    if framing == 'chunked':
        return client.request(f'{method} {target} HTTP/1.1', 'Host: t',
                              'Transfer-Encoding: chunked', body=chunked(body))
    return client.request(f'{method} {target} HTTP/1.1', 'Host: t', f'Content-Length: {len(body)}',
                          body=body)


@pytest.mark.parametrize('failure, status, reason', [('reset', 502, 'upstream_reset'),
                                                     ('503', 503, 'none')])
@pytest.mark.parametrize('method', UNSAFE)
def test_a_post_that_was_sent_is_not_sent_again(start_weir, start_origin, method, failure, status,
                                                reason):
    tries = Tries(start_origin, 2, failure, 'echo')
    weir = start_weir(upstream(tries.origins, POLICY))
    with Client(weir.port()) as client:
        assert send(client, method, b'order').status == status
    assert tries.count() == 1
    assert reason_of(record_of(weir, '/a')) == reason


@pytest.mark.parametrize('failure', ['reset', 'close', '503', 'reset head'])
def test_a_post_by_option(start_weir, start_origin, failure):
    tries = Tries(start_origin, 2, failure, 'echo')
    weir = start_weir(upstream(tries.origins, POLICY + '\nretry_non_idempotent = true'))
    with Client(weir.port()) as client:
        response = send(client, 'POST', content(5000))
    assert (response.status, response.body) == (200, content(5000))
    assert len(set(tries.servers())) == 2


@pytest.mark.parametrize('framing', ['length', 'chunked'])
@pytest.mark.parametrize('failure', ['reset', 'close', '503', '502'])
def test_content_is_sent_again(start_weir, start_origin, failure, framing):
    body = content(60 * KiB)
    tries = Tries(start_origin, 3, failure, failure, 'echo')
    weir = start_weir(upstream(tries.origins, POLICY))
    for method in ('PUT', 'DELETE'):
        with Client(weir.port()) as client:
            response = send(client, method, body, framing)
        assert (response.status, response.body) == (200, body)
    assert tries.servers()[:3] != tries.servers()[:1] * 3
    assert [request.body for _, request in tries.seen] == [body] * 4


@pytest.mark.parametrize('framing', ['length', 'chunked'])
@pytest.mark.parametrize('failure, status', [('reset', 502), ('503', 503)])
def test_content_that_is_too_much_to_keep(start_weir, start_origin, failure, status, framing):
    body = content(1024 * KiB)
    tries = Tries(start_origin, 2, failure, 'echo')
    weir = start_weir(upstream(tries.origins, POLICY))
    with Client(weir.port()) as client:
        assert send(client, 'PUT', body, framing).status == status
    assert tries.count() == 1


def test_much_content_and_a_server_that_refuses(start_weir, start_origin, closing):
    """Nothing was sent yet, so nothing has to be kept."""
    tries = Tries(start_origin, 1, 'echo')
    weir = start_weir(upstream([closing(Refusing()), tries.origins[0]], passive=NO_PASSIVE))
    body = content(1024 * KiB)
    for method in ('PUT', 'POST', 'PUT', 'POST'):
        with Client(weir.port()) as client:
            response = send(client, method, body)
        assert (response.status, response.body) == (200, body)
    assert sorted(tries_of(record) for record in weir.wait_access(4)) == [1, 1, 2, 2]


def test_content_that_arrives_slowly(start_weir, start_origin):
    """The first server fails in the middle of it; what was there is sent again, then the rest."""
    tries = Tries(start_origin, 2, 'reset middle', 'echo')
    weir = start_weir(upstream(tries.origins, POLICY))
    with Client(weir.port()) as client:
        client.send_request('PUT /a HTTP/1.1', 'Host: t', 'Content-Length: 9', body=b'abc')
        wait_until(lambda: tries.origins[0].connections or tries.origins[1].connections)
        for piece in (b'def', b'ghi'):
            time.sleep(0.1)
            client.send(piece)
        response = client.read_response()
        assert (response.status, response.body) == (200, b'abcdefghi')
        assert client.get('/b').status == 200


def test_a_client_that_leaves_between_two_tries(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'slow 0.5', 'ok')
    weir = start_weir(upstream(tries.origins, 'try_timeout = "300ms"\nretry_on = ["timeout"]'))
    with Client(weir.port()) as client:
        client.send_request('GET /a HTTP/1.1', 'Host: t')
        wait_until(tries.count)
        client.reset()
    assert reason_of(record_of(weir, '/a')) == 'client_gone'
    time.sleep(0.4)
    assert tries.count() == 1


# ---- time


SLOW_POLICY = 'retry_on = ["connect", "timeout"]\nretry_budget = 100'


def test_a_try_has_its_time(start_weir, start_origin):
    tries = Tries(start_origin, 3, 'hang', 'hang', 'ok')
    weir = start_weir(upstream(tries.origins, SLOW_POLICY + '\ntry_timeout = "200ms"'))
    began = time.monotonic()
    assert get(weir, '/a').status == 200
    assert 0.4 - TICK <= time.monotonic() - began <= 0.6 + 0.3 * SLOWER
    assert sorted(tries.servers()) == [0, 1, 2]
    wait_until(lambda: tries.closed == 2, what='those that hang are left')
    assert tries_of(record_of(weir, '/a')) == 3


@pytest.mark.parametrize('key', ['try_timeout', 'response_timeout'])
def test_a_timeout_without_policy(start_weir, start_origin, key):
    tries = Tries(start_origin, 2, 'hang')
    weir = start_weir(upstream(tries.origins, f'{key} = "200ms"'))
    record = refusal(weir, 'upstream_timeout', 504)[1]
    assert tries_of(record) == 1 and tries.count() == 1


def test_response_timeout_by_policy(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'hang', 'ok')
    weir = start_weir(upstream(tries.origins, SLOW_POLICY + '\nresponse_timeout = "200ms"'))
    assert get(weir).status == 200


def test_all_tries_together_have_their_time(start_weir, start_origin):
    tries = Tries(start_origin, 3, 'hang')
    weir = start_weir(upstream(tries.origins, SLOW_POLICY + '\ntry_timeout = "400ms"\n'
                               'total_timeout = "600ms"'))
    began = time.monotonic()
    record = refusal(weir, 'upstream_timeout', 504)[1]
    assert 0.6 - TICK <= time.monotonic() - began <= 0.75 + 0.25 * SLOWER
    assert tries_of(record) == 2 and len(set(tries.servers())) == 2


def test_the_whole_time_holds_for_connecting_too(start_weir, closing):
    weir = start_weir(upstream([closing(Deaf()), closing(Deaf())], SLOW_POLICY +
                               '\ntotal_timeout = "300ms"'))
    began = time.monotonic()
    refusal(weir, 'upstream_timeout', 504)
    assert 0.3 - TICK <= time.monotonic() - began <= 0.45 + 0.25 * SLOWER


def test_an_answer_that_has_begun_may_take_its_time(start_weir, start_origin):
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n')
        for piece in (b'a', b'b', b'c', b'd'):
            time.sleep(0.25)
            connection.send(piece * 2)
    weir = start_weir(upstream([start_origin(script)], 'try_timeout = "400ms"\n'
                               'total_timeout = "500ms"'))
    assert get(weir).body == b'aabbccdd'


def test_a_client_that_takes_its_time(start_weir, start_origin):
    """What it sends its content in is not the server's."""
    tries = Tries(start_origin, 1, 'echo')
    weir = start_weir(upstream(tries.origins, 'try_timeout = "400ms"\ntotal_timeout = "500ms"'))
    with Client(weir.port()) as client:
        client.send_request('PUT /a HTTP/1.1', 'Host: t', 'Content-Length: 5')
        for byte in (b'a', b'b', b'c', b'd', b'e'):
            time.sleep(0.2)
            client.send(byte)
        assert client.read_response().body == b'abcde'


# ---- the budget


def outage(weir, requests):
    with Client(weir.port()) as client:
        return [client.get('/').status for _ in range(requests)]


@pytest.mark.parametrize('percent, least, most', [(0, 0, 0), (20, 100, 100), (50, 250, 250)])
def test_the_budget_bounds_what_an_outage_costs(start_weir, start_origin, percent, least, most):
    """Three servers, two retries: without a budget each request would be three."""
    tries = Tries(start_origin, 3, '503')
    weir = start_weir(upstream(tries.origins, f'retry_on = [503]\nretry_budget = {percent}\n'
                               'retry_budget_min = 0', passive=NO_PASSIVE))
    assert outage(weir, 500) == [503] * 500
    saved_up = 10
    assert 500 + least <= tries.count() <= 500 + most + saved_up


def test_the_budget_in_time(start_weir, start_origin):
    """An upstream with few requests has some retries a second, whatever the percentage."""
    tries = Tries(start_origin, 2, '503')
    weir = start_weir(upstream(tries.origins, 'retry_on = [503]\nretry_budget = 0\n'
                               'retry_budget_min = 20', passive=NO_PASSIVE))
    began = time.monotonic()
    outage(weir, 400)
    first = tries.count() - 400
    lasted = time.monotonic() - began
    assert 10 <= first <= 200 + 20 * lasted + 1, 'at most what was saved up for ten seconds'
    time.sleep(0.5)
    began = time.monotonic()
    outage(weir, 100)
    lasted = time.monotonic() - began
    assert 9 <= tries.count() - first - 500 <= 20 * (0.5 + lasted) + 2 * SLOWER


def test_a_whole_budget(start_weir, start_origin):
    tries = Tries(start_origin, 2, '503')
    weir = start_weir(upstream(tries.origins, 'retry_on = [503]\nretry_budget = 100',
                               passive=NO_PASSIVE))
    outage(weir, 300)
    assert tries.count() == 600


# ---- hedged requests


HEDGE = 'hedge_after = "100ms"\nretry_budget = 100'


@pytest.mark.parametrize('first', ['slow 5', 'hang'])
def test_the_quicker_one_answers(start_weir, start_origin, first):
    tries = Tries(start_origin, 2, first, 'ok')
    weir = start_weir(upstream(tries.origins, HEDGE))
    began = time.monotonic()
    response = get(weir, '/a')
    assert 0.1 - TICK <= time.monotonic() - began <= 0.2 + 0.3 * SLOWER
    slow, quick = tries.servers()
    assert slow != quick and response.body == b'%d' % quick
    wait_until(lambda: tries.closed == 1, what='the other one is told')
    record = record_of(weir, '/a')
    assert (tries_of(record), reason_of(record)) == (2, 'none')
    assert record['upstream_address'] == tries.origins[quick].address
    assert get(weir).status == 200


def test_the_first_one_wins_after_all(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'slow 0.3', 'hang')
    weir = start_weir(upstream(tries.origins, HEDGE))
    response = get(weir, '/a')
    slow, other = tries.servers()
    assert response.body == b'%d' % slow and slow != other
    wait_until(lambda: tries.closed == 1, what='the other one is told')
    assert record_of(weir, '/a')['upstream_address'] == tries.origins[slow].address


@pytest.mark.parametrize('second', ['reset', 'close', 'garbage'])
def test_a_second_one_that_fails_does_no_harm(start_weir, start_origin, second):
    tries = Tries(start_origin, 2, 'slow 0.4', second)
    weir = start_weir(upstream(tries.origins, HEDGE))
    response = get(weir, '/a')
    if second == 'garbage':  # that is an answer: whoever answers first counts
        assert response.status in (200, 502)
    else:
        assert (response.status, response.body) == (200, b'%d' % tries.servers()[0])
    assert tries.count() == 2


@pytest.mark.parametrize('first', ['reset', 'close'])
def test_a_first_one_that_fails_while_the_second_works(start_weir, start_origin, first):
    """The second one was asked already: nobody is asked a third time."""
    class Late(Tries):
        def _do(self, what, server, connection, request):
            if what == 'late':
                connection.read_request_body(request)
                time.sleep(0.3)
                return super()._do(first, server, connection, request)
            return super()._do(what, server, connection, request)
    tries = Late(start_origin, 2, 'late', 'slow 0.6')
    weir = start_weir(upstream(tries.origins, HEDGE))
    response = get(weir, '/a')
    assert (response.status, response.body) == (200, b'%d' % tries.servers()[1])
    assert tries.count() == 2


def test_what_is_not_hedged(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'slow 0.3')
    weir = start_weir(upstream(tries.origins, HEDGE))
    with Client(weir.port()) as client:
        for count, (method, body) in enumerate([('POST', b'order'), ('POST', b''), ('PUT', b'x'),
                                                ('LOCK', b'')]):
            assert send(client, method, body).status == 200
            assert tries.count() == count + 1, method


def test_hedging_is_within_the_budget(start_weir, start_origin):
    tries = Tries(start_origin, 2, 'slow 0.12')
    weir = start_weir(upstream(tries.origins, 'hedge_after = "20ms"\nretry_budget = 0\n'
                               'retry_budget_min = 0', passive=NO_PASSIVE))
    load = Load(weir.port(), clients=8)
    wait_until(lambda: load.answered >= 100, 20)
    load.stop()
    assert not load.failures, load.failures[:3]
    assert load.answered <= tries.count() <= load.answered + 10


# ---- the circuit breaker


CIRCUIT = {'failures': 3, 'open_time': '"300ms"', 'trials': 1, 'successes': 2}


def test_the_circuit_opens_and_closes(start_weir, start_origin):
    origin = Switch(start_origin, mode='503')
    weir = start_weir(upstream([origin], circuit=CIRCUIT, passive=NO_PASSIVE))
    with Client(weir.port()) as client:
        assert [client.get('/').status for _ in range(3)] == [503] * 3
        assert origin.count == 3
        opened = time.monotonic()
        refusal(weir, 'no_upstream')
        assert origin.count == 3, 'open: it is spared'
        # One trial, which fails: open for twice as long.
        wait_until(lambda: client.get('/').get('Retry-After') is None and origin.count == 4)
        assert time.monotonic() - opened >= 0.25
        opened = time.monotonic()
        refusal(weir, 'no_upstream')
        origin.mode = 'ok'
        wait_until(lambda: client.get('/').status == 200)
        assert time.monotonic() - opened >= 0.5
        assert [client.get('/').status for _ in range(10)] == [200] * 10
        # Closed: it takes three in a row again.
        origin.mode = '503'
        assert [client.get('/').status for _ in range(2)] == [503] * 2
        origin.mode = 'ok'
        assert client.get('/').status == 200
    weir.wait_log('server put aside .*circuit_breaker')
    weir.wait_log('server is back .*circuit_breaker')


def test_one_trial_at_a_time(start_weir, start_origin):
    origin = Switch(start_origin, mode='503')
    weir = start_weir(upstream([origin], circuit=CIRCUIT, passive=NO_PASSIVE))
    with Client(weir.port()) as client, Client(weir.port()) as trial:
        assert [client.get('/').status for _ in range(3)] == [503] * 3
        refusal(weir, 'no_upstream')
        origin.mode = 'slow 0.4'
        time.sleep(0.35)
        trial.send_request('GET / HTTP/1.1', 'Host: t')
        wait_until(lambda: origin.count == 4)
        refusal(weir, 'no_upstream')
        assert origin.count == 4
        assert trial.read_response().status == 200
        origin.mode = 'ok'
        assert [client.get('/').status for _ in range(5)] == [200] * 5


def test_a_trial_whose_client_leaves(start_weir, start_origin):
    """It has told nothing; the next one may try."""
    origin = Switch(start_origin, mode='503')
    weir = start_weir(upstream([origin], circuit=CIRCUIT, passive=NO_PASSIVE))
    with Client(weir.port()) as client:
        assert [client.get('/').status for _ in range(3)] == [503] * 3
        origin.mode = 'hang'
        time.sleep(0.35)
        with Client(weir.port()) as trial:
            trial.send_request('GET / HTTP/1.1', 'Host: t')
            wait_until(lambda: origin.count == 4)
            trial.reset()
        weir.wait_access(reason='client_gone')
        origin.mode = 'ok'
        assert [client.get('/').status for _ in range(5)] == [200] * 5


def test_an_open_circuit_sends_requests_elsewhere(start_weir, start_origin):
    bad, good = Switch(start_origin, 'bad', 'reset'), Switch(start_origin, 'good')
    weir = start_weir(upstream([bad, good], circuit={**CIRCUIT, 'open_time': '"20s"'},
                               passive=NO_PASSIVE))
    assert answers(weir, 30) == ['good'] * 30
    assert bad.count == 3
    # A reload keeps it open.
    reload(weir, upstream([bad, good], 'read_timeout = "40s"', passive=NO_PASSIVE,
                          circuit={**CIRCUIT, 'open_time': '"20s"'}))
    assert answers(weir, 20) == ['good'] * 20
    assert bad.count == 3
