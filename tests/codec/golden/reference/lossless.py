"""The section "lossless"."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .byte_reader import ByteReader
from .errors import DataLoss, require
from .fixed_fields import Level, Part
from .floats import elements_of, values_of
from .header import Header
from .rans import LANES, SYMBOLS, RansDecoder, RansTable
from .rope import angles_between, turn
from .stored_object import StoredObject, StreamId


def decode_head(stored: StoredObject, layer: int, part: Part, head: int, positions: Sequence[int]) -> list[bytes]:
    """The row of each token of one head, as elements of the dtype."""
    fixed = stored.header.fixed
    dim = fixed.head_dim(part)
    reader = stored.reader(StreamId(Level.LOSSLESS, layer, part, head))
    form = reader.value("B")
    if form == 0:
        rows = [reader.take(dim * fixed.dtype.bytes) for _ in range(fixed.tokens)]
    elif form == 1:
        rows = _coded_rows(reader, fixed.tokens, dim, fixed.dtype.bytes)
    else:
        raise DataLoss(f"{reader.what}: form {form}, expected 0 or 1")
    reader.finish()
    if part is Part.V:
        return rows
    return [_at_position(stored.header, layer, token, positions[token], row) for token, row in enumerate(rows)]


def _at_position(header: Header, layer: int, token: int, wanted: int, row: bytes) -> bytes:
    """The paragraph "Positions": a row of K at the wanted position."""
    computed = header.positions[token]
    if wanted == computed:
        return row
    rope, dtype = header.ropes[layer], header.fixed.dtype
    rotary_bytes = rope.rotary_dim * dtype.bytes
    turned = turn(rope, angles_between(rope, computed, wanted), values_of(dtype, row[:rotary_bytes]))
    return elements_of(dtype, turned) + row[rotary_bytes:]


def _coded_rows(reader: ByteReader, tokens: int, dim: int, element_bytes: int) -> list[bytes]:
    """The rows of form 1."""
    side_bytes, first_bytes, second_bytes = reader.values("HII")
    table, offsets = _side_information(reader.take(side_bytes), dim)
    streams = [reader.take(first_bytes)]
    if second_bytes:
        streams.append(reader.take(second_bytes))
    symbols = _symbols(streams, table, tokens * dim)
    rows = []
    for begin in range(0, tokens * dim, dim):
        coded = [(symbol + offset) % 256 for symbol, offset in zip(symbols[begin : begin + dim], offsets)]
        rows.append(_joined(coded, reader.take(dim), reader.take(dim * (element_bytes - 2))))
    return rows


def _side_information(side: bytes, dim: int) -> tuple[RansTable, bytes]:
    """The table and the offset of each dimension."""
    reader = ByteReader(side, "side information of a lossless stream")
    first, more = reader.values("BB")
    require(first + more < SYMBOLS, f"lossless stream: its last symbol is {first + more}, expected at most 255")
    frequencies = [0] * SYMBOLS
    for symbol in range(first, first + more + 1):
        byte = reader.value("B")
        frequencies[symbol] = byte if byte < 128 else (byte - 128) << 8 | reader.value("B")
    offsets = reader.take(reader.left) or bytes(dim)
    require(len(offsets) == dim, f"lossless stream: {len(offsets)} offsets, expected {dim} or none")
    return RansTable(frequencies), offsets


def _symbols(streams: Sequence[bytes], table: RansTable, count: int) -> list[int]:
    """The paragraph "Symbols": the streams have the steps in turn."""
    steps = -(-count // (LANES * len(streams)))
    runs = []
    for stream in streams:
        decoder = RansDecoder(stream)
        runs.append(decoder.run(steps, [table] * LANES))
        decoder.finish()
    symbols: list[int] = []
    for begin in range(0, LANES * steps, LANES):
        for run in runs:
            symbols += run[begin : begin + LANES]
    return symbols[:count]


def _joined(coded: Sequence[int], rest: bytes, lower: bytes) -> bytes:
    """The paragraph "Bits": elements from their coded bits 14 to 7, from their other upper bits, and in
    fp32 from their lower 16 bits."""
    elements = bytearray()
    for d, (symbol, bits) in enumerate(zip(coded, rest)):
        elements += lower[2 * d : 2 * d + 2]
        elements += struct.pack("<H", (bits & 0x80) << 8 | symbol << 7 | bits & 0x7F)
    return bytes(elements)
