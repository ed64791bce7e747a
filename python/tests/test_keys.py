"""Keys must be the same in every client and language."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

import kdn
from cluster import MODEL, REPO
from kdn.config_digest import IGNORED, config_digest
from kdn.digest import Digest
from kdn.keys import check_namespace, chunk_key, cut_chain, fingerprint_of
from kdn.model import RopeSpec, file_sha256


def test_golden_vectors_are_those_of_the_cpp_side() -> None:
    test = (REPO / "tests/kv/golden_vectors_test.cc").read_text()
    labels = re.findall(r'label, "([a-z-]+)"', test)
    keys = re.findall(r'"([0-9a-f]{64})"', test)
    assert len(labels) == 3
    assert {label: key.hex() for label, key in kdn.golden_vectors().items()} == dict(zip(labels, keys))


def test_chains_of_the_cpp_side_are_cut_alike() -> None:
    vectors = json.loads((REPO / "tests/kv/chain_vectors.json").read_text())
    assert len(vectors) >= 3
    for vector in vectors:
        rope = RopeSpec(**vector["model"].pop("rope"))
        model = kdn.ModelSpec(rope=rope, **vector["model"])
        assert fingerprint_of(model).hex() == vector["fingerprint"]
        made = vector["tokens"]
        tokens = [i * made["multiplier"] % made["modulus"] for i in range(made["count"])]
        chain = cut_chain(fingerprint_of(model), vector["namespace"], tokens)
        assert [chunk.key.hex() for chunk in chain] == vector["keys"]


def test_a_chain_covers_every_token_once() -> None:
    for length in (1, 255, 256, 257, 5000):
        chain = cut_chain(bytes(32), "t", range(length))
        assert [t for chunk in chain for t in chunk.tokens] == list(range(length))
        assert [p for chunk in chain for p in chunk.positions] == list(range(length))
        assert all(a.key == b.condition for a, b in itertools.pairwise(chain))
        assert [chunk.depth for chunk in chain] == list(range(len(chain)))
        assert len({chunk.key[:8] for chunk in chain}) == -(-len(chain) // 16)


def test_everything_counts_in_a_key() -> None:
    keys = {
        chunk_key(bytes(32), "a", [1, 2]),
        chunk_key(bytes(31) + b"x", "a", [1, 2]),
        chunk_key(bytes(32), "b", [1, 2]),
        chunk_key(bytes(32), "a", [1, 3]),
        chunk_key(bytes(32), "a", [1, 2], condition=bytes(31) + b"x"),
        chunk_key(bytes(32), "a", [1, 2], variant="notes"),
        chunk_key(bytes(32), "a", [1, 2], condition=bytes(31) + b"x", depth=1),
    }
    assert len(keys) == 7


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "tenant/1", "ä"])
def test_invalid_namespaces_are_refused(name: str) -> None:
    with pytest.raises(kdn.InvalidArgument, match="namespace"):
        check_namespace(name)


@pytest.mark.parametrize("tokens", [[], [-1], [1 << 31], [0] * 4097])
def test_invalid_chunks_are_refused(tokens: list[int]) -> None:
    with pytest.raises(kdn.InvalidArgument):
        chunk_key(bytes(32), "t", tokens)


def test_old_and_new_configs_are_one_model() -> None:
    common = {
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "hidden_size": 256,
        "max_position_embeddings": 8192,
    }
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 4096
    old = kdn.ModelSpec.from_config(
        {**common, "rope_theta": 5e5, "rope_scaling": scaling}, weights_digest="w", tokenizer_digest="t"
    )
    new = kdn.ModelSpec.from_config(
        {**common, "rope_parameters": {"rope_theta": 5e5, **scaling}}, weights_digest="w", tokenizer_digest="t"
    )
    assert old == new
    assert old.name == ""
    assert old.head_dim == 32
    assert old.rope.scaling == "llama3"


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_rotations_that_the_kdn_does_not_compute_are_refused(change: dict[str, object]) -> None:
    config = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 64, **change}
    with pytest.raises(kdn.Unimplemented):
        kdn.ModelSpec.from_config(config, weights_digest="w", tokenizer_digest="t")


def test_config_digests_are_those_of_the_cpp_side() -> None:
    vectors = json.loads((REPO / "tests/model/config_vectors.json").read_text())
    assert len(vectors) >= 20
    for vector in vectors:
        assert config_digest(vector["config"]) == vector["config_digest"], vector["name"]
        spec = kdn.ModelSpec.from_config(vector["config"], weights_digest="w", tokenizer_digest="t")
        assert spec.weights_digest == vector["weights_digest"], vector["name"]


def test_the_list_of_fields_that_do_not_count_is_that_of_the_cpp_side() -> None:
    text = (REPO / "model/config_digest.cc").read_text()
    body = text[text.index("Names& Ignored()") : text.index("Names& Sliding()")]
    assert set(re.findall(r'"(\w{2,})"', body)) == IGNORED


def other(value: Any) -> Any:
    """A value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value} "


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_field_counts_unless_it_cannot_matter(kind: str) -> None:
    config: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": None,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "a_field_of_tomorrow": 1.0,
    }

    def spec(fields: dict[str, Any]) -> kdn.ModelSpec:
        return kdn.ModelSpec.from_config(fields, weights_digest="w", tokenizer_digest="t")

    whole = fingerprint_of(spec(config))
    for name in set(config) - {"model_type", "sliding_window"}:
        assert fingerprint_of(spec({**config, name: other(config[name])})) != whole, name
    for name in IGNORED:
        if name not in spec_fields(config):
            assert fingerprint_of(spec({**config, name: 7})) == whole, name
    assert fingerprint_of(spec({**config, "_private": 7})) == whole
    assert fingerprint_of(spec({**config, "a_field_of_tomorrow": 1})) == whole, "1 and 1.0 are one number"


