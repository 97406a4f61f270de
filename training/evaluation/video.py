"""Clips through the model's own parts: the first frames and a request to the language model, its `[SEG]` to tracking.

J is the mean over the frames of a clip of the IoU at the clip's own size; where the object is hidden or gone, an empty
mask is right (as in DAVIS).
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count as count_from
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.cache_utils import DynamicCache

from sa2va_bento.model.base import parameter_dtype
from sa2va_bento.model.chat_template import CHATML, IMAGE_CONTEXT, SEG
from sa2va_bento.model.grounding import ImageFeatures, encode_image
from sa2va_bento.model.internvl.image_processor import tile_pixels
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import choose_placement, load_model
from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.pixels import sam_pixels
from sa2va_bento.model.tracking import FRAMES_SEEN, track
from sa2va_bento.processing.masks import low_res_to_mask
from sa2va_bento.processing.prompt import PictureTokens, build_prompt
from sa2va_bento.settings import Settings
from training.data.clips import Clip, make_clip
from training.data.shapes import BASIC
from training.evaluation.scoring import mask_iou
from training.evaluation.tasks import SEGMENT
from training.questions.referring import Item, name_by_words

FRAMES, LONGEST = 24, 640
AT_ONCE = 8  # clips that are tracked together
MAX_REPLY = 12

Outcome = tuple[str, int, float, str, str]
"""Kind, seed, J, prompt, reply."""
Segmented = tuple[str, np.ndarray | None]
"""The reply, and the masks (T, H, W) of its first `[SEG]`, None without one."""


class Films:
    """A checkpoint that is asked about clips."""

    def __init__(self, settings: Settings) -> None:
        folder = resolve(settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
        model = load_model(folder, choose_placement(settings.device, settings.dtype))
        assert isinstance(model, InternVLSa2VA)
        self.model, self.tokenizer = model, PromptTokenizer.from_dir(folder)
        self.seg = self.tokenizer.id_of(SEG)

    @torch.inference_mode()
    def segment(self, clips: Sequence[Clip], prompts: Sequence[str]) -> list[Segmented]:
        """Of each clip, which are tracked together."""
        answers = [self._answer(clip.images[:FRAMES_SEEN], prompt) for clip, prompt in zip(clips, prompts, strict=True)]
        rows = [row for row, (_, segs) in enumerate(answers) if len(segs)]
        masks = self._tracked([clips[row].images for row in rows], [answers[row][1][:1] for row in rows])
        found = dict(zip(rows, masks, strict=True))
        return [(reply, found.get(row)) for row, (reply, _) in enumerate(answers)]

    def _tracked(self, films: Sequence[tuple[Image.Image, ...]], segs: Sequence[Tensor]) -> list[np.ndarray]:
        """The masks (T, H, W) of each film, all of T frames, by its prompt (1, d)."""
        if not films:
            return []
        sam, side = self.model.grounding_encoder, self.model.config.sam2_shape.image_size
        dtype = parameter_dtype(self.model)

        def features_of(frame: int) -> ImageFeatures:
            return encode_image(sam, torch.stack([sam_pixels(film[frame], side) for film in films]).to(dtype))

        tracked = track(sam, features_of, len(films[0]), torch.cat(list(segs)), torch.arange(len(films)))
        masks: list[dict[int, np.ndarray]] = [{} for _ in films]
        for found in tracked:
            for row, film in enumerate(films):
                masks[row][found.frame] = low_res_to_mask(found.masks.logits[row], side, film[0].size)
        return [np.stack([of_film[frame] for frame in sorted(of_film)]) for of_film in masks]

    def _answer(self, images: tuple[Image.Image, ...], prompt: str) -> tuple[str, Tensor]:
        """Greedy: the reply's text and the embeddings (N, d) of its `[SEG]`s."""
        model, side = self.model, self.model.config.tiles.image_size
        tiles = torch.stack([tile_pixels(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images])
        tokens = model.encode_tiles(tiles.to(parameter_dtype(model))).flatten(0, 1)
        shown = PictureTokens(model.config.tokens_per_tile, frames=len(images))
        ids = torch.tensor([self.tokenizer.encode(build_prompt(CHATML, prompt, shown))])
        embeddings = model.embed(ids, tokens, self.tokenizer.id_of(IMAGE_CONTEXT))
        cache, reply, segs = DynamicCache(), [], []
        for _ in range(MAX_REPLY):
            hidden = model.language_body(embeddings, cache)[:, -1]
            if reply and reply[-1] == self.seg:
                segs.append(hidden[0])
            token = int(model.language_head(hidden).argmax(-1))
            if token in self.tokenizer.ids_of(CHATML.stop_words):
                break
            reply.append(token)
            embeddings = model.embed_tokens(torch.tensor([[token]]))
        prompts = model.seg_prompts(torch.stack(segs)) if segs else torch.zeros(0)
        return self.tokenizer.decode(reply), prompts


def measure_clips(settings: Settings, count: int, first_seed: int) -> Iterator[Outcome]:
    """`count` clips with a question each."""
    films, asked = Films(settings), islice(_questions(first_seed), count)
    while group := list(islice(asked, AT_ONCE)):
        segmented = films.segment([clip for _, clip, _, _ in group], [prompt for *_, prompt in group])
        for (seed, clip, number, prompt), (reply, masks) in zip(group, segmented, strict=True):
            truth = clip.labels == number + 1
            kind = "stays" if truth.any((1, 2)).all() else "is hidden or leaves"
            yield kind, seed, j_mean(masks, truth), prompt, reply


def _questions(first_seed: int) -> Iterator[tuple[int, Clip, int, str]]:
    """Seed, clip, object and request, without end."""
    for seed in count_from(first_seed):
        clip = make_clip(seed, FRAMES, held_out=True, longest=LONGEST, words=BASIC)
        asked = _question(clip, random.Random(seed))
        if asked is not None:
            yield seed, clip, *asked


def _question(clip: Clip, rng: random.Random) -> tuple[int, str] | None:
    """An object of the clip and a request for it."""
    items = [Item(i, thing.color, thing.shape, 0, 0, 0, 0) for i, thing in enumerate(clip.things)]
    item = rng.choice(items)
    name = name_by_words(item, items, rng)
    return (item.number, rng.choice(SEGMENT).format(name)) if name else None


def j_mean(masks: np.ndarray | None, truth: np.ndarray) -> float:
    """Mean IoU over frames (T, H, W); 0 without masks."""
    if masks is None:
        return 0.0
    return float(np.mean([mask_iou(found, wanted) for found, wanted in zip(masks, truth, strict=True)]))
