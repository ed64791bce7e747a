#!/usr/bin/env python3
"""Measures how fast an engine stores and retrieves KV in the KDN, in Redis and in the
store of Mooncake, with the same bytes in one run.

    build/bin/kdn bench peers --json FILE          # or: python3 bench/peers.py

Each system is one server process on this host, with memory and no disk, and holds one
copy. The KV is synthetic, bf16, in chunks of 4 MiB; `lossless` makes it smaller by a
third, as it does real KV. A figure is the median of several rounds. In each round, every
system stores and retrieves all chunks once, one system after the other; a chunk is new
in each round. After the timing of each round, every chunk is retrieved again and
compared with the bytes that were stored; `redis-benchmark` compares nothing.

Makes build/peers-venv with the clients of the systems from PyPI. Redis' server is
Debian's package redis-server. A system that cannot be had is reported as "not measured",
with the reason. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
BUILD = REPO / "build"
MOONCAKE = "mooncake-transfer-engine-non-cuda==0.3.13.post1"
PACKAGES = ("numpy", "pycapnp", "redis[hiredis]")
LAYERS, HEADS, TOKENS, HEAD_DIM = 16, 8, 128, 64  # Llama-3.2-1B: 4 MiB of bf16
CHUNK_BYTES = LAYERS * 2 * HEADS * TOKENS * HEAD_DIM * 2
DISTINCT = 8  # chunks with different bytes: more than the caches of a core hold
AT_ONCE = (1, 4)
_PR_SET_PDEATHSIG = 1


class NotMeasured(Exception):
    """Why a system is not measured."""


# ---------------------------------------------------------------- the Python environment


def environment() -> Path:
    """The Python of build/peers-venv, which this makes if there is none."""
    python = BUILD / "peers-venv" / "bin" / "python"
    made_of = BUILD / "peers-venv" / "made-of"
    wanted = "\n".join((*PACKAGES, MOONCAKE))
    if made_of.exists() and made_of.read_text() == wanted:
        return python
    print("making build/peers-venv", file=sys.stderr)
    venv.create(BUILD / "peers-venv", clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True, stdout=sys.stderr)
    # Without Mooncake, the others are measured all the same.
    subprocess.run([*pip, MOONCAKE], check=False, stdout=sys.stderr)
    made_of.write_text(wanted)
    return python


# ---------------------------------------------------------------- servers


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=die_with_parent, **options)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of `ready`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            if value := ready():
                return value
        time.sleep(0.05)
    raise NotMeasured(f"{what} did not start within {seconds:.0f} s")


# ---------------------------------------------------------------- the contenders


@dataclass
class Contender:
    """A client of a system, and how many chunks it has under way at a time.
    `store(numbers)` and `retrieve(numbers)` return seconds. `prepare(numbers)` is called
    before them and is not timed. `check(number)` returns the bytes of a chunk, and
    `remove(numbers)` makes room."""

    system: str
    client: str
    via: str
    at_once: int
    store: Callable[[Sequence[int]], float]
    retrieve: Callable[[Sequence[int]], float]
    remove: Callable[[Sequence[int]], None]
    check: Callable[[int], Any] | None = None  # None: the client compares by itself
    prepare: Callable[[Sequence[int]], None] = lambda numbers: None
    store_seconds: list[float] = field(default_factory=list)
    retrieve_seconds: list[float] = field(default_factory=list)


def timed(numbers: Sequence[int], at_once: int, call: Callable[[int], Any]) -> float:
    """The seconds in which `at_once` threads call `call` with all numbers."""
    if at_once == 1:
        begin = time.perf_counter()
        for number in numbers:
            call(number)
        return time.perf_counter() - begin
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(at_once)))  # the threads start
        begin = time.perf_counter()
        list(pool.map(call, numbers))
        return time.perf_counter() - begin


def make_kv() -> Any:
    """Chunks of bf16 bits. The dimensions of each head have magnitudes of their own, as in
    K and V of real models; each value is Gaussian. `lossless` takes 10.8 bits per value."""
    import numpy as np

    random = np.random.default_rng(1)
    scales = np.exp(random.normal(0.0, 0.7, (LAYERS, 2, HEADS, 1, HEAD_DIM))).astype(np.float32)
    chunks = []
    for _ in range(DISTINCT):
        values = random.standard_normal((LAYERS, 2, HEADS, TOKENS, HEAD_DIM), dtype=np.float32) * scales
        bits = values.view(np.uint32)
        chunks.append(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))
    return chunks


# ---------------------------------------------------------------- the KDN


@dataclass
class KdnNode:
    unix: str
    tcp: str


@contextlib.contextmanager
def kdn_node(program: Path, directory: Path) -> Iterator[KdnNode]:
    if not program.exists():
        raise NotMeasured(f"{program} is not built: run scripts/build")
    ports = [free_port() for _ in range(3)]
    config = directory / "kdn.yaml"
    config.write_text(
        "cluster:\n  name: peers\n  replicas: 1\nnodes:\n  - id: n1\n    host: 127.0.0.1\n"
        f"    control_port: {ports[0]}\n    bulk_port: {ports[1]}\n    gateway_port: {ports[2]}\n"
        f"    gateway_socket: {directory}/kdn.sock\n    memory: 2 GiB\n"
    )
    log = directory / "kdn.log"
    with running([str(program), "node", "-c", str(config), "--id", "n1"], log):
        wait_for("kdn node", lambda: "ready:" in log.read_text())
        yield KdnNode(f"unix:{directory}/kdn.sock", f"127.0.0.1:{ports[2]}")


def kdn_model() -> Any:
    from kdn import ModelSpec, RopeSpec

    return ModelSpec(
        name="peers",
        num_layers=LAYERS,
        num_kv_heads=HEADS,
        head_dim=HEAD_DIM,
        dtype="bf16",
        rope=RopeSpec(theta=500000.0, rotary_dim=HEAD_DIM),
        weights_digest="peers",
        tokenizer_digest="peers",
    )


def kdn_python(address: str, via: str, kv: Any) -> Iterator[Contender]:
    from kdn import Client

    knowledge = Client(address, timeout=10).open("peers", kdn_model())

    chunks: dict[int, Any] = {}  # an engine computes the key of a chunk once

    def prepare(numbers: Sequence[int]) -> None:
        chunks.clear()
        chunks.update({number: knowledge.standalone([number] * TOKENS, variant=via) for number in numbers})

    def store(number: int) -> None:
        knowledge.store(chunks[number], kv[number % DISTINCT], durability="cache")

    def retrieve(numbers: Sequence[int]) -> Any:
        got = knowledge.retrieve([chunks[number] for number in numbers])
        assert got.prefix_chunks == len(numbers), got.outcomes
        return got.kv

    def retrieve_all(numbers: Sequence[int], at_once: int) -> float:
        begin = time.perf_counter()
        for first in range(0, len(numbers), at_once):
            retrieve(numbers[first : first + at_once])
        return time.perf_counter() - begin

    for at_once in AT_ONCE:
        yield Contender(
            "kdn",
            "Python",
            via,
            at_once,
            lambda numbers, n=at_once: timed(numbers, n, store),
            lambda numbers, n=at_once: retrieve_all(numbers, n),
            lambda numbers: knowledge.remove([chunks[number] for number in numbers]) and None,
            lambda number: retrieve([number]),
            prepare,
        )


def kdn_cpp(program: Path, address: str, via: str, file: Path) -> Iterator[Contender]:
    """`kdn bench calls`: one process per round, which stores, retrieves and compares."""

    def run(numbers: Sequence[int], at_once: int) -> dict[str, float]:
        command = [str(program), "bench", "calls", address, str(file), "--first", str(numbers[0])]
        command += ["--chunks", str(len(numbers)), "--at-once", str(at_once)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    for at_once in AT_ONCE:
        last: dict[str, float] = {}

        def store(numbers: Sequence[int], n: int = at_once, last: dict[str, float] = last) -> float:
            last.update(run(numbers, n))
            return last["store_seconds"]

        yield Contender(
            "kdn",
            "C++",
            via,
            at_once,
            store,
            lambda numbers, last=last: last["retrieve_seconds"],
            lambda numbers: None,
        )


# ---------------------------------------------------------------- Redis


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    if shutil.which("redis-server") is None:
        raise NotMeasured("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    command = ["redis-server", "--save", "", "--appendonly", "no", "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--unixsocket", f"{directory}/redis.sock", "--dir", str(directory)]
    with running(command, directory / "redis.log"):
        wait_for("redis-server", lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
        yield port


def redis_python(port: int, directory: Path, via: str, kv: Any) -> Iterator[Contender]:
    import redis

    where: dict[str, Any] = {"port": port} if via == "tcp" else {"unix_socket_path": f"{directory}/redis.sock"}
    client = redis.Redis(**where)
    for at_once in AT_ONCE:
        yield Contender(
            "redis",
            "Python",
            via,
            at_once,
            lambda numbers, n=at_once: timed(
                numbers, n, lambda number: client.set(f"{via}{number}", memoryview(kv[number % DISTINCT]).cast("B"))
            ),
            lambda numbers, n=at_once: timed(numbers, n, lambda number: len(client.get(f"{via}{number}"))),
            lambda numbers: client.delete(*(f"{via}{number}" for number in numbers)) and None,
            lambda number: client.get(f"{via}{number}"),
        )


def redis_benchmark(port: int, directory: Path, via: str) -> Iterator[Contender]:
    """redis-benchmark, Redis' own client in C. It stores and retrieves one value of its own,
    which has the size of a chunk: it takes no value with zero bytes. Redis does not look
    into values."""
    where = ["-p", str(port)] if via == "tcp" else ["-s", f"{directory}/redis.sock"]

    def run(test: str, numbers: Sequence[int], at_once: int) -> float:
        command = ["redis-benchmark", *where, "-t", test, "-d", str(CHUNK_BYTES), "-n", str(len(numbers))]
        done = subprocess.run([*command, "-c", str(at_once), "--csv"], check=True, capture_output=True, text=True)
        return len(numbers) / float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))

    for at_once in AT_ONCE:
        yield Contender(
            "redis",
            "C",
            via,
            at_once,
            lambda numbers, n=at_once: run("set", numbers, n),
            lambda numbers, n=at_once: run("get", numbers, n),
            lambda numbers: None,
        )


# ---------------------------------------------------------------- Mooncake

PROVIDER = """
import sys, time
from mooncake.store import MooncakeDistributedStore
store = MooncakeDistributedStore()
if store.setup("127.0.0.1", "P2PHANDSHAKE", 4 << 30, 16 << 20, "tcp", "", sys.argv[1]) != 0: sys.exit(1)
print("ready", flush=True)
time.sleep(100000)
"""


@contextlib.contextmanager
def mooncake(directory: Path) -> Iterator[Any]:
    try:
        from mooncake.store import MooncakeDistributedStore
    except ImportError as error:
        raise NotMeasured(f"{MOONCAKE} cannot be loaded: {error}") from None
    master = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).parent / "mooncake_master"), "--rpc_address=127.0.0.1"]
    command += [f"--rpc_port={master.split(':')[1]}", f"--metrics_port={free_port()}"]
    log = directory / "provider.log"
    with (
        running(command, directory / "master.log"),
        running([sys.executable, "-c", PROVIDER, master], log),
    ):
        wait_for("the provider of Mooncake", lambda: "ready" in log.read_text(errors="replace"))
        client = MooncakeDistributedStore()
        if client.setup("127.0.0.1", "P2PHANDSHAKE", 0, 64 << 20, "tcp", "", master) != 0:
            raise NotMeasured("a client of Mooncake could not connect")
        yield client
        client.close()


def mooncake_python(client: Any, kv: Any) -> Iterator[Contender]:
    def put(number: int) -> None:
        if client.put(f"k{number}", memoryview(kv[number % DISTINCT]).cast("B")) != 0:
            raise RuntimeError("Mooncake stored nothing")

    def get(number: int) -> Any:
        got = client.get(f"k{number}")
        assert len(got) == CHUNK_BYTES
        return got

    for at_once in AT_ONCE:
        yield Contender(
            "mooncake",
            "Python",
            "tcp",
            at_once,
            lambda numbers, n=at_once: timed(numbers, n, put),
            lambda numbers, n=at_once: timed(numbers, n, get),
            lambda numbers: [client.remove(f"k{number}") for number in numbers] and None,
            get,
        )


# ---------------------------------------------------------------- the run


def contenders(
    program: Path, directory: Path, kv: Any, file: Path, only: set[str], stack: contextlib.ExitStack
) -> tuple[list[Contender], dict[str, str]]:
    """All contenders that can be had, and why the others cannot."""
    found: list[Contender] = []
    missing: dict[str, str] = {}

    def add_kdn() -> None:
        node = stack.enter_context(kdn_node(program, directory))
        for via, address in (("unix", node.unix), ("tcp", node.tcp)):
            found.extend(kdn_python(address, via, kv))
            found.extend(kdn_cpp(program, address, via, file))

    def add_redis() -> None:
        port = stack.enter_context(redis_server(directory))
        for via in ("unix", "tcp"):
            found.extend(redis_python(port, directory, via, kv))
            found.extend(redis_benchmark(port, directory, via))

    def add_mooncake() -> None:
        found.extend(mooncake_python(stack.enter_context(mooncake(directory)), kv))

    for name, add in (("kdn", add_kdn), ("redis", add_redis), ("mooncake", add_mooncake)):
        if only and name not in only:
            continue
        try:
            add()
        except NotMeasured as why:
            missing[name] = f"not measured: {why}"
    return found, missing


def run_round(each: Contender, numbers: Sequence[int], kv: Any, counts: bool) -> None:
    each.prepare(numbers)
    stored = each.store(numbers)
    retrieved = each.retrieve(numbers)
    if counts:
        each.store_seconds.append(stored)
        each.retrieve_seconds.append(retrieved)
    for number in numbers if each.check is not None else ():
        got = each.check(number)
        if got is not None and bytes(got) != kv[number % DISTINCT].tobytes():
            raise RuntimeError(f"{each.system} over {each.via} returned other bytes for chunk {number}")
    each.remove(numbers)


def report(found: Sequence[Contender], missing: dict[str, str], chunks: int, rounds: int) -> dict[str, Any]:
    def rate(seconds: float) -> float:
        return round(chunks * CHUNK_BYTES / seconds / 1e9, 3)

    def row(each: Contender) -> dict[str, Any]:
        return {
            "system": each.system,
            "client": each.client,
            "via": each.via,
            "at_once": each.at_once,
            "store_gbps": rate(statistics.median(each.store_seconds)),
            "retrieve_gbps": rate(statistics.median(each.retrieve_seconds)),
            "store_gbps_rounds": [rate(seconds) for seconds in each.store_seconds],
            "retrieve_gbps_rounds": [rate(seconds) for seconds in each.retrieve_seconds],
        }

    return {
        "benchmark": "peers",
        "chunk_mb": CHUNK_BYTES / 1e6,
        "chunks_per_round": chunks,
        "rounds": rounds,
        "not_measured": missing,
        "results": [row(each) for each in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for the JSON object")
    parser.add_argument("--program", type=Path, default=BUILD / "bin" / "kdn", help="the kdn program")
    parser.add_argument("--only", nargs="*", default=[], help="systems to measure: kdn, redis, mooncake")
    parser.add_argument("--chunks", type=int, default=48, help="chunks per round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that does not")
    options = parser.parse_args()
    python = environment()
    if Path(sys.executable) != python:
        paths = [str(REPO / "python"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    kv = make_kv()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdn-peers-")))
        file = directory / "kv"
        file.write_bytes(b"".join(chunk.tobytes() for chunk in kv))
        found, missing = contenders(options.program, directory, kv, file, set(options.only), stack)
        number = 0
        for turn in range(options.rounds + 1):
            for each in found:
                print(f"round {turn}: {each.system} {each.client} {each.via} {each.at_once}", file=sys.stderr)
                run_round(each, range(number, number + options.chunks), kv, turn > 0)
                number += options.chunks
        result = report(found, missing, options.chunks, options.rounds)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
