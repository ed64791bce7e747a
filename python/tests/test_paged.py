"""Paged caches: every layout is read and written bit for bit; loads and saves use a real
cluster."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cluster import Cluster
from kdn.failover import Failover
from kdn.generation import of_generation
from kdn.keys import Chunk
from kdn.model import ModelSpec, RopeSpec
from kdn.prefix_plan import Load, Save

torch = pytest.importorskip("torch")

from kdn.errors import InvalidArgument, ResourceExhausted, Unimplemented  # noqa: E402
from kdn.paged import BlockOrder, PagedKv  # noqa: E402
from kdn.paged_worker import Options, PagedWorker, Rank  # noqa: E402
from kdn.pages import PageShape, PageStore  # noqa: E402

LAYERS, HEADS, DIM, BLOCK, BLOCKS = 3, 2, 8, 16, 80
MODEL = ModelSpec(
    num_layers=LAYERS,
    num_kv_heads=HEADS,
    head_dim=DIM,
    rope=RopeSpec(rotary_dim=DIM),
    weights_digest="w",
    tokenizer_digest="t",
    dtype="fp16",
)


def caches(layout: str, dtype: Any = torch.float16) -> list[Any]:
    """Caches of shape (blocks, kv_heads, block_size, 2 * head_dim), one per layer. `layout`
    says how they lie in memory: head-major blocks, token-major blocks, or blocks that hold
    all layers."""
    if layout == "HND":
        return [torch.zeros(BLOCKS, HEADS, BLOCK, 2 * DIM, dtype=dtype) for _ in range(LAYERS)]
    if layout == "NHD":
        return [torch.zeros(BLOCKS, BLOCK, HEADS, 2 * DIM, dtype=dtype).transpose(1, 2) for _ in range(LAYERS)]
    whole = torch.zeros(BLOCKS, LAYERS, HEADS, BLOCK, 2 * DIM, dtype=dtype)
    return [whole[:, layer] for layer in range(LAYERS)]


def random_kv(tokens: int, dtype: Any = torch.float16) -> Any:
    return torch.randn(LAYERS, 2, HEADS, tokens, DIM).to(dtype)


@pytest.mark.parametrize("layout", ["HND", "NHD", "layers in a block"])
def test_tokens_come_back_from_where_they_were_put(layout: str) -> None:
    paged = PagedKv(caches(layout), DIM)
    blocks = torch.randperm(BLOCKS)[:10].tolist()
    kv = random_kv(100)
    paged.write(blocks, 37, kv)
    assert torch.equal(paged.read(blocks, 37, 137), kv)
    assert torch.equal(paged.read(blocks, 60, 61), kv[:, :, :, 23:24])
    assert not paged.read(blocks, 0, 37).any() and not paged.read(blocks, 137, 160).any()


def test_k_lies_before_v_in_an_element() -> None:
    layers = caches("HND")
    kv = random_kv(1)
    PagedKv(layers, DIM).write([5], 3, kv)
    assert torch.equal(layers[1][5, 0, 3, :DIM], kv[1, 0, 0, 0])
    assert torch.equal(layers[1][5, 0, 3, DIM:], kv[1, 1, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_order_of_a_packed_block_is_learnt(dtype: Any) -> None:
    def write(k: Any, v: Any, cache: Any) -> None:
        halves = cache.view(2, -1)
        halves[0] = k[:, 0].T.flatten()  # K transposed, as in a CPU kernel
        halves[1] = v[:, 0].flatten()

    order = BlockOrder.learn(write, BLOCK, DIM, dtype)
    layers = caches("HND", dtype)
    paged = PagedKv(layers, DIM, order)
    kv = random_kv(20, dtype)
    paged.write([7, 3], 5, kv)
    assert torch.equal(paged.read([7, 3], 5, 25), kv)
    expected = torch.zeros(1, 1, BLOCK, 2 * DIM, dtype=dtype)
    inside = torch.zeros(BLOCK, 1, DIM, dtype=dtype)
    k, v = inside.clone(), inside.clone()
    k[5:, 0], v[5:, 0] = kv[2, 0, 1, :11], kv[2, 1, 1, :11]
    write(k, v, expected)
    assert torch.equal(layers[2][7, 1].flatten(), expected.flatten())


def test_a_backend_that_changes_values_is_refused() -> None:
    def write(k: Any, v: Any, cache: Any) -> None:
        cache.view(2, -1)[0] = 2 * k[:, 0].flatten()
        cache.view(2, -1)[1] = v[:, 0].flatten()

    with pytest.raises(Unimplemented):
        BlockOrder.learn(write, BLOCK, DIM, torch.float32)


def test_mistakes_are_typed() -> None:
    with pytest.raises(Unimplemented, match="paged cache of shape"):
        PagedKv([torch.zeros(2, 2, 2, 2)], DIM)
    with pytest.raises(InvalidArgument, match="tokens 0..33 of 2 blocks of 16"):
        PagedKv(caches("HND"), DIM).read([0, 1], 0, 33)
    with pytest.raises(Unimplemented, match="layout 'spiral'"):
        PageShape(1, 1, 8, 16, "spiral")


class Engine:
    """One rank of an engine with a paged cache, connected to a cluster."""

    def __init__(
        self, cluster: Cluster, namespace: str, rank: Rank | None = None, merge: Any = None, **options: Any
    ) -> None:
        self.failover = Failover(cluster.unix(), namespace, MODEL, "test")
        whole = Rank((0, LAYERS), (0, HEADS))
        self.rank = rank or whole
        heads = slice(*self.rank.heads)
        layers = [layer[:, heads] for layer in caches("NHD")[slice(*self.rank.layers)]]
        self.paged = PagedKv(layers, DIM)
        self.worker = PagedWorker(
            self.cluster_of, self.paged, self.rank, torch.device("cpu"), Options(**options), merge
        )
        self.namespace = namespace
        self.chain = self.failover.chain(range(1000))

    def cluster_of(self, generation: str) -> Failover:
        model = of_generation(MODEL, generation)
        return self.failover if model == MODEL else Failover(self.failover._addresses, self.namespace, model, "test")

    def chain_of(self, generation: str) -> list[Chunk]:
        return self.cluster_of(generation).chain(range(1000))

    def wait(self, count: int) -> tuple[set[str], set[int]]:
        done: set[str] = set()
        failed: set[int] = set()
        tick = threading.Event()
        for _ in range(3000):
            some, blocks = self.worker.take()
            done, failed = done | some, failed | blocks
            if len(done) == count:
                return done, failed
            tick.wait(0.01)
        raise TimeoutError(f"{len(done)} of {count} loads ended")

    def close(self) -> None:
        self.worker.close()
        self.failover.close()


def test_one_engine_saves_and_ranks_of_another_load(cluster: Cluster, namespace: str) -> None:
    one = Engine(cluster, namespace)
    kv = random_kv(1000)
    blocks = torch.randperm(BLOCKS)[:63].tolist()
    one.paged.write(blocks, 0, kv)
    one.worker.save([Save("r", tuple(one.chain[:3]), tuple(blocks))])
    one.close()  # waits until the saves are stored
    for rank in (Rank((0, 3), (0, 2)), Rank((1, 3), (0, 1)), Rank((0, 1), (1, 2))):
        other = Engine(cluster, namespace, rank)
        place = tuple(torch.randperm(BLOCKS)[:63].tolist())
        other.worker.start([Load("r", tuple(one.chain[:3]), 32, 752, place)])
        assert other.wait(1) == ({"r"}, set())
        part = kv[slice(*rank.layers), :, slice(*rank.heads), 32:752]
        assert torch.equal(other.paged.read(place, 32, 752), part)
        assert not other.paged.read(place, 752, 1000).any()
        other.close()


def test_blocks_that_were_not_filled_are_named(cluster: Cluster, namespace: str) -> None:
    engine = Engine(cluster, namespace)
    blocks = tuple(range(63))
    engine.paged.write(blocks, 0, random_kv(1000))
    engine.failover.connect().store(engine.chain[0], engine.paged.read(blocks, 0, 256))
    engine.worker.start([Load("partly", tuple(engine.chain[:3]), 0, 752, blocks)])
    done, failed = engine.wait(1)
    assert done == {"partly"} and failed == set(range(16, 47))
    engine.worker.start([Load("none", tuple(engine.chain[1:2]), 256, 512, blocks)])
    assert engine.wait(1) == ({"none"}, set(range(16, 32)))
    engine.close()


def test_a_cluster_that_dies_fails_loads_and_nothing_else(short_path: Any, namespace: str) -> None:
    with Cluster(short_path, nodes=1) as alone:
        engine = Engine(alone, namespace)
        engine.failover.connect()
        alone.kill(0)
        engine.worker.start([Load("r", tuple(engine.chain[:1]), 0, 256, tuple(range(63)))])
        assert engine.wait(1) == ({"r"}, set(range(16)))
        engine.worker.save([Save("r", tuple(engine.chain[:1]), tuple(range(63)))])
        engine.close()


def test_a_rank_that_has_no_kv_says_so_to_the_others(cluster: Cluster, namespace: str) -> None:
    heard: list[tuple[int, bool]] = []
    engine = Engine(cluster, namespace, merge=lambda chunk, kv: heard.append((chunk.begin, kv is not None)))
    blocks = tuple(range(63))
    engine.worker.save([Save("r", tuple(engine.chain[:1]), (1, 2, 3))])  # too few blocks
    engine.worker.save([Save("r", tuple(engine.chain[:2]), blocks)])
    engine.close()
    assert heard == [(0, False), (0, True), (256, True)]
    heard.clear()
    engine = Engine(cluster, namespace, merge=engine.worker._merge, save_bytes=1)
    engine.worker.save([Save("r", tuple(engine.chain[:2]), blocks)])
    engine.close()
    assert heard == [(0, False), (256, False)], "there is no room"


def test_ranks_that_may_be_out_of_step_store_no_more(cluster: Cluster, namespace: str) -> None:
    calls: list[int] = []

    def merge(chunk: Chunk, kv: Any) -> Any:
        calls.append(chunk.begin)
        raise RuntimeError("another rank is gone")

    engine = Engine(cluster, namespace, merge=merge)
    engine.worker.save([Save("r", tuple(engine.chain[:3]), tuple(range(63)))])
    engine.close()
    assert calls == [0]


def test_the_engine_waits_only_for_copies_out_of_the_blocks_that_it_overwrites(
    cluster: Cluster, namespace: str
) -> None:
    engine = Engine(cluster, namespace)
    blocks = tuple(range(63))
    kv = random_kv(1000)
    engine.paged.write(blocks, 0, kv)
    reads, goes_on = threading.Event(), threading.Event()
    read = engine.paged.read

    def slow(*arguments: Any) -> Any:
        reads.set()
        goes_on.wait(timeout=60)
        return read(*arguments)

    engine.paged.read = slow  # type: ignore[method-assign]
    engine.worker.save([Save("r", tuple(engine.chain[:2]), blocks)])
    reads.wait(timeout=60)
    engine.worker.begin_step("", [40, 70])
    late = threading.Thread(target=engine.worker.begin_step, args=("", [17]))
    late.start()
    late.join(timeout=0.05)
    assert late.is_alive(), "block 17 is being copied"
    goes_on.set()
    late.join(timeout=60)
    engine.worker.finish_copies()
    engine.paged.write(blocks, 0, torch.zeros_like(kv))
    engine.worker.close()
    got = engine.failover.connect().retrieve(engine.chain[:2])
    assert got.prefix_chunks == 2 and torch.equal(got.torch(), kv[:, :, :, :512])
    engine.close()


def test_a_worker_without_threads_is_refused_at_the_start(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ThreadPoolExecutor.submit queues work, then fails to start a thread: the work could
    run much later, when its blocks belong to another request."""
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("kdn-load"):
            started.append(thread)
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(ResourceExhausted, match="cannot start 2 threads kdn-load: can't start new thread"):
        Engine(cluster, namespace)
    started[0].join(timeout=60)
    assert not started[0].is_alive()


