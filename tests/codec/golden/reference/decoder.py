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
from .stored_object import StoredObject, heads_of_group, streams_of
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
    calibration = _calibration_of(stored.header, calibrations) if level.is_transform_coded else None
    elements = []
    for layer in range(fixed.layers):
        for heads in _decode_layer(stored, level, calibration, layer, positions):
            elements += [row for rows_of_token in zip(*heads) for row in rows_of_token]
    return b"".join(elements)


def _calibration_of(header: Header, calibrations: Sequence[CalibrationFile]) -> Calibration:
    """The calibration that the header names."""
    fixed = header.fixed
    if is_zero(header.calibration):
        return BuiltInCalibration(lambda part: heads_of_group(fixed, Level.BASE, part) * fixed.head_dim(part))
    for calibration in calibrations:
        if calibration.id == header.calibration:
            head_dim, joint_heads = calibration.head_dim, calibration.joint_heads
            shape = (calibration.layers, calibration.kv_heads, head_dim, head_dim, joint_heads)
            expected = (fixed.layers, fixed.kv_heads, fixed.k_head_dim, fixed.v_head_dim, fixed.joint_heads)
            require(shape == expected, "object: its calibration has other layers, KV heads, head_dim or J")
            return calibration
    raise FailedPrecondition(f"object: its calibration {header.calibration.hex()} is missing")


def _decode_layer(
    stored: StoredObject, level: Level, calibration: Calibration | None, layer: int, positions: Sequence[int]
) -> list[list[list[bytes]]]:
    """The rows of one layer: `[K or V][head][token]`, each row as elements."""
    heads = range(stored.header.fixed.kv_heads)
    if level is Level.LOSSLESS:
        return [[lossless.decode_head(stored, layer, part, head, positions) for head in heads] for part in Part]
    if calibration is None:
        parts = [[int8.decode_head(stored, layer, part, head) for head in heads] for part in Part]
    else:
        parts = _decode_groups(stored, level, calibration, layer)
    return [
        [_finished(stored.header, layer, part, rows, positions) for rows in rows_of_heads]
        for part, rows_of_heads in zip(Part, parts)
    ]


def _decode_groups(
    stored: StoredObject, level: Level, calibration: Calibration, layer: int
) -> list[list[list[list[float]]]]:
    """The rows of one layer before RoPE, `[K or V][head][token]`, from streams of base,
    base+1, base+2 or archive."""
    fixed = stored.header.fixed
    parts: list[list[list[list[float]]]] = [[], []]
    for stream in streams_of(fixed, level, layer):
        if stream.part is Part.V and fixed.is_joint(level):
            continue  # no bytes: its rows are in the stream of K
        rows = base.decode_group(stored, calibration, stream)
        for part in Part if fixed.is_joint(level) else (stream.part,):
            dim = heads_of_group(fixed, level, part) * fixed.head_dim(part)
            parts[part] += _heads_of([row[:dim] for row in rows], fixed.head_dim(part))
            rows = [row[dim:] for row in rows]
    return parts


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
