"""Stage `joint`: everything but SAM2's image encoder together, on answers and on the masks that `[SEG]` leads to.

InternViT keeps its dense supervision and learns slowly; the stand-in prompts stay as a gentle pull on `[SEG]`.
"""

import argparse
import random

import torch
from torch import Tensor, nn

from sa2va_bento.model.grounding import DecodedMasks, decode_proposals, encode_image
from sa2va_bento.model.internvl import InternVLSa2VA, pixel_shuffle
from sa2va_bento.settings import NANO_PATH
from training import tokenizer as nano_tokenizer
from training.batches import Batch, ScenePool
from training.dense import DenseHead, dense_losses, dense_targets
from training.export import assemble
from training.geometry import CELLS, VIT_WIDTH
from training.language import Scores, answer, converse, items_of, words_of
from training.loop import Losses, Plan, Trainer, load_part
from training.masks import chosen_iou, mask_losses
from training.sequences import Packed, Packer
from training.tasks import without_picture
from training.train_language import BARE_WEIGHT, load_table, prompt_loss

DENSE_WEIGHT, MASK_WEIGHT, PROMPT_WEIGHT = 0.5, 6.0, 0.5
MASK_EVERY = 2  # masks on every second step: they are learned already and cost as much as the answers
SLOW = ("model.vision_model", "model.grounding_encoder", "head")


class JointStage(nn.Module):
    """The whole model and InternViT's throw-away dense head. Of SAM2 only the mask decoder learns."""

    def __init__(self, model: InternVLSa2VA) -> None:
        super().__init__()
        self.model = model
        self.head = DenseHead(VIT_WIDTH)
        self.head.load_state_dict(load_part("vit", "head"))
        self.table = load_table()
        model.grounding_encoder.requires_grad_(False)
        model.grounding_encoder.mask_decoder.requires_grad_(True)
        for part in ("conv_s0", "conv_s1", "pred_obj_score_head"):  # the first two belong to the frozen features
            model.grounding_encoder.mask_decoder.get_submodule(part).requires_grad_(False)


def seg_masks(packed: Packed, labels: Tensor) -> Tensor:
    """The mask (P, 128, 128) of every `[SEG]`, float 0 or 1."""
    return torch.stack([labels[row] == ref.number + 1 for row, _, ref in packed.segs]).float()


def decode(model: InternVLSa2VA, packed: Packed, frames: Tensor, prompts: Tensor) -> DecodedMasks:
    with torch.no_grad():
        features = encode_image(model.grounding_encoder, frames)
    rows = torch.tensor([row for row, _, _ in packed.segs])
    return decode_proposals(model.grounding_encoder, features.rows(rows), prompts)


class Step:
    """One step's losses, and what the log says about them."""

    def __init__(self, stage: JointStage, packer: Packer, seed: int) -> None:
        self.stage, self.packer, self.rng = stage, packer, random.Random(seed)
        self.scores = Scores()
        self.ious: list[Tensor] = []

    def losses(self, step: int, batch: Batch) -> Losses:
        model = self.stage.model
        assert batch.tiles is not None
        packed = converse(batch, self.packer, self.rng)
        patches = model.vision_model(pixel_values=batch.tiles).last_hidden_state[:, 1:]
        answered = answer(model, self.packer, packed, model.mlp1(pixel_shuffle(patches, CELLS)))
        prompts = model.text_hidden_fcs(answered.segs)
        dense = dense_losses(self.stage.head(patches), dense_targets(batch.labels, batch.things))
        wanted = self.stage.table(words_of(packed, batch.things))
        self.scores.add(packed, answered)
        losses = {
            "language": answered.loss,
            "bare": BARE_WEIGHT * self._without_picture(batch),
            "prompt": PROMPT_WEIGHT * prompt_loss(prompts, wanted),
            "dense": DENSE_WEIGHT * torch.stack(list(dense.values())).sum(),
        }
        if step % MASK_EVERY == 0:
            losses |= self._masks(packed, batch, prompts)
        if step % 100 == 99:
            self._report()
        return losses

    def _masks(self, packed: Packed, batch: Batch, prompts: Tensor) -> Losses:
        assert batch.frames is not None
        decoded = decode(self.stage.model, packed, batch.frames, prompts)
        masks = seg_masks(packed, batch.labels)
        found = mask_losses(decoded, masks, torch.ones(len(masks), dtype=torch.bool))
        single = torch.tensor([not ref.has_place for _, _, ref in packed.segs])
        self.ious.append(chosen_iou(decoded, masks)[single].detach())
        return {name: MASK_WEIGHT * found[name] for name in ("mask", "iou_head")}

    def _without_picture(self, batch: Batch) -> Tensor:
        """Language loss of one conversation that has no picture."""
        items = items_of(batch.things[0].tolist())
        packed = self.packer.pack([without_picture(items, self.rng, 6)], picture=False)
        return answer(self.stage.model, self.packer, packed, None).loss

    def _report(self) -> None:
        ious = torch.cat([torch.zeros(0), *self.ious])
        self.ious.clear()
        refer = {"miou": round(ious.mean().item(), 3), "over_half": round((ious > 0.5).float().mean().item(), 3)}
        print(refer | self.scores.flush(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = nano_tokenizer.load(NANO_PATH)
    stage = JointStage(assemble(tokenizer, until="language"))
    trainer = Trainer(Plan("joint", args.minutes, lr=0.7e-3), stage, slow=SLOW, slow_factor=0.15)
    batches = iter(ScenePool(args.batch, tiles=True, frames=True))
    step = Step(stage, Packer(tokenizer), seed=1000 + trainer.step)
    trainer.run(lambda number: step.losses(number, next(batches)))


if __name__ == "__main__":
    main()
