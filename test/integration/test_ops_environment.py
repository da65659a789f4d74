"""Privileges, and an environment that is short of something."""
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from ops_rig import (WEIR, Client, Load, Rig, default_respond, get, need, rig, wait_until)

__all__ = ['rig']

root_only = pytest.mark.skipif(os.geteuid() != 0, reason='needs root')


def config(security='', more='', server='threads = 1', listener='127.0.0.1:0'):
    return (f'[[listener]]\naddress = "{listener}"\n[server]\n{server}\n[security]\n{security}\n{more}\n'
            + default_respond())


def nobody():
    return pwd.getpwnam('nobody')


# ---- privileges

@pytest.fixture
def open_rig():
    """A rig in a folder that everybody may enter; pytest's own are root's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        rig = Rig(pathlib.Path(name))
        try:
            yield rig
        finally:
            rig.close()


@root_only
def test_privileges_are_dropped_by_every_thread(rig):
    server = rig.weir(config('drop_privileges_user = "nobody"', server='threads = 2'))
    user, group = str(nobody().pw_uid), str(nobody().pw_gid)
    for thread in os.listdir(f'/proc/{server.pid}/task'):
        assert server.status('Uid', thread).split() == [user] * 4
        assert server.status('Gid', thread).split() == [group] * 4
        assert server.status('Groups', thread).strip() == ''
        assert int(server.status('CapPrm', thread), 16) == 0
        assert int(server.status('CapEff', thread), 16) == 0
        assert server.status('NoNewPrivs', thread) == '1'
    assert get(server.port).status == 200


@root_only
def test_a_group_of_its_own(rig):
    server = rig.weir(config('drop_privileges_user = "nobody"\ndrop_privileges_group = "daemon"'))
    assert server.status('Uid').split() == [str(nobody().pw_uid)] * 4
    assert server.status('Gid').split() == ['1'] * 4


@root_only
@pytest.mark.parametrize('security,text', [
    ('drop_privileges_user = "no-such-user"', 'no user \\"no-such-user\\"'),
    ('drop_privileges_user = "nobody"\ndrop_privileges_group = "no-such-group"',
     'no group \\"no-such-group\\"')])
def test_an_account_that_is_not_there_is_1(rig, security, text):
    server = rig.weir(config(security), ready=False)
    server.expected = {1}
    assert server.wait(20) == 1
    assert 'cannot drop privileges' in server.log() and text in server.log(), server.log()


@root_only
def test_dropping_privileges_without_having_any_is_1(open_rig):
    name = copy_for_nobody(open_rig.folder)
    server = open_rig.weir(config('drop_privileges_user = "daemon"'), binary=name, ready=False,
                      user='nobody', group='nogroup', extra_groups=[])
    server.expected = {1}
    assert server.wait(20) == 1
    assert 'cannot drop privileges' in server.log() and 'not permitted' in server.log()


def copy_for_nobody(folder):
    """Nobody cannot reach our build folder, nor the rig's configuration; both are opened up."""
    name = folder / 'weir'
    name.write_bytes(pathlib.Path(WEIR).read_bytes())
    name.chmod(0o755)
    return str(name)


@root_only
def test_a_privileged_port_is_bound_before(rig):
    port = next(port for port in range(1023, 900, -1) if is_free(port))
    server = rig.weir(config('drop_privileges_user = "nobody"', listener=f'127.0.0.1:{port}'))
    assert server.status('Uid').split()[0] == str(nobody().pw_uid)
    assert get(port).status == 200
    # Another one cannot be had any more, and the message says why.
    server.write(config('drop_privileges_user = "nobody"', listener=f'127.0.0.1:{port - 1}'))
    server.tell(signal.SIGHUP)
    # Nor can the file be read, where only root may.
    server.wait_log('the old one stays in force')
    assert get(port).status == 200


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


