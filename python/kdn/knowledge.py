"""The chunks of one tenant and one model: what an engine stores and retrieves."""

from __future__ import annotations

import asyncio
import functools
import math
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._calls import Calls, RetrieveCall, StoreCall, levels_mask
from ._connection import Deadline, ttl_milliseconds
from .errors import InvalidArgument, KdnError
from .keys import Chunk, check_int32, chunk_key, cut_chain, fingerprint_of
from .model import ModelSpec
from .tensors import as_kv, numpy_dtype, tokens_of
from .terms import check_durability
from .types import Found, Outcome, Receipt, Retrieved

if TYPE_CHECKING:
    from .client import Link

DEFAULT_TIMEOUT = 10.0
"""Seconds. Every call ends by its timeout."""
CALIBRATION_TIMEOUT = 600.0
"""Seconds, for making a calibration."""
GROUP_BYTES = 256 << 20
"""Most bytes of KV in one retrieve of a long text. Groups reuse memory, and the caller
can use one group while the next is on its way."""


class _Knowledge:
    """The parts that do not wait, shared by the blocking and the asyncio class."""

    def __init__(self, link: Link, calls: Calls, namespace: str, model: ModelSpec) -> None:
        self._link = link
        self._calls = calls
        self.namespace = namespace
        self.model = model
        self.fingerprint = fingerprint_of(model)

    def chain(self, tokens: Sequence[int]) -> list[Chunk]:
        """Cuts `tokens` into a prefix chain. Every client in every language computes the
        same keys."""
        return cut_chain(self.fingerprint, self.namespace, tokens)

    def standalone(self, tokens: Sequence[int], variant: str = "raw") -> Chunk:
        """`tokens` as one standalone chunk."""
        ids = tuple(int(token) for token in tokens)
        key = chunk_key(self.fingerprint, self.namespace, ids, variant=variant)
        return Chunk(key, ids, variant=variant)

    def groups(self, chunks: Sequence[Chunk], group_bytes: int = GROUP_BYTES) -> Iterator[Sequence[Chunk]]:
        """Cuts `chunks`, in order, into groups whose KV takes at most `group_bytes`. A
        larger chunk is a group of its own."""
        begin, size = 0, 0
        for i, chunk in enumerate(chunks):
            more = self.model.kv_bytes(len(chunk.tokens))
            if i > begin and size + more > group_bytes:
                yield chunks[begin:i]
                begin, size = i, 0
            size += more
        if begin < len(chunks):
            yield chunks[begin:]

    def _store_call(
        self,
        chunk: Chunk,
        kv: Any,
        positions: Sequence[int] | None,
        levels: str | Sequence[str] | None,
        durability: str,
        ttl: float,
        timeout: float,
    ) -> StoreCall:
        check_durability(durability)
        deadline = Deadline(timeout)
        ttl_ms = ttl_milliseconds(ttl, 0)
        mask = levels_mask(levels)
        positions = chunk.positions if positions is None else positions
        check_int32(positions, "position")
        array = as_kv(kv, self.model, len(chunk.tokens))
        memory, shared = self._link.array(array.shape, array.dtype, timeout)
        if memory is not None:
            # The only copy: into memory that the node reads.
            np.copyto(shared, array)
            array = shared
        return StoreCall(chunk, positions, mask, durability, ttl_ms, deadline.left(), array, memory)

    def _retrieve_call(
        self,
        chunks: Sequence[Chunk],
        positions: Sequence[Sequence[int]] | None,
        layers: tuple[int, int] | None,
        heads: tuple[int, int] | None,
        accept: str | Sequence[str] | None,
        timeout: float,
        prefill_tokens_per_second: float,
        leading_chunks: bool,
    ) -> RetrieveCall:
        deadline = Deadline(timeout)
        positions = [chunk.positions for chunk in chunks] if positions is None else positions
        if len(positions) != len(chunks):
            raise InvalidArgument(f"positions of {len(positions)} chunks for {len(chunks)}")
        if not 0 <= prefill_tokens_per_second < math.inf:
            raise InvalidArgument(f"prefill_tokens_per_second {prefill_tokens_per_second}, expected 0 or more")
        for each in positions:
            check_int32(each, "position")
        spans: list[slice] = []
        begin = 0
        for chunk in chunks:
            spans.append(slice(begin, begin + len(chunk.tokens)))
            begin += len(chunk.tokens)
        layer_range = _range_of(layers, self.model.num_layers, "layers")
        head_range = _range_of(heads, self.model.num_kv_heads, "heads")
        shape = (layer_range[1] - layer_range[0], 2, head_range[1] - head_range[0], begin, self.model.head_dim)
        memory, out = self._link.array(shape, numpy_dtype(self.model), timeout)
        return RetrieveCall(
            chunks,
            positions,
            spans,
            (*layer_range, *head_range),
            levels_mask(accept),
            deadline.left(),
            out,
            memory,
            prefill_tokens_per_second,
            leading_chunks,
        )

    def _retrieved(self, call: RetrieveCall, outcomes: list[Outcome]) -> Retrieved:
        return Retrieved(self.model, call.chunks, outcomes, call.spans, call.out)


