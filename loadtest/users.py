"""The users, each a way of using the service. Their weights are the mix; `locust ... Segmenter Streamer` takes some."""

import itertools
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from locust import FastHttpUser, constant_throughput, task
from locust.contrib.fasthttp import FastResponse

from loadtest.checks import answer_problem, mask_problem, status_problem
from loadtest.pictures import Picture, film, photographs, scene

QUESTIONS = ("What color is the square?", "How many circles are there?", "What is in the picture?")
DESCRIBE = "Please describe the image. Please respond with interleaved segmentation masks for the corresponding parts."
MOST_TOKENS = 64
_numbers = itertools.count(1)


class Caller(FastHttpUser):
    """What all users share: pictures of their own, a key, a pace, and answers that are looked at."""

    abstract = True
    network_timeout = connection_timeout = 120.0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options
        self.numbers = random.Random(f"{options.seed}-{next(_numbers)}")
        self.headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        self.pictures = [*photographs(self.numbers), *(scene(self.numbers) for _ in range(options.pictures))]
        if options.rate:
            self.wait_time = constant_throughput(options.rate).__get__(self)

    def wait_time(self) -> float:
        return self.numbers.uniform(0, 0.2)

    def picture(self) -> Picture:
        return self.numbers.choice(self.pictures)

    def post(self, path: str, body: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        """An answer's JSON, or None where there was none, which is noted."""
        with self.client.post(path, json=body, headers=self.headers, name=name, catch_response=True) as response:
            answer = _json(response)
            if problem := status_problem(response.status_code, answer, _error(response)):
                response.failure(problem)
                return None
            if answer is None:
                response.failure("the answer is not a JSON object")
            return answer

    def ask(self, picture: Picture, prompt: str, name: str, **fields: object) -> None:
        """Asks `/process`, and checks the answer."""
        body = {"base64Image": picture.base64, "prompt": prompt, "max_new_tokens": MOST_TOKENS, **fields}
        answer = self.post("/process", body, name)
        if answer and (problem := answer_problem(answer, picture, fields.get("mask_format") != "none")):
            self.note(f"{name} answer", problem=problem)

    def note(self, name: str, seconds: float = 0.0, problem: str | None = None, kind: str = "CHECK") -> None:
        """A figure or a failure of its own in the report."""
        failure = Exception(problem) if problem else None
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=1e3 * seconds, response_length=0, exception=failure, context={}
        )


def _json(response: FastResponse) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except Exception:
        return None
    return answer if isinstance(answer, dict) else None


def _error(response: FastResponse) -> BaseException | None:
    return getattr(response, "error", None)  # where there was no answer


class Questioner(Caller):
    """Asks about the whole picture."""

    weight = 3

    @task
    def question(self) -> None:
        self.ask(self.picture(), self.numbers.choice(QUESTIONS), "question", mask_format="none")


class Segmenter(Caller):
    """Asks for masks."""

    weight = 4

    @task(3)
    def one_mask(self) -> None:
        picture = self.picture()
        self.ask(picture, f"Please segment the {self.numbers.choice(picture.objects)}.", "segment one")

    @task
    def several_masks(self) -> None:
        self.ask(self.picture(), DESCRIBE, "segment several")


class Pointer(Caller):
    """Points at something."""

    weight = 1

    @task
    def region(self) -> None:
        picture = self.picture()
        self.ask(picture, "What is region1?", "region", regions=[{"box": list(picture.box)}])


class Talker(Caller):
    """Talks about a picture, as OpenAI's clients do."""

    weight = 2

    @task
    def chat(self) -> None:
        picture = self.picture()
        shown = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture.base64}"}}
        messages: list[dict[str, object]] = []
        for text in (self.numbers.choice(QUESTIONS), f"Please segment the {picture.objects[0]}."):
            parts = [{"type": "text", "text": text}]
            messages.append({"role": "user", "content": [shown, *parts] if not messages else parts})
            body = {"model": "sa2va", "messages": messages, "max_completion_tokens": MOST_TOKENS}
            answer = self.post("/v1/chat/completions", body, "chat")
            if answer is None:
                return
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})


class Streamer(Caller):
    """Reads the answer while it is written. Time to the first token and time per token are figures of their own."""

    weight = 2

    @task
    def stream(self) -> None:
        picture, begun = self.picture(), time.perf_counter()
        body = {"base64Image": picture.base64, "prompt": DESCRIBE, "max_new_tokens": MOST_TOKENS}
        path = "/process_stream"
        with self.client.post(
            path, json=body, headers=self.headers, name="stream", stream=True, catch_response=True
        ) as response:
            if problem := status_problem(response.status_code, None, _error(response)):
                response.failure(problem)
                return
            problem = self._read(_events(response), picture, begun)
            response.failure(problem) if problem else response.success()

    def _read(self, events: Iterable[tuple[str, Any]], picture: Picture, begun: float) -> str | None:
        first = last = 0.0
        for name, data in events:
            if name == "token":
                last = time.perf_counter()
                if not first:
                    first = last
                    self.note("time to the first token", first - begun, kind="STREAM")
            elif name == "segment" and (problem := mask_problem(data, picture.size)):
                return problem
            elif name == "error":
                return status_problem(data["status"], data, None)
            elif name == "done":
                self.note("whole stream", time.perf_counter() - begun, kind="STREAM")
                if (tokens := data["usage"]["completion_tokens"]) > 1 and last > first:
                    self.note("time per token", (last - first) / (tokens - 1), kind="STREAM")
                return answer_problem(data, picture)
        return "the stream ended without its end"


def _events(response: FastResponse) -> Iterator[tuple[str, Any]]:
    """Server-sent events as they come: Locust's own way to read a stream waits for whole blocks."""
    name, stream = "", response._response
    assert stream
    while line := stream.readline(b"\n"):
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


class Filmer(Caller):
    """Has a film looked at: hands in a job and asks how it stands until it is done."""

    weight = 1
    MOST_S = 120.0

    @task
    def film(self) -> None:
        body = {"video": film(self.numbers, frames=8), "prompt": "Please segment the circle.", "max_new_tokens": 16}
        job = self.post("/process_video", body, "video: hand in")
        if job is None:
            return
        begun = time.perf_counter()
        while job is not None and job["state"] in ("queued", "running"):
            if time.perf_counter() - begun > self.MOST_S:
                return self.note("video job", problem="the job does not end")
            time.sleep(0.5)
            job = self._look(job["id"])
        if job is not None:
            failed = None if job["state"] == "done" else f"the job ended as {job['state']}"
            self.note("video job", time.perf_counter() - begun, failed, kind="JOB")

    def _look(self, job_id: str) -> dict[str, Any] | None:
        path, name = f"/jobs/{job_id}", "video: look"
        with self.client.get(path, headers=self.headers, name=name, catch_response=True) as response:
            answer = _json(response)
            if problem := status_problem(response.status_code, answer, _error(response)):
                response.failure(problem)
                return None
            return answer
