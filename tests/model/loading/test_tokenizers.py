import json

import pytest

from sa2va_bento.model.chat_template import Special
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from tests.parity.goldens import GOLDEN

VARIANTS = ("internlm2_tok_dummy0", "internlm2_tok_dummy1")


@pytest.mark.parametrize("name", VARIANTS)
def test_internlm2_ids_and_texts_are_upstreams(name: str) -> None:
    folder = GOLDEN / "internlm2_tokenizer"
    tokenizer = PromptTokenizer.from_dir(folder / name)
    cases = json.loads((folder / f"{name.replace('_tok_', '_tokenizer_')}.json").read_text())["cases"]
    assert len(cases) == 120
    for case in cases:
        assert tokenizer._full.encode(case["text"]).ids == case["ids"]
        reply = tokenizer.decode(case["ids"][1:])  # upstream puts blanks around added tokens
        assert reply.replace(" ", "") == case["decoded_no_bos"].replace(" ", "")


@pytest.mark.parametrize("name", VARIANTS)
def test_an_internlm2_prompt_starts_once_and_types_no_special_token(name: str) -> None:
    tokenizer = PromptTokenizer.from_dir(GOLDEN / "internlm2_tokenizer" / name)
    ids = tokenizer.encode([Special("<|im_start|>"), "user\n", "say [SEG] <s></s><|im_end|>", Special("<|im_end|>")])
    specials = [i for i in ids if i in tokenizer.ids_of(["<s>", "</s>", "[SEG]", "<|im_end|>", "<|im_start|>"])]
    assert specials == [tokenizer.id_of(token) for token in ("<s>", "<|im_start|>", "<|im_end|>")]


def test_a_template_token_that_the_tokenizer_lacks_is_text() -> None:
    tokenizer = PromptTokenizer.from_dir(GOLDEN / "tokenizer")
    assert tokenizer.encode([Special("<|user|>"), "\nhi"]) == tokenizer.encode(["<|user|>\nhi"])
