"""Static files and the programs that people fetch them with: curl (resumed downloads, ranges,
compressed), wget (whole trees, what is newer) and wrk. What Chromium makes of them is in
test_files_browser.py."""
import email
import gzip
import os
import re
import signal
import subprocess
import urllib.parse

import pytest

import ops_rig
import tls_rig
from conftest import wait_until
from ops_rig import need
from tls_rig import KiB, MiB, Rig, config, content, pki, run, sha

pytestmark = pytest.mark.seconds(tls_rig.seconds(120))

OLD = 1_600_000_000
CONFIG = '''
[[listener]]
name = "plain"
address = "127.0.0.1:0"
[performance]
open_file_cache_valid = "20ms"
[[route]]
path = "/s/"
file = "{root}"
[[route]]
path = "/m/"
file = {{path = "{root}", mode = "memory"}}
[[route]]
path = "/tree/"
file = {{path = "{root}/tree", listing = true}}
'''
BIG = 24 * MiB
TEXT = b'a line of text, and another\n' * 4000
# Besides what a directory is full of: what has a meaning in URLs, HTML, shells and CSV.
NAMES = ['plain.txt', 'with space.txt', ' leading and trailing ', '100%.txt', '%41.txt', '%zz',
         'a%2fb.txt', '\u00fcml\u00e4ut.txt', '\u65e5\u672c\u8a9e.txt', 'e\u0301.txt', "it's.txt",
         'dou"ble.txt', 'hash#tag.txt', '#', 'what?.txt', '?a=b&c=d', 'a+b.txt', 'a&b.txt',
         '&amp;.txt', '<b>bold<b>.txt', 'semi;colon.txt', 'co:lon.txt', 'http:no', 'at@sign',
         'star*.txt', 'tilde~', '$HOME', '`ls`', '!bang', '(copy) [1] {2}.txt', 'pi|pe', 'ca^ret',
         'comma,.txt', '-rf', 'equals=', 'no-extension', 'a.tar.gz', 'page.htm',
         'b' * 230]  # wget cuts longer names, to have room for its own endings


def write(path, data, when=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (when, when))


def make_tree(tree):
    for number, name in enumerate(NAMES):
        write(tree / name, content(1000 + number))
        write(tree / 'below' / f'd {name[:200]}' / name, content(2000 + number))
    for number in range(300):
        write(tree / f'many/file-{number}.bin', content(number * 37))
    for size in [0, 1, 4 * KiB, 64 * KiB + 1, 3 * MiB]:
        write(tree / f'a/b/c/d/e/f/size-{size}.bin', content(size))
    (tree / 'empty').mkdir()
    (tree / 'link.txt').symlink_to('plain.txt')
    write(tree / '.hidden', b'nobody sees this')
    write(tree / '.git/config', b'nor this')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp('clients')
    root = made / 'root'
    write(root / 'big.bin', content(BIG))
    write(root / 'kib.bin', content(KiB))
    write(root / 'text.txt', TEXT)
    make_tree(root / 'tree')
    return made


@pytest.fixture(scope='module')
def site(folder):
    rig = Rig(folder)
    try:
        yield Site(rig.weir(config(CONFIG.format(root=folder / 'root'))), folder / 'root')
    finally:
        rig.close()


class Site:
    def __init__(self, weir, root):
        self.weir, self.root = weir, root

    def url(self, path, kind='plain'):
        if kind == 'tls':
            return f'https://localhost:{self.weir.port_of("main")}{path}'
        return f'http://localhost:{self.weir.port_of("plain")}{path}'


KINDS = pytest.mark.parametrize('kind', ['plain', 'tls'])


def curl(*arguments, check=True):
    need('curl')
    return run('curl', '-q', '-sS', '--noproxy', '*', '--cacert', pki().root.cert, '-m',
               str(tls_rig.seconds(60)), *map(str, arguments), check=check, limit=70)


def wget(*arguments, check=True, limit=90):
    need('wget')
    return run('wget', '--no-config', '--no-proxy', '--no-hsts', '-nv', '-t', '1', '-T',
               str(tls_rig.seconds(20)), '--ca-certificate', pki().root.cert, *map(str, arguments),
               check=check, limit=limit, env={**os.environ, 'LC_ALL': 'C.UTF-8'})


