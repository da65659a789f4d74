"""The end: in order with what is under way, bounded in time, at once when asked for."""
import re
import signal
import socket
import threading
import time

import pytest

from conftest import Ended
from ops_rig import (RELEASE, WEIR, Client, Load, closing, default_respond, get, rig, wait_until)

__all__ = ['rig']

QUICK = 4  # an end with nothing to wait for: the grace of idle connections and the linger behind it


def proxying(origin, server='threads = 1', logging=''):
    return (f'[[listener]]\naddress = "127.0.0.1:0"\n[server]\n{server}\n[logging]\n{logging}\n'
            f'[[route]]\nproxy = "{origin.url}"\n')


RESPONDING = '[[listener]]\naddress = "127.0.0.1:0"\n' + default_respond()


class Held:
    """An origin that answers when told to; `begun` is set when it has a request."""

    def __init__(self, rig, early=b''):
        self.begun, self.release = threading.Event(), threading.Event()
        self.early = early
        self.origin = rig.origin(self.script)

    def script(self, connection):
        while True:
            connection.read_request()
            connection.send(self.early)
            self.begun.set()
            assert self.release.wait(30)
            if self.early:
                connection.send(b'rest')
            else:
                connection.answer(b'late')


def seconds_to_end(server, number, wanted=0):
    begin = time.monotonic()
    assert server.stop(number) == wanted
    return time.monotonic() - begin


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_idle(rig, number):
    server = rig.weir(RESPONDING)
    assert get(server.port).status == 200
    assert seconds_to_end(server, number) < QUICK
    assert re.search(r'info control ended\n$', server.log())


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_at_any_moment_of_the_start_ends_it(rig, number):
    routes = ''.join(f'[[route]]\npath = "/r{i}/x"\nrespond = {{body = "r"}}\n' for i in range(5000))
    for turn in range(12):
        server = rig.weir(RESPONDING + routes, binary=RELEASE, ready=False)
        # From nothing at all to well after it is ready; before weir handles it, the signal kills.
        time.sleep(turn * 0.01)
        server.expected = {0, -number}
        assert server.stop(number, 10) in server.expected


def test_no_new_connections_and_idle_ones_are_closed(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin))
    with Client(server.port) as idle, Client(server.port) as silent, Client(server.port) as busy:
        held.release.set()
        assert idle.get().status == 200
        held.release.clear()
        held.begun.clear()
        busy.ask()
        assert held.begun.wait(10)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')

        def refused():
            try:
                Client(server.port).close()
            except ConnectionRefusedError:
                return True

        wait_until(refused)
        assert idle.at_end() and silent.at_end()
        assert server.process.poll() is None  # there is still one under way
        held.release.set()
        response = busy.read_response()
        assert response.body == b'late' and closing(response) and busy.at_end()
    assert server.wait(QUICK) == 0


def test_a_request_on_an_idle_connection_within_the_grace_is_answered(rig):
    server = rig.weir(RESPONDING)
    with Client(server.port) as client:
        assert client.get().status == 200
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        response = client.get()
        assert response.status == 200 and closing(response) and client.at_end()


def test_pipelined_requests_that_are_here_are_answered_up_to_the_first_close(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin))
    with Client(server.port) as client:
        client.ask('/1').ask('/2')
        assert held.begun.wait(10)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        held.release.set()
        response = client.read_response()
        assert response.body == b'late' and closing(response) and client.at_end()


