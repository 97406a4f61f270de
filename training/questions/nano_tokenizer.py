"""The nano model's tokenizer: byte-level BPE of about a thousand tokens with Qwen2's way of splitting text.

Trained on the questions and answers of `task_mix` and on everyday English, so that any text encodes and the words that
matter are one token each.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from sa2va_bento.model.chat_template import CHATML, IMAGE_CONTEXT, PHRASE_END, PHRASE_START, SEG
from training.data.shapes import COLORS, SHAPES
from training.model_config import END_OF_TEXT, END_OF_TURN
from training.paths import RUNS
from training.questions import ocr, task_mix
from training.questions.referring import Item

FOLDER = RUNS / "tokenizer"
WORDS = (*COLORS, "grey", *SHAPES)
"""What must be one token, for a token of the picture to say it (`objectives/token_head.py`)."""
CAPITALS = re.compile("[A-Z]{2}")
VOCABULARY = 1100  # before the special tokens
SPECIALS = (
    *(END_OF_TEXT, "<|im_start|>", END_OF_TURN, CHATML.image_start, CHATML.image_end, IMAGE_CONTEXT),
    *("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", SEG, PHRASE_START, PHRASE_END, "<vp>", "</vp>"),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COMMON_WORDS = """
    the be to of and a in that have it for not on with he as you do at this but his by from they we say her she or
    an will my one all would there their what so up out if about who get which go me when make can like time no
    just him know take people into year your good some could them see other than then now look only come its over
    think also back after use two how our work first well way even new want because any these give day most us is
    are was were been has had did said each many few more very much here where why while before between under
    above below left right top bottom middle center corner side near next small large big little bright dark light
    long short wide high low old young hot cold open close read write word letter number digit text line point
    area part region frame video photo picture image mask outline box button page sign name color colour red green
    blue yellow purple orange black white brown pink gray circle square triangle star object shape thing person
    man woman child dog cat car tree house zero one two three four five six seven eight nine ten first second
    third last both none another same different user assistant please thank hello yes no sorry show find segment
    describe count mark point tell explain answer question help question region1 region2 region3 There are part
    regions in the picture
""".split()  # noqa: SIM905


def corpus(lines: int = 20000, seed: int = 7) -> Iterator[str]:
    """Questions and answers about made-up scenes and writing, and common words in both cases. Capitals stay single, for
    they have to be read one by one."""
    rng = random.Random(seed)
    for _ in range(lines // 4):
        items = [_random_item(number, rng) for number in range(rng.randint(1, 5))]
        turns = task_mix.conversation(items, rng, 4) + ocr.conversation("7", rng.random() < 0.5, rng, 1)
        for exchange in [exchange for turn in turns for exchange in (*turn.history, turn)]:
            if not CAPITALS.search(exchange.question):
                yield f"{exchange.question}\n"
                yield exchange.answer
    for _ in range(lines // 10):
        words = rng.choices(COMMON_WORDS, k=10)
        yield " ".join(words + [word.capitalize() for word in words[:4]])
    yield "user\n assistant\n" * 100


def _random_item(number: int, rng: random.Random) -> Item:
    size = rng.random()
    return Item(number, rng.choice(COLORS), rng.choice(SHAPES), rng.random(), rng.random(), size, size)


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_without_specials(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return with_words(tokenizer)


def with_words(tokenizer: Tokenizer, words: Sequence[str] = WORDS) -> Tokenizer:
    """The same with each of these words, after a space, as one token, by merges behind all others: whatever else is
    typed falls apart as before. Special tokens come after the new ones."""
    state = json.loads(tokenizer.to_str())
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    for word in words:
        first, *parts = tokenizer.encode(f" {word}", add_special_tokens=False).tokens
        for part in parts:
            if first + part not in vocabulary:
                vocabulary[first + part] = len(vocabulary)
                merges.append([first, part])
            first += part
    for number, added in enumerate(state["added_tokens"]):
        added["id"] = len(vocabulary) + number
    return Tokenizer.from_str(json.dumps(state))


def _without_specials() -> Iterator[str]:
    for line in corpus():
        for token in SPECIALS:
            line = line.replace(token, "\n")
        yield line


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "added_tokens_decoder": {str(tokenizer.token_to_id(token)): _added(token) for token in SPECIALS},
        "additional_special_tokens": [token for token in SPECIALS if token != END_OF_TEXT],
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")


def _added(token: str) -> dict[str, object]:
    return {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def load() -> Tokenizer:
    """The tokenizer in `training/runs/tokenizer/`, trained and saved there first when it is missing."""
    if not (FOLDER / "tokenizer.json").exists():
        save(train(), FOLDER)
    return read(FOLDER)


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
