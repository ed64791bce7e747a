from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Cluster

_count = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes for all tests that break none of them. In a short path: a socket's
    name has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory, Cluster(Path(directory)) as running:
        yield running


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory:
        yield Path(directory)


@pytest.fixture
def namespace() -> str:
    """A tenant of its own for every test."""
    return f"test-{next(_count)}"
