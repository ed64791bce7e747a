"""The client against a real cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kdn
from cluster import KDN, REPO, Cluster
from kdn._loop import shared_loop
from kdn.errors import error_of

MODEL = kdn.ModelSpec(
    num_layers=3,
    num_kv_heads=2,
    head_dim=16,
    dtype="fp32",
    rope=kdn.RopeSpec(rotary_dim=16),
    weights_digest="test",
    tokenizer_digest="test",
)


def kv_of(chunk: kdn.Chunk, model: kdn.ModelSpec = MODEL) -> np.ndarray:
    random = np.random.default_rng(int.from_bytes(chunk.key[:4], "little"))
    shape = (model.num_layers, 2, model.num_kv_heads, len(chunk.tokens), model.head_dim)
    values = random.standard_normal(shape, dtype=np.float32)
    return values if model.dtype == "fp32" else (values.view(np.uint32) >> 16).astype(np.uint16)


Dial = Callable[[int], kdn.Client]
"""Connects to a node of one cluster."""


@pytest.fixture(params=["unix", "tcp", "tls"])
def dial(request: pytest.FixtureRequest) -> Dial:
    if request.param == "tls":
        secure = request.getfixturevalue("secure_cluster")
        return lambda node: kdn.Client(secure.tls(node), ca=secure.ca)
    address = getattr(request.getfixturevalue("cluster"), request.param)
    return lambda node: kdn.Client(address(node))


@pytest.fixture
def client(dial: Dial):
    with dial(0) as connected:
        yield connected


def test_what_was_stored_comes_back_bit_for_bit(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(700))
    assert not any(found.hit for found in knowledge.lookup(chain))
    for chunk in chain:
        receipt = knowledge.store(chunk, kv_of(chunk))
        assert receipt.key == chunk.key and not receipt.existed and len(receipt.holders) == 2
    assert knowledge.store(chain[0], kv_of(chain[0])).existed
    found = knowledge.lookup(chain)
    assert all(f.hit and f.levels == {"lossless"} and f.bytes > 0 for f in found)
    got = knowledge.retrieve(chain)
    assert got.prefix_tokens == 700
    assert [o.kind for o in got.outcomes] == ["hit"] * 3
    assert np.array_equal(got.kv, np.concatenate([kv_of(c) for c in chain], axis=3))


def test_bf16_is_carried_bit_for_bit(client: kdn.Client, namespace: str) -> None:
    model = kdn.ModelSpec(**{**MODEL.__dict__, "dtype": "bf16"})
    knowledge = client.open(namespace, model)
    [chunk] = knowledge.chain(range(100))
    knowledge.store(chunk, kv_of(chunk, model))
    got = knowledge.retrieve([chunk])
    assert got.kv.dtype == np.uint16
    assert np.array_equal(got.kv, kv_of(chunk, model))


@pytest.mark.parametrize("features", [None, frozenset()], ids=["this-node", "older-node"])
def test_several_layers_are_one_message_where_the_node_takes_it(
    client: kdn.Client, namespace: str, features: frozenset[str] | None
) -> None:
    # Layers of 896 KiB: two of them are one message, and the last message has one layer.
    model = dataclasses.replace(MODEL, num_layers=5, num_kv_heads=28, head_dim=64)
    model = dataclasses.replace(model, rope=kdn.RopeSpec(rotary_dim=64))
    if features is not None:
        client._link.connection.node = dataclasses.replace(client.node, features=features)
    knowledge = client.open(namespace, model)
    chunk = knowledge.standalone(range(64))
    kv = kv_of(chunk, model)
    strided = np.ascontiguousarray(kv.swapaxes(2, 3)).swapaxes(2, 3)
    assert not knowledge.store(chunk, strided, durability="cache").existed
    got = knowledge.retrieve([chunk, chunk])
    assert got.prefix_chunks == 2
    for span in got.spans:
        np.testing.assert_array_equal(got.kv[..., span, :], kv)
    assert np.array_equal(knowledge.retrieve([chunk], layers=(2, 5)).kv, kv[2:])


def test_any_rank_reads_its_part_of_the_same_bytes(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(300))
    for chunk in chain:
        knowledge.store(chunk, kv_of(chunk))
    whole = knowledge.retrieve(chain).kv
    part = knowledge.retrieve(chain, layers=(1, 3), heads=(1, 2)).kv
    assert np.array_equal(part, whole[1:3, :, 1:2])


def test_layouts_of_engines_are_taken_as_they_are(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(512))
    kv = kv_of(chain[0])
    knowledge.store(chain[0], np.asfortranarray(kv))
    token_major = np.ascontiguousarray(kv_of(chain[1]).transpose(0, 1, 3, 2, 4))
    knowledge.store(chain[1], [(k.transpose(1, 0, 2), v.transpose(1, 0, 2)) for k, v in token_major])
    got = knowledge.retrieve(chain)
    assert np.array_equal(got.kv, np.concatenate([kv, kv_of(chain[1])], axis=3))


def test_other_positions_rotate_k_and_leave_v(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chunk = knowledge.standalone(range(50))
    kv = kv_of(chunk)
    knowledge.store(chunk, kv)
    moved = knowledge.retrieve([chunk], positions=[range(1000, 1050)]).kv
    assert np.array_equal(moved[:, 1], kv[:, 1])
    half = MODEL.head_dim // 2
    angle = 1000 * 10000.0 ** (-np.arange(half) / half)
    x, y = kv[:, 0, ..., :half].astype(float), kv[:, 0, ..., half:].astype(float)
    turned = np.concatenate([x * np.cos(angle) - y * np.sin(angle), y * np.cos(angle) + x * np.sin(angle)], axis=-1)
    assert np.allclose(moved[:, 0], turned, atol=2e-3)


def test_int8_is_close_and_the_outcome_names_int8(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(128))
    kv = kv_of(chunk)
    knowledge.store(chunk, kv, levels=["lossless", "int8"])
    assert knowledge.lookup([chunk])[0].levels == {"lossless", "int8"}
    got = knowledge.retrieve([chunk], accept=["int8"])
    assert got.outcomes[0].level == "int8"
    error = np.abs(got.kv - kv).max() / np.abs(kv).max()
    assert 0 < error < 0.02


def test_refined_levels_come_nearer(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(128))
    kv = kv_of(chunk)
    knowledge.store(chunk, kv, levels=["base+2"])
    assert knowledge.lookup([chunk])[0].levels == {"base", "base+1", "base+2"}
    errors = []
    for level in ("base", "base+1", "base+2"):
        got = knowledge.retrieve([chunk], accept=[level])
        assert got.outcomes[0].level == level
        errors.append(float(np.square(got.kv - kv).mean()))
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[2] < 0.1 * errors[0]
    assert knowledge.retrieve([chunk]).outcomes[0].level == "base+2"
    assert knowledge.retrieve([chunk], accept=["int8"]).outcomes[0].kind == "miss"


def test_chunks_that_the_engine_prefills_faster_are_not_loaded(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(64 * 256))
    for chunk in chain:
        knowledge.store(chunk, kv_of(chunk))
    before = knowledge.retrieve(chain).outcomes
    assert all(outcome.hit for outcome in before)
    # The first retrieve has measured links and decoding.
    after = knowledge.retrieve(chain, prefill_tokens_per_second=1e15).outcomes
    assert all(outcome.kind == "recompute" for outcome in after)
    assert all(outcome.hit for outcome in knowledge.retrieve(chain, prefill_tokens_per_second=1.0).outcomes)
    with pytest.raises(kdn.InvalidArgument):
        knowledge.retrieve(chain, prefill_tokens_per_second=-1.0)


def test_partial_hits_say_which(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(1024))
    for chunk in (chain[0], chain[1], chain[3]):
        knowledge.store(chunk, kv_of(chunk))
    got = knowledge.retrieve(chain)
    assert [o.kind for o in got.outcomes] == ["hit", "hit", "miss", "hit"]
    assert (got.prefix_chunks, got.prefix_tokens) == (2, 512)
    assert np.array_equal(got.kv[..., got.spans[3], :], kv_of(chain[3]))


def test_pins_and_removal(client: kdn.Client, dial: Dial, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(10))
    assert isinstance(knowledge.pin([chunk], 60)[0], kdn.NotFound)
    knowledge.store(chunk, kv_of(chunk))
    assert knowledge.pin([chunk], 60) == [None]
    with dial(1) as other:
        refused = other.open(namespace, MODEL).remove([chunk])
        assert isinstance(refused[0], kdn.FailedPrecondition)
    assert knowledge.unpin([chunk]) == [None]
    assert knowledge.remove([chunk]) == [None]
    assert knowledge.retrieve([chunk]).outcomes[0].kind == "miss"


def test_a_client_that_is_closed_loses_its_pins(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.tcp()) as holder, kdn.Client(cluster.tcp(1)) as other:
        knowledge = holder.open(namespace, MODEL)
        [chunk] = knowledge.chain(range(10))
        knowledge.store(chunk, kv_of(chunk))
        assert knowledge.pin([chunk], 600) == [None]
        remaining = other.open(namespace, MODEL)
        assert remaining.remove([chunk]) != [None]
        holder.close()
        assert gone(remaining, chunk), "the pin outlived its client"


def test_a_full_tier_evicts_only_chunks_without_pins(short_path: Path, namespace: str) -> None:
    with (
        Cluster(short_path, nodes=1, memory="8 MiB", disk=False) as small,
        kdn.Client(small.unix()) as client,
    ):
        knowledge = client.open(namespace, MODEL)
        chunks = [knowledge.standalone([i] * 256) for i in range(100)]  # of 0.2 MB
        for chunk in chunks[:4]:
            knowledge.store(chunk, kv_of(chunk))
        assert knowledge.pin(chunks[:2], 60) == [None] * 2
        for chunk in chunks[4:]:
            knowledge.store(chunk, kv_of(chunk))
        held = [found.hit for found in knowledge.lookup(chunks)]
        assert held[:4] == [True, True, False, False] and held[-1]
        assert np.array_equal(knowledge.retrieve(chunks[1:2]).kv, kv_of(chunks[1]))


def test_tenants_do_not_see_each_other(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(10))
    knowledge.store(chunk, kv_of(chunk))
    other = client.open(namespace + "-other", MODEL)
    assert not other.lookup([chunk])[0].hit
    with pytest.raises(kdn.InvalidArgument):
        other.store(chunk, kv_of(chunk))


def test_status_shows_every_node(client: kdn.Client) -> None:
    nodes = client.status()
    assert [node["id"] for node in nodes] == ["n1", "n2", "n3"]
    assert all(node["alive"] for node in nodes)
    for metrics in [node["metrics"] for node in nodes]:
        answers = [metrics[name] for name in ("hits_memory", "hits_disk", "misses", "failures")]
        assert metrics["lookups"] == sum(answers)
        assert metrics["rate.plans"] >= metrics["rate.plans_blind"]
        assert metrics["lookup_us"]["p50"] <= metrics["lookup_us"]["p99"]


def test_mistakes_are_typed_and_change_nothing(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(10))
    kv = kv_of(chunk)
    for call in (
        lambda: knowledge.store(chunk, kv[:2]),
        lambda: knowledge.store(chunk, kv.astype(np.float64)),
        lambda: knowledge.store(chunk, "text"),
        lambda: knowledge.store(chunk, list(kv)[:2]),
        lambda: knowledge.store(chunk, kv, positions=range(9)),
        lambda: knowledge.store(chunk, kv, positions=[-1] * 10),
        lambda: knowledge.store(chunk, kv, levels=["best"]),
        lambda: knowledge.store(chunk, kv, durability="eternal"),
        lambda: knowledge.store(chunk, kv, positions=[1 << 31] * 10),
        lambda: knowledge.store(chunk, kv, ttl=1e9),
        lambda: knowledge.store(chunk, kv, ttl=-1),
        lambda: knowledge.store(chunk, kv, ttl=float("nan")),
        lambda: knowledge.store(chunk, kv, timeout=0),
        lambda: knowledge.retrieve([chunk], layers=(0, 9)),
        lambda: knowledge.retrieve([chunk], layers=(0,)),
        lambda: knowledge.retrieve([chunk], heads=(1, 1)),
        lambda: knowledge.retrieve([chunk], positions=[[1 << 31] * 10]),
        lambda: knowledge.retrieve([chunk], positions=[]),
        lambda: knowledge.pin([chunk], 0),
        lambda: knowledge.pin([chunk], -5),
        lambda: knowledge.pin([chunk], float("nan")),
        lambda: knowledge.chain([1 << 31]),
        lambda: client.open("no spaces", MODEL),
    ):
        with pytest.raises(kdn.InvalidArgument):
            call()
    assert not knowledge.lookup([chunk])[0].hit
    client.ping()


def test_ten_thousand_lookups_in_one_call(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chunk = knowledge.standalone([1])
    knowledge.store(chunk, kv_of(chunk))
    absent = knowledge.standalone([2])
    found = knowledge.lookup([absent] * 9_999 + [chunk], timeout=60)
    assert len(found) == 10_000 and found[-1].hit and not found[0].hit


def test_nobody_listening_is_unavailable(short_path: Path) -> None:
    for address in (f"unix:{short_path}/nobody.sock", "127.0.0.1:1"):
        with pytest.raises(kdn.Unavailable, match="is the cluster up"):
            kdn.Client(address)
    for address in ("nonsense", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:²"):
        with pytest.raises(kdn.InvalidArgument, match="address"):
            kdn.Client(address)


def test_a_socket_that_this_user_may_not_open_is_named_as_such(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: str, timeout: float) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kdn._connection._connect", refuse)
    with pytest.raises(kdn.Unavailable, match="Permission denied.*gateway_socket_group"):
        kdn.Client(cluster.unix())


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        with pytest.raises(kdn.DeadlineExceeded):  # connected, and nobody answers
            kdn.Client(f"[::1]:{port}", timeout=0.1)


def test_a_status_without_a_class_keeps_its_code() -> None:
    async def fail() -> None:
        raise error_of("aborted", "text")

    with pytest.raises(kdn.KdnError, match="text") as raised:
        shared_loop().run(fail())
    assert raised.value.code == "aborted"


def test_a_closed_client_says_so(cluster: Cluster, namespace: str) -> None:
    client = kdn.Client(cluster.unix())
    knowledge = client.open(namespace, MODEL)
    client.close()
    client.close()
    with pytest.raises(kdn.FailedPrecondition):
        knowledge.lookup(knowledge.chain([1]))


def test_a_client_that_hashes_differently_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdn._connection.golden_vectors", lambda: {"first-chunk": bytes(32)})
    with pytest.raises(kdn.FailedPrecondition, match="first-chunk"):
        kdn.Client(cluster.tcp())


def test_a_node_that_dies_is_unavailable_for_good(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, nodes=1, disk=False) as alone:
        client = kdn.Client(alone.unix())
        knowledge = client.open(namespace, MODEL)
        chain = knowledge.chain(range(10))
        alone.kill(0)
        for _ in range(2):
            with pytest.raises(kdn.Unavailable):
                knowledge.lookup(chain)
        client.close()


def test_a_killed_replica_is_not_noticed(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, disk=False) as three, kdn.Client(three.unix()) as client:
        knowledge = client.open(namespace, MODEL)
        chunks = [knowledge.standalone([i] * 40) for i in range(30)]
        for chunk in chunks:
            knowledge.store(chunk, kv_of(chunk))
        three.kill(1)
        got = knowledge.retrieve(chunks, timeout=30)
        assert [o.kind for o in got.outcomes] == ["hit"] * 30
        assert np.array_equal(got.kv, np.concatenate([kv_of(c) for c in chunks], axis=3))


def test_shared_memory_is_used_again_and_never_under_an_array(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.unix()) as client:
        assert client.shares_memory
        knowledge = client.open(namespace, MODEL)
        first, second = knowledge.standalone([1] * 64), knowledge.standalone([2] * 64)
        for chunk in (first, second):
            knowledge.store(chunk, kv_of(chunk))
        kept = knowledge.retrieve([first]).kv[0]
        for _ in range(200):  # more than the regions a session may have
            assert np.array_equal(knowledge.retrieve([second]).kv, kv_of(second))
        gc.collect()
        assert np.array_equal(kept, kv_of(first)[0]), "its memory went to another call"


def test_memory_is_shared_where_the_sockets_are_mounted_elsewhere(
    cluster: Cluster, namespace: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.unix().removeprefix("unix:")
    for suffix in ("", ".fd"):
        (short_path / f"engine.sock{suffix}").symlink_to(node + suffix)
    asked: list[str] = []

    def fetch(path: str, ticket: bytes) -> int:
        asked.append(path)
        return fetch_descriptor(path, ticket)

    fetch_descriptor = kdn.memory._fetch_descriptor
    monkeypatch.setattr("kdn.memory._fetch_descriptor", fetch)
    with kdn.Client(f"unix:{short_path}/engine.sock") as client:
        knowledge = client.open(namespace, MODEL)
        chunk = knowledge.standalone([9] * 64)
        knowledge.store(chunk, kv_of(chunk))
        assert client.shares_memory
    assert set(asked) == {f"{short_path}/engine.sock.fd"}


@pytest.mark.parametrize("refusal", ["gone", "forbidden", "silent"])
def test_where_memory_cannot_be_shared_kv_passes_the_socket(
    cluster: Cluster, namespace: str, refusal: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fetch(path: str, ticket: bytes) -> int:
        if refusal == "gone":  # as in another container, which lacks the path
            return fetch_descriptor(path + ".nowhere", ticket)
        if refusal == "forbidden":
            raise PermissionError(13, "Permission denied")
        return fetch_descriptor(path, b"?" * len(ticket))  # the node hangs up

    fetch_descriptor = kdn.memory._fetch_descriptor
    monkeypatch.setattr("kdn.memory._fetch_descriptor", fetch)
    with kdn.Client(cluster.unix()) as client:
        assert client.shares_memory
        knowledge = client.open(namespace, MODEL)
        chunk = knowledge.standalone([7] * 64)
        knowledge.store(chunk, kv_of(chunk))
        assert not client.shares_memory
        monkeypatch.undo()  # the client does not try again
        assert np.array_equal(knowledge.retrieve([chunk]).kv, kv_of(chunk))
        assert not client.shares_memory
    said = [record for record in caplog.records if "passes the socket" in record.message]
    assert len(said) == 1


def test_without_memory_to_spare_one_call_passes_the_socket(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        _, all_of_it = memory.array((int(client.node.memory_bytes_max),), np.dtype(np.uint8), 10)
        knowledge = client.open(namespace, MODEL)
        chunk = knowledge.standalone([8] * 64)
        knowledge.store(chunk, kv_of(chunk))
        assert client.shares_memory
        del all_of_it
        assert np.array_equal(knowledge.retrieve([chunk]).kv, kv_of(chunk))


def test_a_node_says_what_it_can_do(client: kdn.Client) -> None:
    assert "refuses-unknown" in client.node.features


def test_a_calibration_is_stored_on_every_node(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "recall.kdncal"
    facts = REPO / "model/recall/facts"
    subprocess.run([KDN, "codec", "calibrate", "--text", facts, "-o", file], check=True, stdout=subprocess.DEVNULL)
    recall = kdn.ModelSpec.from_directory(REPO / "model/recall")
    with kdn.Client(cluster.unix()) as client:
        with pytest.raises(kdn.DataLoss):
            client.store_calibration(b"no calibration")
        made = client.store_calibration(file.read_bytes())
        (found,) = client.calibrations(recall)
        assert found.id == made == hashlib.sha256(file.read_bytes()).hexdigest()
        assert found.model == kdn.fingerprint_of(recall).hex()
        assert found.created > 1.7e9 and found.bytes == file.stat().st_size
        assert len(found.nodes) == sum(node["alive"] for node in client.status())
        assert client.calibrations(MODEL) == []
        client._link.connection.node = dataclasses.replace(client.node, features=frozenset())
        with pytest.raises(kdn.Unimplemented, match="update it"):
            client.calibrations()


def test_an_engine_makes_a_calibration(cluster: Cluster, namespace: str) -> None:
    model = dataclasses.replace(MODEL, weights_digest=namespace)
    random = np.random.default_rng(1)
    with kdn.Client(cluster.unix()) as client:
        knowledge = client.open(namespace, model)
        (chunk,) = knowledge.chain(range(200))
        kv = kv_of(chunk, model)
        with pytest.raises(kdn.FailedPrecondition, match="archive needs a calibration"):
            knowledge.store(chunk, kv, levels=["archive"])
        calibrator = knowledge.calibrator()
        with pytest.raises(kdn.ResourceExhausted, match="makes another calibration"):
            knowledge.calibrator()
        shape = (model.num_layers, 2, model.num_kv_heads, 300, model.head_dim)
        of_tokens = random.random((model.num_layers, model.num_kv_heads, 300))
        with pytest.raises(kdn.InvalidArgument, match="expected"):
            calibrator.add(random.standard_normal(shape, dtype=np.float32), importance=of_tokens[:, :, :9])
        calibrator.add(random.standard_normal(shape, dtype=np.float32), importance=of_tokens)
        assert (calibrator.tokens, calibrator.tokens_min) == (300, 128)
        made = calibrator.finish([1.0, 2.0] * model.num_layers * model.num_kv_heads)
        (found,) = client.calibrations(model)
        assert found.id == made and found.created > 1.7e9
        assert len(found.nodes) == sum(node["alive"] for node in client.status())
        knowledge.store(chunk, kv, levels=["archive", "base+1"])
        for level, error_max in (("archive", 0.9), ("base+1", 0.3)):
            retrieved = knowledge.retrieve([chunk], accept=[level])
            assert [outcome.level for outcome in retrieved.outcomes] == [level]
            assert 0 < np.sqrt(np.mean((retrieved.kv - kv) ** 2)) < error_max
        few = knowledge.calibrator()
        few.add(random.standard_normal((*shape[:3], 10, shape[4]), dtype=np.float32), range(7, 17))
        with pytest.raises(kdn.InvalidArgument, match="at least 128 tokens, got 10"):
            few.finish()
        with pytest.raises(kdn.FailedPrecondition, match="is over"):
            few.finish()


def test_memory_kept_for_later_makes_room(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        granted = client.node.memory_bytes_max
        for share in (0.3, 0.4):  # the second does not fit where the first was
            _, array = memory.array((int(share * granted),), np.dtype(np.uint8), 10)
            del array
            gc.collect()
        _, large = memory.array((int(0.9 * granted),), np.dtype(np.uint8), 10)
        with pytest.raises(kdn.ResourceExhausted):
            memory.array((int(0.2 * granted),), np.dtype(np.uint8), 10)
        large[-1] = 1


def test_memory_comes_back_out_of_cycles(cluster: Cluster) -> None:
    """The garbage collector may run at any place, even inside Memory's own code."""
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(300):
                _, array = memory.array((5000,), np.dtype(np.uint8), 10)
                cycle: list[object] = [array]
                cycle.append(cycle)
                del array, cycle
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        memory._settle()
        assert [region.free.whole for region in memory._regions] == [True]


