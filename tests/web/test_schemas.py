"""Requests and responses as models: defaults, aliases, warnings, and the conversion to and from the core."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.settings import Settings
from sa2va_bento.types import Prediction, RequestContext, Segment, Turn, Usage
from sa2va_bento.web.rendering import to_response
from sa2va_bento.web.request import PictureSource, regions_to_masks, to_predict_request
from sa2va_bento.web.schemas import MaskFormat, ProcessRequest, ProcessResponse, parse_process_request
from tests.pictures import PICTURE, b64, encode

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "hi"}
SETTINGS = Settings()


def test_defaults_are_the_contract() -> None:
    request, warnings = parse_process_request(GOOD)
    assert request.model_dump(exclude={"base64Image", "prompt"}) == {
        "mask_format": "rle",
        "mask_threshold": 0.5,
        "regions": [],
        "history": [],
        "include_overlay": False,
        "max_new_tokens": None,
        "max_tiles": None,
        "adapter": None,
    }
    assert warnings == []


def test_null_counts_as_absent() -> None:
    nulls = dict.fromkeys(set(ProcessRequest.model_fields) - set(GOOD))
    assert parse_process_request({**GOOD, **nulls}) == parse_process_request(GOOD)


def test_unknown_fields_are_named_but_not_all_of_a_thousand() -> None:
    _, warnings = parse_process_request({**GOOD, "temprature": 1, "b" * 500: 2})
    assert warnings == ["unknown field ignored: 'temprature'", f"unknown field ignored: '{'b' * 64}'"]
    _, warnings = parse_process_request({**GOOD, **{f"f{i}": i for i in range(1000)}})
    assert len(warnings) == 9
    assert warnings[-1] == "992 more unknown fields ignored"


def test_a_refusal_names_every_field_and_repeats_no_value() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_process_request({"prompt": 17, "mask_format": "s3cret", "regions": [{"box": ["s3cret"] * 4}]})
    assert all(name in caught.value.message for name in ("base64Image", "prompt", "mask_format", "regions[0].box[3]"))
    assert "s3cret" not in caught.value.message


def test_a_refusal_stays_short() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_process_request({**GOOD, "regions": [{"box": 1}] * 101})
    assert caught.value.message == "regions[0].box: input should be a valid tuple"  # the first of a list


def test_every_field_is_documented() -> None:
    for model in (ProcessRequest, ProcessResponse):
        schema = model.model_json_schema()
        for definition in [schema, *schema["$defs"].values()]:
            for name, field in definition["properties"].items():
                assert "description" in field or "const" in field, (definition["title"], name)


def test_a_request_reaches_the_core_as_it_was_asked() -> None:
    request, _ = parse_process_request(
        {
            **GOOD,
            "prompt": "What is <region1>, <image> or [SEG]?",
            "regions": [
                {"box": [0, 0, 2, 2]},
                {"polygon": [[0, 0], [4, 0], [4, 4], [0, 4]]},
                {"mask": {"size": [32, 48], "counts": [0, 32, 32 * 47]}},
                {"mask": {"format": "png", "data": b64(encode(Image.new("1", (48, 32), 1)))}},
            ],
            "history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "mask_threshold": 0.25,
            "max_new_tokens": 7,
            "max_tiles": 3,
        }
    )
    asked = to_predict_request(request, PictureSource(request.base64Image), SETTINGS, RequestContext())
    assert asked.prompt == "What is <region1>, <image> or [SEG]?"
    assert asked.image is not None
    assert (asked.image.mode, asked.image.size) == ("RGB", (48, 32))
    assert [(mask.shape, int(mask.sum())) for mask in asked.regions] == [((32, 48), n) for n in (4, 16, 32, 48 * 32)]
    assert asked.history == (Turn("user", "a"), Turn("assistant", "b"))
    assert (asked.mask_threshold, asked.max_new_tokens, asked.max_tiles) == (0.25, 7, 3)


def test_history_counts_towards_the_length_of_the_prompt() -> None:
    settings = Settings(max_prompt_tokens=64)
    turns = [{"role": "user", "content": "x" * 600}, {"role": "assistant", "content": "x" * 600}]
    request, _ = parse_process_request({**GOOD, "history": turns})
    with pytest.raises(PayloadTooLargeError, match="64 tokens"):
        to_predict_request(request, PictureSource(request.base64Image), settings, RequestContext())


def prediction(*segments: Segment) -> Prediction:
    return Prediction(
        result="[SEG]",
        text="",
        segments=segments,
        image_size=(4, 3),
        usage=Usage(10, 5, 2),
        finish_reason="length",
        warnings=("from the core",),
    )


STAGES = ("receive", "queue", "image_decode", "preprocess", "encode", "prefill", "decode", "segment", "render", "total")


class Stopped(RequestContext):
    """A clock that stands."""

    @property
    def timings_ms(self) -> dict[str, float]:
        return {"queue": 1.23456, "total": 12.345}


def segment(mask: np.ndarray) -> Segment:
    return Segment(mask=mask, score=0.987654, object_score=0.5, threshold=0.5)


HALF = np.array([[True, True, False, False]] * 3)


@pytest.mark.parametrize(
    ("mask_format", "wanted"), [("rle", {"format": "rle", "size": [3, 4], "counts": "066"}), ("none", None)]
)
def test_masks_as_runs_or_not_at_all(mask_format: MaskFormat, wanted: object) -> None:
    response = to_response(prediction(segment(HALF)), model="m", context=RequestContext("r"), mask_format=mask_format)
    (answer,) = json.loads(response.model_dump_json())["segments"]
    assert (answer["bbox"], answer["area"], answer["score"]) == ([0, 0, 2, 3], 6, 0.9877)
    assert answer["mask"] == wanted


def test_a_polygon_mask_encloses_the_mask() -> None:
    square = np.zeros((30, 40), bool)
    square[10:20, 10:30] = True
    response = to_response(prediction(segment(square)), model="m", context=RequestContext("r"), mask_format="polygon")
    mask = json.loads(response.model_dump_json())["segments"][0]["mask"]
    assert (mask["format"], mask["size"]) == ("polygon", [30, 40])
    (part,) = mask["polygons"]
    xs, ys = np.array(part["exterior"]).T
    assert part["holes"] == []
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (10, 30, 10, 20)


def test_a_png_mask_is_a_data_url() -> None:
    response = to_response(prediction(segment(HALF)), model="m", context=RequestContext("r"), mask_format="png")
    (answer,) = json.loads(response.model_dump_json())["segments"]
    assert answer["mask"]["data"].startswith("data:image/png;base64,")


def test_an_empty_mask_is_reported() -> None:
    empty = segment(np.zeros((3, 4), bool))
    response = to_response(prediction(segment(HALF), empty), model="m", context=RequestContext("r"))
    assert [(s.id, s.area, s.bbox) for s in response.segments] == [(0, 6, (0, 0, 2, 3)), (1, 0, (0, 0, 0, 0))]


def test_the_response_in_full() -> None:
    response = to_response(prediction(), model="m", context=Stopped("r"), warnings=("mine",))
    assert json.loads(response.model_dump_json()) == {
        "result": "[SEG]",
        "text": "",
        "model": "m",
        "request_id": "r",
        "image": {"width": 4, "height": 3},
        "segments": [],
        "overlay": None,
        "usage": {"prompt_tokens": 10, "image_tokens": 5, "completion_tokens": 2, "total_tokens": 12},
        "finish_reason": "length",
        "timings_ms": {**dict.fromkeys(STAGES, 0), "queue": 1.23, "total": 12.35},
        "warnings": ["mine", "from the core"],
    }


@pytest.mark.parametrize(
    ("regions", "size", "fragment"),
    [
        ([{"polygon": [[0, 0], [9, 9], [0, 9]] * 3000}] * 3, (10, 10), "over 20000 corners"),
        ([{"box": [0, 0, 9, 9]}] * 16, (5000, 4000), "over 200 million pixels"),
    ],
)
def test_regions_together_have_a_limit(regions: list[object], size: tuple[int, int], fragment: str) -> None:
    request, _ = parse_process_request({**GOOD, "regions": regions})
    with pytest.raises(BadRequestError, match=fragment):
        regions_to_masks(request.regions, size)
