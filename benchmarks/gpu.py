"""What the engine reaches on a GPU, with seeded random weights of the real shapes, each figure beside its roofline.

    python -m benchmarks.gpu [--size 1b] [--out FOLDER]                     # on a CUDA device; FOLDER defaults to $OUT
    python -m benchmarks.gpu --size tiny --device cpu --requests 4          # the same code, to see that it runs

Decode is bound by reading the weights and the cache once a step: bytes / bandwidth. Encoding and prefill are bound by
arithmetic: FLOPs / peak, the FLOPs counted while they run. Bandwidth and peak are those that the device reaches here in
a copy and in a large matmul. Pixels are prepared beforehand; no cache of features or beginnings is on.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.one_by_one import answer
from benchmarks.pictures import picture
from sa2va_bento.engine.engine import Engine, Outcome
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, Sequence
from sa2va_bento.engine.vision import VisionRunner
from sa2va_bento.model.grounding import encode_image
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.image_processor import process_image
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.memory import kv_elements
from sa2va_bento.types import Picture, Pixels

Figures = dict[str, float]
IMAGE_TOKEN = 5
VIT_300M = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
QWEN2_05B = {
    "vocab_size": 151_680,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
TINY_VIT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
TINY_LLM = {**QWEN2_05B, "vocab_size": 512, "hidden_size": 56, "intermediate_size": 64, "num_hidden_layers": 2}
TINY_SAM2 = {"embed_dim": 16, "num_heads": 1, "stages": [1, 2, 3, 1], "global_att_blocks": [4]}
SIZES: dict[str, tuple[dict[str, int], dict[str, int], dict[str, Any]]] = {
    "1b": (VIT_300M, QWEN2_05B, {}),
    "tiny": (TINY_VIT, TINY_LLM, TINY_SAM2),
}
REPLY = 64  # tokens of a reply where whole requests are measured


def published_config(size: str) -> dict[str, Any]:
    """A `config.json` in the published layout."""
    vision, llm, sam2 = SIZES[size]
    common = {"hidden_act": "gelu", "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "qkv_bias": True}
    return {
        "architectures": ["Sa2VAChatModel"],
        "template": "qwen_chat",
        "vision_config": {**vision, **common, "qk_normalization": False, "image_size": 448, "patch_size": 14},
        "llm_config": {
            **llm,
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "max_position_embeddings": 32768,
        },
        "sa2va_native": {"sam2": sam2},
    }


def config_of(size: str) -> InternVLConfig:
    return InternVLConfig.from_dict(published_config(size))


def seeded_model(config: InternVLConfig, device: torch.device, dtype: torch.dtype) -> InternVLSa2VA:
    torch.manual_seed(0)
    with device:
        model = InternVLSa2VA(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    nn.init.normal_(model.language_model.get_input_embeddings().weight, std=3)  # replies wander, and do not repeat
    return model.to(dtype).eval().requires_grad_(False)


def attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any) -> int:
    """Of shapes (B, heads, T, D), or (T, heads, D) where lengths vary, whose longest is the sixth argument from there;
    the counter's own knows of no heads that share keys."""
    if len(query) == 3:
        return 4 * query[1] * query[0] * rest[3] * query[2]
    return 4 * query[0] * query[1] * query[2] * key[2] * query[3]


