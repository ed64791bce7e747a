"""SHA-256 digests of large files, computed once per host.

A digest that took time is kept in a small file below $XDG_CACHE_HOME/kdn/sha256 (default:
~/.cache). The other processes of the host, in any language, read it there. The cache file
names the state of the hashed file: its path, device, inode, size and times. A file in
another state is hashed again. model/file_digest.h does the same for C++.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CACHED_BYTES_MIN = 64 << 20
"""Smaller files are hashed each time: this takes less than 0.1 s."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this before its hashing began is not cached: a later change
could leave the same times."""
_WAIT_MAX_S = 900.0
_BLOCK_BYTES = 4 << 20
_SAID_AFTER_S = 1.0
_SAID_EVERY_S = 10.0

_log = logging.getLogger("kdn")


def file_sha256(path: Path) -> bytes:
    """The SHA-256 of a file's bytes. The hub's cache names large files by their SHA-256,
    so these files are not read, and nobody may edit them in place. Other large files are
    read once per host."""
    target = path.resolve()
    if target.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", target.name):
        return bytes.fromhex(target.name)
    cache = _cache_directory()
    if cache is None or target.stat().st_size < CACHED_BYTES_MIN:
        return _hash(target)
    name = hashlib.sha256(os.fsencode(target)).hexdigest()
    entry = cache / f"{name}.json"
    found = _read(entry, target)
    if found is not None:
        return found
    # Of several processes that start together, one computes the digest.
    with _locked(cache / f"{name}.lock", target):
        found = _read(entry, target)
        return found if found is not None else _hash_and_keep(target, entry)


def _cache_directory() -> Path | None:
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # the XDG specification ignores relative paths
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        root = os.path.join(home, ".cache")
    return Path(root) / "kdn" / "sha256"


def _state_of(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "path": str(path),
        "device": found.st_dev,
        "inode": found.st_ino,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _read(entry: Path, target: Path) -> bytes | None:
    """The digest in a cache file; None if there is none of the file's present state."""
    try:
        kept = json.loads(entry.read_bytes())
        digest = kept.pop("sha256")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"a digest {digest!r}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s is damaged, so that %s is hashed again: %s", entry, target, error)
        return None
    return bytes.fromhex(digest) if kept == _state_of(target) else None


def _hash_and_keep(target: Path, entry: Path) -> bytes:
    state, begin = _state_of(target), time.time_ns()
    digest = _hash(target)
    changed = max(state["mtime_ns"], state["ctime_ns"])
    if _state_of(target) == state and changed < begin - SETTLED_NS:
        try:
            _write(entry, json.dumps({**state, "sha256": digest.hex()}) + "\n")
        except OSError as error:
            _log.warning("cannot keep the digest of %s: %s; the next start hashes the file again", target, error)
    return digest


def _write(entry: Path, text: str) -> None:
    # A rename is atomic: a reader finds the whole old file or the whole new one.
    handle, name = tempfile.mkstemp(dir=entry.parent, prefix=entry.name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, entry)
    except BaseException:
        os.unlink(name)
        raise


@contextlib.contextmanager
def _locked(lock: Path, target: Path) -> Iterator[None]:
    """Holds the lock of one file's digest. Goes on without the lock when the cache cannot be
    written, or when another process has held the lock for _WAIT_MAX_S seconds."""
    handle = _open(lock)
    try:
        if handle is not None:
            _wait_for(handle, target)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open(lock: Path) -> int | None:
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # _hash_and_keep says why


def _wait_for(handle: int, target: Path) -> None:
    say = _Progress(lambda: f"waiting for another process that hashes {target}")
    end = time.monotonic() + _WAIT_MAX_S
    while time.monotonic() < end:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say()
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return


class _Progress:
    """Logs a line when work takes longer than a second, and then every ten seconds."""

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._next = time.monotonic() + _SAID_AFTER_S

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            _log.warning("%s", self._line())
            self._next = time.monotonic() + _SAID_EVERY_S


def _hash(path: Path) -> bytes:
    digest, done, size = hashlib.sha256(), 0, max(path.stat().st_size, 1)
    say = _Progress(lambda: f"hashing {path}: {100 * done // size} % of {size / 1e9:.1f} GB")
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            say()
    return digest.digest()
