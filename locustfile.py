"""A load test with Locust: a mix of users, real pictures, every answer checked.

    locust -f locustfile.py --headless -u 8 -r 4 -t 60s -H http://localhost:3303 --html build/loadtest.html
    locust -f locustfile.py ... --rate 0.5              # each user asks every two seconds: a fixed rate
    locust -f locustfile.py,loadtest/ramp.py --headless -H http://localhost:3303     # more users step by step
    locust -f locustfile.py ... --processes 4           # from four processors
    locust -f locustfile.py ... Segmenter Streamer      # these users only

With `--max-fail-ratio` or `--max-p95-ms` it ends with status 1 when more fails, or a kind of request is slower.
"""

from argparse import ArgumentParser

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest.users import Filmer, Pointer, Questioner, Segmenter, Streamer, Talker

__all__ = ["Filmer", "Pointer", "Questioner", "Segmenter", "Streamer", "Talker"]


@events.init_command_line_parser.add_listener
def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--api-key", default="", is_secret=True, help="one of SA2VA_API_KEYS")
    parser.add_argument("--pictures", type=int, default=5, help="drawn pictures of each user, beside its photographs")
    parser.add_argument("--seed", type=int, default=7, help="what pictures and questions are drawn from")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of each user; 0: without a pause")
    parser.add_argument("--max-fail-ratio", type=float, default=1.0, help="highest share of failures that is good")
    parser.add_argument("--max-p95-ms", type=float, default=0.0, help="highest 95th percentile that is good; 0: any")


@events.quitting.add_listener
def _judge(environment: Environment, **_: object) -> None:
    """Sets the exit status, where all figures come together."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options, total = environment.parsed_options, environment.stats.total
    assert options
    slow = [
        f"{entry.name}: p95 {entry.get_response_time_percentile(0.95):.0f} ms"
        for entry in environment.stats.entries.values()
        if entry.method in ("POST", "STREAM") and entry.get_response_time_percentile(0.95) > options.max_p95_ms > 0
    ]
    if total.fail_ratio > options.max_fail_ratio:
        slow.append(f"{100 * total.fail_ratio:.2f} % of the requests failed")
    for problem in slow:
        print(f"too much: {problem}")  # noqa: T201
    environment.process_exit_code = 1 if slow or not total.num_requests else 0
