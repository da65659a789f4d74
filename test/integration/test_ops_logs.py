"""Access log and error log: what is in them, where they go, and that they never stand in the way."""
import fcntl
import json
import os
import re
import select
import signal
import socket
import threading
import time

import pytest

from ops_rig import RELEASE, Client, get, need, rig, wait_until, wrk

__all__ = ['rig']


def config(logging='', routes='[[route]]\nrespond = {body = "hello"}\n', server='threads = 1'):
    return (f'[[listener]]\naddress = "127.0.0.1:0"\n[server]\n{server}\n'
            f'[logging]\nflush_interval = "10ms"\n{logging}\n{routes}')


def proxying(origin, logging='', upstream=''):
    return config(logging, f'[upstream.app]\nservers = ["127.0.0.1:{origin.port}"]\n{upstream}\n'
                           '[[route]]\nproxy = "app"\n')


# ---- what is in the access log

def test_json_of_a_local_response(rig):
    server = rig.weir(config())
    before = time.time()
    with Client(server.port, source='127.0.0.7') as client:
        client.get('/a/b?c=d', 'User-Agent: ops/1', 'Referer: http://x/', host='example.com:80')
        own_port = client.sock.getsockname()[1]
        sent = len(b'GET /a/b?c=d HTTP/1.1\r\nHost: example.com:80\r\nUser-Agent: ops/1\r\n'
                   b'Referer: http://x/\r\n\r\n')
        received = len(client.received)
    line = server.access(1)[0]
    assert re.fullmatch(r'[0-9a-f]{32}', line.pop('request_id'))
    logged = line.pop('time')
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', logged)
    assert abs(time.mktime(time.strptime(logged[:19], '%Y-%m-%dT%H:%M:%S')) - time.timezone
               - before) <= 2
    assert 0 <= line.pop('duration_ms') < 5000
    assert line == {
        'client': '127.0.0.7', 'client_port': own_port, 'listener': 1, 'method': 'GET',
        'host': 'example.com:80', 'path': '/a/b?c=d', 'protocol': 'HTTP/1.1', 'status': 200,
        'bytes_in': sent, 'bytes_out': received, 'core': 0, 'user_agent': 'ops/1',
        'referer': 'http://x/'}


def test_json_of_a_proxied_response(rig):
    def script(connection):
        while True:
            request = connection.read_request()
            if request.target == '/slow':
                time.sleep(0.2)
            connection.answer(b'x' * 1000)

    origin = rig.origin(script)
    server = rig.weir(proxying(origin))
    with Client(server.port) as client:
        client.get('/slow')
        first = len(client.received)
        client.post('/', b'y' * 5000)
        second = len(client.received) - first
    slow, post = server.access(2)
    for line in (slow, post):
        assert (line['upstream'], line['upstream_address']) == ('app', f'127.0.0.1:{origin.port}')
        assert line['tries'] == 1 and 'reason' not in line
    assert slow['request_id'] != post['request_id']
    assert not slow['upstream_reused'] and post['upstream_reused']
    assert 'upstream_connect_ms' in slow and 'upstream_connect_ms' not in post
    assert 195 <= slow['upstream_header_ms'] <= slow['upstream_ms'] <= slow['duration_ms'] < 3000
    assert post['duration_ms'] < 150
    assert (slow['bytes_out'], post['bytes_out']) == (first, second)
    head = len(b'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n')
    assert post['bytes_in'] == head + 5000


@pytest.mark.parametrize('size', [0, 10, 5000, 200_000])
@pytest.mark.parametrize('chunked', [False, True], ids=['length', 'chunked'])
def test_bytes_in_and_out_of_bodies(rig, size, chunked):
    def script(connection):
        while True:
            body = connection.read_request().body
            if chunked:
                connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
                if body:
                    connection.send(b'%x\r\n%s\r\n' % (len(body), body))
                connection.send(b'0\r\n\r\n')
            else:
                connection.answer(body)

    server = rig.weir(proxying(rig.origin(script)))
    with Client(server.port) as client:
        head = b'POST / HTTP/1.1\r\nHost: test\r\n'
        if chunked:
            head += b'Transfer-Encoding: chunked\r\n\r\n'
            body = (b'%x\r\n%s\r\n' % (size, b'z' * size) if size else b'') + b'0\r\n\r\n'
        else:
            head += b'Content-Length: %d\r\n\r\n' % size
            body = b'z' * size
        client.send(head + body)
        assert client.read_response().body == b'z' * size
        # Of the body the content counts, however it is framed; of the answer every byte.
        line = server.access(1)[0]
        assert (line['bytes_in'], line['bytes_out']) == (len(head) + size, len(client.received))


