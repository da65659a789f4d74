"""What is measured: the workloads, and the variants of each peer that take part in them."""

import dataclasses

from peers import SPLICE_FROM, WEIR_UPSTREAMS, Contender

SMALL_VARIANTS = {"nginx": [""], "haproxy": [""]}
# The peers at their best: all of these run in every round and the fastest one counts. For nginx,
# 64 KiB buffers were slower at both sizes (30 against 25 us, 250 against 220 us); for HAProxy, a
# bufsize of 256 KiB and splicing together with 64 KiB were. The defaults are far behind.
BODY_VARIANTS = {
    "nginx": ["direct 256k", "buffered 256k"],
    "haproxy": ["splice", "bufsize 64k"],
}
# Bodies through the kernel: every way of the peers, and weir with one threshold after the other.
# Whether a body is spliced is all that a threshold decides, but it counts what is still to come
# behind the head: 64 KiB are no 64 KiB any more.
MOVED_VARIANTS = {
    "nginx": ["direct 256k", "buffered 256k"],
    "haproxy": ["splice", "splice auto", "splice, bufsize 64k", "bufsize 64k"],
}
WEIR_SPLICE = ("splice off", *(f"splice {size}" for size in SPLICE_FROM if size != "1K"))
# nginx's ways from a file to a socket.
FILE_VARIANTS = {
    "nginx": ["sendfile", "sendfile, no nopush", "read 64k", "read 256k"],
    "haproxy": [],
}
LARGE_FILE_VARIANTS = {
    "nginx": ["sendfile", "sendfile, no nopush", "sendfile 512k", "read 256k"],
    "haproxy": [],
}
# TLS. Nothing can be spliced there, and nginx's buffered ways are behind (by half at 1 MiB).
SECURE_BODY_VARIANTS = {
    "nginx": ["direct 256k", "direct 256k, ssl 64k"],
    "haproxy": ["", "bufsize 32k", "bufsize 64k"],
}
NO_PEERS = {"nginx": [], "haproxy": []}
SPLICE_SIZES = (32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4194304, 10485760)
FULL_VARIANTS = {"nginx": ["", "one ticket"], "haproxy": ["", "no cache"]}
RESUMED_VARIANTS = {"nginx": [""], "haproxy": ["", "no cache"]}


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    body_bytes: int
    connections: int
    variants: dict
    connection_per_request: bool = False
    logged_peers: tuple = ()  # also run with their access log on
    tls: bool = False
    resume: bool = False
    unit: str = "request"  # what the figures are per
    files: str = ""  # "sendfile" or "memory": no origin, the proxies serve files
    weir_variants: tuple = ()  # of weir, besides the default

    def loadgen_arguments(self):
        arguments = ["--size", str(self.body_bytes), "--connections", str(self.connections)]
        arguments += ["--connection-per-request"] if self.connection_per_request else []
        arguments += ["--tls"] if self.tls else []
        return arguments + (["--resume"] if self.resume else [])

    def contenders(self, weir, peers):
        """weir first; `peers` maps the installed ones to their programs."""
        tls, files = self.tls, self.files
        result = []
        for name in ("", *self.weir_variants) if weir else ():
            result.append(Contender("weir", weir, name, access_log=True, tls=tls, files=files))
        for peer, program in peers.items():
            for name in self.variants[peer]:
                result.append(Contender(peer, program, name, tls=tls, files=files))
        for peer in self.logged_peers:
            if peer in peers:
                variant = self.variants[peer][0]
                result.append(
                    Contender(peer, peers[peer], variant, access_log=True, tls=tls, files=files)
                )
        return result


