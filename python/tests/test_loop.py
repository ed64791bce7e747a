"""The thread of the connections, when it cannot start or ends early."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from test_client import MODEL

import kdn
from cluster import Cluster
from kdn import _loop
from kdn._loop import Loop
from kdn.failover import Failover


def test_a_loop_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(main: Any) -> None:
        main.close()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_loop.asyncio, "run", run)
    with pytest.raises(kdn.ResourceExhausted, match="event loop of the KDN's connections: .*Too many open files"):
        Loop()


def test_a_thread_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(kdn.ResourceExhausted, match="thread of the KDN's connections: can't start new thread"):
        Loop()


def test_a_process_without_threads_goes_on_without_the_kdn(
    short_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Failover(f"unix:{short_path}/nobody.sock", namespace, MODEL, "test")

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert found.attempt("asking", lambda _: "an answer", "nothing") == "nothing"


def test_work_on_a_loop_that_ended_fails_at_once() -> None:
    loop = Loop()

    async def forever() -> None:
        await asyncio.Event().wait()

    errors: list[BaseException] = []

    def wait() -> None:
        try:
            loop.run(forever())
        except kdn.Cancelled as error:
            errors.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    while not loop._unanswered:
        threading.Event().wait(0.001)
    loop.close()
    waits.join(timeout=60)
    assert not waits.is_alive() and len(errors) == 1
    assert loop.ended
    with pytest.raises(kdn.FailedPrecondition, match="has ended"):
        loop.run(forever())


def test_a_loop_that_ended_is_replaced(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Loop()
    ended.close()
    monkeypatch.setattr(_loop, "_shared", ended)
    with kdn.Client(cluster.unix()) as client:
        client.ping()
    assert _loop._shared is not ended
    _loop._shared.close()
