"""Headless Chromium for tests, driven through its own pipe (the DevTools protocol, one JSON message
after the other, each ended by NUL), so that a test can reload a page, run script in it and see
what the browser itself says of every request. Everything a test starts ends with it, by
process group."""
import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time

import tls_rig
from ops_rig import need
from test_tls_browser import public_key_hash

OPTIONS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
           '--disable-background-networking', '--disable-component-update', '--disable-sync',
           '--disable-breakpad', '--disable-crash-reporter', '--disable-dev-shm-usage',
           '--no-proxy-server', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost',
           '--autoplay-policy=no-user-gesture-required', '--mute-audio', '--hide-scrollbars']


class Browser:
    """One Chromium with a fresh profile. It trusts this certificate besides those of the system."""

    def __init__(self, trusted=None):
        need('chromium')
        # Not in pytest's folder: the path of a Unix socket in it has to be below 108 bytes.
        self.home = tempfile.TemporaryDirectory(prefix='weir-br-', ignore_cleanup_errors=True)
        home = self.home.name
        options = [*OPTIONS, f'--user-data-dir={home}/profile', '--remote-debugging-pipe']
        if trusted:
            options.append(f'--ignore-certificate-errors-spki-list={public_key_hash(trusted)}')
        theirs, self.output = os.pipe()
        self.input, answers = os.pipe()
        # It takes commands from descriptor 3 and answers on 4.
        self.process = subprocess.Popen(
            ['bash', '-c', f'exec "$@" 3<&{theirs} 4>&{answers}', 'chromium', 'chromium', *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[theirs, answers], start_new_session=True,
            env={**os.environ, 'HOME': home, 'TMPDIR': home, 'XDG_CONFIG_HOME': home,
                 'XDG_CACHE_HOME': home})
        os.close(theirs)
        os.close(answers)
        self.pending = b''
        self.count = 0
        self.events = []  # of the page, in order

    def send(self, method, session=None, **parameters):
        self.count += 1
        message = {'id': self.count, 'method': method, 'params': parameters}
        if session:
            message['sessionId'] = session
        os.write(self.output, json.dumps(message).encode() + b'\0')
        return self.count

    def receive(self, end, what):
        while b'\0' not in self.pending:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.input], [], [], left)[0], f'no {what} in time'
            data = os.read(self.input, 1 << 16)
            assert data, f'Chromium ended before {what}: {self.process.poll()}'
            self.pending += data
        message, self.pending = self.pending.split(b'\0', 1)
        message = json.loads(message)
        if 'method' in message:
            self.events.append(message)
        return message

    def call(self, method, session=None, limit=30, **parameters):
        number = self.send(method, session, **parameters)
        end = time.monotonic() + tls_rig.seconds(limit)
        while (message := self.receive(end, f'answer to {method}')).get('id') != number:
            pass
        assert 'result' in message, (method, message)
        return message['result']

    def page(self, width=1000, height=800):
        return Page(self, width, height)

    def close(self):
        with contextlib.suppress(OSError):
            self.send('Browser.close')
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(tls_rig.seconds(5))
        # Its other processes are in its group, and some may outlive it for a moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.input)
        os.close(self.output)
        self.home.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Page:
    """A tab."""

    def __init__(self, browser, width, height):
        self.browser = browser
        target = browser.call('Target.createTarget', url='about:blank')['targetId']
        self.session = browser.call('Target.attachToTarget', targetId=target,
                                    flatten=True)['sessionId']
        self.call('Page.enable')
        self.call('Network.enable')
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def call(self, method, limit=30, **parameters):
        return self.browser.call(method, self.session, limit, **parameters)

    def wait_event(self, method, since, limit=60):
        """The first such event after the first `since` of all events."""
        end = time.monotonic() + tls_rig.seconds(limit)
        while True:
            for event in self.browser.events[since:]:
                if event['method'] == method and event.get('sessionId') == self.session:
                    return event['params']
            since = len(self.browser.events)
            self.browser.receive(end, method)

    def open(self, url, limit=60):
        """Goes there, and waits for the page's load event."""
        since = len(self.browser.events)
        answer = self.call('Page.navigate', url=url)
        assert not answer.get('errorText'), answer
        self.wait_event('Page.loadEventFired', since, limit)
        return self

    def reload(self, ignore_cache=False, limit=60):
        since = len(self.browser.events)
        self.call('Page.reload', ignoreCache=ignore_cache)
        self.wait_event('Page.loadEventFired', since, limit)
        return self

    def run(self, script, limit=60):
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call('Runtime.evaluate', limit, expression=script, awaitPromise=True,
                           returnByValue=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def colours(self, scheme):
        """What the page's style is told that the user prefers: "light" or "dark"."""
        self.call('Emulation.setEmulatedMedia',
                  features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def screenshot(self):
        """A PNG of the whole page."""
        answer = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        return base64.b64decode(answer['data'])

    def seen(self, method):
        """The parameters of all such events of this page, in order."""
        return [event['params'] for event in self.browser.events
                if event['method'] == method and event.get('sessionId') == self.session]
