"""Stage `language`: the language model learns to answer about what a frozen InternViT sees, and `[SEG]` learns to land
on the stand-in prompts that SAM2's mask decoder obeys.

With `--refine`, stage `refine_language`: it goes on from the joint stage while `refine_vit` runs beside it, and takes
over that stage's InternViT now and then.
"""

import argparse
import random

import torch
from torch import Tensor, nn
from torch.nn import functional

from sa2va_bento.model.internvl import InternVLSa2VA, pixel_shuffle
from sa2va_bento.settings import NANO_PATH
from training import tokenizer as nano_tokenizer
from training.batches import Batch, ScenePool
from training.export import assemble
from training.geometry import CELLS, SAM_WIDTH
from training.language import Scores, answer, converse, items_of, words_of
from training.loop import Losses, Plan, Trainer, load_part, stage_exists
from training.prompts import PromptTable
from training.sequences import Packer
from training.tasks import without_picture

BARE_WEIGHT = 0.1


class LanguageStage(nn.Module):
    """The parts that this stage trains or carries along; `table` is the SAM stage's and stays as it is."""

    def __init__(self, model: InternVLSa2VA) -> None:
        super().__init__()
        self.vision_model, self.mlp1 = model.vision_model, model.mlp1
        self.language_model, self.text_hidden_fcs = model.language_model, model.text_hidden_fcs
        self.vision_model.requires_grad_(False)


def load_table() -> PromptTable:
    """The SAM stage's stand-in prompts as they are now."""
    table = PromptTable(SAM_WIDTH).requires_grad_(False)
    table.load_state_dict(load_part("sam", "prompts"))
    return table


def see(model: InternVLSa2VA, tiles: Tensor) -> Tensor:
    """Patches (B, 256, C) of a frozen InternViT."""
    with torch.no_grad():
        return model.vision_model(pixel_values=tiles).last_hidden_state[:, 1:]


def prompt_loss(prompts: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance in units of the wanted prompts' spread."""
    return functional.mse_loss(prompts, wanted) / wanted.var().clamp(min=1e-3)


class Step:
    """One step's losses; refreshes the stand-in prompts now and then, for the SAM stage may still be running."""

    def __init__(self, model: InternVLSa2VA, packer: Packer, seed: int, eyes: str) -> None:
        """`eyes`: the stage that InternViT comes from."""
        self.model, self.packer, self.rng, self.eyes = model, packer, random.Random(seed), eyes
        self.scores, self.table = Scores(), load_table()

    def losses(self, step: int, batch: Batch) -> Losses:
        if step % 100 == 0:
            self._refresh()
        assert batch.tiles is not None
        packed = converse(batch, self.packer, self.rng)
        tokens = self.model.mlp1(pixel_shuffle(see(self.model, batch.tiles), CELLS))
        answered = answer(self.model, self.packer, packed, tokens)
        prompts = self.model.text_hidden_fcs(answered.segs)
        self.scores.add(packed, answered)
        if step % 100 == 99:
            print(self.scores.flush(), flush=True)
        wanted = self.table(words_of(packed, batch.things))
        bare = BARE_WEIGHT * self._without_picture(batch)
        return {"language": answered.loss, "prompt": prompt_loss(prompts, wanted), "bare": bare}

    def _refresh(self) -> None:
        self.table = load_table()
        if stage_exists(self.eyes):
            self.model.vision_model.load_state_dict(load_part(self.eyes, "vision_model"))

    def _without_picture(self, batch: Batch) -> Tensor:
        """Language loss of one conversation that has no picture."""
        items = items_of(batch.things[0].tolist())
        packed = self.packer.pack([without_picture(items, self.rng, 6)], picture=False)
        return answer(self.model, self.packer, packed, None).loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--refine", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = nano_tokenizer.load(NANO_PATH)
    model = assemble(tokenizer, until="joint" if args.refine else "sam")
    stage = LanguageStage(model)
    first = Plan("language", args.minutes, lr=1.5e-3, warmup_steps=150)
    plan = Plan("refine_language", args.minutes, lr=6e-4) if args.refine else first
    trainer = Trainer(plan, stage)
    batches = iter(ScenePool(args.batch, tiles=True))
    step = Step(
        model, Packer(tokenizer), seed=trainer.step + 5000 * args.refine, eyes="refine_vit" if args.refine else "vit"
    )
    trainer.run(lambda number: step.losses(number, next(batches)))


if __name__ == "__main__":
    main()
