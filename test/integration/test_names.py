"""Servers by name: dnsmasq and a name server by script. Names that are missing, change, have many
addresses or both families; name servers that die, are slow, lie; SRV records, the hosts file."""
import os
import struct
import time

import pytest

from conftest import Client, wait_until
from ops_rig import Load
from upstream_rig import (A, AAAA, DOWN, NO_PASSIVE, QUICK_CHECKS, SLOWER, TICK, Deaf, DnsServer,
                          answers, closing, control, get, reason_of, refusal, reload, start_dnsmasq,
                          start_nginx, tries_of, upstream, wait_only)

__all__ = ['closing', 'control', 'start_dnsmasq', 'start_nginx']

HOSTS = [f'127.0.0.{i}' for i in range(1, 6)]


@pytest.fixture
def everywhere(start_nginx):
    """One nginx at several addresses, which it answers with."""
    return start_nginx('everywhere', answer='$server_addr', listen=lambda nginx: ' '.join(
        f'listen {host}:{nginx.port};' for host in [*HOSTS, '[::1]']))


def resolver(*servers, **more):
    """Quick and impatient."""
    listed = ', '.join(f'"{server.address}"' for server in servers)
    return {'servers': f'[{listed}]', 'timeout': '"200ms"', 'tries': 2, 'min_ttl': '"200ms"',
            'max_ttl': '"300ms"', 'hosts': '""', **more}


def by_name(dns, port, settings='', name='app.test', **more):
    """An upstream whose only server is a name."""
    return upstream([f'{name}:{port}'], settings, resolver=resolver(dns), **more)


# ---- real DNS


def test_a_name(start_weir, start_dnsmasq, everywhere, control):
    dns = start_dnsmasq(('app.test', '127.0.0.2'))
    weir = start_weir(by_name(dns, everywhere.port, control=control))
    wait_only(weir, '127.0.0.2')
    record = weir.wait_access(status=200)[-1]
    assert record['upstream_address'] == f'127.0.0.2:{everywhere.port}'
    server, = control.servers().values()
    assert server['name'] == f'app.test:{everywhere.port}' and server['resolved']


def test_a_name_with_several_addresses(start_weir, start_dnsmasq, everywhere):
    dns = start_dnsmasq(*(('app.test', host) for host in HOSTS))
    weir = start_weir(by_name(dns, everywhere.port))
    wait_only(weir, *HOSTS, count=5)
    # Each of them has the name's share.
    assert sorted(answers(weir, 10)) == sorted(HOSTS * 2)


def test_an_alias(start_weir, start_dnsmasq, everywhere):
    dns = start_dnsmasq(('real.test', '127.0.0.3'), more='cname=app.test,real.test')
    weir = start_weir(by_name(dns, everywhere.port))
    wait_only(weir, '127.0.0.3')


def test_a_name_in_the_url_of_a_route(start_weir, start_dnsmasq, everywhere):
    dns = start_dnsmasq(('app.test', '127.0.0.2'))
    text = upstream(['127.0.0.1:1'], resolver=resolver(dns)).replace(
        'proxy = "o"', f'proxy = "http://app.test:{everywhere.port}"')
    weir = start_weir(text)
    wait_only(weir, '127.0.0.2')
    assert get(weir, '/path').status == 200


def test_a_name_that_is_missing_at_first(start_weir, start_dnsmasq, everywhere):
    dns = start_dnsmasq()
    weir = start_weir(by_name(dns, everywhere.port))
    refusal(weir, 'no_upstream')
    weir.wait_log('a name cannot be resolved .*app.test')
    refusal(weir, 'no_upstream')
    dns.set(('app.test', '127.0.0.4'))
    wait_until(lambda: get(weir).status == 200, what='it is there now')
    assert answers(weir, 3) == ['127.0.0.4'] * 3
    weir.wait_log('a name can be resolved again')
    assert not [line for line in weir.lines if 'reloaded' in line]


def test_a_missing_name_beside_a_server(start_weir, start_dnsmasq, everywhere):
    dns = start_dnsmasq()
    weir = start_weir(upstream([f'app.test:{everywhere.port}', f'127.0.0.1:{everywhere.port}'],
                               resolver=resolver(dns)))
    assert answers(weir, 6) == ['127.0.0.1'] * 6
    dns.set(('app.test', '127.0.0.4'))
    wait_only(weir, '127.0.0.1', '127.0.0.4')


