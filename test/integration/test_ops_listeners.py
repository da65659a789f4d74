"""Listeners and cores: every kind of address, how connections are spread, limits."""
import os
import pathlib
import re
import resource
import socket
import stat
import subprocess

import pytest

from ops_rig import Client, closing, default_respond, get, need, rig, wait_until

__all__ = ['rig']

CPUS = sorted(os.sched_getaffinity(0))
two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason='needs two CPUs')


def listeners(*addresses, server='', more=''):
    text = ''.join(f'[[listener]]\nname = "l{i}"\naddress = "{address}"\n'
                   for i, address in enumerate(addresses))
    return f'{text}[server]\n{server}\n{more}\n' + default_respond()


# ---- addresses

def test_ipv4_port_0_is_reported(rig):
    server = rig.weir(listeners('127.0.0.1:0'))
    assert server.port > 0 and server.listening() == {'l0': f'127.0.0.1:{server.port}'}
    assert get(server.port).body == b'ok\n'


def test_ipv6(rig):
    server = rig.weir(listeners('[::1]:0'))
    assert re.fullmatch(r'\[::1\]:\d+', server.listening()['l0'])
    assert get(('::1', server.port_of('l0'))).status == 200
    with pytest.raises(ConnectionRefusedError):
        get(('127.0.0.1', server.port_of('l0')))


def test_the_star_serves_ipv6_and_ipv4(rig):
    server = rig.weir(listeners('*:0'))
    port = server.port_of('l0')
    assert get(('127.0.0.1', port)).status == 200
    assert get(('::1', port)).status == 200
    # A mapped address is an IPv4 client's, in the log as for the routes.
    clients = {line['client'] for line in server.access(2)}
    assert clients == {'127.0.0.1', '::1'}


def test_an_ipv4_and_an_ipv6_listener_on_one_port(rig):
    first = rig.weir(listeners('127.0.0.1:0'))
    port = first.port
    assert first.stop() == 0
    server = rig.weir(listeners(f'127.0.0.1:{port}', f'[::1]:{port}'))
    assert get(('127.0.0.1', port)).status == 200 and get(('::1', port)).status == 200
    assert {line['listener'] for line in server.access(2)} == {1, 2}


def test_the_wildcard_beside_one_address_of_it(rig):
    probe = rig.weir(listeners('127.0.0.1:0'))
    port = probe.port
    assert probe.stop() == 0
    server = rig.weir(listeners(f'0.0.0.0:{port}', f'127.0.0.1:{port}'))
    assert get(('127.0.0.1', port)).status == 200 and get(('127.0.0.2', port)).status == 200
    assert {line['listener'] for line in server.access(2)} == {1, 2}


def test_several_listeners_of_several_kinds(rig, tmp_path):
    path = str(tmp_path / 'weir.sock')
    server = rig.weir(listeners('127.0.0.1:0', '127.0.0.1:0', '[::1]:0', f'unix:{path}'))
    ports = [server.port_of(f'l{i}') for i in range(3)]
    assert len(set(ports[:2])) == 2
    for where in (ports[0], ports[1], ('::1', ports[2]), path):
        assert get(where).status == 200
    assert {line['listener'] for line in server.access(4)} == {1, 2, 3, 4}


# ---- Unix sockets

def test_a_unix_socket_is_for_everyone_and_goes_with_weir(rig, tmp_path):
    path = tmp_path / 'weir.sock'
    server = rig.weir(listeners(f'unix:{path}'))
    info = path.stat()
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o666
    assert get(str(path)).status == 200
    assert server.access(1)[0]['client'] == 'unix'
    assert server.stop() == 0
    assert not path.exists()


def test_a_unix_socket_that_nobody_serves_is_replaced(rig, tmp_path):
    path = tmp_path / 'weir.sock'
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    rig.weir(listeners(f'unix:{path}'))
    assert get(str(path)).status == 200


def test_a_unix_socket_that_somebody_serves_is_left_alone(rig, tmp_path):
    path = tmp_path / 'weir.sock'
    rig.weir(listeners(f'unix:{path}'))
    second = rig.weir(listeners(f'unix:{path}'), ready=False, name='second')
    second.expected = {1}
    assert second.wait(20) == 1
    assert f'cannot listen on unix:{path}: Address already in use' in second.log()
    assert get(str(path)).status == 200


def test_a_file_that_is_no_socket_is_never_removed(rig, tmp_path):
    path = tmp_path / 'precious'
    path.write_text('data')
    server = rig.weir(listeners(f'unix:{path}'), ready=False)
    server.expected = {1}
    assert server.wait(20) == 1 and path.read_text() == 'data'


