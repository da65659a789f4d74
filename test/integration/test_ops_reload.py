"""Hot reload: what takes effect, what survives, and that no request notices."""
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import Ended
from ops_rig import RELEASE, Client, get, need, rig, wait_until, wrk_result

__all__ = ['rig']


def config(body='one', listeners=('127.0.0.1:0',), more=''):
    text = ''.join(f'[[listener]]\nname = "l{i}"\naddress = "{address}"\n'
                   for i, address in enumerate(listeners))
    return f'{text}{more}\n[[route]]\npath = "/"\nrespond = {{body = "{body}"}}\n'


def proxying(origin, more='', threads=1):
    return (f'[[listener]]\naddress = "127.0.0.1:0"\n[server]\nthreads = {threads}\n'
            f'[upstream.app]\nservers = ["127.0.0.1:{origin.port}"]\n'
            f'[[route]]\npath = "/"\nproxy = "app"\n{more}')


def body_becomes(server, body, seconds=10):
    wait_until(lambda: get(server.port).body == body, seconds, f'the body {body}')


# ---- what starts a reload

def test_by_sighup(rig):
    server = rig.weir(config())
    assert get(server.port).body == b'one'
    server.reload(config('two'))
    assert get(server.port).body == b'two'


def written_in_place(file, text):
    file.write_text(text)


def written_piece_by_piece(file, text):
    with open(file, 'w') as out:
        for at in range(0, len(text), 20):
            out.write(text[at:at + 20])
            out.flush()
            time.sleep(0.005)


def renamed_over(file, text):
    fresh = file.with_name('fresh')
    fresh.write_text(text)
    os.rename(fresh, file)


def moved_away_and_written(file, text):
    """As vi does with a backup copy."""
    os.rename(file, file.with_suffix('.bak'))
    file.write_text(text)


def removed_and_written(file, text):
    file.unlink()
    time.sleep(0.3)
    file.write_text(text)


@pytest.mark.parametrize('change', [written_in_place, written_piece_by_piece, renamed_over,
                                    moved_away_and_written, removed_and_written])
def test_by_changing_the_file(rig, change):
    server = rig.weir(config())
    for body in ('two', 'three'):  # the watch must outlive what it saw
        change(server.file, config(body))
        body_becomes(server, body.encode())
    assert 'error config' not in server.log()


class TestBySymbolicLink:
    def test_that_is_switched(self, rig, tmp_path):
        for name in ('a', 'b'):
            (tmp_path / name).mkdir()
            (tmp_path / name / 'weir.toml').write_text(config(name))
        link = tmp_path / 'linked.toml'
        link.symlink_to('a/weir.toml')
        server = rig.weir(None, name='linked')
        body_becomes(server, b'a')
        fresh = tmp_path / 'fresh'
        fresh.symlink_to('b/weir.toml')
        os.rename(fresh, link)
        body_becomes(server, b'b')
        # What the link leads to now is watched as well.
        (tmp_path / 'b' / 'weir.toml').write_text(config('written'))
        body_becomes(server, b'written')

    def test_on_the_way_as_kubernetes_mounts_configuration(self, rig, tmp_path):
        for name in ('..2026_1', '..2026_2', '..2026_3'):
            (tmp_path / name).mkdir()
            (tmp_path / name / 'mounted.toml').write_text(config(name))
        data = tmp_path / '..data'
        data.symlink_to('..2026_1')
        (tmp_path / 'mounted.toml').symlink_to('..data/mounted.toml')
        server = rig.weir(None, name='mounted')
        body_becomes(server, b'..2026_1')
        for name in ('..2026_2', '..2026_3'):
            fresh = tmp_path / '..data_tmp'
            fresh.symlink_to(name)
            os.rename(fresh, data)
            body_becomes(server, name.encode())


def test_a_touch_or_an_equal_file_is_no_reload(rig):
    server = rig.weir(config())
    os.utime(server.file)
    renamed_over(server.file, config())
    server.write(config())
    renamed_over(server.file, config('two'))
    body_becomes(server, b'two')
    assert server.log().count('config reloaded') == 1


def test_a_sighup_during_the_start_is_not_lost(rig):
    routes = ''.join(f'[[route]]\npath = "/r{i}/x"\nrespond = {{body = "r"}}\n' for i in range(20000))
    server = rig.weir(config(more='[logging]\naccess_log = "off"\n') + routes, ready=False)
    # Blocked means taken care of: from here on a signal waits for weir.
    wait_until(lambda: int(server.status('SigBlk'), 16) & (1 << (signal.SIGHUP - 1)), 20)
    renamed_over(server.file, config('two'))
    server.tell(signal.SIGHUP)
    server.wait_log('control ready', 20)
    body_becomes(server, b'two')


