"""Seconds and memory of a run: its ledger, times the lengths of its texts, times measured rates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastslow.channels.fast.settings import SELF, ReflectiveSettings, SequenceConfig
from fastslow.config.evaluation import ProbeConfig
from fastslow.config.ledger import Entry, Ledger
from fastslow.config.lengths import SHORT, Lengths, mean_lengths
from fastslow.policy.calibration import DECODED, Rates

REPORTS_S = 10.0
"""Run folder, resume points, reports. Source: the kept demonstration, docs/decisions.md."""
OWN_ANSWERS, OWN_REQUEST, OWN_LENGTH = 14, 600, 0.7
"""Of a fast phase in which the base reflects itself: its answers, the tokens of a request, and the
share of their limit that answers have. Source: configs/experiments/gepa.yaml, docs/decisions.md."""


@dataclass(frozen=True)
class Price:
    """What the parts of a run take, on the machine of `rates`."""

    ledger: Ledger
    lengths: Mapping[str, Lengths]
    """By task; a task that is not in it is taken for the mean of the others."""
    rates: Rates

    def run_s(self) -> float:
        """Seconds of the whole run, from the start of its process."""
        return self.rates.load_s + REPORTS_S + self.remaining_s(False, 0, 0)

    def remaining_s(self, base_done: bool, next_stage: int, next_cycle: int) -> float:
        """Seconds of what `Ledger.remaining` lists, and of the probe."""
        probe = self.ledger.config.probe
        probe_s = 2 * probe.seeds * self.curve_s(probe) if probe else 0.0
        entries = self.ledger.remaining(base_done, next_stage, next_cycle)
        return probe_s + sum(map(self.seconds, entries))

    def curve_s(self, probe: ProbeConfig) -> float:
        """Seconds of one fresh run of a probe, as `Ledger.curve` counts it."""
        curve, lengths = self.ledger.curve(probe), self._lengths([probe.task])
        trained = curve.trained * lengths.answer
        trained += probe.updates * (lengths.instruction + lengths.question)
        drawn_s = self._draw_s(curve.rollouts, lengths, 1, 0, curve.rollouts)
        return drawn_s + trained * self.rates.trained_s

    def seconds(self, entry: Entry) -> float:
        """Seconds of one part; what is not counted in rollouts is worth so many short ones."""
        config, rates = self.ledger.config, self.rates
        visited = [stage.task for stage in config.stages[: entry.row]]
        demonstrations = self._demonstrations(entry)
        short = SHORT.question * rates.prefill_s + SHORT.answer * rates.row_step_s
        if entry.part == "slow":
            updates_s = self._updates_s(entry, self._lengths(visited[-1:]), demonstrations)
            return updates_s + entry.extra * short
        if entry.part in ("matrix", "texts", "drift", "route", "router"):
            names = list(config.task_names) if entry.part == "matrix" else visited
            num_prompts = float(len(set(names)))
        else:
            names, num_prompts = visited[-1:], self._num_prompts(entry)
        lengths = self._lengths(names)
        rollouts_s = self._draw_s(
            entry.rollouts, lengths, num_prompts, demonstrations, entry.rollouts, entry.row
        )
        trained = entry.trained * (
            lengths.prompt(demonstrations) + lengths.question + lengths.answer
        )
        reflected_s = self._reflection_s() if entry.part == "fast" else 0.0
        return rollouts_s + trained * rates.trained_s + entry.extra * short + reflected_s

    def pass_tokens(self) -> tuple[float, float]:
        """Of the biggest forward and backward pass: all its tokens, and those of its answers."""
        slow = self.ledger.config.slow
        if slow is None:
            return 0.0, 0.0
        sizes = [(0.0, 0.0)]
        for entry in self.ledger.entries:
            if entry.part == "slow" and entry.trained:
                task = self.ledger.config.stages[entry.row - 1].task
                lengths, updates = self._lengths([task]), self.ledger.config.cycle.optimizer_steps
                rows = entry.trained / updates
                answers = rows * lengths.limit
                tokens = self._context(lengths, self._demonstrations(entry)) + answers
                limits = slow.rows_per_forward / rows, slow.tokens_per_forward / tokens
                share = min(1.0, *limits)
                sizes.append((share * tokens, share * answers))
        return max(sizes)

    def _updates_s(self, entry: Entry, lengths: Lengths, demonstrations: float) -> float:
        """Of a slow phase: rollouts, the reference's pass, forward and backward."""
        config, rates = self.ledger.config, self.rates
        slow, updates = config.slow, config.cycle.optimizer_steps
        assert slow is not None
        questions = config.num_texts * config.cycle.problems
        rollouts, rows = entry.rollouts / updates, entry.trained / updates
        rollouts_s = self._draw_s(
            rollouts, lengths, config.num_texts, demonstrations, questions, entry.row
        )
        # rollouts of a problem that begin alike share those tokens, so a gold answer's are counted
        answers = rows * min(lengths.answer, lengths.limit)
        tokens = self._context(lengths, demonstrations) + answers
        limits = rows / slow.rows_per_forward, tokens / slow.tokens_per_forward
        # a prompt that is cut is read in two passes
        cuts = math.ceil(max(limits)) - 1
        trained = tokens + cuts * (0.0 if slow.learns_bare else lengths.prompt(demonstrations))
        each = rates.trained_s + slow.has_reference * rates.prefill_s
        return updates * (rollouts_s + trained * each)

    def _context(self, lengths: Lengths, demonstrations: float) -> float:
        """Distinct prompt tokens of an update's rows."""
        config = self.ledger.config
        is_bare = config.slow is not None and config.slow.learns_bare
        texts = 1 if is_bare else config.num_texts
        prompts = 0.0 if is_bare else texts * lengths.prompt(demonstrations)
        return prompts + texts * config.cycle.problems * lengths.question

    def _draw_s(
        self,
        rollouts: float,
        lengths: Lengths,
        num_prompts: float,
        demonstrations: float,
        questions: float,
        row: int = 0,
    ) -> float:
        """Of drawing rollouts for so many pairs of prompt and question."""
        if not rollouts:
            return 0.0
        rates = self.rates
        read = num_prompts * lengths.prompt(demonstrations) + questions * lengths.question
        steps = max(num_prompts, math.ceil(rollouts / DECODED)) * (lengths.limit - 1)
        row_steps = rollouts * (self._answer(lengths, row) - 1)
        return read * rates.prefill_s + steps * rates.step_s + row_steps * rates.row_step_s

    def _reflection_s(self) -> float:
        """Of what the base writes as its own reflection LM in a fast phase, an answer at a time."""
        fast, rates = self.ledger.config.fast, self.rates
        if not isinstance(fast, ReflectiveSettings) or fast.reflection.model != SELF:
            return 0.0
        steps = OWN_LENGTH * fast.reflection.max_tokens
        written_s = steps * (rates.step_s + rates.row_step_s)
        return OWN_ANSWERS * (OWN_REQUEST * rates.prefill_s + written_s)

    def _answer(self, lengths: Lengths, row: int) -> float:
        """Tokens of a completion: the base writes until it is cut, the trained as gold answers."""
        answer = min(lengths.answer, lengths.limit)
        return lengths.limit if row == 0 else (answer + lengths.limit) / 2

    def _num_prompts(self, entry: Entry) -> float:
        """Prompts that a part's rollouts are drawn under; each is read once."""
        config = self.ledger.config
        anchor = config.cycle.optimizer_steps * config.cycle.problems
        if entry.part == "fast":
            return max(1.0, entry.rollouts / anchor)
        return config.num_texts if entry.part == "choice" else 1

    def _demonstrations(self, entry: Entry) -> float:
        """Of the prompts of a part, on average: none where no fast phase has been."""
        config = self.ledger.config
        if config.fast is None or entry.row == 0:
            return 0.0
        steps = config.fast.steps if isinstance(config.fast, SequenceConfig) else (config.fast,)
        most = max(getattr(step, "demonstrations", 0) for step in steps)  # GEPA keeps what is there
        if entry.part == "matrix":
            evolved = {stage.task for stage in config.stages[: entry.row] if stage.fast}
            return most * len(evolved) / len(config.task_names)
        return float(most) * config.stages[entry.row - 1].fast

    def _lengths(self, names: Sequence[str]) -> Lengths:
        listed = [self.lengths[name] for name in dict.fromkeys(names) if name in self.lengths]
        return mean_lengths(listed or self.lengths.values())