def line_of(server, seconds=10):
    return server.access(1, seconds)[-1]


def test_reason_no_route_and_bad_request(rig):
    server = rig.weir(config(routes='[[route]]\npath = "/only"\nrespond = {}\n'))
    get(server.port, '/other')
    line = line_of(server)
    assert (line['status'], line['reason'], line['path']) == (404, 'no_route', '/other')
    with Client(server.port) as client:
        client.send(b'GET  / HTTP/1.1\r\n\r\n')
        assert client.read_response().status == 400
    line = server.access(2)[1]
    assert (line['status'], line['reason'], line['method']) == (400, 'bad_request', '')


@pytest.mark.parametrize('request_bytes,status,reason', [
    (b'GET / HTTP/1.1\r\nHost: a\r\nX: ' + b'x' * 40000, 431, 'too_large'),
    (b'GET /' + b'x' * 9000, 414, 'too_large'),
    (b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n', 413, 'too_large'),
    (b'GET / HTTP/2.0\r\nHost: a\r\n\r\n', 505, 'unsupported'),
    (b'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n', 501, 'unsupported'),
    (b'CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n', 405, 'unsupported'),
])
def test_reason_of_refusals(rig, request_bytes, status, reason):
    server = rig.weir(config(server='threads = 1\nmax_body_size = 100'))
    with Client(server.port) as client:
        client.send(request_bytes)
        assert client.read_response().status == status
    line = line_of(server)
    assert (line['status'], line['reason']) == (status, reason)


def test_reason_client_timeout(rig):
    server = rig.weir(config(server='threads = 1\nclient_header_timeout = "200ms"'))
    with Client(server.port) as client:
        client.send(b'GET / HT')
        assert client.read_response().status == 408
    line = line_of(server)
    assert (line['status'], line['reason'], line['bytes_in']) == (408, 'client_timeout', 8)


def test_reason_client_gone(rig):
    go = threading.Event()

    def script(connection):
        connection.read_request()
        assert go.wait(20)

    server = rig.weir(proxying(rig.origin(script)))
    client = Client(server.port)
    client.ask()
    wait_until(lambda: server.stats()['connections'] == 1)
    client.reset()
    line = line_of(server)
    go.set()
    assert (line['status'], line['reason'], line['bytes_out']) == (499, 'client_gone', 0)
    assert line['upstream'] == 'app'


def test_a_client_that_only_connects_leaves_no_line(rig):
    server = rig.weir(config())
    Client(server.port).close()
    client = Client(server.port)
    client.reset()
    get(server.port, '/real')
    assert [line['path'] for line in server.access(1)] == ['/real']
    wait_until(lambda: server.stats()['connections'] == 0)
    assert len(server.access()) == 1


def test_reason_upstream_connect_and_tries(rig):
    with socket.socket() as closed, socket.socket() as also:
        for sock in (closed, also):
            sock.bind(('127.0.0.1', 0))
        ports = [sock.getsockname()[1] for sock in (closed, also)]
    server = rig.weir(config(routes='[upstream.app]\nservers = ['
                             + ', '.join(f'"127.0.0.1:{port}"' for port in ports)
                             + ']\n[[route]]\nproxy = "app"\n'))
    assert get(server.port).status == 503
    line = line_of(server)
    assert (line['status'], line['reason'], line['tries']) == (503, 'upstream_connect', 2)
    assert re.search(r'warn upstream connect failed .*address=127\.0\.0\.1:\d+', server.log())


@pytest.mark.parametrize('answer,status,reason', [
    (b'', 502, 'upstream_closed'),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello', 502,
     'upstream_malformed'),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', 200, 'upstream_closed'),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 502, 'upstream_malformed'),
    (None, 504, 'upstream_timeout'),
])
def test_reason_of_an_origin_s_failure(rig, answer, status, reason):
    done = threading.Event()

    def script(connection):
        connection.read_request()
        if answer is None:
            done.wait(20)
        else:
            connection.send(answer)

    server = rig.weir(proxying(rig.origin(script), upstream='response_timeout = "200ms"'))
    with Client(server.port) as client:
        client.ask()
        assert client.read_head().status == status
        line = line_of(server)
    done.set()
    assert (line['status'], line['reason']) == (status, reason)


