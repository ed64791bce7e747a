"""Makes the ModelSpec of a Transformers model, and moves KV into and out of its caches.
Works with the cache classes of Transformers 4.45 and 5."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import DynamicCache

from .config_digest import completed, model_digest
from .digest import Digest
from .errors import InvalidArgument, Unimplemented
from .loaded_model import Witness, facts_of, tensors_digest, tensors_of, witness_of
from .model import ModelSpec, tokenizer_digest, weight_files, weights_digest


def spec_of(model: Any, tokenizer: Any, weights: str | None = None) -> ModelSpec:
    """The ModelSpec of a loaded model and its tokenizer.

    A model that was loaded from a checkpoint directory or from the hub's cache gets the
    digest of its files, so that it finds what `kdn inject` and other engines stored. A
    model that was made, quantized or changed in memory gets a digest of its tensors. To
    tell the two apart, all tensors are compared with the files, unless the same tensors
    were compared before. `weights` replaces this digest: any text that changes when the
    weights change. The spec also depends on the model's config, and on modules that do not
    compute what the config says. Raises Unimplemented for architectures and kinds of
    attention that were not tried, and for adapters unless `weights` is given, because an
    engine may switch adapters. Raises FailedPrecondition for a model that drops out values.
    """
    return spec_of_config(
        model.config,
        weights_digest=weights or _weights_of(model),
        tokenizer_digest=_tokenizer_of(tokenizer),
        dtype=model.dtype,
        name=str(getattr(model.config, "_name_or_path", "") or type(model).__name__)[-200:],
        model=model,
    )


def spec_of_config(
    config: Any, *, weights_digest: str, tokenizer_digest: str, dtype: Any, name: str, model: Any = None
) -> ModelSpec:
    """The ModelSpec of a Transformers config. `weights_digest` is the weights' part of the
    spec's digest. `model` is the loaded model, if it is one of Transformers. Raises
    Unimplemented like `spec_of`."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    fields = text.to_dict()
    fields.setdefault("head_dim", getattr(text, "head_dim", None))
    spec = ModelSpec.from_config(
        fields, weights_digest=weights_digest, tokenizer_digest=tokenizer_digest, dtype=dtype, name=name
    )
    facts = {} if model is None else facts_of(model, completed(fields), spec.rope)
    return replace(spec, weights_digest=model_digest(weights_digest, fields, facts)) if facts else spec


def directory_of(name_or_path: str, revision: str | None = None) -> Path | None:
    """The directory of a checkpoint's files: `name_or_path` itself, or the hub's local
    cache of this revision. None when there are no such files."""
    if not name_or_path:
        return None
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    from transformers.utils import cached_file

    try:
        found = cached_file(name_or_path, "config.json", revision=revision, local_files_only=True)
    except OSError:
        return None
    return Path(found).parent if found else None


def served_digest(name_or_path: str, revision: str | None, quantization: str | None) -> str | None:
    """The digest of a checkpoint's weights as a server loads them: the weights' part of a
    ModelSpec's digest. None when the checkpoint's files are not found.

    A checkpoint that is quantized while loading has other weights than its files, and gets
    another digest.
    """
    directory = directory_of(name_or_path, revision)
    if directory is None:
        return None
    digest = weights_digest(directory)
    if not quantization:
        return digest
    return Digest("kdn-served-1").text(digest).text(quantization).text("").finish().hex()  # the last text is reserved


def _is_of(model: Any, directory: Path) -> bool:
    """Whether the tensors of `model` equal those of the files."""
    tensors = {name: tensor for name, tensor in tensors_of(model).items() if isinstance(tensor, torch.Tensor)}
    places = set()
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            if not all(_is_unused(name) for name in file.keys() - tensors.keys()):
                return False
            for name in file.keys() & tensors.keys():
                there, here = file.get_slice(name), tensors[name]
                if here.is_meta or list(here.shape) != there.get_shape():
                    return False
                if not torch.equal(file.get_tensor(name).to(here.dtype), here.to("cpu")):
                    return False
                places.add(here.data_ptr())
    # A tied tensor has two names, and the files have one of them.
    return bool(places) and all(tensor.data_ptr() in places for tensor in tensors.values())


def _is_unused(name: str) -> bool:
    """Whether a model may lack this tensor of its files: the output head makes no KV, and
    old checkpoints have frequencies that Transformers computes of the config."""
    return name == "lm_head.weight" or name.endswith(".rotary_emb.inv_freq")


_digests: weakref.WeakKeyDictionary[Any, tuple[Witness, str]] = weakref.WeakKeyDictionary()


def _weights_of(model: Any) -> str:
    if getattr(model, "peft_config", None):
        raise Unimplemented("a model with adapters: name its weights with weights_digest")
    witness = witness_of(model)
    if model in _digests and _digests[model][0].same_tensors(witness):
        return _digests[model][1]
    digest = _checkpoint_of(model) or tensors_digest(model)
    _digests[model] = witness, digest
    return digest


