"""Passive health: what requests tell of their server. Errors in a row, errors among many, answers
slower than the others'; how long a server is put aside, and which are not."""
import time

import pytest

from conftest import Client, wait_until
from ops_rig import Load
from upstream_rig import (ASIDE, BACK, QUICK_CHECKS, SLOWER, UP, DOWN, Deaf, Refusing, Switch,
                          answers, closing, control, reload, said, start_nginx, upstream,
                          wait_only)

__all__ = ['closing', 'control', 'start_nginx']

LONG = '"60s"'
RETRY = 'retry_on = ["connect", "reset", "timeout", 502, 503, 504]\nretry_budget = 100'


def passive(servers, settings=RETRY, *, more=None, **passive_check):
    return upstream(servers, settings, passive={'ejection_time': LONG, **passive_check},
                    **(more or {}))


def switches(start_origin, names):
    return [Switch(start_origin, name) for name in names]


def ask(weir, count):
    with Client(weir.port()) as client:
        return [client.get('/').status for _ in range(count)]


def aside(weir):
    return [line for line in list(weir.lines) if ASIDE in line]


# ---- errors in a row


@pytest.mark.parametrize('mode', ['reset', '502', '503', '504', 'hang'])
def test_errors_in_a_row(start_weir, start_origin, mode):
    a, b = switches(start_origin, 'ab')
    a.mode = mode
    weir = start_weir(passive([a, b], RETRY + '\nresponse_timeout = "100ms"'))
    assert ask(weir, 20) == [200] * 20
    assert a.count == 5, 'consecutive_errors'
    line = weir.wait_log(said(ASIDE, a))[0]
    assert 'consecutive_errors' in line and 'for_ms=60000' in line
    assert b.count == 20


@pytest.mark.parametrize('what', ['refuses', 'is deaf'])
def test_connections_that_fail(start_weir, start_origin, closing, what):
    bad = closing(Refusing() if what == 'refuses' else Deaf())
    good = Switch(start_origin, 'good')
    weir = start_weir(passive([bad, good], 'connect_timeout = "100ms"', consecutive_errors=3))
    assert ask(weir, 20) == [200] * 20
    weir.wait_log(said(ASIDE, bad))
    assert sum(record.get('tries') == 2 for record in weir.wait_access(20)) == 3


@pytest.mark.parametrize('mode', ['500', '404', '599', '200'])
def test_answers_that_are_no_errors_of_the_server(start_weir, start_origin, mode):
    a, b = switches(start_origin, 'ab')
    a.mode = mode
    weir = start_weir(passive([a, b], consecutive_errors=2, error_requests_min=2))
    ask(weir, 20)
    assert a.count == 10 and not aside(weir)


def test_a_good_answer_in_between(start_weir, start_origin):
    number = [0]

    def script(connection):
        while True:
            connection.read_request()
            number[0] += 1
            status = '200 OK' if number[0] % 3 == 0 else '503 No'
            connection.answer(b'a', status=status)
    a, b = start_origin(script), Switch(start_origin, 'b')
    weir = start_weir(passive([a, b], consecutive_errors=3, error_percent=90))
    ask(weir, 60)
    assert number[0] == 30 and not aside(weir)


def test_clients_that_leave(start_weir, start_origin):
    """That is nothing against the server."""
    a, b = switches(start_origin, 'ab')
    a.mode = b.mode = 'hang'
    weir = start_weir(passive([a, b], consecutive_errors=2, error_requests_min=2))
    for number in range(8):
        with Client(weir.port()) as client:
            client.send_request('GET / HTTP/1.1', 'Host: t')
            wait_until(lambda: a.count + b.count == number + 1)
            client.reset()
    weir.wait_access(8, reason='client_gone')
    a.mode = b.mode = 'ok'
    assert set(answers(weir, 10)) == {'a', 'b'} and not aside(weir)


def test_switched_off(start_weir, start_origin):
    a, b = switches(start_origin, 'ab')
    a.mode = '503'
    weir = start_weir(passive([a, b], enabled='false'))
    assert ask(weir, 40) == [200] * 40
    assert a.count == 20 and not aside(weir)


# ---- errors among many


def test_a_part_of_errors(start_weir, start_origin):
    """Every other request fails: never two in a row, but half of them."""
    number = [0]

    def script(connection):
        while True:
            connection.read_request()
            number[0] += 1
            connection.answer(b'a', status='503 No' if number[0] % 2 else '200 OK')
    a, b = start_origin(script), Switch(start_origin, 'b')
    weir = start_weir(passive([a, b], error_percent=50, error_requests_min=20))
    assert ask(weir, 100) == [200] * 100
    line = weir.wait_log(said(ASIDE, a))[0]
    assert 'error_ratio' in line
    assert 20 <= number[0] <= 21


# ---- the time away


def test_back_after_a_time_that_doubles(start_weir, start_origin):
    a, b = switches(start_origin, 'ab')
    a.mode = '503'
    weir = start_weir(passive([a, b], ejection_time='"300ms"', ejection_time_max='"700ms"',
                              consecutive_errors=2))
    times = []
    for expected in (0.3, 0.6, 0.7, 0.7):
        count = a.count
        began = time.monotonic()
        while a.count < count + 2:
            assert ask(weir, 4) == [200] * 4
            assert time.monotonic() < began + 5
        times.append(time.monotonic())
        if len(times) > 1:
            assert times[-1] - times[-2] >= before - 0.05
            assert times[-1] - times[-2] <= before + 0.7 + 0.3 * SLOWER
        before = expected
    a.mode = 'ok'
    wait_until(lambda: 'a' in answers(weir, 2), what='it is back')
    weir.wait_log(said(BACK, a))


