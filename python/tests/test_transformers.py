"""Hugging Face Transformers with a real model and a real cluster: answers are the same with
and without the KDN."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from cluster import KDN, MODEL, Cluster

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import kdn  # noqa: E402
import kdn.loaded_model as loaded_model  # noqa: E402
import kdn.transformers as transformers_module  # noqa: E402
from kdn.config_digest import completed, model_digest  # noqa: E402
from kdn.failover import Failover  # noqa: E402
from kdn.huggingface import (  # noqa: E402
    cache_of,
    kv_of,
    layers_of,
    length_of,
    prefill,
    sensitivity_of,
    served_digest,
    spec_of,
    spec_of_config,
    windows_of,
)
from kdn.loaded_model import facts_of  # noqa: E402
from kdn.memory import Memory  # noqa: E402
from kdn.model import weights_digest  # noqa: E402
from kdn.transformers import KdnCache, KnowledgeBase  # noqa: E402

torch.manual_seed(0)
NEW_TOKENS = 8
GREEDY = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}


@pytest.fixture(scope="session")
def recall() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(str(MODEL), torch_dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(MODEL))


def random_model(family: str, **changes: Any) -> Any:
    """A model of the family with random weights, bigger than the shipped one."""
    common = {
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }
    special: dict[str, dict[str, Any]] = {
        "Llama": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "Mistral": {"sliding_window": None},
        "Qwen2": {},
        "Qwen3": {"head_dim": 64},
    }
    config_class = getattr(transformers, f"{family}Config", None)
    if config_class is None:
        pytest.skip(f"Transformers {transformers.__version__} has no {family}")
    torch.manual_seed(len(family))
    config = config_class(**{**common, **special[family], **changes})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def text_of(name: str) -> str:
    return (MODEL / "facts" / f"{name}.txt").read_text()


def questions() -> list[dict[str, str]]:
    return [json.loads(line) for line in (MODEL / "questions.jsonl").read_text().splitlines()]


@pytest.fixture
def base(recall: Any, tokenizer: Any, cluster: Cluster, namespace: str):
    with KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace) as made:
        yield made


def test_the_model_is_the_one_kdn_inject_registers(recall: Any, tokenizer: Any) -> None:
    assert spec_of(recall, tokenizer) == kdn.ModelSpec.from_directory(MODEL, "fp32")
    assert spec_of(recall, tokenizer).name.endswith("recall")


def test_a_model_changed_in_memory_is_another(recall: Any, tokenizer: Any) -> None:
    files = spec_of(recall, tokenizer)
    changed = copy.deepcopy(recall)
    with torch.no_grad():
        changed.model.layers[2].mlp.down_proj.weight *= 1.01
    assert spec_of(changed, tokenizer) != files
    assert spec_of(changed, tokenizer) == spec_of(copy.deepcopy(changed), tokenizer)
    fields = recall.config.to_dict()
    assert spec_of(changed, tokenizer, weights="mine").weights_digest == model_digest("mine", fields)
    half = transformers.AutoModelForCausalLM.from_pretrained(str(MODEL), torch_dtype=torch.bfloat16)
    assert spec_of(half, tokenizer).weights_digest == files.weights_digest
    quantized = copy.deepcopy(recall)
    quantized.hf_quantizer = object()
    assert spec_of(quantized, tokenizer) != files
    adapted = copy.deepcopy(recall)
    adapted.peft_config = {"default": object()}
    with pytest.raises(kdn.Unimplemented, match="adapters: name its weights"):
        spec_of(adapted, tokenizer)


def test_a_change_of_one_row_in_memory_is_noticed(recall: Any, tokenizer: Any) -> None:
    changed = copy.deepcopy(recall)
    with torch.no_grad():
        changed.model.layers[1].self_attn.k_proj.weight[5] *= 1.01
    assert spec_of(changed, tokenizer) != spec_of(recall, tokenizer)


def test_a_bias_of_the_files_that_the_model_lacks_is_noticed(tokenizer: Any, tmp_path: Path) -> None:
    model = random_model("Qwen2")
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.bias += 1
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    files, named = spec_of(loaded, tokenizer), spec_of(loaded, tokenizer, weights="mine")
    loaded.model.layers[0].self_attn.k_proj.bias = None
    assert spec_of(loaded, tokenizer) != files
    assert spec_of(loaded, tokenizer, weights="mine") != named


def test_a_look_at_a_model_draws_no_random_number(recall: Any, tokenizer: Any) -> None:
    state = torch.random.get_rng_state()
    spec_of(recall, tokenizer)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="torch before 2 compiles no models")
def test_a_compiled_model_is_the_same_model(recall: Any, tokenizer: Any) -> None:
    assert spec_of(torch.compile(recall), tokenizer) == spec_of(recall, tokenizer)
    changed = copy.deepcopy(recall)
    merge_through_data(changed)
    expected = spec_of(changed, tokenizer)
    changed.model.layers[2] = torch.compile(changed.model.layers[2])
    assert spec_of(changed, tokenizer) == expected


def set_epsilon(model: Any) -> None:
    model.model.layers[1].input_layernorm.variance_epsilon = 0.1


def set_config_epsilon(model: Any) -> None:
    model.config.rms_norm_eps = 0.1


def set_unknown_field(model: Any) -> None:
    model.config.residual_multiplier = 0.5


def turn_slower(model: Any) -> None:
    model.model.rotary_emb.inv_freq[3] *= 0.5


def round_the_rotation(model: Any) -> None:
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.bfloat16().float()


def activate_otherwise(model: Any) -> None:
    model.model.layers[2].mlp.act_fn = torch.nn.ReLU()


class Doubled(torch.nn.Linear):
    def forward(self, input: Any) -> Any:
        return 2 * super().forward(input)


def compute_by_own_class(model: Any) -> None:
    model.model.layers[0].mlp.down_proj.__class__ = Doubled


def skip_a_norm(model: Any) -> None:
    model.model.layers[1].input_layernorm = torch.nn.Identity()


def skip_an_mlp(model: Any) -> None:
    model.model.layers[3].mlp = torch.nn.Identity()


def use_a_layer_twice(model: Any) -> None:
    model.model.layers[3] = model.model.layers[2]


def add_a_bias(model: Any) -> None:
    projection = model.model.layers[1].self_attn.v_proj
    projection.bias = torch.nn.Parameter(torch.ones(projection.out_features))


def doubled(module: Any, given: Any, result: Any) -> Any:
    return (2 * result[0], *result[1:]) if isinstance(result, tuple) else 2 * result


def halved(module: Any, given: Any) -> Any:
    return (given[0] / 2, *given[1:])


def hook_a_result(model: Any) -> None:
    model.model.layers[0].register_forward_hook(doubled)


def hook_an_input(model: Any) -> None:
    model.model.layers[1].mlp.register_forward_pre_hook(halved)


def replace_a_forward(model: Any) -> None:
    mlp = model.model.layers[1].mlp
    mlp.forward = functools.partial(torch.mul, other=2.0)


def count_heads_otherwise(model: Any) -> None:
    model.model.layers[0].self_attn.num_key_value_groups = 1


@pytest.mark.parametrize(
    "change",
    [
        set_epsilon,
        set_config_epsilon,
        set_unknown_field,
        turn_slower,
        round_the_rotation,
        activate_otherwise,
        compute_by_own_class,
        skip_a_norm,
        skip_an_mlp,
        use_a_layer_twice,
        add_a_bias,
        hook_a_result,
        hook_an_input,
        replace_a_forward,
        count_heads_otherwise,
    ],
)
def test_a_model_that_computes_otherwise_is_another(change: Any, recall: Any, tokenizer: Any) -> None:
    changed = copy.deepcopy(recall)
    change(changed)
    assert spec_of(changed, tokenizer) != spec_of(recall, tokenizer)
    assert spec_of(changed, tokenizer, weights="mine") != spec_of(recall, tokenizer, weights="mine")
    again = copy.deepcopy(recall)
    change(again)
    assert spec_of(again, tokenizer) == spec_of(changed, tokenizer)


def test_the_forward_of_a_class_that_is_not_its_own_is_noticed(
    recall: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spec_of(recall, tokenizer)
    monkeypatch.setattr(type(recall.model.layers[0].mlp), "forward", lambda self, given: 2 * given)
    assert spec_of(recall, tokenizer) != first


def test_a_hook_on_all_modules_is_noticed(recall: Any, tokenizer: Any) -> None:
    first = spec_of(recall, tokenizer)
    hook = torch.nn.modules.module.register_module_forward_hook(doubled)
    try:
        assert spec_of(recall, tokenizer) != first
    finally:
        hook.remove()


def test_code_that_only_moves_tensors_makes_no_other_model(recall: Any, tokenizer: Any) -> None:
    moved = copy.deepcopy(recall)
    mlp = moved.model.layers[0].mlp

    def forward(module: Any, given: Any) -> Any:  # as accelerate wraps a module
        return module._old_forward(given)

    forward.__module__ = "accelerate.hooks"
    mlp._old_forward = mlp.forward
    mlp.forward = functools.update_wrapper(functools.partial(forward, mlp), mlp._old_forward)
    assert spec_of(moved, tokenizer) == spec_of(recall, tokenizer)
    mlp._old_forward = functools.partial(torch.mul, other=2.0)
    assert spec_of(moved, tokenizer) != spec_of(recall, tokenizer)


def test_a_model_that_drops_out_values_is_refused(tokenizer: Any) -> None:
    model = random_model("Llama", attention_dropout=0.1)
    spec_of(model, tokenizer)
    with pytest.raises(kdn.FailedPrecondition, match=r"model\.eval\(\)"):
        spec_of(model.train(), tokenizer)


@pytest.mark.parametrize("scaling", [None, "linear", "llama3", "yarn"])
def test_a_model_as_transformers_makes_it_computes_what_its_config_says(scaling: str | None) -> None:
    rope: dict[str, Any] = {"rope_type": scaling, "factor": 4.0}
    if scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model = random_model("Llama", rope_scaling=rope if scaling else None)
    fields = completed(model.config.to_dict())
    spec = kdn.ModelSpec.from_config(fields, weights_digest="w", tokenizer_digest="t")
    assert (spec.rope.scaling, facts_of(model, fields, spec.rope)) == (scaling or "none", {})
    assert facts_of(model.model, fields, spec.rope) == {}, "a model without a head"


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_saved_model_is_the_model_of_its_directory(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model(family)
    model.save_pretrained(tmp_path)
    shutil.copy(MODEL / "tokenizer.json", tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    files = kdn.ModelSpec.from_directory(tmp_path, loaded.dtype)
    assert spec_of(loaded, tokenizer) == files
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    changed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert spec_of(changed, tokenizer) == kdn.ModelSpec.from_directory(tmp_path, loaded.dtype) != files


def test_kv_of_another_epsilon_is_not_delivered(
    recall: Any, tokenizer: Any, base: KnowledgeBase, cluster: Cluster, namespace: str
) -> None:
    base.add("arden", text_of("arden"))
    other = copy.deepcopy(recall)
    other.config.rms_norm_eps = 0.5
    other = type(other)(other.config).eval()
    other.load_state_dict(recall.state_dict())
    with KnowledgeBase(other, tokenizer, cluster.unix(), namespace=namespace) as changed:
        changed._texts.update(base._texts)
        served = changed.generate("<q> Who?", ["arden"], **GREEDY)
        alone = changed.generate("<q> Who?", ["arden"], use_kdn=False, **GREEDY)
    assert (served.delivered_tokens, served.tokens) == (0, alone.tokens)


def load_other_weights(model: Any) -> None:
    torch.manual_seed(7)
    state = {name: torch.randn_like(tensor) / 8 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)


def edit_in_place(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[3, 4] += 1


def merge_through_data(model: Any) -> None:
    model.model.layers[3].self_attn.v_proj.weight.data += 0.5  # as PEFT merges an adapter


def replace_a_parameter(model: Any) -> None:
    projection = model.model.layers[0].self_attn.k_proj
    projection.weight = torch.nn.Parameter(projection.weight.detach().clone().neg())


@pytest.mark.parametrize(
    "change",
    [
        load_other_weights,
        edit_in_place,
        merge_through_data,
        replace_a_parameter,
        set_epsilon,
        turn_slower,
        hook_a_result,
        replace_a_forward,
    ],
)
def test_a_model_that_changes_is_another_from_then_on(
    change: Any, recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    model = copy.deepcopy(recall)
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace) as base:
        added = base.add("arden", text_of("arden"))
        first = base.kdn.spec
        assert base.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == added.tokens
        change(model)
        alone = base.generate("<q> Who?", ["arden"], use_kdn=False, **GREEDY)
        served = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert (served.delivered_tokens, served.tokens) == (0, alone.tokens)
        assert base.kdn.spec == spec_of(model, tokenizer) != first
        again = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert (again.delivered_tokens, again.tokens) == (added.tokens, alone.tokens)
        if change is load_other_weights:
            model.load_state_dict(recall.state_dict())
            assert base.add("arden", text_of("arden")).stored == 0
            assert base.kdn.spec == first


@pytest.mark.parametrize(
    ("owner", "method", "error"),
    [
        (Failover, "close", KeyboardInterrupt()),
        (transformers_module, "Failover", KeyboardInterrupt()),
        (transformers_module, "Failover", kdn.InvalidArgument("no")),
    ],
    ids=["while closing", "while connecting", "refused"],
)
def test_a_change_is_not_forgotten_when_its_refresh_fails(
    owner: Any,
    method: str,
    error: BaseException,
    recall: Any,
    tokenizer: Any,
    cluster: Cluster,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    model = copy.deepcopy(recall)
    with KdnCache(model, tokenizer, cluster.unix(), namespace=namespace) as cache:
        chain = cache.chain(range(300))
        merge_through_data(model)
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(owner, method, fail)
            cache.refresh()
        with pytest.raises(kdn.FailedPrecondition, match="cut the chain again"):
            cache.missing(chain)
        assert cache.spec == cache.cluster.model == spec_of(model, tokenizer)


def test_a_cluster_that_cannot_be_left_does_not_stop_a_refresh(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise kdn.FailedPrecondition("the thread of the KDN's connections has ended")

    model = copy.deepcopy(recall)
    with KdnCache(model, tokenizer, cluster.unix(), namespace=namespace) as cache:
        merge_through_data(model)
        with monkeypatch.context() as patch:
            patch.setattr(Failover, "close", fail)
            assert cache.refresh()
        assert cache.spec == spec_of(model, tokenizer)


def test_a_model_that_is_only_moved_stays_the_same(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    model = copy.deepcopy(recall)
    with KdnCache(model, tokenizer, cluster.unix(), namespace=namespace) as cache:
        chain = cache.chain(range(300))
        parameter = model.model.layers[0].mlp.up_proj.weight
        parameter.data = parameter.data.clone()
        assert cache.missing(chain) == chain
        model.to(torch.bfloat16)
        with pytest.raises(kdn.FailedPrecondition, match="cut the chain again"):
            cache.missing(chain)
        assert cache.spec.dtype == "bf16"
        assert cache.missing(cache.chain(range(300))) == cache.chain(range(300)) != chain


def test_one_element_of_a_model_made_in_inference_mode_is_noticed(
    tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    with torch.inference_mode():
        model = random_model("Llama")
    with KdnCache(model, tokenizer, cluster.unix(), namespace=namespace) as cache:
        first = cache.spec
        assert not cache.refresh()
        with torch.inference_mode():
            model.model.layers[0].mlp.up_proj.weight[11, 13] += 1
        assert cache.refresh() and cache.spec != first


def test_a_model_made_in_inference_mode_is_not_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_model, "_PIECE", 1000)
    copied: list[int] = []
    to_cpu, cat = torch.Tensor.cpu, torch.cat
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copied.append(self.numel()) or to_cpu(self))
    monkeypatch.setattr(torch, "cat", lambda parts: copied.append(sum(p.numel() for p in parts)) or cat(parts))
    with torch.inference_mode():
        module = torch.nn.Linear(100, 101)
        first = loaded_model._sample_of(list(module.parameters()))
        assert loaded_model._sample_of(list(module.parameters())) == first
        module.weight[100, 99] += 1
    assert loaded_model._sample_of(list(module.parameters())) != first
    assert 0 < max(copied) <= 4000  # bytes of a piece


def test_a_given_digest_ends_with_the_weights_it_names(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    model = copy.deepcopy(recall)
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace, weights_digest="mine") as base:
        base.add("arden", text_of("arden"))
        merge_through_data(model)
        for call in (
            lambda: base.add("arden", text_of("arden")),
            lambda: base.generate("<q> Who?", ["arden"], **GREEDY),
            lambda: base.kdn.chain([1]),
        ):
            with pytest.raises(kdn.FailedPrecondition, match="make a new object with a weights_digest"):
                call()
        assert base.generate("<q> Who?", ["arden"], use_kdn=False, **GREEDY).tokens


def test_an_adapter_that_is_added_later_is_refused(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    model = copy.deepcopy(recall)
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace) as base:
        base.add("arden", text_of("arden"))
        model.peft_config = {"default": object()}
        with pytest.raises(kdn.Unimplemented, match="adapters: name its weights"):
            base.generate("<q> Who?", ["arden"], **GREEDY)
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace, weights_digest="mine") as base:
        base.add("arden", text_of("arden"))
        model.train()
        assert base.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == len(base._texts["arden"])
        model.model.layers[0].self_attn.active_adapter = "other"
        with pytest.raises(kdn.FailedPrecondition, match="adapters have changed"):
            base.generate("<q> Who?", ["arden"], **GREEDY)


def test_a_revision_of_the_hub_is_known_by_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("transformers.utils.hub.TRANSFORMERS_CACHE", "huggingface_hub.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(place, str(tmp_path), raising=False)  # Transformers 4 and 5
    root = tmp_path / "models--some--model"
    digests = {}
    for commit in ("1" * 40, "2" * 40):
        snapshot = root / "snapshots" / commit
        shutil.copytree(MODEL, snapshot, ignore=shutil.ignore_patterns("facts", "model.safetensors"))
        (snapshot / "model.safetensors").write_bytes(commit.encode())
        digests[commit] = weights_digest(snapshot)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("2" * 40)
    assert served_digest("some/model", None, None) == digests["2" * 40]
    assert served_digest("some/model", "1" * 40, None) == digests["1" * 40] != digests["2" * 40]
    assert served_digest("some/model", None, "fp8") not in (None, *digests.values())
    assert served_digest("some/other", None, None) is None


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "opt", "falcon", "gemma", "cohere", "mixtral", "phi3", "mamba"])
def test_other_architectures_are_refused_by_name(kind: str) -> None:
    config = transformers.AutoConfig.for_model(kind)
    with pytest.raises(kdn.Unimplemented, match=f"'{kind}'"):
        spec_of_config(config, weights_digest="w", tokenizer_digest="t", dtype="bf16", name="")


def test_greedy_answers_are_the_same_and_right(base: KnowledgeBase) -> None:
    asked = questions()
    right = 0
    for question in asked:
        name = Path(question["file"]).stem
        if name not in base._texts:
            base.add(name, text_of(name))
        prompt = "<q> " + question["question"]
        served = base.generate(prompt, [name], **GREEDY)
        alone = base.generate(prompt, [name], use_kdn=False, **GREEDY)
        assert served.tokens == alone.tokens
        assert served.delivered_tokens == len(base._texts[name])
        assert served.sources and not alone.sources
        right += served.text.split()[0] == question["answer"]
    assert len(asked) >= 10 and right >= 0.98 * len(asked)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_other_models_answer_alike(family: str, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    model = random_model(family)
    with KnowledgeBase(model, tokenizer, cluster.tcp(), namespace=namespace) as base:
        assert base.kdn.spec.num_layers == 6
        added = base.add("text", text_of("arden"))
        assert added.stored == added.chunks == 2
        served = base.generate("What?", ["text"], **GREEDY)
        alone = base.generate("What?", ["text"], use_kdn=False, **GREEDY)
    assert served.tokens == alone.tokens
    assert served.delivered_tokens == added.tokens


def test_what_comes_back_is_bit_for_bit_what_was_prefilled(base: KnowledgeBase) -> None:
    tokens = base.tokens_of(text_of("arden"), begins=True)
    chain = base.kdn.chain(tokens)
    cache = transformers.DynamicCache()
    prefill(base.model, tokens, cache)
    assert base.kdn.store(chain, cache) == len(chain)
    delivered = base.kdn.fetch([chain])
    assert delivered.tokens == len(tokens) == length_of(delivered.cache)
    for (k, v), (other_k, other_v) in zip(layers_of(cache), layers_of(delivered.cache)):
        assert torch.equal(k, other_k) and torch.equal(v, other_v)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_carried_bit_for_bit(
    dtype: Any, recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    model = copy.deepcopy(recall).to(dtype)
    kdn_cache = KdnCache(model, tokenizer, cluster.unix(), namespace=namespace)
    assert kdn_cache.spec.dtype == kdn.model.dtype_name(dtype)
    chain = kdn_cache.chain(range(300))
    kv = torch.randn(4, 2, 2, 300, 32).to(dtype)
    assert kdn_cache.store(chain, cache_of(kv, "cpu")) == 2
    delivered = kdn_cache.fetch([chain])
    for i, (k, v) in enumerate(layers_of(delivered.cache)):
        assert k.dtype == dtype
        assert torch.equal(k[0], kv[i, 0]) and torch.equal(v[0], kv[i, 1])
    kdn_cache.close()


@pytest.mark.parametrize(("level", "most"), [("int8", 0.01), ("base+2", 0.01), ("base+1", 0.1), ("base", 2.0)])
def test_a_lossy_level_is_close_to_exact_answers(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str, level: str, most: float
) -> None:
    with KnowledgeBase(
        recall, tokenizer, cluster.unix(), namespace=namespace, levels=["lossless", level], accept=[level]
    ) as base:
        base.add("arden", text_of("arden"))
        tokens = base._texts["arden"]
        delivered = base.kdn.fetch([base.kdn.chain(tokens)])
        exact = transformers.DynamicCache()
        prefill(recall, tokens, exact)
        divergences = []
        for question in questions()[:20]:
            asked = base.tokens_of("<q> " + question["question"], begins=False)
            one = torch.log_softmax(prefill(recall, asked, _copy(exact)).double(), -1)
            other = torch.log_softmax(prefill(recall, asked, _copy(delivered.cache)).double(), -1)
            divergences.append(float((one.exp() * (one - other)).sum()))
    mean = sum(divergences) / len(divergences)
    print(f"{level}: logit KL mean {mean:.2e}, largest {max(divergences):.2e}")
    assert delivered.tokens == len(tokens)
    assert 0 < mean < most


def _copy(cache: Any) -> Any:
    kv = torch.stack([torch.stack([k[0], v[0]]) for k, v in kv_of_all(cache)])
    return cache_of(kv, "cpu")


def kv_of_all(cache: Any) -> list[tuple[Any, Any]]:
    return [(k[None], v[None]) for k, v in kv_of(cache, 0, length_of(cache))]


def test_kv_of_kdn_inject_is_served_to_transformers(tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    file = MODEL / "facts" / "arden.txt"
    command = [str(KDN), "inject", "--connect", cluster.unix(1), "--namespace", namespace, str(file)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(MODEL), torch_dtype=torch.bfloat16).eval()
    with KnowledgeBase(model, tokenizer, cluster.unix(0), namespace=namespace) as base:
        assert base.add("arden", file.read_text()).stored == 0
        for question in (q for q in questions() if q["file"] == "facts/arden.txt"):
            served = base.generate("<q> " + question["question"], ["arden"], **GREEDY)
            assert served.delivered_tokens == len(base._texts["arden"])
            assert served.text.split()[0] == question["answer"]


def checkpoint_with_bos(checkpoint: Path) -> tuple[Path, int]:
    """Makes the shipped model with a tokenizer that puts BOS in front of a text (as Llama's
    does) and EOS behind it. Returns the directory and the BOS."""
    shutil.copytree(MODEL, checkpoint, ignore=shutil.ignore_patterns("facts"))
    rules = json.loads((checkpoint / "tokenizer.json").read_text())
    bos = rules["model"]["vocab"]["<doc>"]
    rules["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<doc>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<doc>", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<doc>": {"id": "<doc>", "ids": [bos], "tokens": ["<doc>"]}},
    }
    (checkpoint / "tokenizer.json").write_text(json.dumps(rules))
    return checkpoint, bos


@pytest.mark.parametrize("templated", [False, True], ids=["bare", "with its front token"])
def test_kdn_inject_begins_a_text_as_the_tokenizer_does(
    cluster: Cluster, namespace: str, short_path: Path, templated: bool
) -> None:
    checkpoint, bos = checkpoint_with_bos(short_path / "bos")
    file = short_path / "arden.txt"
    file.write_text(("<doc>" if templated else "") + text_of("arden").replace("<doc>", ""))
    command = [str(KDN), "inject", "--connect", cluster.unix(), "--namespace", namespace]
    subprocess.run([*command, "--model", str(checkpoint), str(file)], check=True, timeout=120, capture_output=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(checkpoint), torch_dtype=torch.bfloat16).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(checkpoint))
    with KnowledgeBase(model, tokenizer, cluster.unix(), namespace=namespace) as base:
        added = base.add("arden", file.read_text())
        assert base._texts["arden"][0] == bos
        assert bos not in base._texts["arden"][1:]
        assert (added.stored, added.chunks) == (0, 2)


def test_lossy_kv_is_delivered_only_to_engines_that_accept_it(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    lossy = KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace, levels=["int8"])
    added = lossy.add("arden", text_of("arden"))
    assert (added.held, added.stored) == (2, 2)
    assert lossy.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == added.tokens
    lossy.close()
    with KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace) as exact:
        again = exact.add("arden", text_of("arden"))
        assert (again.held, again.stored) == (0, 0), "the objects there are lossy, and stay"
        assert exact.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == 0


def test_kv_computed_behind_lossy_kv_is_not_stored(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    options: dict[str, Any] = {"namespace": namespace, "accept": ["lossless", "int8"]}
    with (
        KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace, levels=["int8"]) as lossy,
        KnowledgeBase(recall, tokenizer, cluster.unix(), **options) as base,
    ):
        tokens = base.tokens_of(text_of("arden"), begins=True)
        chain = base.kdn.chain(tokens)
        exact = transformers.DynamicCache()
        prefill(recall, tokens, exact)
        assert lossy.kdn.store(chain[:1], exact) == 1
        base._texts["arden"] = tokens
        assert base.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == 256
        assert base.kdn.missing(chain) == chain[1:], "it learnt behind int8"
        assert base.add("arden", text_of("arden")).stored == 1
        [got] = base.kdn.cluster.connect().retrieve_prefix(chain, accept=["lossless", "int8"])
        assert [outcome.level for outcome in got.outcomes] == ["int8", "lossless"]
        k, v = kv_of(exact, 256, len(tokens))[3]
        assert torch.allclose(got.torch()[3, 0, :, 256:], k, atol=1e-5), "it was computed behind int8"
        assert torch.allclose(got.torch()[3, 1, :, 256:], v, atol=1e-5)


def test_kv_beyond_shared_memory_comes_in_groups(base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    base.add("long", " ".join(text_of("arden") for _ in range(6)))
    tokens = base._texts["long"]
    chain = base.kdn.chain(tokens)
    [whole] = [base.kdn.fetch([chain])]
    limited_memory(monkeypatch, groups=3, group_bytes=base.kdn.spec.kv_bytes(256))
    delivered = base.kdn.fetch([chain])
    assert delivered.tokens == len(tokens) > 5 * 256
    for (k, v), (other_k, other_v) in zip(layers_of(whole.cache), layers_of(delivered.cache)):
        assert torch.equal(k, other_k) and torch.equal(v, other_v)


def test_kv_delivered_before_a_failure_is_kept(base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    base.add("long", " ".join(text_of("arden") for _ in range(6)))
    expected = base.generate("<q> Who?", ["long"], use_kdn=False, **GREEDY).tokens
    limited_memory(monkeypatch, groups=3, group_bytes=base.kdn.spec.kv_bytes(256))
    calls = itertools.count()
    retrieve = kdn.Knowledge.retrieve

    def fail(self: kdn.Knowledge, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise kdn.Unavailable("the third group")
        return retrieve(self, *arguments, **options)

    monkeypatch.setattr(kdn.Knowledge, "retrieve", fail)
    served = base.generate("<q> Who?", ["long"], **GREEDY)
    assert (served.delivered_tokens, served.tokens) == (512, expected)


def limited_memory(monkeypatch: pytest.MonkeyPatch, groups: int, group_bytes: int) -> None:
    """Limits the shared memory of a session to `groups` groups of `group_bytes` bytes."""
    monkeypatch.setitem(kdn.Knowledge.retrieve_prefix.__kwdefaults__, "group_bytes", group_bytes)
    array = Memory.array
    living: weakref.WeakSet[Any] = weakref.WeakSet()

    def limited(self: Memory, *arguments: Any) -> Any:
        if len(living) == groups:
            raise kdn.ResourceExhausted("shared memory of one session")
        region, made = array(self, *arguments)
        living.add(made.base)
        return region, made

    monkeypatch.setattr(Memory, "array", limited)


def test_a_cold_start_learns_what_it_prefilled(base: KnowledgeBase) -> None:
    base._texts["arden"] = base.tokens_of(text_of("arden"), begins=True)  # registered, but not stored
    first = base.generate("<q> Who?", ["arden"], **GREEDY)
    assert first.delivered_tokens == 0
    second = base.generate("<q> Who?", ["arden"], **GREEDY)
    assert second.delivered_tokens == len(base._texts["arden"])
    assert first.tokens == second.tokens


def test_a_chunk_missing_in_the_middle_is_prefilled_and_stored_again(base: KnowledgeBase, cluster: Cluster) -> None:
    base.add("long", " ".join(text_of("arden") for _ in range(4)))
    chain = base.kdn.chain(base._texts["long"])
    before = base.generate("<q> Who?", ["long"], **GREEDY)
    assert base.kdn.cluster.connect().remove([chain[2]]) == [None]
    partial = base.generate("<q> Who?", ["long"], learn=False, **GREEDY)
    assert partial.delivered_tokens == 512
    again = base.add("long", " ".join(text_of("arden") for _ in range(4)))
    assert again.stored == 1
    after = base.generate("<q> Who?", ["long"], **GREEDY)
    assert after.delivered_tokens == before.delivered_tokens == len(base._texts["long"])
    assert before.tokens == partial.tokens == after.tokens


def test_a_chunk_evicted_in_the_middle_is_prefilled_and_learnt(recall: Any, tokenizer: Any, short_path: Path) -> None:
    with (
        Cluster(short_path, nodes=1, memory="16 MiB", disk=False) as small,
        KnowledgeBase(recall, tokenizer, small.unix()) as base,
    ):
        added = base.add("long", " ".join(text_of("arden") for _ in range(4)))
        chain = base.kdn.chain(base._texts["long"])
        expected = base.generate("<q> Who?", ["long"], use_kdn=False, **GREEDY).tokens
        knowledge = base.kdn.cluster.connect()
        assert knowledge.pin([*chain[:2], *chain[3:]], 60) == [None] * (len(chain) - 1)
        for i in range(100):
            knowledge.store(knowledge.standalone([i] * 256), torch.randn(4, 2, 2, 256, 32))
            if not knowledge.lookup(chain[2:3])[0].hit:
                break
        partial = base.generate("<q> Who?", ["long"], **GREEDY)
        assert (partial.delivered_tokens, partial.tokens) == (512, expected)
        again = base.generate("<q> Who?", ["long"], **GREEDY)
        assert (again.delivered_tokens, again.tokens) == (added.tokens, expected)


def test_an_answer_without_a_given_length_ends(base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdn.transformers.MAX_NEW_TOKENS", 5)
    base.add("arden", text_of("arden"))  # longer than Transformers' default of 20 tokens
    unbounded = {"eos_token_id": None}
    assert len(base.generate("<q> Who?", ["arden"], **unbounded).tokens) == 5
    assert len(base.generate("<q> Who?", ["arden"], max_new_tokens=7, **unbounded).tokens) == 7
    length = len(base._prompt("<q> Who?", ["arden"]).tokens)
    assert len(base.generate("<q> Who?", ["arden"], max_length=length + 3, **unbounded).tokens) == 3
    config = transformers.GenerationConfig(max_new_tokens=4)
    assert len(base.generate("<q> Who?", ["arden"], generation_config=config, **unbounded).tokens) == 4


def test_an_answer_is_sampled_as_the_generation_config_says(base: KnowledgeBase) -> None:
    base.add("arden", text_of("arden"))
    hot = {**GREEDY, "do_sample": True, "temperature": 9.0, "top_k": 0}
    config = transformers.GenerationConfig(**hot, pad_token_id=0)

    def tokens(seed: int, **options: Any) -> list[int]:
        torch.manual_seed(seed)
        return base.generate("<q> Who?", "arden", **options).tokens

    told = [tokens(seed, **hot) for seed in range(4)]
    given = [tokens(seed, generation_config=config) for seed in range(4)]
    own = copy.deepcopy(base.model.generation_config)
    base.model.generation_config = config
    try:
        models = [tokens(seed) for seed in range(4)]
        assert tokens(0) == tokens(0, use_kdn=False)
        assert tokens(0, do_sample=False) == tokens(1, do_sample=False)
    finally:
        base.model.generation_config = own
    assert told == given == models and len({tuple(each) for each in told}) == 4


@pytest.mark.parametrize("field", [{"num_beams": 2}, {"penalty_alpha": 0.6, "top_k": 4}])
def test_what_a_generation_config_asks_for_is_refused_by_name(base: KnowledgeBase, field: dict[str, Any]) -> None:
    config = transformers.GenerationConfig(**field)
    with pytest.raises(kdn.Unimplemented, match=next(iter(field))):
        base.generate("<q> Who?", generation_config=config)
    config = transformers.GenerationConfig(use_cache=False, max_new_tokens=3)
    assert len(base.generate("<q> Who?", generation_config=config, eos_token_id=None).tokens) == 3


def test_an_answer_under_autocast_goes_without_the_kdn(base: KnowledgeBase, caplog: pytest.LogCaptureFixture) -> None:
    base.add("arden", text_of("arden"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        alone = base.generate("<q> Who?", ["arden"], use_kdn=False, **GREEDY)
        served = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert base.generate("<q> Who?", ["arden"], **GREEDY).tokens == alone.tokens
        added = base.add("other", text_of("corby"))
    assert (served.delivered_tokens, served.tokens) == (0, alone.tokens)
    assert (added.held, added.stored) == (0, 0)
    assert caplog.text.count("autocast is on") == 1
    assert base.generate("<q> Who?", ["arden"], **GREEDY).delivered_tokens == len(base._texts["arden"])


def test_one_name_may_be_given_without_a_list(recall: Any, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    with KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace, levels="int8", accept="int8") as base:
        added = base.add("arden", text_of("arden"))
        assert added.stored == 2
        assert base.generate("<q> Who?", "arden", **GREEDY).delivered_tokens == added.tokens
        chain = base.kdn.chain(base._texts["arden"])
        assert base.kdn.fetch([chain], "int8").tokens == added.tokens
        knowledge = base.kdn.cluster.connect()
        assert all(found.delivers("int8") and not found.delivers("lossless") for found in knowledge.lookup(chain))
        assert knowledge.retrieve(chain, accept="int8").prefix_chunks == 2


def test_several_texts_are_one_prefix_as_far_as_it_is_known(base: KnowledgeBase) -> None:
    base.add("arden", text_of("arden"))
    base.add("other", text_of("corby"))
    first = base.generate("<q> Who?", ["arden", "other"], **GREEDY)
    assert first.delivered_tokens == len(base._texts["arden"])
    second = base.generate("<q> Who?", ["arden", "other"], **GREEDY)
    assert second.delivered_tokens == len(base._texts["arden"]) + len(base._texts["other"])
    alone = base.generate("<q> Who?", ["arden", "other"], use_kdn=False, **GREEDY)
    assert first.tokens == second.tokens == alone.tokens


def test_only_the_beginning_of_a_prompt_gets_bos(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str, short_path: Path
) -> None:
    checkpoint, bos = checkpoint_with_bos(short_path / "bos")
    with KnowledgeBase(
        recall, transformers.AutoTokenizer.from_pretrained(str(checkpoint)), cluster.unix(), namespace=namespace
    ) as base:
        base.add("arden", text_of("arden").replace("<doc>", ""))
        base.add("other", text_of("corby").replace("<doc>", ""))
        prompt = base._prompt("<q> Who?", ["arden", "other"])
        assert prompt.tokens[0] == bos and bos not in prompt.tokens[1:]
        assert base._prompt("<q> Who?", []).tokens[0] == bos
        first = base.generate("<q> Who?", ["arden", "other"], **GREEDY)
        assert first.delivered_tokens == len(base._texts["arden"])
        assert base.generate("<q> Who?", ["arden", "other"], **GREEDY).delivered_tokens == prompt.known


def test_a_text_of_a_chat_template_begins_once(recall: Any, cluster: Cluster, namespace: str, short_path: Path) -> None:
    checkpoint, bos = checkpoint_with_bos(short_path / "bos")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(checkpoint))
    tokenizer.chat_template = "<doc>{% for message in messages %}{{ message['content'] }} {% endfor %}"
    messages = [{"role": "system", "content": text_of("arden").replace("<doc>", "")}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[0] == bos != ids[1]
    with KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace) as base:
        added = base.add("text", text)
        assert base._texts["text"] == ids
        engine = base.kdn.chain(ids)  # of an engine that is given the template's tokens
        assert base.kdn.missing(engine) == []
        for other in (ids, torch.tensor(ids), torch.tensor([ids]), {"input_ids": [ids]}, ids[1:], text[len("<doc>") :]):
            assert base.add("other", other).stored == 0 and base._texts["other"] == ids
        asked = base._prompt("<doc> Who?", ["text"])
        assert asked.tokens.count(bos) == 1 and asked.tokens[: len(ids)] == ids
        assert base._prompt(text, []).tokens == ids
        assert base.generate(ids, learn=False, **GREEDY).tokens == base.generate(text, learn=False, **GREEDY).tokens
        assert base.generate("<q> Who?", ["text"], **GREEDY).delivered_tokens == added.tokens
        for wrong in (messages, [ids, ids], [1.5], [-1]):
            with pytest.raises(kdn.InvalidArgument, match="chat messages|token id"):
                base.add("wrong", wrong)


def test_two_engines_share_what_one_stored(recall: Any, tokenizer: Any, cluster: Cluster, namespace: str) -> None:
    with KnowledgeBase(recall, tokenizer, cluster.unix(0), namespace=namespace) as one:
        one.add("arden", text_of("arden"))
        with KnowledgeBase(recall, tokenizer, cluster.unix(1), namespace=namespace) as two:
            assert two.add("arden", text_of("arden")).stored == 0
            served = two.generate("<q> Who?", ["arden"], **GREEDY)
            assert served.delivered_tokens == len(one._texts["arden"])
            assert served.tokens == one.generate("<q> Who?", ["arden"], **GREEDY).tokens


def test_a_second_process_hits_what_the_first_stored(base: KnowledgeBase, cluster: Cluster, namespace: str) -> None:
    base.add("arden", text_of("arden"))
    expected = base.generate("<q> Who?", ["arden"], **GREEDY).tokens
    code = (
        "import json, test_transformers as t, torch, transformers\n"
        "from kdn.transformers import KnowledgeBase\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(str(t.MODEL), torch_dtype=torch.float32)\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(str(t.MODEL))\n"
        f"with KnowledgeBase(model, tokenizer, {cluster.tcp(2)!r}, namespace={namespace!r}) as base:\n"
        "    added = base.add('arden', t.text_of('arden'))\n"
        "    served = base.generate('<q> Who?', ['arden'], **t.GREEDY)\n"
        "print(json.dumps([added.stored, served.delivered_tokens, served.tokens]))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=120, capture_output=True
    ).stdout
    assert json.loads(output.splitlines()[-1]) == [0, len(base._texts["arden"]), expected]


def test_a_node_killed_during_generate_is_not_noticed(recall: Any, tokenizer: Any, short_path: Path) -> None:
    with Cluster(short_path) as three, KnowledgeBase(recall, tokenizer, three.unix(0), timeout=30) as base:
        for name in ("arden", "elm", "oak"):
            base.add(name, f"{name}. {text_of('arden')}")
        expected = {name: base.generate("<q> Who?", [name], use_kdn=False, **GREEDY).tokens for name in base._texts}
        killer = threading.Timer(0.2, three.kill, args=[1])
        killer.start()
        killed_at = None
        for _ in range(60):
            for name, tokens in expected.items():
                served = base.generate("<q> Who?", [name], **GREEDY)
                assert served.tokens == tokens
                assert served.delivered_tokens == len(base._texts[name]), "a miss"
            if killed_at is None and not killer.is_alive():
                killed_at = True
                break
        killer.join()
        for name, tokens in expected.items():
            assert base.generate("<q> Who?", [name], **GREEDY).tokens == tokens


@pytest.mark.parametrize("moment", ["lookup", "retrieve", "store"])
def test_the_connected_node_killed_inside_generate(
    moment: str, recall: Any, tokenizer: Any, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is killed just before the named call, which comes before, during or after the
    answer itself."""
    with Cluster(short_path) as three, KnowledgeBase(recall, tokenizer, [three.unix(0), three.unix(1)]) as base:
        base.add("arden", text_of("arden"))
        base.add("other", text_of("corby"))  # not stored behind arden, so generate stores it
        expected = base.generate("<q> Who?", ["arden", "other"], use_kdn=False, **GREEDY).tokens
        call = getattr(kdn.Knowledge, moment)

        def kill(self: kdn.Knowledge, *arguments: Any, **options: Any) -> Any:
            three.kill(0)
            return call(self, *arguments, **options)

        monkeypatch.setattr(kdn.Knowledge, moment, kill)
        during = base.generate("<q> Who?", ["arden", "other"], **GREEDY)
        monkeypatch.undo()
        assert during.tokens == expected
        assert during.delivered_tokens == (len(base._texts["arden"]) if moment == "store" else 0)
        after = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert after.delivered_tokens == len(base._texts["arden"]) and after.sources[0] != "n1"


