"""Tests the connector with the real vLLM, a real model and a real cluster. Skipped unless
vllm is installed. The tests that start engines need vLLM's build for CPUs (python/README.md
shows how to get it)."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, MODEL, Cluster

vllm = pytest.importorskip("vllm")

import torch  # noqa: E402
import transformers  # noqa: E402
from vllm.config import KVTransferConfig  # noqa: E402
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorRole  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec  # noqa: E402

import kdn  # noqa: E402
from kdn.errors import InvalidArgument, Unimplemented  # noqa: E402
from kdn.keys import Chunk  # noqa: E402
from kdn.model import ModelSpec  # noqa: E402
from kdn.prefix_plan import Load, Waits  # noqa: E402
from kdn.transformers import KnowledgeBase  # noqa: E402
from kdn.vllm import (  # noqa: E402
    KdnConnector,
    KdnMetadata,
    Settings,
    TensorParallelMerge,
    check_cache,
    check_failure_policy,
    cpu_block_order,
    needs_every_token,
    only_tokens_count,
    spec_of_vllm,
)

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

    def __init__(
        self,
        addresses: list[str],
        namespace: str,
        role: str = "kv_both",
        lookup_wait: float = 5.0,
        model: Path = MODEL,
        **options: Any,
    ) -> None:
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
        # A busy machine may need long for a lookup.
        connector = {"addresses": addresses, "namespace": namespace, "lookup_wait": lookup_wait}
        settings = {"model": str(model), "options": {"dtype": "float32", **options}, "role": role}
        self._send({**settings, "connector": connector if addresses else None})

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def ask(self, **sampling: Any) -> list[dict[str, Any]]:
        """Asks all prompts. Per prompt: the answer's text and tokens, the number of the prompt's
        tokens, and how many of those were delivered and not computed."""
        return self.ask_of(prompts(), **sampling)

    def ask_of(self, texts: Sequence[Any], **sampling: Any) -> list[dict[str, Any]]:
        """The same for other prompts: texts, or chats (lists of messages)."""
        self._send([texts, sampling])
        return self._answer()

    def reset(self) -> bool:
        self._send("reset")
        return self._answer()

    def reset_during(self, prompt: str) -> bool:
        """Resets while the prompt is being answered."""
        self._send(prompt)
        return self._answer()

    def _answer(self) -> Any:
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
        self._process.wait(timeout=300)
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


def ask_until_delivered(engine: Engine) -> list[dict[str, Any]]:
    """Asks until all whole chunks are delivered: stores run in the background."""
    for _ in range(100):
        answers = engine.ask()
        if [a["delivered"] for a in answers] == whole_chunks(answers):
            return answers
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
    with pytest.raises(InvalidArgument, match="timeout of 0 s"):
        Settings.of({"lookup_wait": 0})
    assert Settings.of({}).exact and not Settings.of({"accept": ["lossless", "int8"]}).exact


def test_a_request_of_more_than_tokens_is_left_alone() -> None:
    class Request:
        prompt_token_ids = (1, 2)
        cache_salt = None

    request = Request()
    assert only_tokens_count(request)
    request.cache_salt = "tenant"
    assert not only_tokens_count(request)


def test_a_request_that_needs_every_token_is_computed() -> None:
    request = types.SimpleNamespace(sampling_params=types.SimpleNamespace(prompt_logprobs=None))
    assert not needs_every_token(request)
    request.sampling_params.prompt_logprobs = 0
    assert needs_every_token(request)
    assert needs_every_token(types.SimpleNamespace(skip_reading_prefix_cache=True))
    assert needs_every_token(types.SimpleNamespace(pooling_params=object()))


def test_requests_that_would_fail_with_a_node_are_refused() -> None:
    transfer = types.SimpleNamespace(kv_load_failure_policy="fail", is_kv_consumer=True)
    with pytest.raises(InvalidArgument, match='"kv_load_failure_policy": "recompute"'):
        check_failure_policy(transfer)
    transfer.is_kv_consumer = False  # it loads nothing
    check_failure_policy(transfer)


def cache_of(**changes: Any) -> Any:
    spec = FullAttentionSpec(
        **{"block_size": 16, "num_kv_heads": 2, "head_size": 64, "dtype": torch.bfloat16, **changes}
    )
    return types.SimpleNamespace(kv_cache_groups=[types.SimpleNamespace(kv_cache_spec=spec, layer_names=["0"])])


def test_caches_that_are_not_understood_are_refused() -> None:
    spec = ModelSpec.from_directory(MODEL, "bf16")
    assert check_cache(cache_of(), spec) == 16
    wrong = {
        "KV of dtype float8_e4m3fn": {"dtype": torch.float8_e4m3fn},  # chosen by the checkpoint's kv_cache_scheme
        "KV of dtype uint8": {"dtype": torch.uint8},
        "dtype torch.float32 for a model of dtype bf16": {"dtype": torch.float32},
        "sliding_window 128": {"sliding_window": 128},
        "attention_chunk_size 64": {"attention_chunk_size": 64},
        "later tokens": {"non_causal": True},
    }
    for why, changes in wrong.items():
        with pytest.raises(Unimplemented, match=why):
            check_cache(cache_of(**changes), spec)
    two = cache_of()
    two.kv_cache_groups *= 2
    with pytest.raises(Unimplemented, match="more than one KV cache group"):
        check_cache(two, spec)


def config_of(role: str = "kv_both", addresses: Any = "unix:/nobody", namespace: str = "test", **options: Any) -> Any:
    transfer = KVTransferConfig(
        kv_connector="KdnConnector",
        kv_connector_module_path="kdn.vllm",
        kv_role=role,
        kv_load_failure_policy="recompute",
        kv_connector_extra_config={"addresses": addresses, "namespace": namespace, "lookup_wait": 5},
    )
    options = {"model": str(MODEL), "dtype": "bfloat16", "kv_transfer_config": transfer, **options}
    return EngineArgs(**options).create_engine_config()


def scheduler_of(**options: Any) -> Any:
    return KdnConnector(config_of(**options), KVConnectorRole.SCHEDULER, cache_of())


def request_of(name: str = "r", tokens: int = 700) -> Any:
    return types.SimpleNamespace(request_id=name, prompt_token_ids=list(range(tokens)), sampling_params=None)


def matched(connector: Any, request: Any) -> tuple[int, bool]:
    tick = threading.Event()
    for _ in range(3000):
        count, loads = connector.get_num_new_matched_tokens(request, 0)
        if count is not None:
            return count, loads
        tick.wait(0.01)
    raise TimeoutError


@on_cpu
def test_weights_that_are_not_those_of_the_files_need_a_name() -> None:
    config = config_of()
    plain = spec_of_vllm(config, Settings())
    config.load_config.load_format = "dummy"
    with pytest.raises(InvalidArgument, match="--load-format dummy .*: set weights_digest"):
        spec_of_vllm(config, Settings())
    fields = json.loads((MODEL / "config.json").read_text())
    named = ModelSpec.from_config(fields, weights_digest="w", tokenizer_digest=plain.tokenizer_digest)
    assert spec_of_vllm(config, Settings(weights_digest="w")) == replace(named, name=plain.name)
    config = config_of()
    config.model_config.model_weights = "s3://elsewhere"
    with pytest.raises(InvalidArgument, match="come from 's3://elsewhere': set weights_digest"):
        spec_of_vllm(config, Settings())
    config = config_of()
    config.model_config.quantization_config = {"activation": "fp8"}
    assert spec_of_vllm(config, Settings()) != plain
    config = config_of()
    config.model_config.runner_type = "pooling"
    with pytest.raises(Unimplemented, match="pooling"):
        spec_of_vllm(config, Settings())


@on_cpu
def test_draft_layers_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    connector = KdnConnector(config_of(), KVConnectorRole.WORKER, cache_of())
    layers = connector._spec.num_layers
    caches = {f"model.layers.{i}.self_attn.attn": torch.zeros(2, 2, 16, 128) for i in range(layers + 1)}
    with pytest.raises(Unimplemented, match="a draft model with KV of its own"):
        connector.register_kv_caches(caches)
    connector.shutdown()


@on_cpu
def test_the_scheduler_does_not_wait_for_a_node_that_hangs(short_path: Path, namespace: str) -> None:
    with Cluster(short_path, nodes=1) as alone:
        connector = scheduler_of(addresses=alone.unix(), namespace=namespace)
        assert matched(connector, request_of()) == (0, False)
        connector._plan._waits = Waits(0.05)
        with alone.nodes[0].stopped():
            request = request_of("s")
            assert connector.get_num_new_matched_tokens(request, 0) == (None, False)
            begin = time.monotonic()
            assert matched(connector, request) == (0, False)
            assert time.monotonic() - begin < 1
        connector.request_finished(request, [])
        connector.shutdown()


@on_cpu
def test_a_prompt_that_cannot_be_cut_ends_nothing(cluster: Cluster, namespace: str) -> None:
    connector = scheduler_of(addresses=cluster.unix(), namespace=namespace)
    request = request_of()
    request.prompt_token_ids[3] = -1
    connector.on_new_request(request)
    assert connector.get_num_new_matched_tokens(request, 0) == (0, False)
    connector.shutdown()


@on_cpu
def test_a_reset_moves_scheduler_and_workers_to_another_generation(cluster: Cluster, namespace: str) -> None:
    connector = scheduler_of(addresses=cluster.unix(), namespace=namespace)
    spec, chain = connector._spec, connector._cluster.chain(range(700))
    with kdn.Client(cluster.unix()) as client:
        shape = (spec.num_layers, 2, spec.num_kv_heads, 256, spec.head_dim)
        client.open(namespace, spec).store(chain[0], torch.zeros(shape, dtype=torch.bfloat16))
    request = request_of()
    assert matched(connector, request) == (256, True)
    connector.update_state_after_alloc(request, types.SimpleNamespace(get_block_ids=lambda: [list(range(50))]), 256)
    assert connector.reset_cache() is True
    empty = types.SimpleNamespace(
        scheduled_new_reqs=[], scheduled_cached_reqs=types.SimpleNamespace(req_ids=[]), num_scheduled_tokens={}
    )
    meta = connector.build_connector_meta(empty)
    assert meta.loads == [Load("r", (), 0, 256, tuple(range(50)))] and meta.overwritten == list(range(50))
    assert meta.generation != KdnMetadata().generation == ""
    assert matched(connector, request) == (0, False)
    assert connector._cluster.chain(range(700))[0].key != chain[0].key
    connector.shutdown()
    worker = KdnConnector(config_of(), KVConnectorRole.WORKER, cache_of())
    assert worker.reset_cache() is False, "only the scheduler knows the generation"
    worker.shutdown()


@on_cpu
def test_a_reset_does_not_wait_for_a_connection(short_path: Path) -> None:
    """The thread of the lookups connects with the lock held, which takes seconds per address."""
    connector = scheduler_of(addresses=[f"unix:{short_path}/nobody.sock"])
    with connector._cluster._lock:
        reset = threading.Thread(target=connector.reset_cache, daemon=True)
        reset.start()
        reset.join(timeout=60)
        assert not reset.is_alive()
    assert connector._generation
    connector.shutdown()


@on_cpu
def test_a_producer_loads_nothing(cluster: Cluster, namespace: str) -> None:
    producer = scheduler_of(role="kv_producer", addresses=cluster.unix(), namespace=namespace)
    spec, chain = producer._spec, producer._cluster.chain(range(700))
    with kdn.Client(cluster.unix()) as client:
        shape = (spec.num_layers, 2, spec.num_kv_heads, 256, spec.head_dim)
        client.open(namespace, spec).store(chain[0], torch.zeros(shape, dtype=torch.bfloat16))
    assert matched(producer, request_of()) == (0, False)
    consumer = scheduler_of(role="kv_consumer", addresses=cluster.unix(), namespace=namespace)
    assert matched(consumer, request_of()) == (256, True)
    assert not consumer._stores_here() and producer._stores_here()
    assert producer.requires_kv_delivery is False
    producer.shutdown()
    consumer.shutdown()


def _merging_rank(rank: int, heads: list[tuple[int, int]], path: str, out: Any) -> None:
    size = len(heads)
    torch.distributed.init_process_group("gloo", f"file://{path}", rank=rank, world_size=size)
    merge = TensorParallelMerge(rank, range(size), 4)
    whole = torch.arange(3 * 2 * 4 * 8 * 16, dtype=torch.float32).view(3, 2, 4, 8, 16).to(torch.bfloat16)
    mine = whole[:, :, slice(*heads[rank])]
    for number in range(4):
        chunk = Chunk(number.to_bytes(4, "big"), b"", (1,))
        got = merge(chunk, None if number == 2 and rank == size - 1 else mine)
        out.put((number, rank, None if got is None else bool(torch.equal(got, whole))))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("heads", [[(0, 2), (2, 4)], [(0, 2), (0, 2), (2, 4), (2, 4)]], ids=["2 ranks", "4 ranks"])
def test_ranks_join_their_heads(heads: list[tuple[int, int]], tmp_path: Path) -> None:
    """The ranks take turns; when one rank has no KV, no rank gets any. Each process imports
    vLLM, which takes minutes on a busy machine."""
    spawn = multiprocessing.get_context("spawn")
    out = spawn.Queue()
    ranks = [
        spawn.Process(target=_merging_rank, args=(rank, heads, str(tmp_path / "group"), out), daemon=True)
        for rank in range(len(heads))
    ]
    for rank in ranks:
        rank.start()
    got = {(number, rank): kv for number, rank, kv in (out.get(timeout=600) for _ in range(4 * len(heads)))}
    for rank in ranks:
        rank.join(timeout=60)
    for number in range(4):
        for rank in range(len(heads)):
            takes = number % len(heads) == rank and number != 2
            assert got[number, rank] is (True if takes else None)


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
def test_after_a_reset_only_new_kv_is_delivered(cluster: Cluster, namespace: str) -> None:
    with Engine([cluster.unix()], namespace) as engine:
        before = ask_until_delivered(engine)
        assert engine.reset() is True
        after = engine.ask()
        assert [a["delivered"] for a in after] == [0] * len(after)
        again = ask_until_delivered(engine)
    assert tokens(before) == tokens(after) == tokens(again)


def stores_of(cluster: Cluster) -> int:
    with kdn.Client(cluster.unix()) as client:
        return sum(node["metrics"]["stores"] for node in client.status())


@on_cpu
def test_after_a_reset_that_vllm_refuses_nothing_is_stored_behind_old_kv(short_path: Path, namespace: str) -> None:
    """A running request keeps vLLM's own prefix cache, which a later prompt hits."""
    text = (MODEL / asked()[0]["file"]).read_text()
    with Cluster(short_path, nodes=1) as alone:
        with Engine([alone.unix()], namespace, enable_prefix_caching=True) as engine:
            assert engine.reset_during(text) is False
            (answer,) = engine.ask_of([3 * text])
        assert answer["prompt_tokens"] > 768 and answer["delivered"] >= 256, "by vLLM's own cache"
        assert stores_of(alone) == 1, "only the chunk that was computed before the reset"


