#!/usr/bin/python3
"""Trains the shipped recall checkpoint and writes it as a Hugging Face Llama directory. Development only.

    apt-get install python3-torch
    scripts/dev/train_recall.py --out model/recall        # about 20 minutes on two cores
    scripts/dev/train_recall.py --out model/recall --evaluate

The schedule counts steps, not time, and all seeds are fixed. Three things let so small a model learn binding in minutes.
The exported model contains none of them; it is a plain Llama.

* A token's embedding is the sum of a row of its word and a row of its kind.
* Auxiliary losses make hidden states say which vault or alias a fact is about: the local owner after the first block, the
  true owner after the second. So binding happens inside the documents. Other auxiliary losses direct heads of the second
  block to the alias declaration and to the first hop, and a head of the third block to the fact with the answer.
* In most rows, questions may not attend to alias declarations. So the documents must do the binding.
"""
from __future__ import annotations

import os
import sys

if os.environ.get("RECALL_ENV") != "1":  # makes glibc keep freed memory; else every step would fault in its pages again
    os.environ |= {"RECALL_ENV": "1", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_MMAP_THRESHOLD_": "100000000000",
                   "MALLOC_TOP_PAD_": "268435456"}
    os.execv(sys.executable, [sys.executable, *sys.argv])

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recall_task import ALIASES, CODES, PEOPLE, ROOMS, VAULTS, Generator, Shape, Tokenizer

TASKS = ("recall", "binding", "twohop")
DIM, LAYERS, HEADS, KV_HEADS, FFN = 128, 4, 4, 2, 256
HEAD_DIM = DIM // HEADS
THETA = 10000.0
SMALL = [Shape(3, 32, 2)]
MIXED = [Shape(3, 32, 2), Shape(5, 40, 3), Shape(8, 48, 4), Shape(8, 64, 4), Shape(12, 48, 4), Shape(12, 64, 5)]


@dataclass(frozen=True)
class Phase:
    """A part of the training. The learning rate warms up, then falls along a cosine from `lr` to `lr * end`."""
    steps: int
    shapes: list[Shape]
    lr: float
    aux: float
    end: float = 0.01
    hide: float = 0.7
    tokens: int = 5120  # per step, about


SCHEDULE = [Phase(800, SMALL, 2e-3, 1.0, end=0.6), Phase(450, MIXED, 1.5e-3, 0.3)]


