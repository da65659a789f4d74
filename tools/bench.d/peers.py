"""The contenders: how weir, nginx and HAProxy are configured and started for one run."""

import dataclasses
import os
import pwd
import re
import resource
import time

from system import BenchError, find_program, output_of, read_text

HERE = os.path.dirname(os.path.abspath(__file__))
SETTLED_SECONDS = 3.0

# weir's thresholds that are compared.
SPLICE_FROM = ("1K", "32K", "64K", "128K", "256K", "512K", "1M")
# What the scenarios may ask for. nginx's default buffers are 2.6 to 3 times slower than the best of
# these: comparing with them would flatter weir.
NGINX_VARIANTS = {
    "": [],
    "direct 256k": [
        "proxy_buffering off;",
        "proxy_buffer_size 256k;",
        "proxy_buffers 8 256k;",
        "proxy_busy_buffers_size 512k;",
    ],
    "buffered 256k": [
        "proxy_buffer_size 256k;",
        "proxy_buffers 8 256k;",
        "proxy_busy_buffers_size 512k;",
    ],
}
# Four records for each call of SSL_write(); with 256 KiB it is slower again.
NGINX_VARIANTS["direct 256k, ssl 64k"] = [
    *NGINX_VARIANTS["direct 256k"],
    "ssl_buffer_size 64k;",
]
# OpenSSL gives two tickets with each full handshake; nginx can be told to make do with one.
NGINX_VARIANTS["one ticket"] = ["ssl_conf_command NumTickets 1;"]
# Files: how they get from the disk's cache to the socket. tcp_nopush is a system call before and
# one after, and keeps the head and the first bytes of the file together.
SENDFILE = ["sendfile on;", "tcp_nopush on;"]
NGINX_SENDING = {
    "sendfile": SENDFILE,
    "sendfile, no nopush": ["sendfile on;", "tcp_nopush off;"],
    "sendfile 512k": [*SENDFILE, "sendfile_max_chunk 512k;"],
    "read 64k": ["sendfile off;", "output_buffers 2 64k;"],
    "read 256k": ["sendfile off;", "output_buffers 2 256k;"],
}
# HAProxy: (lines of its global section, splicing). Its session cache is written with every
# handshake although the sessions are in the tickets.
HAPROXY_VARIANTS = {
    "": ([], ""),
    "splice": ([], "option splice-response"),
    "splice auto": ([], "option splice-auto"),
    "splice, bufsize 64k": (["tune.bufsize 65536"], "option splice-response"),
    "bufsize 32k": (["tune.bufsize 32768"], ""),
    "bufsize 64k": (["tune.bufsize 65536"], ""),
    "no cache": (["tune.ssl.cachesize 0"], ""),
}
# weir: lines of its [performance] section.
WEIR_VARIANTS = {
    "": [],
    "splice off": ["splice_threshold = 0"],
    **{f"splice {size}": [f'splice_threshold = "{size}iB"'] for size in SPLICE_FROM},
}
# weir: how many servers (all the same one), and lines of its upstream. What choosing costs by itself.
WEIR_UPSTREAMS = {
    "": (1, []),
    "5 servers": (5, []),
    **{
        f"5 servers, {name}": (5, [f'balance = "{name}"'])
        for name in ("least_connections", "two_choices", "consistent_hash")
    },
    "5 servers, all checks": (
        5,
        [
            'retry_on = ["connect", "reset", "timeout", "502", "503", "504"]',
            "max_connections = 100000",
            "passive_check = { slow_percent = 400 }",
            "circuit_breaker = { failures = 5 }",
        ],
    ),
}
WEIR_VARIANTS |= {name: [] for name in WEIR_UPSTREAMS}
# What has been looked up once is good for the run, for weir and for nginx.
WEIR_FILE_CACHE = ['open_file_cache_valid = "60s"']
NGINX_FILE_CACHE = [
    "open_file_cache max=1024 inactive=60s;",
    "open_file_cache_valid 60s;",
    "open_file_cache_min_uses 1;",
]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run takes place."""

    directory: str
    port: int
    origin_port: int
    cpus: tuple  # of the proxy: as many as it has threads
    pem: str = ""  # certificate and key, where TLS is spoken
    files: str = ""  # directory of the files that are served


@dataclasses.dataclass(frozen=True)
class Contender:
    peer: str  # weir, nginx or haproxy
    program: str
    variant: str = ""
    access_log: bool = False  # weir's is always on
    tls: bool = False
    kernel_records: bool = False  # weir: kernel TLS
    threads: int = 1  # weir only
    files: str = ""  # "sendfile" or "memory": it serves files itself; nginx has one way only

    @property
    def label(self):
        parts = [self.peer, self.variant]
        if self.threads > 1:
            parts.append(f"{self.threads} threads")
        if self.kernel_records:
            parts.append("kernel records")
        if self.access_log and self.peer != "weir":
            parts.append("with access log")
        return " ".join(part for part in parts if part)

    def __str__(self):
        return self.label

    def prepare(self, place):
        """Writes the config into the run's directory; returns the command."""
        values = {
            "DIR": place.directory,
            "PORT": place.port,
            "ORIGIN_PORT": place.origin_port,
            "PEM": place.pem,
            "FILES": file_limit(),
        }
        make = {"weir": self._weir, "nginx": self._nginx, "haproxy": self._haproxy}[self.peer]
        return make(place, values)

    def _weir(self, place, values):
        values |= {
            "THREADS": self.threads,
            "CPUS": ", ".join(map(str, place.cpus)),
            "ACCESS_LOG": os.path.join(place.directory, "access.log"),
            "MAXCONN": file_limit() // 2 + 2000,
            "TLS": str(self.tls).lower(),
            "KTLS": str(self.kernel_records).lower(),
            # With kernel records, a connection without them would be a wrong figure.
            "FALLBACK": str(not self.kernel_records).lower(),
            "SITE": 'proxy = "origin"',
        }
        servers, lines = WEIR_UPSTREAMS.get(self.variant, WEIR_UPSTREAMS[""])
        values["SERVERS"] = ", ".join([f'"127.0.0.1:{place.origin_port}"'] * servers)
        values["UPSTREAM"] = "\n".join(lines)
        performance = WEIR_VARIANTS[self.variant]
        if self.files:
            values["SITE"] = f'file = {{path = "{place.files}", mode = "{self.files}"}}'
            performance = [*performance, *WEIR_FILE_CACHE]
        values["PERFORMANCE"] = "\n".join(performance)
        text = _without_comments(read_text(os.path.join(HERE, "weir.toml")))
        if self.tls:
            text += _without_comments(read_text(os.path.join(HERE, "weir-tls.toml")))
        return [self.program, "run", "-c", _write_config(text, place, "weir.toml", values)]

    def _nginx(self, place, values):
        user = pwd.getpwuid(os.getuid()).pw_name
        log = os.path.join(place.directory, "access.log")
        tls = f"ssl_certificate {place.pem}; ssl_certificate_key {place.pem};"
        values |= {
            "ACCESS_LOG": f"{log} combined buffer=64k" if self.access_log else "off",
            "USER": f"user {user};" if os.getuid() == 0 else "",
            "VARIANT": "\n  ".join([] if self.files else NGINX_VARIANTS[self.variant]),
            "SENDING": "\n  ".join(NGINX_SENDING[self.variant] if self.files else SENDFILE),
            "SITE": "proxy_pass http://origin;",
            "SSL": "ssl" if self.tls else "",
            "TLS": tls if self.tls else "",
        }
        if self.files:
            values["SITE"] = "\n      ".join([f"root {place.files};", *NGINX_FILE_CACHE])
        text = _without_comments(read_text(os.path.join(HERE, "nginx.conf")))
        config = _write_config(text, place, "nginx.conf", values)
        error_log = os.path.join(place.directory, "nginx-error.log")
        return [self.program, "-p", place.directory, "-e", error_log, "-c", config]

    def _haproxy(self, place, values):
        lines, splice = HAPROXY_VARIANTS[self.variant]
        # Two files for each connection under load; idle ones need only one (see haproxy.cfg).
        values |= {
            "MAXCONN": max(1024, file_limit() - 1500),
            "MAXPIPES": 256 if splice else 0,
            "VARIANT": "\n  ".join(lines),
            "SPLICE": splice,
            "TLS": f"ssl crt {place.pem} alpn http/1.1" if self.tls else "",
        }
        text = _without_comments(read_text(os.path.join(HERE, "haproxy.cfg")))
        return [self.program, "-db", "-f", _write_config(text, place, "haproxy.cfg", values)]


