"""tools/bench ktls: weir's records in the kernel against its records in userspace, in a virtual
machine that counts instructions (tools/vmrun -i): the CPU time of a process there is the number of
instructions it executed, its kernel work included, and repeats to 1 or 2 %."""

import json
import os
import statistics
import subprocess

from peers import Contender
from report import median_of, paired_ratios, print_table
from scenarios import SCENARIOS
from system import BenchError, read_text

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SCENARIO = next(s for s in SCENARIOS if s.name == "tls-1m")
CONNECTIONS = 4
LIMIT_SECONDS = 1800
MARK = "ktls-result "
KEY = "instructions_per_gib"


def run(session, loadgen):
    """On this machine: starts the virtual one. Returns the figures for the JSON."""
    options = session.options
    command = [os.path.join(ROOT, "tools", "vmrun"), "-i", "-t", str(LIMIT_SECONDS)]
    command += ["-k", options.kernel, "--", "/usr/bin/python3", os.path.join(ROOT, "tools/bench")]
    command += ["ktls-guest", "--weir", session.weir, "--loadgen", loadgen]
    command += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as guest:
        found = None
        for line in guest.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            if text.startswith(MARK):
                found = json.loads(text[len(MARK) :])
            else:
                print(text, flush=True)
    if guest.returncode != 0 or found is None:
        raise BenchError(f"the virtual machine ended with status {guest.returncode}")
    return found


def _sockets():
    """Sockets whose records the kernel has done, in this network namespace; and failures."""
    found = dict.fromkeys(("TlsTxSw", "TlsRxSw", "TlsDecryptError"), 0)
    for line in read_text("/proc/net/tls_stat").splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = int(value)
    return found


def _measure(session, contender):
    arguments = ["--connections", str(CONNECTIONS), "--sleep"]
    result = session.bench.load(contender, SCENARIO, arguments, counters=_sockets)
    expected = CONNECTIONS if contender.kernel_records else 0
    if result["counters"] != {"TlsTxSw": expected, "TlsRxSw": expected, "TlsDecryptError": 0}:
        raise BenchError(f"{contender.label}: the kernel has counted {result['counters']}")
    body = result["requests"] * SCENARIO.body_bytes
    result[KEY] = result["proxy_cpu_ns"] * (1 << 30) / body
    return result


def run_in_guest(session):
    pair = [
        Contender("weir", session.weir, access_log=True, tls=True, kernel_records=kernel)
        for kernel in (False, True)
    ]
    runs = session.rounds(pair, lambda c: _measure(session, c))
    userspace, kernel = (runs[c.label] for c in pair)
    ratios = paired_ratios(kernel, userspace, KEY)
    if not ratios:
        raise BenchError("no round has both figures")
    print(f"\nktls: {SCENARIO.title}, AES-128-GCM, kernel {os.uname().release}")
    rows = [["records in", "G instructions/GiB", "requests", "errors"]]
    for name, group in (("userspace", userspace), ("the kernel", kernel)):
        good = [one for one in group if one]
        rows.append(
            [
                name,
                f"{median_of(good, KEY) / 1e9:.2f}",
                str(sum(one["requests"] for one in good)),
                str(sum(one["errors"] for one in good)),
            ]
        )
    print_table(rows)
    middle = statistics.median(ratios)
    print(f"  the kernel's by ours: {middle:.2f} [{min(ratios):.2f}-{max(ratios):.2f}]")
    summary = {
        "kernel": os.uname().release,
        KEY: {c.label: median_of(runs[c.label], KEY) for c in pair},
        "ratio": round(middle, 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "errors": {c.label: sum(r["errors"] for r in runs[c.label] if r) for c in pair},
        "failed_runs": {c.label: sum(r is None for r in runs[c.label]) for c in pair},
        "runs": runs,
    }
    print(MARK + json.dumps(summary), flush=True)
