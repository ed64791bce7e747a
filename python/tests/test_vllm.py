"""Tests the connector with the real vLLM, a real model and a real cluster. Skipped unless
vllm is installed. The tests that start engines need vLLM's build for CPUs (python/README.md
shows how to get it)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, MODEL, Cluster

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

import kdn  # noqa: E402
from kdn.errors import InvalidArgument  # noqa: E402
from kdn.model import ModelSpec  # noqa: E402
from kdn.vllm import KdnConnector, Settings, cpu_block_order, only_tokens_count  # noqa: E402

ENGINE = Path(__file__).with_name("vllm_engine.py")
on_cpu = pytest.mark.skipif(not current_platform.is_cpu(), reason="vllm is not a build for CPUs")


def asked() -> list[dict[str, str]]:
    questions = [json.loads(line) for line in (MODEL / "questions.jsonl").read_text().splitlines()]
    return questions[:12]


def prompts() -> list[str]:
    """Prompts of facts with a question behind them."""
    return [(MODEL / q["file"]).read_text() + " <q> " + q["question"] for q in asked()]


class Engine:
    """vLLM in its own process; a context manager. The exit waits until all saves are stored."""

    def __init__(self, addresses: list[str], namespace: str, **options: Any) -> None:
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        if options.get("tensor_parallel_size") == 2:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, str(ENGINE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
        )
        connector = {"addresses": addresses, "namespace": namespace} if addresses else None
        self._send({"model": str(MODEL), "options": {"dtype": "float32", **options}, "connector": connector})

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def ask(self) -> list[dict[str, Any]]:
        """Asks all prompts. Per prompt: the answer's text and tokens, the number of the prompt's
        tokens, and how many of those were delivered and not computed."""
        self._send(prompts())
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ANSWERS "):
                return json.loads(line.removeprefix("ANSWERS "))
        self._errors.seek(0)
        raise AssertionError(self._errors.read()[-4000:])

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)
        self._errors.close()


def run(addresses: list[str], namespace: str, **options: Any) -> list[dict[str, Any]]:
    with Engine(addresses, namespace, **options) as engine:
        return engine.ask()


def right(answers: list[dict[str, Any]]) -> bool:
    return all(a["text"].split()[0] == q["answer"] for a, q in zip(answers, asked()))


def wait_until(true: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(3000):
        if true():
            return
        tick.wait(0.01)
    raise TimeoutError


def tokens(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [answer["tokens"] for answer in answers]


def whole_chunks(answers: list[dict[str, Any]]) -> list[int]:
    return [answer["prompt_tokens"] // 256 * 256 for answer in answers]


def test_nothing_of_the_interface_is_left_abstract() -> None:
    assert issubclass(KdnConnector, KVConnectorBase_V1)
    assert not KdnConnector.__abstractmethods__


def test_unknown_settings_are_named() -> None:
    assert Settings.of({"addresses": "unix:/tmp/x"}).addresses == ["unix:/tmp/x"]
    with pytest.raises(InvalidArgument, match="'adresses'; it knows .*addresses"):
        Settings.of({"adresses": []})
    for wrong in ({"accept": ["lossles"]}, {"levels": ["best"]}, {"durability": "eternal"}):
        with pytest.raises(InvalidArgument):
            Settings.of(wrong)
    assert Settings.of({}).exact and not Settings.of({"accept": ["lossless", "int8"]}).exact


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
    alone = run([], namespace)
    cold = run([cluster.unix()], namespace)
    warm = run([cluster.tcp(2)], namespace)
    assert tokens(alone) == tokens(cold) == tokens(warm)
    assert [a["delivered"] for a in alone] == [0] * len(alone)
    assert [a["delivered"] for a in warm] == whole_chunks(warm)
    assert sum(whole_chunks(warm)) > 1000
    assert right(warm)


@on_cpu
def test_ranks_of_another_layout_read_what_one_rank_stored(cluster: Cluster, namespace: str) -> None:
    one = run([cluster.unix()], namespace)
    two = run([cluster.unix()], namespace, tensor_parallel_size=2)
    assert [a["delivered"] for a in two] == whole_chunks(two)
    assert tokens(one) == tokens(two)


@on_cpu
def test_one_rank_reads_what_two_ranks_stored(cluster: Cluster, namespace: str) -> None:
    two = run([cluster.unix()], namespace, tensor_parallel_size=2)
    one = run([cluster.unix()], namespace)
    assert [a["delivered"] for a in one] == whole_chunks(one)
    assert tokens(one) == tokens(two)


@on_cpu
def test_vllm_serves_kv_of_kdn_inject(cluster: Cluster, namespace: str) -> None:
    files = sorted({str(MODEL / q["file"]) for q in asked()})
    command = [str(KDN), "inject", "--connect", cluster.unix(1), "--namespace", namespace, *files]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    served = run([cluster.unix()], namespace, dtype="bfloat16")
    assert [a["delivered"] for a in served] == whole_chunks(served)
    assert right(served)


@on_cpu
def test_an_engine_outlives_nodes_and_cluster(short_path: Path, namespace: str) -> None:
    with Cluster(short_path) as three, Engine([three.unix(0), three.unix(1)], namespace) as engine:
        cold = engine.ask()
        with kdn.Client(three.unix(2)) as client:  # waits until the background saves are stored
            wait_until(lambda: sum(node["metrics"]["stores"] for node in client.status()) >= 4)
        three.kill(2)  # a replica
        warm = engine.ask()
        assert [a["delivered"] for a in warm] == whole_chunks(warm), "every chunk has another owner"
        three.kill(0)  # the node it is connected to
        after = engine.ask()
        three.kill(1)
        alone = engine.ask()
    assert tokens(cold) == tokens(warm) == tokens(after) == tokens(alone)
    assert [a["delivered"] for a in alone] == [0] * len(alone)
    assert right(alone)


@on_cpu
def test_an_engine_without_a_cluster_answers(short_path: Path, namespace: str) -> None:
    assert right(run([f"unix:{short_path}/nobody.sock"], namespace))


@on_cpu
def test_the_model_is_the_one_kdn_inject_registers(namespace: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from kdn.vllm import spec_of_vllm

    config = EngineArgs(model=str(MODEL), dtype="bfloat16").create_engine_config()
    assert spec_of_vllm(config, Settings()) == ModelSpec.from_directory(MODEL, "bf16")
    config.model_config.quantization = "fp8"
    assert spec_of_vllm(config, Settings()) != ModelSpec.from_directory(MODEL, "bf16")
