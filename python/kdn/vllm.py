"""A KV connector (KVConnectorBase_V1) for vLLM. Use it so:

    vllm serve MODEL --kv-transfer-config '{
      "kv_connector": "KdnConnector", "kv_connector_module_path": "kdn.vllm",
      "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"addresses": ["unix:/tmp/kdn-local-3-n1.sock"]}}'

The connector loads the prefix of a prompt that the cluster holds, between two steps, into
the blocks that vLLM reserved for it. It stores the whole chunks of a prompt that were
computed. Neither the scheduler nor a worker waits for the cluster. A rank loads its own
layers and KV heads, so ranks of any tensor- or pipeline-parallel layout read the same
objects. Requests whose KV depends on more than their tokens (LoRA, multimodal input, prompt
embeddings, a cache salt) are neither loaded nor stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from ._connection import milliseconds
from .client import DEFAULT_ADDRESS
from .errors import InvalidArgument, Unimplemented
from .failover import Failover
from .generation import FIRST, new_generation, of_generation
from .huggingface import directory_of, served_digest, spec_of_config
from .keys import Chunk
from .knowledge import Knowledge
from .lookups import Lookups
from .model import ModelSpec, dtype_name, tokenizer_digest
from .paged import BlockOrder, PagedKv
from .paged_worker import Options, PagedWorker, Rank
from .prefix_plan import Load, PrefixPlan, Save, Waits

_log = logging.getLogger("kdn")

_FILE_FORMATS = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer")
"""The values of --load-format with which vLLM loads the safetensors files of a checkpoint
directory, and nothing else."""
_MERGE_TIMEOUT_S = 60
"""After this time without another rank, a rank stores no more chunks."""


@dataclass(frozen=True)
class Settings(Options):
    """The settings in kv_connector_extra_config. `ca` is that of `kdn.Client`. `lookup_wait` is the longest time, in
    seconds, that a request waits for the lookup of its prompt. The two digests replace the
    digests of the model's and the tokenizer's files, for a model that is not a checkpoint
    directory."""

    addresses: Sequence[str] = (DEFAULT_ADDRESS,)
    namespace: str = "default"
    ca: str = ""
    lookup_wait: float = 0.05
    weights_digest: str = ""
    tokenizer_digest: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        milliseconds(self.lookup_wait)

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> Settings:
        unknown = sorted(set(extra) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InvalidArgument(f"kv_connector_extra_config has {unknown[0]!r}; it knows {known}")
        settings = cls(**extra)
        if isinstance(settings.addresses, str):
            return cls(**{**extra, "addresses": [settings.addresses]})
        return settings


@dataclass
class KdnMetadata(KVConnectorMetadata):
    """The scheduler's message to the workers for one step. `overwritten` are the blocks
    that the step may overwrite. `generation` is that of the loads and saves."""

    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    overwritten: list[int] = field(default_factory=list)
    generation: str = FIRST


def spec_of_vllm(vllm_config: Any, settings: Settings) -> ModelSpec:
    """The ModelSpec of the model that vLLM serves. It equals the spec of the checkpoint
    directory, so that vLLM finds what other engines stored."""
    model = vllm_config.model_config
    cache_dtype = vllm_config.cache_config.cache_dtype
    if cache_dtype != "auto" and dtype_name(cache_dtype) != dtype_name(model.dtype):
        raise Unimplemented(f"a KV cache of dtype {cache_dtype} for a model of dtype {model.dtype}")
    if getattr(model, "runner_type", "generate") == "pooling":
        raise Unimplemented("pooling models: their attention may look at later tokens")
    tokenizer = settings.tokenizer_digest
    if not tokenizer:
        directory = directory_of(model.tokenizer, model.tokenizer_revision)
        tokenizer = tokenizer_digest(
            directory or _unnamed(f"found no checkpoint directory for {model.tokenizer!r}", "tokenizer")
        )
    return spec_of_config(
        model.hf_text_config,
        weights_digest=settings.weights_digest or _weights_of(vllm_config),
        tokenizer_digest=tokenizer,
        dtype=model.dtype,
        name=str(model.model)[-200:],
    )


def _weights_of(vllm_config: Any) -> str:
    model = vllm_config.model_config
    load_format = str(getattr(vllm_config.load_config, "load_format", "auto")).lower()
    if load_format not in _FILE_FORMATS:
        _unnamed(f"--load-format {load_format} does not load the safetensors files of {model.model!r}", "weights")
    if getattr(model, "model_weights", ""):
        _unnamed(f"the weights come from {model.model_weights!r}", "weights")
    if getattr(model, "model_class_overrides", None):
        _unnamed(f"--model-class-overrides replaces the code of {model.model!r}", "weights")
    quantization = model.quantization
    if getattr(model, "quantization_config", None):
        quantization = f"{quantization} {model.quantization_config}"
    digest = served_digest(model.model, model.revision, quantization)
    return digest or _unnamed(f"found no checkpoint directory for {model.model!r}", "weights")


def _unnamed(why: str, what: str) -> NoReturn:
    raise InvalidArgument(f"{why}: set {what}_digest in kv_connector_extra_config")


def check_cache(kv_cache_config: Any, spec: ModelSpec) -> int:
    """The block size of vLLM's KV cache, in tokens. Raises Unimplemented for a cache that
    the connector cannot read and write."""
    if len(kv_cache_config.kv_cache_groups) != 1:
        raise Unimplemented("layers of several kinds of attention (more than one KV cache group)")
    group = kv_cache_config.kv_cache_groups[0].kv_cache_spec
    for cache in getattr(group, "kv_cache_specs", {"": group}).values():
        # A model without its own sliding window gets one by --hf-overrides, for instance.
        for limit in ("sliding_window", "attention_chunk_size"):
            if getattr(cache, limit, None) is not None:
                raise Unimplemented(f"attention with {limit} {getattr(cache, limit)}")
        if getattr(cache, "non_causal", False):
            raise Unimplemented("attention that looks at later tokens")
        # With cache_dtype "auto", a quantized checkpoint may still choose fp8.
        check_dtype(cache.dtype, spec)
    return int(group.block_size)


def check_dtype(dtype: Any, spec: ModelSpec) -> None:
    """Raises Unimplemented unless the KV cache has the dtype of the model."""
    if dtype_name(dtype) != spec.dtype:
        raise Unimplemented(f"a KV cache of dtype {dtype} for a model of dtype {spec.dtype}")


def check_failure_policy(transfer: Any) -> None:
    """Refuses to let a request fail because of a chunk that was evicted after its lookup."""
    policy = getattr(transfer, "kv_load_failure_policy", "recompute")
    if policy != "recompute" and transfer.is_kv_consumer:
        raise InvalidArgument(
            f"kv_load_failure_policy is {policy!r}, so that a request would fail when a node dies or evicts a chunk: "
            'set "kv_load_failure_policy": "recompute" in --kv-transfer-config'
        )


def only_tokens_count(request: Any) -> bool:
    """Whether the KV of a request's prompt depends on its token ids only."""
    return bool(
        request.prompt_token_ids is not None
        and getattr(request, "prompt_embeds", None) is None
        and not getattr(request, "mm_features", None)
        and getattr(request, "lora_request", None) is None
        and not getattr(request, "cache_salt", None)
    )