def _range_of(given: tuple[int, int] | None, count: int, what: str) -> tuple[int, int]:
    if given is None:
        return 0, count
    if len(given) != 2 or not 0 <= given[0] < given[1] <= count:
        raise InvalidArgument(f"{what} {given}, expected a half-open range of 0 to {count}")
    return given


def _importance(given: Any, model: ModelSpec, tokens: int) -> np.ndarray[Any, Any] | None:
    if given is None:
        return None
    array = np.asarray(given, dtype=np.float64)
    expected = (model.num_layers, model.num_kv_heads, tokens)
    if array.shape != expected:
        raise InvalidArgument(f"importance of shape {array.shape}, expected {expected}")
    return array


class Calibrator:
    """Makes a calibration of one model from KV that an engine has computed, and stores it in
    the cluster, where it makes the levels "base" to "base+2" smaller and more exact, and the
    level "archive" possible. Some 30,000 tokens are enough, of text that resembles the text to be stored. The node does
    the work. Not thread-safe."""

    def __init__(self, knowledge: Knowledge, timeout: float) -> None:
        self._knowledge = knowledge
        self._deadline = Deadline(timeout)
        link = knowledge._link
        self._run = link.loop.run(knowledge._calls.calibrate(timeout))
        weakref.finalize(self, link.loop.post, functools.partial(link.connection.drop, self._run)).atexit = False
        self.tokens = 0
        """The number of tokens that were added."""
        self.tokens_min = 0
        """The fewest tokens that `finish` accepts; 0 before the first `add`."""

    def add(self, kv: Any, positions: Sequence[int] | None = None, importance: Any = None) -> None:
        """Adds the KV of some tokens: K after RoPE, as the engine holds it, and V, of all layers,
        in one of the forms that `Knowledge.store` takes. `positions` are those at which it was
        computed; None: 0, 1, ...

        `importance` says what a squared error in a token's K and V costs, as an array of shape
        (layers, kv_heads, tokens), for example the sum of the squares of the gradients of what
        the model says. None: not known. If it is known for some thousand tokens, the calibration
        predicts it from the KV of other tokens, and codes important tokens more exactly."""
        model = self._knowledge.model
        tokens = len(positions) if positions is not None else tokens_of(kv, model)
        positions = range(tokens) if positions is None else positions
        check_int32(positions, "position")
        array = as_kv(kv, model, tokens)
        known = _importance(importance, model, tokens)
        added = self._knowledge._calls.add_to_calibration(self._run, array, positions, known, self._deadline.left())
        self.tokens, self.tokens_min = self._knowledge._link.loop.run(added)

    def finish(self, weights: Sequence[float] = (), base_bits: float = 1.5) -> str:
        """Makes the calibration and stores it on every live node. Returns its id.

        `weights` are the weights of a squared error in each head's K and V, in the order
        [layer][K|V][KV head], for example the mean squares of the gradients of what the model
        says. None: all are equal, which gives much larger errors. `base_bits` are the bits per
        value that the level "base" should take. Raises `InvalidArgument` for too few tokens."""
        made = self._knowledge._calls.finish_calibration(self._run, base_bits, weights, self._deadline.left())
        return self._knowledge._link.loop.run(made)


