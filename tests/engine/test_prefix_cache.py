"""A picture is read once: later questions about it begin where its tokens end, with the same answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2Config

from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import Prediction, PredictRequest, Turn
from tests.parity.goldens import module, write_checkpoint


def picture(number: int) -> Image.Image:
    return module("scripted/inputs").image(64 + 32 * number, 80, number)


def region(image: Image.Image) -> np.ndarray:
    mask = np.zeros((image.height, image.width), bool)
    mask[10:40, 10:50] = True
    return mask


def questions() -> list[PredictRequest]:
    """Two pictures, each asked about in several ways; tiles, regions and history change what may be shared."""
    made = []
    for image in (picture(0), picture(1)):
        first = PredictRequest("what is there", image, max_tiles=1, max_new_tokens=12)
        made += [
            first,
            replace(first, prompt="how many discs are near the blue bar, and how many are red"),
            replace(first, prompt="what is region1", regions=(region(image),)),
            replace(first, prompt="and now", history=(Turn("user", "hello"), Turn("assistant", "hi there"))),
            replace(first, prompt="and with more tiles", max_tiles=4),
            replace(first, prompt="and again with more tiles", max_tiles=4),
        ]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen2", tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def unshared(folder: Path) -> list[Prediction]:
    predictor = Predictor.load(Settings(model_path=str(folder), slots=1, prefix_cache_mb=0, context=4096))
    answers = [predictor.predict(question) for question in questions()]
    assert len(predictor._runner.prefix_cache) == 0
    predictor.close()
    return answers


@pytest.fixture
def sharing(folder: Path) -> Iterator[Predictor]:
    predictor = Predictor.load(Settings(model_path=str(folder), slots=5, max_prefill=600, context=4096))
    yield predictor
    predictor.close()


def test_answers_on_top_of_a_shared_beginning_are_the_same(unshared: list[Prediction], sharing: Predictor) -> None:
    for question, expected in zip(questions(), unshared, strict=True):
        answer = sharing.predict(question)
        assert (answer.result, answer.usage) == (expected.result, expected.usage)
    pairs = zip(questions(), unshared, strict=True)
    beginnings = {(answer.image_size, answer.usage.image_tokens) for question, answer in pairs if not question.regions}
    prefixes = sharing._runner.prefix_cache
    assert (len(prefixes), prefixes.hits) == (len(beginnings), len(questions()) - len(beginnings))


def test_shared_and_unshared_prompts_are_read_together(unshared: list[Prediction], sharing: Predictor) -> None:
    asked = questions()
    sharing.predict(asked[0])
    futures = [sharing.submit(question) for question in asked]
    for future, expected in zip(futures, unshared, strict=True):
        assert future.result(60).result == expected.result
    assert not sharing._runner.language.rows


def test_a_second_question_encodes_nothing_and_reads_its_text_only(sharing: Predictor) -> None:
    read: list[tuple[str, int]] = []
    runner = sharing._runner
    encode, prefill = runner.encode, runner.prefill
    runner.encode = lambda sequences: (read.append(("tiles", len(sequences))), encode(sequences))[1]
    runner.prefill = lambda sequences, most: (
        read.extend(("tokens", sequence.unread) for sequence in sequences),
        prefill(sequences, most),
    )[1]
    first = sharing.predict(questions()[0])
    assert read == [("tiles", 1), ("tokens", first.usage.prompt_tokens)]
    read.clear()
    second = sharing.predict(questions()[1])
    ((what, tokens),) = read
    assert what == "tokens"
    assert tokens < second.usage.prompt_tokens - second.usage.image_tokens


def test_what_is_kept_is_bounded(folder: Path) -> None:
    predictor = Predictor.load(Settings(model_path=str(folder), prefix_cache_mb=0.3, context=2048))
    for number in range(4):
        predictor.predict(PredictRequest("what is there", picture(number), max_tiles=1, max_new_tokens=1))
    prefixes = predictor._runner.prefix_cache
    assert 1 <= len(prefixes) < 4
    assert prefixes.bytes <= prefixes.max_bytes
    predictor.close()


def test_a_rows_beginning_goes_out_and_comes_back() -> None:
    config = Qwen2Config(hidden_size=8, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2)
    cache, row, other = KVCache(config, 30, torch.float32, torch.device("cpu")), Row(20, 10), Row(0, 20)
    buffers = (*cache.keys, *cache.values)
    for number, buffer in enumerate(buffers):
        cache.rows(buffer, row)[:] = number + 1
    kept = cache.copy_out(row, 4)
    cache.rows(cache.keys[0], row)[:] = 0
    cache.copy_in(other, kept)
    assert [cache.rows(buffer, other)[0, 0, :, 0].tolist() for buffer in buffers] == [
        [value] * 4 + [0] * 16 for value in (1, 2, 3, 4)
    ]
