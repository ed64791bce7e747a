"""What a loaded Transformers model really computes, and whether it has changed (torch).

A config says what a model computes, unless somebody changed the modules. `facts_of` finds
such changes, `tensors_digest` names the weights in memory, and a `Witness` notices later
changes without reading the weights.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .config_digest import slides
from .digest import Digest
from .errors import FailedPrecondition, Unimplemented
from .model import RopeSpec

_SAMPLED = 64
"""Elements per tensor that a witness reads."""
_PLAIN = (bool, int, float, str, type(None))
_OF_PEFT = ("active_adapter", "_active_adapter", "_disable_adapters", "merged_adapters", "scaling")
_OF_TORCH = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        yield name.replace("_orig_mod.", ""), module  # torch.compile adds the part


# ------------------------------------------------------------- facts


def facts_of(model: Any, config: Mapping[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """What the modules compute and `config`, a completed config, does not say. Empty for a
    model as Transformers makes it.

    Finds modules of other classes than Transformers' and torch's, changed rotations,
    epsilons, scales, counts of heads and activations. Does not find code that replaces a
    method of a module. Raises FailedPrecondition for a model that drops out values.
    """
    if model.training and any(p for p in (config.get("attention_dropout"), config.get("hidden_dropout")) if p):
        raise FailedPrecondition("the model is in training mode and drops out values: call model.eval()")
    expected = _expected(config, rope)
    activation = _activation(config)
    facts: dict[str, Any] = {}
    for name, module in _modules(model):
        kind = type(module)
        if kind.__module__.split(".")[0] not in ("torch", "transformers"):
            facts[f"{name}: class"] = f"{kind.__module__}.{kind.__qualname__}"
        for key in expected.keys() & vars(module).keys():
            value = vars(module)[key]
            if not _equal(value, expected[key]):
                facts[f"{name}: {key}"] = value if isinstance(value, _PLAIN) else str(value)
        if hasattr(module, "act_fn") and type(module.act_fn) is not activation:
            facts[f"{name}: act_fn"] = type(module.act_fn).__name__
        frequencies = getattr(module, "inv_freq", None)
        if isinstance(frequencies, torch.Tensor) and not _rotates_by(frequencies, rope):
            facts[f"{name}: inv_freq"] = frequencies.detach().float().cpu().tolist()
    return facts


def _expected(config: Mapping[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """The values of the attributes that Transformers' modules take from a config."""
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    epsilon = config.get("rms_norm_eps", 1e-6)
    expected = {
        "variance_epsilon": epsilon,
        "eps": epsilon,
        "head_dim": rope.rotary_dim,
        "scaling": rope.rotary_dim**-0.5,
        "num_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_key_value_groups": heads // kv_heads,
        "is_causal": True,
        "attention_scaling": rope.attention_factor,
    }
    return expected if slides(config) else {**expected, "sliding_window": None}


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-9)
    return value is None if expected is None else value == expected


def _activation(config: Mapping[str, Any]) -> type:
    from transformers.activations import ACT2FN

    return type(ACT2FN[config.get("hidden_act") or "silu"])


def _rotates_by(frequencies: Any, rope: RopeSpec) -> bool:
    # A model that was moved to bf16 as a whole rotates by rounded frequencies. Its K
    # differs from the K of a model that was loaded as bf16.
    wanted = torch.tensor(inverse_frequencies(rope), dtype=torch.float64)
    found = frequencies.detach().double().cpu()
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=0.0)


