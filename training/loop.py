"""One training loop for all stages: a time budget instead of a step count, a checkpoint every ninety seconds, resumable.

A stage is a module and a function that returns its losses; the loop owns the optimiser, the learning rate (warm-up,
then a cosine over the stage's minutes of training), clipping, logging and the checkpoint in `training/runs/<stage>/`.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.pool import RUNS

Losses = dict[str, Tensor]

CHECKPOINT_SECONDS = 90.0
LOG_STEPS = 50


@dataclass(frozen=True)
class Plan:
    """What a stage needs to know: its name, its budget in minutes, and the optimiser's numbers."""

    name: str
    minutes: float
    lr: float
    warmup_steps: int = 100
    final_lr: float = 0.03  # share of `lr` at the end
    weight_decay: float = 0.03
    clip: float = 1.0

    @property
    def folder(self) -> Path:
        return RUNS / self.name


class Trainer:
    """Trains `module` (its parameters that want gradients) until the plan's minutes are spent."""

    def __init__(self, plan: Plan, module: nn.Module, slow: tuple[str, ...] = (), slow_factor: float = 0.1) -> None:
        """Parameters whose name starts with one of `slow` learn at `slow_factor` of the rate."""
        self.plan, self.module = plan, module
        self.step, self.spent = 0, 0.0  # steps done, seconds trained, both over all runs of the stage
        self.optimizer = torch.optim.AdamW(_groups(plan, module, slow, slow_factor), lr=plan.lr, betas=(0.9, 0.98))
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    @property
    def is_done(self) -> bool:
        return self.spent >= self.plan.minutes * 60

    def run(self, losses_of: Callable[[int], Losses]) -> None:
        """Calls `losses_of(step)` until the budget is spent; the sum of its losses is minimised."""
        started = saved = time.monotonic()
        before = self.spent
        sums: dict[str, float] = {}
        while not self.is_done:
            losses = losses_of(self.step)
            self._update(torch.stack(list(losses.values())).sum())
            self.step += 1
            self.spent = before + time.monotonic() - started
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / LOG_STEPS
            if self.step % LOG_STEPS == 0:
                self._log(sums)
                sums = {}
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def _update(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate() * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip)
        self.optimizer.step()

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.plan.warmup_steps)
        share = min(1.0, self.spent / (self.plan.minutes * 60))
        cosine = (1 + math.cos(math.pi * share)) / 2
        return self.plan.lr * warm * (self.plan.final_lr + (1 - self.plan.final_lr) * cosine)

    def _log(self, sums: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.spent / 60, 2), "lr": round(self._rate(), 6)}
        line |= {name: round(value, 4) for name, value in sums.items()}
        print(json.dumps(line), flush=True)
        with (self.plan.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Atomic: a run that is killed while it writes leaves the checkpoint before."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "spent": self.spent,
        }
        part = self.plan.folder / "last.part"
        torch.save(state, part)
        os.replace(part, self.plan.folder / "last.pt")

    def _resume(self) -> None:
        path = self.plan.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = state["step"], state["spent"]
        print(f"{self.plan.name}: resumed at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)


def _groups(plan: Plan, module: nn.Module, slow: tuple[str, ...], slow_factor: float) -> list[dict[str, object]]:
    """Matrices decay, vectors and embeddings' scales do not; `factor` scales the learning rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim > 1, name.startswith(slow) if slow else False), []).append(parameter)
    return [
        {"params": found, "weight_decay": plan.weight_decay * decays, "factor": slow_factor if is_slow else 1.0}
        for (decays, is_slow), found in groups.items()
    ]


def load_part(stage: str, prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix.` of a stage's checkpoint, prefix removed."""
    state = torch.load(RUNS / stage / "last.pt", weights_only=True)["module"]
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
