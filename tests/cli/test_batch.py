"""`sa2va batch`: sources of every kind, broken pictures, and runs that are killed."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pytest
from PIL import Image
from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
from pycocotools import mask as coco

from sa2va_bento.cli.batch.rows import rows_of
from sa2va_bento.cli.main import main
from sa2va_bento.errors import BadRequestError
from tests import films
from tests.serving import ROOT

RED = "Please segment the red circle."


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, some in folders, and five that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for number, image in enumerate(films.frames(20, (160, 120))):
        image.save(folder / ("more" if number % 3 == 0 else "") / f"{number:02}.png")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "01.png").read_bytes()[:80])
    (folder / "folder.jpg").mkdir()
    (folder / "readme.txt").write_text("not asked about")
    return folder


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_folder_with_broken_pictures(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["batch", str(pictures), "--prompt", RED, "--out", str(tmp_path), "--quiet"]
    assert main([*asked, "--format", "coco", "--format", "overlay"]) == 0
    assert "24 rows, 4 failed" in capsys.readouterr().err
    lines = lines_of(tmp_path)
    failed = {line["image"]: line["error"] for line in lines if line["status"] == "failed"}
    assert failed.keys() == {"empty.png", "text.jpg", "cut.png", "folder.jpg"}
    assert "not a picture" in failed["text.jpg"]
    answered = [line for line in lines if line["status"] == "ok"]
    assert len(answered) == 20
    assert all(line["segments"][0]["mask"]["counts"] for line in answered)
    assert [line["image"] for line in lines] == sorted(line["image"] for line in lines)
    document = json.loads((tmp_path / "coco.json").read_text())
    assert (len(document["images"]), len(document["annotations"])) == (20, 20)
    assert (tmp_path / "files" / "more" / "00-overlay.png").is_file()
    before = (tmp_path / "results.jsonl").read_bytes()
    assert main(asked) == 0  # nothing is left to do, and nothing is done twice
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert main([*asked[:-3], "--prompt", "other", "--out", str(tmp_path)]) == 1
    assert "choose another folder" in capsys.readouterr().err


def test_files_of_rows(pictures: Path, tmp_path: Path) -> None:
    rows = [{"image": "01.png", "prompt": "a", "id": 7}, {"image": "02.png"}]
    (pictures / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (pictures / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "prompt"])
        writer.writeheader()
        writer.writerows([{"path": "01.png", "prompt": "a"}, {"path": "02.png", "prompt": ""}])
    (pictures / "coco.json").write_text(json.dumps({"images": [{"id": 3, "file_name": "01.png"}]}))
    found = list(rows_of(str(pictures / "rows.jsonl"), ["x", "y"]))
    assert [(row.image, row.prompt, row.id) for row in found] == [
        *(("01.png", "a", 7), ("02.png", "x", None), ("02.png", "y", None))
    ]
    assert found[0].path == pictures / "01.png"
    assert [row.prompt for row in rows_of(str(pictures / "rows.csv"), ["x"])] == ["a", "x"]
    assert [row.id for row in rows_of(str(pictures / "coco.json"), ["x"])] == [3]
    assert len(list(rows_of(str(pictures / "0*.png"), ["x"]))) == 6
    for name in ("rows.jsonl", "rows.csv", "coco.json"):
        (pictures / name).unlink()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.jsonl", "{\n", "not a JSON object"),
        ("a.jsonl", '{"prompt": "a"}\n', "names no picture"),
        ("a.jsonl", '{"image": "b.png"}\n', "no prompt"),
        ("a.jsonl", "", "no picture there"),
        ("a.json", "{}", "not a COCO document"),
        ("a.toml", "x = 1", "neither a picture"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadRequestError, match=words):
        list(rows_of(str(tmp_path / name), []))
    with pytest.raises(BadRequestError, match="no such file or folder"):
        list(rows_of(str(tmp_path / "nowhere"), ["a"]))


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Nothing twice, nothing missing, whatever the moment; a half line is written again."""
    folder, out, whole = tmp_path / "pictures", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    for number in range(60):
        films.frames(8, (96, 72))[number % 8].save(folder / f"{number:03}.png")
    command = [sys.executable, "-m", "sa2va_bento", "batch", str(folder), "--prompt", RED, "--quiet", "--out"]
    process = subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(_text(out).splitlines()) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (out / "results.jsonl").open("ab") as file:
        file.write(b'{"image": "half of a')
    assert len(_text(out).splitlines()) < 60
    for folder_out in (out, whole):
        assert main([*command[3:], str(folder_out)]) == 0
    lines, expected = lines_of(out), lines_of(whole)
    assert [line["image"] for line in lines] == [f"{number:03}.png" for number in range(60)]
    assert [line["result"] for line in lines] == [line["result"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert abs(line["segments"][0]["area"] - other["segments"][0]["area"]) <= 1  # rounding at the boundary


def _text(out: Path) -> str:
    path = out / "results.jsonl"
    return path.read_text() if path.exists() else ""


def test_a_picture_alone(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    assert [row.image for row in rows_of(str(tmp_path / "a.png"), ["x"])] == ["a.png"]


def test_results_as_parquet(pictures: Path, tmp_path: Path) -> None:
    """Read back by pyarrow: a row a row, masks that pycocotools decodes."""
    rows = [{"image": "01.png", "id": 7}, {"image": "text.jpg", "id": 8}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({**row, "image": str(pictures / str(row["image"]))}) + "\n" for row in rows))
    out = tmp_path / "out"
    assert main(["batch", str(source), "--prompt", RED, "--out", str(out), "--quiet", "--format", "parquet"]) == 0
    found = parquet.read_table(out / "results.parquet").to_pylist()
    assert [(row["id"], row["status"]) for row in found] == [("7", "ok"), ("8", "failed")]
    assert "not a picture" in found[1]["error"]
    (segment,) = found[0]["segments"]
    assert coco.decode(segment["mask"]).sum() == segment["area"] > 0
    assert found[0]["image_size"] == {"width": 160, "height": 120}
    again = list(rows_of(str(out / "results.parquet"), [RED]))
    assert [(row.id, row.prompt) for row in again] == [("7", RED), ("8", RED)]


def test_pictures_in_a_store(pictures: Path, tmp_path: Path) -> None:
    """fsspec's own store in memory stands for the others."""
    store = fsspec.filesystem("memory")
    names = ("01.png", "more/00.png", "text.jpg", "readme.txt")
    for name in names:
        store.pipe(f"/shelf/{name}", (pictures / name).read_bytes())
    store.pipe("/shelf/rows.jsonl", b'{"image": "more/00.png", "id": 5}\n')
    out = tmp_path / "out"
    assert main(["batch", "memory://shelf", "--prompt", RED, "--out", str(out), "--quiet"]) == 0
    lines = lines_of(out)
    assert [(line["image"], line["status"]) for line in lines] == [
        *(("01.png", "ok"), ("more/00.png", "ok"), ("text.jpg", "failed"))
    ]
    (row,) = rows_of("memory://shelf/rows.jsonl", [RED])
    assert (row.image, row.id, row.path.read_bytes()) == ("more/00.png", 5, (pictures / "more/00.png").read_bytes())


@pytest.mark.parametrize("source", ["https://example.com/x.jpg", "nowhere://x", "memory://no-such-shelf"])
def test_what_is_no_store_is_said(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", source, "--prompt", RED, "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert source in capsys.readouterr().err
