"""A pytest plugin (-p tls_stat_plugin): what each test changed in /proc/net/tls_stat, as a line of
JSON in the file $TLS_STAT_LOG: {"test": ..., "seconds": ..., "TlsTxSw": 2, ...}. Only counters that
count events (not the sockets open now), and only those that grew. With the fixtures of the test,
thus also with the self-test of a weir that it starts."""
import json
import os
import pathlib
import time

import pytest


def tls_stat():
    lines = pathlib.Path('/proc/net/tls_stat').read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)
            if not name.startswith('TlsCurr')}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    before, began = tls_stat(), time.monotonic()
    yield
    grown = {name: value - before[name] for name, value in tls_stat().items()
             if value != before[name]}
    with open(os.environ['TLS_STAT_LOG'], 'a', encoding='utf-8') as log:
        seconds = round(time.monotonic() - began, 2)
        log.write(json.dumps({'test': item.nodeid, 'seconds': seconds, **grown}) + '\n')
