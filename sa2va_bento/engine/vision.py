"""The model's parts that see, as the runner computes them: on a GPU from CUDA graphs where batches are small, since it
takes the host longer to launch their many kernels than it takes the device to run them (`benchmarks/README.md`)."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sa2va_bento.engine.cuda_graphs import record
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.grounding import BestMasks, ImageFeatures, decode_masks, encode_image
from sa2va_bento.types import TokenGrid

logger = logging.getLogger(__name__)

TILES, PICTURES, MASKS = 4, 2, 8
"""Largest batches that have graphs; larger ones keep the device busy by themselves."""

Recorded = tuple["torch.cuda.CUDAGraph", tuple[Tensor, ...], tuple[Tensor, ...]]
"""A graph, where it reads and where it writes."""
Compute = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Of tensors that all have the batch along dim 0, to such tensors."""


class Graphs:
    """A function's CUDA graphs, one for each size of batch up to `most`, recorded when it is first called: by the
    warm-up, before the first request."""

    def __init__(self, compute: Compute, most: int) -> None:
        self._compute, self._most = compute, most
        self._recorded: dict[int, Recorded] | None = None

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As the function itself."""
        if self._recorded is None:
            self._recorded = self._record_all(tuple(tensor[:1] for tensor in inputs))
        recorded = self._recorded.get(len(inputs[0]))
        if recorded is None or any(a.shape != b.shape for a, b in zip(recorded[1], inputs, strict=True)):
            return self._compute(inputs)
        graph, places, results = recorded
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return tuple(result.clone() for result in results)  # the next replay writes where these lie

    def _record_all(self, example: tuple[Tensor, ...]) -> dict[int, Recorded]:
        """The largest first: the others fit into the memory that it took."""
        pool, recorded = torch.cuda.graph_pool_handle(), dict[int, Recorded]()
        try:
            for count in range(self._most, 0, -1):
                inputs = tuple(tensor.expand(count, *tensor.shape[1:]).contiguous() for tensor in example)
                graph, results = record(lambda inputs=inputs: self._compute(inputs), pool)
                recorded[count] = (graph, inputs, results)
        except RuntimeError as error:
            logger.warning("computing without CUDA graphs: %s", error)
            return {}
        return recorded


class VisionRunner:
    """Image tokens, SAM2's features and masks."""

    def __init__(self, model: Sa2VA, has_graphs: bool) -> None:
        self._model, sam = model, model.grounding_encoder
        self._tokens: Compute = self._tile_tokens
        self._features: Compute = lambda pixels: encode_image(sam, *pixels).tensors
        self._masks: Compute = lambda given: decode_masks(sam, ImageFeatures(*given[1:]), given[0]).tensors
        if has_graphs:
            self._tokens = Graphs(self._tokens, TILES)
            self._features = Graphs(self._features, PICTURES)
            self._masks = Graphs(self._masks, MASKS)

    def encode_pictures(self, pixels: Tensor, grids: Sequence[Sequence[TokenGrid]]) -> list[Tensor]:
        """`Sa2VA.encode_pictures`."""
        if not self._model.has_tiles:
            return self._model.encode_pictures(pixels, grids)
        (tokens,) = self._tokens((pixels,))
        return list(torch.split(tokens, [len(tiles) for tiles in grids]))

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """`grounding.encode_image`."""
        return ImageFeatures(*self._features((pixels,)))

    def decode_masks(self, features: ImageFeatures, prompts: Tensor) -> BestMasks:
        """`grounding.decode_masks`."""
        return BestMasks(*self._masks((prompts, *features.tensors)))

    def _tile_tokens(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (pixels,) = inputs
        return tuple(self._model.encode_pictures(pixels, [(TokenGrid(1, 1),) * len(pixels)]))
