"""Adapters by name: each answers as its merged checkpoint does, whoever else is in the batch."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sa2va_bento.cli.main import main
from sa2va_bento.errors import BadRequestError, CheckpointError
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.settings import NANO_PATH, Settings
from sa2va_bento.types import Prediction, PredictRequest
from tests.adapters import tuned
from tests.films import film, frames
from tests.parity.goldens import write_scripted_checkpoint
from tests.pictures import quarters

FAMILIES = ("qwen2_one", "internlm2_one", "qwen3_vl_one", "llava_one", "qwen3_vl_sam3_one")
ATTENTION = r"language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|wqkv|wo|w1|w2|w3)"
EVERYTHING = (
    rf"{ATTENTION}|model\.model\..*layers\.\d+\..*_proj|mlp1\.[13]|.*multi_modal_projector\.linear_\d"
    r"|text_hidden_fcs\.\d|.*sam_mask_decoder\.transformer.*\.(q_proj|out_proj)|.*sam_mask_decoder\.conv_s0"
)
ASKED = "Please segment the red disc."
QUESTIONS = (
    "Please segment the red circle.",
    "What is in the picture?",
    "How many objects are there?",
    "Please describe the image.",
    "Segment all the objects.",
)


def settings_of(base: Path, **more: Any) -> Settings:
    return Settings(model_path=str(base), max_new_tokens=24, **more)


def assert_same(one: Prediction, other: Prediction) -> None:
    assert one.result == other.result
    assert len(one.segments) == len(other.segments)
    for a, b in zip(one.segments, other.segments, strict=True):
        assert a.probability is not None
        assert b.probability is not None
        assert np.abs(a.probability.astype(int) - b.probability.astype(int)).max() <= 2
        assert a.score == pytest.approx(b.score, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_by_name_is_merged_in_every_family(family: str, tmp_path: Path) -> None:
    base, adapter = write_scripted_checkpoint(family, tmp_path / "base"), tmp_path / "adapter"
    tuned(base, adapter, size=0.3, target_modules=EVERYTHING)
    request = PredictRequest(ASKED, quarters(), soft_masks=True)
    with (
        Predictor.load(settings_of(base, adapters=f"a={adapter}")) as named,
        Predictor.load(settings_of(base, adapter=str(adapter))) as merged,
        Predictor.load(settings_of(base)) as alone,
    ):
        before, by_name, after = (
            named.predict(PredictRequest(ASKED, quarters(), soft_masks=True, adapter=name))
            for name in (None, "a", None)
        )
        expected, plain = merged.predict(request), alone.predict(request)
    assert_same(by_name, expected)
    assert_same(before, plain)
    assert_same(after, plain)
    assert by_name.segments
    assert (by_name.segments[0].mask != plain.segments[0].mask).any()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of the embedded model: of all of the language model, of every part, of its words."""
    root = tmp_path_factory.mktemp("adapters")
    made: dict[str, dict[str, Any]] = {
        "layers": {"target_modules": ATTENTION, "size": 0.25},
        "all": {"target_modules": EVERYTHING, "size": 0.2},
        "words": {"target_modules": r".*q_proj", "modules_to_save": ["text_hidden_fcs.2"], "size": 0.15},
    }
    for seed, (name, config) in enumerate(made.items()):
        below = "language_model." if name == "words" and not config.get("modules_to_save") else ""
        tuned(NANO_PATH, root / name, below, seed=seed, r=8, **config)
    tuned(NANO_PATH, root / "table", seed=9, r=4, target_modules=["embed_tokens", "v_proj"], size=0.2)
    return {name: root / name for name in (*made, "table")}


@pytest.fixture(scope="module")
def named(folders: dict[str, Path]) -> Iterator[Predictor]:
    with Predictor.load(NANO_PATH, max_new_tokens=24, adapters=folders) as predictor:
        yield predictor


def requests_for(names: Sequence[str | None]) -> list[PredictRequest]:
    return [
        PredictRequest(question, quarters(), soft_masks=True, adapter=name) for question in QUESTIONS for name in names
    ]


def test_mixed_in_one_batch_they_answer_as_one_by_one(named: Predictor, folders: dict[str, Path]) -> None:
    requests = requests_for((None, *folders))
    futures: list[Future[Prediction]] = [named.submit(request) for request in requests]
    together = [future.result() for future in futures]
    for request, answer in zip(requests, together, strict=True):
        assert_same(answer, named.predict(request))
    assert len({answer.result for answer in together}) > len(QUESTIONS)


