"""Tests PrefixPlan with a small model of an engine with a paged cache."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kdn.keys import CHUNK_TOKENS, Chunk, cut_chain
from kdn.prefix_plan import PrefixPlan

BLOCK = 16


def chain_of(tokens: Sequence[int]) -> list[Chunk]:
    return cut_chain(b"f" * 32, "test", tokens)


class Held:
    """A cluster, for lookups only."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.asked = 0
        self.away = False

    def lookup(self, chunks: Sequence[Chunk]) -> list[bool] | None:
        self.asked += 1
        return None if self.away else [chunk.key in self.keys for chunk in chunks]

    def hold(self, chunks: Sequence[Chunk]) -> None:
        self.keys |= {chunk.key for chunk in chunks}


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def plan(held: Held) -> PrefixPlan:
    return PrefixPlan(chain_of, held.lookup, BLOCK)


def test_without_held_chunks_nothing_is_matched(plan: PrefixPlan) -> None:
    assert plan.matched("r", range(1000), 0) == 0
    assert plan.take_loads() == []


def test_a_prompt_shorter_than_a_chunk_is_not_looked_up(plan: PrefixPlan, held: Held) -> None:
    assert plan.matched("r", range(CHUNK_TOKENS - 1), 0) == 0
    assert held.asked == 0


def test_the_held_prefix_behind_the_computed_tokens_is_matched(plan: PrefixPlan, held: Held) -> None:
    tokens = list(range(1000))
    held.hold(chain_of(tokens)[:2])
    assert plan.matched("r", tokens, 0) == 512
    assert plan.matched("r", tokens, 128) == 384
    assert plan.matched("r", tokens, 512) == 0
    assert plan.matched("r", tokens, 640) == 0


def test_a_chunk_behind_a_gap_does_not_count(plan: PrefixPlan, held: Held) -> None:
    chain = chain_of(range(1000))
    held.hold([chain[0], chain[2]])
    assert plan.matched("r", range(1000), 0) == 256


def test_the_last_token_is_left_to_compute(plan: PrefixPlan, held: Held) -> None:
    held.hold(chain_of(range(512)))
    assert plan.matched("r", range(512), 0) == 512 - BLOCK


def test_a_load_names_the_chunks_that_cover_it(plan: PrefixPlan, held: Held) -> None:
    chain = chain_of(range(1000))
    held.hold(chain[:3])
    assert plan.matched("r", range(1000), 272) == 496
    plan.allocated("r", range(100), 496)
    (load,) = plan.take_loads()
    assert (load.begin, load.end) == (272, 768)
    assert list(load.chunks) == chain[1:3]
    assert load.blocks == tuple(range(100))
    assert plan.take_loads() == []


def test_an_allocation_without_delivered_tokens_is_no_load(plan: PrefixPlan, held: Held) -> None:
    held.hold(chain_of(range(1000))[:2])
    plan.matched("r", range(1000), 0)
    plan.allocated("r", range(100), 0)
    plan.allocated("unknown", range(100), 16)
    assert plan.take_loads() == []


def test_a_load_that_delivered_nothing_is_not_tried_again(plan: PrefixPlan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:2])
    assert plan.matched("r", tokens, 0) == 512
    plan.allocated("r", range(63), 512)
    plan.take_loads()
    assert plan.matched("r", tokens, 0) == 0, "it came back without a token"
    plan.scheduled("r", 0, 1000, range(63), anew=True)
    assert plan.matched("r", tokens, 0) == 512, "preempted: a load may work now"


def test_nothing_is_matched_or_saved_when_the_cluster_does_not_answer(plan: PrefixPlan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:1])
    held.away = True
    assert plan.matched("r", tokens, 0) == 0
    assert plan.scheduled("r", 0, 1000, range(63), anew=True) is None


def test_a_request_that_ended_is_not_loaded(plan: PrefixPlan, held: Held) -> None:
    held.hold(chain_of(range(1000))[:2])
    plan.matched("r", range(1000), 0)
    plan.allocated("r", range(100), 512)
    plan.finished("r")
    assert plan.take_loads() == []