def test_memory_is_not_kept_for_ever(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        _, array = memory.array((5000,), np.dtype(np.uint8), 10)
        del array
        memory._settle()
        assert len(memory._regions) == 1
        monkeypatch.setattr("kdn.memory.SPARE_S", 0.0)
        memory._settle()
        assert not memory._regions


def test_nobody_counts_regions(cluster: Cluster, namespace: str) -> None:
    """A node limits the regions of a session to 64. A client may keep more arrays."""
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        knowledge = client.open(namespace, MODEL)
        chunks = [knowledge.standalone([i] * 64) for i in range(3)]
        for chunk in chunks:
            knowledge.store(chunk, kv_of(chunk))
        kept = [knowledge.retrieve([chunks[i % 3]]).kv for i in range(200)]
        for i, kv in enumerate(kept):
            assert np.array_equal(kv, kv_of(chunks[i % 3]))
        used = sum(region.free.size - sum(region.free._sizes.values()) for region in memory._regions)
        assert used >= sum(kv.nbytes for kv in kept), "some came over the socket"
        assert len(memory._regions) < 8


def test_a_closed_client_gives_out_no_memory_and_keeps_none(cluster: Cluster) -> None:
    client = kdn.Client(cluster.unix())
    memory = client._link.memory
    assert memory is not None
    _, kept = memory.array((5000,), np.dtype(np.uint8), 10)
    _, array = memory.array((30 << 20,), np.dtype(np.uint8), 10)
    del array
    memory.close()
    assert len(memory._regions) == 1, "the region in use stays, the other one goes"
    assert memory._take(4096) is None
    kept[:] = 1
    del kept
    memory._settle()
    assert not memory._regions
    client.close()


def test_one_timer_looks_after_spare_regions(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        planned = []
        post = memory._loop.post
        monkeypatch.setattr(
            memory._loop, "post", lambda call, delay=0.0: planned.append(call) if delay else post(call, delay)
        )
        for _ in range(20):
            _, array = memory.array((5000,), np.dtype(np.uint8), 10)
            del array
            memory._settle()
        assert len(planned) == 1
        planned[0]()
        _, array = memory.array((5000,), np.dtype(np.uint8), 10)
        del array
        memory._settle()
        assert len(planned) == 2


def test_spoiled_memory_is_not_used_again(cluster: Cluster) -> None:
    with kdn.Client(cluster.unix()) as client:
        memory = client._link.memory
        assert memory is not None
        part, array = memory.array((5000,), np.dtype(np.uint8), 10)
        _, beside = memory.array((5000,), np.dtype(np.uint8), 10)
        part.spoil()
        del array
        other, kept = memory.array((5000,), np.dtype(np.uint8), 10)
        assert other.region is not part.region
        assert len(memory._regions) == 2, "another array of the region is in use"
        del beside
        memory._settle()
        assert [region.spoiled for region in memory._regions] == [False]
        kept[:] = 1


def test_a_long_chain_comes_in_groups(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    chain = knowledge.chain(range(1500))
    for chunk in [*chain[:4], chain[5]]:
        knowledge.store(chunk, kv_of(chunk))
    two = 2 * MODEL.kv_bytes(256)
    assert [len(group) for group in knowledge.groups(chain, two)] == [2, 2, 2]
    assert [len(group) for group in knowledge.groups(chain, 1)] == [1] * 6
    assert list(knowledge.groups([], two)) == []
    parts = list(knowledge.retrieve_prefix(chain, group_bytes=two))
    assert [part.prefix_tokens for part in parts] == [512, 512, 0]
    kv = np.concatenate([part.kv for part in parts[:2]], axis=3)
    assert np.array_equal(kv, np.concatenate([kv_of(chunk) for chunk in chain[:4]], axis=3))


def test_threads_share_a_client(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.unix()) as client:
        knowledge = client.open(namespace, MODEL)
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for i in range(20):
                    chunk = knowledge.standalone([seed, i])
                    knowledge.store(chunk, kv_of(chunk))
                    assert np.array_equal(knowledge.retrieve([chunk]).kv, kv_of(chunk))
            except BaseException as error:  # shown below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_asyncio(cluster: Cluster, namespace: str) -> None:
    async def main() -> None:
        async with await kdn.AsyncClient.connect(cluster.unix()) as client:
            await client.ping()
            knowledge = await client.open(namespace, MODEL)
            *chunks, absent = [knowledge.standalone([i]) for i in range(21)]
            await asyncio.gather(*(knowledge.store(chunk, kv_of(chunk)) for chunk in chunks))
            all_got = await asyncio.gather(*(knowledge.retrieve([chunk]) for chunk in chunks))
            for chunk, got in zip(chunks, all_got):
                assert np.array_equal(got.kv, kv_of(chunk))
            some = knowledge.retrieve_prefix([*chunks[:3], absent, chunks[4]], group_bytes=1)
            parts = [part async for part in some]
            assert [part.prefix_tokens for part in parts] == [1, 1, 1, 0]
            assert await knowledge.pin(chunks[:1], 5) == [None]
            assert await knowledge.unpin(chunks[:1]) == [None]
            assert await knowledge.remove(chunks) == [None] * 20
            assert len(await client.status()) == 3

    asyncio.run(main())


def test_a_cancelled_call_leaves_the_client_usable(cluster: Cluster, namespace: str) -> None:
    async def main() -> None:
        async with await kdn.AsyncClient.connect(cluster.unix()) as client:
            knowledge = await client.open(namespace, MODEL)
            chunk = knowledge.standalone([7])
            await knowledge.store(chunk, kv_of(chunk))
            for _ in range(20):
                task = asyncio.create_task(knowledge.retrieve([chunk] * 50))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert np.array_equal((await knowledge.retrieve([chunk])).kv, kv_of(chunk))

    asyncio.run(main())


def test_another_process_finds_a_stored_chunk(cluster: Cluster, namespace: str) -> None:
    with kdn.Client(cluster.unix()) as client:
        knowledge = client.open(namespace, MODEL)
        chunk = knowledge.standalone([3] * 30)
        knowledge.store(chunk, kv_of(chunk))
    code = (
        "import sys, numpy as np, test_client as t, kdn\n"
        f"with kdn.Client({cluster.tcp(2)!r}) as client:\n"
        f"    knowledge = client.open({namespace!r}, t.MODEL)\n"
        "    chunk = knowledge.standalone([3] * 30)\n"
        "    assert np.array_equal(knowledge.retrieve([chunk]).kv, t.kv_of(chunk))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=60)


def test_failing_calls_and_forgotten_clients_leave_the_process_alone(cluster: Cluster) -> None:
    """The objects of a failed call, and a client that nobody closed, may be collected on
    any thread. So no Cap'n Proto object may be among them."""
    code = (
        "import dataclasses, gc, sys, threading, kdn\n"
        "from test_client import MODEL\n"
        "bad = dataclasses.replace(MODEL, rope=kdn.RopeSpec(rotary_dim=15))\n"
        "def fail(client):\n"
        "    for i in range(40):\n"
        "        for use in (\n"
        "            lambda: client.open('x', bad),\n"
        "            lambda: client._link.memory.array((1 << 40,), MODEL_DTYPE, 1),\n"
        "        ):\n"
        "            try: use()\n"
        "            except kdn.KdnError: pass\n"
        "            else: sys.exit('it did not fail')\n"
        "        if i % 8 == 0: gc.collect()\n"
        "import numpy; MODEL_DTYPE = numpy.dtype('u1')\n"
        "client = kdn.Client(sys.argv[1])\n"
        "threads = [threading.Thread(target=fail, args=(client,)) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "for _ in range(10):\n"
        "    forgotten = kdn.Client(sys.argv[1]).open('x', MODEL)\n"
        "    del forgotten; gc.collect()\n"
        "client.ping(); print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cluster.unix()],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def in_a_child(work: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> int:
    """Forks. The child runs `work` after the parent has run `meanwhile`. Returns the child's
    exit code: 0 unless `work` raised."""
    begins, goes_on = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(goes_on)
            os.read(begins, 1)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(begins)
    try:
        meanwhile()
    finally:
        os.close(goes_on)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code


def test_a_forked_child_writes_into_no_memory_of_its_parent(client: kdn.Client, namespace: str) -> None:
    knowledge = client.open(namespace, MODEL)
    [chunk] = knowledge.chain(range(200))
    knowledge.store(chunk, np.ones_like(kv_of(chunk)))  # its region is free now, in parent and child
    live = []

    def work() -> None:
        for use in (
            lambda: knowledge.store(chunk, np.full_like(kv_of(chunk), 666)),
            lambda: knowledge.retrieve([chunk]),
        ):
            with pytest.raises(kdn.FailedPrecondition, match="parent"):
                use()

    assert in_a_child(work, lambda: live.append(knowledge.retrieve([chunk]).kv)) == 0
    assert (live[0] == 1).all()


def test_pins_end_with_their_client_though_a_child_lives(client: kdn.Client, dial: Dial, namespace: str) -> None:
    with dial(1) as other:
        knowledge, remaining = client.open(namespace, MODEL), other.open(namespace, MODEL)
        [chunk] = knowledge.chain(range(10))
        knowledge.store(chunk, kv_of(chunk))
        assert knowledge.pin([chunk], 600) == [None]
        removed = []

        def close() -> None:
            client.close()
            removed.append(gone(remaining, chunk))

        assert in_a_child(lambda: None, close) == 0
        assert removed == [True], "the child holds the connection, and so the pin"


def gone(knowledge: kdn.Knowledge, chunk: kdn.Chunk) -> bool:
    """Whether the chunk can be removed, at once or after the nodes learn of an ended session."""
    return any(knowledge.remove([chunk]) == [None] for _ in range(1000))


def test_a_forked_child_connects_anew(cluster: Cluster) -> None:
    with kdn.Client(cluster.unix()) as client:
        client.ping()

        def connect() -> None:
            with kdn.Client(cluster.unix()) as own:
                own.ping()

        assert in_a_child(connect) == 0
        client.ping()
