"""Tests that the examples in the documentation run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import MODEL, REPO, Cluster

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("readme", ["README.md", "python/README.md"])
def test_the_five_lines(readme: str, cluster: Cluster, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [lines] = re.findall(r"```python\n(from kdn.transformers .*?)```", (REPO / readme).read_text(), re.DOTALL)
    assert len(lines.splitlines()) <= 5
    (short_path / "handbook.txt").write_text((MODEL / "facts" / "arden.txt").read_text())
    monkeypatch.chdir(short_path)
    said: list[str] = []
    exec(
        lines.replace("unix:/tmp/kdn-local-3-n1.sock", cluster.unix()),
        {
            "model": transformers.AutoModelForCausalLM.from_pretrained(str(MODEL), torch_dtype="auto").eval(),
            "tokenizer": transformers.AutoTokenizer.from_pretrained(str(MODEL)),
            "print": said.append,
        },
    )
    assert len(said) == 1 and said[0].split()


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
