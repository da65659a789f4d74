"""How servers of an upstream are chosen: shares by weight, keys that stay, backups, priorities,
limits; and that whatever way a request ends, its server has it no longer."""
import collections
import socket
import threading
import time

import pytest

from conftest import IO_SECONDS, Client, Ended, Stream, one_listener, respond, wait_until


def named(name, *fields):
    return respond(name.encode(), *fields)


def server_of(origin, **settings):
    pairs = ''.join(f', {key} = {str(value).lower()}' for key, value in settings.items())
    return f'{{address = "{origin.address}"{pairs}}}'


def config(servers, upstream='', server='', route=''):
    """Balancing by itself: nothing waits, and no server is put aside for its errors."""
    return one_listener(f'[upstream.o]\nservers = [{", ".join(servers)}]\nmax_pending = 0\n'
                        f'{upstream}\n[upstream.o.passive_check]\nenabled = false\n'
                        f'[[route]]\nproxy = "o"\n{route}\n', server)


class Holder:
    """An origin that answers with its name; requests for /hold wait until release() is called."""

    def __init__(self, start_origin, name):
        self.held, self.lock = [], threading.Lock()
        self.name = name

        def script(connection):
            while True:
                request = connection.read_request()
                if request.target == '/hold':
                    event = threading.Event()
                    with self.lock:
                        self.held.append(event)
                    assert event.wait(IO_SECONDS * 3)
                connection.answer(name.encode())
        self.origin = start_origin(script)

    def count(self):
        with self.lock:
            return sum(not event.is_set() for event in self.held)

    def release(self):
        with self.lock:
            for event in self.held:
                event.set()


def hold(weir, clients, count, holders, target='/hold', *fields):
    """So many more requests that wait at the origins; their clients are appended to `clients`."""
    for _ in range(count):
        before = sum(holder.count() for holder in holders)
        clients.append(Client(weir.port()))
        clients[-1].send_request(f'GET {target} HTTP/1.1', 'Host: t', *fields)
        wait_until(lambda: sum(holder.count() for holder in holders) == before + 1, what='a hold')


@pytest.fixture
def holders(start_origin):
    made = []

    def make(*names):
        made.extend(Holder(start_origin, name) for name in names)
        return made[-len(names):]
    yield make
    for holder in made:
        holder.release()


# ---- shares


# The largest difference from its share that a server may have, as part of all requests. Round robin
# and, one after the other, least connections are exact; random draws every 64 requests evenly. Two
# choices go by latency too, so that for them all servers have one that outweighs what disturbs.
ALGORITHMS = {'': 0, 'round_robin': 0, 'least_connections': 0, 'least_conn': 0, 'random': 0.02,
              'two_choices': 0.1}
WEIGHTS = (5, 3, 2)


def weighted_config(start_origin, algorithm, delay=0.0):
    def script(name):
        def serve(connection):
            while True:
                connection.read_request()
                time.sleep(delay)
                connection.answer(name)
        return serve
    servers = [server_of(start_origin(script(b'%d' % i)), weight=weight)
               for i, weight in enumerate(WEIGHTS)]
    return config(servers, f'balance = "{algorithm}"' if algorithm else '')


def check_shares(count, weights, tolerance):
    total, whole = sum(count.values()), sum(weights)
    for i, weight in enumerate(weights):
        assert abs(count[str(i)] / total - weight / whole) <= tolerance, count


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_shares_follow_the_weights(start_weir, start_origin, algorithm):
    slow = algorithm == 'two_choices'
    weir = start_weir(weighted_config(start_origin, algorithm, 0.02 if slow else 0))
    with Client(weir.port()) as client:
        count = collections.Counter(client.get('/').body.decode()
                                    for _ in range(200 if slow else 2000))
    check_shares(count, WEIGHTS, ALGORITHMS[algorithm])


@pytest.mark.parametrize('algorithm', ['round_robin', 'least_conn', 'random', 'two_choices'])
def test_shares_with_many_clients_at_once(start_weir, start_origin, algorithm):
    each = 60 if algorithm == 'two_choices' else 250
    weir = start_weir(weighted_config(start_origin, algorithm,
                                      0.05 if algorithm == 'two_choices' else 0))
    answers = []

    def run():
        with Client(weir.port()) as client:
            answers.extend([client.get('/').body.decode() for _ in range(each)])
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 * each
    # What is under way differs from moment to moment, and with it the choice of the last two.
    loose = algorithm in ('least_conn', 'two_choices')
    check_shares(collections.Counter(answers), WEIGHTS, 0.12 if loose else 0.02)


