"""Active health checks: what is asked, which answers are good, when a server goes and comes back;
endpoints that hang, stream, flap; real nginx by HTTP and HTTPS; reloads."""
import threading
import time

import pytest

from conftest import Client, Ended, wait_until
from tls_rig import pki
from upstream_rig import (DOWN, NO_PASSIVE, QUICK_CHECKS, SLOWER, UP, Deaf, Switch, answers,
                          closing, control, get, reason_of, refusal, reload, said, start_nginx,
                          upstream, wait_only)

__all__ = ['closing', 'control', 'start_nginx']


def checked(servers, settings='', health=None, **more):
    """Quick checks, with these settings on top; passive ones say nothing."""
    return upstream(servers, settings, health={**QUICK_CHECKS, **(health or {})},
                    **{'passive': NO_PASSIVE, **more})


def two(start_origin):
    return Switch(start_origin, 'a'), Switch(start_origin, 'b')


def checks_go_on(*switches, count=3):
    """Waits for so many more checks of each."""
    before = [switch.checks for switch in switches]
    wait_until(lambda: all(switch.checks >= was + count for switch, was in zip(switches, before)),
               what='checks')


# ---- which answers are good


BAD = ['500', '404', '302', '199', 'reset', 'hang', 'stream']


@pytest.mark.parametrize('health', BAD)
def test_an_endpoint_that_fails(start_weir, start_origin, health):
    a, b = two(start_origin)
    more = {'expected_body': '"a"'} if health == 'stream' else None
    weir = start_weir(checked([a, b], health=more))
    b.name = b'ab'  # where content is looked at, b's is as good as a's
    assert set(answers(weir, 6)) <= {'a', 'b', 'ab'}
    a.health = health
    weir.wait_log(said(DOWN, a))
    assert answers(weir, 6) == ['ab'] * 6
    assert not [line for line in weir.lines if b.address in line and DOWN in line]
    a.health = 'ok'
    weir.wait_log(said(UP, a))
    wait_only(weir, 'a', 'ab')


def test_an_endless_answer_with_a_good_head(start_weir, start_origin):
    """Where only the status counts, what follows the head is not waited for."""
    a, b = two(start_origin)
    a.health = 'stream'
    weir = start_weir(checked([a, b]))
    checks_go_on(a, b, count=5)
    wait_only(weir, 'a', 'b')
    assert not [line for line in weir.lines if DOWN in line]
    # Their connections are not kept.
    wait_until(lambda: sum(c.sock.fileno() >= 0 for c in list(a.origin.connections)) <= 2)


@pytest.mark.parametrize('expected, answer, good', [
    ('204', '204', True), ('204', '200', False), ('["200-299", 404]', '404', True),
    ('["200-299", 404]', '403', False), ('"300-399"', '301', True)])
def test_expected_status(start_weir, start_origin, expected, answer, good):
    a, b = two(start_origin)
    a.health, b.health = answer, expected.strip('"[')[:3]
    weir = start_weir(checked([a, b], health={'expected_status': expected}))
    if good:
        checks_go_on(a, b)
        wait_only(weir, 'a', 'b')
        assert not [line for line in weir.lines if DOWN in line]
    else:
        line = weir.wait_log(said(DOWN, a))[0]
        assert answer in line, 'the reason'
        wait_only(weir, 'b')


def test_expected_body(start_weir, start_nginx):
    a = start_nginx('a', more='location = /state { access_log off; return 200 "state: fine\\n"; }')
    b = start_nginx('b', more='location = /state { access_log off; return 200 "state: poor\\n"; }')
    weir = start_weir(checked([a, b], health={'path': '"/state"', 'expected_body': '"fine"'}))
    weir.wait_log(said(DOWN, b))
    wait_only(weir, 'a')


def test_what_is_asked(start_weir, start_origin):
    a = Switch(start_origin, 'a')
    weir = start_weir(checked([a], health={
        'path': '"/state?deep=1"', 'method': '"HEAD"', 'host': '"app.test:81"',
        'headers': '{X-Key = "secret", Accept = "text/plain"}', 'expected_status': '[200]'}))
    wait_until(lambda: a.origin.requests)
    request = a.origin.requests[0]
    assert (request.method, request.target) == ('HEAD', '/state?deep=1')
    assert request.get('Host') == 'app.test:81'
    assert request.get('X-Key') == 'secret' and request.get('Accept') == 'text/plain'
    assert get(weir).status == 200


