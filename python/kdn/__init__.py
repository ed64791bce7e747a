"""Client of the Knowledge Delivery Network: it stores and gets the KV caches of texts.

    with kdn.Client("unix:/tmp/kdn-local-3-n1.sock") as client:
        knowledge = client.open("my-tenant", kdn.ModelSpec.from_directory(path))
        chain = knowledge.chain(token_ids)
        got = knowledge.retrieve(chain)
        got.prefix_tokens, got.kv

The connectors of engines are `kdn.transformers`, `kdn.vllm` and `kdn.sglang`.
"""

from .client import AsyncClient, Client
from .errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Disconnected,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KdnError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from .keys import CHUNK_TOKENS, Chunk, cut_chain, fingerprint_of, golden_vectors
from .knowledge import AsyncKnowledge, Calibrator, Knowledge
from .model import ModelSpec, RopeSpec
from .types import Calibration, Found, NodeInfo, Outcome, Receipt, Retrieved

__all__ = [
    "CHUNK_TOKENS",
    "AlreadyExists",
    "AsyncClient",
    "AsyncKnowledge",
    "Calibration",
    "Calibrator",
    "Cancelled",
    "Chunk",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "Disconnected",
    "FailedPrecondition",
    "Found",
    "Internal",
    "InvalidArgument",
    "KdnError",
    "Knowledge",
    "ModelSpec",
    "NodeInfo",
    "NotFound",
    "OutOfRange",
    "Outcome",
    "PermissionDenied",
    "Receipt",
    "ResourceExhausted",
    "Retrieved",
    "RopeSpec",
    "Unavailable",
    "Unimplemented",
    "cut_chain",
    "fingerprint_of",
    "golden_vectors",
]
