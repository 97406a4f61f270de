"""The original's manner with a video, for whoever measures against it: `python -m benchmarks.video_one_by_one FILE N`
prints the seconds that N objects take.

One request after the other by `generate()`-like steps; for each `[SEG]` the features of the first five frames are made
twice and those of each later frame once, its masks are scaled to the video's size and cut. Frames are decoded into
memory at once, as upstream's scripts do, and all processors may be used.
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image
from transformers.cache_utils import DynamicCache

from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits
from sa2va_bento.model.chat_template import CHATML, IMAGE_CONTEXT, SEG
from sa2va_bento.model.grounding import ImageFeatures, best_masks, decode_unprompted, encode_image
from sa2va_bento.model.internvl.image_processor import tile_pixels
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import choose_placement, load_model
from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.pixels import sam_pixels
from sa2va_bento.model.tracking import (
    FRAMES_SEEN,
    MemoryBank,
    attend_to_memory,
    condition_frame,
    remember,
)
from sa2va_bento.processing.masks import low_res_to_mask
from sa2va_bento.processing.prompt import PictureTokens, build_prompt
from sa2va_bento.settings import Settings

PROMPT = "Please segment the red circle."
MOST_TOKENS = 16


def prompt_of(model: InternVLSa2VA, tokenizer: PromptTokenizer, frames: list[Image.Image]) -> torch.Tensor:
    """The embedding (1, d) of the reply's `[SEG]`."""
    side = model.config.tiles.image_size
    tiles = torch.stack([tile_pixels(frame.resize((side, side), Image.Resampling.BICUBIC)) for frame in frames])
    tokens = model.encode_tiles(tiles).flatten(0, 1)
    shown = PictureTokens(model.config.tokens_per_tile, frames=len(frames))
    ids = torch.tensor([tokenizer.encode(build_prompt(CHATML, PROMPT, shown))])
    embeddings, cache = model.embed(ids, tokens, tokenizer.id_of(IMAGE_CONTEXT)), DynamicCache()
    said = -1
    for _ in range(MOST_TOKENS):
        hidden = model.language_body(embeddings, cache)[:, -1]
        if said == tokenizer.id_of(SEG):
            return model.seg_prompts(hidden)
        said = int(model.language_head(hidden).argmax(-1))
        embeddings = model.embed_tokens(torch.tensor([[said]]))
    raise SystemExit("the model names nothing")


def follow(model: InternVLSa2VA, frames: list[Image.Image], prompt: torch.Tensor) -> None:
    """One object through the clip, in upstream's order of work."""
    sam, side = model.grounding_encoder, model.config.sam2_shape.image_size
    bank, size = MemoryBank.of(sam, len(frames)), frames[0].size

    def features(index: int) -> ImageFeatures:
        return encode_image(sam, sam_pixels(frames[index], side)[None])

    for index in range(min(FRAMES_SEEN, len(frames))):
        features(index)  # upstream makes them once for the prompt and once for the memory
        tracked = condition_frame(sam, index, features(index), prompt)
        bank.conditioning[index] = tracked.memory
        low_res_to_mask(tracked.masks.logits[0], side, size)
    for index in range(FRAMES_SEEN, len(frames)):
        found = features(index)
        best = best_masks(decode_unprompted(sam, found, attend_to_memory(sam, index, found.embedding, bank)))
        bank.add(index, remember(sam, found, best))
        low_res_to_mask(best.logits[0], side, size)


@torch.no_grad()
def main() -> None:
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    settings = Settings()
    folder = resolve(settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
    model = load_model(folder, choose_placement(settings.device, settings.dtype))
    assert isinstance(model, InternVLSa2VA)
    tokenizer = PromptTokenizer.from_dir(folder)
    began = time.perf_counter()
    frames = [frame.image for frame in VideoFile(path, VideoLimits(10**8, 10**6)).frames()]
    for _ in range(count):
        follow(model, frames, prompt_of(model, tokenizer, frames[:FRAMES_SEEN]))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
