"""What an engine with a paged KV cache loads and saves, and when: the logic of a
scheduler's side of a connector, without the engine.

Only whole chunks of a prompt count: where a prompt goes on differs from request to
request, so a shorter chunk at its end would be found by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .keys import CHUNK_TOKENS, Chunk
from .types import leading


@dataclass(frozen=True)
class Load:
    """Deliver the tokens [begin, end) of a request into its blocks. `chunks` cover
    them; both bounds are on block boundaries."""

    request: str
    chunks: tuple[Chunk, ...]
    begin: int
    end: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Save:
    """Store `chunks`, computed by the end of this step, out of a request's blocks."""

    request: str
    chunks: tuple[Chunk, ...]
    blocks: tuple[int, ...]


@dataclass
class _Request:
    chunks: list[Chunk]
    held: set[bytes] = field(default_factory=set)  # keys that the cluster has
    blocks: list[int] = field(default_factory=list)
    looked_up: bool = False
    matched_end: int = 0
    own: bool = True  # nothing of its KV came at a lossy level
    promised: bool = False  # a load was begun, and the request not scheduled since


class PrefixPlan:
    """The requests of one engine. Not for several threads: the scheduler has one.

    `chain` cuts tokens into chunks; `lookup` says of each chunk whether the cluster
    can deliver it, or None when nobody can say. `block_size` in tokens. Unless `exact`,
    what is delivered may be lossy: then only what a request computes from its first
    token on is saved, because KV behind lossy KV is lossy too, and so may be what the
    engine's own prefix cache has kept.
    """

    def __init__(
        self,
        chain: Callable[[Sequence[int]], list[Chunk]],
        lookup: Callable[[Sequence[Chunk]], list[bool] | None],
        block_size: int,
        exact: bool = True,
    ) -> None:
        self._chain = chain
        self._lookup = lookup
        self._block_size = block_size
        self._exact = exact
        self._requests: dict[str, _Request] = {}
        self._loads: dict[str, Load] = {}

    def matched(self, request: str, prompt: Sequence[int], computed: int) -> int:
        """How many tokens behind the first `computed` ones can be delivered: a
        multiple of the block size that leaves the last token of the prompt to be
        computed. May be asked again, and asks the cluster again. 0 for a request whose
        load delivered nothing: it is to be computed, not loaded for ever."""
        state = self._state(request, prompt)
        if not state.chunks or state.promised:
            return 0
        found = self._lookup(state.chunks)
        state.looked_up = found is not None
        if found is None:
            return 0
        state.held = {chunk.key for chunk, hit in zip(state.chunks, found) if hit}
        prefix = leading(found)
        state.matched_end = min(prefix * CHUNK_TOKENS, len(prompt) - 1) // self._block_size * self._block_size
        return max(state.matched_end - computed, 0)

    def allocated(self, request: str, blocks: Sequence[int], delivered: int) -> None:
        """The engine has reserved `blocks` for the request's tokens from the first on,
        and counts on the last `delivered` of those that `matched` promised."""
        state = self._requests.get(request)
        if state is None or delivered == 0:
            return
        end = state.matched_end
        begin = end - delivered
        chunks = tuple(c for c in state.chunks if c.end > begin and c.begin < end)
        state.promised = True
        self._loads[request] = Load(request, chunks, begin, end, tuple(blocks))

    def scheduled(
        self,
        request: str,
        computed: int,
        scheduled: int,
        blocks: Sequence[int],
        *,
        anew: bool,
    ) -> Save | None:
        """The step computes `scheduled` tokens behind the first `computed` ones.
        `blocks` are all of the request's where `anew` (first time, or after a
        preemption), else those added since. What of it is to be stored."""
        state = self._requests.get(request)
        if state is None:
            return None  # `matched` was not asked: it is not to be loaded or saved
        state.promised = False
        if anew:
            state.own = self._exact or computed == 0
        state.blocks = list(blocks) if anew else state.blocks + list(blocks)
        done = computed + scheduled
        fresh = tuple(c for c in state.chunks if computed < c.end <= done and c.key not in state.held)
        if not fresh or not state.looked_up or not state.own:
            return None
        state.held.update(chunk.key for chunk in fresh)
        return Save(request, fresh, tuple(state.blocks))

    def take_loads(self) -> list[Load]:
        """The loads to begin now. Each is handed out once."""
        loads, self._loads = list(self._loads.values()), {}
        return loads

    def finished(self, request: str) -> None:
        """Forgets a request. A load that was not handed out is not begun."""
        self._requests.pop(request, None)
        self._loads.pop(request, None)

    def _state(self, request: str, prompt: Sequence[int]) -> _Request:
        if request not in self._requests:
            whole = len(prompt) // CHUNK_TOKENS * CHUNK_TOKENS
            self._requests[request] = _Request(self._chain(prompt[:whole]))
        return self._requests[request]
