"""The scripts that make the embedded model: what they promise about their data, their sequences and their growth."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sa2va_bento.model.chat_template import SEG
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.types import Prediction, Segment, Usage
from training.checkpoint.initialization import build_model, nano_config
from training.checkpoint.warm_start import grown, widened
from training.data.augmentation import REWRITABLE, TURNABLE, rewritten
from training.data.picture_shards import CLASSES, SHARD_SCENES, WRITERS, draw
from training.data.scenes import Scene, make_scene
from training.data.shapes import COLORS, CURVES, SHAPES, Thing, area_of, coverage
from training.data.writing import make_text
from training.evaluation import edges, tasks
from training.evaluation.edges import edge_cases
from training.evaluation.tasks import Question
from training.model_config import CELLS, IMAGE_TOKENS, LLM_WIDTH, SAM_SIZE
from training.objectives.dense import MOST, ORDERS
from training.objectives.language_modeling import answer
from training.objectives.token_head import PATCH_FIELDS, PLACE_FIELDS, TokenHead
from training.questions import edges as edges_of_training
from training.questions import nano_tokenizer, unknown_words
from training.questions.conversations import items_of
from training.questions.packing import Packer
from training.questions.referring import Item
from training.questions.task_mix import conversation
from training.questions.turns import Turn
from training.stages import loop

SETTINGS = Path(__file__).parents[2] / "sa2va_bento" / "nano"


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(nano_tokenizer.read(SETTINGS))


def model_of(layers: int) -> InternVLSa2VA:
    """The nano model, untrained, with so many layers in its language model."""
    config = nano_config(nano_tokenizer.read(SETTINGS))
    llm = config["llm_config"]
    assert isinstance(llm, dict)
    return build_model(InternVLConfig.from_dict(config | {"llm_config": llm | {"num_hidden_layers": layers}}))


def test_training_counts_with_the_sizes_of_the_configuration() -> None:
    config = InternVLConfig.from_dict(nano_config(nano_tokenizer.read(SETTINGS)))
    assert (config.cells_per_side, config.tokens_per_tile) == (CELLS, IMAGE_TOKENS)
    assert config.sam2_shape.image_size == SAM_SIZE


def a_conversation(turns: int) -> list[Turn]:
    sample = draw("pool", 3)
    return conversation(
        items_of(sample.things.tolist(), torch.from_numpy(sample.label.copy())), random.Random(0), turns
    )


def test_packed_conversations_are_what_they_would_be_one_by_one(packer: Packer) -> None:
    turns = sorted(a_conversation(6), key=lambda turn: -packer.pack([[turn]], 1000).ids.shape[1])  # as rows are filled
    model = model_of(2)
    seen = torch.randn(1, IMAGE_TOKENS, LLM_WIDTH)
    packed = packer.pack([turns], 1000)
    with torch.no_grad():
        together = answer(model, packed, seen)
        alone = [answer(model, packer.pack([[turn]], 1000), seen) for turn in turns]
    assert len(packed.kinds[0]) == len(turns)
    assert float(together.loss) == pytest.approx(float(np.mean([one.loss for one in alone])), rel=0.01)
    torch.testing.assert_close(together.segs, torch.cat([one.segs for one in alone]), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("typed", ["Please segment the red circle.", "FIND THE RED CIRCLE", "is the red circle red?"])
def test_a_name_ends_where_its_last_token_does_however_it_is_typed(packer: Packer, typed: str) -> None:
    turn = Turn(typed, f"Sure, {SEG}.", (2,), names=(("red circle", (2,)),))
    packed = packer.pack([[turn]], 1000)
    ((row, place, objects),) = packed.names
    tokenizer = nano_tokenizer.read(SETTINGS)
    said = tokenizer.decode(packed.ids[row, : place + 1].tolist())
    assert said.lower().endswith("red circle")
    assert objects == 1 << 2


def test_what_a_list_names_is_pointed_at_in_turn(packer: Packer) -> None:
    turn = Turn("What do you see?", "The picture shows a red circle, a blue star and a green star.", lists=(4, 0, 2))
    packed = packer.pack([[turn]], 1000)
    tokenizer = nano_tokenizer.read(SETTINGS)
    before = {objects: tokenizer.decode(packed.ids[0, : place + 2].tolist()) for _, place, objects in packed.points}
    assert before[1 << 4].endswith("a red circle,")
    assert before[1 << 0].endswith("a blue star and")
    assert len(before) == 3


def test_regions_are_named_by_their_ends(packer: Packer) -> None:
    turn = Turn("What is region2?", "Region2 is a red circle.", regions=((3, 4), (60,)), shown=(1, 0))
    packed = packer.pack([[turn]], 1000)
    assert [cell for _, _, cell in packed.regions] == [3, 4, 60]
    assert [objects for _, _, objects in packed.names] == [1 << 1, 1 << 0]


def test_a_grown_model_answers_as_before() -> None:
    small, large = model_of(2), model_of(5)
    state = {name: tensor for name, tensor in small.state_dict().items() if name.startswith("language_model")}
    fresh = {name: tensor for name, tensor in large.state_dict().items() if name.startswith("language_model")}
    large.load_state_dict(grown(state, fresh), strict=False)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        before, after = (model.get_submodule("language_model")(input_ids=ids).logits for model in (small, large))
    torch.testing.assert_close(after, before)


def test_new_words_are_one_token_each_and_others_fall_apart_as_before() -> None:
    before = nano_tokenizer.read(SETTINGS)
    after = nano_tokenizer.with_words(before, ("ultramarine", "rhombicuboctahedron", "circle"))
    for word in ("ultramarine", "rhombicuboctahedron", "circle"):
        assert len(after.encode(f" {word}", add_special_tokens=False).ids) == 1
    for text in (f"Please segment the red circle {SEG}, the small one.", "What does the text say? HELLO 2026"):
        assert after.encode(text).tokens == before.encode(text).tokens
        assert after.decode(after.encode(text).ids, skip_special_tokens=False) == text
    assert set(after.get_vocab().values()) == set(range(after.get_vocab_size()))
    again = nano_tokenizer.with_words(after, ("ultramarine",))
    assert again.get_vocab() == after.get_vocab()


def test_helpers_of_fewer_words_keep_what_they_know() -> None:
    tokenizer = nano_tokenizer.with_words(nano_tokenizer.read(SETTINGS))
    colors, shapes, orders = 6, 4, MOST * ORDERS
    width = (colors + 1) + (len(CLASSES) - len(SHAPES) + shapes + 1) + orders
    directions = torch.arange(4 * width + PLACE_FIELDS + 1).float().expand(LLM_WIDTH, -1)
    prompts = {"prompts.color.weight": torch.ones(colors, 128), "prompts.shape.weight": torch.ones(shapes, 128)}
    found = widened({**prompts, "token_head.directions": directions}, tokenizer)
    assert found["prompts.color.weight"].shape == (len(COLORS), 128)
    assert (found["prompts.shape.weight"][:shapes] == 1).all()
    second = found["token_head.directions"][0].split([sum(PATCH_FIELDS)] * 4 + [PLACE_FIELDS + 1])[1]
    color, kind, *_ = second.split([len(COLORS) + 1, len(CLASSES) + 1, orders])
    assert color[:colors].tolist() == list(range(width, width + colors))
    assert color[-1] == width + colors  # none
    assert kind[:shapes].tolist() == list(range(width + colors + 1, width + colors + 1 + shapes))
    assert kind[len(SHAPES)] == width + colors + 1 + shapes  # the first character
    assert second[-1] == 2 * width - 1
    head = TokenHead(tokenizer)
    head.load_state_dict({"directions": found["token_head.directions"]})


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_painted_where_they_are_said_to_be(shape: str) -> None:
    thing = Thing("red", shape, 100, 100, 60, 0.2, (255, 0, 0), aspect=0.5 if shape in CURVES else 1.0)
    _, painted, whole = coverage(thing, 200, 200, smooth=True)
    assert np.array_equal(painted, whole)
    assert whole.sum() == pytest.approx(area_of(thing), rel=0.05)
    _, painted, whole = coverage(replace(thing, hollow=0.8), 200, 200, smooth=True)
    assert painted.sum() == pytest.approx((1 - 0.8**2) * area_of(thing), rel=0.12)
    assert whole.sum() == pytest.approx(area_of(thing), rel=0.05)


def test_rewritten_characters_stay_in_their_boxes_and_in_the_picture() -> None:
    torch.manual_seed(0)
    samples = [draw("text", seed) for seed in range(12)]
    tiles = torch.from_numpy(np.stack([sample.tile for sample in samples])).permute(0, 3, 1, 2).float()
    labels = torch.from_numpy(np.stack([sample.label for sample in samples])).long()
    things = torch.from_numpy(np.stack([sample.things for sample in samples]))
    moved, marks, places = rewritten(tiles, labels, things)
    assert moved.shape == tiles.shape
    assert not torch.equal(places, things)
    assert torch.equal(places[..., :2], things[..., :2])
    seen = 0
    for label, rows in zip(marks % 128, places, strict=True):
        for number, row in enumerate(rows):
            ys, xs = (label == number + 1).nonzero().unbind(1)
            if row[1] < 0 or not len(xs):
                continue
            seen += 1
            found = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / label.shape[-1]
            assert (found[:2] > row[4:6] - 0.02).all()
            assert (found[2:] < row[6:8] + 0.02).all()
            assert (row[4:6] > -0.01).all()
            assert (row[6:8] < 1.01).all()
    assert seen > 20


def test_colors_are_exchanged_in_writing_alone() -> None:
    assert sorted((*TURNABLE, *REWRITABLE)) == sorted(SHARD_SCENES)
    assert set(REWRITABLE) == set(WRITERS)


def test_pictures_are_functions_of_their_seeds() -> None:
    assert np.array_equal(np.asarray(make_text(7).image), np.asarray(make_text(7).image))
    assert make_text(7).text != make_text(8).text or not np.array_equal(make_text(7).ink, make_text(8).ink)
    assert not np.array_equal(np.asarray(make_scene(7).image), np.asarray(make_scene(7, held_out=True).image))


def prediction(scene: Scene, numbers: tuple[int, ...]) -> Prediction:
    """An answer with the true masks and names of these objects."""
    things = [scene.things[number] for number in numbers]
    segments = tuple(
        Segment(scene.mask(number), 1.0, 1.0, 0.5, phrase=f"a {thing.color} {thing.shape}")
        for number, thing in zip(numbers, things, strict=True)
    )
    return Prediction(SEG * len(things), "", segments, scene.image.size, Usage(1, 0, 1), "stop")


@pytest.mark.parametrize("ask", [tasks.refer, tasks.several, tasks.grounded_caption])
def test_true_masks_are_marked_right_and_no_masks_wrong(
    ask: Callable[[Scene, random.Random], Question | None],
) -> None:
    scene = make_scene(11, held_out=True)
    asked = next(found for seed in range(20) if (found := ask(scene, random.Random(seed))))
    everything = range(len(scene.things))
    answers = [some for count in everything for some in combinations(everything, count + 1)]
    marked = [asked.mark(prediction(scene, numbers)) for numbers in answers]
    assert sum(min(marks.values()) == 1.0 for marks in marked) == 1  # one set of objects is meant, and no other
    assert max(asked.mark(prediction(scene, ())).values()) == 0.0


def test_a_stage_goes_on_from_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RUNS", tmp_path)

    def a_stage(minutes: float) -> tuple[loop.Trainer, nn.Linear]:
        torch.manual_seed(0)
        layer = nn.Linear(4, 1)
        trainer = loop.Trainer(loop.Plan("toy", minutes, lr=1e-2), layer)
        trainer.run(lambda step: {"toy": (layer(torch.ones(1, 4)) - 3.0).square().mean()})
        return trainer, layer

    first, learned = a_stage(0.002)
    assert first.is_done
    again, carried = a_stage(0.002)
    assert again.step == first.step  # nothing was left to do
    torch.testing.assert_close(carried.weight, learned.weight)
    longer, _ = a_stage(0.004)
    assert longer.step > first.step


def test_the_edges_are_a_fixed_list_of_other_words_than_trainings() -> None:
    cases = edge_cases()
    assert len(cases) == 300
    trained = {*unknown_words.UNKNOWN_THINGS, *unknown_words.UNKNOWN_SHAPES, *unknown_words.UNKNOWN_COLORS}
    assert not trained & set(edges.UNKNOWN)
    assert not set(unknown_words.SYSTEM_PROMPTS) & set(edges.SYSTEMS)
    again = edge_cases()
    assert [case.prompt for case in cases] == [case.prompt for case in again]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(cases, again, strict=True))


@pytest.mark.parametrize(
    ("prompt", "said", "is_right"),
    [
        ("Please segment the zebra.", "There is no zebra in the picture.", True),
        ("Please segment the zebra.", "I only know colored shapes, capital letters and digits.", True),
        ("Please segment the zebra.", "There is no zorba in the picture.", False),
        ("How many circles are there?", "There are more than 5 circles.", True),
        ("How many circles are there?", "There are 5 circles.", False),
    ],
)
def test_answers_at_the_edges_are_marked(prompt: str, said: str, is_right: bool) -> None:
    (first, *_) = [case for case in edge_cases() if case.prompt == prompt and case.kind != "blank page"]
    assert first.mark(Prediction(said, said, (), first.image.size, Usage(1, 0, 1), "stop")) == {
        "right": float(is_right)
    }


def test_more_than_are_counted_is_said(packer: Packer) -> None:
    """Of six circles two alike cannot be told apart from the rest: they are not listed."""
    items = [Item(n, "red" if n < 4 else "blue", "circle", 0.1 + 0.15 * n, 0.5, 0.02, 0.03) for n in range(6)]
    turns = [turn for seed in range(200) if (turn := edges_of_training.of_many(items, random.Random(seed)))]
    listed = {turn.answer: turn.targets for turn in turns if "more than 5" in turn.answer and turn.targets}
    assert listed
    assert set(listed.values()) == {(0, 3, 4, 5)}
    assert "There are 4 red circles." in {turn.answer for turn in turns}
