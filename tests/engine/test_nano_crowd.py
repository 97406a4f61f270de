"""The embedded model's answers, text and masks: shuffled, with some cancelled and others pre-empted at random moments,
they are those of one request after the other."""

import base64
import io
import random

import pytest
from PIL import Image

from benchmarks.pictures import questions
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import Prediction, PredictRequest


def requests() -> list[PredictRequest]:
    """A mix over three pictures: short answers, masks, descriptions."""
    return [
        PredictRequest(question.prompt, Image.open(io.BytesIO(base64.b64decode(question.base64_image))).convert("RGB"))
        for question in questions(3, 20, seed=4)
    ]


@pytest.fixture(scope="module")
def alone() -> list[Prediction]:
    predictor = Predictor.load(Settings(slots=1, feature_cache_mb=0, prefix_cache_mb=0))
    answers = [predictor.predict(request) for request in requests()]
    predictor.close()
    assert sum(len(answer.segments) for answer in answers) > 10
    return answers


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_are_those_of_one_after_the_other(alone: list[Prediction], seed: int) -> None:
    rng, predictor = random.Random(seed), Predictor.load(Settings(slots=6, max_prefill=128, prefix_cache_mb=4 * seed))
    preempted = short_of_memory(predictor, rng)
    order = rng.sample(range(len(alone)), len(alone))
    futures = {number: predictor.submit(requests()[number]) for number in order}
    cancelled = {number for number in rng.sample(order, 4) if futures[number].cancel()}
    for number in set(futures) - cancelled:
        assert_same(futures[number].result(120), alone[number])
    predictor.close()
    assert len(preempted) > 5
    assert any(sequence.segs_read for sequence in preempted)  # after a mask's token, too


def short_of_memory(predictor: Predictor, rng: random.Random) -> list[Sequence]:
    """Now and then there is no room for another token, while others run."""
    runner, scheduler = predictor._runner, predictor._engine._engine.scheduler
    preempted: list[Sequence] = []
    reserve, preempt = runner.reserve, runner.preempt

    def scarce(sequence: Sequence, tokens: int) -> bool:
        is_short = len(scheduler.running) > 1 and sequence in scheduler.running and rng.random() < 0.05
        return not is_short and reserve(sequence, tokens)

    runner.reserve = scarce  # type: ignore[method-assign]
    runner.preempt = lambda one: (preempted.append(one), preempt(one))[1]  # type: ignore[method-assign]
    return preempted


def assert_same(answer: Prediction, expected: Prediction) -> None:
    assert (answer.result, answer.usage) == (expected.result, expected.usage)
    for segment, other in zip(answer.segments, expected.segments, strict=True):
        assert (segment.mask != other.mask).mean() < 1e-4