class Batch:
    """A batch with one instance per row. All questions of a row stand behind its documents. A question attends only to
    the documents and to itself, at the positions that it would have as the only question."""

    def __init__(self, generator: Generator, shape: Shape, rows: int, rng: random.Random, hide: float) -> None:
        drawn = [generator.draw(shape, rng) for _ in range(rows)]
        flat = [self._flatten(generator, i) for i in drawn]
        width = max(len(f["ids"]) for f in flat)
        width = (width + 15) // 16 * 16
        def grid(name: str, fill: int) -> torch.Tensor:
            return torch.tensor([f[name] + [fill] * (width - len(f[name])) for f in flat])
        self.ids, self.positions = grid("ids", 0), grid("positions", 0)
        self.block = grid("block", -1)        # 0: documents, j > 0: question j
        self.document = grid("document", -1)
        binds = grid("binds", 0).bool()
        hidden = torch.tensor([rng.random() < hide for _ in range(rows)])
        at = torch.arange(width)
        seen = (self.block[:, None, :] == 0) | (self.block[:, None, :] == self.block[:, :, None])
        base = (at[:, None] >= at[None, :])[None] & seen
        asks = self.block > 0
        itself = torch.eye(width, dtype=torch.bool)[None]
        self.mask = (base & ~(asks[:, :, None] & binds[:, None, :] & hidden[:, None, None])) | itself
        same = (self.document[:, None, :] == self.document[:, :, None]) | asks[:, :, None]
        self.apart = (base & same) | itself
        def targets(name: str) -> torch.Tensor:
            return torch.tensor([(b * width + p, *v) for b, f in enumerate(flat) for p, *v in f[name]])
        self.answers, self.targets0, self.targets1 = targets("answers"), targets("targets0"), targets("targets1")
        def links(name: str) -> torch.Tensor:
            return torch.tensor([(b, *link) for b, f in enumerate(flat) for link in f[name]])
        # (row, from, to): the token `from` should attend to the token `to`.
        self.bindings, self.hops, self.sources = links("bindings"), links("hops"), links("sources")

    @staticmethod
    def _flatten(generator: Generator, instance) -> dict[str, list]:
        f: dict[str, list] = {n: [] for n in ("ids", "positions", "block", "document", "binds", "answers", "targets0",
                                              "targets1", "bindings", "hops", "sources")}
        doc = generator.t.word["<doc>"]
        value_at: dict[int, int] = {}  # by id() of a sentence: the place of its value token
        for d, sentences in enumerate(instance.documents):
            for ids, sentence in [([doc], None), *((s.ids, s) for s in sentences)]:
                if sentence and sentence.owner is not None:
                    value_at[id(sentence)] = len(f["ids"]) + sentence.value
                f["ids"] += ids
                f["document"] += [d] * len(ids)
                f["binds"] += [int(bool(sentence and sentence.binds))] * len(ids)
        for sentence in (s for sentences in instance.documents for s in sentences if s.owner is not None):
            at = value_at[id(sentence)]
            f["targets0"].append((at, sentence.owner))
            if sentence.true_owner is not None:
                f["targets1"].append((at, sentence.true_owner))
            if sentence.binding is not None:
                f["bindings"].append((at, value_at[id(sentence.binding)]))
        length = len(f["ids"])
        f["positions"], f["block"] = list(range(length)), [0] * length
        for j, question in enumerate(instance.questions):
            n = len(question.ids)
            f["ids"] += question.ids
            f["positions"] += range(length, length + n)
            f["block"] += [j + 1] * n
            f["document"] += [-1] * n
            f["binds"] += [0] * n
            last = len(f["ids"]) - 1
            f["answers"].append((last, question.answer, TASKS.index(question.task)))
            f["targets0"].append((last, question.subject))
            f["sources"].append((last, value_at[id(question.source)]))
            if question.via is not None:
                f["targets1"].append((last, question.person))
                f["hops"].append((last, value_at[id(question.via)]))
        return f


def linear(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * gain / math.sqrt(columns))


