"""The original's manner of answering, for whoever measures against it: one request at a time by `generate()`, SAM2's
encoding of the picture made again for each `[SEG]`."""

import torch
from transformers import GenerationConfig

from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.model.base import parameter_dtype
from sa2va_bento.model.grounding import decode_masks, encode_image
from sa2va_bento.model.internvl.model import InternVLSa2VA


@torch.inference_mode()
def answer(model: InternVLSa2VA, sequence: Sequence, image_token_id: int, reply: int | None = None) -> int:
    """Answers a sequence about a picture with `reply` tokens (its own limit by default); how many masks it made."""
    picture = sequence.picture
    if picture is None:
        raise ValueError("the sequence has no picture")
    device, dtype = next(model.parameters()).device, parameter_dtype(model)
    ids = torch.tensor([sequence.prompt_ids], device=device)
    tiles = torch.from_numpy(picture.tiles()).to(device, dtype)
    tokens = reply or sequence.max_new_tokens
    generated = model.language_model.generate(
        inputs_embeds=model.embed(ids, model.encode_tiles(tiles).flatten(0, 1), image_token_id),
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=tokens, pad_token_id=0, output_hidden_states=True, return_dict_in_generate=True
        ),
    )
    places = (generated.sequences[0, :-1] == sequence.seg_id).nonzero().flatten().tolist()
    for place in places:
        hidden = generated.hidden_states[place + 1][-1][0, -1:]
        pixels = torch.from_numpy(picture.sam_pixels()).to(device, dtype)
        features = encode_image(model.grounding_encoder, pixels[None])
        decode_masks(model.grounding_encoder, features, model.seg_prompts(hidden)).logits.float().cpu()
    return len(places)
