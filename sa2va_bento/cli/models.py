"""`models`: the published checkpoints, what each gets on common GPUs, and what else is supported."""

from dataclasses import replace

from sa2va_bento.cli.cards import BFLOAT16, CARDS_GB, fit_on
from sa2va_bento.engine.fit import Fit
from sa2va_bento.model.loading.memory import Measures
from sa2va_bento.model.loading.published import PUBLISHED, Published
from sa2va_bento.model.loading.quantization import BYTES, Quantization
from sa2va_bento.model.registry import FAMILIES, GROUNDING_ENCODERS
from sa2va_bento.settings import Settings, load_settings


def models() -> None:
    """Prints the table of published checkpoints, and what else is supported."""
    settings = load_settings()
    cards = "".join(f"{f'{card} GB':>9}" for card in CARDS_GB)
    print(f"{'model':<34}{'vision':<16}{'language model':<17}{'billions':>8}{'weights':>9}{'KiB':>6}{cards}")
    for known in PUBLISHED:
        size = f"{known.billions:>8.2f}{known.weights_gib:>9.1f}{known.kv_kib:>6.0f}"
        gets = "".join(f"{_gets(known, card, settings):>9}" for card in CARDS_GB)
        print(f"{known.model:<34}{known.vision.name:<16}{known.language.name:<17}{size}{gets}")
    print(
        "\nweights in GiB and the cache's KiB a token, in bfloat16. On a card of so many GB: thousands of tokens that"
    )
    print("all requests have together, for as many requests at once (SA2VA_MEMORY_SHARE of the card); - is where not")
    print("one request fits, with 8 or 4 where SA2VA_QUANTIZATION=int8 or int4 makes it fit.")
    print("check MODEL has it in numbers. Any other checkpoint of these layouts is served too:")
    for family in FAMILIES.values():
        print(f"  {family.architecture}: {', '.join(family.language_models)}")
    print(f"with one of {', '.join(encoder.name for encoder in GROUNDING_ENCODERS)}, and LoRA adapters, merged")
    print("(SA2VA_ADAPTER) or several by name (SA2VA_ADAPTERS)")


def _gets(known: Published, card: int, settings: Settings) -> str:
    """Thousands of tokens and requests at once, or what would help."""

    def weights(kind: Quantization) -> int:
        saved = 0 if kind == "none" else int((BFLOAT16 - BYTES[kind]) * known.language.projections)
        return known.weights(BFLOAT16) - saved

    kinds: tuple[Quantization, ...] = ("int8", "int4")
    for kind in (settings.quantization, *(kind for kind in kinds if settings.quantization == "none")):
        chosen = settings.model_copy(update={"quantization": kind})
        found = fit_on(card, chosen, lambda most: _measures(known, most), weights)
        if isinstance(found, Fit):
            gets = f"{found.limits.kv_tokens / 1000:.0f}/{found.limits.slots}"
            return gets if kind == settings.quantization else f"-{kind.removeprefix('int')}"
    return "-"


def _measures(known: Published, max_tiles: int | None) -> Measures:
    """Those of a checkpoint whose pictures are cut into so many tiles at most."""
    measures = known.measures
    if max_tiles is None or max_tiles >= measures.tiles or known.vision.is_fixed:
        return measures
    tiles = max_tiles + (known.vision.tiles == 13 and max_tiles > 1)
    return replace(measures, tiles=tiles, picture_tokens=measures.picture_tokens * tiles // measures.tiles)
