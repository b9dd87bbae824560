"""What one name server says of a name's IPv4 addresses, asked over UDP and over TCP."""

import secrets
import socket
import struct

TIMEOUT = 5.0
A, IN = 1, 1
RECURSION_DESIRED = 0x0100


def ask(server: str, name: str) -> dict:
    """How many answers there are."""
    query = question(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(TIMEOUT)
        udp.sendto(query, (server, 53))
        by_udp = udp.recv(4096)
    with socket.create_connection((server, 53), timeout=TIMEOUT) as tcp, tcp.makefile("rb") as answers:
        tcp.sendall(struct.pack("!H", len(query)) + query)
        by_tcp = answers.read(struct.unpack("!H", answers.read(2))[0])
    return {"udp": count(query, by_udp), "tcp": count(query, by_tcp)}


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack("!HHHHHH", secrets.randbits(16), RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!HH", A, IN)


def count(query: bytes, answer: bytes) -> int:
    if answer[:2] != query[:2]:
        raise ValueError("an answer to another question")
    return struct.unpack("!H", answer[6:8])[0]
