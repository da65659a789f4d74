"""Does the load generator see what is wrong? It is run against itself (no error may be reported)
and against servers that lie (each lie must be)."""

import json
import os
import socket
import subprocess
import threading

from system import Network

GOOD_BODY = bytes(ord("a") + i % 23 for i in range(128))


def _response(status=b"200 OK", length=b"128", body=GOOD_BODY, extra=b""):
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: " + length + b"\r\n"
    return head + extra + b"\r\n" + body


# kind of error that loadgen must count -> what the lying server sends to every request
LIES = {
    "status": _response(status=b"502 Bad Gateway"),
    "length": _response(length=b"127", body=GOOD_BODY[:127]),
    "content": _response(body=b"x" * 128),
    "malformed": _response(extra=b"Transfer-Encoding: chunked\r\n"),
    "closed": b"HTTP/1.1 200 OK\r\nContent-Le",
}


def _serve(listener, answer, stop):
    """Answers each request once and, like a server that broke down, hangs up."""
    listener.settimeout(0.1)
    while not stop.is_set():
        try:
            connection = listener.accept()[0]
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(1.0)
            try:
                seen = b""
                while b"\r\n\r\n" not in seen and (piece := connection.recv(4096)):
                    seen += piece
                connection.sendall(answer)
            except OSError:
                pass


def _loadgen(loadgen, mode, target, arguments):
    command = [loadgen, mode, "--origin-port", "9000", "--target-port", str(target)]
    command += ["--seconds", "0.2", "--warm", "0.1", "--pids", str(os.getpid()), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True
    )
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def _errors_against(loadgen, answer):
    stop = threading.Event()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 8000))
        listener.listen(64)
        server = threading.Thread(target=_serve, args=(listener, answer, stop))
        server.start()
        try:
            return _loadgen(loadgen, "run", 8000, ["--connections", "4"])["error_kinds"]
        finally:
            stop.set()
            server.join()


def run(loadgen):
    Network().renew()
    failures = 0
    for mode, arguments in (
        ("run", ["--size", "128"]),
        ("run", ["--size", "65536"]),
        ("run", ["--size", "1048576", "--connections", "16"]),
        ("run", ["--connection-per-request"]),
        ("idle", ["--connections", "500"]),
    ):
        result = _loadgen(loadgen, mode, 9000, arguments)
        answered = result.get("requests", result.get("answered_again", 0))
        good = result["errors"] == 0 and answered > 0
        failures += not good
        print(f"{'ok  ' if good else 'FAIL'} itself: {mode} {' '.join(arguments)}")
    for kind, answer in LIES.items():
        counted = _errors_against(loadgen, answer)
        good = counted[kind] > 0
        failures += not good
        print(f"{'ok  ' if good else 'FAIL'} a wrong {kind} is seen: {counted[kind]}")
    return 1 if failures else 0
