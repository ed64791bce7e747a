"""A storage backend for SGLang's HiCache. Use it so:

    sglang serve --model-path MODEL --enable-hierarchical-cache --page-size 64 \\
      --hicache-storage-backend dynamic --hicache-storage-backend-extra-config '{
        "backend_name": "kdn", "module_path": "kdn.sglang", "class_name": "KdnHiCache",
        "interface_v1": 1, "addresses": ["unix:/tmp/kdn-local-3-n1.sock"]}'

HiCache names a page by a hash of its tokens and of all tokens before it, and does not
tell the tokens. So SGLang engines of the same page size and parallel layout share pages,
but not with other engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage
from sglang.srt.runtime_context import get_server_args

from .client import DEFAULT_ADDRESS
from .errors import InvalidArgument, Unimplemented
from .huggingface import served_digest
from .model import ModelSpec, RopeSpec, dtype_name
from .pages import PageShape, PageStore

_OPTIONS = {"levels", "durability", "timeout"}
_KEYS = {"addresses", "namespace", "weights_digest", *_OPTIONS}


class KdnHiCache(HiCacheStorage):
    """The backend of one rank. It works after SGLang has registered its host pool."""

    def __init__(self, storage_config: Any, kwargs: Mapping[str, Any] | None = None) -> None:
        if storage_config.is_mla_model:
            raise Unimplemented("multi-head latent attention")
        extra = dict(storage_config.extra_config or {})
        # extra_config also holds SGLang's own settings for prefetching.
        self._settings = {key: value for key, value in extra.items() if key in _KEYS}
        self._config = storage_config
        self._store: PageStore | None = None
        self._pool: Any = None

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Connects to the cluster, with the geometry of the pool's pages."""
        super().register_mem_pool_host(mem_pool_host)
        pool, config, settings = mem_pool_host, self._config, self._settings
        if getattr(pool, "v_head_dim", pool.head_dim) != pool.head_dim:
            raise Unimplemented(f"V of head_dim {pool.v_head_dim} beside K of {pool.head_dim}")
        shape = PageShape(pool.layer_num, pool.head_num, pool.head_dim, pool.page_size, pool.layout)
        model = ModelSpec(
            num_layers=pool.layer_num,
            num_kv_heads=pool.head_num,
            head_dim=pool.head_dim,
            rope=RopeSpec(),
            weights_digest=settings.get("weights_digest") or _weights_of(config.model_name),
            tokenizer_digest="",  # pages are named by token ids
            dtype=dtype_name(pool.dtype),
            name=str(config.model_name)[-200:],
        )
        shard = f"tp{config.tp_rank}of{config.tp_size}-pp{config.pp_rank}of{config.pp_size}"
        self._pool = pool
        self._store = PageStore(
            settings.get("addresses", DEFAULT_ADDRESS),
            settings.get("namespace", "default"),
            model,
            shape,
            shard,
            **{key: settings[key] for key in _OPTIONS if key in settings},
        )

    def _pages(self, host_indices: Any) -> list[Any]:
        size = self._pool.page_size
        return [self._pool.get_data_page(int(i), flat=False) for i in host_indices[::size]]

    @property
    def _ready(self) -> PageStore:
        if self._store is None:
            raise InvalidArgument("no host pool was registered")
        return self._store

    def batch_get_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Fills the pages of the host pool at `host_indices`, which lists the tokens page
        by page. Says of each page whether it was filled."""
        return self._ready.get(keys, self._pages(host_indices))

    def batch_set_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Stores the pages of the host pool at `host_indices`. Says of each page whether it
        is stored now."""
        return self._ready.put(keys, self._pages(host_indices))

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """How many pages the cluster holds before the first one that it does not hold."""
        return self._ready.held(keys)

    def exists(self, key: str) -> bool:
        return self._ready.held([key]) == 1

    # The calls below, without indices, use flat pages.

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:
        pages = target_locations or [self._pool.get_dummy_flat_data_page() for _ in keys]
        return [page if hit else None for page, hit in zip(pages, self._ready.get(keys, pages))]

    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool:
        return all(self._ready.put(keys, values))

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> torch.Tensor | None:
        return self.batch_get([key], None if target_location is None else [target_location])[0]

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return self.batch_set([key], [value])

    def close(self) -> None:
        """Ends the session with the cluster. Stored pages stay."""
        if self._store is not None:
            self._store.close()


def _weights_of(model_name: str) -> str:
    try:
        arguments = get_server_args()  # SGLang gives the backend only the model's name
        revision, quantization = arguments.revision, arguments.quantization
    except ValueError:  # there is no server in this process
        revision = quantization = None
    digest = served_digest(model_name or "", revision, quantization)
    if digest is None:
        raise InvalidArgument(
            f"found no checkpoint directory for {model_name!r}: set weights_digest in the backend's extra config"
        )
    return digest
