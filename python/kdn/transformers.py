"""The KDN for Hugging Face Transformers.

    kb = KnowledgeBase(model, tokenizer)
    kb.add("handbook", text)
    kb.generate("When is the office open?", knowledge=["handbook"]).text
    kb.ask("When is the office open?", knowledge=["handbook"]).text     # of a chat model

The first engine that adds a text prefills it, and the cluster stores its KV. Every engine
with the same model and tokenizer then continues behind that KV. An engine prefills what
the cluster cannot deliver, so an answer never fails because the cluster is down. At the
level "lossless", answers are the same with and without the KDN.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from .client import DEFAULT_ADDRESS
from .errors import FailedPrecondition, InvalidArgument, KdnError, Unimplemented
from .failover import Failover
from .huggingface import autocasts, cache_of, kv_of, length_of, prefill, sensitivity_of, spec_of, windows_of
from .keys import CHUNK_TOKENS, Chunk, check_int32
from .knowledge import Knowledge
from .loaded_model import witness_of
from .model import ModelSpec
from .terms import EXACT, Terms
from .types import leading, names_of

_log = logging.getLogger("kdn")

MAX_NEW_TOKENS = 256
"""Most tokens of an answer, if neither the options nor the model's generation config set a
length."""
CALIBRATION_WINDOWS = 32
"""Windows of text that a calibration reads; more take longer and change little."""
_WINDOW_TOKENS = 1024
"""Tokens of a window whose KV calibrates."""
_BEHIND_TOKENS = 64
"""Tokens behind them, which show how much an error in that KV matters."""
_RATED_TOKENS = 256
"""Fewest prefilled tokens from which the prefill rate is measured: with fewer tokens, the
fixed cost of a call would count too much."""
# Options of generate that are refused with other values than these and None, wherever the
# values come from, because an answer is not one sequence behind one cache then.
_ONLY: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": 0.0,
    "dola_layers": None,
    "prompt_lookup_num_tokens": None,
    "assistant_model": None,
    "assistant_early_exit": None,
    "constraints": None,
    "force_words_ids": None,
    "custom_generate": None,
    "token_healing": False,
    "cache_implementation": "dynamic",
}
# Options that are always set. They do not change the tokens of an answer, so that only a
# caller who asks for other values is refused.
_FIXED: dict[str, Any] = {"use_cache": True, "return_dict_in_generate": False}
_OURS = (
    "inputs",
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "cache_position",
    "past_key_values",
    "logits_processor",
)


Text = str | Sequence[int] | Mapping[str, Any]
"""A text, its token ids (a list or a tensor), or what a tokenizer returns for one text."""


@dataclass(frozen=True)
class Added:
    """A text that was added, with the number of its `chunks`. `held` counts the chunks that
    the cluster can deliver now (0 when the cluster is down). `stored` counts those of them
    that the cluster could not deliver before."""

    name: str
    tokens: int
    chunks: int
    held: int
    stored: int


@dataclass(frozen=True)
class Generated:
    """An answer, and the origin of its prompt's KV.

    The KV of `delivered_tokens` tokens came from the cluster; `prefilled_tokens` tokens were
    prefilled here. `sources` are the nodes that delivered. `time_to_first_token` is in
    seconds.
    """

    text: str
    tokens: list[int]
    delivered_tokens: int
    prefilled_tokens: int
    sources: tuple[str, ...]
    time_to_first_token: float


@dataclass
class _Prompt:
    """A prompt. Its head, `tokens[:known]`, is the named texts in their order."""

    tokens: list[int]
    known: int
    first: int  # number of tokens of the first text


@dataclass
class _Delivered:
    """A cache with delivered KV. `complete` says that no call failed. `exact` says that the
    KV is the computed KV bit for bit; then KV computed behind it may be stored."""

    cache: Any = field(default_factory=DynamicCache)
    tokens: int = 0
    sources: tuple[str, ...] = ()
    complete: bool = False
    exact: bool = True
    kv: Any = None  # KV of these tokens, perhaps with room behind them


class _FirstLogits(LogitsProcessor):
    """Notes the time at which the logits of the first token are ready."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if scores.is_cuda and not self.at:
            torch.cuda.synchronize(scores.device)  # the work may only be queued yet
        self.at = self.at or time.perf_counter()
        return scores


