"""The Qwen-VL families against upstream's numbers: hidden states and greedy ids of the in-tree models under the version
of transformers that upstream pins, the scripted checkpoints stage by stage, and the in-tree code for what is done here
in another way (patches, positions)."""

import zlib
from collections.abc import Callable
from functools import cache, cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import DynamicCache
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.model.grounding import ImageFeatures, encode_image
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.pixels import sam_pixels
from sa2va_bento.model.qwen_vl.config import QwenVLConfig
from sa2va_bento.model.qwen_vl.image_processor import FIRST_PIXELS, UNIT, process_image, resized
from sa2va_bento.model.qwen_vl.model import QwenVLSa2VA, rope_positions
from sa2va_bento.model.registry import parse_config
from sa2va_bento.model.tracking import track
from sa2va_bento.processing.masks import low_res_to_mask
from sa2va_bento.processing.prompt import PictureTokens, build_prompt
from sa2va_bento.types import Picture, Pixels, TokenGrid
from tests.parity.goldens import (
    GOLDEN,
    iou,
    largest_error,
    module,
    scripted,
    scripted_mask,
    write_scripted_checkpoint,
)
from tests.parity.qwen_vl import config_dict, seeded_model

KINDS = ("qwen2_5_vl", "qwen3_vl")
CPU = Placement(torch.device("cpu"), torch.float32)
HIDDEN, SEG, PIXELS, MASK_IOU = 2e-5, 5e-6, 1e-6, 0.9999
"""Tolerances: comfortable for float32 on other processors, far below what any real mistake causes. `SEG` is relative,
as embeddings reach 40."""
CASES = [f"{kind}_one/{case}" for kind in KINDS for case in ("img_4x3", "img_tiny", "video_3", "text_only")]
SEEN = [name for name in CASES if not name.endswith("text_only")]
PLACEHOLDER, GRIDS = 261, (TokenGrid(4, 6), TokenGrid(3, 3))
"""Of `*_vl_xver.npz`: two images, whose patches are the first numbers of a seed."""


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", KINDS)
def test_hidden_states_and_greedy_ids_are_those_of_the_pinned_version(name: str) -> None:
    with np.load(GOLDEN / f"{name}_xver.npz") as arrays:
        golden: dict[str, Any] = dict(arrays)
    model = seeded_model(name, golden["keys"].tolist())
    ids, prompt = golden["seq"].tolist(), golden["seq"].tolist()[: len(golden["h"])]
    width = 3 * 2 * model.config.patch**2
    pixels = np.random.RandomState(3).standard_normal((4 * (24 + 9), width)).astype(np.float32)
    sequence = Sequence(tuple(prompt), pictures_of([pixels], GRIDS), len(ids) - len(prompt), frozenset())
    runner = Runner(model, PLACEHOLDER, Limits(slots=2, context=96))
    assert generate(runner, sequence, piece=20) == ids[len(prompt) :]

    tokens = model.encode_pictures(torch.from_numpy(pixels), [GRIDS])[0][0]
    read = ids[: len(golden["tail"])]  # all but the last, which is never an input
    inputs = model.read_prompt(torch.tensor(read), tokens, GRIDS, PLACEHOLDER)
    assert inputs.positions is not None
    cache = DynamicCache(config=model.config.llm)
    states = model.language_body(inputs.embeddings[None], cache, position_ids=inputs.positions[None])[0]
    last = states if model.config.kind.reads_seg_before_norm else model.language_model.norm(states)
    assert largest_error(last, golden["tail"]) < HIDDEN
    assert np.array_equal(golden["tail"][: len(prompt)], golden["h"])


def pictures_of(tiles: list[NDArray[np.float32]], grids: tuple[TokenGrid, ...]) -> Picture:
    """Images that the language model sees one after the other; SAM2 does not see them."""
    return Picture("key", "tiles", len(grids), Pixels(lambda: np.concatenate(tiles)), Pixels(lambda: tiles[0]), grids)


def generate(runner: Runner, sequence: Sequence, piece: int) -> list[int]:
    """The runner's reply, the prompt read in pieces."""
    runner.encode([sequence] if sequence.picture else [])
    while not sequence.is_complete:
        if sequence.unread:
            (token,) = runner.prefill([sequence], piece)
            sequence.prefilled += min(piece, sequence.unread)
        else:
            (token,) = runner.decode([sequence])
        if token is not None:
            sequence.append(token)
    return sequence.output_ids


