"""What the tests of TLS (test_tls_*.py) need beyond conftest.py and ops_rig.py: a certificate
authority, clients whose every byte a test can see, origins that speak TLS, and the proof of who did
the records.

The same files run on a kernel with TLS and on one without (and in an emulated machine that is 10 to
50 times slower: WEIR_TEST_SLOWNESS stretches every limit). records_expected() says which it is."""
import atexit
import collections
import contextlib
import functools
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest

import conftest
import ops_rig
from conftest import Ended, Stream, wait_until

SLOWNESS = float(os.environ.get('WEIR_TEST_SLOWNESS', '1'))


def seconds(number):
    """A time limit, on this machine."""
    return int(number * SLOWNESS + 0.999)


IO = seconds(15)
KiB, MiB = 1024, 1024 * 1024
LIMIT = pytest.mark.seconds(seconds(60))  # `pytestmark` of every file


# ---- the kernel


@functools.cache
def kernel_tls():
    """Whether the running kernel does TLS, found by asking it."""
    with socket.create_server(('127.0.0.1', 0)) as listening:
        with socket.create_connection(listening.getsockname()) as one, listening.accept()[0]:
            try:
                one.setsockopt(socket.IPPROTO_TCP, 31, b'tls')  # TCP_ULP
            except OSError:
                return False
    return os.path.exists('/proc/net/tls_stat')


def kernel_release():
    return tuple(int(part) for part in re.match(r'(\d+)\.(\d+)', os.uname().release).groups())


def kernel_rekeys():
    """Whether it takes new keys on a live socket."""
    return kernel_tls() and kernel_release() >= (6, 14)


def tls_stat():
    """/proc/net/tls_stat; empty without kernel TLS."""
    try:
        lines = pathlib.Path('/proc/net/tls_stat').read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: int(value) for name, value in (line.split() for line in lines)}


# Parameters for tests where it matters who does the records. Without kernel TLS both mean the same.
MODES = ['kernel', 'userspace'] if kernel_tls() else ['userspace']


def records_expected(mode='kernel'):
    return 'kernel' if kernel_tls() and mode == 'kernel' else 'userspace'


def ktls(mode):
    """The setting for a mode. Without kernel TLS it is the default, which must then just work."""
    return 'ktls_enabled = false\n' if mode == 'userspace' and kernel_tls() else ''


# ---- certificates


def run(*command, data=None, check=True, limit=30, **more):
    done = subprocess.run(command, input=data, capture_output=True, timeout=seconds(limit), **more)
    assert not check or done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done


class Pair:
    """A certificate's file (with the chain that goes with it) and its key's."""

    def __init__(self, cert, key):
        self.cert, self.key = str(cert), str(key)

    def toml(self):
        return f'cert_path = "{self.cert}"\nkey_path = "{self.key}"\n'

    def der(self):
        """Of the certificate itself, without its chain."""
        text = pathlib.Path(self.cert).read_text()
        end = '-----END CERTIFICATE-----\n'
        return ssl.PEM_cert_to_DER_cert(text[:text.index(end) + len(end)])

    def sha256(self):
        return hashlib.sha256(self.der()).hexdigest()

    def subject(self, what='subject'):
        """As RFC 2253 writes it."""
        done = run('openssl', 'x509', '-in', self.cert, '-noout', f'-{what}', '-nameopt', 'RFC2253')
        return done.stdout.decode().strip().split('=', 1)[1]


