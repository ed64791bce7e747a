"""Reads and writes the KV of an engine's paged cache (torch).

The cache of a layer has the logical shape (blocks, kv_heads, block_size, 2 * head_dim),
with K before V in the last axis and any strides. This is vLLM's view of every CUDA
backend. For a backend that packs a block differently, `BlockOrder` says where the
elements lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import InvalidArgument, Unimplemented

_BITS = {2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class BlockOrder:
    """The places of the elements in one flattened block of one KV head. `k` and `v` are
    integer tensors of shape (block_size, head_dim): `k[token, dim]` is the place of that
    element of K."""

    k: Any
    v: Any

    @classmethod
    def learn(cls, write: Callable[[Any, Any, Any], None], block_size: int, head_dim: int, dtype: Any) -> BlockOrder:
        """Finds the places with the engine's own `write(k, v, cache)`, which puts K and V,
        each of shape (block_size, 1, head_dim), into a cache of one block and one KV head.
        Raises Unimplemented when `write` does more than reorder the elements."""
        bits = _BITS[torch.empty((), dtype=dtype).element_size()]
        count = block_size * head_dim
        numbers = torch.arange(count, dtype=torch.int32).to(bits).view(block_size, 1, head_dim)
        nothing = torch.full_like(numbers, -1)
        places = []
        for k, v in ((numbers, nothing), (nothing, numbers)):
            cache = torch.full((1, 1, block_size, 2 * head_dim), -1, dtype=bits)
            write(k.view(dtype), v.view(dtype), cache.view(dtype))
            found = cache.flatten().long()
            if bits == torch.int16:
                found &= 0xFFFF
            lies = ((found >= 0) & (found < count)).nonzero().flatten()
            place = torch.full((count,), -1)
            place[found[lies]] = lies
            if bool((place < 0).any()):
                raise Unimplemented("this attention backend changes the values of K and V in its cache")
            places.append(place.view(block_size, head_dim))
        return cls(*places)


class PagedKv:
    """The paged caches of one rank's layers, in order. Reads and writes tokens."""

    def __init__(self, layers: Sequence[Any], head_dim: int, order: BlockOrder | None = None) -> None:
        first = layers[0]
        for layer in layers:
            if layer.shape != first.shape or layer.dim() != 4 or layer.shape[3] != 2 * head_dim:
                raise Unimplemented(
                    f"a paged cache of shape {tuple(layer.shape)}, expected "
                    f"(blocks, kv_heads, block_size, {2 * head_dim}) for every layer"
                )
        self.num_blocks, self.num_kv_heads, self.block_size, _ = first.shape
        self.head_dim = head_dim
        self.dtype = first.dtype
        self._layers = list(layers)
        self._order = order

    def _where(self, blocks: Sequence[int], begin: int, end: int) -> tuple[Any, Any]:
        """The block and the offset in it, for each token [begin, end) of a request whose
        tokens lie in `blocks`."""
        if not 0 <= begin <= end <= len(blocks) * self.block_size:
            raise InvalidArgument(f"tokens {begin}..{end} of {len(blocks)} blocks of {self.block_size}")
        tokens = torch.arange(begin, end)
        return torch.tensor(list(blocks))[tokens // self.block_size], tokens % self.block_size

    def read(self, blocks: Sequence[int], begin: int, end: int) -> Any:
        """Copies the tokens' KV to the host: (layers, 2, kv_heads, tokens, head_dim). On a
        GPU, the copy has ended when the work that is queued on the stream has ended."""
        block, offset = self._where(blocks, begin, end)
        device = self._layers[0].device
        block, offset = block.to(device), offset.to(device)
        # A copy into pinned memory runs beside the engine's work on the GPU.
        pinned = device.type == "cuda"
        kv = torch.empty(self._shape(end - begin), dtype=self.dtype, pin_memory=pinned)
        # One layer at a time, because an engine leaves little memory on its device.
        for layer, out in zip(self._layers, kv):
            out.copy_(self._read_layer(layer, block, offset), non_blocking=pinned)
        return kv

    def _shape(self, tokens: int) -> tuple[int, ...]:
        return len(self._layers), 2, self.num_kv_heads, tokens, self.head_dim

    def bytes_of(self, tokens: int) -> int:
        """Bytes of a result of `read`."""
        return math.prod(self._shape(tokens)) * self._layers[0].element_size()

    def _read_layer(self, layer: Any, block: Any, offset: Any) -> Any:
        if self._order is None:
            both = layer[block, :, offset]  # (tokens, kv_heads, 2 * head_dim)
            return torch.stack(both.split(self.head_dim, dim=-1)).transpose(1, 2)
        flat = layer.view(self.num_blocks, self.num_kv_heads, -1)
        parts = [flat[self._flat_index(block, place[offset])] for place in (self._order.k, self._order.v)]
        return torch.stack(parts).transpose(1, 2)

    def write(self, blocks: Sequence[int], begin: int, kv: Any) -> None:
        """Writes `kv`, of shape (layers, 2, kv_heads, tokens, head_dim), into the places of
        the tokens from `begin` on."""
        block, offset = self._where(blocks, begin, begin + kv.shape[3])
        kv = kv.to(self._layers[0].device).transpose(2, 3)  # (layers, 2, tokens, kv_heads, head_dim)
        block, offset = block.to(kv.device), offset.to(kv.device)
        for layer, (k, v) in zip(self._layers, kv):
            if self._order is None:
                layer[block, :, offset] = torch.cat([k, v], dim=-1)
                continue
            flat = layer.view(self.num_blocks, self.num_kv_heads, -1)
            flat[self._flat_index(block, self._order.k[offset])] = k
            flat[self._flat_index(block, self._order.v[offset])] = v

    def _flat_index(self, block: Any, place: Any) -> tuple[Any, Any, Any]:
        """The index of the tokens' elements in the flattened blocks; it selects a tensor of
        shape (tokens, kv_heads, head_dim)."""
        return block[:, None, None], torch.arange(self.num_kv_heads)[None, :, None], place[:, None, :]