class Case:
    """A case of a scripted golden, on the model's parts."""

    def __init__(self, model: QwenVLSa2VA, tokenizer: PromptTokenizer, name: str) -> None:
        self.set, _, identifier = name.partition("/")
        self.golden = next(case for case in scripted(self.set)["cases"] if case["id"] == identifier)
        self.arrays = f"{identifier}/"
        self.model, self.tokenizer, self.template = model, tokenizer, model.config.chat_template
        made = module("scripted/inputs").make(self.golden)
        self.frames: list[Image.Image] = made.get("video") or [made[key] for key in ("image",) if key in made]
        self.seen = [process_image(model.config, frame) for frame in self.frames]
        self.runner = Runner(model, tokenizer.id_of(self.template.image_token), Limits(slots=1, context=2048))

    @property
    def grids(self) -> tuple[TokenGrid, ...]:
        return tuple(grid for prepared in self.seen for grid in prepared.grids)

    @property
    def prompt_ids(self) -> list[int]:
        counts = [rows * columns for rows, columns in self.grids]
        tokens = PictureTokens(counts[0], frames=len(counts)) if counts else None
        return self.tokenizer.encode(build_prompt(self.template, self.golden["text"], tokens))

    @cached_property
    def sequence(self) -> Sequence:
        """Answered."""
        stop = frozenset({self.tokenizer.id_of("<|im_end|>")})
        picture = pictures_of([prepared.tiles() for prepared in self.seen], self.grids) if self.seen else None
        sequence = Sequence(tuple(self.prompt_ids), picture, 64, stop, seg_id=self.tokenizer.id_of("[SEG]"))
        generate(self.runner, sequence, piece=512)
        return sequence

    @cached_property
    def states(self) -> Tensor:
        return torch.stack(self.runner._states[self.sequence].seg_hidden)

    @cached_property
    def prompts(self) -> Tensor:
        return self.model.seg_prompts(self.states)

    @cached_property
    def seg_hidden(self) -> Tensor:
        states = self.states
        return states if self.model.config.kind.reads_seg_before_norm else self.model.language_model.norm(states)

    def array(self, name: str) -> NDArray[Any]:
        with np.load(GOLDEN / "scripted" / f"{self.set}.npz") as arrays:
            return arrays[self.arrays + name]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def loaded(name: str) -> tuple[QwenVLSa2VA, PromptTokenizer]:
        folder = write_scripted_checkpoint(name, tmp_path_factory.mktemp(name))
        model = load_model(folder, CPU)
        assert isinstance(model, QwenVLSa2VA)
        return model, PromptTokenizer.from_dir(folder)

    return cache(lambda name: Case(*loaded(name.partition("/")[0]), name))


@pytest.mark.parametrize("name", CASES)
def test_prompt_ids_and_replies_are_upstreams(case: Callable[[str], Case], name: str) -> None:
    golden, ids = case(name).golden, np.array(case(name).prompt_ids, dtype="<i4")
    assert (len(ids), zlib.crc32(ids.tobytes())) == (golden["n_prompt_tokens"], golden["prompt_crc"])
    assert case(name).sequence.output_ids == golden["token_ids"]


@pytest.mark.parametrize("name", SEEN)
def test_seg_hidden_states_and_prompt_embeddings(case: Callable[[str], Case], name: str) -> None:
    for found, array in ((case(name).seg_hidden, "seg_hidden"), (case(name).prompts, "prompt_embed")):
        expected = case(name).array(array)
        assert largest_error(found, expected) < SEG * np.abs(expected).max()


@pytest.mark.parametrize("name", SEEN)
def test_masks_on_every_frame(case: Callable[[str], Case], name: str) -> None:
    """A picture is a clip of one frame."""
    sam, frames = case(name).model.grounding_encoder, case(name).frames

    def features_of(frame: int) -> ImageFeatures:
        return encode_image(sam, sam_pixels(frames[frame], 1024)[None])

    expected = scripted_mask(case(name).set, case(name).golden["masks"][0])
    for tracked in track(sam, features_of, len(frames), case(name).prompts, torch.tensor([0])):
        mask = low_res_to_mask(tracked.masks.logits[0].numpy(), 1024, frames[0].size)
        assert iou(mask, expected[tracked.frame]) >= MASK_IOU


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(640, 480), (40, 30), (1, 1), (2000, 1999), (30, 3001), (13, 2000), (1700, 1300)])
def test_patches_are_those_of_the_in_tree_processor(name: str, size: tuple[int, int]) -> None:
    config = parse_config(config_dict(name))
    assert isinstance(config, QwenVLConfig)
    image = module("scripted/inputs").image(*size, 7)
    prepared = process_image(config, image)
    processor = Qwen2VLImageProcessorPil(
        patch_size=config.patch,
        image_mean=config.kind.mean,
        image_std=config.kind.std,
        size={"shortest_edge": 512 * 784, "longest_edge": 2048 * 784},
    )
    first = image.resize(resized(size, UNIT, *FIRST_PIXELS), Image.Resampling.BICUBIC)
    expected = processor(images=[first], return_tensors="np")
    (rows, columns) = prepared.grids[0]
    assert expected["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns]]
    assert largest_error(prepared.tiles(), expected["pixel_values"]) < PIXELS


@pytest.mark.parametrize(
    ("size", "expected"),  # qwen_vl_utils.smart_resize, worked out by hand
    [((640, 480), (644, 476)), ((40, 30), (84, 56)), ((13, 2000), (28, 1988)), ((9000, 9000), (3584, 3584))],
)
def test_the_first_resizing(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(size, UNIT, *FIRST_PIXELS) == expected


@pytest.mark.parametrize("grids", [(), ((4, 6),), ((1, 9), (5, 2)), ((2, 2), (2, 2), (3, 1))])
def test_positions_are_those_of_the_in_tree_model(grids: tuple[TokenGrid, ...]) -> None:
    ids = [5, 6]
    for rows, columns in grids:
        ids += [1, *[PLACEHOLDER] * (rows * columns), 2]
    ids += [7, 8, 9]
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=2))
    model = SimpleNamespace(config=config)
    model.get_vision_position_ids = partial(Qwen2_5_VLModel.get_vision_position_ids, model)  # type: ignore[arg-type]
    tensor = torch.tensor([ids])
    thw = torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in grids])
    expected, delta = Qwen2_5_VLModel.get_rope_index(model, tensor, (tensor == PLACEHOLDER).int(), thw)  # type: ignore[arg-type]
    found = rope_positions(ids, grids, PLACEHOLDER)
    assert torch.equal(found, expected[:, 0].T)
    assert found.max() + 1 - len(ids) == delta.item()
