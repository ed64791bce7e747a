"""The digest of a model's config: everything in config.json that decides how KV is computed.

A model's identity is the digest of its weights together with this digest. Every field of
a config counts, known or unknown, except those in `IGNORED`. The C++ side computes the
same digest (model/config_digest.h), and kdn.capnp describes the bytes that are hashed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .digest import Digest
from .errors import InvalidArgument, Unimplemented

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""The supported values of model_type. Other models may rotate, scale or cache KV in
another way."""

IGNORED = frozenset(
    # Fields that are in the ModelSpec itself. model_type counts under its own name. Only
    # full attention is accepted, so layer_types says nothing more.
    "model_type torch_dtype dtype num_hidden_layers num_key_value_heads head_dim rope_theta rope_scaling "
    "rope_parameters partial_rotary_factor max_position_embeddings layer_types "
    # Names and origins. model_type names the computation, and architectures the class of
    # the whole model with its output head.
    "architectures transformers_version name_or_path finetuning_task task_specific_params problem_type id2label "
    "label2id num_labels tokenizer_class prefix "
    # Ids of special tokens. KV is computed of the token ids that a prompt really has.
    "bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id forced_bos_token_id "
    "forced_eos_token_id suppress_tokens begin_suppress_tokens "
    # What a call returns, and the output head behind the last layer.
    "use_cache return_dict return_dict_in_generate output_attentions output_hidden_states output_scores torchscript "
    "tf_legacy_loss use_bfloat16 tie_word_embeddings "
    # How tokens are chosen from the logits.
    "max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k "
    "top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size "
    "bad_words_ids num_return_sequences remove_invalid_values exponential_decay_length_penalty "
    # Training. spec_of refuses a model in training mode that has a dropout.
    "initializer_range attention_dropout gradient_checkpointing "
    # The order of sums: the results differ by rounding, as between engines.
    "attn_implementation pretraining_tp chunk_size_feed_forward".split()
)
"""The fields that do not count. Fields whose name begins with "_" do not count either:
they are private to Transformers."""

_DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
"""The values of fields that a config leaves out, in all supported architectures."""
_SLIDING = ("sliding_window", "use_sliding_window", "max_window_layers")
_ROPE_KNOWN = frozenset(
    "rope_type type factor low_freq_factor high_freq_factor original_max_position_embeddings beta_fast beta_slow "
    "attention_factor mscale mscale_all_dim truncate rope_theta partial_rotary_factor".split()
)
"""Fields of rope_scaling that RopeSpec has, or of which only one value is accepted."""
_DEPTH_MAX = 32
_COUNT_MAX = 1 << 30
_NUMBER_MAX = sys.float_info.max
_MISSING: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "use_sliding_window": False},
    "qwen3": {
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "use_sliding_window": False,
        "head_dim": 128,
    },
}
"""Per architecture, the values of fields that decide the shape of KV or its attention, and
that a config may leave out."""


