"""Lookups in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from kdn import lookups
from kdn.keys import Chunk, cut_chain
from kdn.lookups import Lookups
from kdn.prefix_plan import Question

CHAIN = tuple(cut_chain(b"f" * 32, "test", range(1000)))


class Slow:
    """A cluster that answers when it is allowed to."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.goes_on = threading.Semaphore(0)
        self.calls: list[int] = []

    def look(self, chunks: Sequence[Chunk]) -> list[bool] | None:
        self.calls.append(len(chunks))
        self.asked.release()
        self.goes_on.acquire(timeout=60)
        return [chunk.begin < 512 for chunk in chunks]


@pytest.fixture
def slow() -> Iterator[Slow]:
    it = Slow()
    yield it
    for _ in range(10):
        it.goes_on.release()


def answers_of(asked: Lookups, count: int) -> dict[int, list[bool] | None]:
    found: dict[int, list[bool] | None] = {}
    tick = threading.Event()
    for _ in range(3000):
        found |= dict(asked.take_answers())
        if len(found) == count:
            return found
        tick.wait(0.01)
    raise TimeoutError


def test_questions_that_wait_are_asked_together(slow: Slow) -> None:
    asked = Lookups(slow.look)
    asked.ask([Question(1, CHAIN)])
    slow.asked.acquire(timeout=60)
    assert asked.take_answers() == [], "the caller does not wait"
    asked.ask([Question(2, CHAIN[1:]), Question(3, CHAIN[:1])])
    asked.ask([Question(4, CHAIN)])
    slow.goes_on.release()
    slow.goes_on.release()
    assert answers_of(asked, 4) == {
        1: [True, True, False, False],
        2: [True, False, False],
        3: [True],
        4: [True, True, False, False],
    }
    assert slow.calls == [4, 8]
    asked.close()


def test_a_call_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "_BATCH_CHUNKS", 3)
    calls: list[int] = []

    def look(chunks: Sequence[Chunk]) -> list[bool] | None:
        calls.append(len(chunks))
        return [True] * len(chunks)

    asked = Lookups(look)
    asked.ask([Question(1, CHAIN), Question(2, CHAIN[:2]), Question(3, CHAIN[:1]), Question(4, CHAIN[:2])])
    found = answers_of(asked, 4)
    assert found[1] == [True, True, True, False], "what is not asked is not held"
    assert found[2] == [True, True] and calls == [3, 3, 2]
    asked.close()


@pytest.mark.parametrize("answer", [lambda: None, lambda: 1 / 0])
def test_a_failure_is_no_answer(answer: Callable[[], None]) -> None:
    asked = Lookups(lambda _: answer())
    for number in (1, 2):  # the thread lives on
        asked.ask([Question(number, CHAIN)])
        assert answers_of(asked, 1) == {number: None}
    asked.close()


def test_a_process_without_threads_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asked = Lookups(lambda chunks: [True] * len(chunks))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        asked.ask([Question(1, CHAIN), Question(2, CHAIN)])
        assert asked.take_answers() == [(1, None), (2, None)]
    asked.ask([Question(3, CHAIN)])
    assert answers_of(asked, 1) == {3: [True] * 4}
    asked.close()
