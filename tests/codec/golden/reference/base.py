"""The section "base, base+1, base+2": rows from the streams of these levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from .byte_reader import ByteReader
from .fixed_fields import Level, Part
from .floats import fp32
from .rans import RansTable
from .stored_object import StoredObject, StreamId
from .transform import BAND, Calibration, Transform
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
    layer: int
    part: Part
    group: int
    transform: Transform
    tables: Sequence[RansTable]

    @property
    def tokens(self) -> int:
        """*T*."""
        return self.stored.header.fixed.tokens

    def reader(self, step: int) -> ByteReader:
        """Reads the stream of a step."""
        return self.stored.reader(StreamId(Level(Level.BASE + step), self.layer, self.part, self.group))

    def level_values(self, reader: ByteReader, step: int) -> tuple[Values, list[Patch]]:
        """The end of a coded stream: its patches, then the values of its symbols."""
        patches = read_patches(reader, self.transform, step, self.tokens)
        return read_symbols(reader, self.transform, step, self.tokens, self.tables), patches


def decode_group(
    stored: StoredObject, calibration: Calibration, level: Level, layer: int, part: Part, group: int
) -> list[list[float]]:
    """The row of each token, before RoPE, with the heads of the group side by side."""
    transform = calibration.transform(layer, part, group)
    streams = _Group(stored, layer, part, group, transform, calibration.tables)
    reader = streams.reader(0)
    if read_form(reader, 0) == ROWS:
        rows = [read_row(reader, transform.dim) for _ in range(streams.tokens)]
        reader.finish()
        return rows
    fields = read_base_fields(reader, transform, streams.tokens)
    values = _values_at(streams, level, reader)
    return [
        fields.raw_rows[token] if token in fields.raw_rows else _row(transform.synthesis, v, fields)
        for token, v in enumerate(values)
    ]


def _row(synthesis: Sequence[Sequence[int]], v: Sequence[int], fields: BaseFields) -> list[float]:
    """The paragraph "Rows": mean + scale x *S* v."""
    return [fp32(fp32(fp32(sum(map(mul, row, v))) * fields.scale) + mean) for row, mean in zip(synthesis, fields.mean)]


def _values_at(streams: _Group, level: Level, base: ByteReader) -> Values:
    """The paragraph "Values": v of each token. `base` stands at the patches of base."""
    values, patches = streams.level_values(base, 0)
    _add_patches(values, patches)
    last = 0
    for step in range(1, level - Level.BASE + 1):
        reader = streams.reader(step)
        if read_form(reader, step) == NOTHING:
            reader.finish()
            break
        finer, patches = streams.level_values(reader, step)
        values = [[_refined(v, r) for v, r in zip(*rows)] for rows in zip(values, finer)]
        _add_patches(values, patches)
        last = step
    return [_at_finest(v, streams.transform, last) for v in values]


def _signed_byte(value: int) -> int:
    """`value`, wrapped around to -128 to 127."""
    return (value + 128) % 256 - 128


def _add_patches(values: Values, patches: Sequence[Patch]) -> None:
    """The patches of one level."""
    for token, component, value in patches:
        values[token][component] = _signed_byte(values[token][component] + value)


def _refined(v: int, r: int) -> int:
    """Step 2 of "Values"."""
    return _signed_byte(3 * v - r if v < 0 else 3 * v + r)


def _at_finest(values: Sequence[int], transform: Transform, last: int) -> list[int]:
    """Step 3 of "Values": v in cells of base+2, moved towards zero by the band's shrink."""
    moved = []
    for component, v in enumerate(values):
        shrink = transform.bands[component // BAND][last].shrink
        sign = (v > 0) - (v < 0)
        moved.append(_signed_byte(_CELLS[last] * v - sign * shrink))
    return moved
