"""Overlays and components as kubectl renders them, and what validates them."""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.serving import ROOT

KUBERNETES = ROOT / "deploy/kubernetes"
TOOLS = ROOT / ".venv-deploy"
Manifest = dict[str, Any]

TYPED = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
}
"""Custom resources of which the registry has types, made from their projects' code."""
DESCRIBED: dict[str, Any] = {
    "InterceptorRoute": {
        "target": {"service": str, "port": int},
        "rules": [{"hosts": [str]}],
        "scalingMetric": {"concurrency": {"targetValue": int}},
        "timeouts": {"readiness": str, "responseHeader": str},
    },
    "InferencePool": {
        "selector": {"matchLabels": dict},
        "targetPorts": [{"number": int}],
        "endpointPickerRef": {"name": str, "port": {"number": int}, "failureMode": str},
    },
}
"""And the others: their fields, as the references of KEDA's HTTP add-on and of the inference extension have them."""


def run(*command: str | Path, stdin: str = "", cwd: Path = ROOT) -> str:
    """What a tool prints; it must not fail."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(
        command, input=stdin, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def render(folder: Path) -> list[Manifest]:
    """The objects that a kustomization makes."""
    rendered = run(TOOLS / "bin/kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", folder)
    return list(yaml.safe_load_all(rendered))


def combine(folder: Path, components: Iterable[str]) -> list[Manifest]:
    """The base with components."""
    above = os.path.relpath(KUBERNETES, folder)
    written = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "sa2va",
        "resources": [f"{above}/base"],
        "components": [f"{above}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return render(folder)


def validate(manifests: list[Manifest], folder: Path) -> None:
    """Each object against the schema of its kind, unknown fields refused; custom resources by their projects' types."""
    custom = [manifest for manifest in manifests if manifest["kind"] in {*TYPED, *DESCRIBED}]
    plain = [manifest for manifest in manifests if manifest not in custom]
    file = folder / "plain.yaml"
    file.write_text(yaml.safe_dump_all(plain))
    run(TOOLS / "bin/kubernetes-validate", "--strict", file)
    if typed := [manifest for manifest in custom if manifest["kind"] in TYPED]:
        _validate_typed(typed, folder)
    for manifest in custom:
        if fields := DESCRIBED.get(manifest["kind"]):
            _compare(manifest["spec"], fields, manifest["kind"])


def _validate_typed(manifests: list[Manifest], folder: Path) -> None:
    """Once while it runs, for values, and once by TypeScript, which refuses fields that a type does not have."""
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    script, program = [], []
    for number, manifest in enumerate(manifests):
        kind, content = manifest["kind"], json.dumps(manifest)
        script += [
            f'import {{ {kind} as Kind{number} }} from "{TYPED[kind]}";',
            f"new Kind{number}({content}).validate();",
        ]
        program += [f'import {{ I{kind} as Kind{number} }} from "{TYPED[kind]}";']
        program += [f"export const object{number}: Kind{number} = {content};"]
    (folder / "objects.mjs").write_text("\n".join(script))
    (folder / "objects.ts").write_text("\n".join(program))
    run("node", "objects.mjs", cwd=folder)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--preserveSymlinks"]
    run("node", TOOLS / "node_modules/typescript/bin/tsc", *options, "objects.ts", cwd=folder)


def _compare(given: Any, known: Any, place: str) -> None:
    if isinstance(known, type):
        assert isinstance(given, known), place
    elif isinstance(known, list):
        assert isinstance(given, list), place
        for item in given:
            _compare(item, known[0], place)
    else:
        assert given.keys() <= known.keys(), f"{place}: {given.keys() - known.keys()}"
        for name, value in given.items():
            _compare(value, known[name], f"{place}.{name}")
