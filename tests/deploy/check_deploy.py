"""What is in `deploy/`, by the tools that read it: `make deploy-test`."""

from pathlib import Path

import pytest
import yaml

from tests.deploy.fake_cluster import fake_cluster
from tests.deploy.manifests import KUBERNETES, TOOLS, Manifest, combine, render, run, validate
from tests.serving import ROOT

OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
COMPONENTS = (["hpa"], ["keda"], ["keda-to-zero"], ["gateway"], ["gateway", "inference-pool"])
ALERTS = ROOT / "deploy/monitoring/alerts.yaml"


def pods(manifests: list[Manifest]) -> list[Manifest]:
    return [found["spec"]["template"]["spec"] for found in manifests if found["kind"] == "Deployment"]


def test_there_are_overlays_and_a_test_of_every_component() -> None:
    assert OVERLAYS == ["cpu-demo", "gpu", "multi-gpu"]
    assert {path.name for path in (KUBERNETES / "components").iterdir()} == {
        name for names in COMPONENTS for name in names
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(overlay: str, tmp_path: Path) -> None:
    manifests = render(KUBERNETES / "overlays" / overlay)
    validate(manifests, tmp_path)
    assert {found["metadata"].get("namespace") for found in manifests if found["kind"] != "Namespace"} == {
        next(found["metadata"]["name"] for found in manifests if found["kind"] == "Namespace")
    }


@pytest.mark.parametrize("components", COMPONENTS, ids="+".join)
def test_a_component_is_valid(components: list[str], tmp_path: Path) -> None:
    validate(combine(tmp_path, components), tmp_path)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_fit_the_restricted_profile(overlay: str) -> None:
    (pod,) = pods(render(KUBERNETES / "overlays" / overlay))
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {"emptyDir", "persistentVolumeClaim"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_applied_applied_again_and_deleted(overlay: str, tmp_path: Path) -> None:
    folder = KUBERNETES / "overlays" / overlay
    with fake_cluster() as cluster:
        kubectl = [TOOLS / "bin/kubectl", "--server", cluster.url, "--cache-dir", tmp_path]
        first = run(*kubectl, "apply", "--validate=false", "-k", folder)
        assert len(cluster.objects) == len(first.splitlines()) == len(render(folder))
        assert all(line.endswith("created") for line in first.splitlines())
        again = run(*kubectl, "apply", "--validate=false", "-k", folder)
        assert not [line for line in again.splitlines() if line.endswith("created")]
        (deployment,) = cluster.find("Deployment")
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].startswith("registry.example.com/")
        run(*kubectl, "delete", "--wait=false", "-k", folder)
        assert not cluster.objects


def test_a_changed_setting_rolls_the_pods_over() -> None:
    one, other = (pods(render(KUBERNETES / "overlays" / name))[0] for name in ("gpu", "multi-gpu"))
    assert one["containers"][0]["envFrom"] != other["containers"][0]["envFrom"]


def test_the_alerts_are_valid_and_do_what_they_say() -> None:
    run("promtool", "check", "rules", ALERTS)
    run("promtool", "check", "config", ALERTS.with_name("prometheus.yaml"))
    run("promtool", "test", "rules", ALERTS.with_name("alerts_test.yaml"))


def test_every_alert_is_tried() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    tests = yaml.safe_load(ALERTS.with_name("alerts_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == alerts


@pytest.mark.parametrize("options", [[], ["--profile", "cpu"], ["--env-file", ".env.example"]], ids=" ".join)
def test_compose_reads_the_compose_file(options: list[str]) -> None:
    rendered = yaml.safe_load(run(TOOLS / "bin/docker-compose", *options, "config"))
    service = rendered["services"]["sa2va"]
    assert service["ports"][0]["published"] == "3303"
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert service["environment"]["MODEL_PATH"] == "ByteDance/Sa2VA-1B"
    assert ("sa2va-cpu" in rendered["services"]) == ("cpu" in options)