def test_the_host_of_a_check(start_weir, start_origin):
    a = Switch(start_origin, 'a')
    start_weir(checked([a], 'host_header = "inner.test"'))
    wait_until(lambda: a.checks)
    assert a.origin.requests[0].get('Host') == 'inner.test'
    b = Switch(start_origin, 'b')
    start_weir(checked([b]))
    wait_until(lambda: b.checks)
    assert b.origin.requests[0].get('Host') == b.address


def test_a_port_for_checks(start_weir, start_origin):
    a = Switch(start_origin, 'a')
    watcher = Switch(start_origin, 'watcher', mode='500')
    weir = start_weir(checked([a], health={'port': watcher.port}))
    checks_go_on(watcher)
    assert a.checks == 0
    wait_only(weir, 'a')
    watcher.health = '503'
    weir.wait_log(said(DOWN, a))
    refusal(weir, 'no_upstream')


def test_checks_of_tcp(start_weir, start_nginx, closing):
    """A connection is enough; nothing is said on it."""
    origins = [start_nginx(name) for name in ('a', 'b')]
    deaf = closing(Deaf())
    weir = start_weir(checked([*origins, deaf], 'connect_timeout = "100ms"',
                              health={'type': '"tcp"'}))
    weir.wait_log(said(DOWN, deaf))
    wait_only(weir, 'a', 'b')
    origins[0].kill()
    weir.wait_log(said(DOWN, origins[0]))
    wait_only(weir, 'b')
    origins[0].start()
    weir.wait_log(said(UP, origins[0]))
    wait_only(weir, 'a', 'b')
    assert all(uri != '/_health' for origin in origins for _, _, uri, _ in origin.requests())


TLS = 'tls_ca_path = "{}"\n'


def secure(start_nginx, name, pair):
    return start_nginx(name, listen=lambda nginx: (
        f'listen {nginx.address} ssl; '
        f'ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};'))


@pytest.mark.parametrize('kind', ['auto', 'https', 'tls'])
def test_checks_with_tls(start_weir, start_nginx, kind):
    """A certificate that requests would not take is none for checks either."""
    good = secure(start_nginx, 'good', pki().ec)
    pair = pki().stranger.issue(f'ec-{kind}.test', 'IP:127.0.0.1')
    stranger = secure(start_nginx, 'stranger', pair)
    weir = start_weir(checked([f'https://{one.address}' for one in (good, stranger)],
                              TLS.format(pki().ca_file), health={'type': f'"{kind}"'}))
    weir.wait_log(said(DOWN, stranger))
    wait_only(weir, 'good')
    good.kill()
    weir.wait_log(said(DOWN, good))
    refusal(weir, 'no_upstream')
    good.start()
    weir.wait_log(said(UP, good))
    wait_only(weir, 'good')


def test_checks_by_unix_socket(start_weir, start_nginx):
    origin = start_nginx('u', listen=lambda nginx: f'listen unix:{nginx.folder}/socket;')
    address = f'unix:{origin.folder}/socket'
    weir = start_weir(checked([address]))
    assert answers(weir, 4) == ['u'] * 4
    origin.kill()
    weir.wait_log(DOWN)
    refusal(weir, 'no_upstream')
    (origin.folder / 'socket').unlink()
    origin.start()
    weir.wait_log(UP)
    assert answers(weir, 4) == ['u'] * 4


# ---- when


def test_thresholds(start_weir, start_origin, control):
    """So many in a row, no less; what is between them begins anew."""
    a, b = two(start_origin)
    weir = start_weir(checked([a, b], control=control, health={
        'interval': '"100ms"', 'timeout': '"90ms"', 'unhealthy_threshold': 4,
        'healthy_threshold': 3}))

    def state():
        return control.servers()[a.address]['health']
    wait_until(lambda: state()['passed'] >= 3)
    a.health = '500'
    wait_until(lambda: state()['failed'] >= 2)
    assert state()['healthy']
    a.health = 'ok'
    wait_until(lambda: state()['passed_in_a_row'] >= 1)
    failed = state()['failed']
    a.health = '500'
    weir.wait_log(said(DOWN, a))
    after = state()
    assert after['failed'] >= failed + 4 and not after['healthy']
    passed = after['passed']
    a.health = 'ok'
    weir.wait_log(said(UP, a))
    after = state()
    assert after['passed'] >= passed + 3 and after['healthy'] and after['changes'] == 2


