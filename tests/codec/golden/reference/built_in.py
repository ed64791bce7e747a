"""The built-in calibration: the end of the section "Calibrations"."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from .fixed_fields import Part
from .rans import SYMBOLS, RansTable
from .transform import BAND, MODES, BandCode, Mode, TokenClass, Transform, components_of

_VALUES = range(-127, 128)
_DECAYS = ((4273546057, 14 << 20), (4289601941, 1 << 20))
_ONE = 1 << 30
_WEIGHT_MIN = 1 << 13
_TABLE_SUM = 4096
_BANDS = (BandCode(2, 0, 0, 0), BandCode(3, 1, 1, 0), BandCode(3, 2, 2, 0))


class BuiltInCalibration:
    """The calibration with the id zero. `dim_of_part` gives *dim* of the streams of K and of
    V, because the built-in calibration fits every shape."""

    def __init__(self, dim_of_part: Callable[[Part], int]) -> None:
        self._dim_of_part = dim_of_part
        self.tables = [RansTable(frequencies) for frequencies in built_in_tables()]

    def transform(self, layer: int, part: Part, group: int) -> Transform:
        """The transform of all streams of a part."""
        return _transform(self._dim_of_part(part))


@functools.cache
def _transform(dim: int) -> Transform:
    """Hadamard matrices along the diagonal of *S*, the largest possible first."""
    components = components_of(dim)
    synthesis = [[0] * components for _ in range(dim)]
    begin = 0
    while begin < dim:
        size = 1 << (dim - begin).bit_length() - 1
        entry = max(1, math.floor(64 / math.sqrt(size) + 0.5))
        for d in range(size):
            for c in range(size):
                odd = (d & c).bit_count() % 2
                synthesis[begin + d][begin + c] = -entry if odd else entry
        begin += size
    return Transform([1 / 64], None, synthesis, [TokenClass(0, [_BANDS] * (components // BAND))])


@functools.cache
def built_in_tables() -> list[list[int]]:
    """The frequencies of the three tables."""
    counts = _counts_of_values()
    tables = []
    for table, mode in enumerate((MODES[2], MODES[3], MODES[3])):
        coded = _counts_of_coded(table, counts)
        tables.append(_frequencies(_weights(mode, coded)))
    return tables


def _counts_of_values() -> dict[int, int]:
    """Step 1: how often each of the values -127 to 127 occurs."""
    counts = dict.fromkeys(_VALUES, 0)
    for decay, height in _DECAYS:
        count, ratio = height, decay
        for value in range(128):
            counts[value] += count
            if value > 0:
                counts[-value] += count
            count = count * ratio >> 32
            ratio = ratio * (decay * decay >> 32) >> 32
    return counts


def _third(value: int) -> int:
    """third(v) of step 2."""
    return (value + 1) // 3 if value >= 0 else -((1 - value) // 3)


def _counts_of_coded(table: int, counts: dict[int, int]) -> Counter[int]:
    """Step 2: how often the level of this table codes each value."""
    coded: Counter[int] = Counter(dict.fromkeys(_VALUES, 0))
    for value, count in counts.items():
        if table == 0:
            coded[_third(_third(value))] += count
            continue
        quantised = _third(value) if table == 1 else value
        coarse = _third(quantised)
        coded[3 * coarse - quantised if coarse < 0 else quantised - 3 * coarse] += count
    return coded


def _weights(mode: Mode, coded: Counter[int]) -> list[int]:
    """Step 3: the weight of each symbol."""
    total = coded.total()
    shift = max(0, total.bit_length() - 33)
    probability = {value: (count >> shift) * _ONE // (total >> shift) for value, count in coded.items()}
    weights = []
    for symbol in range(SYMBOLS):
        weight = _ONE
        for value in mode.values_of(symbol):
            weight = weight * probability[value] >> 30 if abs(value) <= mode.largest else 0
        weights.append(weight if weight >= _WEIGHT_MIN else 0)
    zeros = mode.symbol_for_zeros
    weights[zeros] = max(weights[zeros], _WEIGHT_MIN)
    return weights


def _frequencies(weights: Sequence[int]) -> list[int]:
    """Step 4: frequencies that add up to 4096. `max` and `min` return the lowest of equal
    symbols."""
    total = sum(weights)
    f = [max(1, _TABLE_SUM * weight // total) if weight else 0 for weight in weights]
    while sum(f) < _TABLE_SUM:
        f[max(range(SYMBOLS), key=lambda s: Fraction(weights[s], 2 * f[s] + 1))] += 1
    while sum(f) > _TABLE_SUM:
        above_one = [s for s in range(SYMBOLS) if f[s] > 1]
        f[min(above_one, key=lambda s: Fraction(weights[s], 2 * f[s] - 1))] -= 1
    return f