def test_addresses_that_change(start_weir, start_dnsmasq, everywhere):
    """Under load, without a reload, without a request that fails."""
    dns = start_dnsmasq(('app.test', '127.0.0.1'))
    weir = start_weir(by_name(dns, everywhere.port, threads=2))
    wait_only(weir, '127.0.0.1')
    load = Load(weir.port(), clients=4)
    for hosts in (['127.0.0.2'], ['127.0.0.2', '127.0.0.3'], ['127.0.0.4', '127.0.0.1'],
                  ['127.0.0.5']):
        dns.set(*(('app.test', host) for host in hosts))
        wait_only(weir, *hosts)
    load.stop()
    assert not load.failures, load.failures[:3]
    assert load.answered > 100
    weir.wait_log('a name has other addresses')
    assert not [line for line in weir.lines if 'reloaded' in line]


def test_a_request_under_way_when_its_address_goes(start_weir, start_dnsmasq, start_nginx):
    slow = start_nginx('slow', delay=1.5, listen=lambda nginx: ' '.join(
        f'listen {host}:{nginx.port};' for host in HOSTS))
    dns = start_dnsmasq(('app.test', '127.0.0.1'))
    weir = start_weir(by_name(dns, slow.port))
    wait_until(lambda: get(weir).status == 200)
    with Client(weir.port()) as client:
        client.send_request('GET /last HTTP/1.1', 'Host: t')
        dns.set(('app.test', '127.0.0.2'))
        weir.wait_log('a name has other addresses')
        assert client.read_response().body == b'slow'
    record = weir.wait_access(path='/last')[0]
    assert record['upstream_address'] == f'127.0.0.1:{slow.port}'


def test_the_name_server_dies(start_weir, start_dnsmasq, everywhere):
    """What was known stays, also over a reload; what is new comes when it is back."""
    dns = start_dnsmasq(('app.test', '127.0.0.1'), ('app.test', '127.0.0.2'))
    weir = start_weir(by_name(dns, everywhere.port))
    wait_only(weir, '127.0.0.1', '127.0.0.2')
    dns.kill()
    weir.wait_log('a name cannot be resolved .*app.test.* addresses_kept=2')
    assert set(answers(weir, 10)) == {'127.0.0.1', '127.0.0.2'}
    reload(weir, by_name(dns, everywhere.port, 'read_timeout = "9s"'))
    assert set(answers(weir, 10)) == {'127.0.0.1', '127.0.0.2'}
    dns.write([('app.test', '127.0.0.3')])
    dns.start()
    wait_only(weir, '127.0.0.3')
    weir.wait_log('a name can be resolved again')


def test_many_addresses(start_weir, start_dnsmasq, start_nginx, control):
    """200 do not fit into a datagram: they come by TCP, and 64 of them are used."""
    many = [f'127.0.1.{i}' for i in range(1, 201)]
    nginx = start_nginx('many', answer='$server_addr', listen=lambda nginx: ' '.join(
        f'listen {host}:{nginx.port};' for host in many))
    dns = start_dnsmasq(*(('app.test', host) for host in many))
    weir = start_weir(by_name(dns, nginx.port, control=control))
    weir.wait_log('a name has more addresses than are used .* used=64 left_out=136')
    wait_until(lambda: len(control.servers()) == 64)
    got = answers(weir, 128)
    assert len(set(got)) == 64 and set(got) <= set(many)
    # The same ones every time.
    before = dns.queries('app.test')
    wait_until(lambda: dns.queries('app.test') >= before + 4)
    assert set(answers(weir, 64)) == set(got)
    dns.set(('app.test', '127.0.1.200'))
    wait_only(weir, '127.0.1.200')


