"""`models`: the published checkpoints, and what else is supported."""

from sa2va_bento.model.loading.published import PUBLISHED
from sa2va_bento.model.registry import FAMILIES
from sa2va_bento.settings import load_settings


def models() -> None:
    """Prints the table of published checkpoints, and what else is supported."""
    settings = load_settings()
    print(f"{'model':<32}{'vision':<16}{'language model':<17}{'billions':>8}{'weights':>9}{'cache':>8}")
    for known in PUBLISHED:
        cache = known.cache_gib(settings.slots * settings.context)
        size = f"{known.billions:>8.2f}{known.weights_gib:>9.1f}{cache:>8.1f}"
        print(f"{known.model:<32}{known.vision:<16}{known.language:<17}{size}")
    print(f"\nGiB in bfloat16; the cache is for {settings.slots} requests (SA2VA_SLOTS) of {settings.context} tokens")
    print("(SA2VA_CONTEXT). check MODEL adds what pictures and kept features take. Any other checkpoint of these")
    print("layouts is served too:")
    for family in FAMILIES.values():
        print(f"  {family.architecture}: {', '.join(family.language_models)}")
