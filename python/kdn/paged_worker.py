"""Loads and saves of one rank of an engine with a paged cache. Both run beside the
engine's forward passes: loads fill blocks that the scheduler reserved, saves store blocks
that were computed."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from .failover import Failover
from .keys import Chunk
from .knowledge import Knowledge
from .paged import PagedKv
from .prefix_plan import Load, Save
from .terms import Terms

_log = logging.getLogger("kdn")

_LOADERS = 2  # threads


@dataclass(frozen=True)
class Rank:
    """The rank's part of the model: half-open ranges of layers and KV heads."""

    layers: tuple[int, int]
    heads: tuple[int, int]


@dataclass(frozen=True)
class Options(Terms):
    """`save_bytes` is the most bytes of KV that may wait to be stored. Chunks beyond that
    are not stored."""

    save_bytes: int = 1 << 30


@dataclass
class _Progress:
    """`filled` counts the tokens of a request whose KV is in its blocks."""

    filled: int


class _Order:
    """Orders device work of other threads behind the engine's work: on a GPU with a
    stream of its own; on a CPU there is nothing to do."""

    def __init__(self, device: Any) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def now(self) -> Any:
        """An event at the end of the work that the calling thread has queued so far."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    @contextlib.contextmanager
    def behind(self, event: Any) -> Any:
        """Device work in this context runs after `event`, and has ended when the context
        ends."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(event)
            try:
                yield
            finally:
                # Copies that have begun must end before blocks may be given up.
                self._stream.synchronize()


class PagedWorker:
    """Loads and saves of one rank. The engine's thread calls `start`, `save` and `take`.

    `merge` is for a tensor-parallel engine. It joins the KV heads of all ranks to one
    tensor on the rank that stores, and returns None on the other ranks. All ranks call it
    in the same order; a rank that could not read its KV passes False.
    """

    def __init__(
        self,
        cluster: Failover,
        paged: PagedKv,
        rank: Rank,
        device: Any,
        options: Options,
        merge: Callable[[Any, bool], Any] | None = None,
    ) -> None:
        self._cluster = cluster
        self._paged = paged
        self._rank = rank
        self._options = options
        self._merge = merge
        self._order = _Order(device)
        # A new thread uses the first device; the engine may use another one.
        use_device = (torch.cuda.set_device, (device,)) if device.type == "cuda" else (None, ())
        self._loaders = ThreadPoolExecutor(_LOADERS, "kdn-load", *use_device)
        self._savers = ThreadPoolExecutor(1, "kdn-save")
        self._lock = threading.Lock()
        self._done: list[tuple[str, set[int]]] = []
        self._saving = 0  # bytes that wait to be stored
        self.saves_dropped = 0

    def start(self, loads: Iterable[Load]) -> None:
        """Begins loads. `take` reports when they have ended."""
        for load in loads:
            self._loaders.submit(self._load, load, self._order.now())

    def take(self) -> tuple[set[str], set[int]]:
        """The requests whose loads have ended since the last call, and the blocks of these
        requests that were not filled and that the engine must compute."""
        with self._lock:
            done, self._done = self._done, []
        return {request for request, _ in done}, {block for _, blocks in done for block in blocks}

    def _load(self, load: Load, after: Any) -> None:
        size = self._paged.block_size
        progress = _Progress(load.begin)
        try:
            self._cluster.attempt(
                "loading a prefix", lambda knowledge: self._deliver(knowledge, load, after, progress), None
            )
        except Exception:  # reported below in any case: the engine waits for the request
            _log.exception("loading a prefix of request %s", load.request)
        missing = set(load.blocks[progress.filled // size : -(-load.end // size)])
        with self._lock:
            self._done.append((load.request, missing))

    def _deliver(self, knowledge: Knowledge, load: Load, after: Any, progress: _Progress) -> None:
        """Fills as many of the blocks as the cluster delivers."""
        options: dict[str, Any] = {"accept": self._options.accept, "timeout": self._options.timeout}
        for got in knowledge.retrieve_prefix(load.chunks, layers=self._rank.layers, heads=self._rank.heads, **options):
            origin, begin = got.chunks[0].begin, progress.filled
            end = min(origin + got.prefix_tokens, load.end)
            if end <= begin:
                break
            with self._order.behind(after):
                self._paged.write(load.blocks, begin, got.torch()[:, :, :, begin - origin : end - origin])
            progress.filled = end

    def save(self, saves: Iterable[Save]) -> None:
        """Copies chunks out of their blocks and stores them in the background. The blocks
        may be reused when this returns."""
        for save in saves:
            for chunk in save.chunks:
                self._save(chunk, save.blocks)

    def _save(self, chunk: Chunk, blocks: Sequence[int]) -> None:
        kv = self._read(chunk, blocks)
        if kv is None:
            return
        size = kv.numel() * kv.element_size()
        with self._lock:
            if self._saving + size > self._options.save_bytes:
                self.saves_dropped += 1
                _log.warning("%s is not stored: %d bytes are waiting to be stored already", chunk, self._saving)
                return
            self._saving += size
        self._savers.submit(self._store, chunk, kv, size)

    def _read(self, chunk: Chunk, blocks: Sequence[int]) -> Any:
        """The chunk's KV with all heads; None when this rank does not store the chunk."""
        good = True
        try:
            kv = self._paged.read(blocks, chunk.begin, chunk.end)
        except Exception:  # the chunk is not stored, but the engine goes on
            _log.exception("reading %s", chunk)
            kv, good = self._paged.nothing(len(chunk.tokens)), False
        if self._merge is not None:
            # Every rank calls merge, also one that reads or stores nothing: the others wait.
            return self._merge(kv, good)
        return kv if good else None

    def _store(self, chunk: Chunk, kv: Any, size: int) -> None:
        def store(knowledge: Knowledge) -> None:
            options = self._options
            knowledge.store(chunk, kv, levels=options.levels, durability=options.durability, timeout=options.timeout)

        try:
            self._cluster.attempt("storing a chunk", store, None)
        except Exception:  # nobody reads the future's result, so log it here
            _log.exception("storing %s", chunk)
        finally:
            with self._lock:
                self._saving -= size

    def close(self) -> None:
        """Cancels the loads that have not begun, and waits until all saves are stored."""
        self._loaders.shutdown(wait=True, cancel_futures=True)
        self._savers.shutdown(wait=True)
