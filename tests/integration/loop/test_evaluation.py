"""What a run replays: every text and both kinds of weights, nothing twice, nothing left behind."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.config.ledger import NEUTRAL_PASSAGES as NEUTRAL_PASSAGES_COUNTED
from fastslow.core.prompts import PromptProgram
from fastslow.loop.diagnostics import diagnose
from fastslow.loop.evaluation import score_all
from fastslow.loop.run import Run
from fastslow.measure.model.neutral import NEUTRAL_PASSAGES
from fastslow.policy.adapter.deltas import weight_deltas
from fastslow.policy.adapter.lora import adapter_tensors
from fastslow.policy.policy import load_policy, with_adapter
from fastslow.records.events import (
    NEUTRAL,
    BaseDrawsEvent,
    DriftEvent,
    EvaluationEvent,
    Event,
    FiguresEvent,
    ReoptimizedEvent,
    ScoreRow,
    TextEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.task.definition import Task
from tests.support.runs import WIDER, start

TASKS = ("first", "second", "held_out")


def train(folder: Path, tiny_folder: Path, *overrides: str) -> Path:
    return start(folder, [f"model.name={tiny_folder}", *WIDER, *overrides])


def cells(run: Path, role: str) -> dict[tuple[int, str], list[ScoreRow]]:
    found: dict[tuple[int, str], list[ScoreRow]] = {}
    for row in read_scores(run / "scores.jsonl"):
        if row.cycle is None and row.sample.prompt_policy == role:
            found.setdefault((row.row, row.sample.task), []).append(row)
    return found


def costs(run: Path, part: str) -> list[tuple[int, int, int]]:
    """Row, rollouts, reused rows."""
    events = (e for e in read_events(run / "events.jsonl") if isinstance(e, EvaluationEvent))
    return [(e.row, e.rollouts, e.reused) for e in events if e.part == part]


def test_each_stage_scores_base_and_tuned_weights_under_seed_and_evolved_text(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evolve(run: Run, task: Task, stage: int) -> None:
        """This model finds no better text by itself."""
        run.policy.live[task.name] = PromptProgram(f"Write letters for {task.name}.")

    monkeypatch.setattr("fastslow.loop.stages.choose_text", evolve)
    run = train(tmp_path, tiny_folder)
    own, seed, live = (cells(run, role) for role in ("own", "seed", "live"))
    assert set(own) == {(0, "first"), (1, "first"), (2, "first"), (0, "second"), (2, "second")}
    assert {(1, "first"), (2, "second")} <= set(seed)
    assert {row.sample.weights for row in own[0, "first"] + own[0, "second"]} == {"base"}
    for key in ((1, "first"), (2, "second")):
        chosen = {row.sample.text_hash for row in live[key]}
        assert {row.sample.text_hash for row in own[key] + own[0, key[1]]} == chosen
        assert {row.sample.text_hash for row in seed[key]}.isdisjoint(chosen)
        assert len(own[key]) == len(live[key]) == 8
    # under its own text a task is scored already: recorded again, drawn never
    assert all(row.reused for key in ((1, "first"), (2, "first")) for row in own[key])
    assert [r.sample.score for r in own[2, "first"]] == [r.sample.score for r in live[2, "first"]]
    assert costs(run, "channel_split") == [(1, 16, 8), (2, 16, 16)]
    points = [r for r in read_scores(run / "scores.jsonl") if r.cycle is not None]
    assert Counter((r.row, r.cycle, r.sample.task) for r in points) == {(1, 0, "first"): 8}


def test_a_cell_whose_weights_and_text_did_not_change_is_recorded_and_not_drawn(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = train(tmp_path, tiny_folder, "slow=null", "evaluation.prompt_policies=[seed,own]")
    rows = read_scores(run / "scores.jsonl")
    assert {row.sample.weights for row in rows} == {"base"}
    again = [row for row in rows if row.row == 2 and row.sample.task == "first"]
    assert len(again) == 3 * 8
    assert all(row.reused for row in again)
    first = {
        (r.sample.task, r.sample.text_hash, r.sample.example): r.sample
        for r in rows
        if not r.reused
    }
    assert len(first) == sum(not row.reused for row in rows)  # nothing was drawn twice
    for row in again:
        key = (row.sample.task, row.sample.text_hash, row.sample.example)
        assert row.sample.completion == first[key].completion
    matrix = costs(run, "matrix")
    assert matrix[0] == (0, 24, 0)
    assert all(drawn + reused == 24 for _, drawn, reused in matrix)
    assert matrix[2][2] >= 16


def test_reoptimizing_finds_texts_for_earlier_tasks_and_deploys_none(
    tmp_path: Path, tiny_folder: Path
) -> None:
    overrides = ("tasks.first.use=tests.support.toy_tasks:parity",)
    plain = train(tmp_path / "plain", tiny_folder, *overrides)
    run = train(tmp_path / "reopt", tiny_folder, *overrides, "evaluation.reoptimize=true")
    events = read_events(run / "events.jsonl")
    [found] = [e for e in events if isinstance(e, ReoptimizedEvent)]
    assert found.task == "first"
    assert 0 < found.rollouts <= 24 + 2 * 4
    scored = cells(run, "reopt")
    assert set(scored) == {(2, "first")}
    assert {row.sample.text_hash for row in scored[2, "first"]} == {found.program.text_hash}
    for name in ("policy/texts.json", "policy/adapter_model.safetensors"):
        kept = [sorted((r / "resume").iterdir())[-1] / name for r in (plain, run)]
        assert kept[0].read_bytes() == kept[1].read_bytes()
    deployed = [e.program for e in events if isinstance(e, TextEvent)]
    others = read_events(plain / "events.jsonl")
    assert deployed == [e.program for e in others if isinstance(e, TextEvent)]


def test_repeated_base_evaluations_are_samples_of_their_own(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = train(tmp_path, tiny_folder, "evaluation.base_repeats=2", "fast=null", "slow.group=2")
    base = [r.sample for r in read_scores(run / "scores.jsonl") if r.row == 0 and not r.reused]
    assert {s.sample for s in base} == {0, 1}
    by_sample = [
        [(s.task, s.example, s.score) for s in base if s.sample == number] for number in (0, 1)
    ]
    assert by_sample[0] == by_sample[1]  # greedy decoding repeats itself


@pytest.mark.parametrize("how", ["continue", "new-per-stage"])
def test_measuring_leaves_weights_texts_and_every_generator_as_they_were(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    seen: list[tuple[Any, Any]] = []
    everything = [
        "evaluation.reoptimize=true",
        "evaluation.base_repeats=2",
        "evaluation.prompt_policies=[seed,own,live]",
    ]

    def state(parts: Run) -> tuple[Any, ...]:
        policy = parts.policy
        weights = {name: p.clone() for name, p in policy.model.state_dict().items()}
        trains = [name for name, p in policy.model.named_parameters() if p.requires_grad]
        texts = (policy.populations, policy.live)
        return weights, (trains, texts, random.getstate()), torch.get_rng_state()

    def watched(inner: Any) -> Any:
        def call(parts: Run, row: int) -> None:
            weights, rest, generator = state(parts)
            inner(parts, row)
            after = state(parts)
            seen.append((rest, after[1]))
            assert weights.keys() == after[0].keys()
            assert all(torch.equal(weights[name], after[0][name]) for name in weights)
            assert torch.equal(generator, after[2])

        return call

    monkeypatch.setattr("fastslow.loop.stages.score_all", watched(score_all))
    monkeypatch.setattr("fastslow.loop.stages.diagnose", watched(diagnose))
    train(tmp_path, tiny_folder, *everything, f"slow.adapter_policy={how}")
    assert len(seen) == 6
    assert all(before == after for before, after in seen)


def test_two_evaluations_of_one_policy_give_identical_records(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Sequence[ScoreRow]] = []

    def twice(run: Run, row: int) -> None:
        for _ in range(2):
            run.score_cache.__init__()  # type: ignore[misc]  # forget, so that all is drawn
            start = run.run_dir.scores.position()
            score_all(run, row)
            found.append(read_scores(run.run_dir.scores.path)[-24:])
            if len(found) % 2:
                run.run_dir.scores.truncate(start)

    monkeypatch.setattr("fastslow.loop.stages.score_all", twice)
    train(tmp_path, tiny_folder, "evaluation.channel_split=false")
    assert len(found) == 6
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first == second
        assert not any(row.reused for row in first)


def test_measuring_a_policy_twice_gives_identical_figures_and_draws_from_the_base_once(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[Event]] = []

    def twice(run: Run, row: int) -> None:
        for _ in range(2):
            before = len(read_events(run.run_dir.events.path))
            diagnose(run, row)
            found.append(read_events(run.run_dir.events.path)[before:])

    monkeypatch.setattr("fastslow.loop.stages.diagnose", twice)
    train(tmp_path, tiny_folder)
    assert len(found) == 6
    for first, second in zip(found[::2], found[1::2], strict=True):
        figures = [e for e in first if isinstance(e, DriftEvent | FiguresEvent)]
        assert [e for e in second if isinstance(e, DriftEvent | FiguresEvent)] == figures
        assert figures
        assert not any(isinstance(e, BaseDrawsEvent) for e in second)


def test_drift_geometry_and_proxies_are_measured_after_every_stage(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evolve(run: Run, task: Task, stage: int) -> None:
        """This model finds no better text by itself."""
        run.policy.live[task.name] = PromptProgram(f"Write letters for {task.name}.")

    monkeypatch.setattr("fastslow.loop.stages.choose_text", evolve)
    run = train(tmp_path, tiny_folder, "evaluation.kl_examples=3")
    events = read_events(run / "events.jsonl")
    drift = {(e.row, e.task, e.name, e.text): e for e in events if isinstance(e, DriftEvent)}
    for row in (1, 2):
        for task in (*TASKS[:row], NEUTRAL):
            for name in ("kl_fst", "kl_razor", "entropy", "entropy_base"):
                of = drift.get((row, task, name, "with_text"))
                of = of or drift[row, task, name, "without_text"]
                assert of.value is not None
                assert of.value > 0
    first = [e for (*what, _), e in drift.items() if what == [1, "first", "kl_fst"]]
    assert first[0].text_hash != first[1].text_hash
    assert first[0].value != first[1].value
    system = [e for (*what, _), e in drift.items() if what == [1, "first", "kl_system"]]
    assert [e.text for e in system] == ["with_text"]
    assert system[0].value is not None
    assert system[0].value != first[0].value
    unvisited = [key for key in drift if key[:2] in ((1, "second"), (1, "held_out"))]
    assert unvisited == []
    base = [drift[row, NEUTRAL, "neutral_ce_base", "without_text"].value for row in (1, 2)]
    assert base[0] == base[1]
    # 3 inputs under 2 texts per visited task, and prose; the base draws each of these once
    assert [drawn for _, drawn, _ in costs(run, "drift")] == [2 * 9, 15 + 6]
    drawn = [(e.task, len(e.completions)) for e in events if isinstance(e, BaseDrawsEvent)]
    assert drawn == [("first", 3)] * 2 + [(NEUTRAL, 3)] + [("second", 3)] * 2

    found = {(e.kind, e.row, e.of): e for e in events if isinstance(e, FiguresEvent)}
    assert [(kind, row) for kind, row, _ in found] == [
        ("proxies", 0),
        ("proxies", 1),
        ("geometry", 1),
        ("proxies", 2),
        ("geometry", 2),
        ("overlap", 2),
    ]
    [overlap] = [event for (kind, *_), event in found.items() if kind == "overlap"]
    assert overlap.of == "1 first and 2 second"
    assert overlap.figures[0].value is not None
    assert len(NEUTRAL_PASSAGES) == NEUTRAL_PASSAGES_COUNTED


@pytest.mark.parametrize("how", ["continue", "merge-then-new", "new-per-stage"])
def test_geometry_is_of_what_the_stage_itself_changed(
    tmp_path: Path, tiny_folder: Path, how: str
) -> None:
    run = train(
        tmp_path, tiny_folder, f"slow.adapter_policy={how}", "fast=null", "slow.lora.rank=2"
    )
    policy = load_policy(str(tiny_folder))
    policy = with_adapter(policy, rank=2, alpha=4, target_modules="all-linear", seed=5)
    changes = []
    for folder in ("000-first", "001-second"):
        policy.load(run / "stages" / folder)
        changes.append(
            {d.name: d.dense() for d in weight_deltas(policy.model, adapter_tensors(policy.model))}
        )
    own = changes[1]
    if how != "new-per-stage":
        own = {name: change - changes[0][name] for name, change in changes[1].items()}
    whole = torch.cat([change.flatten() for change in own.values()])
    [event] = [
        e
        for e in read_events(run / "events.jsonl")
        if isinstance(e, FiguresEvent) and (e.kind, e.row) == ("geometry", 2)
    ]
    figures = {metric.name: metric.value for metric in event.figures}
    assert event.numbers["num_weights"] == len(whole)
    top = whole.abs().topk(len(whole) // 10).values.double().square().sum()
    share = float(top / whole.double().square().sum())
    assert figures["energy_top10_frac"] == pytest.approx(share, rel=1e-3)
