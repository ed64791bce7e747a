"""The calls of one Knowledge, on the loop's thread. They take and return plain values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._connection import Connection, Deadline, answer_of, check, milliseconds
from ._schema import LEVELS, OUTCOME_KINDS, TIERS, code_of, wire
from .errors import InvalidArgument, KdnError, Unimplemented, error_of
from .keys import Chunk, fingerprint_of
from .memory import Part
from .model import ModelSpec
from .types import Found, Outcome, Receipt, names_of

# Most unanswered calls with layers of a store: enough to keep the node busy. Layers in
# messages may also take only half of the bytes that a connection may have unanswered
# (64 MiB), so that the node still reads other calls.
_CALLS_UNANSWERED = 8
_BYTES_UNANSWERED = 32 << 20
# Bytes of the layers in one message, unless one layer has more. Smaller messages cost time
# for each; larger ones let node and client wait for each other. With chunks of 4 MiB over
# TCP, messages of 0.25, 0.5, 1, 2 and 4 MiB gave 1.0, 1.5, 1.5, 1.5 and 1.3 GB/s for
# storing, and 1.1, 1.5, 1.9, 1.9 and 1.6 GB/s for retrieving.
_MESSAGE_BYTES = 2 << 20
_RUN_BYTES = 16 << 20
"""Most bytes of KV in one call that adds to a calibration."""
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}


def levels_mask(levels: str | Sequence[str] | None) -> int:
    """The wire's bit mask of a set of levels. None gives 0: each call's default."""
    mask = 0
    for level in names_of(levels):
        if level not in LEVELS:
            raise InvalidArgument(f"level {level!r}, expected one of {', '.join(LEVELS)}")
        mask |= 1 << LEVELS[level]
    return mask


def _levels_of(mask: int) -> frozenset[str]:
    return frozenset(name for name, bit in LEVELS.items() if mask >> bit & 1)


def _tier_of(result: Any) -> str:
    return TIERS.get(result.tier.raw, "memory")


def found_of(result: Any) -> Found:
    """The value of a wire LookupResult."""
    if not result.hit:
        return Found(False)
    return Found(True, result.node, _tier_of(result), _levels_of(result.levels), result.bytes, result.version)


def outcome_of(outcome: Any) -> Outcome:
    """The value of a wire ChunkOutcome."""
    kind = OUTCOME_KINDS.get(outcome.kind.raw)
    if kind == "failed":
        why = error_of(code_of(outcome.why), outcome.why.message)
        return Outcome(kind, why, wire_bytes=outcome.wireBytes)
    if kind in ("miss", "recompute"):
        return Outcome(kind)
    level = _LEVEL_NAMES.get(outcome.level.raw, "")
    if kind != "hit" or not level:
        return Outcome("failed", Unimplemented("an outcome or a level that this client does not know"))
    return Outcome(kind, None, level, outcome.source, _tier_of(outcome), outcome.version, outcome.wireBytes)


@contextlib.contextmanager
def _spoiling(memory: Part | None) -> Iterator[None]:
    """Marks shared memory as spoiled when its call breaks off: the node may still use it."""
    try:
        yield
    except BaseException:
        if memory is not None:
            memory.spoil()
        raise


def _fill_refs(builder: Any, chunks: Sequence[Chunk]) -> None:
    refs = builder.init("chunks", len(chunks))
    for ref, chunk in zip(refs, chunks):
        ref.key = chunk.key


@dataclass(frozen=True)
class StoreCall:
    """One chunk to store. `kv` has the shape (layers, 2, kv_heads, tokens, head_dim). If
    there is shared memory, `kv` fills it, in C order."""

    chunk: Chunk
    positions: Sequence[int]
    levels: int
    durability: str
    ttl_ms: int
    timeout: float
    kv: np.ndarray[Any, Any]
    memory: Part | None = None


@dataclass(frozen=True)
class RetrieveCall:
    """Chunks to retrieve into `out`, which has the shape (layers, 2, kv_heads, tokens,
    head_dim). Each chunk goes to its span of the token axis. If there is shared memory,
    `out` lies in it."""

    chunks: Sequence[Chunk]
    positions: Sequence[Sequence[int]]
    spans: Sequence[slice]
    slice: tuple[int, int, int, int]
    accept: int
    timeout: float
    out: np.ndarray[Any, Any]
    memory: Part | None = None
    prefill_tokens_per_second: float = 0.0
    leading_chunks: bool = False


class _Sink(wire.LayerSink.Server):
    """Receives the layers of an inline retrieve and copies them into `out`."""

    def __init__(self, call: RetrieveCall) -> None:
        self._call = call

    async def data_context(self, context: Any) -> None:
        params = context.params
        out = self._call.out[params.layer : params.layer + params.count, :, :, self._call.spans[params.chunk], :]
        out[...] = np.frombuffer(params.get_data_as_view("bytes"), dtype=out.dtype).reshape(out.shape)

    async def ready(self, layers: Any, _context: Any) -> None:
        """Never called: inline layers come through `data`."""

    async def done(self, _context: Any) -> None:
        """The last call; the retrieve's answer comes next."""


