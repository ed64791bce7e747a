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


def with_crc(prefix: bytes) -> bytes:
    """The prefix with its right CRC."""
    return prefix[:12] + struct.pack("<I", prefix_crc(prefix)) + prefix[16:]


def write_object(
    shape: Shape,
    streams: dict[StreamId, bytes],
    ropes: Sequence[RopeDescriptor] = (NO_ROPE,),
    rope_of_layer: bytes = b"",
) -> bytes:
    """A standalone object of version 3."""
    levels = sum(1 << level for level in {stream.level for stream in streams})
    header = struct.pack("<BBBB", shape.dtype, levels, len(ropes), 0)
    header += struct.pack("<iIHHI12x", shape.v_head_dim, 0, 1, 1, 0)
    header += bytes(4 * 32) + b"".join(_descriptor(rope) for rope in ropes) + rope_of_layer + b"nv"
    header += bytes(8 * shape.tokens)  # all token ids and positions are 0
    prefix_bytes = -(-(32 + len(header) + 24 * len(streams)) // 64) * 64
    index, body = _index_and_body(streams, prefix_bytes)
    sizes = struct.pack("<4i", shape.layers, shape.kv_heads, shape.tokens, shape.k_head_dim)
    prefix = struct.pack("<6sHII", b"KDNOBJ", 3, prefix_bytes, 0) + sizes + header + index
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
