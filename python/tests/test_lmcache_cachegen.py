"""bench/lmcache_cachegen.py without LMCache: what it loads, and its messages."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import REPO

sys.path.insert(0, str(REPO / "bench"))
import lmcache_cachegen

SHAPE = (2, 2, 3, 5, 4)  # [layer][K|V][head][token][dim]
BINS = {"key_bins": [32, 16], "value_bins": [16, 12]}


def request(values: torch.Tensor, **changes: Any) -> bytes:
    content = values.view(torch.uint8).numpy().tobytes()
    head = {"shape": list(SHAPE), "dtype": "bf16", **BINS, "bytes": len(content), **changes}
    return json.dumps(head).encode() + b"\n" + content


def some_kv(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(SHAPE).to(torch.bfloat16)


def halving(kv: torch.Tensor, key_bins: torch.Tensor, value_bins: torch.Tensor) -> tuple[int, torch.Tensor]:
    """A coder of KV as [layer][K|V][token][head][dim]."""
    assert kv.shape == (2, 2, 5, 3, 4)
    assert key_bins.tolist() == [32, 16] and value_bins.tolist() == [16, 12]
    return 99, kv / 2


def replies_to(requests: bytes) -> io.BytesIO:
    replies = io.BytesIO()
    lmcache_cachegen.serve(io.BytesIO(requests), replies, halving)
    replies.seek(0)
    assert json.loads(replies.readline()) == {"ready": True}
    return replies


def test_every_request_is_answered_in_its_own_layout() -> None:
    chunks = [some_kv(seed) for seed in range(3)]
    replies = replies_to(b"".join(request(chunk) for chunk in chunks))
    for chunk in chunks:
        head = json.loads(replies.readline())
        assert head == {"size": 99, "bytes": 2 * chunk.numel()}
        values = torch.frombuffer(bytearray(replies.read(head["bytes"])), dtype=torch.bfloat16)
        assert torch.equal(values.reshape(SHAPE), chunk / 2)
    assert replies.read() == b""


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2, 2, 3, 5, 5]},
        {"shape": [4, 1, 3, 5, 4]},
        {"shape": [2, 2, 60]},
        {"key_bins": [32]},
        {"value_bins": [32, 16, 12]},
        {"bytes": 0},
        {"bytes": 1 << 40},
        {"bytes": 482},
    ],
)
def test_requests_of_a_wrong_size_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(lmcache_cachegen.Failure, match=r"a request"):
        replies_to(request(some_kv(0), **changes))


class Index:
    """Stands in for pip: fetches a wheel with this content, or none."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.calls = 0

    def __call__(self, python: Path, *arguments: str) -> None:
        self.calls += 1
        folder = next(word.removeprefix("--dest=") for word in arguments if word.startswith("--dest="))
        if self.content is not None:
            (Path(folder) / lmcache_cachegen.WHEEL).write_bytes(self.content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    content = b"a wheel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lmcache_cachegen, "WHEEL_SHA256", lmcache_cachegen.hashlib.sha256(content).hexdigest())
    index = Index(content)
    monkeypatch.setattr(lmcache_cachegen, "run_pip", index)
    return index


def test_the_wheel_is_fetched_once(index: Index) -> None:
    assert lmcache_cachegen.fetched_wheel() == b"a wheel"
    assert lmcache_cachegen.fetched_wheel() == b"a wheel"
    assert index.calls == 1


def test_a_wheel_with_another_digest_is_fetched_anew(index: Index) -> None:
    lmcache_cachegen.fetched_wheel()
    (lmcache_cachegen.cache_directory() / lmcache_cachegen.WHEEL).write_bytes(b"another wheel")
    assert lmcache_cachegen.fetched_wheel() == b"a wheel"
    assert index.calls == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"another wheel", "another SHA-256"), (b"", "another SHA-256"), (None, "pip fetched nothing in place of")],
)
def test_a_wheel_that_is_not_the_pinned_one_is_never_loaded(index: Index, content: bytes | None, says: str) -> None:
    index.content = content
    with pytest.raises(lmcache_cachegen.Failure, match=says):
        lmcache_cachegen.fetched_wheel()
    assert list(lmcache_cachegen.cache_directory().iterdir()) == []


def test_a_network_that_is_not_there_is_named() -> None:
    nowhere = ("--index-url=http://127.0.0.1:9/simple", "--quiet", "--retries=1", "--timeout=2")
    with pytest.raises(lmcache_cachegen.Failure, match="cannot be reached"):
        lmcache_cachegen.run_pip(Path(sys.executable), "download", *nowhere, "no-such-package-at-all")
