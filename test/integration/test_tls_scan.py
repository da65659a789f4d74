"""testssl.sh against weir: nothing above "low". tools/testssl runs the whole of it with the same
weir and prints the table of docs/TLS.md; here are the checks that do not repeat each other."""
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess

import pytest

import tls_rig
from ops_rig import need
from tls_rig import config, rig

__all__ = ['rig']

FINE = ('OK', 'INFO', 'LOW')
# Where testssl.sh says that it cannot tell, by the check's id. It runs `openssl s_client` with its
# input closed, which may end before it has read a ticket of TLS 1.3, whatever the server;
# test_tls_resumption.py is about tickets. GOST is nothing that weir would speak.
CANNOT_TELL = {'sessionresumption_ticket': 'check failed because of connect problem',
               'engine_problem': 'No engine or GOST support'}
NOT_OFFERED, OFFERED = r'not offered', r'offered'
VERSIONS = {'SSLv2': NOT_OFFERED, 'SSLv3': NOT_OFFERED, 'TLS1': NOT_OFFERED, 'TLS1_1': NOT_OFFERED,
            'TLS1_2': OFFERED, 'TLS1_3': OFFERED, 'ALPN': 'http/1.1'}
SAFE = r'not vulnerable'
# What must have been tried, and what must have come out.
FOUND = {
    **VERSIONS, 'cipherlist_NULL': NOT_OFFERED, 'cipherlist_aNULL': NOT_OFFERED,
    'cipherlist_EXPORT': NOT_OFFERED, 'cipherlist_LOW': NOT_OFFERED,
    'cipherlist_3DES_IDEA': NOT_OFFERED, 'cipher_order': 'server',
    'cert_chain_of_trust <cert#1>': 'passed', 'cert_chain_of_trust <cert#2>': 'passed',
    'OCSP_stapling <cert#1>': OFFERED, 'OCSP_stapling <cert#2>': OFFERED,
    'HSTS_time': '365 days', 'banner_server': 'weir',
    'heartbleed': SAFE, 'CCS': SAFE, 'ticketbleed': SAFE, 'ROBOT': SAFE,
    'secure_renego': 'supported', 'secure_client_renego': SAFE, 'CRIME_TLS': SAFE, 'BREACH': SAFE,
    'POODLE_SSL': SAFE, 'fallback_SCSV': 'no protocol below TLS 1.2', 'SWEET32': SAFE,
    'FREAK': SAFE, 'DROWN': SAFE, 'LOGJAM': SAFE, 'BEAST': SAFE, 'LUCKY13': SAFE, 'RC4': SAFE}
SUITES_13 = {'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'}
SUITES_12 = {f'ECDHE-{key}-{cipher}' for key in ('ECDSA', 'RSA')
             for cipher in ('AES128-GCM-SHA256', 'AES256-GCM-SHA384', 'CHACHA20-POLY1305')}
# The fields of HTTP that testssl.sh wants to see are the site's business; this site has them.
SITE = '''
[[route]]
path = "/"
[route.respond]
status = 200
body = "ok"
[route.respond.headers]
"Strict-Transport-Security" = "max-age=31536000; includeSubDomains"
"Content-Security-Policy" = "default-src 'self'"
"X-Content-Type-Options" = "nosniff"
"X-Frame-Options" = "DENY"
'''


