"""A runner of CI jobs, each in a container of its own, by a container engine (podman) inside the MicroVM.

    GET  /               the engine's version, and the images that jobs may name
    PUT  /images/NAME    makes an image of the body, a tarball of its root
    POST /jobs           runs a job; the answer comes once it has ended

A job is JSON such as {"image": "busybox", "script": "make test", "environment": {"CI": "1"}, "seconds": 600}; `script` is for the
image's sh, the rest is optional. The answer: {"exit": STATUS, "output": TEXT}, or {"timeout": SECONDS, "output": TEXT}.

The image "busybox" is made here of Debian's package. Lifecycle hooks are on port 9000: /ready answers once a first job has run,
so that every clone begins with a warm engine.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

READY = "/aws/lambda-microvms/runtime/v1/ready"
CGROUP = Path("/sys/fs/cgroup")
IMAGE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_BODY = 512 << 20
MAX_JOB = 1 << 20
MAX_OUTPUT = 4 << 20
DEFAULT_SECONDS = 600
MAX_SECONDS = 3600
# The library's servers look twice a second whether they are to end, which each of many idle clones would pay for.
WITHOUT_POLLING = None


class Refused(Exception):
    """What the client should hear, with this status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def share_cgroup() -> None:
    """Makes room for jobs' cgroups: one that has others below it may have no processes itself."""
    own = CGROUP / "runner"
    own.mkdir(exist_ok=True)
    for process in (CGROUP / "cgroup.procs").read_text().split():
        (own / "cgroup.procs").write_text(process)
    controllers = (CGROUP / "cgroup.controllers").read_text().split()
    (CGROUP / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def podman(*arguments: str, **options) -> bytes:
    done = subprocess.run(["podman", *arguments], capture_output=True, check=False, **options)
    if done.returncode != 0:
        raise Refused(500, done.stderr.decode(errors="replace").strip())
    return done.stdout


def import_image(name: str, root: bytes) -> None:
    if not IMAGE.fullmatch(name):
        raise Refused(400, f"an image's name is like {IMAGE.pattern}")
    podman("import", "--quiet", "-", f"localhost/{name}:latest", input=root)


def busybox() -> bytes:
    """A root with busybox in it, under all its names."""
    names = subprocess.run(["busybox", "--list"], capture_output=True, check=True, text=True).stdout.split()
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as root:
        root.add("/bin/busybox", "bin/busybox")
        for name in set(names) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            root.addfile(link)
        for directory in ("tmp", "root", "etc"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            root.addfile(entry)
    return content.getvalue()


class Job:
    """A job, from its request."""

    def __init__(self, request: object):
        if not isinstance(request, dict) or not isinstance(request.get("script"), str):
            raise Refused(400, 'a job is JSON such as {"script": "make test"}')
        self.script = request["script"]
        self.image = request.get("image", "busybox")
        if not isinstance(self.image, str) or not IMAGE.fullmatch(self.image):
            raise Refused(400, "image is the name of one that was put here")
        self.environment = request.get("environment", {})
        if not isinstance(self.environment, dict):
            raise Refused(400, "environment is an object of texts")
        self.seconds = request.get("seconds", DEFAULT_SECONDS)
        if not isinstance(self.seconds, (int, float)) or not 0 < self.seconds <= MAX_SECONDS:
            raise Refused(400, f"seconds is a number above 0, at most {MAX_SECONDS}")

    def run(self) -> dict:
        """Runs it in a container, which is gone afterwards."""
        name = f"job-{uuid.UUID(bytes=os.getrandom(16), version=4)}"
        variables = [f"--env={key}={value}" for key, value in self.environment.items()]
        command = ["podman", "run", "--rm", "--interactive", f"--name={name}", "--pull=never", *variables]
        command += [f"localhost/{self.image}:latest", "sh", "-s"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(self.script.encode(), timeout=self.seconds)
            end = {"exit": process.returncode}
        except subprocess.TimeoutExpired:
            podman("kill", name)
            output, _ = process.communicate()
            end = {"timeout": self.seconds}
        return end | {"output": output[-MAX_OUTPUT:].decode(errors="replace")}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def attempt(self, work) -> None:
        try:
            self.answer(200, work())
        except Refused as refused:
            self.answer(refused.status, {"message": str(refused)})

    def body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > most:
            self.close_connection = True
            raise Refused(413, f"a body has a Content-Length, of at most {most} bytes")
        return self.rfile.read(int(length))

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Runner(Handler):
    def do_GET(self) -> None:
        self.attempt(self.about)

    def do_PUT(self) -> None:
        self.attempt(self.put)

    def do_POST(self) -> None:
        self.attempt(self.run)

    def about(self) -> dict:
        if self.path != "/":
            raise Refused(404, f"nothing at {self.path}")
        images = podman("images", "--format={{.Repository}}").decode().split()
        return {
            "engine": podman("--version").decode().strip(),
            "images": sorted(image.removeprefix("localhost/") for image in images),
        }

    def put(self) -> dict:
        root = self.body(MAX_BODY)
        if not self.path.startswith("/images/"):
            raise Refused(404, f"nothing to put at {self.path}")
        import_image(self.path.removeprefix("/images/"), root)
        return {"bytes": len(root)}

    def run(self) -> dict:
        body = self.body(MAX_JOB)
        if self.path != "/jobs":
            raise Refused(404, f"nothing to post to at {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Refused(400, f"the body is no JSON: {error}") from error
        return Job(request).run()


class Hooks(Handler):
    ready = threading.Event()

    def do_POST(self) -> None:
        self.attempt(self.hook)

    def hook(self) -> dict:
        self.body(MAX_JOB)
        if self.path != READY:
            raise Refused(404, f"no hook at {self.path}")
        if not self.ready.is_set():
            raise Refused(503, "the first job has not run yet")
        return {}


def warm_up() -> None:
    try:
        import_image("busybox", busybox())
        first = Job({"script": "echo warm"}).run()
    except Refused as refused:
        first = str(refused)
    if first != {"exit": 0, "output": "warm\n"}:
        # An image that runs no jobs is of no use: its build fails, and this is in its log.
        print(f"the first job did not do: {first}", file=sys.stderr, flush=True)
        os._exit(1)
    Hooks.ready.set()


def serve() -> None:
    hooks = ThreadingHTTPServer(("", int(os.environ.get("HOOKS_PORT", "9000"))), Hooks)
    threading.Thread(target=hooks.serve_forever, args=(WITHOUT_POLLING,), daemon=True).start()
    runner = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Runner)
    threading.Thread(target=warm_up, daemon=True).start()
    runner.serve_forever(WITHOUT_POLLING)


def main() -> None:
    share_cgroup()
    # The container's first process inherits what the engine leaves behind, and has to wait for it; its child serves.
    child = os.fork()
    if child == 0:
        serve()
    while True:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
