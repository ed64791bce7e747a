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
    """Three nodes, shared by all tests that kill no node. Their directory has a short path,
    because a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory, Cluster(Path(directory)) as running:
        yield running


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kdn-py-") as directory:
        yield Path(directory)


@pytest.fixture
def namespace() -> str:
    """A new tenant for every test."""
    return f"test-{next(_count)}"