def test_an_abstract_unix_socket(rig, tmp_path):
    name = f'weir-{os.getpid()}-{tmp_path.name}'
    rig.weir(listeners(f'unix:@{name}'))
    assert get('\0' + name).status == 200


@two_cpus
def test_a_unix_socket_serves_on_all_cores(rig, tmp_path):
    path = str(tmp_path / 'weir.sock')
    server = rig.weir(listeners(f'unix:{path}', server='threads = 2'))
    clients = [Client(path) for _ in range(64)]
    assert all(client.get().status == 200 for client in clients)
    for client in clients:
        client.close()
    assert server.stats()['accepted'] == 64


# ---- backlog

def test_the_backlog_is_what_was_asked_for(rig):
    need('ss')
    server = rig.weir('[[listener]]\naddress = "127.0.0.1:0"\nbacklog = 77\n[server]\nthreads = 1\n'
                      + default_respond())
    text = subprocess.run(['ss', '-Hltn', f'sport = :{server.port}'], capture_output=True, text=True,
                          check=True).stdout
    assert [line.split()[2] for line in text.splitlines()] == ['77']


def test_a_burst_of_connections_fits_the_backlog(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 1'))
    clients = [Client(server.port) for _ in range(1000)]
    for client in clients:
        client.ask()
    assert all(client.read_response().status == 200 for client in clients)
    for client in clients:
        client.close()


# ---- cores

@two_cpus
def test_two_threads_are_pinned_and_both_used(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 2'))
    threads = server.core_threads()
    assert [server.status('Cpus_allowed_list', thread) for thread in threads] \
        == [str(cpu) for cpu in CPUS[:2]]
    for _ in range(64):
        get(server.port)
    assert {line['core'] for line in server.access(64)} == {0, 1}


@two_cpus
@pytest.mark.parametrize('cpus', ['[{1}]', '"{1}"', '[{1}, {0}]'])
def test_cpus_names_the_cpus(rig, cpus):
    wanted = cpus.format(*CPUS)
    server = rig.weir(listeners('127.0.0.1:0', server=f'cpus = {wanted}'))
    numbers = sorted(map(int, re.findall(r'\d+', wanted)))
    assert [server.status('Cpus_allowed_list', thread) for thread in server.core_threads()] \
        == list(map(str, numbers))
    assert get(server.port).status == 200


@two_cpus
def test_the_affinity_mask_is_respected(rig):
    need('taskset')
    server = rig.weir(listeners('127.0.0.1:0'), prefix=['taskset', '-c', str(CPUS[1])])
    assert [server.status('Cpus_allowed_list', thread) for thread in server.core_threads()] \
        == [str(CPUS[1])]


def test_more_threads_than_cpus_work_with_a_warning(rig):
    count = len(CPUS) + 1
    server = rig.weir(listeners('127.0.0.1:0', server=f'threads = {count}'))
    assert re.search(rf'warn control more threads than CPUs.* threads={count}', server.log())
    assert len(server.core_threads()) == count
    for _ in range(20 * count):
        assert get(server.port).status == 200
    assert {line['core'] for line in server.access(20 * count)} == set(range(count))


def test_a_cpu_that_is_not_there_is_told(rig):
    absent = max(CPUS) + 500
    server = rig.weir(listeners('127.0.0.1:0', server=f'cpus = [{absent}]'))
    server.wait_log(rf'warn runtime .*cannot be pinned.* cpu={absent} ')
    assert get(server.port).status == 200


CBPF = '[performance]\nreuseport_balancing = "cbpf"'


@two_cpus
def test_cbpf_keeps_a_client_on_one_core_and_spreads_clients(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 2', more=CBPF))
    assert 'cbpf balancing is refused' not in server.log()
    sources = [f'127.0.{i}.{i + 1}' for i in range(1, 25)]
    for _ in range(8):
        for source in sources:
            with Client(server.port, source=source) as client:
                client.get()
    cores = {}
    for line in server.access(8 * len(sources)):
        cores.setdefault(line['client'], set()).add(line['core'])
    assert set(cores) == set(sources)
    assert all(len(found) == 1 for found in cores.values()), cores
    share = sum(found == {0} for found in cores.values()) / len(cores)
    assert 0.2 <= share <= 0.8, cores


@two_cpus
@pytest.mark.parametrize('address,where', [('[::1]:0', '::1'), ('*:0', '::1'), ('*:0', '127.0.0.1')])
def test_cbpf_keeps_a_client_on_one_core_on_ipv6_too(rig, address, where):
    server = rig.weir(listeners(address, server='threads = 2', more=CBPF))
    for _ in range(32):
        get((where, server.port_of('l0')))
    assert len({line['core'] for line in server.access(32)}) == 1


@two_cpus
def test_cbpf_spreads_neighbouring_clients(rig):
    """As a network behind one NAT pool has them: the last byte alone differs."""
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 2', more=CBPF))
    for last in range(1, 65):
        with Client(server.port, source=f'127.0.0.{last}') as client:
            client.get()
    share = sum(line['core'] == 0 for line in server.access(64)) / 64
    assert 0.25 <= share <= 0.75


# ---- limits

def test_beyond_max_concurrent_connections_503_and_then_service_again(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 1',
                                more='[security]\nmax_concurrent_connections = 10'))
    clients = [Client(server.port) for _ in range(10)]
    assert all(client.get().status == 200 for client in clients)
    for _ in range(3):
        refused = get(server.port)
        assert refused.status == 503 and closing(refused) and refused.get('Retry-After') == '1'
    assert clients[3].get().status == 200  # those that are in stay in
    stats = server.stats()
    assert (stats['connections'], stats['refused']) == (10, 3)
    clients.pop().close()
    wait_until(lambda: server.stats()['connections'] == 9)
    clients.append(Client(server.port))
    assert clients[-1].get().status == 200
    for client in clients:
        client.close()
    wait_until(lambda: server.stats()['connections'] == 0)
    assert 'connection limit reached' in server.log()


def test_a_refused_client_that_was_sending_reads_its_503(rig):
    """The unread request must not turn into a reset that eats the answer."""
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 1',
                                more='[security]\nmax_concurrent_connections = 1'))
    with Client(server.port) as holder:
        assert holder.get().status == 200
        for _ in range(20):
            with Client(server.port) as client:
                client.send_request('POST / HTTP/1.1', 'Host: test',
                                    'Content-Length: 20000', body=b'x' * 20000)
                assert client.read_response().status == 503
                assert client.at_end()


