"""What a loaded Transformers model really computes, and whether it has changed (torch).

A config says what a model computes, unless somebody changed the modules. `facts_of` finds
such changes, `tensors_digest` names the weights in memory, and a `Witness` notices later
changes without reading the weights.
"""

from __future__ import annotations

import contextlib
import copy
import functools
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
_PIECE = 16 << 20
"""Elements that a witness copies at a time of a tensor that it reads whole."""
_PLAIN = (bool, int, float, str, type(None))
_OF_PEFT = ("active_adapter", "_active_adapter", "_disable_adapters", "merged_adapters", "scaling")
_OF_TORCH = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_OF_LIBRARIES = ("torch", "transformers")
_HOOKS_OF_LIBRARIES = (*_OF_LIBRARIES, "accelerate")
"""Packages whose forward hooks do not change what a module computes: they collect outputs
and move tensors between devices."""
_SMALL = {
    "vocab_size": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": None,
}
"""Sizes of a model that is made to look at its modules: they do not depend on the sizes."""


def _plain_name(name: str) -> str:
    """The name of a module or tensor without the parts that torch.compile adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if not hasattr(module, "_orig_mod"):  # the wrapper of torch.compile
            yield _plain_name(name), module


def tensors_of(model: Any) -> dict[str, Any]:
    """The state dict of a model, compiled or not, with the names of the model that is not."""
    return {_plain_name(name): tensor for name, tensor in model.state_dict().items()}


# ------------------------------------------------------------- facts


def facts_of(model: Any, config: Mapping[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """The differences between what the modules compute and what `config` says. `config` is a
    completed config. A model as Transformers makes it has no differences.

    Finds modules and parameters that were added, removed or replaced, changed rotations,
    epsilons, scales and counts of heads, forward hooks, and code that replaces a module's
    `forward`. Raises FailedPrecondition for a model that drops out values.
    """
    if model.training and any(p for p in (config.get("attention_dropout"), config.get("hidden_dropout")) if p):
        raise FailedPrecondition("the model is in training mode and drops out values: call model.eval()")
    expected = _expected(config, rope)
    facts = _structural_facts(model)
    facts.update((f"{name}: code", code) for name, code in _code_of(model))
    for name, module in _modules(model):
        for key in expected.keys() & vars(module).keys():
            value = vars(module)[key]
            if not _equal(value, expected[key]):
                facts[f"{name}: {key}"] = value if isinstance(value, _PLAIN) else str(value)
        frequencies = getattr(module, "inv_freq", None)
        if isinstance(frequencies, torch.Tensor) and not _rotates_by(frequencies, rope):
            facts[f"{name}: inv_freq"] = frequencies.detach().float().cpu().tolist()
    return facts


def _structural_facts(model: Any) -> dict[str, Any]:
    """The modules and parameters that differ from those of a model that Transformers makes
    of the same config. Of a class that is not one of Transformers, all of them count."""
    found, usual = _structure_of(model), _usual_structure_of(model)
    return {
        f"{name}: class": found.get(name, "none")
        for name in sorted(found.keys() | usual.keys())
        if found.get(name) != usual.get(name)
    }


def _structure_of(model: Any) -> dict[str, str]:
    """The class of each module by its name, and the names of the parameters."""
    found = {}
    for name, module in _modules(model):
        found[name] = _qualified(type(module))
        for key, parameter in module._parameters.items():
            if parameter is not None:
                found[f"{name}.{key}"] = "parameter"
    return found


def _usual_structure_of(model: Any) -> dict[str, str]:
    kind = type(next(module for _, module in _modules(model)))
    if kind.__module__.split(".")[0] != "transformers":
        return {}
    config = copy.deepcopy(model.config)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers = text.num_hidden_layers
    for key, value in _SMALL.items():
        setattr(text, key, value)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    device = torch.device("meta")
    # A device is a context manager since torch 2. Before, the CPU makes the small model.
    with device if hasattr(device, "__enter__") else contextlib.nullcontext(), torch.random.fork_rng(devices=[]):
        small = _structure_of(kind(config))
    # In the supported architectures, all layers have the same modules.
    first = next(name for name in small if name.endswith("layers.0"))
    usual = {name: what for name, what in small.items() if not name.startswith(first)}
    for i in range(layers):
        layer = f"{first.removesuffix('0')}{i}"
        usual |= {layer + n.removeprefix(first): what for n, what in small.items() if n.startswith(first)}
    return usual


def _code_of(model: Any) -> list[tuple[str, list[str]]]:
    """The names of the code that runs in a module's call and that its class does not say:
    forward hooks, and what replaces `forward`. Modules without such code are left out."""
    torch_module = torch.nn.modules.module
    hooks = _hooks_in(torch_module._global_forward_pre_hooks, torch_module._global_forward_hooks)
    found = [("all modules", hooks)] if hooks else []
    for name, module in model.named_modules():
        code = _hooks_in(module._forward_pre_hooks, module._forward_hooks)
        if not hasattr(module, "_orig_mod"):
            code += _replaced_forward(module)
        if code:
            found.append((_plain_name(name), code))
    return found


def _hooks_in(*hooks: Mapping[int, Any]) -> list[str]:
    names = (_qualified(hook) for each in hooks for hook in each.values())
    return [name for name in names if name.split(".")[0] not in _HOOKS_OF_LIBRARIES]


def _replaced_forward(module: Any) -> list[str]:
    """The name of the code that replaces the `forward` of a module or of its class."""
    own = vars(module)
    forward = own.get("forward")
    if forward is not None and _qualified(forward).startswith("accelerate."):
        forward = own.get("_old_forward")  # the wrapper moves tensors and calls this
    usual = type(module).forward
    if forward is not None and getattr(forward, "__func__", None) is not usual:
        return [_qualified(forward)]
    name = _qualified(usual)
    return [] if name.split(".")[0] in (*_OF_LIBRARIES, type(module).__module__.split(".")[0]) else [name]


def _qualified(code: Any) -> str:
    """The module and name of a class or function; of another object, those of its class."""
    while isinstance(code, functools.partial):
        code = code.func
    code = getattr(code, "__func__", code)
    named = code if hasattr(code, "__qualname__") else type(code)
    return f"{named.__module__}.{named.__qualname__}"


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
    for name, tensor in sorted(tensors_of(model).items()):
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
    in use, and `scalars` are the config, the plain attributes of all modules and the names
    of their hooks. An in-place change raises a tensor's version, except a change through `.data`, which only
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
    """The witness of a model. It takes 30 ms for a model of 80 layers on one core of a CPU,
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
    digest = hashlib.sha256()
    parts: dict[tuple[Any, Any], list[Any]] = {}
    for tensor in tensors:
        if tensor.is_meta or tensor.numel() == 0:
            continue
        flat = tensor.detach().reshape(-1)
        if _version_of(tensor) is None:
            for piece in flat.split(_PIECE):
                digest.update(_bytes_of(piece))
        else:
            step = -(-flat.numel() // _SAMPLED)
            parts.setdefault((tensor.device, tensor.dtype), []).append(flat[::step])
    for flats in parts.values():
        digest.update(_bytes_of(torch.cat(flats)))
    return digest.digest()


def _bytes_of(flat: Any) -> memoryview:
    return flat.contiguous().view(torch.uint8).cpu().numpy().data


def _adapters_of(model: Any) -> tuple[Any, ...]:
    names = sorted(map(str, getattr(model, "peft_config", None) or ()))
    if not names:
        return ()
    states = [(name, key, repr(vars(m)[key])) for name, m in _modules(model) for key in _OF_PEFT if key in vars(m)]
    return (*names, *states)


def _scalars_of(model: Any) -> tuple[Any, ...]:
    found: list[Any] = [repr(model.config.to_dict()), _code_of(model)]
    for name, module in _modules(model):
        found.append((name, type(module)))
        for key, value in vars(module).items():
            if isinstance(value, _PLAIN):
                found.append((key, value))
            elif isinstance(value, list | tuple | set | dict) and key not in _OF_TORCH and not key.endswith("_hooks"):
                found.append((key, repr(value)))
    return tuple(found)
