"""What calls answer with. Plain values."""

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
    """How many are true in front of the first that is not."""
    return sum(1 for _ in itertools.takewhile(bool, flags))


@dataclass(frozen=True)
class NodeInfo:
    """The node at the other end, and what it grants one session."""

    id: str
    software: str
    chunks_per_call_max: int
    message_bytes_max: int
    memory_bytes_max: int
    stores_in_flight_max: int
    store_bytes_max: int


@dataclass(frozen=True)
class Found:
    """What a lookup says of one chunk. The rest is empty unless `hit`."""

    hit: bool
    node: str = ""
    tier: str = ""
    levels: frozenset[str] = frozenset()
    bytes: int = 0
    version: int = 0

    def delivers(self, accept: Sequence[str] | None) -> bool:
        """Whether a retrieve with this `accept` finds a level to deliver."""
        return self.hit and (accept is None or not self.levels.isdisjoint(accept))


@dataclass(frozen=True)
class Receipt:
    """A chunk that is held now. `existed`: an earlier object of this key won and
    nothing changed."""

    key: bytes
    version: int
    existed: bool
    bytes: int
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one chunk of a retrieve: "hit", "miss" (nobody holds it),
    "failed" (`why`), or "recompute" (it is held, but recomputing is faster, or all that
    there is time for). All but the first mean: recompute. `level` is the least exact of
    its layers."""

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
    """Chunks as they were delivered, one behind the other in one tensor.

    `kv` has the shape ``(layers, 2, kv_heads, tokens, head_dim)`` of the layers and
    heads asked for; `spans` says where each chunk lies on its token axis. What
    belongs to a chunk that is not a hit must not be used. Over a Unix socket `kv` is
    memory that the node wrote into; it goes back when the last array over it goes.
    """

    model: ModelSpec
    chunks: Sequence[Chunk]
    outcomes: Sequence[Outcome]
    spans: Sequence[slice]
    kv: np.ndarray[Any, Any]

    @property
    def prefix_chunks(self) -> int:
        """Chunks in front of the first that is not a hit."""
        return leading(outcome.hit for outcome in self.outcomes)

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the first chunk that is not a hit."""
        count = self.prefix_chunks
        return self.spans[count - 1].stop if count else 0

    def torch(self) -> Any:
        """`kv` as a torch tensor over the same memory."""
        return as_torch(self.kv, self.model)
