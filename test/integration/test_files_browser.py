"""Static files and headless Chromium: a site of 200 assets, a video that is played and sought by
ranges, what a reload asks for, precompressed files, a single-page application, and how a
listing looks. What the browser made of it, what it says of its requests, and weir's access log must
agree."""
import collections
import gzip
import json
import os
import urllib.parse

import pytest

import media_rig
import tls_rig
from browser_rig import Browser
from conftest import wait_until
from ops_rig import get, need
from test_tls_browser import png
from tls_rig import Rig, config, pki, run

pytestmark = pytest.mark.seconds(tls_rig.seconds(120))

OLD = 1_600_000_000
CONFIG = '''
[[listener]]
name = "plain"
address = "127.0.0.1:0"
[performance]
open_file_cache_valid = "20ms"
file_memory_max_size = "256KiB"
[[route]]
path = "/s/"
file = "{root}"
[[route]]
path = "/m/"
file = {{path = "{root}", mode = "memory"}}
[[route]]
path = "/fresh/"
file = {{path = "{root}", cache_control = "no-cache"}}
[[route]]
path = "/kept/"
file = {{path = "{root}", cache_control = "public, max-age=31536000, immutable"}}
[[route]]
path = "/list/"
file = {{path = "{root}/odd", listing = true}}
[[route]]
path = "/app/"
file = {{path = "{root}/app", fallback = "index.html", cache_control = "no-cache"}}
[[route]]
path = "/app/assets/"
file = "{root}/app/assets"
'''
STYLES, SCRIPTS, IMAGES, FONTS = 60, 60, 60, 20
ASSETS = STYLES + SCRIPTS + IMAGES + FONTS
SECONDS, RATE = 60, 25
ODD = ['with space.txt', '100%.txt', '%41.txt', '\u00fcml\u00e4ut.txt', "it's.txt", 'dou"ble.txt',
       'hash#tag.txt', 'what?.txt', 'a+b&c=d.txt', 'semi;colon.txt', '<b>bold<b>.txt', 'co:lon.txt',
       '\u65e5\u672c.txt', 'a' * 200 + '.txt']


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    os.utime(path, (OLD, OLD))


def make_assets(root):
    """All links are relative, so that every route can serve it."""
    for n in range(STYLES):
        face = (f'@font-face {{ font-family: f{n}; src: url("../font/{n}.ttf") }}\n'
                f'#s{n} {{ font: 100px f{n} }}\n') if n < FONTS else ''
        # Of many sizes, so that what one packet, one page and one buffer hold is exceeded.
        write(root / f'css/{n}.css',
              f'{face}#s{n} {{ color: rgb({n}, 1, 2) }}\n/*{"x" * (n * n * 20)}*/')
    for n in range(SCRIPTS):
        write(root / f'js/{n}.js',
              f'(window.ran = window.ran || []).push({n});\n//{"y" * (n * 700)}')
    for n in range(IMAGES):
        write(root / f'img/{n}.png', png(10 + n, 20 + 2 * n))
    for n in range(FONTS):
        write(root / f'font/{n}.ttf', media_rig.font(200 + 30 * n))
    write(root / 'index.html', f'''<!doctype html><meta charset="utf-8"><title>assets</title>
<link rel="icon" href="data:,">
{"".join(f'<link rel="stylesheet" href="css/{n}.css">' for n in range(STYLES))}
{"".join(f'<script src="js/{n}.js"></script>' for n in range(SCRIPTS))}
{"".join(f'<div><span id="s{n}">A</span></div>' for n in range(STYLES))}
{"".join(f'<img id="i{n}" src="img/{n}.png">' for n in range(IMAGES))}
''')