class Knowledge(_Knowledge):
    """The chunks of one tenant and one model. All calls block. Thread-safe."""

    def calibrator(self, timeout: float = CALIBRATION_TIMEOUT) -> Calibrator:
        """Begins to make a calibration of this model; everything up to the end of `finish` takes at
        most `timeout` seconds. Raises `ResourceExhausted` while the node makes another one,
        `Unimplemented` if the node is too old."""
        return Calibrator(self, timeout)

    def lookup(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[Found]:
        """Says of each chunk, in order, whether the cluster holds it."""
        return self._link.loop.run(self._calls.lookup(chunks, timeout))

    def store(
        self,
        chunk: Chunk,
        kv: Any,
        *,
        positions: Sequence[int] | None = None,
        levels: str | Sequence[str] | None = None,
        durability: str = "replicated",
        ttl: float = 0.0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Receipt:
        """Stores the chunk's KV: K after RoPE, as the engine holds it, and V.

        `kv` is a numpy array or torch tensor of shape (layers, 2, kv_heads, tokens,
        head_dim), or a sequence of (K, V) per layer, each of shape (kv_heads, tokens,
        head_dim). `positions` are the positions at which the KV was computed, one per
        token (default: the chunk's own). `levels` are the levels to keep (default:
        "lossless"). `ttl` is the time in seconds in which the chunk is not evicted.
        """
        call = self._store_call(chunk, kv, positions, levels, durability, ttl, timeout)
        return self._link.loop.run(self._calls.store(call))

    def retrieve(
        self,
        chunks: Sequence[Chunk],
        *,
        positions: Sequence[Sequence[int]] | None = None,
        layers: tuple[int, int] | None = None,
        heads: tuple[int, int] | None = None,
        accept: str | Sequence[str] | None = None,
        prefill_tokens_per_second: float = 0.0,
        leading_chunks: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Retrieved:
        """Delivers chunks, one behind the other in one tensor, with one outcome each.

        `positions` are the positions that the engine wants, one list per chunk (default:
        the chunk's own); K is rotated to them. `layers` and `heads` are half-open ranges,
        for one rank of a parallel engine. `accept` are the levels to accept (default: all
        levels); of those that are stored, the best one comes for which there is time.
        `prefill_tokens_per_second` is the speed of the engine (0: unknown). A chunk that
        would take longer to load or decode than to prefill is not delivered; its outcome
        is "recompute". `leading_chunks` says that the engine cannot use a chunk behind one
        that it recomputes.
        """
        call = self._retrieve_call(
            chunks, positions, layers, heads, accept, timeout, prefill_tokens_per_second, leading_chunks
        )
        return self._retrieved(call, self._link.loop.run(self._calls.retrieve(call)))

    def retrieve_prefix(
        self,
        chain: Sequence[Chunk],
        *,
        group_bytes: int = GROUP_BYTES,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> Iterator[Retrieved]:
        """Retrieves a chain group by group (see `groups`), with the `options` of
        `retrieve`. Ends after the first group in which a chunk is missing. `timeout` is
        for all groups together."""
        deadline = Deadline(timeout)
        for group in self.groups(chain, group_bytes):
            got = self.retrieve(group, leading_chunks=True, timeout=deadline.left(), **options)
            yield got
            if got.prefix_chunks < len(group):
                return

    def pin(self, chunks: Sequence[Chunk], ttl: float, timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        """Protects the copies of the chunks from eviction for `ttl` seconds, or until the
        client is closed. Per chunk: None if at least one copy is pinned, else the error."""
        return self._link.loop.run(self._calls.statuses("pin", chunks, timeout, ttl_milliseconds(ttl, 0.001)))

    def unpin(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        """Ends this client's pins. Per chunk: None for success, else the error."""
        return self._link.loop.run(self._calls.statuses("unpin", chunks, timeout))

    def remove(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        """Removes every copy. Per chunk: None for success, else the error;
        FailedPrecondition for a chunk that another client has pinned."""
        return self._link.loop.run(self._calls.statuses("remove", chunks, timeout))


class AsyncKnowledge(_Knowledge):
    """Like `Knowledge`, for asyncio."""

    async def lookup(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[Found]:
        return await self._link.loop.wait(self._calls.lookup(chunks, timeout))

    async def store(
        self,
        chunk: Chunk,
        kv: Any,
        *,
        positions: Sequence[int] | None = None,
        levels: str | Sequence[str] | None = None,
        durability: str = "replicated",
        ttl: float = 0.0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Receipt:
        call = await asyncio.to_thread(self._store_call, chunk, kv, positions, levels, durability, ttl, timeout)
        return await self._link.loop.wait(self._calls.store(call))

    async def retrieve(
        self,
        chunks: Sequence[Chunk],
        *,
        positions: Sequence[Sequence[int]] | None = None,
        layers: tuple[int, int] | None = None,
        heads: tuple[int, int] | None = None,
        accept: str | Sequence[str] | None = None,
        prefill_tokens_per_second: float = 0.0,
        leading_chunks: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Retrieved:
        call = await asyncio.to_thread(
            self._retrieve_call,
            chunks,
            positions,
            layers,
            heads,
            accept,
            timeout,
            prefill_tokens_per_second,
            leading_chunks,
        )
        outcomes = await self._link.loop.wait(self._calls.retrieve(call))
        return self._retrieved(call, outcomes)

    async def retrieve_prefix(
        self,
        chain: Sequence[Chunk],
        *,
        group_bytes: int = GROUP_BYTES,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> AsyncIterator[Retrieved]:
        deadline = Deadline(timeout)
        for group in self.groups(chain, group_bytes):
            got = await self.retrieve(group, leading_chunks=True, timeout=deadline.left(), **options)
            yield got
            if got.prefix_chunks < len(group):
                return

    async def _statuses(self, *arguments: Any) -> list[KdnError | None]:
        return await self._link.loop.wait(self._calls.statuses(*arguments))

    async def pin(self, chunks: Sequence[Chunk], ttl: float, timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        return await self._statuses("pin", chunks, timeout, ttl_milliseconds(ttl, 0.001))

    async def unpin(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        return await self._statuses("unpin", chunks, timeout)

    async def remove(self, chunks: Sequence[Chunk], timeout: float = DEFAULT_TIMEOUT) -> list[KdnError | None]:
        return await self._statuses("remove", chunks, timeout)
