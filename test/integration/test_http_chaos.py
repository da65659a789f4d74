"""Random clients against random origins, with few buffers and reloads in between. Whatever happens,
a response that looks whole is the right one, and in the end nothing is left over: no connection, no
buffer, no sanitizer's word."""
import contextlib
import functools
import hashlib
import os
import random
import re
import signal
import socket
import threading
import time

import pytest

from conftest import Client, Ended, one_listener, wait_until

SECONDS = float(os.environ.get('WEIR_CHAOS_SECONDS', '4'))
SEED = int(os.environ.get('WEIR_CHAOS_SEED', '1'))
SIZES = [0, 1, 50, 4000, 4096, 20000, 33000, 70000, 300000, 1500000]
WEIGHTS = [4, 4, 8, 4, 4, 4, 3, 3, 2, 1]


@functools.lru_cache(maxsize=64)
def content(size):
    return random.Random(size).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Plan:
    """What an origin does with the request for /SEED; the client works out the same."""

    def __init__(self, seed):
        order = random.Random(seed)
        self.size = order.choices(SIZES, WEIGHTS)[0]
        self.framing = order.choice(['length', 'length', 'chunked', 'close', 'old'])
        self.end = order.choices(['keep', 'close', 'cut', 'reset', 'nothing', 'garbage'],
                                 [30, 4, 2, 2, 1, 1])[0]
        if self.size < 50 and self.end in ('cut', 'reset'):
            self.end = 'keep'
        # Where the end of the connection ends the content, nobody can see a cut by FIN.
        if self.framing in ('close', 'old') and self.end == 'cut':
            self.end = 'reset'
        self.interims = order.choice([0, 0, 0, 1, 3])
        self.early = order.random() < 0.1
        self.pieces = order.choice([1, 1, 1, 3, 20])
        self.order = order

    def whole(self):
        return self.end in ('keep', 'close')


