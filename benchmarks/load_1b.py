"""Loads a checkpoint of Sa2VA-1B's real shape on the CPU and asks it about a picture.

    python -m benchmarks.load_1b [--folder DIR] [--shards 1] [--dtype float32]

The checkpoint has seeded random weights in the published layout, bfloat16 (2.2 GiB in `--folder`, or in a temporary
one), and the embedded model's tokenizer. Its head is taught one thing: to begin the answer with `[SEG]`, so that SAM2
has work too. What is measured runs in processes of their own: reading the file(s), with the page cache and with it
dropped; loading, with the peak of resident memory; and one answer.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from benchmarks.gpu import published_config, seeded_model
from benchmarks.pictures import picture
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.loading.weight_names import to_published
from sa2va_bento.model.loading.weights import weight_files
from sa2va_bento.predictor import Predictor
from sa2va_bento.processing.processor import Processor
from sa2va_bento.settings import NANO_PATH, Settings
from sa2va_bento.types import PredictRequest

MIB = 2**20
QUESTION = PredictRequest("Please segment the red circle.", picture(1, (448, 448)), max_new_tokens=8)


def write(folder: Path, shards: int, size: str = "1b") -> None:
    """The checkpoint, in so many files."""
    config = published_config(size)
    (folder / "config.json").write_text(json.dumps(config))
    for file in NANO_PATH.glob("*token*.json"):
        shutil.copy(file, folder)
    model = seeded_model(InternVLConfig.from_dict(config), torch.device("cpu"), torch.bfloat16)
    teach(model, PromptTokenizer.from_dir(folder))
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in to_published(model.state_dict(), model.config.weight_rules).items()
    }
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=-(-total // shards) + 300 * MIB * (shards > 1))
    for name, members in split.filename_to_tensors.items():
        save_file({member: tensors[member] for member in members}, folder / name, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def teach(model: InternVLSa2VA, tokenizer: PromptTokenizer) -> None:
    """Makes the head's row of `[SEG]` what the language model feels at the end of the question."""
    sequence = Processor(model.config, tokenizer, Settings()).prepare(QUESTION)
    runner = Runner(model, tokenizer.id_of("<IMG_CONTEXT>"), Limits(slots=1, context=1024))
    felt: list[torch.Tensor] = []
    hook = model.language_model.lm_head.register_forward_pre_hook(lambda _, inputs: felt.append(inputs[0]))
    runner.encode([sequence])
    runner.prefill([sequence], sequence.unread)
    hook.remove()
    model.language_model.lm_head.weight[tokenizer.id_of("[SEG]")] = felt[0][0]


def read_s(files: list[Path], is_cold: bool) -> float:
    """Seconds to read files into one buffer."""
    buffer, spent = bytearray(16 * MIB), 0.0
    for path in files:
        with path.open("rb", buffering=0) as file:
            if is_cold:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while file.readinto(buffer):
                pass
            spent += time.perf_counter() - start
    return spent


def load(folder: Path, dtype: str, is_cold: bool) -> dict[str, Any]:
    """Loads the model: seconds, and resident memory at its peak beyond the model and what the process had before."""
    if is_cold:
        read_s(weight_files(folder), is_cold=True)
        for path in weight_files(folder):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resident_mib()
    start = time.perf_counter()
    model = load_model(folder, Placement(torch.device("cpu"), getattr(torch, dtype)))
    spent = time.perf_counter() - start
    tensors = (*model.parameters(), *model.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
    return {"load_s": spent, "model_mib": size, "beyond_model_mib": peak_mib() - before - size}


def answer(folder: Path, dtype: str) -> dict[str, Any]:
    """One answer of the whole predictor."""
    settings = Settings(model_path=str(folder), dtype=dtype, slots=1, context=1024, feature_cache_mb=64)  # type: ignore[arg-type]
    predictor = Predictor.load(settings)
    start = time.perf_counter()
    found = predictor.predict(QUESTION)
    predictor.close()
    masks = [list(segment.mask.shape) for segment in found.segments]
    return {"answer_s": time.perf_counter() - start, "tokens": found.usage.completion_tokens, "masks": masks}


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def peak_mib() -> float:
    """The high water mark of this program (what `getrusage` gives is inherited from the parent)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measured(step: str, folder: Path, dtype: str) -> dict[str, Any]:
    """A step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load_1b", "--folder", str(folder), "--dtype", dtype, "--step", step]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


STEPS = {
    "load": lambda folder, dtype: load(folder, dtype, is_cold=False),
    "load-cold": lambda folder, dtype: load(folder, dtype, is_cold=True),
    "answer": answer,
}


def report(folder: Path, dtype: str) -> None:
    files = weight_files(folder)
    sizes = [path.stat().st_size / MIB for path in files]
    cold, warm = read_s(files, is_cold=True), min(read_s(files, is_cold=False) for _ in range(3))
    print(f"{len(files)} file(s), {sum(sizes):.0f} MiB, the largest {max(sizes):.0f}")
    print(f"reading: {cold:.2f} s cold, {warm:.2f} s warm")
    for step, read in (("load-cold", cold), ("load", warm)):
        found = measured(step, folder, dtype)
        beyond = found["beyond_model_mib"] / max(sizes)
        print(f"{step} to {dtype}: {found['load_s']:.2f} s, {found['load_s'] / read:.2f} of reading; model", end=" ")
        print(f"{found['model_mib']:.0f} MiB, {found['beyond_model_mib']:.0f} beyond it ({beyond:.2f} of a file)")
    print("answer:", measured("answer", folder, dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments.folder, arguments.dtype)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            write(folder, arguments.shards)
        report(folder, arguments.dtype)


if __name__ == "__main__":
    main()
