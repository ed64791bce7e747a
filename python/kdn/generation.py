"""Generations of a model's KV, for engines that are told to forget what they stored.

An engine whose weights change while it runs (reinforcement learning, for instance) resets
its caches. The KDN then must not deliver KV of the old weights to this engine. A reset
begins a new generation: the engine goes on with another weights digest, so that all of its
keys change. The old KV stays in the cluster until it is evicted, and engines with the old
weights still find it.

The name of a generation is random. Two engines that were reset may hold different weights,
so they must not find each other's KV.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from .digest import Digest
from .model import ModelSpec

FIRST = ""
"""The generation of an engine that was not reset: the KV of the model's files."""


def new_generation() -> str:
    """The name of a new generation. No other engine has it."""
    return uuid.uuid4().hex


def of_generation(model: ModelSpec, generation: str) -> ModelSpec:
    """The spec under which an engine stores and finds KV in `generation`."""
    if generation == FIRST:
        return model
    digest = Digest("kdn-generation-1").text(model.weights_digest).text(generation)
    return replace(model, weights_digest=digest.finish().hex())
