"""Processes, CPUs and network of a benchmark run: what is started is stopped, by pid, always."""

import ctypes
import fcntl
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import time

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that makes the run impossible; its text is for the user."""


def read_text(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return default


def write_text(path, text):
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return True
    except OSError:
        return False


class Network:
    """A private network namespace, new for every run, so that no run sees the TIME_WAITs or the
    ports of another; where that is not allowed, free ports below the ephemeral range."""

    def __init__(self):
        self.private = False
        self._uid, self._gid = os.getuid(), os.getgid()
        self._user_namespace = False

    def renew(self):
        """Returns (port of the proxy, port of the origin)."""
        if self._unshare():
            self.private = True
            self._loopback_up()
            # Ephemeral ports stay clear of the listening ones; wide, for connections per request.
            write_text("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535")
            write_text("/proc/sys/net/core/somaxconn", "4096")
            write_text("/proc/sys/net/ipv4/tcp_max_syn_backlog", "65535")
            return 8000, 9000
        self.private = False
        return self._free_port(8000), self._free_port(9000)

    def _unshare(self):
        if _libc.unshare(CLONE_NEWNET) == 0:
            return True
        if self._uid == 0 or self._user_namespace:
            return False
        if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return False
        self._user_namespace = True
        write_text("/proc/self/setgroups", "deny")
        return write_text("/proc/self/uid_map", f"{self._uid} {self._uid} 1") and write_text(
            "/proc/self/gid_map", f"{self._gid} {self._gid} 1"
        )

    @staticmethod
    def _loopback_up():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sh22x", b"lo", 0)
            flags = struct.unpack("16sh22x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))

    @staticmethod
    def _free_port(first):
        for port in range(first, first + 1000):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise BenchError(f"no free port between {first} and {first + 999}")


def _start_time(pid):
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else None


def process_tree(pid):
    """The process and all its descendants."""
    tree = [pid]
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return tree
    for thread in threads:
        for child in read_text(f"/proc/{pid}/task/{thread}/children").split():
            tree += process_tree(int(child))
    return tree


def cpu_seconds(pids):
    """CPU time of all threads of the processes: the same clock that loadgen reads."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


class Child:
    """A process of ours: pinned, in a session of its own whose scheduler autogroup has the highest
    weight (other work on the machine then hardly gets in between), gone when we are gone."""

    def __init__(self, command, cpus, log_path, stdout=None):
        self._tree = {}
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: self._prepare(cpus),
            )
        self.pid = self.process.pid
        self.log_path = log_path

    @staticmethod
    def _prepare(cpus):
        os.sched_setaffinity(0, set(cpus))
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        write_text("/proc/self/autogroup", "-20")

    def tree(self):
        pids = process_tree(self.pid)
        for pid in pids:
            self._tree.setdefault(pid, _start_time(pid))
        return pids

    def log_tail(self):
        return "\n".join(read_text(self.log_path).strip().splitlines()[-8:])

    def stop(self, first=signal.SIGTERM, patience=5.0):
        self.tree()
        if self.process.poll() is None:
            self.process.send_signal(first)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid, started in self._tree.items():
            # Whoever outlived its parent. The start time tells it from a stranger with its number.
            if pid != self.pid and started is not None and _start_time(pid) == started:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def wait_for_port(child, port, patience=8.0):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if child.process.poll() is not None:
            status = child.process.returncode
            raise BenchError(f"it ended with status {status}:\n{child.log_tail()}")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise BenchError(f"port {port} did not open in {patience:.0f} s:\n{child.log_tail()}")


def find_program(name):
    """In PATH and where Debian keeps servers, which a user's PATH often lacks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path)


def output_of(command):
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def describe_machine(cpus):
    model = ""
    for line in read_text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    device = "/sys/devices/system"
    return {
        "cpu": model or platform.processor(),
        "cpus": os.cpu_count(),
        "cpu_of_proxy": cpus[0],
        "cpu_of_loadgen": cpus[1],
        "kernel": platform.release(),
        "arch": platform.machine(),
        "congestion_control": read_text("/proc/sys/net/ipv4/tcp_congestion_control").strip(),
        "clocksource": read_text(f"{device}/clocksource/clocksource0/current_clocksource").strip(),
        "governor": read_text(f"{device}/cpu/cpu{cpus[0]}/cpufreq/scaling_governor").strip(),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
