"""The deployment file for BentoCloud, read by BentoML's own command: what would be sent, and that nothing is lost."""

import warnings
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import yaml
from bentoml._internal.cloud import deployment as cloud
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils.cattr import bentoml_cattr
from bentoml_cli.cli import create_bentoml_cli
from click.testing import CliRunner

from sa2va_bento.settings import VARIABLES, Settings
from tests.serving import ROOT

FILE = ROOT / "deploy/bentocloud/sa2va.yaml"


@pytest.fixture(scope="module")
def sent() -> dict[str, Any]:
    """What `bentoml deploy` sends to BentoCloud."""
    client = mock.MagicMock()
    fake = SimpleNamespace(client=client, deployment=cloud.DeploymentAPI(client))
    bento = SimpleNamespace(tag="sa2va:0.1.0", entry_service="sa2va", envs=[])
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # of BentoML's command about its own options
        mock.patch("logging.config.dictConfig"),  # with which BentoML's command would silence the package's loggers
        mock.patch.object(cloud, "ensure_bento", return_value=bento),
        mock.patch.object(cloud.DeploymentAPI, "_generate_deployment_info_", return_value=mock.MagicMock()),
    ):
        BentoMLContainer.rest_api_client.set(client)
        BentoMLContainer.bentocloud_client.set(cast(Any, fake))
        try:
            done = CliRunner().invoke(create_bentoml_cli(), ["deploy", "-f", str(FILE), "--no-wait"])
        finally:
            BentoMLContainer.bentocloud_client.reset()
    assert done.exit_code == 0, done.output
    return bentoml_cattr.unstructure(client.v2.create_deployment.call_args.kwargs["create_schema"])


def leaves(tree: Any, place: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        return {key: leaf for name, part in tree.items() for key, leaf in leaves(part, f"{place}.{name}").items()}
    if isinstance(tree, list):
        return {key: leaf for n, part in enumerate(tree) for key, leaf in leaves(part, f"{place}[{n}]").items()}
    return {place: tree}


def test_bentoml_reads_every_line_of_it(sent: dict[str, Any]) -> None:
    written = yaml.safe_load(FILE.read_text())
    assert leaves({**written, "bento": "sa2va:0.1.0"}).items() <= leaves(sent).items()


def test_it_scales_from_zero_on_what_a_replica_works_on_at_once(sent: dict[str, Any]) -> None:
    service = sent["services"]["sa2va"]
    assert service["scaling"]["min_replicas"] == 0
    environment = {env["name"]: env["value"] for env in sent["envs"]}
    assert str(service["config_overrides"]["traffic"]["concurrency"]) == environment["SA2VA_SLOTS"]
    assert service["config_overrides"]["traffic"]["timeout"] > Settings().timeout_s


def test_it_is_closed_and_holds_no_secret(sent: dict[str, Any]) -> None:
    assert sent["access_authorization"] is True
    assert sent["secrets"] == ["sa2va-secrets"]
    assert {env["name"] for env in sent["envs"]} <= {*VARIABLES, "MODEL_PATH"} - {"SA2VA_API_KEYS"}


def test_the_sdk_reads_it_too() -> None:
    parameters = cloud.DeploymentConfigParameters(config_file=str(FILE), service_name="sa2va")
    with mock.patch.object(cloud, "ensure_bento", return_value=SimpleNamespace(tag="sa2va:1", envs=[])):
        parameters.verify(_client=mock.MagicMock())
    assert parameters.get_name() == "sa2va"
