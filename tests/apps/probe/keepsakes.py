"""What a process holds that must survive a suspension and a clone: each is made before, and looked at after."""

import ctypes
import os
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

IN_CREATE = 0x100


class Keepsakes:
    def __init__(self, name: str, seconds: float):
        """`seconds`: when the timers are to end, on the monotonic clock."""
        self.seconds = seconds
        self.shm = Path(f"/dev/shm/{name}")
        self.shm.write_text("kept in memory")
        self.watched = Path(f"/tmp/watched-{name}")
        self.watched.mkdir()
        libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self.inotify, bytes(self.watched), IN_CREATE)
        self.pipe = os.pipe()
        self.epoll = select.epoll()
        self.epoll.register(self.pipe[0], select.EPOLLIN)
        self.unix = socket.socketpair(socket.AF_UNIX)
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.tcp = (client, server.accept()[0])
        self.pty, other = os.openpty()
        # By its errors it would say, at times, that the terminal is gone, after this has said its last.
        echo = {"stdin": other, "stdout": other, "stderr": subprocess.DEVNULL}
        self.child = subprocess.Popen(["cat"], start_new_session=True, **echo)
        os.close(other)
        self.timerfd = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK)
        os.timerfd_settime(self.timerfd, initial=seconds)
        self.slept = threading.Event()
        threading.Thread(target=self.sleep, daemon=True).start()

    def sleep(self) -> None:
        time.sleep(self.seconds)
        self.slept.set()

    def look(self) -> dict:
        """By name: null where it is as it was, or what is wrong."""
        return {
            name.removeprefix("look_"): self.attempt(getattr(self, name))
            for name in dir(self)
            if name.startswith("look_")
        }

    def attempt(self, look) -> str | None:
        try:
            found, expected = look()
        except Exception as error:
            return repr(error)
        return None if found == expected else f"{found!r}, not {expected!r}"

    def look_shm(self):
        return self.shm.read_text(), "kept in memory"

    def look_inotify(self):
        (self.watched / "new").touch()
        event = os.read(self.inotify, 4096)
        (self.watched / "new").unlink()
        return struct.unpack_from("iI", event)[1], IN_CREATE

    def look_pipe_and_epoll(self):
        before = self.epoll.poll(0)
        os.write(self.pipe[1], b"x")
        ready = self.epoll.poll(1)
        return (before, ready, os.read(self.pipe[0], 1)), ([], [(self.pipe[0], select.EPOLLIN)], b"x")

    def look_unix_socket(self):
        return self.echo(self.unix), b"echo"

    def look_loopback_tcp(self):
        return self.echo(self.tcp), b"echo"

    def echo(self, pair):
        pair[0].sendall(b"echo")
        pair[1].settimeout(1)
        return pair[1].recv(4)

    def look_pty_and_child(self):
        os.write(self.pty, b"line\n")
        said = b""
        # The terminal's own echo, then what the child writes.
        while said.count(b"line") < 2 and select.select([self.pty], [], [], 2)[0]:
            said += os.read(self.pty, 100)
        return said.count(b"line"), 2

    def timers(self) -> dict:
        """Whether the timers have ended."""
        try:
            os.read(self.timerfd, 8)
            rang = True
        except BlockingIOError:
            rang = False
        return {"timerfd": rang, "sleep": self.slept.is_set()}