class KdnCache:
    """Stores prefix KV out of a model's caches, and fetches it into new caches.

    `addresses` are the nodes to connect to: the first that answers is used, and the next
    one when that node dies. `ca` is that of `kdn.Client`. Raises Unavailable when no node
    answers at the start. Later, a cluster that is down raises nothing: it delivers no chunk
    and stores none. `levels` are
    the levels to store (default: "lossless"); `accept` are the levels to fetch (default:
    `levels`); each is one name or a list. Like the model, an object is for one thread at a
    time. Under torch.autocast, calls go without the KDN.

    Every call looks whether the model has changed since the last one. A changed model is
    another model for the KDN: `spec` changes, chunks of the old one are neither delivered
    nor stored, and chains must be cut again. With `weights_digest`, a change of the weights
    raises FailedPrecondition, because the digest no longer holds.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        namespace: str = "default",
        weights_digest: str | None = None,
        levels: str | Sequence[str] | None = None,
        accept: str | Sequence[str] | None = None,
        durability: str = "replicated",
        timeout: float = 10.0,
        ca: str | None = None,
    ) -> None:
        self.terms = Terms(levels, accept, durability, timeout)
        self._model = model
        self._tokenizer = tokenizer
        self._weights = weights_digest
        self._addresses = addresses
        self._ca = ca
        self._namespace = namespace
        self._watching = True
        self._said_off = False
        self._witness = witness_of(model)
        self._use(spec_of(model, tokenizer, weights_digest))
        self._cluster.connect()

    def _use(self, spec: ModelSpec) -> None:
        self._cluster = Failover(self._addresses, self._namespace, spec, "kdn.transformers", self._ca)
        self.prefill_tokens_per_second = 0.0
        """The model's measured speed of prefill; 0: unknown. Chunks that would take longer to
        load than to prefill are not loaded."""
        self._device = self._model.device
        self.spec = spec

    def refresh(self) -> bool:
        """Looks whether the model has changed, and goes on under its new spec then. Returns
        whether the spec has changed. Raises what `spec_of` raises, and FailedPrecondition
        when a given weights_digest no longer holds."""
        witness = witness_of(self._model)
        if self._witness.alike(witness):
            return False
        if self._weights and not self._witness.same_weights(witness):
            raise FailedPrecondition(
                "the model's weights, their place or its adapters have changed since weights_digest was given: "
                "make a new object with a weights_digest of the new weights"
            )
        spec = spec_of(self._model, self._tokenizer, self._weights)
        changed = spec != self.spec
        if changed:
            _log.warning("the model has changed: going on as another model, whose chunks are stored anew")
            with contextlib.suppress(KdnError):
                self._cluster.close()
            self._use(spec)
        self._device = self._model.device
        self._witness = witness  # last, so that the next refresh repeats an interrupted one
        return changed

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Looks once, at the beginning, whether the model has changed, and not in the calls
        inside."""
        self.refresh()
        self._watching = False
        try:
            yield
        finally:
            self._watching = True

    def _is_off(self) -> bool:
        """Whether calls go without the KDN, because the model computes KV of another dtype
        than the spec's."""
        if not autocasts(self._device):
            return False
        if not self._said_off:
            _log.warning(
                "autocast is on, so that KV has another dtype than the model: going on without the KDN; "
                "load the model in the dtype of autocast instead"
            )
            self._said_off = True
        return True

    def _check(self) -> None:
        if self._watching and self.refresh():
            raise FailedPrecondition("the model has changed since these chunks were cut: cut the chain again")

    def fetch(self, chains: Sequence[Sequence[Chunk]], accept: str | Sequence[str] | None = None) -> _Delivered:
        """A cache with the longest prefix of any chain that the cluster delivers. `accept`
        replaces the usual levels. After a failure, the KV that came before it is kept."""
        self._check()
        delivered = _Delivered()
        if self._is_off():
            return delivered

        def fetch(knowledge: Knowledge) -> bool:
            self._fetch(knowledge, chains, names_of(accept or self.terms.accept), delivered)
            return True

        delivered.complete = self._cluster.attempt("fetching a prefix", fetch, False)
        if delivered.tokens:
            delivered.cache = cache_of(delivered.kv[:, :, :, : delivered.tokens], self._device)
        return delivered

    def _fetch(
        self, knowledge: Knowledge, chains: Sequence[Sequence[Chunk]], accept: Sequence[str], delivered: _Delivered
    ) -> None:
        found = knowledge.lookup([chunk for chain in chains for chunk in chain], self.terms.lookup_timeout)
        best: Sequence[Chunk] = []
        for chain in chains:
            hits, found = found[: len(chain)], found[len(chain) :]
            held = leading(hit.delivers(accept) for hit in hits)
            if held and (not best or chain[held - 1].end > best[-1].end):
                best = chain[:held]
        for got in knowledge.retrieve_prefix(
            best,
            accept=accept,
            prefill_tokens_per_second=self.prefill_tokens_per_second,
            timeout=self.terms.timeout,
        ):
            kv, outcomes = got.torch()[:, :, :, : got.prefix_tokens], got.outcomes[: got.prefix_chunks]
            if len(got.chunks) == len(best):
                delivered.kv = kv  # one group is the whole prefix: no copy
            else:
                # Groups are copied, so that shared memory holds one group at a time.
                if delivered.kv is None:
                    shape = (*kv.shape[:3], best[-1].end, kv.shape[4])
                    delivered.kv = torch.empty(shape, dtype=kv.dtype, device=self._device)
                delivered.kv[:, :, :, delivered.tokens : delivered.tokens + got.prefix_tokens] = kv
            delivered.tokens += got.prefix_tokens
            delivered.sources = tuple(dict.fromkeys([*delivered.sources, *(hit.source for hit in outcomes)]))
            delivered.exact &= all(hit.level in EXACT for hit in outcomes)

    def missing(self, chain: Sequence[Chunk]) -> list[Chunk] | None:
        """The chunks of `chain` that the cluster cannot deliver. None when the cluster does
        not answer."""
        self._check()
        if self._is_off():
            return None

        def look(knowledge: Knowledge) -> list[Chunk] | None:
            found = knowledge.lookup(chain, self.terms.lookup_timeout)
            return [chunk for chunk, hit in zip(chain, found) if not hit.delivers(self.terms.accept)]

        return self._cluster.attempt("looking chunks up", look, None)

    def store(self, chunks: Sequence[Chunk], cache: Any) -> int:
        """Stores `chunks` out of a cache that holds their tokens at their positions. Stops
        at the first chunk that the cluster does not store. Returns the number of stored
        chunks."""
        self._check()
        if self._is_off():
            return 0
        return leading(self._store(chunk, kv_of(cache, chunk.begin, chunk.end)) for chunk in chunks)

    def _store(self, chunk: Chunk, kv: Any) -> bool:
        def store(knowledge: Knowledge) -> bool:
            terms = self.terms
            knowledge.store(chunk, kv, levels=terms.levels, durability=terms.durability, timeout=terms.timeout)
            return True

        return self._cluster.attempt("storing a chunk", store, False)

    def chain(self, tokens: Sequence[int]) -> list[Chunk]:
        """Cuts `tokens` into chunks, as every client does."""
        if self._watching:
            self.refresh()
        return self._cluster.chain(tokens)

    @property
    def cluster(self) -> Failover:
        """The connection in use."""
        return self._cluster

    def close(self) -> None:
        """Ends the session with the cluster. Stored chunks stay."""
        self._cluster.close()

    def __enter__(self) -> KdnCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KnowledgeBase:
    """Named texts that a model answers questions about. See the module's text for an
    example.

    The texts of a question form one prefix. The cluster delivers the part of it that was
    stored in exactly this order. The rest is prefilled, and then stored.
    """

    def __init__(self, model: Any, tokenizer: Any, addresses: str | Sequence[str] = DEFAULT_ADDRESS, **options: Any):
        """`options` are those of `KdnCache`."""
        self.model = model
        self.tokenizer = tokenizer
        self.kdn = KdnCache(model, tokenizer, addresses, **options)
        self._front = _front_of(tokenizer)
        self._texts: dict[str, list[int]] = {}
        self._chat_texts: dict[str, str] = {}
        # What chat_begin says of texts: it splits them four times. Emptied by add.
        self._chat_begins: dict[str, list[int]] = {}

    def tokens_of(self, text: Text, begins: bool) -> list[int]:
        """The token ids of one part of a prompt. The special tokens that the tokenizer puts
        in front (BOS) come once, at the beginning of the prompt. A part that has them, as a
        text of a chat template does, gets no others; a part behind another one loses them.
        A text gets no special tokens at its end; token ids stay as they are there."""
        bare = _ids_of(self.tokenizer, text)
        front = self._front
        if bare[: len(front)] == front:
            bare = bare[len(front) :]
        elif not bare:
            return []
        return front + bare if begins else bare

    def add(self, name: str, text: Text, *, chat: bool = False) -> Added:
        """Registers `text` under `name`, and stores its KV in the cluster unless the cluster
        already holds it. `text` is a text or its token ids. Of a chat, give the text or the
        ids that the tokenizer's apply_chat_template makes.

        With `chat`, the KV is that of the beginning of a chat about this text, as `ask` and
        a chat server have it whose system message is the text. Such a text is a string."""
        tokens = self.tokens_of(text, begins=True)
        if not tokens:
            raise InvalidArgument(f"text {name!r} is empty")
        if chat and not isinstance(text, str):
            raise InvalidArgument(f"text {name!r} of a chat is given as token ids, expected a string")
        stored = chat_begin(self.tokenizer, text) if chat and isinstance(text, str) else tokens
        with self.kdn.watched():
            self._texts[name] = tokens
            self._chat_texts.pop(name, None)
            self._chat_begins.clear()
            if isinstance(text, str):
                self._chat_texts[name] = text
            return self._add(name, stored)

    def calibrate(self, texts: Sequence[Text], windows: int = CALIBRATION_WINDOWS) -> str:
        """Makes a calibration of the model and stores it in the cluster, where it makes the
        levels "base" to "base+2" smaller and more exact, and the level "archive" possible.
        Returns its id.

        Reads `windows` windows of 1,088 tokens, spread over the texts, which should be like
        those to be stored; several kinds of text are better than one. Each head and each token
        weighs as much as errors in its K and V change what the model says, measured by
        autograd.
        Raises what keeps the calibration from being made: unlike an answer, it needs the
        cluster."""
        with self.kdn.watched():
            calibrator = self.kdn.cluster.connect().calibrator()
            tokens = [token for text in texts for token in self.tokens_of(text, begins=True)]
            weights: Any = 0.0
            random = torch.Generator(device=self.model.device).manual_seed(1)
            for window in windows_of(tokens, windows, _WINDOW_TOKENS + _BEHIND_TOKENS):
                cache = DynamicCache()
                behind = min(_BEHIND_TOKENS, len(window) // 4)
                context, behind_ids = window[: len(window) - behind], window[len(window) - behind :]
                prefill(self.model, context, cache)
                of_heads, of_tokens = sensitivity_of(self.model, cache, behind_ids, random)
                for begin in range(0, len(context), CHUNK_TOKENS):
                    end = min(begin + CHUNK_TOKENS, len(context))
                    calibrator.add(kv_of(cache, begin, end), range(begin, end), of_tokens[:, :, begin:end])
                weights = weights + of_heads
            return calibrator.finish(weights.flatten().tolist())

    def _add(self, name: str, tokens: Sequence[int]) -> Added:
        chain = self.kdn.chain(tokens)
        missing = self.kdn.missing(chain)
        before = 0 if missing is None else len(chain) - len(missing)
        if missing:
            # Stored KV must be exact, so it is computed behind exact KV only.
            delivered = self.kdn.fetch([chain], EXACT)
            if delivered.complete:
                # Chunks behind the last missing chunk are not prefilled.
                prefill_chunks(self.model, tokens[: missing[-1].end], delivered.cache)
                self.kdn.store(missing, delivered.cache)
                missing = self.kdn.missing(chain)
        held = 0 if missing is None else len(chain) - len(missing)
        return Added(name, len(tokens), len(chain), held, max(held - before, 0))

    def _prompt(self, question: str, knowledge: Sequence[str]) -> _Prompt:
        unknown = [name for name in knowledge if name not in self._texts]
        if unknown:
            raise InvalidArgument(f"no text was added as {unknown[0]!r}; there are {', '.join(self._texts) or 'none'}")
        head = [token for name in knowledge for token in self._texts[name][len(self._front) :]]
        if head:
            head = self._front + head
        first = len(self._texts[knowledge[0]]) if knowledge else 0
        tail = self.tokens_of(question, begins=not head)
        if not tail:
            raise InvalidArgument("the question is empty")
        return _Prompt(head + tail, len(head), first)

    def generate(
        self,
        question: str,
        knowledge: str | Sequence[str] = (),
        *,
        use_kdn: bool = True,
        learn: bool = True,
        **options: Any,
    ) -> Generated:
        """Answers `question`, a text or its token ids, behind the named texts, in their order.
        `knowledge` is one name or a list of names.

        `use_kdn=False` prefills the whole prompt, for comparison. `learn` stores, after the
        answer, the KV of the texts that had to be prefilled, unless it was computed behind
        KV of a lossy level. `options` go to the model's generate, which samples or not as
        the options, their `generation_config` or the model's own generation config say.
        Raises Unimplemented for options that give more than one sequence, or that use
        another cache.
        """
        options = self._options(options)
        return self._answer(self._prompt(question, names_of(knowledge)), use_kdn, learn, options)

    def ask(
        self,
        question: str,
        knowledge: str | Sequence[str] = (),
        *,
        use_kdn: bool = True,
        learn: bool = True,
        **options: Any,
    ) -> Generated:
        """Answers `question` as a chat model does: in the chat template of the tokenizer,
        with the named texts as the system message (in front of the question, if the template
        has no system message). All questions about the same texts begin with the same
        tokens, so the cluster delivers these. Otherwise as `generate`."""
        options = self._options(options)
        names = names_of(knowledge)
        for name in names:
            if name not in self._chat_texts:
                known = ", ".join(self._chat_texts) or "none"
                raise InvalidArgument(f"no string was added as {name!r}; there are {known}")
        prompt = self._chat_prompt(question, "\n\n".join(self._chat_texts[name] for name in names))
        return self._answer(prompt, use_kdn, learn, options)

    def _chat_prompt(self, question: str, knowledge: str) -> _Prompt:
        if not question:
            raise InvalidArgument("the question is empty")
        tokens = chat_tokens(self.tokenizer, knowledge, question)
        if knowledge and knowledge not in self._chat_begins:
            self._chat_begins[knowledge] = chat_begin(self.tokenizer, knowledge)
        known = common_length(tokens, self._chat_begins[knowledge]) if knowledge else 0
        return _Prompt(tokens, known, known)

    def _answer(self, prompt: _Prompt, use_kdn: bool, learn: bool, options: Mapping[str, Any]) -> Generated:
        begin = time.perf_counter()
        if not use_kdn:
            return self._generate(prompt, [], learn, begin, options)
        with self.kdn.watched():
            return self._generate(prompt, self.kdn.chain(prompt.tokens[: prompt.known]), learn, begin, options)

    def _generate(
        self, prompt: _Prompt, chain: Sequence[Chunk], learn: bool, begin: float, options: Mapping[str, Any]
    ) -> Generated:
        delivered = self._deliver(prompt, chain)
        loaded = time.perf_counter()
        ids = torch.tensor([prompt.tokens], device=self.model.device)
        first = _FirstLogits()
        answer = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=delivered.cache,
            logits_processor=LogitsProcessorList([first]),
            **options,
        )
        tokens = answer[0, len(prompt.tokens) :].tolist()
        prefilled = len(prompt.tokens) - delivered.tokens
        if prefilled >= _RATED_TOKENS:
            # The first prefill is slow, so the best rate counts.
            rate = prefilled / (first.at - loaded)
            self.kdn.prefill_tokens_per_second = max(rate, self.kdn.prefill_tokens_per_second)
        if learn and delivered.complete and delivered.exact and delivered.tokens < prompt.known:
            # Chunks that the cluster holds already, but that were faster to compute, are
            # not stored again.
            behind = [c for c in chain if c.end > delivered.tokens]
            self.kdn.store(self.kdn.missing(behind) or [], delivered.cache)
        return Generated(
            text=self.tokenizer.decode(tokens, skip_special_tokens=True),
            tokens=tokens,
            delivered_tokens=delivered.tokens,
            prefilled_tokens=prefilled,
            sources=delivered.sources,
            time_to_first_token=first.at - begin,
        )

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        config = options.get("generation_config") or self.model.generation_config
        for name, value in options.items():
            if name in _OURS or (name in _FIXED and value != _FIXED[name]):
                raise Unimplemented(f"generate with {name}={value!r}")
        for name, only in _ONLY.items():
            value = options.get(name, getattr(config, name, None))
            if value is not None and value != only:
                raise Unimplemented(f"generate with {name}={value!r}, which the options or the generation config say")
        told = {**options, **_FIXED}
        if options.get("pad_token_id", getattr(config, "pad_token_id", None)) is None:
            told["pad_token_id"] = 0  # one sequence is never padded, but Transformers warns
        unsaid = config.max_new_tokens is None and config.max_length == GenerationConfig().max_length
        if unsaid and not {"max_new_tokens", "max_length"} & options.keys():
            told["max_new_tokens"] = MAX_NEW_TOKENS
        return told

    def _deliver(self, prompt: _Prompt, chain: Sequence[Chunk]) -> _Delivered:
        if not chain:
            return _Delivered()
        # Stored alone, the first text ends with a shorter chunk, which differs from the
        # chunk at that place of a longer prefix. So both chains are looked up.
        chains = [chain]
        if prompt.first < prompt.known:
            chains.append(self.kdn.chain(prompt.tokens[: prompt.first]))
        return self.kdn.fetch(chains)

    def close(self) -> None:
        """Ends the session with the cluster. Stored chunks stay."""
        self.kdn.close()

    def __enter__(self) -> KnowledgeBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ids_of(tokenizer: Any, text: Text) -> list[int]:
    """The token ids of `text`, without special tokens that the tokenizer adds."""
    if isinstance(text, str):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    given: Any = text["input_ids"] if isinstance(text, Mapping) else text
    ids = given.tolist() if hasattr(given, "tolist") else list(given)
    if len(ids) == 1 and isinstance(ids[0], list):
        ids = ids[0]  # a batch of one
    if not all(isinstance(i, int) for i in ids):
        raise InvalidArgument(
            "a text is a string or the token ids of one; of chat messages, give what the tokenizer's "
            "apply_chat_template makes"
        )
    check_int32(ids, "token id")
    return ids


