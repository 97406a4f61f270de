"""`check`: what a checkpoint is and needs, in lines for people, with no weight loaded and none fetched."""

from collections.abc import Iterator, Mapping

from sa2va_bento.cli.cards import BFLOAT16, CARDS_GB, fit_on
from sa2va_bento.engine.fit import Fit
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.model.loading.checkpoint import Inspection, Placement, choose_placement, inspect
from sa2va_bento.model.loading.hub import inspect_remote, licence
from sa2va_bento.model.loading.memory import (
    GIB,
    free_memory,
    measures_of,
    parameter_counts,
    unfilled,
    weight_bytes,
)
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.predictor.loading import LARGE, fit_on_devices, for_processor, read_adapter, read_named_adapters
from sa2va_bento.processing.processor import Processor
from sa2va_bento.settings import Settings, load_settings


def check(model: str, revision: str | None) -> None:
    """Prints what a checkpoint is and needs; raises StartupError when it can't be served anywhere."""
    for line in report(model, revision, load_settings()):
        print(line)


def report(model: str, revision: str | None, settings: Settings) -> Iterator[str]:
    """The report on a Hub id or folder; all that the start of the service checks, except for the weights' values.

    Raises:
        StartupError: it can't be served on any machine; one line says why.
    """
    folder, headers = inspect_remote(model, revision or settings.model_revision, settings.cache_dir)
    adapter = read_adapter(settings)
    found = inspect(folder, headers, adapter)
    named = read_named_adapters(settings)
    for other in named.values():
        inspect(folder, headers, other)
    Processor(found.config, PromptTokenizer.from_dir(folder), settings)
    yield f"folder    {folder}{'' if headers is None else ', the weights still on the Hub'}"
    yield from _what(found)
    if adapter:
        yield f"adapter   {settings.adapter}: LoRA of rank {adapter.rank}, changes {adapter.tensors} tensors"
    for name, other in named.items():
        yield f"adapter   {name}: LoRA of rank {other.rank}, changes {other.tensors} tensors, beside the model"
    yield from _memory(found.config, settings, named)
    granted = licence(model, folder, settings.cache_dir)
    yield f"licence   {granted or 'not named in its README.md: see its page'}"
    for of_part in found.config.licences:
        yield f"          and of a part of it, whatever its page says: {of_part}"


def _what(found: Inspection) -> Iterator[str]:
    config = found.config
    yield f"family    {config.family}, template {config.chat_template.name}"
    if config.sam2.has_tuned_decoder:
        yield "          Sa2VA-i: a tuned mask decoder for prompts, the original one for following objects"
    yield from _geometry(config)
    for part, count in parameter_counts(config).items():
        yield f"          {part:<20}{count / 1e6:>10.1f} M parameters"
    yield f"tensors   {found.tensors} in {found.files} file(s), every one has its place"


def _geometry(config: CheckpointConfig) -> Iterator[str]:
    llm = config.llm
    layers, width = config.vision_shape
    heads = f"{llm.num_attention_heads} heads over {llm.num_key_value_heads} of keys and values"
    yield f"geometry  vision: {layers} layers of {width}"
    yield f"          language model: {llm.num_hidden_layers} layers of {llm.hidden_size}, {heads}"
    yield f"          {llm.vocab_size} tokens known, {llm.max_position_embeddings} at most in a prompt and its reply"
    yield f"          {config.sam2_shape.summary}"


def _memory(config: CheckpointConfig, settings: Settings, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    beside = BFLOAT16 * sum(adapter.numbers for adapter in adapters.values())
    model, placement = unfilled(config), choose_placement(settings.device, settings.dtype)
    is_large = weight_bytes(model, 4, "none") > LARGE
    yield from _here(config, settings, for_processor(placement, settings.dtype, is_large), adapters)
    for card in CARDS_GB:
        found = fit_on(
            card,
            settings,
            lambda most: measures_of(config, most),
            lambda kind: weight_bytes(model, BFLOAT16, kind) + beside,
        )
        yield f"{card:>4} GB   {_gets(found) if isinstance(found, Fit) else f'no: {found.message}'}"


def _here(
    config: CheckpointConfig, settings: Settings, placement: Placement, adapters: Mapping[str, Adapter]
) -> Iterator[str]:
    """What it gets on this machine."""
    devices = (placement.device, *placement.others)
    for device in devices:
        yield f"device    {device}, {free_memory(device) / GIB:.2f} GiB free"
    try:
        found = fit_on_devices(config, placement, settings, adapters)
    except CheckpointError as error:
        yield f"fits      no: {error.message}"
        return
    yield f"memory    {found.needed} in {str(placement.dtype).removeprefix('torch.')}"
    yield f"fits      yes: {_gets(found)}"


def _gets(found: Fit) -> str:
    limits = found.limits
    return f"{limits.slots} requests at once, {limits.kv_tokens} tokens together, {limits.context} each at most"