def test_the_global_type_is_the_default(start_weir, holders):
    one, two = holders('one', 'two')
    weir = start_weir('[load_balancer]\ntype = "least_conn"\n' +
                      config([server_of(one.origin), server_of(two.origin)]))
    clients = []
    hold(weir, clients, 1, (one, two))
    busy = one if one.count() else two
    with Client(weir.port()) as client:
        for _ in range(5):
            assert client.get('/').body.decode() != busy.name


def test_least_connections_goes_by_what_is_under_way(start_weir, holders):
    one, two = holders('one', 'two')
    weir = start_weir(config([server_of(one.origin, weight=2), server_of(two.origin)],
                             'balance = "least_connections"'))
    clients = []
    hold(weir, clients, 9, (one, two))
    assert (one.count(), two.count()) == (6, 3), 'by weight'
    two.release()
    weir.wait_access(3, status=200)
    with Client(weir.port()) as client:
        for _ in range(6):
            assert client.get('/').body == b'two', 'nothing is under way there'
    hold(weir, clients, 3, (one, two))
    assert (one.count(), two.count()) == (6, 3)


def test_two_choices_spares_a_slow_server(start_weir, start_origin):
    def slow(connection):
        while True:
            connection.read_request()
            time.sleep(0.3)
            connection.answer(b'slow')
    origins = [start_origin(slow), start_origin(named('fast')), start_origin(named('fast'))]
    weir = start_weir(config([server_of(origin) for origin in origins], 'balance = "two_choices"'))
    with Client(weir.port()) as client:
        count = collections.Counter(client.get('/').body.decode() for _ in range(500))
    assert 1 <= count['slow'] <= 40, count


# ---- by hash


def test_ip_hash_keeps_a_client_at_its_server(start_weir, start_origin):
    origins = [start_origin(named(str(i))) for i in range(3)]
    weir = start_weir(config([server_of(origin) for origin in origins], 'balance = "ip_hash"'))
    where = {}
    for _ in range(2):
        for i in range(120):
            sock = socket.create_connection(('127.0.0.1', weir.port()), IO_SECONDS,
                                            (f'127.3.{i % 7}.{i + 1}', 0))
            client = Client.__new__(Client)
            Stream.__init__(client, sock)
            with client:
                answers = {client.get(f'/{k}').body.decode() for k in range(3)}
            assert len(answers) == 1, 'whatever it asks for'
            assert where.setdefault(i, answers) == answers, 'also on a new connection'
    count = collections.Counter(next(iter(answers)) for answers in where.values())
    check_shares(count, (1, 1, 1), 0.2)


KEYS = {
    'uri': lambda key: (f'/a?k={key}', ()),
    'path': lambda key: (f'/{key}', ()),
    'header:X-User': lambda key: ('/', (f'x-user: {key}',)),
    'cookie:sid': lambda key: ('/', ('Cookie: xsid=0; a=b', f'Cookie: c=d; sid={key}; sid=1')),
}


@pytest.mark.parametrize('source', KEYS)
def test_consistent_hash_keeps_a_key_at_its_server(start_weir, start_origin, source):
    origins = [start_origin(named(str(i))) for i in range(4)]
    servers = [server_of(origin, weight=weight)
               for origin, weight in zip(origins, (3, 3, 2, 2))]
    settings = f'balance = "consistent_hash"\nhash_key = "{source}"'
    weir = start_weir(config(servers, settings))

    def place(client, key):
        target, fields = KEYS[source](key)
        return client.get(target, *fields).body.decode()

    with Client(weir.port()) as client:
        where = {key: place(client, f'key{key}') for key in range(1500)}
    check_shares(collections.Counter(where.values()), (3, 3, 2, 2), 0.06)
    with Client(weir.port()) as client:
        assert all(place(client, f'key{key}') == where[key] for key in range(100))
    # Its last server leaves: little but its own keys moves.
    weir.rewrite(config(servers[:3], settings))
    weir.wait_log('config reloaded')
    with Client(weir.port()) as client:
        moved = sum(place(client, f'key{key}') != where[key] for key in where)
    own = sum(server == '3' for server in where.values())
    assert own <= moved <= own + 0.02 * len(where)
    # It comes back, and so do all keys.
    weir.rewrite(config(servers, settings))
    weir.wait_log('config reloaded', 2)
    with Client(weir.port()) as client:
        assert all(place(client, f'key{key}') == where[key] for key in where)