LOADED = f'''
(async () => {{
  await document.fonts.ready;
  const all = (count, look) => Array.from({{length: count}}, (_, n) => look(n));
  return {{
    title: document.title, ran: window.ran,
    colours: all({STYLES}, (n) => getComputedStyle(document.getElementById('s' + n)).color),
    widths: all({FONTS}, (n) => Math.round(
        document.getElementById('s' + n).getBoundingClientRect().width)),
    images: all({IMAGES}, (n) => document.getElementById('i' + n))
        .map((image) => [image.naturalWidth, image.naturalHeight]),
  }};
}})()'''
EXPECTED = {'title': 'assets', 'ran': list(range(SCRIPTS)),
            'colours': [f'rgb({n}, 1, 2)' for n in range(STYLES)],
            'widths': [20 + 3 * n for n in range(FONTS)],
            'images': [[10 + n, 20 + 2 * n] for n in range(IMAGES)]}
PATHS = sorted(['', *(f'css/{n}.css' for n in range(STYLES)),
                *(f'js/{n}.js' for n in range(SCRIPTS)),
                *(f'img/{n}.png' for n in range(IMAGES)), *(f'font/{n}.ttf' for n in range(FONTS))])

APP = '''<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="view"></div>
<script src="/app/assets/app.js"></script>'''
APP_SCRIPT = '''
const show = () => { document.getElementById('view').textContent = 'at ' + location.pathname; };
const go = (path) => { history.pushState({}, '', path); show(); };
show();
'''
TEXT = {'br': 'as brotli \u00fc\n' * 5000, 'zst': 'as zstd \u00fc\n' * 5000,
        'gz': 'as gzip \u00fc\n' * 5000}
TOOLS = {'br': ('brotli', '-q', '5', '-c'), 'zst': ('zstd', '-q', '-c'), 'gz': ('gzip', '-n', '-c')}


def make_others(root):
    write(root / 'video.mp4', media_rig.video(SECONDS, RATE))
    write(root / 'video.html', '<!doctype html><link rel="icon" href="data:,">'
                               '<video id="v" src="video.mp4" muted preload="metadata"></video>')
    for name in ODD:
        write(root / 'odd' / name, f'I am {name}')
    write(root / 'odd/sub/inner.txt', 'I am inner')
    write(root / 'app/index.html', APP)
    write(root / 'app/assets/app.js', APP_SCRIPT)
    need('brotli', 'zstd', 'gzip')
    for suffix, text in TEXT.items():
        name = root / f'zipped/{suffix}.txt'
        write(name, text)
        write(name.with_name(f'{suffix}.txt.{suffix}'), run(*TOOLS[suffix], str(name)).stdout)
    # That the original is not sent shows: it says something else.
    page = '<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="s.css">'
    write(root / 'zipped/index.html', f'{page}<p id="p">original</p>')
    write(root / 'zipped/index.html.gz', gzip.compress(f'{page}<p id="p">gzip</p>'.encode()))
    write(root / 'zipped/s.css', '#p { color: rgb(1, 1, 1) }')
    write(root / 'zipped/s.css.br', run('brotli', '-c', data=b'#p { color: rgb(2, 2, 2) }').stdout)


class Site:
    def __init__(self, weir, root):
        self.weir, self.root = weir, root

    def url(self, path, kind='plain'):
        if kind == 'tls':
            return f'https://localhost:{self.weir.port_of("main")}{path}'
        return f'http://localhost:{self.weir.port_of("plain")}{path}'

    def since(self):
        """A mark in the access log, for lines()."""
        return len(self.weir.access())

    def lines(self, count, since, prefix):
        """At least `count` new lines of paths that begin so."""
        def found():
            lines = [line for line in self.weir.access()[since:] if line['path'].startswith(prefix)]
            return lines if len(lines) >= count else None
        return wait_until(found, tls_rig.IO, f'{count} lines of {prefix}')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browser')
    root = folder / 'root'
    make_assets(root)
    make_others(root)
    rig = Rig(folder)
    try:
        yield Site(rig.weir(config(CONFIG.format(root=root))), root)
    finally:
        rig.close()


@pytest.fixture
def browser():
    with Browser(trusted=pki().ec) as made:
        yield made


KINDS = pytest.mark.parametrize('kind', ['plain', 'tls'])


def nothing_failed(page):
    assert page.seen('Network.loadingFailed') == []


# ---- 200 assets