def test_a_stale_connection_counts_as_a_try(rig):
    def script(connection):
        connection.read_request()
        connection.answer(b'only one')
        if connection.number == 0:
            connection.read_request()  # and closes without a word

    origin = rig.origin(script)
    server = rig.weir(proxying(origin))
    with Client(server.port) as client:
        assert client.get().status == 200
        assert client.get().status == 200
    first, second = server.access(2)
    assert (first['tries'], second['tries']) == (1, 2)
    assert not second['upstream_reused'] and 'reason' not in second


@pytest.mark.parametrize('form', ['common', 'combined'])
def test_common_and_combined(rig, form):
    server = rig.weir(config(f'access_format = "{form}"'))
    with Client(server.port) as client:
        client.get('/a%20b?q=1', 'User-Agent: Agent "quoted"', 'Referer: http://from/')
        size = len(client.received)
    text = wait_until(server.access_file.read_text)
    pattern = (r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] '
               r'"GET /a%20b\?q=1 HTTP/1\.1" 200 (\d+)')
    if form == 'combined':
        pattern += r' "http://from/" "Agent (?:\\"quoted\\"|\\x22quoted\\x22)"'
    match = re.fullmatch(pattern + '\n', text)
    assert match and int(match.group(1)) == size, text


def test_common_of_what_could_not_be_parsed(rig):
    server = rig.weir(config('access_format = "common"'))
    with Client(server.port) as client:
        client.send(b'\x16\x03\x01\x02\x00\x01\x00\r\n\r\n')
        assert client.read_response().status == 400
    text = wait_until(server.access_file.read_text)
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "-" 400 \d+\n', text), text


# ---- nothing a peer sends can forge a line

EVIL = ['\x1b[31mred', 'a"b\\c', '\u00e9\u20ac', '\x7f', '","status":200,"x":"', '\u2028', '\t tab']


@pytest.mark.parametrize('form', ['json', 'common', 'combined'])
def test_log_injection_is_impossible(rig, form):
    server = rig.weir(config(f'access_format = "{form}"'))
    count = 0
    for text in EVIL:
        for field in ('User-Agent', 'Referer'):
            with Client(server.port) as client:
                client.send(b'GET /inject HTTP/1.1\r\nHost: test\r\n' + field.encode() + b': '
                            + text.encode() + b'\r\n\r\n')
                client.read_response()
                count += 1
    for target in (b'/%0d%0aforged', b'/\xff\xfe', b'/a"b', b'/\\n', b'/\xe2\x80\xa8'):
        with Client(server.port) as client:
            client.send(b'GET ' + target + b' HTTP/1.1\r\nHost: test\r\n\r\n')
            client.read_response()
            count += 1
    for raw in (b'GET /x\x0bforged HTTP/1.1\r\nHost: a\r\n\r\n', b'G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n',
                b'GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\rforged\r\n\r\n',
                b'GET / HTTP/1.1\nHost: a"b\nforged\n\n'):
        with Client(server.port) as client:
            client.send(raw)
            assert client.read_response().status == 400
            count += 1
    raw = wait_until(lambda: (now := server.access_file.read_bytes()).count(b'\n') >= count and now)
    lines = raw[:-1].split(b'\n')
    assert len(lines) == count
    for line in lines:
        assert all(byte >= 0x20 and byte != 0x7f for byte in line), line
        if form == 'json':
            assert json.loads(line.decode('utf-8'))['status'] in (200, 400)
        else:
            assert all(byte < 0x7f for byte in line), line
            # The fields are found by counting quotes, so an unescaped one would shift them.
            bare = re.sub(rb'\\.', b'', line)
            assert bare.count(b'"') == (2 if form == 'common' else 6), line
    assert b'forged' not in server.error_file.read_bytes()


def test_a_long_target_is_cut_and_flagged(rig):
    server = rig.weir(config())
    get(server.port, '/' + 'p' * 7000, 'User-Agent: ' + 'u' * 5000)
    line = line_of(server)
    assert line['truncated'] and line['path'].startswith('/ppp') and len(line['path']) < 7001
    assert line['status'] == 200


# ---- levels