def test_alone_it_is_never_put_aside(start_weir, start_origin):
    a, = switches(start_origin, 'a')
    a.mode = '503'
    weir = start_weir(passive([a], consecutive_errors=2))
    assert ask(weir, 30) == [503] * 30
    assert a.count == 30 and not aside(weir)
    a.mode = 'ok'
    assert ask(weir, 3) == [200] * 3


@pytest.mark.parametrize('settings, left', [
    ({}, 2), ({'max_ejected_percent': 100}, 1), ({'max_ejected_percent': 25}, 3),
    ({'max_ejected_percent': 0}, 4), ({'max_ejected_percent': 100, 'min_servers': 3}, 3)])
def test_some_are_left(start_weir, start_origin, settings, left):
    """All four fail: how many of them go on getting requests."""
    all_four = switches(start_origin, 'abcd')
    for switch in all_four:
        switch.mode = '503'
    weir = start_weir(passive(all_four, 'retries = 0', consecutive_errors=3, **settings))
    ask(weir, 40)
    before = [switch.count for switch in all_four]
    ask(weir, 24)
    assert sum(switch.count > was for switch, was in zip(all_four, before)) == left
    assert sum(switch.count for switch in all_four) == 64
    for switch in all_four:
        switch.mode = 'ok'
    assert ask(weir, 8) == [200] * 8


def test_each_core_judges_by_itself(start_weir, start_origin, control):
    a, b = switches(start_origin, 'ab')
    a.mode = '503'
    weir = start_weir(passive([a, b], consecutive_errors=3, more={'threads': 2,
                                                                 'control': control}))
    load = Load(weir.port(), clients=8, keep_alive=False)
    wait_until(lambda: control.servers()[a.address]['cores_ejected'] == 2, what='on both cores')
    load.stop()
    assert not load.failures, load.failures[:3]
    # Those that were under way when it was judged come on top.
    assert 6 <= a.count <= 6 + 8
    assert control.servers()[a.address]['state'] == 'up', 'of control; cores have it aside'


def test_a_reload_does_not_forgive(start_weir, start_origin):
    a, b = switches(start_origin, 'ab')
    a.mode = '503'
    weir = start_weir(passive([a, b]))
    ask(weir, 20)
    assert a.count == 5
    c = Switch(start_origin, 'c')
    reload(weir, passive([c, b, a], RETRY + '\nread_timeout = "9s"'))
    assert set(answers(weir, 20)) == {'b', 'c'}
    assert a.count == 5
    # One that leaves and comes back is a new one.
    reload(weir, passive([c, b]))
    reload(weir, passive([c, b, a]))
    ask(weir, 20)
    assert a.count == 10


def test_a_check_that_it_passes_ends_it(start_weir, start_origin):
    """Active checks have seen it go and come back: they know better than the time it was given."""
    a, b = switches(start_origin, 'ab')
    a.mode = a.health = '503'
    weir = start_weir(passive([a, b], more={'health': QUICK_CHECKS}))
    ask(weir, 20)
    weir.wait_log(said(ASIDE, a))
    weir.wait_log(said(DOWN, a))
    a.mode = a.health = 'ok'
    weir.wait_log(said(UP, a))
    wait_only(weir, 'a', 'b')


# ---- slow ones


def test_a_slow_server(start_weir, start_origin):
    """Four times slower than the middle of the others, and slower than the floor."""
    a, b, c = switches(start_origin, 'abc')
    a.mode = 'slow 0.3'
    weir = start_weir(passive([a, b, c], slow_percent=400))
    load = Load(weir.port(), clients=8)
    line = weir.wait_log(said(ASIDE, a))[0]
    load.stop()
    assert not load.failures and 'latency' in line
    count = a.count
    assert 10 <= count <= 8 * 5
    began = time.monotonic()
    assert ask(weir, 100) == [200] * 100
    assert time.monotonic() - began < 2 * SLOWER and a.count == count


@pytest.mark.parametrize('mode, settings', [
    ('slow 0.05', {'slow_percent': 400}), ('slow 0.3', {}),
    ('slow 0.3', {'slow_percent': 400, 'slow_floor': '"1s"'}),
    ('slow 0.3', {'slow_percent': 400, 'slow_requests_min': 1000})])
def test_what_is_not_slow(start_weir, start_origin, mode, settings):
    a, b = switches(start_origin, 'ab')
    a.mode = mode
    weir = start_weir(passive([a, b], **settings))
    load = Load(weir.port(), clients=12)
    wait_until(lambda: a.count >= 60, 20)
    load.stop()
    assert not load.failures and not aside(weir)


def test_all_are_slow(start_weir, start_origin):
    """Then nobody is slower than the others."""
    a, b = switches(start_origin, 'ab')
    a.mode = b.mode = 'slow 0.2'
    weir = start_weir(passive([a, b], slow_percent=200))
    load = Load(weir.port(), clients=10)
    wait_until(lambda: load.answered >= 80, 20)
    load.stop()
    assert not load.failures and not aside(weir)
