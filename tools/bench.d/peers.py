"""The contenders: how weir, nginx and HAProxy are configured and started for one run."""

import dataclasses
import os
import pwd
import re
import resource

from system import find_program, output_of, read_text

HERE = os.path.dirname(os.path.abspath(__file__))

# What the body scenarios may ask for. nginx's default buffers are 2.6 to 3 times slower than the
# best of these: comparing with them would flatter weir.
NGINX_BUFFERS = {
    "": [],
    "direct 256k": [
        "proxy_buffering off;",
        "proxy_buffer_size 256k;",
        "proxy_buffers 8 256k;",
        "proxy_busy_buffers_size 512k;",
    ],
    "buffered 256k": [
        "proxy_buffer_size 256k;",
        "proxy_buffers 8 256k;",
        "proxy_busy_buffers_size 512k;",
    ],
}
# HAProxy: (tune.bufsize, splice-response).
HAPROXY_TUNING = {"": (None, False), "splice": (None, True), "bufsize 64k": (65536, False)}


@dataclasses.dataclass(frozen=True)
class Contender:
    peer: str  # weir, nginx or haproxy
    program: str
    variant: str = ""
    access_log: bool = False  # weir's is always on

    @property
    def label(self):
        parts = [self.peer, self.variant]
        if self.access_log and self.peer != "weir":
            parts.append("with access log")
        return " ".join(part for part in parts if part)

    def prepare(self, directory, port, origin_port, cpu):
        """Writes the config into the run's directory; returns the command."""
        log = os.path.join(directory, "access.log")
        values = {
            "DIR": directory,
            "PORT": port,
            "ORIGIN_PORT": origin_port,
            "CPU": cpu,
            "FILES": file_limit(),
        }
        if self.peer == "weir":
            values |= {"ACCESS_LOG": log, "MAXCONN": file_limit() // 2 + 2000}
            config = _write_config("weir.toml", directory, values)
            return [self.program, "run", "-c", config]
        if self.peer == "nginx":
            user = pwd.getpwuid(os.getuid()).pw_name
            values |= {
                "ACCESS_LOG": f"{log} combined buffer=64k" if self.access_log else "off",
                "USER": f"user {user};" if os.getuid() == 0 else "",
                "BUFFERS": "\n  ".join(NGINX_BUFFERS[self.variant]),
            }
            config = _write_config("nginx.conf", directory, values)
            error_log = os.path.join(directory, "nginx-error.log")
            return [self.program, "-p", directory, "-e", error_log, "-c", config]
        bufsize, splice = HAPROXY_TUNING[self.variant]
        # Two files for each connection under load; idle ones need only one (see haproxy.cfg).
        values |= {
            "MAXCONN": max(1024, file_limit() - 1500),
            "MAXPIPES": 256 if splice else 0,
            "BUFSIZE": f"tune.bufsize {bufsize}" if bufsize else "",
            "SPLICE": "option splice-response" if splice else "",
        }
        return [self.program, "-db", "-f", _write_config("haproxy.cfg", directory, values)]


def file_limit():
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_config(template, directory, values):
    text = read_text(os.path.join(HERE, template))
    body = re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), _without_comments(text))
    path = os.path.join(directory, template)
    with open(path, "w", encoding="utf-8") as file:
        file.write(body)
    return path


def _without_comments(text):
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


def version_of(peer, program):
    if peer == "nginx":
        return output_of([program, "-v"]).replace("nginx version: ", "")
    if peer == "haproxy":
        return (output_of([program, "-v"]).splitlines() or [""])[0]
    return (output_of([program, "--version"]).splitlines() or [""])[0]


def find_peers(names):
    """({peer: program}, [messages about those that are missing])."""
    found, missing = {}, []
    for name in names:
        program = find_program(name)
        if program:
            found[name] = program
        else:
            missing.append(f"{name} is not installed (apt install {name}): its ratio is missing")
    return found, missing
