"""weir cert self-signed, weir check with certificates, and what a running weir does when certificates,
keys and listeners change (docs/OPERATIONS.md)."""
import os
import re
import signal
import socket
import ssl
import stat
import subprocess

import pytest

from ops_rig import WEIR, default_respond, rig, wait_until
from test_ops_environment import open_rig, root_only

__all__ = ['open_rig', 'rig']


def weir(*words, **more):
    return subprocess.run([WEIR, *map(str, words)], capture_output=True, text=True, timeout=30,
                          **more)


def make(folder, *words):
    done = weir('cert', 'self-signed', '--out', folder, *words)
    assert done.returncode == 0, done.stderr
    return done


def client(trusted):
    context = ssl.create_default_context(cafile=str(trusted))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def serial(port, trusted, host='localhost'):
    """Serial number of the certificate that the server proves to have."""
    with socket.create_connection(('127.0.0.1', port), timeout=10) as plain:
        with client(trusted).wrap_socket(plain, server_hostname=host) as secure:
            return secure.getpeercert()['serialNumber']


def ask(port, trusted=None, path='/'):
    """Status line and head of one request, by https if a file to trust is given."""
    with socket.create_connection(('127.0.0.1', port), timeout=10) as plain:
        stream = plain
        if trusted is not None:
            stream = client(trusted).wrap_socket(plain, server_hostname='localhost')
        stream.sendall(f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
        answer = b''
        while chunk := stream.recv(65536):
            answer += chunk
        stream.close()
    return answer.decode()


def config(folder, more='', tls='true', name='localhost'):
    return (f'[[listener]]\nname = "a"\naddress = "127.0.0.1:0"\ntls = {tls}\n'
            f'[tls]\ncert_path = "{folder}/{name}.crt"\nkey_path = "{folder}/{name}.key"\n'
            f'[logging]\naccess_log = "off"\n{more}' + default_respond())


# ---- the command

def test_what_it_makes_can_be_used_as_it_says(rig, tmp_path):
    done = make(tmp_path / 'new' / 'tls')
    certificate, key = (tmp_path / 'new' / 'tls' / f'localhost.{end}' for end in ('crt', 'key'))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o644
    assert sorted(os.listdir(certificate.parent)) == ['localhost.crt', 'localhost.key']
    assert str(certificate) in done.stderr and 'curl --cacert' in done.stderr
    server = rig.weir(done.stdout.replace('0.0.0.0:8443', '127.0.0.1:0') + default_respond())
    for host in ('localhost', '127.0.0.1'):
        assert serial(server.port, certificate, host)
    assert ask(server.port, certificate).startswith('HTTP/1.1 200 ')
    with pytest.raises(ssl.SSLCertVerificationError):
        serial(server.port, certificate, 'other.test')


def test_hosts_days_and_kind_of_key(tmp_path):
    make(tmp_path, '--host', '*.a.test', '--host', '10.1.2.3', '--days', '3', '--rsa')
    text = subprocess.run(['openssl', 'x509', '-in', tmp_path / 'wildcard.a.test.crt', '-noout',
                           '-text'], capture_output=True, text=True, check=True).stdout
    assert 'DNS:*.a.test, IP Address:10.1.2.3' in text
    assert 'RSA Public-Key: (2048 bit)' in text or 'Public-Key: (2048 bit)' in text
    assert 'CA:FALSE' in text
    for seconds, good in ((2 * 86400, 0), (4 * 86400, 1)):
        assert subprocess.run(['openssl', 'x509', '-in', tmp_path / 'wildcard.a.test.crt',
                               '-noout', '-checkend', str(seconds)], capture_output=True,
                              check=False).returncode == good


@pytest.mark.parametrize('left', ['crt', 'key'])
def test_nothing_is_overwritten_unless_asked(tmp_path, left):
    make(tmp_path)
    before = (tmp_path / f'localhost.{left}').read_text()
    (tmp_path / f'localhost.{"key" if left == "crt" else "crt"}').unlink()
    done = weir('cert', 'self-signed', '--out', tmp_path)
    assert (done.returncode, done.stdout) == (1, '')
    assert f'localhost.{left}' in done.stderr and '--force' in done.stderr
    assert os.listdir(tmp_path) == [f'localhost.{left}']
    assert (tmp_path / f'localhost.{left}').read_text() == before
    (tmp_path / 'localhost.key').write_text('old')
    (tmp_path / 'localhost.key').chmod(0o644)
    make(tmp_path, '--force')
    assert stat.S_IMODE((tmp_path / 'localhost.key').stat().st_mode) == 0o600
    assert (tmp_path / f'localhost.{left}').read_text() != before


@pytest.mark.parametrize('words,status', [
    (['--host', 'a b'], 1), (['--days', '3651'], 1), (['--out', '/proc/self/nothing'], 1),
    (['--days', 'x'], 2), (['--host'], 2), (['more'], 2), (['-c', 'x'], 2),
])
def test_what_cannot_be_made_is_said(tmp_path, words, status):
    done = weir('cert', 'self-signed', *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, '')
    assert done.stderr.startswith('weir: ')
    assert not os.listdir(tmp_path)


# ---- weir check

def test_check_reads_the_certificates(tmp_path):
    make(tmp_path)
    make(tmp_path, '--host', 'other.test')
    file = tmp_path / 'weir.toml'
    file.write_text(config(tmp_path))
    assert weir('check', '-c', file).returncode == 0
    file.write_text(config(tmp_path).replace('localhost.key', 'other.test.key')
                    + '[upstream.u]\nservers = ["https://127.0.0.1:1"]\ntls_ca_path = "/no/such"\n'
                      '[[route]]\npath = "/u"\nproxy = "u"\n')
    done = weir('check', '-c', file)
    assert (done.returncode, done.stdout) == (1, '')
    first, second = done.stderr.splitlines()
    assert first.startswith(f'{file}:6: the private key in {tmp_path}/other.test.key does not belong')
    assert re.match(rf'{file}:\d+: upstream u: cannot open /no/such: No such file', second)


# ---- a running weir

def test_a_start_with_a_wrong_certificate_is_1_and_says_where(tmp_path):
    file = tmp_path / 'weir.toml'
    file.write_text(config(tmp_path))
    done = weir('run', '-c', file)
    assert done.returncode == 1
    assert f'{file}:6: cannot open {tmp_path}/localhost.crt: No such file' in done.stderr


def test_a_renewed_certificate_is_taken_up_by_itself(rig, tmp_path):
    make(tmp_path)
    trusted = tmp_path / 'localhost.crt'
    server = rig.weir(config(tmp_path))
    first = serial(server.port, trusted)
    # A connection that is there stays, with the certificate it has seen.
    plain = socket.create_connection(('127.0.0.1', server.port), timeout=10)
    kept = client(trusted).wrap_socket(plain, server_hostname='localhost')
    make(tmp_path, '--force')
    server.wait_log(r'info config reloaded generation=2')
    assert serial(server.port, trusted) != first
    assert kept.getpeercert()['serialNumber'] == first
    kept.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    assert kept.recv(65536).startswith(b'HTTP/1.1 200 ')
    kept.close()

    # Half of a renewal is refused, the other half puts it right.
    second = serial(server.port, trusted)
    make(tmp_path / 'next')
    since = len(server.log())
    old = tmp_path / 'old.crt'
    old.write_text(trusted.read_text())
    trusted.write_text((tmp_path / 'next' / 'localhost.crt').read_text())
    server.wait_log(r'error tls .*does not belong to', since=since)
    server.wait_log(r'was not reloaded; the old one stays', since=since)
    assert serial(server.port, old) == second
    (tmp_path / 'localhost.key').write_text((tmp_path / 'next' / 'localhost.key').read_text())
    server.wait_log(r'info config reloaded', since=since)
    assert serial(server.port, trusted) not in (first, second)


def test_sighup_reads_certificates_again_and_a_touch_does_nothing(rig, tmp_path):
    make(tmp_path)
    trusted = tmp_path / 'localhost.crt'
    server = rig.weir(config(tmp_path))
    first = serial(server.port, trusted)
    assert server.log().count('certificates loaded') == 1
    os.utime(trusted)
    server.tell(signal.SIGHUP)
    server.wait_log(r'reloaded generation=2')
    assert server.log().count('certificates loaded') == 1  # it is the same
    assert serial(server.port, trusted) == first


def test_a_file_that_was_missing_at_a_reload_is_waited_for(rig, tmp_path):
    make(tmp_path)
    server = rig.weir(config(tmp_path))
    server.write(config(tmp_path, name='other.test'))
    server.wait_log(r'error tls .*cannot open .*other\.test\.crt')
    make(tmp_path, '--host', 'other.test')
    server.wait_log(r'info config reloaded')
    assert serial(server.port, tmp_path / 'other.test.crt', 'other.test')


def test_a_listener_changes_between_http_and_https_without_a_new_socket(rig, tmp_path):
    make(tmp_path)
    trusted = tmp_path / 'localhost.crt'
    server = rig.weir(config(tmp_path, tls='false'))
    port = server.port
    assert ask(port).startswith('HTTP/1.1 200 ')

    def reloaded(text, generation):
        server.write(text)
        server.wait_log(rf'reloaded generation={generation}\b')

    def becomes(look):
        # The message to the core is on its way when the log says "reloaded".
        def seen():
            try:
                return look()
            except (OSError, ssl.SSLError):
                return False

        return wait_until(seen, 5, 'the listener to change')

    reloaded(config(tmp_path), 2)
    becomes(lambda: ask(port, trusted).startswith('HTTP/1.1 200 '))
    reloaded(config(tmp_path, tls='false').replace('tls = false', 'redirect_https = 4443'), 3)
    becomes(lambda: 'Location: https://localhost:4443/x?y\r\n' in ask(port, path='/x?y'))
    reloaded(config(tmp_path, tls='false'), 4)
    becomes(lambda: ask(port).startswith('HTTP/1.1 200 '))
    assert server.port == port and server.log().count(' listening ') == 1


def test_sessions_resume_on_every_core_and_after_a_reload(rig, tmp_path):
    make(tmp_path)
    trusted = tmp_path / 'localhost.crt'
    server = rig.weir(config(tmp_path, '[server]\nthreads = 2\n'))
    context = client(trusted)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the session is there after the handshake

    def connect(session=None):
        with socket.create_connection(('127.0.0.1', server.port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname='localhost',
                                     session=session) as secure:
                return secure.session, secure.session_reused

    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # they change below
    session, reused = connect()
    assert not reused
    assert all(connect(session)[1] for _ in range(16))  # the kernel spreads them over both
    server.write(config(tmp_path, '[server]\nthreads = 2\nvia = "x"\n'))
    server.wait_log(r'reloaded generation=2')
    assert connect(session)[1]
    make(tmp_path, '--force')  # other certificates, the same keys for tickets
    server.wait_log(r'reloaded generation=3')
    assert connect(session)[1]
    server.write(config(tmp_path, '[server]\nthreads = 2\n').replace(
        '[tls]\n', '[tls]\nsession_tickets = false\n'))
    server.wait_log(r'reloaded generation=4')
    wait_until(lambda: not connect(session)[1], 5, 'tickets to be refused')


def test_ticket_keys_from_files_are_shared_and_changed(rig, tmp_path):
    make(tmp_path)
    (tmp_path / 'ticket.key').write_bytes(os.urandom(80))
    text = config(tmp_path).replace(
        '[tls]\n', f'[tls]\nticket_key_files = "{tmp_path}/ticket.key"\n')
    servers = [rig.weir(text, name=name) for name in ('one', 'two')]
    context = client(tmp_path / 'localhost.crt')
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def connect(server, session=None):
        with socket.create_connection(('127.0.0.1', server.port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname='localhost',
                                     session=session) as secure:
                return secure.session, secure.session_reused

    session, _ = connect(servers[0])
    assert connect(servers[1], session)[1]
    (tmp_path / 'ticket.key').write_bytes(os.urandom(48))
    for server in servers:
        server.wait_log(r'reloaded generation=2')
        assert server.log().count('certificates loaded') == 1
    wait_until(lambda: not connect(servers[1], session)[1], 5, 'the old key to be forgotten')
    session, _ = connect(servers[1])
    assert wait_until(lambda: connect(servers[0], session)[1], 5, 'the new key on the other')


def test_counters_of_tls(rig, tmp_path):
    make(tmp_path)
    trusted = tmp_path / 'localhost.crt'
    server = rig.weir(config(tmp_path, '[server]\nthreads = 1\n'))
    ask(server.port, trusted)
    with socket.create_connection(('127.0.0.1', server.port), timeout=10) as plain:
        plain.sendall(b'\x00' * 64)  # no TLS
        while plain.recv(4096):
            pass

    def line():
        since = len(server.log())
        server.tell(signal.SIGUSR2)
        found = server.wait_log(r'info stats tls of_core=0 (.*)\n', since=since)
        return dict(part.split('=', 1) for part in found.group(1).split())

    counted = wait_until(lambda: (found := line())['failed'] == '1' and found, 5, 'the failure')
    assert counted['full'] == '1' and counted['resumed'] == '0'
    assert counted['failures'] == 'not_tls:1'
    assert int(counted['kernel']) + int(counted['userspace']) == 1
    assert re.fullmatch(r'\w+:1', counted['records'])
    server.wait_log(r'info stats tls_upstreams of_core=0 full=0 resumed=0 .* failures=- records=-')


@root_only
def test_a_key_of_roots_is_read_before_privileges_are_dropped(open_rig):
    tls = open_rig.folder / 'tls'
    make(tls)
    trusted = tls / 'localhost.crt'
    drop = '[security]\ndrop_privileges_user = "nobody"\n'
    server = open_rig.weir(config(tls, drop))
    first = serial(server.port, trusted)
    # Routes can change; the key is left alone.
    server.write(config(tls, drop + '[server]\nvia = "x"\n'))
    server.wait_log(r'reloaded generation=2')
    assert serial(server.port, trusted) == first
    # A new pair cannot be read.
    old = open_rig.folder / 'old.crt'
    old.write_text(trusted.read_text())
    make(tls, '--force')
    server.wait_log(r'error tls .*localhost\.key: Permission denied')
    server.wait_log(r'error tls "?files are read as this user since privileges were dropped')
    assert serial(server.port, old) == first
    # Opening it up is a change as well.
    (tls / 'localhost.key').chmod(0o644)
    server.wait_log(r'reloaded generation=3')
    assert serial(server.port, trusted) != first
