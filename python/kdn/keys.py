"""The keys of chunks. Every client and node computes the same keys.

The head of kdn.capnp describes what is hashed. A client that connects sends its
`golden_vectors`; the node refuses a client that computes other keys, which would
otherwise never find a chunk and never see an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .digest import Digest
from .errors import InvalidArgument
from .model import ModelSpec, RopeSpec

CHUNK_TOKENS = 256
"""Tokens in a chunk of a chain; the last chunk may be shorter."""
CHUNK_TOKENS_MAX = 4096
"""Most tokens in any chunk."""
PLACEMENT_GROUP_CHUNKS = 16
"""Consecutive chunks of a chain whose keys begin with the same bytes, and which therefore
lie on the same nodes."""
_PLACEMENT_BYTES = 8
RAW_VARIANT = "raw"
_NO_CONDITION = bytes(32)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def fingerprint_of(model: ModelSpec) -> bytes:
    """The fingerprint: 32 bytes that depend on every field of `model` except its name."""
    rope = model.rope
    digest = Digest("kdn-model-1")
    for value in (model.num_layers, model.num_kv_heads, model.head_dim, model.dtype_code):
        digest.integer(value)
    digest.double(rope.theta).integer(rope.rotary_dim)
    digest.integer(rope.pairing_code).integer(rope.scaling_code)
    for number in (rope.factor, rope.low_freq_factor, rope.high_freq_factor):
        digest.double(number)
    digest.integer(rope.original_max_position)
    for number in (rope.beta_fast, rope.beta_slow, rope.attention_factor):
        digest.double(number)
    return digest.text(model.weights_digest).text(model.tokenizer_digest).finish()


def check_namespace(name: str) -> str:
    """Returns `name`. InvalidArgument unless it has 1 to 128 characters of
    ``A-Z a-z 0-9 . _ -``."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"namespace {name!r}: expected 1 to 128 characters of A-Z a-z 0-9 . _ -")
    return name


def check_int32(values: Sequence[int], what: str) -> None:
    """InvalidArgument unless all values are from 0 to 2^31 - 1."""
    for value in (min(values, default=0), max(values, default=0)):
        if not 0 <= value < 1 << 31:
            raise InvalidArgument(f"{what} {value}, expected 0 to 2^31 - 1")


def chunk_key(
    fingerprint: bytes,
    namespace: str,
    tokens: Sequence[int],
    condition: bytes = b"",
    variant: str = RAW_VARIANT,
    depth: int = 0,
) -> bytes:
    """The key of a chunk of one model and one tenant. `condition` is the key of the chunk
    before it, or empty for a standalone chunk; `depth` is the number of chunks before it in
    its chain."""
    if not 1 <= len(tokens) <= CHUNK_TOKENS_MAX:
        raise InvalidArgument(f"a chunk of {len(tokens)} tokens, expected 1 to {CHUNK_TOKENS_MAX}")
    check_int32(tokens, "token id")
    digest = Digest("kdn-chunk-1").data(fingerprint).text(check_namespace(namespace))
    key = digest.data(condition or _NO_CONDITION).text(variant).tokens(tokens).finish()
    if depth > 0 and not condition:
        raise InvalidArgument(f"a chunk of depth {depth} without the key of the chunk before it")
    if depth % PLACEMENT_GROUP_CHUNKS:
        key = condition[:_PLACEMENT_BYTES] + key[_PLACEMENT_BYTES:]
    return key


@dataclass(frozen=True)
class Chunk:
    """One chunk of a text.

    `begin` is the index of its first token in the text. It is also the token's position,
    if the text begins at position 0. `depth` is the number of chunks before it in its
    chain. It is 0 for a standalone chunk, and only for a standalone chunk.
    """

    key: bytes
    tokens: tuple[int, ...]
    condition: bytes = b""
    begin: int = 0
    variant: str = RAW_VARIANT
    depth: int = 0

    @property
    def end(self) -> int:
        return self.begin + len(self.tokens)

    @property
    def positions(self) -> range:
        return range(self.begin, self.end)

    def __repr__(self) -> str:
        key = self.key.hex()
        return f"Chunk({key[:8]}..{key[16:24]}, tokens {self.begin}..{self.end})"


def cut_chain(fingerprint: bytes, namespace: str, tokens: Sequence[int]) -> list[Chunk]:
    """Cuts `tokens` into chunks of `CHUNK_TOKENS`, each conditioned on the chunk before
    it. The last chunk may be shorter."""
    chain: list[Chunk] = []
    condition = b""
    ids = [int(token) for token in tokens]
    for begin in range(0, len(ids), CHUNK_TOKENS):
        run = tuple(ids[begin : begin + CHUNK_TOKENS])
        key = chunk_key(fingerprint, namespace, run, condition, depth=len(chain))
        chain.append(Chunk(key, run, condition, begin, depth=len(chain)))
        condition = key
    return chain


def golden_vectors() -> dict[str, bytes]:
    """The keys of a fixed identity, by label: see GoldenVector in kdn.capnp. They are
    computed and not stored, so that they show what this code really does."""
    model = ModelSpec(
        name="golden",
        num_layers=2,
        num_kv_heads=1,
        head_dim=64,
        rope=RopeSpec(theta=500000.0, rotary_dim=64),
        weights_digest="weights",
        tokenizer_digest="tokenizer",
    )
    fingerprint = fingerprint_of(model)
    chain = cut_chain(fingerprint, "golden", range(CHUNK_TOKENS + 1))
    return {"model": fingerprint, "first-chunk": chain[0].key, "chained-chunk": chain[1].key}