def test_a_store_that_hangs_delays_no_step(short_path: Any, namespace: str) -> None:
    with Cluster(short_path, nodes=1) as alone:
        engine = Engine(alone, namespace, timeout=2.0)
        engine.failover.connect()
        blocks = tuple(range(63))
        with alone.nodes[0].stopped():
            engine.worker.save([Save("r", tuple(engine.chain[:3]), blocks)])
            engine.worker._copiers.submit(lambda: None).result(timeout=60)
            assert engine.worker._saving > 0, "the stores hang"
            engine.worker.begin_step("", blocks)
            engine.worker.save([Save("s", tuple(engine.chain[:3]), blocks)])
        engine.close()
        assert engine.worker._saving == 0


def test_after_a_reset_loads_and_saves_have_other_keys(cluster: Cluster, namespace: str) -> None:
    engine = Engine(cluster, namespace)
    blocks = tuple(range(63))
    old, new = random_kv(1000), random_kv(1000)
    engine.paged.write(blocks, 0, old)
    engine.worker.save([Save("r", tuple(engine.chain[:1]), blocks)])
    engine.worker.begin_step("second", blocks)
    engine.paged.write(blocks, 0, new)
    chain = engine.chain_of("second")
    engine.worker.save([Save("r", tuple(chain[:1]), blocks)])
    engine.worker._copiers.submit(lambda: None).result(timeout=60)
    for stage in (engine.worker._mergers, engine.worker._savers):
        stage.submit(lambda: None).result(timeout=60)
    engine.worker.start([Load("r", tuple(chain[:1]), 0, 256, tuple(range(17, 80)))])
    assert engine.wait(1) == ({"r"}, set())
    assert torch.equal(engine.paged.read(tuple(range(17, 80)), 0, 256), new[:, :, :, :256])
    before = engine.failover.connect().retrieve(engine.chain[:1])
    assert torch.equal(before.torch(), old[:, :, :, :256]), "the old KV is still there for other engines"
    engine.close()


