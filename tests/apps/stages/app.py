"""Tells what the Dockerfile beside it made: a build that uses stages, arguments, a heredoc, a user and .dockerignore."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MADE = Path("made")


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        told = {
            "greeting": (MADE / "greeting").read_text(),
            "context": (MADE / "context").read_text().split(),
            "uid": os.getuid(),
            "folder": os.getcwd(),
            "owner": MADE.stat().st_uid,
            "laid": sorted(str(path) for path in Path("/laid").rglob("*")),
            "skeleton": os.listdir("/etc/skel"),
            "issue": Path("/etc/issue").exists(),
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8080), App).serve_forever()