def rms_norm(x: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """One decoder layer. Its weights have Hugging Face's names."""

    def __init__(self) -> None:
        super().__init__()
        out = 1 / math.sqrt(2 * LAYERS)
        self.weights = nn.ParameterDict({
            "q_proj": linear(DIM, DIM), "k_proj": linear(KV_HEADS * HEAD_DIM, DIM),
            "v_proj": linear(KV_HEADS * HEAD_DIM, DIM), "o_proj": linear(DIM, DIM, out),
            "gate_proj": linear(FFN, DIM), "up_proj": linear(FFN, DIM), "down_proj": linear(DIM, FFN, out)})
        self.attention_norm = nn.Parameter(torch.ones(DIM))
        self.mlp_norm = nn.Parameter(torch.ones(DIM))

    def forward(self, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor,
                dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the hidden states after the block, and the attention scores of each KV head's first query head."""
        w = {name: p.to(dtype) for name, p in self.weights.items()}
        rows, width, group = h.shape[0], h.shape[1], HEADS // KV_HEADS
        y = rms_norm(h, self.attention_norm).to(dtype)
        q = rotate(F.linear(y, w["q_proj"]).float().view(rows, width, HEADS, HEAD_DIM), cos, sin) * HEAD_DIM ** -0.5
        k = rotate(F.linear(y, w["k_proj"]).float().view(rows, width, KV_HEADS, HEAD_DIM), cos, sin)
        v = F.linear(y, w["v_proj"]).view(rows, width, KV_HEADS, HEAD_DIM)
        q = q.to(dtype).view(rows, width, KV_HEADS, group, HEAD_DIM).permute(0, 2, 3, 1, 4)
        q = q.reshape(rows * KV_HEADS, group * width, HEAD_DIM)
        k = k.to(dtype).permute(0, 2, 3, 1).reshape(rows * KV_HEADS, HEAD_DIM, width)
        v = v.transpose(1, 2).reshape(rows * KV_HEADS, width, HEAD_DIM)
        scores = torch.bmm(q, k).view(rows, HEADS, width, width) + bias
        attention = torch.softmax(scores, -1)
        o = torch.bmm(attention.view(rows * KV_HEADS, group * width, width), v).view(rows, HEADS, width, HEAD_DIM).transpose(1, 2).reshape(rows, width, DIM)
        h = h + F.linear(o, w["o_proj"]).float()
        y = rms_norm(h, self.mlp_norm).to(dtype)
        mlp = F.linear(F.silu(F.linear(y, w["gate_proj"])) * F.linear(y, w["up_proj"]), w["down_proj"])
        return h + mlp.float(), scores[:, ::group]


class Llama(nn.Module):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        size = len(tokenizer.vocab)
        kind = torch.zeros(size, dtype=torch.long)
        for number, words in enumerate((VAULTS, ALIASES, PEOPLE, ROOMS, CODES), start=1):
            kind[[tokenizer.word[w] for w in words]] = number
        self.register_buffer("kind", kind)
        self.own = nn.Parameter(torch.randn(size, DIM) * 0.5)
        self.by_kind = nn.Parameter(torch.randn(6, DIM) * 0.5)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.final_norm = nn.Parameter(torch.full((DIM,), 0.2))
        self.aux = nn.ParameterList([linear(size, DIM, 0.5), linear(size, DIM, 0.5)])
        self.register_buffer("inv_freq", THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM))

    def table(self) -> torch.Tensor:
        return self.own + self.by_kind[self.kind] * (self.kind > 0)[:, None]

    def forward(self, batch: Batch, mask: torch.Tensor,
                dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        angle = batch.positions[..., None].float() * self.inv_freq
        cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
        bias = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -3e4)[:, None]
        h, hidden, scores = F.embedding(batch.ids, self.table()), [], []
        for block in self.blocks:
            h, first_heads = block(h, cos, sin, bias, dtype)
            hidden.append(h)
            scores.append(first_heads)
        return hidden, scores

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        return F.linear(rms_norm(h, self.final_norm), self.table())

    def aux_loss(self, h: torch.Tensor, which: int, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(rms_norm(h.reshape(-1, DIM)[targets[:, 0]], 1.0), self.aux[which]),
                               targets[:, 1])


def link_loss(scores: torch.Tensor, kv_head: int, links: torch.Tensor) -> torch.Tensor:
    """The cross entropy of a head's attention against the links: it is small if each `from` attends to its `to`."""
    return F.cross_entropy(scores[links[:, 0], kv_head, links[:, 1]].float(), links[:, 2])


def answers_right(model: Llama, hidden: list[torch.Tensor], batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model.logits(hidden[-1].reshape(-1, DIM)[batch.answers[:, 0]])
    return logits, logits.argmax(-1) == batch.answers[:, 1]


def train(model: Llama, generator: Generator, seed: int, log_every: int) -> None:
    rng = random.Random(seed)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=0.0, betas=(0.9, 0.98))
    begin = time.time()
    for number, phase in enumerate(SCHEDULE):
        right = []
        for step in range(phase.steps):
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / phase.steps)
            lr = phase.lr * min(1.0, (step + 1) / 100) * (phase.end + (1 - phase.end) * cosine)
            for group in optimizer.param_groups:
                group["lr"] = lr
            shape = rng.choice(phase.shapes)
            rows = max(4, phase.tokens // (shape.documents * (shape.tokens_max - 4) + 37 * shape.facts))
            batch = Batch(generator, shape, rows, rng, phase.hide)
            hidden, scores = model(batch, batch.mask, torch.bfloat16)
            logits, ok = answers_right(model, hidden, batch)
            loss = F.cross_entropy(logits, batch.answers[:, 1])
            aux = (model.aux_loss(hidden[0], 0, batch.targets0) +
                   model.aux_loss(hidden[1], 1, batch.targets1) +
                   link_loss(scores[1], 1, batch.bindings) + link_loss(scores[1], 0, batch.hops) +
                   link_loss(scores[2], 0, batch.sources))
            optimizer.zero_grad(set_to_none=True)
            (loss + phase.aux * aux).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            right.append([ok[batch.answers[:, 2] == t].float().mean().item() for t in range(3)])
            if (step + 1) % log_every == 0:
                mean = np.mean(right[-log_every:], axis=0)
                shown = " ".join(f"{t} {m:.3f}" for t, m in zip(TASKS, mean))
                print(f"phase {number} step {step + 1} {time.time() - begin:.0f}s loss {loss.item():.3f} "
                      f"aux {aux.item():.3f} {shown}", flush=True)


@torch.no_grad()
def evaluate(model: Llama, generator: Generator, shape: Shape, apart: bool, seed: int = 10**6, rows: int = 96) -> dict:
    """The share of right answers per task, in %, on held-out instances. `apart`: each document is encoded alone."""
    rng = random.Random(seed)
    hit, total = np.zeros(3), np.zeros(3)
    for _ in range(rows // 8):
        batch = Batch(generator, shape, 8, rng, hide=0.0)
        _, ok = answers_right(model, model(batch, batch.apart if apart else batch.mask, torch.float32)[0],
                              batch)
        for t in range(3):
            mine = batch.answers[:, 2] == t
            hit[t] += ok[mine].sum().item()
            total[t] += mine.sum().item()
    return {t: round(100 * h / n, 1) for t, h, n in zip(TASKS, hit, total)}


def tensors(model: Llama) -> dict[str, torch.Tensor]:
    named = {"model.embed_tokens.weight": model.table(), "model.norm.weight": model.final_norm}
    for number, block in enumerate(model.blocks):
        prefix = f"model.layers.{number}."
        named[prefix + "input_layernorm.weight"] = block.attention_norm
        named[prefix + "post_attention_layernorm.weight"] = block.mlp_norm
        for name, weight in block.weights.items():
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            named[f"{prefix}{part}.{name}.weight"] = weight
    return named


def round_to_bf16(model: Llama) -> None:
    """Rounds the weights as the export does, so that the evaluated model is the exported one."""
    with torch.no_grad():
        table = model.table().bfloat16().float()
        model.by_kind.zero_()
        model.own.copy_(table)
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())


def write_safetensors(named: dict[str, torch.Tensor], path: Path) -> None:
    header: dict = {"__metadata__": {"format": "pt"}}
    blob = b""
    for name in sorted(named):
        raw = named[name].detach().bfloat16().contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(named[name].shape), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)


