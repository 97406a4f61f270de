"""How much two phrases mean the same, by a BERT: the measure that grounded captions are compared with."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from sa2va_bento.errors import CheckpointError


def bert(name: str) -> Callable[[str, str], float]:
    """The cosine of the means of a BERT's last states, of a Hub id or folder.

    Raises:
        CheckpointError: it can't be had.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"--bert {name}: {str(error).splitlines()[0]}") from None

    @lru_cache(maxsize=100_000)
    def embedded(text: str) -> Tensor:
        with torch.inference_mode():
            inputs = tokenizer(text, return_tensors="pt", max_length=512, truncation=True)
            states: Tensor = model(**inputs).last_hidden_state[0].mean(dim=0)
        return states / states.norm()

    return lambda one, other: float(embedded(one) @ embedded(other))