def test_chunks_are_saved_when_their_last_token_is_computed(plan: PrefixPlan) -> None:
    tokens = range(1000)
    plan.matched("r", tokens, 0)
    assert plan.scheduled("r", 0, 200, range(13), anew=True) is None
    save = plan.scheduled("r", 200, 400, range(13, 38), anew=False)
    assert save is not None
    assert list(save.chunks) == chain_of(tokens)[:2]
    assert save.blocks == tuple(range(38))
    last = plan.scheduled("r", 600, 400, range(38, 63), anew=False)
    assert last is not None and list(last.chunks) == chain_of(tokens)[2:3]


def test_held_chunks_are_not_saved_again(plan: PrefixPlan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[1:2])
    plan.matched("r", tokens, 0)
    save = plan.scheduled("r", 0, 1000, range(63), anew=True)
    assert save is not None
    assert [chunk.begin for chunk in save.chunks] == [0, 512]


def test_generated_tokens_are_not_saved(plan: PrefixPlan) -> None:
    tokens = range(300)
    plan.matched("r", tokens, 0)
    assert plan.scheduled("r", 0, 300, range(19), anew=True) is not None
    for done in range(300, 600):
        assert plan.scheduled("r", done, 1, [], anew=False) is None


def test_a_preempted_request_saves_out_of_its_new_blocks(plan: PrefixPlan) -> None:
    tokens = range(1000)
    plan.matched("r", tokens, 0)
    plan.scheduled("r", 0, 300, range(19), anew=True)
    plan.matched("r", tokens, 0)
    save = plan.scheduled("r", 0, 520, range(100, 133), anew=True)
    assert save is not None and save.blocks == tuple(range(100, 133))


def test_kv_computed_behind_kv_that_may_be_lossy_is_not_saved(held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:1])
    plan = PrefixPlan(chain_of, held.lookup, BLOCK, exact=False)
    assert plan.matched("r", tokens, 0) == 256
    assert plan.scheduled("r", 256, 400, range(63), anew=True) is None
    assert plan.scheduled("r", 656, 344, [], anew=False) is None
    own = plan.scheduled("r", 0, 1000, range(63), anew=True)  # preempted, and computed from the first token on
    assert own is not None and [chunk.begin for chunk in own.chunks] == [256, 512]


def test_a_random_engine_loads_and_saves_each_token_once() -> None:
    """Property: the loaded and the computed tokens cover a prompt without overlap. Afterwards
    the cluster holds every whole chunk, and a second run computes only the rest."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        block = rng.choice([8, 16, 32, 128, 512])
        held = Held()
        plan = PrefixPlan(chain_of, held.lookup, block)
        tokens = [rng.randrange(100) for _ in range(rng.randrange(1, 3000))]
        held.hold([chunk for chunk in chain_of(tokens) if rng.random() < 0.5])
        for name in ("first", "second"):
            blocks = list(range(-(-len(tokens) // block)))
            local = rng.randrange(0, len(tokens)) // block * block
            delivered = plan.matched(name, tokens, local)
            assert delivered % block == 0
            plan.allocated(name, blocks, delivered)
            for load in plan.take_loads():
                assert (load.begin, load.end) == (local, local + delivered)
                assert load.chunks[0].begin <= load.begin and load.end <= load.chunks[-1].end
            done, anew = local + delivered, True
            assert done < len(tokens)
            while done < len(tokens):
                count = min(rng.randrange(1, 700), len(tokens) - done)
                save = plan.scheduled(name, done, count, blocks if anew else [], anew=anew)
                for chunk in save.chunks if save else ():
                    assert done < chunk.end <= done + count
                    assert chunk.key not in held.keys
                    held.hold([chunk])
                done, anew = done + count, False
            plan.finished(name)
            # An earlier request computed and saved the tokens in the engine's own cache.
            held.hold([chunk for chunk in chain_of(tokens) if chunk.end <= local])
        whole = [chunk for chunk in chain_of(tokens) if len(chunk.tokens) == CHUNK_TOKENS]
        assert all(chunk.key in held.keys for chunk in whole)
