"""Which certificate a client gets, what is refused at the start, how certificates change while weir
runs, OCSP stapling, and the certificates of clients."""
import os
import pathlib
import re
import shutil
import ssl

import pytest

import tls_rig
from conftest import Ended
from ops_rig import RELEASE
from tls_rig import (Authority, Pair, TlsClient, client_context, config, pki, proxy_to, rig, run, s_client,
                     seconds, wait_certificate)

__all__ = ['rig']
pytestmark = tls_rig.LIMIT


def entry(pair, *hosts, more=''):
    names = f'hostname = [{", ".join(map(repr, hosts))}]\n' if hosts else ''
    return f'[[tls.certificates]]\n{names}{pair.toml()}{more}\n'


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    """One whose certificates the tests of this file may do anything with."""
    return Authority(tmp_path_factory.mktemp('ca') / 'own')


@pytest.fixture(scope='module')
def chained(authority, tmp_path_factory):
    """A CA below it."""
    return Authority(tmp_path_factory.mktemp('ca') / 'below', 'below', authority)


def got(port, name, **context):
    """The certificate that a client gets; None when it is refused."""
    try:
        with TlsClient(port, name, client_context(verify=False, **context)) as client:
            return client.certificate()
    except ssl.SSLError as error:
        assert 'UNRECOGNIZED_NAME' in error.reason, error
        return None


# ---- by the name


def test_the_certificate_by_name(rig, authority):
    pairs = {name: authority.issue(name, *hosts) for name, hosts in {
        'exact': ['one.test'], 'wild': ['*.two.test'], 'both': ['own.two.test', '*.x.two.test'],
        'own': ['named.test', '*.named.test']}.items()}
    weir = rig.weir(config(more=entry(pairs['exact'], 'one.test') + entry(pairs['wild'], '*.two.test') +
                           entry(pairs['both'], 'own.two.test', '*.x.two.test') +
                           entry(pairs['own'])))
    for name, wanted in {
            'one.test': 'exact', 'ONE.Test': 'exact', 'a.two.test': 'wild', 'own.two.test': 'both',
            'a.x.two.test': 'both', 'x.two.test': 'wild', 'named.test': 'own',
            'deep.named.test': 'own'}.items():
        assert (name, got(weir.port, name)) == (name, pairs[wanted].der())
    for name in ('two.test', 'a.b.two.test', 'a.one.test', 'unknown.test', None, 'test'):
        assert (name, got(weir.port, name)) == (name, pki().ec.der()), 'the default'


def test_no_default(rig, authority):
    pair = authority.issue('only', 'only.test')
    weir = rig.weir(config(certificate='', more=entry(pair, 'only.test')))
    assert got(weir.port, 'only.test') == pair.der()
    assert got(weir.port, 'other.test') is None
    assert got(weir.port, None) is None
    assert weir.tls_stats()['clients.failures.unknown_server_name'] == 2


def test_a_default_of_the_list(rig, authority):
    pair, other = authority.issue('first', 'first.test'), authority.issue('other', 'other.test')
    weir = rig.weir(config(certificate='', more=entry(pair, 'first.test') +
                           entry(other, more='default = true\n')))
    assert got(weir.port, 'first.test') == pair.der()
    for name in ('other.test', 'unknown.test', None):
        assert got(weir.port, name) == other.der()


def test_two_kinds_of_key_for_one_name(rig, authority):
    """The client decides, by the signatures that it can check."""
    ec, rsa = authority.issue('ec', 'two.test'), authority.issue('rsa', 'two.test', kind='rsa')
    weir = rig.weir(config(more=entry(ec, 'two.test') + entry(rsa, 'two.test')))
    for version in ('-tls1_2', '-tls1_3'):
        for algorithms, wanted in (('ECDSA+SHA256', ec), ('RSA-PSS+SHA256', rsa),
                                   ('RSA-PSS+SHA256:ECDSA+SHA256', None)):
            said = s_client(weir.port, version, '-sigalgs', algorithms, name='two.test')
            shown = re.search(r'-----BEGIN CERT.*?END CERTIFICATE-----\n', said, re.S).group(0)
            assert wanted is None or ssl.PEM_cert_to_DER_cert(shown) == wanted.der(), said
    assert got(weir.port, 'two.test', version='1.2', ciphers='ECDHE-RSA-AES128-GCM-SHA256') == rsa.der()
    assert got(weir.port, 'two.test', version='1.2', ciphers='ECDHE-ECDSA-AES128-GCM-SHA256') == ec.der()