def _checkpoint_of(model: Any) -> str | None:
    """The digest of the files that the model was loaded from; None if it has other tensors."""
    directory = directory_of(getattr(model.config, "_name_or_path", ""), getattr(model.config, "_commit_hash", None))
    if directory is None or getattr(model, "hf_quantizer", None) is not None:
        return None
    with contextlib.suppress(InvalidArgument):  # there are no safetensors files
        if _is_of(model, directory):
            return weights_digest(directory)
    return None


def _tokenizer_of(tokenizer: Any) -> str:
    directory = directory_of(getattr(tokenizer, "name_or_path", ""))
    if directory is not None and (directory / "tokenizer.json").exists():
        return tokenizer_digest(directory)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unimplemented("a tokenizer without tokenizer.json: name it with tokenizer_digest in a ModelSpec")
    return Digest("kdn-tokenizer-1").data(backend.to_str().encode()).finish().hex()


def autocasts(device: Any) -> bool:
    """Whether torch casts the inputs of operations on this device (torch.autocast)."""
    try:
        return bool(torch.is_autocast_enabled(device.type))
    except TypeError:  # torch before 2.4
        return bool(torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled())


def layers_of(cache: Any) -> list[tuple[Any, Any]]:
    """(K, V) of each layer of a cache, each (batch, kv_heads, tokens, head_dim)."""
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache))


def length_of(cache: Any) -> int:
    """Tokens in a cache."""
    return int(cache.get_seq_length())


def kv_of(cache: Any, begin: int, end: int) -> list[tuple[Any, Any]]:
    """Views of (K, V) per layer, of the tokens [begin, end) of a cache of one sequence.
    Each view has the shape (kv_heads, tokens, head_dim)."""
    return [(k[0, :, begin:end], v[0, :, begin:end]) for k, v in layers_of(cache)]


def cache_of(kv: Any, device: Any) -> DynamicCache:
    """A cache that holds `kv`, of shape (layers, 2, kv_heads, tokens, head_dim). On the
    CPU, the cache uses the memory of `kv` until it grows."""
    cache = DynamicCache()
    for i, layer in enumerate(kv):
        keys, values = layer[0][None].to(device), layer[1][None].to(device)
        if hasattr(cache, "key_cache"):
            cache.key_cache.append(keys)
            cache.value_cache.append(values)
            if i == 0:
                cache._seen_tokens = keys.shape[-2]
        else:
            cache.update(keys, values, i)
    return cache


def windows_of(tokens: Sequence[int], count: int, length: int) -> list[Sequence[int]]:
    """At most `count` windows of `length` tokens, spread evenly; all tokens if they are fewer."""
    count = max(1, min(count, len(tokens) // length))
    begins = [max(0, (2 * i + 1) * len(tokens) // (2 * count) - length // 2) for i in range(count)]
    return [tokens[begin : begin + length] for begin in begins]


def sensitivity_of(model: Any, cache: Any, behind: Sequence[int], random: torch.Generator) -> tuple[Any, Any]:
    """How much an error in the KV of `cache` changes what the model says behind it: the
    Fisher information, as model/kv_sensitivity.h has it. Returns the mean squares of the
    gradients, of shape (layers, 2, kv_heads), without those of the first token; and the sums
    of the squares of each token's K and V, of shape (layers, kv_heads, tokens)."""
    leaves = [x.detach().clone().requires_grad_() for pair in layers_of(cache) for x in pair]
    begin = length_of(cache)
    device = model.device
    with torch.enable_grad():
        kv = [torch.cat(leaves[i : i + 2]) for i in range(0, len(leaves), 2)]
        said = model(
            input_ids=torch.tensor([list(behind)], device=device),
            attention_mask=torch.ones((1, begin + len(behind)), dtype=torch.long, device=device),
            position_ids=torch.arange(begin, begin + len(behind), device=device)[None],
            past_key_values=cache_of(kv, device),
            use_cache=True,
        )
        logs = torch.log_softmax(said.logits[0].float(), dim=-1)
        tokens = torch.multinomial(logs.detach().exp(), 1, generator=random)
        gradients = torch.autograd.grad(logs.gather(1, tokens).sum(), leaves)
    squares = torch.stack([g[0].float().pow(2).sum(dim=2) for g in gradients]).view(len(kv), 2, -1, begin).cpu()
    values = (begin - 1) * leaves[0].shape[-1] * len(behind)
    return squares[..., 1:].sum(dim=3) / values, squares.sum(dim=1)


def prefill(model: Any, tokens: Sequence[int], cache: Any) -> Any:
    """Prefills `tokens` behind those in `cache`, and adds them to it. Returns the logits
    of the last token."""
    ids = torch.tensor([list(tokens)], device=model.device)
    begin = length_of(cache)
    positions = torch.arange(begin, begin + len(tokens), device=model.device)
    mask = torch.ones((1, begin + len(tokens)), dtype=torch.long, device=model.device)
    with torch.no_grad():
        answer = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
        )
    return answer.logits[0, -1]
