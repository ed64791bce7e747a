"""Converts KV between engines' tensors and numpy.

A KV tensor has the logical shape ``(layers, 2, kv_heads, tokens, head_dim)``, with K
before V. numpy has no bfloat16, so numpy arrays hold its bits as uint16. torch is
optional: it is imported only when its tensors are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InvalidArgument
from .model import ModelSpec

_NUMPY: dict[str, np.dtype[Any]] = {"bf16": np.dtype("<u2"), "fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}


def numpy_dtype(model: ModelSpec) -> np.dtype[Any]:
    """The numpy dtype of the model's KV; uint16 for bf16."""
    return _NUMPY[model.dtype]


def as_numpy(tensor: Any, model: ModelSpec) -> np.ndarray[Any, Any]:
    """`tensor` (numpy, or torch on any device) as a numpy array, without a copy if it lies
    on the host. InvalidArgument unless it has the model's dtype."""
    if not isinstance(tensor, np.ndarray):
        tensor = _torch_as_numpy(tensor)
    if tensor.dtype != numpy_dtype(model):
        raise InvalidArgument(f"KV of dtype {tensor.dtype}, the model's is {model.dtype}")
    return tensor


def _torch_as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgument(f"KV as {type(tensor).__name__}, expected a numpy array or a torch tensor")
    host = tensor.detach().to("cpu")
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(np.uint16)
    return host.numpy()


def as_torch(array: np.ndarray[Any, Any], model: ModelSpec) -> Any:
    """`array` as a torch tensor over the same memory."""
    import torch

    if model.dtype == "bf16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def check_shape(kv: np.ndarray[Any, Any], model: ModelSpec, tokens: int) -> None:
    """InvalidArgument unless `kv` has the shape of `tokens` tokens of the model."""
    expected = (model.num_layers, 2, model.num_kv_heads, tokens, model.head_dim)
    if kv.shape != expected:
        raise InvalidArgument(f"KV of shape {kv.shape}, expected (layers, 2, kv_heads, tokens, head_dim) = {expected}")


def stack_layers(layers: Any, model: ModelSpec) -> np.ndarray[Any, Any]:
    """Makes a KV tensor of one pair (K, V) per layer, each of shape ``(kv_heads, tokens,
    head_dim)``."""
    if len(layers) != model.num_layers:
        raise InvalidArgument(f"KV of {len(layers)} layers, the model has {model.num_layers}")
    try:
        return np.stack([np.stack([as_numpy(k, model), as_numpy(v, model)]) for k, v in layers])
    except ValueError as error:
        raise InvalidArgument(f"KV whose layers have different shapes: {error}") from None


def tokens_of(kv: Any, model: ModelSpec) -> int:
    """The number of tokens of a KV tensor, in one of the forms that `as_kv` takes."""
    shape = np.shape(kv[0][0]) if isinstance(kv, list | tuple) else tuple(kv.shape)
    if len(shape) < 2:
        raise InvalidArgument(f"KV of the shape {shape}, expected that of {model.name or 'the model'}")
    return int(shape[-2])


def as_kv(kv: Any, model: ModelSpec, tokens: int) -> np.ndarray[Any, Any]:
    """Makes a KV tensor of an engine's KV, which is a tensor of the logical shape or a
    sequence of pairs (K, V). Checks dtype and shape."""
    array = stack_layers(kv, model) if isinstance(kv, list | tuple) else as_numpy(kv, model)
    check_shape(array, model, tokens)
    return array
