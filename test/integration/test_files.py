"""Static files: what is served is what is on the disk, whole, in ranges, compressed and as a
listing, over plain connections and TLS, by sendfile and from memory. What must not be served, and
what happens to files while they are served, is in test_files_attacks.py."""
import email
import gzip
import http.client
import json
import os
import random
import re
import resource
import time
import urllib.parse

import pytest

import ops_rig
import tls_rig
from conftest import wait_until
from tls_rig import KiB, MiB, Rig, TlsClient, config, content, sha

pytestmark = tls_rig.LIMIT

SIZES = [0, 1, 3 * KiB, 4 * KiB - 1, 4 * KiB, 4 * KiB + 1, 15 * KiB, 64 * KiB, 256 * KiB - 1,
         256 * KiB, 256 * KiB + 1, 10 * MiB]
OLD = 1_600_000_000  # September 2020
OLD_DATE = 'Sun, 13 Sep 2020 12:26:40 GMT'
ROUTES = '''
[[listener]]
name = "plain"
address = "127.0.0.1:0"
[performance]
open_file_cache_valid = "50ms"
file_memory = "4MiB"
file_memory_max_size = "300KiB"
[[route]]
path = "/s/"
file = "{root}"
[[route]]
path = "/m/"
file = {{path = "{root}", mode = "memory"}}
[[route]]
path = "/list/"
file = {{path = "{root}", listing = true, cache_control = "public, max-age=60", expires = "1h"}}
[[route]]
path = "/raw/"
file = {{path = "{root}", precompressed = false, index = []}}
[[route]]
path = "/robots.txt"
file = "{root}/note.txt"
[[route]]
path = "/app/"
file = {{path = "{root}", fallback = "index.html"}}
[[route]]
path = "/both/"
file = {{path = "{root}", redirect_slash = true, fallback = "index.html"}}
[[route]]
path = "/slash/"
file = {{path = "{root}", redirect_slash = true, listing = true}}
[[route]]
path = "/errors/"
[route.file]
path = "{root}"
[route.file.error_pages]
404 = "lost.html"
405 = "note.txt"
412 = "lost.html"
416 = "lost.html"
'''
TEXT = b'a line of text, and another\n' * 400
STYLE = b'p { color: black }\n' * 300


def write(path, data, when=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (when, when))


def make_tree(root):
    for size in SIZES:
        write(root / f'size-{size}.bin', content(size))
    write(root / 'index.html', b'<h1>home</h1>\n')
    write(root / 'dir/index.html', b'<h1>dir</h1>\n')
    write(root / 'dir/deeper/still/a.txt', b'deep')
    write(root / 'bare/one.txt', b'one')
    write(root / 'bare/two & <three>.txt', b'two')
    write(root / 'bare/sub/x.txt', b'x')
    write(root / 'bare/.hidden', b'hidden')
    write(root / 'note.txt', TEXT)
    write(root / 'lost.html', b'<h1>lost</h1>\n')
    write(root / 'na me/\u00fcml\u00e4ut+%41.txt', b'odd name')
    write(root / 'style.css', STYLE)
    write(root / 'style.css.br', b'as brotli')
    write(root / 'style.css.zst', b'as zstd')
    write(root / 'style.css.gz', gzip.compress(STYLE, mtime=0))
    write(root / 'only.js', b'let a;')
    write(root / 'only.js.gz', gzip.compress(b'let a;', mtime=0))
    write(root / 'orphan.txt.gz', gzip.compress(b'no original', mtime=0))


class Site:
    def __init__(self, weir, root):
        self.weir, self.root = weir, root

    def client(self, kind='plain'):
        if kind == 'tls':
            return TlsClient(self.weir.port_of('main'))
        return ops_rig.Client(self.weir.port_of('plain'))

    def get(self, target, *fields, method='GET', kind='plain'):
        with self.client(kind) as client:
            return client.request(f'{method} {target} HTTP/1.1', 'Host: a.test', *fields)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    root = folder / 'root'
    make_tree(root)
    rig = Rig(folder)
    try:
        yield Site(rig.weir(config(ROUTES.format(root=root))), root)
    finally:
        rig.close()