class Authority:
    """A CA in a folder of its own, by the openssl command. Its names are `names`-unique."""

    KEYS = {'ec': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
            'rsa': ['-newkey', 'rsa:2048']}

    def __init__(self, folder, name='root', parent=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.parent = parent
        self.count = 0
        self.index = []  # as `openssl ca` and `openssl ocsp` keep it
        self.config = self.folder / 'openssl.cnf'
        self.config.write_text(
            '[req]\ndistinguished_name = dn\nprompt = no\n[dn]\n[ca]\ndefault_ca = own\n[own]\n'
            f'database = {self.folder}/index.txt\nnew_certs_dir = {self.folder}\n'
            f'serial = {self.folder}/serial\ndefault_md = sha256\npolicy = any\nunique_subject = no\n'
            'email_in_dn = no\nrand_serial = yes\n[any]\ncommonName = optional\n'
            '[leaf]\nbasicConstraints = critical,CA:FALSE\n')
        self.cert, self.key = str(self.folder / 'ca.crt'), str(self.folder / 'ca.key')
        signer = ['-CA', parent.cert, '-CAkey', parent.key] if parent else []
        self._make(self.cert, self.key, f'/O=weir/CN={name}', 'ec', [
            'basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign,'
            'digitalSignature'], signer)

    def _make(self, cert, key, subject, kind, extensions, signer, days=30):
        self.count += 1
        run('openssl', 'req', '-config', str(self.config), '-x509', *self.KEYS[kind], '-nodes',
            '-keyout', str(key), '-out', str(cert), '-subj', subject, '-days', str(days),
            '-set_serial', str(1000 + self.count), *signer,
            *(word for extension in extensions for word in ('-addext', extension)))

    def chain(self):
        """The PEM certificates between one issued here and the root."""
        if self.parent is None:
            return ''
        return pathlib.Path(self.cert).read_text() + self.parent.chain()

    def issue(self, name, *hosts, kind='ec', usage='serverAuth', subject=None, days=30, more=()):
        """A certificate for these hosts (default: the name)."""
        cert, key = self.folder / f'{name}.crt', self.folder / f'{name}.key'
        alternatives = ','.join(host if ':' in host else f'DNS:{host}' for host in hosts or [name])
        self._make(cert, key, subject or f'/CN={name}', kind,
                   ['basicConstraints=critical,CA:FALSE', f'extendedKeyUsage={usage}',
                    f'subjectAltName={alternatives}', *more],
                   ['-CA', self.cert, '-CAkey', self.key], days)
        self.index.append([f'{1000 + self.count:04X}', f'/CN={name}', 'V'])
        cert.write_text(cert.read_text() + self.chain())
        return Pair(cert, key)

    def issue_dated(self, name, start, end):
        """With other times than now, as 20200101000000Z."""
        (self.folder / 'index.txt').write_text('')
        request = self.folder / f'{name}.csr'
        pair = Pair(self.folder / f'{name}.crt', self.folder / f'{name}.key')
        run('openssl', 'req', '-config', str(self.config), '-new', *self.KEYS['ec'], '-nodes',
            '-keyout', pair.key, '-out', str(request), '-subj', f'/CN={name}')
        run('openssl', 'ca', '-config', str(self.config), '-batch', '-notext', '-in', str(request),
            '-out', pair.cert, '-cert', self.cert, '-keyfile', self.key, '-startdate', start,
            '-enddate', end, '-extensions', 'leaf')
        return pair

    def _write_index(self):
        lines = [f'{state}\t350101000000Z\t{"240101000000Z" if state == "R" else ""}\t{serial}\t'
                 f'unknown\t{subject}\n' for serial, subject, state in self.index]
        (self.folder / 'index.txt').write_text(''.join(lines))

    def revoke(self, pair):
        name = pathlib.Path(pair.cert).stem
        for entry in self.index:
            if entry[1] == f'/CN={name}':
                entry[2] = 'R'

    def crl(self, path):
        """Writes the list of what was revoked."""
        self._write_index()
        run('openssl', 'ca', '-config', str(self.config), '-gencrl', '-crldays', '10', '-cert',
            self.cert, '-keyfile', self.key, '-out', str(path))
        return str(path)

    def ocsp(self, pair, path):
        """Writes an OCSP response about a certificate."""
        self._write_index()
        leaf = self.folder / 'asked.crt'
        leaf.write_text(ssl.DER_cert_to_PEM_cert(pair.der()))
        run('openssl', 'ocsp', '-index', str(self.folder / 'index.txt'), '-CA', self.cert,
            '-rsigner', self.cert, '-rkey', self.key, '-issuer', self.cert, '-cert', str(leaf),
            '-respout', str(path), '-ndays', '5')
        return str(path)


class Pki:
    """What most tests need; made once for all of them."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='weir-tls-'))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.root = Authority(self.folder / 'root')
        self.ca_file = self.root.cert
        self.stranger = Authority(self.folder / 'stranger', 'somebody else')
        # For localhost too: not every client names the host it wants.
        self.ec = self.root.issue('ec.test', 'ec.test', 'a.test', 'localhost', 'IP:127.0.0.1')
        self.rsa = self.root.issue('rsa.test', 'rsa.test', kind='rsa')


@functools.cache
def pki():
    return Pki()


# ---- weir


def config(routes='', tls='', server='', listener='', more='', certificate=None):
    """One listener with TLS, one thread, quick logs."""
    certificate = pki().ec.toml() if certificate is None else certificate
    threads = '' if 'threads' in server else 'threads = 1\n'
    return (f'[[listener]]\nname = "main"\naddress = "127.0.0.1:0"\ntls = true\n{listener}\n'
            f'[server]\n{threads}{server}\n[logging]\nflush_interval_ms = 10\n'
            f'[tls]\n{certificate}{tls}\n{more}\n'
            f'{routes or ops_rig.default_respond()}\n')


def proxy_to(origin, upstream=''):
    """For config(): everything goes to this origin."""
    return (f'[upstream.app]\nservers = ["{origin.address}"]\n{upstream}\n'
            '[[route]]\nproxy = "app"\n')


class Weir(ops_rig.Weir):
    """With the limits of this machine, and what it says about TLS."""

    def wait_log(self, pattern, limit=10, since=0):
        return super().wait_log(pattern, limit * max(1, SLOWNESS), since)

    def wait(self, limit=45):
        return super().wait(limit * max(1, SLOWNESS))

    def lines(self, count=1, **fields):
        """The access log's lines with these fields; waits for `count`."""
        def fit():
            found = [line for line in self.access()
                     if all(line.get(key) == value for key, value in fields.items())]
            return found if len(found) >= count else None
        try:
            return wait_until(fit, IO, f'{count} access lines with {fields}')
        except AssertionError as error:
            raise AssertionError(f'{error}\n{self.access()[-5:]}\n{self.log()[-3000:]}') from None

    def line(self, **fields):
        """The only such line."""
        found = self.lines(1, **fields)
        assert len(found) == 1, found
        return found[0]

    def line_of(self, client):
        """The last line of a connection."""
        return self.lines(1, client_port=client.own_port)[-1]

    def tls_stats(self):
        """The TLS counters (SIGUSR2) summed over the cores: {'clients.full': 3, 'origins.full': 1,
        'clients.failures.version': 2, 'clients.records.kernel': 3, ...}."""
        since = len(self.log())
        self.tell(signal.SIGUSR2)
        cores = int(re.search(r'ready cores=(\d+)', self.log()).group(1))
        lines = wait_until(
            lambda: (found := re.findall(r'info stats (tls\w*) of_core=\d+ (.*)\n',
                                         self.log()[since:])) and len(found) == 2 * cores and found,
            IO, 'the TLS counters in the log')
        sums = collections.Counter()
        for who, rest in lines:
            side = {'tls': 'clients', 'tls_upstreams': 'origins'}[who]
            for key, value in re.findall(r'(\w+)=(\d+)(?= |$)', rest):
                sums[f'{side}.{key}'] += int(value)
            for group, values in re.findall(r'(failures|records)="?([\w:,]+)', rest):
                for name, value in re.findall(r'(\w+):(\d+)', values):
                    sums[f'{side}.{group}.{name}'] += int(value)
        return sums

    def wait_stat(self, key, value):
        """Waits until a counter has reached a value; then it must be exactly that."""
        got = wait_until(lambda: (stats := self.tls_stats())[key] >= value and stats, IO,
                         f'{key} = {value}')
        assert got[key] == value, got
        return got

    def rss(self):
        return self.rss_kib() * 1024

    def cpu_seconds(self):
        """Processor time so far."""
        fields = pathlib.Path(f'/proc/{self.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class Rig(ops_rig.Rig):
    def __init__(self, folder):
        super().__init__(folder)
        self.others = []

    def weir(self, text, **more):
        name = more.pop('name', f'weir{len(self.weirs)}' if self.weirs else 'weir')
        self.weirs.append(Weir(self.folder, text, name=name, **more))
        return self.weirs[-1]

    def tls_origin(self, script=None, **more):
        self.origins.append(TlsOrigin(script or conftest.respond(), **more))
        return self.origins[-1]

    def process(self, *command, **more):
        """Any other program, ended with the test."""
        self.others.append(subprocess.Popen(command, **more))
        return self.others[-1]

    def refused(self, text, name='refused'):
        """Starts a weir that must not start; what it says."""
        file = self.folder / f'{name}.toml'
        file.write_text(text)
        done = run(conftest.WEIR, 'run', '-c', str(file), check=False)
        said = done.stderr.decode(errors='replace')
        assert done.returncode not in (0, -11, -6), (done.returncode, said)
        assert not ops_rig.BAD_SIGNS.search(said), said
        assert ' ready ' not in said, said
        return said

    def close(self):
        for process in self.others:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        super().close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        made.close()


class Served:
    """A weir with TLS before an origin that answers everything(), in one of MODES."""

    def __init__(self, weir, mode):
        self.weir, self.mode = weir, mode
        self.port = weir.port_of('main')
        self.expected = records_expected(mode)

    def client(self, **more):
        return TlsClient(self.port, **more)

    def check(self, client, version=None):
        """The access log says that the right one did this connection's records; gives the line."""
        line = self.weir.line_of(client)
        assert line['tls_records'] == self.expected, line
        assert ('tls_why' in line) == (self.expected == 'userspace'), line
        assert version is None or line['tls'] == f'TLSv{version}', line
        return line

    @contextlib.contextmanager
    def proof(self, connections=1, errors=0):
        """The kernel's own counters: as many connections as these were handed over, both ways."""
        before = tls_stat()
        yield
        if not before:
            return
        wanted = connections if self.expected == 'kernel' else 0

        def grown():
            after = tls_stat()
            return {name: after[name] - before[name] for name in ('TlsTxSw', 'TlsRxSw',
                                                                 'TlsDecryptError')}
        wait_until(lambda: grown()['TlsTxSw'] >= wanted, IO, f'{wanted} connections in the kernel')
        assert grown() == {'TlsTxSw': wanted, 'TlsRxSw': wanted,
                           'TlsDecryptError': errors if self.expected == 'kernel' else 0}


CERTIFICATES = '''
[[tls.certificates]]
hostname = "rsa.test"
cert_path = "{rsa.cert}"
key_path = "{rsa.key}"
'''


def serve(rig, mode, tls='', server='', more=''):
    """A weir as Served has it."""
    origin = rig.origin(everything)
    weir = rig.weir(config(proxy_to(origin), ktls(mode) + tls, server,
                           more=CERTIFICATES.format(rsa=pki().rsa) + more))
    return Served(weir, mode)


@pytest.fixture(scope='module', params=MODES)
def served(request, tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp('served'))
    try:
        yield serve(made, request.param, 'handshake_timeout = "60s"\n')
    finally:
        made.close()


# ---- clients


def client_context(version=None, ciphers=None, certificate=None, alpn=None, verify=True):
    """Of a client that trusts our root. Version: '1.2' or '1.3', both by default."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki().ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if version:
        only = {'1.2': ssl.TLSVersion.TLSv1_2, '1.3': ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = only
    if ciphers:
        context.set_ciphers(ciphers)
    if certificate:
        context.load_cert_chain(certificate.cert, certificate.key)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def connect(port, timeout=IO):
    raw = socket.create_connection(('127.0.0.1', port), timeout)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


class TlsClient(conftest.Client):
    """conftest.Client over TLS. The end of the stream is an end only with close_notify: without it
    reading raises ssl.SSLEOFError."""

    def __init__(self, port, name='a.test', context=None, session=None, timeout=IO):
        raw = connect(port, timeout)
        self.own_port = raw.getsockname()[1]
        try:
            tls = (context or client_context()).wrap_socket(
                raw, server_hostname=name, suppress_ragged_eofs=False, session=session)
        except BaseException:
            raw.close()
            raise
        Stream.__init__(self, tls)

    def certificate(self):
        """Of the server, DER."""
        return self.sock.getpeercert(True)

    def finish(self):
        """Ends it in order: our close_notify, and the server's in answer."""
        self.sock.unwrap().close()


class ByteClient(conftest.Client):
    """A client whose ciphertext the test handles: handshake() keeps back what it would send last."""

    def __init__(self, port, name='a.test', context=None, session=None):
        sock = connect(port)
        self.own_port = sock.getsockname()[1]
        Stream.__init__(self, sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname=name, session=session)

    def step(self):
        """One step of the handshake: whether it is done, and what has to be sent."""
        try:
            self.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        return done, self.outgoing.read()

    def receive(self):
        data = self.sock.recv(65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def handshake(self, send=None):
        """All of it but the sending of the last flight, which is given back."""
        send = send or self.sock.sendall
        while True:
            done, data = self.step()
            if done:
                return data
            send(data)
            self.receive()

    def establish(self):
        self.sock.sendall(self.handshake())
        return self

    def encrypt(self, data):
        self.tls.write(data)
        return self.outgoing.read()

    def send(self, data):
        self.sock.sendall(self.encrypt(data))
        return self

    def send_raw(self, data):
        self.sock.sendall(data)
        return self

    def fill(self):
        while True:
            try:
                data = self.tls.read(262144)
            except ssl.SSLWantReadError:
                try:
                    self.receive()
                except ConnectionResetError:
                    raise Ended(self.buffer, reset=True) from None
                continue
            except ssl.SSLZeroReturnError:  # both sides have ended
                return False
            self.buffer += data
            return bool(data)

    def goodbye(self):
        """Our close_notify, ready to be sent."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()


def request_bytes(target='/', *fields, method='GET', body=b''):
    lines = [f'{method} {target} HTTP/1.1', 'Host: a.test', *fields]
    if body:
        lines.append(f'Content-Length: {len(body)}')
    return ('\r\n'.join(lines) + '\r\n\r\n').encode() + body


def one_by_one(sock, data):
    """Every byte in a segment of its own."""
    for at in range(len(data)):
        sock.sendall(data[at:at + 1])


def records_in(data):
    """(type, length) of the records in ciphertext, and what is left over."""
    found = []
    while len(data) >= 5 and len(data) >= 5 + (size := int.from_bytes(data[3:5], 'big')):
        found.append((data[0], size))
        data = data[5 + size:]
    return found, data


ALERTS = {0: 'close_notify', 10: 'unexpected_message', 20: 'bad_record_mac', 22: 'record_overflow',
          40: 'handshake_failure', 42: 'bad_certificate', 47: 'illegal_parameter',
          50: 'decode_error', 70: 'protocol_version', 80: 'internal_error',
          100: 'no_renegotiation', 112: 'unrecognized_name', 116: 'certificate_required',
          120: 'no_application_protocol'}


class SClient:
    """`openssl s_client`, spoken to. `said` is its standard output and standard error."""

    def __init__(self, port, *options, name='a.test'):
        self.said = b''
        self.process = subprocess.Popen(
            ['openssl', 's_client', '-connect', f'127.0.0.1:{port}', '-servername', name, '-CAfile',
             pki().ca_file, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while data := self.process.stdout.read(65536):
            self.said += data

    def say(self, data):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)
        return self

    def wait_for(self, pattern, count=1, since=0):
        pattern = pattern.encode() if isinstance(pattern, str) else pattern
        try:
            wait_until(lambda: len(re.findall(pattern, self.said[since:])) >= count
                       or self.process.poll() is not None, IO, f'{pattern} from s_client')
            if len(re.findall(pattern, self.said[since:])) < count:
                self.thread.join(IO)
            assert len(re.findall(pattern, self.said[since:])) >= count, 's_client ended'
        except AssertionError as error:
            raise AssertionError(f'{error}\n{self.said[-3000:]}') from None
        return self

    def connected(self):
        return self.wait_for('Verify return code: 0')

    def get(self, target):
        """A request, and its answer's head."""
        since = len(self.said)
        self.say(request_bytes(target))
        self.wait_for(rb'HTTP/1\.1 \d+', since=since)
        return self

    def wait(self):
        """Its exit status."""
        status = self.process.wait(IO)
        self.thread.join(IO)
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.thread.join(IO)
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def s_client(port, *options, name='a.test', data=b''):
    """One run of s_client, that sends `data` and ends at once if that is empty, else when weir
    does; all it said."""
    with SClient(port, *options, *(['-ign_eof'] if data else []), name=name) as client:
        client.say(data)
        client.process.stdin.close()
        client.wait()
        client.process.stdin = open(os.devnull, 'wb')
        return client.said.decode(errors='replace')


def curl(port, *options, name='a.test', target='/'):
    """Runs curl; its standard output."""
    done = run('curl', '--silent', '--show-error', '--http1.1', '--cacert', pki().ca_file,
               '--resolve', f'{name}:{port}:127.0.0.1', *options, f'https://{name}:{port}{target}')
    return done.stdout


def wait_certificate(port, pair, name='a.test'):
    """Waits until new connections get this certificate."""
    def got():
        with TlsClient(port, name, client_context(verify=False)) as client:
            return client.certificate() == pair.der()
    wait_until(got, seconds(20), 'the new certificate')


# ---- origins


@functools.lru_cache(16)
def content(size):
    return random.Random(size).randbytes(size)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def chunks_of(data, size=7001):
    pieces = [data[at:at + size] for at in range(0, len(data), size)]
    return b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in pieces) + b'0\r\n\r\n'


def everything(connection):
    """A script for origins, by the path: /echo, /hash (of the body), /size/N, /chunked/N,
    /close/N (its end is the connection's), /truncated/N (no end at all, with TLS), else "ok"."""
    while True:
        request = connection.read_request_head()
        if request.get('Expect'):
            connection.send(b'HTTP/1.1 100 Continue\r\n\r\n')
        connection.read_request_body(request)
        kind, _, number = request.target.split('?')[0][1:].partition('/')
        if kind == 'echo':
            connection.answer(request.body)
        elif kind == 'hash':
            connection.answer(sha(request.body).encode())
        elif kind == 'size':
            body = content(int(number))
            head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body)
            connection.send(head + (b'' if request.method == 'HEAD' else body))
        elif kind == 'chunked':
            connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' +
                            chunks_of(content(int(number))))
        elif kind in ('close', 'truncated'):
            connection.answer(content(int(number)), length=False)
            if kind == 'close' and isinstance(connection.sock, ssl.SSLSocket):
                say_goodbye(connection.sock)
            return
        else:
            connection.answer(b'ok')


