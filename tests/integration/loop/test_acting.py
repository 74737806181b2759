"""Signals that decide something, in real runs: bands, guided groups, and a route between arms."""

import os
import signal
from collections import Counter
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from fastslow.channels.slow.group_settings import BANDS, AnswerGuidance, DifficultyConfig
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.rollouts import groups_of
from fastslow.config.ledger import Ledger
from fastslow.config.loading.load import load_resolved
from fastslow.core.types import Anchor
from fastslow.loop import launch
from fastslow.loop.build import build_tasks
from fastslow.loop.signals import Stopped
from fastslow.measure.model.signals import signal_measure
from fastslow.policy.policy import Policy
from fastslow.policy.signals import (
    SIGNALS,
    Reading,
    ShippedSignalToActOn,
    Signal,
    SignalConfig,
)
from fastslow.policy.signals import signal as declare
from fastslow.records.events import EvaluationEvent, FiguresEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.report import build_report
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import GRPO
from tests.support.runs import newest, newest_point, no_report, outcome, start
from tests.support.tiny import save_outspoken
from tests.support.updates import changed, ending

TRUSTED = "trusted: true"
BANDS_TRAINED = "[unsolved, medium, easy]"
USE = "{{use: 'tests.integration.loop.test_router:hashed', params: {{wanted: {}}}}}"
ACTING = [
    f"slow.difficulty={{signal: {{kind: first_entropy, {TRUSTED}}}, train_bands: {BANDS_TRAINED}}}",
    f"slow.guidance={{kind: answer, signal: {{kind: question_logprob, {TRUSTED}}}}}",
    f"evaluation.route={{signal: {{kind: first_logprob, {TRUSTED}}}}}",
    *(f"evaluation.{name}=false" for name in ("neutral", "geometry", "proxies")),
    "evaluation.kl_examples=0",
    *(f"tasks.{name}={USE.format(name)}" for name in ("first", "second")),
]


class Peeking(SignalConfig):
    """Parameters of `peeking`: none."""


