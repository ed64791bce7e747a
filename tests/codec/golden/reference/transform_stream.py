"""The fields of one stream of base, base+1, base+2 or archive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .byte_reader import ByteReader
from .errors import require
from .floats import Dtype, fp32, values_of
from .rans import LANES, RansDecoder, RansTable
from .transform import BAND, MODES, BandCode, Transform

CODED, ROWS, NOTHING = 0, 1, 2
Values = list[list[int]]
"""[token][column]"""


class Patch(NamedTuple):
    """A value that is added to one column of one token."""

    token: int
    column: int
    value: int


@dataclass(frozen=True)
class BaseFields:
    """The fields that only a coded stream of base or archive has. Scales and mean are the
    transform's, unless the built-in calibration leaves them to the stream."""

    scales: Sequence[float]  # as in Transform
    mean: Sequence[float]
    raw_rows: dict[int, list[float]]  # by token
    classes: Sequence[int]  # the number of each token's class


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
    """The fields before the patches in a coded stream of base or archive."""
    scales, mean = transform.scales, transform.mean
    if mean is None:
        gain = reader.value("f")
        require(math.isfinite(gain) and gain > 0, f"{reader.what}: a gain of {gain}, expected above 0")
        scales, mean = [fp32(scale * gain) for scale in scales], read_row(reader, transform.dim)
    raw_tokens = reader.values(f"{reader.value('H')}H")
    require(
        all(a < b for a, b in zip(raw_tokens, (*raw_tokens[1:], tokens))),
        f"{reader.what}: raw tokens {raw_tokens}, expected ascending numbers below {tokens}",
    )
    raw_rows = {token: read_row(reader, transform.dim) for token in raw_tokens}
    return BaseFields(scales, mean, raw_rows, _read_classes(reader, len(transform.classes), tokens))


def _read_classes(reader: ByteReader, count: int, tokens: int) -> list[int]:
    """The class of each token. Without joint streams there is only one class."""
    if count == 1:
        return [0] * tokens
    first = reader.value("B")
    packed = reader.take(-(-tokens // 4))
    classes = [first + (packed[token // 4] >> 2 * (token % 4)) % 4 for token in range(tokens)]
    require(max(classes) < count, f"{reader.what}: a token of class {max(classes)}, expected 0 to {count - 1}")
    return classes


def read_patches(reader: ByteReader, transform: Transform, step: int, classes: Sequence[int]) -> list[Patch]:
    """The patches. Each changes a column in a band that the level codes for the token's
    class."""
    layout, size = ("HHb", 5) if transform.columns > 256 else ("HBb", 4)
    count = reader.value("I")
    require(size * count <= reader.left, f"{reader.what}: {count} patches do not fit")
    patches = [Patch(*reader.values(layout)) for _ in range(count)]
    for token, column, _ in patches:
        require(
            token < len(classes)
            and column < transform.columns
            and transform.classes[classes[token]].bands[column // BAND][step].mode != 0,
            f"{reader.what}: a patch of token {token}, column {column}",
        )
    return patches


def read_symbols(
    reader: ByteReader, transform: Transform, step: int, classes: Sequence[int], tables: Sequence[RansTable]
) -> Values:
    """The paragraph "Symbols": the values of the rANS stream, 0 where a band is not coded."""
    decoder = RansDecoder(reader.take(reader.left))
    values: Values = [[] for _ in classes]
    for number, token_class in enumerate(transform.classes):
        rows = [row for row, c in zip(values, classes) if c == number]
        for band in token_class.bands if rows else ():
            _read_band(decoder, band[step], tables, rows)
    decoder.finish()
    return values


def _read_band(decoder: RansDecoder, code: BandCode, tables: Sequence[RansTable], rows: Values) -> None:
    """Adds the values of one band to the rows of the tokens of one class."""
    if code.mode == 0:
        for row in rows:
            row += [0] * BAND
        return
    mode = MODES[code.mode]
    pair = (tables[code.first_table], tables[code.second_table])
    lanes = [pair[lane % mode.symbols >= mode.symbols // 2] for lane in range(LANES)]
    coded_tokens = -(-len(rows) // 8) * 8
    symbols = decoder.run(coded_tokens * mode.symbols // LANES, lanes)
    for i, row in enumerate(rows):
        for symbol in symbols[i * mode.symbols : (i + 1) * mode.symbols]:
            row += mode.values_of(symbol)
