"""One measured run of one contender, in its own directory, network and processes."""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from peers import Place
from system import BenchError, Child, cpu_seconds, find_program, wait_for_port

# Bodies are short-lived and logs are written at full speed: neither may touch a disk.
RUN_ROOT = "/dev/shm" if os.path.isdir("/dev/shm") else None
WRK_SECONDS = 2


class Bench:
    """What all runs share: where loadgen is, which CPUs, how long."""

    def __init__(self, loadgen, network, cpus, seconds, warm, pem, files=""):
        self.loadgen = loadgen
        self.network = network
        self.pem = pem
        self.files = files
        self.proxy_cpu, self.load_cpu = cpus
        self.seconds = seconds
        self.warm = warm

    @contextlib.contextmanager
    def proxy(self, contender):
        """The running proxy: (child, pids, port, origin port, directory)."""
        port, origin_port = self.network.renew()
        cpus = (self.proxy_cpu, self.load_cpu)[: contender.threads]
        with self._start(contender, port, origin_port, cpus) as running:
            yield running

    @contextlib.contextmanager
    def _start(self, contender, port, origin_port, cpus):
        directory = tempfile.mkdtemp(prefix="weir-bench-", dir=RUN_ROOT)
        try:
            place = Place(directory, port, origin_port, cpus, self.pem, self.files)
            command = contender.prepare(place)
            with Child(command, cpus, os.path.join(directory, "output")) as child:
                try:
                    wait_for_port(child, port)
                except BenchError as error:
                    raise BenchError(f"{contender.label} did not start: {error}") from None
                time.sleep(0.1)  # the workers of a master process are there now
                yield child, child.tree(), port, origin_port, directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def load_two(self, contender, scenario):
        """The load on two processes, one on each CPU, that share nothing."""
        port, origin_port = self.network.renew()
        second = port + 500
        with (
            self._start(contender, port, origin_port, (self.proxy_cpu,)) as first,
            self._start(contender, second, origin_port, (self.load_cpu,)) as other,
        ):
            child, pids, _, _, directory = first
            running = (child, pids + other[1], port, origin_port, directory)
            arguments = [*scenario.loadgen_arguments(), "--second-port", str(second)]
            result = self._run_loadgen("run", contender, running, self.seconds, arguments)
        return self._per_request(contender, result)

    def _loadgen(self, mode, pids, port, origin_port, seconds, arguments):
        command = [self.loadgen, mode, "--cpu", str(self.load_cpu)]
        command += ["--origin-port", str(origin_port), "--target-port", str(port)]
        command += ["--seconds", str(seconds), "--warm", str(self.warm)]
        command += ["--pids", ",".join(map(str, pids))] if pids else []
        return command + arguments

    def _finish_loadgen(self, load, contender, limit):
        try:
            out = load.process.communicate(timeout=limit)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            raise BenchError(f"loadgen did not end within {limit:.0f} s") from None
        lines = out.strip().splitlines()
        if load.process.returncode != 0 or not lines or not lines[-1].startswith("{"):
            raise BenchError(
                f"loadgen failed against {contender.label} "
                f"(status {load.process.returncode}):\n{load.log_tail()}"
            )
        return json.loads(lines[-1])

    def _run_loadgen(self, mode, contender, running, seconds, arguments):
        child, pids, port, origin_port, directory = running
        command = self._loadgen(mode, pids, port, origin_port, seconds, arguments)
        log = os.path.join(directory, "loadgen-output")
        with Child(command, [self.load_cpu], log, stdout=subprocess.PIPE) as load:
            result = self._finish_loadgen(load, contender, seconds + self.warm + 90)
        if child.process.poll() is not None:
            raise BenchError(f"{contender.label} ended during the run:\n{child.log_tail()}")
        return result

    def load(self, contender, scenario, more_arguments=(), counters=dict):
        """CPU time, latency and errors under load, and by how much what counters() returns grew."""
        with self.proxy(contender) as running:
            before = counters()
            arguments = [*scenario.loadgen_arguments(), *more_arguments]
            result = self._run_loadgen("run", contender, running, self.seconds, arguments)
            result["counters"] = {name: n - before[name] for name, n in counters().items()}
            running[0].stop()  # flushes the access log
            if contender.access_log:
                # Lines that a proxy drops under load cost it nothing: count what was written.
                lines = _count_lines(os.path.join(running[4], "access.log*"))
                result["logged_share"] = lines / max(1, result["requests_in_all"])
        return self._per_request(contender, result)

    @staticmethod
    def _per_request(contender, result):
        requests = result["requests"]
        if requests == 0:
            raise BenchError(f"{contender.label} answered no request: {result['error_kinds']}")
        result["us_per_request"] = result["proxy_cpu_ns"] / 1000 / requests
        result["rps"] = requests / result["seconds"]
        result["busy"] = result["proxy_cpu_ns"] / 1e9 / result["seconds"]
        return result

    def idle(self, contender, connections):
        with self.proxy(contender) as running:
            arguments = ["--connections", str(connections)]
            result = self._run_loadgen("idle", contender, running, 0, arguments)
        result["bytes_per_connection"] = (
            result["rss_idle"] - result["rss_warm"]
        ) / max(1, result["connections"])
        return result

    def syscalls(self, contender, scenario, seconds=1.0, event="raw_syscalls:sys_enter"):
        """System calls per request in a run of its own (counting disturbs the CPU time), over the
        whole run: opening the connections and the warm-up are in both counts. None when there is
        nothing to count with. Another `event` is counted by perf only."""
        with self.proxy(contender) as running:
            counter = _SyscallCounter.start(running[1], running[4], self.proxy_cpu, event)
            if counter is None:
                return None
            with counter.child:
                time.sleep(0.4)  # attached
                result = self._run_loadgen(
                    "run", contender, running, seconds, scenario.loadgen_arguments()
                )
                counter.child.stop(signal.SIGINT)
            count = counter.read()
        if count is None or result["requests_in_all"] == 0:
            return None
        return {"per_request": count / result["requests_in_all"], "counted_by": counter.tool}

    def wrk(self, contender, scenario):
        """The same with wrk as the client and our origin beside it on the same CPU; that CPU is
        then the bottleneck, so this checks plausibility and nothing else."""
        with self.proxy(contender) as running:
            _, pids, port, origin_port, directory = running
            log = os.path.join(directory, "loadgen-output")
            origin = self._loadgen("origin", [], port, origin_port, 4 * WRK_SECONDS, ["--sleep"])
            with Child(origin, [self.load_cpu], log):
                time.sleep(0.2)
                self._wrk_once(scenario, port, 1, log)
                before = cpu_seconds(pids)
                out = self._wrk_once(scenario, port, WRK_SECONDS, log)
                used = cpu_seconds(pids) - before
        return _parse_wrk(out, used)

    def _wrk_once(self, scenario, port, seconds, log):
        command = [find_program("wrk"), "-t1", f"-c{scenario.connections}", f"-d{seconds}"]
        if scenario.connection_per_request:
            command += ["-H", "Connection: close"]
        url = f"{'https' if scenario.tls else 'http'}://127.0.0.1:{port}/{scenario.body_bytes}"
        command += [url, "-H", "Host: bench.example"]
        with Child(command, [self.load_cpu], log, stdout=subprocess.PIPE) as child:
            return child.process.communicate(timeout=seconds + 30)[0].decode("utf-8", "replace")