@pytest.mark.parametrize("name", ["layers", "all", "words", "table"])
def test_each_answers_as_its_merged_checkpoint(name: str, named: Predictor, folders: dict[str, Path]) -> None:
    with Predictor.load(settings_of(NANO_PATH, adapter=str(folders[name]))) as merged:
        for request in requests_for((name,)):
            assert_same(
                named.predict(request),
                merged.predict(PredictRequest(request.prompt, request.image, soft_masks=True)),
            )


def test_a_preempted_reply_goes_on_with_its_own_words(folders: dict[str, Path]) -> None:
    """Its reply so far is embedded again, by the adapter's table."""
    given = settings_of(NANO_PATH, adapters=f"table={folders['table']}", slots=6, kv_tokens=400, context=200)
    requests = [PredictRequest(f"Count to {n}.", None, adapter="table", max_new_tokens=60) for n in range(8)]
    with Predictor.load(given) as crowded:
        futures = [crowded.submit(request) for request in requests]
        together = [future.result().result for future in futures]
        assert together == [crowded.predict(request).result for request in requests]


def test_a_clip_is_followed_by_its_adapter(folders: dict[str, Path], named: Predictor, tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", frames(6))
    prompt = "Please segment the red circle."
    ours = list(named.follow(path, prompt, adapter="all", soft_masks=True))
    with Predictor.load(settings_of(NANO_PATH, adapter=str(folders["all"]))) as merged:
        expected = list(merged.follow(path, prompt, soft_masks=True))
    assert ours[0] == expected[0]
    assert len(ours) == len(expected)
    for a, b in zip(ours[1:], expected[1:], strict=True):
        for one, other in zip(a.segments, b.segments, strict=True):  # type: ignore[union-attr]
            assert np.abs(np.asarray(one.probability, int) - np.asarray(other.probability, int)).max() <= 3


def test_what_is_not_served_is_refused(named: Predictor) -> None:
    with pytest.raises(BadRequestError, match=r"adapter: not served here \(served: layers, all, words, table\)"):
        named.predict(PredictRequest("Hello", None, adapter="other"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True, "target_modules": r"language_model.*q_proj"}, "q_proj.weight"),
        ({"bias": "all", "target_modules": r"language_model.*v_proj"}, "_proj.bias"),
    ],
    ids=["dora", "bias"],
)
def test_what_can_only_be_merged_is_named(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    tuned(NANO_PATH, tmp_path / "a", **config)
    with pytest.raises(CheckpointError, match=f"adapter a: .*{said}.*SA2VA_ADAPTER merges what is more"):
        Predictor.load(settings_of(NANO_PATH, adapters=f"a={tmp_path / 'a'}"))


def test_names_are_checked(folders: dict[str, Path], tmp_path: Path) -> None:
    for text, said in (
        ("cat", "is not NAME=FOLDER"),
        ("a b=x", "is not NAME=FOLDER"),
        ("a=", "is not NAME=FOLDER"),
        ("a=x,A=y", "is named twice"),
    ):
        with pytest.raises(ValueError, match=said):
            Settings(adapters=text)
    with pytest.raises(CheckpointError, match="sa2va is the model's own name"):
        Predictor.load(Settings(adapters=f"sa2va={folders['layers']}"))
    with pytest.raises(CheckpointError, match="SA2VA_ADAPTERS"):
        Predictor.load(Settings(adapters=f"a={tmp_path / 'nothing'}"))


def test_their_memory_is_estimated_before_they_are_there(named: Predictor, folders: dict[str, Path]) -> None:
    estimated = 4 * sum(Adapter.read(folder).numbers for folder in folders.values())
    assert 0.5 * estimated < named._runner.adapters.bytes <= estimated


def test_check_knows_them(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SA2VA_ADAPTERS", f"a={folders['all']}, b={folders['table']}")
    assert main(["check", str(NANO_PATH)]) == 0
    said = capsys.readouterr().out
    assert "adapter   a: LoRA of rank 8, changes" in said
    assert re.search(r"adapter   b: LoRA of rank 4, changes \d+ tensors, beside the model", said)


def test_without_an_adapter_nothing_is_added(named: Predictor) -> None:
    """The base's steps are those of a model without adapters."""
    assert named._runner.model.decoder is not None
    runner = named._runner
    assert runner.adapters.bytes > 0
    weights = [parameter.data_ptr() for parameter in runner.model.parameters()]
    named.predict(PredictRequest("Please segment the red circle.", quarters(), adapter="all"))
    assert [parameter.data_ptr() for parameter in runner.model.parameters()] == weights
