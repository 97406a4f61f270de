"""The feature caches and the prefix cache (least recently used goes first): what was computed from a picture, kept by
its content while there is room. A second question about the same picture costs its text only."""

from collections import OrderedDict
from typing import Generic, TypeVar

from torch import Tensor

from sa2va_bento.model.grounding import ImageFeatures
from sa2va_bento.types import CacheStats

T = TypeVar("T", Tensor, ImageFeatures)


class FeatureCache(Generic[T]):
    """Least recently used goes first. Written by the engine's thread alone; `in` may be asked from any."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.hits, self.misses = 0, 0
        self._entries: OrderedDict[str, T] = OrderedDict()

    @property
    def stats(self) -> CacheStats:
        return CacheStats(len(self._entries), self.bytes, self.hits, self.misses)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, otherwise: T | None = None) -> T | None:
        """The features of a content, if they are still here, or what somebody kept of them."""
        found = self._entries.get(key)
        if found is None:
            self.misses += otherwise is None
            self.hits += otherwise is not None
            return otherwise
        self.hits += 1
        self._entries.move_to_end(key)
        return found

    def peek(self, key: str) -> T | None:
        """The features of a content, not counted as a use; from any thread."""
        return self._entries.get(key)

    def put(self, key: str, features: T) -> None:
        """Keeps features, unless they alone are larger than the cache."""
        size = size_of(features)
        if size > self.max_bytes or key in self._entries:
            return
        self._entries[key] = features
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.bytes -= size_of(dropped)


def size_of(features: Tensor | ImageFeatures) -> int:
    """Bytes on the device."""
    tensors = (features,) if isinstance(features, Tensor) else features.tensors
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
