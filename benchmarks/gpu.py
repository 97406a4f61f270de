"""What the engine reaches on a GPU, with seeded random weights of the real shapes, each figure beside its roofline.

    python -m benchmarks.gpu [--size 1b] [--out FILE.json]         # on a CUDA device
    python -m benchmarks.gpu --size tiny --device cpu              # the same code, to see that it runs

Decode is bound by reading the weights (and the cache) once a token: bytes / bandwidth. Encoding and prefill are bound
by arithmetic: FLOPs / peak. Bandwidth and peak are those that the device reaches here in a copy and in a large matmul.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.pictures import picture
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.scheduler import Limits
from sa2va_bento.engine.sequence import PictureInput, Sequence
from sa2va_bento.model.config import InternVLConfig
from sa2va_bento.model.grounding import encode_image
from sa2va_bento.model.internvl import InternVLSa2VA
from sa2va_bento.preprocess import PreparedPicture, prepare_picture

IMAGE_TOKEN, SEG, STOP = 5, 6, 7
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
SAM2_LARGE_FLOPS = 1.82e12  # an image, Hiera-L at 1024 pixels


def config_of(size: str) -> InternVLConfig:
    """A configuration in the published layout."""
    vision, llm, sam2 = SIZES[size]
    common = {"hidden_act": "gelu", "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "qkv_bias": True}
    return InternVLConfig.from_dict(
        {
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
    )


def seeded_model(config: InternVLConfig, device: torch.device, dtype: torch.dtype) -> InternVLSa2VA:
    torch.manual_seed(0)
    with device:
        model = InternVLSa2VA(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.to(dtype).eval().requires_grad_(False)


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
        self.runner = Runner(self.model, IMAGE_TOKEN, Limits(slots=32, context=1024), 0)
        self.element = torch.finfo(dtype).bits // 8

    def sequence(self, number: int, image: PreparedPicture | None, text: int = 24) -> Sequence:
        tokens = image.tile_count * self.config.tokens_per_tile if image else 0
        ids = (10 + number % 7, *[IMAGE_TOKEN] * tokens, *(20 + (number + i) % 11 for i in range(text)))
        return Sequence(ids, _picture_input(image) if image else None, 600, frozenset({STOP}), seg_id=SEG)

    def decode_tokens_per_s(self, batch: int, steps: int = 50) -> float:
        sequences = [self.sequence(number, None) for number in range(batch)]
        for sequence, token in zip(sequences, self.runner.prefill(sequences, 10**6), strict=True):
            sequence.prefilled = len(sequence.prompt_ids)
            sequence.append(token or 0)

        def run() -> None:
            for _ in range(steps):
                for sequence, token in zip(sequences, self.runner.decode(sequences), strict=True):
                    sequence.append(token)

        spent = self.clock.median_s(run, rounds=5, warm_up=1)
        for sequence in sequences:
            self.runner.release(sequence)
        return batch * steps / spent

    def first_token_s(self) -> float:
        image = prepare_picture(self.config, picture(1, (448, 448)))
        image.tiles()

        def run() -> None:
            sequence = self.sequence(1, image)
            self.runner.encode([sequence])
            self.runner.prefill([sequence], 10**6)
            self.runner.release(sequence)

        return self.clock.median_s(run)

    @torch.inference_mode()
    def sam2_encode_s(self) -> float:
        side = self.config.sam2_shape.image_size
        pixels = torch.randn(1, 3, side, side, device=self.device, dtype=self.runner.dtype)
        return self.clock.median_s(lambda: encode_image(self.model.grounding_encoder, pixels))

    def bandwidth(self) -> float:
        """Bytes a second that a copy moves."""
        source = torch.empty(2**28 if self.device.type == "cuda" else 2**24, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.clock.median_s(lambda: target.copy_(source))

    def peak_flops(self) -> float:
        """FLOPs a second of a large matmul."""
        side = 8192 if self.device.type == "cuda" else 512
        a = torch.randn(side, side, device=self.device, dtype=self.runner.dtype)
        return 2 * side**3 / self.clock.median_s(lambda: a @ a)

    def llm_bytes(self) -> int:
        """Weights that a token reads: all of the language model but the embedding table."""
        model = self.model.language_model
        total = sum(parameter.numel() for parameter in model.parameters())
        return self.element * (total - model.get_input_embeddings().weight.numel())


def _picture_input(image: PreparedPicture) -> PictureInput:
    def tiles() -> Any:
        return image.tiles().numpy()

    def sam_pixels() -> Any:
        return image.sam_pixels().numpy()

    return PictureInput(image.key, image.tiles_key, image.tile_count, tiles, sam_pixels, image.grids)


def measure(bench: Bench) -> dict[str, float]:
    bandwidth, peak = bench.bandwidth(), bench.peak_flops()
    return {
        "decode_tokens_per_s_batch_1": bench.decode_tokens_per_s(1),
        "decode_tokens_per_s_batch_32": bench.decode_tokens_per_s(32),
        "decode_roofline_batch_1": bandwidth / bench.llm_bytes(),
        "decode_roofline_batch_32": 32 * bandwidth / bench.llm_bytes(),
        "first_token_448_ms": 1e3 * bench.first_token_s(),
        "sam2_encode_ms": 1e3 * bench.sam2_encode_s(),
        "sam2_encode_roofline_ms": 1e3 * SAM2_LARGE_FLOPS / peak,
        "copy_gb_per_s": bandwidth / 1e9,
        "matmul_tflops": peak / 1e12,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = Bench(arguments.size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    figures = measure(bench)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {arguments.size}, CUDA graphs: {bench.runner.graphs is not None}")
    for key, value in figures.items():
        print(f"{key:32} {value:12.1f}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"device": name, "size": arguments.size, **figures}, indent=1))


if __name__ == "__main__":
    main()