def test_the_chain_is_delivered(rig, authority, chained):
    pair = chained.issue('leaf', 'leaf.test')
    weir = rig.weir(config(certificate=pair.toml()))
    said = s_client(weir.port, '-showcerts', '-verifyCAfile', authority.cert, name='leaf.test')
    assert 'Verify return code: 0 (ok)' in said, said
    assert said.count('-----BEGIN CERTIFICATE-----') == 2


def test_many_certificates(rig, authority, tmp_path):
    """10,000 of them, half for wildcards, in files of their own. That the names in them were
    patched, which breaks their signatures, is nothing that weir checks."""
    count = 10000
    pair = authority.issue('n00000', 'n00000.test', '*.n00000.test')
    der, key = pair.der(), pair.key
    folder = tmp_path / 'many'
    folder.mkdir()
    entries = []
    for number in range(count):
        text = ssl.DER_cert_to_PEM_cert(der.replace(b'n00000', b'n%05d' % number))
        (folder / f'{number}.crt').write_text(text)
        host = f'{"*." if number % 2 else ""}n{number:05}.test'
        entries.append(f'[[tls.certificates]]\nhostname = "{host}"\n'
                       f'cert_path = "{folder}/{number}.crt"\nkey_path = "{key}"\n')
    weir = rig.weir(config(more=''.join(entries)), binary=RELEASE, ready=False)
    weir.wait_log(' info control ready cores=', 50)
    assert weir.cpu_seconds() < seconds(8)
    assert 'does not name' not in weir.log()
    for number in (0, 1, 2, 777, 5000, 5001, 9998, 9999):
        name = f'{"any." if number % 2 else ""}n{number:05}.test'
        assert got(weir.port, name) == der.replace(b'n00000', b'n%05d' % number)
    assert got(weir.port, 'n00001.test') == got(weir.port, 'any.n00000.test') == pki().ec.der()


# ---- what is refused


def refused(rig, wanted, pair=None, more='', **others):
    """Starting fails, and says this."""
    said = rig.refused(config(certificate=pair.toml() if pair else None, more=more, **others))
    for text in wanted:
        assert text in said, said
    return said


def test_files_that_are_not_there(rig, tmp_path):
    cert, key = str(tmp_path / 'no.crt'), str(tmp_path / 'no.key')
    refused(rig, [cert, 'No such file'], Pair(cert, pki().ec.key))
    refused(rig, [key, 'No such file'], Pair(pki().ec.cert, key))


def test_files_that_are_no_pem(rig, tmp_path):
    bad, empty = tmp_path / 'bad.crt', tmp_path / 'empty.crt'
    bad.write_text('-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n')
    empty.write_text('')
    refused(rig, [str(bad), 'cannot be parsed'], Pair(bad, pki().ec.key))
    refused(rig, [str(empty)], Pair(empty, pki().ec.key))
    refused(rig, [str(bad)], Pair(pki().ec.cert, bad))
    refused(rig, [pki().ec.key, 'no certificate'], Pair(pki().ec.key, pki().ec.key))


def test_a_key_of_another_certificate(rig, authority):
    one, other = authority.issue('one'), authority.issue('two')
    refused(rig, [one.cert, other.key, 'does not belong', 'CN=one'], Pair(one.cert, other.key))


def test_a_certificate_of_another_time(rig, authority):
    old = authority.issue_dated('old.test', '20200101000000Z', '20210102000000Z')
    refused(rig, [old.cert, 'CN=old.test', 'expired', '2021-01-02'], old)
    early = authority.issue_dated('early.test', '20900101000000Z', '20910101000000Z')
    refused(rig, [early.cert, 'not valid before 2090-01-01'], early)


def test_a_certificate_that_expires_soon(rig, authority):
    pair = authority.issue('soon.test', days=5)
    weir = rig.weir(config(certificate=pair.toml()))
    weir.wait_log(rf'warn .*{re.escape(pair.cert)}.*expires')