def test_service_records(start_weir, start_dnsmasq, start_nginx, control):
    """Port, priority and weight are theirs."""
    a, b, spare = (start_nginx(name) for name in ('a', 'b', 'spare'))
    dns = start_dnsmasq(('one.test', '127.0.0.1'), srv=[
        f'_http._tcp.app.test,one.test,{nginx.port},{order}'
        for nginx, order in ((a, '10,3'), (b, '10,1'), (spare, '20,1'))])
    weir = start_weir(upstream(['_http._tcp.app.test'], 'resolve_srv = true', control=control,
                               resolver=resolver(dns), passive=NO_PASSIVE))
    wait_only(weir, 'a', 'b', count=8)
    got = answers(weir, 40)
    assert got.count('a') == 30 and got.count('b') == 10
    a.kill()
    b.kill()
    assert answers(weir, 4) == ['spare'] * 4
    # Other records: another port, and the rest are gone.
    a.start()
    dns.kill()
    dns.srv = [f'_http._tcp.app.test,one.test,{a.port},5,1']
    dns.start()
    wait_only(weir, 'a')
    wait_until(lambda: len(control.servers()) == 1)


def test_health_of_each_address(start_weir, start_dnsmasq, start_nginx):
    """A name is no server: of its addresses one may be down."""
    one = start_nginx('one')
    two = start_nginx('two', listen=lambda nginx: f'listen 127.0.0.2:{one.port};')
    dns = start_dnsmasq(('app.test', '127.0.0.1'), ('app.test', '127.0.0.2'))
    weir = start_weir(by_name(dns, one.port, health=QUICK_CHECKS))
    wait_only(weir, 'one', 'two')
    one.kill()
    weir.wait_log(rf'{DOWN} .*127\.0\.0\.1:{one.port}')
    assert answers(weir, 6) == ['two'] * 6
    one.start()
    wait_only(weir, 'one', 'two')


# ---- name servers that fail


def good(*addresses, ttl=0):
    return lambda query: query.answer(*addresses, ttl=ttl)


def flip_id(query):
    reply = query.answer('127.0.0.1')
    return bytes([reply[0] ^ 0xFF]) + reply[1:]


def other_question(query):
    label = query.question[:query.question[0] + 1]
    return query.answer('127.0.0.1').replace(label, label[:1] + b'x' * (len(label) - 1))


def loop(query):
    head = query.id + struct.pack('>HHHHH', 0x8180, 1, 1, 0, 0)
    at = 12 + len(query.question)
    return head + query.question + struct.pack('>H', 0xC000 | at) + b'\0\1\0\1\0\0\0\1\0\4abcd'


# No answer, and what is no answer. Of the last ones a part may be taken.
BAD = {'timeout': lambda query: None, 'servfail': lambda query: query.answer(code=2),
       'refused': lambda query: query.answer(code=5), 'noise': lambda query: os.urandom(200),
       'noise-with-id': lambda query: query.id + os.urandom(200), 'empty': lambda query: b'',
       'two-bytes': lambda query: query.id, 'another-id': flip_id,
       'another-question': other_question, 'a-loop': loop}
DOUBTFUL = {'fewer-than-said': lambda query: query.answer('127.0.0.1', count=60000),
            'cut': lambda query: query.answer('127.0.0.1', '127.0.0.2')[:-3],
            'too-large': lambda query: query.answer('127.0.0.1') + b'x' * 60000}


class Names:
    """One upstream for each kind, named by it, and a name server that lies about all of them in its
    way, or about none (`good` set)."""

    def __init__(self, start_weir, closing, port):
        self.kinds = {**BAD, **DOUBTFUL}
        self.good = None
        self.dns = closing(DnsServer(self._answer))
        more = ''.join(f'[upstream.{kind}]\nservers = ["{kind}.test:{port}"]\n'
                       f'[[route]]\npath = "/{kind}"\nproxy = "{kind}"\n' for kind in self.kinds)
        self.weir = start_weir(upstream(['127.0.0.1:1'], resolver=resolver(self.dns), more=more))

    def _answer(self, query):
        if self.good:
            return query.answer(*self.good, ttl=0)
        return self.kinds[query.name.split('.')[0]](query)

    def wait_asked(self, times):
        """Each of them, from now on."""
        self.dns.queries.clear()

        def asked():
            names = [query.name for query in list(self.dns.queries)]
            return all(names.count(f'{kind}.test') >= times for kind in self.kinds)
        wait_until(asked, what='they were asked for')

    def where(self, kind):
        """The addresses that answer; None for a refusal."""
        responses = [get(self.weir, f'/{kind}') for _ in range(4)]
        return {r.body.decode() if r.status == 200 else None for r in responses}


