"""Tests PrefixPlan with a small model of an engine with a paged cache."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kdn.keys import CHUNK_TOKENS, Chunk, cut_chain
from kdn.prefix_plan import PrefixPlan, Waits

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


class Plan(PrefixPlan):
    """A plan whose questions are answered at once. `now` is the time of every call."""

    def __init__(self, held: Held, block_size: int = BLOCK, **options: bool) -> None:
        super().__init__(chain_of, block_size, waits=Waits(0.05, 5.0), **options)
        self.held = held
        self.now = 100.0

    def match(self, request: str, prompt: Sequence[int], computed: int) -> int:
        first = self.matched(request, prompt, computed, self.now)
        for question in self.take_questions():
            self.answered(question.number, self.held.lookup(question.chunks), self.now)
        count = self.matched(request, prompt, computed, self.now)
        assert count is not None and first in (None, count)
        return count


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def plan(held: Held) -> Plan:
    return Plan(held)


def test_without_held_chunks_nothing_is_matched(plan: Plan) -> None:
    assert plan.match("r", range(1000), 0) == 0
    assert plan.take_loads() == []


def test_a_prompt_shorter_than_a_chunk_is_not_looked_up(plan: Plan, held: Held) -> None:
    assert plan.match("r", range(CHUNK_TOKENS - 1), 0) == 0
    assert held.asked == 0


def test_the_held_prefix_behind_the_computed_tokens_is_matched(plan: Plan, held: Held) -> None:
    tokens = list(range(1000))
    held.hold(chain_of(tokens)[:2])
    assert plan.match("r", tokens, 0) == 512
    assert plan.match("r", tokens, 128) == 384
    assert plan.match("r", tokens, 512) == 0
    assert plan.match("r", tokens, 640) == 0


def test_a_chunk_behind_a_gap_does_not_count(plan: Plan, held: Held) -> None:
    chain = chain_of(range(1000))
    held.hold([chain[0], chain[2]])
    assert plan.match("r", range(1000), 0) == 256


def test_the_last_token_is_left_to_compute(plan: Plan, held: Held) -> None:
    held.hold(chain_of(range(512)))
    assert plan.match("r", range(512), 0) == 512 - BLOCK


def test_a_load_names_the_chunks_that_cover_it(plan: Plan, held: Held) -> None:
    chain = chain_of(range(1000))
    held.hold(chain[:3])
    assert plan.match("r", range(1000), 272) == 496
    plan.allocated("r", range(100), 496)
    (load,) = plan.take_loads()
    assert (load.begin, load.end) == (272, 768)
    assert list(load.chunks) == chain[1:3]
    assert load.blocks == tuple(range(100))
    assert plan.take_loads() == []


def test_an_engine_may_want_fewer_tokens(plan: Plan, held: Held) -> None:
    chain = chain_of(range(1000))
    held.hold(chain[:3])
    assert plan.match("r", range(1000), 16) == 752
    plan.allocated("r", range(100), 480)
    (load,) = plan.take_loads()
    assert (load.begin, load.end) == (16, 496) and list(load.chunks) == chain[:2]


def test_an_allocation_without_delivered_tokens_is_no_load(plan: Plan, held: Held) -> None:
    held.hold(chain_of(range(1000))[:2])
    plan.match("r", range(1000), 0)
    plan.allocated("r", range(100), 0)
    plan.allocated("unknown", range(100), 0)
    assert plan.take_loads() == []


def test_a_reset_between_match_and_allocation_leaves_no_request_waiting(plan: Plan, held: Held) -> None:
    held.hold(chain_of(range(1000))[:2])
    assert plan.match("r", range(1000), 32) == 480
    plan.reset(chain_of)
    plan.allocated("r", range(100, 132), 480)
    (load,) = plan.take_loads()
    assert (load.request, load.chunks, load.begin, load.end) == ("r", (), 32, 512)


def test_a_load_that_delivered_nothing_is_not_tried_again(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:2])
    assert plan.match("r", tokens, 0) == 512
    plan.allocated("r", range(63), 512)
    plan.take_loads()
    assert plan.match("r", tokens, 0) == 0, "it came back without a token"
    save = plan.scheduled("r", 0, 1000, range(63), anew=True)
    assert save is not None and len(save.chunks) == 3, "what could not be loaded is stored again"
    plan.now += 6
    assert plan.match("r", tokens, 0) == 512, "preempted: a load may work now"


def test_nothing_is_matched_or_saved_when_the_cluster_does_not_answer(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:1])
    held.away = True
    assert plan.match("r", tokens, 0) == 0
    assert plan.scheduled("r", 0, 1000, range(63), anew=True) is None


def test_the_load_of_a_request_that_ended_delivers_nothing(plan: Plan, held: Held) -> None:
    """An engine that defers loads keeps the blocks until it hears of the load's end."""
    held.hold(chain_of(range(1000))[:2])
    plan.match("r", range(1000), 0)
    plan.allocated("r", range(100), 512)
    plan.finished("r")
    (load,) = plan.take_loads()
    assert (load.request, load.chunks, load.begin, load.end) == ("r", (), 0, 512)
    plan.finished("r")
    assert plan.take_loads() == []


