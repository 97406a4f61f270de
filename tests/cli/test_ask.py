"""`sa2va ask` and `sa2va serve` as they are typed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.cli import serve as serving
from sa2va_bento.cli.main import main
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.settings import Settings
from tests import films
from tests.fakes import FakePredictor
from tests.serving import ROOT, server_of

SHAPES = ROOT / "docs" / "shapes.png"
RED = "Please segment the red circle."


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    """The embedded model, loaded once for all commands of the module."""
    predictor = Predictor.load(Settings())
    patch = pytest.MonkeyPatch()
    patch.setattr(Predictor, "load", lambda *_, **__: predictor)
    patch.setattr(Predictor, "close", lambda self: None)
    yield
    patch.undo()
    predictor.close()


def test_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(SHAPES), RED]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Sure."
    assert said[1].startswith("  0  box ")
    assert "\x1b" not in "".join(said)  # no colours where nobody sees them


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formats = ("json", "masks", "overlay", "instances", "coco", "yolo", "labelme", "label_studio", "cvat")
    asked = ["ask", str(SHAPES), RED, "--out", str(tmp_path / "new")]
    assert main([*asked, *(word for name in formats for word in ("--format", name))]) == 0
    files = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert files == {
        *("shapes.json", "shapes-0.png", "shapes-overlay.png", "shapes-instances.png", "shapes.labelme.json"),
        *("coco.json", "data.yaml", "labels/shapes.txt", "label_studio.json", "cvat.xml"),
    }
    assert capsys.readouterr().err.count("wrote ") == len(files)
    assert json.loads((tmp_path / "new" / "shapes.json").read_text())["segments"][0]["area"] > 1000


def test_standard_input_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with SHAPES.open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert main(["ask", "-", RED, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["segments"][0]["mask"]["format"] == "rle"


def test_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(6, (160, 120)))
    assert main(["ask", str(film), RED, "--out", str(tmp_path / "out")]) == 0
    assert "frames 0 to 5, 6 in all" in capsys.readouterr().out
    lines = (tmp_path / "out" / "frames.ndjson").read_text().splitlines()
    assert [json.loads(line)["frame_index"] for line in lines] == list(range(6))
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 1000


def test_a_running_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(4))
    with server_of(FakePredictor(), SA2VA_API_KEYS="secret") as url:
        asked = ["--url", url, "--key", "secret"]
        assert main(["ask", str(SHAPES), "Segment it.", *asked, "--out", str(tmp_path / "out")]) == 0
        assert main(["ask", str(film), "Segment it.", *asked, "--out", str(tmp_path / "film")]) == 0
        assert main(["ask", str(SHAPES), "Segment it.", "--url", url]) == 1
    said = capsys.readouterr()
    assert "frames 0 to 3, 4 in all" in said.out
    assert "the service answered 401: a key is needed" in said.err
    mask = np.asarray(Image.open(tmp_path / "out" / "shapes-0.png")) > 0
    assert mask[:, : mask.shape[1] // 2].all()
    assert len((tmp_path / "film" / "frames.ndjson").read_text().splitlines()) == 4
    assert main(["ask", str(SHAPES), "Segment it.", "--url", "http://127.0.0.1:9"]) == 1
    assert "no answer from http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (["ask", "nowhere.png", "a"], 1, "nowhere.png: No such file"),
        (["ask", str(ROOT / "README.md"), "a"], 1, "not a picture"),
        (["ask", str(SHAPES), " "], 1, "prompt is empty"),
        (["ask", str(SHAPES)], 2, "PROMPT"),
        (["ask", str(SHAPES), "a", "--format", "tar"], 2, "tar"),
        (["ask", str(SHAPES), "a", "--threshold", "2"], 2, "threshold"),
        (["answer"], 2, "answer"),
    ],
)
def test_mistakes_are_one_line(asked: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked) == status
    assert words in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert 'sa2va ask photo.jpg "Please segment the dog."' in capsys.readouterr().out
    assert main(["serve", "--help"]) == 0
    assert "--max-new-tokens" in capsys.readouterr().out


def test_serve_becomes_the_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    became: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(serving.os, "execve", lambda _, command, variables: became.append((command, variables)))
    monkeypatch.chdir(ROOT)
    assert main(["serve", "--port", "4000", "--max-tiles", "4", "--model-path", "nano"]) == 0
    ((command, variables),) = became
    assert command[1:] == ["-m", "bentoml", "serve", "service:Sa2VA", "--port", "4000", "--host", "127.0.0.1"]
    assert (variables["SA2VA_MAX_TILES"], variables["MODEL_PATH"]) == ("4", "nano")
    assert main(["serve", "--max-tiles", "none"]) == 1
    assert "setting SA2VA_MAX_TILES" in capsys.readouterr().err
