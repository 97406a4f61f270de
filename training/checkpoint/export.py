"""Writes the embedded checkpoint: the published layout, bfloat16, into `sa2va_bento/nano/` (or `--out`).

Takes the furthest stage that has run for each part of the model; parts that no stage has trained keep their
initialisation.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.weight_names import GAUSSIAN_IN_TREE, to_published
from sa2va_bento.settings import NANO_PATH
from training.arguments import parser_of
from training.checkpoint.initialization import fresh_model, nano_config, parameter_counts
from training.checkpoint.stage_files import load_part, stage_exists
from training.model_config import END_OF_TEXT, END_OF_TURN
from training.questions import nano_tokenizer

LIMIT_BYTES = 16 * 2**20
HELPERS = Path(__file__).parent / "helpers.safetensors"
LANGUAGE_STAGES = ("average", "language", "edition")
HELPING = {
    "prompts": ("sam", "edition"),
    **dict.fromkeys(("token_head", "place_head", "compare_head"), LANGUAGE_STAGES),
}
"""Parts that do not ship, and the stages that train them, the furthest first: an edition that goes on needs them."""
LM_HEAD = "language_model.lm_head.weight"  # tied to the embedding: not in the file
SAM_PART = {"sam": "grounding_encoder"}
LANGUAGE_PARTS = {name: name for name in ("vision_model", "mlp1", "language_model", "text_hidden_fcs")}
STAGE_PARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("edition", SAM_PART | LANGUAGE_PARTS),
    ("vit", {"vision_model": "vision_model"}),
    ("sam", SAM_PART),
    ("memory", SAM_PART),
    ("language", LANGUAGE_PARTS),
    ("average", LANGUAGE_PARTS),
)
"""Stages in order, and which part of the model each part of their checkpoint is."""


def assemble(tokenizer: Tokenizer) -> InternVLSa2VA:
    """The model with what the stages have learned so far."""
    model = fresh_model(tokenizer)
    for stage, parts in STAGE_PARTS:
        if stage_exists(stage):
            for source, target in parts.items():
                model.get_submodule(target).load_state_dict(load_part(stage, source))
    return model


def published_tensors(model: InternVLSa2VA) -> dict[str, Tensor]:
    """bfloat16 under published names. SAM2's coordinate frequencies stay float32: its code holds them so."""
    state = model.state_dict()
    state.pop(LM_HEAD)
    on_prompts, on_image = GAUSSIAN_IN_TREE
    state[on_prompts] = state[on_image]  # one tensor in the published layout; training used the image's
    rules = model.config.weight_rules
    keep = set(to_published({name: state[name] for name in GAUSSIAN_IN_TREE}, rules))
    published = to_published(state, rules)
    return {
        name: (tensor.float() if name in keep else tensor.to(torch.bfloat16)).contiguous().clone()
        for name, tensor in published.items()
    }


def export(model: InternVLSa2VA, tokenizer: Tokenizer, folder: Path) -> None:
    """Config, tokenizer and weights; refuses to write more than 16 MB."""
    nano_tokenizer.save(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(nano_config(tokenizer), indent=1) + "\n")
    generation = {
        "eos_token_id": [tokenizer.token_to_id(END_OF_TURN), tokenizer.token_to_id(END_OF_TEXT)],
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    weights = folder / "model.safetensors"
    save_file(published_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors keeps what it writes to its owner, and an image's user is somebody else
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if size > LIMIT_BYTES:
        raise SystemExit(f"{folder} holds {size / 2**20:.1f} MiB, more than {LIMIT_BYTES >> 20}")
    print(f"{folder}: {size / 2**20:.1f} MiB, millions of parameters {parameter_counts(model)}")


def export_helpers(path: Path) -> None:
    """What the stages trained beside the model, in float32."""
    tensors = {
        f"{part}.{name}": tensor
        for part, stages in HELPING.items()
        for name, tensor in load_part(next(filter(stage_exists, stages)), part).items()
    }
    save_file(tensors, path)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=NANO_PATH)
    parser.add_argument("--helpers", type=Path, default=HELPERS, help="where to keep what does not ship")
    args = parser.parse_args()
    tokenizer = nano_tokenizer.load()
    export(assemble(tokenizer), tokenizer, args.out)
    export_helpers(args.helpers)


if __name__ == "__main__":
    main()