def test_chunks_are_saved_when_their_last_token_is_computed(plan: Plan) -> None:
    tokens = range(1000)
    plan.match("r", tokens, 0)
    assert plan.scheduled("r", 0, 200, range(13), anew=True) is None
    save = plan.scheduled("r", 200, 400, range(13, 38), anew=False)
    assert save is not None
    assert list(save.chunks) == chain_of(tokens)[:2]
    assert save.blocks == tuple(range(38))
    last = plan.scheduled("r", 600, 400, range(38, 63), anew=False)
    assert last is not None and list(last.chunks) == chain_of(tokens)[2:3]


def test_held_chunks_are_not_saved_again(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[1:2])
    plan.match("r", tokens, 0)
    save = plan.scheduled("r", 0, 1000, range(63), anew=True)
    assert save is not None
    assert [chunk.begin for chunk in save.chunks] == [0, 512]


def test_generated_tokens_are_not_saved(plan: Plan) -> None:
    tokens = range(300)
    plan.match("r", tokens, 0)
    assert plan.scheduled("r", 0, 300, range(19), anew=True) is not None
    for done in range(300, 600):
        assert plan.scheduled("r", done, 1, [], anew=False) is None


def test_a_preempted_request_saves_out_of_its_new_blocks(plan: Plan) -> None:
    tokens = range(1000)
    plan.match("r", tokens, 0)
    plan.scheduled("r", 0, 300, range(19), anew=True)
    plan.now += 6
    plan.match("r", tokens, 0)
    save = plan.scheduled("r", 0, 520, range(100, 133), anew=True)
    assert save is not None and save.blocks == tuple(range(100, 133))


def test_kv_computed_behind_kv_that_may_be_lossy_is_not_saved(held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:1])
    plan = Plan(held, exact=False)
    assert plan.match("r", tokens, 0) == 256
    assert plan.scheduled("r", 256, 400, range(63), anew=True) is None
    assert plan.scheduled("r", 656, 344, [], anew=False) is None
    own = plan.scheduled("r", 0, 1000, range(63), anew=True)  # preempted, and computed from the first token on
    assert own is not None and [chunk.begin for chunk in own.chunks] == [256, 512]


def test_a_request_waits_for_an_answer_but_not_long(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:2])
    assert plan.matched("r", tokens, 0, 100.0) is None
    (question,) = plan.take_questions()
    assert plan.matched("r", tokens, 0, 100.049) is None and plan.take_questions() == []
    assert plan.matched("r", tokens, 0, 100.051) == 0, "it gives up"
    plan.answered(question.number, held.lookup(question.chunks), 100.06)
    assert plan.matched("r", tokens, 0, 100.07) == 512, "a late answer counts while the request is queued"


def test_a_cluster_that_does_not_answer_costs_a_request_one_wait(plan: Plan) -> None:
    tokens = range(1000)
    assert plan.matched("r", tokens, 0, 100.0) is None
    assert plan.matched("r", tokens, 0, 106.0) == 0, "asks again, without waiting"
    assert len(plan.take_questions()) == 1
    (number,) = plan._asked
    plan.answered(number, None, 106.1)
    assert plan.matched("r", tokens, 0, 106.2) == 0 and plan.take_questions() == []
    assert plan.matched("s", tokens, 0, 106.2) is None, "another request may find the cluster back"


def test_an_answer_is_remembered_but_not_for_ever(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:2])
    assert plan.match("r", tokens, 0) == 512
    for _ in range(100):
        plan.now += 0.04
        assert plan.match("r", tokens, 0) == 512
    assert held.asked == 1
    held.keys.clear()  # evicted
    plan.now += 2
    assert plan.match("r", tokens, 0) == 0 and held.asked == 2


def test_an_aborted_request_is_forgotten(plan: Plan) -> None:
    assert plan.matched("r", range(1000), 0, 100.0) is None
    (question,) = plan.take_questions()
    assert plan.matched("s", range(1000), 0, 100.0) is None
    plan.finished("r")
    plan.finished("s")
    assert plan.take_questions() == []
    plan.answered(question.number, [True] * 3, 100.01)
    assert plan._requests == {} and plan._asked == {}


def test_an_old_answer_does_not_replace_a_new_one(plan: Plan, held: Held) -> None:
    tokens = range(1000)
    plan.matched("r", tokens, 0, 100.0)
    (old,) = plan.take_questions()
    plan.matched("r", tokens, 0, 106.0)
    (new,) = plan.take_questions()
    plan.answered(new.number, [True, False, False], 106.01)
    plan.answered(old.number, [True, True, True], 106.02)
    assert plan.matched("r", tokens, 0, 106.03) == 256


