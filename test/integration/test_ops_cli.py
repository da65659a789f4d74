"""The command line: every command, its output and its exit status (docs/OPERATIONS.md)."""
import os
import pathlib
import re
import signal
import subprocess
import textwrap

import pytest

from ops_rig import (ROOT, WEIR, Client, default_respond, get, need, rig, wait_until)

__all__ = ['rig']


def weir(*words, **more):
    return subprocess.run([WEIR, *map(str, words)], capture_output=True, text=True, timeout=30,
                          **more)


@pytest.fixture
def config(tmp_path):
    def write(text, name='weir.toml'):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


GOOD = '''\
    [[listener]]
    address = "127.0.0.1:0"
    [upstream.app]
    servers = ["127.0.0.1:3000"]
    [[route]]
    host = "example.com"
    path = "/api/"
    proxy = "http://app/v1/"
    [[route]]
    path = "/old"
    redirect = {url = "https://example.com${uri}", status = 308}
    '''


@pytest.mark.parametrize('word', ['--help', '-h', 'help'])
def test_help_names_every_command_signal_and_status(word):
    done = weir(word)
    assert (done.returncode, done.stderr) == (0, '')
    for text in ('weir run', 'weir check', 'weir explain', 'weir config-reference',
                 'weir cert self-signed', 'weir ctl', '--version',
                 '/etc/weir/weir.toml', 'SIGHUP', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'exit status'):
        assert text in done.stdout, text
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize('word', ['--version', '-V', 'version'])
def test_version_tells_build_and_kernel(word):
    done = weir(word)
    assert (done.returncode, done.stderr) == (0, '')
    declared = re.search(r"version: '([^']+)'", (ROOT / 'meson.build').read_text()).group(1)
    assert done.stdout.startswith(f'weir {declared}\nbuilt with ')
    assert re.search(r'^has: ', done.stdout, re.M), done.stdout


@pytest.mark.parametrize('words', [
    [], ['serve'], ['--nonsense'], ['run', 'weir.toml'], ['run', '-c'], ['run', '--config'],
    ['check', '-x'], ['run', '-H', 'A: b'], ['explain'], ['explain', 'GET'],
    ['explain', 'GET', '/', '/more'], ['explain', 'GET', '/', '-H', 'nocolon'],
    ['explain', 'GET', '/', '--client', 'example.com'],
])
def test_a_wrong_command_line_is_2(words):
    done = weir(*words)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith('weir: ') and 'weir --help' in done.stderr


def test_check_of_a_good_file(config):
    done = weir('check', '-c', path := config(GOOD))
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'{path}: good: 1 listener, 1 upstream, 2 routes\n'
    assert weir('check', f'--config={path}').returncode == 0


def test_check_reports_all_errors_at_once_with_their_places(config):
    path = config('''\
        [[listener]]
        address = "127.0.0.1:99999"

        [server]
        thread = 2
        keepalive_timeout = "sixty"

        [[route]]
        path = "/"
        proxy = "nowhere"

        [acme]
        ''')
    done = weir('check', '-c', path)
    assert (done.returncode, done.stdout) == (1, '')
    lines = done.stderr.splitlines()
    places = {}
    for line in lines:
        match = re.fullmatch(rf'{re.escape(str(path))}:(\d+):(\d+): ([^:]+): (.+)', line)
        assert match, line
        places[match.group(3)] = (int(match.group(1)), int(match.group(2)), match.group(4))
    assert set(places) == {'listener[0].address', 'server.thread', 'server.keepalive_timeout',
                           'route[0].proxy', 'acme'}
    assert places['listener[0].address'][:2] == (2, 11)
    assert places['server.thread'][:2] == (5, 1) and 'threads' in places['server.thread'][2]
    assert places['server.keepalive_timeout'][:2] == (6, 21)
    assert places['route[0].proxy'][:2] == (10, 9)
    assert places['acme'][0] == 12 and 'certificates release' in places['acme'][2]


@pytest.mark.parametrize('text,line', [('a = \n', 1), ('[[listener]]\naddress = "x\n', 2),
                                       ('[server]\n[server]\n', 2)])
def test_check_of_broken_toml(config, text, line):
    done = weir('check', '-c', path := config(text))
    assert done.returncode == 1
    assert re.match(rf'{re.escape(str(path))}:{line}:\d+: TOML: .', done.stderr), done.stderr


def test_check_of_a_file_that_is_not_there(tmp_path):
    done = weir('check', '-c', tmp_path / 'none.toml')
    assert done.returncode == 1
    assert 'none.toml:1:1: cannot open the file: No such file or directory' in done.stderr


