"""A KV connector (KVConnectorBase_V1) for vLLM. Use it so:

    vllm serve MODEL --kv-transfer-config '{
      "kv_connector": "KdnConnector", "kv_connector_module_path": "kdn.vllm",
      "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"addresses": ["unix:/tmp/kdn-local-3-n1.sock"]}}'

The connector loads the prefix of a prompt that the cluster holds, between two steps, into
the blocks that vLLM reserved for it. It stores the whole chunks of a prompt that were
computed. A rank loads its own layers and KV heads, so ranks of any tensor- or
pipeline-parallel layout read the same objects. Requests whose KV depends on more than
their tokens (LoRA, multimodal input, prompt embeddings, a cache salt) are neither loaded
nor stored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from .client import DEFAULT_ADDRESS
from .errors import InvalidArgument, Unimplemented
from .failover import Failover
from .huggingface import directory_of, served_digest, spec_of_config
from .keys import Chunk
from .knowledge import Knowledge
from .model import ModelSpec, dtype_name, tokenizer_digest
from .paged import BlockOrder, PagedKv
from .paged_worker import Options, PagedWorker, Rank
from .prefix_plan import Load, PrefixPlan, Save

_log = logging.getLogger("kdn")


@dataclass(frozen=True)
class Settings(Options):
    """The settings in kv_connector_extra_config. The two digests replace the digests of the
    model's and the tokenizer's files, for a model that is not a checkpoint directory."""

    addresses: Sequence[str] = (DEFAULT_ADDRESS,)
    namespace: str = "default"
    weights_digest: str = ""
    tokenizer_digest: str = ""

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
    """The scheduler's message to the workers for one step."""

    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)


def spec_of_vllm(vllm_config: Any, settings: Settings) -> ModelSpec:
    """The ModelSpec of the model that vLLM serves. It equals the spec of the checkpoint
    directory, so that vLLM finds what other engines stored."""
    model = vllm_config.model_config
    cache_dtype = vllm_config.cache_config.cache_dtype
    if cache_dtype != "auto" and dtype_name(cache_dtype) != dtype_name(model.dtype):
        raise Unimplemented(f"a KV cache of dtype {cache_dtype} for a model of dtype {model.dtype}")
    weights, tokenizer = settings.weights_digest, settings.tokenizer_digest
    if not weights:
        weights = served_digest(model.model, model.revision, model.quantization) or _unnamed(model.model, "weights")
    if not tokenizer:
        directory = directory_of(model.tokenizer, model.tokenizer_revision)
        tokenizer = tokenizer_digest(directory or _unnamed(model.tokenizer, "tokenizer"))
    return spec_of_config(
        model.hf_text_config,
        weights_digest=weights,
        tokenizer_digest=tokenizer,
        dtype=model.dtype,
        name=str(model.model)[-200:],
    )


def _unnamed(name: str, what: str) -> NoReturn:
    raise InvalidArgument(f"found no checkpoint directory for {name!r}: set {what}_digest in kv_connector_extra_config")


def only_tokens_count(request: Any) -> bool:
    """Whether the KV of a request's prompt depends on its token ids only."""
    return bool(
        request.prompt_token_ids is not None
        and getattr(request, "prompt_embeds", None) is None
        and not getattr(request, "mm_features", None)
        and getattr(request, "lora_request", None) is None
        and not getattr(request, "cache_salt", None)
    )