def test_a_chain_in_disorder(rig, authority, chained, tmp_path):
    leaf = chained.issue('leaf2', 'leaf2.test')
    stranger = pathlib.Path(pki().stranger.cert).read_text()
    mixed = tmp_path / 'mixed.crt'
    mixed.write_text(ssl.DER_cert_to_PEM_cert(leaf.der()) + stranger)
    refused(rig, [str(mixed), 'did not issue'], Pair(mixed, leaf.key))


def test_a_certificate_of_a_client(rig, authority):
    pair = authority.issue('client.test', usage='clientAuth')
    refused(rig, [pair.cert, 'not for TLS servers'], pair)


def test_all_errors_at_once(rig, authority, tmp_path):
    missing = [tmp_path / 'a.crt', tmp_path / 'b.crt']
    refused(rig, [str(path) for path in missing], more=entry(Pair(missing[0], pki().ec.key), 'a.test') +
            entry(Pair(missing[1], pki().ec.key), 'b.test'))


def test_an_encrypted_key(rig, tmp_path):
    sealed, passphrase = tmp_path / 'sealed.key', tmp_path / 'passphrase'
    run('openssl', 'pkcs8', '-topk8', '-in', pki().ec.key, '-out', str(sealed), '-v2', 'aes-256-cbc',
        '-passout', 'pass:open sesame')
    passphrase.write_text('open sesame\nsecond line\n')
    pair = Pair(pki().ec.cert, sealed)
    file = f'key_passphrase_file = "{passphrase}"\n'
    weir = rig.weir(config(certificate=pair.toml() + file))
    assert got(weir.port, 'ec.test') == pki().ec.der()
    assert 'sesame' not in weir.log()
    said = refused(rig, [str(sealed)], pair)
    assert 'encrypted' in said or 'passphrase' in said, said
    passphrase.write_text('open barley\n')
    said = rig.refused(config(certificate=pair.toml() + file))
    assert str(sealed) in said and 'passphrase' in said and 'barley' not in said, said


def test_a_listener_without_any_certificate(rig):
    said = rig.refused(config(certificate=''))
    assert re.search(r'refused\.toml:\d+.*certificate', said), said


# ---- change


class Live:
    """A pair of files that change."""

    def __init__(self, folder, pair):
        self.pair = Pair(folder / 'live.crt', folder / 'live.key')
        self.put(pair)

    def put(self, pair):
        """The key first: between the two, the pair does not fit, which weir has to survive."""
        for source, target in ((pair.key, self.pair.key), (pair.cert, self.pair.cert)):
            shutil.copy(source, target + '.new')
            os.rename(target + '.new', target)


def test_reload_takes_up_changed_files(rig, authority, tmp_path):
    old, new = authority.issue('old1', 'a.test'), authority.issue('new1', 'a.test')
    live = Live(tmp_path, old)
    weir = rig.weir(config(certificate=live.pair.toml()))
    with TlsClient(weir.port, context=client_context(verify=False)) as client:
        assert client.get('/').status == 200 and client.certificate() == old.der()
        live.put(new)
        weir.reload()
        wait_certificate(weir.port, new)
        assert client.get('/').status == 200, 'a connection outlives its certificate'
        client.finish()


def test_changed_files_are_taken_up_by_themselves(rig, authority, tmp_path):
    old, new = authority.issue('old2', 'a.test'), authority.issue('new2', 'a.test')
    live = Live(tmp_path, old)
    weir = rig.weir(config(certificate=live.pair.toml()))
    assert got(weir.port, 'a.test') == old.der()
    live.put(new)
    wait_certificate(weir.port, new)
    live.put(old)
    wait_certificate(weir.port, old)


def test_files_that_are_written_in_place(rig, authority, tmp_path):
    old, new = authority.issue('old3', 'a.test'), authority.issue('new3', 'a.test')
    live = Live(tmp_path, old)
    weir = rig.weir(config(certificate=live.pair.toml()))
    shutil.copy(new.key, live.pair.key)
    shutil.copy(new.cert, live.pair.cert)
    wait_certificate(weir.port, new)


