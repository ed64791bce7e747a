"""Decodes the rows of an object at one level."""

from __future__ import annotations

from collections.abc import Sequence

from . import base, int8, lossless
from .built_in import BuiltInCalibration
from .byte_reader import is_zero
from .calibration import CalibrationFile
from .errors import FailedPrecondition, require
from .fixed_fields import Level, Part
from .floats import elements_of
from .header import Header
from .rope import angles_at, turn
from .stored_object import StoredObject, heads_of_group
from .transform import Calibration


def decode(
    stored: StoredObject, level: Level, positions: Sequence[int], calibrations: Sequence[CalibrationFile] = ()
) -> bytes:
    """The elements `[layer][K or V][token][head][dim]` at a level, in the object's dtype. K
    has the RoPE of `positions`, which has the position of each token. FailedPrecondition if
    the level needs a calibration that is not among `calibrations`."""
    fixed = stored.header.fixed
    if level not in fixed.levels:
        raise ValueError(f"the object does not have the level {level.text}")
    if len(positions) != fixed.tokens or min(positions) < 0:
        raise ValueError(f"expected {fixed.tokens} positions of at least 0")
    calibration = _calibration_of(stored.header, calibrations) if level >= Level.BASE else None
    elements = []
    for layer in range(fixed.layers):
        for part in Part:
            heads = _decode_heads(stored, level, calibration, layer, part, positions)
            elements += [row for rows_of_token in zip(*heads) for row in rows_of_token]
    return b"".join(elements)


def _calibration_of(header: Header, calibrations: Sequence[CalibrationFile]) -> Calibration:
    """The calibration that the header names."""
    fixed = header.fixed
    if is_zero(header.calibration):
        return BuiltInCalibration(lambda part: heads_of_group(fixed, Level.BASE, part) * fixed.head_dim(part))
    for calibration in calibrations:
        if calibration.id == header.calibration:
            shape = (calibration.layers, calibration.kv_heads, calibration.head_dim, calibration.head_dim)
            expected = (fixed.layers, fixed.kv_heads, fixed.k_head_dim, fixed.v_head_dim)
            require(shape == expected, "object: its calibration has other layers, KV heads or head_dim")
            return calibration
    raise FailedPrecondition(f"object: its calibration {header.calibration.hex()} is missing")


def _decode_heads(
    stored: StoredObject,
    level: Level,
    calibration: Calibration | None,
    layer: int,
    part: Part,
    positions: Sequence[int],
) -> list[list[bytes]]:
    """The rows of one layer and part: `[head][token]`, each row as elements."""
    fixed = stored.header.fixed
    if level is Level.LOSSLESS:
        return [lossless.decode_head(stored, layer, part, head, positions) for head in range(fixed.kv_heads)]
    if calibration is None:
        heads = [int8.decode_head(stored, layer, part, head) for head in range(fixed.kv_heads)]
    else:
        heads = []
        for group in range(fixed.kv_heads // heads_of_group(fixed, level, part)):
            rows = base.decode_group(stored, calibration, level, layer, part, group)
            heads += _heads_of(rows, fixed.head_dim(part))
    return [_finished(stored.header, layer, part, rows, positions) for rows in heads]


def _heads_of(rows: Sequence[list[float]], dim: int) -> list[list[list[float]]]:
    """The rows of a head group, cut into the rows of its heads."""
    return [[row[begin : begin + dim] for row in rows] for begin in range(0, len(rows[0]), dim)]


def _finished(
    header: Header, layer: int, part: Part, rows: Sequence[Sequence[float]], positions: Sequence[int]
) -> list[bytes]:
    """Turns the rows of K to their positions, and rounds the rows to the dtype."""
    if part is Part.K:
        rope = header.ropes[layer]
        rows = [turn(rope, angles_at(rope, position), row) for position, row in zip(positions, rows)]
    return [elements_of(header.fixed.dtype, row) for row in rows]
