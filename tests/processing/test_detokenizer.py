"""An answer while it is made: what is told must be what is answered in the end."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.predictor import Predictor
from sa2va_bento.processing.detokenizer import Detokenizer
from sa2va_bento.processing.reply import parse_reply
from sa2va_bento.processing.workers import SerialQueue, WorkerPool
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, SegmentReady, StreamEvent, TextDelta
from tests.parity.goldens import GOLDEN, module, write_scripted_checkpoint

REPLY = "<p> red disc </p> [SEG] and <p> blue bar </p> [SEG]."


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.from_dir(GOLDEN / "tokenizer")


def told(tokenizer: PromptTokenizer, text: str, *stop: str) -> list[str]:
    reply, ids = Detokenizer(tokenizer, stop), tokenizer.encode([text])
    deltas = [reply.push(token) for token in ids]
    rest = parse_reply(tokenizer, ids, stop).result.removeprefix("".join(deltas))
    return [delta for delta in (*deltas, rest) if delta]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("plain words", (), "plain words"),
        ("  padded \n", (), "padded"),
        ("größer 🙂 ok", (), "größer 🙂 ok"),
        ("one STOP two", ("STOP",), "one"),
        ("one STO two", ("STOP",), "one STO two"),
        ("ends with ST", ("STOP",), "ends with ST"),
        ("a b c", ("c", "b"), "a"),
        ("STOP", ("STOP",), ""),
        ("aab", ("ab",), "a"),
    ],
)
def test_deltas_add_up_to_the_reply(
    tokenizer: PromptTokenizer, text: str, stop: tuple[str, ...], expected: str
) -> None:
    assert "".join(told(tokenizer, text, *stop)) == expected


def test_only_whole_characters_are_told(tokenizer: PromptTokenizer) -> None:
    assert told(tokenizer, "ab🙂") == ["a", "b", "🙂"]  # the byte tokenizer takes four tokens for the last


def test_a_reply_that_ends_inside_a_character_is_told_as_it_is(tokenizer: PromptTokenizer) -> None:
    reply, ids = Detokenizer(tokenizer), tokenizer.encode(["ab🙂"])[:-1]
    told_so_far = "".join(reply.push(token) for token in ids)
    whole = parse_reply(tokenizer, ids).result
    assert whole.startswith(told_so_far)
    assert whole != told_so_far


def test_jobs_of_a_serial_queue_run_in_order_one_at_a_time() -> None:
    done: list[int] = []
    pool = WorkerPool(4)
    strand = SerialQueue(pool)
    for number in range(500):
        strand.submit(lambda number=number: done.append(number))
    pool.close()
    assert done == list(range(500))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    folder = write_scripted_checkpoint("qwen2_two", tmp_path_factory.mktemp("scripted"))
    predictor = Predictor.load(Settings(model_path=str(folder)))
    yield predictor
    predictor.close()


def test_text_and_segments_are_told_as_they_come(scripted: Predictor) -> None:
    events: list[StreamEvent] = []
    picture = module("scripted/inputs").image(96, 80, 1)
    answer = scripted.submit(PredictRequest("Segment both.", picture, max_tiles=1), events.append).result(60)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer.result == REPLY
    segments = [event for event in events if isinstance(event, SegmentReady)]
    assert [event.index for event in segments] == [0, 1]
    for event, final in zip(segments, answer.segments, strict=True):
        assert event.segment is final  # no mask is made twice
    assert [segment.phrase for segment in answer.segments] == ["red disc", "blue bar"]
    first_mask = events.index(segments[0])
    assert any(isinstance(event, TextDelta) for event in events[first_mask:])  # before the text is complete


def test_a_watcher_that_fails_disturbs_nobody(scripted: Predictor) -> None:
    def fail(event: StreamEvent) -> None:
        raise RuntimeError("I am gone")

    picture = module("scripted/inputs").image(96, 80, random.randint(2, 99))
    watched = scripted.submit(PredictRequest("Segment both.", picture, max_tiles=1), fail).result(60)
    alone = scripted.predict(PredictRequest("Segment both.", picture, max_tiles=1))
    assert watched.result == alone.result
    assert np.array_equal(watched.segments[1].mask, alone.segments[1].mask)


@pytest.mark.parametrize("stop", [" and", "[SEG].", "<p> blue"])
def test_a_stop_string_cuts_text_and_segments(scripted: Predictor, stop: str) -> None:
    events: list[StreamEvent] = []
    picture = module("scripted/inputs").image(96, 80, 1)
    request = PredictRequest("Segment both.", picture, max_tiles=1, stop=(stop,))
    answer = scripted.submit(request, events.append).result(60)
    assert answer.result == REPLY[: REPLY.find(stop)].strip()
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer.result
    assert len(answer.segments) == answer.result.count("[SEG]")
