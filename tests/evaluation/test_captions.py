"""`sa2va evaluate gcg` on a data set in GranD-f's layout, and its measures against a literal reading of the
definition."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig, BertModel, BertTokenizer

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.evaluation.captions import GranDf, ap50, paired_iou, recalled
from sa2va_bento.model.phrases import bert
from tests.evaluation.test_evaluate import rle_of, scene


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, as GLaMM lays them out."""
    root = tmp_path_factory.mktemp("grandf")
    annotations, pictures = root / "annotations" / "gcg_val_test", root / "images" / "grandf" / "val_test"
    annotations.mkdir(parents=True)
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, shift in enumerate((0, 10, 20)):
        image, truth = scene(shift)
        image.save(pictures / f"sa_{number}.jpg", quality=95)
        images.append({"id": f"sa_{number}", "width": image.width, "height": image.height})
        captions.append(
            {"id": number, "image_id": f"sa_{number}", "caption": "...", "labels": [f"a {name}" for name in truth]}
        )
        for mask in truth.values():
            area, box = int(mask.sum()), [0, 0, *image.size]
            masks.append(
                {
                    **{"id": len(masks) + 1, "image_id": f"sa_{number}", "category_id": 1, "iscrowd": 0},
                    **{"segmentation": rle_of(mask), "area": area, "bbox": box},
                }
            )
    kinds = {"mask": masks, "caption": captions}
    for kind, found in kinds.items():
        whole = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "object"}]}
        (annotations / f"val_gcg_coco_{kind}_gt.json").write_text(json.dumps(whole))
    return root


def test_the_embedded_model_captions_its_scenes(
    data: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "gcg", "--data", str(data), "--out", str(tmp_path), "--quiet", "--bert", str(tiny_bert)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    numbers = {line.split()[0]: float(line.split()[1]) for line in said.splitlines()[1:4]}
    assert numbers.keys() == {"AP50", "mIoU", "Recall"}
    assert numbers["AP50"] > 99
    assert numbers["mIoU"] > 90
    assert numbers["Recall"] == 100
    lines = (tmp_path / "gcg-val" / "results.jsonl").read_text().splitlines()
    assert [segment["phrase"] for segment in json.loads(lines[0])["segments"]] == ["a red circle", "a blue square"]
    (tmp_path / "gcg-val" / "results.jsonl").write_text("\n".join(lines[:2]) + "\n")
    assert main(asked) == 0  # goes on where it was stopped
    assert capsys.readouterr().out == said


def test_what_is_missed_and_what_is_misnamed(data: Path) -> None:
    """Of two objects in three pictures: one missed, one with a phrase that means another thing."""
    annotated = GranDf(data, "val")
    table = np.array([[0.9, 0.0], [0.0, 0.8]])
    same = {("a", "a"): 1.0, ("b", "c"): 0.2}
    assert recalled(table, ["a", "b"], ["a", "c"], lambda one, other: same[one, other]) == 1
    assert recalled(table[:, :1], ["a", "b"], ["a"], lambda one, other: 1.0) == 1
    assert recalled(table, [], [], lambda one, other: 1.0) == 0
    _, truth = scene()
    scenes = {f"sa_{number}": scene(10 * number)[1].values() for number in range(3)}
    perfect = {name: [{"mask": rle_of(mask)} for mask in masks] for name, masks in scenes.items()}
    assert ap50(annotated, perfect) == pytest.approx(1.0)
    missed = {**perfect, "sa_0": [{"mask": rle_of(truth["red circle"])}]}
    assert ap50(annotated, missed) == pytest.approx(84 / 101)  # precision 1 at 101 recalls up to 5 of 6
    assert ap50(annotated, {"sa_0": []}) == 0


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_paired_as_the_definition_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((int(rng.integers(0, 6)), int(rng.integers(0, 6)))) * (rng.random() < 0.9)
    pairs: list[float] = []
    rows, columns = set(range(table.shape[0])), set(range(table.shape[1]))
    for value, row, column in sorted(((v, *at) for at, v in np.ndenumerate(table)), reverse=True):
        if value > 0 and row in rows and column in columns:
            pairs.append(value)
            rows.remove(row)
            columns.remove(column)
    assert paired_iou(table) == pytest.approx(np.mean(pairs) if pairs else 0.0)


def test_phrases_are_compared_by_bert(tiny_bert: Path) -> None:
    alike = bert(str(tiny_bert))
    assert alike("a red circle", "a red circle") == pytest.approx(1.0)
    assert alike("a red circle", "dog") < 0.999
    with pytest.raises(CheckpointError, match="--bert"):
        bert(str(tiny_bert / "nothing"))


def test_a_folder_without_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "gcg", "--data", str(tmp_path)]) == 1
    assert "no val_gcg_coco_mask_gt.json" in capsys.readouterr().err