@declare(name="peeking", source="made here")
def peeking(config: Peeking) -> Signal:
    """Reads the answer, as no router can."""
    return lambda reading: -reading.gold_logprob


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"model.name={save_outspoken(tmp_path_factory.mktemp('base'))}"


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A run in which signals decide three things."""
    return start(tmp_path_factory.mktemp("acting"), [model, *ACTING])


def test_values_are_read_once_per_cycle_for_both_and_give_bands_and_groups_to_guide(
    moved: Policy, task: Task, anchors: list[Anchor], monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = ShippedSignalToActOn(kind="first_entropy", trusted=True)
    settings = changed(
        GRPO,
        difficulty=DifficultyConfig(signal=hard, train_bands=("unsolved",)),
        guidance=AnswerGuidance(signal=hard),
    )
    readings: list[Reading] = []
    inner = Policy.read_prompts

    def watched(*args: Any) -> list[Reading]:
        result = inner(*args)
        readings.extend(result)
        return result

    monkeypatch.setattr(Policy, "read_prompts", watched)
    before, drawn = moved.weights_fingerprint(), moved.sampler.num_rollouts
    trainer = FastSlowTrainer(moved, {task.name: task}, 2, settings)
    trainer.begin_cycle(anchors[1])
    problems = [example.id for anchor in anchors for example in anchor.examples]
    assert [reading.example for reading in readings] == problems  # of every cycle, each once
    assert (moved.weights_fingerprint(), moved.sampler.num_rollouts) == (before, drawn)
    ranked = sorted(readings, key=SIGNALS["first_entropy"])  # type: ignore[arg-type]
    band_of = {r.example: BANDS[4 - 5 * (2 * i + 1) // 24] for i, r in enumerate(ranked)}

    moved.adapters.start = moved.adapters.copied()
    finish = ending(moved, task, anchors[1].batches[0], _optimizer(moved))
    figures = trainer.update(anchors[1].batches[0], 7, finish)
    groups = groups_of(trainer.rollouts, settings.group)
    expected = Counter(band_of[group.problem] for group in groups)
    assert {band: figures[f"band_{band}_frac"] * 2 for band in BANDS if expected[band]} == expected
    assert figures["guidance/guided_groups"] == expected["unsolved"]
    trained = [g.has_signal and band_of[g.problem] == "unsolved" for g in groups]
    assert figures["effective_groups"] == sum(trained)


def _optimizer(policy: Policy) -> Any:
    import torch

    return torch.optim.AdamW(list(policy.adapters.trainable().values()), lr=0.01)


def test_a_run_that_was_stopped_between_two_updates_ends_as_one_that_was_not(
    acting: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = FastSlowTrainer.update, iter(range(99))

    def watched(*args: Any) -> Any:
        if next(calls) == 2:  # the first update of the second cycle
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(FastSlowTrainer, "update", watched)
        with pytest.raises(Stopped):
            start(tmp_path, [model, *ACTING])
    run = newest(tmp_path)
    assert newest_point(run).name == "000-001-002"
    begun: list[tuple[int, int]] = []
    begin = FastSlowTrainer.begin_cycle

    def noted(trainer: FastSlowTrainer, anchor: Anchor) -> None:
        begun.append((anchor.stage, anchor.cycle))
        begin(trainer, anchor)

    monkeypatch.setattr(FastSlowTrainer, "begin_cycle", noted)
    assert outcome(launch.resume(run, no_report)) == outcome(acting)
    assert begun == [(1, 0)]  # what was read before the stop was kept


def routes(run: Path) -> dict[tuple[int, str], FiguresEvent]:
    events = [e for e in read_events(run / "events.jsonl") if isinstance(e, FiguresEvent)]
    return {(event.row, event.of): event for event in events if event.kind == "route"}


def figures_of(event: FiguresEvent) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in event.figures}


def test_a_route_mixes_the_arms_that_the_run_has_scored(acting: Path) -> None:
    events = routes(acting)
    assert list(events) == [(1, "first"), (2, "first"), (2, "second")]
    rows = [row for row in read_scores(acting / "scores.jsonl") if row.cycle is None]
    for (number, name), event in events.items():
        figures = figures_of(event)
        by_role = {
            role: [
                row.sample.score
                for row in rows
                if (row.row, row.sample.task, row.sample.prompt_policy) == (number, name, role)
            ]
            for role in ("seed", "live")
        }
        assert figures["cheap/score"] == pytest.approx(fmean(by_role["seed"]))
        assert figures["strong/score"] == pytest.approx(fmean(by_role["live"]))
        assert event.numbers["sent"] == 0.5
        tokens = {way: figures[f"{way}/prompt_tokens"] or 0.0 for way in ("cheap", "strong")}
        assert tokens["strong"] >= tokens["cheap"] > 0
        assert figures["chance/prompt_tokens"] == pytest.approx(fmean(tokens.values()))
        assert tokens["cheap"] < (figures["routed/prompt_tokens"] or 0.0)
        scores = zip(by_role["seed"], by_role["live"], strict=True)
        low, high = zip(*((min(pair), max(pair)) for pair in scores), strict=True)
        assert fmean(low) <= (figures["routed/score"] or 0.0) <= fmean(high)
    keys = [
        (row.sample.weights, row.sample.text_hash, row.sample.task, row.sample.example)
        for row in rows
        if not row.reused
    ]
    assert max(Counter(keys).values()) == 1  # nothing was drawn twice


def test_a_route_costs_no_more_than_its_account(acting: Path) -> None:
    loaded = load_resolved(acting / "config.json")
    ledger = Ledger(loaded.config, build_tasks(loaded, loaded.config.task_names))
    spent = {
        event.row: event.rollouts
        for event in read_events(acting / "events.jsonl")
        if isinstance(event, EvaluationEvent) and event.part == "route"
    }
    account = {e.row: e.rollouts for e in ledger.entries if e.part == "route"}
    assert account == {1: 0, 2: 4}  # the seed prompt of the first task, once the second is learned
    assert spent == {0: 0, **account}
    assert {e.extra for e in ledger.entries if e.part == "slow"} == {8, 4}


def test_the_report_shows_the_route_under_the_matrix_and_what_it_costs(acting: Path) -> None:
    tables = {table.title: table for table in build_report(acting).tables()}
    matrix = [[text.text for text in line] for line in tables["Score matrix"].rows]
    [routed] = [line for line in matrix if line[0] == "2 routed"]
    event = routes(acting)[2, "first"]
    assert routed[1].startswith(f"{figures_of(event)['routed/score']:.2f}")
    table = tables["Route after stage 2"]
    assert [line[0].text for line in table.rows] == ["first", "second"]
    assert table.rows[0][-1].text == f"{figures_of(event)['routed/prompt_tokens']:.1f}"
    assert "first_logprob" in table.note


def test_a_signal_that_reads_the_answer_routes_nothing_and_the_base_is_an_arm(
    tmp_path: Path, model: str
) -> None:
    use = f"{{kind: custom, use: '{__name__}:peeking', {TRUSTED}}}"
    run = start(
        tmp_path,
        [
            *(model, *ACTING[3:], "fast=null", "stages=[{task: first, cycles: 1}]"),
            "evaluation.channel_split=false",
            f"evaluation.route={{signal: {use}, cheap: base, strong: live}}",
        ],
    )
    event = routes(run)[1, "first"]
    metrics = {metric.name: metric for metric in event.figures}
    assert metrics["routed/score"].value is None
    assert metrics["routed/score"].reason == "peeking has no number for 4 of 4 questions"
    base = [r.sample.score for r in read_scores(run / "scores.jsonl") if r.row == 0]
    assert metrics["cheap/score"].value == pytest.approx(fmean(base[:4]))


def test_where_the_seed_prompt_is_deployed_there_is_nothing_to_route_between(
    tmp_path: Path, model: str
) -> None:
    run = start(tmp_path, [model, *ACTING[2:], "stages=[{task: first, cycles: 1, fast: false}]"])
    metrics = {metric.name: metric for metric in routes(run)[1, "first"].figures}
    assert metrics["cheap/score"].value == metrics["strong/score"].value is not None
    for name in ("routed/score", "routed/prompt_tokens", "chance/score", "routing_gain"):
        assert metrics[name].value is None
        assert metrics[name].reason == "both arms are one: the seed prompt is the deployed one"
    [table] = [t for t in build_report(run).tables() if t.title == "Route after stage 1"]
    assert "No route on first: both arms are one" in table.note


def test_signals_of_a_task_are_read_with_the_adapter_it_is_scored_with(
    moved: Policy, task: Task
) -> None:
    def mean(of: Any) -> float:
        [measured] = of
        return float(measured.figures[0].value)

    measure = signal_measure({"first_entropy": SIGNALS["first_entropy"]})
    snapshot: Any = SimpleNamespace(
        policy=moved,
        tasks={task.name: task},
        test_sample=lambda task: task.test[:4],
        scores=lambda task: {example.id: 1.0 for example in task.test},
    )
    before = mean(measure(snapshot))
    moved.adapters.owner = task.name
    moved.adapters.put_aside(seed=5)  # the present adapter is a new one from here on
    assert mean(measure(snapshot)) == pytest.approx(before, abs=1e-9)
    moved.adapters.owner = None
