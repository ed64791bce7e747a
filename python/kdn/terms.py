"""A connector's settings for storing KV and for accepting stored KV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._calls import levels_mask
from ._connection import milliseconds
from ._schema import DURABILITIES
from .errors import InvalidArgument
from .types import names_of

EXACT = ("lossless",)
"""The levels at which KV comes back bit for bit."""
_LOOKUP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Terms:
    """`levels` are the levels to keep (default: "lossless"). `accept` are the levels to
    load (default: `levels`). Each is one name or a list of names, and becomes a tuple.
    `timeout` is in seconds. InvalidArgument for unknown names, which would never find
    anything."""

    levels: str | Sequence[str] | None = None
    accept: str | Sequence[str] | None = None
    durability: str = "replicated"
    timeout: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", names_of(self.levels) or EXACT)
        object.__setattr__(self, "accept", names_of(self.accept) or self.levels)
        levels_mask(self.levels)
        levels_mask(self.accept)
        check_durability(self.durability)
        milliseconds(self.timeout)

    @property
    def exact(self) -> bool:
        """Whether all loaded KV is the computed KV, bit for bit."""
        return self.accept == EXACT

    @property
    def lookup_timeout(self) -> float:
        """Seconds. Shorter than other timeouts, because an engine waits for a lookup, and a
        node that hangs makes it wait for the whole timeout."""
        return min(self.timeout, _LOOKUP_TIMEOUT_S)


def check_durability(name: str) -> None:
    """InvalidArgument unless `name` is the name of a durability class."""
    if name not in DURABILITIES:
        raise InvalidArgument(f"durability {name!r}, expected one of {', '.join(DURABILITIES)}")