def test_a_load_that_ends_after_a_reset_delivers_nothing(cluster: Cluster, namespace: str) -> None:
    engine = Engine(cluster, namespace)
    blocks = tuple(range(63))
    engine.paged.write(blocks, 0, random_kv(1000))
    engine.failover.connect().store(engine.chain[0], engine.paged.read(blocks, 0, 256))
    write, writes, goes_on = engine.paged.write, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> None:
        writes.set()
        goes_on.wait(timeout=60)
        write(*arguments)

    engine.paged.write = slow  # type: ignore[method-assign]
    engine.worker.start([Load("old", tuple(engine.chain[:1]), 0, 256, blocks)])
    writes.wait(timeout=60)
    engine.worker.begin_step("second", [])
    goes_on.set()
    engine.worker.start([Load("void", (), 0, 256, blocks[20:])])
    done, failed = engine.wait(2)
    assert done == {"old", "void"} and failed == set(range(16)) | set(range(20, 36))
    engine.close()


def test_saves_beyond_the_budget_are_dropped(cluster: Cluster, namespace: str) -> None:
    engine = Engine(cluster, namespace, save_bytes=1)
    engine.worker.save([Save("r", tuple(engine.chain[:2]), tuple(range(63)))])
    assert engine.worker.saves_dropped == 2
    engine.close()


