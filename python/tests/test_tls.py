"""Connections to gateways that use TLS. The tests of the client run over TLS too."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from test_client import MODEL, kv_of

import kdn
from cluster import KDN, Cluster, make_certificates
from kdn.failover import Failover
from kdn.pages import PageShape, PageStore


def authority(directory: Path, hosts: str = "127.0.0.1") -> str:
    """The certificate of an authority that no node of the tests has."""
    config = directory / "other.yaml"
    config.write_text(
        f"cluster: {{name: other, replicas: 1}}\nnodes: [{{id: n1, host: {hosts}, control_port: 1, bulk_port: 2, "
        "gateway_port: 3, memory: 64 MiB}]\n"
    )
    make_certificates(config, directory / "other")
    return str(directory / "other" / "ca.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_certificate_names_the_hosts_of_the_node(secure_cluster: Cluster, host: str) -> None:
    with kdn.Client(secure_cluster.tls(0, host), ca=secure_cluster.ca) as client:
        assert client.node.id == "n1"
        assert not client.shares_memory


def test_the_authority_may_come_from_the_environment(secure_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDN_CA", raising=False)
    with pytest.raises(kdn.InvalidArgument, match="KDN_CA"):
        kdn.Client(secure_cluster.tls())
    monkeypatch.setenv("KDN_CA", secure_cluster.ca)
    kdn.Client(secure_cluster.tls()).close()


def test_asyncio_clients_use_tls(secure_cluster: Cluster, namespace: str) -> None:
    async def use() -> None:
        async with await kdn.AsyncClient.connect(secure_cluster.tls(), ca=secure_cluster.ca) as client:
            knowledge = await client.open(namespace, MODEL)
            [chunk] = knowledge.chain(range(50))
            await knowledge.store(chunk, kv_of(chunk))
            got = await knowledge.retrieve([chunk])
            assert np.array_equal(got.kv, kv_of(chunk))

    asyncio.run(use())


def test_large_chunks_come_back_over_tls(secure_cluster: Cluster, namespace: str) -> None:
    large = kdn.ModelSpec(**{**MODEL.__dict__, "num_layers": 8, "head_dim": 128, "rope": kdn.RopeSpec(rotary_dim=128)})
    with kdn.Client(secure_cluster.tls(), ca=secure_cluster.ca) as client:
        knowledge = client.open(namespace, large)
        [chunk] = knowledge.chain(range(256))
        knowledge.store(chunk, kv_of(chunk, large))  # 4 MiB
        assert np.array_equal(knowledge.retrieve([chunk]).kv, kv_of(chunk, large))


def test_connectors_pass_the_authority_on(secure_cluster: Cluster, namespace: str) -> None:
    failover = Failover(secure_cluster.tls(), namespace, MODEL, "test", secure_cluster.ca)
    assert failover.connect().lookup(failover.chain(range(10)))[0].hit is False
    failover.close()
    shape = PageShape(MODEL.num_layers, MODEL.num_kv_heads, MODEL.head_dim, 16, "layer_first")
    pages = PageStore(secure_cluster.tls(), namespace, MODEL, shape, "0/1", ca=secure_cluster.ca)
    assert pages.held(["page"]) == 0
    pages.close()


def test_a_gateway_of_another_authority_is_refused(secure_cluster: Cluster, short_path: Path) -> None:
    with pytest.raises(kdn.FailedPrecondition, match="its certificate is refused") as caught:
        kdn.Client(secure_cluster.tls(), ca=authority(short_path))
    assert secure_cluster.tls() in str(caught.value)


def test_a_gateway_whose_certificate_names_other_hosts_is_refused(secure_cluster: Cluster) -> None:
    # Another way to write 127.0.0.1, which the certificate does not have.
    with pytest.raises(kdn.FailedPrecondition, match="not valid for '127.1'"):
        kdn.Client(secure_cluster.tls(0, "127.1"), ca=secure_cluster.ca)


@pytest.mark.parametrize("text", [None, "", "junk"])
def test_errors_of_the_authorities_name_the_file(secure_cluster: Cluster, short_path: Path, text: str | None) -> None:
    path = short_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(kdn.InvalidArgument, match=str(path)):
        kdn.Client(secure_cluster.tls(), ca=str(path))


def test_each_kind_of_client_learns_which_kind_of_gateway_it_dialled(cluster: Cluster, secure_cluster: Cluster) -> None:
    with pytest.raises(kdn.Unavailable, match=f"accepts only TLS, dial {secure_cluster.tls()}"):
        kdn.Client(secure_cluster.tcp())
    with pytest.raises(kdn.Unavailable, match=f"does not use TLS, dial {cluster.tcp()}"):
        kdn.Client(cluster.tls(), ca=secure_cluster.ca)


def test_a_gateway_that_stalls_in_the_handshake_is_unavailable(secure_cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(kdn.Unavailable, match="no TLS handshake within"):
            kdn.Client(address, ca=secure_cluster.ca, timeout=0.3)


def test_commands_of_kdn_use_tls(secure_cluster: Cluster, short_path: Path) -> None:
    def status(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(KDN), "status", "--connect", secure_cluster.tls(), *options]
        bare = {name: value for name, value in os.environ.items() if name != "KDN_CA"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=bare)

    good = status("--ca", secure_cluster.ca, "--json")
    assert good.returncode == 0, good.stderr
    assert all(node["gateway"].startswith("tls://") for node in json.loads(good.stdout))
    assert "an unknown authority has signed it" in status("--ca", authority(short_path)).stderr
    assert "KDN_CA" in status().stderr


@pytest.mark.parametrize("address", ["tls://", "tls://host", "tls://:80", "tls://host:0", "tls://[::1]"])
def test_addresses_are_checked(address: str) -> None:
    with pytest.raises(kdn.InvalidArgument, match="tls://"):
        kdn.Client(address, ca="unused")


def test_threads_share_one_connection_under_tls(secure_cluster: Cluster, namespace: str) -> None:
    with kdn.Client(secure_cluster.tls(), ca=secure_cluster.ca) as client:
        knowledge = client.open(namespace, MODEL)
        chain = knowledge.chain(range(8 * 256))
        errors: list[BaseException] = []

        def store(chunk: kdn.Chunk) -> None:
            try:
                knowledge.store(chunk, kv_of(chunk))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=store, args=(chunk,)) for chunk in chain]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        got = knowledge.retrieve(chain)
        assert np.array_equal(got.kv, np.concatenate([kv_of(c) for c in chain], axis=3))
