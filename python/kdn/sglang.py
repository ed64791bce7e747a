"""A storage backend for SGLang's HiCache. Use it so:

    sglang serve --model-path MODEL --enable-hierarchical-cache --page-size 64 \\
      --hicache-storage-backend dynamic --hicache-storage-backend-extra-config '{
        "backend_name": "kdn", "module_path": "kdn.sglang", "class_name": "KdnHiCache",
        "interface_v1": 1, "addresses": ["unix:/tmp/kdn-local-3-n1.sock"]}'

HiCache names a page by a hash of its tokens and of all tokens before it, and does not
tell the tokens. So SGLang engines of the same page size and parallel layout share pages,
but not with other engines.

The pages belong to the weights in --model-path. When the server is told to clear the
storage backend, or when an update of the weights changes its weight_version, this engine
begins a new generation: it finds none of its old pages. After such an update it stores
nothing until the server is told to clear the storage backend, because SGLang may still
hold pages of the old weights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage
from sglang.srt.runtime_context import get_server_args, get_serving

from .client import DEFAULT_ADDRESS
from .digest import Digest
from .errors import InvalidArgument, Unimplemented
from .generation import FIRST, new_generation
from .huggingface import directory_of, served_digest
from .model import ModelSpec, RopeSpec, dtype_name
from .pages import PageShape, PageStore

T = TypeVar("T")
_log = logging.getLogger("kdn")

_OPTIONS = {"levels", "durability", "timeout", "ca"}
_KEYS = {"addresses", "namespace", "weights_digest", *_OPTIONS}
_SGLANG_KEYS = {"backend_name", "module_path", "class_name", "interface_v1", "hicache_storage_pass_prefix_keys"}
_FILE_FORMATS = ("auto", "safetensors", "fastsafetensors", "instanttensor", "layered", "runai_streamer")
"""The values of --load-format with which SGLang loads the safetensors files of a checkpoint
directory, and nothing else."""


@dataclass
class _Process:
    """What all backends of this process know: SGLang may detach a backend and attach
    another one. `version` is the version of the weights at the last clear()."""

    cleared: bool = False
    version: str | None = None

    def start(self) -> str | None:
        """The version of the weights whose pages are stored until it changes."""
        return self.version if self.cleared else _first_weight_version()


_process = _Process()


class KdnHiCache(HiCacheStorage):
    """The backend of one rank. It works after SGLang has registered its host pool. From then
    on, no call raises, because an exception may end one of SGLang's threads for good."""

    def __init__(self, storage_config: Any, kwargs: Mapping[str, Any] | None = None) -> None:
        if storage_config.is_mla_model:
            raise Unimplemented("multi-head latent attention")
        extra = dict(storage_config.extra_config or {})
        # extra_config also holds SGLang's own settings, such as those for prefetching.
        self._settings = {key: value for key, value in extra.items() if key in _KEYS}
        unknown = [key for key in extra if key not in _KEYS | _SGLANG_KEYS and not key.startswith("prefetch_")]
        if unknown:
            _log.warning("kdn: settings that the KDN does not know: %s; it knows %s", unknown, sorted(_KEYS))
        self._config = storage_config
        self._lock = threading.Lock()  # guards the three below
        self._version = _process.start()  # at the last call
        self._stale = False  # SGLang may hold pages of older weights
        self._store: PageStore | None = None
        self._pool: Any = None

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Connects to the cluster, with the geometry of the pool's pages."""
        super().register_mem_pool_host(mem_pool_host)
        pool, config, settings = mem_pool_host, self._config, self._settings
        _check_pool(pool)
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
        self._pool = pool
        self._store = PageStore(
            settings.get("addresses", DEFAULT_ADDRESS),
            settings.get("namespace", "default"),
            model,
            shape,
            _shard_of(config),
            generation=new_generation() if _process.cleared else FIRST,
            **{key: settings[key] for key in _OPTIONS if key in settings},
        )

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Refuses pools of a hybrid model, or of a draft model, beside the KV pool: SGLang
        would call methods that this backend does not have."""
        if str(host_pool_name) != "kv":
            raise Unimplemented(f"a host pool {host_pool_name!s} beside the KV pool (hybrid models, draft models)")
        super().register_mem_host_pool_v2(host_pool, host_pool_name)

    def _pages(self, host_indices: Any) -> list[Any]:
        size = self._pool.page_size
        return [self._pool.get_data_page(int(i), flat=False) for i in host_indices[::size]]

    def _with_store(self, what: str, use: Callable[[PageStore], T], otherwise: T, *, stores: bool = False) -> T:
        """The result of `use`; `otherwise` when it fails, or when it `stores` pages that may
        be of older weights."""
        if self._store is None:
            raise InvalidArgument("no host pool was registered")
        try:
            store = self._current(stores)
            return otherwise if store is None else use(store)
        except Exception:
            _log.exception("%s: going on without the KDN", what)
            return otherwise

    def _current(self, stores: bool) -> PageStore | None:
        """The store of the server's weights. It begins a new generation if the version of
        the weights is another than at the last call. None for a call that `stores`, from
        then on until clear(): SGLang sets the version before it flushes its pages, and it
        may refuse to flush them."""
        with self._lock:
            version = _weight_version()
            if version != self._version:
                self._version = version
                self._begin_generation()
                self._stale = True
                _log.warning("kdn: new weights: nothing is stored until POST /hicache/storage-backend/clear")
            return None if stores and self._stale else self._store

    def _begin_generation(self) -> None:
        # A call that has begun keeps the store of its own generation.
        if self._store is not None:
            self._store = self._store.of_new_generation()

    def clear(self) -> None:
        """Makes all pages unreachable for this engine. They stay in the cluster until they
        are evicted, and other engines with the same weights find them. SGLang must hold no
        pages of older weights any more: what it stores from now on counts as new."""
        with self._lock:
            self._version = _weight_version()
            _process.cleared, _process.version = True, self._version
            self._begin_generation()
            self._stale = False

    def batch_get_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Fills the pages of the host pool at `host_indices`, which lists the tokens page
        by page. Says of each page whether it was filled."""
        nothing = [False] * len(keys)
        return self._with_store("loading pages", lambda it: it.get(keys, self._pages(host_indices)), nothing)

    def batch_set_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        """Stores the pages of the host pool at `host_indices`. Says of each page whether it
        is stored now."""
        nothing = [False] * len(keys)
        return self._with_store(
            "storing pages", lambda it: it.put(keys, self._pages(host_indices)), nothing, stores=True
        )

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """How many pages the cluster holds before the first one that it does not hold."""
        return self._with_store("looking pages up", lambda it: it.held(keys), 0)

    def exists(self, key: str) -> bool:
        return self.batch_exists([key]) == 1

    # The calls below, without indices, use flat pages.

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:
        def load(store: PageStore) -> list[Any]:
            pages = target_locations or [self._pool.get_dummy_flat_data_page() for _ in keys]
            return [page if hit else None for page, hit in zip(pages, store.get(keys, pages))]

        return self._with_store("loading pages", load, [None] * len(keys))

    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool:
        return self._with_store("storing pages", lambda it: all(it.put(keys, values)), False, stores=True)

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> torch.Tensor | None:
        return self.batch_get([key], None if target_location is None else [target_location])[0]

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return self.batch_set([key], [value])

    def close(self) -> None:
        """Ends the session with the cluster. Stored pages stay."""
        if self._store is not None:
            self._store.close()


