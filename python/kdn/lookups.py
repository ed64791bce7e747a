"""Lookups in the background, for a scheduler that must not wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from .keys import Chunk
from .prefix_plan import Question

_log = logging.getLogger("kdn")

_BATCH_CHUNKS = 4096
"""Most chunks in one call: a fourth of what a node allows by default."""


class Lookups:
    """Asks the cluster in a thread of its own. Thread-safe.

    `look` says of each chunk whether the cluster can deliver it; it returns None when the
    cluster does not answer. One call of `look` takes all questions that wait, so that many
    questions take hardly longer than one.
    """

    def __init__(self, look: Callable[[Sequence[Chunk]], list[bool] | None]) -> None:
        self._look = look
        self._changed = threading.Condition()
        self._waiting: list[Question] = []
        self._answers: list[tuple[int, list[bool] | None]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, questions: Iterable[Question]) -> None:
        """Begins to look up. Every question gets an answer."""
        with self._changed:
            self._waiting += questions
            if self._waiting and self._thread is None and not self._start():
                refused, self._waiting = self._waiting, []
                self._answer(refused, None)
            self._changed.notify()

    def _start(self) -> bool:
        self._thread = threading.Thread(target=self._run, name="kdn-lookup", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the limit of threads is reached
            _log.warning("cannot start the thread that looks prompts up: %s; going on without the KDN", error)
            self._thread = None
        return self._thread is not None

    def take_answers(self) -> list[tuple[int, list[bool] | None]]:
        """The answers since the last call: the number of the question, and of each chunk
        whether the cluster can deliver it. None: the cluster does not answer."""
        with self._changed:
            answers, self._answers = self._answers, []
            return answers

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                batch = self._take_batch()
            found = self._found(batch)
            with self._changed:
                self._answer(batch, found)

    def _take_batch(self) -> list[Question]:
        """The first questions, with at most _BATCH_CHUNKS chunks, but at least one."""
        count, chunks = 0, 0
        for question in self._waiting:
            chunks += len(question.chunks)
            if count and chunks > _BATCH_CHUNKS:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _found(self, batch: Sequence[Question]) -> list[bool] | None:
        chunks = [chunk for question in batch for chunk in question.chunks]
        try:
            found = self._look(chunks[:_BATCH_CHUNKS])
        except Exception:  # the thread must go on
            _log.exception("looking prompts up")
            return None
        # A prompt that is longer than a batch is loaded up to there.
        return None if found is None else found + [False] * (len(chunks) - len(found))

    def _answer(self, batch: Sequence[Question], found: list[bool] | None) -> None:
        begin = 0
        for question in batch:
            end = begin + len(question.chunks)
            self._answers.append((question.number, None if found is None else found[begin:end]))
            begin = end

    def close(self) -> None:
        """Ends the thread after the lookup that it has begun."""
        with self._changed:
            self._closed = True
            self._changed.notify()