@two_cpus
def test_the_limit_counts_over_all_cores(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 2',
                                more='[security]\nmax_concurrent_connections = 20'))
    clients, served = [], 0
    for _ in range(60):
        client = Client(server.port)
        clients.append(client)
        served += client.get().status == 200
    # Each core has half of them; with 60 attempts both are full.
    assert served == 20, server.stats()
    for client in clients:
        client.close()


def test_the_connection_limit_changes_with_a_reload(rig):
    text = listeners('127.0.0.1:0', server='threads = 1',
                     more='[security]\nmax_concurrent_connections = 2')
    server = rig.weir(text)
    clients = [Client(server.port) for _ in range(2)]
    assert all(client.get().status == 200 for client in clients)
    assert get(server.port).status == 503
    server.reload(text.replace('connections = 2', 'connections = 3'))
    assert get(server.port).status == 200
    server.reload(text.replace('connections = 2', 'connections = 0'))  # as many as files allow
    clients += [Client(server.port) for _ in range(50)]
    assert all(client.get().status == 200 for client in clients)
    for client in clients:
        client.close()


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(rig):
    def lower():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    server = rig.weir(listeners('127.0.0.1:0'), preexec_fn=lower)
    line = re.search(r'Max open files +(\d+) +(\d+)',
                     pathlib.Path(f'/proc/{server.pid}/limits').read_text())
    assert line.group(1) == line.group(2) and int(line.group(1)) > 256


def test_half_open_connections_do_not_stop_others(rig):
    server = rig.weir(listeners('127.0.0.1:0', server='threads = 1'))
    silent = [socket.create_connection(('127.0.0.1', server.port)) for _ in range(200)]
    for connection in silent[:100]:
        connection.sendall(b'GET / HTTP/1.1\r\nHos')
    assert all(get(server.port).status == 200 for _ in range(20))
    for connection in silent:
        connection.close()
    wait_until(lambda: server.stats()['connections'] == 0)


def test_hundreds_of_listeners_come_and_go(rig):
    """More than the mailboxes between control and the cores hold."""
    many = listeners(*['127.0.0.1:0'] * 600)
    server = rig.weir(many)
    ports = [server.port_of(f'l{i}') for i in range(600)]
    assert len(set(ports)) == 600
    for port in ports[::50] + ports[-1:]:
        assert get(port).status == 200
    server.reload(listeners('127.0.0.1:0'))

    def closed(port):
        try:
            get(port)
        except (ConnectionRefusedError, ConnectionResetError):
            return True

    wait_until(lambda: all(closed(port) for port in ports[1::100]))
    assert get(ports[0]).status == 200
    server.reload(many)
    assert server.stop() == 0
