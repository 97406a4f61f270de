"""Stage `vit`: InternViT learns to see, with dense supervision on its patches: shapes, characters, and their order.

From crowds of shapes and characters at first, from what the model will be asked about in the end.
"""

from itertools import islice

import torch
from torch import Tensor, nn

from training.arguments import stage_parser
from training.checkpoint.initialization import wordless_model
from training.checkpoint.stage_files import load_part
from training.data.batches import Batch, ScenePool, mixed, shares_at
from training.model_config import VIT_WIDTH
from training.objectives.dense import DenseHead, DenseTargets, dense_losses, dense_scores, dense_targets
from training.stages.loop import Losses, Plan, Trainer

AT_FIRST = {"pool": 0.2, "crowd": 0.2, "tiny": 0.0, "text": 0.1, "digits": 0.1, "glyphs": 0.25, "lines": 0.15}
AFTER_SHAPES = {"pool": 0.24, "crowd": 0.2, "tiny": 0.04, "text": 0.15, "digits": 0.1, "glyphs": 0.11, "lines": 0.16}
IN_THE_END = {"pool": 0.33, "crowd": 0.05, "tiny": 0.04, "text": 0.26, "digits": 0.16, "glyphs": 0.04, "lines": 0.12}
GROUPS = 4  # kinds drawn a step: steps towards one kind alone undo what the last one learned
REPORT_STEPS = 100
PROBE_STEPS = 150
"""When the stage goes on from another, its head starts anew and learns alone for so long: its first steps would undo
what the encoder knows (linear probing, then fine-tuning: Kumar et al. 2022)."""


class VitPretraining(nn.Module):
    """InternViT and a throw-away dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model = wordless_model().vision_model
        self.head = DenseHead(VIT_WIDTH)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, 3, 224, 224) to the head's predictions (B, 256, F). Products in bfloat16: a quarter faster."""
        with torch.autocast("cpu", torch.bfloat16):
            patches = self.vision_model(pixel_values=tiles).last_hidden_state[:, 1:]
        return self.head(patches.float())


class Step:
    """One step's losses over groups of pictures, each of one kind; scores are logged for each kind in turn."""

    def __init__(self, stage: VitPretraining) -> None:
        self.stage = stage
        self.reported: dict[str, int] = {}

    def losses(self, step: int, groups: list[Batch]) -> Losses:
        targets = [dense_targets(group.labels, group.things) for group in groups]
        out = self.stage(torch.cat([group.tiles for group in groups if group.tiles is not None]))
        seen = out.detach().split([len(group.labels) for group in groups])
        for group, wanted, found in zip(groups, targets, seen, strict=True):
            if step - self.reported.get(group.kind, -REPORT_STEPS) >= REPORT_STEPS:
                self.reported[group.kind] = step
                scores = {name: round(value, 3) for name, value in dense_scores(found, wanted).items()}
                print(group.kind, scores, flush=True)
        return dense_losses(out, DenseTargets.cat(targets))


def main() -> None:
    parser = stage_parser(
        __doc__, "vit", minutes=60, lr=1e-3, batch=16, start_help="stage whose InternViT to go on from"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stage = VitPretraining()
    at_first = AFTER_SHAPES if args.start else AT_FIRST
    if args.start:
        stage.vision_model.load_state_dict(load_part(args.start, "vision_model"))
    trainer = Trainer(Plan(args.stage, args.minutes, lr=args.lr), stage)
    streams = {kind: iter(ScenePool(args.batch // GROUPS, tiles=True, kind=kind)) for kind in AT_FIRST}
    batches = mixed(streams, lambda: shares_at(trainer.share_done, at_first, IN_THE_END))
    step = Step(stage)

    def losses(number: int) -> Losses:
        stage.vision_model.requires_grad_(not args.start or number >= PROBE_STEPS)
        return step.losses(number, list(islice(batches, GROUPS)))

    trainer.run(losses)


if __name__ == "__main__":
    main()