def test_an_endpoint_that_flaps(start_weir, start_origin, control):
    """Every second check fails: never two in a row, and so never a change."""
    number = [0]

    def script(connection):
        while True:
            request = connection.read_request()
            if request.target != '/_health':
                connection.answer(b'flap')
                continue
            number[0] += 1
            connection.answer(status='200 OK' if number[0] % 2 else '500 No')
    flapping = start_origin(script)
    good = Switch(start_origin, 'good')
    weir = start_weir(checked([flapping, good], control=control, health={
        'interval': '"50ms"', 'timeout': '"45ms"'}))
    wait_until(lambda: number[0] >= 12)
    state = control.servers()[flapping.address]['health']
    assert state['changes'] == 0 and state['healthy']
    assert state['passed'] >= 5 and state['failed'] >= 5
    wait_only(weir, 'flap', 'good')


def test_flapping_under_load(start_weir, start_origin):
    """Down and up all the time, by thresholds of one: no request suffers."""
    a, b = two(start_origin)
    steady = Switch(start_origin, 'steady')
    weir = start_weir(checked([a, b, steady], health={'interval': '"20ms"', 'timeout': '"1s"',
                                                      'unhealthy_threshold': 1,
                                                      'healthy_threshold': 1}))
    stop = threading.Event()

    def flap():
        while not stop.is_set():
            for switch in (a, b):
                switch.health = '500'
                stop.wait(0.05)
                switch.health = 'ok'
                stop.wait(0.05)
    thread = threading.Thread(target=flap)
    thread.start()
    try:
        end = time.monotonic() + 2
        count = 0
        with Client(weir.port()) as client:
            while time.monotonic() < end:
                response = client.get('/')
                assert response.status == 200, response
                count += 1
        assert count > 100
    finally:
        stop.set()
        thread.join()
    weir.wait_log(said(DOWN, a))
    weir.wait_log(said(UP, a))


def test_hanging_checks_hold_nothing_up(start_weir, start_origin):
    """Many servers whose endpoint hangs; the checks of the others go on in time."""
    hanging = [Switch(start_origin, f'h{i}') for i in range(20)]
    for switch in hanging:
        switch.health = 'hang'
    good = Switch(start_origin, 'good')
    weir = start_weir(checked([*hanging, good]))
    for switch in hanging:
        weir.wait_log(said(DOWN, switch))
    before = good.checks
    began = time.monotonic()
    checks_go_on(good, count=5)
    assert time.monotonic() - began <= 5 * 0.2 + 0.5 * SLOWER and good.checks >= before + 5
    wait_only(weir, 'good')
    # One check at a time of each, and none left open.
    for switch in hanging:
        assert sum(c.sock.fileno() >= 0 for c in list(switch.origin.connections)) <= 2


@pytest.mark.parametrize('health', ['ok', '500'])
def test_healthy_only_when_it_has_shown_it(start_weir, start_origin, health):
    a = Switch(start_origin, 'a')
    gate = threading.Event()
    plain = a.origin.script

    def slow_first(connection):
        gate.wait(10)
        plain(connection)
    a.origin.script = slow_first
    a.health = health
    weir = start_weir(checked([a], health={'initially_healthy': 'false', 'timeout': '"5s"',
                                           'interval': '"100ms"'}))
    refusal(weir, 'no_upstream')
    gate.set()
    if health == 'ok':
        wait_until(lambda: get(weir).status == 200, what='it has shown it')
        assert a.checks >= 1
    else:
        checks_go_on(a)
        refusal(weir, 'no_upstream')
        a.health = 'ok'
        wait_until(lambda: get(weir).status == 200, what='it has shown it')


def test_without_checks_nobody_is_asked(start_weir, start_origin):
    """Not by default, not when it is switched off for one upstream of all."""
    a, b, c = (Switch(start_origin, name) for name in 'abc')
    start_weir(upstream([a]))
    more = (f'[health_check]\ninterval = "50ms"\ntimeout = "40ms"\n'
            f'[upstream.p]\nservers = ["{c.address}"]\n'
            '[[route]]\npath = "/p"\nproxy = "p"\n')
    weir = start_weir(upstream([b], health={'enabled': 'false'}, more=more))
    checks_go_on(c, count=5)
    assert a.checks == 0 and b.checks == 0
    assert get(weir).body == b'b' and get(weir, '/p').body == b'c'