ATTENTIONS: dict[Any, Any] = {
    getattr(torch.ops.aten, name): attention_flops
    for name in (
        "_flash_attention_forward",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
}


class Clock:
    """Times work that may run asynchronously."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"

    def now(self) -> float:
        if self._is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def median_s(self, work: Callable[[], object], rounds: int = 10, warm_up: int = 3) -> float:
        spent = []
        for number in range(warm_up + rounds):
            start = self.now()
            work()
            if number >= warm_up:
                spent.append(self.now() - start)
        return statistics.median(spent)


class Bench:
    def __init__(self, size: str, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.clock = device, Clock(device)
        self.config = config_of(size)
        self.model = seeded_model(self.config, device, dtype)
        self.limits = Limits(slots=32, context=1024, max_prefill=4096)
        self.runner = Runner(self.model, IMAGE_TOKEN, self.limits)
        self.element = torch.finfo(dtype).bits // 8
        self.bandwidth, self.peak = self._bandwidth(), self._peak_flops()

    def sequence(self, number: int, image: Picture | None, reply: int = 600, seg_id: int = -1) -> Sequence:
        tokens = image.tile_count * self.config.tokens_per_tile if image else 0
        ids = (10 + number % 7, *[IMAGE_TOKEN] * tokens, *(20 + (number + i) % 11 for i in range(24)))
        return Sequence(ids, _picture_input(image) if image else None, reply, frozenset(), seg_id=seg_id)

    def decode(self, batch: int, steps: int = 50) -> Figures:
        """Tokens a second of that many replies."""
        sequences = [self.sequence(number, None) for number in range(batch)]
        for sequence, token in zip(sequences, self.runner.prefill(sequences, 10**6), strict=True):
            sequence.prefilled = len(sequence.prompt_ids)
            sequence.append(token or 0)

        def run() -> None:
            for _ in range(steps):
                for sequence, token in zip(sequences, self.runner.decode(sequences), strict=True):
                    sequence.append(token)

        spent = self.clock.median_s(run, rounds=5, warm_up=1)
        length = len(sequences[0].prompt_ids) + len(sequences[0].output_ids)
        for sequence in sequences:
            self.runner.release(sequence)
        read = self.llm_bytes() + self.element * batch * length * kv_elements(self.config)
        return {"measured": batch * steps / spent, "roofline": batch * self.bandwidth / read}

    def first_token_ms(self) -> Figures:
        """From the pixels of a 448 x 448 picture to the first token."""
        image = pictures(self.config, 1)[0]

        def run() -> None:
            sequence = self.sequence(1, image)
            self.runner.encode([sequence])
            self.runner.prefill([sequence], 10**6)
            self.runner.release(sequence)

        return {"measured": 1e3 * self.clock.median_s(run), "roofline": 1e3 * self._flops(run) / self.peak}

    @torch.inference_mode()
    def sam2_encode_ms(self) -> Figures:
        """One picture."""
        side = self.config.sam2_shape.image_size
        pixels = torch.randn(1, 3, side, side, device=self.device, dtype=self.runner.dtype)
        run = lambda: self.runner.vision.encode_image(pixels)  # noqa: E731
        flops = self._flops(lambda: encode_image(self.model.grounding_encoder, pixels))
        return {"measured": 1e3 * self.clock.median_s(run), "roofline": 1e3 * flops / self.peak}

    def requests_per_s(self, count: int, alone: int) -> tuple[Figures, Figures]:
        """Questions about different pictures, of REPLY tokens and (nearly all) with one mask: `count` at once in the
        engine, and `alone` of them one by one in the original's manner."""
        images = pictures(self.config, count)
        replies = self._serve([self.sequence(n, image, REPLY) for n, image in enumerate(images)])
        segs = [_token_that_occurs_once(reply.output_ids) for reply in replies]
        asked = [lambda n=n: self.sequence(n, images[n], REPLY, segs[n]) for n in range(count)]
        self._serve([make() for make in asked])  # warm-up: graphs are recorded when a stage is first computed
        start = self.clock.now()
        masks = sum(len(reply.masks) for reply in self._serve([make() for make in asked]))
        together = count / (self.clock.now() - start)
        answer(self.model, asked[0](), IMAGE_TOKEN)  # warm-up
        start = self.clock.now()
        masks_alone = sum(answer(self.model, make(), IMAGE_TOKEN) for make in asked[:alone])
        one_by_one = alone / (self.clock.now() - start)
        flops = self._flops(lambda: answer(self.model, asked[0](), IMAGE_TOKEN, reply=2))
        step_bytes = self.llm_bytes() + self.element * count * len(asked[0]().prompt_ids) * kv_elements(self.config)
        roofline = 1 / (flops / self.peak + REPLY * step_bytes / self.bandwidth / count)
        return (
            {"measured": together, "roofline": roofline, "masks_a_request": masks / count},
            {"measured": one_by_one, "masks_a_request": masks_alone / alone},
        )

    def llm_bytes(self) -> int:
        """Weights that a step reads: all of the language model but the embedding table."""
        model = self.model.language_model
        total = sum(parameter.numel() for parameter in model.parameters())
        return self.element * (total - model.get_input_embeddings().weight.numel())

    def _serve(self, sequences: list[Sequence]) -> list[Generation]:
        outcomes: dict[int, Outcome] = {}
        emit = lambda sequence, outcome: outcomes.update({id(sequence): outcome})  # noqa: E731
        engine = Engine(self.runner, emit, Scheduler(self.limits))
        for sequence in sequences:
            engine.add(sequence)
        while engine.has_work:
            engine.step()
        found = [outcomes[id(sequence)] for sequence in sequences]
        answered = [outcome for outcome in found if isinstance(outcome, Generation)]
        if len(answered) < len(found):
            raise SystemExit(f"{len(found) - len(answered)} requests failed")
        return answered

    def _flops(self, work: Callable[[], object]) -> float:
        vision, self.runner.vision = self.runner.vision, VisionRunner(self.model, has_graphs=False)  # else uncounted
        try:
            with FlopCounterMode(display=False, custom_mapping=ATTENTIONS) as counter:
                work()
        finally:
            self.runner.vision = vision
        return float(counter.get_total_flops())

    def _bandwidth(self) -> float:
        """Bytes a second that a copy moves."""
        source = torch.empty(2**28 if self.device.type == "cuda" else 2**24, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.clock.median_s(lambda: target.copy_(source))

    def _peak_flops(self) -> float:
        """FLOPs a second of a large matmul."""
        side = 8192 if self.device.type == "cuda" else 512
        a = torch.randn(side, side, device=self.device, dtype=self.runner.dtype)
        return 2 * side**3 / self.clock.median_s(lambda: a @ a)


def pictures(config: InternVLConfig, count: int) -> list[Picture]:
    """Different pictures of 448 x 448, their pixels made."""
    made = [process_image(config, picture(number, (448, 448))) for number in range(count)]
    for image in made:
        image.tiles()
        image.sam_pixels()
    return made


def _token_that_occurs_once(reply: tuple[int, ...]) -> int:
    """A token that can stand for `[SEG]` in a reply of random weights; -1 where each occurs again."""
    return next((token for token in reply[:-1] if reply.count(token) == 1), -1)


def _picture_input(image: Picture) -> Picture:
    def tiles() -> Any:
        return image.tiles()

    def sam_pixels() -> Any:
        return image.sam_pixels()

    return Picture(image.key, image.tiles_key, image.tile_count, Pixels(tiles), Pixels(sam_pixels), image.grids)


def measure(bench: Bench, requests: int) -> dict[str, Figures]:
    together, alone = bench.requests_per_s(requests, min(requests, 8))
    return {
        "decode tokens/s, batch 1": bench.decode(1),
        "decode tokens/s, batch 32": bench.decode(32),
        "first token of 448 x 448, ms": bench.first_token_ms(),
        "SAM2 encode, ms": bench.sam2_encode_ms(),
        f"requests/s, {requests} at once": together,
        "requests/s, one by one": alone,
        "copy, GB/s": {"measured": bench.bandwidth / 1e9},
        "matmul, TFLOP/s": {"measured": bench.peak / 1e12},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = Bench(arguments.size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    figures = measure(bench, arguments.requests)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {arguments.size}, CUDA graphs: {bench.runner.graphs is not None}")
    for key, value in figures.items():
        print(f"{key:30}", ", ".join(f"{kind} {number:.1f}" for kind, number in value.items()))
    if arguments.out:
        about = {"device": name, "torch": torch.__version__, "size": arguments.size}
        path = Path(arguments.out) / "gpu.json"
        path.write_text(json.dumps({**about, "cuda_graphs": bench.runner.graphs is not None, **figures}, indent=1))


if __name__ == "__main__":
    main()
