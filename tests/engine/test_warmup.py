"""Before the first request: every stage once, and nothing of it left in the way."""

from pathlib import Path

import pytest

from sa2va_bento.engine.warmup import warm_up
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.fake_runner import BAD, CountingRunner, sequence
from tests.parity.goldens import write_checkpoint


def test_every_stage_runs_once_and_a_long_prompt_in_pieces() -> None:
    runner = CountingRunner()
    warm_up(runner, sequence(9, *[1] * 99, max_new_tokens=2), max_prefill=40)
    stages = [stage for stage, _ in runner.batches]
    assert stages == ["encode", "prefill", "prefill", "prefill", "decode", "ground"]
    assert not runner.held


def test_what_fails_is_heard_of_and_holds_nothing() -> None:
    runner = CountingRunner()
    with pytest.raises(RuntimeError, match="boom"):
        warm_up(runner, sequence(BAD), max_prefill=40)
    assert not runner.held


@pytest.mark.parametrize(("context", "is_seen"), [(2048, True), (128, False)])
def test_a_picture_is_read_and_segmented_where_there_is_room(tmp_path: Path, context: int, is_seen: bool) -> None:
    predictor = Predictor.load(Settings(model_path=str(write_checkpoint("qwen2", tmp_path)), context=context))
    runner = predictor._runner
    assert len(runner.sam_features) == 0
    predictor.warm_up()
    predictor.close()
    assert (len(runner.tile_features), len(runner.sam_features)) == (is_seen, is_seen)
    assert not runner.language.rows
    assert not runner._states
