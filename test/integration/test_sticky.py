"""Sticky sessions: the cookie and its attributes, which ones are believed, drained and dead
servers, two weirs with one key."""
import collections
import re
import subprocess

import pytest

from conftest import WEIR, Client, respond, wait_until
from upstream_rig import (ASIDE, DOWN, NO_PASSIVE, QUICK_CHECKS, Switch, control, get, reload, said,
                          server_of, upstream)

__all__ = ['control']

COOKIE = re.compile(r'weir_sticky=([0-9a-f]{57})')


def named(start_origin, count=3):
    return [start_origin(respond(str(i).encode())) for i in range(count)]


def sticky(servers, settings='', *, cookie=None, **more):
    return upstream(servers, settings, sticky=cookie or {}, **{'passive': NO_PASSIVE, **more})


def value_of(response, name='weir_sticky'):
    """The cookie that the answer sets, or None."""
    lines = [line for line in response.all('Set-Cookie') if line.startswith(f'{name}=')]
    assert len(lines) <= 1, lines
    return lines[0].split(';')[0].split('=', 1)[1] if lines else None


def with_cookie(value, name='weir_sticky'):
    return f'Cookie: a=1; {name}={value}; b=2'


def session(weir, target='/'):
    """A new client's server and cookie."""
    response = get(weir, target)
    assert response.status == 200
    return response.body, value_of(response)


# ---- the cookie


def test_a_session_stays_with_its_server(start_weir, start_origin):
    weir = start_weir(sticky(named(start_origin)))
    sessions = []
    for _ in range(9):
        server, value = session(weir)
        sessions.append((server, value))
        for _ in range(4):
            response = get(weir, '/x', with_cookie(value))
            assert response.body == server and value_of(response) is None
    assert collections.Counter(server for server, _ in sessions) == {b'0': 3, b'1': 3, b'2': 3}
    with Client(weir.port()) as client:  # on one connection, in any order
        for server, value in sessions + sessions[::-1]:
            assert client.get('/', with_cookie(value)).body == server


@pytest.mark.parametrize('settings, expected', [
    ({}, 'weir_sticky=V; Path=/; HttpOnly; SameSite=Lax'),
    ({'cookie': '"app"', 'path': '"/shop"', 'secure': 'true', 'same_site': '"None"',
      'max_age': '"2h"'}, 'app=V; Path=/shop; Max-Age=7200; HttpOnly; Secure; SameSite=None'),
    ({'same_site': '""'}, 'weir_sticky=V; Path=/; HttpOnly'),
    ({'same_site': '"Strict"'}, 'weir_sticky=V; Path=/; HttpOnly; SameSite=Strict')])
def test_attributes(start_weir, start_origin, settings, expected):
    weir = start_weir(sticky(named(start_origin), cookie=settings))
    line, = get(weir).all('Set-Cookie')
    assert re.sub('=[0-9a-f]{57};', '=V;', line) == expected


def test_cookies_of_the_server_pass(start_weir, start_origin):
    origin = start_origin(respond(b'x', 'Set-Cookie: sid=1; Path=/', 'Set-Cookie: lang=de'))
    weir = start_weir(sticky([origin]))
    lines = get(weir, '/', 'Cookie: sid=0').all('Set-Cookie')
    assert lines[:2] == ['sid=1; Path=/', 'lang=de'] and len(lines) == 3
    assert origin.requests[0].get('Cookie') == 'sid=0'


def test_answers_of_weir_bind_nobody(start_weir, start_origin):
    a = Switch(start_origin, mode='reset')
    weir = start_weir(sticky([a]))
    response = get(weir)
    assert response.status == 502 and not response.all('Set-Cookie')


@pytest.mark.parametrize('status', ['204 No Content', '304 Not Modified', '404 Not Found',
                                    '301 Moved Permanently'])
