"""Sessions that are resumed by tickets: over connections, cores, reloads and machines, and when they
must not be."""
import os

import pytest

import tls_rig
from tls_rig import (Authority, TlsClient, client_context, config, pki, request_bytes, rig, s_client,
                     seconds)

__all__ = ['rig']
pytestmark = tls_rig.LIMIT
VERSIONS = ['1.2', '1.3']


class Visitor:
    """A client that comes again and again and shows the newest ticket it has."""

    def __init__(self, version, certificate=None):
        self.context = client_context(version, certificate=certificate)
        self.session = None

    def resumes(self, port):
        """Connects; whether a session was resumed."""
        with TlsClient(port, context=self.context, session=self.session) as client:
            assert client.get('/').status == 200
            self.session, reused = client.sock.session, client.sock.session_reused
            client.finish()
            return reused


def key_file(path, size=48):
    path.write_bytes(os.urandom(size))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize('version', VERSIONS)
def test_tickets_resume(rig, version):
    weir = rig.weir(config())
    visitor = Visitor(version)
    assert [visitor.resumes(weir.port) for _ in range(4)] == [False, True, True, True]
    assert [line['tls_resumed'] for line in weir.lines(4)] == [False, True, True, True]
    stats = weir.tls_stats()
    assert (stats['clients.full'], stats['clients.resumed']) == (1, 3)


@pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])
def test_tickets_resume_by_s_client(rig, tmp_path, version):
    weir = rig.weir(config())
    file, request = str(tmp_path / 'session'), request_bytes('/', 'Connection: close')
    said = s_client(weir.port, version, '-sess_out', file, data=request)
    assert 'New, TLSv1' in said and 'HTTP/1.1 200' in said, said
    said = s_client(weir.port, version, '-sess_in', file, data=request)
    assert 'Reused, TLSv1' in said and 'HTTP/1.1 200' in said, said


@pytest.mark.parametrize('version', VERSIONS)
def test_any_core_resumes(rig, version):
    weir = rig.weir(config(server='threads = 2'))
    visitor = Visitor(version)
    assert [visitor.resumes(weir.port) for _ in range(30)] == [False] + [True] * 29
    assert {line['core'] for line in weir.lines(30)} == {0, 1}


@pytest.mark.parametrize('version', VERSIONS)
def test_sessions_outlive_a_reload(rig, version):
    """Of the configuration, and of the certificate."""
    live = rig.folder / 'live.crt'
    live.write_bytes(open(pki().ec.cert, 'rb').read())
    certificate = tls_rig.Pair(live, pki().ec.key).toml()
    weir = rig.weir(config(certificate=certificate))
    visitor = Visitor(version)
    assert visitor.resumes(weir.port) is False
    weir.reload(config(certificate=certificate, tls='handshake_timeout = "7s"\n'))
    assert visitor.resumes(weir.port) is True


@pytest.mark.parametrize('version', VERSIONS)
def test_two_machines_with_the_same_keys(rig, tmp_path, version):
    tls = f'ticket_key_files = ["{key_file(tmp_path / "key", 80)}"]\n'
    one, two, other = rig.weir(config(tls=tls)), rig.weir(config(tls=tls)), rig.weir(config())
    visitor = Visitor(version)
    assert [visitor.resumes(weir.port) for weir in (one, two, one)] == [False, True, True]
    assert visitor.resumes(other.port) is False, 'it has keys of its own'


@pytest.mark.parametrize('version', VERSIONS)
def test_keys_change(rig, tmp_path, version):
    """The first seals, all open; a ticket of a key that is gone leads to a full handshake."""
    files = [key_file(tmp_path / name) for name in ('a', 'b', 'c')]

    def with_keys(*keys):
        return config(tls=f'ticket_key_files = [{", ".join(repr(key) for key in keys)}]\n')
    weir = rig.weir(with_keys(files[0]))
    visitor, absent = Visitor(version), Visitor(version)
    assert visitor.resumes(weir.port) is absent.resumes(weir.port) is False
    weir.reload(with_keys(files[1], files[0]))
    assert visitor.resumes(weir.port) is True
    weir.reload(with_keys(files[2], files[1]))
    assert visitor.resumes(weir.port) is True, 'it got a ticket of the second key'
    assert absent.resumes(weir.port) is False, 'its key is gone'
    assert absent.resumes(weir.port) is True


