"""Locust users that ask without pause, each its own shuffled mix of questions. Driven by `benchmarks.compare`."""

import itertools
import os

from locust import HttpUser, constant, task

from benchmarks.pictures import questions

PICTURES = int(os.environ.get("BENCH_PICTURES", "32"))
_numbers = itertools.count()


class Asker(HttpUser):
    wait_time = constant(0)

    def on_start(self) -> None:
        self.mix = itertools.cycle(questions(PICTURES, 400, seed=next(_numbers)))

    @task
    def ask(self) -> None:
        question = next(self.mix)
        fields = {"base64Image": question.base64_image, "prompt": question.prompt}
        with self.client.post("/process", json=fields, name=question.kind, catch_response=True) as answer:
            if answer.status_code != 200 or not isinstance(answer.json().get("result"), str):
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