def _check_pool(pool: Any) -> None:
    """Raises Unimplemented for a host pool whose pages the KDN cannot store."""
    if getattr(pool, "v_head_dim", pool.head_dim) != pool.head_dim:
        raise Unimplemented(f"V of head_dim {pool.v_head_dim} beside K of {pool.head_dim}")
    if getattr(pool, "storage_format_tag", None):
        raise Unimplemented(f"pages of the format {pool.storage_format_tag}")
    own = getattr(pool, "target_layer_num", pool.layer_num)
    if pool.layer_num != own:
        raise Unimplemented(f"pages of {own} layers and {pool.layer_num - own} layers of a draft model (EAGLE, MTP)")


def _shard_of(config: Any) -> str:
    """Names the rank's part of a page."""
    shard = f"tp{config.tp_rank}of{config.tp_size}-pp{config.pp_rank}of{config.pp_size}"
    # With context parallelism, the ranks hold different tokens of one page.
    ranks = getattr(config, "attn_cp_size", 1)
    return shard if ranks == 1 else f"{shard}-cp{config.attn_cp_rank}of{ranks}"


def _weight_version() -> str | None:
    """The version of the server's weights. An update of the weights may change it."""
    try:
        return str(get_serving().weight_version)
    except (AttributeError, ValueError):  # there is no server in this process
        return None


def _first_weight_version() -> str | None:
    """The version of the weights with which the server started: those of the files."""
    try:
        return str(get_server_args().weight_version)
    except (AttributeError, ValueError):
        return _weight_version()


@dataclass(frozen=True)
class _Arguments:
    """The server's arguments that decide with the files what the model computes."""

    model_path: str
    revision: str | None = None
    quantization: str | None = None
    load_format: str = "auto"
    json_model_override_args: str | None = None
    dtype: str = "auto"
    decrypted_config_file: str | None = None

    @classmethod
    def of_server(cls) -> _Arguments:
        given = get_server_args()
        return cls(**{each.name: getattr(given, each.name) for each in fields(cls)})

    def config_in(self, directory: Path) -> bytes:
        """The config that the model is made of."""
        name = (self.decrypted_config_file or "").strip()
        config = directory / (name or "config.json")
        if name and not config.is_file():
            raise InvalidArgument(f"--decrypted-config-file: there is no {config}")
        return config.read_bytes() if config.exists() else b""


def _weights_of(model_name: str | None) -> str:
    """The digest of the weights that the server loads, and of all that decides with them
    what the model computes. `model_name` is only the name under which the server serves the
    model, unless there is no server in this process."""
    try:
        given = _Arguments.of_server()
    except ValueError:
        given = _Arguments(model_name or "")
    path = given.model_path
    if given.load_format not in _FILE_FORMATS:
        raise InvalidArgument(
            f"--load-format {given.load_format} does not load the safetensors files of {path!r}: "
            "set weights_digest in the backend's extra config"
        )
    digest, directory = served_digest(path, given.revision, given.quantization), directory_of(path, given.revision)
    if digest is None or directory is None:
        raise InvalidArgument(
            f"found no checkpoint directory for {path!r}: set weights_digest in the backend's extra config"
        )
    whole = Digest("kdn-sglang-1").text(digest).data(given.config_in(directory))
    whole.text(given.json_model_override_args or "{}")
    # The dtype of the KV cache, which is in the ModelSpec, may be another one. "auto" is
    # the dtype of the config.
    if given.dtype != "auto":
        whole.text(given.dtype)
    return whole.finish().hex()
