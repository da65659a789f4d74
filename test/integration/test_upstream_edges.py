"""Control's side of upstreams at its edges: reloads by ctl and by file between names, orders and
checks; SRV records that lie; servers whose checks have just been put right."""
import socket
import struct
import time

import pytest

from conftest import Client, wait_until
from upstream_rig import (A, QUICK_CHECKS, SLOWER, SRV, DnsServer, closing, control, get, reload,
                          start_nginx, upstream, wait_only)

__all__ = ['closing', 'control', 'start_nginx']


def resolver(dns, **more):
    return {'servers': f'["{dns.address}"]', 'timeout': '"200ms"', 'min_ttl': '"100ms"',
            'max_ttl': '"100ms"', 'hosts': '""', **more}


@pytest.fixture
def origin(start_nginx):
    """One nginx at several addresses, which it answers with."""
    return start_nginx('origin', answer='$server_addr', listen=lambda nginx: ' '.join(
        f'listen 127.0.0.{i}:{nginx.port};' for i in (1, 2)))


# ---- reloads by ctl


def test_no_request_fails_while_ctl_reloads_a_new_name(start_weir, closing, origin, control):
    """As with SIGHUP: a new name is waited for, for a moment."""
    def slowly(query):
        time.sleep(0.03)
        return query.answer('127.0.0.1', ttl=60)
    dns = closing(DnsServer(slowly))
    patient = resolver(dns, max_ttl='"60s"', timeout='"5s"')
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=patient, control=control))
    for turn in range(3):
        weir.rewrite(upstream([f'app{turn}.test:{origin.port}'], resolver=patient,
                              control=control))
        generation = control.ask('reload')['generation']
        assert [get(weir).status for _ in range(20)] == [200] * 20
        server, = control.servers().values()
        assert server['name'] == f'app{turn}.test:{origin.port}'
        assert len(weir.wait_log('config reloaded')) >= generation - 1


def test_ctl_reload_when_name_servers_are_silent(start_weir, closing, origin, control):
    dns = closing(DnsServer(lambda query: None))
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns),
                               control=control))
    weir.rewrite(upstream([f'app.test:{origin.port}'], resolver=resolver(dns), control=control))
    began = time.monotonic()
    assert control.ask('reload')['ok']
    assert time.monotonic() - began < 1 + SLOWER
    assert get(weir).status == 503
    assert control.servers()[f'app.test:{origin.port}']['state'] == 'unresolved'


def test_the_end_while_ctl_waits_for_a_reload(start_weir, closing, origin, control):
    dns = closing(DnsServer(lambda query: None))
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns),
                               control=control))
    weir.rewrite(upstream([f'app.test:{origin.port}'], resolver=resolver(dns), control=control))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(control.path)
        sock.sendall(b'json reload\n')
        wait_until(lambda: dns.queries, what='the name is asked for')
        weir.stop()  # with exit status 0


# ---- what an operator has set


def test_a_weight_that_is_over_does_not_come_back(start_weir, origin, control):
    servers = [f'127.0.0.{i}:{origin.port}' for i in (1, 2)]
    weir = start_weir(upstream(servers, control=control))
    control.ask('weight', 'o', servers[0], 7)
    reload(weir, upstream(servers, 'retries = 1', control=control))
    assert control.servers()[servers[0]]['weight'] == 7
    reload(weir, upstream([f'{{address = "{servers[0]}", weight = 3}}', servers[1]],
                          control=control))
    assert control.servers()[servers[0]]['weight'] == 3
    reload(weir, upstream(servers, control=control))
    assert control.servers()[servers[0]]['weight'] == 1


# ---- SRV


def srv_name(text):
    return b''.join(bytes([len(part)]) + part.encode() for part in text.split('.')) + b'\0'


class Service:
    """A name server with SRV records for any name, and one address for each of their targets."""

    def __init__(self, closing, *records):
        self.records = records  # priority, weight, port, target
        self.dns = closing(DnsServer(self.answer))

    def answer(self, query):
        if query.kind != SRV:
            host = query.name.split('.')[0].removeprefix('host')
            return query.answer(f'127.0.0.{host}' if query.kind == A else '', ttl=0)
        records = self.records
        body = b''
        for priority, weight, port, target in records:
            data = struct.pack('>HHH', priority, weight, port) + srv_name(target)
            body += struct.pack('>HHHIH', 0xC00C, SRV, 1, 0, len(data)) + data
        head = struct.pack('>HHHHH', 0x8180, 1, len(records), 0, 0)
        return query.id + head + query.question + body


def test_a_weight_set_instead_of_that_of_a_record(start_weir, closing, origin, control):
    def records(weight):
        return (0, weight, origin.port, 'host1.test'), (0, 1, origin.port, 'host2.test')
    service = Service(closing, *records(5))
    start_weir(upstream(['_http._tcp.test'], 'resolve_srv = true', control=control,
                        resolver=resolver(service.dns)))
    server = f'127.0.0.1:{origin.port}'

    def wait_weight(weight):
        wait_until(lambda: server in (known := control.servers())
                   and known[server]['weight'] == weight, what=f'weight {weight}')
    wait_weight(5)
    control.ask('weight', 'o', server, 50)
    wait_weight(50)
    service.records = records(9)
    wait_weight(9)
    service.records = records(5)
    wait_weight(5)


def test_a_record_with_port_0_is_no_server(start_weir, closing, origin, control):
    service = Service(closing, (0, 9, 0, 'host2.test'), (0, 1, origin.port, 'host1.test'))
    weir = start_weir(upstream(['_http._tcp.test'], 'resolve_srv = true', control=control,
                               resolver=resolver(service.dns)))
    wait_only(weir, '127.0.0.1')
    assert list(control.servers()) == [f'127.0.0.1:{origin.port}']


# ---- checks


def test_checks_that_were_put_right(start_weir, start_nginx, control):
    """The server stays down until they have passed often enough, and it is said so."""
    nginx = start_nginx('nginx', more='location = /bad { return 500; }')

    def config(path, **more):
        return upstream([nginx.address], control=control,
                        health={**QUICK_CHECKS, 'path': f'"{path}"', **more})
    weir = start_weir(config('/bad'))
    wait_until(lambda: control.servers()[nginx.address]['state'] == 'down')
    reload(weir, config('/_health', healthy_threshold=1000))
    wait_until(lambda: 'checks pass again' in control.servers()[nginx.address]['why'])
    assert get(weir).status == 503
    reload(weir, config('/_health'))
    wait_until(lambda: get(weir).status == 200)
    assert control.servers()[nginx.address]['why'] == ''


def test_one_client_over_it_all(start_weir, closing, origin, control):
    """Addresses flap, orders and reloads come in between; a server that is always there answers."""
    turns = iter(range(10 ** 9))
    dns = closing(DnsServer(lambda query: query.answer(
        f'127.0.0.{1 + next(turns) % 2}' if query.kind == A else '', ttl=0)))
    servers = [f'app.test:{origin.port}', f'127.0.0.1:{origin.port}']
    weir = start_weir(upstream(servers, control=control, resolver=resolver(dns), threads=2,
                               health=QUICK_CHECKS))
    with Client(weir.port()) as client:
        for turn in range(30):
            control.ask('set', 'o', servers[0], ('up', 'drain', 'down')[turn % 3])
            if turn % 5 == 0:
                control.ask('reload')
            assert [client.get('/').status for _ in range(20)] == [200] * 20
            view = control.servers()
            assert {one['set'] for one in view.values() if one['name'] == servers[0]} <= {
                ('up', 'draining', 'down')[turn % 3]}