def test_what_does_not_belong_to_the_key_moves_nothing(start_weir, start_origin):
    origins = [start_origin(named(str(i))) for i in range(5)]
    for source, (target, fields) in {'path': ('/a?{}', ()), 'header:Host': ('/{}', ('X: {}',)),
                                     'header:x-missing': ('/{}', ('Cookie: a={}',)),
                                     'cookie:missing': ('/{}', ('Cookie: smissing={}',)),
                                     'client_ip': ('/{}', ())}.items():
        weir = start_weir(config([server_of(origin) for origin in origins],
                                 f'balance = "consistent_hash"\nhash_key = "{source}"'))
        with Client(weir.port()) as client:
            answers = {client.get(target.format(i), *[f.format(i) for f in fields]).body
                       for i in range(40)}
        assert len(answers) == 1, source


def test_a_key_moves_on_while_its_server_refuses(start_weir, start_origin):
    origins = [start_origin(named(str(i))) for i in range(3)]
    weir = start_weir(config([server_of(origin) for origin in origins],
                             'balance = "consistent_hash"\nhash_key = "path"'))
    with Client(weir.port()) as client:
        where = {i: client.get(f'/{i}').body.decode() for i in range(150)}
        origins[1].stop()
        for i, server in where.items():
            answer = client.get(f'/{i}')
            assert answer.status == 200
            assert (answer.body.decode() == server) == (server != '1')


def test_bounded_load(start_weir, holders):
    all_three = holders('one', 'two', 'three')
    for bound, expected in ((0, [0, 0, 9]), (150, [2, 2, 5]), (100, [3, 3, 3])):
        weir = start_weir(config([server_of(holder.origin) for holder in all_three],
                                 f'balance = "consistent_hash"\nhash_key = "path"\n'
                                 f'hash_load_bound = {bound}'))
        clients = []
        hold(weir, clients, 9, all_three)
        counts = sorted(holder.count() for holder in all_three)
        assert sum(counts) == 9
        assert counts[-1] <= expected[-1], (bound, counts)
        if bound != 150:
            assert counts == expected, bound
        for holder in all_three:
            holder.release()
        for client in clients:
            assert client.read_response().status == 200


# ---- backups, priorities, limits


def test_a_backup_serves_only_when_the_others_refuse(start_weir, start_origin):
    main = [start_origin(named('main')) for _ in range(2)]
    backup = start_origin(named('backup'))
    weir = start_weir(config([server_of(backup, backup=True), server_of(main[0]),
                              server_of(main[1])]))
    with Client(weir.port()) as client:
        assert {client.get('/').body for _ in range(20)} == {b'main'}
        main[0].stop()
        assert {client.get('/').body for _ in range(20)} == {b'main'}
        assert not backup.requests
        main[1].stop()
        for i in range(10):
            response = client.request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 3',
                                      body=b'abc')
            assert (response.status, response.body) == (200, b'backup')
            assert backup.requests[-1].body == b'abc'
        assert weir.wait_access(10, upstream_address=backup.address)[-1]['tries'] == 3
        again = start_origin(named('main'), port=main[1].port)
        assert {client.get('/').body for _ in range(10)} == {b'main'}
        assert len(again.requests) == 10 and len(backup.requests) == 10


def test_priorities(start_weir, start_origin):
    origins = {name: start_origin(named(name)) for name in ('first', 'second', 'third', 'backup')}
    weir = start_weir(config([server_of(origins['third'], priority=7),
                              server_of(origins['backup'], backup=True),
                              server_of(origins['first']),
                              server_of(origins['second'], priority=1)]))
    with Client(weir.port()) as client:
        for name in ('first', 'second', 'third'):
            assert {client.get('/').body.decode() for _ in range(5)} == {name}
            origins[name].stop()


def test_max_connections_of_a_server(start_weir, holders):
    one, two = holders('one', 'two')
    weir = start_weir(config([server_of(one.origin, max_connections=2),
                              server_of(two.origin, max_connections=1)]))
    clients = []
    hold(weir, clients, 3, (one, two))
    assert (one.count(), two.count()) == (2, 1)
    with Client(weir.port()) as client:
        refused = client.get('/')
        assert (refused.status, refused.get('Retry-After')) == (503, '1')
        assert refused.get('Connection') is None
        assert weir.wait_access(status=503)[0]['reason'] == 'upstream_busy'
        two.release()
        wait_until(lambda: client.get('/').body == b'two')
        assert client.get('/').body == b'two', 'one is full'
    # One whose client has left is not under way any more.
    for client in clients:
        client.reset()
    one.release()
    with Client(weir.port()) as client:
        wait_until(lambda: {client.get('/').body for _ in range(4)} == {b'one', b'two'})


