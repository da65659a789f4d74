"""weir under config/weir-seccomp.json, the profile we tell people to give to their containers, and
under a filter that denies io_uring as container runtimes do by default."""
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIR = os.environ.get('WEIR', str(ROOT / 'build' / 'weir'))
PROFILE = json.loads((ROOT / 'config' / 'weir-seccomp.json').read_text())

AUDIT_ARCH = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}[os.uname().machine]
ALLOW, ERRNO_EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING = {'io_uring_setup', 'io_uring_enter', 'io_uring_register'}


def syscall_numbers():
    """Name to number, as the compiler's headers have it for this machine."""
    compiler = next(name for name in ('clang-19', 'clang', 'gcc')
                    if subprocess.run(['which', name], capture_output=True).returncode == 0)
    text = subprocess.run([compiler, '-E', '-dM', '-'], input='#include <asm/unistd.h>\n', text=True,
                          capture_output=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r'#define __NR_(\w+) (\d+)\n', text)}


def allowed_names():
    assert PROFILE['defaultAction'] == 'SCMP_ACT_ERRNO' and PROFILE['defaultErrnoRet'] == 1
    assert all(group['action'] == 'SCMP_ACT_ALLOW' for group in PROFILE['syscalls'])
    return {name for group in PROFILE['syscalls'] for name in group['names']}


def filter_for(names):
    """A classic BPF program that allows `names` and answers EPERM to all else."""
    numbers = syscall_numbers()
    program = [(LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH), (RETURN, 0, 0, KILL),
               (LOAD, 0, 0, 0)]
    for name in sorted(names & numbers.keys()):
        program += [(JUMP_IF_EQUAL, 0, 1, numbers[name]), (RETURN, 0, 0, ALLOW)]
    program.append((RETURN, 0, 0, ERRNO_EPERM))
    return program


class FilterProgram(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]


def confined(names):
    """A function for preexec_fn that puts the process under a filter of `names`."""
    program = filter_for(names)
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in program))
    packed = FilterProgram(len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)

    def confine():
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            os._exit(97)
        if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(packed), 0, 0) != 0:
            os._exit(98)

    confine.keep = (code, packed)
    return confine


def environment():
    """Leak detection stops the process with ptrace, which the profile denies: off here."""
    options = os.environ.get('ASAN_OPTIONS', '')
    return {**os.environ, 'ASAN_OPTIONS': f'{options}:detect_leaks=0'}


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def write_config(folder, port):
    path = folder / 'weir.toml'
    path.write_text(f'[[listener]]\naddress = "127.0.0.1:{port}"\n'
                    '[[route]]\npath = "/"\nrespond = {status = 200, body = "confined"}\n'
                    '[server]\nthreads = 1\n')
    return path


def start(config, names):
    return subprocess.Popen([WEIR, 'run', '-c', config], preexec_fn=confined(names),
                            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)


@pytest.fixture
def config(tmp_path):
    port = free_port()
    return write_config(tmp_path, port), port


def test_the_filter_of_this_test_denies_and_allows():
    number = syscall_numbers()['io_uring_setup']
    # With a null pointer the kernel answers EFAULT (14), the filter EPERM (1).
    call = f'import ctypes; l = ctypes.CDLL(None, use_errno=True); l.syscall({number}, 1, 0); ' \
           'print(ctypes.get_errno())'
    errors = [subprocess.run(['/usr/bin/python3', '-c', call], preexec_fn=confined(names),
                             capture_output=True, text=True).stdout.strip()
              for names in (allowed_names(), allowed_names() - IO_URING)]
    assert errors == ['14', '1']


def test_weir_serves_reloads_and_ends_under_the_profile(config):
    path, port = config
    weir = start(path, allowed_names())
    try:
        body = None
        for _ in range(100):
            assert weir.poll() is None, weir.stdout.read()
            try:
                body = urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        assert body == b'confined'
        path.write_text(path.read_text().replace('confined', 'reloaded'))
        weir.send_signal(signal.SIGHUP)
        for _ in range(100):
            body = urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=5).read()
            if body == b'reloaded':
                break
            time.sleep(0.05)
        assert body == b'reloaded'
        weir.send_signal(signal.SIGTERM)
        assert weir.wait(40) == 0, weir.stdout.read()
    finally:
        weir.kill()
        weir.wait()


def test_without_io_uring_weir_says_what_to_do(config):
    path, _ = config
    weir = start(path, allowed_names() - IO_URING)
    try:
        output, _ = weir.communicate(timeout=30)
    finally:
        weir.kill()
    assert weir.returncode == 1, output
    assert 'io_uring' in output and 'seccomp' in output, output
