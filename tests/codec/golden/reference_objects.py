"""Writes objects for the tests of reference/ that no golden file shows."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from reference.byte_reader import crc32c
from reference.fixed_fields import prefix_crc
from reference.floats import Dtype
from reference.rans import LANES, RansTable
from reference.rope import RopeDescriptor
from reference.stored_object import StreamId

NO_ROPE = RopeDescriptor(0, 0, 0, 0, 10000.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Shape:
    """The fields of a written object that the tests vary."""

    layers: int
    kv_heads: int
    tokens: int
    k_head_dim: int
    v_head_dim: int
    dtype: Dtype
    joint_heads: int = 0  # above 0: an object of version 4


def with_crc(prefix: bytes) -> bytes:
    """The prefix with its right CRC."""
    return prefix[:12] + struct.pack("<I", prefix_crc(prefix)) + prefix[16:]


def write_object(
    shape: Shape,
    streams: dict[StreamId, bytes],
    ropes: Sequence[RopeDescriptor] = (NO_ROPE,),
    rope_of_layer: bytes = b"",
    calibration: bytes = bytes(32),
) -> bytes:
    """A standalone object of version 3 or 4. `calibration` is the id of its calibration."""
    levels = sum(1 << level for level in {stream.level for stream in streams})
    header = struct.pack("<BBBB", shape.dtype, levels, len(ropes), shape.joint_heads)
    header += struct.pack("<iIHHI12x", shape.v_head_dim, 0, 1, 1, 0)
    header += bytes(3 * 32) + calibration + b"".join(_descriptor(rope) for rope in ropes) + rope_of_layer + b"nv"
    header += bytes(8 * shape.tokens)  # all token ids and positions are 0
    prefix_bytes = -(-(32 + len(header) + 24 * len(streams)) // 64) * 64
    index, body = _index_and_body(streams, prefix_bytes)
    sizes = struct.pack("<4i", shape.layers, shape.kv_heads, shape.tokens, shape.k_head_dim)
    prefix = struct.pack("<6sHII", b"KDNOBJ", 4 if shape.joint_heads else 3, prefix_bytes, 0) + sizes + header + index
    return with_crc(prefix.ljust(prefix_bytes, b"\0")) + body


def _descriptor(rope: RopeDescriptor) -> bytes:
    integers = struct.pack("<BBHii", rope.pairing, rope.scaling, 0, rope.rotary_dim, rope.original_max_position)
    return integers + struct.pack(
        "<7d", rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
        rope.beta_fast, rope.beta_slow, rope.attention_factor,
    )  # fmt: skip


def _index_and_body(streams: dict[StreamId, bytes], begin: int) -> tuple[bytes, bytes]:
    """The index entries and the streams. `begin` is the offset of the first stream."""
    entries, body, group = {}, b"", None
    for stream in sorted(streams, key=lambda id: (id.layer, id)):
        if (stream.layer, stream.level) != group:
            body += bytes(-len(body) % 64)
        group = (stream.layer, stream.level)
        data = streams[stream]
        entries[stream] = struct.pack("<QIIff", begin + len(body), len(data), crc32c(data), 0, 0)
        body += data
    return b"".join(entries[stream] for stream in sorted(entries)), body


@dataclass(frozen=True)
class JointCalibration:
    """The fields of a written calibration of version 3 that the tests vary. It is for one
    layer and two heads of 8 dimensions. *S* has `diagonal` on its diagonal, and zeros in all
    other places; every mean is 1."""

    joint_heads: int = 1
    exponents: Sequence[int] = (0, 2)
    scales: Sequence[float] = (1.0, 0.5)
    wide_bands: int = 1
    diagonal: int = 2
    mode: int = 2
    shrinks: Sequence[int] = (1, 0, 0)
    for_encoders: float = 0.5
    information: bytes = b"\0\0"


PAIR_TABLE = RansTable([4096 - 255 if symbol == 136 else 1 for symbol in range(256)])
"""Takes few bits for symbols of zeros."""


def write_calibration(fields: JointCalibration) -> bytes:
    """A calibration of version 3 with PAIR_TABLE as its only table."""
    dim = 16 * fields.joint_heads
    bands = -(-dim // 16) + fields.wide_bands
    transform = struct.pack(f"<{len(fields.scales)}f{dim}f", *fields.scales, *[1.0] * dim)
    for d in range(dim):
        transform += bytes(fields.diagonal if c == d else 0 for c in range(-(-dim // 16) * 16))
    band = b"".join(bytes([fields.mode, 0, 0, shrink]) for shrink in fields.shrinks)
    transform += bytes([fields.wide_bands]) + band * bands * len(fields.exponents)
    transform += struct.pack(f"<{2 * dim + 1}f", *[fields.for_encoders] * (2 * dim + 1))
    table = struct.pack("<H", 256) + b"".join(struct.pack("<BH", s, f) for s, f in enumerate(PAIR_TABLE.frequencies))
    body = bytes(32) + struct.pack("<iiiI", 1, 2, 8, 1)
    body += struct.pack(f"<BB{len(fields.exponents)}b", fields.joint_heads, len(fields.exponents), *fields.exponents)
    body += table + transform * (2 // max(1, fields.joint_heads)) + fields.information
    head = b"KDNCAL" + struct.pack("<H", 3)
    return head + struct.pack("<I", crc32c(head + body)) + body


def rans_stream(symbol: int, steps: int, table: RansTable) -> bytes:
    """A rANS stream in which every symbol is `symbol`."""
    frequency, start = table.frequencies[symbol], table.starts[symbol]
    states = [1 << 16] * LANES
    words = []
    for _ in range(steps):
        for lane in reversed(range(LANES)):
            if states[lane] >= frequency << 20:
                words.append(states[lane] & 0xFFFF)
                states[lane] >>= 16
            states[lane] = (states[lane] // frequency << 12) + states[lane] % frequency + start
    return struct.pack(f"<{LANES}I{len(words)}H", *states, *reversed(words))
