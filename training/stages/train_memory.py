"""Stage `memory`: SAM2's memory learns to follow objects through clips; the image encoder stays as it is.

Each clip is run as serving runs it: conditioning frames decoded with the stand-in prompt, later ones on memories
alone. The mask decoder learns along, slowly, since a frame without a prompt is new to it.
"""

import random

import torch
from torch import Tensor, nn

from sa2va_bento.model.grounding import (
    BestMasks,
    DecodedMasks,
    ImageFeatures,
    best_masks,
    decode_proposals,
    decode_unprompted,
    encode_image,
)
from sa2va_bento.model.tracking import FRAMES_SEEN, MemoryBank, attend_to_memory, remember
from training.arguments import stage_parser
from training.checkpoint.initialization import wordless_model
from training.checkpoint.stage_files import load_part
from training.data.batches import ClipBatch, ClipPool
from training.data.clip_shards import NAMED_AT
from training.model_config import SAM_WIDTH
from training.objectives.mask_loss import mask_iou, mask_losses
from training.objectives.stand_in_prompts import PromptTable, Words
from training.stages.loop import Losses, Plan, Trainer

FOLLOWED = (2, 3, 5)  # frames after the conditioning ones that a step looks at: fewer cost less
OBJECTS = 2  # of each clip
GONE_FIRST = 0.7  # how often those that vanish from some frame are chosen before the others
SCORE_BOOST = 5.0  # of the object score's loss: frames without the object are few
STRIDES = (1, 1, 2)  # frames between two that are looked at: a later one is a faster clip
CONDITIONING = (1, 1, 1, 2, 5)  # of the five conditioning frames, how many are used: fewer cost less
PLACE_NOISE = 0.02
SLOW = ("sam.mask_decoder",)
TRAINED = ("memory_attention", "memory_encoder", "object_pointer_proj", "mask_decoder")
TRAINED_TENSORS = ("memory_temporal_positional_encoding", "no_object_pointer")
DECODER_FROZEN = ("conv_s0", "conv_s1")  # they belong to the frozen features


