"""Nobody starves: how long a short question waits beside long prompts, by a clock that counts tokens."""

import random

import pytest

from sa2va_bento.engine.engine import Engine
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.scheduler import PATIENCE, Scheduler
from sa2va_bento.engine.sequence import Sequence, Status
from tests.fake_runner import CountingRunner, sequence

TOKEN_S, STEP_S = 1e-3, 5e-3
"""What the simulated device takes: for a prompt's token, and for a step of decoding."""


class TimedRunner(CountingRunner):
    """Takes simulated time, and notes when each sequence had its first token."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.first_token = 0.0, dict[Sequence, float]()

    def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
        self.now += TOKEN_S * sum(min(most, item.unread) for item in sequences)
        tokens = super().prefill(sequences, most)
        self.first_token.update(
            {item: self.now for item, token in zip(sequences, tokens, strict=True) if token is not None}
        )
        return tokens

    def decode(self, sequences: list[Sequence]) -> list[int]:
        self.now += STEP_S
        return super().decode(sequences)


LIMITS = Limits(slots=32, max_prefill=100, decode_tokens=4)
STEP_AT_MOST_S = TOKEN_S * LIMITS.max_prefill + STEP_S * LIMITS.decode_tokens


def engine_on(runner: TimedRunner, limits: Limits = LIMITS) -> Engine:
    return Engine(runner, lambda sequence, outcome: None, Scheduler(limits))


def run(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


def long(tokens: int) -> Sequence:
    return sequence(30, *[1] * (tokens - 1))


@pytest.mark.parametrize("before", [1, 5, 20])
def test_a_short_question_is_read_in_the_next_step_however_many_long_ones_are_before_it(before: int) -> None:
    runner = TimedRunner()
    engine = engine_on(runner)
    for _ in range(before):
        engine.add(long(4000))
    for _ in range(7):
        engine.step()
    asked, since = sequence(5, *[1] * 40), runner.now
    engine.add(asked)
    run(engine)
    assert runner.first_token[asked] - since <= STEP_AT_MOST_S


def test_a_question_waits_for_shorter_ones_alone() -> None:
    rng = random.Random(0)
    runner = TimedRunner()
    engine = engine_on(runner)
    questions = [long(4000), *(sequence(5, *[1] * rng.randint(1, 49)) for _ in range(30))]
    for question in questions:
        engine.add(question)
    run(engine)
    for question in questions[1:]:
        shorter = sum(
            len(other.prompt_ids) for other in questions[1:] if len(other.prompt_ids) <= len(question.prompt_ids)
        )
        steps = 1 + shorter // (LIMITS.max_prefill // 2 - 49 + 1)
        assert runner.first_token[question] <= steps * STEP_AT_MOST_S


def test_short_questions_that_never_end_do_not_starve_a_long_prompt() -> None:
    runner = TimedRunner()
    engine = engine_on(runner)
    asked = long(2000)
    engine.add(asked)
    steps = 0
    while asked not in runner.first_token:
        for _ in range(4):
            engine.add(sequence(3, *[1] * 24))
        engine.step()
        steps += 1
    assert steps <= 2000 / (LIMITS.max_prefill // 2)


def classes(waiting: int, urgent: int) -> tuple[Engine, list[Sequence], list[Sequence]]:
    engine = engine_on(TimedRunner(), Limits(slots=1, decode_tokens=1))
    patient = [sequence(2, may_wait=True) for _ in range(waiting)]
    others = [sequence(2) for _ in range(urgent)]
    for item in (*patient, *others):
        engine.add(item)
    return engine, patient, others


def test_who_may_wait_gives_way_to_others_but_not_for_ever() -> None:
    engine, (patient,), others = classes(1, 3 * PATIENCE)
    before = 0
    while patient.status is Status.WAITING:
        engine.step()
        before = sum(item.status is Status.FINISHED for item in others)
    assert before == PATIENCE
    run(engine)
    assert all(item.status is Status.FINISHED for item in others)


def test_without_classes_the_order_is_that_of_arrival() -> None:
    engine, (), others = classes(0, 5)
    finished: list[Sequence] = []
    while engine.has_work:
        engine.step()
        finished += [item for item in others if item.status is Status.FINISHED and item not in finished]
    assert finished == others
