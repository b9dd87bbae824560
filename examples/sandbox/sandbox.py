"""A sandbox for commands of agents and of people, on port 8080: what it runs has a virtual machine to itself.

    POST /run           runs a command and streams what becomes of it, a line of JSON for each piece
    GET  /files/PATH    a file's bytes, or the names in a folder as JSON
    PUT  /files/PATH    writes the body to a file; folders above it are made
    DELETE /files/PATH  removes a file

/run takes JSON such as {"command": "make test", "stdin": "", "directory": "src", "environment": {"CI": "1"}, "seconds": 60}.
`command` is for bash; the rest is optional. The answer's lines are {"stdout": TEXT}, {"stderr": TEXT} and, last,
{"exit": STATUS}, {"signal": NUMBER}, or {"timeout": SECONDS} where it was killed. Whoever hangs up has it killed too.
What a command leaves running in the background goes on. PATH and `directory` are below the directory that this was
started in, unless they begin with / (as in /files//etc/hostname).
"""

import codecs
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_BODY = 64 << 20
DEFAULT_SECONDS = 60
MAX_SECONDS = 3600
PIECE = 1 << 16
FILES = "/files/"
# The library's servers look twice a second whether they are to end, which each of many idle clones would pay for.
WITHOUT_POLLING = None


class Refused(Exception):
    """What the client should hear, with this status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Command:
    """A running command, from its request."""

    def __init__(self, request: object):
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            raise Refused(400, 'the body is JSON such as {"command": "ls"}')
        self.seconds = request.get("seconds", DEFAULT_SECONDS)
        if not isinstance(self.seconds, (int, float)) or not 0 < self.seconds <= MAX_SECONDS:
            raise Refused(400, f"seconds is a number above 0, at most {MAX_SECONDS}")
        stdin, environment = request.get("stdin", ""), request.get("environment", {})
        if not isinstance(stdin, str) or not isinstance(environment, dict):
            raise Refused(400, "stdin is a text, environment an object of texts")
        self.stdin = memoryview(stdin.encode())
        try:
            self.process = subprocess.Popen(
                ["bash", "-c", request["command"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=request.get("directory", "."),
                env=os.environ | environment,
                start_new_session=True,
            )
        except (OSError, TypeError, ValueError) as error:
            raise Refused(400, f"cannot run the command: {error}") from error

    def pieces(self, client):
        """What it prints, as it prints it, and then how it ended. It is killed once `client`, a socket, is hung up."""
        process, deadline = self.process, time.monotonic() + self.seconds
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        with selectors.DefaultSelector() as selector:
            ended = os.pidfd_open(process.pid)
            for name in decoders:
                os.set_blocking(getattr(process, name).fileno(), False)
                selector.register(getattr(process, name), selectors.EVENT_READ, name)
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
            selector.register(client, selectors.EVENT_READ, "client")
            selector.register(ended, selectors.EVENT_READ, "end")
            try:
                while True:
                    events = selector.select(max(0, deadline - time.monotonic()))
                    ready = {key.data: key.fileobj for key, _ in events}
                    if "stdin" in ready and not self.feed():
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    has_ended = "end" in ready
                    for name in decoders.keys() if has_ended else decoders.keys() & ready.keys():
                        data = self.printed(name)
                        if not data and not has_ended:
                            selector.unregister(ready[name])
                        if text := decoders[name].decode(data, final=not data or has_ended):
                            yield {name: text}
                    # Its pipes may stay open in what it left in the background; what it has printed itself is read by now.
                    if has_ended:
                        status = process.wait()
                        yield {"exit": status} if status >= 0 else {"signal": -status}
                        return
                    if "client" in ready and not client.recv(PIECE):
                        return
                    if time.monotonic() >= deadline:
                        yield {"timeout": self.seconds}
                        return
            finally:
                os.close(ended)
                self.end()

    def printed(self, name: str) -> bytes:
        """What is in the pipe, all of which is at most a piece; nothing where nothing is, or nothing will be."""
        try:
            return os.read(getattr(self.process, name).fileno(), PIECE)
        except BlockingIOError:
            return b""

    def feed(self) -> bool:
        """Whether there is more to write to its input."""
        try:
            self.stdin = self.stdin[os.write(self.process.stdin.fileno(), self.stdin[:PIECE]) :]
        except BrokenPipeError:
            return False
        return len(self.stdin) > 0

    def end(self) -> None:
        """Kills it with all that it has started, unless it has ended by itself."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


class Sandbox(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.attempt(self.run)

    def do_GET(self) -> None:
        self.attempt(self.read)

    def do_PUT(self) -> None:
        self.attempt(self.write)

    def do_DELETE(self) -> None:
        self.attempt(self.remove)

    def attempt(self, work) -> None:
        try:
            work()
        except Refused as refused:
            self.answer(refused.status, {"message": str(refused)})
        except FileNotFoundError as error:
            self.answer(404, {"message": str(error)})
        except OSError as error:
            self.answer(409, {"message": str(error)})

    def run(self) -> None:
        body = self.body()
        if urlsplit(self.path).path != "/run":
            raise Refused(404, f"nothing to post to at {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Refused(400, f"the body is no JSON: {error}") from error
        command = Command(request)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        pieces = command.pieces(self.connection)
        try:
            for piece in pieces:
                self.wfile.write(json.dumps(piece).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            pieces.close()

    def read(self) -> None:
        path = self.file()
        if path.is_dir():
            self.answer(200, sorted(path.name + "/" * path.is_dir() for path in path.iterdir()))
        else:
            self.answer_bytes(200, "application/octet-stream", path.read_bytes())

    def write(self) -> None:
        body, path = self.body(), self.file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self.answer(200, {"bytes": len(body)})

    def remove(self) -> None:
        self.file().unlink()
        self.answer(200, {})

    def file(self) -> Path:
        path = unquote(urlsplit(self.path).path)
        if not path.startswith(FILES):
            raise Refused(404, f"nothing at {path}")
        return Path(path.removeprefix(FILES))

    def body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"a body has a Content-Length, of at most {MAX_BODY} bytes")
        return self.rfile.read(int(length))

    def answer(self, status: int, content: object) -> None:
        self.answer_bytes(status, "application/json", json.dumps(content).encode() + b"\n")

    def answer_bytes(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Sandbox)
    if os.getpid() != 1:
        server.serve_forever(WITHOUT_POLLING)
    # The container's first process inherits what commands leave behind, and has to wait for it; its child serves.
    child = os.fork()
    if child == 0:
        server.serve_forever(WITHOUT_POLLING)
    while True:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