@root_only
def test_logs_can_be_written_rotated_and_reopened_afterwards(open_rig):
    logs = open_rig.folder / 'logs'
    logs.mkdir()
    os.chown(logs, nobody().pw_uid, nobody().pw_gid)
    access = logs / 'access.log'
    server = open_rig.weir(config('drop_privileges_user = "nobody"',
                             f'[logging]\naccess_log = "{access}"\nflush_interval = "10ms"\n'
                             'max_log_size = "64KiB"\n'))
    assert access.stat().st_uid == nobody().pw_uid
    with Client(server.port) as client:
        client.get('/first')
        wait_until(lambda: '/first' in access.read_text())
        access.rename(logs / 'moved.log')
        server.tell(signal.SIGUSR1)
        server.wait_log('log files opened again')
        client.get('/second')
        wait_until(lambda: '/second' in access.read_text())
        for _ in range(400):
            client.get('/' + 'x' * 200)
        wait_until((logs / 'access.log.1').exists)
    assert 'error log' not in server.log()


@root_only
def test_a_reload_and_a_unix_socket_after_dropping(open_rig):
    """What a user without privileges may do, weir can still do."""
    path = open_rig.folder / 'run'
    path.mkdir()
    os.chown(path, nobody().pw_uid, nobody().pw_gid)
    file = open_rig.folder / 'weir.toml'
    file.write_text(config('drop_privileges_user = "nobody"'))
    server = open_rig.weir(None)
    server.reload(config('drop_privileges_user = "nobody"',
                         f'[[listener]]\naddress = "unix:{path}/weir.sock"\n'))
    assert get(f'{path}/weir.sock').status == 200
    assert (path / 'weir.sock').stat().st_uid == nobody().pw_uid
    assert server.stop() == 0
    assert not (path / 'weir.sock').exists()


@root_only
def test_a_listener_may_move_to_the_wildcard_after_dropping(open_rig):
    """Sockets of the same port then have two owners, which SO_REUSEPORT alone does not allow."""
    first = open_rig.weir(config())
    port = first.port
    assert first.stop() == 0
    user = 'drop_privileges_user = "nobody"'
    server = open_rig.weir(config(user, listener=f'127.0.0.1:{port}'), name='dropped')
    since = len(server.log())
    server.write(config(user, listener=f'0.0.0.0:{port}'))
    os.chmod(server.file, 0o644)
    server.tell(signal.SIGHUP)
    match = server.wait_log(r'config reloaded|the old one stays in force', since=since)
    # Either way somebody serves the port, and a refusal says which address it is about.
    if 'reloaded' not in match.group(0):
        assert f'cannot listen on 0.0.0.0:{port}' in server.log()[since:]
    assert get(port).status == 200


@root_only
def test_weir_needs_no_root_at_all(open_rig):
    name = copy_for_nobody(open_rig.folder)
    server = open_rig.weir(config(), binary=name, user='nobody', group='nogroup', extra_groups=[])
    assert server.status('Uid').split()[0] == str(nobody().pw_uid)
    assert get(server.port).status == 200


@root_only
def test_without_the_capability_a_privileged_port_is_1_and_says_so(open_rig):
    if int(pathlib.Path('/proc/sys/net/ipv4/ip_unprivileged_port_start').read_text()) <= 1:
        pytest.skip('ports below 1024 are for everyone here')
    server = open_rig.weir(config(listener='127.0.0.1:999'), binary=copy_for_nobody(open_rig.folder),
                      user='nobody', group='nogroup', extra_groups=[], ready=False)
    server.expected = {1}
    assert server.wait(20) == 1
    assert 'cannot listen on 127.0.0.1:999: Permission denied' in server.log()
    assert 'CAP_NET_BIND_SERVICE' in server.log()


@root_only
def test_an_unreadable_configuration_is_1_and_says_so(open_rig):
    (open_rig.folder / 'weir.toml').write_text(config())
    (open_rig.folder / 'weir.toml').chmod(0o600)
    server = open_rig.weir(None, binary=copy_for_nobody(open_rig.folder), user='nobody', group='nogroup',
                      extra_groups=[], ready=False)
    server.expected = {1}
    assert server.wait(20) == 1
    assert 'cannot open the file: Permission denied' in server.log()


# ---- short of something