@KINDS
@pytest.mark.parametrize('prefix', ['/s/', '/m/'])
def test_a_site_of_200_assets(site, browser, prefix, kind):
    since = site.since()
    page = browser.page().open(site.url(prefix, kind))
    assert page.run(LOADED) == EXPECTED
    nothing_failed(page)
    lines = site.lines(ASSETS + 1, since, prefix)
    assert sorted(line['path'] for line in lines) == sorted(prefix + path for path in PATHS)
    assert len({line['path'] for line in lines}) == ASSETS + 1
    for line in lines:
        size = (site.root / (line['path'][len(prefix):] or 'index.html')).stat().st_size
        assert line['status'] == 200 and size < line['bytes_out'] < size + 1000, line
        assert line.get('tls') == ('TLSv1.3' if kind == 'tls' else None), line
    assert len({line['client_port'] for line in lines}) <= 6, 'connections are not used again'


@KINDS
def test_what_a_reload_asks_for(site, browser, kind):
    """With no-cache everything, by its ETag; what has not changed is not sent again."""
    since = site.since()
    page = browser.page().open(site.url('/fresh/', kind))
    lines = site.lines(ASSETS + 1, since, '/fresh/')
    assert {line['status'] for line in lines} == {200}
    since = site.since()
    assert page.reload().run(LOADED) == EXPECTED
    lines = site.lines(ASSETS + 1, since, '/fresh/')
    assert sorted(line['path'] for line in lines) == ['/fresh/' + path for path in PATHS]
    assert {line['status'] for line in lines} == {304}
    assert sum(line['bytes_out'] for line in lines) < 400 * len(lines)
    nothing_failed(page)


def test_a_reload_finds_the_file_that_changed(site, browser):
    page = browser.page().open(site.url('/fresh/'))
    style = site.root / 'css/7.css'
    before = style.read_bytes()
    try:
        style.write_text('#s7 { color: rgb(7, 77, 177); font-family: f7; font-size: 100px }'
                         '@font-face { font-family: f7; src: url("../font/7.ttf") }')
        port = site.weir.port_of('plain')
        wait_until(lambda: b'177' in get(port, '/fresh/css/7.css').body, what='the new file')
        since = site.since()
        colours = page.reload().run(LOADED)['colours']
        assert colours == [*EXPECTED['colours'][:7], 'rgb(7, 77, 177)', *EXPECTED['colours'][8:]]
        lines = site.lines(ASSETS + 1, since, '/fresh/')
        statuses = {line['path']: line['status'] for line in lines}
        assert statuses.pop('/fresh/css/7.css') == 200
        assert set(statuses.values()) == {304} and len(statuses) == ASSETS
    finally:
        write(style, before)


def test_what_is_kept_is_not_asked_for(site, browser):
    since = site.since()
    page = browser.page().open(site.url('/kept/'))
    site.lines(ASSETS + 1, since, '/kept/')
    since = site.since()
    assert page.reload().run(LOADED) == EXPECTED
    lines = site.lines(1, since, '/kept/')
    assert [(line['path'], line['status']) for line in lines] == [('/kept/', 304)]


# ---- a video

# Seeks, waits for the picture, and reads its number from its pixels.
SEEK = '''
(async (time) => {
  const video = document.getElementById('v');
  const sought = new Promise((done, failed) => {
    video.onseeked = done;
    video.onerror = () => failed(new Error(video.error.message));
  });
  video.currentTime = time;
  await sought;
  const drawn = document.createElement('canvas').getContext('2d');
  drawn.drawImage(video, 0, 0);
  let number = 0;
  for (let bit = 0; bit < BITS; ++bit) {
    const pixel = drawn.getImageData(bit % ROW * 16 + 8, Math.floor(bit / ROW) * 16 + 8, 1, 1);
    if (pixel.data[0] > 128) number += 1 << bit;
  }
  return [video.currentTime, number];
})(TIME)'''
SEEK = SEEK.replace('BITS', str(media_rig.CODE_BITS)).replace('ROW', str(media_rig.MACROBLOCKS))
PLAY = '''
new Promise((done, failed) => {
  const video = document.getElementById('v');
  video.onerror = () => failed(new Error(video.error.message));
  video.ontimeupdate = () => { if (WHEN) { video.pause(); done(video.currentTime); } };
  video.onended = () => done(video.currentTime);
  video.play().catch(failed);
})'''


