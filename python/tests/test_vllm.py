"""The real vLLM, a real model and a real cluster. Runs where vllm is installed; where
it is a build for CPUs, engines are started too (python/README.md says how)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, MODEL, Cluster

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from kdn.errors import InvalidArgument  # noqa: E402
from kdn.model import ModelSpec  # noqa: E402
from kdn.vllm import KdnConnector, Settings, cpu_block_order, only_tokens_count  # noqa: E402

ENGINE = Path(__file__).with_name("vllm_engine.py")
on_cpu = pytest.mark.skipif(not current_platform.is_cpu(), reason="vllm is not a build for CPUs")


def asked() -> list[dict[str, str]]:
    questions = [json.loads(line) for line in (MODEL / "questions.jsonl").read_text().splitlines()]
    return questions[:12]


def run(cluster: Cluster | None, namespace: str, address: str = "", **options: Any) -> list[dict[str, Any]]:
    """Prompts of facts and a question each, answered by an engine of its own process:
    per prompt its tokens and how many were not computed."""
    request = {
        "model": str(MODEL),
        "prompts": [(MODEL / q["file"]).read_text() + " <q> " + q["question"] for q in asked()],
        "options": {"dtype": "float32", **options},
        "connector": cluster and {"addresses": [address or cluster.unix()], "namespace": namespace},
    }
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if options.get("tensor_parallel_size") == 2:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    done = subprocess.run(
        [sys.executable, str(ENGINE)],
        input=json.dumps(request),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def tokens(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [answer["tokens"] for answer in answers]


def whole_chunks(answers: list[dict[str, Any]]) -> list[int]:
    return [answer["prompt_tokens"] // 256 * 256 for answer in answers]


def test_nothing_of_the_interface_is_left_abstract() -> None:
    assert issubclass(KdnConnector, KVConnectorBase_V1)
    assert not KdnConnector.__abstractmethods__


def test_settings_that_nobody_knows_are_named() -> None:
    assert Settings.of({"addresses": "unix:/tmp/x"}).addresses == ["unix:/tmp/x"]
    with pytest.raises(InvalidArgument, match="'adresses'; it knows addresses"):
        Settings.of({"adresses": []})


def test_a_request_of_more_than_tokens_is_left_alone() -> None:
    class Request:
        prompt_token_ids = (1, 2)
        cache_salt = None

    request = Request()
    assert only_tokens_count(request)
    request.cache_salt = "tenant"
    assert not only_tokens_count(request)


@on_cpu
@pytest.mark.parametrize("isa", ["vec", "amx"])
def test_the_kernels_say_how_they_pack_a_block(isa: str) -> None:
    dtype = torch.bfloat16 if isa == "amx" else torch.float32
    order = cpu_block_order(isa, torch.zeros(1, 1, 32, 128, dtype=dtype))
    for place in (order.k, order.v):
        assert place.shape == (32, 64)
    both = torch.cat([order.k.flatten(), order.v.flatten()])
    assert sorted(both.tolist()) == list(range(32 * 128))


@on_cpu
def test_vllm_answers_the_same_with_the_kdn_as_without(cluster: Cluster, namespace: str) -> None:
    alone = run(None, namespace)
    cold = run(cluster, namespace)
    warm = run(cluster, namespace, cluster.tcp(2))
    assert tokens(alone) == tokens(cold) == tokens(warm)
    assert [a["delivered"] for a in alone] == [0] * len(alone)
    assert [a["delivered"] for a in warm] == whole_chunks(warm)
    assert sum(whole_chunks(warm)) > 1000
    right = [a["text"].split()[0] == q["answer"] for a, q in zip(warm, asked())]
    assert all(right)


@on_cpu
def test_ranks_of_another_layout_read_what_one_rank_stored(cluster: Cluster, namespace: str) -> None:
    one = run(cluster, namespace)
    two = run(cluster, namespace, tensor_parallel_size=2)
    assert [a["delivered"] for a in two] == whole_chunks(two)
    assert tokens(one) == tokens(two)


@on_cpu
def test_one_rank_reads_what_two_ranks_stored(cluster: Cluster, namespace: str) -> None:
    two = run(cluster, namespace, tensor_parallel_size=2)
    one = run(cluster, namespace)
    assert [a["delivered"] for a in one] == whole_chunks(one)
    assert tokens(one) == tokens(two)


@on_cpu
def test_vllm_serves_what_kdn_inject_computed(cluster: Cluster, namespace: str) -> None:
    files = sorted({str(MODEL / q["file"]) for q in asked()})
    command = [str(KDN), "inject", "--connect", cluster.unix(1), "--namespace", namespace, *files]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    served = run(cluster, namespace, dtype="bfloat16")
    assert [a["delivered"] for a in served] == whole_chunks(served)
    assert all(a["text"].split()[0] == q["answer"] for a, q in zip(served, asked()))


@on_cpu
def test_an_engine_without_a_cluster_answers(short_path: Path, namespace: str) -> None:
    class Nowhere:
        def unix(self) -> str:
            return f"unix:{short_path}/nobody.sock"

    answers = run(Nowhere(), namespace)  # type: ignore[arg-type]
    assert all(a["text"].split()[0] == q["answer"] for a, q in zip(answers, asked()))


@on_cpu
def test_the_model_is_the_one_kdn_inject_registers(namespace: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from kdn.vllm import spec_of_vllm

    config = EngineArgs(model=str(MODEL), dtype="bfloat16").create_engine_config()
    assert spec_of_vllm(config, Settings()) == ModelSpec.from_directory(MODEL, "bf16")
