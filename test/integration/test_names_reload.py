"""Reloads that bring new names: for a moment they are waited for, so that no request fails for the
time that DNS takes; no longer, and never in the way of anything else."""
import re
import time

import pytest

from conftest import Client, wait_until
from upstream_rig import SLOWER, DnsServer, closing, get, reload, start_nginx, upstream

__all__ = ['closing', 'start_nginx']


def slow(seconds, *addresses):
    def answer(query):
        time.sleep(seconds)
        return query.answer(*addresses, ttl=60) if addresses else None
    return answer


def resolver(dns):
    return {'servers': f'["{dns.address}"]', 'timeout': '"5s"', 'hosts': '""'}


@pytest.fixture
def origin(start_nginx):
    return start_nginx('origin')


def test_no_request_fails_while_a_new_name_is_looked_up(start_weir, closing, origin):
    # Two questions, one after the other.
    dns = closing(DnsServer(slow(0.05, '127.0.0.1')))
    literal = upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns))
    weir = start_weir(literal)
    for turn in range(5):
        before = sum('config reloaded' in line for line in list(weir.lines))
        weir.rewrite(upstream([f'app{turn}.test:{origin.port}'], resolver=resolver(dns)))
        statuses = []
        with Client(weir.port()) as client:
            while sum('config reloaded' in line for line in list(weir.lines)) == before:
                statuses.append(client.get('/').status)
        statuses += [get(weir).status for _ in range(10)]
        assert set(statuses) == {200}
        reload(weir, literal)
    assert 'cannot be resolved' not in '\n'.join(weir.lines)


def test_silent_name_servers_do_not_keep_a_reload(start_weir, closing, origin):
    dns = closing(DnsServer(lambda query: None))
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns)))
    began = time.monotonic()
    reload(weir, upstream([f'app.test:{origin.port}'], resolver=resolver(dns)))
    assert time.monotonic() - began < 1 + SLOWER
    assert get(weir).status == 503
    dns.script = lambda query: query.answer('127.0.0.1', ttl=60)
    reload(weir, upstream([f'app.test:{origin.port}', f'other.test:{origin.port}'],
                          resolver=resolver(dns)))
    assert get(weir).status == 200


def test_the_newest_of_several_counts(start_weir, closing, origin):
    dns = closing(DnsServer(lambda query: None))
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns)))
    weir.rewrite(upstream([f'app.test:{origin.port}'], resolver=resolver(dns)))
    wait_until(lambda: any(query.name == 'app.test' for query in list(dns.queries)),
               what='the name is asked for')
    # While it is waited for.
    reload(weir, upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns)))
    end = time.monotonic() + 0.5  # longer than a name is waited for: nothing comes after it
    while time.monotonic() < end:
        assert get(weir).status == 200
    assert sum('config reloaded' in line for line in list(weir.lines)) == 1


def test_a_bad_one_leaves_no_names_behind(start_weir, closing, origin):
    dns = closing(DnsServer(slow(0, '127.0.0.1')))
    good = upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns))
    weir = start_weir(good)
    # The file is found to be missing when the configuration is applied, after the names.
    weir.rewrite(upstream([f'app.test:{origin.port}'], 'tls = true\ntls_ca_path = "/nonexistent"',
                          resolver=resolver(dns)))
    weir.wait_log('the configuration was not reloaded')
    assert get(weir).status == 200
    reload(weir, good + '\n')
    assert get(weir).status == 200
    assert not re.search('app.test', '\n'.join(weir.lines))


def test_the_end_comes_while_a_name_is_waited_for(start_weir, closing, origin):
    dns = closing(DnsServer(lambda query: None))
    weir = start_weir(upstream([f'127.0.0.1:{origin.port}'], resolver=resolver(dns)))
    weir.rewrite(upstream([f'app.test:{origin.port}'], resolver=resolver(dns)))
    wait_until(lambda: any(query.name == 'app.test' for query in list(dns.queries)),
               what='the name is asked for')
    began = time.monotonic()
    weir.stop()
    assert time.monotonic() - began < 3
    assert not any('config reloaded' in line for line in list(weir.lines))