def test_a_producer_loads_nothing_and_a_consumer_saves_nothing(held: Held) -> None:
    tokens = range(1000)
    held.hold(chain_of(tokens)[:1])
    producer, consumer = Plan(held, loads=False), Plan(held, saves=False)
    assert producer.match("r", tokens, 0) == 0
    save = producer.scheduled("r", 0, 1000, range(63), anew=True)
    assert save is not None and [chunk.begin for chunk in save.chunks] == [256, 512], "one chunk is held already"
    assert consumer.match("r", tokens, 0) == 256
    assert consumer.scheduled("r", 256, 744, range(63), anew=True) is None


def test_after_a_reset_nothing_old_is_loaded_or_saved(plan: Plan, held: Held) -> None:
    def other(tokens: Sequence[int]) -> list[Chunk]:
        return cut_chain(b"g" * 32, "test", tokens)

    tokens = range(1000)
    held.hold(chain_of(tokens))
    assert plan.match("loading", tokens, 0) == 768
    plan.allocated("loading", range(63), 768)
    assert plan.match("running", range(1, 1000), 0) == 0
    plan.scheduled("running", 0, 200, range(13), anew=True)
    assert plan.matched("queued", tokens, 0, plan.now) is None
    (question,) = plan.take_questions()

    plan.reset(other)
    (load,) = plan.take_loads()
    assert (load.request, load.chunks, load.begin, load.end) == ("loading", (), 0, 768), "vLLM waits for its end"
    assert plan.scheduled("running", 200, 799, range(13, 63), anew=False) is None
    plan.answered(question.number, [True] * 3, plan.now)
    for request in ("loading", "queued"):
        assert plan.match(request, tokens, 0) == 0
    save = plan.scheduled("queued", 0, 1000, range(63), anew=True)
    assert save is not None and list(save.chunks) == other(tokens)[:3]


def saved(plan: Plan, request: str, tokens: Sequence[int], computed: int, blocks: Sequence[int]) -> list[int]:
    """The beginnings of the chunks that are saved when a request is computed at once."""
    plan.match(request, tokens, computed)
    save = plan.scheduled(request, computed, len(tokens) - computed, blocks, anew=True)
    plan.finished(request)
    return [chunk.begin for chunk in save.chunks] if save else []


def test_after_a_reset_nothing_is_saved_that_old_kv_is_the_base_of(plan: Plan, held: Held) -> None:
    """The engine's own prefix cache may keep KV of the old weights: its reset may fail."""
    tokens = range(1000)
    assert saved(plan, "before", tokens, 512, range(63)) == [512], "before a reset, no KV is old"
    plan.match("running", range(5000, 6000), 0)
    plan.scheduled("running", 0, 500, range(100, 132), anew=True)
    plan.reset(chain_of)
    assert saved(plan, "hit", tokens, 512, range(63)) == []
    assert saved(plan, "hit of the hit", tokens, 960, range(63)) == []
    plan.scheduled("running", 500, 500, range(132, 163), anew=False)
    assert saved(plan, "hit of a running one", range(5000, 6000), 512, [*range(100, 132), *range(200, 231)]) == []


def test_after_a_reset_new_kv_is_saved_and_is_a_base(plan: Plan, held: Held) -> None:
    tokens = range(2000)
    plan.match("running", range(5000, 6000), 0)
    plan.scheduled("running", 0, 500, range(300, 332), anew=True)
    plan.reset(chain_of)
    assert saved(plan, "new", range(1000), 0, range(63)) == [0, 256, 512]
    assert saved(plan, "hit", tokens, 768, [*range(48), *range(100, 177)]) == [768, 1024, 1280, 1536]
    held.hold(chain_of(tokens)[:2])
    assert plan.match("loaded", tokens, 0) == 512
    plan.allocated("loaded", range(200, 325), 512)
    plan.finished("loaded")
    assert saved(plan, "hit of a load", range(700), 512, [*range(200, 232), *range(400, 412)]) == []
    assert plan.match("loaded", tokens, 0) == 512
    plan.allocated("loaded", range(200, 325), 512)
    assert len(plan.take_loads()) == 1
    save = plan.scheduled("loaded", 512, 1488, range(200, 325), anew=True)
    assert save is not None and [chunk.begin for chunk in save.chunks][:2] == [512, 768]
    # A request of the old generation computes into blocks that held new KV.
    plan.scheduled("running", 500, 500, range(31), anew=False)
    assert saved(plan, "hit of an overwritten block", tokens, 512, range(125)) == []


def test_a_random_engine_loads_and_saves_each_token_once() -> None:
    """Property: the loaded and the computed tokens cover a prompt without overlap. Afterwards
    the cluster holds every whole chunk, and a second run computes only the rest."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        block = rng.choice([8, 16, 32, 128, 512])
        held = Held()
        plan = Plan(held, block)
        tokens = [rng.randrange(100) for _ in range(rng.randrange(1, 3000))]
        held.hold([chunk for chunk in chain_of(tokens) if rng.random() < 0.5])
        for name in ("first", "second"):
            blocks = list(range(-(-len(tokens) // block)))
            local = rng.randrange(0, len(tokens)) // block * block
            delivered = plan.match(name, tokens, local)
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