def kind_of(config: Mapping[str, Any]) -> str:
    """The model_type of a config; "" if it names neither a type nor an architecture.
    Raises Unimplemented for a type that is not in `ARCHITECTURES`."""
    kind = config.get("model_type")
    if kind is None:
        named = [*_texts_in(config, "architectures"), ""][0]
        kind = named.removesuffix("ForCausalLM").lower()
    if kind and kind not in ARCHITECTURES:
        raise Unimplemented(f"models of type {kind!r}: {', '.join(ARCHITECTURES)} are supported")
    return str(kind)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the values of its architecture for the fields that it leaves out."""
    return {**_MISSING.get(kind_of(config), {}), **config}


def number_in(fields: Mapping[str, Any], key: str, otherwise: float | None = None) -> float:
    """A number of a config; `otherwise` if the field is missing or null."""
    value = fields.get(key)
    if value is None:
        value = otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_NUMBER_MAX < value < _NUMBER_MAX:
        raise InvalidArgument(f"the model config: {key} is {value!r}, expected a number")
    return float(value)


def count_in(fields: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    """A whole number from 1 to 2^30 of a config; `otherwise` if the field is missing or null."""
    number = number_in(fields, key, otherwise)
    if not 1 <= number <= _COUNT_MAX or number != int(number):
        raise InvalidArgument(f"the model config: {key} is {number:g}, expected a whole number from 1 to {_COUNT_MAX}")
    return int(number)


def _texts_in(fields: Mapping[str, Any], key: str) -> list[str]:
    """A list of texts of a config; empty if the field is missing or null."""
    value = fields.get(key) or []
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InvalidArgument(f"the model config: {key} is {value!r}, expected a list of texts")
    return list(value)


def slides(config: Mapping[str, Any]) -> bool:
    """Whether a layer of a completed config may use a sliding window. Raises Unimplemented
    for layers of other kinds, and for a window that is shorter than the longest text."""
    kinds = set(_texts_in(config, "layer_types"))
    if kinds - {"full_attention"}:
        raise Unimplemented(f"attention layers of kind {', '.join(sorted(kinds - {'full_attention'}))}")
    if kinds or config.get("sliding_window") is None or not config.get("use_sliding_window", True):
        return False
    window = number_in(config, "sliding_window")
    if window < (number_in(config, "max_position_embeddings", 0) or 2048):
        raise Unimplemented(f"sliding window attention over {window:g} tokens")
    return True


def rope_fields(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping `rope_scaling` or `rope_parameters` of a config; empty if there is none."""
    fields = config.get(key) or {}
    if not isinstance(fields, Mapping):
        raise InvalidArgument(f"the model config: {key} is {fields!r}, expected an object")
    return fields


def config_digest(config: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """Hex digest of all that counts in a config. `more` are facts of a loaded model that
    the config does not tell; a model that computes what its config says has none."""
    full = completed(config)
    fields = {key: value for key, value in full.items() if _counts(key, value)}
    if not slides(full):
        for key in _SLIDING:
            fields.pop(key, None)
    for key in ("rope_scaling", "rope_parameters"):
        for name, value in rope_fields(full, key).items():
            if name not in _ROPE_KNOWN and value is not None:
                fields[f"rope.{name}"] = value
    if more:
        fields["kdn.loaded"] = dict(more)
    digest = Digest("kdn-config-1").text(kind_of(config))
    try:
        _add(digest, fields, _DEPTH_MAX)
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidArgument(f"the model config: {error}") from None
    return digest.finish().hex()


def model_digest(weights: str, config: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """The weights_digest of a ModelSpec: a hex digest of the weights' own digest and of all
    that counts in the config."""
    return Digest("kdn-checkpoint-1").text(weights).text(config_digest(config, more)).finish().hex()


def _counts(key: str, value: Any) -> bool:
    if key in IGNORED or key.startswith("_") or value is None:
        return False
    usual = _DEFAULTS.get(key)
    # In Python, False equals 0; in JSON the two differ.
    return isinstance(value, bool) != isinstance(usual, bool) or value != usual


def _add(digest: Digest, value: Any, depth: int) -> None:
    if depth == 0:
        raise InvalidArgument(f"the model config is nested more than {_DEPTH_MAX} levels deep")
    if value is None:
        digest.text("null")
    elif isinstance(value, bool):
        digest.text("bool").integer(int(value))
    elif isinstance(value, int | float):
        digest.text("number").double(float(value))
    elif isinstance(value, str):
        digest.text("text").text(value)
    elif isinstance(value, list | tuple):
        digest.text("list").integer(len(value))
        for each in value:
            _add(digest, each, depth - 1)
    elif isinstance(value, Mapping):
        digest.text("object").integer(len(value))
        named = {str(key): each for key, each in value.items()}
        for key in sorted(named):
            _add(digest.text(key), named[key], depth - 1)
    else:
        # A torch dtype or another object of an engine, which no config.json has.
        digest.text("other").text(str(value))
