#!/usr/bin/env python3
"""Measures the time to first token of Hugging Face Transformers for documents of several
lengths in the prompt: once prefilled, once served by a cluster.

    build/bin/kdn up -c configs/local-3.yaml          # in a terminal of its own
    build/venv/bin/python bench/ttft.py --json FILE --plot FILE.svg

The model is a Llama with random weights, because the time does not depend on the
weights. Decoding is greedy. Each figure is the median of several runs; each served run
begins with an empty cache in the engine. Prints one JSON object. --plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from kdn.transformers import KnowledgeBase

MODEL = Path(__file__).resolve().parents[1] / "model" / "recall"
QUESTION = "<q> What is the code of vault elm?"


def build_model() -> Any:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=2048,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=16384,
    )
    return transformers.LlamaForCausalLM(config).eval()


def measure(base: KnowledgeBase, length: int, runs: int) -> dict[str, Any]:
    tokens = base.tokens_of((MODEL / "facts" / "arden.txt").read_text(), begins=True)
    document = base.tokenizer.decode((tokens * (length // len(tokens) + 1))[:length])
    base.add("document", document)
    times: dict[bool, list[float]] = {True: [], False: []}
    answers = set()
    for _ in range(runs):
        for served in (False, True):
            answer = base.generate(QUESTION, ["document"], use_kdn=served, max_new_tokens=4)
            times[served].append(1000 * answer.time_to_first_token)
            answers.add(tuple(answer.tokens))
            assert not served or answer.delivered_tokens > 0, "the cluster did not serve"
    return {
        "tokens": len(base.tokens_of(document, begins=True)),
        "kv_mb": base.kdn.spec.kv_bytes(length) / 1e6,
        "ttft_ms_prefill": statistics.median(times[False]),
        "ttft_ms_kdn": statistics.median(times[True]),
        "same_tokens": len(answers) == 1,
    }


def plot(result: dict[str, Any], path: str) -> None:
    try:
        import matplotlib
    except ImportError:
        sys.exit("--plot needs matplotlib: build/venv/bin/pip install matplotlib 'numpy<2'")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kdn"
    from matplotlib import pyplot

    points = result["points"]
    tokens = [point["tokens"] for point in points]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, label in (("ttft_ms_prefill", "prefilled"), ("ttft_ms_kdn", "served by the KDN")):
        values = [point[name] for point in points]
        axes.plot(tokens, values, marker="o", label=label)
        axes.annotate(
            f"{values[-1]:.0f} ms",
            (tokens[-1], values[-1]),
            xytext=(-6, 6),
            textcoords="offset points",
            horizontalalignment="right",
        )
    axes.set(xscale="log", yscale="log", xlabel="tokens of the document", ylabel="time to first token, ms")
    axes.set_xticks(tokens, [str(count) for count in tokens], minor=False)
    axes.minorticks_off()
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(f"Transformers {result['transformers']}, {result['model']}", fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="unix:/tmp/kdn-local-3-n1.sock", help="gateway of a running node")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096], help="document lengths in tokens"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs per length")
    parser.add_argument("--json", help="file for the JSON object")
    parser.add_argument("--plot", help="file for a drawing of the result (svg, png)")
    arguments = parser.parse_args()

    transformers.logging.set_verbosity_error()
    model = build_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(MODEL))
    points = []
    with KnowledgeBase(model, tokenizer, arguments.address, namespace="bench-ttft") as base:
        for i, length in enumerate(arguments.lengths):
            print(f"\r{i + 1} of {len(arguments.lengths)}: {length} tokens ...", end="", file=sys.stderr, flush=True)
            points.append(measure(base, length, arguments.runs))
    print(file=sys.stderr)
    parameters = sum(weight.numel() for weight in model.parameters())
    result = {
        "benchmark": "ttft",
        "model": f"Llama of {parameters / 1e6:.0f} M parameters, fp32, {torch.get_num_threads()} threads",
        "transformers": transformers.__version__,
        "runs": arguments.runs,
        "points": points,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
