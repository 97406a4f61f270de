"""More and more users, in steps: `locust -f locustfile.py,loadtest/ramp.py --headless --step-users 4`."""

from argparse import ArgumentParser

from locust import LoadTestShape, events


@events.init_command_line_parser.add_listener
def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--step-users", type=int, default=4, help="users that each step adds")
    parser.add_argument("--step-time", type=float, default=30.0, help="seconds of a step")
    parser.add_argument("--steps", type=int, default=8, help="steps")


class Ramp(LoadTestShape):
    """Stairs."""

    use_common_options = False

    def tick(self) -> tuple[int, float] | None:
        assert self.runner
        options = self.runner.environment.parsed_options
        assert options
        step = int(self.get_run_time() / options.step_time) + 1
        return (step * options.step_users, options.step_users) if step <= options.steps else None