def test_run_with_an_error_in_the_configuration_is_1(config):
    done = weir('run', '-c', path := config('[server]\nthreads = 0.5\n'))
    assert done.returncode == 1
    assert re.search(rf'{re.escape(str(path))}:2:11: server.threads: ', done.stderr), done.stderr
    assert 'not started' in done.stderr


EXPLAINED = '''\
    [[listener]]
    address = "127.0.0.1:0"
    [upstream.app]
    servers = ["127.0.0.1:3000"]
    [[route]]
    name = "api"
    host = "example.com"
    path = "/api/"
    proxy = "http://app/v1/"
    [[route]]
    name = "beta"
    host = "example.com"
    path = "/api/"
    headers = {"X-Beta" = "yes"}
    respond = {body = "beta"}
    [[route]]
    name = "inside"
    host = "example.com"
    path = "/status"
    source = "10.0.0.0/8"
    respond = {body = "fine"}
    [[route]]
    name = "moved"
    host = "old.example.com"
    redirect = {url = "https://example.com${uri}", status = 308}
    '''


@pytest.mark.parametrize('words,parts', [
    (['GET', 'http://example.com/api/users?page=2'], ['api', 'app', '/v1/users']),
    (['GET', 'http://EXAMPLE.com:8080/x/../api/%75sers'], ['api', 'app', '/v1/users']),
    (['GET', '/api/users', '-H', 'Host: example.com'], ['api', 'app', '/v1/users']),
    (['GET', 'http://example.com/api/users', '-H', 'x-beta: yes'], ['beta', '200']),
    (['GET', 'http://example.com/status', '--client', '10.1.2.3'], ['inside', '200']),
    (['GET', 'http://old.example.com/a?b=c'], ['moved', '308', 'https://example.com/a?b=c']),
])
def test_explain_tells_route_upstream_and_rewritten_url(config, words, parts):
    done = weir('explain', '-c', config(EXPLAINED), *words)
    assert (done.returncode, done.stderr) == (0, ''), done.stderr
    for part in parts:
        assert part in done.stdout, done.stdout


@pytest.mark.parametrize('words', [
    ['GET', 'http://example.com/nothing'], ['GET', 'http://other.example/api/'],
    ['GET', 'http://example.com/status'],  # not from inside
])
def test_explain_of_a_request_without_a_route_is_1(config, words):
    done = weir('explain', '-c', config(EXPLAINED), *words)
    assert done.returncode == 1
    assert '404' in done.stdout + done.stderr


@pytest.mark.parametrize('url', ['ftp://example.com/', 'http://', 'http://example.com/%zz'])
def test_explain_refuses_what_is_not_a_url(config, url):
    done = weir('explain', '-c', config(EXPLAINED), 'GET', url)
    assert done.returncode == 1 and done.stderr.startswith('weir: '), done.stderr


def test_explain_and_the_running_weir_agree(rig):
    origin = rig.origin()
    server = rig.weir(textwrap.dedent(EXPLAINED).replace('127.0.0.1:3000',
                                                         f'127.0.0.1:{origin.port}'))
    for target in ('/api/users?page=2', '/x/../api/%75sers', '/api', '/api/', '/apix', '/nothing'):
        explained = weir('explain', '-c', server.file, 'GET', f'http://example.com{target}')
        response = get(server.port, target, host='example.com')
        if response.status == 404:
            assert explained.returncode == 1, (target, explained.stdout)
            continue
        sent = origin.requests[-1].target
        assert explained.returncode == 0 and sent in explained.stdout, (target, explained.stdout)


def test_the_reference_in_docs_is_the_schema_s():
    done = weir('config-reference')
    assert done.returncode == 0
    assert done.stdout == (ROOT / 'docs' / 'CONFIG.md').read_text(), \
        'write it anew: build/weir config-reference > docs/CONFIG.md'


@pytest.mark.parametrize('name', ['default.toml', 'example-proxy.toml', 'example-short.toml',
                                  'example-upstreams.toml', 'weir.toml'])