def test_answers_that_are_none(start_weir, closing, everywhere):
    """First at the start, then in the middle: nothing known is given up for them."""
    names = Names(start_weir, closing, everywhere.port)
    names.wait_asked(2)
    for kind in BAD:
        assert names.where(kind) == {None}, kind
    names.good = ['127.0.0.2', '127.0.0.3']
    for kind in names.kinds:
        wait_until(lambda: names.where(kind) == {'127.0.0.2', '127.0.0.3'}, what=kind)
    names.good = None
    names.wait_asked(3)
    for kind in BAD:
        assert names.where(kind) == {'127.0.0.2', '127.0.0.3'}, kind
    for kind in DOUBTFUL:
        assert names.where(kind) <= {'127.0.0.1', '127.0.0.2', '127.0.0.3'}, kind
    names.good = ['127.0.0.4']
    for kind in names.kinds:
        wait_until(lambda: names.where(kind) == {'127.0.0.4'}, what=kind)


@pytest.mark.parametrize('code', [3, 0])
def test_a_name_that_goes_away(start_weir, closing, everywhere, code):
    """No such name, or no address: it may be a mistake, so the addresses stay a while."""
    dns = closing(DnsServer(good('127.0.0.2')))
    weir = start_weir(by_name(dns, everywhere.port))
    wait_only(weir, '127.0.0.2')
    dns.script = lambda query: query.answer(code=code)
    weir.wait_log('a name cannot be resolved .*addresses_kept=1')
    assert answers(weir, 5) == ['127.0.0.2'] * 5
    dns.script = good('127.0.0.3')
    wait_only(weir, '127.0.0.3')


def test_one_kind_of_record_fails(start_weir, closing, everywhere):
    """IPv6 addresses cannot be learnt for now: those that are known stay, and IPv4 goes on."""
    dns = closing(DnsServer(good('127.0.0.2', '::1')))
    weir = start_weir(by_name(dns, everywhere.port))
    wait_only(weir, '127.0.0.2', '::1')
    dns.script = lambda query: query.answer(code=2) if query.kind == AAAA else \
        query.answer('127.0.0.3')
    wait_only(weir, '127.0.0.3', '::1')


def test_the_first_name_server_is_dead(start_weir, start_dnsmasq, closing, everywhere):
    silent = closing(DnsServer(lambda query: None))
    dns = start_dnsmasq(('app.test', '127.0.0.2'))
    weir = start_weir(upstream([f'app.test:{everywhere.port}'], resolver=resolver(silent, dns)))
    wait_only(weir, '127.0.0.2')


def test_weir_starts_without_waiting_for_names(start_weir, closing, everywhere):
    silent = closing(DnsServer(lambda query: None))
    began = time.monotonic()
    weir = start_weir(upstream([f'app.test:{everywhere.port}', f'127.0.0.1:{everywhere.port}'],
                               resolver={**resolver(silent), 'timeout': '"5s"'}))
    assert answers(weir, 3) == ['127.0.0.1'] * 3
    assert time.monotonic() - began < 2 + SLOWER
    began = time.monotonic()
    weir.stop()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize('ttl, least, most', [(0, 0.2, 0.35), (3600, 0.3, 0.5)])