def test_levels(rig):
    for level, expected in (('off', set()), ('error', {'error'}), ('warn', {'error', 'warn'}),
                            ('info', {'error', 'warn', 'info'}),
                            ('trace', {'error', 'warn', 'info'})):
        text = config(f'level = "{level}"', '[[route]]\nproxy = "http://127.0.0.1:1"\n')
        server = rig.weir(text, ready=False, name=f'level-{level}')
        # Its port is not in the log of every level.
        port = wait_until(lambda server=server: listening_port(server.pid))
        assert get(port).status == 502  # a warning
        since = server.access_file.stat().st_size
        server.write('[nonsense]\n')  # an error
        server.tell(signal.SIGHUP)
        assert get(port).status == 502
        assert since > 0 or wait_until(lambda server=server: server.access_file.stat().st_size)
        assert server.stop() == 0
        found = set(re.findall(r'Z (trace|debug|info|warn|error) ', server.log()))
        assert expected <= found <= expected | {'debug', 'trace'} \
            if level == 'trace' else found == expected, (level, server.log())


def listening_port(pid):
    inodes = set()
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            match = re.match(r'socket:\[(\d+)\]', os.readlink(f'/proc/{pid}/fd/{fd}'))
        except FileNotFoundError:
            continue
        if match:
            inodes.add(match.group(1))
    with open(f'/proc/{pid}/net/tcp') as table:
        for line in list(table)[1:]:
            fields = line.split()
            if fields[3] == '0A' and fields[9] in inodes:
                return int(fields[1].split(':')[1], 16)
    return None


def test_the_level_changes_with_a_reload(rig):
    text = config('level = "error"', '[[route]]\nproxy = "http://127.0.0.1:1"\n')
    server = rig.weir(text.replace('"error"', '"info"'))
    port = server.port
    server.write(text)
    server.tell(signal.SIGHUP)
    since = len(server.log())

    def silent():
        before = len(server.log())
        assert get(port).status == 502
        time.sleep(0.05)
        return len(server.log()) == before

    wait_until(silent)
    server.write(text.replace('"error"', '"debug"'))
    server.tell(signal.SIGHUP)
    server.wait_log('config reloaded', since=since)
    assert get(port).status == 502
    server.wait_log('connect failed', since=since)


def test_access_log_off_and_on_again(rig):
    server = rig.weir(config('access_log = "off"'))
    for _ in range(5):
        get(server.port, '/unseen')
    server.reload(config())
    get(server.port, '/seen')
    assert [line['path'] for line in server.access(1)] == ['/seen']
    server.reload(config('access_log = "off"'))
    get(server.port, '/unseen')
    assert server.stop() == 0
    assert [line['path'] for line in server.access()] == ['/seen']


# ---- files

def lines_of(*files):
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_both_logs_in_files_that_only_we_can_read(rig, tmp_path):
    access, errors = tmp_path / 'access.log', tmp_path / 'error.log'
    server = rig.weir(config(f'access_log = "{access}"\nfile_path = "{errors}"'), ready=False)
    wait_until(lambda: errors.exists() and 'control ready' in errors.read_text())
    port = int(re.search(r'listening address=127\.0\.0\.1:(\d+)', errors.read_text()).group(1))
    assert get(port).status == 200
    wait_until(lambda: lines_of(access))
    assert (access.stat().st_mode & 0o777, errors.stat().st_mode & 0o777) == (0o640, 0o640)
    assert server.stop() == 0
    assert server.log() == '' and server.access_file.read_text() == ''
    assert 'control ended' in errors.read_text()


def test_both_logs_in_one_file(rig, tmp_path):
    both = tmp_path / 'both.log'
    server = rig.weir(config(f'access_log = "{both}"\nfile_path = "{both}"'), ready=False)
    wait_until(lambda: both.exists() and 'control ready' in both.read_text())
    port = int(re.search(r'listening address=127\.0\.0\.1:(\d+)', both.read_text()).group(1))
    for _ in range(100):
        get(port)
    wait_until(lambda: both.read_text().count('"status":200') == 100)
    for line in both.read_text().splitlines():
        assert line.startswith('{') or re.match(r'\d{4}-.* info ', line), line
    assert server.stop() == 0


