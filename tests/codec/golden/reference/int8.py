"""The section "int8"."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import require
from .fixed_fields import Level, Part
from .floats import fp32
from .stored_object import StoredObject, StreamId


def decode_head(stored: StoredObject, layer: int, part: Part, head: int) -> list[list[float]]:
    """The row of each token of one head, before RoPE. K has a scale for each channel, V one
    for each token."""
    fixed = stored.header.fixed
    dim = fixed.head_dim(part)
    reader = stored.reader(StreamId(Level.INT8, layer, part, head))
    scales = reader.values(f"{dim if part is Part.K else fixed.tokens}f")
    require(all(math.isfinite(s) and s > 0 for s in scales), f"{reader.what}: a scale is not finite or not above 0")
    rows = []
    for token in range(fixed.tokens):
        row_scales: Sequence[float] = scales if part is Part.K else [scales[token]] * dim
        rows.append([fp32(code * scale) for code, scale in zip(reader.values(f"{dim}b"), row_scales)])
    reader.finish()
    return rows
