"""Loads and saves of one rank of an engine with a paged cache. Both run beside the
engine's forward passes: loads fill blocks that the scheduler reserved, saves store blocks
that were computed."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import ResourceExhausted
from .failover import Failover
from .generation import FIRST
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


@dataclass(eq=False)
class _Copy:
    """A chunk that is copied out of `blocks`. Its KV is there when `ended` is done; None
    when the copy failed."""

    blocks: frozenset[int]
    ended: Future[None] = field(init=False)
    kv: Any = None

    def take(self) -> Any:
        """Waits for the KV, and gives it away."""
        self.ended.result()
        kv, self.kv = self.kv, None
        return kv


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


def _threads(count: int, name: str, device: Any = None) -> ThreadPoolExecutor:
    """A pool whose threads all run already, so that no later call can fail to start one.
    ResourceExhausted when they cannot start."""
    # A new thread uses the first device; the engine may use another one.
    on_device = (torch.cuda.set_device, (device,)) if device is not None and device.type == "cuda" else (None, ())
    pool = ThreadPoolExecutor(count, name, *on_device)
    all_run = threading.Barrier(count)
    try:
        for each in [pool.submit(all_run.wait) for _ in range(count)]:
            each.result()
    except Exception as error:
        all_run.abort()
        pool.shutdown(wait=False)
        raise ResourceExhausted(f"cannot start {count} threads {name}: {error}") from None
    return pool


class PagedWorker:
    """Loads and saves of one rank. The engine's thread calls `begin_step`, `start`, `save`,
    `finish_copies` and `take`. None of these waits for the cluster or for another rank, and
    none raises.

    `cluster_of` gives the connection of a generation. `merge` is for a tensor-parallel
    engine: it joins the KV heads of all ranks to one tensor on the rank that stores the
    chunk, and returns None on the other ranks. All ranks call it in the same order, in a
    thread of its own; a rank that has no KV passes None.

    A chunk that is saved is copied out of its blocks while the engine goes on. The engine
    says with `begin_step` which blocks it is about to overwrite.
    """

    def __init__(
        self,
        cluster_of: Callable[[str], Failover],
        paged: PagedKv,
        rank: Rank,
        device: Any,
        options: Options,
        merge: Callable[[Chunk, Any], Any] | None = None,
    ) -> None:
        self._cluster_of = cluster_of
        self._generation = FIRST
        self._cluster = cluster_of(FIRST)
        self._paged = paged
        self._rank = rank
        self._options = options
        self._merge = merge
        self._save_order, self._load_order = _Order(device), _Order(device)
        self._loaders = _threads(_LOADERS, "kdn-load", device)
        self._copiers = _threads(1, "kdn-copy", device)
        self._mergers = _threads(1, "kdn-merge")
        self._savers = _threads(1, "kdn-save")
        self._copies: list[_Copy] = []
        self._lock = threading.Lock()
        self._done: list[tuple[str, set[int]]] = []
        self._saving = 0  # bytes that wait to be stored
        self._merge_failed = False
        self.saves_dropped = 0

    def begin_step(self, generation: str, overwritten: Iterable[int]) -> None:
        """Begins an engine's step. The step may overwrite the blocks `overwritten`, so this
        waits until no save reads them. What is loaded and saved from now on belongs to
        `generation`; loads of another generation that have not ended deliver nothing."""
        self._copies = [copy for copy in self._copies if not copy.ended.done()]
        if self._copies:
            blocks = set(overwritten)
            for copy in self._copies:
                if not copy.blocks.isdisjoint(blocks):
                    copy.ended.result()
        if generation != self._generation:
            # Loads and saves that have begun keep the old connection alive.
            self._generation, self._cluster = generation, self._cluster_of(generation)

    def finish_copies(self) -> None:
        """Waits until no save reads any block: then the engine may give up its cache."""
        for copy in self._copies:
            copy.ended.result()
        self._copies.clear()

    def start(self, loads: Iterable[Load]) -> None:
        """Begins loads. `take` reports when they have ended."""
        for load in loads:
            self._loaders.submit(self._load, self._cluster, self._generation, load, self._load_order.now())

    def take(self) -> tuple[set[str], set[int]]:
        """The requests whose loads have ended since the last call, and the blocks of these
        requests that were not filled and that the engine must compute."""
        with self._lock:
            done, self._done = self._done, []
        return {request for request, _ in done}, {block for _, blocks in done for block in blocks}

    def _ended(self, load: Load, filled: int) -> None:
        size = self._paged.block_size
        missing = set(load.blocks[filled // size : -(-load.end // size)])
        with self._lock:
            self._done.append((load.request, missing))

    def _load(self, cluster: Failover, generation: str, load: Load, after: Any) -> None:
        progress = _Progress(load.begin)
        try:
            if load.chunks:
                cluster.shielded(
                    "loading a prefix", lambda knowledge: self._deliver(knowledge, load, after, progress), None
                )
        finally:  # in any case: the engine waits for the request
            current = generation == self._generation
            self._ended(load, progress.filled if current else load.begin)

    def _deliver(self, knowledge: Knowledge, load: Load, after: Any, progress: _Progress) -> None:
        """Fills as many of the blocks as the cluster delivers."""
        options: dict[str, Any] = {"accept": self._options.accept, "timeout": self._options.timeout}
        for got in knowledge.retrieve_prefix(load.chunks, layers=self._rank.layers, heads=self._rank.heads, **options):
            origin, begin = got.chunks[0].begin, progress.filled
            end = min(origin + got.prefix_tokens, load.end)
            if end <= begin:
                break
            with self._load_order.behind(after):
                self._paged.write(load.blocks, begin, got.torch()[:, :, :, begin - origin : end - origin])
            progress.filled = end

    def save(self, saves: Iterable[Save]) -> None:
        """Copies chunks out of their blocks and stores them, both in the background."""
        after = self._save_order.now()
        for save in saves:
            for chunk in save.chunks:
                self._save(chunk, save.blocks, after)

    def _save(self, chunk: Chunk, blocks: Sequence[int], after: Any) -> None:
        if self._merge_failed:
            return
        size = self._paged.bytes_of(len(chunk.tokens))
        copy = self._copy(chunk, blocks, after) if self._admit(chunk, size) else None
        # Every rank calls merge, also one that copies nothing: the others wait.
        if copy is not None or self._merge is not None:
            self._mergers.submit(self._join, self._cluster, chunk, copy, size)

    def _admit(self, chunk: Chunk, size: int) -> bool:
        """Counts `size` more bytes that wait to be stored; False when there is no room."""
        with self._lock:
            if self._saving + size > self._options.save_bytes:
                self.saves_dropped += 1
                _log.warning("%s is not stored: %d bytes are waiting to be stored already", chunk, self._saving)
                return False
            self._saving += size
            return True

    def _release(self, size: int) -> None:
        with self._lock:
            self._saving -= size

    def _copy(self, chunk: Chunk, blocks: Sequence[int], after: Any) -> _Copy:
        size = self._paged.block_size
        copy = _Copy(frozenset(blocks[chunk.begin // size : -(-chunk.end // size)]))
        copy.ended = self._copiers.submit(self._read, copy, chunk, blocks, after)
        self._copies.append(copy)
        return copy

    def _read(self, copy: _Copy, chunk: Chunk, blocks: Sequence[int], after: Any) -> None:
        try:
            with self._save_order.behind(after):
                copy.kv = self._paged.read(blocks, chunk.begin, chunk.end)
        except Exception:  # the chunk is not stored, but the engine goes on
            copy.kv = None
            _log.exception("reading %s", chunk)

    def _join(self, cluster: Failover, chunk: Chunk, copy: _Copy | None, size: int) -> None:
        """Joins the heads of all ranks, then stores the chunk if this rank is to store it."""
        counted = size if copy is not None else 0
        try:
            kv = self._merged(chunk, None if copy is None else copy.take())
            if kv is None:
                return
            more = kv.numel() * kv.element_size() - counted
            if more > 0 and not self._admit(chunk, more):
                return
            counted += more
            self._savers.submit(self._store, cluster, chunk, kv, counted)
            counted = 0  # _store releases these bytes
        except Exception:  # nobody reads the future's result, so log it here
            _log.exception("%s is not stored", chunk)
        finally:
            self._release(counted)

    def _merged(self, chunk: Chunk, kv: Any) -> Any:
        if self._merge is None or self._merge_failed:
            return None if self._merge_failed else kv
        try:
            return self._merge(chunk, kv)
        except Exception:
            self._merge_failed = True  # the ranks may be out of step: heads would be mixed up
            _log.exception("%s is not stored, and no later chunk until the engine starts again", chunk)
            return None

    def _store(self, cluster: Failover, chunk: Chunk, kv: Any, size: int) -> None:
        def store(knowledge: Knowledge) -> None:
            options = self._options
            knowledge.store(chunk, kv, levels=options.levels, durability=options.durability, timeout=options.timeout)

        try:
            cluster.shielded("storing a chunk", store, None)
        finally:
            self._release(size)

    def close(self) -> None:
        """Cancels the loads that have not begun, and waits until all saves are stored."""
        self._loaders.shutdown(wait=True, cancel_futures=True)
        for stage in (self._copiers, self._mergers, self._savers):
            stage.shutdown(wait=True)
        self._cluster.close()
