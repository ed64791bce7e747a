"""The byte strings that the KDN's digests hash: see the head of kdn.capnp."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence


class Digest:
    """A SHA-256 over fields that are added in order. Numbers are little-endian; a field
    of variable length follows its length. `domain` is the first field."""

    def __init__(self, domain: str) -> None:
        self._hash = hashlib.sha256()
        self.text(domain)

    def integer(self, value: int) -> Digest:
        self._hash.update(struct.pack("<Q", value))
        return self

    def double(self, value: float) -> Digest:
        self._hash.update(struct.pack("<d", value))
        return self

    def data(self, value: bytes) -> Digest:
        self.integer(len(value))
        self._hash.update(value)
        return self

    def text(self, value: str) -> Digest:
        return self.data(value.encode())

    def tokens(self, values: Sequence[int]) -> Digest:
        self.integer(len(values))
        self._hash.update(struct.pack(f"<{len(values)}i", *values))
        return self

    def finish(self) -> bytes:
        return self._hash.digest()
