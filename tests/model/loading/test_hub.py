"""Fetching checkpoints from a hub on this machine, and every way in which that goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import NANO_PATH, Settings
from tests.fake_hub import COMMIT, FakeHub, serve, use

NOWHERE = "http://127.0.0.1:9"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with serve(NANO_PATH) as hub:
        use(monkeypatch, hub.url, tmp_path)
        yield hub


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failed command says."""
    assert main(list(arguments)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sa2va:")]
    assert len(said) == 1
    return said[0]


def test_download_fills_the_cache_at_a_commit(hub: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", hub.model]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.name == COMMIT
    assert folder.is_relative_to(tmp_path)
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not (folder / "README.md").exists()  # what is needed, nothing else


def test_a_broken_download_goes_on_where_it_stopped(hub: FakeHub) -> None:
    hub.cut = WEIGHTS
    folder = resolve(hub.model, COMMIT)
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    starts = [int(wanted.removeprefix("bytes=").split("-")[0]) for name, wanted in hub.ranges if name == WEIGHTS]
    assert any(start > 0 for start in starts)


def test_check_reads_headers_alone(hub: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", hub.model]) == 0
    assert "the weights still on the Hub" in capsys.readouterr().out
    assert not list(tmp_path.rglob(WEIGHTS))
    assert all(wanted for name, wanted in hub.ranges if name == WEIGHTS)


def test_a_filled_cache_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = resolve(hub.model)
    use(monkeypatch, NOWHERE, tmp_path)
    assert resolve(hub.model) == folder
    assert main(["check", hub.model]) == 0


@pytest.mark.parametrize("command", ["check", "download"])
@pytest.mark.parametrize(
    ("model", "fragment"),
    [
        ("owner/unknown", "does not exist on the Hub, or it is private (set HF_TOKEN)"),
        ("gated/name", "is gated: accept its terms on its page (https://huggingface.co/gated/name) and set HF_TOKEN"),
        ("denied/name", "the Hub refuses: HTTP 403; HF_TOKEN may not read it"),
        ("expired/name", "could not be fetched from the Hub: HTTP 401; HF_TOKEN is missing or wrong"),
        ("owner/na me", "could not be fetched from the Hub"),
    ],
)
def test_models_that_can_not_be_had(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], command: str, model: str, fragment: str
) -> None:
    line = error_of(capsys, command, model)
    assert model in line
    assert fragment in line


def test_a_revision_that_does_not_exist(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SA2VA_MODEL_REVISION", "v9")
    assert "has no revision 'v9' on the Hub (SA2VA_MODEL_REVISION)" in error_of(capsys, "download", hub.model)


def test_the_command_line_may_name_the_revision(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", hub.model, "--revision", COMMIT]) == 0
    assert Path(capsys.readouterr().out.strip()).name == COMMIT
    for command in ("check", "download"):
        assert "has no revision 'v9' on the Hub" in error_of(capsys, command, hub.model, "--revision", "v9")


def test_check_names_the_licence_on_the_hub(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.files["README.md"] = b"---\nlicense: apache-2.0\n---\n"
    assert main(["check", hub.model]) == 0
    assert "licence   apache-2.0\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "download"])
def test_no_network_and_no_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    assert "is not in the local cache, and the Hub can't be reached" in error_of(capsys, command, "owner/name")


def test_offline_and_no_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    use(monkeypatch, NOWHERE, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in error_of(capsys, "download", "owner/name")


def test_a_model_that_does_not_fit_is_not_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sa2va_bento.model.loading.memory.free_memory", lambda device: 10 * 2**20)
    with pytest.raises(CheckpointError, match=r"one request alone needs .* GiB"):
        Predictor.load(Settings(model_path=hub.model))
    assert not list(tmp_path.rglob(WEIGHTS))
    assert WEIGHTS not in hub.fetched


def test_a_half_filled_cache_without_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = resolve(hub.model)
    (folder / WEIGHTS).unlink()
    use(monkeypatch, NOWHERE, tmp_path)
    with pytest.raises(CheckpointError, match=r"in the local cache in part, .*model\.safetensors"):
        Predictor.load(Settings(model_path=hub.model))


def test_a_half_filled_cache_is_completed_by_the_network(hub: FakeHub) -> None:
    folder = resolve(hub.model)
    (folder / WEIGHTS).unlink()
    assert (resolve(hub.model) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_cache_made_by_hand_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As older versions of the Hub's library leave one: no list of files."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    for name in ("config.json", "tokenizer_config.json"):
        (snapshot / name).write_bytes((NANO_PATH / name).read_bytes())
    use(monkeypatch, NOWHERE, tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks its safetensors weights .*download owner/name completes"):
        resolve("owner/name")


def test_a_repository_of_pickles(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop(WEIGHTS)
    assert "lacks its safetensors weights" in error_of(capsys, "download", hub.model)
    assert "pickle is never loaded" in error_of(capsys, "check", hub.model)


@pytest.mark.parametrize("where", ["/nowhere/at/all", "./nowhere", "nowhere"])
def test_a_path_that_is_no_folder_is_refused(where: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a Hub id"):
        resolve(where)
