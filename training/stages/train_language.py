"""Stage `language`: the language model learns to answer about what InternViT sees, and `[SEG]` learns to land on the
stand-in prompts that SAM2's mask decoder obeys.

InternViT is frozen here: the stage that teaches it may still be running beside this one, on the other core, and its
weights are taken over now and then.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from sa2va_bento.model.grounding import ImageFeatures, decode_proposals, encode_image
from sa2va_bento.model.internvl.model import InternVLSa2VA, pixel_shuffle
from training.arguments import stage_parser
from training.checkpoint.initialization import fresh_model
from training.checkpoint.stage_files import load_part, stage_exists
from training.data.batches import Batch, ClipPool, ScenePool
from training.model_config import CELLS, LLM_WIDTH, SAM_WIDTH
from training.objectives.attention_supervision import COMPARED, COMPARING_LAYER, LAYER, NAMING_LAYER, Pointing, cells_of
from training.objectives.dense import dense_targets
from training.objectives.language_modeling import Scores, answer, nearest_is_meant, words_of
from training.objectives.mask_loss import mask_losses
from training.objectives.stand_in_prompts import PromptTable
from training.objectives.token_head import PLACE_FIELDS, TokenHead
from training.questions import nano_tokenizer
from training.questions.conversations import converse, items_of
from training.questions.packing import Packed, Packer
from training.questions.task_mix import without_picture
from training.stages.loop import Losses, Plan, Trainer

WEIGHTS = {
    **{"pool": 1.0, "text": 0.7, "digits": 0.5, "clips": 0.4},
    **{"crowd": 0.2, "alike": 0.3, "tiny": 0.25, "blank": 0.1},
}
BATCH = {"pool": 12, "text": 8, "digits": 3, "crowd": 2, "alike": 3, "tiny": 3, "blank": 1, "clips": 3}
LENGTH = {"pool": 300, "text": 150, "digits": 150, "crowd": 300, "alike": 300, "tiny": 300, "blank": 150, "clips": 560}
CLIPS_EVERY = 6
PROMPT_WEIGHT, MASK_WEIGHT, BARE_WEIGHT = 1.0, 0.5, 0.1
POINTING_WEIGHT, PLACING_WEIGHT, COMPARING_WEIGHT = 3.0, 4.0, 1.0  # what all answers about objects stand on
DRAWN, DRAWN_EVERY = 4, 4  # pictures of a batch whose masks are drawn, and steps from one such batch to the next
BARE_EVERY = 5
PROJECTOR = ("mlp1", "token_head")  # knows its work already: it follows slowly, for the language model to keep up
REFRESH_STEPS, REPORT_STEPS = 100, 100


class LanguageStage(nn.Module):
    """The parts that this stage trains or carries along."""

    def __init__(self, model: InternVLSa2VA, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.vision_model, self.mlp1 = model.vision_model, model.mlp1
        self.language_model, self.text_hidden_fcs = model.language_model, model.text_hidden_fcs
        self.token_head = TokenHead(tokenizer)
        self.place_head, self.compare_head = nn.Linear(LLM_WIDTH, PLACE_FIELDS), nn.Linear(LLM_WIDTH, COMPARED)
        self.vision_model.requires_grad_(False)


def load_table(stage: str) -> PromptTable:
    """A SAM stage's stand-in prompts as they are now."""
    table = PromptTable(SAM_WIDTH).requires_grad_(False)
    table.load_state_dict(load_part(stage, "prompts"))
    return table


def see(model: InternVLSa2VA, tiles: Tensor) -> Tensor:
    """Patches (B, 256, C) of a frozen InternViT."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model.vision_model(pixel_values=tiles).last_hidden_state[:, 1:].float()


def prompt_loss(prompts: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance in units of the wanted prompts' spread."""
    return functional.mse_loss(prompts, wanted) / wanted.var().clamp(min=1e-3)


