"""weir ctl (docs/CTL.md): what it shows, what it sets, and what becomes of those who misuse its
socket."""
import concurrent.futures
import errno
import json
import os
import pathlib
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import IO_SECONDS, WEIR, Client, one_listener, respond, wait_until
from ops_rig import Load

root_only = pytest.mark.skipif(os.geteuid() != 0, reason='only root can become somebody else')


@pytest.fixture
def folder():
    """A short path, for sockets, that other users can reach."""
    path = pathlib.Path(tempfile.mkdtemp(prefix='weir-ctl-'))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path(folder):
    return folder / 'control.sock'


def config(path, *origins, upstream='', more='', server='', control=''):
    servers = ', '.join(one if isinstance(one, str) else f'"{one.address}"' for one in origins)
    return one_listener(f'[control]\nsocket = "{path}"\n{control}\n'
                        f'[upstream.api]\nservers = [{servers}]\n{upstream}\n{more}\n'
                        f'[[route]]\nproxy = "api"\n', server)


def run(*words, **more):
    return subprocess.run([WEIR, 'ctl', *map(str, words)], capture_output=True, text=True,
                          timeout=IO_SECONDS * 2, **more)


def ctl(path, *words):
    """Its standard output; it has to succeed."""
    done = run('--socket', path, *words)
    assert (done.returncode, done.stderr) == (0, ''), done
    return done.stdout


def ctl_json(path, *words):
    out = ctl(path, '--json', *words)
    assert out.count('\n') == 1 and out.endswith('\n')
    answer = json.loads(out)
    assert answer['ok'] is True
    return answer


def servers(path, *words):
    """By address (or name)."""
    return {one['address'] or one['name']: one
            for one in ctl_json(path, 'servers', *words)['servers']}


