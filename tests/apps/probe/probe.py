"""What the end-to-end tests look at a MicroVM with: examples/hello, whose `app.py` is beside this file in the artifact,
with hooks that fail to order and with more to ask for.

    GET  /file?path=P               a file, such as /proc/self/status
    GET  /connect?host=H&port=P     whether a TCP connection is made within a second
    GET  /datagram?host=H&port=P&bytes=N
                                    whether a datagram of N bytes comes back within a second
    GET  /names?server=S&name=N     how many addresses a name server tells, over UDP and over TCP
    GET  /send?host=H&port=P&mib=N  sends N MiB over a TCP connection, and waits until the other side has closed it
    GET  /hold?host=H&port=P        opens a TCP connection and keeps it
    GET  /held                      the name of the error that it has met, or null while it is open
    GET  /stream?count=N            N lines, one every tenth of a second
    GET  /fill?mib=N                fills N MiB of memory, no page of it zeros; the checksum of that
    GET  /filled                    the checksum of what is there now
    GET  /store?mib=N               writes N MiB to a file, down to the disk; the checksum of that
    GET  /stored                    the checksum of what is in it now
    GET  /headers                   the request's own headers
    GET  /confinement               what comes of asking for more than a container may have (see confinement.py)
    GET  /environment               the process's environment
    GET  /clocks                    every clock, in nanoseconds
    GET  /tls                       the beginning of a TLS connection that is made at random
    GET  /pauses                    the moments around which the application did not run, since its start or since
    POST /pauses                    which begins to look for them anew (see stamps.py)
    GET  /keepsakes                 what has become of what the application holds since its start or since
    POST /keepsakes?seconds=S       which makes it anew, with timers that end then (see keepsakes.py)
    POST /listen?echo=P&https=Q     begins to listen on other ports (see listeners.py)
    GET  /metadata?path=P           what the metadata service has there: with a token of the request's own, or `token`'s;
                                    as the user `uid`, if given
    GET  /metadata/token?ttl=S      what it answers to the wish for a token; `method` is another than PUT
    GET  /metadata/before           its credentials at the application's start, from before the snapshot
    POST /ledger                    begins to write a database (see ledger.py)
    GET  /ledger                    its last row that is committed
    GET  /ledger/row?number=N       one row
    GET  /ledger/check?whole=1      whether it is whole: since the check before, or from its first row on

How a hook behaves is JSON such as {"status": 500, "delay": 2, "unavailable": 3}: the status to answer, the seconds to
take, and how many calls to answer 503 at first. The build's hooks find it in the variables PROBE_READY and
PROBE_VALIDATE, the others under their name in the run hook's payload. PROBE_EXIT ends the application at its start.
Asked to end, it says so and does.
"""

import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import app
import listeners
import metadata
import names
from keepsakes import Keepsakes
from ledger import Ledger

CONNECT_TIMEOUT = 1.0
STREAM_PAUSE = 0.1
MIB = 1 << 20
STORED = Path("/app/stored")