def test_a_link_that_is_switched(rig, authority, tmp_path):
    """As certbot (a link to each file) and Kubernetes (a link to their directory) do it."""
    old, new = authority.issue('old4', 'a.test'), authority.issue('new4', 'a.test')
    for name, pair in (('v1', old), ('v2', new)):
        (tmp_path / name).mkdir()
        Live(tmp_path / name, pair)
    for name in ('live.crt', 'live.key'):
        (tmp_path / name).symlink_to(tmp_path / 'v1' / name)
    weir = rig.weir(config(certificate=Pair(tmp_path / 'live.crt', tmp_path / 'live.key').toml()))
    assert got(weir.port, 'a.test') == old.der()
    for name in ('live.key', 'live.crt'):
        (tmp_path / 'next').symlink_to(tmp_path / 'v2' / name)
        os.rename(tmp_path / 'next', tmp_path / name)
    wait_certificate(weir.port, new)


def test_a_link_to_the_directory_that_is_switched(rig, authority, tmp_path):
    old, new = authority.issue('old5', 'a.test'), authority.issue('new5', 'a.test')
    for name, pair in (('v1', old), ('v2', new)):
        (tmp_path / name).mkdir()
        Live(tmp_path / name, pair)
    (tmp_path / 'now').symlink_to('v1')
    weir = rig.weir(config(certificate=Pair(tmp_path / 'now' / 'live.crt',
                                            tmp_path / 'now' / 'live.key').toml()))
    assert got(weir.port, 'a.test') == old.der()
    (tmp_path / 'next').symlink_to('v2')
    os.rename(tmp_path / 'next', tmp_path / 'now')
    wait_certificate(weir.port, new)


def test_reload_with_a_bad_certificate(rig, authority, tmp_path):
    """The old one stays in force, the reason is logged, and a good one is taken up afterwards."""
    old, new = authority.issue('old6', 'a.test'), authority.issue('new6', 'a.test')
    live = Live(tmp_path, old)
    weir = rig.weir(config(certificate=live.pair.toml()))
    since = len(weir.log())
    pathlib.Path(live.pair.cert).write_text('broken')
    weir.tell(tls_rig.signal.SIGHUP)
    weir.wait_log(rf'error .*{re.escape(live.pair.cert)}', since=since)
    weir.wait_log('old one stays in force', since=since)
    assert got(weir.port, 'a.test') == old.der()
    live.put(new)
    wait_certificate(weir.port, new)


def test_reload_adds_and_removes_names(rig, authority):
    one, two = authority.issue('one7', 'one.test'), authority.issue('two7', 'two.test')
    weir = rig.weir(config(more=entry(one, 'one.test')))
    assert (got(weir.port, 'one.test'), got(weir.port, 'two.test')) == (one.der(), pki().ec.der())
    weir.reload(config(more=entry(two, 'two.test')))
    wait_certificate(weir.port, two, 'two.test')
    assert got(weir.port, 'one.test') == pki().ec.der()


def test_reload_switches_tls_on_and_off(rig):
    """For connections from then on."""
    weir = rig.weir(config(listener='').replace('tls = true', 'tls = false'))
    port = weir.port
    plain = tls_rig.conftest.Client(port)
    assert plain.get('/').status == 200
    weir.reload(config())
    tls_rig.wait_until(lambda: not_refused(port), seconds(10), 'TLS')
    with TlsClient(port) as client:
        assert client.get('/').status == 200
        assert plain.get('/').status == 200
        weir.reload(weir.file.read_text().replace('tls = true', 'tls = false'))
        tls_rig.wait_until(lambda: not not_refused(port), seconds(10), 'no TLS')
        assert client.get('/').status == 200
    plain.close()


def not_refused(port):
    try:
        with TlsClient(port):
            return True
    except (ssl.SSLError, OSError):
        return False


# ---- OCSP


def test_ocsp_stapling(rig, authority, chained, tmp_path):
    pair = chained.issue('stapled', 'a.test')
    response = chained.ocsp(pair, tmp_path / 'response.der')
    weir = rig.weir(config(certificate=pair.toml() + f'ocsp_response_path = "{response}"\n'))
    for version in ('-tls1_2', '-tls1_3'):
        said = s_client(weir.port, version, '-status')
        assert 'OCSP Response Status: successful' in said and 'Cert Status: good' in said, said
        assert 'OCSP Response Status' not in s_client(weir.port, version), 'nobody asked'


