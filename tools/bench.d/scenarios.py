"""What is measured: the workloads, and the variants of each peer that take part in them."""

import dataclasses

from peers import Contender

SMALL_VARIANTS = {"nginx": [""], "haproxy": [""]}
# The peers at their best: all of these run in every round and the fastest one counts. For nginx,
# 64 KiB buffers were slower at both sizes (30 against 25 us, 250 against 220 us); for HAProxy, a
# bufsize of 256 KiB and splicing together with 64 KiB were. The defaults are far behind.
BODY_VARIANTS = {
    "nginx": ["direct 256k", "buffered 256k"],
    "haproxy": ["splice", "bufsize 64k"],
}
# TLS. Nothing can be spliced there, and nginx's buffered ways are behind (by half at 1 MiB).
SECURE_BODY_VARIANTS = {
    "nginx": ["direct 256k", "direct 256k, ssl 64k"],
    "haproxy": ["", "bufsize 32k", "bufsize 64k"],
}
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

    def loadgen_arguments(self):
        arguments = ["--size", str(self.body_bytes), "--connections", str(self.connections)]
        arguments += ["--connection-per-request"] if self.connection_per_request else []
        arguments += ["--tls"] if self.tls else []
        return arguments + (["--resume"] if self.resume else [])

    def contenders(self, weir, peers):
        """weir first; `peers` maps the installed ones to their programs."""
        tls = self.tls
        result = [Contender("weir", weir, access_log=True, tls=tls)] if weir else []
        for peer, program in peers.items():
            result += [Contender(peer, program, name, tls=tls) for name in self.variants[peer]]
        for peer in self.logged_peers:
            if peer in peers:
                variant = self.variants[peer][0]
                result.append(Contender(peer, peers[peer], variant, access_log=True, tls=tls))
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
TLS = ["tls-full", "tls-resumed", "tls-small", "tls-64k", "tls-1m"]

COMMANDS = {
    "small": ["small", "small_1k"],
    "churn": ["churn"],
    "body64k": ["body64k"],
    "body1m": ["body1m"],
    "idle": ["idle"],
    **{name: [name] for name in TLS},
    "tls": TLS,
    "all": ["small", "small_1k", "churn", "body64k", "body1m", *TLS, "idle"],
}
IDLE_CONNECTIONS = 10_000


def selected(command, connections):
    """The load scenarios of a command, with another number of connections if one was given."""
    wanted = [s for s in SCENARIOS if s.name in COMMANDS[command]]
    if connections:
        wanted = [dataclasses.replace(s, connections=connections) for s in wanted]
    return wanted
