"""An object: its header, its index and its streams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .byte_reader import ByteReader, crc32c, is_zero
from .errors import Unimplemented, require
from .fixed_fields import FIXED_BYTES, FixedFields, Level, Part, parse_fixed_fields, prefix_crc
from .header import Header, header_bytes, parse_header
from .transform import heads_coded_together

_ENTRY_BYTES = 24


class StreamId(NamedTuple):
    """What a stream holds. Sorted ids are in the order of the index entries."""

    level: Level
    layer: int
    part: Part
    group: int

    def __str__(self) -> str:
        return f"stream of {self.level.text}, layer {self.layer}, {self.part.name}, group {self.group}"


class IndexEntry(NamedTuple):
    """The fields of "An index entry"."""

    offset: int
    bytes: int
    crc: int
    largest_error: float
    rms_error: float


@dataclass(frozen=True)
class StoredObject:
    """A whole object whose bytes have been checked."""

    header: Header
    index: dict[StreamId, IndexEntry]
    data: bytes

    def reader(self, stream: StreamId) -> ByteReader:
        """Reads a stream from its first byte."""
        entry = self.index[stream]
        return ByteReader(self.data[entry.offset : entry.offset + entry.bytes], str(stream))


def heads_of_group(fixed: FixedFields, level: Level, part: Part) -> int:
    """*G* of "Streams": the KV heads of a head group."""
    if not level.is_transform_coded:
        return 1
    return fixed.joint_heads or heads_coded_together(fixed.kv_heads, fixed.head_dim(part))


def streams_of(fixed: FixedFields, level: Level, layer: int) -> Iterator[StreamId]:
    """The streams of one (layer, level), in their order."""
    for part in Part:
        for group in range(fixed.kv_heads // heads_of_group(fixed, level, part)):
            yield StreamId(level, layer, part, group)


def parse_object(data: bytes) -> StoredObject:
    """Parses a whole object. Checks what "What a reader checks" lists, in that order."""
    fixed = parse_fixed_fields(data)
    reader = ByteReader(_checked_prefix(fixed, data), "prefix of the object")
    reader.take(FIXED_BYTES)
    header = parse_header(fixed, reader)
    index = {stream: _index_entry(stream, reader) for stream in sorted(_all_streams(fixed))}
    critical = _critical_sections(reader.take(fixed.section_bytes))
    require(is_zero(reader.take(reader.left)), "object: the padding of the prefix is not zero")
    if critical:
        raise Unimplemented(f"object: section {critical[0]} is critical, and this reader does not know it")
    _check_streams(fixed, index, data)
    return StoredObject(header, index, data)


def _all_streams(fixed: FixedFields) -> Iterator[StreamId]:
    """All streams in the order in which they lie in the object."""
    for layer in range(fixed.layers):
        for level in fixed.levels:
            yield from streams_of(fixed, level, layer)


def _checked_prefix(fixed: FixedFields, data: bytes) -> bytes:
    """The prefix, after its length and its CRC are checked."""
    one_layer = sum(1 for level in fixed.levels for _ in streams_of(fixed, level, 0))
    used = header_bytes(fixed) + _ENTRY_BYTES * fixed.layers * one_layer + fixed.section_bytes
    expected = _aligned(used)
    require(fixed.prefix_bytes == expected, f"object: a prefix of {fixed.prefix_bytes} bytes, expected {expected}")
    require(len(data) >= expected, f"object: {len(data)} bytes, less than its prefix of {expected}")
    prefix = data[:expected]
    require(prefix_crc(prefix) == fixed.crc, "object: the CRC of the prefix is wrong")
    return prefix


def _aligned(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // 64) * 64


def _index_entry(stream: StreamId, reader: ByteReader) -> IndexEntry:
    """One index entry and the rules of its errors."""
    entry = IndexEntry(*reader.values("QIIff"))
    for error in (entry.largest_error, entry.rms_error):
        require(math.isfinite(error) and error >= 0, f"{stream}: an error of {error}, expected at least 0")
        require(stream.level is not Level.LOSSLESS or error == 0, f"{stream}: an error of {error}, expected 0")
    return entry


def _critical_sections(sections: bytes) -> list[int]:
    """Checks the sections. Returns the ids of the critical ones."""
    reader = ByteReader(sections, "sections of the object")
    critical = []
    last = 0
    while reader.left:
        section, flags, size, crc = reader.values("HHII")
        require(section > last, f"object: section {section} after section {last}")
        require(flags in (0, 1), f"object: section {section} has flags {flags:#x}")
        require(crc32c(reader.take(size)) == crc, f"object: the CRC of section {section} is wrong")
        if flags == 1:
            critical.append(section)
        last = section
    return critical


def _check_streams(fixed: FixedFields, index: dict[StreamId, IndexEntry], data: bytes) -> None:
    """Checks the place, the length and the CRC of every stream, and the gaps between them."""
    end = fixed.prefix_bytes
    group = None
    for stream in _all_streams(fixed):
        entry = index[stream]
        begin = end if (stream.layer, stream.level) == group else _aligned(end)
        group = (stream.layer, stream.level)
        require(entry.offset == begin, f"{stream}: at offset {entry.offset}, expected {begin}")
        lengths = _possible_lengths(fixed, stream)
        require(
            entry.bytes in lengths,
            f"{stream}: {entry.bytes} bytes, expected {lengths.start} to {lengths.stop - 1}",
        )
        require(is_zero(data[end:begin]), f"{stream}: the gap before it is not zero")
        end = begin + entry.bytes
        require(crc32c(data[begin:end]) == entry.crc, f"{stream}: its CRC is wrong")
    require(end == len(data), f"object: {len(data)} bytes, expected {end}")


def _possible_lengths(fixed: FixedFields, stream: StreamId) -> range:
    """The table of lengths in "Streams"."""
    dim = fixed.head_dim(stream.part)
    if fixed.is_joint(stream.level):
        if stream.part is Part.V:
            return range(1)
        dim *= 2
    n = heads_of_group(fixed, stream.level, stream.part) * fixed.tokens * dim
    if stream.level is Level.LOSSLESS:
        return range(n * (fixed.dtype.bytes - 1) + 1, n * fixed.dtype.bytes + 2)
    if stream.level is Level.INT8:
        scales = dim if stream.part is Part.K else fixed.tokens
        return range(4 * scales + n, 4 * scales + n + 1)
    refines = stream.level in (Level.BASE1, Level.BASE2)
    return range(1, 256 + n // 2 + 1 if refines else 2 * n + 2)