# ---- what is refused

BROKEN = '[server]\nthreads = "many"\nkeepalive_timeout = "long"\n[nonsense]\n'


@pytest.mark.parametrize('by', ['signal', 'file'])
def test_a_bad_file_keeps_the_old_configuration_and_every_error_is_logged(rig, by):
    server = rig.weir(config())
    since = len(server.log())
    server.write(config() + BROKEN)
    if by == 'signal':
        server.tell(signal.SIGHUP)
    server.wait_log('the old one stays in force', 10, since)
    log = server.log()[since:]
    for key in ('server.threads', 'server.keepalive_timeout', 'nonsense'):
        assert re.search(rf'error config {re.escape(str(server.file))}:\d+:\d+: {key}: ', log), log
    assert get(server.port).body == b'one'
    server.write(config('mended'))
    body_becomes(server, b'mended')


def test_a_file_that_went_away_keeps_the_old_configuration(rig):
    server = rig.weir(config())
    server.file.unlink()
    server.tell(signal.SIGHUP)
    server.wait_log('cannot open the file')
    assert get(server.port).body == b'one'
    server.write(config('back'))
    body_becomes(server, b'back')


def test_a_listener_that_cannot_be_opened_changes_nothing(rig):
    taken = socket.socket()
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    server = rig.weir(config())
    since = len(server.log())
    server.write(config('two', ['127.0.0.1:0', '[::1]:0', f'127.0.0.1:{port}']))
    server.tell(signal.SIGHUP)
    server.wait_log(f'cannot listen on 127.0.0.1:{port}: Address already in use', 10, since)
    server.wait_log('the old one stays in force', 10, since)
    assert get(server.port).body == b'one'
    assert 'control listening' not in server.log()[since:]
    taken.close()
    server.reload()
    assert get(server.port).body == b'two' and get(port).body == b'two'


def test_a_log_that_cannot_be_opened_changes_nothing(rig, tmp_path):
    server = rig.weir(config())
    since = len(server.log())
    where = tmp_path / 'no' / 'such' / 'folder'
    server.write(config('two', ['127.0.0.1:0', '[::1]:0'],
                        f'[logging]\naccess_log = "{where}/access.log"\n'))
    server.tell(signal.SIGHUP)
    server.wait_log('the old one stays in force', 10, since)
    assert 'cannot open the logs' in server.log() and str(where) in server.log()
    assert get(server.port).body == b'one'
    # The listener of the refused configuration is closed again, and can be had next time.
    server.reload(config('three', ['127.0.0.1:0', '[::1]:0']))
    assert get(('::1', server.port_of('l1'))).body == b'three'


@pytest.mark.parametrize('section,key', [
    ('server', 'threads = 1'), ('server', 'cpus = [0]'), ('logging', 'channel_size = 8192'),
    ('performance', 'reuseport_balancing = "cbpf"'), ('performance', 'receive_buffers = 64'),
    ('performance', 'receive_strategy = "oneshot"'), ('performance', 'huge_pages_enabled = true'),
    ('security', 'drop_privileges_user = "nobody"')])
def test_a_key_that_needs_a_restart_warns_and_the_rest_takes_effect(rig, section, key):
    server = rig.weir(config())
    server.reload(config('two', more=f'[{section}]\n{key}\n'))
    name = key.split()[0]
    assert re.search(rf'warn config takes effect only after a restart key={section}\.{name}\b',
                     server.log()), server.log()
    assert get(server.port).body == b'two'


def test_the_warning_compares_with_what_runs_not_with_the_last_file(rig):
    """Changed, changed again, changed back: only the last needs no restart."""
    server = rig.weir(config(more='[server]\nthreads = 1\n'))
    warning = 'only after a restart key=server.threads'
    for threads, warned in ((2, True), (2, True), (1, False)):
        since = len(server.log())
        server.reload(config(f'{threads}', more=f'[server]\nthreads = {threads}\n'))
        assert (warning in server.log()[since:]) == warned, (threads, server.log()[since:])


# ---- what takes effect

