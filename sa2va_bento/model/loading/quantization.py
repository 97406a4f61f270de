"""8-bit and 4-bit weights of the language model's layers, by bitsandbytes. Embeddings, the head, the vision tower and
SAM2 stay as they are: they are small, and their errors would show.

`int8` is LLM.int8() with its authors' threshold for outliers; `int4` is NF4 with its scales compressed. Both compute in
the model's own type. bitsandbytes waits for the device while it looks for outliers, so `int8` decodes without CUDA
graphs.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sa2va_bento.errors import CheckpointError

Quantization = Literal["none", "int8", "int4"]

BYTES = {"int8": 1.0, "int4": 0.52}
"""A weight with its share of the scales: NF4 has one of 8 bits for 64 weights, and one of 32 bits for 256 of those."""
OUTLIERS = 6.0
"""LLM.int8()'s threshold: features beyond it are multiplied in 16 bits (Dettmers et al. 2022, section 3.2)."""
LAYER = re.compile(r"(.*\.)?language_model\.(.*\.)?layers\.\d+\..*")


def layer_projections(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The projections that are quantised, by name: those of the language model's layers."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and LAYER.fullmatch(name):
            yield name, module


class Quantizer:
    """Puts quantised projections in a model's place, weight by weight as they are read.

    Raises:
        CheckpointError: bitsandbytes is not installed.
    """

    def __init__(self, model: nn.Module, kind: Quantization, dtype: torch.dtype) -> None:
        self._model, self._kind, self._dtype = model, kind, dtype
        self._weights = set()
        if kind != "none":
            self._library = _bitsandbytes(kind)
            self._weights = {f"{name}.weight" for name, _ in layer_projections(model)}

    def takes(self, weight: str) -> bool:
        """Whether this tensor is a weight to quantise."""
        return weight in self._weights

    def install(self, weight: str, tensor: Tensor, device: torch.device) -> None:
        """Replaces the projection of a weight, which is on the CPU, by a quantised one on the device. Its bias is left
        as it was."""
        parent, _, name = weight.removesuffix(".weight").rpartition(".")
        projection = cast(nn.Linear, getattr(self._model.get_submodule(parent), name))
        make = self._int8 if self._kind == "int8" else self._int4
        quantised = make(projection, tensor).to(device)
        quantised.bias = projection.bias
        setattr(self._model.get_submodule(parent), name, quantised)

    def _int8(self, projection: nn.Linear, tensor: Tensor) -> nn.Module:
        made = self._library.nn.Linear8bitLt(
            projection.in_features, projection.out_features, bias=False, has_fp16_weights=False, threshold=OUTLIERS,
            device="meta",
        )  # fmt: skip
        half = tensor.to(torch.float16)  # quantised on its way to the device
        made.weight = self._library.nn.Int8Params(half, requires_grad=False, has_fp16_weights=False)
        return made

    def _int4(self, projection: nn.Linear, tensor: Tensor) -> nn.Module:
        made = self._library.nn.Linear4bit(
            projection.in_features, projection.out_features, bias=False, compute_dtype=self._dtype, quant_type="nf4",
            device="meta",
        )  # fmt: skip
        whole = tensor.to(self._dtype)
        made.weight = self._library.nn.Params4bit(whole, requires_grad=False, quant_type="nf4")
        return made


def _bitsandbytes(kind: Quantization) -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise CheckpointError(
            f"SA2VA_QUANTIZATION={kind} needs bitsandbytes: pip install 'sa2va-bento[quantization]'"
        ) from None
    return bitsandbytes
