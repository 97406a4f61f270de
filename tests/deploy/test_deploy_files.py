"""What is in `deploy/` fits the service: its settings, its metrics, its times. No tools needed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from sa2va_bento import metrics
from sa2va_bento.settings import VARIABLES, Settings
from tests.serving import ROOT
from tests.test_bento import lock, pins

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
ALERTS = DEPLOY / "monitoring/alerts.yaml"
NOT_OURS = {"HF_TOKEN", "HF_HUB_OFFLINE", "PORT", "GPUS"}
"""Variables in these files that are not settings of the service."""
STOP_S = 15
"""What a stop takes beside the grace, at most."""
SUFFIXES = ("_total", "_bucket", "_sum", "_count")


def parsed(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def deployment() -> dict[str, Any]:
    return parsed(KUBERNETES / "base/deployment.yaml")[0]["spec"]["template"]["spec"]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("path", [*DEPLOY.rglob("*.yaml"), ROOT / "compose.yaml"], ids=lambda path: path.name)
def test_every_file_parses(path: Path) -> None:
    assert all(parsed(path))


def literals() -> set[str]:
    found = [
        literal
        for path in KUBERNETES.rglob("kustomization.yaml")
        for generator in parsed(path)[0].get("configMapGenerator", ())
        for literal in generator.get("literals", ())
    ]
    example = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    image = re.findall(r"\b(SA2VA_\w+|MODEL_PATH|TRANSFORMERS_CACHE)=", (ROOT / "Dockerfile").read_text())
    return {line.partition("=")[0] for line in [*found, *example, *image]}


def test_every_setting_in_them_exists() -> None:
    named = literals() | {env["name"] for container in deployment()["containers"] for env in container["env"]}
    assert "MODEL_PATH" in named
    assert named - NOT_OURS <= VARIABLES.keys()


def test_an_orchestrator_waits_longer_than_a_stop_takes() -> None:
    pod = deployment()
    settings = {line.partition("=")[0]: line.partition("=")[2] for line in _base_literals()}
    grace = float(settings["SA2VA_GRACE_S"])
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + grace + STOP_S
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["x-service"]
    assert seconds(compose["stop_grace_period"]) >= Settings().shutdown_grace_s + STOP_S


def _base_literals() -> list[str]:
    return parsed(KUBERNETES / "base/kustomization.yaml")[0]["configMapGenerator"][0]["literals"]


def test_the_image_runs_as_the_user_that_the_pod_names() -> None:
    user = deployment()["securityContext"]["runAsUser"]
    assert re.search(rf"^USER {user}:{user}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_images_version_is_the_projects() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    for overlay in KUBERNETES.glob("overlays/*/kustomization.yaml"):
        for image in parsed(overlay)[0].get("images", ()):
            assert image["newTag"].startswith(version)


def test_the_context_of_the_image_holds_what_the_bento_includes() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    included = {path.partition("/")[0] for path in [*bentofile["include"], bentofile["python"]["requirements_txt"]]}
    assert {f"!{name}" for name in included} <= set(ignored)
    assert "*" in ignored


def series() -> set[str]:
    """Names of all series, as Prometheus has them."""
    names = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    families = {family.name for family in REGISTRY.collect()}
    return names | {f"{name}{suffix}" for name in families for suffix in ("", *SUFFIXES)}


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    alerts = parsed(ALERTS)[0]["groups"]
    keda = parsed(KUBERNETES / "components/keda/scaledobject.yaml")[0]["spec"]["triggers"]
    pool = (KUBERNETES / "components/inference-pool/kustomization.yaml").read_text()
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())),
        *(rule["expr"] for group in alerts for rule in group["rules"]),
        *(trigger["metadata"]["query"] for trigger in keda),
        *(parsed(KUBERNETES / "components/hpa/adapter-rule.yaml")[0][name] for name in ("seriesQuery", "metricsQuery")),
        *re.findall(r"-metric=(\w+)", pool),
    ]


def test_what_is_looked_at_exists() -> None:
    assert metrics.requests_waiting
    named = {name for expression in expressions() for name in re.findall(r"\bsa2va_\w+", expression)}
    assert len(named) > 10
    assert named <= series()


def test_the_operators_rules_are_the_alerts() -> None:
    assert parsed(DEPLOY / "monitoring/rules.yaml")[0]["spec"] == parsed(ALERTS)[0]


def test_the_dashboards_panels_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_licences_of_what_is_installed_are_listed() -> None:
    listed = set(re.findall(r"^\| ([\w.-]+) ", (ROOT / "docs/licences.md").read_text(), re.MULTILINE))
    known = {re.sub("[._]", "-", name.lower()) for name in listed}
    installed = {re.sub("[._]", "-", name) for name in pins(_here(lock("serve")))}
    assert installed <= known


def _here(text: str) -> str:
    """A lock without what other systems need."""
    return "\n".join(line for line in text.splitlines() if " ; " not in line or "platform_machine" in line)
