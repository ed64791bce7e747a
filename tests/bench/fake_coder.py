"""A coder process for coder_process_test.cc: a codec that halves the values' size and
loses nothing. Its argument names what it does wrong."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def send(head: dict[str, Any], values: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + values)
    sys.stdout.buffer.flush()


def answer(mode: str, values: bytes) -> None:
    whole = {"size": len(values) // 2, "bytes": len(values)}
    if mode == "right":
        send(whole, values)
    elif mode == "other bytes":
        send({**whole, "bytes": len(values) - 1}, values[1:])
    elif mode == "short":
        send(whole, values[1:])
        sys.exit(0)
    elif mode == "no size":
        send({"bytes": len(values)}, values)
    elif mode == "negative size":
        send({**whole, "size": -1}, values)
    elif mode == "no JSON":
        sys.stdout.buffer.write(b"size 3\n")
    elif mode == "no line":
        sys.stdout.buffer.write(b"{" * (1 << 17))
    elif mode == "error":
        send({"error": "these bins cannot be coded"})
    elif mode == "exit":
        sys.exit(7)
    elif mode == "silent":
        time.sleep(600)
    elif mode == "half":
        sys.stdout.buffer.write(b'{"size": ')
        sys.stdout.buffer.flush()
        time.sleep(600)
    sys.stdout.buffer.flush()


def main() -> None:
    mode = sys.argv[1]
    if mode == "never ready":
        time.sleep(600)
    if mode == "cannot start":
        send({"error": "the network cannot be reached"})
        sys.exit(1)
    send({"ready": True})
    if mode == "deaf":
        time.sleep(600)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        values = sys.stdin.buffer.read(request["bytes"])
        _, _, _, tokens, dim = request["shape"]
        if (request["key_bins"], request["value_bins"]) != ([32, 16], [16, 12]) or len(values) % (2 * tokens * dim):
            sys.exit(9)
        answer(mode, values)


if __name__ == "__main__":
    main()