def ranges_asked(page):
    """(first byte asked for, status, Content-Range) of the requests for the video."""
    video = {event['requestId'] for event in page.seen('Network.requestWillBeSent')
             if event['request']['url'].endswith('video.mp4')}
    asked = [(event['requestId'], fold(event['headers']).get('range'))
             for event in page.seen('Network.requestWillBeSentExtraInfo')
             if event['requestId'] in video]
    answers = collections.defaultdict(list)
    for event in page.seen('Network.responseReceivedExtraInfo'):
        answers[event['requestId']].append(
            (event['statusCode'], fold(event['headers']).get('content-range')))
    return [(wanted, *answer) for number, wanted in asked for answer in answers[number]]


def fold(fields):
    return {name.lower(): value for name, value in fields.items()}


@KINDS
def test_a_video_is_played_and_sought_by_ranges(site, browser, kind):
    since = site.since()
    page = browser.page().open(site.url('/s/video.html', kind))
    assert 1 <= page.run(PLAY.replace('WHEN', 'video.currentTime > 1')) < SECONDS / 2
    duration = page.run('document.getElementById("v").duration')
    assert duration == SECONDS
    for number in [50 * RATE, 5 * RATE + 3, 30 * RATE + 11, SECONDS * RATE - 2]:
        time = (number + 0.5) / RATE
        at, shown = page.run(SEEK.replace('TIME', str(time)))
        assert abs(at - time) < 1e-3 and shown == number, (at, shown)
    assert page.run(PLAY.replace('WHEN', 'false')) == SECONDS  # to its end

    size = (site.root / 'video.mp4').stat().st_size
    asked = ranges_asked(page)
    starts = []
    for wanted, status, content_range in asked:
        assert wanted and wanted.startswith('bytes=') and status == 206, asked
        first = int(wanted[6:].split('-')[0])
        last = int(wanted[6:].split('-')[1] or size - 1)
        assert content_range == f'bytes {first}-{last}/{size}', asked
        starts.append(first)
    assert starts[0] == 0
    # It did not read on from the beginning until it came there.
    assert any(abs(start - size * 50 / SECONDS) < size / SECONDS for start in starts), starts
    lines = site.lines(len(asked), since, '/s/video.mp4')
    assert {line['status'] for line in lines} == {206}
    assert sum(line['bytes_out'] for line in lines) > size / 10


# ---- precompressed files, an application


def test_precompressed_files(site, browser):
    page = browser.page().open(site.url('/s/zipped/', 'tls'))
    assert page.run('document.getElementById("p").textContent') == 'gzip'
    assert page.run('getComputedStyle(document.getElementById("p")).color') == 'rgb(2, 2, 2)'
    for suffix, coding in [('br', 'br'), ('zst', 'zstd'), ('gz', 'gzip')]:
        for prefix in ['/s/', '/m/']:
            found = page.run(f'''fetch('{prefix}zipped/{suffix}.txt').then(async (answer) => [
                answer.headers.get('Content-Encoding'), answer.headers.get('Vary'),
                answer.headers.get('Content-Type'), await answer.text()])''')
            assert found == [coding, 'Accept-Encoding', 'text/plain; charset=utf-8', TEXT[suffix]]
    # For a part of a file it accepts no coding, and gets a part of the original.
    found = page.run('''fetch('/s/zipped/br.txt', {headers: {Range: 'bytes=0-8'}})
        .then(async (answer) => [answer.status, await answer.text()])''')
    assert found == [206, 'as brotli']
    nothing_failed(page)


