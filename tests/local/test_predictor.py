"""Sa2VA in Python: pictures as people have them, answers that show themselves, streams, batches and clips."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_bento import Answer, Predictor, PredictRequest, Sa2VAError, SegmentReady, Settings, TextDelta
from sa2va_bento.clips import ClipReply, FrameSegments
from sa2va_bento.errors import BadRequestError
from sa2va_bento.local.pictures import to_image
from tests import films

SHAPES = Path(__file__).parent.parent.parent / "docs" / "shapes.png"
RED = "Please segment the red circle."


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    with Predictor.load(Settings()) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def answer(predictor: Predictor) -> Answer:
    return predictor.predict(SHAPES, RED)


def test_three_lines_to_a_mask(answer: Answer) -> None:
    (segment,) = answer.segments
    x, y, width, height = segment.box
    assert segment.mask[y : y + height, x : x + width].sum() == segment.area > 1000
    assert 0.5 < segment.score <= 1
    assert answer.result.count("[SEG]") == 1
    assert answer.size == (segment.mask.shape[1], segment.mask.shape[0])


def picture(kind: str) -> object:
    image = Image.open(SHAPES).convert("RGB")
    array = np.asarray(image)
    made = {
        "path": SHAPES,
        "text": str(SHAPES),
        "bytes": SHAPES.read_bytes(),
        "RGB": image,
        "RGBA": image.convert("RGBA"),
        "P": image.quantize(64),
        "CMYK": image.convert("CMYK"),
        "array": array,
        "array with alpha": np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]),
        "array of floats": array / 255.0,
        "array that is a view": np.ascontiguousarray(array[:, ::-1])[:, ::-1],
    }
    return made[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "path",
        "text",
        "bytes",
        "RGB",
        "RGBA",
        "P",
        "CMYK",
        "array",
        "array with alpha",
        "array of floats",
        "array that is a view",
    ],
)
def test_a_picture_may_be(predictor: Predictor, answer: Answer, kind: str) -> None:
    found = predictor.predict(picture(kind), RED)  # type: ignore[call-overload]
    mask, expected = found.segments[0].mask, answer.segments[0].mask
    assert np.logical_and(mask, expected).sum() / np.logical_or(mask, expected).sum() > 0.97


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "I", "F", "YCbCr", "HSV", "LAB", "PA", "RGBX"])
def test_images_of_any_mode_are_read(mode: str) -> None:
    image = Image.new("L", (8, 6), 200) if mode in ("I;16", "I", "F") else Image.new("RGB", (8, 6), (200, 10, 10))
    assert to_image(image.convert("P").convert(mode) if mode == "PA" else _as(image, mode)).mode == "RGB"


def _as(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.new("LAB", image.size, (100, 10, 10))
    return image.convert("L").convert(mode) if mode in ("1", "LA") else image.convert(mode)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((4, 4), np.int64),
        np.full((4, 4), 7.0),
        np.full((4, 4), np.nan),
        b"nothing",
        5,
    ],
)
def test_what_is_no_picture(wrong: object) -> None:
    with pytest.raises(BadRequestError):
        to_image(wrong)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_and_an_option_that_is_not(predictor: Predictor) -> None:
    with pytest.raises(FileNotFoundError):
        predictor.predict("nowhere.png", RED)
    with pytest.raises(BadRequestError, match="unknown option: max_tokens"):
        predictor.predict(SHAPES, RED, max_tokens=5)
    with pytest.raises(BadRequestError, match="prompt"):
        predictor.predict(SHAPES, " ")


def test_a_conversation_and_a_region(predictor: Predictor, answer: Answer) -> None:
    history = [("user", RED), ("assistant", answer.result)]
    assert predictor.predict(SHAPES, "What color is it?", history=history).text
    asked = predictor.predict(SHAPES, "What is region1?", regions=[answer.segments[0].mask])
    assert "red" in asked.text.lower()


def test_without_a_picture(predictor: Predictor) -> None:
    answer = predictor.predict(None, "Hello.", max_new_tokens=4)
    assert answer.segments == ()
    assert answer._repr_html_().startswith("<p>")
    with pytest.raises(BadRequestError):
        answer.overlay()


def test_a_whole_request_is_still_answered(predictor: Predictor, answer: Answer) -> None:
    prediction = predictor.predict(PredictRequest(RED, Image.open(SHAPES).convert("RGB")))
    assert prediction.result == answer.result


def test_it_shows_and_saves_itself(answer: Answer, tmp_path: Path) -> None:
    assert answer.overlay().width >= 256
    shown = answer._repr_html_()
    assert "data:image/png;base64," in shown
    files = {path.name for path in answer.save(tmp_path / "new" / "folder")}
    assert files == {"shapes.json", "shapes-0.png", "shapes-overlay.png", "shapes-instances.png"}
    mask = np.asarray(Image.open(tmp_path / "new" / "folder" / "shapes-0.png")) > 0
    assert np.array_equal(mask, answer.segments[0].mask)
    saved = json.loads((tmp_path / "new" / "folder" / "shapes.json").read_text())
    assert saved["segments"][0]["bbox"] == list(answer.segments[0].box)


def test_a_stream_is_the_answer_in_pieces(predictor: Predictor, answer: Answer) -> None:
    events = list(predictor.stream(SHAPES, RED))
    *pieces, whole = events
    assert isinstance(whole, Answer)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)).strip() == answer.result
    assert sum(isinstance(piece, SegmentReady) for piece in pieces) == 1
    next(predictor.stream(SHAPES, RED))  # and may be left


def test_many_are_answered_in_order_and_read_as_needed(predictor: Predictor, answer: Answer) -> None:
    read = 0

    def asked() -> Iterator[tuple[Path, str]]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield SHAPES, RED

    answers = predictor.predict_many(asked())
    first = next(answers)
    assert isinstance(first, Answer)
    assert first.result == answer.result
    assert read <= 2 * predictor._runner.limits.slots
    assert sum(1 for _ in answers) == 99


def test_what_fails_fails_in_its_place(predictor: Predictor) -> None:
    asked = [(SHAPES, RED), (b"nothing", RED), ("nowhere.png", RED), (SHAPES, " "), (SHAPES, RED)]
    kinds = [isinstance(found, Sa2VAError) for found in predictor.predict_many(asked, keep_going=True)]
    assert kinds == [False, True, True, True, False]
    with pytest.raises(Sa2VAError):
        list(predictor.predict_many(asked))


def test_a_clip_is_followed(predictor: Predictor, tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(9, (160, 120)))
    reply, *frames = predictor.follow(film, RED, every_nth=2)
    assert isinstance(reply, ClipReply)
    assert [frame.source_index for frame in frames if isinstance(frame, FrameSegments)] == [0, 2, 4, 6, 8]
    for number, _ in enumerate(predictor.follow(film, RED)):
        if number == 3:
            break
    with pytest.raises(BadRequestError, match="not a video"):
        list(predictor.follow(__file__, RED))
    with pytest.raises(FileNotFoundError):
        list(predictor.follow("nowhere.mp4", RED))


def test_it_is_loaded_by_name(tmp_path: Path) -> None:
    with pytest.raises(Sa2VAError):
        Predictor.load(tmp_path / "nothing")
    image = Image.new("RGB", (8, 8))
    out = io.BytesIO()
    image.save(out, "PNG")
    with Predictor.load(max_new_tokens=1) as predictor:
        assert predictor.predict(out.getvalue(), "What is it?").finish_reason == "length"
