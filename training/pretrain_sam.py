"""Stage `sam`: SAM2's image encoder and mask decoder learn together, from stand-in prompts and dense supervision."""

import argparse
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sa2va_bento.model.config import Sa2VAConfig
from sa2va_bento.model.grounding import decode_proposals, encode_image
from training.batches import Batch, ScenePool, mixed
from training.dense import DenseHead, dense_losses, dense_scores, dense_targets
from training.geometry import SAM_WIDTH, build_model, config_dict
from training.loop import Losses, Plan, Trainer
from training.masks import chosen_iou, mask_losses
from training.prompts import ANY_COLOR, ANY_SHAPE, PromptTable, Words
from training.scenes import COLORS, SHAPES

PROMPTS_A_SCENE = 4
ABSENT_SHARE = 0.1
PLACE_NOISE = 0.03
CROWDED_AT_FIRST = 0.8  # share of crowded scenes when the stage starts; none when it ends


@dataclass(frozen=True)
class References:
    """P references of a batch: the image of each (P,), its words, its mask (P, 128, 128) and whether it exists (P,)."""

    image: Tensor
    words: Words
    masks: Tensor
    present: Tensor


class SamPretraining(nn.Module):
    """SAM2 without its memory, a throw-away dense head and the stand-in prompts."""

    def __init__(self) -> None:
        super().__init__()
        config = Sa2VAConfig.from_dict(config_dict(64, {"<|endoftext|>": 0, "<|im_end|>": 1}))
        self.sam = build_model(config).grounding_encoder
        for part in (self.sam.memory_attention, self.sam.memory_encoder, self.sam.object_pointer_proj):
            part.requires_grad_(False)
        self.head = DenseHead(SAM_WIDTH)
        self.prompts = PromptTable(SAM_WIDTH)


def references(batch: Batch, rng: random.Random) -> References:
    """Some references to objects of each scene; a few to objects that are not there."""
    rows: list[tuple[int, int, int, float, float, float]] = []
    masks: list[Tensor] = []
    present: list[bool] = []
    for image, things in enumerate(batch.things.tolist()):
        things = [thing for thing in things if thing[0] >= 0]
        for number in rng.sample(range(len(things)), min(PROMPTS_A_SCENE, len(things))):
            rows.append((image, *_refer(things, number, rng)))
            masks.append(batch.labels[image] == number + 1)
            present.append(True)
        if rng.random() < ABSENT_SHARE * PROMPTS_A_SCENE:
            rows.append((image, *_absent(things, rng)))
            masks.append(torch.zeros_like(batch.labels[image], dtype=torch.bool))
            present.append(False)
    table = torch.tensor(rows)
    words = Words(table[:, 1].long(), table[:, 2].long(), table[:, 3:5], table[:, 5])
    return References(table[:, 0].long(), words, torch.stack(masks).float(), torch.tensor(present))


def _refer(things: list[list[float]], number: int, rng: random.Random) -> tuple[int, int, float, float, float]:
    """Colour, shape, x, y and whether the place counts: words alone where they suffice, else a place with them."""
    color, shape = int(things[number][0]), int(things[number][1])
    x, y = things[number][2] + rng.gauss(0, PLACE_NOISE), things[number][3] + rng.gauss(0, PLACE_NOISE)
    options = [(color, shape), (color, ANY_SHAPE), (ANY_COLOR, shape), (ANY_COLOR, ANY_SHAPE)]
    unique = [option for option in options if sum(_fits(thing, *option) for thing in things) == 1]
    if unique and rng.random() < 0.75:
        first = unique[0] if rng.random() < 0.6 else rng.choice(unique)
        return (*first, 0.0, 0.0, 0.0)
    return (*(options[0] if rng.random() < 0.8 else rng.choice(options)), x, y, 1.0)


def _absent(things: list[list[float]], rng: random.Random) -> tuple[int, int, float, float, float]:
    absent = [
        (color, shape)
        for color in range(len(COLORS))
        for shape in range(len(SHAPES))
        if not any(_fits(thing, color, shape) for thing in things)
    ]
    return (*rng.choice(absent), 0.0, 0.0, 0.0)


def _fits(thing: list[float], color: int, shape: int) -> bool:
    return color in (ANY_COLOR, thing[0]) and shape in (ANY_SHAPE, thing[1])


def losses_of(stage: SamPretraining, batch: Batch, rng: random.Random, report: bool) -> Losses:
    assert batch.frames is not None
    features = encode_image(stage.sam, batch.frames)
    targets = dense_targets(batch.labels, batch.things)
    out = stage.head(features.embedding.flatten(2).transpose(1, 2))
    asked = references(batch, rng)
    decoded = decode_proposals(stage.sam, features.rows(asked.image), stage.prompts(asked.words))
    if report:
        scores = dense_scores(out.detach(), targets)
        iou = chosen_iou(decoded, asked.masks)[asked.present]
        scores |= {"miou": iou.mean().item(), "iou_over_half": (iou > 0.5).float().mean().item()}
        print({name: round(value, 3) for name, value in scores.items()}, flush=True)
    dense = {name: 0.5 * value for name, value in dense_losses(out, targets).items()}
    return dense | mask_losses(decoded, asked.masks, asked.present)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stage = SamPretraining()
    trainer = Trainer(Plan("sam", args.minutes, lr=1.0e-3), stage)
    normal, crowded = (iter(ScenePool(args.batch, frames=True, kind=kind)) for kind in ("pool", "crowd"))
    batches = mixed(normal, crowded, lambda: CROWDED_AT_FIRST * (1 - trainer.share_done))
    rng = random.Random(trainer.step)
    trainer.run(lambda step: losses_of(stage, next(batches), rng, report=step % 100 == 99))


if __name__ == "__main__":
    main()
