"""What connectors agree on with the cluster: how KV is kept, and what is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._calls import levels_mask
from ._connection import milliseconds
from ._schema import DURABILITIES
from .errors import InvalidArgument

EXACT = ("lossless",)
"""The levels at which KV comes back bit for bit."""
_LOOKUP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Terms:
    """`levels`: qualities to keep, "lossless" by default. `accept`: those to take,
    `levels` by default. InvalidArgument for what nobody knows: it would never hit."""

    levels: Sequence[str] | None = None
    accept: Sequence[str] | None = None
    durability: str = "replicated"
    timeout: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels or EXACT))
        object.__setattr__(self, "accept", tuple(self.accept or self.levels or ()))
        levels_mask(self.levels)
        levels_mask(self.accept)
        check_durability(self.durability)
        milliseconds(self.timeout)

    @property
    def exact(self) -> bool:
        """Whether nothing is taken but what was computed, bit for bit."""
        return self.accept == EXACT

    @property
    def lookup_timeout(self) -> float:
        """An engine waits for a lookup, and a node that hangs makes it wait for all of it."""
        return min(self.timeout, _LOOKUP_TIMEOUT_S)


def check_durability(name: str) -> None:
    """InvalidArgument unless there is one of this name."""
    if name not in DURABILITIES:
        raise InvalidArgument(f"durability {name!r}, expected one of {', '.join(DURABILITIES)}")
