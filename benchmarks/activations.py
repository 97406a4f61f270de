"""Numbers alive at the peak of each stage, beside what `model/memory.py` says before anything is loaded.

    python -m benchmarks.activations

The widths are those of Sa2VA-1B, the depth is cut: without gradients a layer's tensors are gone before the next one's
come. What is alive is counted as torch makes and drops it, on the CPU, in float32.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu import published_config
from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.ragged import GATHERED, MASKED, GatherAttention, Piece, gathering
from sa2va_bento.model.grounding import decode_masks, encode_image
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.memory import Workload, activations, measures_of

WORKLOAD = Workload(8, 2048, 1024, 2, 1, 0, 0, max_masks=4, gathered=GATHERED, masked=MASKED)


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that were made while it was on and are still referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in before:
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def peak(work: Callable[[], object]) -> int:
    """Numbers (of four bytes) alive at once while something is computed, its inputs not counted."""
    with torch.no_grad(), Alive() as alive:
        result = work()
    del result
    return alive.peak // 4


def shallow_config() -> InternVLConfig:
    """Sa2VA-1B with its widths, two layers deep."""
    raw = published_config("1b")
    raw["vision_config"]["num_hidden_layers"] = raw["llm_config"]["num_hidden_layers"] = 2
    raw["llm_config"]["vocab_size"] = 1000
    raw["sa2va_native"] = {"sam2": {"stages": [1, 2, 3, 1], "global_att_blocks": [4]}}
    return InternVLConfig.from_dict(raw)


def measure(config: InternVLConfig, model: InternVLSa2VA, load: Workload) -> dict[str, int]:
    """The peak of each stage under a workload."""
    side, sam = config.sam2_shape.image_size, model.grounding_encoder
    tiles = torch.zeros(load.max_tiles, 3, config.tiles.image_size, config.tiles.image_size)
    pixels = torch.zeros(load.max_images, 3, side, side)
    with torch.no_grad():
        features = encode_image(sam, pixels[:1])
    prompts = torch.zeros(load.max_masks, config.sam2_shape.d_model)
    owners = torch.zeros(load.max_masks, dtype=torch.long)
    cache = KVCache(config.llm, load.tokens, torch.float32, torch.device("cpu"))
    model.prepare_steps()
    return {
        "tiles": peak(lambda: model.encode_tiles(tiles)),
        "sam2": peak(lambda: encode_image(sam, pixels)),
        "masks": peak(lambda: decode_masks(sam, features.rows(owners), prompts)),
        "prompt": peak(lambda: _prompt(model, cache, load)),
        "reply": peak(lambda: _reply(model, cache, load)),
    }


def _prompt(model: InternVLSa2VA, cache: KVCache, load: Workload) -> Tensor:
    """A chunk of `max_prefill` tokens over all slots, at the end of their context."""
    count, context = load.max_prefill // load.slots, load.tokens // load.slots
    pieces = [Piece(Row(slot * context, context), context - count, count) for slot in range(load.slots)]
    places = torch.arange(context - count, context).repeat(load.slots)
    embeddings = torch.zeros(load.slots * count, model.config.llm.hidden_size)
    return model.language_step(embeddings, places, gathering(cache, pieces, torch.device("cpu")))


def _reply(model: InternVLSa2VA, cache: KVCache, load: Workload) -> Tensor:
    """A token in each slot, at the end of its context."""
    context = load.tokens // load.slots
    starts, sizes = torch.arange(load.slots) * context, torch.full((load.slots,), context)
    attention = GatherAttention(cache, starts, sizes, sizes[:, None] - 1, context)
    return model.language_step(torch.zeros(load.slots, model.config.llm.hidden_size), sizes - 1, attention)


def main() -> None:
    config = shallow_config()
    model = InternVLSa2VA(config).eval().requires_grad_(False)
    expected = activations(measures_of(config), WORKLOAD)
    print(f"{WORKLOAD}\n{'stage':<8}{'measured, millions':>20}{'estimated':>12}")
    for stage, numbers in measure(config, model, WORKLOAD).items():
        print(f"{stage:<8}{numbers / 1e6:>20.1f}{expected[stage] / 1e6:>12.1f}")


if __name__ == "__main__":
    main()