class _SyscallCounter:
    def __init__(self, tool, child, path, event):
        self.tool, self.child, self.path, self.event = tool, child, path, event

    @classmethod
    def start(cls, pids, directory, cpu, event):
        path = os.path.join(directory, "syscalls")
        log = os.path.join(directory, "counter-output")
        # perf only counts, in the kernel; strace stops the proxy twice for each call and so
        # changes how it batches: hence only the second choice. Both sit on the proxy's CPU, since
        # on the other one loadgen never makes room.
        perf, strace = find_program("perf"), find_program("strace")
        if perf and _perf_counts(perf, event):
            command = [perf, "stat", "-x", ",", "-e", event, "-o", path]
            command += ["-p", ",".join(map(str, pids))]
            return cls("perf", Child(command, [cpu], log), path, event)
        if strace and event.startswith("raw_syscalls:"):
            command = [strace, "-f", "-c", "-o", path]
            for pid in pids:
                command += ["-p", str(pid)]
            return cls("strace", Child(command, [cpu], log), path, event)
        return None

    def read(self):
        with open(self.path, encoding="utf-8") as file:
            text = file.read()
        if self.tool == "perf":
            match = re.search(rf"^(\d+),[^\n]*{self.event}", text, re.MULTILINE)
        else:
            # The total line: % time, seconds, usecs/call (not always), calls, errors (if any).
            total = r"^\s*100\.00\s+[\d.]+\s+(?:\d+\s+)?(\d+)\s+.*total"
            match = re.search(total, text, re.MULTILINE)
        return int(match[1]) if match else None


def _perf_counts(perf, event):
    probe = [perf, "stat", "-x", ",", "-e", event, "true"]
    done = subprocess.run(
        probe,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode == 0 and re.search(rb"^\d+,", done.stderr, re.MULTILINE) is not None


def _count_lines(pattern):
    lines = 0
    for path in glob.glob(pattern):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                lines += chunk.count(b"\n")
    return lines


def _parse_wrk(out, cpu_used):
    requests = re.search(r"(\d+) requests in", out)
    rps = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if not requests or not rps or int(requests[1]) == 0:
        raise BenchError(f"wrk printed no result:\n{out.strip()[-400:]}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: (.*)", out)
    return {
        "us_per_request": 1e6 * cpu_used / int(requests[1]),
        "rps": float(rps[1]),
        "errors": int(bad[1]) if bad else 0,
        "socket_errors": broken[1] if broken else "",
    }
