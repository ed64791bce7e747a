#!/usr/bin/env python3
"""Tests of reference/ beyond the golden digests: what it refuses, and objects that KDN
stores but does not encode."""

from __future__ import annotations

import math
import struct
import unittest
from collections.abc import Sequence
from pathlib import Path

import reference
from reference import Level, Part, StreamId
from reference.built_in import built_in_tables
from reference.byte_reader import crc32c
from reference.floats import Dtype, elements_of, fp32, values_of
from reference.portable_math import cos_sin, log, power
from reference.rans import LANES, RansDecoder, RansTable
from reference.rope import RopeDescriptor, frequencies
from reference.stored_object import StoredObject
from reference.transform_stream import read_base_fields, read_form, read_patches, read_symbols
from reference_objects import (
    PAIR_TABLE,
    JointCalibration,
    Shape,
    rans_stream,
    with_crc,
    write_calibration,
    write_object,
)

FOLDER = Path(__file__).parent


def golden(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def one_patch(dim: int) -> bytes:
    """A stream of base for eight tokens: mean 1, gain 2, and component 0 of token 7 is 1."""
    mean = struct.pack("<f", 2.0) + b"\x80\x3f" * dim
    patches = struct.pack("<IHBb", 1, 7, 0, 1)
    symbols = rans_stream(136, 2 * dim // 16, RansTable(built_in_tables()[0]))
    return b"\0" + mean + b"\0\0" + patches + symbols


ID = bytes([1] * 32)
"""The id of a calibration that no test decodes with."""


def joint_stream(first: int, classes: bytes, patches: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """A stream of archive for nine tokens and JointCalibration(), in which all symbols are
    zeros. `classes` has the classes of the tokens, less the first class."""
    of_first = sum((classes[token // 4] >> 2 * (token % 4)) % 4 == 0 for token in range(9))
    coded_tokens = sum(-(-tokens // 8) * 8 for tokens in (of_first, 9 - of_first))
    steps = 2 * coded_tokens * 8 // LANES  # of two bands
    fields = b"\0\0\0" + bytes([first]) + classes + struct.pack("<I", len(patches))
    fields += b"".join(struct.pack("<HBb", *patch) for patch in patches)
    return fields + rans_stream(136, steps, PAIR_TABLE)


def decode_joint(calibration: reference.CalibrationFile, stream: bytes) -> dict[tuple[int, int], float]:
    """The values of head 1 that differ from those of head 0, whose stream has zeros only: by
    token and dimension, in which V follows K."""
    shape = Shape(1, 2, 9, 8, 8, Dtype.FP32, joint_heads=1)
    zeros = joint_stream(0, bytes(3))
    streams = {StreamId(Level.ARCHIVE, 0, Part.K, group): (zeros, stream)[group] for group in (0, 1)}
    streams |= {StreamId(Level.ARCHIVE, 0, Part.V, group): b"" for group in (0, 1)}
    stored = reference.parse_object(write_object(shape, streams, calibration=calibration.id))
    decoded = values_of(Dtype.FP32, reference.decode(stored, Level.ARCHIVE, [0] * 9, [calibration]))
    return {
        (token, 8 * part + dim): decoded[(part * 9 + token) * 16 + 8 + dim]
        for part in Part
        for token in range(9)
        for dim in range(8)
    }


def edited(data: bytes, offset: int, new: bytes) -> bytes:
    """The object with other bytes in its prefix, and the right CRC."""
    size = struct.unpack_from("<I", data, 8)[0]
    prefix = data[:offset] + new + data[offset + len(new) : size]
    return with_crc(prefix) + data[size:]


class WhatTheDocumentStates(unittest.TestCase):
    def test_crcs(self) -> None:
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        tables = b"".join(struct.pack("<256H", *table) for table in built_in_tables())
        self.assertEqual(crc32c(tables), 0xD5DE6995)

    def test_the_functions_have_the_bits_of_kv_portable_math(self) -> None:
        # tests/kv/portable_math_test.cc has the same numbers.
        self.assertEqual([x.hex() for x in cos_sin(1.0)], ["0x1.14a280fb5068cp-1", "0x1.aed548f090ceep-1"])
        self.assertEqual([x.hex() for x in cos_sin(-123456.789)], ["0x1.a74d27c41b22ap-5", "0x1.ff50e60ab53f9p-1"])
        self.assertEqual(log(500000.0).hex(), "0x1.a3ea669a05c01p+3")
        self.assertEqual(power(500000.0, 0.609375).hex(), "0x1.734baf9e675c3p+11")

    def test_rounding_is_to_nearest_with_ties_to_even(self) -> None:
        for dtype, value, expected in (
            (Dtype.BF16, 1 + 2**-8, 1.0),
            (Dtype.BF16, 1 + 3 * 2**-8, 1 + 2**-6),
            (Dtype.FP16, 1 + 2**-11, 1.0),
            (Dtype.BF16, fp32(3.4e38), math.inf),
            (Dtype.FP16, -65520.0, -math.inf),
        ):
            self.assertEqual(values_of(dtype, elements_of(dtype, [value])), [expected])
        for dtype in Dtype:
            self.assertTrue(math.isnan(values_of(dtype, elements_of(dtype, [math.nan]))[0]))

    def test_yarn_with_a_ramp_of_no_width(self) -> None:
        rope = RopeDescriptor(0, 3, 4, 6, 10000.0, 4.0, 0.0, 0.0, 1.0, 1.0, 1.0)
        self.assertEqual(frequencies(rope), [1.0, fp32(0.01 / 4)])


class Refusals(unittest.TestCase):
    def assert_refused(self, data: bytes, text: str, error: type[Exception] = reference.DataLoss) -> None:
        with self.assertRaisesRegex(error, text):
            reference.parse_object(data)

    def test_a_damaged_byte_anywhere(self) -> None:
        for version in (2, 3, 4):
            data = golden(f"{version}/few-tokens.kdnobj")
            for at in range(len(data)):
                damaged = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
                with self.subTest(version=version, at=at):
                    self.assert_refused(damaged, "")

    def test_an_object_that_is_cut_or_too_long(self) -> None:
        data = golden("3/few-tokens.kdnobj")
        for size in range(len(data)):
            self.assert_refused(data[:size], "")
        self.assert_refused(data + b"\0", "expected 1410")

    def test_fields_of_the_prefix(self) -> None:
        data = golden("3/few-tokens.kdnobj")
        positions = 64 + 128 + 68 + sum(struct.unpack_from("<HH", data, 44)) + 4 * 3
        for offset, new, text in (
            (8, struct.pack("<I", 64), "a prefix of 64 bytes, expected"),
            (24, struct.pack("<i", 4097), "tokens = 4097, expected 1 to 4096"),
            (28, struct.pack("<i", 257), "head_dim of K = 257, expected 1 to 256"),
            (32, b"\3", "dtype 3, expected 0 to 2"),
            (33, b"\x14", r"base\+2 without base\+1"),
            (33, b"\x40", "level bits 0x40"),
            (33, b"\x20", "archive in version 3"),
            (34, b"\2", "RoPE descriptors = 2, expected 1 to 1"),
            (35, b"\1", "a reserved byte is not zero"),
            (40, b"\1", "depth 1 without a condition"),
            (192, b"\2", "pairing 2, expected 0 or 1"),
            (204, struct.pack("<d", 1.0), "theta 1.0, expected above 1"),
            (260, b" ", "name b' "),
            (positions, struct.pack("<i", -1), "position -1, expected at least 0"),
        ):
            with self.subTest(text):
                self.assert_refused(edited(data, offset, new), text)

    def test_an_unknown_version(self) -> None:
        data = golden("3/few-tokens.kdnobj")
        self.assert_refused(edited(data, 6, b"\5\0"), "version 5, expected 2 to 4", reference.Unimplemented)

    def test_fields_of_the_prefix_of_joint_streams(self) -> None:
        data = golden("4/few-tokens.kdnobj")
        for offset, new, text in (
            (33, b"\x03", "version 4 without base and archive"),
            (33, b"\x3d", "a prefix of"),
            (28, struct.pack("<i", 257), "head_dim of K = 257, expected 1 to 256"),
            (35, b"\0", "0 heads share a stream, expected a divisor of 2"),
            (35, b"\3", "3 heads share a stream, expected a divisor of 2"),
            (160, bytes(32), "version 4 without a calibration"),
        ):
            with self.subTest(text):
                self.assert_refused(edited(data, offset, new), text)
        many = edited(edited(data, 28, struct.pack("<i", 256)), 36, struct.pack("<i", 256))
        self.assert_refused(edited(many, 35, b"\2"), "2 heads share a stream of 1024 dimensions, expected at most 512")
        self.assert_refused(edited(golden("2/few-tokens.kdnobj"), 33, b"\x20"), "archive in version 2")

    def test_a_joint_stream_of_v_that_is_not_empty(self) -> None:
        shape = Shape(1, 1, 1, 8, 8, Dtype.BF16, joint_heads=1)
        for level in (Level.BASE, Level.ARCHIVE):
            k, v = (StreamId(level, 0, part, 0) for part in Part)
            rows = b"\1" + bytes(32)
            self.assertIn(k, reference.parse_object(write_object(shape, {k: rows, v: b""}, calibration=ID)).index)
            for stream in (b"\1", b"\2", rows):
                text = f"V, group 0: {len(stream)} bytes, expected 0 to 0"
                self.assert_refused(write_object(shape, {k: rows, v: stream}, calibration=ID), text)
            self.assert_refused(write_object(shape, {k: b"", v: b""}, calibration=ID), "0 bytes, expected 1 to 33")

    def test_a_token_of_a_class_that_the_calibration_lacks(self) -> None:
        calibration = reference.parse_calibration(write_calibration(JointCalibration()))
        for first, classes in ((2, bytes(3)), (1, b"\0\0\1"), (0, b"\0\2\0"), (255, bytes(3))):
            with self.assertRaisesRegex(reference.DataLoss, "a token of class"):
                decode_joint(calibration, joint_stream(first, classes))
        # Bits after the last of the nine tokens.
        decode_joint(calibration, joint_stream(0, b"\0\0\xfc"))

    def test_patches_of_joint_streams(self) -> None:
        calibration = reference.parse_calibration(write_calibration(JointCalibration()))
        for patch in ((9, 0, 1), (0, 32, 1)):
            with self.assertRaisesRegex(reference.DataLoss, "a patch of token"):
                decode_joint(calibration, joint_stream(0, bytes(3), [patch]))
        decode_joint(calibration, joint_stream(0, bytes(3), [(8, 31, 1)]))

    def test_the_calibration_of_other_joint_streams(self) -> None:
        calibration = reference.parse_calibration(
            write_calibration(JointCalibration(joint_heads=2, scales=(1.0, 1.0, 1.0, 1.0)))
        )
        with self.assertRaisesRegex(reference.DataLoss, "its calibration has other layers, KV heads, head_dim or J"):
            decode_joint(calibration, joint_stream(0, bytes(3)))

    def test_bounds_of_a_calibration_of_joint_streams(self) -> None:
        infinity = math.inf
        for fields, text in (
            (JointCalibration(joint_heads=0), "0 heads share a stream, expected a divisor of 2"),
            (JointCalibration(joint_heads=3), "3 heads share a stream, expected a divisor of 2"),
            (JointCalibration(exponents=(0,)), "1 token classes, expected 2 to 8"),
            (JointCalibration(exponents=range(9)), "9 token classes, expected 2 to 8"),
            (JointCalibration(exponents=(1, 1)), "expected rising numbers"),
            (JointCalibration(exponents=(2, 1)), "expected rising numbers"),
            (JointCalibration(exponents=(-9, 0)), "expected rising numbers from -8 to 8"),
            (JointCalibration(exponents=(0, 9)), "expected rising numbers from -8 to 8"),
            (JointCalibration(scales=(1.0, 0.0)), "expected numbers above 0"),
            (JointCalibration(scales=(infinity, 1.0)), "expected numbers above 0"),
            (JointCalibration(wide_bands=2), "2 wide bands, expected at most 1"),
            (JointCalibration(mode=4), "mode 4, expected 0 to 3"),
            (JointCalibration(shrinks=(5, 0, 0)), "a shrink of 5"),
            (JointCalibration(shrinks=(4, 2, 0)), "a shrink of 2"),
            (JointCalibration(for_encoders=infinity), "a number for encoders is not finite"),
            (JointCalibration(information=b"\x41\0"), "65 entries of information, expected 0 to 64"),
            (JointCalibration(information=b""), ""),
            (JointCalibration(information=b"\0\0\0"), "1 bytes too many"),
        ):
            with self.subTest(fields), self.assertRaisesRegex(reference.DataLoss, text):
                reference.parse_calibration(write_calibration(fields))
        for fields in (
            JointCalibration(exponents=(-8, -7, -2, -1, 0, 1, 2, 8)),
            JointCalibration(wide_bands=0, shrinks=(4, 1, 0)),
            JointCalibration(information=b"\1\0\1a\0\0\0\0"),
        ):
            self.assertEqual(reference.parse_calibration(write_calibration(fields)).joint_heads, 1)

    def test_sections(self) -> None:
        data = golden("3/sections.kdnobj")
        head = struct.pack("<HHI", 1000, 0, 21)
        critical = edited(data, data.index(head) + 2, b"\1")
        self.assert_refused(critical, "section 1000 is critical", reference.Unimplemented)
        self.assert_refused(edited(data, data.index(head) + 2, b"\2"), "section 1000 has flags 0x2")
        self.assert_refused(edited(data, data.index(head) + 12, b"\7"), "the CRC of section 1000 is wrong")

    def test_a_missing_calibration_is_named(self) -> None:
        stored = reference.parse_object(golden("3/calibrated-bf16.kdnobj"))
        name = stored.header.calibration.hex()
        with self.assertRaisesRegex(reference.FailedPrecondition, f"its calibration {name} is missing"):
            reference.decode(stored, Level.BASE, stored.header.positions)

    def test_a_damaged_calibration(self) -> None:
        data = golden("3/four-heads-of-16.kdncal")
        with self.assertRaisesRegex(reference.DataLoss, "calibration: its CRC is wrong"):
            reference.parse_calibration(data[:-1] + bytes([data[-1] ^ 1]))

    def test_the_information_of_a_calibration(self) -> None:
        data = golden("3/four-heads-of-16.kdncal")

        def with_information(entries: dict[str, bytes]) -> bytes:
            information = struct.pack("<H", len(entries))
            for name, value in entries.items():
                information += bytes([len(name)]) + name.encode() + struct.pack("<I", len(value)) + value
            body = data[12:] + information
            head = data[:6] + struct.pack("<H", 2)
            return head + struct.pack("<I", crc32c(head + body)) + body

        self.assertEqual(reference.parse_calibration(data).created, 0)
        made = with_information({"a": b"later", "created": struct.pack("<Q", 1234)})
        self.assertEqual(reference.parse_calibration(made).created, 1234)
        for entries in ({}, {"created": bytes(8)}, {"created": b"\1"}, {"b": b"", "a": b""}, {"A": b""}):
            with self.subTest(entries), self.assertRaises(reference.DataLoss):
                reference.parse_calibration(with_information(entries))

    def test_a_stream_whose_scales_are_zero(self) -> None:
        stored = reference.parse_object(golden("3/layers-and-parts-differ.kdnobj"))
        with self.assertRaisesRegex(reference.DataLoss, "a scale is not finite or not above 0"):
            reference.decode(stored, Level.INT8, stored.header.positions)

    def test_means_and_rows_that_are_not_finite(self) -> None:
        shape = Shape(layers=1, kv_heads=1, tokens=8, k_head_dim=16, v_head_dim=16, dtype=Dtype.BF16)
        good = one_patch(16)
        for infinity in (b"\x80\x7f", b"\x80\xff", b"\x81\x7f"):
            for base in (good[:5] + infinity + good[7:], b"\1" + bytes(2 * 127) + infinity):
                streams = {StreamId(Level.BASE, 0, Part.K, 0): good, StreamId(Level.BASE, 0, Part.V, 0): base}
                stored = reference.parse_object(write_object(shape, streams))
                with self.assertRaisesRegex(reference.DataLoss, "a value that is not finite"):
                    reference.decode(stored, Level.BASE, [0] * 8)

    def test_rans_streams(self) -> None:
        table = RansTable([2048, 2048] + [0] * 254)
        good = rans_stream(1, 40, table)
        for stream, text in (
            (good[:-1], "expected 128 or more, and even"),
            (good[:126], "expected 128 or more, and even"),
            (b"\0" * 4 + good[4:], "a state is below 2"),
            (good[:-2], "words are missing"),
            (good + b"\0\0", "words are left over"),
            (good[:-2] + bytes([good[-2] ^ 1, good[-1]]), "a state does not end at 2"),
        ):
            with self.subTest(text), self.assertRaisesRegex(reference.DataLoss, text):
                decoder = RansDecoder(stream)
                decoder.run(40, [table] * LANES)
                decoder.finish()
        decoder = RansDecoder(good)
        self.assertEqual(set(decoder.run(40, [table] * LANES)), {1})
        decoder.finish()


class JointStreams(unittest.TestCase):
    """What version 4 adds to streams, in rows that the document lets one compute by hand."""

    def test_rows_of_wide_components_in_two_classes(self) -> None:
        calibration = reference.parse_calibration(write_calibration(JointCalibration()))
        # Tokens 1 and 8 are of class 1. Column 16 is the high part of component 0.
        patches = [(0, 0, 1), (0, 16, -1), (1, 0, 1), (8, 8, -1), (8, 24, 1)]
        rows = decode_joint(calibration, joint_stream(0, b"\4\0\1", patches))
        expected = {
            (0, 0): 1 + (9 - 1 - 27 * (9 - 1)) * 2 * 1.0,
            (1, 0): 1 + (9 - 1) * 2 * 1.0 * 4,
            (8, 8): 1 + (27 * (9 - 1) - (9 - 1)) * 2 * 0.5 * 4,
        }
        self.assertEqual({at: row for at, row in rows.items() if row != 1.0}, expected)

    def test_k_of_all_heads_comes_first(self) -> None:
        calibration = reference.parse_calibration(
            write_calibration(JointCalibration(joint_heads=2, scales=(1.0, 2.0, 4.0, 8.0), wide_bands=0))
        )
        patches = [(3, dim, 1) for dim in (0, 8, 16, 24)]
        stream = b"\0\0\0\0\0\0\0" + struct.pack("<I", 4)
        stream += b"".join(struct.pack("<HBb", *patch) for patch in patches) + rans_stream(136, 4 * 2, PAIR_TABLE)
        shape = Shape(1, 2, 9, 8, 8, Dtype.FP32, joint_heads=2)
        streams = {StreamId(Level.ARCHIVE, 0, part, 0): (stream, b"")[part] for part in Part}
        stored = reference.parse_object(write_object(shape, streams, calibration=calibration.id))
        decoded = values_of(Dtype.FP32, reference.decode(stored, Level.ARCHIVE, [0] * 9, [calibration]))
        token = [decoded[part * 9 * 16 + 3 * 16 :][:16] for part in Part]
        heads = [token[part][8 * head] for part in Part for head in (0, 1)]
        self.assertEqual(heads, [1 + 8 * 2 * scale for scale in (1, 2, 4, 8)])
        self.assertEqual(decoded.count(1.0), len(decoded) - 4)

    def test_golden_files_have_every_kind_of_stream(self) -> None:
        calibrations = [reference.parse_calibration(path.read_bytes()) for path in FOLDER.glob("4/*.kdncal")]
        seen: set[str] = set()
        for path in FOLDER.glob("4/*.kdnobj"):
            stored = reference.parse_object(path.read_bytes())
            calibration = next(c for c in calibrations if c.id == stored.header.calibration)
            seen.add(f"{calibration.joint_heads} heads a stream")
            for stream in stored.index:
                if stream.level in (Level.BASE, Level.ARCHIVE) and stream.part is Part.K:
                    seen |= kinds_of(stored, stream, calibration)
        expected = {f"class {number}" for number in range(5)}
        expected |= {"1 heads a stream", "2 heads a stream", "rows", "raw rows", "high parts"}
        expected |= {"patches", "patches of columns above 255", "coded with fewer than 8 tokens"}
        self.assertEqual(seen, expected)


def kinds_of(stored: StoredObject, stream: StreamId, calibration: reference.CalibrationFile) -> set[str]:
    """What a stream of base or archive shows."""
    transform = calibration.transform(stream.layer, stream.part, stream.group)
    tokens = stored.header.fixed.tokens
    reader = stored.reader(stream)
    if read_form(reader, 0) != 0:
        return {"rows"}
    fields = read_base_fields(reader, transform, tokens)
    patches = read_patches(reader, transform, 0, fields.classes)
    values = read_symbols(reader, transform, 0, fields.classes, calibration.tables)
    kinds = {f"class {number}" for number in fields.classes}
    for holds, kind in (
        (fields.raw_rows, "raw rows"),
        (patches, "patches"),
        (any(patch.column > 255 for patch in patches), "patches of columns above 255"),
        (any(any(row[transform.components :]) for row in values), "high parts"),
        (tokens < 8, "coded with fewer than 8 tokens"),
    ):
        if holds:
            kinds.add(kind)
    return kinds


class WrittenObjects(unittest.TestCase):
    """Objects that no golden file shows: different head_dims of K and V, and different RoPEs of
    the layers, which KDN stores but does not encode; and a level that adds nothing to coded base."""

    def test_each_layer_turns_with_its_own_rope(self) -> None:
        shape = Shape(layers=2, kv_heads=1, tokens=2, k_head_dim=4, v_head_dim=6, dtype=Dtype.FP32)
        k = struct.pack("<4f8b", 1, 1, 1, 0.5, *[1, 2, 3, 8] * 2)
        v = struct.pack("<2f12b", 0.5, 2, *range(12))
        ropes = [
            RopeDescriptor(0, 0, 2, 0, 10000.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
            RopeDescriptor(1, 0, 4, 0, 100.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0),
        ]
        streams = {StreamId(Level.INT8, layer, part, 0): (k, v)[part] for layer in (0, 1) for part in Part}
        stored = reference.parse_object(write_object(shape, streams, ropes, b"\0\1"))
        decoded = values_of(Dtype.FP32, reference.decode(stored, Level.INT8, [3, 0]))
        cos, sin = math.cos, math.sin
        turned = [cos(3) - 2 * sin(3), 2 * cos(3) + sin(3)]
        second = [2 * turned[0], 2 * turned[1], 6 * cos(0.3) - 8 * sin(0.3), 8 * cos(0.3) + 6 * sin(0.3)]
        v_rows = [0, 0.5, 1, 1.5, 2, 2.5, 12, 14, 16, 18, 20, 22]
        expected = [*turned, 3, 4, 1, 2, 3, 4, *v_rows]
        expected += [*second, 2, 4, 6, 8, *v_rows]
        self.assertEqual(len(decoded), len(expected))
        for got, wanted in zip(decoded, expected):
            self.assertAlmostEqual(got, wanted, places=5)

    def test_groups_of_k_and_v_have_different_numbers_of_heads(self) -> None:
        shape = Shape(layers=1, kv_heads=2, tokens=2, k_head_dim=64, v_head_dim=128, dtype=Dtype.BF16)
        k = bytes(range(128)) * 2 + bytes(256)
        v = [bytes([head]) * 512 for head in (5, 6)]
        streams = {StreamId(Level.BASE, 0, Part.K, 0): b"\1" + k}
        streams |= {StreamId(Level.BASE, 0, Part.V, group): b"\1" + v[group] for group in (0, 1)}
        stored = reference.parse_object(write_object(shape, streams))
        decoded = reference.decode(stored, Level.BASE, [0, 0])
        self.assertEqual(decoded, k + 2 * (v[0][:256] + v[1][:256]))

    def test_transforms_of_k_and_v_differ(self) -> None:
        shape = Shape(layers=1, kv_heads=3, tokens=8, k_head_dim=16, v_head_dim=32, dtype=Dtype.FP32)
        streams = {StreamId(Level.BASE, 0, part, 0): one_patch(3 * (16, 32)[part]) for part in Part}
        stored = reference.parse_object(write_object(shape, streams))
        decoded = values_of(Dtype.FP32, reference.decode(stored, Level.BASE, [0] * 8))
        k, v = decoded[: 8 * 48], decoded[8 * 48 :]
        self.assertEqual(set(k[: 7 * 48] + v[: 7 * 96]), {1.0})
        # The first column has 11 in 32 dimensions of K, and 8 in 64 dimensions of V.
        self.assertEqual(k[7 * 48 :], [1 + 9 * 11 * 2 / 64] * 32 + [1.0] * 16)
        self.assertEqual(v[7 * 96 :], [1 + 9 * 8 * 2 / 64] * 64 + [1.0] * 32)

    def test_a_level_with_nothing_gives_the_rows_of_the_level_before(self) -> None:
        shape = Shape(layers=1, kv_heads=3, tokens=8, k_head_dim=16, v_head_dim=16, dtype=Dtype.FP16)
        streams = {StreamId(Level.BASE, 0, part, 0): one_patch(48) for part in Part}
        streams |= {StreamId(Level.BASE1, 0, part, 0): b"\2" for part in Part}
        stored = reference.parse_object(write_object(shape, streams))
        coarse, fine = (reference.decode(stored, level, [0] * 8) for level in (Level.BASE, Level.BASE1))
        self.assertEqual(coarse, fine)


if __name__ == "__main__":
    unittest.main()
