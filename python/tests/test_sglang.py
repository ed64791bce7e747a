"""Tests the backend with SGLang's own factory and host pools. Skipped unless sglang is
installed. No SGLang server is started, because it needs a GPU."""

from __future__ import annotations

import json
import shutil
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cluster import MODEL, Cluster

storage = pytest.importorskip("sglang.srt.mem_cache.hicache_storage")

import torch  # noqa: E402
from sglang.srt.mem_cache.device_pool_info import KVBufferLayout, KVBuffers, MHABufferInfo  # noqa: E402
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost  # noqa: E402
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402

from kdn.errors import InvalidArgument, Unimplemented  # noqa: E402
from kdn.pages import PageStore  # noqa: E402
from kdn.sglang import KdnHiCache, _Arguments, _Process  # noqa: E402

LAYERS, HEADS, DIM, PAGE = 3, 2, 32, 16


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a process in which nothing was cleared."""
    monkeypatch.setattr("kdn.sglang._process", _Process())


def host_pool(layout: str, dtype: Any = torch.bfloat16) -> Any:
    """SGLang's own pool in host memory, with a few pages."""
    k = [torch.zeros(64, HEADS, DIM, dtype=dtype) for _ in range(LAYERS)]
    v = [torch.zeros(64, HEADS, DIM, dtype=dtype) for _ in range(LAYERS)]
    pointers = [torch.tensor([each.data_ptr() for each in part], dtype=torch.uint64) for part in (k, v)]
    info = MHABufferInfo(
        buffers=KVBuffers(
            k=tuple(k), v=tuple(v), k_data_ptrs=pointers[0], v_data_ptrs=pointers[1], layout=KVBufferLayout.NHD
        ),
        page_size=PAGE,
        head_num=HEADS,
        head_dim=DIM,
        v_head_dim=DIM,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    return MHATokenToKVPoolHost(
        info, 2.0, 0, PAGE, layout, pin_memory=False, device_capacity_tokens=64, start_layer=0, end_layer=LAYERS
    )


def config_of(cluster: Cluster, namespace: str, **changes: Any) -> Any:
    fields = {
        "tp_rank": 0,
        "tp_size": 1,
        "pp_rank": 0,
        "pp_size": 1,
        "attn_cp_rank": 0,
        "attn_cp_size": 1,
        "is_mla_model": False,
        "enable_storage_metrics": False,
        "is_page_first_layout": False,
        "model_name": str(MODEL),
        "extra_config": {
            "backend_name": "kdn",
            "module_path": "kdn.sglang",
            "class_name": "KdnHiCache",
            "interface_v1": 1,
            "prefetch_threshold": 16,
            "addresses": [cluster.unix()],
            "namespace": namespace,
        },
    }
    return storage.HiCacheStorageConfig(**{**fields, **changes})


def backend_of(config: Any, pool: Any) -> Any:
    backend = StorageBackendFactory.create_backend("dynamic", config, pool)
    backend.register_mem_pool_host(pool)
    return backend


LAYOUTS = ["layer_first", "page_first", "page_first_direct", "page_head"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_of_a_host_pool_go_and_come_back(layout: str, cluster: Cluster, namespace: str) -> None:
    pool = host_pool(layout)
    backend = backend_of(config_of(cluster, namespace), pool)
    assert isinstance(backend, KdnHiCache)
    pool.kv_buffer.copy_(torch.randn(pool.kv_buffer.shape))
    keys = ["first", "second", "third"]
    indices = torch.cat([torch.arange(page * PAGE, (page + 1) * PAGE) for page in (2, 0, 3)])
    assert backend.batch_exists(keys) == 0
    assert backend.batch_set_v1(keys[:2], indices[: 2 * PAGE]) == [True, True]
    assert backend.batch_exists(keys) == 2 and backend.exists("second") and not backend.exists("third")

    other_pool = host_pool(layout)
    other = backend_of(config_of(cluster, namespace), other_pool)
    place = torch.cat([torch.arange(page * PAGE, (page + 1) * PAGE) for page in (1, 4, 5)])
    assert other.batch_get_v1(keys, place) == [True, True, False]
    for given, taken in ((2, 1), (0, 4)):
        assert torch.equal(other_pool.get_data_page(taken * PAGE), pool.get_data_page(given * PAGE))
    assert not other_pool.get_data_page(5 * PAGE).any()
    backend.close()
    other.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flat_pages_go_and_come_back(layout: str, cluster: Cluster, namespace: str) -> None:
    pool = host_pool(layout)
    backend = backend_of(config_of(cluster, namespace), pool)
    pool.kv_buffer.copy_(torch.randn(pool.kv_buffer.shape))
    page = pool.get_data_page(PAGE)
    assert backend.batch_set(["a", "b"], [page, pool.get_data_page(0)])
    assert backend.set("c", page)
    assert torch.equal(backend.get("a"), page)
    first, missing = backend.batch_get(["b", "d"], [pool.get_dummy_flat_data_page() for _ in range(2)])
    assert torch.equal(first, pool.get_data_page(0)) and missing is None
    backend.close()


def test_layouts_share_pages(cluster: Cluster, namespace: str) -> None:
    pools = [host_pool("layer_first"), host_pool("page_first")]
    one, two = (backend_of(config_of(cluster, namespace), pool) for pool in pools)
    pools[0].kv_buffer.copy_(torch.randn(pools[0].kv_buffer.shape))
    indices = torch.arange(PAGE)
    assert one.batch_set_v1(["page"], indices) == [True]
    assert two.batch_get_v1(["page"], indices) == [True]
    assert torch.equal(
        pools[0].get_data_page(0, flat=False).permute(0, 2, 1, 3, 4), pools[1].get_data_page(0, flat=False)
    )
    one.close()
    two.close()


class Server:
    """What SGLang tells of the server in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> None:
        defaults = {
            "model_path": str(MODEL),
            "revision": None,
            "quantization": None,
            "load_format": "auto",
            "json_model_override_args": "{}",
            "weight_version": "default",
            "dtype": "auto",
            "decrypted_config_file": None,
        }
        self.arguments = types.SimpleNamespace(**{**defaults, **arguments})
        self.serving = types.SimpleNamespace(weight_version="default")
        monkeypatch.setattr("kdn.sglang.get_server_args", lambda: self.arguments)
        monkeypatch.setattr("kdn.sglang.get_serving", lambda: self.serving)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization": "fp8"},
        {"json_model_override_args": '{"rope_theta": 1e6}'},
        {"dtype": "float16"},
        {"decrypted_config_file": "decrypted.json"},
    ],
    ids=str,
)
def test_a_model_that_the_server_changes_is_another(
    change: Any, cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    config = json.loads((model / "config.json").read_text())
    (model / "decrypted.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    Server(monkeypatch, model_path=str(model))
    plain = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    same = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    Server(monkeypatch, model_path=str(model), **change)
    other = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert plain.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    assert [each.batch_exists(["page"]) for each in (plain, same, other)] == [1, 1, 0]
    for each in (plain, same, other):
        each.close()


def test_the_server_has_the_arguments_that_are_read() -> None:
    assert set(dir(ServerArgs)) >= {each.name for each in fields(_Arguments)} | {"weight_version"}


def test_the_weights_are_those_of_the_model_path(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """served_model_name is any name, also the name of another model."""
    Server(monkeypatch)
    one = backend_of(config_of(cluster, namespace, model_name="gpt-4"), host_pool("layer_first"))
    two = backend_of(config_of(cluster, namespace, model_name="no/such-model"), host_pool("layer_first"))
    assert one.batch_set_v1(["page"], torch.arange(PAGE)) == [True] and two.batch_exists(["page"]) == 1
    Server(monkeypatch, model_path="no/such-model")
    with pytest.raises(InvalidArgument, match="'no/such-model'.*weights_digest"):
        backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    Server(monkeypatch, decrypted_config_file="nowhere.json")
    with pytest.raises(InvalidArgument, match="--decrypted-config-file.*nowhere.json"):
        backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    Server(monkeypatch, load_format="dummy")
    with pytest.raises(InvalidArgument, match="--load-format dummy.*weights_digest"):
        backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    one.close()
    two.close()


def test_a_checkpoint_with_another_config_is_another_model(cluster: Cluster, namespace: str, tmp_path: Any) -> None:
    shutil.copytree(MODEL, tmp_path / "other")
    config = json.loads((MODEL / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    one = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    other = backend_of(config_of(cluster, namespace, model_name=str(tmp_path / "other")), host_pool("layer_first"))
    assert one.batch_set_v1(["page"], torch.arange(PAGE)) == [True] and other.batch_exists(["page"]) == 0
    one.close()
    other.close()


def test_after_clear_no_old_page_is_found(cluster: Cluster, namespace: str) -> None:
    backend = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert backend.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    backend.clear()
    assert backend.batch_exists(["page"]) == 0 and backend.batch_get_v1(["page"], torch.arange(PAGE)) == [False]
    assert backend.batch_set_v1(["page"], torch.arange(PAGE)) == [True] and backend.batch_exists(["page"]) == 1
    backend.close()


def test_an_update_of_the_weights_begins_a_new_generation(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    backend = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    other = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert backend.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    server.serving.weight_version = "step-1"
    for _ in range(2):
        assert backend.batch_set_v1(["late"], torch.arange(PAGE)) == [False], "computed with the old weights, maybe"
        assert not backend.set("late", backend._pool.get_data_page(0))
    assert backend.batch_exists(["page"]) == 0 and backend.batch_exists(["late"]) == 0
    backend.clear()
    assert backend.batch_set_v1(["page"], torch.arange(PAGE)) == [True] and backend.batch_exists(["page"]) == 1
    assert other.batch_exists(["page"]) == 0
    server.serving.weight_version = "step-2"
    backend.clear()  # before any other call
    assert backend.batch_set_v1(["late"], torch.arange(PAGE)) == [True] and backend.batch_exists(["page"]) == 0
    backend.close()
    other.close()


def test_no_thread_sees_the_new_weights_with_the_old_generation(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    backend = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    begin, locked = PageStore.of_new_generation, []

    def observed(store: PageStore) -> PageStore:
        locked.append(backend._lock.locked())
        return begin(store)

    monkeypatch.setattr(PageStore, "of_new_generation", observed)
    server.serving.weight_version = "step-1"
    assert backend.batch_exists(["page"]) == 0
    backend.clear()
    assert locked == [True, True]
    backend.close()


def test_a_page_that_is_being_stored_keeps_its_generation(cluster: Cluster, namespace: str) -> None:
    backend = backend_of(config_of(cluster, namespace), host_pool("layer_first"))

    def store_late(store: PageStore) -> list[bool]:
        backend.clear()
        return store.put(["page"], backend._pages(torch.arange(PAGE)))

    assert backend._with_store("storing pages", store_late, [False], stores=True) == [True]
    assert backend.batch_exists(["page"]) == 0
    backend.close()


def test_a_backend_that_is_attached_later_knows_of_new_weights(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    first = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert first.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    server.serving.weight_version = "step-1"
    updated = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert updated.batch_exists(["page"]) == 0 and updated.batch_set_v1(["page"], torch.arange(PAGE)) == [False]
    updated.clear()
    assert updated.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    cleared = backend_of(config_of(cluster, namespace), host_pool("layer_first"))
    assert cleared.batch_exists(["page"]) == 0, "an update that the version does not tell, maybe"
    assert cleared.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    for each in (first, updated, cleared):
        each.close()


def test_no_call_raises_in_a_thread_of_sglang(
    cluster: Cluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(cluster, namespace)
    config.extra_config |= {"levels": ["int8"], "adresses": []}
    pool = host_pool("layer_first")
    backend = backend_of(config, pool)
    assert "'adresses'" in caplog.text, "a setting that has no effect"
    pool.kv_buffer.fill_(torch.inf)
    assert backend.batch_set_v1(["a", "b"], torch.arange(2 * PAGE)) == [False, False]
    wrong = torch.tensor([10**9])
    assert backend.batch_set_v1(["a"], wrong) == [False] and backend.batch_get_v1(["a"], wrong) == [False]
    assert backend.batch_set(["a"], None) is False and backend.get("a") is None
    pool.kv_buffer.fill_(1)
    assert backend.batch_set_v1(["a"], torch.arange(PAGE)) == [True]
    backend.close()


def test_ranks_with_other_tokens_of_a_page_do_not_share_it(cluster: Cluster, namespace: str) -> None:
    one, two = (
        backend_of(config_of(cluster, namespace, attn_cp_rank=rank, attn_cp_size=2), host_pool("layer_first"))
        for rank in (0, 1)
    )
    assert one.batch_set_v1(["page"], torch.arange(PAGE)) == [True]
    assert (one.batch_exists(["page"]), two.batch_exists(["page"])) == (1, 0)
    one.close()
    two.close()


def test_a_cluster_that_is_away_has_nothing(short_path: Any, cluster: Cluster, namespace: str) -> None:
    config = config_of(cluster, namespace)
    config.extra_config["addresses"] = [f"unix:{short_path}/nobody.sock"]
    backend = backend_of(config, host_pool("layer_first"))
    assert backend.batch_exists(["a"]) == 0
    assert backend.batch_set_v1(["a"], torch.arange(PAGE)) == [False]
    assert backend.batch_get_v1(["a"], torch.arange(PAGE)) == [False]
    backend.close()


def test_mistakes_are_typed(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(Unimplemented, match="latent"):
        KdnHiCache(config_of(cluster, namespace, is_mla_model=True), {})
    with pytest.raises(InvalidArgument, match="weights_digest"):
        backend_of(config_of(cluster, namespace, model_name="no/such-model"), host_pool("layer_first"))
    with pytest.raises(Unimplemented, match="float8"):
        backend_of(config_of(cluster, namespace), host_pool("layer_first", torch.float8_e4m3fn))
    for what, value in (("storage_format_tag", "unified"), ("target_layer_num", LAYERS - 1)):
        pool = host_pool("layer_first")
        setattr(pool, what, value)
        with pytest.raises(Unimplemented, match="format unified|1 layers of a draft model"):
            backend_of(config_of(cluster, namespace), pool)
    backend = KdnHiCache(config_of(cluster, namespace), {})
    backend.register_mem_host_pool_v2(host_pool("layer_first"), storage.PoolName.KV)
    with pytest.raises(Unimplemented, match="host pool mamba beside"):
        backend.register_mem_host_pool_v2(host_pool("layer_first"), storage.PoolName.MAMBA)
    with pytest.raises(InvalidArgument, match="no host pool"):
        KdnHiCache(config_of(cluster, namespace), {}).exists("a")
