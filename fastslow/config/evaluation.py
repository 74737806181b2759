"""How a run measures itself: examples, prompts and diagnostics, each with what it is worth."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, NonNegativeInt, PositiveFloat, PositiveInt

from fastslow.core.keys import OURS, Model, key
from fastslow.core.plugins import CustomUse
from fastslow.measure.model.route import RouteConfig
from fastslow.measure.model.shipped import MeasureUse
from fastslow.policy.signals import ShippedSignal

SignalUse = Annotated[ShippedSignal | CustomUse, Discriminator("kind")]
"""One signal of difficulty: a shipped one by its kind, or one of the user's own."""


class EvaluationConfig(Model):
    """How policies are scored. Test examples are seen by nothing else."""

    test_examples: PositiveInt | None = key(
        64, "examples per task", "Wilson half-width 0.12 at 0.5"
    )
    """Size of the test sample, fixed for the whole run; null takes the whole split."""
    split: Literal["test", "validation"] = key("test", "split", "held out of everything else")
    """Split that stands in for the test split wherever policies are scored. `validation` is for
    choosing hyperparameters, as the search of an ablation does: such scores flatter the prompts,
    which were chosen on them too."""
    validation_examples: PositiveInt = key(32, "examples", OURS)
    """Examples on which the prompt to deploy is chosen."""
    prompt_policies: tuple[Literal["seed", "own", "live"], ...] = key((), "names", OURS)
    """Prompts under which every visited task is scored after every stage, as well as the deployed
    one."""
    channel_split: bool = key(True, "switch", "ours, extends the 2x2 of Fast-Slow Training")
    """Whether each stage's task is also scored with the base under its prompt, and under its seed
    prompt: what the weights and what the prompt brought."""
    reoptimize: bool = key(False, "switch", "off: one fast phase per earlier task")
    """Whether after the last stage the prompts of earlier tasks are evolved again, to see what of a
    loss comes back; they are not deployed."""
    base_repeats: PositiveInt = key(1, "evaluations", "greedy decoding repeats itself")
    """How often the base is scored; from two on the report has a noise floor."""
    curve_examples: NonNegativeInt = key(16, "examples", OURS)
    """Test examples of a stage's task scored after each of its cycles; 0 turns that off."""
    kl_examples: NonNegativeInt = key(8, "examples per task", "ours; four KL cost four times one")
    """Test inputs on which KL to the base is measured after every stage, in both directions, with
    the deployed prompt and with the seed prompt; 0 turns it off."""
    neutral: bool = key(True, "switch", "TRACE, arXiv 2310.06762, measures general ability")
    """Whether cross-entropy and KL are also measured on prose of no task."""
    geometry: bool = key(True, "switch", "arXiv 2505.11711 and 2509.04259")
    """Whether size, concentration and ranks of each stage's change of the weights are measured, and
    at the end what the stages' changes share."""
    signals: tuple[SignalUse, ...] = key((), "list", "none")
    """Signals of difficulty, read off every task's test problems after every stage, with how well
    each tells wrong answers from right ones."""
    routers: tuple[Literal["nearest_mean", "surprisal"], ...] = key(
        (), "names", "none; means after nearest class mean, arXiv 1611.07725"
    )
    """Ways to choose a task's adapter and prompt for an input that does not name its task, measured
    after every stage from the second on. Takes `slow.adapter_policy: new-per-stage`."""
    route: RouteConfig | None = key(None, "section", "off: no signal has earned it yet")
    """Whether after every stage the hardest test questions of each visited task are sent to a
    stronger arm by a signal, with the scores of both arms and of the mixture, and what each takes
    in prompt tokens."""
    measures: tuple[MeasureUse, ...] = key((), "list", "none")
    """Measures of the policy, shipped ones and the user's own, made of the base and after every
    stage."""
    proxies: bool = key(True, "switch", "Sokar et al. 2023 and Kumar et al. 2021")
    """Whether ranks of features and sleeping units are measured on fixed inputs after every
    stage."""

    def broken_measures(self, *, has_weights: bool, sharding: str) -> Iterator[tuple[str, str]]:
        """Rules of shipped measures: each once, and the weights that some of them need."""
        kinds = [use.kind for use in self.measures]
        for index, use in enumerate(self.measures):
            path = f"evaluation.measures.{index}.kind"
            if isinstance(use, CustomUse):
                continue
            if use.kind in kinds[:index]:
                yield path, f"{use.kind} is listed twice. Remove one of them."
            elif use.needs_change and not has_weights:
                yield (
                    path,
                    f"{use.kind} measures a change of the weights, but `slow` is null. Turn the "
                    f"slow channel on, or remove {use.kind} from evaluation.measures.",
                )
            elif use.needs_whole_base and sharding != "none":
                yield (
                    path,
                    f"{use.kind} edits the base's weights or differentiates by them, but under "
                    f"engine.sharding: {sharding} no process has all of them. Set engine.sharding "
                    f"to none, or remove {use.kind} from evaluation.measures.",
                )


class ProbeConfig(Model):
    """Fresh runs on a task that no stage visits: can the final weights still learn as the base can?

    `fastslow probe RUN --task NAME` makes the same probe of a run that has ended.
    """

    task: str = key(..., "name", "required", min_length=1)
    """A key of `tasks` that no stage visits; it has no column in the score matrix."""
    kind: Literal["sft", "grpo"] = key("sft", "name", "the cheaper of the two")
    """What an update learns from: gold answers, or rollouts."""
    adapter: Literal["merge", "continue"] = key("merge", "name", "the probe of Fast-Slow Training")
    """Whether a new adapter of the same rank is trained on top of the old one, or the old one
    continues."""
    updates: PositiveInt = key(5, "optimizer updates", "ours, a few seconds")
    """Updates of each fresh run, of cycle.problems problems each."""
    score_every: PositiveInt = key(5, "optimizer updates", OURS)
    """Updates between two points of a curve; the start and the end always are points."""
    lr: PositiveFloat = key(1e-3, "1 / update", "ours, so that few updates are enough")
    """Learning rate of AdamW, without warm-up."""
    seeds: PositiveInt = key(1, "seeds", OURS)
    """Fresh runs from each start; each has its own data order and adapter."""
