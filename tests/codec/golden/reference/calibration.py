"""Calibration files: the section "Calibrations"."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .byte_reader import ByteReader, crc32c
from .errors import require
from .fixed_fields import Part, check_joint_heads
from .rans import SYMBOLS, RansTable
from .transform import BAND, MODES, STEPS, BandCode, TokenClass, Transform, components_of, heads_coded_together

_SHRINK_MAX = (4, 1, 0)


@dataclass(frozen=True)
class CalibrationFile:
    """A parsed `*.kdncal`. Objects name it by `id`."""

    id: bytes
    fingerprint: bytes
    layers: int
    kv_heads: int
    head_dim: int
    joint_heads: int  # *J*; 0 in versions 1 and 2
    tables: Sequence[RansTable]
    transforms: dict[tuple[int, Part, int], Transform]
    created: int = 0
    """Seconds since 1970; 0 in files of version 1, which do not say."""

    def transform(self, layer: int, part: Part, group: int) -> Transform:
        """The transform of one stream. A joint stream is one of K."""
        return self.transforms[layer, part, group]


def parse_calibration(data: bytes) -> CalibrationFile:
    """Parses and checks a calibration file. Does not check whether the columns of *S* are
    linearly independent: only an encoder needs the inverse of *S*."""
    reader = ByteReader(data, "calibration")
    require(reader.take(6) == b"KDNCAL", "calibration: the magic is not KDNCAL")
    version, crc = reader.values("HI")
    require(version in (1, 2, 3), f"calibration: version {version}, expected 1 to 3")
    require(crc == crc32c(data[:8] + data[12:]), "calibration: its CRC is wrong")
    fingerprint = reader.take(32)
    layers, kv_heads, head_dim, table_count = reader.values("iiiI")
    for name, value, largest in (("layers", layers, 1024), ("KV heads", kv_heads, 1024), ("head_dim", head_dim, 256)):
        require(1 <= value <= largest, f"calibration: {name} {value}, expected 1 to {largest}")
    require(table_count <= 256, f"calibration: {table_count} tables, expected at most 256")
    joint_heads, exponents = _joint_fields(reader, kv_heads, head_dim) if version == 3 else (0, (0,))
    tables = [_table(reader) for _ in range(table_count)]
    group_heads = joint_heads or heads_coded_together(kv_heads, head_dim)
    transforms = {
        (layer, part, group): (
            _joint_transform(reader, joint_heads, head_dim, exponents, tables)
            if joint_heads
            else _transform(reader, group_heads * head_dim, tables)
        )
        for layer in range(layers)
        for part in ((Part.K,) if joint_heads else Part)
        for group in range(kv_heads // group_heads)
    }
    info = _information(reader, version) if version >= 2 else {}
    reader.finish()
    created = info.get("created")
    seconds = int.from_bytes(created, "little") if created is not None else 0
    if created is not None:
        require(len(created) == 8 and 1 <= seconds <= 1 << 40, f"calibration: created {created.hex()}")
    return CalibrationFile(
        hashlib.sha256(data).digest(), fingerprint, layers, kv_heads, head_dim, joint_heads, tables, transforms, seconds
    )


def _joint_fields(reader: ByteReader, kv_heads: int, head_dim: int) -> tuple[int, tuple[int, ...]]:
    """*J* and the exponents of the token classes, which version 3 has before the tables."""
    joint_heads, classes = reader.values("BB")
    check_joint_heads("calibration", joint_heads, kv_heads, 2 * head_dim)
    require(2 <= classes <= 8, f"calibration: {classes} token classes, expected 2 to 8")
    exponents = reader.values(f"{classes}b")
    require(
        sorted(set(exponents)) == list(exponents) and min(exponents) >= -8 and max(exponents) <= 8,
        f"calibration: classes with the exponents {exponents}, expected rising numbers from -8 to 8",
    )
    return joint_heads, exponents


def _information(reader: ByteReader, version: int) -> dict[str, bytes]:
    """The named entries at the end of a file of version 2 or 3."""
    count = reader.value("H")
    least = 1 if version == 2 else 0
    require(least <= count <= 64, f"calibration: {count} entries of information, expected {least} to 64")
    entries: dict[str, bytes] = {}
    for _ in range(count):
        name = reader.take(reader.value("B")).decode("ascii", "replace")
        require(re.fullmatch(r"[a-z0-9._-]{1,64}", name) is not None, f"calibration: an entry named {name!r}")
        require(all(name > other for other in entries), f"calibration: entry {name!r} is out of order")
        size = reader.value("I")
        require(size <= 4096, f"calibration: entry {name!r} has {size} bytes, expected at most 4096")
        entries[name] = reader.take(size)
    return entries


def _table(reader: ByteReader) -> RansTable:
    """A table: its symbols in ascending order, with their frequencies."""
    frequencies = [0] * SYMBOLS
    last = -1
    for _ in range(reader.value("H")):
        symbol, frequency = reader.values("BH")
        require(symbol > last and frequency > 0, f"calibration: symbol {symbol} of a table, after {last}")
        frequencies[symbol] = frequency
        last = symbol
    return RansTable(frequencies)


def _transform(reader: ByteReader, dim: int, tables: Sequence[RansTable]) -> Transform:
    """A transform of versions 1 and 2: the second table of "Calibrations"."""
    scales, mean, synthesis = _matrix(reader, 1, dim)
    return Transform(scales, mean, synthesis, [TokenClass(0, _bands(reader, components_of(dim) // BAND, tables))])


def _joint_transform(
    reader: ByteReader, joint_heads: int, head_dim: int, exponents: Sequence[int], tables: Sequence[RansTable]
) -> Transform:
    """A transform of version 3. The fields for encoders are checked and dropped."""
    dim = 2 * joint_heads * head_dim
    scales, mean, synthesis = _matrix(reader, 2 * joint_heads, dim)
    bands = components_of(dim) // BAND
    wide_bands = reader.value("B")
    require(wide_bands <= bands, f"calibration: {wide_bands} wide bands, expected at most {bands}")
    classes = [TokenClass(exponent, _bands(reader, bands + wide_bands, tables)) for exponent in exponents]
    for_encoders = reader.values(f"{2 * dim + 1}f")
    require(all(map(math.isfinite, for_encoders)), "calibration: a number for encoders is not finite")
    return Transform(scales, mean, synthesis, classes, wide_bands)


def _matrix(
    reader: ByteReader, scale_count: int, dim: int
) -> tuple[Sequence[float], Sequence[float], Sequence[Sequence[int]]]:
    """The fields with which a transform begins: scales, mean and *S*."""
    scales = reader.values(f"{scale_count}f")
    require(
        all(math.isfinite(scale) and scale > 0 for scale in scales),
        f"calibration: the scales {scales}, expected numbers above 0",
    )
    mean = reader.values(f"{dim}f")
    require(all(map(math.isfinite, mean)), "calibration: a mean is not finite")
    return scales, mean, [reader.values(f"{components_of(dim)}b") for _ in range(dim)]


def _bands(reader: ByteReader, count: int, tables: Sequence[RansTable]) -> list[list[BandCode]]:
    """The band codes of one class: `[band][step]`."""
    return [[_band_code(reader, step, tables) for step in range(STEPS)] for _ in range(count)]


def _band_code(reader: ByteReader, step: int, tables: Sequence[RansTable]) -> BandCode:
    """How one level codes one band: the last row of the table of transforms."""
    code = BandCode(*reader.values("BBBB"))
    require(code.shrink <= _SHRINK_MAX[step], f"calibration: a shrink of {code.shrink}")
    require(code.mode == 0 or code.mode in MODES, f"calibration: mode {code.mode}, expected 0 to 3")
    if code.mode:
        for number in (code.first_table, code.second_table):
            require(number < len(tables), f"calibration: table {number} of {len(tables)}")
            zeros = MODES[code.mode].symbol_for_zeros
            require(tables[number].frequencies[zeros] > 0, f"calibration: table {number} lacks the symbol for zeros")
    return code