def test_how_often_a_name_is_asked_for(start_weir, closing, everywhere, ttl, least, most):
    """By its time to live, within the bounds of the configuration, here 200 and 300 ms."""
    times = []

    def script(query):
        if query.kind == A:
            times.append(time.monotonic())
        return query.answer('127.0.0.2', ttl=ttl)
    dns = closing(DnsServer(script))
    start_weir(by_name(dns, everywhere.port, 'resolve_family = "ipv4"'))
    wait_until(lambda: len(times) >= 6)
    pauses = sorted(b - a for a, b in zip(times, times[1:]))
    assert pauses[0] >= least - 0.02 and pauses[len(pauses) // 2] <= most + 0.1 * SLOWER


# ---- the hosts file


def test_the_hosts_file(start_weir, start_dnsmasq, everywhere, tmp_path):
    """It comes before name servers, and its changes flow in."""
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.0.0.9 other.test\n127.0.0.3 app.test app # ours\n')
    dns = start_dnsmasq(('app.test', '127.0.0.2'))
    weir = start_weir(upstream([f'app.test:{everywhere.port}'],
                               resolver={**resolver(dns), 'hosts': f'"{hosts}"'}))
    wait_only(weir, '127.0.0.3')
    assert dns.queries('app.test') == 0
    fresh = tmp_path / 'fresh'
    fresh.write_text('127.0.0.4 app.test\n127.0.0.5 app.test\n')
    fresh.rename(hosts)
    wait_only(weir, '127.0.0.4', '127.0.0.5')
    hosts.write_text('')
    wait_only(weir, '127.0.0.2')
    hosts.unlink()
    assert answers(weir, 3) == ['127.0.0.2'] * 3


# ---- both families


def dual(start_weir, start_dnsmasq, port, settings=''):
    dns = start_dnsmasq(('app.test', '127.0.0.1'), ('app.test', '::1'))
    weir = start_weir(by_name(dns, port, f'max_idle_connections_per_host = 0\n{settings}',
                              passive=NO_PASSIVE))
    wait_until(lambda: get(weir).status == 200)
    return weir


def slowest(weir, count=6):
    worst = 0
    with Client(weir.port()) as client:
        for _ in range(count):
            began = time.monotonic()
            assert client.get('/').status == 200
            worst = max(worst, time.monotonic() - began)
    return worst


@pytest.mark.parametrize('dead', ['::1', '127.0.0.1'])
def test_one_family_is_dead(start_weir, start_dnsmasq, start_nginx, closing, dead):
    """Connecting to it neither works nor fails: the other one is not kept waiting for long."""
    alive = '127.0.0.1' if dead == '::1' else '[::1]'
    nginx = start_nginx('n', answer='$server_addr',
                        listen=lambda nginx: f'listen {alive}:{nginx.port};')
    closing(Deaf(dead, nginx.port))
    weir = dual(start_weir, start_dnsmasq, nginx.port, 'connect_race = "100ms"')
    assert slowest(weir) <= 0.1 + 0.3 * SLOWER
    assert set(answers(weir, 6)) == {alive.strip('[]')}
    for record in weir.wait_access(7, status=200):
        assert record['upstream_address'] == f'{alive}:{nginx.port}'
        assert reason_of(record) == 'none'


def test_one_family_is_dead_and_there_is_no_race(start_weir, start_dnsmasq, start_nginx, closing):
    """It is the connect timeout then, and the next try."""
    nginx = start_nginx('n')
    closing(Deaf('::1', nginx.port))
    weir = dual(start_weir, start_dnsmasq, nginx.port,
                'connect_race = "0ms"\nconnect_timeout = "400ms"')
    assert 0.4 - TICK <= slowest(weir) <= 0.6 + 0.4 * SLOWER
    assert 2 in {tries_of(record) for record in weir.wait_access(7, status=200)}


def test_one_family_refuses(start_weir, start_dnsmasq, start_nginx):
    nginx = start_nginx('n')
    weir = dual(start_weir, start_dnsmasq, nginx.port, 'connect_race = "10s"')
    assert slowest(weir) <= 0.3 * SLOWER


def test_both_families(start_weir, start_dnsmasq, everywhere):
    weir = dual(start_weir, start_dnsmasq, everywhere.port)
    wait_only(weir, '127.0.0.1', '::1')


@pytest.mark.parametrize('family, address', [('ipv4', '127.0.0.1'), ('ipv6', '::1')])
def test_one_family_only(start_weir, start_dnsmasq, everywhere, family, address):
    weir = dual(start_weir, start_dnsmasq, everywhere.port, f'resolve_family = "{family}"')
    wait_only(weir, address)
    assert answers(weir, 8) == [address] * 8


# ---- no name at all


def test_a_unix_socket(start_weir, start_nginx, control):
    nginx = start_nginx('u', listen=lambda nginx: f'listen unix:{nginx.folder}/socket;')
    address = f'unix:{nginx.folder}/socket'
    weir = start_weir(upstream([address], control=control))
    assert answers(weir, 3) == ['u'] * 3
    assert weir.wait_access(3)[0]['upstream_address'] == address
    assert address in control.servers()
