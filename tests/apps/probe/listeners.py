"""Servers that speak no HTTP in the clear, begun when a test asks for them."""

import socket
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BACKLOG = 16
CHUNK = 1 << 16
# Self-signed, of nobody: what the proxy must accept of an application.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtXSava21QFNELQBv
7fl7mIPSnNlX7/+qgUpKoUA/iVqhRANCAAShWg1I+Dop0DI2rNC2BocGuBL2QGn3
PSW7S0dm6j9nLVdMurkgt//WbYZLwzm0SFMYX89G0MDzCsc9zPotDnPk
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIUaoscMb1WJEkslrJrbz4bafUujVgwCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPdGhlIGFwcGxpY2F0aW9uMCAXDTI2MTEyOTAwMDExOVoYDzIx
MjYxMTA1MDAwMTE5WjAaMRgwFgYDVQQDDA90aGUgYXBwbGljYXRpb24wWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAShWg1I+Dop0DI2rNC2BocGuBL2QGn3PSW7S0dm
6j9nLVdMurkgt//WbYZLwzm0SFMYX89G0MDzCsc9zPotDnPko1MwUTAdBgNVHQ4E
FgQUm9kwz/Um+/hqa6KwFtC3W1t7sVkwHwYDVR0jBBgwFoAUm9kwz/Um+/hqa6Kw
FtC3W1t7sVkwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBe5/Y3
zq2aXGRv6HKD8vzo0d34O0t9ZnoSf0YQoqHyKwIhAPeHhesAX+JAJwmdzSts3d6+
/orHaN1QVbVBtHZOh0bO
-----END CERTIFICATE-----
"""


def echo(port: int) -> None:
    """TCP: sends back what comes as it comes, and `ended` once the other side has ended."""
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=carry, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def carry(connection: socket.socket) -> None:
    with connection:
        while received := connection.recv(CHUNK):
            connection.sendall(received)
        connection.sendall(b"ended")


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b"over TLS")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def https(port: int) -> None:
    """HTTP/1.1 over TLS: greets a GET, and sends back the body of a POST."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
