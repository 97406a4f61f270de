"""Makes a stage out of an exported checkpoint, so that an edition can go on from the one before it.

    python -m training.checkpoint.warm_start            # the embedded checkpoint becomes the stage `edition`
    python -m training.stages.pretrain_vit --start edition

What was trained beside it and does not ship (stand-in prompts, throw-away heads) comes from `helpers.safetensors`.
A language model of fewer layers than `model_config.py` asks for is grown: new layers add nothing until they have
learned. Its tokenizer becomes the training's unless there is one already; then a token that both know keeps its
embedding, and others start anew. Words for colours and shapes that came since become tokens of their own.

One stage can go on alone, all else being the edition's:

    python -m training.stages.train_language --start edition --projector edition --eyes edition --sam edition
    python -m training.checkpoint.export
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.settings import NANO_PATH
from training.arguments import parser_of
from training.checkpoint.export import HELPERS, LANGUAGE_PARTS, LM_HEAD, SAM_PART
from training.checkpoint.initialization import fresh_model
from training.data.shapes import COLORS, SHAPES
from training.model_config import SAM_WIDTH
from training.objectives.stand_in_prompts import PromptTable
from training.objectives.token_head import PATCH_FIELDS, PLACE_FIELDS, TokenHead
from training.paths import RUNS
from training.questions import nano_tokenizer

PARTS = {part: saved for saved, part in (LANGUAGE_PARTS | SAM_PART).items()}
"""Parts of the model, and what stages call them."""
LAYERS = "language_model.model.layers"
SILENCED = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
"""What a layer adds to its input passes through one of these."""
EMBEDDINGS = "language_model.model.embed_tokens.weight"


def reopened(folder: Path, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """The checkpoint's tensors in float32, as a stage that trained every part would have saved them."""
    model = load_model(folder, Placement(torch.device("cpu"), torch.float32))
    state = model.state_dict()
    fresh = fresh_model(tokenizer).state_dict()
    state[EMBEDDINGS] = carried(state[EMBEDDINGS], nano_tokenizer.read(folder), fresh[EMBEDDINGS], tokenizer)
    state = grown(state, fresh)
    state[LM_HEAD] = state[EMBEDDINGS]
    names = ((*name.split(".", 1), tensor) for name, tensor in state.items())
    return {f"{PARTS[part]}.{rest}": tensor.clone() for part, rest, tensor in names}


def grown(state: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """The language model's layers spread over those of `fresh`, the first and the last in their places; what lies
    between two of them starts anew and silent."""
    old, new = _layer_count(state), _layer_count(fresh)
    came_from = {layer * (new - 1) // max(1, old - 1): layer for layer in range(old)}
    found = {name: tensor for name, tensor in state.items() if not name.startswith(LAYERS)}
    for name, tensor in fresh.items():
        if name.startswith(LAYERS):
            number, rest = name.removeprefix(f"{LAYERS}.").split(".", 1)
            if int(number) in came_from:
                tensor = state[f"{LAYERS}.{came_from[int(number)]}.{rest}"]
            found[name] = torch.zeros_like(tensor) if int(number) not in came_from and rest in SILENCED else tensor
    return found


def _layer_count(state: dict[str, Tensor]) -> int:
    return 1 + max(int(name.removeprefix(f"{LAYERS}.").split(".")[0]) for name in state if name.startswith(LAYERS))


def carried(old: Tensor, old_tokenizer: Tokenizer, fresh: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Embeddings (V, H): `old` rows where the old tokenizer has the token, `fresh` ones elsewhere."""
    known = old_tokenizer.get_vocab()
    table = fresh.clone()
    for token, row in tokenizer.get_vocab().items():
        if token in known:
            table[row] = old[known[token]]
    return table


def widened(helpers: dict[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Stand-in prompts and the projector's head with room for the colours and shapes that came after theirs; what is
    new starts anew."""
    fresh = PromptTable(SAM_WIDTH).state_dict()
    tables = {f"prompts.{kind}.weight": fresh[f"{kind}.weight"] for kind in ("color", "shape")}
    colors, shapes = (len(helpers[name]) for name in tables)
    directions = TokenHead(tokenizer).directions.detach().clone()
    directions[:, _columns(colors, shapes)] = helpers["token_head.directions"]
    grown_tables = {name: torch.cat([helpers[name], table[len(helpers[name]) :]]) for name, table in tables.items()}
    return helpers | grown_tables | {"token_head.directions": directions}


def _columns(colors: int, shapes: int) -> list[int]:
    """Where the columns of a `TokenHead` of so many colours and shapes stand in one of all: of four patches each colour
    or none, each class or none, rank and counts; then what a token says once."""
    width = sum(PATCH_FIELDS)
    places: list[int] = []
    for start in range(0, 4 * width, width):
        classes = start + len(COLORS) + 1
        places += [*range(start, start + colors), classes - 1, *range(classes, classes + shapes)]
        places += range(classes + len(SHAPES), start + width)
    return [*places, *range(4 * width, 4 * width + PLACE_FIELDS + 1)]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, default=NANO_PATH)
    parser.add_argument("--stage", default="edition")
    args = parser.parse_args()
    if not (nano_tokenizer.FOLDER / "tokenizer.json").exists():
        nano_tokenizer.save(nano_tokenizer.with_words(nano_tokenizer.read(args.model)), nano_tokenizer.FOLDER)
    target = RUNS / args.stage / "last.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = nano_tokenizer.load()
    helpers = widened(load_file(HELPERS), tokenizer)
    torch.save({"module": reopened(args.model, tokenizer) | helpers}, target)
    print(f"{args.model} is the stage {args.stage} now")


if __name__ == "__main__":
    main()
