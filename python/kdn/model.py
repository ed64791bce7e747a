"""The description of a model for the KDN. It can be read from a Hugging Face checkpoint,
with or without Transformers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config_digest import completed, count_in, model_digest, number_in, rope_fields, slides
from .digest import Digest
from .errors import InvalidArgument, Unimplemented
from .file_digest import file_sha256

_DTYPES = ("bf16", "fp16", "fp32")
_DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
_SCALINGS = ("none", "linear", "llama3", "yarn")
_PAIRINGS = ("neoX", "gptJ")
_DTYPE_NAMES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    **{name: name for name in _DTYPES},
}


def _code(names: tuple[str, ...], value: str, what: str) -> int:
    if value not in names:
        raise InvalidArgument(f"{what} is {value!r}, expected one of {', '.join(names)}")
    return names.index(value)


def dtype_name(dtype: Any) -> str:
    """Returns "bf16", "fp16" or "fp32" for a name or a torch dtype. Raises Unimplemented
    for other dtypes."""
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPE_NAMES:
        raise Unimplemented(f"KV of dtype {name}: bf16, fp16 and fp32 are supported")
    return _DTYPE_NAMES[name]


@dataclass(frozen=True)
class RopeSpec:
    """Everything that decides the rotation of K: see RopeSpec in kdn.capnp. Fields that a
    scaling does not use must keep their defaults, because all fields count in the
    fingerprint."""

    theta: float = 10000.0
    rotary_dim: int = 0
    pairing: str = "neoX"
    scaling: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    @property
    def pairing_code(self) -> int:
        return _code(_PAIRINGS, self.pairing, "rope.pairing")

    @property
    def scaling_code(self) -> int:
        return _code(_SCALINGS, self.scaling, "rope.scaling")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], head_dim: int) -> RopeSpec:
        """Reads a Hugging Face config, old (rope_theta, rope_scaling) or new
        (rope_parameters). Raises Unimplemented for a scaling that the KDN does not
        compute."""
        new = rope_fields(config, "rope_parameters")
        if new and not any(key in new for key in ("rope_theta", "rope_type")):
            raise Unimplemented("rope_parameters that differ between layers")
        theta = number_in(config if new.get("rope_theta") is None else new, "rope_theta", 10000.0)
        for place in (config, new):
            if (place.get("partial_rotary_factor") or 1.0) != 1.0:
                raise Unimplemented("partial_rotary_factor other than 1")
        fields: dict[str, Any] = {
            "theta": theta,
            "rotary_dim": head_dim,
        }
        scaling = new or rope_fields(config, "rope_scaling")
        fields |= _scaling_fields(scaling, config)
        return cls(**fields)


def _scaling_fields(scaling: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in ("default", "none"):
        return {}
    if kind not in _SCALINGS:
        raise Unimplemented(f"rope scaling {kind!r}: {', '.join(_SCALINGS)} are supported")
    factor = number_in(scaling, "factor", 0.0)
    fields: dict[str, Any] = {"scaling": kind, "factor": factor}
    if kind != "linear":
        named = scaling.get("original_max_position_embeddings") is not None
        fields["original_max_position"] = (
            count_in(scaling, "original_max_position_embeddings")
            if named
            else count_in(config, "max_position_embeddings", 2048)
        )
    if kind == "llama3":
        fields["low_freq_factor"] = number_in(scaling, "low_freq_factor", 1.0)
        fields["high_freq_factor"] = number_in(scaling, "high_freq_factor", 4.0)
    if kind == "yarn":
        if scaling.get("mscale") or scaling.get("mscale_all_dim"):
            raise Unimplemented("yarn with mscale")
        if not scaling.get("truncate", True):
            raise Unimplemented("yarn without truncate")
        usual = 1.0 if factor <= 1.0 else 0.1 * math.log(factor) + 1.0
        fields["beta_fast"] = number_in(scaling, "beta_fast", 0.0) or 32.0
        fields["beta_slow"] = number_in(scaling, "beta_slow", 0.0) or 1.0
        fields["attention_factor"] = number_in(scaling, "attention_factor", 0.0) or usual
    return fields


@dataclass(frozen=True)
class ModelSpec:
    """A model as the KDN sees it: the geometry of its KV, the rotation of K, and digests
    of weights and tokenizer. `weights_digest` is any text that changes when the weights or
    the computation on them change. `dtype` is the dtype of the engine's KV cache. `name` is
    for people and does not count."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    rope: RopeSpec
    weights_digest: str
    tokenizer_digest: str
    dtype: str = "bf16"
    name: str = field(default="", compare=False)

    @property
    def dtype_code(self) -> int:
        return _code(_DTYPES, self.dtype, "model.dtype")

    @property
    def element_bytes(self) -> int:
        return _DTYPE_BYTES[self.dtype]

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of K and V of all layers and KV heads, for `tokens` tokens."""
        return self.num_layers * 2 * self.num_kv_heads * tokens * self.head_dim * self.element_bytes

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        weights_digest: str,
        tokenizer_digest: str,
        dtype: Any = "bf16",
        name: str = "",
    ) -> ModelSpec:
        """Reads a Hugging Face config, given as a mapping (``config.to_dict()`` or
        config.json). `weights_digest` is any text that changes when the weights change;
        the spec's weights_digest is a digest of this text and of the config. Raises
        Unimplemented for other architectures than those in `ARCHITECTURES`, and for a
        sliding window."""
        config = completed(config)
        slides(config)
        for key in ("num_attention_heads", "num_hidden_layers"):
            if key not in config:
                raise InvalidArgument(f"the model config has no {key}")
        heads = count_in(config, "num_attention_heads")
        head_dim = count_in(config, "head_dim") if config.get("head_dim") else _quotient(config, heads)
        return cls(
            name=name,
            num_layers=count_in(config, "num_hidden_layers"),
            num_kv_heads=count_in(config, "num_key_value_heads") if config.get("num_key_value_heads") else heads,
            head_dim=head_dim,
            dtype=dtype_name(dtype),
            rope=RopeSpec.from_config(config, head_dim),
            weights_digest=model_digest(weights_digest, config),
            tokenizer_digest=tokenizer_digest,
        )

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str], dtype: Any = "bf16") -> ModelSpec:
        """Reads a checkpoint directory. The result equals the spec that
        `kdn inject --model` registers, so that both find each other's chunks."""
        root = Path(directory)
        try:
            config = json.loads((root / "config.json").read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"{root} is not a Hugging Face checkpoint directory: {error}") from None
        if not isinstance(config, dict):
            raise InvalidArgument(f"{root / 'config.json'} is not a JSON object")
        return cls.from_config(
            config,
            weights_digest=weights_digest(root),
            tokenizer_digest=tokenizer_digest(root),
            dtype=dtype,
            name=root.name,
        )