def test_answers_of_any_kind_bind(start_weir, start_origin, status):
    def script(connection):
        while True:
            connection.read_request()
            connection.answer(status=status, length=not status.startswith(('204', '304')))
    weir = start_weir(sticky([start_origin(script)]))
    assert value_of(get(weir))
    with Client(weir.port()) as client:
        assert value_of(client.request('HEAD / HTTP/1.1', 'Host: t'))


# ---- which are believed


def test_cookies_that_are_not_believed(start_weir, start_origin):
    weir = start_weir(sticky(named(start_origin)))
    server, value = session(weir)
    forged = ['', 'x', value[:-1], value + '0', value.upper() if value.upper() != value else 'X',
              '2' + value[1:], '0' * 57, 'f' * 4000]
    for place in range(1, 57, 5):  # one digit another
        forged.append(value[:place] + format(int(value[place], 16) ^ 1, 'x') + value[place + 1:])
    seen = set()
    for one in forged:
        response = get(weir, '/', with_cookie(one))
        assert response.status == 200 and value_of(response), one
        seen.add(response.body)
    assert seen == {b'0', b'1', b'2'}
    # Of two the first counts, as with every cookie.
    assert value_of(get(weir, '/', f'Cookie: weir_sticky={value}; weir_sticky=x')) is None
    assert get(weir, '/', f'Cookie: weir_sticky={value}').body == server


def test_a_cookie_of_another_upstream(start_weir, start_origin):
    origins = named(start_origin)
    listed = ', '.join(f'"{origin.address}"' for origin in origins)
    more = (f'[upstream.p]\nservers = [{listed}]\n[upstream.p.sticky]\n'
            '[[route]]\npath = "/p"\nproxy = "p"\n')
    weir = start_weir(sticky(origins, more=more))
    _, value = session(weir)
    assert value_of(get(weir, '/p', with_cookie(value))) is not None
    _, other = session(weir, '/p')
    assert value_of(get(weir, '/', with_cookie(other))) is not None


def test_a_cookie_becomes_too_old(start_weir, start_origin):
    weir = start_weir(sticky(named(start_origin), cookie={'max_age': '"1s"'}))
    _, value = session(weir)
    assert value_of(get(weir, '/', with_cookie(value))) is None
    wait_until(lambda: value_of(get(weir, '/', with_cookie(value))), 5, 'it is too old')


# ---- servers that go


def test_a_drained_server_keeps_its_sessions(start_weir, start_origin, control):
    origins = named(start_origin)
    weir = start_weir(sticky(origins, control=control))
    server, value = session(weir)
    drained = origins[int(server)]
    control.set(drained, 'drain')
    for _ in range(12):
        assert session(weir)[0] != server
        response = get(weir, '/', with_cookie(value))
        assert response.body == server and value_of(response) is None
    # Also after a reload.
    reload(weir, sticky(origins, 'read_timeout = "9s"', control=control))
    assert get(weir, '/', with_cookie(value)).body == server
    assert {session(weir)[0] for _ in range(9)} == {b'0', b'1', b'2'} - {server}
    control.set(drained, 'down')
    response = get(weir, '/', with_cookie(value))
    assert response.body != server and value_of(response)
    control.set(drained, 'up')
    assert get(weir, '/', with_cookie(value)).body == server


def test_a_dead_server_and_a_new_session(start_weir, start_origin):
    origins = named(start_origin)
    weir = start_weir(sticky(origins))
    server, value = session(weir)
    origins[int(server)].stop()
    response = get(weir, '/', with_cookie(value))
    assert response.status == 200 and response.body != server
    fresh = value_of(response)
    assert fresh
    for _ in range(4):
        again = get(weir, '/', with_cookie(fresh))
        assert again.body == response.body and value_of(again) is None