def send_in_pieces(connection, data, plan):
    size = max(1, len(data) // plan.pieces)
    for at in range(0, len(data), size):
        connection.send(data[at:at + size])
        if plan.pieces > 1:
            time.sleep(0.0005)


def framed(plan, body):
    if plan.framing != 'chunked':
        return body
    out, at = [], 0
    while at < len(body):
        size = plan.order.choice([1, 10, 1000, 5000, 66000])
        piece = body[at:at + size]
        out.append(b'%x\r\n%s\r\n' % (len(piece), piece))
        at += max(1, len(piece))
        if len(out) > 300:
            out.append(b'%x\r\n%s\r\n' % (len(body) - at, body[at:]) if at < len(body) else b'')
            break
    return b''.join(out) + b'0\r\n\r\n'


def serve(connection):
    while True:
        request = connection.read_request_head()
        plan = Plan(int(request.target[1:]))
        if not plan.early:
            connection.read_request_body(request)
        if plan.end == 'nothing':
            return
        if plan.end == 'garbage':
            connection.send(b'HTTP/1.1 OK 200\r\n\r\n' + content(100))
            return
        body = b'' if request.method == 'HEAD' else content(plan.size)
        head = [b'HTTP/1.1 103 Early Hints\r\n\r\n'] * plan.interims
        head.append(b'HTTP/1.0 200 OK\r\n' if plan.framing == 'old' else b'HTTP/1.1 200 OK\r\n')
        if not plan.early:
            head.append(b'X-Body: %s\r\n' % digest(request.body).encode())
        if plan.framing == 'length':
            head.append(b'Content-Length: %d\r\n' % plan.size)
        elif plan.framing == 'chunked':
            head.append(b'Transfer-Encoding: chunked\r\n')
        data = b''.join(head) + b'\r\n' + (b'' if request.method == 'HEAD' else framed(plan, body))
        if plan.end in ('cut', 'reset') and request.method != 'HEAD':
            send_in_pieces(connection, data[:-plan.order.randrange(1, 40)], plan)
            if plan.end == 'reset':
                connection.reset()
            return
        send_in_pieces(connection, data, plan)
        if plan.early:
            connection.read_request_body(request)
        if plan.end != 'keep' or plan.framing in ('close', 'old'):
            return


class Wanderer(threading.Thread):
    """A client that asks, waits, reads slowly, leaves, comes again, until `stop`."""

    def __init__(self, port, number, stop):
        super().__init__()
        self.port, self.stop_event = port, stop
        self.order = random.Random(SEED * 1000 + number)
        self.failures, self.whole, self.others = [], 0, 0

    def run(self):
        while not self.stop_event.is_set():
            try:
                with Client(self.port, receive_buffer=self.order.choice([None, None,
                                                                         4096])) as client:
                    client.send_failed = False
                    self.wander(client)
            except (Ended, OSError):
                self.others += 1
            except Exception as error:
                self.failures.append(repr(error))
                return

    def wander(self, client):
        for _ in range(self.order.randrange(1, 30)):
            if self.stop_event.is_set():
                return
            asked = [self.ask() for _ in range(self.order.choice([1, 1, 1, 2, 5]))]
            data = b''.join(request[-1] for request in asked)
            how = self.order.choices(['read', 'reset', 'close', 'late', 'part'], [40, 1, 1, 1,
                                                                                  1])[0]
            sender = threading.Thread(target=quietly, args=(client, data,
                                                            self.order.choice([1, 1, 9])))
            sender.start()
            try:
                if self.finish(client, how, asked):
                    return
            finally:
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_RDWR) if self.dead else None
                sender.join()

    dead = False

    def finish(self, client, how, asked):
        """Reads the answers, or leaves; true when the connection is over."""
        self.dead = True
        if how == 'part':
            client.fill()
        if how == 'late':
            time.sleep(0.002)
        if how in ('reset', 'close', 'part'):
            time.sleep(self.order.choice([0, 0, 0.001, 0.01]))
            client.reset() if how == 'reset' else client.close()
            return True
        for request in asked:
            if self.check(client, *request):
                return True
        self.dead = False
        return False

    def ask(self):
        seed = self.order.randrange(1 << 40)
        version = self.order.choice(['1.1', '1.1', '1.1', '1.0'])
        method = self.order.choice(['GET', 'GET', 'PUT', 'POST', 'HEAD'])
        body, fields = b'', ['Host: t']
        if version == '1.0':
            fields.append('Connection: keep-alive')
        data = b''
        if method in ('PUT', 'POST'):
            body = content(self.order.choices(SIZES, WEIGHTS)[0])
            if version == '1.1' and self.order.random() < 0.5:
                fields.append('Transfer-Encoding: chunked')
                step = self.order.choice([100000, 5000, max(100, len(body) // 50)])
                data = b''.join(b'%x\r\n%s\r\n' % (len(piece), piece)
                                for piece in (body[i:i + step] for i in range(0, len(body), step)))
                data += b'0\r\n\r\n'
            else:
                fields.append(f'Content-Length: {len(body)}')
                data = body
        head = f'{method} /{seed} HTTP/{version}\r\n' + ''.join(f'{f}\r\n' for f in fields) + '\r\n'
        return seed, version, method, body, head.encode() + data

    def check(self, client, seed, version, method, body, _):
        plan = Plan(seed)
        response = client.read_response(method)
        if response.status != 200:
            assert response.status in (502, 408), response
            # An origin that closed a connection that it said to keep is met with a retry only where
            # that is safe.
            unsafe = method == 'POST' or len(body) > 65536
            assert plan.end in ('nothing', 'garbage', 'reset', 'cut') or plan.early or unsafe, \
                (seed, method, plan.__dict__, response)
            self.others += 1
        else:
            self.whole += 1
            open_ended = method != 'HEAD' and response.get('Content-Length') is None
            if open_ended and not plan.whole():
                time.sleep(0.2)  # a send of ours may have met the reset that the reader misses now
                if client.send_failed:
                    raise Ended(reset=True)
            assert plan.whole() or method == 'HEAD', \
                (seed, version, 'what was cut looks whole', plan.__dict__, response)
            if method != 'HEAD':
                assert response.body == content(plan.size), (seed, 'a wrong body', plan.__dict__)
            if not plan.early:
                assert response.get('X-Body') == digest(body), (seed, 'a wrong request body')
        return response.get('Connection') == 'close'


def quietly(client, data, pieces):
    try:
        size = max(1, len(data) // pieces)
        for at in range(0, len(data), size):
            client.send(data[at:at + size])
    except OSError:
        client.send_failed = True


@pytest.mark.seconds(int(SECONDS) + 60)
@pytest.mark.parametrize('strategy', ['multishot', 'oneshot'])
@pytest.mark.parametrize('buffers', [32, 1024])
def test_chaos(start_weir, start_origin, strategy, buffers):
    origin = start_origin(serve)
    text = one_listener(
        f'[upstream.o]\nservers = ["{origin.address}"]\n[[route]]\nproxy = "o"\n'
        f'[performance]\nreceive_strategy = "{strategy}"\nreceive_buffers = {buffers}\n',
        'half_close_grace = "20ms"').replace('threads = 1', 'threads = 2')
    weir = start_weir(text)
    stop = threading.Event()
    wanderers = [Wanderer(weir.port(), number, stop) for number in range(6)]
    for wanderer in wanderers:
        wanderer.start()
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end and all(wanderer.is_alive() for wanderer in wanderers):
        time.sleep(0.1)
        weir.send_signal(signal.SIGHUP)
    stop.set()
    for wanderer in wanderers:
        wanderer.join()
    assert not [failure for wanderer in wanderers for failure in wanderer.failures]
    assert sum(wanderer.whole for wanderer in wanderers) > 20
    wait_until(lambda: nothing_left(weir), what='all connections and buffers given back')


def nothing_left(weir):
    before = len(weir.lines)
    weir.send_signal(signal.SIGUSR2)
    lines = wait_until(lambda: [line for line in weir.lines[before:] if ' stats core ' in line][1:])
    return all(re.search(r' connections=0 ', line) and re.search(r' buffers_in_use=0 ', line)
               for line in (line for line in weir.lines[before:]
                            if ' stats core ' in line)) and lines
