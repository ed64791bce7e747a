"""The fields of one stream of base, base+1 or base+2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .byte_reader import ByteReader
from .errors import require
from .floats import Dtype, fp32, values_of
from .rans import LANES, RansDecoder, RansTable
from .transform import BAND, MODES, Transform

CODED, ROWS, NOTHING = 0, 1, 2
Values = list[list[int]]
"""[token][component]"""


class Patch(NamedTuple):
    """A value that is added to one component of one token."""

    token: int
    component: int
    value: int


@dataclass(frozen=True)
class BaseFields:
    """The fields that only a coded stream of base has. Scale and mean are the transform's,
    unless the built-in calibration leaves them to the stream."""

    scale: float
    mean: Sequence[float]
    raw_rows: dict[int, list[float]]  # by token


def read_form(reader: ByteReader, step: int) -> int:
    """The first byte of a stream: the table of forms."""
    form = reader.value("B")
    allowed = (CODED, NOTHING) if step else (CODED, ROWS)
    require(form in allowed, f"{reader.what}: form {form}, expected {allowed[0]} or {allowed[1]}")
    return form


def read_row(reader: ByteReader, dim: int) -> list[float]:
    """A row of *dim* bf16, which are finite."""
    row = values_of(Dtype.BF16, reader.take(Dtype.BF16.bytes * dim))
    require(all(map(math.isfinite, row)), f"{reader.what}: a mean or row with a value that is not finite")
    return row


def read_base_fields(reader: ByteReader, transform: Transform, tokens: int) -> BaseFields:
    """The fields before the patches in a coded stream of base."""
    scale, mean = transform.scale, transform.mean
    if mean is None:
        gain = reader.value("f")
        require(math.isfinite(gain) and gain > 0, f"{reader.what}: a gain of {gain}, expected above 0")
        scale, mean = fp32(scale * gain), read_row(reader, transform.dim)
    raw_tokens = reader.values(f"{reader.value('H')}H")
    require(
        all(a < b for a, b in zip(raw_tokens, (*raw_tokens[1:], tokens))),
        f"{reader.what}: raw tokens {raw_tokens}, expected ascending numbers below {tokens}",
    )
    return BaseFields(scale, mean, {token: read_row(reader, transform.dim) for token in raw_tokens})


def read_patches(reader: ByteReader, transform: Transform, step: int, tokens: int) -> list[Patch]:
    """The patches. Each changes a component in a band that the level codes."""
    count = reader.value("I")
    require(4 * count <= reader.left, f"{reader.what}: {count} patches do not fit")
    patches = [Patch(*reader.values("HBb")) for _ in range(count)]
    for token, component, _ in patches:
        require(
            token < tokens and component < transform.components and transform.bands[component // BAND][step].mode != 0,
            f"{reader.what}: a patch of token {token}, component {component}",
        )
    return patches


def read_symbols(
    reader: ByteReader, transform: Transform, step: int, tokens: int, tables: Sequence[RansTable]
) -> Values:
    """The paragraph "Symbols": the values of the rANS stream, 0 where a band is not coded."""
    decoder = RansDecoder(reader.take(reader.left))
    values: Values = [[] for _ in range(tokens)]
    for band in transform.bands:
        code = band[step]
        if code.mode == 0:
            for row in values:
                row += [0] * BAND
            continue
        mode = MODES[code.mode]
        pair = (tables[code.first_table], tables[code.second_table])
        lanes = [pair[lane % mode.symbols >= mode.symbols // 2] for lane in range(LANES)]
        coded_tokens = -(-tokens // 8) * 8
        symbols = decoder.run(coded_tokens * mode.symbols // LANES, lanes)
        for token, row in enumerate(values):
            for symbol in symbols[token * mode.symbols : (token + 1) * mode.symbols]:
                row += mode.values_of(symbol)
    decoder.finish()
    return values