@pytest.mark.parametrize('by', ['active', 'passive'])
def test_a_server_that_is_known_to_be_bad(start_weir, start_origin, by):
    """Its sessions go elsewhere without trying it, and come back only with their old cookie."""
    switches = [Switch(start_origin, str(i)) for i in range(3)]
    more = {'health': QUICK_CHECKS} if by == 'active' else {
        'passive': {'consecutive_errors': 2, 'ejection_time': '"500ms"'}}
    weir = start_weir(sticky(switches, 'retry_on = [503]', **more))
    server, value = session(weir)
    bad = switches[int(server)]
    bad.mode = bad.health = '503'
    if by == 'active':
        weir.wait_log(said(DOWN, bad))
    else:
        for _ in range(3):
            get(weir, '/', with_cookie(value))
        weir.wait_log(said(ASIDE, bad))
    count = bad.count
    response = get(weir, '/', with_cookie(value))
    assert response.status == 200 and response.body != server and value_of(response)
    assert bad.count == count
    bad.mode = bad.health = 'ok'
    wait_until(lambda: get(weir, '/', with_cookie(value)).body == server, what='it is back')


def test_a_server_that_left_the_configuration(start_weir, start_origin):
    origins = named(start_origin)
    weir = start_weir(sticky(origins))
    sessions = [session(weir) for _ in range(6)]
    reload(weir, sticky(origins[1:]))
    for server, value in sessions:
        response = get(weir, '/', with_cookie(value))
        if server == b'0':
            assert response.body != server and value_of(response)
        else:
            assert response.body == server and value_of(response) is None


def test_a_full_server(start_weir, start_origin):
    """A session does not wait for its own server when another one has room."""
    switches = [Switch(start_origin, str(i)) for i in range(2)]
    servers = [server_of(switch.origin, max_connections=1) for switch in switches]
    weir = start_weir(sticky(servers))
    server, value = session(weir)
    own = switches[int(server)]
    own.mode = 'slow 1'
    with Client(weir.port()) as first:
        first.send_request('GET / HTTP/1.1', 'Host: t', with_cookie(value))
        wait_until(lambda: own.count == 2)
        assert get(weir, '/', with_cookie(value)).body != server
        assert first.read_response().body == server


# ---- the key


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / 'key'
    path.write_bytes(bytes(range(100, 132)))
    return path


def test_two_weirs_with_one_key(start_weir, start_origin, key_file):
    origins = named(start_origin)
    cookie = {'key_file': f'"{key_file}"'}
    one, two = (start_weir(sticky(origins, cookie=cookie)) for _ in range(2))
    stranger = start_weir(sticky(origins))
    for _ in range(6):
        server, value = session(one)
        response = get(two, '/', with_cookie(value))
        assert response.body == server and value_of(response) is None
        assert value_of(get(stranger, '/', with_cookie(value)))


def test_reloads_and_restarts(start_weir, start_origin, key_file):
    origins = named(start_origin)
    without = start_weir(sticky(origins))
    server, value = session(without)
    reload(without, sticky(origins, 'read_timeout = "9s"'))
    assert value_of(get(without, '/', with_cookie(value))) is None
    cookie = {'key_file': f'"{key_file}"'}
    weir = start_weir(sticky(origins, cookie=cookie))
    server, value = session(weir)
    weir.stop()
    weir = start_weir(sticky(origins[::-1], cookie=cookie))
    assert get(weir, '/', with_cookie(value)).body == server
    # Another key: nobody's cookie is good any more.
    key_file.write_bytes(b'another key of the right length')
    reload(weir, sticky(origins, 'read_timeout = "9s"', cookie=cookie))
    assert value_of(get(weir, '/', with_cookie(value)))


@pytest.mark.parametrize('content', [None, b'', b'short'])
def test_keys_that_are_none(tmp_path, content):
    path = tmp_path / 'key'
    if content is not None:
        path.write_bytes(content)
    config = tmp_path / 'weir.toml'
    config.write_text(sticky(['127.0.0.1:1'], cookie={'key_file': f'"{path}"'}))
    done = subprocess.run([WEIR, 'check', '-c', str(config)], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 1
    assert 'upstream.o.sticky.key_file' in done.stderr and str(path) in done.stderr
