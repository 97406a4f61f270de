"""Every stage of the path against upstream's own numbers (`tests/golden`), float32 on the CPU.

The stages are compared one by one so that a failure names the first one that is off. Replies of cases with a script
are forced token by token, as they were upstream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import MaskLogits, Sequence
from sa2va_bento.model.chat_template import Special
from sa2va_bento.model.grounding import DecodedMasks, ImageFeatures, decode_proposals, encode_image
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.processing.masks import low_res_to_mask
from sa2va_bento.processing.processor import Processor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.parity.goldens import GOLDEN, iou, largest_error, module, unpack, write_checkpoint

FEATURES, LLM_LOGITS, MASK_LOGITS, MASK_IOU = 1e-5, 5e-5, 1e-4, 0.9999
"""Tolerances: comfortable for float32 on other processors, far below what any real mistake causes."""

OTHERS = [f"{name}/{case}" for name in ("qwen2_vit6b", "internlm2", "qwen3") for case in ("img_noseg", "img_seg")]
PICTURES = [*(f"qwen2/{case}" for case in ("img_noseg", "img_seg", "img_2seg", "img_vp", "img_tiles")), *OTHERS]
SEGMENTED = [name for name in PICTURES if name.endswith(("seg", "tiles")) and not name.endswith("noseg")]
ALL = [*PICTURES, "qwen2/text_only"]


@dataclass
class Loaded:
    runner: Runner
    pipeline: Processor
    tokenizer: PromptTokenizer


class Case:
    """One golden case, its stages computed on demand and once."""

    def __init__(self, loaded: Loaded, name: str) -> None:
        self.runner, self.pipeline, self.tokenizer = loaded.runner, loaded.pipeline, loaded.tokenizer
        assert isinstance(loaded.runner.model, InternVLSa2VA)
        self.model = loaded.runner.model
        self.spec = module("inputs").CASES[name.partition("/")[2]]
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            self.golden: dict[str, NDArray[Any]] = dict(arrays)

    @cached_property
    def prepared(self) -> Sequence:
        image = module("inputs").img(*self.spec["image"]) if "image" in self.spec else None
        regions: tuple[NDArray[np.bool_], ...] = ()
        if self.spec.get("mask_prompts"):
            regions = tuple(mask.astype(bool) for mask in module("inputs").prompt_masks()[0])
        request = PredictRequest(self.spec["text"], image, regions, max_new_tokens=self.spec.get("max_new", 64))
        return self.pipeline.prepare(request)

    @cached_property
    def script(self) -> list[int]:
        """The forced reply, empty where upstream decoded greedily."""
        text: str = self.spec.get("script") or ""
        pieces = [Special(part) if part in ("[SEG]", "<|im_end|>") else part for part in _split(text)]
        return self.tokenizer.encode(pieces)

    @cached_property
    def tile_features(self) -> torch.Tensor:
        assert self.prepared.picture
        return self.model.encode_tiles(torch.from_numpy(self.prepared.picture.tiles()))

    @cached_property
    def embeddings(self) -> torch.Tensor:
        picture, features = self.prepared.picture, None
        if picture:
            regions = [self.tile_features[-1][torch.from_numpy(cells)] for cells in picture.region_cells]
            features = torch.cat([self.tile_features.flatten(0, 1), *regions])
        ids = torch.tensor([self.prepared.prompt_ids])
        return self.model.embed(ids, features, self.runner.image_token_id)

    @cached_property
    def logits(self) -> torch.Tensor:
        """One row a generated token (T, V), the golden reply being forced."""
        cache, embeddings, rows = DynamicCache(config=self.model.config.llm), self.embeddings, []
        for token in self.golden["sequences"].tolist():
            rows.append(self.model.language_head(self.model.language_body(embeddings, cache)[0, -1]))
            embeddings = self.model.embed(torch.tensor([[token]]), None, self.runner.image_token_id)
        return torch.stack(rows)

    @cached_property
    def masks(self) -> tuple[MaskLogits, ...]:
        """Through the runner, token by token."""
        self.generate(self.script)
        self.seg_hidden = torch.stack(self.runner._states[self.prepared].seg_hidden)
        return self.runner.ground([self.prepared])[0]

    def generate(self, script: list[int]) -> list[int]:
        """The runner's reply; a script is forced upon it."""
        sequence = self.prepared
        self.runner.encode([sequence])
        while not sequence.is_complete:
            if sequence.unread:
                (token,) = self.runner.prefill([sequence], sequence.unread)
                sequence.prefilled = len(sequence.prompt_ids)
            else:
                (token,) = self.runner.decode([sequence])
            assert token is not None
            sequence.append(script[len(sequence.output_ids)] if script else token)
        return sequence.output_ids

    @cached_property
    def sam_features(self) -> ImageFeatures:
        assert self.prepared.picture
        return encode_image(self.model.grounding_encoder, torch.from_numpy(self.prepared.picture.sam_pixels())[None])

    @cached_property
    def proposals(self) -> DecodedMasks:
        prompts = torch.from_numpy(self.golden["prompt_embed"])
        rows = self.sam_features.rows(torch.zeros(len(prompts), dtype=torch.long))
        return decode_proposals(self.model.grounding_encoder, rows, prompts)