LAYOUTS = {
    "layer_first": lambda kv: kv.permute(1, 0, 3, 2, 4),
    "page_first": lambda kv: kv.permute(1, 3, 0, 2, 4),
    "page_first_direct": lambda kv: kv.permute(1, 0, 3, 2, 4)[:, None],
    "page_head": lambda kv: kv.permute(1, 2, 3, 0, 4)[:, None],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flat", [True, False])
def test_pages_of_every_layout_come_back(layout: str, flat: bool, cluster: Cluster, namespace: str) -> None:
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, layout)
    store = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1")
    names = ["one", "two", "three"]
    pages = [LAYOUTS[layout](random_kv(BLOCK)).contiguous() for _ in names]
    given = [page.flatten() if flat else page for page in pages]
    assert store.held(names) == 0
    assert store.put(names[:2], given[:2]) == [True, True]
    assert store.held(names) == 2
    back = [torch.zeros_like(page) for page in given]
    assert store.get(names, back) == [True, True, False]
    assert torch.equal(back[0], given[0]) and torch.equal(back[1], given[1]) and not back[2].any()
    store.close()


def test_exact_pages_are_not_taken_from_lossy_ones(cluster: Cluster, namespace: str) -> None:
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, "layer_first")
    page = random_kv(BLOCK).permute(1, 0, 3, 2, 4).contiguous()
    lossy = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1", levels=["int8"])
    assert lossy.put(["page"], [page]) == [True]
    assert lossy.held(["page"]) == 1 and lossy.get(["page"], [torch.zeros_like(page)]) == [True]
    for levels in (None, ["lossless", "int8"]):
        exact = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1", levels=levels)
        assert exact.held(["page"]) == 0 and exact.get(["page"], [torch.zeros_like(page)]) == [False]
        exact.close()
    lossy.close()


