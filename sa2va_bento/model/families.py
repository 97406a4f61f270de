"""The families that are supported: what reads a checkpoint's `config.json`, and which modules it asks for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import CheckpointConfig, InternVLConfig
from sa2va_bento.model.family import Sa2VA
from sa2va_bento.model.internvl import InternVLSa2VA
from sa2va_bento.model.qwen_vl import QwenVLSa2VA
from sa2va_bento.model.qwen_vl_config import QwenVLConfig


@dataclass(frozen=True)
class Family:
    """`config` reads a `config.json`, `model` builds the modules without weights."""

    config: Callable[[Mapping[str, Any]], CheckpointConfig]
    model: Callable[[Any], Sa2VA]


FAMILIES: Mapping[str, Family] = {
    "Sa2VAChatModel": Family(InternVLConfig.from_dict, InternVLSa2VA),
    "Sa2VAChatModelQwen": Family(QwenVLConfig.from_dict, QwenVLSa2VA),
}
"""By published `architectures[0]`."""


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
        return FAMILIES[_architecture(config.raw)].model(config)
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
