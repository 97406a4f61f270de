"""Reads the goldens (`tests/golden`): upstream's outputs, and the recipes of the checkpoints and pictures."""

import importlib.util
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent.parent / "golden"
SETS = {
    "qwen2": ("qwen2", "300m"),
    "qwen2_vit6b": ("qwen2", "6b"),
    "internlm2": ("internlm2", "300m"),
    "qwen3": ("qwen3", "300m"),
}
"""Language model and vision tower of each golden set."""
TINY_SAM2 = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": [1, 2, 3, 1],
    "global_att_blocks": [4],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "window_spec": [8, 4, 16, 8],
    "image_size": 1024,
    "d_model": 256,
}


@cache
def module(name: str) -> ModuleType:
    """A recipe beside the goldens, e.g. `scripted/inputs`; its folder is no package."""
    spec = importlib.util.spec_from_file_location(f"golden_{name.replace('/', '_')}", GOLDEN / f"{name}.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_checkpoint(name: str, folder: Path) -> Path:
    """The name-seeded checkpoint of a golden set (`golden/README.md`), in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    keys: dict[str, list[int]] = json.loads((GOLDEN / name / "upstream_keys.json").read_text())
    tensor_for = module("detw").tensor_for
    save_file({key: tensor_for(key, tuple(shape)) for key, shape in keys.items()}, folder / "model.safetensors")
    config = module("tinycfg").sa2va_config(*SETS[name])
    config["sa2va_native"] = {"sam2": TINY_SAM2}
    (folder / "config.json").write_text(json.dumps(config))
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


def write_scripted_checkpoint(name: str, folder: Path) -> Path:
    """The scripted-reply checkpoint of a golden (`golden/scripted/README.md`), made by its own recipe."""
    script, family, _, *options = scripted(name)["make"]
    recipe = [sys.executable, str(_scripted_path(name).parent / script), family, str(folder), *options]
    subprocess.run(recipe, check=True, stdout=subprocess.DEVNULL)
    return folder


def scripted(name: str) -> dict[str, Any]:
    return json.loads(_scripted_path(name).with_suffix(".json").read_text())


def _scripted_path(name: str) -> Path:
    """Without its suffix: the newer families have a folder of their own."""
    paths = (GOLDEN / folder / name for folder in ("scripted", "scripted2"))
    return next(path for path in paths if path.with_suffix(".json").is_file())


def scripted_mask(name: str, entry: dict[str, Any]) -> NDArray[np.bool_]:
    """A golden mask (frames, H, W)."""
    with np.load(_scripted_path(name).with_suffix(".npz")) as arrays:
        return unpack(arrays[entry["key"]], entry["shape"])


def unpack(bits: NDArray[np.uint8], shape: Any) -> NDArray[np.bool_]:
    shape = tuple(int(size) for size in shape)
    return np.unpackbits(bits)[: int(np.prod(shape))].reshape(shape).astype(bool)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def largest_error(actual: torch.Tensor | NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference; a difference in shape is an error, not a broadcast."""
    ours = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    assert ours.shape == expected.shape
    return float(np.abs(ours.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