class KdnConnector(KVConnectorBase_V1):
    """The connector: see the module's text. Each process has one object, which serves the
    scheduler or a worker."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        settings = Settings.of(self._kv_transfer_config.kv_connector_extra_config)
        if len(kv_cache_config.kv_cache_groups) != 1:
            raise Unimplemented("layers of several kinds of attention (more than one KV cache group)")
        parallel = vllm_config.parallel_config
        for kind in ("decode", "prefill"):
            if getattr(parallel, f"{kind}_context_parallel_size", 1) != 1:
                raise Unimplemented(f"{kind} context parallelism")
        self._settings = settings
        self._spec = spec_of_vllm(vllm_config, settings)
        self._cluster = Failover(settings.addresses, settings.namespace, self._spec, f"kdn.vllm {role.name.lower()}")
        self._worker: PagedWorker | None = None
        self._failed_blocks: set[int] = set()
        self._block_size = kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
        if role is KVConnectorRole.SCHEDULER:
            self._plan = PrefixPlan(self._cluster.chain, self._held, self._block_size, settings.exact)
        self._cluster.attempt("connecting", lambda _: None, None)

    # ---------------------------------------------------------- scheduler

    def _held(self, chunks: Sequence[Chunk]) -> list[bool] | None:
        def look(knowledge: Knowledge) -> list[bool] | None:
            found = knowledge.lookup(chunks, self._settings.lookup_timeout)
            return [chunk.delivers(self._settings.accept) for chunk in found]

        # wait=False: the scheduler must not wait for a connection.
        return self._cluster.attempt("looking a prompt up", look, None, wait=False)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """The number of prompt tokens that can be loaded, and True if there are any: such a
        load runs between steps, and the request waits for it."""
        if not only_tokens_count(request):
            return 0, False
        count = self._plan.matched(request.request_id, request.prompt_token_ids, num_computed_tokens)
        return count, count > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Notes the blocks of a load. vLLM has reserved blocks for the tokens in its own
        prefix cache and, behind them, for the tokens that the load delivers."""
        self._plan.allocated(request.request_id, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KdnMetadata:
        """The loads to begin and the chunks that this step completes."""
        saves = []
        for new in scheduler_output.scheduled_new_reqs:
            saves.append(self._scheduled(scheduler_output, new.req_id, new.num_computed_tokens, new.block_ids, True))
        cached = scheduler_output.scheduled_cached_reqs
        for i, request in enumerate(cached.req_ids):
            resumed = request in cached.resumed_req_ids
            blocks: Any = cached.new_block_ids[i] or ([],)
            saves.append(self._scheduled(scheduler_output, request, cached.num_computed_tokens[i], blocks, resumed))
        return KdnMetadata(self._plan.take_loads(), [save for save in saves if save is not None])

    def _scheduled(self, output: Any, request: str, computed: int, blocks: Any, anew: bool) -> Save | None:
        return self._plan.scheduled(request, computed, output.num_scheduled_tokens[request], blocks[0], anew=anew)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """vLLM may free the blocks: saves are copied out by the end of their step."""
        self._plan.finished(request.request_id)
        return False, None

    # ------------------------------------------------------------- worker

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Takes the caches of this rank's layers, by layer name."""
        from vllm.model_executor.models.utils import extract_layer_index

        by_layer = {extract_layer_index(name): (name, cache) for name, cache in kv_caches.items()}
        layers = sorted(by_layer)
        if not layers or len(by_layer) != len(kv_caches) or layers != list(range(layers[0], layers[-1] + 1)):
            raise Unimplemented(f"KV caches of layers {', '.join(kv_caches)}")
        caches = [by_layer[layer][1] for layer in layers]
        order = self._block_order(by_layer[layers[0]][0], caches[0])
        paged = PagedKv(caches, self._spec.head_dim, order)
        if paged.block_size != self._block_size:
            raise Unimplemented(
                f"blocks of {paged.block_size} tokens in the kernels and of {self._block_size} in the scheduler: "
                f"use --block-size {paged.block_size}"
            )
        rank = Rank((layers[0], layers[-1] + 1), self._heads(paged.num_kv_heads))
        self._worker = PagedWorker(self._cluster, paged, rank, caches[0].device, self._settings, self._merge())
        if rank.layers != (0, self._spec.num_layers):
            _log.warning("kdn: pipeline parallelism: prefixes are loaded, but not stored")

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
        if size == 1:
            return None
        from vllm.distributed import get_tp_group

        group = get_tp_group()
        return TensorParallelMerge(group.cpu_group, group.rank_in_group, group.ranks, self._spec.num_kv_heads)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Begins this step's loads, without waiting for them."""
        if self._worker is not None:
            self._worker.start(self._metadata().loads)

    def _metadata(self) -> KdnMetadata:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, KdnMetadata)
        return metadata

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Does nothing: vLLM schedules a request only after its load has ended."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Does nothing: `wait_for_save` saves whole chunks at the end of the step."""

    def wait_for_save(self) -> None:
        """Copies the chunks that this step completed, and stores them in the background."""
        if self._worker is not None and self._stores_here():
            self._worker.save(self._metadata().saves)

    def _stores_here(self) -> bool:
        return bool(self._vllm_config.parallel_config.pipeline_parallel_size == 1)

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
        if self._worker is not None:
            self._worker.close()
        self._cluster.close()


class TensorParallelMerge:
    """Joins the KV heads of a tensor-parallel group to one KV tensor, on the group's first
    rank. A head that several ranks hold is taken once."""

    def __init__(self, group: Any, rank: int, ranks: Sequence[int], num_kv_heads: int) -> None:
        self._group = group
        self._first = rank == 0
        self._ranks = list(ranks)
        self._num_kv_heads = num_kv_heads

    def __call__(self, kv: Any, good: bool) -> Any:
        """Returns the joined tensor on the first rank, and None on other ranks. `good` says
        that this rank could read its `kv`; the result is None everywhere if any rank could
        not. Every rank must call, even one that could not read, because the others wait."""
        # Sent as bytes, because not every backend carries every dtype.
        mine = torch.cat([kv.contiguous().view(torch.uint8).flatten(), torch.tensor([good], dtype=torch.uint8)])
        parts = [torch.empty_like(mine) for _ in self._ranks] if self._first else None
        torch.distributed.gather(mine, parts, dst=self._ranks[0], group=self._group)
        if parts is None or not all(part[-1] for part in parts):
            return None
        copies = max(len(parts) * kv.shape[2] // self._num_kv_heads, 1)
        return torch.cat([part[:-1].view(kv.dtype).view(kv.shape) for part in parts[::copies]], dim=2)


def cpu_block_order(isa: str, cache: Any) -> BlockOrder:
    """How vLLM's CPU kernel for the instruction set `isa` packs a block. The kernel itself
    is used to find out."""
    from vllm import _custom_ops as ops

    _, _, block_size, width = cache.shape

    def write(k: Any, v: Any, block: Any) -> None:
        halves = block.view(1, 1, block_size * 2, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(k, v, *halves, torch.arange(block_size), isa)

    return BlockOrder.learn(write, block_size, width // 2, cache.dtype)