def test_a_node_that_hangs_costs_an_answer_one_lookup(recall: Any, tokenizer: Any, short_path: Path) -> None:
    with Cluster(short_path, nodes=2) as two, KnowledgeBase(recall, tokenizer, two.unix(0)) as base:
        base.add("arden", text_of("arden"))
        expected = base.generate("<q> Who?", ["arden"], **GREEDY).tokens
        with two.nodes[0].stopped():
            begin = time.monotonic()
            assert base.generate("<q> Who?", ["arden"], **GREEDY).tokens == expected
            answered = time.monotonic()
            added = base.add("other", text_of("corby"))
            assert (added.held, added.stored) == (0, 0)
            print(f"answered in {answered - begin:.2f} s, added in {time.monotonic() - answered:.2f} s")
            assert answered - begin < 4 and time.monotonic() - answered < 4


def test_an_engine_outlives_its_cluster_and_moves_to_another_node(
    recall: Any, tokenizer: Any, short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster(short_path, nodes=2) as two:
        base = KnowledgeBase(recall, tokenizer, [two.unix(0), two.unix(1)])
        base.add("arden", text_of("arden"))
        expected = base.generate("<q> Who?", ["arden"], **GREEDY).tokens
        two.kill(0)
        during = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert during.tokens == expected
        assert "going on without the KDN" in caplog.text
        after = base.generate("<q> Who?", ["arden"], **GREEDY)
        assert after.tokens == expected and after.sources == ("n2",)
        two.kill(1)
        assert base.generate("<q> Who?", ["arden"], **GREEDY).tokens == expected
        base.close()


def test_mistakes_are_typed(base: KnowledgeBase, recall: Any, tokenizer: Any, short_path: Path) -> None:
    with pytest.raises(kdn.InvalidArgument, match="no text was added as 'nothing'"):
        base.generate("<q> Who?", ["nothing"])
    with pytest.raises(kdn.InvalidArgument, match="empty"):
        base.add("empty", "")
    with pytest.raises(kdn.Unavailable):
        KnowledgeBase(recall, tokenizer, f"unix:{short_path}/nobody.sock")
    for options in ({"accept": ["lossles"]}, {"levels": ["best"]}, {"durability": "eternal"}, {"namespace": "a b"}):
        with pytest.raises(kdn.InvalidArgument):
            KnowledgeBase(recall, tokenizer, f"unix:{short_path}/nobody.sock", **options)
    for refused in (
        {"num_beams": 2},
        {"num_return_sequences": 2},
        {"penalty_alpha": 0.6},
        {"prompt_lookup_num_tokens": 3},
        {"cache_implementation": "static"},
        {"use_cache": False},
        {"return_dict_in_generate": True},
        {"logits_processor": []},
        {"input_ids": None},
    ):
        with pytest.raises(kdn.Unimplemented, match=next(iter(refused))):
            base.generate("<q> Who?", **refused)
    config = transformers.MistralConfig(sliding_window=64, num_hidden_layers=1, hidden_size=64, vocab_size=64)
    with pytest.raises(kdn.Unimplemented, match="sliding window"):
        spec_of(transformers.MistralForCausalLM(config), tokenizer)


def test_the_sensitivity_predicts_what_noise_does(recall: Any, tokenizer: Any) -> None:
    model = recall
    random = torch.Generator().manual_seed(1)
    ids = tokenizer(text_of("dover"))["input_ids"][:60]
    context, behind = ids[:40], ids[40:]

    def logs(cache: Any) -> Any:
        position = torch.arange(40, 60)[None]
        with torch.no_grad():
            said = model(input_ids=torch.tensor([behind]), position_ids=position, past_key_values=cache)
        return torch.log_softmax(said.logits[0].float(), -1)

    cache = transformers.DynamicCache()
    prefill(model, context, cache)
    kv = torch.stack([torch.stack([k[0], v[0]]) for k, v in layers_of(cache)])
    draws = [sensitivity_of(model, cache, behind, random) for _ in range(40)]
    predicted = sum(of_heads for of_heads, _ in draws) / 40
    of_tokens = sum(of_tokens for _, of_tokens in draws) / 40
    assert of_tokens.shape == (len(kv), kv.shape[2], len(context))
    # Both are sums of the same squares.
    sums = predicted.sum(dim=1) * (len(context) - 1) * kv.shape[-1] * len(behind)
    assert torch.allclose(of_tokens[:, :, 1:].sum(dim=2), sums, rtol=1e-3)
    exact = logs(cache_of(kv.clone(), "cpu"))
    last = len(kv) - 1
    for layer, part, head in ((0, 0, 0), (1, 1, 1), (last, 0, 1), (last, 1, 0)):
        divergence = 0.0
        deviation = 0.03
        for _ in range(20):
            noisy = kv.clone()
            noise = torch.randn(noisy.shape[-2:], generator=random) * deviation
            noise[0] = 0
            noisy[layer, part, head] += noise
            divergence += (exact.exp() * (exact - logs(cache_of(noisy, "cpu")))).sum(-1).mean().item() / 20
        values = 39 * kv.shape[-1]
        expected = 0.5 * deviation**2 * predicted[layer, part, head].item() * values
        assert divergence == pytest.approx(expected, rel=0.35), (layer, part, head)


def test_windows_are_spread_over_the_text() -> None:
    assert windows_of(range(10), 4, 20) == [range(10)]
    assert windows_of(range(100), 2, 10) == [range(20, 30), range(70, 80)]
    assert len(windows_of(range(95), 32, 10)) == 9


def test_an_engine_makes_a_calibration_of_its_model(
    recall: Any, tokenizer: Any, cluster: Cluster, namespace: str
) -> None:
    with (
        KnowledgeBase(recall, tokenizer, cluster.unix(), namespace=namespace, weights_digest=namespace) as base,
        kdn.Client(cluster.unix()) as client,
    ):
        made = base.calibrate([text_of(name) for name in ("dover", "birling", "fenby", "hollin", "kelso")])
        assert made in [one.id for one in client.calibrations()]