def test_unknown_settings_are_refused_at_the_start(cluster: Cluster, namespace: str) -> None:
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, "layer_first")
    for wrong in ({"levels": ["int 8"]}, {"durability": "eternal"}, {"timeout": 0}):
        with pytest.raises(InvalidArgument):
            PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1", **wrong)
        with pytest.raises(InvalidArgument):
            Options(**wrong)
    with pytest.raises(InvalidArgument, match="'lossles'"):
        Options(accept=["lossles"])
    assert Options().accept == ("lossless",) and Options().exact
    assert Options(levels=["int8"]).accept == ("int8",) and not Options(levels=["int8"]).exact


def test_a_page_that_cannot_be_stored_raises_nothing(cluster: Cluster, namespace: str) -> None:
    """SGLang calls from a thread that an exception ends for good."""
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, "layer_first")
    store = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1", levels=["int8"])
    good = random_kv(BLOCK).permute(1, 0, 3, 2, 4).contiguous()
    infinite = good.clone()
    infinite[0, 0, 0, 0, 0] = torch.inf
    wrong = torch.zeros(7, dtype=torch.float16)
    assert store.put(["a", "b", "c", "d"], [infinite, good, wrong, good]) == [False, True, False, True]
    assert store.held(["b", "d"]) == 2 and store.held(["a"]) == 0
    assert store.get(["b", "d"], [torch.zeros_like(good), wrong]) == [True, False]
    store.close()


def test_a_store_of_a_new_generation_finds_no_old_page(cluster: Cluster, namespace: str) -> None:
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, "layer_first")
    old = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of1")
    page = random_kv(BLOCK).permute(1, 0, 3, 2, 4).contiguous()
    assert old.put(["page"], [page]) == [True]
    one, two = old.of_new_generation(), old.of_new_generation()
    assert one.held(["page"]) == 0 and one.get(["page"], [torch.zeros_like(page)]) == [False]
    assert old.held(["page"]) == 1, "another engine still has the old weights"
    assert one.put(["page"], [2 * page]) == [True] and one.held(["page"]) == 1
    back = torch.zeros_like(page)
    assert old.get(["page"], [back]) == [True] and torch.equal(back, page)
    assert two.held(["page"]) == 0, "no two engines have the same new generation"
    for store in (old, one, two):
        store.close()


def test_ranks_do_not_share_pages(cluster: Cluster, namespace: str) -> None:
    shape = PageShape(LAYERS, HEADS, DIM, BLOCK, "layer_first")
    one = PageStore(cluster.unix(), namespace, MODEL, shape, "tp0of2")
    two = PageStore(cluster.unix(), namespace, MODEL, shape, "tp1of2")
    assert one.put(["page"], [random_kv(BLOCK).permute(1, 0, 3, 2, 4).contiguous()]) == [True]
    assert (one.held(["page"]), two.held(["page"])) == (1, 0)
    one.close()
    two.close()
