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
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import capnp

from .errors import FailedPrecondition, Internal, KdnError

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
    """A background thread with an asyncio loop that KJ shares. Thread-safe."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="kdn-rpc", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.run(capnp.run(self._main()))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[Outcome[T]]:
        """Runs `work` on the loop. Cancelling the future cancels the work."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("kdn called from one of its own callbacks")
        if os.getpid() != self._pid:
            work.close()
            raise FailedPrecondition("the connection belongs to the parent process: connect again")
        return asyncio.run_coroutine_threadsafe(_contained(work), self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the loop and waits for its result."""
        future = self.submit(work)
        try:
            outcome = future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            del future
        return outcome.take()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Like `run`, for a caller on its own event loop."""
        outcome: Outcome[T] = await asyncio.wrap_future(self.submit(work))
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
        if _shared is None:
            _shared = Loop()
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    # A forked child has none of its parent's threads and needs a new loop.
    global _shared, _lock
    _shared = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
