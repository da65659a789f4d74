"""Headless Chromium against weir: a page whose scripts, styles, images and data come over TLS, with
each suite. What the browser made of it (its DOM) and what weir wrote of it (the access log) must be
what the origin sent."""
import base64
import contextlib
import hashlib
import html
import json
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
import zlib

import pytest

import tls_rig
from conftest import wait_until
from ops_rig import need
from tls_rig import KiB, config, content, ktls, pki, proxy_to, rig, sha

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(120))

# Version, key of the certificate, the setting that leaves one suite, its name in the access log.
SUITES = [('1.3', 'ec', f'ciphersuites = "{suite}"\n', suite) for suite in (
    'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256')] + [
    ('1.2', key, f'ciphers = "TLS_ECDHE_{kind}_WITH_{cipher}"\n', f'TLS_ECDHE_{kind}_WITH_{cipher}')
    for key, kind in (('ec', 'ECDSA'), ('rsa', 'RSA'))
    for cipher in ('AES_128_GCM_SHA256', 'AES_256_GCM_SHA384', 'CHACHA20_POLY1305_SHA256')]
IDS = [suite for *_, suite in SUITES]

STYLES, IMAGES = 3, 6
SIZES = [1, 1000, 16 * KiB - 1, 16 * KiB + 1, 64 * KiB + 1, 300 * KiB]
UPLOAD = 200 * KiB
PAGE = f'''<!doctype html>
<html><head><title>weir</title><link rel="icon" href="data:,">
{"".join(f'<link rel="stylesheet" href="/style/{n}.css">' for n in range(STYLES))}
<script src="/script/first.js"></script>
</head><body>
{"".join(f'<p id="style{n}">.</p>' for n in range(STYLES))}
{"".join(f'<img id="image{n}" src="/image/{n}.png">' for n in range(IMAGES))}
<pre id="result">nothing</pre>
<script src="/script/last.js"></script>
<img src="/image/when-done.png">
</body></html>
'''
FIRST = 'window.first = "was here";\n'
# Reads and sends bodies, writes what came of it into the page, and only then tells /result, for
# which the last image waits, and so the page's load event, and so Chromium's --dump-dom.
LAST = '''
async function digest(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
async function read(size) {
  const answer = await fetch('/data/' + size);
  return await digest(await answer.arrayBuffer());
}
async function upload(size) {
  const body = new Uint8Array(size);
  for (let at = 0; at < size; ++at) body[at] = (at * 7 + (at >> 8)) & 255;
  const answer = await fetch('/upload', {method: 'POST', body});
  return {here: await digest(body), there: await answer.text()};
}
function loaded(image) {
  return image.complete ? Promise.resolve() : new Promise((done) => { image.onload = done; });
}
async function all() {
  const result = {first: window.first, data: {}, styles: [], images: []};
  await Promise.all(SIZES.map(async (size) => { result.data[size] = await read(size); }));
  result.upload = await upload(UPLOAD);
  for (let n = 0; n < STYLES; ++n) {
    result.styles.push(getComputedStyle(document.getElementById('style' + n)).color);
  }
  for (let n = 0; n < IMAGES; ++n) {
    const image = document.getElementById('image' + n);
    await loaded(image);
    result.images.push([image.naturalWidth, image.naturalHeight]);
  }
  return result;
}
all().catch((error) => ({error: String(error)})).then((result) => {
  document.getElementById('result').textContent = JSON.stringify(result);
  fetch('/result', {method: 'POST', body: 'done'});
});
'''
LAST = (LAST.replace('SIZES', json.dumps(SIZES)).replace('UPLOAD', str(UPLOAD))
        .replace('STYLES', str(STYLES)).replace('IMAGES', str(IMAGES)))
# Every request that the page makes.
PATHS = sorted(['/', '/script/first.js', '/script/last.js', '/image/when-done.png', '/upload',
                '/result', *(f'/style/{n}.css' for n in range(STYLES)),
                *(f'/image/{n}.png' for n in range(IMAGES)), *(f'/data/{size}' for size in SIZES)])


