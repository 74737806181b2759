"""The remedies of a run, in order, each with its name and memory; the slow channel's one handle."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastslow.channels.base import RemedyReport
from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Figures,
    Memory,
    Remedy,
    Stage,
    Update,
    Weights,
)
from fastslow.channels.slow.teaching import teach
from fastslow.core.files import read_json
from fastslow.core.seeds import derive_seed
from fastslow.policy.policy import Policy

DWARFS = 10.0
"""A remedy's gradient so many times the task's leaves the task hardly any of the clipped step."""

COSTS_FILE = "costs.json"


@dataclass
class Costs:
    """What a remedy took in the present stage so far."""

    rollouts: int = 0
    """Drawn at its begin and end; an update counts itself what is drawn within it."""
    seconds: float = 0.0
    """Of its begin and end."""
    update_seconds: float = 0.0
    """Within updates, whose time has them too."""

    @contextmanager
    def drawn_by(self, policy: Policy) -> Iterator[None]:
        """Count what is drawn within it, and how long it takes."""
        started, before = time.monotonic(), policy.sampler.num_rollouts
        yield
        self.rollouts += policy.sampler.num_rollouts - before
        self.seconds += time.monotonic() - started

    @contextmanager
    def within_update(self) -> Iterator[None]:
        """Count how long it takes."""
        started = time.monotonic()
        yield
        self.update_seconds += time.monotonic() - started


class Remedies:
    """Calls every remedy, in their order and by their names in the run, at points of a stage."""

    def __init__(self, remedies: Iterable[tuple[str, Remedy]] = ()) -> None:
        self._remedies: dict[str, Remedy] = {}
        for name, remedy in remedies:
            number, free = 1, name
            while free in self._remedies:  # a second one of this name
                number += 1
                free = f"{name}-{number}"
            self._remedies[free] = remedy
        self._memories = {name: Memory() for name in self._remedies}
        self._costs = {name: Costs() for name in self._remedies}

    @property
    def need_start(self) -> bool:
        """Whether one of them reads the weights as the stage found them."""
        return any(remedy.needs_start for remedy in self._remedies.values())

    def begin(self, stage: Stage) -> None:
        """Before the first update of a stage."""
        for name, remedy in self._remedies.items():
            self._costs[name] = Costs()
            if remedy.begin:
                with self._costs[name].drawn_by(stage.policy):
                    remedy.begin(_own(stage, name), self._memories[name])

    def is_over(self) -> bool:
        """Whether one of them has ended the adaptation of this stage."""
        return any(
            remedy.is_over is not None and remedy.is_over(self._memories[name])
            for name, remedy in self._remedies.items()
        )

    def attempt(self, update: Update, optimizer: Optimizer, make: Callable[[], Figures]) -> Figures:
        """Make an update within all those that may take it back; the first is the outermost."""
        for name, remedy in reversed(self._remedies.items()):
            if remedy.attempt:
                memory = self._memories[name]
                make = partial(remedy.attempt, _of(update, name), memory, optimizer, make)
        return make()

    def standing(self) -> Figures:
        """Figures at the end of a phase that stand in place of the means over its updates."""
        figures: Figures = {}
        for name, remedy in self._remedies.items():
            if remedy.standing:
                figures |= remedy.standing(self._memories[name])
        return figures

    def add_gradients(self, update: Update) -> Figures:
        """Add the gradient of every remedy's loss to the task's, which lies in `.grad`.

        Returns:
            Of each remedy with a loss `remedy/NAME/loss`, before its strength, and
            `remedy/NAME/gradient_share`: the norm of its gradient over that of the task's.
        """
        losses = {name: r for name, r in self._remedies.items() if r.rows or r.penalty}
        if not (update.stage.earlier and losses):
            return {}
        weights = update.stage.policy.adapters.trainable()
        task_norm = _norm(weight.grad for weight in weights.values())
        figures: Figures = {}
        for name, remedy in losses.items():
            with self._costs[name].within_update():
                loss, gradients = self._gradients(name, remedy, _of(update, name), weights)
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
            share = _norm(gradients) / task_norm if task_norm else 0.0
            figures |= {f"remedy/{name}/loss": loss, f"remedy/{name}/gradient_share": share}
        return figures

    def _gradients(
        self, name: str, remedy: Remedy, update: Update, weights: Weights
    ) -> tuple[float, list[Tensor]]:
        """A remedy's loss, before its strength, and its gradient, for each of the weights."""
        loss, gradients = 0.0, [torch.zeros_like(weight) for weight in weights.values()]
        for term in self._terms(name, remedy, update, weights):
            loss += float(term.detach())
            parameters = list(weights.values())
            added = torch.autograd.grad(remedy.strength * term, parameters, materialize_grads=True)
            for gradient, summand in zip(gradients, added, strict=True):
                gradient += summand
        return loss, gradients

    def _terms(
        self, name: str, remedy: Remedy, update: Update, weights: Weights
    ) -> Iterable[Tensor]:
        """The terms of a remedy's loss one by one, each with a graph of its own."""
        memory = self._memories[name]
        if remedy.rows and (rows := remedy.rows(update, memory)):
            yield from teach(update.stage.policy, rows)
        if remedy.penalty and (term := remedy.penalty(weights, memory)) is not None:
            yield term

    def project(self, weights: Weights) -> None:
        """Edit the whole gradient, before it is scaled down."""
        for name, remedy in self._remedies.items():
            if remedy.project:
                with self._costs[name].within_update():
                    remedy.project(weights, self._memories[name])

    def settle(self, weights: Weights, update: Update, optimizer: Optimizer) -> None:
        """Edit the weights after the step."""
        for name, remedy in self._remedies.items():
            if remedy.settle:
                with torch.no_grad(), self._costs[name].within_update():
                    remedy.settle(weights, self._memories[name], _of(update, name), optimizer)

    def end(self, ended: Ended) -> list[RemedyReport]:
        """What each did in a stage and at its end, and what that cost."""
        reports = []
        for name, remedy in self._remedies.items():
            if remedy.is_silent:
                continue
            costs, memory = self._costs[name], self._memories[name]
            with costs.drawn_by(ended.stage.policy):
                named = replace(ended, stage=_own(ended.stage, name))
                report = remedy.end(named, memory) if remedy.end else {}
            if not isinstance(report, EndReport):
                report = EndReport(report)
            size = sum(tensor.nbytes for tensor in memory.tensors.values())
            reports.append(
                RemedyReport(
                    name,
                    report.figures,
                    report.notes,
                    costs.rollouts,
                    costs.seconds,
                    costs.update_seconds,
                    bytes=size + (len(json.dumps(memory.facts)) if memory.facts else 0),
                    text=report.text,
                )
            )
        return reports

    def notes(self, figures: Mapping[str, float]) -> list[str]:
        """What a reader must know of a phase whose mean figures these are."""
        return [
            f"remedy {name}: its gradient is {share:.0f} times the task's on average, so the task "
            "is hardly learned. Lower its strength."
            for name in self._remedies
            if (share := figures.get(f"remedy/{name}/gradient_share", 0.0)) > DWARFS
        ]

    def save(self, folder: Path) -> None:
        """Write every memory into a folder of its name.

        Layout and order of its tensors become those that `load` gives, since sums depend on them.
        """
        from safetensors.torch import save_file

        for name, memory in self._memories.items():
            (folder / name).mkdir(parents=True)
            memory.tensors = {key: t.contiguous() for key, t in sorted(memory.tensors.items())}
            save_file(memory.tensors, folder / name / "memory.safetensors")
            text = json.dumps(memory.facts, allow_nan=False)
            (folder / name / "memory.json").write_text(text)
            (folder / name / COSTS_FILE).write_text(json.dumps(asdict(self._costs[name])))

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote; a remedy without a folder starts with nothing."""
        from fastslow.policy.tensors import load_tensors  # imports torch

        for name, memory in self._memories.items():
            memory.tensors, memory.facts = {}, {}
            if (folder / name).is_dir():
                tensors = load_tensors(folder / name / "memory.safetensors")
                memory.tensors = dict(sorted(tensors.items()))
                memory.facts = read_json(folder / name / "memory.json")
            if (folder / name / COSTS_FILE).is_file():
                self._costs[name] = Costs(**read_json(folder / name / COSTS_FILE))

    def move_to(self, device: str) -> None:
        """Move what was loaded to where the weights are."""
        for memory in self._memories.values():
            memory.tensors = {name: tensor.to(device) for name, tensor in memory.tensors.items()}


def _norm(tensors: Iterable[Tensor | None]) -> float:
    """L2 norm of all entries together."""
    norms = [torch.linalg.vector_norm(tensor) for tensor in tensors if tensor is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _own(stage: Stage, name: str) -> Stage:
    """The stage with the random stream of one remedy."""
    return replace(stage, seed=derive_seed(stage.seed, "remedy", stage.index, name))


def _of(update: Update, name: str) -> Update:
    """The update with the random streams of one remedy."""
    seed = derive_seed(update.seed, "remedy", name)
    return replace(update, stage=_own(update.stage, name), seed=seed)