def test_an_ocsp_response_that_does_not_fit(rig, chained, tmp_path):
    pair, other = chained.issue('stapled2', 'a.test'), chained.issue('stapled3', 'a.test')
    response = chained.ocsp(other, tmp_path / 'other.der')
    refused(rig, [response, 'another certificate'], None,
            more=entry(pair, 'a.test', more=f'ocsp_response_path = "{response}"\n'))


def test_a_new_ocsp_response_is_taken_up(rig, chained, tmp_path):
    pair = chained.issue('stapled4', 'a.test')
    response = chained.ocsp(pair, tmp_path / 'response.der')
    weir = rig.weir(config(certificate=pair.toml() + f'ocsp_response_path = "{response}"\n'))
    assert 'Cert Status: good' in s_client(weir.port, '-status')
    chained.revoke(pair)
    os.rename(chained.ocsp(pair, tmp_path / 'fresh.der'), response)
    # It says "revoked", which weir tells its operator, not its clients.
    tls_rig.wait_until(lambda: 'Cert Status' not in s_client(weir.port, '-status'), seconds(20))
    assert 'revoked' in weir.log()


# ---- certificates of clients


@pytest.fixture(scope='module')
def clients(authority, chained, tmp_path_factory):
    """Certificates of clients, by how they fare."""
    folder = tmp_path_factory.mktemp('clients')
    made = {
        'good': authority.issue('good', 'DNS:client.test', 'email:me@client.test', usage='clientAuth',
                                subject='/O=Weir, Inc/CN=A client'),
        'below': chained.issue('below1', usage='clientAuth'),
        'revoked': authority.issue('revoked', usage='clientAuth'),
        'server': authority.issue('server', usage='serverAuth'),
        'stranger': pki().stranger.issue('foreign', usage='clientAuth')}
    authority.revoke(made['revoked'])
    crl = folder / 'all.crl'
    crl.write_text(''.join(pathlib.Path(each.crl(folder / f'{number}.crl')).read_text()
                           for number, each in enumerate((authority, chained))))
    made['crl'] = str(crl)
    made['ca'] = authority.cert
    return made


def asking(clients, mode, more=''):
    return f'client_auth = "{mode}"\nclient_ca_path = "{clients["ca"]}"\n{more}'


def admitted(weir, certificate, version):
    """Whether a client is served. With TLS 1.3 it learns that only when it reads."""
    try:
        with TlsClient(weir.port, context=client_context(version, certificate=certificate)) as client:
            return client.get('/').status == 200
    except ssl.SSLError as error:
        return error.reason
    except (Ended, ConnectionError):
        raise AssertionError(f'no alert\n{weir.log()}') from None


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('mode', ['off', 'optional', 'required'])
def test_client_certificates(rig, clients, mode, version):
    weir = rig.weir(config(tls=asking(clients, mode, f'client_crl_path = "{clients["crl"]}"\n')))
    off = mode == 'off'
    none = admitted(weir, None, version)
    assert none is True if mode != 'required' else (
        'CERTIFICATE_REQUIRED' in none or 'HANDSHAKE_FAILURE' in none), none
    assert admitted(weir, clients['good'], version) is True
    assert admitted(weir, clients['below'], version) is True
    for which, alert in (('stranger', 'UNKNOWN_CA'), ('revoked', 'CERTIFICATE_REVOKED'),
                         ('server', 'CERTIFICATE')):
        result = admitted(weir, clients[which], version)
        assert result is True if off else alert in str(result), (which, result)
    failures = {key.split('.')[-1]: value for key, value in weir.tls_stats().items()
                if key.startswith('clients.failures.') and value}
    assert failures == {'off': {}, 'optional': {'certificate_rejected': 3},
                        'required': {'certificate_rejected': 3, 'no_client_certificate': 1}}[mode]


def test_the_depth_of_client_certificates(rig, clients):
    weir = rig.weir(config(tls=asking(clients, 'required', 'client_verify_depth = 1\n')))
    assert admitted(weir, clients['below'], '1.3') is True
    deep = Authority(rig.folder / 'deep', 'deep', pki_parent(clients))
    assert admitted(weir, deep.issue('deep1', usage='clientAuth'), '1.3') is not True
    weir.reload(config(tls=asking(clients, 'required', 'client_verify_depth = 2\n')))
    tls_rig.wait_until(lambda: admitted(weir, deep.issue('deep1', usage='clientAuth'), '1.3') is True,
                       seconds(10), 'the new depth')