def test_a_response_whose_head_had_gone_out_finishes_and_the_connection_ends(rig):
    """The client was told that the connection stays; without its help it must end all the same."""
    held = Held(rig, early=b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin.')
    server = rig.weir(proxying(held.origin))
    with Client(server.port) as client:
        client.ask()
        assert not closing(client.read_head()) and client.read_bytes(6) == b'begin.'
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        time.sleep(1)  # longer than the grace of connections that are idle already
        held.release.set()
        assert client.read_bytes(4) == b'rest'
        assert client.at_end()
    assert server.wait(QUICK) == 0
    assert 'shutdown_timeout has passed' not in server.log()


def test_an_upload_under_way_finishes(rig):
    origin = rig.origin()
    server = rig.weir(proxying(origin))
    with Client(server.port) as client:
        client.send_request('POST / HTTP/1.1', 'Host: test', 'Content-Length: 100000',
                            body=b'x' * 50000)
        wait_until(lambda: origin.connections)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        time.sleep(1)
        client.send(b'x' * 50000)
        response = client.read_response()
        assert response.status == 200 and closing(response)
    assert server.wait(QUICK) == 0
    assert len(origin.requests[0].body) == 100000


def test_a_half_sent_head_gets_its_answer_when_it_comes(rig):
    server = rig.weir(RESPONDING)
    with Client(server.port) as client:
        client.send(b'GET / HTTP/1.1\r\nHos')
        wait_until(lambda: server.stats()['connections'] == 1)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        client.send(b't: test\r\n\r\n')
        response = client.read_response()
        assert response.status == 200 and closing(response)
    assert server.wait(QUICK) == 0


def test_shutdown_timeout_cuts(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin, 'threads = 1\nshutdown_timeout = "1s"'))
    with Client(server.port) as client:
        client.ask()
        assert held.begun.wait(10)
        took = seconds_to_end(server, signal.SIGTERM)
        assert 0.9 < took < 1 + QUICK
        assert 'shutdown_timeout has passed' in server.log()
        with pytest.raises((Ended, ConnectionResetError)):
            client.read_response()
    held.release.set()
    assert server.access(1)[-1]['reason'] == 'shutdown'


def test_shutdown_timeout_0_is_at_once(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin, 'shutdown_timeout = 0'))
    with Client(server.port) as client:
        client.ask()
        assert held.begun.wait(10)
        assert seconds_to_end(server, signal.SIGTERM) < QUICK
    held.release.set()


def test_a_reloaded_shutdown_timeout_counts(rig):
    held = Held(rig)
    text = proxying(held.origin, 'shutdown_timeout = "30s"')
    server = rig.weir(text)
    server.reload(text.replace('30s', '1s'))
    with Client(server.port) as client:
        client.ask()
        assert held.begun.wait(10)
        assert 0.9 < seconds_to_end(server, signal.SIGTERM) < 1 + QUICK
    held.release.set()


