"""Calibration files: the section "Calibrations"."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .byte_reader import ByteReader, crc32c
from .errors import require
from .fixed_fields import Part
from .rans import SYMBOLS, RansTable
from .transform import BAND, MODES, STEPS, BandCode, Transform, components_of, heads_coded_together

_SHRINK_MAX = (4, 1, 0)


@dataclass(frozen=True)
class CalibrationFile:
    """A parsed `*.kdncal`. Objects name it by `id`."""

    id: bytes
    fingerprint: bytes
    layers: int
    kv_heads: int
    head_dim: int
    tables: Sequence[RansTable]
    transforms: dict[tuple[int, Part, int], Transform]
    created: int = 0
    """Seconds since 1970; 0 in files of version 1, which do not say."""

    def transform(self, layer: int, part: Part, group: int) -> Transform:
        """The transform of one stream."""
        return self.transforms[layer, part, group]


def parse_calibration(data: bytes) -> CalibrationFile:
    """Parses and checks a calibration file. Does not check whether the columns of *S* are
    linearly independent: only an encoder needs the inverse of *S*."""
    reader = ByteReader(data, "calibration")
    require(reader.take(6) == b"KDNCAL", "calibration: the magic is not KDNCAL")
    version, crc = reader.values("HI")
    require(version in (1, 2), f"calibration: version {version}, expected 1 or 2")
    require(crc == crc32c(data[:8] + data[12:]), "calibration: its CRC is wrong")
    fingerprint = reader.take(32)
    layers, kv_heads, head_dim, table_count = reader.values("iiiI")
    for name, value, largest in (("layers", layers, 1024), ("KV heads", kv_heads, 1024), ("head_dim", head_dim, 256)):
        require(1 <= value <= largest, f"calibration: {name} {value}, expected 1 to {largest}")
    require(table_count <= 256, f"calibration: {table_count} tables, expected at most 256")
    tables = [_table(reader) for _ in range(table_count)]
    group_heads = heads_coded_together(kv_heads, head_dim)
    transforms = {
        (layer, part, group): _transform(reader, group_heads * head_dim, tables)
        for layer in range(layers)
        for part in Part
        for group in range(kv_heads // group_heads)
    }
    info = _information(reader) if version == 2 else {}
    reader.finish()
    created = info.get("created")
    seconds = int.from_bytes(created, "little") if created is not None else 0
    if created is not None:
        require(len(created) == 8 and 1 <= seconds <= 1 << 40, f"calibration: created {created.hex()}")
    return CalibrationFile(
        hashlib.sha256(data).digest(), fingerprint, layers, kv_heads, head_dim, tables, transforms, seconds
    )


def _information(reader: ByteReader) -> dict[str, bytes]:
    """The named entries at the end of a file of version 2."""
    count = reader.value("H")
    require(1 <= count <= 64, f"calibration: {count} entries of information, expected 1 to 64")
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
    """A transform: the second table of "Calibrations"."""
    scale = reader.value("f")
    require(math.isfinite(scale) and scale > 0, f"calibration: a scale of {scale}, expected above 0")
    mean = reader.values(f"{dim}f")
    require(all(map(math.isfinite, mean)), "calibration: a mean is not finite")
    components = components_of(dim)
    synthesis = [reader.values(f"{components}b") for _ in range(dim)]
    bands = [[_band_code(reader, step, tables) for step in range(STEPS)] for _ in range(components // BAND)]
    return Transform(scale, mean, synthesis, bands)


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
