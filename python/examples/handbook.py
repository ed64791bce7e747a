"""Prefills a document once and serves its KV to every engine that asks about it.

    build/bin/kdn up -c configs/local-3.yaml          # in a terminal of its own
    build/venv/bin/python python/examples/handbook.py

Read it from top to bottom; every step prints its result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import kdn
from kdn.transformers import KnowledgeBase

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "unix:/tmp/kdn-local-3-n1.sock"
MODEL = Path(__file__).resolve().parents[2] / "model" / "recall"

# 1. The engine: any Llama, Mistral, Qwen2 or Qwen3 of the hub will do. This model is small
#    and can only look up facts in its prompt. "auto" loads the dtype of the checkpoint;
#    Transformers 4 would load fp32. Engines share KV only if its dtype is the same.
model = AutoModelForCausalLM.from_pretrained(str(MODEL), torch_dtype="auto").eval()
tokenizer = AutoTokenizer.from_pretrained(str(MODEL))

# 2. A document with a name. Its KV is computed now, unless the cluster already has it.
handbook = (MODEL / "facts" / "arden.txt").read_text()
try:
    base = KnowledgeBase(model, tokenizer, ADDRESS)
except kdn.Unavailable as error:
    sys.exit(f"{error}\nStart a cluster first: build/bin/kdn up -c configs/local-3.yaml")
added = base.add("handbook", handbook)
print(f"handbook: {added.tokens} tokens in {added.chunks} chunks, {added.stored} of them new to the cluster")

# 3. Questions about the document: only the question is prefilled.
for question in ("What is the code of vault elm?", "What is the code of vault copper?"):
    answer = base.generate("<q> " + question, knowledge=["handbook"], max_new_tokens=1)
    print(
        f"{question} {answer.text}   "
        f"({answer.delivered_tokens} tokens delivered by {', '.join(answer.sources)}, "
        f"{answer.prefilled_tokens} prefilled, first token after {1000 * answer.time_to_first_token:.0f} ms)"
    )

# 4. The last question again without the KDN: the same answer, all of it prefilled.
alone = base.generate("<q> " + question, knowledge=["handbook"], use_kdn=False, max_new_tokens=1)
print(f"without the KDN: {alone.text}   ({alone.prefilled_tokens} tokens prefilled)")

# 5. The calls underneath are those of rpc/kdn.capnp. KV comes as one tensor of shape
#    (layers, 2, kv_heads, tokens, head_dim), in memory shared with the node.
with kdn.Client(ADDRESS) as client:
    knowledge = client.open("default", base.kdn.spec)
    chain = knowledge.chain(base.tokens_of(handbook, begins=True))
    for chunk, found in zip(chain, knowledge.lookup(chain)):
        print(f"{chunk}: held by {found.node} in {found.tier}, {found.bytes} bytes, {', '.join(found.levels)}")
    got = knowledge.retrieve(chain)
    print(f"retrieved {got.prefix_tokens} tokens, KV of shape {got.kv.shape}, first source {got.outcomes[0].source}")
base.close()
