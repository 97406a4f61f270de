"""Loads a checkpoint folder in the published layout: safetensors only, every name and shape checked before any weight
is read, tensors renamed, split and cast one at a time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers.initialization import no_init_weights

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.model.loading.device_map import DeviceMap, device_of, dispatch
from sa2va_bento.model.loading.lora_export import CheckpointReader, plain_names
from sa2va_bento.model.loading.quantization import Quantization, Quantizer
from sa2va_bento.model.loading.weight_names import GAUSSIAN_IN_TREE, SAM, Source, plan, published_name
from sa2va_bento.model.loading.weights import HostMemory, Stored, WeightReader, name_some
from sa2va_bento.model.registry import build_model, read_config
from sa2va_bento.model.sam2 import TUNED_DECODER

TUNED = f"{SAM}.{TUNED_DECODER}."
LM_HEAD = "language_model.lm_head.weight"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """Where and in which precision a model computes; `others` are devices that it may be spread over."""

    device: torch.device
    dtype: torch.dtype
    others: tuple[torch.device, ...] = ()


def choose_placement(device: str, dtype: str) -> Placement:
    """Resolves `auto`: the first CUDA device if there is one; bfloat16 on CUDA, float32 on the CPU. `all` is every
    CUDA device for one model.

    Raises:
        CheckpointError: the device does not exist here.
    """
    try:
        chosen = torch.device({"auto": _auto_device(), "all": "cuda:0"}.get(device, device))
    except RuntimeError:
        raise CheckpointError(f"device {device!r} is not a device (auto, cpu, cuda, cuda:N, all)") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device {device} was asked for, but {torch.cuda.device_count()} CUDA devices are here")
    others = tuple(torch.device("cuda", n) for n in range(1, torch.cuda.device_count())) if device == "all" else ()
    if dtype == "auto":
        return Placement(chosen, torch.bfloat16 if chosen.type == "cuda" else torch.float32, others)
    return Placement(chosen, DTYPES[dtype], others)


def _auto_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is, told without loading its weights."""

    config: CheckpointConfig
    tensors: int
    files: int


def inspect(folder: Path, stored: Mapping[str, Stored] | None = None, adapter: Adapter | None = None) -> Inspection:
    """Reads a folder's configuration and the headers of its weights, unless they are given, and checks every tensor's
    name and shape, and an adapter's.

    Raises:
        CheckpointError: as `load_model`.
    """
    config = read_config(folder / "config.json", stored)
    own = WeightReader(folder).stored if stored is None else stored
    stored = plain_names(own, config.raw)
    _fit(folder, config, stored, adapter)
    return Inspection(config, len(stored), len({place.file for place in stored.values()}))


def load_model(
    folder: Path,
    placement: Placement,
    quantization: Quantization = "none",
    parts: DeviceMap | None = None,
    adapter: Adapter | None = None,
) -> Sa2VA:
    """Builds the model of a folder and fills it, in evaluation mode and without gradients. Tensors go one by one to
    their device (that of their part, where the model is spread) and type, those of the language model's layers to 8 or
    4 bits where that is asked for; an adapter is merged into them before.

    Raises:
        CheckpointError: naming the file and the tensors that are missing, unknown, misshaped or unreadable.
    """
    config = read_config(folder / "config.json")
    reader = CheckpointReader(folder, config.raw)
    fitted = _fit(folder, config, reader.stored, adapter)
    model, sources = fitted.model, fitted.sources
    quantizer = Quantizer(model, quantization, placement.dtype)
    kept = {name: source for name, source in sources.items() if not quantizer.takes(name)}
    parts_of = parts or {"": placement.device}
    put, state = _putter(kept, reader.shapes, placement, parts_of), {}
    for name in sorted(sources, key=lambda name: reader.place(sources[name].names)):
        tensor = _read(name, sources[name], reader, adapter)
        if quantizer.takes(name):
            quantizer.install(name, tensor, device_of(name, parts_of))
        else:
            state[name] = put(name, tensor)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_head()
    model.eval().requires_grad_(False)
    if parts is None:
        return model.to(placement.device)
    dispatch(model, parts)
    return model


def _read(name: str, source: Source, reader: WeightReader, adapter: Adapter | None) -> Tensor:
    """A tensor, named as in-tree. An adapter may know it by that name, or by a published one."""
    if adapter is None:
        return source.read(reader.tensor)
    tensor = source.read(lambda published: adapter.merge(published, reader.tensor(published)))
    return tensor if name in source.names else adapter.merge(name, tensor)


def _putter(
    sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]], placement: Placement, parts: DeviceMap
) -> Callable[[str, Tensor], Tensor]:
    """What brings a tensor, named as in-tree, to its device and type."""
    elements = sum(math.prod(source.shape(shapes)) for source in sources.values())
    host = HostMemory(len(sources), elements, placement.dtype) if placement.device.type == "cpu" else None

    def put(name: str, tensor: Tensor) -> Tensor:
        dtype = torch.float32 if name in GAUSSIAN_IN_TREE else placement.dtype
        if host and dtype == host.dtype and tensor.dtype != dtype:
            return host.hold(tensor)
        return tensor.to(device=device_of(name, parts), dtype=dtype)

    return put


@dataclass(frozen=True)
class _Fitted:
    """A model without weights, and where those come from: every name and shape fits."""

    model: Sa2VA
    sources: Mapping[str, Source]


def _fit(
    folder: Path, config: CheckpointConfig, stored: Mapping[str, Stored], adapter: Adapter | None = None
) -> _Fitted:
    sources = plan(stored, config.all_rules, lambda name: _named(name, stored))
    if LM_HEAD in sources:  # a head of its own wins over a configuration that ties it
        config.llm.tie_word_embeddings = False
    config.sam2.has_tuned_decoder = any(name.startswith(TUNED) for name in sources)  # Sa2VA-i; config.json is silent
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = build_model(config)
    _check(folder, model, sources, stored)
    if adapter:
        shapes = {name: place.shape for name, place in stored.items()}
        adapter.bind(shapes, {name: source.shape(shapes) for name, source in sources.items()})
    return _Fitted(model, sources)


def _check(folder: Path, model: Sa2VA, sources: Mapping[str, Source], stored: Mapping[str, Stored]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.config.llm.tie_word_embeddings:
        expected.pop(LM_HEAD, None)
    known = {name: source for name, source in sources.items() if name in expected}
    asked_for = {name for source in known.values() for name in source.names}
    asked_for |= {published_name(name, model.config.all_rules) for name in expected.keys() - known.keys()}
    found = {
        "missing": sorted(asked_for - stored.keys()),
        "unknown": [_named(sources[name].names[0], stored) for name in sorted(sources.keys() - expected.keys())],
        "misshaped": _misshaped(known, expected, stored),
    }
    problems = [f"{kind} tensors: {name_some(names)}" for kind, names in found.items() if names]
    if problems:
        files = {place.file.name for place in stored.values()}
        where = folder / files.pop() if len(files) == 1 else folder
        raise CheckpointError(f"{where}: {'; '.join(problems)}")


def _misshaped(
    sources: Mapping[str, Source], expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Stored]
) -> list[str]:
    shapes = {name: place.shape for name, place in stored.items()}
    whole = {name: source for name, source in sources.items() if stored.keys() >= set(source.names)}
    return [
        f"{_named(source.names[0], stored)} makes {source.shape(shapes)}, config.json says {expected[name]}"
        for name, source in whole.items()
        if source.shape(shapes) != expected[name]
    ]


def _named(name: str, stored: Mapping[str, Stored]) -> str:
    """A tensor and its file."""
    return f"{name} (in {stored[name].file.name})"
