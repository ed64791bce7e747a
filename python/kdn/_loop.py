"""The thread on which all Cap'n Proto lives.

pycapnp's objects belong to the event loop they were made on. One background thread
per process owns that loop and every connection; blocking and asyncio callers of any
thread hand it coroutines. So an engine's own event loop, whichever it is, neither
runs nor waits for ours.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import capnp

T = TypeVar("T")


class Loop:
    """A background thread with an asyncio loop that KJ shares. Thread-safe."""

    def __init__(self) -> None:
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

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs `work` on the loop. Cancelling the future cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("kdn called from one of its own callbacks")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the loop and waits for its result."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def post(self, call: Callable[[], object]) -> None:
        """Runs `call` on the loop, later; forgotten once the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Ends the loop and everything on it."""
        self.post(self._stop.set)
        self._thread.join(timeout=5)


_lock = threading.Lock()
_shared: Loop | None = None


def shared_loop() -> Loop:
    """The process' loop, begun with the first use."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Loop()
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    # A forked child has none of the parent's threads: it begins anew.
    global _shared, _lock
    _shared = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