def _split(text: str) -> list[str]:
    for marker in ("[SEG]", "<|im_end|>"):
        text = text.replace(marker, f"\0{marker}\0")
    return text.split("\0")


def load(name: str, folder: Path) -> Loaded:
    model = load_model(write_checkpoint(name, folder), Placement(torch.device("cpu"), torch.float32))
    tokenizer = PromptTokenizer.from_dir(folder)
    runner = Runner(model, tokenizer.id_of("<IMG_CONTEXT>"), Limits(context=4096))
    return Loaded(runner, Processor(model.config, tokenizer, Settings()), tokenizer)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    loaded = cache(lambda name: load(name, tmp_path_factory.mktemp(name)))
    return cache(lambda name: Case(loaded(name.partition("/")[0]), name))


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", PICTURES)
def test_tile_pixels_are_upstreams(case: Callable[[str], Case], name: str) -> None:
    picture = case(name).prepared.picture
    assert picture
    assert picture.tiles().shape == tuple(case(name).golden["pixel_values_shape"])
    assert largest_error(picture.tiles()[:, :, ::16, ::16], case(name).golden["pixel_values_s"]) == 0


@pytest.mark.parametrize("name", ALL)
def test_prompt_ids_are_upstreams(case: Callable[[str], Case], name: str) -> None:
    assert list(case(name).prepared.prompt_ids) == case(name).golden["input_ids"].tolist()


@pytest.mark.parametrize("name", PICTURES)
def test_image_tokens(case: Callable[[str], Case], name: str) -> None:
    assert largest_error(case(name).tile_features[:, ::5], case(name).golden["vit_embeds_s"]) < FEATURES


@pytest.mark.parametrize("name", ALL)
def test_prompt_embeddings(case: Callable[[str], Case], name: str) -> None:
    assert largest_error(case(name).embeddings[0, ::7], case(name).golden["inputs_embeds_s"]) < FEATURES


@pytest.mark.parametrize("name", ALL)
def test_language_model_logits(case: Callable[[str], Case], name: str) -> None:
    assert largest_error(case(name).logits, case(name).golden["step_logits"]) < LLM_LOGITS


@pytest.mark.parametrize("name", [name for name in ALL if name not in SEGMENTED])
def test_greedy_reply_is_upstreams(case: Callable[[str], Case], name: str) -> None:
    assert case(name).generate([]) == case(name).golden["sequences"].tolist()


@pytest.mark.parametrize("name", SEGMENTED)
def test_seg_hidden_states_and_prompt_embeddings(case: Callable[[str], Case], name: str) -> None:
    assert case(name).script == case(name).golden["sequences"].tolist()
    assert len(case(name).masks) == len(case(name).golden["seg_hidden"])
    hidden = case(name).seg_hidden
    assert largest_error(hidden, case(name).golden["seg_hidden"]) < FEATURES
    assert largest_error(case(name).model.seg_prompts(hidden), case(name).golden["prompt_embed"]) < FEATURES


@pytest.mark.parametrize("name", SEGMENTED)
def test_sam2_pixels_are_upstreams(case: Callable[[str], Case], name: str) -> None:
    picture = case(name).prepared.picture
    assert picture
    assert largest_error(picture.sam_pixels()[None, :, ::16, ::16], case(name).golden["g0_s"]) == 0


@pytest.mark.parametrize("name", SEGMENTED)
def test_sam2_image_features(case: Callable[[str], Case], name: str) -> None:
    features = case(name).sam_features
    for level, maps in enumerate((features.stride4, features.stride8, features.embedding)):
        stride = 32 >> level
        assert largest_error(maps[:, ::8, ::stride, ::stride], case(name).golden[f"fpn{level}_s"]) < FEATURES


@pytest.mark.parametrize("name", SEGMENTED)
def test_predicted_iou_and_object_score(case: Callable[[str], Case], name: str) -> None:
    for row in range(len(case(name).proposals.iou)):
        golden = case(name).golden
        assert largest_error(case(name).proposals.iou[row : row + 1], golden[f"dec{row}_iou"]) < FEATURES
        assert largest_error(case(name).proposals.object_score[row : row + 1], golden[f"dec{row}_obj"]) < FEATURES


@pytest.mark.parametrize("name", SEGMENTED)
def test_low_resolution_mask_logits(case: Callable[[str], Case], name: str) -> None:
    for row, mask in enumerate(case(name).masks):
        assert largest_error(mask.logits[None, None, ::2, ::2], case(name).golden[f"fr{row}_lowres"]) < MASK_LOGITS


@pytest.mark.parametrize("name", SEGMENTED)
def test_masks_at_the_pictures_size(case: Callable[[str], Case], name: str) -> None:
    picture = case(name).prepared.picture
    assert picture
    for row, mask in enumerate(case(name).masks):
        expected = unpack(case(name).golden[f"mask{row}_bits"], case(name).golden[f"mask{row}_shape"])[0]
        assert iou(low_res_to_mask(mask.logits, 1024, picture.size), expected) >= MASK_IOU
