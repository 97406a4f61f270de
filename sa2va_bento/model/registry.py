"""The families that are supported, and what a checkpoint's `config.json` makes of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model import internvl, llava, qwen_vl
from sa2va_bento.model.base import Family, Sa2VA
from sa2va_bento.model.config import CheckpointConfig

FAMILIES: Mapping[str, Family] = {
    family.architecture: family for family in (internvl.FAMILY, qwen_vl.FAMILY, llava.FAMILY)
}


def family_of(config: CheckpointConfig) -> Family:
    """The family of a checkpoint."""
    return FAMILIES[_architecture(config.raw)]


def read_config(path: Path) -> CheckpointConfig:
    """Reads a `config.json`. Raises CheckpointError when it is missing, unreadable or unsupported."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> CheckpointConfig:
    """The configuration of a checkpoint. Raises CheckpointError naming what is unsupported or missing."""
    try:
        config = FAMILIES[_architecture(raw)].config(raw)
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
        raise CheckpointError(f"architecture {name} is not supported (supported: {', '.join(FAMILIES)})")
    return name