@pytest.mark.parametrize('second', [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_at_once(rig, second):
    held = Held(rig)
    server = rig.weir(proxying(held.origin))
    with Client(server.port) as client:
        client.ask()
        assert held.begun.wait(10)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        assert server.process.poll() is None
        assert seconds_to_end(server, second) < QUICK
    held.release.set()


def test_sigquit_ends_requests_uploads_downloads_and_idle_connections_at_once(rig):
    held = Held(rig, early=b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin.')
    server = rig.weir(proxying(held.origin, 'threads = 2'))
    clients = [Client(server.port) for _ in range(40)]
    for client in clients[:10]:
        client.ask()
    for client in clients[10:20]:
        client.send_request('POST / HTTP/1.1', 'Host: test', 'Content-Length: 100000', body=b'xyz')
    for client in clients[20:30]:
        client.send(b'GET / HT')
    wait_until(lambda: server.stats()['connections'] == 40)
    assert held.begun.wait(10)
    assert seconds_to_end(server, signal.SIGQUIT) < QUICK
    for client in clients:
        client.close()
    held.release.set()


def body_bytes(server):
    """That have passed, whichever way large ones do."""
    stats = server.stats()
    return stats['body_bytes_direct'] + stats['body_bytes_spliced']


def test_sigquit_with_a_client_that_reads_nothing(rig):
    """A send that never completes must not keep weir from ending."""
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n')
        while True:
            connection.send(b'x' * 100000)

    origin = rig.origin(script)
    server = rig.weir(proxying(origin))
    with Client(server.port) as client:
        client.ask()
        sent = 0

        def stuck():
            nonlocal sent
            now = body_bytes(server)
            still, sent = now == sent and now > 0, now
            return still

        wait_until(stuck)
        assert seconds_to_end(server, signal.SIGQUIT) < QUICK


def test_a_drain_with_a_client_that_reads_nothing_ends_by_the_timeout(rig):
    def script(connection):
        connection.read_request()
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n')
        while True:
            connection.send(b'x' * 100000)

    origin = rig.origin(script)
    server = rig.weir(proxying(origin, 'shutdown_timeout = "1s"'))
    with Client(server.port) as client:
        client.ask()
        wait_until(lambda: body_bytes(server) > 0)
        assert 0.9 < seconds_to_end(server, signal.SIGTERM) < 1 + QUICK


def test_an_end_while_connecting_to_a_silent_origin(rig):
    """192.0.2.1 is nobody's; where there is no route to it, connecting fails at once."""
    full = socket.socket()  # accepts nothing: its backlog is full, so that a connect waits
    full.bind(('127.0.0.1', 0))
    full.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    server = rig.weir(f'[[listener]]\naddress = "127.0.0.1:0"\n[server]\nthreads = 1\n'
                      f'[[route]]\nproxy = "http://127.0.0.1:{full.getsockname()[1]}"\n')
    with Client(server.port) as client:
        client.ask()
        wait_until(lambda: server.stats()['connections'] == 1)
        assert seconds_to_end(server, signal.SIGQUIT) < QUICK
    for sock in [full, *fillers]:
        sock.close()


def test_a_reload_during_the_drain_changes_nothing(rig):
    held = Held(rig)
    server = rig.weir(proxying(held.origin))
    with Client(server.port) as client:
        client.ask()
        assert held.begun.wait(10)
        server.tell(signal.SIGTERM)
        server.wait_log('shutting down')
        server.write(RESPONDING)
        server.tell(signal.SIGHUP)
        server.tell(signal.SIGUSR1)
        server.wait_log('log files opened again')
        held.release.set()
        assert client.read_response().body == b'late'
    assert server.wait(QUICK) == 0
    assert 'config reloaded' not in server.log()


def test_every_log_line_of_the_last_requests_is_written(rig):
    server = rig.weir(RESPONDING + '[logging]\nflush_interval = "10s"\n')
    for _ in range(200):
        assert get(server.port).status == 200
    assert server.stop() == 0
    assert len(server.access()) == 200


@pytest.mark.parametrize('keep_alive', [True, False], ids=['keep-alive', 'connection each'])
@pytest.mark.parametrize('binary', [WEIR, RELEASE], ids=['given', 'release'])
def test_sigterm_under_load_without_a_failed_request(rig, binary, keep_alive):
    origin = rig.weir(RESPONDING.replace('ok', 'x' * 2000) + '[logging]\naccess_log = "off"\n',
                      name='origin', binary=RELEASE)
    for turn in range(3):
        server = rig.weir(proxying(origin, 'threads = 2', 'access_log = "off"'), binary=binary)
        load = Load(server.port, clients=24, keep_alive=keep_alive)
        wait_until(lambda: load.answered > 300, 20)
        load.last_one = True
        assert seconds_to_end(server, signal.SIGTERM) < QUICK
        load.stop()
        assert not load.failures, (turn, load.answered, load.failures[:5])


@pytest.mark.parametrize('keep_alive', [True, False], ids=['keep-alive', 'connection each'])
@pytest.mark.parametrize('binary', [WEIR, RELEASE], ids=['given', 'release'])
def test_sigquit_under_load_ends_at_once_and_in_order(rig, binary, keep_alive):
    origin = rig.weir(RESPONDING + '[logging]\naccess_log = "off"\n', name='origin', binary=RELEASE)
    for _ in range(3):
        server = rig.weir(proxying(origin, 'threads = 2', 'access_log = "off"'), binary=binary)
        load = Load(server.port, clients=24, keep_alive=keep_alive)
        wait_until(lambda: load.answered > 300, 20)
        load.last_one = True
        assert seconds_to_end(server, signal.SIGQUIT) < QUICK
        load.stop()