def test_backups_take_what_does_not_fit(start_weir, holders):
    one, spare = holders('one', 'spare')
    weir = start_weir(config([server_of(one.origin, max_connections=1),
                              server_of(spare.origin, backup=True)]))
    clients = []
    hold(weir, clients, 1, (one, spare))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'spare'
        one.release()
        wait_until(lambda: client.get('/').body == b'one')


def test_max_connections_is_shared_by_the_cores(start_weir, holders):
    one, = holders('one')
    weir = start_weir(config([server_of(one.origin, max_connections=3)])
                      .replace('threads = 1', 'threads = 2'))
    clients = [Client(weir.port()) for _ in range(40)]
    for client in clients:
        client.send_request('GET /hold HTTP/1.1', 'Host: t')
    weir.wait_access(36, status=503)
    wait_until(lambda: one.count() == 4, what='two for each core')
    one.release()
    answers = collections.Counter(client.read_response().status for client in clients)
    assert answers == {200: 4, 503: 36}


# ---- every way in which a request ends


def end_well(client):
    assert client.get('/').body == b'ok'


def end_well_head(client):
    assert client.request('HEAD / HTTP/1.1', 'Host: t').status == 200


def end_with_body(client):
    client.request('POST / HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked',
                   body=b'3\r\nabc\r\n0\r\n\r\n')


def end_large(client):
    assert len(client.get('/large').body) == 3_000_000


def end_chunked(client):
    assert client.get('/chunked').body == b'abc'


def end_closing(client):
    assert client.get('/closing').body == b'until the end'


def end_silent(client):
    assert client.get('/silent').status == 502


def end_malformed(client):
    assert client.get('/malformed').status == 502


def end_half(client):
    with pytest.raises(Ended):
        client.get('/half')


def end_slow(client):
    assert client.get('/slow').status == 504


def end_stale(client):
    """A kept connection that the origin closes when the next request comes: tried again."""
    assert client.get('/once').body == b'first'
    assert client.get('/once').body == b'first'


def end_bad_body(client):
    client.send_request('POST / HTTP/1.1', 'Host: t', 'Transfer-Encoding: chunked',
                        body=b'3\r\nabc\r\nzz\r\n')
    assert client.read_response().status == 400


def end_early_answer(client):
    client.send_request('POST /early HTTP/1.1', 'Host: t', 'Content-Length: 1000000',
                        body=b'x' * 1000)
    assert client.read_response().status == 403


def end_by_leaving(client):
    client.send_request('GET /wait HTTP/1.1', 'Host: t')
    time.sleep(0.1)
    client.reset()


def end_by_leaving_in_the_body(client):
    client.send_request('GET /large HTTP/1.1', 'Host: t')
    client.read_head()
    client.reset()


def end_by_leaving_in_the_request(client):
    client.send_request('POST / HTTP/1.1', 'Host: t', 'Content-Length: 100000', body=b'x' * 1000)
    time.sleep(0.1)
    client.reset()


def end_tunnel(client):
    client.send_request('GET /tunnel HTTP/1.1', 'Host: t', 'Connection: Upgrade',
                        'Upgrade: websocket')
    assert client.read_response().status == 101
    assert client.send(b'ping').read_bytes(4) == b'ping'
    with Client(client.sock.getpeername()[1]) as other:
        assert other.get('/').status == 503, 'a tunnel is under way'
    client.close()


def end_refused_upgrade(client):
    client.send_request('GET /other HTTP/1.1', 'Host: t', 'Connection: Upgrade',
                        'Upgrade: websocket')
    assert client.read_response().status == 502


def every_kind(connection):
    while True:
        request = connection.read_request_head()
        target = request.target
        if target == '/early':
            connection.answer(b'no', status='403 Forbidden')
            return connection.at_end()
        connection.read_request_body(request)
        if target == '/large':
            connection.answer(b'x' * 3_000_000)
        elif target == '/chunked':
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
                            b'3\r\nabc\r\n0\r\n\r\n')
        elif target == '/closing':
            return connection.send(b'HTTP/1.1 200 OK\r\n\r\nuntil the end')
        elif target == '/silent':
            return None
        elif target == '/malformed':
            return connection.send(b'SSH-2.0-OpenSSH\r\n\r\n')
        elif target == '/half':
            return connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab')
        elif target in ('/slow', '/wait'):
            return connection.at_end()
        elif target == '/once':
            connection.answer(b'first')
            connection.read_until(b'\r\n\r\n')
            return None
        elif target == '/tunnel':
            connection.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n'
                            b'Upgrade: websocket\r\n\r\n')
            return connection.send(connection.read_bytes(4)).at_end()
        elif target == '/other':
            return connection.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n'
                                   b'Upgrade: other\r\n\r\n')
        elif request.method == 'HEAD':
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n')
        else:
            connection.answer(b'ok')


