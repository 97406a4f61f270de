"""Overlays: colours where the masks are and nowhere else, legends of any words, pictures of any size."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from sa2va_bento.media.overlay import fonts as lettering
from sa2va_bento.media.overlay import legend
from sa2va_bento.media.overlay.draw import LEAST_SIDE, MOST_SIDE, draw_overlay, overlay_size
from sa2va_bento.types import Segment
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, quarters

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}


def segment(mask: np.ndarray, phrase: str | None = None) -> Segment:
    return Segment(mask=mask, score=0.9, object_score=0.9, threshold=0.5, phrase=phrase)


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(size[::-1], bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def distance(pixel: np.ndarray, color: legend.Color) -> float:
    return float(np.abs(pixel.astype(float) - color).max())


def test_each_segment_has_its_colour_and_the_rest_is_untouched() -> None:
    size, grey = (400, 300), (90, 90, 90)
    masks = [box_mask(size, (20, 20, 120, 120)), box_mask(size, (200, 100, 380, 280))]
    pixels = np.asarray(draw_overlay(Image.new("RGB", size, grey), [segment(mask) for mask in masks]))
    for number, mask in enumerate(masks):
        mean = pixels[:300][mask].mean(axis=0)
        assert distance(mean, legend.color_of(number)) < distance(mean, legend.color_of(1 - number)) - 40
        edge = pixels[70 if number == 0 else 150, 20 if number == 0 else 200]
        assert distance(edge, legend.color_of(number)) < 40
    assert (pixels[:300, 140:180] == grey).all()


def test_the_picture_given_stays_as_it_is() -> None:
    image = Image.new("RGB", (300, 300), "white")
    draw_overlay(image, [segment(np.ones((300, 300), bool))])
    assert image.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1, 1), (256, 256)),
        ((48, 32), (288, 192)),
        ((255, 3), (510, 6)),
        ((640, 480), (640, 480)),
        ((4000, 3000), (2048, 1536)),
        ((60_000, 2), (2048, 1)),
    ],
)
def test_sizes(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert overlay_size(size) == shown
    assert LEAST_SIDE <= max(shown) <= MOST_SIDE


@pytest.mark.parametrize("size", [(1, 1), (48, 32), (3, 255), (640, 480), (4000, 3000), (9000, 2)])
def test_a_legend_lies_below_pictures_of_every_size(size: tuple[int, int]) -> None:
    overlay = draw_overlay(Image.new("RGB", size), [segment(np.ones(size[::-1], bool), "the whole")])
    shown = overlay_size(size)
    assert overlay.height >= shown[1] + 25
    assert overlay.width >= max(shown[0], 196)
    panel = np.asarray(overlay)[shown[1] :]
    assert (np.abs(panel.astype(int) - legend.color_of(0)).max(axis=2) < 8).sum() > 100
    assert (panel.min(axis=2) > 200).sum() > 50  # words


@pytest.mark.parametrize("pixel", [(0, 0), (1999, 1499), (1000, 700)])
def test_a_single_pixel_of_a_large_picture_shows(pixel: tuple[int, int]) -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[2 * pixel[1] : 2 * pixel[1] + 2, 2 * pixel[0] : 2 * pixel[0] + 2] = True
    pixels = np.asarray(draw_overlay(Image.new("RGB", (4000, 3000)), [segment(mask)]))[:1536]
    row, column = np.unravel_index(int(pixels.sum(axis=2).argmax()), pixels.shape[:2])
    assert abs(column - pixel[0] * 1.024) < 3
    assert abs(row - pixel[1] * 1.024) < 3


def test_without_segments_or_without_pixels() -> None:
    image = Image.new("RGB", (300, 200), (1, 2, 3))
    assert draw_overlay(image, []).size == (300, 200)
    empty = draw_overlay(image, [segment(np.zeros((200, 300), bool), "nothing")])
    assert empty.height > 200
    assert (np.asarray(empty)[:200] == (1, 2, 3)).all()


def test_many_segments_get_colours_that_differ_and_a_legend_that_ends() -> None:
    colors = [legend.color_of(number) for number in range(40)]
    assert len(set(colors)) == len(colors)
    masks = [box_mask((300, 300), (i, 0, i + 1, 9)) for i in range(200)]
    few, many = (draw_overlay(Image.new("RGB", (300, 300)), [segment(m) for m in masks[:n]]) for n in (60, 200))
    assert few.height == many.height < 1500


@pytest.mark.parametrize(
    "phrase",
    [
        "the man",
        "汉字",
        "🦊🦊",
        "عربي",
        "e\u0301te\u0301",
        "a\nb\tc",
        "\u202eright to left",
        "\0",
        "\ud83d",
        "",
        " ",
        "x" * 9999,
    ],
)
def test_phrases_in_any_script(phrase: str) -> None:
    draw_overlay(Image.new("RGB", (64, 64)), [segment(np.ones((64, 64), bool), phrase)])


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(), max_size=30), st.integers(40, 400))
def test_any_words_fit_the_width(text: str, width: int) -> None:
    assert lettering.length_of(lettering.spans_of(text, 14, width)) <= width


def test_what_no_font_has_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_FONTS", ("", "nowhere.ttf"))
    assert text_of("ab ế 汉x") == "ab e ?x"
    assert not lettering.is_known("汉字 🦊")
    assert lettering.is_known("汉a")


def text_of(text: str) -> str:
    return "".join(span.text for span in lettering.spans_of(text, 20, 9999))


def test_a_long_phrase_is_cut_with_dots() -> None:
    cut = "".join(span.text for span in lettering.spans_of("a very long phrase about a man", 20, 120))
    assert cut.startswith("a very")
    assert cut.endswith("...")


def read(data_url: str) -> Image.Image:
    head, _, data = data_url.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "PNG"
    return image


def test_it_comes_with_the_answer_if_asked_for(client: TestClient) -> None:
    answer = client.post("/process", json={**GOOD, "include_overlay": True}).json()
    assert answer["warnings"] == []
    overlay = read(answer["overlay"])
    assert overlay.width == 288
    pixels = np.asarray(overlay).astype(int)
    enlarged = np.asarray(quarters().resize((288, 192), Image.Resampling.NEAREST)).astype(int)
    changed = np.abs(pixels[:192] - enlarged).max(axis=2) > 20
    assert changed[100:, :140].mean() > 0.9  # the blue quarter under the red segment
    assert changed[:, 150:].mean() < 0.01
    assert client.post("/process", json=GOOD).json()["overlay"] is None
    assert client.post("/process", json={**GOOD, "include_overlay": False}).json()["overlay"] is None


def test_a_form_may_ask_for_it(client: TestClient, model: FakePredictor) -> None:
    fields = {"base64Image": (None, PICTURE), "prompt": (None, "hello"), "include_overlay": (None, "true")}
    answer = client.post("/process", files=fields).json()
    assert read(answer["overlay"]).size == (288, 192)  # nothing segmented: the picture alone


def test_a_segment_shows_on_a_thing_of_its_own_colour() -> None:
    image = Image.new("RGB", (300, 300), legend.color_of(0))
    pixels = np.asarray(draw_overlay(image, [segment(box_mask((300, 300), (100, 100, 200, 200)))])).astype(int)
    around = np.abs(pixels[90:110, 150] - legend.color_of(0)).max(axis=1)
    assert around.max() > 60


def test_a_stream_ends_with_it(client: TestClient) -> None:
    events = client.post("/process_stream", json={**GOOD, "include_overlay": True}).text.split("\n\n")
    (done,) = (event for event in events if event.startswith("event: done"))
    assert read(json.loads(done.partition("data: ")[2])["overlay"]).width == 288