def test_checks_for_all_and_for_one(start_weir, start_origin):
    """[health_check] is what an upstream's own table starts from."""
    a, b = two(start_origin)
    more = ('[health_check]\npath = "/all"\ninterval = "50ms"\ntimeout = "40ms"\n'
            f'[upstream.p]\nservers = ["{b.address}"]\n[[route]]\npath = "/p"\nproxy = "p"\n')
    start_weir(upstream([a], health={'path': '"/one"'}, more=more))
    for switch, path in ((a, '/one'), (b, '/all')):
        wait_until(lambda: len(switch.origin.requests) >= 4, what='checks')
        assert {request.target for request in switch.origin.requests} == {path}


# ---- reloads


def test_states_survive_a_reload(start_weir, start_origin):
    """With checks an hour apart from now on: it is the state of before that counts."""
    a, b = two(start_origin)
    weir = start_weir(checked([a, b]))
    a.health = '500'
    weir.wait_log(said(DOWN, a))
    rarely = {'interval': '"1h"', 'timeout': '"1s"', 'initially_healthy': 'true'}
    reload(weir, checked([a, b], health=rarely))
    count = a.count
    assert answers(weir, 10) == ['b'] * 10
    # With a further server, with another setting, with other weights.
    c = Switch(start_origin, 'c')
    reload(weir, checked([c, b, a], 'response_timeout = "9s"', health=rarely))
    assert set(answers(weir, 12)) == {'b', 'c'}
    assert a.count == count
    # Without checks nobody says that it is down.
    reload(weir, upstream([a, b]))
    wait_only(weir, 'a', 'b')
    # And with checks it is a new server.
    reload(weir, checked([a, b]))
    weir.wait_log(said(DOWN, a), 2)
    wait_only(weir, 'b')


def test_reloads_do_not_begin_counts_anew(start_weir, start_origin):
    """A configuration that is read again all the time does not keep a dead server alive."""
    a, b = two(start_origin)
    weir = start_weir(checked([a, b], health={'unhealthy_threshold': 5}))
    a.health = '500'
    for number in range(30):
        reload(weir, checked([a, b], f'read_timeout = {30 + number}',
                             health={'unhealthy_threshold': 5}))
        if any(DOWN in line for line in weir.lines):
            break
        time.sleep(0.1)
    weir.wait_log(said(DOWN, a), seconds=1)
    assert a.checks <= 12


def test_reloads_under_load(start_weir, start_origin):
    """States flip and generations change at the same time, and no request goes wrong."""
    a, b, c = (Switch(start_origin, name) for name in 'abc')
    health = {'interval': '"50ms"', 'timeout': '"1s"', 'unhealthy_threshold': 1,
              'healthy_threshold': 1}
    weir = start_weir(checked([a, b, c], health=health, threads=2))
    stop = threading.Event()
    failures, count = [], [0]

    def load():
        with Client(weir.port()) as client:
            while not stop.is_set():
                try:
                    status = client.get('/').status
                except (OSError, Ended) as error:
                    failures.append(error)
                    return
                count[0] += 1
                if status != 200:
                    failures.append(status)
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(12):
        a.health = '500' if number % 2 else 'ok'
        b.health = '500' if number % 3 == 0 else 'ok'
        servers = [a, b, c] if number % 4 else [c, b]
        reload(weir, checked(servers, f'read_timeout = {30 + number}', health=health, threads=2))
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and count[0] > 200, failures[:5]


def test_the_end_while_checks_hang(start_weir, start_origin):
    a = Switch(start_origin, 'a')
    a.health = 'hang'
    weir = start_weir(checked([a], health={'timeout': '"10s"', 'interval': '"11s"'}))
    wait_until(lambda: a.checks)
    began = time.monotonic()
    weir.stop()
    assert time.monotonic() - began < 3 * SLOWER


def test_a_server_that_goes_down_keeps_what_is_under_way(start_weir, start_origin):
    a, b = two(start_origin)
    weir = start_weir(checked([a, b]))
    a.mode = b.mode = 'slow 1'
    clients = [Client(weir.port()) for _ in range(2)]
    for client in clients:
        client.send_request('GET / HTTP/1.1', 'Host: t')
    wait_until(lambda: a.count and b.count)
    a.health = '500'
    weir.wait_log(said(DOWN, a))
    a.mode = b.mode = 'ok'
    assert sorted(client.read_response().body for client in clients) == [b'a', b'b']
    wait_only(weir, 'b')
    assert {reason_of(record) for record in weir.wait_access(8)} == {'none'}
