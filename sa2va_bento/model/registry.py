"""The families that are supported, and what a checkpoint's `config.json` makes of them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model import internvl, llava, qwen_vl, sam3, sasasa2va
from sa2va_bento.model.base import Family, Sa2VA
from sa2va_bento.model.config import SAM2, CheckpointConfig
from sa2va_bento.model.grounding_encoder import GroundingEncoder
from sa2va_bento.model.loading.weights import stored_names

FAMILIES: Mapping[str, Family] = {
    family.architecture: family for family in (internvl.FAMILY, qwen_vl.FAMILY, llava.FAMILY, sasasa2va.FAMILY)
}

GROUNDING_ENCODERS: tuple[GroundingEncoder, ...] = (SAM2, sam3.ENCODER)


def family_of(config: CheckpointConfig) -> Family:
    """The family of a checkpoint."""
    return FAMILIES[_architecture(config.raw)]


def read_config(path: Path, tensors: Iterable[str] | None = None) -> CheckpointConfig:
    """Reads a `config.json`. The names of the checkpoint's tensors, those beside it unless given, say what it does not.
    Raises CheckpointError when it is missing, unreadable or unsupported."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return parse_config(raw, stored_names(path.parent) if tensors is None else tensors)


def parse_config(raw: Mapping[str, Any], tensors: Iterable[str] = ()) -> CheckpointConfig:
    """The configuration of a checkpoint with these tensors. Raises CheckpointError naming what is unsupported or
    missing."""
    try:
        config = FAMILIES[_architecture(raw)].config(raw)
        encoder = _grounding_encoder(tensors)
        if encoder is not config.grounding:
            config = config.grounded_by(encoder)
        _refuse_impossible(config)
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error}") from None
    except Exception as error:  # transformers checks fields with errors of its own
        raise CheckpointError(f"config.json does not describe a Sa2VA checkpoint: {_in_one_line(error)}") from None
    return config


def build_model(config: CheckpointConfig) -> Sa2VA:
    """The modules of a checkpoint, as torch fills them. Raises CheckpointError where no such modules can be made."""
    try:
        return family_of(config).model(config)
    except Exception as error:  # sizes that do not go together, names of functions that there are not
        raise CheckpointError(f"config.json describes a model that can't be made: {_in_one_line(error)}") from None


def _grounding_encoder(tensors: Iterable[str]) -> GroundingEncoder:
    """The one whose tensors these are; SAM2 where none is among them."""
    for name in tensors:
        for encoder in GROUNDING_ENCODERS:
            if name.startswith(encoder.marker):
                return encoder
    return SAM2


def _refuse_impossible(config: CheckpointConfig) -> None:
    heads, kv_heads = config.llm.num_attention_heads, config.llm.num_key_value_heads
    if min(heads, kv_heads) < 1 or heads % kv_heads:
        raise CheckpointError(f"config.json: {heads} attention heads can't share {kv_heads} of keys and values")


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _architecture(raw: Mapping[str, Any]) -> str:
    named = raw.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "none"
    if name not in FAMILIES:
        raise CheckpointError(
            f"architecture {name} is not supported (supported: {', '.join(FAMILIES)}){_described(raw)}"
        )
    return name


def _described(raw: Mapping[str, Any]) -> str:
    """What a `config.json` of another family says that it holds, as far as it can be told."""
    said = {"model_type": raw.get("model_type"), "template": raw.get("template")}
    for part, names in (("language model", ("llm_config", "text_config")), ("vision tower", ("vision_config",))):
        blocks = (raw.get(name) for name in names)
        said[part] = next((_kind_of(block) for block in blocks if isinstance(block, Mapping)), None)
    known = ", ".join(f"{what} {name}" for what, name in said.items() if name)
    return f"; it is another family's, or newer than this version: {known}" if known else ""


def _kind_of(block: Mapping[str, Any]) -> str | None:
    named = block.get("architectures")
    kind = named[0] if isinstance(named, list) and named else block.get("model_type")
    return str(kind) if kind else None