def _quotient(config: Mapping[str, Any], heads: int) -> int:
    """The head_dim of a config that does not say it."""
    head_dim = count_in(config, "hidden_size") // heads
    if head_dim == 0:
        raise InvalidArgument(f"the model config: hidden_size {config['hidden_size']} is less than {heads} heads")
    return head_dim


def weight_files(root: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, in the order of their names."""
    single = root / "model.safetensors"
    if single.exists():
        return [single]
    index = root / "model.safetensors.index.json"
    if not index.exists():
        raise InvalidArgument(
            f"{root} has neither model.safetensors nor model.safetensors.index.json: "
            "is it a Hugging Face checkpoint directory?"
        )
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        files = [root / name for name in sorted(names)]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{index} has no weight_map that names files: {error}") from None
    for file in files:
        if not file.exists():
            raise InvalidArgument(f"{index} names {file.name}, which does not exist")
    return files


def weights_digest(directory: str | os.PathLike[str]) -> str:
    """Hex digest over the SHA-256 of each safetensors file, in the order of their names.
    The weights' part of ModelSpec.weights_digest."""
    digest = Digest("kdn-weights-1")
    for path in weight_files(Path(directory)):
        digest.data(file_sha256(path))
    return digest.finish().hex()


def tokenizer_digest(directory: str | os.PathLike[str]) -> str:
    """Hex digest over tokenizer.json; over nothing if there is no such file."""
    digest = Digest("kdn-tokenizer-1")
    path = Path(directory) / "tokenizer.json"
    if path.exists():
        digest.data(path.read_bytes())
    return digest.finish().hex()
