"""The results of calls: plain values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import KdnError
from .keys import Chunk
from .model import ModelSpec
from .tensors import as_torch


def leading(flags: Iterable[bool]) -> int:
    """The number of true values before the first false value."""
    return sum(1 for _ in itertools.takewhile(bool, flags))


def names_of(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """A list of names as a tuple. A single name may be given without a list."""
    return (names,) if isinstance(names, str) else tuple(names or ())


@dataclass(frozen=True)
class NodeInfo:
    """The connected node, and its limits for one session."""

    id: str
    software: str
    chunks_per_call_max: int
    message_bytes_max: int
    memory_bytes_max: int
    stores_in_flight_max: int
    store_bytes_max: int
    features: frozenset[str] = frozenset()
    """The node's features beyond protocol version 2: see docs/protocol.md."""


@dataclass(frozen=True)
class Calibration:
    """A calibration of the cluster. Of one model, the calibration that was made last codes new chunks."""

    id: str
    """The SHA-256 of its file, in hex digits."""
    model: str
    """The fingerprint of its model, in hex digits."""
    created: float
    """When it was made, in seconds since 1970. 0: not known."""
    bytes: int
    nodes: tuple[str, ...]
    """The live nodes that have it."""


@dataclass(frozen=True)
class Found:
    """The result of a lookup for one chunk. The other fields are empty unless `hit`."""

    hit: bool
    node: str = ""
    tier: str = ""
    levels: frozenset[str] = frozenset()
    bytes: int = 0
    version: int = 0

    def delivers(self, accept: str | Sequence[str] | None) -> bool:
        """Whether the chunk is stored at one of the levels in `accept` (None: any)."""
        return self.hit and (accept is None or not self.levels.isdisjoint(names_of(accept)))


@dataclass(frozen=True)
class Receipt:
    """The result of a store: the cluster holds the chunk now. `existed` says that an
    earlier store had stored this key, and that this store changed nothing."""

    key: bytes
    version: int
    existed: bool
    bytes: int
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a retrieve for one chunk. `kind` is one of:

    - "hit": the chunk was delivered. `level` is the least exact level of its layers.
    - "miss": no node holds the chunk at an accepted level.
    - "failed": the chunk could not be delivered; `why` is the error.
    - "recompute": the cluster holds the chunk, but recomputing it is faster, or it cannot
      be delivered by the deadline.

    The engine recomputes every chunk that is not a hit.
    """

    kind: str
    why: KdnError | None = None
    level: str = ""
    source: str = ""
    tier: str = ""
    version: int = 0
    wire_bytes: int = 0

    @property
    def hit(self) -> bool:
        return self.kind == "hit"


@dataclass(frozen=True)
class Retrieved:
    """The result of a retrieve: the chunks, one behind the other in one tensor.

    `kv` has the shape ``(layers, 2, kv_heads, tokens, head_dim)``, with the layers and
    heads that were asked for. `spans` are the places of the chunks on the token axis. The
    contents of a chunk that is not a hit must not be used. Over a Unix socket, `kv` is
    shared memory that the node wrote into; it is reused when the last array over it is
    gone.
    """

    model: ModelSpec
    chunks: Sequence[Chunk]
    outcomes: Sequence[Outcome]
    spans: Sequence[slice]
    kv: np.ndarray[Any, Any]

    @property
    def prefix_chunks(self) -> int:
        """The number of chunks before the first chunk that is not a hit."""
        return leading(outcome.hit for outcome in self.outcomes)

    @property
    def prefix_tokens(self) -> int:
        """The number of tokens before the first chunk that is not a hit."""
        count = self.prefix_chunks
        return self.spans[count - 1].stop if count else 0

    def torch(self) -> Any:
        """`kv` as a torch tensor over the same memory."""
        return as_torch(self.kv, self.model)
