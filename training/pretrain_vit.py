"""Stage `vit`: InternViT learns to see, with dense supervision on its patches.

With `--refine`, stage `refine_vit`: it goes on from the joint stage, on ordinary scenes alone.
"""

import argparse

import torch
from torch import Tensor, nn

from sa2va_bento.model.config import Sa2VAConfig
from training.batches import Batch, ScenePool, mixed
from training.dense import DenseHead, dense_losses, dense_scores, dense_targets
from training.geometry import VIT_WIDTH, build_model, config_dict
from training.loop import Losses, Plan, Trainer, load_part

CROWDED_AT_FIRST = 0.95  # share of crowded scenes when the stage starts; none when it ends


class VitPretraining(nn.Module):
    """InternViT and a throw-away dense head."""

    def __init__(self) -> None:
        super().__init__()
        config = Sa2VAConfig.from_dict(config_dict(64, {"<|endoftext|>": 0, "<|im_end|>": 1}))
        self.vision_model = build_model(config).vision_model
        self.head = DenseHead(VIT_WIDTH)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, 3, 224, 224) to the head's predictions (B, 256, 97)."""
        return self.head(self.vision_model(pixel_values=tiles).last_hidden_state[:, 1:])


def losses_of(stage: nn.Module, batch: Batch, report: bool) -> Losses:
    targets = dense_targets(batch.labels, batch.things)
    assert batch.tiles is not None
    out = stage(batch.tiles)
    if report:
        print({name: round(value, 3) for name, value in dense_scores(out.detach(), targets).items()}, flush=True)
    return dense_losses(out, targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--refine", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stage = VitPretraining()
    if args.refine:
        stage.vision_model.load_state_dict(load_part("joint", "model.vision_model"))
        stage.head.load_state_dict(load_part("joint", "head"))
    plan = Plan("refine_vit", args.minutes, lr=2e-4) if args.refine else Plan("vit", args.minutes, lr=2e-3)
    trainer = Trainer(plan, stage)
    normal, crowded = (iter(ScenePool(args.batch, tiles=True, kind=kind)) for kind in ("pool", "crowd"))
    batches = mixed(normal, crowded, lambda: 0.0 if args.refine else CROWDED_AT_FIRST * (1 - trainer.share_done))
    trainer.run(lambda step: losses_of(stage, next(batches), report=step % 100 == 99))


if __name__ == "__main__":
    main()
