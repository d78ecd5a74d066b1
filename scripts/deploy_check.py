"""Check what is in deploy/ without a container engine and without a cluster: `make deploy-check`.

Dockerfile and YAML are linted, compose.yaml is held against its published schema (and `docker compose config` where
that is there), the chart is linted and rendered by Helm with several values, what comes out is held against the schemas
of Kubernetes and the promises of docs/deploy.md, and values that break those are tried, to see that they are refused.
What a schema cannot say (an image that builds, a pod that starts, a policy that a network keeps) is not checked here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "tightship"
VERSIONS = ("1.29", "1.33", "1.37")
"""Versions of Kubernetes whose schemas the manifests have to fit."""
BIN = Path(sys.executable).parent

VALUES: Mapping[str, Sequence[str]] = {
    "as it is": (),
    "no autoscaling, workspace on a claim": (
        "autoscaling.mode=none",
        "workspace.existingClaim=files",
        "postgres.caConfigMap=ca",
    ),
    "KEDA, declared hosts, secrets": (
        "autoscaling.mode=keda",
        "networkPolicy.egress[0].cidr=203.0.113.0/24",
        "networkPolicy.egress[0].ports={443}",
        "networkPolicy.ciliumHosts={api.example.com}",
        "networkPolicy.postgres.cidrs={10.1.2.3/32}",
        "secretEnv[0].name=MODEL_KEY",
        "secretEnv[0].secret=models",
        "secretEnv[0].key=key",
        "image.pullSecrets={registry}",
        "worker.nodeSelector.pool=agents",
    ),
}
REFUSED: Mapping[str, str] = {
    "a password in the values": "postgres.password.value=hunter2",
    "a master key in the values": "masterKey=c2VjcmV0",
    "an image without a version": "image.tag=latest",
    "an unknown setting": "worker.replica=3",
    "metrics for everybody": "metrics.from=null",
    "no encryption by accident": "postgres.sslmode=prefer",
    "no time to drain": "worker.drainSeconds=0",
    "no such autoscaler": "autoscaling.mode=vpa",
}


class Wrong(Exception):
    """A promise that a manifest breaks."""


def run(*command: str | Path, given: str | None = None) -> str:
    """Run a tool; what it prints.

    Raises:
        Wrong: it has found something.
    """
    done = subprocess.run(
        [str(one) for one in command], input=given, capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise Wrong(f"{Path(str(command[0])).name} {command[1]}\n{done.stdout}{done.stderr}")
    return done.stdout


def files() -> Iterator[str]:
    """Lint files as they stand; yields what was done."""
    run(BIN / "hadolint", "deploy/Dockerfile")
    yield "Dockerfile: hadolint"
    run(BIN / "yamllint", "--strict", "--config-file", "deploy/.yamllint", "deploy")
    yield "YAML: yamllint"
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")
    yield "compose.yaml: schema of the Compose specification"
    run(BIN / "check-jsonschema", "--check-metaschema", CHART / "values.schema.json")
    yield "values.schema.json: JSON Schema"
    yield from compose()
    yield from units()


def compose() -> Iterator[str]:
    """Compose's own reading, where the plugin is there."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        yield "compose.yaml: not read by Docker Compose, which this machine lacks"
        return
    names = ("TIGHTSHIP_WORKSPACE", "POSTGRES_PASSWORD", "TIGHTSHIP_MASTER_KEY", "TIGHTSHIP_METRICS_TOKEN")
    given = [f"{name}=x" for name in names]
    run("env", *given, docker, "compose", "-f", "deploy/compose.yaml", "config", "--quiet")
    yield "compose.yaml: docker compose config"


