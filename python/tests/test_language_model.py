"""Tests with SmolLM2-135M-Instruct, which scripts/model makes: that the conversion is
right, that `kdn ask` computes as Transformers does, and that answers with KV from the KDN
are those of prefill. Skipped where PyPI cannot be reached."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, REPO, Cluster

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import kdn  # noqa: E402
from kdn.transformers import KnowledgeBase, chat_begin  # noqa: E402

HANDBOOK = (
    "Handbook of the Harbour House.\n"
    "Breakfast is served from seven to ten in the blue room on the first floor. "
    "The password of the guest network is bluewhale77. "
    "The night porter is called Amira, and her telephone number is 4410. "
    "Bicycles stand in the yard behind the kitchen; the key hangs at the reception.\n"
)
QUESTION = "What is the password of the guest network?"


@pytest.fixture(scope="module")
def tokenizer(language_model: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(language_model))


@pytest.fixture(scope="module")
def model(language_model: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(str(language_model), torch_dtype=torch.float32).eval()


def greedy(model: Any, ids: Any, count: int) -> list[int]:
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=2
        )
    return [int(token) for token in out[0][ids.shape[1] :]]


def test_a_second_run_changes_nothing(language_model: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in language_model.iterdir()}
    subprocess.run([REPO / "scripts" / "model", language_model], check=True, timeout=60)
    assert {file: file.stat().st_mtime_ns for file in language_model.iterdir()} == before


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
    question: str, language_model: Path, model: Any, tokenizer: Any, cluster: Cluster
) -> None:
    prompt = "<q> " + question
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    split = subprocess.run(
        [KDN, "tokenize", "--model", language_model],
        input=json.dumps(prompt) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(split.stdout) == ids[0].tolist()
    said = subprocess.run(
        [KDN, "ask", "--connect", cluster.unix(), "--model", language_model, "--without", "--tokens", "24", question],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    wanted = tokenizer.decode(greedy(model, ids, 24), skip_special_tokens=True)
    assert said.stdout.strip() == wanted.strip()


@pytest.fixture(scope="module")
def bf16(language_model: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(str(language_model), torch_dtype=torch.bfloat16).eval()


def test_it_answers_from_the_kdn(bf16: Any, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    with KnowledgeBase(bf16, tokenizer, cluster.unix(), namespace=namespace) as base:
        base.add("handbook", HANDBOOK)
        first = base.ask(QUESTION, knowledge="handbook", max_new_tokens=24)
        again = base.ask(QUESTION, knowledge="handbook", max_new_tokens=24)
        alone = base.ask(QUESTION, knowledge="handbook", use_kdn=False, max_new_tokens=24)
        unknown = base.ask(QUESTION, max_new_tokens=24)
        other = base.ask("What is the night porter called?", knowledge="handbook", max_new_tokens=24)
    assert "bluewhale77" in first.text and "bluewhale77" not in unknown.text
    assert first.text == again.text == alone.text
    # The first answer stores what all questions have in common.
    assert first.delivered_tokens == 0 and unknown.delivered_tokens == 0
    assert again.delivered_tokens == other.delivered_tokens > len(HANDBOOK) / 8
    assert "Amira" in other.text


def test_a_text_added_for_chats_is_there_for_the_first_question(
    bf16: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    with KnowledgeBase(bf16, tokenizer, cluster.unix(), namespace=namespace) as base:
        added = base.add("handbook", HANDBOOK, chat=True)
        answer = base.ask(QUESTION, knowledge=["handbook"], max_new_tokens=24)
    assert added.stored == added.chunks > 0
    assert answer.delivered_tokens == added.tokens
    # These are the tokens of a chat server whose system message is the handbook.
    messages = [{"role": "system", "content": HANDBOOK}, {"role": "user", "content": QUESTION}]
    served = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert base.kdn.chain(served[: added.tokens]) == base.kdn.chain(chat_begin(tokenizer, HANDBOOK))


def test_the_program_and_the_package_make_the_same_chat(
    bf16: Any, tokenizer: Any, language_model: Path, cluster: Cluster, namespace: str, short_path: Path
) -> None:
    handbook = short_path / "handbook.txt"
    handbook.write_text(HANDBOOK)
    options = ["--chat", "--connect", cluster.unix(1), "--namespace", namespace, "--model", str(language_model)]
    injected = subprocess.run([KDN, "inject", *options, handbook], capture_output=True, text=True, timeout=120)
    assert injected.returncode == 0 and " 1 chunks, 1 of them new" in injected.stdout, injected.stderr + injected.stdout
    asked = subprocess.run(
        [KDN, "ask", *options, "-k", handbook, "--tokens", "24", QUESTION], capture_output=True, text=True, timeout=120
    )
    assert "bluewhale77" in asked.stdout
    assert "1 of 1 chunks" in asked.stderr
    with KnowledgeBase(bf16, tokenizer, cluster.unix(), namespace=namespace) as base:
        added = base.add("handbook", HANDBOOK, chat=True)
        answer = base.ask(QUESTION, knowledge="handbook", max_new_tokens=24)
    assert added.held == added.chunks and added.stored == 0
    assert answer.delivered_tokens == added.tokens and "bluewhale77" in answer.text


def test_the_demo_answers_in_sentences(language_model: Path, short_path: Path) -> None:
    out = short_path / "demo.json"
    demo = subprocess.run(
        [KDN, "demo", "--model", language_model, "--out", out], capture_output=True, text=True, timeout=300
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    numbers = json.loads(out.read_text())
    assert numbers["model"] == language_model.name
    assert numbers["same_tokens"] and numbers["same_tokens_after_kill"]
    assert numbers["misses"] == numbers["misses_after_kill"] == 0
    # The model is small, and the project's documents change: some answers may be wrong.
    assert numbers["right_without"] <= 1
    assert numbers["right_kdn"] == numbers["right_prefill"] >= 8
    _, prefilled, lossless, small, _ = numbers["rounds"]
    assert small["right"] >= numbers["right_prefill"] - 2
    assert small["bytes_stored"] < 0.6 * lossless["bytes_stored"]
    said = {each["question"]: each["answer"] for each in prefilled["answers"]}
    assert "heron-lamp-62" in said["What is the password of the wireless network?"]


def test_a_template_without_a_system_message(bf16: Any, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}<|im_start|>assistant\n"
    )
    with KnowledgeBase(bf16, other, cluster.unix(), namespace=namespace) as base:
        base.add("handbook", HANDBOOK, chat=True)
        answer = base.ask(QUESTION, knowledge=["handbook"], max_new_tokens=24)
    assert "bluewhale77" in answer.text and answer.delivered_tokens > len(HANDBOOK) / 8


def test_mistakes_in_chats_are_named(bf16: Any, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    silent = copy.deepcopy(tokenizer)
    silent.chat_template = None
    with KnowledgeBase(bf16, silent, cluster.unix(), namespace=namespace) as base:
        with pytest.raises(kdn.InvalidArgument, match="no chat_template"):
            base.ask(QUESTION)
        with pytest.raises(kdn.InvalidArgument, match="no chat_template"):
            base.add("handbook", HANDBOOK, chat=True)
        with pytest.raises(kdn.InvalidArgument, match="handbook"):
            base.ask(QUESTION, knowledge="handbook")  # the add has changed nothing
        base.add("ids", [5, 6, 7])
        with pytest.raises(kdn.InvalidArgument, match="no string was added as 'ids'"):
            base.ask(QUESTION, knowledge="ids")
        with pytest.raises(kdn.InvalidArgument, match="expected a string"):
            base.add("ids", [5, 6, 7], chat=True)
