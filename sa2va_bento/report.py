"""What a checkpoint is and needs, in lines for people, with no weight loaded and none fetched."""

from collections.abc import Iterator
from typing import Any, cast

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.checkpoint import Inspection, Placement, choose_placement, inspect
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.hub import describe, licence
from sa2va_bento.model.memory import MemoryEstimate, estimate, free_memory, parameter_counts
from sa2va_bento.model.spread import place
from sa2va_bento.model.tokenizer import PromptTokenizer
from sa2va_bento.pipeline import Pipeline
from sa2va_bento.settings import Settings
from sa2va_bento.workload import limits_of, workload_of


def lines(model: str, revision: str | None, settings: Settings) -> Iterator[str]:
    """The report on a Hub id or folder; all that the start of the service checks, except for the weights' values.

    Raises:
        StartupError: it can't be served on any machine; one line says why.
    """
    folder, headers = describe(model, revision or settings.model_revision, settings.cache_dir)
    found = inspect(folder, headers)
    Pipeline(found.config, PromptTokenizer.from_dir(folder), settings)
    yield f"folder    {folder}{'' if headers is None else ', the weights still on the Hub'}"
    yield from _what(found)
    yield from _memory(found.config, settings)
    named = licence(model, folder, settings.cache_dir)
    yield f"licence   {named or 'not named in its README.md: see its page'}"


def _what(found: Inspection) -> Iterator[str]:
    config = found.config
    yield f"family    {config.family}, template {config.template}"
    if config.sam2.has_tuned_decoder:
        yield "          Sa2VA-i: a tuned mask decoder for prompts, the original one for following objects"
    yield from _geometry(config)
    for part, count in parameter_counts(config).items():
        yield f"          {part:<20}{count / 1e6:>10.1f} M parameters"
    yield f"tensors   {found.tensors} in {found.files} file(s), every one has its place"


def _geometry(config: CheckpointConfig) -> Iterator[str]:
    vision, llm, sam2 = cast(Any, config).vision, config.llm, config.sam2_shape
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    heads = f"{llm.num_attention_heads} heads over {llm.num_key_value_heads} of keys and values"
    yield f"geometry  vision: {layers} layers of {vision.hidden_size}"
    yield f"          language model: {llm.num_hidden_layers} layers of {llm.hidden_size}, {heads}"
    yield f"          {llm.vocab_size} tokens known, {llm.max_position_embeddings} at most in a prompt and its reply"
    yield f"          SAM2: {sum(sam2.stages)} blocks from {sam2.embed_dim} on, pictures of {sam2.image_size} pixels"


def _memory(config: CheckpointConfig, settings: Settings) -> Iterator[str]:
    placement = choose_placement(settings.device, settings.dtype)
    workload = workload_of(settings, limits_of(settings, config))
    needed = estimate(config, placement.dtype.itemsize, workload, settings.quantization)
    yield f"memory    {needed} in {str(placement.dtype).removeprefix('torch.')}"
    for device in (placement.device, *placement.others):
        yield f"device    {device}, {free_memory(device) / 2**30:.2f} GiB free"
    yield f"fits      {_fits(config, needed, placement, settings)}"


def _fits(config: CheckpointConfig, needed: MemoryEstimate, placement: Placement, settings: Settings) -> str:
    devices = (placement.device, *placement.others)
    try:
        place(config, needed, devices, placement.dtype.itemsize, settings.quantization)
    except CheckpointError as error:
        return f"no: {error.message}"
    return "yes"
