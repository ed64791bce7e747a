"""The thread on which all Cap'n Proto objects live.

A pycapnp object belongs to the event loop it was made on, and must be destroyed there:
KJ ends the process when one is destroyed on another thread. One background thread per
process owns that loop and every connection. Callers on any thread, blocking or asyncio,
give it coroutines and get back values and errors that refer to no Cap'n Proto object.
An engine may therefore use any event loop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

import capnp

from .errors import Cancelled, FailedPrecondition, Internal, KdnError, ResourceExhausted

T = TypeVar("T")


class Outcome(Generic[T]):
    """The result of work on the loop: a value, or an error to raise. Neither refers to
    a frame of the loop's thread."""

    def __init__(self, value: T | None, error: BaseException | None) -> None:
        self._value = value
        self._error = error

    def take(self) -> T:
        """Returns the value or raises the error."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # the error's traceback refers to this frame
        return self._value  # type: ignore[return-value]


def _bare(error: BaseException) -> BaseException:
    """A copy of the error for another thread. Frees here all that its frames referred to."""
    seen: list[BaseException] = []
    rest: list[BaseException | None] = [error]
    while rest:
        each = rest.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        rest += [each.__context__, each.__cause__]
    text = "" if isinstance(error, KdnError) else "".join(traceback.format_exception(error))
    for each in seen:
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = each.__context__ = each.__cause__ = None
    if isinstance(error, KdnError):
        bare = type(error)(*error.args)
        bare.code = error.code  # differs from the class for a status without its own class
        return bare
    return Internal(f"a bug in the kdn package:\n{text}")


async def _contained(work: Coroutine[Any, Any, T]) -> Outcome[T]:
    try:
        return Outcome(await work, None)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Outcome(None, _bare(error))


class Loop:
    """A background thread with an asyncio loop that KJ shares. Thread-safe. The
    constructor raises ResourceExhausted when the thread or its loop cannot start, for
    instance because the process has no file descriptor left."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._settled = threading.Event()  # the loop runs, or could not start
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._running = False
        self._why: BaseException | None = None  # why the loop ended
        self._unanswered: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="kdn-rpc", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the limit of threads is reached
            raise ResourceExhausted(f"cannot start the thread of the KDN's connections: {error}") from None
        self._settled.wait()
        if not self._running:
            raise ResourceExhausted(f"cannot start the event loop of the KDN's connections: {self._why}")

    @property
    def ended(self) -> bool:
        """Whether the loop has ended, so that no work can run on it."""
        return not self._running

    def _run(self) -> None:
        main = self._main()
        try:
            asyncio.run(capnp.run(main))
        except BaseException as error:
            self._why = error
        finally:
            main.close()
            self._running = False
            self._settled.set()
            for future in list(self._unanswered):
                future.cancel()  # work that came after the loop's last turn

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._running = True
        self._settled.set()
        await self._stop.wait()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[Outcome[T]]:
        """Runs `work` on the loop. Cancelling the future cancels the work."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("kdn called from one of its own callbacks")
        if os.getpid() != self._pid:
            work.close()
            raise FailedPrecondition("the connection belongs to the parent process: connect again")
        contained = _contained(work)
        try:
            future = asyncio.run_coroutine_threadsafe(contained, self._loop)
        except RuntimeError:  # the loop is closed
            contained.close()
            work.close()
            raise FailedPrecondition("the thread of the KDN's connections has ended: connect again") from None
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        if self.ended:
            future.cancel()
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the loop and waits for its result."""
        future = self.submit(work)
        try:
            outcome = future.result()
        except CancelledError:
            raise Cancelled("the thread of the KDN's connections ended during the call") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            del future
        return outcome.take()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Like `run`, for a caller on its own event loop."""
        try:
            outcome: Outcome[T] = await asyncio.wrap_future(self.submit(work))
        except asyncio.CancelledError:
            if self.ended:
                raise Cancelled("the thread of the KDN's connections ended during the call") from None
            raise
        return outcome.take()

    def post(self, call: Callable[[], object], delay: float = 0.0) -> None:
        """Runs `call` on the loop after `delay` seconds; does nothing when the loop has
        ended. Takes no lock, so that finalizers may call it."""
        if os.getpid() != self._pid:
            return
        with contextlib.suppress(RuntimeError):
            if delay > 0:
                self._loop.call_soon_threadsafe(self._loop.call_later, delay, call)
            else:
                self._loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Ends the loop and everything on it."""
        self.post(self._stop.set)
        self._thread.join(timeout=5)


_lock = threading.Lock()
_shared: Loop | None = None


def shared_loop() -> Loop:
    """The process' loop, which starts with the first use."""
    global _shared
    with _lock:
        if _shared is None or _shared.ended:
            _shared = Loop()
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    # A forked child has none of its parent's threads and needs a new loop.
    global _shared, _lock
    _shared = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
