#!/usr/bin/env python3
"""Writes small models and the logits that Hugging Face Transformers computes for them, for tests/model. Development only.

    python3 -m venv --system-site-packages venv      # on top of Debian's python3-torch (1.13)
    venv/bin/pip install transformers==4.44.2
    venv/bin/python scripts/dev/make_logit_fixture.py --out tests/model/fixtures

Each model has a directory with a checkpoint, written by `save_pretrained`, and expected.json. That file has the prompt's
tokens, the fp32 logits of the last and of a middle position, and the greedy tokens that follow. YaRN and Llama-3 scaling
need transformers >= 4.43.
"""
from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

COMMON = dict(vocab_size=96, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
              num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=95)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
TEXTS = ["The code of vault amber is 1009.", "<doc> The name Falcon means vault jade.", "", " ", "  two  spaces ", "a\tb\nc",
         "naïve café ☕ 漢字 🙂", "can't won't I'll they're", "12345 6 7.89", "<q> What is the code of vault jade?",
         "<doc><doc>x<q>", "trailing space ", "UPPER lower MiXeD", "e\u0301 vs \u00e9", "zero\u200bwidth", "a" * 100]


def cases() -> dict[str, torch.nn.Module]:
    llama = lambda **more: LlamaForCausalLM(LlamaConfig(**COMMON, **more))
    return {
        "llama_gqa": llama(tie_word_embeddings=True),
        "llama_untied": llama(tie_word_embeddings=False),
        "llama_linear": llama(rope_scaling=dict(rope_type="linear", factor=4.0)),
        "llama_llama3": llama(rope_scaling=LLAMA3, rope_theta=500000.0),
        "llama_yarn": llama(rope_scaling=dict(rope_type="yarn", factor=4.0)),
        "qwen2_bias": Qwen2ForCausalLM(Qwen2Config(**COMMON, tie_word_embeddings=True)),
    }


def expect(model: torch.nn.Module, tokens: list[int]) -> dict:
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float()
        greedy = list(tokens)
        for _ in range(8):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    middle = len(tokens) // 2
    return dict(tokens=tokens, middle=middle, logits_middle=logits[middle].tolist(), logits_last=logits[-1].tolist(),
                greedy=greedy[len(tokens):])


def write_case(name: str, model: torch.nn.Module, out: Path) -> None:
    model.eval()
    for parameter_name, parameter in model.named_parameters():
        scale = 1.0 if parameter_name.endswith("norm.weight") else 0.3  # also biases: with zeros, nothing tests them
        torch.nn.init.normal_(parameter, mean=1.0 if scale == 1.0 else 0.0, std=0.1 * scale if scale == 1.0 else scale)
    saved = model
    if name == "llama_untied":  # an fp16 file; `model` itself stays fp32, because half() would round RoPE's buffers too
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half().float())
        saved = copy.deepcopy(model).half()
    directory = out / name
    saved.save_pretrained(directory, safe_serialization=True, max_shard_size="60KB" if name == "llama_gqa" else "5GB")
    tokens = torch.randint(0, COMMON["vocab_size"] - 1, (70,), generator=torch.Generator().manual_seed(5)).tolist()
    (directory / "expected.json").write_text(json.dumps(expect(model, tokens)) + "\n")


def write_recall(out: Path, checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = LlamaForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()
    prompt = (checkpoint / "facts" / "arden.txt").read_text() + "<q> What is the code of vault elm?"
    expected = expect(model, tokenizer(prompt, add_special_tokens=False).input_ids)
    expected.pop("logits_middle")
    texts = [dict(text=t, ids=tokenizer(t, add_special_tokens=False).input_ids) for t in TEXTS]
    (out / "recall.json").write_text(json.dumps(dict(prompt=prompt, **expected, texts=texts)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recall", type=Path, default=Path("model/recall"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    for name, model in cases().items():
        write_case(name, model, args.out)
    write_recall(args.out, args.recall)


if __name__ == "__main__":
    main()