KINDS = pytest.mark.parametrize('kind', ['plain', 'tls'])
PREFIXES = pytest.mark.parametrize('prefix', ['/s/', '/m/'])


# ---- whole files


@KINDS
@PREFIXES
def test_every_size_is_served_byte_for_byte(site, prefix, kind):
    with site.client(kind) as client:
        for size in [*SIZES, *reversed(SIZES)]:  # the second time from the cache
            answer = client.get(f'{prefix}size-{size}.bin')
            assert (answer.status, answer.get('Content-Length')) == (200, str(size))
            assert sha(answer.body) == sha(content(size)), f'{size} bytes'


def evict(path, offset=0, size=0):
    """Takes (a part of) a file out of the page cache."""
    with open(path, 'rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_DONTNEED)


@KINDS
def test_pages_that_are_not_in_memory(site, kind):
    for size in SIZES:
        path = site.root / f'size-{size}.bin'
        for offset, length in [(0, 0), (4 * KiB, 4 * KiB), (size // 2 & ~4095, 64 * KiB)]:
            path.read_bytes()
            evict(path, offset, length)
            answer = site.get(f'/s/size-{size}.bin', kind=kind)
            assert sha(answer.body) == sha(content(size)), (size, offset, length)


@PREFIXES
def test_a_tree_that_is_fetched_equals_the_tree(site, prefix):
    connection = http.client.HTTPConnection('127.0.0.1', site.weir.port_of('plain'), timeout=15)
    paths = [path for path in sorted(site.root.rglob('*'))
             if path.is_file() and not path.name.startswith('.')]
    assert len(paths) > 20
    for path in paths:
        name = urllib.parse.quote(str(path.relative_to(site.root)))
        connection.request('GET', prefix + name)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, path.read_bytes()), name
    connection.close()


@KINDS
@PREFIXES
@pytest.mark.parametrize('size', [0, 4 * KiB, 10 * MiB])
def test_head_has_the_fields_of_get_and_no_body(site, prefix, kind, size):
    target = f'{prefix}size-{size}.bin'
    with site.client(kind) as client:
        head = client.request(f'HEAD {target} HTTP/1.1', 'Host: a.test')
        whole = client.get(target)
    assert len(whole.body) == size

    def fields(answer):
        return [field for field in answer.fields if field[0] != 'Date']

    assert (head.status, fields(head)) == (200, fields(whole))


def test_options_and_other_methods(site):
    allow = 'GET, HEAD, OPTIONS'
    answer = site.get('/s/note.txt', method='OPTIONS')
    assert (answer.status, answer.get('Allow')) == (204, allow)
    for method in ['PUT', 'DELETE', 'PATCH', 'PROPFIND']:
        answer = site.get('/s/note.txt', method=method)
        assert (answer.status, answer.get('Allow')) == (405, allow), method
    with site.client() as client:
        answer = client.request('POST /s/note.txt HTTP/1.1', 'Host: a.test', 'Content-Length: 5',
                                body=b'hello')
        assert (answer.status, answer.get('Allow')) == (405, allow)


def test_index_with_and_without_a_slash(site):
    for target, body in [('/s/', b'home'), ('/s/dir/', b'dir'), ('/s/dir', b'dir')]:
        answer = site.get(target)
        assert (answer.status, answer.get('Content-Type')) == (200, 'text/html; charset=utf-8')
        assert answer.body == b'<h1>%s</h1>\n' % body
    for target in ['/raw/', '/raw/dir/', '/s/bare/', '/s/bare', '/s/note.txt/', '/s/nothing/']:
        assert site.get(target).status == 404, target


def test_a_file_route_answers_exactly_its_path(site):
    assert site.get('/robots.txt').body == TEXT
    assert site.get('/robots.txt').get('Content-Type') == 'text/plain; charset=utf-8'
    for target in ['/robots.txt/', '/robots.txt/extra', '/robots.txtx', '/robots.txt%2fx']:
        answer = site.get(target)
        assert answer.status in (400, 404) and TEXT[:20] not in answer.body, target


# ---- validators and ranges


def settled(site, target):
    """The ETag, once the file is old enough to have one."""
    return wait_until(lambda: site.get(target).get('ETag'), what='an ETag')


@KINDS
@PREFIXES
def test_validators(site, prefix, kind):
    target = f'{prefix}note.txt'
    tag = settled(site, target)
    assert re.fullmatch('"[^"]+"', tag)

    def status(*fields, method='GET'):
        return site.get(target, *fields, method=method, kind=kind).status

    later, before = 'Mon, 14 Sep 2020 00:00:00 GMT', 'Sat, 12 Sep 2020 00:00:00 GMT'
    assert site.get(target).get('Last-Modified') == OLD_DATE
    fresh = site.get(target, f'If-None-Match: {tag}', kind=kind)
    assert (fresh.status, fresh.get('ETag'), fresh.body) == (304, tag, b'')
    assert status(f'If-None-Match: W/{tag}') == 304
    assert status(f'If-None-Match: "x", {tag}') == 304
    assert status('If-None-Match: *') == 304
    assert status(f'If-None-Match: {tag}', method='HEAD') == 304
    assert status('If-None-Match: "x"') == 200
    assert status('If-None-Match: "x"', f'If-Modified-Since: {OLD_DATE}') == 200
    assert status(f'If-Modified-Since: {OLD_DATE}') == 304
    assert status(f'If-Modified-Since: {before}') == 200
    assert status('If-Modified-Since: yesterday') == 200
    assert status(f'If-Match: {tag}') == 200
    assert status('If-Match: *') == 200
    assert status('If-Match: "x"') == 412
    assert status(f'If-Match: W/{tag}') == 412
    assert status(f'If-Unmodified-Since: {before}') == 412
    assert status(f'If-Unmodified-Since: {later}') == 200
    assert status('Range: bytes=0-0', f'If-Range: {tag}') == 206
    assert status('Range: bytes=0-0', 'If-Range: "x"') == 200
    assert status('Range: bytes=0-0', f'If-Range: W/{tag}') == 200
    assert status('Range: bytes=0-0', f'If-Range: {OLD_DATE}') == 206
    assert status('Range: bytes=0-0', f'If-Range: {later}') == 200


@KINDS
@PREFIXES
@pytest.mark.parametrize('size', [1, 3 * KiB, 256 * KiB + 1, 10 * MiB])
def test_single_ranges(site, prefix, kind, size):
    data = content(size)
    with site.client(kind) as client:
        for text, first, last in [('0-0', 0, 0), ('0-', 0, size - 1), ('-1', size - 1, size - 1),
                                  (f'{size - 1}-', size - 1, size - 1),
                                  (f'{size // 2}-{size * 2}', size // 2, size - 1),
                                  (f'-{size * 2}', 0, size - 1),
                                  (f'{size // 3}-{size // 2}', size // 3, size // 2)]:
            answer = client.get(f'{prefix}size-{size}.bin', f'Range: bytes={text}')
            assert answer.status == 206, text
            assert answer.get('Content-Range') == f'bytes {first}-{last}/{size}', text
            assert sha(answer.body) == sha(data[first:last + 1]), text
        for text in [f'{size}-', f'{size}-{size + 5}', '-0']:
            answer = client.get(f'{prefix}size-{size}.bin', f'Range: bytes={text}')
            assert (answer.status, answer.get('Content-Range')) == (416, f'bytes */{size}'), text
        for text in ['bytes=2-1', 'bytes=', 'bytes=a-b', 'lines=0-1', 'bytes 0-1', 'bytes=0-0,x']:
            answer = client.get(f'{prefix}size-{size}.bin', f'Range: {text}')
            assert (answer.status, len(answer.body)) == (200, size), text
        head = client.request(f'HEAD {prefix}size-{size}.bin HTTP/1.1', 'Host: a.test',
                              'Range: bytes=0-0')
        assert (head.status, head.get('Content-Length')) == (200, str(size))


def parts_of(answer):
    """(Content-Range, body) of each part."""
    head = f'Content-Type: {answer.get("Content-Type")}\r\n\r\n'.encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.is_multipart()
    boundary = message.get_boundary().encode()
    assert answer.body.rstrip(b'\r\n').endswith(b'--' + boundary + b'--')
    pieces = answer.body.split(b'\r\n--' + boundary) if answer.body.startswith(b'\r\n') else (
        b'\r\n' + answer.body).split(b'\r\n--' + boundary)
    found = []
    for piece in pieces[1:-1]:
        fields, _, body = piece[2:].partition(b'\r\n\r\n')
        found.append((re.search(rb'(?i)content-range: *(.*?)(?:\r|$)', fields).group(1).decode(),
                      body))
    return found


@KINDS
@PREFIXES
def test_multiple_ranges(site, prefix, kind):
    for size in [3 * KiB, 10 * MiB]:
        data = content(size)
        answer = site.get(f'{prefix}size-{size}.bin', 'Range: bytes=0-9,100-299,-5', kind=kind)
        assert answer.status == 206 and answer.get('Content-Range') is None
        assert answer.get('Content-Type').startswith('multipart/byteranges; boundary=')
        expected = [(f'bytes {a}-{b}/{size}', data[a:b + 1])
                    for a, b in [(0, 9), (100, 299), (size - 5, size - 1)]]
        assert parts_of(answer) == expected
    big = 10 * MiB
    answer = site.get(f'{prefix}size-{big}.bin', f'Range: bytes=0-{3 * MiB},{5 * MiB}-{9 * MiB}',
                      kind=kind)
    data = content(big)
    assert [sha(body) for _, body in parts_of(answer)] == [
        sha(data[:3 * MiB + 1]), sha(data[5 * MiB:9 * MiB + 1])]
    merged = site.get(f'{prefix}size-{big}.bin', 'Range: bytes=0-9,5-19', kind=kind)
    assert (merged.get('Content-Range'), merged.body) == (f'bytes 0-19/{big}', data[:20])
    none = site.get(f'{prefix}size-{big}.bin', f'Range: bytes={big}-,{big + 9}-', kind=kind)
    assert none.status == 416
    many = ','.join(f'{n * 1000}-{n * 1000 + 9}' for n in range(200))
    answer = site.get(f'{prefix}size-{big}.bin', f'Range: bytes={many}', kind=kind)
    assert (answer.status, len(answer.body)) == (200, big)


# ---- precompressed files


@PREFIXES
def test_precompressed_files(site, prefix):
    target = f'{prefix}style.css'
    zipped = (site.root / 'style.css.gz').read_bytes()
    bodies = {'br': b'as brotli', 'zstd': b'as zstd', 'gzip': zipped, None: STYLE}
    for accept, coding in [(None, None), ('br', 'br'), ('gzip', 'gzip'), ('zstd', 'zstd'),
                           ('gzip, deflate, br, zstd', 'br'), ('br;q=0.5, gzip;q=0.8', 'gzip'),
                           ('br;q=0, zstd;q=0, gzip', 'gzip'), ('identity', None), ('*;q=0', None),
                           ('*', 'br'), ('deflate', None), ('GZIP', 'gzip'),
                           ('gzip;q=0.3, identity;q=1', None), ('', None)]:
        fields = [] if accept is None else [f'Accept-Encoding: {accept}']
        for method in ['GET', 'HEAD']:
            answer = site.get(target, *fields, method=method)
            assert (answer.status, answer.get('Content-Encoding')) == (200, coding), accept
            assert answer.get('Vary') == 'Accept-Encoding', accept
            assert answer.get('Content-Type') == 'text/css; charset=utf-8'
            assert answer.get('Content-Length') == str(len(bodies[coding])), accept
            assert answer.body == (bodies[coding] if method == 'GET' else b''), accept


def test_codings_have_tags_and_ranges_of_their_own(site):
    plain = settled(site, '/s/style.css')
    answer = wait_until(lambda: (got := site.get('/s/style.css', 'Accept-Encoding: br')).get('ETag')
                        and got)
    tag = answer.get('ETag')
    assert tag != plain
    assert site.get('/s/style.css', 'Accept-Encoding: br', f'If-None-Match: {plain}').status == 200
    fresh = site.get('/s/style.css', 'Accept-Encoding: br', f'If-None-Match: {tag}')
    assert (fresh.status, fresh.get('Vary')) == (304, 'Accept-Encoding')
    part = site.get('/s/style.css', 'Accept-Encoding: br', 'Range: bytes=3-')
    assert (part.status, part.body, part.get('Content-Range')) == (206, b'brotli', 'bytes 3-8/9')
    assert part.get('Content-Encoding') == 'br'


def test_precompression_is_per_file_and_can_be_off(site):
    assert site.get('/s/only.js', 'Accept-Encoding: br, gzip').get('Content-Encoding') == 'gzip'
    assert site.get('/s/only.js', 'Accept-Encoding: br').get('Content-Encoding') is None
    assert site.get('/s/note.txt', 'Accept-Encoding: gzip').get('Vary') is None
    assert site.get('/s/orphan.txt', 'Accept-Encoding: gzip').status == 404
    off = site.get('/raw/style.css', 'Accept-Encoding: gzip')
    assert (off.body, off.get('Vary'), off.get('Content-Encoding')) == (STYLE, None, None)


# ---- fields, listings, other answers


def test_cache_control_and_expires(site):
    answer = site.get('/list/note.txt')
    assert answer.get('Cache-Control') == 'public, max-age=60'
    parse = email.utils.parsedate_to_datetime
    ahead = parse(answer.get('Expires')) - parse(answer.get('Date'))
    assert abs(ahead.total_seconds() - 3600) <= 1
    tag = settled(site, '/list/note.txt')
    fresh = site.get('/list/note.txt', f'If-None-Match: {tag}')
    assert (fresh.status, fresh.get('Cache-Control')) == (304, 'public, max-age=60')
    assert fresh.get('Expires')
    other = site.get('/s/note.txt')
    assert other.get('Cache-Control') is None and other.get('Expires') is None


@pytest.mark.parametrize('target', ['/list/bare/', '/list/bare'])
def test_listing_as_json(site, target):
    for answer in [site.get(f'{target}?format=json'),
                   site.get(target, 'Accept: application/json')]:
        assert (answer.status, answer.get('Vary')) == (200, 'Accept')
        assert answer.get('Content-Type').startswith('application/json')
        entries = {entry['name']: entry for entry in json.loads(answer.body)}
        assert set(entries) == {'one.txt', 'two & <three>.txt', 'sub'}
        assert (entries['one.txt']['size'], entries['sub']['type']) == (3, 'directory')
        for name, body in [('one.txt', b'one'), ('two & <three>.txt', b'two')]:
            href = urllib.parse.urljoin(target, entries[name]['href'])
            assert site.get(href).body == body


@pytest.mark.parametrize('target', ['/list/bare/', '/list/bare'])
def test_listing_as_html(site, target):
    answer = site.get(target)
    assert answer.status == 200 and answer.get('Content-Type').startswith('text/html')
    assert "default-src 'none'" in answer.get('Content-Security-Policy')
    text = answer.body.decode()
    assert '<three>' not in text and '.hidden' not in text and 'one.txt' in text
    links = [urllib.parse.urljoin(target, link) for link in re.findall(r'href="([^"]*)"', text)]
    assert any(site.get(link).body == b'one' for link in links if 'one.txt' in link), links
    head = site.get(target, method='HEAD')
    assert (head.status, head.get('Content-Length')) == (200, str(len(answer.body)))


def test_directory_with_an_index_is_not_listed(site):
    assert site.get('/list/dir/').body == b'<h1>dir</h1>\n'


def test_fallback_and_error_pages(site):
    for target in ['/app/no/such/page', '/app/none', '/app/bare/']:
        answer = site.get(target)
        assert (answer.status, answer.body) == (200, b'<h1>home</h1>\n'), target
    assert site.get('/app/note.txt').body == TEXT
    lost = site.get('/errors/none')
    assert (lost.status, lost.body) == (404, b'<h1>lost</h1>\n')
    assert lost.get('Content-Type') == 'text/html; charset=utf-8'
    assert lost.get('ETag') is None and lost.get('Last-Modified') is None
    head = site.get('/errors/none', method='HEAD')
    assert (head.status, head.get('Content-Length')) == (404, '14')


def test_a_directory_without_its_slash(site):
    for target, location in [('/slash/dir', './dir/'), ('/slash/dir?a=b&c', './dir/?a=b&c'),
                             ('/slash/dir/deeper', './deeper/'), ('/slash/na%20me', './na%20me/')]:
        for method in ['GET', 'HEAD']:
            answer = site.get(target, method=method)
            assert (answer.status, answer.get('Location')) == (301, location), target
            there = urllib.parse.urljoin(target, location)
            assert site.get(there).status == 200, there
    assert site.get('/slash/none').status == 404
    assert site.get('/slash/note.txt').body == TEXT
    assert site.get('/both/dir').status == 301
    bare = site.get('/both/bare')  # no index, no listing: there is nothing to be sent to
    assert (bare.status, bare.body) == (200, b'<h1>home</h1>\n')
    assert site.get('/s/dir').body == b'<h1>dir</h1>\n'  # not unless it is asked for


def test_every_refusal_has_its_error_page(site):
    page = b'<h1>lost</h1>\n'
    method = site.get('/errors/style.css', method='DELETE')
    assert (method.status, method.body) == (405, TEXT)
    assert method.get('Allow') == 'GET, HEAD, OPTIONS'
    precondition = site.get('/errors/style.css', 'If-Match: "other"')
    assert (precondition.status, precondition.body) == (412, page)
    ranges = site.get('/errors/style.css', f'Range: bytes={len(STYLE)}-')
    assert (ranges.status, ranges.body) == (416, page)
    assert ranges.get('Content-Range') == f'bytes */{len(STYLE)}'
    assert ranges.get('Accept-Ranges') is None
    # Without one they say it plainly.
    plain = site.get('/s/style.css', f'Range: bytes={len(STYLE)}-')
    assert (plain.status, plain.body) == (416, b'416 Range Not Satisfiable\n')
    assert plain.get('Content-Range') == f'bytes */{len(STYLE)}'
    assert site.get('/s/style.css', 'If-Match: "other"').body == b'412 Precondition Failed\n'


# ---- connections


@KINDS
def test_keep_alive_and_pipelining(site, kind):
    names = [3 * KiB, 10 * MiB, 0, 64 * KiB, 256 * KiB + 1, 1] * 2
    with site.client(kind) as client:
        for size in names:
            client.send_request(f'GET /s/size-{size}.bin HTTP/1.1', 'Host: a.test')
        for size in names:
            answer = client.read_response()
            assert (answer.status, sha(answer.body)) == (200, sha(content(size)))
        assert client.get('/s/none').status == 404
        assert client.get('/s/note.txt').body == TEXT


@KINDS
def test_http_1_0(site, kind):
    for size in [0, 3 * KiB, 10 * MiB]:
        with site.client(kind) as client:
            answer = client.request(f'GET /s/size-{size}.bin HTTP/1.0')
            assert (answer.status, sha(answer.body)) == (200, sha(content(size)))
            assert client.at_end()


def test_counters(site):
    before = site.weir.stats()

    def grown():
        now = site.weir.stats()
        return {key: now[key] - before[key] for key in now if key.startswith('file_bytes')}

    site.get(f'/s/size-{10 * MiB}.bin')
    assert grown() == {'file_bytes_sendfile': 10 * MiB, 'file_bytes_copied': 0,
                       'file_bytes_memory': 0}
    site.get(f'/m/size-{64 * KiB}.bin')
    assert grown()['file_bytes_memory'] == 64 * KiB
    site.get(f'/m/size-{10 * MiB}.bin')  # too large to be kept
    assert grown()['file_bytes_sendfile'] == 20 * MiB
    assert grown()['file_bytes_copied'] == 0


def read_through(client, target, pace=0.0):
    """The size of the body, which is not kept."""
    client.send_request(f'GET {target} HTTP/1.1', 'Host: a.test')
    length = left = int(client.read_head().get('Content-Length'))
    while left:
        if not client.buffer:
            assert client.fill()
        left -= len(client.buffer)
        client.buffer, client.received = b'', bytearray()
        time.sleep(pace)
    return length


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        made.close()


@KINDS
def test_large_files_take_no_memory(rig, tmp_path, kind):
    root = tmp_path / 'root'
    root.mkdir()
    with open(root / 'big', 'wb') as big:
        big.truncate(256 * MiB)
    with open(root / 'some', 'wb') as some:
        some.truncate(64 * MiB)
    # What a sanitizer keeps of freed memory is not weir's.
    weir = rig.weir(config(ROUTES.format(root=root)),
                    env={'ASAN_OPTIONS': 'quarantine_size_mb=4'})
    site = Site(weir, root)
    with site.client(kind) as client:
        assert read_through(client, '/s/some') == 64 * MiB
        stats = weir.stats()
        moved = (stats['file_bytes_sendfile'], stats['file_bytes_copied'])
        kernel = kind == 'plain' or tls_rig.records_expected() == 'kernel'
        assert moved == ((64 * MiB, 0) if kernel else (0, 64 * MiB))
        before = weir.rss_kib()
        assert read_through(client, '/s/big') == 256 * MiB
        assert read_through(client, '/m/big') == 256 * MiB
        assert weir.rss_kib() - before < 16 * KiB


@KINDS
@pytest.mark.parametrize('size', [1, 3 * KiB, 5 * KiB, 100 * KiB, 700 * KiB])
def test_a_file_that_is_written_over(rig, tmp_path, kind, size):
    """The cache holds it for an hour, and yet nobody is sent a mixture, or cut off. Small files are
    kept as they were for as long, unless there is no memory for that."""
    root = tmp_path / 'root'
    write(root / 'f.bin', content(size))
    text = ROUTES.format(root=root).replace('"50ms"', '"1h"').replace('"4MiB"', '0')
    site = Site(rig.weir(config(text)), root)
    with site.client(kind) as client:
        for turn in range(4):
            wanted = random.Random(turn).randbytes(size + turn % 2)
            with open(root / 'f.bin', 'r+b') as file:
                file.write(wanted)
                file.truncate()
            answer = client.get('/s/f.bin')
            assert (answer.status, sha(answer.body)) == (200, sha(wanted)), turn
            again = client.get('/s/f.bin')
            assert sha(again.body) == sha(wanted)


def test_small_files_are_kept_in_any_mode(rig, site):
    site = Site(rig.weir(config(ROUTES.format(root=site.root))), site.root)
    for _ in range(3):
        assert site.get(f'/s/size-{3 * KiB}.bin').body == content(3 * KiB)
        assert site.get(f'/s/size-{4 * KiB}.bin', 'Range: bytes=10-19').body == (
            content(4 * KiB)[10:20])
        assert site.get(f'/s/size-{4 * KiB + 1}.bin').body == content(4 * KiB + 1)
    stats = site.weir.stats()
    assert stats['file_bytes_memory'] == 3 * (3 * KiB + 10)
    assert stats['file_bytes_copied'] + stats['file_bytes_sendfile'] == 3 * (4 * KiB + 1)


def test_few_descriptors(rig, tmp_path):
    """Open files are given up for those that are asked for."""
    root = tmp_path / 'root'
    for number in range(400):
        write(root / f'{number}.txt', b'%d' % number)
    limit = 300  # 100 of them are those of a weir that has served nothing

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    site = Site(rig.weir(config(ROUTES.format(root=root)), preexec_fn=lower), root)
    with site.client() as client:
        for number in range(400):
            answer = client.get(f'/s/{number}.txt')
            assert (answer.status, answer.body) == (200, b'%d' % number)


def test_open_files_are_bounded(rig, tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    for number in range(3000):
        (root / f'{number}.txt').write_text(f'file {number}')
        if number % 3 == 0:
            (root / f'{number}.txt.gz').write_bytes(b'zipped')
    text = ROUTES.format(root=root).replace('[performance]',
                                            '[performance]\nopen_file_cache_entries = 64')
    site = Site(rig.weir(config(text)), root)
    folder = f'/proc/{site.weir.pid}/fd'
    before, most = len(os.listdir(folder)), 0
    with site.client() as client:
        for number in range(3000):
            answer = client.get(f'/s/{number}.txt')
            assert answer.body == b'file %d' % number
            if number % 50 == 0:
                assert client.get(f'/s/{number}.none').status == 404
                most = max(most, len(os.listdir(folder)))
    assert most - before < 64 * 2 + 16, (before, most)
