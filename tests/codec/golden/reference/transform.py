"""The transform of a stream, which a decoder knows before it reads the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .fixed_fields import Part
from .rans import RansTable

BAND = 16
"""The components of a band."""
STEPS = 3
"""The levels base, base+1 and base+2 are the steps 0, 1 and 2 of the coding. Archive is
coded like step 0."""
HIGH_PART = 27
"""The cells of base in one unit of a high part."""


class Mode(NamedTuple):
    """A row of the table of modes in the section "base, base+1, base+2, archive"."""

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


class TokenClass(NamedTuple):
    """How the tokens of one class are coded."""

    exponent: int
    bands: Sequence[Sequence[BandCode]]  # [band][step]; the bands of high parts come last


@dataclass(frozen=True)
class Transform:
    """The transform of one stream: the second table of "Calibrations"."""

    scales: Sequence[float]  # one, or in joint streams those of each head's K, then of each head's V
    mean: Sequence[float] | None  # None: each stream has its own mean and gain
    synthesis: Sequence[Sequence[int]]  # *S*, [dimension][component]
    classes: Sequence[TokenClass]
    wide_bands: int = 0  # *W*

    @property
    def dim(self) -> int:
        """*dim*."""
        return len(self.synthesis)

    @property
    def components(self) -> int:
        """*C*."""
        return components_of(self.dim)

    @property
    def columns(self) -> int:
        """The components, and then the high parts of the wide components."""
        return self.components + BAND * self.wide_bands


class Calibration(Protocol):
    """A calibration of a model, or the built-in one."""

    @property
    def tables(self) -> Sequence[RansTable]:
        """The tables that band codes refer to by number."""

    def transform(self, layer: int, part: Part, group: int) -> Transform:
        """The transform of one stream. A joint stream is one of K."""


def components_of(dim: int) -> int:
    """*C*: *dim* rounded up to whole bands."""
    return -(-dim // BAND) * BAND


def heads_coded_together(kv_heads: int, head_dim: int) -> int:
    """*G* of "Streams" at base, base+1 and base+2, if K and V are apart."""
    most = max(1, 128 // head_dim)
    return max(heads for heads in range(1, min(most, kv_heads) + 1) if kv_heads % heads == 0)