class Site:
    """A weir as a careful operator would have it, all of [tls] by default: certificates of both
    kinds for the same name, from a CA below the root, with OCSP responses to staple."""

    def __init__(self, rig, tls=''):
        self.folder = rig.folder
        root = tls_rig.Authority(self.folder / 'root')
        issuing = tls_rig.Authority(self.folder / 'issuing', 'issuing', root)
        issuing.count = secrets.randbits(96)  # serial numbers that nobody guesses
        self.ca_file = root.cert
        more = ('keyUsage=critical,digitalSignature',
                'crlDistributionPoints=URI:http://crl.test/issuing.crl',
                'authorityInfoAccess=OCSP;URI:http://ocsp.test/')
        pairs = [issuing.issue(kind, 'localhost', kind=kind, days=365, more=more)
                 for kind in ('ec', 'rsa')]
        staples = [issuing.ocsp(pair, f'{pair.cert}.ocsp') for pair in pairs]
        ec, rsa = (f'{pair.toml()}ocsp_response_path = "{staple}"\n'
                   for pair, staple in zip(pairs, staples))
        self.weir = rig.weir(config(SITE, tls, certificate=ec,
                                    more=f'[[tls.certificates]]\ndefault = true\n{rsa}'))

    def command(self, *options, trusted=True):
        """The words that run testssl.sh, and where its results will be."""
        results = self.folder / f'testssl-{secrets.token_hex(4)}.json'
        trust = ['--add-ca', self.ca_file] if trusted else []
        return ['testssl', *options, *trust, '--ip', '127.0.0.1', '--nodns', 'none', '--quiet',
                '--color', '0', '--warnings', 'off', '--jsonfile', str(results),
                f'https://localhost:{self.weir.port_of("main")}/'], results

    def scan(self, *options, trusted=True, limit=380):
        """Runs it; its findings: id to (severity, finding)."""
        need('testssl')
        command, results = self.command(*options, trusted=trusted)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   cwd=self.folder, start_new_session=True)
        try:
            said = process.communicate(timeout=tls_rig.seconds(limit))[0].decode(errors='replace')
        finally:
            end_session(process)
        # Below 50: the number of checks that it could not tell about (CANNOT_TELL).
        assert process.returncode < 50, (process.returncode, said[-3000:])
        found = json.loads(pathlib.Path(results).read_text())
        return {entry['id']: (entry['severity'], entry['finding']) for entry in found}


def end_session(process):
    """Ends a program that was started with start_new_session, and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def too_severe(findings):
    """Those that must not be."""
    return {name: (severity, finding) for name, (severity, finding) in findings.items()
            if severity not in FINE
            and not (severity == 'WARN' and finding.startswith(CANNOT_TELL.get(name, '\n')))}


def check(findings, expected):
    """Nothing above "low", and all of this was tried and found."""
    assert not too_severe(findings)
    wrong = {name: findings.get(name, 'not tried') for name, pattern in expected.items()
             if not re.match(pattern, findings.get(name, ('', ''))[1])}
    assert not wrong


def suites(findings, version):
    """Names of the suites that were found for a version, tls1_2 or tls1_3."""
    return {finding.split()[3] for name, (_, finding) in findings.items()
            if re.fullmatch(rf'cipher-{version}_x\w+', name)}


@pytest.mark.seconds(tls_rig.seconds(400))
def test_the_defaults(rig):
    site = Site(rig)
    found = site.scan('--protocols', '--standard', '--pfs', '--server-preference',
                      '--server-defaults', '--headers', '--vulnerable', '--cipher-per-proto')
    check(found, FOUND)
    assert (suites(found, 'tls1_2'), suites(found, 'tls1_3')) == (SUITES_12, SUITES_13)
    others = [name for name in found if re.match(r'cipher-(?!tls1_[23]_)', name)]
    assert not others, others
    # The scan reached weir, and not something else.
    stats = site.weir.tls_stats()
    assert stats['clients.full'] > 10 and stats['clients.failures.version'] > 10, stats
    assert stats['clients.failures.no_shared_cipher'] > 5, stats


@pytest.mark.seconds(tls_rig.seconds(400))
def test_only_modern(rig):
    """docs/TLS.md: min_version = "1.3"."""
    found = Site(rig, 'min_version = "1.3"\n').scan('--protocols')
    check(found, {**VERSIONS, 'TLS1_2': NOT_OFFERED})


@pytest.mark.seconds(tls_rig.seconds(400))
def test_a_scan_that_finds_something(rig):
    """The CA is not told to it: so its findings do come through, and too_severe() sees them."""
    found = Site(rig).scan('--server-defaults', trusted=False)
    severe = too_severe(found)
    assert {name.split()[0] for name in severe} == {'cert_chain_of_trust'}, severe
    assert len(severe) == 2, severe  # of both certificates
