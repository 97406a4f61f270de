"""Stage `projector`: the projector learns to say aloud what InternViT sees, before a language model listens.

InternViT is frozen and its patches are kept, so that a step costs milliseconds: what takes this stage a few minutes
takes the language stage hours, for there each step drags a language model along.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sa2va_bento.model.internvl.model import InternVLSa2VA, pixel_shuffle
from training.arguments import stage_parser
from training.checkpoint.initialization import fresh_model
from training.checkpoint.stage_files import load_part
from training.data.batches import ScenePool
from training.model_config import CELLS
from training.objectives.dense import DenseTargets, dense_targets
from training.objectives.token_head import TokenHead
from training.questions import nano_tokenizer
from training.stages.loop import Losses, Plan, Trainer
from training.stages.train_language import see

KEPT = {"pool": 200, "tiny": 20, "text": 80, "digits": 50}  # batches
BATCH = 16


@dataclass(frozen=True)
class Kept:
    """What the frozen InternViT sees in a batch, pixel-shuffled (B, 64, 4 C) in bfloat16, and what is there."""

    patches: Tensor
    targets: DenseTargets


class ProjectorStage(nn.Module):
    """The projector and its throw-away head; the language model's words stay as they are."""

    def __init__(self, mlp1: nn.Module, token_head: TokenHead, words: Tensor) -> None:
        super().__init__()
        self.mlp1, self.token_head = mlp1, token_head
        self._words = words

    def losses(self, kept: Kept) -> Losses:
        return self.token_head.losses(self.mlp1(kept.patches.float()), kept.targets, self._words)


def keep(model: InternVLSa2VA, kind: str, batches: int) -> list[Kept]:
    pictures = iter(ScenePool(BATCH, tiles=True, kind=kind))
    found = []
    for _ in range(batches):
        batch = next(pictures)
        assert batch.tiles is not None
        patches = pixel_shuffle(see(model, batch.tiles), CELLS).to(torch.bfloat16)
        found.append(Kept(patches, dense_targets(batch.labels, batch.things)))
    return found


def main() -> None:
    parser = stage_parser(
        __doc__,
        "projector",
        minutes=4,
        lr=2e-3,
        start_help="stage whose language model's words to speak in, and whose projector to go on from",
    )
    parser.add_argument("--eyes", default="vit")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = nano_tokenizer.load()
    model = fresh_model(tokenizer)
    model.vision_model.load_state_dict(load_part(args.eyes, "vision_model"))
    if args.start:
        for part in ("mlp1", "language_model"):
            model.get_submodule(part).load_state_dict(load_part(args.start, part))
    token_head = TokenHead(tokenizer)
    if args.start:
        token_head.load_state_dict(load_part(args.start, "token_head") or token_head.state_dict())
    words = model.language_model.get_input_embeddings().weight.detach()
    stage = ProjectorStage(model.mlp1, token_head, words)
    trainer = Trainer(Plan(args.stage, args.minutes, lr=args.lr), stage)
    kept = [one for kind, batches in KEPT.items() for one in keep(model, kind, batches)]
    rng = random.Random(trainer.step)
    trainer.run(lambda step: stage.losses(rng.choice(kept)))


if __name__ == "__main__":
    main()