def chat_tokens(tokenizer: Any, knowledge: str, question: str) -> list[int]:
    """The token ids of a chat with the knowledge as its system message, up to where the
    answer begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidArgument("the tokenizer has no chat_template: set one, or use generate")
    from jinja2 import TemplateError  # Transformers needs jinja2 for templates only

    system = [{"role": "system", "content": knowledge}] if knowledge else []
    try:
        text = _chat_text(tokenizer, [*system, {"role": "user", "content": question}])
    except TemplateError:
        # Templates without a system message, as Gemma's, refuse one. Any other mistake in a
        # template shows again here.
        text = _chat_text(tokenizer, [{"role": "user", "content": f"{knowledge}\n\n{question}"}])
    # A chat server tokenizes what the template makes, which has its own special tokens.
    return _ids_of(tokenizer, text)


def _chat_text(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def chat_begin(tokenizer: Any, knowledge: str) -> list[int]:
    """The token ids with which every chat about the knowledge begins."""
    tokens = chat_tokens(tokenizer, knowledge, "Why?")
    for question in ("When is it?", "1", "\u00e9t\u00e9"):
        tokens = tokens[: common_length(tokens, chat_tokens(tokenizer, knowledge, question))]
    return tokens


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of tokens that two texts have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _front_of(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts in front of a prompt."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    for i in range(len(whole)):
        if whole[i : i + len(bare)] == bare:
            return whole[:i]
    raise Unimplemented("a tokenizer that tokenizes a text differently when it adds special tokens")


def prefill_chunks(model: Any, tokens: Sequence[int], cache: Any, step: int = 1024) -> None:
    """Prefills those of `tokens` that `cache` does not hold yet, `step` tokens at a time,
    because the memory of attention grows with the tokens of a step."""
    for begin in range(length_of(cache), len(tokens), step):
        prefill(model, tokens[begin : begin + step], cache)
