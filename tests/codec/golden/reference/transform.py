"""The transform of a stream, which base, base+1 and base+2 know before they read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .fixed_fields import Part
from .rans import RansTable

BAND = 16
"""The components of a band."""
STEPS = 3
"""The levels base, base+1 and base+2 are the steps 0, 1 and 2 of the coding."""


class Mode(NamedTuple):
    """A row of the table of modes in the section "base, base+1, base+2"."""

    values: int  # in a symbol
    bits: int  # of a value
    largest: int  # value that an encoder writes

    @property
    def symbols(self) -> int:
        """The symbols for each token of a band."""
        return BAND // self.values

    @property
    def symbol_for_zeros(self) -> int:
        """The symbol in which every value is 0."""
        return sum(1 << self.bits * (i + 1) - 1 for i in range(self.values))

    def values_of(self, symbol: int) -> list[int]:
        """The values of a symbol, the first from its lowest bits."""
        half = 1 << self.bits - 1
        return [(symbol >> self.bits * i) % (2 * half) - half for i in range(self.values)]


MODES = {1: Mode(1, 8, 127), 2: Mode(2, 4, 7), 3: Mode(4, 2, 1)}
"""Mode 0 is missing: it says that the level does not code the band."""


class BandCode(NamedTuple):
    """How one level codes one band."""

    mode: int
    first_table: int
    second_table: int
    shrink: int


@dataclass(frozen=True)
class Transform:
    """The transform of one stream: the second table of "Calibrations"."""

    scale: float
    mean: Sequence[float] | None  # None: each stream has its own mean and gain
    synthesis: Sequence[Sequence[int]]  # *S*, [dimension][component]
    bands: Sequence[Sequence[BandCode]]  # [band][step]

    @property
    def dim(self) -> int:
        """*dim*."""
        return len(self.synthesis)

    @property
    def components(self) -> int:
        """*C*."""
        return BAND * len(self.bands)


class Calibration(Protocol):
    """A calibration of a model, or the built-in one."""

    @property
    def tables(self) -> Sequence[RansTable]:
        """The tables that band codes refer to by number."""

    def transform(self, layer: int, part: Part, group: int) -> Transform:
        """The transform of one stream."""


def components_of(dim: int) -> int:
    """*C*: *dim* rounded up to whole bands."""
    return -(-dim // BAND) * BAND


def heads_coded_together(kv_heads: int, head_dim: int) -> int:
    """*G* of "Streams" at base, base+1 and base+2."""
    most = max(1, 128 // head_dim)
    return max(heads for heads in range(1, min(most, kv_heads) + 1) if kv_heads % heads == 0)
