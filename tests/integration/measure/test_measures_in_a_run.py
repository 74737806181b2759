"""Shipped measures in a real run: figures of every row, what they cost, and nothing changed."""

from pathlib import Path

import pytest

from fastslow.config.ledger import Ledger
from fastslow.config.loading.load import load_resolved
from fastslow.core.types import Example
from fastslow.loop.build import build_tasks
from fastslow.records.events import EvaluationEvent, FiguresEvent
from fastslow.records.jsonl import read_events
from fastslow.results.render.layout import Text
from fastslow.results.report import build_report
from fastslow.results.report.sections.adherence import Adherence
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import exact_match
from tests.support.runs import outcome, start
from tests.support.tiny import save_tiny

USE = "{{use: 'tests.integration.measure.test_measures_in_a_run:closed', params: {{wanted: {0}}}}}"
MEASURES = (
    "evaluation.measures=[{kind: concentration, draws: 3}, "
    "{kind: keep_curve, shares: [0.05, 0.25], examples: 6}, "
    "{kind: bridge, examples: 6, permutations: 99}, {kind: adherence, demonstrations: 3}, "
    "{kind: reference_spread, rollouts: 2, examples: 2}]"
)
KINDS = ("concentration", "keep_curve", "bridge", "adherence")


class Closed(TaskConfig):
    """Parameters of `closed`."""

    wanted: str = "x"
    """Begins every question; the key of `letters`, whose place it takes."""


@task(name="closed", version=1, source="made here")
def closed(config: Closed) -> Task:
    """Three answers of a letter each."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{i}", f"{config.wanted} {split} {i}", "pqr"[i % 3])
            for i in range(count)
        )

    return Task(
        train=examples("train", 30),
        validation=examples("validation", 6),
        test=examples("test", 6),
        instruction="One letter.",
        grade=exact_match,
        max_tokens=6,
    )


def overrides(tiny: Path) -> list[str]:
    return [
        f"model.name={tiny}",
        *(f"tasks.{name}={USE.format(name)}" for name in ("first", "second")),
        "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
        "slow={kind: sft, lr: 0.02}",
        "evaluation.test_examples=6",
        "evaluation.kl_examples=0",
        *(f"evaluation.{name}=false" for name in ("channel_split", "neutral", "proxies")),
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return start(tmp_path_factory.mktemp("measured"), [*overrides(tiny), MEASURES])


def events(run: Path) -> dict[tuple[str, int, str], FiguresEvent]:
    listed = [e for e in read_events(run / "events.jsonl") if isinstance(e, FiguresEvent)]
    return {(e.kind, e.row, e.of): e for e in listed if e.kind in KINDS}


def value(event: FiguresEvent, name: str) -> float:
    [metric] = [metric for metric in event.figures if metric.name == name]
    assert metric.value is not None, metric.reason
    return metric.value


def test_every_row_has_its_figures_and_the_base_is_measured_where_it_is_needed(
    measured: Path,
) -> None:
    by_place = events(measured)
    assert list(by_place) == [
        ("adherence", 0, "first"),
        ("adherence", 0, "second"),
        ("concentration", 1, "the whole change"),
        ("keep_curve", 1, "first"),
        ("bridge", 1, "first"),
        ("adherence", 1, "first"),
        ("concentration", 2, "the whole change"),
        ("keep_curve", 2, "second"),
        ("bridge", 2, "second"),
        ("adherence", 2, "first"),
        ("adherence", 2, "second"),
    ]
    for row, task_name in ((1, "first"), (2, "second")):
        change = by_place["concentration", row, "the whole change"]
        assert 0 < value(change, "energy_top1_frac") < value(change, "energy_top5_frac") < 1
        curve = by_place["keep_curve", row, task_name]
        assert value(curve, "keep_top25") > value(curve, "keep_top5")
        assert len([name for name in curve.numbers if name.startswith("loss/top5/")]) == 6
        layers = by_place["bridge", row, task_name]
        assert layers.numbers["bridge/layers"] == 2
        assert layers.numbers["rotated_frac"] == 1
        assert value(layers, "change") != value(layers, "gradient")
    base = by_place["adherence", 0, "first"]
    assert value(base, "text_influence") == value(base, "text_influence_base") == 0


def test_the_whole_change_is_that_of_the_first_stage_and_later_more_than_a_stage(
    measured: Path,
) -> None:
    listed = [e for e in read_events(measured / "events.jsonl") if isinstance(e, FiguresEvent)]
    for row in (1, 2):
        [geometry] = [e for e in listed if e.kind == "geometry" and e.row == row]
        change = events(measured)["concentration", row, "the whole change"]
        for name in ("energy_top1_frac", "energy_top5_frac", "energy_top10_frac"):
            stage = pytest.approx(value(geometry, name), rel=0.01)
            assert (value(change, name) == stage) is (row == 1)


def test_a_run_that_measures_is_the_run_that_does_not(
    measured: Path, tiny: Path, tmp_path: Path
) -> None:
    plain = start(tmp_path, overrides(tiny))
    ours, theirs = outcome(measured), outcome(plain)
    assert ours.keys() == theirs.keys()
    assert ours["scores"] == theirs["scores"]
    assert ours["metrics"] == theirs["metrics"]
    assert ours["files"] == theirs["files"]


def test_what_measures_cost_is_in_the_ledger(measured: Path) -> None:
    loaded = load_resolved(measured / "config.json")
    ledger = Ledger(loaded.config, build_tasks(loaded, loaded.config.task_names))
    parts = [e for e in read_events(measured / "events.jsonl") if isinstance(e, EvaluationEvent)]
    drawn = {(e.part, e.row): e.rollouts for e in parts if e.part in KINDS}
    entries = {(e.part, e.row): e for e in ledger.entries if e.part in KINDS}
    assert drawn.keys() == entries.keys()
    assert {place: entry.rollouts for place, entry in entries.items()} == drawn
    assert drawn["adherence", 0] == 24
    assert drawn["adherence", 1] == 12
    assert entries["keep_curve", 0].extra == 0 < entries["keep_curve", 1].extra


def test_the_report_shows_them_with_their_outcomes(measured: Path) -> None:
    report = build_report(measured)
    tables = {table.title: table for table in report.tables()}
    for title, outcome_words in (
        ("Concentration of the whole change", "Concentrated beyond low rank: "),
        ("What parts of the change keep of its gain", "Does the place matter? "),
        ("Do changes fall on sparsely active units?", "In sparsely active regions: "),
    ):
        assert outcome_words in tables[title].note
    assert len(tables["Whether prompts are still followed"].rows) == 5
    changes = report.section(Adherence).changes
    assert [(change.row, change.task) for change in changes] == [
        (1, "first"),
        (2, "first"),
        (2, "second"),
    ]
    assert changes[0].changes["adherence_flipped"].n == 6
    assert not {*KINDS} & set(tables)
    assert [row[:2] for row in tables["reference_spread"].rows] == [
        (Text("1"), Text("first")),
        (Text("2"), Text("first")),
        (Text("2"), Text("second")),
    ]