class Pauses:
    """Looks for moments without a run, in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "stamps.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # Not ready before it looks.
        self.process.stdout.readline()
        self.found: list | None = None

    def stop(self) -> list:
        if self.found is None:
            self.found = json.loads(self.process.communicate("stop")[0])
        return self.found


class App(app.App):
    held: socket.socket
    pauses: Pauses
    keepsakes: Keepsakes
    ledger: Ledger
    credentials_before: dict
    filled = bytearray()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        match url.path:
            case "/file":
                self.file(query["path"])
            case "/connect":
                self.answer(200, connect(query["host"], int(query["port"])))
            case "/names":
                self.answer(200, names.ask(query["server"], query["name"]))
            case "/datagram":
                self.answer(200, datagram(query["host"], int(query["port"]), int(query["bytes"])))
            case "/send":
                self.answer(200, send(query["host"], int(query["port"]), int(query["mib"])))
            case "/hold":
                App.held = socket.create_connection((query["host"], int(query["port"])), CONNECT_TIMEOUT)
                self.answer(200, {"held": True})
            case "/held":
                self.answer(200, {"error": error_of(App.held)})
            case "/stream":
                self.stream(int(query["count"]))
            case "/fill":
                self.fill(int(query["mib"]))
                self.answer(200, {"checksum": zlib.crc32(App.filled)})
            case "/filled":
                self.answer(200, {"checksum": zlib.crc32(App.filled)})
            case "/store":
                self.answer(200, {"checksum": store(int(query["mib"]))})
            case "/stored":
                self.answer(200, {"checksum": zlib.crc32(STORED.read_bytes())})
            case "/headers":
                self.answer(200, {name.lower(): value for name, value in self.headers.items()})
            case "/confinement":
                self.answer(200, json.loads(subprocess.check_output([sys.executable, "confinement.py"])))
            case "/environment":
                self.answer(200, dict(os.environ))
            case "/clocks":
                self.answer(200, clocks())
            case "/tls":
                self.answer(200, client_hello())
            case "/pauses":
                self.answer(200, {"pauses": App.pauses.stop()})
            case "/keepsakes":
                self.answer(200, {"kept": App.keepsakes.look(), "timers": App.keepsakes.timers()})
            case "/metadata" if "uid" in query:
                self.answer(200, metadata.get_as(int(query["uid"]), query["path"]))
            case "/metadata":
                self.answer(200, metadata.get(query["path"], query.get("token")))
            case "/metadata/token":
                headers = {metadata.TTL: query["ttl"]} if "ttl" in query else {}
                self.answer(200, metadata.request(query.get("method", "PUT"), "/latest/api/token", headers))
            case "/metadata/before":
                self.answer(200, App.credentials_before)
            case "/ledger":
                self.answer(200, App.ledger.state())
            case "/ledger/row":
                self.answer(200, App.ledger.row(int(query["number"])))
            case "/ledger/check":
                self.answer(200, App.ledger.check("whole" in query))
            case _:
                super().do_GET()

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/pauses":
                App.pauses = Pauses()
            case "/keepsakes":
                App.keepsakes = Keepsakes("again", float(parse_qs(url.query)["seconds"][0]))
            case "/listen":
                query = parse_qs(url.query)
                listeners.echo(int(query["echo"][0]))
                listeners.https(int(query["https"][0]))
            case "/ledger":
                App.ledger = Ledger(Path("/app/ledger.db"))
            case _:
                return super().do_POST()
        self.read_body()
        self.answer(200, {})

    def fill(self, mib: int) -> None:
        # In place, so that no more is written than was asked for.
        if len(App.filled) != mib * MIB:
            App.filled = bytearray(mib * MIB)
        block = os.urandom(MIB)
        for at in range(0, len(App.filled), MIB):
            App.filled[at : at + MIB] = block

    def file(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                self.answer(200, {"text": file.read()})
        except OSError as error:
            self.answer(404, {"message": str(error)})

    def stream(self, count: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(count):
            time.sleep(STREAM_PAUSE)
            line = f"line {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")


def store(mib: int) -> int:
    content = os.urandom(MIB) * mib
    with STORED.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return zlib.crc32(content)


def clocks() -> dict:
    names = {"wall": "REALTIME", "monotonic": "MONOTONIC", "boottime": "BOOTTIME"}
    return {name: time.clock_gettime_ns(getattr(time, f"CLOCK_{clock}")) for name, clock in names.items()}


def client_hello() -> dict:
    """The first message of a connection: its random bytes and its ephemeral key are all in it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.com")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    # Record header 5, message header 4, version 2.
    return {"random": hello[11:43].hex(), "hello": hello.hex()}


def connect(host: str, port: int) -> dict:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        return {"reached": False, "error": str(error)}
    return {"reached": True}


def datagram(host: str, port: int, count: int) -> dict:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as client:
        client.settimeout(CONNECT_TIMEOUT)
        try:
            client.connect(address)
            client.send(bytes(count))
            return {"came_back": len(client.recv(count + 1))}
        except OSError as error:
            return {"came_back": None, "error": str(error)}


def send(host: str, port: int, mib: int) -> dict:
    with socket.create_connection((host, port)) as connection:
        text = bytes(MIB)
        for _ in range(mib):
            connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return {"sent": mib}


def error_of(connection: socket.socket) -> str | None:
    connection.setblocking(False)
    try:
        return None if connection.recv(1) else "EOF"
    except BlockingIOError:
        return None
    except OSError as error:
        return errno.errorcode[error.errno]


class Hooks(app.Hooks):
    def call(self, name: str, body: bytes) -> None:
        if name == "run":
            # The first life has begun.
            App.pauses.stop()
        behaviour = self.behaviour(name, body)
        time.sleep(behaviour.get("delay", 0))
        status = behaviour.get("status", 200)
        if self.state.hooks[name] < behaviour.get("unavailable", 0):
            status = 503
        if status == 200:
            super().call(name, body)
        else:
            self.state.hook_called(name, body)
            self.answer(status, {"hook": name})

    def behaviour(self, name: str, body: bytes) -> dict:
        if name in ("ready", "validate"):
            return json.loads(os.environ.get(f"PROBE_{name.upper()}", "{}"))
        payload = json.loads(body).get("runHookPayload") if name == "run" else self.state.run_hook_payload
        return json.loads(payload or "{}").get(name, {})


def end(number: int, _frame) -> None:
    print(f"ending by {signal.Signals(number).name}", flush=True)
    os._exit(3)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    if "PROBE_EXIT" in os.environ:
        print("ending as PROBE_EXIT says", file=sys.stderr, flush=True)
        sys.exit(int(os.environ["PROBE_EXIT"]))
    app.App, app.Hooks = App, Hooks
    # From before the snapshot; these timers outlast every test.
    App.pauses, App.keepsakes = Pauses(), Keepsakes("first", 1e6)
    App.credentials_before = metadata.get(metadata.PROFILE)
    app.main()


if __name__ == "__main__":
    main()