# ---- curl


@KINDS
def test_curl_resumes_a_download_that_was_cut(site, tmp_path, kind):
    """By curl's own end, as by Ctrl-C; time after time, until there is nothing to resume."""
    got = tmp_path / 'got'
    url = site.url('/s/big.bin', kind)
    # Slow enough to be cut, and by the last one whole.
    first = curl('-o', got, '--limit-rate', '6M', '-m', 1, url, check=False)
    assert first.returncode == 28, first
    had = got.stat().st_size
    assert 0 < had < BIG
    curl('-C', '-', '-o', got, url)
    assert got.stat().st_size == BIG and sha(got.read_bytes()) == sha(content(BIG))
    line = site.weir.lines(1, path='/s/big.bin', status=206)[-1]
    assert BIG - had < line['bytes_out'] < BIG - had + 1000
    again = curl('-C', '-', '-o', got, '-w', '%{http_code}', url, check=False)
    assert again.stdout == b'416' and sha(got.read_bytes()) == sha(content(BIG))


@KINDS
def test_curl_resumes_after_weir_was_ended(tmp_path, folder, kind):
    """In the middle of the file: the client must know that it has not got all of it."""
    rig = Rig(tmp_path)
    try:
        root = folder / 'root'
        site = Site(rig.weir(config(CONFIG.format(root=root))), root)
        got = tmp_path / 'got'
        process = rig.process('curl', '-q', '-sS', '--noproxy', '*', '--cacert', pki().root.cert,
                              '-o', str(got), '--limit-rate', '4M',
                              site.url('/s/big.bin', kind), stderr=subprocess.DEVNULL)
        wait_until(lambda: got.exists() and got.stat().st_size > MiB, tls_rig.IO, 'a part of it')
        assert process.poll() is None
        site.weir.expected = {0, 3}  # ended before its requests were
        site.weir.stop(signal.SIGQUIT)
        assert process.wait(tls_rig.seconds(30)) in (18, 56), process.returncode
        had = got.stat().st_size
        assert MiB < had < BIG and got.read_bytes() == content(BIG)[:had]
        site = Site(rig.weir(config(CONFIG.format(root=root))), root)
        curl('-C', '-', '-o', got, site.url('/s/big.bin', kind))
        assert sha(got.read_bytes()) == sha(content(BIG))
    finally:
        rig.close()


@pytest.mark.parametrize('by', ['ETag', 'Last-Modified'])
def test_curl_resumes_no_other_file(site, tmp_path, by):
    """If-Range with what the first part came with: the second comes only of the same file."""
    name = f'changing-{by}.bin'
    before, after = content(3 * MiB), content(3 * MiB + 1)
    write(site.root / name, before, OLD)
    url, got, fields = site.url(f'/s/{name}'), tmp_path / 'got', tmp_path / 'fields'
    curl('-r', f'0-{MiB - 1}', '-D', fields, '-o', got, url)
    condition = re.search(rf'(?im)^{by}: *(.*?)\r?$', fields.read_text())[1]
    resume = ['-C', '-', '-H', f'If-Range: {condition}', '-o', got, url]
    curl(*resume)
    assert sha(got.read_bytes()) == sha(before)

    got.write_bytes(before[:MiB])
    fresh = site.root / 'fresh'
    write(fresh, after, OLD + 1000)
    os.rename(fresh, site.root / name)
    wait_until(lambda: f'Content-Length: {len(after)}'.encode() in curl('-I', url).stdout,
               tls_rig.IO, 'the new file')
    refused = curl(*resume, check=False)  # weir sends all of the new one, curl takes none of it
    assert refused.returncode == 33 and got.read_bytes() == before[:MiB], refused
    got.unlink()
    curl(*resume[2:])
    assert sha(got.read_bytes()) == sha(after)