def test_settings_and_upstreams_take_effect(rig):
    first, second = rig.origin(), rig.origin()
    server = rig.weir(proxying(first))
    assert get(server.port).status == 200 and len(first.requests) == 1
    server.reload(proxying(second))
    assert get(server.port).status == 200 and len(second.requests) == 1
    server.reload(proxying(second).replace('threads = 1', 'threads = 1\nmax_body_size = 10'))
    with Client(server.port) as client:
        assert client.post('/', b'x' * 11).status == 413
    assert len(first.requests) == len(second.requests) == 1


def test_an_open_connection_gets_the_new_routes_with_its_next_request(rig):
    server = rig.weir(config())
    with Client(server.port) as client:
        assert client.get().body == b'one'
        server.reload(config('two'))
        assert client.get().body == b'two'


def test_added_and_removed_listeners(rig):
    server = rig.weir(config(listeners=['127.0.0.1:0']))
    old = server.port
    with Client(old) as kept:
        assert kept.get().body == b'one'
        server.reload('[[listener]]\nname = "new"\naddress = "[::1]:0"\n[[route]]\n'
                      'respond = {body = "two"}\n')
        new = server.port_of('new')
        assert get(('::1', new)).body == b'two'
        # Connections of a removed listener live on.
        assert kept.get().body == b'two'

        def refused():
            try:
                return not get(old)
            except (ConnectionRefusedError, ConnectionResetError):
                return True

        wait_until(refused)
        assert kept.get().body == b'two'


def test_a_removed_listener_can_come_back_at_once(rig):
    server = rig.weir(config())
    fixed = f'127.0.0.1:{server.port}'
    assert server.stop() == 0
    server = rig.weir(config(listeners=[fixed]), name='again')
    for turn in range(3):
        server.reload(config('away', ['[::1]:0']))
        server.reload(config(f'turn{turn}', [fixed]))
        assert get(server.port).body == f'turn{turn}'.encode()


def test_a_listener_may_move_from_one_address_to_the_wildcard(rig):
    server = rig.weir(config())
    port = server.port
    assert server.stop() == 0
    server = rig.weir(config(listeners=[f'127.0.0.1:{port}']), name='again')
    server.reload(config('wide', [f'0.0.0.0:{port}']))
    wait_until(lambda: get(('127.0.0.2', port)).body == b'wide')
    assert get(('127.0.0.1', port)).body == b'wide'
    server.reload(config('narrow', [f'127.0.0.1:{port}']))
    assert get(('127.0.0.1', port)).body == b'narrow'


def test_one_of_two_equal_port_0_listeners_can_be_removed(rig):
    server = rig.weir(config(listeners=['127.0.0.1:0', '127.0.0.1:0']))
    ports = [server.port_of('l0'), server.port_of('l1')]
    assert [get(port).body for port in ports] == [b'one', b'one']
    server.reload(config('two', ['127.0.0.1:0']))

    def answering():
        count = 0
        for port in ports:
            try:
                count += get(port).body == b'two'
            except (ConnectionRefusedError, ConnectionResetError):
                pass
        return count

    wait_until(lambda: answering() == 1, 5, 'one of both to be closed')


def test_a_unix_listener_comes_and_goes(rig, tmp_path):
    path = tmp_path / 'weir.sock'
    server = rig.weir(config())
    server.reload(config('two', ['127.0.0.1:0', f'unix:{path}']))
    assert get(str(path)).body == b'two'
    server.reload(config('three'))
    wait_until(lambda: not path.exists())
    server.reload(config('four', ['127.0.0.1:0', f'unix:{path}']))
    assert get(str(path)).body == b'four'


# ---- what survives

def test_pooled_connections_survive(rig):
    origin = rig.origin()
    server = rig.weir(proxying(origin))
    with Client(server.port) as client:
        client.get()
        assert len(origin.connections) == 1
        for turn in range(5):
            server.reload(proxying(origin, f'[[route]]\npath = "/t{turn}"\nrespond = {{}}\n'))
            assert client.get().status == 200
            assert get(server.port).status == 200
    assert (len(origin.requests), len(origin.connections)) == (11, 1)


def test_connections_of_a_server_that_left_are_closed(rig):
    gone = threading.Event()

    def script(connection):
        try:
            while True:
                connection.read_request()
                connection.answer()
        except Ended:
            gone.set()

    left, stays = rig.origin(script), rig.origin()
    server = rig.weir(proxying(left))
    assert get(server.port).status == 200
    server.reload(proxying(stays))
    assert get(server.port).status == 200
    assert gone.wait(10), 'the idle connection to the server that left is still open'