def spec_fields(config: dict[str, Any]) -> set[str]:
    """Fields that do not count in the config's digest, because the ModelSpec has them."""
    return {*config, *"model_type layer_types rope_theta rope_scaling rope_parameters partial_rotary_factor".split()}


def test_a_config_that_cannot_be_digested_is_typed() -> None:
    config = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 64}
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for bad in ({"deep": deep}, {"text": "\ud800"}, {"number": 10**400}, {"rope_scaling": "linear"}):
        with pytest.raises(kdn.InvalidArgument, match="config"):
            kdn.ModelSpec.from_config({**config, **bad}, weights_digest="w", tokenizer_digest="t")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mistral"},
        {"model_type": "mistral", "sliding_window": 64},
        {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True},
        {"model_type": "llama", "layer_types": ["sliding_attention"]},
    ],
)
def test_sliding_windows_are_refused(change: dict[str, Any]) -> None:
    config = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 64, **change}
    with pytest.raises(kdn.Unimplemented, match="sliding"):
        kdn.ModelSpec.from_config(config, weights_digest="w", tokenizer_digest="t")


def test_a_hub_cache_is_known_by_its_file_names(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    name = "ab" * 32
    (blobs / name).write_bytes(b"never read")
    (tmp_path / "model.safetensors").symlink_to(blobs / name)
    assert file_sha256(tmp_path / "model.safetensors").hex() == name


def test_a_directory_that_is_no_checkpoint_is_typed(tmp_path: Path) -> None:
    def read() -> None:
        with pytest.raises(kdn.InvalidArgument):
            kdn.ModelSpec.from_directory(tmp_path / "model")

    read()
    (tmp_path / "model").mkdir()
    config = tmp_path / "model" / "config.json"
    for text in ("{", "{}", json.dumps({"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 64})):
        config.write_text(text)
        read()
    index = tmp_path / "model" / "model.safetensors.index.json"
    for text in (
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "no.safetensors"}}',
    ):
        index.write_text(text)
        read()
    index.write_bytes(b"\xff")
    read()
    config.write_bytes(b"\xff")
    read()


def test_the_shipped_model_is_read() -> None:
    model = kdn.ModelSpec.from_directory(MODEL)
    assert (model.num_layers, model.num_kv_heads, model.head_dim) == (4, 2, 32)
    assert model.kv_bytes(256) == 4 * 2 * 2 * 256 * 32 * 2
    assert model.name == MODEL.name


def test_digests_of_different_fields_differ() -> None:
    assert Digest("d").text("ab").text("c").finish() != Digest("d").text("a").text("bc").finish()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", "many"),
        ("num_attention_heads", 0),
        ("num_attention_heads", None),
        ("num_hidden_layers", 2.5),
        ("num_hidden_layers", True),
        ("num_key_value_heads", -1),
        ("num_key_value_heads", [2]),
        ("head_dim", float("inf")),
        ("head_dim", {"a": 1}),
        ("hidden_size", "wide"),
        ("hidden_size", None),
        ("max_position_embeddings", "long"),
        ("rope_theta", "fast"),
        ("rope_theta", float("nan")),
        ("rope_scaling", {"rope_type": "linear", "factor": "two"}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 2, "low_freq_factor": []}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2, "beta_fast": "x"}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": "x"}),
        ("sliding_window", "wide"),
        ("layer_types", 7),
        ("layer_types", [{}]),
        ("architectures", {"a": 1}),
    ],
)
def test_a_malformed_field_of_a_config_is_named(key: str, value: Any) -> None:
    named = list(value)[-1] if key == "rope_scaling" else key
    config: dict[str, Any] = {
        "architectures": ["MistralForCausalLM"],
        "num_attention_heads": 8,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 64,
        "sliding_window": 64,
    }
    kdn.ModelSpec.from_config(config, weights_digest="w", tokenizer_digest="t")
    with pytest.raises(kdn.InvalidArgument, match=named):
        kdn.ModelSpec.from_config({**config, key: value}, weights_digest="w", tokenizer_digest="t")
