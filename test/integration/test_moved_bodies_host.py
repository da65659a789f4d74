"""Bodies that move, where the machine itself matters: a GiB each way (with the release build: a
sanitizer's memory and time are not weir's), descriptors and pipes that run out, a disk that fails.
Plain connections; the same code moves bytes for records in the kernel (test_moved_bodies.py)."""
import contextlib
import fcntl
import os
import pwd
import resource
import subprocess
import sys

import pytest

import ops_rig
import tls_rig
from bodies_rig import (FIRST_BYTES, GiB, Site, check_answer, files, hashes, proxy,
                        random_file, sparse, take, zeros)
from conftest import Ended
from tls_rig import KiB, MiB, content, rig, sha

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(120))
TO_NULL = ('-o', '/dev/null', '-w', '%{http_code} %{size_download}')


# ---- a GiB


def total(got):
    return got['body_bytes_spliced'] + got['body_bytes_direct'] + got['body_bytes_buffered']


def test_a_gib_of_a_file(rig, tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    sparse(root / 'gib', GiB)
    sparse(root / 'large', 64 * MiB)
    site = Site(rig, 'plain', files(root), binary=ops_rig.RELEASE)
    site.curl('/large', *TO_NULL)
    before = site.weir.rss_kib()
    grown = site.moved()
    assert site.curl('/gib', *TO_NULL) == f'200 {GiB}'
    got = grown()
    assert got['file_bytes_sendfile'] == GiB, got
    assert got['file_bytes_copied'] == got['file_bytes_memory'] == 0, got
    assert site.weir.rss_kib() - before < 4 * KiB


@pytest.mark.parametrize('ends', ['by length', 'with the connection'])
def test_a_gib_of_a_response(rig, tmp_path, ends):
    site = Site(rig, 'plain', proxy(rig.origin(zeros(tmp_path))), binary=ops_rig.RELEASE)
    prefix, version = ('', '--http1.1') if ends == 'by length' else ('/close', '--http1.0')
    site.curl(f'{prefix}/{64 * MiB}', version, *TO_NULL)
    before = site.weir.rss_kib()
    grown = site.moved()
    assert site.curl(f'{prefix}/{GiB}', version, *TO_NULL) == f'200 {GiB}'
    got = grown()
    assert total(got) == GiB, got
    assert got['body_bytes_spliced'] >= GiB - 2 * FIRST_BYTES, got
    assert site.weir.rss_kib() - before < 4 * KiB


def test_a_gib_of_an_upload(rig, tmp_path):
    site = Site(rig, 'plain', proxy(rig.origin(zeros(tmp_path))), binary=ops_rig.RELEASE)
    options = ('--http1.1', '-H', 'Expect:', '-T')
    assert site.curl('/', *options, str(sparse(tmp_path / 'small', 64 * MiB))) == f'{64 * MiB}'
    before = site.weir.rss_kib()
    grown = site.moved()
    assert site.curl('/', *options, str(sparse(tmp_path / 'gib', GiB))) == f'{GiB}'
    got = grown()
    assert total(got) == GiB, got
    assert got['body_bytes_spliced'] >= GiB - FIRST_BYTES, got
    assert site.weir.rss_kib() - before < 4 * KiB


# ---- no pipes


def no_more_descriptors(weir):
    """It may open none from now on."""
    used = {int(name) for name in os.listdir(f'/proc/{weir.pid}/fd')}
    free = next(number for number in range(len(used) + 1) if number not in used)
    _, hard = resource.prlimit(weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (free, hard))
    return hard


def both_ways(site, client, size):
    check_answer(client.get(f'/{size}'), f'/{size}')
    answer = client.request('PUT / HTTP/1.1', 'Host: a.test', f'Content-Length: {size}',
                            body=content(size))
    assert answer.body.decode() == sha(content(size))


def test_no_descriptors_for_pipes(rig):
    """Bodies are copied then, and moved again when there are some."""
    site = Site(rig, 'plain', proxy(rig.origin(hashes)))
    with site.client() as client:
        check_answer(client.get('/10'), '/10')  # the connection to the origin is there
        grown = site.moved()
        hard = no_more_descriptors(site.weir)
        both_ways(site, client, 8 * MiB)
        got = grown()
        assert got['body_bytes_spliced'] == 0 and total(got) == 2 * (8 * MiB + 64) - 64, got
        resource.prlimit(site.weir.pid, resource.RLIMIT_NOFILE, (hard, hard))
        both_ways(site, client, 8 * MiB)
        assert grown()['body_bytes_spliced'] >= 14 * MiB


def pipe_sizes(weir):
    """What each pipe it has open can hold."""
    found = []
    folder = f'/proc/{weir.pid}/fd'
    for name in os.listdir(folder):
        if os.readlink(f'{folder}/{name}').startswith('pipe:'):
            end = os.open(f'{folder}/{name}', os.O_RDONLY | os.O_NONBLOCK)
            found.append(fcntl.fcntl(end, 1032))  # F_GETPIPE_SZ
            os.close(end)
    return found


HOG = '''
import fcntl, os, sys
kept = []
for _ in range(80):  # 64 MiB are what a user may have
    ends = os.pipe()
    kept.append(ends)
    try:
        fcntl.fcntl(ends[0], 1031, 1 << 20)  # F_SETPIPE_SZ
    except PermissionError:
        break
else:
    sys.exit('no limit')
print('full', flush=True)
sys.stdin.read()
'''


def test_no_memory_for_pipes(rig):
    """The user has as much in pipes as a user may have (pipe-user-pages-soft): new ones hold two
    pages, through which copying would be cheaper."""
    nobody = pwd.getpwnam('nobody').pw_uid
    site = Site(rig, 'plain', proxy(rig.origin(hashes)) +
                '[security]\ndrop_privileges_user = "nobody"\n')
    hog = rig.process(sys.executable, '-c', HOG, user=nobody, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE, text=True)
    assert hog.stdout.readline() == 'full\n'
    grown = site.moved()
    with site.client() as client:
        both_ways(site, client, 8 * MiB)
    got = grown()
    assert total(got) == 2 * 8 * MiB + 64, got
    assert got['body_bytes_spliced'] == 0 and pipe_sizes(site.weir) == [], got
    hog.stdin.close()
    hog.stdout.close()
    assert hog.wait(10) == 0
    with site.client() as client:
        both_ways(site, client, 8 * MiB)
    assert grown()['body_bytes_spliced'] >= 14 * MiB
    assert min(pipe_sizes(site.weir)) >= 64 * KiB


# ---- a disk that fails


class FailingDisk:
    """A small file system in a file, part of which goes away under it: what lies there cannot be
    read any more (EIO)."""

    def __init__(self, folder):
        ops_rig.need('mkfs.ext4', 'mount', 'umount')
        self.image, self.root = folder / 'image', folder / 'disk'
        self.root.mkdir()
        sparse(self.image, 96 * MiB)
        run('mkfs.ext4', '-q', '-F', '-b', '4096', '-O', '^has_journal', str(self.image))
        self.mounted = False

    @contextlib.contextmanager
    def mount(self, *options):
        run('mount', '-o', ','.join(['loop', *options]), str(self.image), str(self.root))
        try:
            yield
        finally:
            run('umount', str(self.root))

    def lose(self, path, offset):
        """The file's blocks from `offset` on are not readable any more, nor in memory."""
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            said = run('filefrag', '-b4096', '-v', path).stdout.decode()
        place = None
        for line in said.splitlines():
            words = line.replace('..', ' ').replace(':', ' ').split()
            if len(words) > 5 and words[0].isdigit() and int(words[1]) <= offset // 4096 <= int(
                    words[2]):
                place = int(words[3]) + offset // 4096 - int(words[1])
        assert place is not None, said
        os.truncate(self.image, place * 4096)