def units() -> Iterator[str]:
    """What systemd says of the units, where it is there; that there is no such program here is no finding."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        yield "systemd units: not checked, this machine lacks systemd-analyze"
        return
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if unit.name in line and "is not executable" not in line]
        if told:
            raise Wrong("\n".join(told))
        run(analyze, "security", "--offline=true", "--threshold=30", unit)
        yield f"{unit.name}: systemd-analyze verify, and security (exposure at most 3.0 of 10)"


# --- the chart ----------------------------------------------------------------------------------------


def chart(helm: str) -> Iterator[str]:
    """Lint, render and hold against schemas and promises; yields what was done."""
    for name, values in VALUES.items():
        sets = [part for value in values for part in ("--set", value)]
        run(helm, "lint", "--strict", CHART, *sets)
        text = run(helm, "template", "ship", CHART, "--namespace", "agents", *sets)
        manifests = documents(text)
        check(manifests)
        for version in VERSIONS:
            validate(manifests, version)
        kinds = ", ".join(f"{one['kind']}" for one in manifests)
        yield f"chart, {name}: lint, Kubernetes {' '.join(VERSIONS)}, promises ({kinds})"
    for name, value in REFUSED.items():
        sets = ["--set-json", value] if value.endswith("=null") else ["--set", value]
        done = subprocess.run([helm, "template", "ship", CHART, *sets], capture_output=True, text=True, check=False)
        if not done.returncode or "schema" not in done.stderr:
            raise Wrong(f"the chart takes {name} ({value})")
    yield f"chart: refuses {'; '.join(REFUSED)}"


def documents(text: str) -> list[dict[str, Any]]:
    """The manifests of a rendered chart."""
    from ruamel.yaml import YAML

    return [one for one in YAML(typ="safe").load_all(text) if one]


def validate(manifests: Sequence[Mapping[str, Any]], version: str) -> None:
    """Hold what Kubernetes itself defines against its schema; the kinds of KEDA and Cilium have none here.

    Raises:
        Wrong: one does not fit.
    """
    import kubernetes_validate

    for one in manifests:
        if one["apiVersion"].startswith(("keda.sh/", "cilium.io/")):
            continue
        try:
            kubernetes_validate.validate(dict(one), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Wrong(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {error.message}") from error


def check(manifests: Sequence[Mapping[str, Any]]) -> None:
    """The promises of docs/deploy.md.

    Raises:
        Wrong: one is broken.
    """
    kinds = [one["kind"] for one in manifests]
    promise("Secret" not in kinds, "no Secret is made: they are named")
    promise("PodDisruptionBudget" in kinds, "a disruption budget")
    policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
    promise(
        any(sorted(one["policyTypes"]) == ["Egress", "Ingress"] and len(one) == 2 for one in policies), "deny first"
    )
    for policy in policies:
        for rule in [*policy.get("egress", []), *policy.get("ingress", [])]:
            promise(
                bool(rule.get("to") or rule.get("from")) and bool(rule.get("ports")), "every rule has ends and ports"
            )
    for one in manifests:
        if one["kind"] == "Deployment":
            pod(one["spec"]["template"]["spec"])
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            scaled = one["spec"].get("scaleTargetRef", {}).get("name")
            promise(
                scaled in [each["metadata"]["name"] for each in manifests if each["kind"] == "Deployment"], "scales"
            )
            promise("password" not in json.dumps(one).lower(), "no password in an autoscaler")


def pod(spec: Mapping[str, Any]) -> None:
    """What every pod keeps to (the restricted Pod Security Standard, and more).

    Raises:
        Wrong: it does not.
    """
    secure = spec["securityContext"]
    promise(secure["runAsNonRoot"] and secure["seccompProfile"]["type"] == "RuntimeDefault", "no root, seccomp")
    promise(spec["automountServiceAccountToken"] is False, "no token of the cluster")
    for container in spec["containers"]:
        inner = container["securityContext"]
        promise(inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"], "read-only, no escalation")
        promise(inner["capabilities"] == {"drop": ["ALL"]}, "no capabilities")
        promise({"cpu", "memory"} <= set(container["resources"]["requests"]), "requests")
        promise("memory" in container["resources"]["limits"], "a limit of memory")
        for one in container["env"]:
            secret = any(word in one["name"] for word in ("PASSWORD", "KEY", "TOKEN"))
            promise(("valueFrom" in one) if secret else True, f"{one['name']} comes from a Secret")
    if any(one["name"] == "worker" for one in spec["containers"]):
        promise(spec["terminationGracePeriodSeconds"] > 60, "the grace is longer than the drain")


def promise(held: Any, what: str) -> None:
    """Raises:
    Wrong: it is not held."""
    if not held:
        raise Wrong(f"broken: {what}")


def main(arguments: Sequence[str]) -> int:
    """Check everything; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check what is in deploy/.")
    parser.add_argument("--helm", default="helm", help="the binary of Helm")
    given = parser.parse_args(arguments).helm
    helm = given if Path(given).is_file() else shutil.which("helm")
    try:
        for line in files():
            print(line)
        if helm is None:
            print("the chart is not checked: this machine lacks helm")
            return 1
        for line in chart(helm):
            print(line)
    except Wrong as wrong:
        print(wrong)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