def limited(kind, soft, hard=None):
    """Prefix of a command: root may raise hard limits again, so the right to that is taken away."""
    need('setpriv', 'prlimit')
    words = ['prlimit', f'--{kind}={soft}:{hard or soft}']
    if os.geteuid() == 0:
        words += ['setpriv', '--bounding-set=-sys_resource', '--inh-caps=-sys_resource']
    return words


FEW = 96  # rings, wake-ups, listeners and logs of one core take about 20


def test_few_descriptors_pause_accepting_and_it_recovers(rig):
    server = rig.weir(config(), prefix=limited('nofile', FEW))
    clients = []
    for _ in range(3 * FEW):  # the backlog takes what weir cannot
        clients.append(Client(server.port))
    answered = [client for client in clients[:30] if client.get().status == 200]
    assert len(answered) == 30
    wait_until(lambda: server.stats()['accept_failures'] > 2)
    spent = cpu_seconds(server.pid)
    time.sleep(1)
    assert cpu_seconds(server.pid) - spent < 0.3, 'it spins'
    waiting = clients[-1]
    waiting.ask()
    for client in clients[:-20]:
        client.close()
    assert waiting.read_response().status == 200
    for client in clients[-20:]:
        client.close()
    assert get(server.port).status == 200
    wait_until(lambda: server.stats()['connections'] == 0)


def cpu_seconds(pid):
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_without_a_descriptor_for_the_origin_503_and_then_service_again(rig):
    origin = rig.origin()
    server = rig.weir(f'[[listener]]\naddress = "127.0.0.1:0"\n[server]\nthreads = 1\n'
                      f'[[route]]\nproxy = "{origin.url}"\n[upstream_defaults]\n'
                      'max_idle_connections_per_host = 0\n', prefix=limited('nofile', FEW))
    clients = []
    while True:
        clients.append(Client(server.port))
        try:
            response = clients[-1].get()
        except (TimeoutError, socket.timeout):
            pytest.fail('no answer')
        if response.status != 200:
            break
        assert len(clients) < FEW
    assert response.status == 503, response
    clients.pop(0).close()
    clients.pop(0).close()
    wait_until(lambda: clients[-1].get().status == 200)
    for client in clients:
        client.close()


def test_a_start_with_hardly_any_descriptor_ends_with_1_and_a_reason(rig):
    for count in (3, 4, 5, 6, 8, 10, 12):
        server = rig.weir(config(), prefix=limited('nofile', count), ready=False, name=f'files{count}')
        server.expected = {0, 1, 127}  # 127: not even its libraries could be opened
        wait_until(lambda server=server: server.process.poll() is not None
                   or 'control ready' in server.log(), 20)
        if server.process.poll() is not None:
            assert server.log().strip(), count
            assert re.search(r'descriptor|files|shared libraries', server.log(), re.I), server.log()


@pytest.mark.parametrize('kib', [0, 8, 64])
def test_little_locked_memory(rig, kib):
    """Since 5.12 rings are charged to the memory cgroup; before, it must be said what is missing."""
    words = limited('memlock', kib * 1024)
    if os.geteuid() == 0:
        words[-2] += ',-ipc_lock'
    server = rig.weir(config(), prefix=words, ready=False)
    server.expected = {0, 1}
    wait_until(lambda: server.process.poll() is not None or 'control ready' in server.log(), 20)
    if server.process.poll() is None:
        assert get(server.port).status == 200
    else:
        assert re.search('locked memory|RLIMIT_MEMLOCK', server.log()), server.log()


def test_a_small_file_size_limit_is_no_reason_to_die(rig, tmp_path):
    """SIGXFSZ ends a process that does not expect it."""
    server = rig.weir(config(more=f'[logging]\naccess_log = "{tmp_path}/access.log"\n'
                                  'flush_interval = "10ms"\n'),
                      prefix=limited('fsize', 65536), stdout=subprocess.DEVNULL)
    with Client(server.port) as client:
        for _ in range(600):
            assert client.get('/' + 'x' * 100).status == 200
    server.wait_log('log cannot be written, lines are lost')
    assert get(server.port).status == 200


# ---- names

