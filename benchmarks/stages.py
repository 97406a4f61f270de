"""Costs inside the engine, and around it.

    python -m benchmarks.stages

- grounding: a reply with 8 `[SEG]` against one with 1, the picture's features not cached;
- first token: the second question about a picture against the first;
- around the engine: what HTTP, BentoML, decoding and encoding add to a request, over a keep-alive connection.
"""

import http.client
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.compare import free_port, running
from benchmarks.pictures import encoded, picture, questions
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.model.chat_template import IMAGE_CONTEXT
from sa2va_bento.model.loading.checkpoint import choose_placement, load_model
from sa2va_bento.model.loading.hub import resolve
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.processing.processor import Processor
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.types import PredictRequest

ROUNDS = 20


def median_ms(measure: Callable[[int], float], rounds: int = ROUNDS) -> float:
    measure(-1)
    return 1e3 * statistics.median(measure(number) for number in range(rounds))


class Bench:
    """A runner without a thread, so that stages can be timed one by one."""

    def __init__(self, settings: Settings) -> None:
        folder = resolve(settings.model_dir_or_id)
        self.model = load_model(folder, choose_placement(settings.device, settings.dtype))
        tokenizer = PromptTokenizer.from_dir(folder)
        self.image_token_id = tokenizer.id_of(IMAGE_CONTEXT)
        self.pipeline = Processor(self.model.config, tokenizer, settings)
        self.runner = self.new_runner()

    def new_runner(self) -> Runner:
        return Runner(self.model, self.image_token_id, Limits(context=2048), 256 * 2**20, 64 * 2**20)

    def first_token(self, seed: int, *, seen: bool) -> float:
        """Seconds from a prepared request to its first token; `seen`: the picture was asked about before."""
        image = picture(seed)
        for prompt in ("How many circles are there?", "What color is the square?")[: 2 if seen else 1]:
            sequence = self.pipeline.prepare(PredictRequest(prompt, image))
            start = time.perf_counter()
            sequence.skip(*self.runner.load_prefixes([sequence]))
            if not sequence.is_encoded:
                self.runner.encode([sequence])
            self.runner.prefill([sequence], 4096)
            spent = time.perf_counter() - start
            self.runner.release(sequence)
        return spent

    def grounding(self, seed: int, masks: int) -> float:
        """Seconds of the grounding stage of a reply with that many `[SEG]`."""
        sequence = self.pipeline.prepare(PredictRequest("x", picture(seed)))
        assert sequence.picture
        sequence.picture.sam_pixels()
        states = torch.randn(masks, self.model.config.llm.hidden_size)
        self.runner._state(sequence).seg_hidden = list(states)
        start = time.perf_counter()
        self.runner.ground([sequence])
        spent = time.perf_counter() - start
        self.runner.release(sequence)
        return spent


def around_the_engine() -> float:
    """Milliseconds that a request spends outside the engine's stages, at the median of 200."""
    port = free_port()
    bentoml = str(Path(sys.executable).parent / "bentoml")
    spent = []
    with running([bentoml, "serve", "service:Sa2VA", "--port", str(port)], port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)  # adds the least of its own
        mix = [question for question in questions(8, 1000) if question.kind == "short answer"][:220]
        for question in mix:
            body = json.dumps({"base64Image": question.base64_image, "prompt": question.prompt})
            start = time.perf_counter()
            connection.request("POST", "/process", body, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            wall = 1e3 * (time.perf_counter() - start)
            stages = json.loads(answer)["timings_ms"]
            spent.append(
                wall - sum(stages[name] for name in ("queue", "preprocess", "encode", "prefill", "decode", "segment"))
            )
    return statistics.median(spent[20:])


def main() -> None:
    bench, shift = Bench(load_settings()), random.randint(0, 10**6)
    one = median_ms(lambda n: bench.grounding(shift + n, 1))
    eight = median_ms(lambda n: bench.grounding(shift + 1000 + n, 8))
    print(f"grounding: 1 [SEG] {one:.1f} ms, 8 [SEG] {eight:.1f} ms, ratio {eight / one:.2f}")
    first = median_ms(lambda n: bench.first_token(shift + 2000 + n, seen=False))
    second = median_ms(lambda n: bench.first_token(shift + 3000 + n, seen=True))
    print(f"first token: first question {first:.1f} ms, second {second:.1f} ms, ratio {second / first:.2f}")
    size = len(encoded(picture(0))) / 1024
    print(f"around the engine ({size:.0f} KiB of base64): {around_the_engine():.1f} ms a request")


if __name__ == "__main__":
    main()
