"""Stamps every moment that it runs, until there is something to read on standard input: then prints each moment before
and after which it did not run for a while, with what is drawn at random right after, as JSON."""

import json
import os
import random
import secrets
import select
import time
import uuid

WHILE_NS = 100_000_000


def stamp(count: int) -> dict:
    return {
        "count": count,
        "wall": time.time_ns(),
        "monotonic": time.monotonic_ns(),
        "boottime": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    }


def draw() -> dict:
    with open("/proc/sys/kernel/random/uuid", encoding="ascii") as file:
        kernel = file.read()
    return {
        "urandom": os.urandom(16).hex(),
        "uuid": uuid.uuid4().hex,
        "secrets": secrets.token_hex(),
        "random.SystemRandom": str(random.SystemRandom().random()),
        "kernel uuid": kernel.strip(),
    }


def main() -> None:
    pauses = []
    poll = select.poll()
    poll.register(0, select.POLLIN)
    last = stamp(0)
    print("begun", flush=True)
    told = False
    # Once more after it is told to stop: others may run first after a pause.
    while not told:
        told = bool(poll.poll(0))
        now = stamp(last["count"] + 1)
        if now["wall"] - last["wall"] >= WHILE_NS:
            pauses.append({"before": last, "after": now, "drawn": draw()})
            now = stamp(now["count"])
        last = now
    print(json.dumps(pauses))


if __name__ == "__main__":
    main()
