"""A notebook server behind an endpoint of Rekindle, whose kernel is warm before the snapshot.

The server is on port 8080. Lifecycle hooks are on port 9000: /ready answers once the kernel of welcome.ipynb has run a cell, so
that every clone begins with a notebook that computes at once.
"""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jupyter_client import BlockingKernelClient
from jupyter_core.paths import jupyter_runtime_dir

PORT = 8080
HOOKS_PORT = 9000
READY = "/aws/lambda-microvms/runtime/v1/ready"
NOTEBOOK = "welcome.ipynb"
# The library's servers look twice a second whether they are to end, which each of many idle clones would pay for.
WITHOUT_POLLING = None
# For the kernel to start, which takes an emulated processor half a minute.
SECONDS = 240

c = get_config()  # noqa: F821  Jupyter's
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = PORT
c.ServerApp.open_browser = False
c.ServerApp.default_url = f"/notebooks/{NOTEBOOK}"
# Whoever comes has a token of the endpoint, whose name it is asked by.
c.IdentityProvider.token = ""
c.ServerApp.allow_remote_access = True
# Pings alone would keep a MicroVM awake for as long as somebody has it open.
c.ServerApp.tornado_settings = {"ws_ping_interval": 0}


def start_kernel() -> None:
    """Opens the notebook as a browser does, and runs a cell in its kernel."""
    session = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "python3"}}
    # What browsers prove by a cookie and a header that agree; here there is no browser that somebody else could lead.
    headers = {"Content-Type": "application/json", "Cookie": "_xsrf=00", "X-XSRFToken": "00"}
    url = f"http://127.0.0.1:{PORT}/api/sessions"
    request = urllib.request.Request(url, json.dumps(session).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        kernel = json.load(answer)["kernel"]["id"]
    client = BlockingKernelClient(connection_file=f"{jupyter_runtime_dir()}/kernel-{kernel}.json")
    client.load_connection_file()
    client.start_channels()
    try:
        client.execute("None", store_history=False, reply=True, timeout=SECONDS)
    finally:
        client.stop_channels()


class Hooks(BaseHTTPRequestHandler):
    is_ready = False

    def do_POST(self) -> None:
        if self.path != READY:
            self.send_error(404)
            return
        if not Hooks.is_ready:
            start_kernel()
            Hooks.is_ready = True
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


hooks = ThreadingHTTPServer(("0.0.0.0", HOOKS_PORT), Hooks)
threading.Thread(target=hooks.serve_forever, args=(WITHOUT_POLLING,), daemon=True).start()