def file_limit():
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_config(text, place, name, values):
    body = re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text)
    path = os.path.join(place.directory, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(body)
    return path


def _without_comments(text):
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


def make_certificate(path):
    """A certificate for bench.example (ECDSA P-256, signed by itself) and its key, in one file."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "7", "-subj", "/CN=bench.example", "-addext"]
    command += ["subjectAltName=DNS:bench.example,DNS:*.bench.example"]
    said = output_of([*command, "-keyout", "-", "-out", "-"])
    blocks = re.findall(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", said, re.DOTALL)
    if sorted(blocks) != ["CERTIFICATE", "PRIVATE KEY"]:
        raise BenchError(f"openssl (apt install openssl) made no certificate:\n{said[-400:]}")
    with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(said + "\n")


def make_files(directory, sizes):
    """The files that are served, each named by its size, as the origin would answer: waits until
    they are so old that their times say which contents they have. On a disk's file system, as
    sites are: others have other ways to the socket."""
    pattern = bytes(ord("a") + i % 23 for i in range(23))
    os.makedirs(directory, exist_ok=True)
    youngest = 0.0
    for size in sizes:
        path = os.path.join(directory, str(size))
        content = (pattern * (size // len(pattern) + 1))[:size]
        try:
            with open(path, "rb") as file:
                good = file.read() == content
        except FileNotFoundError:
            good = False
        if not good:
            with open(path, "wb") as file:
                file.write(content)
        youngest = max(youngest, os.stat(path).st_ctime)
    time.sleep(max(0.0, min(SETTLED_SECONDS, youngest + SETTLED_SECONDS - time.time())))


def version_of(peer, program):
    if peer == "nginx":
        return output_of([program, "-v"]).replace("nginx version: ", "")
    if peer == "haproxy":
        return (output_of([program, "-v"]).splitlines() or [""])[0]
    return (output_of([program, "--version"]).splitlines() or [""])[0]


def find_peers(names):
    """({peer: program}, [messages about those that are missing])."""
    found, missing = {}, []
    for name in names:
        program = find_program(name)
        if program:
            found[name] = program
        else:
            missing.append(f"{name} is not installed (apt install {name}): its ratio is missing")
    return found, missing
