"""Loads a checkpoint folder in the published layout: safetensors only, every name and shape checked before any weight
is read, tensors renamed, split and cast one at a time."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.families import build_model, read_config
from sa2va_bento.model.family import Sa2VA
from sa2va_bento.model.keymap import GAUSSIAN_IN_TREE, SAM, Source, name_some, plan
from sa2va_bento.model.sam2 import TUNED_DECODER

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
TUNED = f"{SAM}.{TUNED_DECODER}."
LM_HEAD = "language_model.lm_head.weight"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """Where and in which precision a model computes."""

    device: torch.device
    dtype: torch.dtype


def choose_placement(device: str, dtype: str) -> Placement:
    """Resolves `auto`: the first CUDA device if there is one; bfloat16 on CUDA, float32 on the CPU.

    Raises:
        CheckpointError: the device does not exist here.
    """
    try:
        chosen = torch.device(_auto_device() if device == "auto" else device)
    except RuntimeError:
        raise CheckpointError(f"device {device!r} is not a device (auto, cpu, cuda, cuda:N)") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device {device} was asked for, but {torch.cuda.device_count()} CUDA devices are here")
    if dtype == "auto":
        return Placement(chosen, torch.bfloat16 if chosen.type == "cuda" else torch.float32)
    return Placement(chosen, DTYPES[dtype])


def _auto_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve(model: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """A local folder as it is; a Hub id through the Hub's cache.

    Raises:
        CheckpointError: neither a folder nor a repository that can be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith(".") or model.count("/") != 1:
        raise CheckpointError(f"MODEL_PATH {model!r} is neither a folder nor a Hub id (owner/name)")
    try:
        return Path(snapshot_download(model, revision=revision, cache_dir=cache_dir, allow_patterns=HUB_FILES))
    except RepositoryNotFoundError:
        raise CheckpointError(f"the Hub has no model {model!r}, or it is private (set HF_TOKEN)") from None
    except LocalEntryNotFoundError:
        raise CheckpointError(f"model {model!r} is not in the local cache and the Hub can't be reached") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"model {model!r} could not be fetched from the Hub: {reason}") from None


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is, told without loading its weights."""

    config: CheckpointConfig
    tensors: int
    files: int


def inspect(folder: Path) -> Inspection:
    """Reads a folder's configuration and the headers of its weights, and checks every tensor's name and shape.

    Raises:
        CheckpointError: as `load_model`.
    """
    with ExitStack() as stack:
        opened = _open(folder, stack)
        return Inspection(opened.model.config, len(opened.reader.shapes), len(weight_files(folder)))


def load_model(folder: Path, placement: Placement) -> Sa2VA:
    """Builds the model of a folder and fills it, in evaluation mode and without gradients.

    Raises:
        CheckpointError: naming the file and the tensors that are missing, unknown, misshaped or unreadable.
    """
    with ExitStack() as stack:
        opened = _open(folder, stack)
        model, tensor = opened.model, opened.reader.tensor
        state = {name: _read(source, tensor, name, placement) for name, source in opened.sources.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_head()
    return model.to(placement.device).eval().requires_grad_(False)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, sharded or not.

    Raises:
        CheckpointError: there are none, or a shard that the index names is missing.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise CheckpointError(f"{index} is not a safetensors index") from None
    else:
        names = [WEIGHTS]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and list(folder.glob("*.bin")):
        raise CheckpointError(f"{folder} holds pickled weights only; pickle is never loaded, convert to safetensors")
    if missing:
        raise CheckpointError(f"{folder} lacks {name_some(missing)}")
    return [folder / name for name in names]


class _WeightReader:
    """Shapes and tensors of a folder's safetensors files, by published name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._files = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from None
            for name in file.keys():  # noqa: SIM118 - safe_open is not iterable
                self._files[name] = file
                self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)


@dataclass(frozen=True)
class _Opened:
    """A checkpoint whose names and shapes fit, and the model without weights that they fit."""

    model: Sa2VA
    sources: Mapping[str, Source]
    reader: _WeightReader


def _open(folder: Path, stack: ExitStack) -> _Opened:
    config = read_config(folder / "config.json")
    reader = _WeightReader(folder, stack)
    sources = plan(reader.shapes, config)
    if LM_HEAD in sources:  # a head of its own wins over a configuration that ties it
        config.llm.tie_word_embeddings = False
    config.sam2.has_tuned_decoder = any(name.startswith(TUNED) for name in sources)  # Sa2VA-i; config.json is silent
    with init_empty_weights(include_buffers=False):
        model = build_model(config)
    _check(folder, model, sources, reader.shapes)
    return _Opened(model, sources, reader)


def _read(source: Source, tensor: Callable[[str], Tensor], name: str, placement: Placement) -> Tensor:
    dtype = torch.float32 if name in GAUSSIAN_IN_TREE else placement.dtype
    return source.read(tensor).to(device=placement.device, dtype=dtype)


def _check(folder: Path, model: Sa2VA, sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.config.llm.tie_word_embeddings:
        expected.pop(LM_HEAD, None)
    problems = []
    if missing := sorted(set(expected) - set(sources)):
        problems.append(f"missing tensors: {name_some(missing)}")
    if unknown := sorted(set(sources) - set(expected)):
        problems.append(f"unknown tensors: {name_some(unknown)}")
    misshaped = [
        f"{name} is {source.shape(shapes)}, config.json says {expected[name]}"
        for name, source in sources.items()
        if name in expected and source.shape(shapes) != expected[name]
    ]
    if misshaped:
        problems.append(f"misshaped tensors: {name_some(misshaped)}")
    if problems:
        raise CheckpointError(f"{folder}: {'; '.join(problems)}")
