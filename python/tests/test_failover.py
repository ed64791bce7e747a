"""Failover while nodes of a cluster hang and die."""

from __future__ import annotations

import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_client import MODEL, in_a_child, kv_of

import kdn
from cluster import Cluster
from kdn import _loop, failover
from kdn._loop import Loop
from kdn.failover import Failover
from kdn.knowledge import Knowledge


def node_of(knowledge: Knowledge) -> str:
    return knowledge._link.connection.node.id


def test_the_next_address_is_used_when_the_first_hangs(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, nodes=2) as two, two.nodes[0].stopped():
        found = Failover([two.unix(0), two.unix(1)], namespace, MODEL, "test")
        assert found.attempt("asking", node_of, "nobody") == "n2"
        found.close()


def test_a_node_that_stops_answering_is_left(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, nodes=2) as two:
        found = Failover([two.unix(0), two.unix(1)], namespace, MODEL, "test")
        chain = found.connect().chain(range(10))
        with two.nodes[0].stopped():
            for _ in range(3):
                assert found.attempt("asking", lambda k: k.lookup(chain, 0.1), []) == []
            assert found.attempt("asking", node_of, "nobody") == "n2"
            found.close()


def test_a_chunk_that_finds_too_few_nodes_does_not_cost_the_connection(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, nodes=2) as two:
        found = Failover(two.unix(0), namespace, MODEL, "test")
        knowledge = found.connect()
        two.kill(1)
        chunk = knowledge.chain(range(10))[0]

        def store(it: Knowledge) -> str:
            it.store(chunk, kv_of(chunk), durability="replicated", timeout=0.5)
            return "stored"

        for _ in range(2):  # two failures in a row are tolerated, again and again
            assert found.attempt("storing", store, "not stored") == "not stored"
            assert found.attempt("storing", store, "not stored") == "not stored"
            assert found.connect() is knowledge
            assert found.attempt("asking", lambda k: len(k.lookup([chunk])), 0) == 1
        for _ in range(3):
            found.attempt("storing", store, "not stored")
        assert found._knowledge is None, "nothing but failures: another node may see more"
        found.close()


def test_a_cluster_that_is_away_is_asked_less_and_less(
    short_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    tried: list[float] = []

    def client(*_: Any, **__: Any) -> Any:
        tried.append(clock[0])
        raise kdn.Unavailable("nobody")

    monkeypatch.setattr(failover.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(failover, "Client", client)
    found = Failover(f"unix:{short_path}/nobody.sock", namespace, MODEL, "test")
    for _ in range(1000):
        assert found.attempt("asking", node_of, "nobody") == "nobody"
        clock[0] += 0.1
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30], abs=0.11)


def test_a_thread_of_an_engine_gets_no_exception(cluster: Cluster, namespace: str) -> None:
    found = Failover(cluster.unix(), namespace, MODEL, "test")

    def fail(error: Exception) -> Any:
        raise error

    for error in (kdn.InvalidArgument("an infinite value"), kdn.Unavailable("nobody"), ZeroDivisionError()):
        assert found.shielded("storing", lambda _, error=error: fail(error), "nothing") == "nothing"
    with pytest.raises(kdn.InvalidArgument):
        found.attempt("storing", lambda _: fail(kdn.InvalidArgument("an infinite value")), "nothing")
    assert found.shielded("asking", node_of, "nobody") == "n1"
    found.close()


def test_a_loop_that_ended_raises_nothing(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "_shared", Loop())
    found = Failover(cluster.unix(), namespace, MODEL, "test")
    chain = found.connect().chain(range(10))
    _loop._shared.close()
    assert found.attempt("asking", lambda k: k.lookup(chain), []) == []
    assert found.connect().lookup(chain) != [], "a new loop is made"
    _loop._shared.close()
    found.close()


def test_a_mistake_in_the_settings_is_not_repeated_at_once(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def client(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise kdn.InvalidArgument("address 'nowhere'")

    monkeypatch.setattr(failover, "Client", client)
    found = Failover(cluster.unix(), namespace, MODEL, "test")
    with pytest.raises(kdn.InvalidArgument):
        found.attempt("asking", node_of, "nobody")
    for _ in range(3):
        assert found.attempt("asking", node_of, "nobody") == "nobody"
    assert tried == [1]


def test_a_forked_child_connects_by_itself(cluster: Cluster, namespace: str) -> None:
    found = Failover([cluster.unix(0), cluster.unix(1)], namespace, MODEL, "test")
    knowledge = found.connect()
    [chunk] = knowledge.chain(range(10))
    knowledge.store(chunk, np.ones_like(kv_of(chunk)))
    live = []

    def work() -> None:
        other = knowledge.standalone([1])
        stored = found.attempt("storing", lambda k: k.store(other, np.full_like(kv_of(other), 666)), None)
        assert stored is not None and found.attempt("asking", node_of, "") == "n1"

    assert in_a_child(work, lambda: live.append(knowledge.retrieve([chunk]).kv)) == 0
    assert (live[0] == 1).all(), "the child wrote into its parent's memory"
    assert found.attempt("asking", lambda k: k.lookup([]), None) == []
    found.close()


def test_a_fork_while_another_thread_connects_hangs_no_child(cluster: Cluster, namespace: str) -> None:
    found = Failover(cluster.unix(), namespace, MODEL, "test")
    connects, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with found._lock:
            connects.set()
            goes_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    connects.wait()

    def work() -> None:
        signal.alarm(10)
        assert found.attempt("asking", node_of, "") == "n1"

    assert in_a_child(work) == 0
    goes_on.set()
    thread.join()
    found.close()


def test_mistakes_are_typed(namespace: str) -> None:
    with pytest.raises(kdn.InvalidArgument, match="no address"):
        Failover([], namespace, MODEL, "test")