def ask(path, data, timeout=IO_SECONDS):
    """Raw bytes to the socket; everything that comes back until the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        sock.sendall(data)
        answer = b''
        while piece := sock.recv(65536):
            answer += piece
    return answer


def names(weir, count=20, target='/'):
    with Client(weir.port()) as client:
        return [client.get(target).body.decode() for _ in range(count)]


# ---- what it shows


def test_upstreams_and_servers_as_text_and_json(start_weir, start_origin, path):
    one, two = start_origin(respond(b'one')), start_origin(respond(b'two'))
    more = f'[upstream.other]\nservers = ["{one.address}"]\n[[route]]\nhost = "o"\nproxy = "other"\n'
    weir = start_weir(config(path, one, f'{{address = "{two.address}", weight = 3}}', more=more,
                             server='threads = 2').replace('threads = 1\n', ''))
    names(weir, 40)
    answer = ctl_json(path, 'upstreams')
    assert answer['cores'] == 2
    by_name = {entry['name']: entry for entry in answer['upstreams']}
    assert list(by_name) == ['api', 'other']
    api = by_name['api']
    assert (api['servers'], api['up'], api['draining'], api['down'], api['ejected']) == (2, 2, 0, 0, 0)
    assert (api['requests'], api['answers'], api['failures']) == (40, 40, 0)
    assert api['latency_mean_us'] > 0
    assert by_name['other']['requests'] == 0

    seen = servers(path)
    assert ctl_json(path, 'servers')['servers'][2]['upstream'] == 'other'
    assert {key: value['requests'] for key, value in servers(path, 'api').items()} == \
        {one.address: 10, two.address: 30}
    second = servers(path, 'api')[two.address]
    assert (second['weight'], second['weight_configured'], second['state'], second['set']) == \
        (3, 3, 'up', 'up')
    assert second['idle_connections'] >= 1 and second['active'] == 0
    assert second['latency_us'] > 0 and second['health'] == {'checked': False}
    assert second['why'] == '' and set(seen) == {one.address, two.address}

    lines = ctl(path, 'upstreams').splitlines()
    assert lines[0].split()[:6] == ['UPSTREAM', 'SERVERS', 'UP', 'DRAINING', 'DOWN', 'EJECTED']
    assert lines[1].split()[:6] == ['api', '2', '2', '0', '0', '0']
    assert len(lines) == 3 and len(set(map(len, lines))) == 1
    lines = ctl(path, 'servers', 'api').splitlines()
    assert len(lines) == 3
    head, row = lines[0].split(), lines[2].split()
    assert len(head) == len(row) == 15
    table = dict(zip(head, row))
    assert (table['SERVER'], table['STATE'], table['WEIGHT'], table['REQUESTS']) == \
        (two.address, 'up', '3', '30')
    assert re.fullmatch(r'\d+(\.\d)?(us|ms|s)', table['LATENCY']), table


def test_the_socket_is_that_of_the_configuration(start_weir, start_origin, path):
    weir = start_weir(config(path, start_origin()))
    for words in (['-c', weir.config], [f'--config={weir.config}']):
        done = run(*words, 'version')
        assert (done.returncode, done.stderr) == (0, '')
        assert re.fullmatch(rf'weir \S+, process {weir.pid}\n', done.stdout)
    # Also of one that would not be taken.
    weir.rewrite(weir.config.read_text() + '[nonsense]\n')
    assert run('-c', weir.config, 'version').returncode == 0
    weir.wait_log('was not reloaded')


def test_requests_under_way_and_a_draining_server_finishes_them(start_weir, start_origin, path):
    go = threading.Event()

    def script(connection):
        while True:
            if connection.read_request().target == '/hold':
                assert go.wait(IO_SECONDS * 3)
            connection.answer(b'held')
    holder, other = start_origin(script), start_origin(respond(b'other'))
    weir = start_weir(config(path, holder, other))
    ctl(path, 'set', 'api', other.address, 'down')
    with Client(weir.port()) as client:
        client.send_request('GET /hold HTTP/1.1', 'Host: t')
        wait_until(lambda: servers(path)[holder.address]['active'] == 1, what='one under way')
        assert ctl_json(path, 'upstreams')['upstreams'][0]['active'] == 1
        assert ctl(path, 'set', 'api', holder.address, 'drain') == \
            f'{holder.address} of api: draining\nnote: no server of api is up now\n'
        ctl(path, 'set', 'api', other.address, 'up')
        assert set(names(weir)) == {'other'}
        assert servers(path)[holder.address]['active'] == 1
        go.set()
        assert client.read_response().body == b'held'
    wait_until(lambda: servers(path)[holder.address]['active'] == 0, what='none under way')


def test_why_a_server_gets_nothing(start_weir, start_origin, path):
    def closes(connection):
        connection.read_request()
    good, bad = start_origin(respond(b'good')), start_origin(closes)
    weir = start_weir(config(
        path, good, bad, upstream='[upstream.api.passive_check]\nconsecutive_errors = 2\n'
        'ejection_time = "1m"\nmax_ejected_percent = 60'))
    wait_until(lambda: names(weir, 4) and servers(path)[bad.address]['cores_ejected'] == 1,
               what='an ejection')
    view = servers(path)[bad.address]
    assert view['why'] == 'ejected: errors in a row' and view['ejections'] == 1
    assert view['failures'] >= 2 and view['state'] == 'up'
    api = ctl_json(path, 'upstreams')['upstreams'][0]
    assert api['ejected'] == 1 and api['retries'] >= 2 and api['failures'] >= 2
    line = next(line for line in ctl(path, 'servers').splitlines() if bad.address in line)
    assert line.endswith('  ejected: errors in a row') and ' 1/1 ' in line


def test_checks_and_what_they_say(start_weir, start_origin, path):
    good, bad = start_origin(respond(b'good')), start_origin(respond(b'no', status='500 Oops'))
    weir = start_weir(config(
        path, good, bad, upstream='[upstream.api.health_check]\ninterval = "100ms"\n'
        'timeout = "90ms"\nunhealthy_threshold = 2\nhealthy_threshold = 1'))
    wait_until(lambda: servers(path)[bad.address]['state'] == 'down', what='a failed check')
    view = servers(path)
    health = view[bad.address]['health']
    assert health['checked'] is True and health['healthy'] is False and health['status'] == 500
    assert health['failed'] >= 2 and health['failed_in_a_row'] >= 2 and health['passed'] == 0
    assert health['since_ms_ago'] < 60_000 and health['last_ms_ago'] < 60_000
    assert view[bad.address]['why'] == 'check failed: ' + health['reason']
    wait_until(lambda: servers(path)[good.address]['health']['passed'] > 0, what='a passed check')
    assert servers(path)[good.address]['health']['healthy'] is True
    text = ctl(path, 'servers')
    assert re.search(r'  bad \d\S*  +check failed: ', text) and re.search(r'  good \d', text)
    assert '\x1b' not in text
    assert set(names(weir)) == {'good'}


def test_a_server_by_name_has_its_addresses(start_weir, start_origin, path, folder):
    origin = start_origin(respond(b'named'))
    hosts = folder / 'hosts'
    hosts.write_text('127.0.0.1 app.test\n')
    weir = start_weir(config(
        path, f'"app.test:{origin.port}"', '"127.0.0.1:1"',
        more=f'[resolver]\nhosts = "{hosts}"\nservers = ["127.0.0.1:9"]'))
    wait_until(lambda: origin.address in servers(path), what='an address')
    view = servers(path)[origin.address]
    assert view['name'] == f'app.test:{origin.port}' and view['resolved'] is True
    # By its name, and by its address.
    ctl(path, 'set', 'api', view['name'], 'drain')
    assert servers(path)[origin.address]['state'] == 'draining'
    ctl(path, 'set', 'api', origin.address, 'up')
    assert servers(path)[origin.address]['state'] == 'up'
    ctl(path, 'set', 'api', '127.0.0.1:1', 'down')
    assert set(names(weir, 4)) == {'named'}


def test_a_path_with_a_space(start_weir, path, folder):
    where = folder / 'an app'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen(1)
        start_weir(config(path, f'"unix:{where}"', '"127.0.0.1:1"'))
        ctl(path, 'set', 'api', f'unix:{where}', 'drain')
        assert servers(path)[f'unix:{where}']['state'] == 'draining'


# ---- what it sets


@pytest.mark.parametrize('threads', [1, 2])
def test_states_take_effect_at_once_under_traffic(start_weir, start_origin, path, threads):
    one, two = start_origin(respond(b'one')), start_origin(respond(b'two'))
    weir = start_weir(config(path, one, two).replace('threads = 1', f'threads = {threads}'))
    load = Load(weir.port(), clients=4)
    try:
        for word, state in (('down', 'down'), ('drain', 'draining')):
            assert ctl_json(path, 'set', 'api', one.address, word) == {
                'ok': True, 'upstream': 'api', 'server': one.address, 'set': state, 'servers_up': 1}
            # The answer comes when the order is on its way; this one has been behind it on each core.
            view = servers(path)[one.address]
            assert (view['state'], view['set'], view['why']) == (state, state, f'set to {state}')
            wait_until(lambda: servers(path)[one.address]['active'] == 0, what='the last request')
            before = len(one.requests)
            assert set(names(weir, 50)) == {'two'}
            assert len(one.requests) == before
            assert ctl(path, 'set', 'api', one.address, 'up') == f'{one.address} of api: up\n'
            wait_until(lambda: set(names(weir, 10)) == {'one', 'two'}, what='both again')
    finally:
        load.stop()
    assert not load.failures, load.failures[:5]
    assert 'reloaded' not in weir.log()
    weir.wait_log(r'ordered by ctl order="text set api \S+ up" uid=')


def test_all_down_is_503_and_up_again_serves(start_weir, start_origin, path):
    origin = start_origin(respond(b'one'))
    weir = start_weir(config(path, origin))
    assert 'note: no server of api is up now' in ctl(path, 'set', 'api', origin.address, 'down')
    with Client(weir.port()) as client:
        response = client.get('/')
    assert response.status == 503 and response.get('Retry-After')
    ctl(path, 'set', 'api', origin.address, 'up')
    assert names(weir, 3) == ['one'] * 3


def test_weights_take_effect_at_once(start_weir, start_origin, path):
    one, two = start_origin(respond(b'one')), start_origin(respond(b'two'))
    weir = start_weir(config(path, one, two))
    assert names(weir, 40).count('one') == 20
    assert ctl_json(path, 'weight', 'api', one.address, 4)['weight'] == 4
    assert abs(names(weir, 100).count('one') - 80) <= 1
    view = servers(path)[one.address]
    assert (view['weight'], view['weight_configured'], view['why']) == \
        (4, 1, 'weight set, configured is 1')
    ctl(path, 'weight', 'api', two.address, 0)
    assert set(names(weir)) == {'one'}
    # The last one that has any.
    done = run('--socket', path, 'weight', 'api', one.address, 0)
    assert done.returncode == 1 and 'weight 0' in done.stderr
    assert set(names(weir)) == {'one'}


def test_what_was_set_survives_reloads(start_weir, start_origin, path):
    one, two, three = (start_origin(respond(name)) for name in (b'one', b'two', b'three'))
    weir = start_weir(config(path, one, two))
    ctl(path, 'set', 'api', one.address, 'down')
    ctl(path, 'weight', 'api', two.address, 7)
    weir.rewrite(config(path, one, two, three))
    assert re.fullmatch(r'reloaded: generation \d+\n', ctl(path, 'reload'))
    view = servers(path)
    assert [view[o.address]['state'] for o in (one, two, three)] == ['down', 'up', 'up']
    assert [view[o.address]['weight'] for o in (one, two, three)] == [1, 7, 1]
    assert set(names(weir, 32)) == {'two', 'three'}
    count = len(weir.wait_log('config reloaded'))
    weir.send_signal(signal.SIGHUP)
    weir.wait_log('config reloaded', count + 1)
    assert servers(path)[one.address]['state'] == 'down'
    assert 'takes effect only after a restart' not in weir.log()
    # A weight that the configuration gives anew counts.
    weir.rewrite(config(path, one, f'{{address = "{two.address}", weight = 2}}', three))
    ctl(path, 'reload')
    view = servers(path)
    assert (view[two.address]['weight'], view[one.address]['state']) == (2, 'down')


def test_reload_tells_whether_it_was_taken(start_weir, start_origin, path):
    origin = start_origin(respond(b'old'))
    weir = start_weir(config(path, origin))
    weir.rewrite(config(path, origin, more='[nonsense]'))
    done = run('--socket', path, 'reload')
    assert (done.returncode, done.stdout) == (1, '')
    line = config(path, origin, more='[nonsense]').split('\n').index('[nonsense]') + 1
    assert f'not reloaded: {weir.config}:{line}:' in done.stderr, done.stderr
    assert 'nonsense' in done.stderr and 'more' not in done.stderr
    weir.rewrite(config(path, origin, more='[nonsense]\n[trash]\n[rubbish]'))
    said = json.loads(run('--socket', path, '--json', 'reload').stdout)
    assert 'nonsense' in said['error'] and '2 errors more' in said['error']
    # What only the taking of it shows, and only that.
    taken = socket.create_server(('127.0.0.1', 0))
    with taken:
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        weir.rewrite(config(path, origin,
                            more=f'[[listener]]\nname = "other"\naddress = "{address}"'))
        said = run('--socket', path, 'reload').stderr
        assert f'{weir.config}:' in said and address in said, said
    assert names(weir, 2) == ['old'] * 2
    weir.rewrite(config(path, origin))
    first = ctl_json(path, 'reload')['generation']
    assert ctl_json(path, 'reload')['generation'] == first + 1


# ---- what is wrong


@pytest.fixture
def quiet(start_weir, start_origin, path):
    return start_weir(config(path, start_origin(respond(b'ok'))))


@pytest.mark.parametrize('words,status,text', [
    (['list'], 2, 'there is no command "list"'),
    (['set', 'api', 'x'], 2, 'it is: set UPSTREAM SERVER up|drain|down'),
    (['set', 'api', 'x', 'sideways'], 2, '"sideways"'),
    (['weight', 'api', 'x', 'heavy'], 2, '"heavy"'),
    (['weight', 'api', 'x', '1000001'], 2, '1000000'),
    (['servers', 'api', 'x'], 2, 'it is: servers [UPSTREAM]'),
    (['servers', 'nobody'], 1, '"nobody"'),
    (['set', 'nobody', 'x', 'up'], 1, '"nobody"'),
    (['set', 'api', '10.9.9.9:1', 'up'], 1, '"10.9.9.9:1"'),
    (['weight', 'api', '10.9.9.9:1', '1'], 1, '"10.9.9.9:1"'),
    (['servers', 'a\x1b[31m\tb'], 2, 'control characters'),
    (['servers', 'a\nb'], 2, 'line break'),
    (['servers', 'x' * 5000], 2, 'at most 4096 bytes'),
    (['--', '--json'], 2, 'there is no command "--json"'),
])
def test_a_bad_command_says_so(quiet, path, words, status, text):
    done = run('--socket', path, *words)
    assert (done.returncode, done.stdout) == (status, ''), done
    assert done.stderr.startswith('weir: ') and text in done.stderr, done
    assert '\x1b' not in done.stderr
    if '--' in words or '\n' in words[-1]:
        return
    done = run('--socket', path, '--json', *words)
    assert done.returncode == status
    answer = json.loads(done.stdout)
    assert answer['ok'] is False and text in answer['error']
    assert answer['kind'] == ('usage' if status == 2 else 'failed')


@pytest.mark.parametrize('words', [[], ['--json'], ['--socket'], ['--socket='], ['-x', 'help'],
                                   ['--socket', '/x', '-c', '/y', 'help'], ['-c'],
                                   ['help', '--nonsense']])
def test_a_wrong_command_line_is_2(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith('weir: ') and 'weir --help' in done.stderr


def test_help(quiet, path):
    for word in ('upstreams', 'servers', 'set', 'weight', 'reload', 'version', 'help'):
        assert re.search(rf'^{word}\b', ctl(path, 'help'), re.M)
    assert 'weir ctl' in run('--help').stdout


def test_nobody_answers(folder, path, start_origin):
    done = run('--socket', path, 'version')
    assert done.returncode == 1 and f'there is no socket {path}' in done.stderr
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    done = run('--socket', path, 'version')
    assert done.returncode == 1 and f'nobody listens on {path}' in done.stderr
    file = folder / 'weir.toml'
    file.write_text('[[listener]]\naddress = "127.0.0.1:0"\n[[route]]\nrespond = {body = "x"}\n')
    done = run('-c', file, 'version')
    assert done.returncode == 1 and '[control]' in done.stderr and 'socket = ' in done.stderr
    done = run('-c', folder / 'none.toml', 'version')
    assert done.returncode == 1 and 'cannot open the file' in done.stderr
    assert run('--socket', '/' + 'x' * 200, 'version').returncode == 1


def test_an_answer_that_ends_in_the_middle_is_none(path):
    """A weir that dies, or cuts off a reader that is too slow."""
    for data, words in ((b'ok 10\nhalf', []), (b'ok', []), (b'', []),
                        (b'{"ok":true,"upstreams":[]}', ['--json']), (b'', ['--json'])):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)

            def answer():
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(data)
            thread = threading.Thread(target=answer)
            thread.start()
            done = run('--socket', path, *words, 'upstreams')
            thread.join()
        path.unlink()
        assert (done.returncode, done.stdout) == (1, ''), (data, done)
        assert 'ends in the middle' in done.stderr


# ---- those who misuse the socket


def test_raw_requests(quiet, path):
    assert ask(path, b'text help\n').startswith(b'ok ')
    assert ask(path, b'json version\r\n').startswith(b'{"ok":true')
    for data in (b'\n', b'GET / HTTP/1.1\r\n\r\n', b'\x00\xff\xfe\n', b'upstreams\n', b'json\n',
                 b'json  \n', b'text set "api\n', b'x' * 10_000, b'\x16\x03\x01\x02\x00\n'):
        answer = ask(path, data)
        assert answer.startswith((b'usage ', b'{"ok":false,"kind":"usage"')), (data, answer)
    assert ask(path, b'json x\xff\x1b\n') == \
        b'{"ok":false,"kind":"usage","error":"a request has no control characters"}\n'
    assert b'\\u00ff' in ask(path, b'json x\xff\n')
    # Bytes behind the request do no harm to its answer.
    assert ask(path, b'text version\n' + b'y' * 1000).startswith(b'ok ')


@pytest.mark.seconds(90)
def test_half_requests_are_cut_off_and_are_in_nobodys_way(quiet, path):
    begin = time.monotonic()
    halves = []
    for _ in range(40):  # more than are let in at a time
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(b'json set api x d')
        halves.append(sock)
    assert names(quiet, 20) == ['ok'] * 20  # the data path does not notice
    assert ctl(path, 'version')  # waits its turn
    assert 4 < time.monotonic() - begin < 25
    for sock in halves:
        answer = b''
        while piece := sock.recv(4096):
            answer += piece
        assert b'no whole request came within 5s' in answer
        sock.close()


def test_a_reader_that_does_not_read_is_cut_off(start_weir, path):
    many = ',\n'.join(f'"10.1.{i // 250}.{i % 250 + 1}:80"' for i in range(4000))
    weir = start_weir(config(path, many))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(IO_SECONDS)
        sock.connect(str(path))
        sock.sendall(b'json servers\n')
        sock.recv(1)
        # Others are served meanwhile, whole.
        assert len(servers(path)) == 4000
        assert len(ctl(path, 'servers').splitlines()) == 4001
        files = f'/proc/{weir.pid}/fd'
        count = len(os.listdir(files))
        wait_until(lambda: len(os.listdir(files)) < count, 20, 'the end of the connection')
        answer = b'{'
        while piece := sock.recv(65536):
            answer += piece
    assert not answer.endswith(b'\n')


@pytest.mark.seconds(90)
def test_many_at_once(start_weir, start_origin, path):
    one, two = start_origin(respond(b'one')), start_origin(respond(b'two'))
    weir = start_weir(config(path, one, two).replace('threads = 1', 'threads = 2'))
    load = Load(weir.port(), clients=2)

    def work(i):
        if i % 5 == 0:
            return ask(path, f'json weight api {one.address} {i % 7 + 1}\n'.encode())
        return ask(path, (b'json upstreams\n', b'json servers\n', b'json servers api\n',
                          b'json version\n')[i % 4])
    try:
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(work, range(500)))
    finally:
        load.stop()
    assert all(json.loads(answer)['ok'] for answer in answers)
    assert not load.failures, load.failures[:5]
    files = f'/proc/{weir.pid}/fd'
    wait_until(lambda: sum(os.readlink(f'{files}/{fd}').startswith('socket:')
                           for fd in os.listdir(files) if os.path.lexists(f'{files}/{fd}')) < 20,
               what='closed connections')


# ---- the file


def mode_of(path):
    info = os.lstat(path)
    assert stat.S_ISSOCK(info.st_mode)
    return stat.S_IMODE(info.st_mode)


@pytest.mark.parametrize('setting,mode', [('', 0o600), ('socket_mode = "0660"', 0o660),
                                          ('socket_mode = "0777"', 0o777)])
def test_permissions_of_the_socket(start_weir, start_origin, path, setting, mode):
    weir = start_weir(config(path, start_origin(), control=setting))
    assert mode_of(path) == mode
    if os.geteuid() == 0:
        # Of the group nogroup: others than root need the last three bits.
        done = run('--socket', path, 'version', user='nobody', group='nogroup', extra_groups=[])
        assert done.returncode == (0 if mode == 0o777 else 1), done
        assert mode == 0o777 or f'no permission to use {path}' in done.stderr
    weir.stop()
    assert not path.exists()


@root_only
def test_the_socket_is_the_new_users(start_weir, start_origin, path):
    weir = start_weir(config(path, start_origin(),
                             more='[security]\ndrop_privileges_user = "nobody"\n'))
    user = pwd.getpwnam('nobody')
    info = os.lstat(path)
    assert (info.st_uid, info.st_gid, mode_of(path)) == (user.pw_uid, user.pw_gid, 0o600)
    done = run('--socket', path, 'version', user='nobody', group='nogroup', extra_groups=[])
    assert done.returncode == 0, done
    weir.stop()
    # nobody may not remove it from a folder of root's; the next start does not mind.
    assert path.exists()
    start_weir(config(path, start_origin()))
    assert ctl(path, 'version')


def test_a_socket_that_a_dead_weir_left(start_weir, start_origin, path):
    dead = start_weir(config(path, start_origin()))
    dead.kill()
    dead.stopped = True
    assert path.exists()
    start_weir(config(path, start_origin()))
    assert ctl(path, 'version')


def start_refused(folder, text):
    file = folder / 'second.toml'
    file.write_text(text)
    done = subprocess.run([WEIR, 'run', '-c', str(file)], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 1, done
    return done.stderr


def test_the_socket_of_another_weir_is_left_alone(quiet, folder, path, start_origin):
    said = start_refused(folder, config(path, start_origin()))
    assert f'cannot listen on {path}: another process listens there' in said, said
    assert ctl(path, 'version') == f'weir {ctl_json(path, "version")["version"]}, process {quiet.pid}\n'


def test_what_is_in_the_way_is_left_alone(folder, start_origin):
    file = folder / 'precious'
    file.write_text('precious')
    assert 'no socket' in start_refused(folder, config(file, start_origin()))
    assert file.read_text() == 'precious'
    said = start_refused(folder, config(folder / 'none' / 'control.sock', start_origin()))
    assert 'its directory does not exist' in said, said


def test_the_end(start_weir, start_origin, path):
    """While weir drains it still tells, but takes no new configuration; then the socket is gone."""
    go = threading.Event()

    def script(connection):
        connection.read_request()
        assert go.wait(IO_SECONDS * 3)
        connection.answer(b'done')
    weir = start_weir(config(path, start_origin(script)))
    with Client(weir.port()) as client:
        client.send_request('GET / HTTP/1.1', 'Host: t')
        wait_until(lambda: ctl_json(path, 'upstreams')['upstreams'][0]['active'] == 1,
                   what='one under way')
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(path))
            half.sendall(b'json serv')
            weir.send_signal(signal.SIGTERM)
            weir.wait_log('shutting down')
            assert ctl_json(path, 'upstreams')['upstreams'][0]['active'] == 1
            assert run('--socket', path, 'reload').returncode == 1
            go.set()
            assert client.read_response().body == b'done'
            weir.stop()
    assert not path.exists()


def test_a_successor_of_one_that_drains(start_weir, start_origin, path):
    """It takes over port and socket; the older one ends without taking the socket away."""
    go = threading.Event()

    def script(connection):
        connection.read_request()
        assert go.wait(IO_SECONDS * 3)
        connection.answer(b'done')
    origin = start_origin(script)
    old = start_weir(config(path, origin))
    with Client(old.port()) as client:
        client.send_request('GET / HTTP/1.1', 'Host: t')
        wait_until(lambda: origin.requests, what='one under way')
        assert start_refused(path.parent, config(path, origin)), 'the older one is at work'
        old.send_signal(signal.SIGTERM)
        old.wait_log('shutting down')
        assert ctl_json(path, 'version')['draining'] is True
        assert ctl(path, 'version').endswith(', shutting down\n')
        address = ('127.0.0.1', old.port())

        def closed():
            with socket.socket() as probe:
                return probe.connect_ex(address) == errno.ECONNREFUSED
        wait_until(closed, what='the older one accepts nobody any more')
        new = start_weir(config(path, origin).replace('127.0.0.1:0', '%s:%d' % address, 1))
        said = ctl_json(path, 'version')
        assert (said['pid'], said['draining']) == (new.pid, False)
        go.set()
        assert client.read_response().body == b'done'
        old.stop()
    assert path.exists() and ctl_json(path, 'version')['pid'] == new.pid
    with Client(new.port()) as client:
        assert client.get('/').body == b'done'


@pytest.mark.parametrize('stays', [False, True])
def test_a_predecessor_that_goes_while_it_is_asked(start_weir, start_origin, path, stays):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()

        def go():
            select.select([old], [], [], IO_SECONDS)
            if not stays:
                path.unlink()
            old.close()
        going = threading.Thread(target=go)
        going.start()
        start_weir(config(path, start_origin()))
        going.join()
    assert ctl(path, 'version')


def test_without_a_socket_nothing_is_made(start_weir, start_origin, folder, path):
    weir = start_weir(config(path, start_origin(respond(b'ok'))).replace(
        f'socket = "{path}"', 'socket = ""'))
    assert names(weir, 1) == ['ok'] and list(folder.iterdir()) == []
