"""Figures of every signal on the problems of one task, and again on bootstrap draws of them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fastslow.core.seeds import named_random
from fastslow.measure.stats.bootstrap import draw_again
from fastslow.measure.stats.intervals import cluster_labels
from fastslow.measure.stats.rank_figures import (
    FOLDS,
    aurocs,
    centred_ranks,
    correlations,
    partial_correlations,
    ridge_out_of_fold,
)

DRAWS = 500
"""Bootstrap draws behind every interval."""
CHANCE, CHANCE_AUROC = "chance", 0.5
RIDGE = "ridge on the state"
"""The learned reference: it sees the vector that sparsity is computed from, and the labels."""
FORMULAS: Mapping[str, str] = {
    "spearman": "Spearman's rank correlation of the signal with the difficulty",
    "auroc": "share of (wrong, right) pairs with the higher signal on the wrong one, ties half",
    "opponent": "AUROC of the best free baseline, chance included, chosen again in every draw",
    "difference": "AUROC of the signal less that of the best free baseline",
    "partial": "Spearman of what the ranks of the controls of familiarity leave of both ranks",
    "partial_free": "the same given the ranks of the signals that are free as well",
    "unfamiliarity": "Spearman of the signal with the mean rank of the controls of familiarity",
}
"""Every figure of a signal, in the order of the tables."""


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """One problem: what is known before an answer is drawn, and how hard it proved."""

    example: str
    task: str
    difficulty: float | None
    """-ln p(gold) in nats, or 1 - score: higher is harder. None where there is no label."""
    wrong: bool | None
    """Whether the greedy answer was wrong; None where it was not scored."""
    signals: Mapping[str, float | None]
    """By name, higher where it should be harder; None where a signal is not defined."""
    controls: Mapping[str, float]
    """How unfamiliar the question is, by name; higher is less familiar."""
    state: Float[np.ndarray, " hidden"] | None = None
    """What the learned reference sees; None without one."""
    cluster: str | None = None
    """`Example.cluster`."""


@dataclass(frozen=True, slots=True)
class Design:
    """What was decided before looking."""

    primary: str
    """The signal that is judged by its interval alone."""
    baselines: tuple[str, ...]
    """Signals that are free: the best of them is the opponent of all others."""
    free_controls: tuple[str, ...] = ("first_logprob", "first_entropy")
    """Baselines that `partial_free` takes as known."""
    labels: tuple[str, ...] = ("gold_logprob",)
    """Signals that need the gold answer: they are what is to be told, and are never earned."""
    seed: int = 0
    """Root of the streams that draw."""


@dataclass(frozen=True, slots=True)
class SignalDraws:
    """The figures of one signal on one task, by the names in `FORMULAS`."""

    values: Mapping[str, Float[np.ndarray, " draws"]]
    """The figure itself, then that of each draw, NaN for a draw where it has no value."""
    reasons: Mapping[str, str]
    """Why the other figures have no value."""
    opponent: str
    """The best free baseline, or `chance`."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one task as columns."""

    task: str
    signals: Mapping[str, Float[np.ndarray, " n"]]
    """Those that are defined on every row, and vary."""
    unusable: Mapping[str, str]
    """Why the other signals have no figures."""
    difficulty: Float[np.ndarray, " n"] | None
    wrong: Bool[np.ndarray, " n"] | None
    """Like `difficulty` None unless every row has one."""
    controls: Mapping[str, Float[np.ndarray, " n"]]
    """Controls of familiarity that are known of every row, and vary."""
    notes: tuple[str, ...]
    """Why the other controls are left out, a clause each."""
    clusters: Sequence[Hashable]

    @classmethod
    def from_rows(cls, task: str, rows: Sequence[ProblemRow], seed: int) -> "Table":
        """The rows of a task, and what ridge learned of them as more signals."""
        signals, unusable = _columns([row.signals for row in rows])
        controls, reasons = _columns([row.controls for row in rows])
        targets = {
            "wrong": _column([row.wrong for row in rows]),
            "difficulty": _column([row.difficulty for row in rows]),
        }
        clusters = {row.example: row.cluster for row in rows if row.cluster is not None}
        labels = cluster_labels([row.example for row in rows], clusters)
        states = [row.state for row in rows if row.state is not None]
        learnable = {name: column for name, column in targets.items() if column is not None}
        if learnable and len(states) == len(rows) and len(set(labels)) >= 2 * FOLDS:
            stream = named_random(seed, "validity", "folds", task)
            columns = np.column_stack(list(learnable.values())).astype(float)  # [n, targets]
            predictions = ridge_out_of_fold(np.array(states), columns, labels, stream)
            for name, prediction in zip(learnable, predictions.T, strict=True):
                signals[f"{RIDGE}: {name}"] = prediction
        notes = tuple(f"{name} on {task}: {reason}" for name, reason in reasons.items())
        return cls(task, signals, unusable, targets["difficulty"], targets["wrong"], controls,
                   notes, labels)  # fmt: skip

    def figures(
        self, index: Int[np.ndarray, " draw"], design: Design
    ) -> dict[str, Float[np.ndarray, " S"]]:
        """The figures of every usable signal on some rows, some of them several times."""
        is_baseline = np.array([name in design.baselines for name in self.signals])
        is_given = np.array([name in design.free_controls for name in self.signals])
        ranks = centred_ranks(np.array(list(self.signals.values()))[:, index])  # [S, draw]
        controls = np.zeros((0, len(index)))
        figures = {}
        if self.controls:
            controls = centred_ranks(np.array(list(self.controls.values()))[:, index])
            figures["unfamiliarity"] = correlations(ranks, controls.mean(axis=0))
        if self.difficulty is not None:
            target = centred_ranks(self.difficulty[None, index])[0]  # [draw]
            figures["spearman"] = correlations(ranks, target)
            with_free = np.vstack([controls, ranks[is_given]])
            for name, rivals in (("partial", controls), ("partial_free", with_free)):
                if len(rivals):
                    figures[name] = partial_correlations(ranks, target, rivals)
        if self.wrong is not None:
            shares = aurocs(ranks, self.wrong[index])
            best = max([CHANCE_AUROC, *shares[is_baseline]])
            opponents = np.where(is_baseline, CHANCE_AUROC, best)
            figures |= {"auroc": shares, "difference": shares - opponents}
            figures["opponent"] = np.where(np.isnan(shares), np.nan, opponents)
        return figures

    def reason(self, figure: str) -> str:
        """Why a figure of a usable signal has no value."""
        wrong, difficulty = self.wrong, self.difficulty
        if figure in ("auroc", "opponent", "difference"):
            if wrong is None:
                return "not every answer was scored"
            return f"every answer is {'wrong' if wrong[0] else 'right'}"
        if figure != "unfamiliarity" and difficulty is None:
            return "not every problem has a label of difficulty"
        if figure != "unfamiliarity" and difficulty is not None and np.ptp(difficulty) == 0:
            return "every problem is as difficult as the others"
        if not self.controls:
            return "no control of familiarity is known and varies"
        return "the controls determine it"


