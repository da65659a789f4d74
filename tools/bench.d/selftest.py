"""Does the load generator see what is wrong? It is run against itself and against an honest TLS
server (no error may be reported), and against servers that lie (each lie must be)."""

import json
import os
import socket
import ssl
import subprocess
import threading
import time

from system import Network

GOOD_BODY = bytes(ord("a") + i % 23 for i in range(128))
LARGE_BODY = bytes(ord("a") + i % 23 for i in range(65536))
HONEST_SECONDS = 0.4  # of a server that lies only when its records are no longer opened


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


def _errors_against(loadgen, answer, arguments=()):
    stop = threading.Event()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 8000))
        listener.listen(64)
        server = threading.Thread(target=_serve, args=(listener, answer, stop))
        server.start()
        try:
            return _loadgen(loadgen, "run", 8000, ["--connections", "4", *arguments])["error_kinds"]
        finally:
            stop.set()
            server.join()


class TlsServer:
    """Answers every request with `body`, `length` bytes of which it announces, on connections that
    stay or, if the client says so, end. Lies, once it is old enough, with a byte too many."""

    def __init__(self, pem, body, tickets=2, lies=False):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pem)
        self.context.set_alpn_protocols(["http/1.1"])
        self.context.num_tickets = tickets
        self.answer = _response(length=str(len(body)).encode(), body=body)
        self.lies = lies
        self.began = time.monotonic()
        self.stop = threading.Event()

    def _talk(self, connection):
        try:
            with self.context.wrap_socket(connection, server_side=True) as channel:
                channel.settimeout(0.3)
                seen = b""
                while not self.stop.is_set():
                    while b"\r\n\r\n" not in seen:
                        piece = channel.recv(4096)
                        if not piece:
                            return
                        seen += piece
                    head, _, seen = seen.partition(b"\r\n\r\n")
                    late = self.lies and time.monotonic() - self.began > HONEST_SECONDS
                    channel.sendall(self.answer + (b"x" if late else b""))
                    if b"Connection: close" in head:
                        channel.setblocking(False)
                        channel.unwrap()  # says close_notify; it would wait for one, too
        except OSError:  # ssl.SSLError is one
            pass

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 8000), backlog=64)
        self.listener.settimeout(0.1)
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()
        return self

    def _accept(self):
        talks = []
        while not self.stop.is_set():
            try:
                talks.append(threading.Thread(target=self._talk, args=(self.listener.accept()[0],)))
            except TimeoutError:
                continue
            talks[-1].start()
        for talk in talks:
            talk.join()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.listener.close()


PER_CONNECTION = ["--tls", "--connection-per-request"]
LARGE = ["--tls", "--size", "65536"]


def _run_tls(loadgen, pem):
    """Yields (what, is it as it should be)."""
    for title, body, arguments in (
        ("kept", GOOD_BODY, ["--tls"]),
        ("64 KiB", LARGE_BODY, LARGE),
        ("full handshakes", GOOD_BODY, PER_CONNECTION),
        ("by ticket", GOOD_BODY, [*PER_CONNECTION, "--resume"]),
    ):
        with TlsServer(pem, body):
            result = _loadgen(loadgen, "run", 8000, ["--connections", "4", *arguments])
        resumed = result["handshakes"] if "--resume" in arguments else 0
        good = result["errors"] == 0 and result["requests"] > 0 and result["resumed"] == resumed
        good = good and (arguments[1:2] != PER_CONNECTION[1:] or result["clean_ends"] > 0)
        yield f"TLS: {title}", good
    lies = [*LARGE, "--seconds", str(2 * HONEST_SECONDS)]
    for kind, server, arguments in (
        ("length", TlsServer(pem, LARGE_BODY, lies=True), lies),
        ("content", TlsServer(pem, b"x" * 128), ["--tls"]),
        ("resumption", TlsServer(pem, GOOD_BODY, tickets=0), [*PER_CONNECTION, "--resume"]),
    ):
        with server:
            result = _loadgen(loadgen, "run", 8000, ["--connections", "4", *arguments])
        yield f"TLS: a wrong {kind} is seen", result["error_kinds"][kind] > 0


def run(loadgen, pem):
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
    plain = _errors_against(loadgen, LIES["status"], ["--tls"])
    checks = [("TLS: a server without it is seen", plain["handshake"] > 0)]
    for what, good in [*checks, *_run_tls(loadgen, pem)]:
        failures += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}")
    return 1 if failures else 0
