#!/usr/bin/env python3
"""Decodes all golden files with the decoder in reference/ and compares the digests.

reference_test.py [FOLDER]   FOLDER has a folder for each version; by default it is the
                             folder of this file
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import reference
from reference import Level

VERSIONS = (2, 3, 4)
Digests = dict[tuple[str, str], str]
"""Digests by the object's name and what is digested: "object", or a level and positions."""


def read_digests(path: Path) -> Digests:
    digests = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, rest = line.split(" ", 1)
        what, digest = rest.rsplit(" ", 1)
        digests[name, what] = digest
    return digests


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_encoded(header: reference.Header) -> bool:
    """Whether KDN encodes such objects. The golden objects that it does not encode hold no
    rows."""
    fixed = header.fixed
    return fixed.k_head_dim == fixed.v_head_dim and len(set(header.ropes)) == 1


def digests_of(data: bytes, calibrations: Sequence[reference.CalibrationFile]) -> dict[str, str]:
    """All digests that golden_digests.h lists for one object."""
    stored = reference.parse_object(data)
    header = stored.header
    digests = {"object": sha256(data)}
    if not is_encoded(header):
        return digests
    for level in header.fixed.levels:
        places = {"origin": [0] * header.fixed.tokens}
        if level is Level.LOSSLESS or header.ropes[0].rotary_dim == 0:
            places["stored"] = list(header.positions)
            places["moved"] = [3 * position + 1234 for position in reversed(header.positions)]
        for where, positions in places.items():
            rows = reference.decode(stored, level, positions, calibrations)
            digests[f"{level.text} {where}"] = sha256(rows)
    return digests


def computed_digests(folder: Path) -> tuple[Digests, list[str]]:
    """The digests of all objects in a folder, and what is wrong with its files."""
    calibrations = [reference.parse_calibration(path.read_bytes()) for path in folder.glob("*.kdncal")]
    digests: Digests = {}
    problems = []
    used = {bytes(32)}
    for path in sorted(folder.glob("*.kdnobj")):
        header = reference.parse_object(path.read_bytes()).header
        used.add(header.calibration)
        if str(header.fixed.version) != folder.name:
            problems.append(f"{path}: an object of version {header.fixed.version}")
        for what, digest in digests_of(path.read_bytes(), calibrations).items():
            digests[path.stem, what] = digest
    problems += [f"{folder}: no object names the calibration {c.id.hex()}" for c in calibrations if c.id not in used]
    return digests, problems


def check_folder(folder: Path) -> list[str]:
    """Compares one version's digests, prints their number and returns the problems."""
    expected = read_digests(folder / "digests")
    computed, problems = computed_digests(folder)
    for path in sorted(folder.iterdir()):
        if path.name != "digests" and path.suffix not in (".kdnobj", ".kdncal"):
            problems.append(f"{path}: this test does not read such a file")
    for key in sorted(expected.keys() | computed.keys()):
        if expected.get(key) != computed.get(key):
            texts = (expected.get(key, "no digest"), computed.get(key, "nothing"))
            problems.append(f"{folder}: {' '.join(key)}: the file has {texts[0]}, decoded {texts[1]}")
    same = sum(1 for key, digest in computed.items() if expected.get(key) == digest)
    objects = {name for name, _ in computed}
    print(f"version {folder.name}: {len(objects)} objects, {same} of {len(expected)} digests are the same")
    return problems


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(arguments[0]) if arguments else Path(__file__).parent
    folders = sorted(path for path in root.iterdir() if path.name.isdecimal())
    problems = [problem for folder in folders for problem in check_folder(folder)]
    if [int(folder.name) for folder in folders] != list(VERSIONS):
        problems.append(f"{root}: expected the folders {VERSIONS}")
    print("\n".join(problems) or "no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