def pki_parent(clients):
    """The CA below the one that clients come from."""
    class Below:
        cert = str(pathlib.Path(clients['below'].cert).parent / 'ca.crt')
        key = str(pathlib.Path(clients['below'].key).parent / 'ca.key')

        @staticmethod
        def chain():
            return pathlib.Path(Below.cert).read_text()
    return Below


def test_client_auth_needs_cas(rig, tmp_path):
    assert 'client_ca_path' in rig.refused(config(tls='client_auth = "required"\n'))
    missing = tmp_path / 'no.crt'
    said = rig.refused(config(tls=f'client_auth = "required"\nclient_ca_path = "{missing}"\n'))
    assert str(missing) in said and 'No such file' in said


HEADERS = ['X-Client-Cert-Verify', 'X-Client-Cert-Subject', 'X-Client-Cert-Issuer',
           'X-Client-Cert-SAN', 'X-Client-Cert-Fingerprint']
SPOOFED = [f'{name}: spoofed' for name in HEADERS] + ['x-client-cert-verify: SUCCESS',
                                                      'X-CLIENT-CERT-SUBJECT: CN=root']


def test_headers_about_the_client(rig, clients):
    origin = rig.origin()
    weir = rig.weir(config(proxy_to(origin), asking(clients, 'optional', 'client_cert_headers = true\n'),
                           more='[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\n'))
    good = clients['good']
    with TlsClient(weir.port, context=client_context(certificate=good)) as client:
        for _ in range(2):
            client.get('/', *SPOOFED)
    for request in origin.requests:
        told = {name: request.all(name) for name in HEADERS}
        assert told['X-Client-Cert-Verify'] == ['SUCCESS']
        assert told['X-Client-Cert-Subject'] == [good.subject()]
        assert told['X-Client-Cert-Issuer'] == [good.subject('issuer')]
        assert 'client.test' in told['X-Client-Cert-SAN'][0]
        assert 'me@client.test' in told['X-Client-Cert-SAN'][0]
        assert [told['X-Client-Cert-Fingerprint'][0].lower().replace(':', '')] == [good.sha256()]
        assert 'spoofed' not in request.head.decode()
    line = weir.lines(2)[0]
    assert (line['tls_client'], line['tls_client_sha256']) == (good.subject(), good.sha256())
    with TlsClient(weir.port) as client:
        client.get('/', *SPOOFED)
    with tls_rig.conftest.Client(weir.port_of('plain')) as client:
        client.get('/', *SPOOFED)
    for request, verify in zip(origin.requests[2:], (['NONE'], [])):
        head = request.head.decode().lower()
        assert 'spoofed' not in head and 'cn=root' not in head
        assert request.all('X-Client-Cert-Verify') in (verify, ['NONE']), head
        assert head.count('x-client-cert-') == len(request.all('X-Client-Cert-Verify'))
    assert 'tls_client' not in weir.lines(3)[2]


def test_headers_about_the_client_in_a_resumed_session(rig, clients):
    """The certificate is not sent again, and still known."""
    origin = rig.origin()
    weir = rig.weir(config(proxy_to(origin), asking(clients, 'required',
                                                    'client_cert_headers = true\n')))
    for version in ('1.2', '1.3'):
        context = client_context(version, certificate=clients['good'])
        with TlsClient(weir.port, context=context) as client:
            client.get('/')
            session = client.sock.session
        with TlsClient(weir.port, context=context, session=session) as client:
            client.get('/')
            assert client.sock.session_reused
    for request in origin.requests:
        assert request.get('X-Client-Cert-Verify') == 'SUCCESS'
        assert request.get('X-Client-Cert-Subject') == clients['good'].subject()


def test_without_client_cert_headers_nothing_is_touched(rig):
    origin = rig.origin()
    weir = rig.weir(config(proxy_to(origin)))
    with TlsClient(weir.port) as client:
        client.get('/', 'X-Client-Cert-Verify: of an inner proxy')
    assert origin.requests[0].get('X-Client-Cert-Verify') == 'of an inner proxy'
