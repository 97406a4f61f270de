"""The decode step of every family is one graph, the same one for rows of whatever lengths: what CUDA graphs, and a
compiler, ask of it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sa2va_bento.engine.language import LanguageRunner
from sa2va_bento.engine.limits import Limits
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters, Variant
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.low_rank import LowRank
from sa2va_bento.model.registry import build_model, parse_config
from tests.engine.test_dry_run import FAMILIES

WINDOW = 256
NUMBERS = [2, 0, 1]
"""Of the adapters of a step's tokens."""


@pytest.fixture(params=FAMILIES, scope="module")
def config(request: pytest.FixtureRequest) -> CheckpointConfig:
    return parse_config(FAMILIES[request.param]())


@pytest.fixture(params=["flat", "in-tree", "adapters"], scope="module")
def language(request: pytest.FixtureRequest, config: CheckpointConfig) -> LanguageRunner:
    """As the flat decoder computes it, as the in-tree modules do, and with adapters of the first layer."""
    torch.manual_seed(0)
    model = build_model(config).eval().requires_grad_(False)
    adapters = NO_ADAPTERS
    if request.param == "adapters":
        model.prepare_steps()
        assert model.decoder
        width, inner, layers = (
            config.llm.hidden_size,
            config.llm.intermediate_size,
            config.llm.num_hidden_layers,
        )
        change = LowRank.of({n: (torch.randn(2, width) / 8, torch.randn(2 * inner, 2) / 8) for n in (1, 2)})
        model.decoder.adapters = [{"gate_up": change} if not layer else {} for layer in range(layers)]
        adapters = Adapters(model, {"a": Variant(1), "b": Variant(2)})
    language = LanguageRunner(model, 5, Limits(slots=4, context=256), 0, {}, reading="copies", adapters=adapters)
    if request.param == "in-tree":
        model.decoder = None
    return language


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        yield


def step_of(places: list[int], starts: list[int], sizes: list[int]) -> Tensor:
    """Inputs of a step: ids, places, positions, rows, and adapters."""
    return torch.tensor([[20 + place for place in places], places, places, starts, sizes, NUMBERS[: len(places)]])


def test_the_step_is_one_graph_for_rows_of_all_lengths(language: LanguageRunner) -> None:
    compiled = torch.compile(language.step, fullgraph=True, backend="aot_eager")
    steps = [
        step_of([0, 100, 255], [0, 128, 512], [128, 128, 256]),
        step_of([200, 3, 17], [512, 0, 256], [256, 128, 192]),
        step_of([1, 101, 254], [0, 128, 512], [128, 128, 256]),
    ]
    for inputs in steps:
        before = [buffer.clone() for buffer in (*language.cache.keys, *language.cache.values)]
        expected = language.step(inputs, WINDOW)
        written = [buffer.clone() for buffer in (*language.cache.keys, *language.cache.values)]
        for buffer, content in zip((*language.cache.keys, *language.cache.values), before, strict=True):
            buffer.copy_(content)
        assert torch.allclose(compiled(inputs, WINDOW), expected, atol=1e-5)
        for buffer, content in zip((*language.cache.keys, *language.cache.values), written, strict=True):
            assert torch.allclose(buffer, content, atol=1e-5)


def test_every_published_language_model_has_a_flat_decoder(language: LanguageRunner) -> None:
    language.model.decoder = None
    language.model.prepare_steps()
    assert language.model.decoder is not None
