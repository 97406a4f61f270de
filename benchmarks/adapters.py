"""Adapters by name: rows of three of them and of the model in one batch, beside the model alone.

    python -m benchmarks.adapters [--rank 16] [--seconds 10] [--rounds 5] [--at-once 16]

The adapters are LoRA of every projection of the embedded model's layers, whose B is zero: what they compute is all
computed, and the replies are the model's own, so that both sides write the same tokens. Each side is the same process
at another moment: rounds of the model alone and of the mixture take turns. Pictures are new in every request, or (the
second table) one that the caches know, so that nearly all that is left is the language model.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.pictures import picture
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import NANO_PATH, Settings
from sa2va_bento.types import Prediction, PredictRequest

PROMPT = "Please describe the image."
NAMES = ("a", "b", "c")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(folder: Path, rank: int) -> None:
    """LoRA of every projection of the language model's layers."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(NANO_PATH / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if name.startswith("language_model.") and module.endswith(PROJECTIONS) and name.endswith(".weight"):
            tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, weight.shape[1]) / weight.shape[1]
            tensors[f"base_model.model.{module}.lora_B.weight"] = torch.zeros(weight.shape[0], rank)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(PROJECTIONS)}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def rate(predictor: Predictor, requests: Iterator[PredictRequest], at_once: int, seconds: float) -> float:
    """Answers a second, so many always under way."""
    window: deque[Future[Prediction]] = deque()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        while len(window) < at_once:
            window.append(predictor.submit(next(requests)))
        window.popleft().result()
        done += 1
    found = done / (time.perf_counter() - start)
    for future in window:
        future.result()
    return found


def requests_of(names: tuple[str | None, ...], image: Callable[[int], Image.Image]) -> Iterator[PredictRequest]:
    number = 0
    while True:
        yield PredictRequest(PROMPT, image(number), adapter=names[number % len(names)])
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=16)
    args = parser.parse_args()
    drawn = [picture(number, (640, 480)) for number in range(400)]
    kinds: dict[str, Callable[[int], Image.Image]] = {
        "new pictures": lambda number: drawn[number % len(drawn)],
        "one picture": lambda number: drawn[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            write_adapter(Path(folder) / name, args.rank)
        listed = ",".join(f"{name}={folder}/{name}" for name in NAMES)
        for kind, image in kinds.items():
            cache = 0.0 if kind == "new pictures" else "auto"
            plain = Settings(max_queue=1000, feature_cache_mb=cache, prefix_cache_mb=cache)
            with_adapters = Predictor.load(plain.model_copy(update={"adapters": listed}))
            without = Predictor.load(plain)
            sides = {
                "no adapters": (without, (None,)),
                "base of four": (with_adapters, (None,)),
                "one adapter": (with_adapters, ("a",)),
                "three and base": (with_adapters, (None, *NAMES)),
            }
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side, (predictor, names) in sides.items():
                    rates[side].append(rate(predictor, requests_of(names, image), args.at_once, args.seconds))
            base = statistics.median(rates["no adapters"])
            print(f"{kind}, rank {args.rank}, {args.at_once} at once")
            for side, found in rates.items():
                middle = statistics.median(found)
                print(f"  {side:<16}{middle:>8.1f} answers/s {middle / base:>6.2f}", flush=True)
            with_adapters.close()
            without.close()


if __name__ == "__main__":
    main()