def _dense_strides(array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The strides of an array without gaps. NumPy's own may be anything in a dimension of
    size 1, even negative."""
    return tuple(array.itemsize * math.prod(array.shape[i + 1 :]) for i in range(array.ndim - 1))


def model_to_wire(model: ModelSpec) -> dict[str, Any]:
    rope = model.rope
    return {
        "name": model.name,
        "numLayers": model.num_layers,
        "numKvHeads": model.num_kv_heads,
        "headDim": model.head_dim,
        "dtype": model.dtype,
        "weightsDigest": model.weights_digest,
        "tokenizerDigest": model.tokenizer_digest,
        "rope": {
            "theta": rope.theta,
            "rotaryDim": rope.rotary_dim,
            "pairing": rope.pairing,
            "scaling": rope.scaling,
            "factor": rope.factor,
            "lowFreqFactor": rope.low_freq_factor,
            "highFreqFactor": rope.high_freq_factor,
            "originalMaxPosition": rope.original_max_position,
            "betaFast": rope.beta_fast,
            "betaSlow": rope.beta_slow,
            "attentionFactor": rope.attention_factor,
        },
    }


class Calls:
    """The chunks of one tenant and one model, on one connection."""

    def __init__(self, connection: Connection, capability: int, model: ModelSpec) -> None:
        self._connection = connection
        self._capability = capability
        self._model = model

    @classmethod
    async def open(cls, connection: Connection, namespace: str, model: ModelSpec, timeout: float) -> Calls:
        call = connection.live_session().open(
            namespace=namespace, model=model_to_wire(model), fingerprint=fingerprint_of(model)
        )
        answer = await answer_of(call, timeout, f"opening {namespace}")
        check(answer.status)
        return cls(connection, connection.hold(answer.knowledge), model)

    @property
    def _knowledge(self) -> Any:
        return self._connection.held(self._capability)

    async def lookup(self, chunks: Sequence[Chunk], timeout: float) -> list[Found]:
        request = self._knowledge.lookup_request()
        _fill_refs(request, chunks)
        request.deadlineMs = milliseconds(timeout)
        answer = await answer_of(request.send(), timeout, "looking chunks up")
        check(answer.status)
        return [found_of(result) for result in answer.results]

    async def statuses(
        self, method: str, chunks: Sequence[Chunk], timeout: float, ttl_ms: int | None = None
    ) -> list[KdnError | None]:
        """Calls pin, unpin or remove. Per chunk: None for success, else the error."""
        request = getattr(self._knowledge, f"{method}_request")()
        _fill_refs(request, chunks)
        if ttl_ms is not None:
            request.ttlMs = ttl_ms
        request.deadlineMs = milliseconds(timeout)
        answer = await answer_of(request.send(), timeout, f"{method}: {len(chunks)} chunks")
        check(answer.status)
        return [
            None if code_of(status) == "ok" else error_of(code_of(status), status.message) for status in answer.statuses
        ]

    async def store(self, call: StoreCall) -> Receipt:
        # After a broken call, the node may read the memory until it learns of the end.
        with _spoiling(call.memory):
            return await self._store(call)

    async def _store(self, call: StoreCall) -> Receipt:
        deadline = Deadline(call.timeout)
        beginning = self._begin(call)
        if call.memory is None:
            # A store that waits for memory must not fill the node with messages.
            begun = await answer_of(beginning, deadline.left(), "beginning a store")
            check(begun.status)
            stream = begun.stream
        else:
            stream = beginning.stream  # takes calls before the store has begun
        try:
            layers = await self._send_layers(stream, call, deadline)
        except Exception:
            # A store that was refused has no stream: the answer of its beginning says why.
            if call.memory is not None:
                check((await answer_of(beginning, deadline.left(), "beginning a store")).status)
            raise
        # The commit does not wait for the layers' answers: calls keep their order.
        committing = stream.commit()
        if call.memory is not None:
            check((await answer_of(beginning, deadline.left(), "beginning a store")).status)
        answer = await answer_of(committing, deadline.left(), "committing a chunk")
        del layers  # a call whose promise is dropped is cancelled
        check(answer.status)
        receipt = answer.receipt
        return Receipt(bytes(receipt.key), receipt.version, receipt.existed, receipt.bytes, tuple(receipt.holders))

    async def _send_layers(self, stream: Any, call: StoreCall, deadline: Deadline) -> list[Any]:
        """Sends all layers. Returns the promises that are not answered yet."""
        kv = call.kv
        count = self._layers_per_call(call)
        window = _CALLS_UNANSWERED
        if call.memory is None:
            window = max(1, min(window, _BYTES_UNANSWERED // (count * kv[0].nbytes)))
        unanswered: list[Any] = []
        for first in range(0, len(kv), count):
            if len(unanswered) == window:
                await answer_of(unanswered.pop(0), deadline.left(), "storing a layer")
            layers = kv[first : first + count]
            request = stream.layer_request()
            strides = layers.strides
            if call.memory is None:
                layers = np.ascontiguousarray(layers)
                request.bytes = layers.reshape(-1).view(np.uint8).data
                strides = _dense_strides(layers)
            else:
                request.offset = call.memory.offset + first * kv.strides[0]
            request.count = len(layers)
            request.strides = dict(zip(("layer", "part", "head", "token"), strides))
            unanswered.append(request.send())
        return unanswered

    def _layers_per_call(self, call: StoreCall) -> int:
        if "layers-per-call" not in self._connection.node.features:
            return 1
        if call.memory is not None:
            return len(call.kv)
        most = min(_MESSAGE_BYTES, self._connection.node.message_bytes_max // 2)
        return int(max(1, most // call.kv[0].nbytes))

    def _begin(self, call: StoreCall) -> Any:
        """The promise of the answer to the beginning of a store."""
        begin = self._knowledge.store_request()
        request = begin.init("request")
        chunk = call.chunk
        request.key = chunk.key
        request.condition = chunk.condition
        request.variant = chunk.variant
        request.tokens = list(chunk.tokens)
        request.positions = list(call.positions)
        request.levels = call.levels
        request.durability = call.durability
        request.ttlMs = call.ttl_ms
        request.depth = chunk.depth
        if call.memory is not None:
            request.memory = self._connection.held(call.memory.number)
        begin.deadlineMs = milliseconds(call.timeout)
        return begin.send()

    async def calibrate(self, timeout: float) -> int:
        """Begins a calibration. Returns the number under which the connection holds it."""
        if "calibration-runs" not in self._connection.node.features:
            raise Unimplemented(f"node {self._connection.node.id} makes no calibrations for clients: update it")
        call = self._knowledge.calibrate(deadlineMs=milliseconds(timeout))
        answer = await answer_of(call, timeout, "beginning a calibration")
        check(answer.status)
        return self._connection.hold(answer.run)

    async def add_to_calibration(
        self,
        run: int,
        kv: np.ndarray[Any, Any],
        positions: Sequence[int],
        importance: np.ndarray[Any, Any] | None,
        timeout: float,
    ) -> tuple[int, int]:
        """Adds KV. Returns the tokens so far and those that `finish_calibration` needs."""
        count = min(4096, max(1, _RUN_BYTES // max(1, kv.nbytes // max(1, len(positions)))))
        tokens = needed = 0
        for first in range(0, len(positions), count):
            part = np.ascontiguousarray(kv[:, :, :, first : first + count])
            request = self._connection.held(run).add_request()
            request.bytes = part.reshape(-1).view(np.uint8).data
            request.strides = dict(zip(("layer", "part", "head", "token"), _dense_strides(part)))
            request.positions = list(positions[first : first + count])
            if importance is not None:
                request.importance = importance[:, :, first : first + count].flatten().tolist()
            answer = await answer_of(request.send(), timeout, "adding to a calibration")
            check(answer.status)
            tokens, needed = answer.tokens, answer.tokensMin
        return tokens, needed

    async def finish_calibration(self, run: int, base_bits: float, weights: Sequence[float], timeout: float) -> str:
        call = self._connection.held(run).finish(baseBits=base_bits, weights=list(weights))
        answer = await answer_of(call, timeout, "making a calibration")
        check(answer.status)
        return bytes(answer.id).hex()

    async def drop_calibration(self, run: int) -> None:
        self._connection.drop(run)

    async def retrieve(self, call: RetrieveCall) -> list[Outcome]:
        # After a broken call, the node may write into the memory until the deadline. After
        # an answer, it writes nothing more, also for chunks that failed.
        with _spoiling(call.memory):
            return await self._retrieve(call)

    async def _retrieve(self, call: RetrieveCall) -> list[Outcome]:
        asking = self._knowledge.retrieve_request()
        request = asking.init("request")
        self._fill_chunks(request.init("chunks", len(call.chunks)), call)
        ends = request.slice
        ends.layerBegin, ends.layerEnd, ends.headBegin, ends.headEnd = call.slice
        request.accept = call.accept
        request.prefillTokensPerSecond = call.prefill_tokens_per_second
        request.leadingChunks = call.leading_chunks
        if call.memory is not None:
            request.destination.memory = self._connection.held(call.memory.number)
        else:
            request.destination.inline = "headMajor"
            request.messageBytes = _MESSAGE_BYTES
            asking.sink = _Sink(call)
        asking.deadlineMs = milliseconds(call.timeout)
        answer = await answer_of(asking.send(), call.timeout, "retrieving chunks")
        check(answer.status)
        return [outcome_of(outcome) for outcome in answer.outcomes]

    def _fill_chunks(self, builders: Any, call: RetrieveCall) -> None:
        layer, part, head, token, _ = call.out.strides
        for builder, chunk, positions, span in zip(builders, call.chunks, call.positions, call.spans):
            builder.ref.key = chunk.key
            builder.positions = list(positions)
            if call.memory is not None:
                builder.offset = call.memory.offset + span.start * token
                builder.strides = {"layer": layer, "part": part, "token": token, "head": head}
