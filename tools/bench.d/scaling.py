"""tools/bench scaling: what a TLS handshake costs two threads of weir, against two processes of one
thread each, which share nothing.

Two threads of weir need both CPUs of a machine that has no more, and the load generator one of
them, so handshakes per second say nothing there. What does: CPU time per handshake. Locks and
shared cache lines would make it dearer on two threads than in two processes; that the second CPU is
the load generator's, too, makes it dearer in both alike. And how often a thread slept on a lock.
tls_bench does the same without sockets, where both threads do nothing but handshakes."""

import statistics

from peers import Contender
from report import median_of, paired_ratios, print_table
from scenarios import SCENARIOS

NAMES = ["tls-full", "tls-resumed"]
KEY = "us_per_request"
ONE, APART, TOGETHER = "1 thread", "2 processes of 1 thread", "2 threads"


def _run(bench, scenario, weir, label):
    threads = 2 if label == TOGETHER else 1
    contender = Contender("weir", weir, access_log=True, tls=True, threads=threads)
    if label == APART:
        return bench.load_two(contender, scenario)
    return bench.load(contender, scenario)


def _locks(bench, scenario, weir):
    """Waits on a lock (futex system calls) per handshake, on two threads; None without perf."""
    contender = Contender("weir", weir, access_log=True, tls=True, threads=2)
    counted = bench.syscalls(contender, scenario, event="syscalls:sys_enter_futex")
    return round(counted["per_request"], 5) if counted else None


def _print(scenario, runs, ratios, locks, rounds):
    rows = [["", "CPU us/handshake", "handshakes/s", "busy", "errors"]]
    for label, group in runs.items():
        cells = [median_of(group, key) for key in (KEY, "rps", "busy")]
        rows.append(
            [label]
            + ["-" if cell is None else f"{cell:.2f}" for cell in cells]
            + [str(sum(run["errors"] for run in group if run))]
        )
    print(f"\nscaling of {scenario.name}, {rounds} rounds")
    print_table(rows)
    if ratios:
        print(
            f"  by CPU time, two threads do {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}-{max(ratios):.2f}] times the handshakes of one; "
            f"waits on locks per handshake: {locks}"
        )


def run(session):
    """name -> figures, for the JSON."""
    result = {}
    for scenario in (s for s in SCENARIOS if s.name in NAMES):
        runs = session.rounds(
            [ONE, APART, TOGETHER],
            lambda label, s=scenario: _run(session.bench, s, session.weir, label),
        )
        ratios = [2 * ratio for ratio in paired_ratios(runs[APART], runs[TOGETHER], KEY)]
        locks = _locks(session.bench, scenario, session.weir)
        _print(scenario, runs, ratios, locks, session.options.rounds)
        result[f"scaling-{scenario.name}"] = {
            "us_per_handshake": {label: median_of(group, KEY) for label, group in runs.items()},
            "two_by_one": round(statistics.median(ratios), 3) if ratios else None,
            "range": [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None,
            "futex_per_handshake": locks,
            "errors": {k: sum(r["errors"] for r in group if r) for k, group in runs.items()},
            "failed_runs": {k: sum(r is None for r in group) for k, group in runs.items()},
            "runs": runs,
        }
    return result