@on_cpu
def test_a_consumer_stores_nothing_and_a_producer_loads_nothing(cluster: Cluster, namespace: str) -> None:
    with Engine([cluster.unix()], namespace, role="kv_consumer") as consumer:
        alone, alone_again = consumer.ask(), consumer.ask()
        assert [a["delivered"] for a in alone_again] == [0] * len(alone)
        with Engine([cluster.unix()], namespace, role="kv_producer") as producer:
            producer.ask()
            consumed = ask_until_delivered(consumer)
            produced = producer.ask()
            assert [a["delivered"] for a in produced] == [0] * len(produced)
        every = consumer.ask(prompt_logprobs=0)
    assert [a["delivered"] for a in every] == [0] * len(every)
    assert [a["logprobs"] for a in every] == [a["prompt_tokens"] for a in every]
    assert tokens(alone) == tokens(produced) == tokens(consumed) == tokens(every)


@on_cpu
def test_vllm_serves_kv_of_kdn_inject(cluster: Cluster, namespace: str) -> None:
    files = sorted({str(MODEL / q["file"]) for q in asked()})
    command = [str(KDN), "inject", "--connect", cluster.unix(1), "--namespace", namespace, *files]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    served = run([cluster.unix()], namespace, dtype="bfloat16")
    assert [a["delivered"] for a in served] == whole_chunks(served)
    assert right(served)