def test_the_configurations_we_ship_are_good(name, tmp_path):
    # That of the demo names the certificate that tools/quickstart makes.
    weir('cert', 'self-signed', '--out', tmp_path / 'build' / 'demo')
    done = weir('check', '-c', ROOT / 'config' / name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_address_in_use_is_1_and_says_so(rig, config):
    first = rig.weir('[[listener]]\naddress = "127.0.0.1:0"\n' + default_respond())
    done = weir('run', '-c', config(f'[[listener]]\naddress = "127.0.0.1:{first.port}"\n'
                                    + default_respond(), 'second.toml'))
    assert done.returncode == 1
    assert f'cannot listen on 127.0.0.1:{first.port}: Address already in use' in done.stderr
    assert get(first.port).status == 200


def test_an_address_that_is_not_ours_is_1_and_says_so(config):
    done = weir('run', '-c', config('[[listener]]\naddress = "192.0.2.1:0"\n' + default_respond()))
    assert done.returncode == 1
    assert 'cannot listen on 192.0.2.1:0: Cannot assign requested address' in done.stderr


def default_place(script):
    """Runs a shell script as if on a machine with an empty /etc/weir and port 8080 free, invisible
    to others: in namespaces of its own, with a tmpfs there. WEIR is set."""
    need('unshare', 'ip', 'curl')
    there = pathlib.Path('/etc/weir')
    made = not there.exists()
    there.mkdir(exist_ok=True)
    mounted = f'mount -t tmpfs none /etc/weir && ip link set lo up\n{script}'
    try:
        return subprocess.run(
            ['unshare', '-m', '-n', '--propagation', 'private', 'bash', '-c', mounted],
            capture_output=True, text=True, timeout=40, env={**os.environ, 'WEIR': WEIR})
    finally:
        if made:
            there.rmdir()


RUN_AND_ASK = '''
    $WEIR run 2>/tmp/weir-default.$$ & pid=$!
    for _ in $(seq 100); do
      curl -s http://127.0.0.1:8080/ >/dev/null && break
      kill -0 $pid || break
      sleep 0.05
    done
    curl -si http://127.0.0.1:8080/
    kill $pid; wait $pid; echo "ended with $?"
    cat /tmp/weir-default.$$; rm /tmp/weir-default.$$
    '''


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root for a mount namespace')
class TestWithoutAConfiguration:
    def test_run_writes_the_default_one_and_serves_a_welcome_page(self):
        done = default_place(RUN_AND_ASK + 'cat /etc/weir/weir.toml')
        assert 'HTTP/1.1 200 OK' in done.stdout and 'Welcome to weir' in done.stdout, done.stdout
        assert 'no configuration at /etc/weir/weir.toml: wrote one there' in done.stdout
        assert 'ended with 0' in done.stdout
        assert (ROOT / 'config' / 'default.toml').read_text() in done.stdout

    def test_the_written_one_is_reloaded_when_it_is_edited(self):
        edited = '''
            $WEIR run 2>/dev/null & pid=$!
            until curl -s http://127.0.0.1:8080/ >/dev/null; do sleep 0.05; done
            sed -i 's/Welcome to weir/Edited/' /etc/weir/weir.toml
            for _ in $(seq 100); do
              curl -s http://127.0.0.1:8080/ | grep -q Edited && break; sleep 0.05
            done
            curl -s http://127.0.0.1:8080/
            kill $pid; wait $pid
            '''
        done = default_place(edited)
        assert '<h1>Edited</h1>' in done.stdout, done.stdout + done.stderr

    def test_where_it_cannot_be_written_the_embedded_one_is_used(self):
        done = default_place('mount -o remount,ro /etc/weir\n' + RUN_AND_ASK)
        assert 'Welcome to weir' in done.stdout, done.stdout
        assert 'it cannot be written there' in done.stdout
        assert 'ended with 0' in done.stdout

    def test_an_existing_file_is_used_as_it_is(self):
        done = default_place('echo "[server" >/etc/weir/weir.toml; $WEIR run; echo "was $?"; '
                             'cat /etc/weir/weir.toml')
        assert 'was 1' in done.stdout and '[server\n' in done.stdout
        assert '/etc/weir/weir.toml:1:' in done.stderr

    def test_only_the_default_place_gets_a_default(self, tmp_path):
        done = weir('run', '-c', tmp_path / 'none.toml')
        assert done.returncode == 1 and not (tmp_path / 'none.toml').exists()


def test_environment_variables_in_the_configuration(rig):
    text = ('[[listener]]\naddress = "127.0.0.1:${OPS_PORT:-0}"\n'
            '[[route]]\nrespond = {body = "${OPS_BODY} $${OPS_BODY} ${OPS_NONE:-none}"}\n')
    server = rig.weir(text, env={'OPS_BODY': 'from outside'})
    assert get(server.port).body == b'from outside ${OPS_BODY} none'
    done = weir('check', '-c', server.file, env={k: v for k, v in os.environ.items()
                                                 if k != 'OPS_BODY'})
    assert done.returncode == 1 and re.search(r':4:\d+: route\[0\]\.respond\.body: .*OPS_BODY',
                                              done.stderr), done.stderr


def test_run_in_the_foreground_ends_by_control_c(rig):
    server = rig.weir('[[listener]]\naddress = "127.0.0.1:0"\n' + default_respond())
    with Client(server.port) as client:
        assert client.get().status == 200
    assert server.stop(signal.SIGINT) == 0
    wait_until(lambda: 'info control ended' in server.log())
