#!/usr/bin/env python3
"""Codes KV with CacheGen's own code, for `kdn bench codec --lmcache`.

The code is that of LMCache (Apache-2.0), of one version, fetched from PyPI and cached
below ~/.cache/kdn. A wheel with another digest is never loaded; numba and the packages
that it needs are what the index gives for the pinned version. Quantisation, frequency
tables, arithmetic coder, decoder and dequantisation are LMCache's, on the CPU. This
program only hands over the chunks and counts the bytes.

Makes build/lmcache-venv with numba from PyPI and with Debian's torch (python3-torch).

Speaks over its standard input and output; bench/coder_process.h describes the messages.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

REPO = Path(__file__).resolve().parents[1]
VENV = REPO / "build" / "lmcache-venv"
NUMBA = "numba==0.68.1"
LMCACHE = "lmcache==0.5.6"
WHEEL = "lmcache-0.5.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
WHEEL_SHA256 = "14530ff72b96056e894c9b8dc70c10d019e7802799bbfde9cec298700b799194"
# The files that are used are plain Python, so the wheel of this platform serves any other.
WHEEL_PLATFORM = ("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64")

SERDE = "lmcache.storage_backend.serde"
KERNELS = "lmcache.v1.platform.torch_ops.cachegen_kernels"
# The modules of LMCache that are loaded.
MODULES = (
    f"{SERDE}.serde",
    f"{SERDE}.cachegen_basics",
    f"{SERDE}.cachegen_encoder",
    f"{SERDE}.cachegen_decoder",
    KERNELS,
)
# The packages that hold these modules.
PACKAGES = (
    "lmcache",
    "lmcache.storage_backend",
    SERDE,
    "lmcache.v1",
    "lmcache.v1.platform",
    "lmcache.v1.platform.torch_ops",
)

LINE_BYTES_MAX = 1 << 16
CHUNK_BYTES_MAX = 1 << 31
# Standard input carries the messages, so that no other program may read it.
NO_INPUT = subprocess.DEVNULL
# The words of pip when it finds no network.
NO_NETWORK = ("NewConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "Name or service")

# Takes KV as [layer][K|V][token][head][dim], and the bins of K and of V in each layer.
# Gives the size of the coded KV in bytes, and the decoded KV.
Coder = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], "tuple[int, torch.Tensor]"]


class Failure(Exception):
    """Why nothing can be coded, in a sentence for the user."""


# ---------------------------------------------------------------- what is fetched


def run_pip(python: Path, *arguments: str) -> None:
    """Runs pip, and tells a network that is not there from other failures."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(pip, check=False, stdin=NO_INPUT, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        return
    if any(words in done.stderr for words in NO_NETWORK):
        raise Failure("PyPI, or the index in pip's configuration, cannot be reached")
    raise Failure(f"pip {arguments[0]} failed with exit code {done.returncode}")


def environment() -> Path:
    """The Python of build/lmcache-venv, which this makes if there is none."""
    python = VENV / "bin" / "python"
    made_of = VENV / "made-of"
    if made_of.exists() and made_of.read_text() == NUMBA:
        return python
    print(f"making {VENV.relative_to(REPO)}", file=sys.stderr)
    # Debian's torch needs Debian's Python, which may not be the first one in PATH.
    make = ["/usr/bin/python3", "-m", "venv", "--clear", "--system-site-packages", str(VENV)]
    if subprocess.run(make, check=False, stdin=NO_INPUT, stdout=sys.stderr).returncode != 0:
        raise Failure("/usr/bin/python3 has no module venv: run scripts/setup")
    imports = [str(python), "-c", "import torch"]
    if subprocess.run(imports, check=False, stdin=NO_INPUT, stdout=sys.stderr).returncode != 0:
        raise Failure("/usr/bin/python3 has no torch: run scripts/setup, or apt install python3-torch")
    run_pip(python, "install", "--quiet", NUMBA)
    made_of.write_text(NUMBA)
    return python


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdn" / "lmcache"