def test_a_changed_key_file_is_taken_up(rig, tmp_path):
    file = key_file(tmp_path / 'key')
    weir = rig.weir(config(tls=f'ticket_key_files = "{file}"\n'))
    visitor = Visitor('1.3')
    assert [visitor.resumes(weir.port) for _ in range(2)] == [False, True]
    os.rename(key_file(tmp_path / 'new'), file)
    old = visitor.session

    def refused():
        visitor.session = old
        return not visitor.resumes(weir.port)
    tls_rig.wait_until(refused, seconds(20), 'the new key')


@pytest.mark.parametrize('size', [0, 47, 64, 81])
def test_key_files_that_are_none(rig, tmp_path, size):
    file = key_file(tmp_path / 'key', size)
    assert file in rig.refused(config(tls=f'ticket_key_files = "{file}"\n'))


def test_tickets_switched_off(rig):
    weir = rig.weir(config(tls='session_tickets = false\n'))
    for version in VERSIONS:
        visitor = Visitor(version)
        assert [visitor.resumes(weir.port) for _ in range(3)] == [False] * 3
    said = s_client(weir.port, '-tls1_3', data=request_bytes('/', 'Connection: close'))
    assert 'Session Ticket arrived' not in said
    assert weir.tls_stats()['clients.resumed'] == 0


@pytest.mark.parametrize('version', VERSIONS)
def test_sessions_have_their_time(rig, version):
    weir = rig.weir(config(tls='session_lifetime = "1s"\n'))
    visitor = Visitor(version)
    assert [visitor.resumes(weir.port) for _ in range(2)] == [False, True]
    old = visitor.session

    def expired():
        visitor.session = old
        return not visitor.resumes(weir.port)
    tls_rig.wait_until(expired, seconds(10), 'the end of the session')


@pytest.mark.parametrize('version', VERSIONS)
def test_a_session_does_not_pass_for_a_certificate(rig, tmp_path, version):
    """Resumed where clients need a certificate, or another CA's: as if there were no ticket."""
    one, two = Authority(tmp_path / 'one', 'one'), Authority(tmp_path / 'two', 'two')
    keys = f'ticket_key_files = "{key_file(tmp_path / "key")}"\n'

    def asking(authority):
        return (f'{keys}client_auth = "required"\nclient_ca_path = "{authority.cert}"\n')
    off, first, second = (rig.weir(config(tls=tls)) for tls in (keys, asking(one), asking(two)))
    visitor = Visitor(version, certificate=one.issue('me', usage='clientAuth'))
    assert [visitor.resumes(off.port) for _ in range(2)] == [False, True]
    assert [visitor.resumes(first.port) for _ in range(2)] == [False, True]
    with pytest.raises((tls_rig.ssl.SSLError, ConnectionError)):
        visitor.resumes(second.port)
    assert second.tls_stats()['clients.resumed'] == 0


def test_no_early_data(rig, tmp_path):
    """0-RTT is not offered, and not accepted from a client that sends it all the same."""
    weir = rig.weir(config())
    file, early = str(tmp_path / 'session'), tmp_path / 'early'
    request = request_bytes('/', 'Connection: close')
    early.write_bytes(request_bytes('/early'))
    said = s_client(weir.port, '-tls1_3', '-sess_out', file, data=request)
    assert 'Max Early Data: 0' in said, said
    said = s_client(weir.port, '-tls1_3', '-sess_in', file, '-early_data', str(early), data=request)
    assert 'Early data was accepted' not in said, said
    assert not [line for line in weir.access() if line['path'] == '/early']
