"""A database that is written throughout: every row carries a checksum over itself and the row before, so that a lost, a
changed or a made-up row shows."""

import hashlib
import os
import sqlite3
import threading
import time
from pathlib import Path

PAUSE = 0.005
SMALLEST, LARGEST = 16, 4096


def chained(before: str, number: int, content: bytes) -> str:
    return hashlib.sha256(f"{before} {number} ".encode() + content).hexdigest()


class Ledger:
    def __init__(self, path: Path):
        self.path = path
        self.lock = threading.Lock()
        # The last row whose commit has returned.
        self.acknowledged = (0, "")
        self.failure: str | None = None
        self.checked = (0, "")
        with self.connect() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE ledger (number INTEGER PRIMARY KEY, content BLOB, checksum TEXT)")
        threading.Thread(target=self.write, daemon=True).start()

    def connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA synchronous = FULL")
        return database

    def write(self) -> None:
        try:
            database = self.connect()
            while True:
                number, before = self.acknowledged
                number += 1
                content = os.urandom(SMALLEST + number * 7919 % (LARGEST - SMALLEST))
                checksum = chained(before, number, content)
                with database:
                    database.execute("INSERT INTO ledger VALUES (?, ?, ?)", (number, content, checksum))
                self.acknowledged = (number, checksum)
                time.sleep(PAUSE)
        except Exception as error:
            self.failure = repr(error)

    def state(self) -> dict:
        number, checksum = self.acknowledged
        return {"number": number, "checksum": checksum, "failure": self.failure}

    def check(self, whole: bool) -> dict:
        """Follows the chain from the first row, or from where it was last followed to, and has SQLite check itself."""
        with self.lock:
            promised = self.acknowledged
            number, before = (0, "") if whole else self.checked
            database = self.connect()
            rows = database.execute("SELECT * FROM ledger WHERE number > ? ORDER BY number", (number,))
            wrong = None
            for found, content, checksum in rows:
                number += 1
                before = chained(before, number, content)
                if (found, checksum) != (number, before):
                    wrong = f"row {number} is not what was written"
                    break
            if wrong is None and number < promised[0]:
                wrong = f"the chain ends at {number}, before {promised[0]}, which was committed"
            integrity = database.execute("PRAGMA integrity_check" if whole else "PRAGMA quick_check").fetchone()[0]
            database.close()
            self.checked = (number, before)
        return {**self.state(), "rows": number, "wrong": wrong, "integrity": integrity}

    def row(self, number: int) -> dict:
        """What the database itself has of one row."""
        database = self.connect()
        found = database.execute("SELECT checksum FROM ledger WHERE number = ?", (number,)).fetchone()
        database.close()
        return {"checksum": found and found[0]}
