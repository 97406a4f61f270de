"""The original service's manner on the same weights: a threaded Flask app that answers one request at a time by
`generate()`, encodes the picture for SAM2 once for each `[SEG]`, and throws the masks away.

    python -m benchmarks.baseline PORT
"""

import base64
import io
import sys
import threading

import torch
from flask import Flask, Response, jsonify, request
from PIL import Image

from sa2va_bento.model.chat_template import IMAGE_CONTEXT, SEG
from sa2va_bento.model.grounding import decode_masks, encode_image
from sa2va_bento.model.internvl.image_processor import process_image
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import choose_placement, load_model
from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.processing.masks import low_res_to_mask
from sa2va_bento.processing.prompt import PictureTokens, build_prompt
from sa2va_bento.settings import load_settings


class Baseline:
    """One model, one request at a time."""

    def __init__(self) -> None:
        settings = load_settings()
        folder = resolve(settings.model_dir_or_id)
        model = load_model(folder, choose_placement(settings.device, settings.dtype))
        if not isinstance(model, InternVLSa2VA):
            raise TypeError("the baseline runs checkpoints of the InternVL layout")
        self.model = model
        self.tokenizer = PromptTokenizer.from_dir(folder)
        self.template = self.model.config.chat_template
        self.stop = sorted(self.tokenizer.ids_of([*self.template.stop_words, self.tokenizer.eos_token]))
        self.lock = threading.Lock()

    @torch.inference_mode()
    def answer(self, image: Image.Image, prompt: str) -> str:
        """Text only, as the original; the masks are made all the same."""
        model, prepared = self.model, process_image(self.model.config, image)
        tokens = PictureTokens(prepared.tile_count * model.config.tokens_per_tile)
        ids = torch.tensor([self.tokenizer.encode(build_prompt(self.template, prompt, tokens))])
        features = model.encode_tiles(torch.from_numpy(prepared.tiles())).flatten(0, 1)
        reply = model.language_model.generate(
            inputs_embeds=model.embed(ids, features, self.tokenizer.id_of(IMAGE_CONTEXT)),
            attention_mask=torch.ones_like(ids),
            max_new_tokens=2048,
            do_sample=False,
            eos_token_id=self.stop,
            pad_token_id=self.stop[0],
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        sequence = reply.sequences[0]
        for place in (sequence[:-1] == self.tokenizer.id_of(SEG)).nonzero().flatten().tolist():
            hidden = reply.hidden_states[place + 1][-1][0, -1:]
            encoded = encode_image(model.grounding_encoder, torch.from_numpy(prepared.sam_pixels())[None])
            best = decode_masks(model.grounding_encoder, encoded, model.seg_prompts(hidden))
            low_res_to_mask(best.logits[0], model.config.sam2_shape.image_size, image.size)
        return self.tokenizer.decode(sequence.tolist()).strip()


def make_app() -> Flask:
    baseline, app = Baseline(), Flask(__name__)

    @app.get("/readyz")
    def ready() -> Response:
        return jsonify({})

    @app.post("/process")
    def process() -> Response:
        fields = request.get_json()
        image = Image.open(io.BytesIO(base64.b64decode(fields["base64Image"]))).convert("RGB")
        with baseline.lock:
            return jsonify({"result": baseline.answer(image, fields["prompt"])})

    return app


if __name__ == "__main__":
    make_app().run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
