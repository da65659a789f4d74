"""WebSocket by a library that others wrote (python3-websockets), as client and as server, in plain,
over TLS to weir and over TLS to the origin."""
import asyncio
import os
import threading

import pytest

import conftest
import tls_rig
from tls_rig import MiB, pki, rig

try:
    import websockets
except ImportError:
    websockets = None

__all__ = ['rig']
pytestmark = pytest.mark.seconds(tls_rig.seconds(120))


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


class EchoServer:
    """An echo server of the library, in a thread of its own."""

    def __init__(self, context=None):
        self.context = context
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)
        self.address = f'127.0.0.1:{self.port}'

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self):
        self.over = asyncio.Event()
        async with websockets.serve(echo, '127.0.0.1', 0, ssl=self.context, max_size=None,
                                    compression=None, backlog=2000) as server:
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            await self.over.wait()

    def stop(self):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(20)


@pytest.fixture(params=['plain', 'tls', 'tls upstream'])
def url(rig, request):
    """Of a weir before an echo server, and what a client needs to trust it."""
    if websockets is None:
        pytest.fail('python3-websockets is not installed: tools/setup')
    upstream = request.param == 'tls upstream'
    server = EchoServer(tls_rig.server_context() if upstream else None)
    secure = request.param == 'tls'
    if upstream:
        route = (f'[upstream.app]\nservers = ["https://{server.address}"]\n'
                 f'tls_ca_path = "{pki().ca_file}"\ntls_server_name = "a.test"\n'
                 '[[route]]\nproxy = "app"\n')
    else:
        route = f'[[route]]\nproxy = "http://{server.address}"\n'
    weir = rig.weir(tls_rig.config(route) if secure else conftest.one_listener(route))
    context = None
    if secure:
        context = tls_rig.client_context()
        context.check_hostname = False
    yield f'{"wss" if secure else "ws"}://127.0.0.1:{weir.port}/echo', context, weir
    server.stop()


def connect(url, **more):
    address, context, _ = url
    return websockets.connect(address, ssl=context, max_size=None, compression=None,
                              open_timeout=60, **more)


def test_messages(url):
    async def talk():
        async with connect(url) as websocket:
            for message in ('gr\u00fc\u00dfe', '', b'', bytes(range(256)) * 1000, 'x' * MiB):
                await websocket.send(message)
                assert await websocket.recv() == message
            await (await websocket.ping(b'there?'))
            await websocket.send([b'in ', b'three ', b'fragments'])
            assert await websocket.recv() == b'in three fragments'

    asyncio.run(talk())
    assert url[2].line(status=101).get('reason') in (None, '')


def test_100_mib(url):
    message = os.urandom(MiB) * 100

    async def talk():
        async with connect(url, ping_interval=None) as websocket:
            await websocket.send(message)
            assert await websocket.recv() == message

    asyncio.run(talk())


def test_many_at_once(url):
    count = 1000 if url[1] is None else 200  # handshakes in Python, and in a sanitizer

    async def one(number, all_here):
        async with connect(url) as websocket:
            await all_here.wait()
            for turn in range(3):
                await websocket.send(f'{number} {turn}')
                assert await websocket.recv() == f'{number} {turn}'

    async def talk():
        all_here = asyncio.Event()
        tasks = [asyncio.create_task(one(number, all_here)) for number in range(count)]
        while url[2].stats()['connections'] < count:
            for task in tasks:
                assert not task.done(), task.result()
            await asyncio.sleep(0.2)
        all_here.set()
        await asyncio.gather(*tasks)

    asyncio.run(talk())
