"""One training loop for all stages: a budget of processor time instead of a step count, checkpoints, resumable.

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

import numpy as np
import torch
from torch import Tensor, nn

from training.paths import RUNS

Losses = dict[str, Tensor]

CHECKPOINT_SECONDS = 90.0
LOG_STEPS = 50
MUON_SIDE = 32  # smaller matrices are left to AdamW
NOT_MUON = (  # tables and heads
    *("embed_tokens.weight", "out.1.weight", "token_head.directions", "prompts.color.weight", "prompts.shape.weight"),
)


@dataclass(frozen=True)
class Plan:
    """What a stage needs to know: its name, its budget in minutes, and the optimiser's numbers."""

    name: str
    minutes: float
    lr: float
    warmup_steps: int = 100
    final_lr: float = 0.03  # share of `lr` at the end
    weight_decay: float = 0.03
    muon_boost: float = 4.0  # Muon's rate over AdamW's: short trainings want large steps
    clip: float = 1.0

    @property
    def folder(self) -> Path:
        return RUNS / self.name


class Trainer:
    """Trains `module` (its parameters that want gradients) until the plan's minutes are spent."""

    def __init__(self, plan: Plan, module: nn.Module, slow: tuple[str, ...] = (), slow_factor: float = 0.1) -> None:
        """Parameters whose name starts with one of `slow` learn at `slow_factor` of the rate."""
        self.plan, self.module = plan, module
        self.step, self.spent = 0, 0.0  # steps done, seconds of a core trained, both over all runs of the stage
        matrices, others = _groups(plan, module, slow, slow_factor)
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=plan.lr, betas=(0.9, 0.98))]
        if matrices:
            self.optimizers.append(torch.optim.Muon(matrices, lr=plan.lr, adjust_lr_fn="match_rms_adamw"))
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        torch.manual_seed(self.step)
        np.random.seed(self.step)  # what the batches are drawn by

    @property
    def is_done(self) -> bool:
        return self.spent >= self.plan.minutes * 60

    @property
    def share_done(self) -> float:
        """Of the budget, 0 to 1."""
        return min(1.0, self.spent / (self.plan.minutes * 60))

    def run(self, losses_of: Callable[[int], Losses]) -> None:
        """Calls `losses_of(step)` until the budget is spent; the sum of its losses is minimised."""
        saved, started, before = time.monotonic(), _seconds(), self.spent
        sums: dict[str, float] = {}
        while not self.is_done:
            losses = losses_of(self.step)
            self._update(torch.stack(list(losses.values())).sum())
            self.step += 1
            self.spent = before + _seconds() - started
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
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                boost = self.plan.muon_boost if isinstance(optimizer, torch.optim.Muon) else 1.0
                group["lr"] = self._rate() * group["factor"] * boost
        self.module.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip)
        for optimizer in self.optimizers:
            optimizer.step()

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.plan.warmup_steps)
        cosine = (1 + math.cos(math.pi * self.share_done)) / 2
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
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
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
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            factors = [group["factor"] for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["factor"] = factor  # the plan's, should it have changed
        self.step, self.spent = state["step"], state["spent"]
        print(f"{self.plan.name}: resumed at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)


def _seconds() -> float:
    """Processor time a thread: other work on the machine makes a stage take longer, not learn less."""
    return time.process_time() / torch.get_num_threads()


Group = dict[str, object]


def _groups(
    plan: Plan, module: nn.Module, slow: tuple[str, ...], slow_factor: float
) -> tuple[list[Group], list[Group]]:
    """Groups for Muon (the matrices between hidden layers) and for AdamW (the rest).

    Vectors do not decay; `factor` scales the learning rate."""
    matrices: dict[float, list[nn.Parameter]] = {}
    others: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = slow_factor if slow and name.startswith(slow) else 1.0
        if parameter.ndim == 2 and min(parameter.shape) >= MUON_SIDE and not name.endswith(NOT_MUON):
            matrices.setdefault(factor, []).append(parameter)
        else:
            others.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    decay = plan.weight_decay
    return (
        [{"params": found, "weight_decay": decay, "factor": factor} for factor, found in matrices.items()],
        [{"params": found, "weight_decay": decay * d, "factor": factor} for (d, factor), found in others.items()],
    )