def read_safetensors(model: Llama, path: Path) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    named = tensors(model)
    named["model.embed_tokens.weight"] = model.own
    with torch.no_grad():
        model.by_kind.zero_()
        for name, target in named.items():
            a, b = header[name]["data_offsets"]
            bits = np.frombuffer(raw[8 + length + a:8 + length + b], np.uint16).astype(np.uint32) << 16
            target.copy_(torch.from_numpy(bits.view(np.float32).reshape(header[name]["shape"]).copy()))


def export(model: Llama, tokenizer: Tokenizer, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_safetensors(tensors(model), out / "model.safetensors")
    stop = tokenizer.word["."]
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=DIM, num_hidden_layers=LAYERS,
                  intermediate_size=FFN, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
                  vocab_size=len(tokenizer.vocab), rms_norm_eps=1e-5, rope_theta=THETA, hidden_act="silu",
                  attention_bias=False, mlp_bias=False, tie_word_embeddings=True, max_position_embeddings=32768,
                  bos_token_id=tokenizer.word["<doc>"], eos_token_id=stop, pad_token_id=0, torch_dtype="bfloat16")
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (out / "generation_config.json").write_text(json.dumps(
        dict(bos_token_id=config["bos_token_id"], eos_token_id=stop, pad_token_id=0), indent=1) + "\n")
    (out / "tokenizer.json").write_text(json.dumps(tokenizer.to_json(), ensure_ascii=False) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps(
        dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=32768, pad_token="<pad>", bos_token="<doc>",
             eos_token=".", clean_up_tokenization_spaces=False), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--evaluate", action="store_true", help="only evaluate the checkpoint in --out")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer()
    generator, model = Generator(tokenizer), Llama(tokenizer)
    if args.evaluate:
        read_safetensors(model, args.out / "model.safetensors")
    else:
        train(model, generator, args.seed, args.log_every)
        round_to_bf16(model)
        export(model, tokenizer, args.out)
    for shape in MIXED:
        for apart in (False, True):
            print(shape, "documents encoded apart" if apart else "full prefill", evaluate(model, generator, shape, apart),
                  flush=True)


if __name__ == "__main__":
    main()