def run(*command):
    return tls_rig.run(*map(str, command),
                       env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'})


def check_unreadable(path, offset):
    with open(path, 'rb') as file, pytest.raises(OSError) as failed:
        os.pread(file.fileno(), 4096, offset)
    assert failed.value.errno == 5


@pytest.mark.parametrize('kind', ['plain', tls_rig.MODES[-1]])
@pytest.mark.parametrize('mode', ['sendfile', 'memory'])
@pytest.mark.parametrize('size,lost', [(32 * MiB, 16 * MiB), (32 * MiB, 0), (200 * KiB, 128 * KiB),
                                       (200 * KiB, 0), (2 * KiB, 0)])
def test_a_disk_that_fails(rig, tmp_path, size, lost, mode, kind):
    """What was read is sent, and does not look like all of it."""
    disk = FailingDisk(tmp_path)
    file = disk.root / 'file'
    with disk.mount():
        (disk.root / 'good').write_bytes(b'good')
        digest = random_file(file, size)
    with disk.mount('ro'):
        site = Site(rig, kind, files(disk.root, f', mode = "{mode}"'),
                    performance='file_memory_max_size = "1MiB"\nopen_file_cache_valid = "1ms"\n')
        try:
            assert site.get('/good').body == b'good'
            first = file.read_bytes()[:lost]
            disk.lose(file, lost)
            check_unreadable(file, lost)
            with site.client() as client:
                client.send_request('GET /file HTTP/1.1', 'Host: a.test')
                try:
                    head = client.read_head()
                except (Ended, OSError):
                    head = None  # nothing was sent: not even a head
                if head is not None and head.status == 200:
                    assert head.get('Content-Length') == f'{size}'
                    got = take(client, size)
                    assert got.size <= lost and got.end is not None, got
                    assert got.sha == sha(first[:got.size])
                elif head is not None:
                    assert head.status in (500, 503), head
            line = site.weir.line(path='/file')
            assert line.get('reason') == 'internal', line
            if lost > MiB:
                part = site.get('/file', f'Range: bytes=0-{MiB - 1}')
                assert part.status == 206 and part.body == first[:MiB]
            assert site.get('/good').body == b'good'
            assert digest != sha(first)
        finally:
            site.weir.close()  # it has the file open: the file system could not be unmounted
