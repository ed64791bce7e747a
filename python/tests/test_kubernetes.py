"""configs/kubernetes is valid, and its pods do not stand in each other's way."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cluster import KDN, REPO

VERSION = "1.32"
RESOURCES: list[Any] = list(yaml.safe_load_all((REPO / "configs/kubernetes/kdn.yaml").read_text()))


def of_kind(kind: str) -> Any:
    [found] = [each for each in RESOURCES if each["kind"] == kind]
    return found


CONFIG = yaml.safe_load(of_kind("ConfigMap")["data"]["kdn.yaml"])
NODES = CONFIG["nodes"]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_every_resource_has_the_fields_that_kubernetes_knows(resource: Any) -> None:
    kubernetes_validate.validate(resource, VERSION, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    stateful_set = of_kind("StatefulSet")
    wrong = {**stateful_set, "spec": {**stateful_set["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_pod_has_a_node_of_its_name() -> None:
    spec = of_kind("StatefulSet")["spec"]
    pods = [f"kdn-{i}" for i in range(spec["replicas"])]
    assert [node["id"] for node in NODES] == pods
    assert [node["host"] for node in NODES] == [f"{pod}.{spec['serviceName']}" for pod in pods]


def test_pods_of_one_host_would_not_share_a_socket() -> None:
    for a, b in itertools.combinations(NODES, 2):
        assert a["gateway_socket"] != b["gateway_socket"]


def test_no_two_pods_run_on_one_host() -> None:
    template = of_kind("StatefulSet")["spec"]["template"]
    [rule] = template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_pods_find_their_certificates_and_only_their_group_reads_the_keys() -> None:
    pod = of_kind("StatefulSet")["spec"]["template"]["spec"]
    [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "certs"]
    assert mount["mountPath"] == CONFIG["security"]["certificates"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "certs"]
    assert volume["secret"]["defaultMode"] & 0o007 == 0


def test_the_command_in_the_comments_makes_the_files_of_every_pod(tmp_path: Path) -> None:
    """The commands that make the secret, as the file's comments have them."""
    (tmp_path / "kdn.yaml").write_text(of_kind("ConfigMap")["data"]["kdn.yaml"])
    [command] = re.findall(r"^# +kdn (certs .*)$", (REPO / "configs/kubernetes/kdn.yaml").read_text(), re.MULTILINE)
    subprocess.run([KDN, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    made = {path.name for path in (tmp_path / "certs").iterdir()}
    assert made >= {"ca.pem"} | {f"{node['id']}.{end}" for node in NODES for end in ("pem", "key")}