class Step:
    """One step's losses; takes over the other stages' weights now and then, for they may still be running."""

    def __init__(
        self, model: InternVLSa2VA, stage: LanguageStage, packer: Packer, seed: int, eyes: str, sam: str
    ) -> None:
        """`eyes`, `sam`: the stages that InternViT, SAM2 and the stand-in prompts come from."""
        self.model, self.stage, self.packer = model, stage, packer
        self.rng, self.eyes, self.sam = random.Random(seed), eyes, sam
        self.naming, self.pointing, self.comparing = (
            Pointing(model.language_model, layer) for layer in (NAMING_LAYER, LAYER, COMPARING_LAYER)
        )
        self.draws, self.speaks = False, any(parameter.requires_grad for parameter in stage.mlp1.parameters())
        model.grounding_encoder.requires_grad_(False)
        self.scores, self.table = Scores(), load_table(sam)

    def losses(self, step: int, batches: list[Batch]) -> Losses:
        """Every kind in each step: steps towards one kind alone undo what the last one learned."""
        if step % REFRESH_STEPS == 0:
            self._refresh()
        self.draws = step % DRAWN_EVERY == 0
        losses: Losses = {}
        for batch in batches:
            for name, value in self._of_kind(batch).items():
                losses[f"{name}_{batch.kind}"] = WEIGHTS[batch.kind] * value
        if step % BARE_EVERY == 0:
            losses["bare"] = BARE_WEIGHT * self._without_picture(batches[0])
        if step % REPORT_STEPS == REPORT_STEPS - 1:
            print(self.scores.flush(), flush=True)
        return losses

    def _of_kind(self, batch: Batch) -> Losses:
        assert batch.tiles is not None
        pictures = batch.tiles.shape[1] if batch.kind == "clips" else 1
        packed = self.packer.pack(converse(batch, self.rng), LENGTH[batch.kind], pictures)
        patches = pixel_shuffle(see(self.model, batch.tiles.flatten(0, -4)), CELLS)
        image_tokens = self.model.mlp1(patches)
        answered = answer(self.model, packed, image_tokens.unflatten(0, (-1, pictures)).flatten(1, 2))
        losses, hits = {"language": answered.loss}, torch.zeros(0, dtype=torch.bool)
        if batch.kind != "clips":
            words = self.model.language_model.get_input_embeddings().weight
            if self.speaks and batch.kind != "blank":
                losses |= self.stage.token_head.losses(image_tokens, dense_targets(batch.labels, batch.things), words)
            losses |= self._finding(packed, batch)
        if packed.segs:
            prompts = self.model.text_hidden_fcs(answered.segs)
            losses["prompt"] = PROMPT_WEIGHT * prompt_loss(prompts, self.table(words_of(packed, batch.things)))
            hits = nearest_is_meant(prompts.detach(), self.table, packed, batch.things)
            if self.draws and batch.frames is not None:
                losses["mask"] = MASK_WEIGHT * self._mask_loss(packed, prompts, batch)
        self.scores.add(packed, answered, hits)
        return losses

    def _finding(self, packed: Packed, batch: Batch) -> Losses:
        """Whether names and answers look at what they mean, bring its place along, and compare the two of a pair."""
        cells, head = cells_of(batch.labels, batch.things), self.stage.place_head
        losses: Losses = {}
        for name, layer, points in (("naming", self.naming, packed.names), ("pointing", self.pointing, packed.points)):
            if points:
                losses[name] = POINTING_WEIGHT * layer.loss(packed, points, cells)
                losses[f"{name}_place"] = PLACING_WEIGHT * layer.place_loss(points, batch.things, head)
        if packed.pairs:
            difference = self.comparing.difference_loss(packed.pairs, batch.things, self.stage.compare_head)
            losses["comparing"] = COMPARING_WEIGHT * difference
        return losses

    def _mask_loss(self, packed: Packed, prompts: Tensor, batch: Batch) -> Tensor:
        """Of the masks that the prompts (P, d) of the batch's first pictures lead a frozen SAM2 to."""
        assert batch.frames is not None
        asked = torch.tensor([seg for seg in packed.segs if seg[0] < DRAWN])
        if not len(asked):
            return prompts.new_zeros(())
        sam, (rows, _, numbers) = self.model.grounding_encoder, asked.unbind(1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            encoded = encode_image(sam, batch.frames[:DRAWN])
        features = ImageFeatures(*(tensor.float() for tensor in encoded.tensors)).rows(rows)
        decoded = decode_proposals(sam, features, prompts[: len(asked)])  # the first pictures' prompts come first
        masks = (batch.labels[rows] == numbers[:, None, None] + 1).float()
        return mask_losses(decoded, masks, torch.ones(len(asked), dtype=torch.bool))["mask"]

    def _refresh(self) -> None:
        self.table = load_table(self.sam)
        self.model.grounding_encoder.load_state_dict(load_part(self.sam, "sam"))
        if stage_exists(self.eyes):
            self.model.vision_model.load_state_dict(load_part(self.eyes, "vision_model"))

    def _without_picture(self, batch: Batch) -> Tensor:
        """Language loss of one conversation that has no picture."""
        turns = without_picture(items_of(batch.things[0].tolist(), batch.labels[0]), self.rng, 8)
        return answer(self.model, self.packer.pack([turns], 200, pictures=0), None).loss


def main() -> None:
    parser = stage_parser(
        __doc__, "language", minutes=60, lr=5e-4, start_help="stage whose language model to go on from"
    )
    parser.add_argument("--projector", default="projector", help="stage that the projector and its head come from")
    parser.add_argument("--eyes", default="vit")
    parser.add_argument("--sam", default="sam")
    parser.add_argument("--freeze-projector", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="other data in another order, for a mean of two stages")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = nano_tokenizer.load()
    model = fresh_model(tokenizer)
    stage = LanguageStage(model, tokenizer)
    if args.start:
        for part in ("language_model", "text_hidden_fcs"):
            stage.get_submodule(part).load_state_dict(load_part(args.start, part))
        for part in ("place_head", "compare_head"):
            head = stage.get_submodule(part)
            head.load_state_dict(load_part(args.start, part) or head.state_dict())
    for part in PROJECTOR:
        stage.get_submodule(part).load_state_dict(load_part(args.projector, part))
        stage.get_submodule(part).requires_grad_(not args.freeze_projector)
    trainer = Trainer(Plan(args.stage, args.minutes, lr=args.lr), stage, slow=PROJECTOR, slow_factor=0.15)
    streams = {
        kind: iter(ScenePool(BATCH[kind], tiles=True, frames=kind == "pool", kind=kind))
        for kind in BATCH
        if kind != "clips"
    }
    clips = ClipPool(BATCH["clips"], tiles=True).prefixes()
    np.random.seed(args.seed + trainer.step)
    step = Step(model, stage, Packer(tokenizer), args.seed + trainer.step, args.eyes, args.sam)
    trainer.run(lambda number: step.losses(number, batches_of(number, streams, clips)))


def batches_of(step: int, streams: dict[str, Iterator[Batch]], clips: Iterator[Batch]) -> list[Batch]:
    """One of scenes, one of each writing, and now and then one of clips."""
    batches = [next(stream) for stream in streams.values()]
    return [*batches, next(clips)] if step % CLIPS_EVERY == 0 else batches


if __name__ == "__main__":
    main()