def png(width, height):
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data +
                struct.pack('>I', zlib.crc32(kind + data)))
    rows = (b'\0' + content(3 * width)) * height
    size = struct.pack('>2I5B', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) +
            chunk(b'IDAT', zlib.compress(rows, 0)) + chunk(b'IEND', b''))


def image_size(number):
    return 10 + 40 * number, 20 + 10 * number  # 6: 48 KiB


class Site:
    """A script for origins: the page and all that belongs to it."""

    def __init__(self):
        self.done = threading.Event()
        self.uploaded = []

    def __call__(self, connection):
        while True:
            request = connection.read_request_head()
            connection.read_request_body(request)
            kind, body = self.answer(request)
            connection.send(b'HTTP/1.1 200 OK\r\nContent-Type: %s\r\nCache-Control: no-store\r\n'
                            b'Content-Length: %d\r\n\r\n' % (kind.encode(), len(body)) + body)

    def answer(self, request):
        path = request.target
        if path == '/':
            return 'text/html; charset=utf-8', PAGE.encode()
        if path.startswith('/script/'):
            return 'text/javascript', (FIRST if 'first' in path else LAST).encode()
        if path == '/image/when-done.png':
            self.done.wait(tls_rig.seconds(60))
            return 'image/png', png(1, 1)
        if path == '/result':
            self.done.set()
            return 'text/plain', b'thanks'
        if path == '/upload':
            self.uploaded.append(len(request.body))
            return 'text/plain', sha(request.body).encode()
        number = int(re.fullmatch(r'/(?:style|image|data)/(\d+)(?:\.\w+)?', path)[1])
        if path.startswith('/style/'):
            return 'text/css', b'#style%d { color: rgb(%d, 1, 2); }' % (number, 10 + number)
        if path.startswith('/image/'):
            return 'image/png', png(*image_size(number))
        return 'application/octet-stream', content(number)


def public_key_hash(pair):
    """As Chromium's --ignore-certificate-errors-spki-list wants it."""
    public = tls_rig.run('openssl', 'x509', '-in', pair.cert, '-noout', '-pubkey').stdout
    der = tls_rig.run('openssl', 'pkey', '-pubin', '-outform', 'DER', data=public).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def browse(url, trusted=None, limit=60):
    """The DOM that headless Chromium makes of a page, and what it said on standard error. It trusts
    this certificate, and none else that our CAs issued."""
    need('chromium')
    # Not in pytest's folder: the path of a Unix socket in it has to be below 108 bytes.
    with tempfile.TemporaryDirectory(prefix='weir-br-', ignore_cleanup_errors=True) as home:
        options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
                   '--no-first-run', '--disable-background-networking',
                   '--disable-component-update', '--disable-sync', '--disable-breakpad',
                   '--disable-crash-reporter', '--disable-dev-shm-usage', '--no-proxy-server',
                   '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost',
                   f'--user-data-dir={home}/profile', '--dump-dom']
        if trusted:
            options.append(f'--ignore-certificate-errors-spki-list={public_key_hash(trusted)}')
        process = subprocess.Popen(
            ['chromium', *options, url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, 'HOME': home, 'TMPDIR': home, 'XDG_CONFIG_HOME': home,
                 'XDG_CACHE_HOME': home})
        try:
            dom, said = process.communicate(timeout=tls_rig.seconds(limit))
        except subprocess.TimeoutExpired:
            raise AssertionError(f'Chromium did not end in {limit} s') from None
        finally:
            # Its other processes are in its group, and some may outlive it for a moment.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process.stderr.close()
    assert process.returncode == 0, (process.returncode, said.decode(errors='replace')[-3000:])
    return dom.decode(), said.decode(errors='replace')