def _column(values: Sequence[float | None]) -> Float[np.ndarray, " n"] | None:
    """The values as they are, or None where one is missing."""
    return None if None in values else np.array(values)


def _columns(
    rows: Sequence[Mapping[str, float | None]],
) -> tuple[dict[str, Float[np.ndarray, " n"]], dict[str, str]]:
    """The values by name where all rows have one and they vary; why not, for other names."""
    columns, reasons = dict[str, Float[np.ndarray, " n"]](), dict[str, str]()
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        missing = values.count(None)
        if missing:
            reasons[name] = f"it is not defined on {missing} of {len(rows)} problems"
        elif len(set(values)) < 2:
            reasons[name] = "it is the same on every problem"
        else:
            columns[name] = np.array(values, dtype=float)
    return columns, reasons


def task_draws(table: Table, design: Design) -> dict[str, SignalDraws]:
    """The figures of every signal of a task, all from the same draws."""
    stream, size = named_random(design.seed, "validity", "draws", table.task), len(table.clusters)
    indices = [np.arange(size)]
    indices += [np.array(draw_again(stream, size, table.clusters)) for _ in range(DRAWS)]
    draws = {}
    if table.signals:
        figures = [table.figures(index, design) for index in indices]
        aurocs_of = dict(zip(table.signals, figures[0].get("auroc", ()), strict=False))
        best = max(design.baselines, key=lambda name: aurocs_of.get(name, 0.0), default=CHANCE)
        for number, name in enumerate(table.signals):
            columns = {f: np.array([of_draw[f][number] for of_draw in figures]) for f in figures[0]}
            values = {f: column for f, column in columns.items() if np.isfinite(column[0])}
            reasons = {f: table.reason(f) for f in FORMULAS if f not in values}
            is_free = "opponent" not in values or values["opponent"][0] == CHANCE_AUROC
            draws[name] = SignalDraws(values, reasons, CHANCE if is_free else best)
    draws = _one_ridge(draws)
    for name, why in table.unusable.items():
        draws[name] = SignalDraws({}, dict.fromkeys(FORMULAS, why), CHANCE)
    return draws


def _one_ridge(draws: dict[str, SignalDraws]) -> dict[str, SignalDraws]:
    """Ridge on wrong answers and ridge on difficulty as one: of the latter its Spearman alone."""
    ridges = [draws.pop(name) for name in list(draws) if name.startswith(RIDGE)]
    if not ridges:
        return draws
    first, last = ridges[0], ridges[-1]
    spearman = {f: values for f, values in last.values.items() if f == "spearman"}
    return {
        **draws,
        RIDGE: SignalDraws({**first.values, **spearman}, first.reasons, first.opponent),
    }
