"""tools/bench: weir beside nginx and HAProxy, one core each. Method: docs/BENCHMARKS.md."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import kernel_records
import report
import scaling
import selftest
from measure import Bench
from peers import (
    Contender,
    find_peers,
    make_certificate,
    make_files,
    raise_file_limit,
    version_of,
)
from scenarios import COMMANDS, IDLE_CONNECTIONS, selected
from system import BenchError, Network, describe_machine, find_program

SOURCES = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(SOURCES))
LOADGEN_SOURCES = [
    "client.cc",
    "client_tls.cc",
    "loadgen.cc",
    "options.cc",
    "origin.cc",
    "poller.cc",
    "process_usage.cc",
    "tls_stream.cc",
    "wire.cc",
]
WEIR_ALONE = ("scaling", "ktls", "ktls-guest")
LOAD_FIELDS = ("p50_us", "p99_us", "rps", "busy", "empty_turns")


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Benchmarks weir beside nginx and HAProxy: CPU time per request on one core.",
    )
    commands = [*COMMANDS, "scaling", "ktls", "selftest"]
    parser.add_argument(
        "command",
        choices=[*commands, "ktls-guest"],
        metavar="COMMAND",
        help="what to measure: " + ", ".join(commands),
    )
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each run (default 1.5)")
    parser.add_argument("--warm", type=float, default=0.4, help="warm-up before it (default 0.4)")
    parser.add_argument("--conns", type=int, default=0, help="connections, instead of the usual")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--peers", default="nginx,haproxy", help="default nginx,haproxy")
    parser.add_argument("--weir", default=os.path.join(ROOT, "build", "weir"), metavar="PATH")
    parser.add_argument("--no-weir", action="store_true", help="only the peers, no ratios")
    parser.add_argument("--no-syscalls", action="store_true", help="skip counting system calls")
    parser.add_argument("--wrk", action="store_true", help="also check with wrk")
    parser.add_argument(
        "--kernel", default="bookworm-backports", help="ktls: of the virtual machine, see vmrun -h"
    )
    parser.add_argument("--cpus", default="", metavar="A,B", help="of the proxy, of the loadgen")
    parser.add_argument("--loadgen", metavar="PATH", help="instead of building it")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 1000:
        parser.error("--rounds must be from 1 to 1000")
    if not 0.1 <= options.seconds <= 60 or not 0 <= options.warm <= 60:
        parser.error("--seconds must be from 0.1 to 60, --warm from 0 to 60")
    if not 0 <= options.conns <= 100_000:
        parser.error("--conns must be from 1 to 100000")
    if options.command in WEIR_ALONE and options.no_weir:
        parser.error(f"{options.command} measures nothing but weir")
    options.peers = [name for name in options.peers.split(",") if name]
    if not set(options.peers) <= {"nginx", "haproxy"}:
        parser.error("--peers: nginx and haproxy are the known ones")
    return options


def choose_cpus(text):
    allowed = sorted(os.sched_getaffinity(0))
    try:
        cpus = [int(part) for part in text.split(",")] if text else allowed[:2]
    except ValueError:
        cpus = []
    if len(set(cpus)) != 2 or not set(cpus) <= set(allowed):
        raise BenchError(
            f"two CPUs are needed, one for the proxy, one for the load; allowed: {allowed}"
        )
    return cpus


def build_loadgen():
    """Compiles the load generator when it is missing or older than its sources, in a directory of
    its own: it needs nothing of weir, and weir's build directory may be for another compiler."""
    target = os.path.join(ROOT, "build-bench", "loadgen")
    sources = [os.path.join(SOURCES, name) for name in LOADGEN_SOURCES]
    watched = [os.path.join(SOURCES, n) for n in os.listdir(SOURCES) if n.endswith((".cc", ".h"))]
    if os.path.exists(target) and os.path.getmtime(target) > max(map(os.path.getmtime, watched)):
        return target
    os.makedirs(os.path.dirname(target), exist_ok=True)
    flags = ["-std=c++23", "-O2", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra"]
    names = [os.environ.get("CXX", ""), "clang++-19", "clang++", "g++-14", "g++"]
    failure = "no C++ compiler was found"
    for compiler in filter(None, map(find_program, filter(None, names))):
        # Linked under another name first: two benchmarks at once must not meet half a file.
        fresh = f"{target}.{os.getpid()}"
        done = subprocess.run(
            [compiler, *flags, *sources, "-o", fresh, "-lssl", "-lcrypto"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode == 0:
            os.replace(fresh, target)
            return target
        failure = f"{compiler}:\n" + done.stdout.decode("utf-8", "replace")[:2000]
    raise BenchError(f"the load generator cannot be built: {failure}")


def certificate():
    """The same for all contenders and, as long as it is young, for all runs."""
    path = os.path.join(ROOT, "build-bench", "certificate.pem")
    if not os.path.exists(path) or time.time() - os.path.getmtime(path) > 5 * 86400:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make_certificate(path)
    return path


class Session:
    def __init__(self, options):
        self.options = options
        # The virtual machine that counts instructions has one CPU.
        self.cpus = [0, 0] if options.command == "ktls-guest" else choose_cpus(options.cpus)
        self.weir = None
        if not options.no_weir:
            self.weir = os.path.abspath(options.weir)
            if not os.access(self.weir, os.X_OK):
                raise BenchError(
                    f"{options.weir} is not there: build it with tools/build, or say --no-weir"
                )
        peers = [] if options.command in WEIR_ALONE else options.peers
        self.peers, missing = find_peers(peers)
        for message in missing:
            print(message)
        self.network = Network()
        self.loadgen = options.loadgen or build_loadgen()
        self.bench = Bench(
            self.loadgen,
            self.network,
            self.cpus,
            options.seconds,
            options.warm,
            certificate(),
            os.path.join(ROOT, "build-bench", "files"),
        )
        self.problems = []
        self.result = {"scenarios": {}, "machine": describe_machine(self.cpus), "versions": {}}
        for peer, program in {"weir": self.weir, **self.peers}.items():
            if program:
                self.result["versions"][peer] = version_of(peer, program)

    def rounds(self, contenders, run):
        """label -> one result per round; A B C, then C B A, so that a drift hits all alike."""
        runs = {str(c): [] for c in contenders}
        for number in range(self.options.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                self.progress(f"round {number + 1} of {self.options.rounds}: {contender}")
                try:
                    runs[str(contender)].append(run(contender))
                except BenchError as error:
                    self.progress("")
                    print(error, file=sys.stderr, flush=True)
                    runs[str(contender)].append(None)
        self.progress("")
        return runs

    @staticmethod
    def progress(text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def run_load(self, scenario):
        contenders = scenario.contenders(self.weir, self.peers)
        runs = self.rounds(contenders, lambda c: self.bench.load(c, scenario))
        summary = report.summarise(contenders, runs, "us_per_request", LOAD_FIELDS)
        summary["logged_share"] = {
            c.label: min((run["logged_share"] for run in runs[c.label] if run), default=None)
            for c in contenders
            if c.access_log
        }
        if not self.options.no_syscalls:
            self.count_syscalls(scenario, contenders, summary)
        summary |= {
            "body_bytes": scenario.body_bytes,
            "connections": scenario.connections,
            "seconds": self.options.seconds,
            "rounds": self.options.rounds,
            "runs": runs,
        }
        title = (
            f"{scenario.name}: {scenario.title}, {scenario.connections} connections, "
            f"{self.options.rounds} rounds of {self.options.seconds:g} s"
        )
        report.print_load(title, contenders, runs, summary)
        if self.options.wrk:
            self.run_wrk(scenario, contenders, summary)
        return summary

    def count_syscalls(self, scenario, contenders, summary):
        summary["syscalls_per_request"] = {}
        for contender in contenders:
            self.progress(f"system calls: {contender.label}")
            try:
                counted = self.bench.syscalls(contender, scenario)
            except BenchError as error:
                print(error, file=sys.stderr, flush=True)
                counted = None
            if counted:
                summary["syscalls_per_request"][contender.label] = round(counted["per_request"], 3)
                summary["syscalls_counted_by"] = counted["counted_by"]
        self.progress("")

    def run_wrk(self, scenario, contenders, summary):
        if not find_program("wrk"):
            print("wrk is not installed (apt install wrk): no sanity check")
            return
        runs = self.rounds(contenders, lambda c: self.bench.wrk(c, scenario))
        summary["wrk"] = report.summarise(contenders, runs, "us_per_request", ("rps",))
        report.print_wrk(contenders, runs)

    def run_idle(self):
        asked_for = self.options.conns if self.options.command == "idle" else 0
        connections = asked_for or IDLE_CONNECTIONS
        contenders = [Contender("weir", self.weir, access_log=True)] if self.weir else []
        contenders += [Contender(peer, program) for peer, program in self.peers.items()]
        runs = self.rounds(contenders, lambda c: self.bench.idle(c, connections))
        fields = ("rss_start", "rss_warm", "rss_idle")
        summary = report.summarise(contenders, runs, "bytes_per_connection", fields)
        summary |= {"connections": connections, "rounds": self.options.rounds, "runs": runs}
        title = f"idle: resident memory of {connections} idle keep-alive connections"
        report.print_idle(title, contenders, runs, summary)
        return summary

    def run(self):
        if self.options.command == "ktls-guest":
            self.progress = lambda text: None  # its terminal is a serial line
            kernel_records.run_in_guest(self)
            return
        if self.options.command == "ktls":
            self.keep("ktls", kernel_records.run(self, self.loadgen))
            return
        if self.options.command == "scaling":
            for name, summary in scaling.run(self).items():
                self.keep(name, summary)
            return
        scenarios = selected(self.options.command, self.options.conns)
        make_files(self.bench.files, {s.body_bytes for s in scenarios if s.files})
        for scenario in scenarios:
            self.keep(scenario.name, self.run_load(scenario))
        if "idle" in COMMANDS[self.options.command]:
            self.keep("idle", self.run_idle())

    def keep(self, name, summary):
        self.result["machine"]["private_network"] = self.network.private
        self.result["scenarios"][name] = summary
        self.problems += report.problems_of(name, summary)
        # Written after every scenario: whoever stops a long series keeps what is done.
        if self.options.json:
            fresh = f"{self.options.json}.{os.getpid()}"
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump(self.result, file, indent=1)
                file.write("\n")
            os.replace(fresh, self.options.json)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    options = parse_arguments()
    # A kill from outside stops the children as Ctrl-C does.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        raise_file_limit()
        if options.command == "selftest":
            return selftest.run(options.loadgen or build_loadgen(), certificate())
        session = Session(options)
        print("; ".join(session.result["versions"].values()), flush=True)
        session.run()
    except BenchError as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntools/bench: stopped", file=sys.stderr)
        return 130
    for problem in session.problems:
        print(f"NOT VALID: {problem}", file=sys.stderr)
    return 1 if session.problems else 0
