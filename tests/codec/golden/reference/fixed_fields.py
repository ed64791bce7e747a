"""The first 64 bytes of an object."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from .byte_reader import ByteReader, crc32c, is_zero
from .errors import Unimplemented, require
from .floats import Dtype

FIXED_BYTES = 64


class Level(enum.IntEnum):
    """The levels with their numbers: the bits of the field `levels`."""

    LOSSLESS = 0
    INT8 = 1
    BASE = 2
    BASE1 = 3
    BASE2 = 4
    ARCHIVE = 5

    @property
    def text(self) -> str:
        """The name in docs/formats.md."""
        return ("lossless", "int8", "base", "base+1", "base+2", "archive")[self]

    @property
    def is_transform_coded(self) -> bool:
        """Whether streams of this level are those of the section "base, base+1, base+2,
        archive"."""
        return self >= Level.BASE


class Part(enum.IntEnum):
    """The two parts of a layer, in the order of their streams."""

    K = 0
    V = 1


@dataclass(frozen=True)
class FixedFields:
    """The fields of "The first 64 bytes", and those of "Version 2" in their place."""

    version: int
    prefix_bytes: int
    crc: int
    layers: int
    kv_heads: int
    tokens: int
    k_head_dim: int
    v_head_dim: int
    dtype: Dtype
    levels: tuple[Level, ...]
    ropes: int  # the number of RoPE descriptors
    joint_heads: int  # *J*; 0 in versions 2 and 3
    depth: int | None  # None in version 2
    namespace_bytes: int
    variant_bytes: int
    section_bytes: int
    # Pairing, scaling, rotary_dim and original_max_position, which version 2 has here. None
    # in later versions.
    rope: tuple[int, int, int, int] | None

    def head_dim(self, part: Part) -> int:
        """*D* of the streams of a part."""
        return self.k_head_dim if part is Part.K else self.v_head_dim

    def is_joint(self, level: Level) -> bool:
        """Whether K and V share the streams of this level."""
        return self.version == 4 and level.is_transform_coded


def prefix_crc(prefix: bytes) -> int:
    """The CRC of a prefix, without the four bytes that hold the CRC."""
    return crc32c(prefix[:12] + prefix[16:])


def parse_fixed_fields(data: bytes) -> FixedFields:
    """Parses and checks "The first 64 bytes" of an object of version 2, 3 or 4."""
    reader = ByteReader(data[:FIXED_BYTES], "the first 64 bytes of the object")
    require(reader.take(6) == b"KDNOBJ", "object: the magic is not KDNOBJ")
    version, prefix_bytes, crc = reader.values("HII")
    if version not in (2, 3, 4):
        require(crc == prefix_crc(data[:prefix_bytes]), f"object: version {version}, and its CRC is wrong")
        raise Unimplemented(f"object: version {version}, expected 2 to 4")
    layers, kv_heads, tokens, k_head_dim, dtype, mask = reader.values("4iBB")
    require(dtype in list(Dtype), f"object: dtype {dtype}, expected 0 to 2")
    rest = _fields_of_version_2(reader, k_head_dim) if version == 2 else _fields_of_later_versions(reader)
    require(is_zero(reader.take(reader.left)), "object: a reserved byte is not zero")
    fields = FixedFields(
        version=version,
        prefix_bytes=prefix_bytes,
        crc=crc,
        layers=layers,
        kv_heads=kv_heads,
        tokens=tokens,
        k_head_dim=k_head_dim,
        dtype=Dtype(dtype),
        levels=_levels_of(mask, version),
        **rest,
    )
    _check_bounds(fields)
    return fields


def _fields_of_later_versions(reader: ByteReader) -> dict[str, Any]:
    """The fields from offset 34 on, in versions 3 and 4."""
    ropes, joint_heads, v_head_dim, depth, namespace_bytes, variant_bytes, section_bytes = reader.values("BBiIHHI")
    return {
        "ropes": ropes,
        "joint_heads": joint_heads,
        "v_head_dim": v_head_dim,
        "depth": depth,
        "namespace_bytes": namespace_bytes,
        "variant_bytes": variant_bytes,
        "section_bytes": section_bytes,
        "rope": None,
    }


def _fields_of_version_2(reader: ByteReader, head_dim: int) -> dict[str, Any]:
    """The fields from offset 34 on: the table of "Version 2"."""
    pairing, scaling, rotary_dim, original_max_position, namespace_bytes, variant_bytes = reader.values("BBiiHH")
    return {
        "ropes": 1,
        "joint_heads": 0,
        "v_head_dim": head_dim,
        "depth": None,
        "namespace_bytes": namespace_bytes,
        "variant_bytes": variant_bytes,
        "section_bytes": 0,
        "rope": (pairing, scaling, rotary_dim, original_max_position),
    }


def _levels_of(mask: int, version: int) -> tuple[Level, ...]:
    """The levels of the field at offset 33, in ascending order."""
    levels = tuple(level for level in Level if mask >> level & 1)
    require(bool(levels) and mask >> len(Level) == 0, f"object: level bits {mask:#x}, expected 1 to 0x3f")
    require(Level.BASE1 in levels or Level.BASE2 not in levels, "object: base+2 without base+1")
    require(Level.BASE in levels or Level.BASE1 not in levels, "object: base+1 without base")
    require(version == 4 or Level.ARCHIVE not in levels, f"object: archive in version {version}")
    require(
        version != 4 or any(level in levels for level in (Level.BASE, Level.ARCHIVE)),
        "object: version 4 without base and archive",
    )
    return levels


def _check_bounds(fields: FixedFields) -> None:
    """The column "bounds" of "The first 64 bytes"."""
    dim_max = 256 if any(level.is_transform_coded for level in fields.levels) else 4096
    for name, value, largest in (
        ("layers", fields.layers, 1024),
        ("KV heads", fields.kv_heads, 1024),
        ("tokens", fields.tokens, 4096),
        ("head_dim of K", fields.k_head_dim, dim_max),
        ("head_dim of V", fields.v_head_dim, dim_max),
        ("RoPE descriptors", fields.ropes, fields.layers),
        ("bytes of the namespace", fields.namespace_bytes, 128),
        ("bytes of the variant's name", fields.variant_bytes, 128),
    ):
        require(1 <= value <= largest, f"object: {name} = {value}, expected 1 to {largest}")
    require(fields.section_bytes <= 1 << 20, f"object: {fields.section_bytes} bytes of sections, expected at most 2^20")
    if fields.version == 4:
        check_joint_heads("object", fields.joint_heads, fields.kv_heads, fields.k_head_dim + fields.v_head_dim)
    else:
        require(fields.joint_heads == 0, "object: a reserved byte is not zero")


def check_joint_heads(what: str, joint_heads: int, kv_heads: int, head_dims: int) -> None:
    """The bounds of *J*. `head_dims` is the sum of both head_dims."""
    require(
        joint_heads >= 1 and kv_heads % joint_heads == 0,
        f"{what}: {joint_heads} heads share a stream, expected a divisor of {kv_heads}",
    )
    dim = joint_heads * head_dims
    require(dim <= 512, f"{what}: {joint_heads} heads share a stream of {dim} dimensions, expected at most 512")
