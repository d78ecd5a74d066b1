"""What deploy/ asks of the program is there, and what it promises is looked for; Helm is not needed here."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import deploy_check

import tightship
from docs_pages import ROOT, page
from tightship.cli.metrics import metrics

DEPLOY = ROOT / "deploy"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]


def read(path: str) -> str:
    return (DEPLOY / path).read_text()


def test_every_variable_that_is_set_is_one_that_the_program_reads() -> None:
    source = "".join(path.read_text() for path in Path(tightship.__file__).parent.rglob("*.py"))
    known = set(re.findall(r'"(TIGHTSHIP_[A-Z_]+)"', source)) | {"TIGHTSHIP_IMAGE", "TIGHTSHIP_WORKSPACE"}
    for path in FILES:
        assert set(re.findall(r"TIGHTSHIP_[A-Z_]+", path.read_text())) <= known, path


def test_metrics_are_started_as_the_command_line_understands_it() -> None:
    lines = [
        re.search(r"command: \[metrics, (.+)\]", read("compose.yaml")),
        re.search(r"tightship metrics (.+)", read("systemd/tightship-metrics.service")),
        re.search(r"args: \[metrics, (.+)\]", read("helm/tightship/templates/metrics.yaml")),
    ]
    for found in lines:
        assert found is not None
        words = re.sub(r"\{\{.*?\}\}", "9464", found[1]).replace('"', "").replace(",", "").split()
        metrics.make_context("metrics", words)


def test_versions_are_pinned_and_go_together() -> None:
    assert re.search(r"^ARG BASE=python:\d+\.\d+\.\d+-slim-\w+$", read("Dockerfile"), re.MULTILINE)
    assert re.search(r"image: postgres:\d+\.\d+-\w+$", read("compose.yaml"), re.MULTILINE)
    chart = YAML(typ="safe").load(read("helm/tightship/Chart.yaml"))
    assert chart["appVersion"] == tightship.__version__
    for path in ("compose.yaml", "Dockerfile"):
        assert f"tightship:{tightship.__version__}" in read(path)


def test_no_secret_stands_in_a_file() -> None:
    for path in FILES:
        for name, value in re.findall(r"^\s*([A-Z_]*(?:PASSWORD|_KEY|_TOKEN)): *(.+)$", path.read_text(), re.MULTILINE):
            assert value.startswith("${"), f"{path}: {name}"
    for line in read("compose.env.example").splitlines():
        assert not re.match(r"(POSTGRES_PASSWORD|TIGHTSHIP_\w+_(KEY|TOKEN))=.", line), line


def test_the_page_names_every_part() -> None:
    text = page("docs/deploy.md").text
    for path in ("deploy/Dockerfile", "deploy/compose.yaml", "deploy/systemd/", "deploy/helm/tightship/"):
        assert f"`{path}`" in text
        assert (ROOT / path).exists()


# --- the promises are looked for -----------------------------------------------------------------------

POD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "terminationGracePeriodSeconds": 75,
    "containers": [
        {
            "name": "worker",
            "securityContext": {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
            "env": [{"name": "PGPASSWORD", "valueFrom": {}}, {"name": "PGHOST", "value": "db"}],
        }
    ],
}


def test_a_pod_that_keeps_every_promise_passes() -> None:
    deploy_check.pod(POD)


@pytest.mark.parametrize(
    "harm",
    [
        lambda pod: pod["securityContext"].update(runAsNonRoot=False),
        lambda pod: pod.update(automountServiceAccountToken=True),
        lambda pod: pod.update(terminationGracePeriodSeconds=30),
        lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        lambda pod: pod["containers"][0]["securityContext"].update(capabilities={"drop": []}),
        lambda pod: pod["containers"][0]["resources"].update(limits={}),
        lambda pod: (
            pod["containers"][0]["env"][0].update(value="hunter2") or pod["containers"][0]["env"][0].pop("valueFrom")
        ),
    ],
)
def test_a_pod_that_breaks_one_is_found(harm: Callable[[Any], Any]) -> None:
    broken = copy.deepcopy(POD)
    harm(broken)
    with pytest.raises(deploy_check.Wrong):
        deploy_check.pod(broken)


def policy(**spec: Any) -> dict[str, Any]:
    return {"kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {"podSelector": {}, **spec}}


DENY = policy(policyTypes=["Ingress", "Egress"])
BUDGET = {"kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {}}


@pytest.mark.parametrize(
    "manifests",
    [
        [DENY],
        [BUDGET, policy(policyTypes=["Egress"])],
        [BUDGET, DENY, policy(policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}])],
        [BUDGET, DENY, policy(policyTypes=["Ingress"], ingress=[{"from": [], "ports": [{"port": 9464}]}])],
        [BUDGET, DENY, {"kind": "Secret", "metadata": {"name": "s"}}],
    ],
)
def test_manifests_that_break_a_promise_are_found(manifests: list[dict[str, Any]]) -> None:
    deploy_check.check([BUDGET, DENY])
    with pytest.raises(deploy_check.Wrong):
        deploy_check.check(manifests)
