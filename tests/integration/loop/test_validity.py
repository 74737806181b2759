"""A study of signals reads a run as it was scored, changes nothing, and says what is missing."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.core.files import checksums
from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.core.types import Example, Grade
from fastslow.loop.validity import study_run
from fastslow.plugins import Reading, Signal, SignalConfig, signal
from fastslow.policy.policy import Policy
from fastslow.policy.saved import BASE
from fastslow.policy.signals import SIGNALS
from fastslow.records.jsonl import read_scores
from fastslow.records.validity_file import read_verdicts
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import exact_match
from tests.support.run_folder import without_seal
from tests.support.runs import start
from tests.support.tiny import save_tiny

HERE = "tests.integration.loop.test_validity"
COLOURS = ("red", "green", "blue", "brown", "white", "black", "grey", "pink")


class Named(TaskConfig):
    """Parameters of `named` and `summed`."""

    wanted: str = "?"
    """Begins every question."""


def make(config: Named, grade: Callable[[Example, str], Grade]) -> Task:
    def examples(split: str, count: int) -> tuple[Example, ...]:
        rows = [(f"{config.wanted} {c} {d}", c[:1]) for c in COLOURS for d in COLOURS]
        start = {"train": 24, "validation": 20, "test": 0}[split]
        return tuple(
            Example(f"{split}-{i}", question, answer)
            for i, (question, answer) in enumerate(rows[start : start + count])
        )

    return Task(
        train=examples("train", 40),
        validation=examples("validation", 4),
        test=examples("test", 20),
        instruction="Write.",
        grade=grade,
        max_tokens=4,
    )


@task(name="named", version=1, source="made here")
def named(config: Named) -> Task:
    """The first letter of a colour, exactly."""
    return make(config, exact_match)


@task(name="summed", version=1, source="made here")
def summed(config: Named) -> Task:
    """A score that every other answer changes: any policy gets some right."""

    def grade(example: Example, text: str) -> Grade:
        return Grade((sum((example.question + text).encode()) % 8) / 7, "by a sum")

    return make(config, grade)


@signal(name="colour", source="made here")
def colour(config: SignalConfig) -> Signal:
    """What a user may bring: a number of the reading."""

    def value(reading: Reading) -> float:
        return float(reading.prompt_tokens % 7)

    return value


OVERRIDES = (
    "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
    f"tasks.first={{use: '{HERE}:summed'}}",
    f"tasks.second={{use: '{HERE}:named', params: {{wanted: '!'}}}}",
    f"evaluation.signals=[{{kind: hoyer}}, {{kind: custom, use: '{HERE}:colour'}}]",
    "evaluation.prompt_policies=[seed]",
    "evaluation.neutral=false",
    "evaluation.geometry=false",
    "evaluation.proxies=false",
    "evaluation.kl_examples=0",
    "evaluation.curve_examples=0",
    "evaluation.test_examples=20",
    "slow={kind: sft, lr: 0.002}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that deploys another prompt than the seed prompt, whatever it found."""
    folder = tmp_path_factory.mktemp("signals")

    def better(candidates: Sequence[Candidate]) -> Candidate:
        return replace(candidates[0], program=PromptProgram("Write the first letter."))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastslow.loop.stages.best_by_mean", better)
        return start(folder, [*OVERRIDES, f"model.name={save_tiny(folder / 'model')}"])


@pytest.fixture(scope="module")
def study(run: Path) -> Path:
    """The folder of the study of the run; nothing else in the run's folder changes by it."""
    before = {n: digest for n, digest in checksums(run).items() if not n.startswith("lease/")}
    assert main(["signals", str(run)]) == 0
    after = {
        n: digest
        for n, digest in checksums(run).items()
        if not n.startswith(("signals/", "lease/"))
    }
    assert after == before
    return run / "signals"