class Held:
    """An origin that answers with a head and the first half of a body, the rest when told."""

    def __init__(self, rig):
        self.release = threading.Event()
        self.origin = rig.origin(self.script)

    def script(self, connection):
        request = connection.read_request()
        if request.target == '/held':
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n' + b'a' * 50000)
            assert self.release.wait(30)
            connection.send(b'a' * 50000)
        else:
            assert self.release.wait(30)
            connection.answer(b'late')


def test_old_configurations_are_freed_while_a_long_response_runs(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin) + '[logging]\nlevel = "debug"\n')
    with Client(server.port, timeout=30) as client:
        client.ask('/held')
        assert client.read_head().status == 200
        for turn in range(5):
            server.reload(proxying(held.origin, f'[[route]]\npath = "/t{turn}"\nrespond = {{}}\n')
                          + '[logging]\nlevel = "debug"\n')
        wait_until(lambda: server.stats()['generations'] == 1, 5, 'one generation')
        server.wait_log('old configuration freed')
        held.release.set()
        assert client.read_bytes(100000) == b'a' * 100000


def test_a_request_that_waits_for_its_response_keeps_its_configuration_until_then(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin))
    with Client(server.port, timeout=30) as client:
        client.ask('/late')
        wait_until(lambda: held.origin.requests)
        for turn in range(5):
            server.reload(config(f'turn{turn}'))
        assert server.stats()['generations'] > 1
        assert get(server.port).body == b'turn4'
        held.release.set()
        assert client.read_response().body == b'late'
    wait_until(lambda: server.stats()['generations'] == 1, 5, 'one generation')


def test_memory_does_not_grow_with_reloads(rig):
    """Each configuration is about 1.5 MiB once it is built."""
    def text(turn):
        routes = ''.join(f'[[route]]\npath = "/some/path/number/{i}/of/turn/{turn}"\n'
                         'respond = {body = "x"}\n' for i in range(2000))
        return config(f'turn{turn}') + routes

    server = rig.weir(text(0), binary=RELEASE)
    for turn in range(1, 11):
        server.reload(text(turn))
    before = server.rss_kib()
    for turn in range(11, 41):
        server.reload(text(turn))
    assert server.rss_kib() - before < 8 * 1024, (before, server.rss_kib())
    assert server.stats()['generations'] == 1


# ---- under load

@pytest.mark.parametrize('keep_alive', [True, False], ids=['keep-alive', 'connection each'])
def test_a_hundred_reloads_under_wrk_without_a_failed_request(rig, keep_alive):
    need('wrk')
    origin = rig.weir('[[listener]]\naddress = "127.0.0.1:0"\n[logging]\naccess_log = "off"\n'
                      '[[route]]\nrespond = {body = "from the origin"}\n', binary=RELEASE,
                      name='origin')

    def text(turn):
        # Settings, routes, an upstream and a listener change each time.
        extra = 'name = "extra"\naddress = "[::1]:0"\n' if turn % 2 else None
        return ('[[listener]]\naddress = "127.0.0.1:0"\n'
                + (f'[[listener]]\n{extra}' if extra else '')
                + '[logging]\naccess_log = "off"\n'
                f'[server]\nkeepalive_timeout = "{60 + turn}s"\n'
                f'[upstream.app]\nservers = ["127.0.0.1:{origin.port}"]\n'
                f'[upstream.u{turn}]\nservers = ["127.0.0.1:1"]\n'
                '[[route]]\npath = "/"\nproxy = "app"\n'
                f'[[route]]\npath = "/t{turn}"\nproxy = "u{turn}"\n')

    server = rig.weir(text(0), binary=RELEASE)
    header = [] if keep_alive else ['-H', 'Connection: close']
    load = subprocess.Popen(['wrk', '-t1', '-c50', '-d4s', *header, server.url],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        begin = time.monotonic()
        wait_until(lambda: server.stats()['requests'] > 100)
        for turn in range(1, 101):
            server.reload(text(turn))
        reloading = time.monotonic() - begin
        requests, trouble = wrk_result(load.communicate(timeout=60)[0])
    finally:
        load.kill()
        load.wait()
    print(f'100 reloads in {reloading:.1f} s, {requests} requests')
    assert reloading < 3.7, 'the reloads outlasted the load'
    assert not trouble and requests > 1000, (requests, trouble)
    stats = server.stats()
    assert stats['upstream_errors'] == 0 and stats['responses_5xx'] == 0
    wait_until(lambda: server.stats()['generations'] == 1)
