#!/usr/bin/env python3
"""Compares the ids and texts of `kdn tokenize` with those of the tokenizers library.

    compare.py KDN                        small tokenizers that exercise each part; seconds
    compare.py KDN --real DIR             tokenizers of real models, which are downloaded to DIR
    compare.py KDN --files DIR...         the tokenizer.json files of directories

Ends with 1 if any text has other ids, or any ids have another text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made_files
import real_files
from texts import read_lines, texts
from tokenizers import Tokenizer
from tokenizers import __version__ as library_version

ROOT = Path(__file__).resolve().parents[3]


def kdn(program: str, model: Path, inputs: Sequence[Any], *flags: str) -> list[Any]:
    """What `kdn tokenize` answers to each input."""
    lines = "".join(json.dumps(value) + "\n" for value in inputs)
    command = [program, "tokenize", "--model", str(model), *flags]
    result = subprocess.run(command, input=lines, text=True, capture_output=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {result.stderr}")
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


def load(model: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def beginning(bare: list[int], front: list[int]) -> list[int]:
    """The ids of a text that begins a prompt."""
    return bare if not bare or bare[: len(front)] == front else front + bare


def report(what: str, inputs: Sequence[Any], expected: Sequence[Any], actual: Sequence[Any]) -> int:
    """Prints the first differences, and returns their number."""
    assert len(expected) == len(actual), f"{what}: {len(expected)} answers of the library, {len(actual)} of kdn"
    differ = [i for i, answer in enumerate(expected) if answer != actual[i]]
    for i in differ[:3]:
        print(f"  {what} of {inputs[i]!r:.300}\n    library {expected[i]!r:.300}\n    kdn     {actual[i]!r:.300}")
    return len(differ)


def compare(program: str, model: Path, inputs: Sequence[str]) -> int:
    tokenizer = load(model)
    begin = time.monotonic()
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in inputs]
    middle = time.monotonic()
    actual = kdn(program, model, inputs, "--bare")
    end = time.monotonic()
    differences = report("ids", inputs, expected, actual)
    front = tokenizer.encode("e", add_special_tokens=True).ids
    front = front[: len(front) - len(tokenizer.encode("e", add_special_tokens=False).ids)]
    some = inputs[:1000]
    wanted = [beginning(ids, front) for ids in expected[:1000]]
    differences += report("ids with the front tokens", some, wanted, kdn(program, model, some))
    decoded = [tokenizer.decode(ids, skip_special_tokens=False) for ids in expected]
    differences += report("text", expected, decoded, kdn(program, model, expected, "--decode"))
    tokens = sum(len(ids) for ids in expected)
    print(
        f"{model.name}: {len(inputs)} texts, {tokens} tokens, {differences} differences; "
        f"library {middle - begin:.1f} s, kdn with start and JSON {end - middle:.1f} s",
        flush=True,
    )
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kdn", help="the kdn program")
    parser.add_argument("--real", type=Path, metavar="DIR")
    parser.add_argument("--files", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--count", type=int, help="texts for each tokenizer (default: 300, or 110000 with --real)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    suffixes = (".md", ".cc", ".py", ".txt")
    sources = sorted(path for path in ROOT.rglob("*") if path.suffix in suffixes and "build" not in path.parts)
    lines = read_lines(sources) + made_files.LINES
    inputs = texts(arguments.count or (110_000 if arguments.real else 300), arguments.seed, lines)
    print(f"tokenizers {library_version}, seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.real:
            models = [real_files.make(name, arguments.real) for name in real_files.REAL]
        elif arguments.files:
            models = arguments.files
        else:
            models = [made_files.make(name, Path(temporary)) for name in made_files.MADE]
            models.append(ROOT / "model" / "recall")
        return 1 if sum([compare(arguments.kdn, model, inputs) for model in models]) else 0


if __name__ == "__main__":
    sys.exit(main())