# HAProxy cannot write its log to a file, so only nginx takes part with the log on.
SCENARIOS = [
    Scenario("small", "128 B, keep-alive", 128, 64, SMALL_VARIANTS, logged_peers=("nginx",)),
    Scenario("small_1k", "1 KiB, keep-alive", 1024, 64, SMALL_VARIANTS, logged_peers=("nginx",)),
    Scenario(
        "churn",
        "128 B, a connection per request",
        128,
        64,
        SMALL_VARIANTS,
        connection_per_request=True,
        logged_peers=("nginx",),
    ),
    Scenario("body64k", "64 KiB, keep-alive", 65536, 64, BODY_VARIANTS),
    Scenario("body1m", "1 MiB, keep-alive", 1048576, 16, BODY_VARIANTS),
    Scenario(
        "tls-full",
        "a full TLS handshake and a request of 128 B for every connection",
        128,
        64,
        FULL_VARIANTS,
        connection_per_request=True,
        tls=True,
        unit="handshake",
    ),
    Scenario(
        "tls-resumed",
        "a handshake by ticket and a request of 128 B for every connection",
        128,
        64,
        RESUMED_VARIANTS,
        connection_per_request=True,
        tls=True,
        resume=True,
        unit="handshake",
    ),
    Scenario(
        "tls-small",
        "128 B over TLS, keep-alive",
        128,
        64,
        SMALL_VARIANTS,
        logged_peers=("nginx",),
        tls=True,
    ),
    Scenario("tls-64k", "64 KiB over TLS, keep-alive", 65536, 64, SECURE_BODY_VARIANTS, tls=True),
    Scenario("tls-1m", "1 MiB over TLS, keep-alive", 1048576, 16, SECURE_BODY_VARIANTS, tls=True),
]
SCENARIOS += [
    Scenario(
        "file1k",
        "a file of 1 KiB",
        1024,
        64,
        FILE_VARIANTS,
        logged_peers=("nginx",),
        files="sendfile",
    ),
    Scenario("file64k", "a file of 64 KiB", 65536, 64, FILE_VARIANTS, files="sendfile"),
    Scenario("file10m", "a file of 10 MiB", 10485760, 8, LARGE_FILE_VARIANTS, files="sendfile"),
    Scenario(
        "mem1k",
        "1 KiB from memory",
        1024,
        64,
        FILE_VARIANTS,
        logged_peers=("nginx",),
        files="memory",
    ),
    Scenario("mem64k", "64 KiB from memory", 65536, 64, FILE_VARIANTS, files="memory"),
]
SCENARIOS += [
    Scenario(
        f"moved{name}",
        f"{text}, keep-alive",
        size,
        connections,
        MOVED_VARIANTS,
        weir_variants=WEIR_SPLICE,
    )
    for name, text, size, connections in (
        ("64k", "64 KiB", 65536, 64),
        ("1m", "1 MiB", 1048576, 16),
    )
]
# From which size on it pays: weir against itself, every body copied, every body spliced.
SCENARIOS += [
    Scenario(
        f"splice{size >> 10}k",
        f"{size >> 10} KiB, copied or spliced",
        size,
        64 if size <= 65536 else 16,
        NO_PEERS,
        weir_variants=("splice off", "splice 1K"),
    )
    for size in SPLICE_SIZES
]
# What choosing among servers costs: weir against itself with one.
SCENARIOS.append(
    Scenario(
        "balance",
        "128 B, one server or five",
        128,
        64,
        NO_PEERS,
        weir_variants=tuple(name for name in WEIR_UPSTREAMS if name),
    )
)
FILES = ["file1k", "file64k", "file10m", "mem1k", "mem64k"]
MOVED = ["moved64k", "moved1m"]
SPLICE = [f"splice{size >> 10}k" for size in SPLICE_SIZES]
TLS = ["tls-full", "tls-resumed", "tls-small", "tls-64k", "tls-1m"]

COMMANDS = {
    "small": ["small", "small_1k"],
    "churn": ["churn"],
    "body64k": ["body64k"],
    "body1m": ["body1m"],
    "idle": ["idle"],
    "balance": ["balance"],
    **{name: [name] for name in TLS},
    "tls": TLS,
    **{name: [name] for name in [*FILES, *MOVED, *SPLICE]},
    "files": FILES,
    "moved": MOVED,
    "splice": SPLICE,
    "all": ["small", "small_1k", "churn", "body64k", "body1m", *FILES, *TLS, "idle"],
}
IDLE_CONNECTIONS = 10_000


def selected(command, connections):
    """The load scenarios of a command, with another number of connections if one was given."""
    wanted = [s for s in SCENARIOS if s.name in COMMANDS[command]]
    if connections:
        wanted = [dataclasses.replace(s, connections=connections) for s in wanted]
    return wanted