def test_rotation_by_size_loses_no_line_and_keeps_the_wanted_files(rig, tmp_path):
    access = tmp_path / 'access.log'
    server = rig.weir(config(f'access_log = "{access}"\nmax_log_size = "64KiB"\nmax_log_files = 3'))
    with Client(server.port) as client:
        for number in range(600):
            client.get(f'/{number}?' + 'x' * 100)
        wait_until(lambda: (tmp_path / 'access.log.2').exists()
                   and lines_of(access)[-1]['path'].startswith('/599?'))
        files = [tmp_path / f'access.log.{number}' for number in (3, 2, 1)] + [access]
        files = [file for file in files if file.exists()]
        assert len(files) >= 3
        assert all(0 < file.stat().st_size <= 64 * 1024 for file in files)
        numbers = [int(line['path'].split('?')[0][1:]) for line in lines_of(*files)]
        assert numbers == list(range(600 - len(numbers), 600))
        if len(files) < 4:
            assert len(numbers) == 600
        for number in range(600, 2000):
            client.get(f'/{number}?' + 'x' * 100)
        wait_until(lambda: access.exists()
                   and (lines_of(access) or [{'path': ''}])[-1]['path'].startswith('/1999?'))
    assert sorted(file.name for file in tmp_path.glob('access.log*')) \
        == ['access.log', 'access.log.1', 'access.log.2', 'access.log.3']
    numbers = [int(line['path'].split('?')[0][1:]) for line in lines_of(
        *[tmp_path / f'access.log.{number}' for number in (3, 2, 1)], access)]
    assert numbers == list(range(2000 - len(numbers), 2000)) and len(numbers) > 500


def test_sigusr1_opens_the_files_anew_and_loses_no_line(rig, tmp_path):
    access = tmp_path / 'access.log'
    server = rig.weir(config(f'access_log = "{access}"'))
    with Client(server.port) as client:
        for number in range(10):
            since = len(server.log())
            for _ in range(10):
                client.get(f'/{number}')
            access.rename(tmp_path / f'rotated.{number}')
            client.get('/between')
            server.tell(signal.SIGUSR1)
            server.wait_log('log files opened again', since=since)
    assert server.stop() == 0
    files = [tmp_path / f'rotated.{number}' for number in range(10)]
    # A line may be a moment behind its response, never behind the next one.
    for number, file in enumerate(files):
        assert {line['path'] for line in lines_of(file)} >= {f'/{number}'}
        assert f'"/{number + 1}"' not in file.read_text()
    assert [line['path'] for line in lines_of(*files, access)] \
        == [path for number in range(10) for path in [f'/{number}'] * 10 + ['/between']]


def test_sigusr1_where_the_file_cannot_be_opened_keeps_the_old_one(rig, tmp_path):
    folder = tmp_path / 'logs'
    folder.mkdir()
    server = rig.weir(config(f'access_log = "{folder}/access.log"'))
    get(server.port, '/one')
    folder.rename(tmp_path / 'moved')
    server.tell(signal.SIGUSR1)
    server.wait_log('error log log could not be reopened, the old file stays in use')
    get(server.port, '/two')
    moved = tmp_path / 'moved' / 'access.log'
    wait_until(lambda: [line['path'] for line in lines_of(moved)] == ['/one', '/two'])


def test_a_full_disk_loses_lines_says_so_and_goes_on(rig):
    server = rig.weir(config('access_log = "/dev/full"'))
    assert get(server.port).status == 200
    server.wait_log(r'error log log cannot be written, lines are lost target=/dev/full '
                    r'error="No space left on device"')
    assert all(get(server.port).status == 200 for _ in range(10))


def test_another_access_log_after_a_reload(rig, tmp_path):
    first, second = tmp_path / 'first.log', tmp_path / 'second.log'
    server = rig.weir(config(f'access_log = "{first}"'))
    with Client(server.port) as client:
        client.get('/one')
        server.reload(config(f'access_log = "{second}"'))
        client.get('/two')
        wait_until(lambda: second.exists() and lines_of(second))
    assert [line['path'] for line in lines_of(first, second)] == ['/one', '/two']


# ---- never in the way

def small_pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


def test_a_pipe_that_nobody_reads_never_blocks_requests(rig):
    reader, writer = small_pipe()
    server = rig.weir(config('channel_size = 128', server='threads = 2'), binary=RELEASE,
                      stdout=writer)
    os.close(writer)
    need('wrk')
    # More than the pipe, the pending 4 MiB and the channels hold.
    requests, trouble = wrk(server.url + '/' + 'p' * 500, 3)
    assert not trouble and requests > 15000, (requests, trouble)
    assert get(server.port).status == 200
    server.wait_log(r'error log log cannot be written, lines are lost target=stdout '
                    r'error="the reader is too slow"')
    lines = drain(reader)
    assert lines > 1000
    server.wait_log(r'warn log log can be written again .*lines_lost=\d+')
    lost = int(re.search(r'lines_lost=(\d+)', server.log()).group(1))
    dropped = server.stats()['access_dropped']
    assert lost > 0 and lost + lines + dropped >= requests
    os.close(reader)