def inverse_frequencies(rope: RopeSpec) -> list[float]:
    """The angle in radians by which each pair of dimensions turns per position."""
    plain = [rope.theta ** (-2 * i / rope.rotary_dim) for i in range(rope.rotary_dim // 2)]
    if rope.scaling == "linear":
        return [frequency / rope.factor for frequency in plain]
    if rope.scaling == "llama3":
        return [_llama3(frequency, rope) for frequency in plain]
    if rope.scaling == "yarn":
        return _yarn(plain, rope)
    return plain


def _llama3(frequency: float, rope: RopeSpec) -> float:
    turns = rope.original_max_position * frequency / (2 * math.pi)
    if turns < rope.low_freq_factor:
        return frequency / rope.factor
    if turns > rope.high_freq_factor:
        return frequency
    share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return (1 - share) * frequency / rope.factor + share * frequency


def _yarn(plain: list[float], rope: RopeSpec) -> list[float]:
    def dimension(turns: float) -> float:
        length = rope.original_max_position / (turns * 2 * math.pi)
        return rope.rotary_dim * math.log(length) / (2 * math.log(rope.theta))

    low = max(math.floor(dimension(rope.beta_fast)), 0)
    high = min(math.ceil(dimension(rope.beta_slow)), rope.rotary_dim - 1)
    span = max(high - low, 0.001)
    shares = [min(max((i - low) / span, 0.0), 1.0) for i in range(len(plain))]
    return [share * frequency / rope.factor + (1 - share) * frequency for frequency, share in zip(plain, shares)]


# ----------------------------------------------------------- weights


def tensors_digest(model: Any) -> str:
    """Hex digest of the model's weights in memory."""
    digest = Digest("kdn-tensors-1")
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            digest.text(name).text(repr(tensor))  # the extra state of a module
            continue
        if tensor.is_meta:
            raise Unimplemented(f"weights that are not in memory ({name}): name them with weights_digest")
        raw = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8).numpy()
        digest.text(name).data(hashlib.sha256(raw).digest())
    return digest.finish().hex()


# ----------------------------------------------------------- witness


@dataclass(frozen=True)
class Witness:
    """A model at one moment. Two witnesses of a model that did not change are alike.

    `tensors` are the identity, version and place of each parameter and buffer, `sample` is
    a digest of some elements of each, `adapters` are PEFT's adapters and which of them are
    in use, and `scalars` are the config and the plain attributes of all modules. An
    in-place change raises a tensor's version, except a change through `.data`, which only
    the sample may show. A tensor that was made in inference mode has no version, so that
    all its elements are in the sample.
    """

    tensors: tuple[Any, ...]
    sample: bytes
    adapters: tuple[Any, ...]
    scalars: tuple[Any, ...]
    living: tuple[Any, ...]

    def same_tensors(self, later: Witness) -> bool:
        """Whether a later witness has the same tensors. A tensor that is gone may have left
        its identity and place to another one."""
        alive = all(reference() is not None for reference in self.living)
        return alive and self.tensors == later.tensors and self.sample == later.sample

    def same_weights(self, later: Witness) -> bool:
        """Whether a later witness has the same tensors and adapters."""
        return self.adapters == later.adapters and self.same_tensors(later)

    def alike(self, later: Witness) -> bool:
        """Whether nothing has changed."""
        return self.scalars == later.scalars and self.same_weights(later)


def witness_of(model: Any) -> Witness:
    """The witness of a model. It takes 20 ms for a model of 80 layers on one core of a CPU,
    and one wait for the device."""
    tensors = list(itertools.chain(model.named_parameters(), model.named_buffers()))
    return Witness(
        tuple((name, id(tensor), *_place_of(tensor)) for name, tensor in tensors),
        _sample_of([tensor for _, tensor in tensors]),
        _adapters_of(model),
        _scalars_of(model),
        tuple(weakref.ref(tensor) for _, tensor in tensors),
    )


def _version_of(tensor: Any) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _place_of(tensor: Any) -> tuple[Any, ...]:
    pointer = None if tensor.is_meta else tensor.data_ptr()
    return (pointer, _version_of(tensor), tensor.dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device))


def _sample_of(tensors: list[Any]) -> bytes:
    parts: dict[tuple[Any, Any], list[Any]] = {}
    for tensor in tensors:
        if tensor.is_meta or tensor.numel() == 0:
            continue
        flat = tensor.detach().reshape(-1)
        step = 1 if _version_of(tensor) is None else -(-flat.numel() // _SAMPLED)
        parts.setdefault((tensor.device, tensor.dtype), []).append(flat[::step])
    digest = hashlib.sha256()
    for flats in parts.values():
        digest.update(torch.cat(flats).contiguous().view(torch.uint8).cpu().numpy().data)
    return digest.digest()


def _adapters_of(model: Any) -> tuple[Any, ...]:
    names = sorted(map(str, getattr(model, "peft_config", None) or ()))
    if not names:
        return ()
    states = [(name, key, repr(vars(m)[key])) for name, m in _modules(model) for key in _OF_PEFT if key in vars(m)]
    return (*names, *states)


def _scalars_of(model: Any) -> tuple[Any, ...]:
    found: list[Any] = [repr(model.config.to_dict())]
    for name, module in _modules(model):
        found.append((name, type(module)))
        for key, value in vars(module).items():
            if isinstance(value, _PLAIN):
                found.append((key, value))
            elif isinstance(value, list | tuple | set | dict) and key not in _OF_TORCH and not key.endswith("_hooks"):
                found.append((key, repr(value)))
    return tuple(found)