@on_cpu
def test_a_chat_begins_with_what_transformers_added(cluster: Cluster, namespace: str, language_model: Path) -> None:
    handbook = "Handbook of the Harbour House.\n" + "".join(
        f"Room {n} is on floor {n // 100}; its key hangs on hook {n % 37}.\n" for n in range(101, 131)
    )
    handbook += "The password of the guest network is bluewhale77.\n"
    model = transformers.AutoModelForCausalLM.from_pretrained(str(language_model), torch_dtype="auto").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(language_model))
    with KnowledgeBase(model, tokenizer, cluster.unix(1), namespace=namespace) as base:
        added = base.add("handbook", handbook, chat=True)
        assert added.stored == added.chunks
    chat = [
        {"role": "system", "content": handbook},
        {"role": "user", "content": "What is the password of the guest network?"},
    ]
    with Engine([cluster.unix()], namespace, model=language_model, dtype="bfloat16") as engine:
        [answer] = engine.ask_of([chat], max_tokens=24)
    assert answer["delivered"] == added.tokens // 256 * 256 >= 512
    assert "bluewhale77" in answer["text"]


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
    config = EngineArgs(model=str(MODEL), dtype="bfloat16").create_engine_config()
    assert spec_of_vllm(config, Settings()) == ModelSpec.from_directory(MODEL, "bf16")
    config.model_config.quantization = "fp8"
    assert spec_of_vllm(config, Settings()) != ModelSpec.from_directory(MODEL, "bf16")