def say_goodbye(sock):
    """Sends close_notify without waiting for the other one."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.unwrap()
    except (ssl.SSLWantReadError, OSError):
        pass
    with contextlib.suppress(OSError):
        sock.settimeout(timeout)


def server_context(certificate=None, version=None, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = certificate or pki().ec
    context.load_cert_chain(certificate.cert, certificate.key)
    if version == '1.2':
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsOrigin(conftest.Origin):
    """An origin that speaks TLS. `refused` has the errors of handshakes that failed, `names` the
    server names that were asked for, `resumed` one value for each connection."""

    def __init__(self, script, context=None, **more):
        self.context = context or server_context()
        self.refused, self.names, self.resumed = [], [], []
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        super().__init__(script, **more)
        self.url = f'https://{self.address}'

    def _serve(self, connection):
        raw = connection.sock
        raw.settimeout(IO)
        try:
            connection.sock = self.context.wrap_socket(raw, server_side=True,
                                                       suppress_ragged_eofs=False)
        except OSError as error:  # ssl.SSLError is one
            self.refused.append(error)
            raw.close()
            return
        self.resumed.append(connection.sock.session_reused)
        super()._serve(connection)


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def until_closed(sock):
    """All that a plain socket brings until its end or reset; fails if that does not come."""
    data = b''
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


def elapsed(since):
    return time.monotonic() - since