def serve(rig, mode, tls, pair, server=''):
    """A weir before an origin with the page; both, and the page's URL."""
    site = Site()
    origin = rig.origin(site)
    weir = rig.weir(config(proxy_to(origin), ktls(mode) + tls, server, certificate=pair.toml()))
    return weir, site, f'https://localhost:{weir.port_of("main")}/'


def check_page(dom, site):
    """The page's script saw all that the origin sent, byte by byte."""
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    assert found, dom[-2000:]
    result = json.loads(html.unescape(found[1]))
    body = bytes((at * 7 + (at >> 8)) & 255 for at in range(UPLOAD))
    assert result == {
        'first': 'was here', 'data': {str(size): sha(content(size)) for size in SIZES},
        'styles': [f'rgb({10 + number}, 1, 2)' for number in range(STYLES)],
        'images': [list(image_size(number)) for number in range(IMAGES)],
        'upload': {'here': sha(body), 'there': sha(body)}}
    assert site.uploaded == [UPLOAD]


def check_log(weir, mode, version, suite):
    """The access log has every request once, with what TLS it came; gives the lines."""
    lines = weir.lines(len(PATHS), status=200)
    assert sorted(line['path'] for line in lines) == PATHS
    for line in lines:
        assert (line['tls'], line['tls_cipher']) == (f'TLSv{version}', suite), line
        assert line['tls_records'] == tls_rig.records_expected(mode), line
        assert 'HeadlessChrome' in line['user_agent'] and line['protocol'] == 'HTTP/1.1', line
        assert line['host'] == f'localhost:{weir.port_of("main")}', line
    return lines


def certificate(key):
    """Whose name is localhost."""
    return pki().ec if key == 'ec' else pki().root.issue('browser', 'localhost', kind='rsa')


@pytest.mark.parametrize('mode', tls_rig.MODES)
@pytest.mark.parametrize('version, key, tls, suite', SUITES, ids=IDS)
def test_a_page(rig, mode, version, key, tls, suite):
    """Only one version and one suite are to be had; the browser keeps its connections."""
    pair = certificate(key)
    only = f'min_version = "{version}"\nmax_version = "{version}"\n'
    weir, site, url = serve(rig, mode, only + tls, pair)
    check_page(browse(url, trusted=pair)[0], site)
    lines = check_log(weir, mode, version, suite)
    assert len({line['client_port'] for line in lines}) <= 6, 'connections are not used again'
    stats = weir.tls_stats()
    assert (stats['clients.failed'], stats['clients.bad_records']) == (0, 0), stats


@pytest.mark.parametrize('mode', tls_rig.MODES)
@pytest.mark.parametrize('version', ['1.3', '1.2'])
def test_a_connection_for_each_request(rig, mode, version):
    """With everything else by default. Then the browser resumes its session."""
    weir, site, url = serve(rig, mode, f'max_version = "{version}"\n', pki().ec,
                            'max_requests_per_connection = 1\n')
    check_page(browse(url, trusted=pki().ec)[0], site)
    suite = {'1.3': 'TLS_AES_128_GCM_SHA256', '1.2': 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'}
    lines = check_log(weir, mode, version, suite[version])
    assert len({line['client_port'] for line in lines}) == len(PATHS)
    assert sum(line['tls_resumed'] for line in lines) >= 5, lines
    stats = weir.tls_stats()
    assert stats['clients.resumed'] >= 5 and stats['clients.failed'] == 0, stats


def test_a_certificate_that_is_not_trusted(rig):
    """The browser refuses it: so in the other tests it did check what weir sent."""
    weir, site, url = serve(rig, 'kernel', '', pki().ec)
    dom, said = browse(url, trusted=pki().rsa)
    assert 'Page load failed: net::ERR_CERT_AUTHORITY_INVALID' in said and not dom, (dom, said)
    stats = wait_until(lambda: (now := weir.tls_stats())['clients.failures.peer_alert'] and now,
                       tls_rig.IO, "the browser's alert")
    assert (stats['clients.full'], weir.access(), site.uploaded) == (0, [], []), stats