def test_an_upstream_that_cannot_be_resolved_does_not_stop_the_start(rig):
    server = rig.weir(config(more='[upstream.bad]\nservers = ["no-such-name.invalid:80"]\n'
                                  '[[route]]\npath = "/bad"\nproxy = "bad"\n'))
    server.wait_log(r'warn upstream a name cannot be resolved upstream=bad '
                    r'name=no-such-name\.invalid:80 error=\S+ ')
    response = get(server.port, '/bad')
    assert response.status == 503 and response.get('Retry-After') == '1'
    assert get(server.port).status == 200
    line = server.access(1)[0]
    assert line['reason'] == 'no_upstream'


def test_with_one_of_two_servers_resolved_that_one_serves(rig):
    origin = rig.origin()
    server = rig.weir(config(more=f'[upstream.half]\nservers = ["no-such-name.invalid:80", '
                                  f'"localhost:{origin.port}"]\n'
                                  '[[route]]\npath = "/half"\nproxy = "half"\n'))
    for _ in range(6):
        assert get(server.port, '/half').status == 200
    assert len(origin.requests) == 6


def test_localhost_is_resolved_even_where_there_is_no_network(rig):
    origin = rig.origin()
    text = config(more=f'[upstream.local]\nservers = ["localhost:{origin.port}"]\n'
                       '[[route]]\npath = "/local"\nproxy = "local"\n')
    server = rig.weir(text)
    assert get(server.port, '/local').status == 200
    if os.geteuid() == 0:
        need('unshare', 'ip')
        # Here weir cannot reach the origin; that it knows the address is the point.
        inside = ['unshare', '-n', 'bash', '-c', 'ip link set lo up; exec "$@"', 'sh']
        alone = rig.weir(text, prefix=inside, name='alone')
        assert 'cannot be resolved' not in alone.log()


def test_a_reload_resolves_anew(rig):
    """As when the name appears while weir runs: /etc/hosts is private in a mount namespace."""
    if os.geteuid() != 0:
        pytest.skip('needs root')
    need('unshare', 'nsenter')
    origin = rig.origin()
    hosts = pathlib.Path(rig.folder / 'hosts')
    hosts.write_text('127.0.0.1 localhost\n')
    text = config(more=f'[upstream.late]\nservers = ["late.test:{origin.port}"]\n'
                       '[[route]]\npath = "/late"\nproxy = "late"\n')
    inside = ['unshare', '-m', '--propagation', 'private', 'bash', '-c',
              # A bare installation may lack the file, and there is nothing to mount upon then.
              f'[ -e /etc/hosts ] || : >/etc/hosts; mount --bind {hosts} /etc/hosts; exec "$@"', 'sh']
    server = rig.weir(text, prefix=inside)
    assert get(server.port, '/late').status == 503
    with open(hosts, 'a') as file:
        file.write('127.0.0.1 late.test\n')
    server.reload()
    assert get(server.port, '/late').status == 200
    with open(hosts, 'w') as file:
        file.write('127.0.0.1 localhost\n127.0.0.2 late.test\n')
    server.reload()
    # 127.0.0.2 is another address: nobody listens there.
    assert get(server.port, '/late').status == 502


# ---- one-shot receive

def test_one_shot_receive_is_taken_when_asked_for(rig):
    """What the other tests do with multishot, in short: reload, bodies, limits, drain."""
    origin = rig.origin()
    text = (f'[[listener]]\naddress = "127.0.0.1:0"\n[performance]\nreceive_strategy = "oneshot"\n'
            f'[[route]]\nproxy = "{origin.url}"\n')
    server = rig.weir(text)
    load = Load(server.port, clients=8)
    for turn in range(10):
        server.reload(text + f'[[route]]\npath = "/t{turn}"\nrespond = {{}}\n')
    with Client(server.port) as client:
        assert client.post('/', b'x' * 3_000_000).status == 200
    assert len(origin.requests[-1].body) <= 3_000_000
    wait_until(lambda: load.answered > 200, 20)
    load.last_one = True
    assert server.stop() == 0
    load.stop()
    assert not load.failures, load.failures[:5]
