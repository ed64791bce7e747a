"""What the documentation tells people to run does run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import REPO, Cluster

pytest.importorskip("torch")
pytest.importorskip("transformers")


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_handbook(cluster: Cluster) -> None:
    said = run("python/examples/handbook.py", cluster.tcp())
    assert "What is the code of vault elm?  4171" in said
    assert "302 tokens delivered by" in said
    assert "without the KDN:  1660" in said


def test_a_missing_cluster_is_explained(short_path: Path) -> None:
    command = [sys.executable, "python/examples/handbook.py", f"unix:{short_path}/nobody.sock"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "kdn up -c configs/local-3.yaml" in done.stderr and "Traceback" not in done.stderr


def test_the_measurement_of_time_to_first_token(cluster: Cluster, short_path: Path) -> None:
    file = short_path / "ttft.json"
    said = run("bench/ttft.py", "--address", cluster.unix(), "--lengths", "300", "--runs", "1", "--json", str(file))
    result = json.loads(file.read_text())
    assert result == json.loads(said)
    [point] = result["points"]
    assert point["tokens"] == 300 and point["same_tokens"]
    assert point["ttft_ms_prefill"] > 0 and point["ttft_ms_kdn"] > 0
