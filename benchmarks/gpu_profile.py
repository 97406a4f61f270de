"""Where the time of a GPU goes: of one decode step, of a first token and of SAM2, what share is kernels, and which.

    python -m benchmarks.gpu_profile [--size 1b] [--out FOLDER]

`wall` is the median of runs without the profiler, `kernels` what the device was busy in one run under it. Where wall is
much more than kernels, the host is what takes long.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import SIZES, Bench, pictures
from sa2va_bento.model.grounding import decode_masks, encode_image

TOP = 12


def stages(bench: Bench) -> dict[str, Callable[[], object]]:
    """One run of each stage."""
    side = bench.config.sam2_shape.image_size
    pixels = torch.randn(1, 3, side, side, device=bench.device, dtype=bench.runner.dtype)
    tiles = bench.runner._to_device([pictures(bench.config, 1)[0].tiles()])
    features = encode_image(bench.model.grounding_encoder, pixels)
    prompts = torch.randn(1, bench.config.sam2_shape.d_model, device=bench.device, dtype=bench.runner.dtype)
    image = pictures(bench.config, 1)[0]

    def prefill() -> None:
        sequence = bench.sequence(1, image)
        bench.runner.encode([sequence])
        bench.runner.prefill([sequence], 10**6)
        bench.runner.release(sequence)

    found: dict[str, Callable[[], object]] = {
        "SAM2 encode, eager": lambda: encode_image(bench.model.grounding_encoder, pixels),
        "SAM2 encode": lambda: bench.runner.vision.encode_image(pixels),
        "SAM2 decode, 1 mask, eager": lambda: decode_masks(bench.model.grounding_encoder, features, prompts),
        "SAM2 decode, 1 mask": lambda: bench.runner.vision.decode_masks(features, prompts),
        "ViT, 1 tile, eager": lambda: bench.model.encode_tiles(tiles),
        "ViT, 1 tile": lambda: bench.runner.vision.encode_pictures(tiles, [image.grids]),
        "first token": prefill,
    }
    return found | {f"decode step, batch {batch}": decode_step(bench, batch) for batch in (1, 32)}


def decode_step(bench: Bench, batch: int) -> Callable[[], object]:
    """Of sequences of some 300 tokens."""
    sequences = [bench.sequence(number, pictures(bench.config, 1)[0]) for number in range(batch)]

    def run() -> None:
        if sequences[0].prefilled == 0:
            bench.runner.encode(sequences)
            for sequence, token in zip(sequences, bench.runner.prefill(sequences, 10**6), strict=True):
                sequence.prefilled = len(sequence.prompt_ids)
                sequence.append(token or 0)
        bench.runner.decode(sequences)

    return run


@torch.inference_mode()
def report(bench: Bench) -> str:
    lines: list[str] = []
    for name, run in stages(bench).items():
        wall = 1e3 * bench.clock.median_s(run)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            run()
            bench.clock.now()
        kernels = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
        busy = sum(event.self_device_time_total for event in kernels) / 1e3
        launched = sum(event.count for event in kernels)
        lines.append(f"{name}: wall {wall:.2f} ms, kernels {busy:.2f} ms ({busy / wall:.0%}), {launched} of them")
        for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:TOP]:
            share = event.self_device_time_total / 1e3 / busy
            lines.append(
                f"    {share:5.1%} {event.self_device_time_total / 1e3:7.3f} ms {event.count:5d} x {event.key[:90]}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    text = report(Bench(arguments.size, device, torch.bfloat16 if device.type == "cuda" else torch.float32))
    print(text)
    if arguments.out:
        (Path(arguments.out) / "gpu_profile.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
