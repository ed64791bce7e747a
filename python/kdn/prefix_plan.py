"""Decides what an engine with a paged KV cache looks up, loads and saves, and when. This is
the scheduler's side of a connector, without the engine. It waits for nothing and reads no
clock: every time is an argument, in seconds of any monotonic clock.

Only whole chunks of a prompt are loaded and saved. Prompts with the same beginning go on
differently, so no other request would find the shorter chunk at the end of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .keys import CHUNK_TOKENS, Chunk
from .types import leading


@dataclass(frozen=True)
class Load:
    """Load the tokens [begin, end) of a request into its blocks. `chunks` cover these
    tokens; both bounds are block boundaries. Without chunks, nothing can be loaded: the
    engine still waits until it hears that."""

    request: str
    chunks: tuple[Chunk, ...]
    begin: int
    end: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Save:
    """Store `chunks` out of a request's blocks. They are computed when this step ends."""

    request: str
    chunks: tuple[Chunk, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """Ask the cluster which of `chunks` it can deliver. `number` names the answer."""

    number: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Waits:
    """`patience` is the longest time that a request waits for an answer. An answer counts
    for the time `fresh`; a request that is still queued then asks again, because chunks may
    have been evicted."""

    patience: float = 0.05
    fresh: float = 5.0


@dataclass
class _Lookup:
    """The last question of a request. `found` says of each chunk whether the cluster can
    deliver it; None: the cluster did not answer, or has not answered yet."""

    number: int
    since: float  # the time of the question, then of the answer
    waits_until: float
    pending: bool = True
    found: list[bool] | None = None


@dataclass
class _Request:
    chunks: list[Chunk]
    prompt_tokens: int
    lookup: _Lookup | None = None
    held: set[bytes] = field(default_factory=set)  # keys that the cluster holds
    blocks: list[int] = field(default_factory=list)
    matched_begin: int = 0
    own: bool = True  # none of its KV can be lossy
    current: bool = True  # all of its KV is of this generation
    promised: bool = False  # a load was planned and the request was not scheduled since

    @property
    def answered(self) -> bool:
        return self.lookup is not None and self.lookup.found is not None


class PrefixPlan:
    """The requests of one engine. For one thread: the scheduler's.

    `chain` cuts tokens into chunks. `block_size` is in tokens. `exact` says that all
    delivered KV is exact. Without `exact`, a request is saved only if it is computed from
    its first token on: KV computed behind lossy KV is lossy too, and so may be the KV in
    the engine's own prefix cache. An engine with `loads` False or `saves` False loads or
    saves nothing.

    The caller passes the questions of `take_questions` to the cluster, and every answer to
    `answered`, also the news that there is no answer.
    """

    def __init__(
        self,
        chain: Callable[[Sequence[int]], list[Chunk]],
        block_size: int,
        *,
        exact: bool = True,
        loads: bool = True,
        saves: bool = True,
        waits: Waits = Waits(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._chain = chain
        self._block_size = block_size
        self._exact = exact
        self._loads_at_all = loads
        self._saves_at_all = saves
        self._waits = waits
        self._numbers = 0
        self._requests: dict[str, _Request] = {}
        self._questions: dict[str, Question] = {}
        self._asked: dict[int, str] = {}  # requests, by the number of their pending question
        self._loads: dict[str, Load] = {}
        # Blocks whose KV is of this generation. None before the first reset: all blocks are.
        self._current_blocks: set[int] | None = None

    def matched(self, request: str, prompt: Sequence[int], computed: int, now: float) -> int | None:
        """The number of tokens, behind the first `computed` tokens, that the cluster can
        deliver. None: the answer is not there yet, so ask again in the next step. The tokens
        end at a block boundary, and the last token of the prompt is always left to compute.

        The result is 0 for a request that comes back after its load without being
        scheduled: its load delivered nothing, so it is computed instead of loaded again and
        again."""
        state = self._state(request, prompt)
        if not state.chunks:
            return 0
        if state.promised:
            state.held.clear()  # the cluster could not deliver what it seemed to hold
            return 0
        lookup = self._current_lookup(request, state, now)
        if lookup.found is None:
            return None if lookup.pending and now < lookup.waits_until else 0
        if not self._loads_at_all:
            return 0  # the answer says which chunks need not be saved
        prefix = leading(lookup.found)
        end = min(prefix * CHUNK_TOKENS, state.prompt_tokens - 1) // self._block_size * self._block_size
        state.matched_begin = computed
        return max(end - computed, 0)

    def _current_lookup(self, request: str, state: _Request, now: float) -> _Lookup:
        last = state.lookup
        if last is not None and now - last.since <= self._waits.fresh:
            return last
        # A request whose last question got no answer does not wait a second time.
        waits = last is None or last.found is not None
        if last is not None:
            self._asked.pop(last.number, None)
        self._numbers += 1
        state.lookup = _Lookup(self._numbers, now, now + self._waits.patience if waits else now)
        self._questions[request] = Question(self._numbers, tuple(state.chunks))
        self._asked[self._numbers] = request
        return state.lookup

    def take_questions(self) -> list[Question]:
        """The questions to ask now. Each question is returned once."""
        questions, self._questions = list(self._questions.values()), {}
        return questions

    def answered(self, number: int, found: Sequence[bool] | None, now: float) -> None:
        """The answer to a question: says of each chunk whether the cluster can deliver it.
        None: the cluster does not answer. An answer that nobody waits for has no effect."""
        request = self._asked.pop(number, None)
        if request is None:
            return
        state = self._requests[request]
        assert state.lookup is not None and state.lookup.number == number
        state.lookup.pending = False
        state.lookup.since = now
        if found is not None:
            state.lookup.found = list(found)
            state.held = {chunk.key for chunk, hit in zip(state.chunks, found) if hit}

    def allocated(self, request: str, blocks: Sequence[int], delivered: int) -> None:
        """The engine has reserved `blocks` for the request's tokens, from the first token
        on. It expects the first `delivered` of the tokens that `matched` counted."""
        if delivered == 0:
            return
        state = self._requests.get(request)
        if state is None:
            # A reset came in between. The engine waits for the load all the same.
            end = len(blocks) * self._block_size
            self._loads[request] = Load(request, (), end - delivered, end, tuple(blocks))
            return
        begin = state.matched_begin
        end = begin + delivered
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
        """The step computes `scheduled` tokens behind the first `computed` tokens. With
        `anew` (the first time, or after a preemption), `blocks` are all blocks of the
        request; else they are the blocks added since the last call. Returns the chunks to
        store, or None."""
        state = self._requests.get(request)
        if state is not None and anew:
            state.own = self._exact or computed == 0
            state.current = self._are_current(blocks[: -(-computed // self._block_size)])
        added = blocks[computed // self._block_size :] if anew else blocks
        self._note(added, state is not None and state.current)
        if state is None:
            return None  # `matched` was not called: the request is not loaded or saved
        state.promised = False
        state.blocks = list(blocks) if anew else state.blocks + list(blocks)
        done = computed + scheduled
        fresh = tuple(c for c in state.chunks if computed < c.end <= done and c.key not in state.held)
        savable = self._saves_at_all and state.answered and state.own and state.current
        if not fresh or not savable:
            return None
        state.held.update(chunk.key for chunk in fresh)
        return Save(request, fresh, tuple(state.blocks))

    def _are_current(self, blocks: Sequence[int]) -> bool:
        return self._current_blocks is None or self._current_blocks.issuperset(blocks)

    def _note(self, blocks: Sequence[int], current: bool) -> None:
        """Notes the generation of the KV that a step or a load writes into `blocks`."""
        if self._current_blocks is None:
            return
        if current:
            self._current_blocks.update(blocks)
        else:
            self._current_blocks.difference_update(blocks)

    def take_loads(self) -> list[Load]:
        """The loads to begin now. Each load is returned once."""
        loads, self._loads = list(self._loads.values()), {}
        for load in loads:
            filled = load.blocks[load.begin // self._block_size : -(-load.end // self._block_size)]
            self._note(filled, bool(load.chunks))
        return loads

    def finished(self, request: str) -> None:
        """Forgets a request and its question. If `take_loads` has not returned its load yet,
        that becomes a load without chunks."""
        state = self._requests.pop(request, None)
        if state is not None and state.lookup is not None:
            self._asked.pop(state.lookup.number, None)
        self._questions.pop(request, None)
        if request in self._loads:
            self._loads[request] = replace(self._loads[request], chunks=())

    def reset(self, chain: Callable[[Sequence[int]], list[Chunk]]) -> None:
        """Begins a new generation with another `chain`. All requests are forgotten: a
        queued request is matched anew, and a running request, whose KV is of the old
        generation, is not saved. The planned loads become loads without chunks.

        The engine's own prefix cache may keep blocks of the old generation. What is computed
        behind such a block is not saved either."""
        self._chain = chain
        self._current_blocks = set()
        self._requests.clear()
        self._questions.clear()
        self._asked.clear()
        self._loads = {name: replace(load, chunks=()) for name, load in self._loads.items()}

    def _state(self, request: str, prompt: Sequence[int]) -> _Request:
        if request not in self._requests:
            whole = len(prompt) // CHUNK_TOKENS * CHUNK_TOKENS
            self._requests[request] = _Request(self._chain(prompt[:whole]), len(prompt))
        return self._requests[request]
