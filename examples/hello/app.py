"""A small application for Rekindle: HTTP on 8080, lifecycle hooks on 9000, the standard library only.

    GET  /              a greeting, with what the hooks have told so far
    GET  /counter       the counter, in memory and in a file: both must survive suspend and resume
    POST /counter       adds one to both
    GET  /random        what the kernel's random generator gives: differs between clones
    GET  /time          wall and monotonic clock, and how long this process thinks it has lived
    GET  /exit?code=N   ends the process with status N, once the answer is sent
"""

import json
import os
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HOOK_PREFIX = "/aws/lambda-microvms/runtime/v1/"
HOOKS = ("ready", "validate", "run", "resume", "suspend", "terminate")
MAX_BODY = 1 << 20
# The library's servers look twice a second whether they are to end, which each of many idle clones would pay for.
WITHOUT_POLLING = None


class State:
    """What the application remembers: in memory, and the counter in a file as well."""

    def __init__(self, counter_file: Path):
        self.lock = threading.Lock()
        self.counter_file = counter_file
        self.counter = 0
        self.hooks: dict[str, int] = dict.fromkeys(HOOKS, 0)
        self.microvm_id: str | None = None
        self.run_hook_payload: str | None = None
        self.started = time.monotonic()
        counter_file.write_text("0")

    def increment(self) -> dict:
        with self.lock:
            self.counter += 1
            self.counter_file.write_text(str(int(self.counter_file.read_text()) + 1))
        return self.counts()

    def counts(self) -> dict:
        with self.lock:
            return {"memory": self.counter, "file": int(self.counter_file.read_text())}

    def hook_called(self, name: str, body: bytes) -> None:
        message = json.loads(body) if name == "run" and body else None
        with self.lock:
            if message is not None:
                self.microvm_id = message.get("microvmId")
                self.run_hook_payload = message.get("runHookPayload")
            self.hooks[name] += 1

    def summary(self) -> dict:
        with self.lock:
            return {
                "message": "Hello from Rekindle",
                "microvmId": self.microvm_id,
                "runHookPayload": self.run_hook_payload,
                "hooks": dict(self.hooks),
            }


class Handler(BaseHTTPRequestHandler):
    """What both servers share: HTTP/1.1, JSON answers, one short log line per request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_body(self) -> bytes | None:
        """The request's body; None, with the connection closed after the answer, if it is malformed or too long."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            return None
        return self.rfile.read(length)

    def log_message(self, format: str, *args: object) -> None:
        print(f"{self.server.server_port}: {format % args}", flush=True)


class App(Handler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/":
                self.answer(200, self.state.summary())
            case "/counter":
                self.answer(200, self.state.counts())
            case "/random":
                self.answer(200, {"hex": os.getrandom(32).hex(), "uuid": str(uuid.uuid4())})
            case "/time":
                self.answer(200, self.clocks())
            case "/exit":
                self.leave(parse_qs(url.query))
            case _:
                self.answer(404, {"message": f"nothing at {url.path}"})

    def do_POST(self) -> None:
        if self.read_body() is None:
            self.answer(413, {"message": f"a body has at most {MAX_BODY} bytes"})
        elif urlsplit(self.path).path == "/counter":
            self.answer(200, self.state.increment())
        else:
            self.answer(404, {"message": f"nothing to post to at {self.path}"})

    def clocks(self) -> dict:
        monotonic = time.monotonic()
        return {"wall": time.time(), "monotonic": monotonic, "uptime": monotonic - self.state.started}

    def leave(self, query: dict[str, list[str]]) -> None:
        code = query.get("code", ["0"])[0]
        if not code.isdigit() or int(code) > 255:
            self.answer(400, {"message": "code is a number from 0 to 255"})
            return
        self.answer(200, {"exiting": int(code)})
        self.wfile.flush()
        # Not sys.exit, which would end only this request's thread.
        os._exit(int(code))


class Hooks(Handler):
    def do_POST(self) -> None:
        body = self.read_body()
        name = self.path.removeprefix(HOOK_PREFIX)
        if body is None:
            self.answer(413, {"message": f"a body has at most {MAX_BODY} bytes"})
        elif name not in HOOKS or not self.path.startswith(HOOK_PREFIX):
            self.answer(404, {"message": f"no hook at {self.path}"})
        else:
            self.call(name, body)

    def call(self, name: str, body: bytes) -> None:
        try:
            self.state.hook_called(name, body)
        except (ValueError, AttributeError) as error:
            self.answer(400, {"message": f"the {name} hook's body is not the JSON object it should be: {error}"})
        else:
            self.answer(200, {"hook": name})


def main() -> None:
    state = State(Path(os.environ.get("COUNTER_FILE", "/app/counter")))
    Handler.state = state
    hooks = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("HOOKS_PORT", "9000"))), Hooks)
    app = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), App)
    threading.Thread(target=hooks.serve_forever, args=(WITHOUT_POLLING,), daemon=True).start()
    print(f"listening on {app.server_port}, hooks on {hooks.server_port}", file=sys.stderr, flush=True)
    app.serve_forever(WITHOUT_POLLING)


if __name__ == "__main__":
    main()