ENDS = [value for name, value in list(globals().items()) if name.startswith('end_')]


@pytest.mark.parametrize('algorithm', ['round_robin', 'two_choices', 'consistent_hash'])
@pytest.mark.parametrize('end', ENDS, ids=lambda end: end.__name__)
def test_whatever_way_a_request_ends(start_weir, start_origin, end, algorithm):
    """With room for one request a server that keeps one it has not would answer no more."""
    origin = start_origin(every_kind)
    weir = start_weir(config([server_of(origin, max_connections=1)],
                             f'response_timeout = "300ms"\nbalance = "{algorithm}"'))
    for _ in range(3):
        with Client(weir.port()) as client:
            end(client)
        with Client(weir.port()) as client:
            wait_until(lambda: client.get('/').status == 200, what='room')
    # Nor has it more room than before.
    with Client(weir.port()) as one, Client(weir.port()) as other:
        one.send_request('GET /wait HTTP/1.1', 'Host: last')
        # Perhaps not at the end: each connection has a thread at the origin.
        wait_until(lambda: any(request.get('Host') == 'last' for request in list(origin.requests)))
        assert other.get('/').status == 503


def test_a_refusing_server_keeps_none(start_weir, start_origin):
    bad, good = start_origin(), start_origin(named('good'))
    weir = start_weir(config([server_of(bad, max_connections=1),
                              server_of(good, max_connections=1)]))
    port = bad.port
    bad.stop()
    with Client(weir.port()) as client:
        for _ in range(6):
            assert client.get('/').body == b'good'
        start_origin(named('again'), port=port)
        wait_until(lambda: client.get('/').body == b'again')


# ---- reloads


def test_a_reload_goes_on_where_it_was(start_weir, start_origin):
    origins = [start_origin(named(str(i))) for i in range(3)]
    servers = [server_of(origin) for origin in origins]
    weir = start_weir(config(servers))
    with Client(weir.port()) as client:
        answers = [client.get('/').body for _ in range(4)]
        for i in range(5):
            weir.rewrite(config(servers, f'connect_timeout = {20 + i}'))
            weir.wait_log('config reloaded', i + 1)
            answers.append(client.get('/').body)
    assert answers == [b'0', b'1', b'2'] * 3


def test_a_reload_keeps_what_is_under_way(start_weir, holders):
    one, two = holders('one', 'two')
    servers = [server_of(one.origin, max_connections=1), server_of(two.origin, max_connections=1)]
    weir = start_weir(config(servers))
    clients = []
    hold(weir, clients, 2, (one, two))
    weir.rewrite(config(servers, 'balance = "least_conn"'))
    weir.wait_log('config reloaded')
    with Client(weir.port()) as client:
        assert client.get('/').status == 503
        # A server that leaves and comes back has its request still.
        weir.rewrite(config(servers[:1], 'balance = "random"'))
        weir.wait_log('config reloaded', 2)
        assert client.get('/').status == 503
        weir.rewrite(config(servers, 'balance = "two_choices"'))
        weir.wait_log('config reloaded', 3)
        assert client.get('/').status == 503
        two.release()
        assert clients[1].read_response().body == b'two'
        assert client.get('/').body == b'two'
        one.release()
        assert clients[0].read_response().body == b'one'
        wait_until(lambda: {client.get('/').body for _ in range(8)} == {b'one', b'two'})


def test_slow_start_of_a_server_that_joins(start_weir, start_origin):
    origins = [start_origin(named(str(i))) for i in range(2)]
    servers = [server_of(origin) for origin in origins]
    weir = start_weir(config(servers[:1], 'slow_start = "1h"'))
    with Client(weir.port()) as client:
        assert client.get('/').body == b'0'
        weir.rewrite(config(servers, 'slow_start = "1h"'))
        weir.wait_log('config reloaded')
        count = collections.Counter(client.get('/').body.decode() for _ in range(550))
    assert 45 <= count['1'] <= 60, 'a tenth of the weight of the other'
