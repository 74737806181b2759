"""`fastslow retention`: the harness scores the stages' weights, paired with the base, offline."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from fastslow.cli.main import main
from fastslow.core.errors import ConfigError, EvaluationError
from fastslow.loop.retention import study_retention
from fastslow.results.retention import RetentionStudy, retention_table
from tests.integration.results.test_rollback import loaded_policy, toy_run
from tests.support.run_folder import without_seal

pytest.importorskip("lm_eval", reason="the extra `retention` is not installed")
LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of our own: which of four letters comes next."""
    folder = tmp_path_factory.mktemp("benchmarks")
    rows = [
        {
            "text": "".join(LETTERS[(n + k) % 8] for k in range(3)),
            "options": list("abcd"),
            "gold": n % 4,
        }
        for n in range(24)
    ]
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "task": "next_letter",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "letters.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "next_letter.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("retention")
    light = ["evaluation.channel_split=false", "evaluation.neutral=false", "slow.lr=0.1"]
    return toy_run(folder, tiny_folder, *light)


@pytest.fixture(scope="module")
def study(finished: Path, definitions: Path) -> RetentionStudy:
    return study_retention(finished, ["next_letter"], definitions=definitions)


def test_every_stage_is_paired_with_the_base(study: RetentionStudy, finished: Path) -> None:
    assert dict(study.stages) == {1: "first", 2: "second"}
    assert all(shift > 0 for shift in study.shifts.values())
    key = ("next_letter", "acc")
    assert {stage: len(scores[key]) for stage, scores in study.scores.items()} == {
        0: 24,
        1: 24,
        2: 24,
    }
    changes = list(study.changes())
    assert [change.stage for change in changes] == [1, 2]
    for change in changes:
        base, own = study.scores[0][key], study.scores[change.stage][key]
        assert change.difference == pytest.approx(fmean(own[e] - base[e] for e in base))
        assert change.changed == sum(own[e] != base[e] for e in base)
        if change.low is not None and change.high is not None:
            assert change.low <= change.difference <= change.high
    assert any(change.changed for change in changes)


def test_its_answers_are_those_of_the_weights(
    study: RetentionStudy, finished: Path, definitions: Path
) -> None:
    """The second stage's accuracy is what our own engine finds with its adapter."""
    _, policy = loaded_policy(finished)
    policy.load(finished / "stages" / "001-second")
    right = {}
    for number, line in enumerate((definitions / "letters.jsonl").read_text().splitlines()):
        row = json.loads(line)
        ids = [
            policy.tokenizer(f"{row['text']} {option}")["input_ids"] for option in row["options"]
        ]
        size = len(policy.tokenizer(row["text"])["input_ids"])
        logprobs = policy.scorer.logprobs(
            [tuple(i[:size]) for i in ids], [tuple(i[size:]) for i in ids]
        )
        sums = [sum(values) for values in logprobs]
        right[str(number)] = float(sums.index(max(sums)) == row["gold"])
    assert right == study.scores[2]["next_letter", "acc"]


def test_an_adapter_of_zeros_is_an_error(finished: Path, definitions: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    run = without_seal(shutil.copytree(finished, tmp_path / finished.name))
    weights = run / "stages" / "000-first" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({n: torch.zeros_like(t) if "lora_B" in n else t for n, t in tensors.items()}, weights)
    with pytest.raises(EvaluationError, match=r"the adapter in .*000-first changes nothing"):
        study_retention(run, ["next_letter"], definitions=definitions, limit=2, trust=True)


def test_the_command_prints_a_table_and_keeps_every_example(
    finished: Path, definitions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / finished.name)
    words = ["retention", str(run), "--suite", "next_letter", "--definitions", str(definitions)]
    assert main([*words, "--stage", "2", "--limit", "6"]) == 0
    out = capsys.readouterr().out
    assert "2 second" in out
    assert "next_letter acc" in out
    content = json.loads((run / "retention" / "retention.json").read_text())
    assert [stage["stage"] for stage in content["stages"]] == [2]
    assert [len(row["values"]) for row in content["scores"]] == [6, 6]
    assert main(["report", str(run)]) == 0
    assert main([*words[:3], "next_leter", *words[4:]]) == 2
    assert "no benchmark 'next_leter'. Did you mean 'next_letter'?" in capsys.readouterr().err
    assert main([*words, "--stage", "3"]) == 2


def test_figures_of_known_scores() -> None:
    study = RetentionStudy(
        run="r",
        model="m",
        harness="0",
        stages={1: "a"},
        shifts={1: 0.1},
        scores={
            0: {("b", "acc"): {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0}},
            1: {("b", "acc"): {"0": 0.0, "1": 0.0, "2": 1.0, "3": 0.0}},
        },
    )
    [change] = study.changes()
    assert (change.base, change.value, change.difference, change.changed) == (0.5, 0.25, -0.25, 1)
    assert (change.low, change.high) == pytest.approx((-0.74, 0.24))
    [row] = retention_table(study).rows
    assert [cell.text for cell in row] == [
        "1 a", "b acc", "0.500", "0.250", "-0.250 [-0.740, +0.240]", "1 of 4"
    ]  # fmt: skip


def test_a_run_without_weight_updates_has_nothing_to_score(
    tmp_path: Path, tiny_folder: Path, definitions: Path
) -> None:
    run = toy_run(tmp_path, tiny_folder, "slow=null")
    with pytest.raises(ConfigError, match="trains no weights"):
        study_retention(run, ["next_letter"], definitions=definitions)