def needs_every_token(request: Any) -> bool:
    """Whether vLLM must compute all tokens of a request's prompt, because it returns
    something of each token, such as prompt_logprobs."""
    sampling = getattr(request, "sampling_params", None)
    return bool(
        getattr(request, "skip_reading_prefix_cache", False)
        or getattr(sampling, "prompt_logprobs", None) is not None
        or getattr(request, "pooling_params", None) is not None
    )


class KdnConnector(KVConnectorBase_V1):
    """The connector: see the module's text. Each process has one object, which serves the
    scheduler or a worker."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        transfer = self._kv_transfer_config
        settings = Settings.of(transfer.kv_connector_extra_config)
        check_failure_policy(transfer)
        parallel = vllm_config.parallel_config
        for kind in ("decode", "prefill"):
            if getattr(parallel, f"{kind}_context_parallel_size", 1) != 1:
                raise Unimplemented(f"{kind} context parallelism")
        self._settings = settings
        self._spec = spec_of_vllm(vllm_config, settings)
        self._block_size = check_cache(kv_cache_config, self._spec)
        self._loads, self._saves = bool(transfer.is_kv_consumer), bool(transfer.is_kv_producer)
        self._name = f"kdn.vllm {role.name.lower()}"
        self._worker: PagedWorker | None = None
        self._failed_blocks: set[int] = set()
        self._generation = FIRST
        self._cluster = self._cluster_of(FIRST)
        if role is KVConnectorRole.SCHEDULER:
            self._lookups = Lookups(self._held)
            self._plan = PrefixPlan(
                self._cluster.chain,
                self._block_size,
                exact=settings.exact,
                loads=self._loads,
                saves=self._saves,
                waits=Waits(settings.lookup_wait),
            )
        self._cluster.attempt("connecting", lambda _: None, None)

    def _cluster_of(self, generation: str) -> Failover:
        settings = self._settings
        spec = of_generation(self._spec, generation)
        return Failover(settings.addresses, settings.namespace, spec, self._name, settings.ca or None)

    @property
    def requires_kv_delivery(self) -> bool:
        """False: a chunk that is not stored is only computed again."""
        return False

    # ---------------------------------------------------------- scheduler

    def _held(self, chunks: Sequence[Chunk]) -> list[bool] | None:
        """Runs in the thread of the lookups."""

        def look(knowledge: Knowledge) -> list[bool] | None:
            # A node answers by the deadline, also for chunks whose owner hangs. So it gets a
            # little less time than the request waits.
            found = knowledge.lookup(chunks, max(0.8 * self._settings.lookup_wait, 0.001))
            return [chunk.delivers(self._settings.accept) for chunk in found]

        return self._cluster.shielded("looking prompts up", look, None)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """The number of prompt tokens that can be loaded, and True if there are any: such a
        load runs between steps, and the request waits for it. None while the lookup runs;
        vLLM then asks again in its next step."""
        if not only_tokens_count(request):
            return 0, False
        try:
            count = self._matched(request, num_computed_tokens)
        except Exception:  # would end the engine
            _log.exception("matching request %s", request.request_id)
            count = 0
        if count is None and not needs_every_token(request):
            return None, False
        if not count or needs_every_token(request):
            return 0, False
        return count, True

    def on_new_request(self, request: Any) -> None:
        """Begins to look up the prompt of a request that vLLM has queued."""
        if not only_tokens_count(request):
            return
        try:
            self._matched(request, 0)
        except Exception:  # would end the engine
            _log.exception("looking up request %s", request.request_id)

    def _matched(self, request: Any, computed: int) -> int | None:
        self._take_answers()
        count = self._plan.matched(request.request_id, request.prompt_token_ids, computed, time.monotonic())
        self._lookups.ask(self._plan.take_questions())
        return count

    def _take_answers(self) -> None:
        for number, found in self._lookups.take_answers():
            self._plan.answered(number, found, time.monotonic())

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Notes the blocks of a load. vLLM has reserved blocks for the tokens in its own
        prefix cache and, behind them, for the tokens that the load delivers."""
        self._plan.allocated(request.request_id, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KdnMetadata:
        """The loads to begin and the chunks that this step completes."""
        self._take_answers()  # a late answer still says what need not be saved
        meta = KdnMetadata(self._plan.take_loads(), generation=self._generation)
        for load in meta.loads:
            meta.overwritten += load.blocks
        for new in scheduler_output.scheduled_new_reqs:
            self._schedule(meta, scheduler_output, new.req_id, new.num_computed_tokens, new.block_ids, True)
        cached = scheduler_output.scheduled_cached_reqs
        for i, request in enumerate(cached.req_ids):
            resumed = request in cached.resumed_req_ids
            blocks: Any = cached.new_block_ids[i] or ([],)
            self._schedule(meta, scheduler_output, request, cached.num_computed_tokens[i], blocks, resumed)
        return meta

    def _schedule(self, meta: KdnMetadata, output: Any, request: str, computed: int, blocks: Any, anew: bool) -> None:
        meta.overwritten += blocks[0]
        tokens = output.num_scheduled_tokens[request]
        save = self._plan.scheduled(request, computed, tokens, blocks[0], anew=anew)
        if save is not None:
            meta.saves.append(save)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """vLLM may free the blocks. Before a later step overwrites them, `begin_step` waits
        until no save reads them."""
        self._plan.finished(request.request_id)
        return False, None

    def reset_cache(self) -> bool:
        """Begins a new generation: this engine finds nothing of what was stored before. vLLM
        calls this also when it could not reset its own prefix cache; what is computed behind
        KV of that cache is then not saved. False in a worker, which gets the generation from
        its scheduler."""
        if self._role is not KVConnectorRole.SCHEDULER:
            return False
        # The old connection closes when the last lookup that uses it has ended. Closing it
        # here would wait for a lookup that is connecting.
        self._generation = new_generation()
        self._cluster = self._cluster_of(self._generation)
        self._plan.reset(self._cluster.chain)
        return True

    # ------------------------------------------------------------- worker

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Takes the caches of this rank's layers, by layer name."""
        from vllm.model_executor.models.utils import extract_layer_index

        by_layer = {extract_layer_index(name): (name, cache) for name, cache in kv_caches.items()}
        layers = sorted(by_layer)
        if len(by_layer) != len(kv_caches) or (layers and layers[-1] >= self._spec.num_layers):
            raise Unimplemented(
                f"KV caches of layers {', '.join(kv_caches)} for a model of {self._spec.num_layers} layers: "
                "a draft model with KV of its own (EAGLE, MTP) is not supported"
            )
        if not layers or layers != list(range(layers[0], layers[-1] + 1)):
            raise Unimplemented(f"KV caches of layers {', '.join(kv_caches)}")
        caches = [by_layer[layer][1] for layer in layers]
        order = self._block_order(by_layer[layers[0]][0], caches[0])
        paged = PagedKv(caches, self._spec.head_dim, order)
        check_dtype(paged.dtype, self._spec)
        if paged.block_size != self._block_size:
            raise Unimplemented(
                f"blocks of {paged.block_size} tokens in the kernels and of {self._block_size} in the scheduler: "
                f"use --block-size {paged.block_size}"
            )
        rank = Rank((layers[0], layers[-1] + 1), self._heads(paged.num_kv_heads))
        self._worker = PagedWorker(
            self._worker_cluster_of, paged, rank, caches[0].device, self._settings, self._merge()
        )
        if self._saves and not self._stores_here():
            _log.warning("kdn: pipeline parallelism: prefixes are loaded, but not stored")

    def _worker_cluster_of(self, generation: str) -> Failover:
        return self._cluster if generation == FIRST else self._cluster_of(generation)

    def _block_order(self, name: str, cache: Any) -> BlockOrder | None:
        if cache.device.type == "cuda":
            return None
        if cache.device.type != "cpu":
            raise Unimplemented(f"KV caches on {cache.device.type}")
        return cpu_block_order(self._vllm_config.compilation_config.static_forward_context[name].isa, cache)

    def _heads(self, here: int) -> tuple[int, int]:
        from vllm.distributed import get_tensor_model_parallel_rank

        size = self._vllm_config.parallel_config.tensor_parallel_size
        # With more ranks than KV heads, several ranks hold the same head.
        first = get_tensor_model_parallel_rank() * self._spec.num_kv_heads // size
        return first, first + here

    def _merge(self) -> Any:
        size = self._vllm_config.parallel_config.tensor_parallel_size
        if size == 1 or not self._stores_here():
            return None
        from vllm.distributed import get_tp_group

        group = get_tp_group()
        return TensorParallelMerge(group.rank_in_group, group.ranks, self._spec.num_kv_heads)

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """Runs before a step overwrites any block."""
        if self._worker is not None and isinstance(kv_connector_metadata, KdnMetadata):
            self._worker.begin_step(kv_connector_metadata.generation, kv_connector_metadata.overwritten)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Begins this step's loads, without waiting for them."""
        if self._worker is not None:
            metadata = self._metadata()
            self._worker.begin_step(metadata.generation, metadata.overwritten)
            self._worker.start(metadata.loads)

    def _metadata(self) -> KdnMetadata:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, KdnMetadata)
        return metadata

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Does nothing: vLLM schedules a request only after its load has ended."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Does nothing: `wait_for_save` saves whole chunks at the end of the step."""

    def wait_for_save(self) -> None:
        """Begins to copy and to store the chunks that this step completed."""
        if self._worker is None or not self._stores_here():
            return
        self._worker.save(self._metadata().saves)
        sleeps = getattr(self._vllm_config.model_config, "enable_sleep_mode", False)
        if sleeps and not hasattr(KVConnectorBase_V1, "unregister_kv_caches"):
            self._worker.finish_copies()  # this vLLM does not say when it unmaps the cache

    def unregister_kv_caches(self) -> None:
        """Runs before a sleep unmaps the cache."""
        if self._worker is not None:
            self._worker.finish_copies()

    def _stores_here(self) -> bool:
        return bool(self._saves and self._vllm_config.parallel_config.pipeline_parallel_size == 1)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """The requests whose loads have ended since the last call."""
        if self._worker is None:
            return None, None
        loaded, failed = self._worker.take()
        self._failed_blocks |= failed
        return None, loaded or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """The blocks that loads could not fill. With kv_load_failure_policy "recompute",
        vLLM computes them."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    def shutdown(self) -> None:
        if self._role is KVConnectorRole.SCHEDULER:
            self._lookups.close()
        if self._worker is not None:
            self._worker.close()
        self._cluster.close()


class TensorParallelMerge:
    """Joins the KV heads of a tensor-parallel group to one KV tensor. The ranks take turns:
    the chunk's key decides which rank gets the tensor. A head that several ranks hold is
    taken once.

    It runs beside the engine, so it has a group of its own: every rank makes this object
    and calls it in the same order."""

    def __init__(self, rank: int, ranks: Sequence[int], num_kv_heads: int) -> None:
        self._rank = rank
        self._ranks = list(ranks)
        self._num_kv_heads = num_kv_heads
        self._group = torch.distributed.new_group(
            self._ranks, timedelta(seconds=_MERGE_TIMEOUT_S), backend="gloo", use_local_synchronization=True
        )

    def __call__(self, chunk: Chunk, kv: Any) -> Any:
        """Returns the joined tensor on one rank, and None on other ranks. `kv` is None on a
        rank that has no KV; then the result is None everywhere. Every rank must call,
        because the others wait."""
        good = torch.tensor([kv is not None], dtype=torch.uint8)
        torch.distributed.all_reduce(good, torch.distributed.ReduceOp.MIN, group=self._group)
        if not good:
            return None
        taker = int.from_bytes(chunk.key[:4], "big") % len(self._ranks)
        # Sent as bytes, because not every backend carries every dtype.
        mine = kv.contiguous().view(torch.uint8)
        parts = [torch.empty_like(mine) for _ in self._ranks] if taker == self._rank else None
        torch.distributed.gather(mine, parts, dst=self._ranks[taker], group=self._group)
        if parts is None:
            return None
        copies = max(len(parts) * kv.shape[2] // self._num_kv_heads, 1)
        return torch.cat([part.view(kv.dtype) for part in parts[::copies]], dim=2)


def cpu_block_order(isa: str, cache: Any) -> BlockOrder:
    """How vLLM's CPU kernel for the instruction set `isa` packs a block. The kernel itself
    is used to find out."""
    from vllm import _custom_ops as ops

    _, _, block_size, width = cache.shape

    def write(k: Any, v: Any, block: Any) -> None:
        halves = block.view(1, 1, block_size * 2, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(k, v, *halves, torch.arange(block_size), isa)

    return BlockOrder.learn(write, block_size, width // 2, cache.dtype)