def numbers(study: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((study / "signals.json").read_text())
    return content


def test_each_problem_is_labelled_by_the_records_and_by_the_gold_answer_where_that_is_exact(
    run: Path, study: Path
) -> None:
    with (study / "signals.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    scores = {
        (row.sample.task, row.sample.example): row.sample.score
        for row in read_scores(run / "scores.jsonl")
        if row.row == 2 and row.sample.prompt_policy == "live"
    }
    assert {(line["task"], line["example"]) for line in lines} == scores.keys()
    for line in lines:
        score = scores[line["task"], line["example"]]
        assert int(line["wrong"]) == (score < 0.5)
        label = float(line["gold_logprob"]) if line["task"] == "second" else 1 - score
        assert float(line["difficulty"]) == pytest.approx(label, abs=1e-6)
        assert 0 <= float(line["colour"]) < 7
    assert len(lines) == 40
    assert numbers(study)["labels"] == {"first": "1 - score", "second": "-ln p(gold answer)"}


def test_what_acts_on_signals_reads_a_verdict_on_each_shipped_or_own(
    run: Path, study: Path
) -> None:
    verdicts = read_verdicts(run)
    assert verdicts.verdicts.keys() == {*SIGNALS, "colour"}
    assert verdicts.model == numbers(study)["model"]
    assert verdicts.verdicts["top5_energy"].reason.startswith("not earned: ")


def test_arms_that_the_run_scored_are_routed_and_others_are_named(run: Path, study: Path) -> None:
    content = numbers(study)
    pairs = {(c["task"], c["cheap"]["name"], c["strong"]["name"]): c for c in content["routing"]}
    assert pairs.keys() == {
        ("first", "seed prompt", "deployed prompt"),
        ("first", "base", "tuned"),
        ("first", "adapter of stage 1", "of stage 2"),
        ("second", "seed prompt", "deployed prompt"),
        ("second", "base", "tuned"),
    }
    assert [line for line in content["absent"] if line.startswith("adapter")] == [
        "adapter of an earlier stage / of stage 2 on second: no other was scored under this prompt"
    ]
    rows = read_scores(run / "scores.jsonl")
    cells = {
        ("first", "seed prompt"): [
            r for r in rows if r.row == 2 and r.sample.prompt_policy == "seed"
        ],
        ("first", "base"): [r for r in rows if r.sample.weights == BASE],
        ("first", "adapter of stage 1"): [
            r for r in rows if r.row == 1 and r.sample.prompt_policy == "live"
        ],
    }
    for (task_name, cheap), members in cells.items():
        [curve] = [c for (t, name, _), c in pairs.items() if (t, name) == (task_name, cheap)]
        mean = fmean(r.sample.score for r in members if r.sample.task == task_name)
        assert curve["accuracy"]["top5_energy"][0] == pytest.approx(mean, abs=1e-6)
    tokens = pairs["first", "seed prompt", "deployed prompt"]
    assert tokens["cheap"]["prompt_tokens"] < tokens["strong"]["prompt_tokens"]
    tuned = pairs["first", "base", "tuned"]
    assert tuned["cheap"]["prompt_tokens"] == tuned["strong"]["prompt_tokens"]


def test_the_signal_of_a_pair_is_read_under_its_cheap_arm(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reading is of the weights and prompt whose scores it stands next to."""
    readings = []
    inner = Policy.read_prompts

    def read(policy: Policy, program: PromptProgram, examples: Sequence[Example]) -> list[Reading]:
        with policy.scorer.base_weights():
            base = inner(policy, program, examples)
        result = inner(policy, program, examples)
        is_base = base[0].gold_logprob == result[0].gold_logprob
        weights = BASE if is_base else policy.weights_fingerprint()
        readings.append((examples[0].question[0], weights, program.text_hash))
        return result

    monkeypatch.setattr(Policy, "read_prompts", read)
    study = study_run(run, None, "top5_energy")
    rows = [r for r in read_scores(run / "scores.jsonl") if r.sample.task == "first"]
    after = {number: {r.sample.weights for r in rows if r.row == number} for number in (1, 2)}
    [now], [earlier] = after[2], after[1]
    deployed, seed = study.prompts["first"], rows[0].sample.text_hash
    assert readings[:4] == [
        ("?", now, deployed),
        ("?", now, seed),
        ("?", BASE, deployed),
        ("?", earlier, deployed),
    ]
    assert readings[4] == ("!", now, study.prompts["second"])
    assert len(readings) == 7


def test_an_earlier_stage_is_studied_as_it_was(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["signals", str(run), "--stage", "1", "--primary", "colour", "--out", str(out)]
    assert main(words) == 0
    content = numbers(out)
    weights = {r.sample.weights for r in read_scores(run / "scores.jsonl") if r.row == 1}
    assert set(content["weights"].values()) <= weights
    assert content["subject"].endswith("after stage 1 of 2")
    assert content["overall"]["signals"]["colour"]["role"] == "primary"
    page = (out / "signals.html").read_text()
    assert "<script" not in page
    differing = [c for c in content["routing"] if c["gains"]["hoyer"]["value"] is not None]
    assert page.count("<svg") == 1 + len(differing)
    assert main([*words[:-1], str(run)]) == 2  # among the run's own files


def test_what_cannot_be_studied_is_refused_before_a_model_loads(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: str) -> str:
        assert main(["signals", *words]) == 2
        return capsys.readouterr().err

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("fastslow.loop.validity.build_policy", load)
    assert "got 'top5_enrgy'. Did you mean 'top5_energy'?" in refused(
        str(run), "--primary", "top5_enrgy"
    )
    assert "--stage: expected 1 to 2, got 3" in refused(str(run), "--stage", "3")
    assert "not a run folder" in refused(str(tmp_path))
    assert "give the folder of a run, or --model DIR" in refused()
    assert "give the folder of a run, or --model DIR" in refused(str(run), "--task", "named")
    copy = tmp_path / "copy"
    without_seal(shutil.copytree(run, copy))
    shutil.rmtree(copy / "stages" / "001-second")
    assert "adapter and prompts of stage 2 are not there. Known: 000-first" in refused(
        str(copy), "--trust"
    )
    lines = (copy / "scores.jsonl").read_text().splitlines(keepends=True)
    (copy / "scores.jsonl").write_text("".join(x for x in lines if json.loads(x)["row"] == 0))
    assert "stage 1 was not scored" in refused(str(copy), "--trust")


def test_a_base_model_is_studied_on_all_problems_but_those_it_is_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run.parent.parent / "model")
    words = ["signals", "--model", model, "--task", f"{HERE}:named", "--param", "wanted='#'"]
    out = tmp_path / "out"
    assert main([*words, "--draw", "1", "--demonstrations", "4", "--out", str(out)]) == 0
    with (out / "signals.csv").open(newline="") as file:
        examples = {line["example"] for line in csv.DictReader(file)}
    assert len(examples) == 64 - 4
    assert {e for e in examples if not e.startswith("train-")} == {
        *(f"test-{i}" for i in range(20)),
        *(f"validation-{i}" for i in range(4)),
    }
    content = numbers(out)
    assert content["routing"] == []
    assert content["subject"] == "base under 4 demonstrations, draw 1"
    assert main([*words[:4], f"{HERE}:summed", "--out", str(tmp_path / "c")]) == 2
    assert "takes other answers than the gold one" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "context_length", 40)
        assert main([*words, "--out", str(tmp_path / "c")]) == 2
    assert "and the model takes 40. Show fewer, or none." in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
