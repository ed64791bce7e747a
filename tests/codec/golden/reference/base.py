"""The section "base, base+1, base+2, archive": rows from the streams of these levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from .byte_reader import ByteReader
from .fixed_fields import Level
from .floats import fp32
from .rans import RansTable
from .stored_object import StoredObject, StreamId
from .transform import BAND, HIGH_PART, BandCode, Calibration, Transform
from .transform_stream import (
    NOTHING,
    ROWS,
    BaseFields,
    Patch,
    Values,
    read_base_fields,
    read_form,
    read_patches,
    read_row,
    read_symbols,
)

_CELLS = (9, 3, 1)
"""The cells of base+2 in a cell of each level."""


@dataclass(frozen=True)
class _Group:
    """The head group that is decoded, with the transform and the tables of its streams."""

    stored: StoredObject
    stream: StreamId  # of the wanted level
    transform: Transform
    tables: Sequence[RansTable]

    @property
    def tokens(self) -> int:
        """*T*."""
        return self.stored.header.fixed.tokens

    @property
    def steps(self) -> int:
        """The number of streams that the wanted level is decoded from."""
        return 1 if self.stream.level is Level.ARCHIVE else self.stream.level - Level.BASE + 1

    def reader(self, step: int) -> ByteReader:
        """Reads the stream of a step."""
        level = self.stream.level if self.stream.level is Level.ARCHIVE else Level(Level.BASE + step)
        return self.stored.reader(self.stream._replace(level=level))

    def level_values(self, reader: ByteReader, step: int, fields: BaseFields) -> tuple[Values, list[Patch]]:
        """The end of a coded stream: its patches, then the values of its symbols."""
        patches = read_patches(reader, self.transform, step, fields.classes)
        return read_symbols(reader, self.transform, step, fields.classes, self.tables), patches


def decode_group(stored: StoredObject, calibration: Calibration, stream: StreamId) -> list[list[float]]:
    """The row of each token, before RoPE, with the heads of the group side by side. `stream`
    is the stream of the wanted level; K names a joint stream, whose rows end with V."""
    transform = calibration.transform(stream.layer, stream.part, stream.group)
    streams = _Group(stored, stream, transform, calibration.tables)
    reader = streams.reader(0)
    if read_form(reader, 0) == ROWS:
        rows = [read_row(reader, transform.dim) for _ in range(streams.tokens)]
        reader.finish()
        return rows
    fields = read_base_fields(reader, transform, streams.tokens)
    values = _values_at(streams, reader, fields)
    return [
        fields.raw_rows[token] if token in fields.raw_rows else _row(transform, v, fields, token)
        for token, v in enumerate(values)
    ]


def _row(transform: Transform, v: Sequence[int], fields: BaseFields, token: int) -> list[float]:
    """The paragraph "Rows": mean + scale x *S* v."""
    components = list(v[: transform.components])
    for c, high in enumerate(v[transform.components :]):
        components[c] += HIGH_PART * high
    step = 2.0 ** transform.classes[fields.classes[token]].exponent
    scales = [fp32(scale * step) for scale in fields.scales]
    dims_of_scale = transform.dim // len(scales)
    return [
        fp32(fp32(fp32(sum(map(mul, row, components))) * scales[d // dims_of_scale]) + mean)
        for d, (row, mean) in enumerate(zip(transform.synthesis, fields.mean))
    ]


def _values_at(streams: _Group, base: ByteReader, fields: BaseFields) -> Values:
    """The paragraph "Values": v of each token. `base` stands at the patches of the first
    stream."""
    values, patches = streams.level_values(base, 0, fields)
    _add_patches(values, patches)
    last = 0
    for step in range(1, streams.steps):
        reader = streams.reader(step)
        if read_form(reader, step) == NOTHING:
            reader.finish()
            break
        finer, patches = streams.level_values(reader, step, fields)
        values = [[_refined(v, r) for v, r in zip(*rows)] for rows in zip(values, finer)]
        _add_patches(values, patches)
        last = step
    classes = (streams.transform.classes[number] for number in fields.classes)
    return [_at_finest(v, token_class.bands, last) for v, token_class in zip(values, classes)]


def _signed_byte(value: int) -> int:
    """`value`, wrapped around to -128 to 127."""
    return (value + 128) % 256 - 128


def _add_patches(values: Values, patches: Sequence[Patch]) -> None:
    """The patches of one level."""
    for token, column, value in patches:
        values[token][column] = _signed_byte(values[token][column] + value)


def _refined(v: int, r: int) -> int:
    """Step 2 of "Values"."""
    return _signed_byte(3 * v - r if v < 0 else 3 * v + r)


def _at_finest(values: Sequence[int], bands: Sequence[Sequence[BandCode]], last: int) -> list[int]:
    """Step 3 of "Values": v in cells of base+2, moved towards zero by the band's shrink."""
    moved = []
    for column, v in enumerate(values):
        shrink = bands[column // BAND][last].shrink
        sign = (v > 0) - (v < 0)
        moved.append(_signed_byte(_CELLS[last] * v - sign * shrink))
    return moved
