"""`python -m sa2va_bento`, and the estimate of memory behind it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.activations import measure
from benchmarks.gpu import config_of
from sa2va_bento.cli.main import main
from sa2va_bento.engine.ragged import GATHERED, MASKED
from sa2va_bento.model.internvl.language_models import LANGUAGE_MODELS
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.memory import (
    GIB,
    MARGIN,
    Workload,
    activations,
    estimate,
    kv_elements,
    measures_of,
    parameter_counts,
    unfilled,
    weight_bytes,
)
from sa2va_bento.model.loading.published import PUBLISHED
from sa2va_bento.model.qwen_vl.config import KINDS
from sa2va_bento.settings import NANO_PATH
from tests.parity.goldens import write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen2", tmp_path_factory.mktemp("checkpoint"))


def test_sa2va_1b_is_as_large_as_it_is_known_to_be() -> None:
    config = config_of("1b")
    counts = parameter_counts(config)
    assert sum(counts.values()) / 1e9 == pytest.approx(1.16, abs=0.01)
    assert counts["grounding_encoder"] / 1e6 == pytest.approx(224.4, abs=0.1)
    assert 2 * kv_elements(config) == 12 * 1024  # bytes a token in bfloat16


def test_memory_grows_with_what_is_held() -> None:
    config = config_of("1b")
    measures, weights = measures_of(config), weight_bytes(unfilled(config), 2, "none")
    small = estimate(measures, weights, 2, Workload(1, 4096, 512, 13, 1, 0))
    large = estimate(measures, weights, 2, Workload(32, 8192, 512, 13, 1, 512 * 2**20))
    assert small.kv_cache == 48 * 2**20
    assert large.kv_cache == 64 * small.kv_cache
    assert large.weights == small.weights == pytest.approx(2.2 * GIB, rel=0.03)
    assert large.features == 512 * 2**20
    assert small.total < large.total


@pytest.mark.parametrize(
    "load",
    [
        Workload(4, 512, 256, 3, 2, 0, max_masks=8, gathered=GATHERED, masked=MASKED),
        Workload(1, 2048, 1024, 1, 1, 0, max_masks=1, gathered=GATHERED, masked=MASKED),
    ],
)
def test_the_estimate_of_activations_bounds_what_is_alive(load: Workload) -> None:
    model = load_model(NANO_PATH, Placement(torch.device("cpu"), torch.float32))
    assert isinstance(model, InternVLSa2VA)
    expected = activations(measures_of(model.config), load)
    for stage, numbers in measure(model.config, model, load).items():
        assert numbers <= MARGIN * expected[stage], (stage, numbers, expected)
        assert numbers >= 0.3 * expected[stage], stage


def test_check_says_what_a_checkpoint_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "internvl-qwen2, template qwen_chat" in said
    assert "503 in 1 file(s), every one has its place" in said
    assert "grounding_encoder" in said
    assert "geometry  vision: 3 layers of 32\n" in said
    assert re.search(r"^fits      yes: 16 requests at once, \d+ tokens together, \d+ each at most$", said, re.M)
    assert "licence   not named in its README.md: see its page\n" in said


def test_check_says_whether_this_machine_holds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sa2va_bento.model.loading.memory.free_memory", lambda device: 10 * 2**20)
    assert main(["check", str(folder)]) == 0
    assert "fits      no: one request alone needs " in capsys.readouterr().out


def test_check_says_what_it_gets_on_common_cards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    lines = re.findall(r"^ *(\d+) GB   (\d+) requests at once, (\d+) tokens together", capsys.readouterr().out, re.M)
    assert [int(card) for card, *_ in lines] == [12, 16, 24, 40, 48, 80, 141]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("license: mit", "mit"),
        ("license: other\nlicense_name: internlm", "internlm"),
        ("tags: [video]", "not named in its README.md: see its page"),
        ("license: [", "not named in its README.md: see its page"),
    ],
)
def test_check_names_the_licence_of_the_model_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, named: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text(f"---\n{header}\n---\n# A model\n")
    assert main(["check", str(copy)]) == 0
    assert f"licence   {named}\n" in capsys.readouterr().out


def test_check_refuses_a_tokenizer_of_another_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokens = tokenizer["added_tokens"]
    more = [{**tokens[0], "content": f"<extra {number}>"} for number in range(300)]
    tokenizer["added_tokens"] = [{**token, "id": 256 + place} for place, token in enumerate((*more, *tokens))]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main(["check", str(copy)]) == 1
    assert re.fullmatch(
        r"sa2va: the tokenizer gives \[SEG\] the id \d{3}, the language model has 288 tokens\n",
        capsys.readouterr().err,
    )
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "MysteryTokenizer"}')
    assert main(["check", str(copy)]) == 1
    assert "MysteryTokenizer is not supported" in capsys.readouterr().err


def test_check_refuses_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "ps_version": "v1"}))
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "sa2va: ps_version='v1' is not supported (supported: 'v2')\n"
    assert main(["download", "nowhere"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_download_that_is_stopped_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("sa2va_bento.cli.download.resolve", stop)
    assert main(["download", "owner/name"]) == 130
    assert capsys.readouterr().err.strip() == "sa2va: stopped; the same command goes on from here"


def test_models_lists_the_zoo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["ByteDance/Sa2VA-1B", "InternViT-300M", "Qwen2.5-0.5B", "1.16", "2.2", "12"]
    rows = {line.split()[0]: line.split()[-7:] for line in lines[1 : 1 + len(PUBLISHED)]}
    assert list(rows) == [known.model for known in PUBLISHED]
    assert all("-" not in gets for gets in rows["ByteDance/Sa2VA-1B"])
    assert rows["ByteDance/Sa2VA-8B"][:2] == ["-8", "-8"]  # 15.5 GiB of weights: a card of 24 GB serves it
    assert re.fullmatch(r"\d+/\d+", rows["ByteDance/Sa2VA-8B"][2])
    monkeypatch.setenv("SA2VA_SLOTS", "3")
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1].endswith("/3")


def test_the_layouts_that_are_listed_are_those_that_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert f"Sa2VAChatModel: {', '.join(LANGUAGE_MODELS)}" in printed
    assert f"Sa2VAChatModelQwen: {', '.join(KINDS)}" in printed