@KINDS
@pytest.mark.parametrize('prefix', ['/s/', '/m/'])
def test_curl_ranges(site, tmp_path, prefix, kind):
    for name, size in [('kib.bin', KiB), ('big.bin', BIG)]:
        data, url = content(size), site.url(prefix + name, kind)
        for wanted, expected in [('0-0', data[:1]), ('100-299', data[100:300]), ('-7', data[-7:]),
                                 (f'{size // 2}-', data[size // 2:])]:
            assert sha(curl('-r', wanted, url).stdout) == sha(expected), wanted
        fields = tmp_path / 'fields'
        body = curl('-D', fields, '--range', '0-9,100-299,-5', url).stdout
        kind_of = re.search(r'(?im)^(content-type: *multipart/byteranges; *boundary=.*?)\r?$',
                            fields.read_text())[1]
        message = email.message_from_bytes(kind_of.encode() + b'\r\n\r\n' + body)
        parts = [(part['Content-Range'], part.get_payload(decode=True))
                 for part in message.get_payload()]
        wanted = [(first, last, data[first:last + 1])
                  for first, last in [(0, 9), (100, 299), (size - 5, size - 1)]]
        assert [place for place, _ in parts] == [
            f'bytes {first}-{last}/{size}' for first, last, _ in wanted]
        # Python's parser takes ends of lines for its own: the bytes are looked for as they are.
        at = 0
        for first, last, piece in wanted:
            at = body.index(f'bytes {first}-{last}/{size}'.encode(), at)
            at = body.index(b'\r\n\r\n', at) + 4
            assert body[at:at + len(piece)] == piece
            assert body[at + len(piece):].startswith(b'\r\n--')


@pytest.mark.parametrize('coding, suffix, tool', [
    ('br', 'br', ['brotli', '-c']), ('zstd', 'zst', ['zstd', '-q', '-c']),
    ('gzip', 'gz', ['gzip', '-n', '-c'])])
@pytest.mark.parametrize('prefix', ['/s/', '/m/'])
def test_curl_compressed(site, tmp_path, prefix, coding, suffix, tool):
    need(tool[0])
    name = f'only-{suffix}.txt'
    write(site.root / name, TEXT)
    packed = run(*tool, str(site.root / name)).stdout
    write(site.root / f'{name}.{suffix}', packed)
    fields = tmp_path / 'fields'
    plain = curl('-D', fields, site.url(prefix + name, 'tls'))
    assert plain.stdout == TEXT and 'content-encoding' not in fields.read_text().lower()
    # The file may be known without its sibling for a moment.
    wait_until(lambda: b'Content-Encoding' in curl(
        '-I', '--compressed', site.url(prefix + name)).stdout, tls_rig.IO, 'the packed one')
    got = curl('--compressed', '-D', fields, '-w', '%{stderr}%{size_download}',
               site.url(prefix + name, 'tls'))
    assert got.stdout == TEXT and got.stderr == str(len(packed)).encode()
    assert f'content-encoding: {coding}' in fields.read_text().lower()
    assert 'vary: accept-encoding' in fields.read_text().lower()
    # And with all siblings there, one of them, decoded by curl to the same.
    write(site.root / f'{name}.gz', gzip.compress(TEXT, mtime=0))
    assert curl('--compressed', site.url(prefix + name)).stdout == TEXT


def test_curl_asks_whether_it_has_the_newest(site, tmp_path):
    tag, got, url = tmp_path / 'tag', tmp_path / 'got', site.url('/s/text.txt')
    curl('--etag-save', tag, '-o', got, url)
    assert tag.read_text().strip() and got.read_bytes() == TEXT
    asked = curl('--etag-compare', tag, '-o', got, '-w', '%{http_code} %{size_download}', url)
    assert asked.stdout == b'304 0' and got.read_bytes() == TEXT
    asked = curl('-z', got, '-o', tmp_path / 'none', '-w', '%{http_code}', url)  # by its time
    assert asked.stdout == b'304'


# ---- wget


def files_in(tree):
    """Relative path to content, of all that may be seen."""
    found = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, tree)
            if not any(part.startswith('.') for part in relative.split('/')):
                with open(path, 'rb') as file:
                    found[relative] = file.read()
    return found


def as_wget_writes(tree):
    """wget decodes the names of files (not of folders) that it writes once more than they were
    encoded: %41.txt becomes A.txt. Only an encoded slash stays."""
    def name(path):
        folder, file = os.path.split(path)
        file = re.sub('%2f', '%252F', file, flags=re.I)
        return os.path.join(folder, urllib.parse.unquote(file))
    return {name(path): data for path, data in tree.items()}


@KINDS
@pytest.mark.parametrize('options', [[], ['--reject', 'index.html*', '--reject-regex', r'\?']],
                         ids=['all', 'files'])
def test_wget_of_a_tree_equals_the_tree(site, tmp_path, options, kind):
    got, since = tmp_path / 'got', len(site.weir.access())
    wget('-r', '-l', 'inf', '-np', '-nH', '--cut-dirs=1', '--restrict-file-names=nocontrol',
         '-P', got, *options, site.url('/tree/', kind))
    found = files_in(got)
    listings = [path for path in found if re.match(r'index\.html(\?|$)', path.split('/')[-1])]
    if options:
        assert not listings
    else:  # each directory, in each order
        folders = [folder for folder, *_ in os.walk(site.root / 'tree') if '/.' not in folder]
        assert len(listings) == 7 * len(folders)
    for path in listings:
        del found[path]
    expected = as_wget_writes(files_in(site.root / 'tree'))
    assert len(expected) == 2 * len(NAMES) + 300 + 5 + 1
    assert sorted(found) == sorted(expected)
    assert [path for path in found if found[path] != expected[path]] == []
    lines = [line for line in site.weir.access()[since:] if line['path'].startswith('/tree/')]
    assert {line['status'] for line in lines} == {200}


def test_wget_fetches_only_what_is_newer(site, tmp_path):
    def fetch():
        since = len(site.weir.access())
        wget('-N', '-r', '-l', 'inf', '-np', '-nH', '--cut-dirs=2', '-P', tmp_path / 'got',
             '--reject', 'index.html*', '--reject-regex', r'\?', site.url('/tree/many/'))
        lines = wait_until(
            lambda: (now := [line for line in site.weir.access()[since:]
                             if line['path'].startswith('/tree/many/file')]) and
            len(now) >= 300 and now, tls_rig.IO, '300 lines')
        return {line['path']: line['status'] for line in lines}

    assert set(fetch().values()) == {200}
    assert set(fetch().values()) == {304}
    changed = site.root / 'tree/many/file-9.bin'
    write(changed, b'newer', OLD + 5000)
    try:
        url = site.url('/tree/many/file-9.bin')
        wait_until(lambda: curl(url).stdout == b'newer', tls_rig.IO, 'the new file')
        statuses = fetch()
        assert statuses.pop('/tree/many/file-9.bin') == 200
        assert set(statuses.values()) == {304}
        assert (tmp_path / 'got/file-9.bin').read_bytes() == b'newer'
    finally:
        write(changed, content(9 * 37))


@KINDS
def test_wget_continues(site, tmp_path, kind):
    got = tmp_path / 'big.bin'
    got.write_bytes(content(BIG)[:BIG // 3])
    wget('-c', '-O', got, site.url('/s/big.bin', kind))
    assert sha(got.read_bytes()) == sha(content(BIG))


# ---- wrk

CHECK = '''
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() bad, good, wanted = 0, 0, io.open(os.getenv("WANTED"), "rb"):read("*a") end
function response(status, fields, body)
  if status == 200 and body == wanted then good = good + 1 else bad = bad + 1 end
end
function done()
  for _, thread in ipairs(threads) do
    print("good " .. thread:get("good") .. " bad " .. thread:get("bad"))
  end
end
'''


@KINDS
@pytest.mark.parametrize('prefix', ['/s/', '/m/'])
def test_wrk_gets_one_kib_every_time(site, tmp_path, prefix, kind):
    """Kept connections; every body is compared."""
    need('wrk')
    script = tmp_path / 'check.lua'
    script.write_text(CHECK)
    before = site.weir.stats()
    done = run('wrk', '-t1', '-c32', f'-d{tls_rig.seconds(2)}s', '-s', str(script),
               site.url(f'{prefix}kib.bin', kind), env={**os.environ,
                                                        'WANTED': str(site.root / 'kib.bin')})
    text = done.stdout.decode()
    requests, errors = ops_rig.wrk_result(text)
    good, bad = map(int, re.search(r'good (\d+) bad (\d+)', text).groups())
    assert errors == [] and bad == 0 and good >= requests > 100, text
    grown = {key: value - before[key] for key, value in site.weir.stats().items()}
    assert grown['accepted'] <= 33, grown
    # A file this small is sent together with its head, from the kernel's memory or from weir's.
    assert grown['file_bytes_memory'] >= good * KiB  # small ones in any mode


# ---- what the documentation says


@pytest.mark.parametrize('page', ['FILES.md', 'TUNNELS.md'])
def test_every_configuration_in_the_documentation_is_good(tmp_path, page):
    text = (ops_rig.ROOT / 'docs' / page).read_text()
    blocks = re.findall(r'^```toml\n(.*?)^```$', text, re.M | re.S)
    assert len(blocks) >= 4
    for block in blocks:
        file = tmp_path / 'weir.toml'
        more = '' if '[[listener]]' in block else '\n[[listener]]\naddress = "127.0.0.1:0"\n'
        more += '' if '[[route]]' in block else '\n[[route]]\nrespond = {status = 200}\n'
        file.write_text(block + more)
        done = run(ops_rig.WEIR, 'check', '-c', str(file), check=False)
        assert done.returncode == 0, (block, done.stderr)


def test_the_example_does_what_its_comments_say(tmp_path):
    rig = Rig(tmp_path)
    try:
        origin = rig.origin()
        text = (ops_rig.ROOT / 'config/example-files.toml').read_text()
        for ours, example in [('127.0.0.1:0', '0.0.0.0:8080'), (f'{tmp_path}/www', '/var/www'),
                              (f'{tmp_path}/srv', '/srv/files'),
                              (origin.url, 'http://127.0.0.1:3000'),
                              (origin.address, 'db.internal:5432'), ('127.0.0.0/8', '10.0.0.0/8')]:
            assert example in text
            text = text.replace(example, ours)
        www = tmp_path / 'www'
        for name in ['site/docs/index.html', 'robots.txt', 'app/index.html', 'app/assets/a-1.js',
                     'app/m.webmanifest']:
            write(www / name, f'{name}\n'.encode())
        write(tmp_path / 'srv/a file.txt', b'a file\n')
        weir = rig.weir(text)

        def ask(host, target, *fields):
            return ops_rig.get(weir.port, target, *fields, host=f'{host}.example.com')

        assert ask('www', '/docs/').body == b'site/docs/index.html\n'
        assert ask('www', '/robots.txt').body == b'robots.txt\n'
        assert ask('www', '/robots.txt/more').status == 404
        page = ask('app', '/users/42')
        assert (page.status, page.body) == (200, b'app/index.html\n')
        assert page.get('Cache-Control') == 'no-cache' and page.get('ETag')
        asset = ask('app', '/assets/a-1.js')
        assert asset.body == b'app/assets/a-1.js\n' and 'immutable' in asset.get('Cache-Control')
        assert weir.stats()['file_bytes_memory'] >= len(asset.body)
        assert ask('app', '/assets/a-2.js').status == 404
        assert ask('app', '/m.webmanifest').get('Content-Type') == 'application/manifest+json'
        assert ask('app', '/api/x').body == b'ok' and origin.requests[0].target == '/api/x'
        assert b'a%20file.txt' in ask('files', '/').body
        assert b'"a file.txt"' in ask('files', '/', 'Accept: application/json').body
        with ops_rig.Client(weir.port) as client:
            client.send_request(f'CONNECT {origin.address} HTTP/1.1', f'Host: {origin.address}')
            assert client.read_head().status == 200
            assert client.get('/through').body == b'ok'  # the origin's answer
        assert [request.target for request in origin.requests] == ['/api/x', '/through']
    finally:
        rig.close()
