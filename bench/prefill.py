#!/usr/bin/env python3
"""Measures how fast `kdn inject` and `kdn ask` run a model on this CPU, next to llama.cpp
with the same weights and threads.

    bench/prefill.py --model "$(scripts/model)" --json FILE

Runs `kdn bench prefill`, and then llama.cpp (llama-cpp-python from PyPI, which pip compiles
into build/bench-venv: some six minutes on two cores). llama.cpp gets the weights as GGUF in
f16 and in bf16, each with and without flash attention; the fastest of the four counts.
Prints one JSON object. When llama.cpp cannot be had, "llama_cpp" says "not measured" and why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / "build" / "bench-venv"
PACKAGES = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "ml_dtypes==0.5.4", "safetensors==0.8.0"]
DTYPES = ("f16", "bf16")

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    base = name.removesuffix(".weight")
    if base in NAMES:
        return NAMES[base] + ".weight"
    _, _, layer, rest = base.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def write_gguf(model: Path, dtype: str, path: Path) -> None:
    """Writes a Hugging Face checkpoint as GGUF. Vectors are float32, as llama.cpp wants them."""
    import gguf
    import ml_dtypes  # noqa: F401  numpy learns bfloat16 from it
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    kind = gguf.GGMLQuantizationType.F16 if dtype == "f16" else gguf.GGMLQuantizationType.BF16
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    # Only token ids are measured: llama.cpp needs some text for each.
    writer.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    writer.add_token_types([1] * config["vocab_size"])
    writer.add_token_merges(["t 1"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(model / "model.safetensors").items():
        weights = tensor.astype(np.float32)
        for part, count in heads.items():
            if part in name:  # llama.cpp rotates neighbouring rows
                rows, columns = weights.shape
                weights = weights.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2)
                weights = np.ascontiguousarray(weights.reshape(rows, columns))
        if weights.ndim == 1:
            writer.add_tensor(gguf_name(name), weights)
        else:
            writer.add_tensor(gguf_name(name), gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama_cpp(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures llama.cpp in this process. Runs in the virtual environment."""
    import llama_cpp

    threads = os.cpu_count() or 1
    tokens = [(i * 7919 + 13) % arguments.vocabulary for i in range(arguments.tokens)]
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        for dtype in DTYPES:
            path = Path(directory) / f"{dtype}.gguf"
            write_gguf(Path(arguments.model), dtype, path)
            for flash in (False, True):
                llama = llama_cpp.Llama(
                    str(path),
                    n_ctx=arguments.tokens + arguments.decoded + 64,
                    n_batch=arguments.tokens,
                    n_ubatch=512,
                    n_threads=threads,
                    n_threads_batch=threads,
                    flash_attn=flash,
                    verbose=False,
                )
                prefill, decode, behind = [], [], []
                for _ in range(arguments.rounds):
                    for text, rates in ((tokens[:16], decode), (tokens, behind)):
                        llama.reset()
                        begin = time.perf_counter()
                        llama.eval(text)
                        if rates is behind:
                            prefill.append(len(text) / (time.perf_counter() - begin))
                        begin = time.perf_counter()
                        for _ in range(arguments.decoded):
                            llama.eval([1])
                        rates.append(arguments.decoded / (time.perf_counter() - begin))
                runs.append(
                    {
                        "dtype": dtype,
                        "flash_attention": flash,
                        "prefill_tokens_per_s": statistics.median(prefill),
                        "decode_tokens_per_s": statistics.median(decode),
                        "decode_behind_text_tokens_per_s": statistics.median(behind),
                    }
                )
                llama.close()
    rates = ("prefill_tokens_per_s", "decode_tokens_per_s", "decode_behind_text_tokens_per_s")
    best = {rate: max(run[rate] for run in runs) for rate in rates}
    return {"version": f"llama-cpp-python {llama_cpp.__version__}", "threads": threads, **best, "runs": runs}


def last_line(error: subprocess.CalledProcessError) -> str:
    lines = (error.stderr or error.stdout or "").strip().splitlines()
    return lines[-1] if lines else f"exit code {error.returncode}"


def measure_llama_cpp(arguments: argparse.Namespace, vocabulary: int) -> dict[str, Any] | str:
    def run(*command: str | Path) -> str:
        return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True).stdout

    try:
        if not (VENV / "bin" / "python").exists():
            run(sys.executable, "-m", "venv", VENV)
        print("installing llama.cpp (compiles it, unless it is there) ...", file=sys.stderr)
        run(VENV / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES)
        print("measuring llama.cpp ...", file=sys.stderr)
        figures = run(
            VENV / "bin" / "python",
            __file__,
            "--in-venv",
            *("--model", arguments.model, "--tokens", str(arguments.tokens)),
            *("--rounds", str(arguments.rounds), "--vocabulary", str(vocabulary)),
        )
        return json.loads(figures)
    except subprocess.CalledProcessError as error:
        return f"not measured: {last_line(error)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face checkpoint directory of a Llama")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the text that is prefilled")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of measurements")
    parser.add_argument("--json", help="file for the JSON object")
    parser.add_argument("--in-venv", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--decoded", type=int, default=64, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_venv:
        print(json.dumps(run_llama_cpp(arguments)))
        return
    kdn = ROOT / "build" / "bin" / "kdn"
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [kdn, "bench", "prefill", "--model", arguments.model, "--json", file.name]
        command += ["--tokens", str(arguments.tokens), "--rounds", str(arguments.rounds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(file.name).read_text())
    vocabulary = json.loads((Path(arguments.model) / "config.json").read_text())["vocab_size"]
    result["llama_cpp"] = measure_llama_cpp(arguments, vocabulary)
    if isinstance(result["llama_cpp"], dict):
        for rate in ("prefill_tokens_per_s", "decode_tokens_per_s", "decode_behind_text_tokens_per_s"):
            result[f"{rate.removesuffix('_tokens_per_s')}_over_llama_cpp"] = result[rate] / result["llama_cpp"][rate]
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
