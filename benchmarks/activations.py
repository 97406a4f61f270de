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
from sa2va_bento.engine.kv_cache import KVCache, causal_mask
from sa2va_bento.model.grounding import decode_masks, encode_image
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.memory import Workload, activations

WORKLOAD = Workload(8, 2048, 1024, 2, 1, 0, 0, max_masks=4)


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
    pool = KVCache(config.llm, load.slots, load.context, torch.float32, torch.device("cpu"))
    return {
        "tiles": peak(lambda: model.encode_tiles(tiles)),
        "sam2": peak(lambda: encode_image(sam, pixels)),
        "masks": peak(lambda: decode_masks(sam, features.rows(owners), prompts)),
        "prompt": peak(lambda: _prompt(model, pool, load)),
    }


def _prompt(model: InternVLSa2VA, pool: KVCache, load: Workload) -> Tensor:
    """A chunk of `max_prefill` tokens over all slots, at the end of their context."""
    config, tokens = model.config.llm, load.max_prefill // load.slots
    places = torch.arange(load.context - tokens, load.context).expand(load.slots, -1)
    view = pool.prefill_view(torch.arange(load.slots), places, load.context)
    embeddings = torch.zeros(load.slots, tokens, config.hidden_size)
    mask = causal_mask(places, load.context, torch.float32)
    return model.language_body(embeddings, view, attention_mask=mask, position_ids=places)


def main() -> None:
    config = shallow_config()
    model = InternVLSa2VA(config).eval().requires_grad_(False)
    expected = activations(config, WORKLOAD)
    print(f"{WORKLOAD}\n{'stage':<8}{'measured, millions':>20}{'estimated':>12}")
    for stage, numbers in measure(config, model, WORKLOAD).items():
        print(f"{stage:<8}{numbers / 1e6:>20.1f}{expected[stage] / 1e6:>12.1f}")


if __name__ == "__main__":
    main()