class MemoryStage(nn.Module):
    """SAM2; the stand-in prompts come along unchanged."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.sam = wordless_model().grounding_encoder
        self.sam.load_state_dict(load_part(start, "sam"))
        self.prompts = PromptTable(SAM_WIDTH).requires_grad_(False)
        self.prompts.load_state_dict(load_part(start, "prompts"))
        self.sam.requires_grad_(False)
        for part in TRAINED:
            self.sam.get_submodule(part).requires_grad_(True)
        for name in TRAINED_TENSORS:
            getattr(self.sam, name).requires_grad_(True)
        for part in DECODER_FROZEN:
            self.sam.mask_decoder.get_submodule(part).requires_grad_(False)
        self.eval()  # without the dropout that SAM2's configuration sets: a short training of a small model wants none


class Step:
    """One step's losses over the frames of a batch of clips."""

    def __init__(self, stage: MemoryStage, seed: int) -> None:
        self.stage, self.rng = stage, random.Random(seed)
        self.seen: dict[str, list[float]] = {"prompted": [], "followed": [], "gone": []}

    def losses(self, step: int, batch: ClipBatch) -> Losses:
        assert batch.frames is not None
        rows = self._objects(batch)
        clips = torch.tensor([clip for clip, _ in rows])
        prompts = self._prompts(batch, rows)
        frames = self._frames(batch.labels.shape[1])
        bank = MemoryBank.of(self.stage.sam, batch.labels.shape[1])
        found: list[Losses] = []
        for place, frame in frames:
            features = self._features(batch.frames[:, frame], clips)
            targets = torch.stack([batch.labels[clip, frame] == number + 1 for clip, number in rows]).float()
            decoded = self._decode(place, features, prompts, bank)
            found.append(mask_losses(decoded, targets, targets.flatten(1).any(1), empty=True))
            best = best_masks(decoded)
            self._note(place, best, targets)
            memory = remember(self.stage.sam, features, best)
            if place < FRAMES_SEEN:
                bank.conditioning[place] = memory
            else:
                bank.add(place, memory)
        if step % 50 == 49:
            print({name: round(sum(v) / max(1, len(v)), 3) for name, v in self.seen.items()}, flush=True)
            self.seen = {name: [] for name in self.seen}
        means = {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}
        return {**means, "score": SCORE_BOOST * means["score"]}

    def _objects(self, batch: ClipBatch) -> list[tuple[int, int]]:
        """Some objects of each clip that are there where the prompt's place is taken from; often those first that are
        hidden or leave later."""
        chosen = []
        for clip, things in enumerate(batch.things.tolist()):
            there = [number for number, thing in enumerate(things) if thing[1] >= 0]
            self.rng.shuffle(there)
            if self.rng.random() < GONE_FIRST:
                there.sort(key=lambda number: bool((batch.labels[clip] == number + 1).flatten(1).any(1).all()))
            chosen += [(clip, number) for number in there[:OBJECTS]]
        return chosen

    def _prompts(self, batch: ClipBatch, rows: list[tuple[int, int]]) -> Tensor:
        meant = torch.stack([batch.things[clip, number] for clip, number in rows])
        places = meant[:, 2:4] + PLACE_NOISE * torch.randn(len(rows), 2)
        return self.stage.prompts(Words(meant[:, 0].long(), meant[:, 1].long(), places))

    def _frames(self, length: int) -> list[tuple[int, int]]:
        """Some of the conditioning frames, then later ones a stride apart: the place that each has in memory, and its
        number in the clip."""
        seen = sorted(self.rng.sample(range(FRAMES_SEEN), self.rng.choice(CONDITIONING)))
        stride = self.rng.choice(STRIDES)
        first = FRAMES_SEEN + self.rng.choice([0, 0, 1])
        later = ((FRAMES_SEEN + i, first + stride * i) for i in range(self.rng.choice(FOLLOWED)))
        return [*((place, place) for place in seen), *later]

    def _features(self, pixels: Tensor, clips: Tensor) -> ImageFeatures:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = encode_image(self.stage.sam, pixels)
        return ImageFeatures(*(tensor.float() for tensor in features.tensors)).rows(clips)

    def _decode(self, place: int, features: ImageFeatures, prompts: Tensor, bank: MemoryBank) -> DecodedMasks:
        sam = self.stage.sam
        if place < FRAMES_SEEN:
            return decode_proposals(sam, features, prompts)
        with torch.autocast("cpu", torch.bfloat16):
            recalled = attend_to_memory(sam, place, features.embedding, bank)
        return decode_unprompted(sam, features, recalled.float())

    def _note(self, place: int, best: BestMasks, targets: Tensor) -> None:
        logits = nn.functional.interpolate(best.logits.detach()[:, None], targets.shape[-2:], mode="bilinear")[:, 0]
        ious, there = mask_iou(logits > 0, targets > 0.5), targets.flatten(1).any(1)
        self.seen["prompted" if place < FRAMES_SEEN else "followed"] += ious[there].tolist()
        self.seen["gone"] += [float(not (row > 0).any()) for row in logits[~there]]


def main() -> None:
    parser = stage_parser(
        __doc__, "memory", minutes=30, lr=1e-3, start="sam", batch=4, start_help="stage that SAM2 comes from"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    assert NAMED_AT < FRAMES_SEEN
    stage = MemoryStage(args.start)
    trainer = Trainer(Plan(args.stage, args.minutes, lr=args.lr), stage, slow=SLOW, slow_factor=0.2)
    batches = iter(ClipPool(args.batch, frames=True))
    step = Step(stage, trainer.step)
    trainer.run(lambda number: step.losses(number, next(batches)))


if __name__ == "__main__":
    main()
