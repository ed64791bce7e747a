"""Large files are hashed once per host, by Python or C++."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import kdn
from cluster import KDN, MODEL, Cluster
from kdn import file_digest
from kdn.file_digest import CACHED_BYTES_MIN, file_sha256


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kdn" / "sha256"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing begins a minute after the files have changed."""
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 60_000_000_000)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed."""
    files: list[Path] = []
    whole = file_digest._hash

    def count(path: Path) -> bytes:
        files.append(path)
        return whole(path)

    monkeypatch.setattr(file_digest, "_hash", count)
    return files


def large(path: Path, begin: bytes = b"") -> tuple[Path, bytes]:
    """A file that is just large enough for the cache, and its digest."""
    path.write_bytes(begin)
    os.truncate(path, CACHED_BYTES_MIN)
    return path, hashlib.sha256(path.read_bytes()).digest()


def test_a_large_file_is_hashed_once(tmp_path: Path, cache: Path, later: None, hashed: list[Path]) -> None:
    path, digest = large(tmp_path / "weights")
    assert [file_sha256(path) for _ in range(3)] == [digest] * 3
    assert len(hashed) == 1
    [entry] = cache.glob("*.json")
    assert json.loads(entry.read_text())["sha256"] == digest.hex()
    assert list(cache.glob("*.json?*")) == [], "no temporary file is left"


def test_a_changed_file_is_hashed_again(tmp_path: Path, later: None, hashed: list[Path]) -> None:
    path, digest = large(tmp_path / "weights")
    assert file_sha256(path) == digest
    state = path.stat()
    _, other = large(path, b"x")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a copy that keeps times
    assert file_sha256(path) == other != digest
    assert len(hashed) == 2


def test_a_file_that_has_just_changed_is_not_cached(tmp_path: Path, cache: Path, hashed: list[Path]) -> None:
    path, digest = large(tmp_path / "weights")
    assert file_sha256(path) == file_sha256(path) == digest
    assert len(hashed) == 2 and list(cache.glob("*.json")) == []


def test_a_file_that_changes_while_it_is_hashed_is_not_cached(
    tmp_path: Path, cache: Path, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = large(tmp_path / "weights")

    def change(target: Path) -> bytes:
        large(target, b"x")
        return bytes(32)

    monkeypatch.setattr(file_digest, "_hash", change)
    assert file_sha256(path) == bytes(32)
    assert list(cache.glob("*.json")) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"sha256": 7}', '{"sha256": "0123"}', '{"path": "x"}'])
def test_a_damaged_entry_is_hashed_again(
    text: str, tmp_path: Path, cache: Path, later: None, hashed: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    path, digest = large(tmp_path / "weights")
    file_sha256(path)
    [entry] = cache.glob("*.json")
    entry.write_text(text)
    assert file_sha256(path) == digest and len(hashed) == 2
    assert "is damaged" in caplog.text
    assert file_sha256(path) == digest and len(hashed) == 2


def test_a_cache_that_cannot_be_written_is_left_out(
    tmp_path: Path, later: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = large(tmp_path / "weights")
    (tmp_path / "cache").write_text("a file")
    assert file_sha256(path) == digest
    assert "cannot keep the digest" in caplog.text
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert file_sha256(path) == digest


def test_one_of_several_hashes_and_the_others_wait(tmp_path: Path, later: None, hashed: list[Path]) -> None:
    path, digest = large(tmp_path / "weights")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(file_sha256(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [digest] * 4
    assert len(hashed) == 1


def test_long_work_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digest, "_SAID_AFTER_S", 0.0)
    path, _ = large(tmp_path / "weights")
    file_sha256(path)
    assert "% of 0.1 GB" in caplog.text and caplog.text.count("hashing") == 1


def test_kdn_reads_the_cache_too(cluster: Cluster, namespace: str, short_path: Path, cache: Path) -> None:
    checkpoint = short_path / "model"
    shutil.copytree(MODEL, checkpoint, ignore=shutil.ignore_patterns("facts"))
    os.truncate(checkpoint / "model.safetensors", CACHED_BYTES_MIN)
    path = (checkpoint / "model.safetensors").resolve()
    cache.mkdir(parents=True)
    # Nobody who reads the file itself computes this digest.
    kept = {**file_digest._state_of(path), "sha256": "ab" * 32}
    (cache / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json").write_text(json.dumps(kept))
    file = MODEL / "facts" / "arden.txt"
    command: list[Any] = [KDN, "inject", "--connect", cluster.unix(), "--namespace", namespace, "--model", checkpoint]
    subprocess.run([*command, file], check=True, timeout=120, capture_output=True)
    spec = kdn.ModelSpec.from_directory(checkpoint)
    with kdn.Client(cluster.unix()) as client:
        stored = int(client.open(namespace, spec).lookup(chain_of(file, client.open(namespace, spec)))[0].hit)
        assert stored == 1


def chain_of(file: Path, knowledge: kdn.Knowledge) -> list[kdn.Chunk]:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    return knowledge.chain(tokenizer.encode(file.read_text(), add_special_tokens=False).ids)