def drain(reader):
    """Reads until nothing comes for a while; every line must be whole. Gives their number."""
    blocks = []
    while select.select([reader], [], [], 0.5)[0]:
        blocks.append(os.read(reader, 1 << 20))
    *lines, rest = b''.join(blocks).split(b'\n')
    assert rest == b''
    for line in lines[::100] + lines[-1:]:
        assert json.loads(line)['status'] == 200
    return len(lines)


def test_a_reader_that_goes_away_is_no_reason_to_die(rig):
    reader, writer = small_pipe()
    server = rig.weir(config(), stdout=writer)
    os.close(writer)
    os.close(reader)
    assert all(get(server.port).status == 200 for _ in range(20))
    server.wait_log('log cannot be written, lines are lost target=stdout')
    assert server.stop() == 0


def test_an_end_does_not_wait_for_a_reader_that_reads_nothing(rig):
    reader, writer = small_pipe()
    server = rig.weir(config(), stdout=writer)
    os.close(writer)
    for _ in range(50):
        get(server.port, '/' + 'p' * 500)
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 5
    os.close(reader)


def test_a_full_channel_drops_counts_and_tells(rig):
    """While control is busy with a large configuration nobody drains the channels: the cores go on
    serving and count what they drop."""
    text = config('channel_size = 128')
    server = rig.weir(text, binary=RELEASE)
    since = len(server.log())
    server.write(text + ''.join(f'[[route]]\npath = "/r{i}/x"\nrespond = {{body = "r"}}\n'
                                for i in range(60000)))
    server.tell(signal.SIGHUP)
    total = 0
    with Client(server.port) as client:
        while 'config reloaded' not in server.log()[since:]:
            # 50 KiB of records, more than the 32 KiB that the channel holds.
            client.send(b'GET /%s HTTP/1.1\r\nHost: t\r\n\r\n' % (b'q' * 900) * 50)
            for _ in range(50):
                assert client.read_response().status == 200
            total += 50
    stats = server.stats()
    assert stats['requests'] == total and stats['access_dropped'] > 0
    assert len(server.access(total - stats['access_dropped'])) == total - stats['access_dropped']
    server.wait_log(r'warn log log channel was full, records dropped records=\d+ '
                    r'channel_bytes=32768')
    told = sum(map(int, re.findall(r'records dropped records=(\d+)', server.log())))
    assert told <= stats['access_dropped']


def test_a_pipe_with_a_quick_reader_gets_every_line(rig):
    """64 KiB at a time is less than what comes in a flush interval."""
    reader, writer = os.pipe()
    server = rig.weir(config().replace('"10ms"', '"100ms"'), binary=RELEASE, stdout=writer)
    os.close(writer)
    count = 0

    def read():
        nonlocal count
        while block := os.read(reader, 1 << 20):
            count += block.count(b'\n')

    thread = threading.Thread(target=read)
    thread.start()
    # Slow enough for a machine with two CPUs, far beyond 64 KiB in 100 ms.
    with Client(server.port) as client:
        end, total = time.monotonic() + 3, 0
        while time.monotonic() < end:
            client.send(b'GET /%s HTTP/1.1\r\nHost: t\r\n\r\n' % (b'q' * 500) * 100)
            for _ in range(100):
                client.read_response()
            total += 100
            time.sleep(0.005)
    assert server.stop() == 0
    thread.join(10)
    os.close(reader)
    assert count == total and total * 700 > 3 * 65536 * 10, (count, total)
    assert 'lines are lost' not in server.log()


def test_a_socket_as_standard_output(rig):
    """As under systemd with StandardOutput=socket, or docker with some log drivers."""
    ours, theirs = socket.socketpair()
    server = rig.weir(config(), stdout=theirs)
    theirs.close()
    assert get(server.port, '/socket').status == 200
    ours.settimeout(10)
    assert json.loads(ours.recv(65536))['path'] == '/socket'
    ours.close()
    assert get(server.port).status == 200


def test_the_flush_interval_is_kept(rig):
    server = rig.weir(config().replace('"10ms"', '"2s"'))
    begin = time.monotonic()
    get(server.port, '/first')
    server.access(1)
    late = time.monotonic() - begin
    server.reload(config().replace('"10ms"', '"20ms"'))
    begin = time.monotonic()
    get(server.port, '/second')
    server.access(2)
    assert late < 4 and time.monotonic() - begin < 1.5