def test_a_single_page_application(site, browser):
    since = site.since()
    page = browser.page().open(site.url('/app/users/42'))
    view = 'document.getElementById("view").textContent'
    assert page.run(view) == 'at /app/users/42'
    page.run('go("/app/deep/er/settings")')
    assert page.reload().run(view) == 'at /app/deep/er/settings'
    # A script that is gone is an error, not a page: assets have a route without fallback.
    assert page.run('fetch("/app/assets/none.js").then((answer) => answer.status)') == 404
    found = [(line['path'], line['status']) for line in site.lines(4, since, '/app/')]
    assert ('/app/users/42', 200) in found and ('/app/assets/none.js', 404) in found
    assert [status for path, status in found if path == '/app/deep/er/settings'] == [200]


# ---- a listing


def luminance(colour):
    channels = [int(part) / 255 for part in colour[colour.index('(') + 1:-1].split(',')[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


COLOURS = '''(() => {
  const of = (selector, what) => getComputedStyle(document.querySelector(selector))[what];
  return {page: of('body', 'backgroundColor'), table: of('table', 'backgroundColor'),
          texts: {heading: [of('h1', 'color'), of('body', 'backgroundColor')],
                  total: [of('p', 'color'), of('body', 'backgroundColor')],
                  column: [of('th a', 'color'), of('table', 'backgroundColor')],
                  link: [of('td a', 'color'), of('table', 'backgroundColor')],
                  size: [of('td.s', 'color'), of('table', 'backgroundColor')]}};
})()'''


def test_how_a_listing_looks(site, browser):
    page = browser.page()
    page.call('Log.enable')
    page.call('Runtime.enable')
    seen = {}
    for scheme in ['light', 'dark']:
        page.colours(scheme)
        found = page.open(site.url('/list/')).run(COLOURS)
        for what, (ink, ground) in found['texts'].items():
            assert contrast(ink, ground) >= 4.5, (scheme, what, ink, ground)
        seen[scheme] = luminance(found['page'])
        assert page.screenshot().startswith(b'\x89PNG')
    assert seen['light'] > 0.8 and seen['dark'] < 0.05, seen
    # Nothing was refused by the page's own policy, and nothing failed.
    assert page.seen('Log.entryAdded') == [] and page.seen('Runtime.exceptionThrown') == []
    icon = page.run('document.querySelector("td svg").getBoundingClientRect().width')
    assert 10 < icon < 30
    narrow = browser.page(360, 640).open(site.url('/list/'))
    assert narrow.run('document.documentElement.scrollWidth') <= 360


def test_the_links_of_a_listing(site, browser):
    page = browser.page().open(site.url('/list/'))
    links = page.run('Array.from(document.querySelectorAll("td a"), '
                     '(link) => [link.textContent, link.href])')
    assert {text for text, _ in links} == {*ODD, 'sub/'}
    for text, link in links:
        if text in ODD:
            assert urllib.parse.urlsplit(link).query == '' and '#' not in link
            page.open(link)
            assert page.run('document.body.textContent') == f'I am {text}'
    # Into a directory, on to its file, and back up by the heading; then the other order.
    page.open(dict(links)['sub/'])
    inner = page.run('Array.from(document.querySelectorAll("a"), (link) => link.href)')
    assert page.run('document.title') == 'Index of /list/sub/'
    assert site.url('/list/') in inner and site.url('/list/sub/inner.txt') in inner
    page.open(site.url('/list/'))
    names = 'Array.from(document.querySelectorAll("td bdi"), (name) => name.textContent)'
    rising = page.run(names)
    page.open(page.run('document.querySelector("th a").href'))
    falling = page.run(names)
    assert rising[0] == falling[0] == 'sub/' and rising[1:] == falling[:0:-1], json.dumps(falling)


def test_a_listing_for_a_script(site, browser):
    # On another page: a listing's own policy lets no script fetch anything.
    page = browser.page().open(site.url('/s/video.html'))
    found = page.run('''fetch('/list/', {headers: {Accept: 'application/json'}})
        .then((answer) => answer.json())
        .then((entries) => Promise.all(entries.filter((entry) => entry.type === 'file')
            .map((entry) => fetch('/list/' + entry.href).then(async (answer) => [
                entry.name, entry.size, (await answer.arrayBuffer()).byteLength]))))''')
    assert sorted(name for name, *_ in found) == sorted(ODD)
    assert all(listed == size for _, listed, size in found), found
