"""Stage `sam`: SAM2's image encoder and mask decoder learn together, from stand-in prompts and dense supervision."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sa2va_bento.model.grounding import ImageFeatures, decode_proposals, encode_image
from training.arguments import stage_parser
from training.checkpoint.initialization import wordless_model
from training.checkpoint.stage_files import load_part
from training.data.batches import Batch, ScenePool, mixed, shares_at
from training.data.shapes import COLORS, SHAPES
from training.model_config import SAM_WIDTH
from training.objectives.dense import DenseHead, dense_losses, dense_scores, dense_targets
from training.objectives.mask_loss import chosen_iou, mask_losses
from training.objectives.stand_in_prompts import PromptTable, Words
from training.stages.loop import Losses, Plan, Trainer
from training.stages.pretrain_vit import PROBE_STEPS

PROMPTS_A_SCENE = 5
ABSENT_SHARE = 0.1
PLACE_NOISE = (0.02, 0.02, 0.06)  # one is drawn: [SEG] will not always say the place exactly
AT_FIRST, AFTER_SHAPES = {"pool": 0.2, "crowd": 0.8, "tiny": 0.0}, {"pool": 0.46, "crowd": 0.5, "tiny": 0.04}
IN_THE_END = {"pool": 0.9, "crowd": 0.04, "tiny": 0.06}


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
        self.sam = wordless_model().grounding_encoder
        self.learns(True)
        self.head = DenseHead(SAM_WIDTH)
        self.prompts = PromptTable(SAM_WIDTH)

    def learns(self, does: bool) -> None:
        """Whether SAM2, but for its memory, learns; its head and the prompts always do."""
        self.sam.requires_grad_(does)
        for part in (self.sam.memory_attention, self.sam.memory_encoder, self.sam.object_pointer_proj):
            part.requires_grad_(False)


def references(batch: Batch, rng: random.Random) -> References:
    """Some references to objects of each scene; a few to objects that are not there."""
    rows: list[tuple[int, int, int, float, float]] = []
    masks: list[Tensor] = []
    present: list[bool] = []
    for image, padded in enumerate(batch.things.tolist()):
        things = [thing for thing in padded if thing[1] >= 0]
        for number in rng.sample(range(len(things)), min(PROMPTS_A_SCENE, len(things))):
            color, shape, x, y = things[number][:4]
            noise = rng.choice(PLACE_NOISE)
            rows.append((image, int(color), int(shape), x + rng.gauss(0, noise), y + rng.gauss(0, noise)))
            masks.append(batch.labels[image] == number + 1)
            present.append(True)
        if rng.random() < ABSENT_SHARE * PROMPTS_A_SCENE:
            rows.append((image, *_absent(things, rng)))
            masks.append(torch.zeros_like(batch.labels[image], dtype=torch.bool))
            present.append(False)
    table = torch.tensor(rows)
    words = Words(table[:, 1].long(), table[:, 2].long(), table[:, 3:5])
    return References(table[:, 0].long(), words, torch.stack(masks).float(), torch.tensor(present))


def _absent(things: list[list[float]], rng: random.Random) -> tuple[int, int, float, float]:
    """An object of a colour or shape that the scene lacks, anywhere."""
    taken = {(int(thing[0]), int(thing[1])) for thing in things}
    options = [(c, s) for c in range(len(COLORS)) for s in range(len(SHAPES)) if (c, s) not in taken]
    return (*rng.choice(options), rng.random(), rng.random())


def losses_of(stage: SamPretraining, batch: Batch, rng: random.Random, report: bool) -> Losses:
    assert batch.frames is not None
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encode_image(stage.sam, batch.frames)
    features = ImageFeatures(*(tensor.float() for tensor in encoded.tensors))
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
    parser = stage_parser(
        __doc__,
        "sam",
        minutes=50,
        lr=1e-3,
        batch=12,
        start_help="stage whose SAM2, and stand-in prompts if it has them, to go on from",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stage = SamPretraining()
    at_first = AFTER_SHAPES if args.start else AT_FIRST
    if args.start:
        stage.sam.load_state_dict(load_part(args.start, "sam"))
        stage.prompts.load_state_dict(load_part(args.start, "prompts") or stage.prompts.state_dict())
    trainer = Trainer(Plan(args.stage, args.minutes, lr=args.lr), stage)
    streams = {kind: iter(ScenePool(args.batch, frames=True, kind=kind)) for kind in AT_FIRST}
    batches = mixed(streams, lambda: shares_at(trainer.share_done, at_first, IN_THE_END))
    rng = random.Random(trainer.step)

    def losses(step: int) -> Losses:
        stage.learns(not args.start or step >= PROBE_STEPS)
        return losses_of(stage, next(batches), rng, report=step % 50 == 49)

    trainer.run(losses)


if __name__ == "__main__":
    main()