def is_pinned(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == WHEEL_SHA256


def fetched_wheel() -> bytes:
    """LMCache's wheel, from the cache or from PyPI. The digest is that of the bytes
    returned, so that nobody can exchange the file after the check."""
    cached = cache_directory() / WHEEL
    if cached.is_file() and is_pinned(content := cached.read_bytes()):
        return content
    cache_directory().mkdir(parents=True, exist_ok=True)
    print(f"fetching {LMCACHE} (18 MB)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache_directory()) as folder:
        # Without the packages that LMCache needs: most of them are for CUDA.
        where = ("--no-deps", "--only-binary=:all:", *WHEEL_PLATFORM, f"--dest={folder}")
        run_pip(Path(sys.executable), "download", "--quiet", *where, LMCACHE)
        fetched = Path(folder) / WHEEL
        if not fetched.is_file():
            names = ", ".join(path.name for path in Path(folder).iterdir())
            raise Failure(f"pip fetched {names or 'nothing'} in place of {WHEEL}")
        if not is_pinned(content := fetched.read_bytes()):
            raise Failure(f"{LMCACHE} has another SHA-256 than the pinned one; it is not loaded")
        fetched.replace(cached)
    return content


# ---------------------------------------------------------------- LMCache's code


def stand_in(name: str, **attributes: Any) -> ModuleType:
    """Makes a module and gives it to the imports that follow."""
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


def unannotated(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def load_modules(folder: Path) -> None:
    """Imports MODULES from a folder. The rest of LMCache needs a GPU and many packages,
    so that the names which these modules import from it are stand-ins. None of them
    takes part in the coding. CacheGen's kernels are those of LMCache for the CPU."""
    for name in PACKAGES:
        stand_in(name, __path__=[str(folder.joinpath(*name.split(".")))])
    stand_in("lmcache.logging", init_logger=logging.getLogger)
    stand_in("lmcache.utils", _lmcache_nvtx_annotate=unannotated)
    stand_in("lmcache.v1.config", LMCacheEngineConfig=object)
    stand_in("lmcache.v1.metadata", LMCacheMetadata=object)
    stand_in("transformers", AutoConfig=object)
    vars(sys.modules["lmcache"]).update(torch_dev=None, torch_device_type="cpu")
    vars(sys.modules["lmcache"]).update(device_ops=importlib.import_module(KERNELS))
    for name in MODULES:
        importlib.import_module(name)


def size_of(encoded: Any) -> int:
    """The bytes of everything that LMCache's decoder reads, as LMCache keeps it: the
    frequency tables, the streams, their lengths and the scales. Without the framing of
    pickle, which LMCache writes them with."""
    tensors = [encoded.cdf, encoded.max_tensors_key, encoded.max_tensors_value]
    for part in encoded.data_chunks:
        tensors += [part.bytestream, part.bytestream_lengths]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def code(kv: torch.Tensor, key_bins: torch.Tensor, value_bins: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Encodes and decodes a chunk, see Coder."""
    import torch

    layers, _, tokens, heads, dim = kv.shape
    encoder = sys.modules[f"{SERDE}.cachegen_encoder"]
    decoder = sys.modules[f"{SERDE}.cachegen_decoder"]
    encoded = encoder.encode_function(kv, None, key_bins, value_bins, tokens)
    symbols = torch.zeros((tokens, 2 * layers * heads * dim), dtype=torch.uint8)
    key, value = decoder.decode_function_gpu(encoded.cdf, encoded.data_chunks, layers, tokens, symbols)
    planes = (
        decoder.do_dequantize(key, key_bins, encoded.max_tensors_key),
        decoder.do_dequantize(value, value_bins, encoded.max_tensors_value),
    )
    return size_of(encoded), torch.stack(planes, dim=1).reshape(kv.shape).to(kv.dtype)


def compile_kernels() -> None:
    """Codes a little KV, so that the kernels are compiled before the first request."""
    import torch

    kv = torch.linspace(-1, 1, 2 * 8 * 4, dtype=torch.bfloat16).reshape(1, 2, 8, 1, 4)
    bins = torch.full((1,), 32.0)
    code(kv, bins, bins)


def load_lmcache(wheel: bytes) -> Coder:
    # numba looks for the sources of the kernels until it has compiled them.
    with tempfile.TemporaryDirectory(prefix="kdn-lmcache-") as folder:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            archive.extractall(folder, [name.replace(".", "/") + ".py" for name in MODULES])
        load_modules(Path(folder))
        compile_kernels()
    return code


# ---------------------------------------------------------------- the messages


def read_exactly(stream: BinaryIO, count: int) -> bytearray:
    content = bytearray()
    while len(content) < count:
        part = stream.read(min(count - len(content), 1 << 20))
        if not part:
            raise Failure(f"a request ended after {len(content)} of {count} bytes")
        content += part
    return content


def requests_in(stream: BinaryIO) -> Iterator[tuple[dict[str, Any], bytearray]]:
    while line := stream.readline(LINE_BYTES_MAX):
        head = json.loads(line)
        if not 0 < head["bytes"] <= CHUNK_BYTES_MAX:
            raise Failure(f"a request of {head['bytes']} bytes")
        yield head, read_exactly(stream, head["bytes"])


def send(stream: BinaryIO, head: dict[str, Any], values: bytes = b"") -> None:
    stream.write(json.dumps(head).encode() + b"\n" + values)
    stream.flush()


def chunk_of(head: dict[str, Any], values: bytearray) -> torch.Tensor:
    """The KV of a request, as [layer][K|V][token][head][dim]."""
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    shape: Sequence[int] = head["shape"]
    chunk = torch.frombuffer(values, dtype=dtypes[head["dtype"]])
    if len(shape) != 5 or shape[1] != 2 or math.prod(shape) != chunk.numel():
        raise Failure(f"a request of {len(values)} bytes for KV of the shape {list(shape)}")
    if len(head["key_bins"]) != shape[0] or len(head["value_bins"]) != shape[0]:
        raise Failure(f"a request with {len(head['key_bins'])} and {len(head['value_bins'])} bins")
    tokens_first: torch.Tensor = chunk.reshape(*shape).transpose(2, 3)
    return tokens_first


def serve(requests: BinaryIO, replies: BinaryIO, coder: Coder) -> None:
    """Answers requests until there are no more."""
    import torch

    send(replies, {"ready": True})
    for head, values in requests_in(requests):
        bins = [torch.tensor(head[name], dtype=torch.float32) for name in ("key_bins", "value_bins")]
        size, decoded = coder(chunk_of(head, values), *bins)
        content = decoded.transpose(2, 3).contiguous().view(torch.uint8).numpy().tobytes()
        send(replies, {"size": size, "bytes": len(content)}, content)


@contextlib.contextmanager
def replies_alone() -> Iterator[BinaryIO]:
    """Standard output for the replies only: what else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        try:
            yield replies
        except Failure as failure:
            send(replies, {"error": str(failure)})
            sys.exit(1)


def main() -> None:
    if sys.stdin.isatty():
        sys.exit(__doc__)
    if sys.argv[1:] == ["--serve"]:
        with replies_alone() as replies:
            serve(sys.stdin.buffer, replies, load_lmcache(fetched_wheel()))
        return
    with replies_alone() as replies:
        python = str(environment())
        os.dup2(replies.fileno(), 1)
    os.execv(python, [python, __file__, "--serve"])


if __name__ == "__main__":
    main()
