import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fastslow.cli.arguments import resume_hint, split_words
from fastslow.cli.main import main
from tests.support.run_folder import write_run

DEMO = "configs/experiments/demo.yaml"

TASK = '''
from fastslow.task import Task, TaskConfig, task
from fastslow.core.types import Example, Grade


class Echo(TaskConfig):
    size: int = 3
    """Examples in each split."""


@task(name="{name}", version=2, source="made here")
def {name}(config: Echo) -> Task:
    """Say the word.\\x1b[31m Graded exactly."""

    def grade(example: Example, completion: str) -> Grade:
        {grade}

    def split(name: str) -> tuple[Example, ...]:
        return tuple(
            Example(f"{{name}}-{{i}}", f"Say {{name}}\\u202e{{i}}", f"word {{name}} {{i}}")
            for i in range(config.size)
        )

    return Task(split("a"), split("b"), split("c"), "Say it.\\nNow.", grade, 8)
'''


@pytest.fixture
def task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two tasks: `echo` keeps its promises, `generous` does not."""
    exact = "return Grade(float(completion.strip() == example.answer), 'compared')"
    for name, grade in (("echo", exact), ("generous", "return Grade(1.0, 'always')")):
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.py").write_text(TASK.format(name=name, grade=grade))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    runs = ("train", "resume", "runs", "report", "probe", "track", "prompts", "signals", "compare")
    for command in ("check", *runs, "ablate", "gate", "rollback", "export", "tasks", "models"):
        assert f"  {command} " in printed
    assert "..." not in printed.split("Commands:")[1]


def test_an_unknown_command_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "No such command 'trian'" in capsys.readouterr().err


def test_words_with_an_equals_sign_are_overrides_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.yaml").write_text("")
    words = ["run.yaml", "seed=1", "a=b.yaml", "model.name=/x/y"]
    assert split_words(words) == (
        [Path("run.yaml"), Path("a=b.yaml")],
        ["seed=1", "model.name=/x/y"],
    )


def test_a_key_without_its_value_says_how_a_key_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", DEMO, "seed"]) == 2
    assert "seed: cannot read: no such file. A key is set by KEY=VALUE." in capsys.readouterr().err


def test_check_prints_every_value_with_its_source_and_the_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", DEMO, "seed=7"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line for line in printed.splitlines() if line.startswith("  ")}
    assert rows["seed"].split() == ["seed", "7", "override"]
    assert "demo.yaml:" in rows["name"]
    assert "default: " in rows["slow.warmup_steps"]
    assert "slow rollouts" in printed.split("cost\n")[1]


def test_check_of_several_files_prints_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", DEMO, "configs/tests/tiny.yaml"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{DEMO}: ok, demo")
    assert second.startswith("configs/tests/tiny.yaml: ok, tiny")


def test_check_reports_the_mistakes_of_all_files_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("name: a\nsead: 1\nstages: [{task: word_valence}]\n")
    Path("b.yaml").write_text("name: b\nseed: x\nstages: [{task: word_valence}]\n")
    assert main(["check", "a.yaml", "b.yaml"]) == 2
    caught = capsys.readouterr().err.splitlines()
    assert len(caught) == 2
    assert caught[0].startswith("a.yaml:2: sead")
    assert "seed" in caught[0].split("sead", 1)[1]
    assert caught[1].startswith("b.yaml:2: seed")


def test_check_without_a_file_says_what_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "seed=1"]) == 2
    assert "fastslow check configs/experiments/demo.yaml" in capsys.readouterr().err


def test_train_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", DEMO, DEMO]) == 2
    assert "one configuration file, got 2" in capsys.readouterr().err


def test_traceback_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "where", "nope", "--traceback"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert main(["models", "where", "nope"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_check_notes_what_this_machine_lacks_for_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def notes(fast: str) -> list[str]:
        assert main(["check", DEMO, f"fast={fast}"]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]

    with monkeypatch.context() as bare:
        bare.setattr(importlib.util, "find_spec", lambda name: None)  # nothing is installed
        [note] = notes("{kind: mipro, metric_calls: 2000}")
        assert "pip install 'fastslow[mipro]'" in note
        assert notes("{kind: sequence, metric_calls: 4000, steps: [{kind: mipro}]}") == [note]
    monkeypatch.delenv("MY_KEY", raising=False)
    remote = "{kind: gepa, reflection: {model: openai/m, api_key_env: MY_KEY}}"
    [note] = notes(remote)
    assert "environment variable MY_KEY" in note
    assert main(["check", DEMO, DEMO, f"fast={remote}"]) == 0
    assert all("; note: fast.reflection" in line for line in capsys.readouterr().out.splitlines())
    monkeypatch.setenv("MY_KEY", "x")
    assert notes(remote) == []
    assert notes("{kind: gepa}") == []


@pytest.mark.parametrize("name", ["/nowhere/model", "smolm2-135m-instruct"])
def test_check_refuses_a_model_that_is_nowhere(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["check", DEMO, f"model.name={name}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{DEMO}: model.name: ")
    assert repr(name) in error
    assert "smollm2-135m-instruct" in error


def test_check_notes_a_model_of_a_hub_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["check", DEMO, "model.name=organisation/model"]) == 0
    assert "note: model.name: 'organisation/model' is not a folder here" in capsys.readouterr().out


def test_check_notes_a_known_model_that_is_not_fetched(
    model_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", DEMO]) == 0
    assert "note: model.name: smollm2-135m-instruct: it is not fetched" in capsys.readouterr().out


QUESTIONS = """
name: q
model: {name: smollm2-135m-instruct}
stages: [{task: mine}]
tasks:
  mine:
    use: text_classification
    params: {data: data.csv, max_chars: 40}
"""


def write_questions(*rows: str) -> str:
    """A configuration in the working directory over a file of semicolons with these rows."""
    sound = [f"text {n};{'good' if n % 2 else 'bad'}" for n in range(20)]
    Path("data.csv").write_text("\n".join(["text;label", *sound, *rows, ""]), encoding="utf-8-sig")
    Path("q.yaml").write_text(QUESTIONS + "cycle: {pool: 4, problems: 4}\n")
    return "q.yaml"


def test_check_opens_the_data_and_says_what_is_in_it(
    model_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_questions("x" * 50 + ";good", "text 1;bad")
    assert main(["check", file]) == 0
    printed = capsys.readouterr().out.partition("\ndata\n")[2].partition("\ncost\n")[0]
    lines = [line.strip() for line in printed.splitlines()]
    assert lines[0] == "mine  text_classification@1"
    assert lines[1].startswith("train       15 examples, 2 different answers, 53% are 'good'")
    assert lines[1].endswith("questions of at most 40 characters")
    assert lines[4:] == [
        "note: data.csv: begins with a byte order mark, which is left out.",
        "note: data.csv: its fields are separated by a semicolon.",
        "note: 1 of 22 texts of train cut to max_chars = 40 characters, the longest has 50: "
        "data.csv:22. Raise max_chars if what decides stands at their end.",
        "note: 1 row with a text that its split holds already, left out: data.csv:23.",
        "note: 1 text with contradicting labels, of which the first is kept: 'good' at "
        "data.csv:3, 'bad' at data.csv:23.",
    ]


def test_check_refuses_data_that_is_too_small_for_a_run(
    model_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", write_questions(), "cycle.pool=11"]) == 2
    expected = "task mine: 14 training examples are too few for cycle.pool = 11 demonstrations"
    assert expected in capsys.readouterr().err


def test_check_names_every_problem_of_the_data_with_its_line(
    model_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", write_questions("a;", "b", "c;café", "d;cafe\u0301")]) == 2
    lines = capsys.readouterr().err.splitlines()
    expected = ["data.csv:23: expected 2 fields", "data.csv:22: column 'label' holds no label"]
    expected += ["note: data.csv: begins", "note: data.csv: its fields", "note: label 'café' is"]
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith(f"q.yaml:8: task mine: {words}")


def test_check_refuses_data_that_is_nowhere_and_passes_what_waits_for_data(
    model_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agnews = "configs/experiments/agnews.yaml"
    assert main(["check", agnews, "data=/nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{agnews}:13: task agnews: data: no file or folder /nowhere")
    assert main(["check", agnews]) == 0
    assert "note: task agnews: no data given; data=PATH has it checked." in capsys.readouterr().out


def test_check_measures_texts_by_the_models_own_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny import tiny_tokenizer

    monkeypatch.chdir(tmp_path)
    file, folder = write_questions("x" * 50 + ";good"), tmp_path / "model"
    tiny_tokenizer().save_pretrained(folder)  # a token a byte
    (folder / "config.json").write_text('{"max_position_embeddings": 80}')
    (folder / "model.safetensors").touch()
    assert main(["check", file, f"model.name={folder}"]) == 0
    assert (
        "tokens      instruction 18, longest question 40, longest gold answer 5, completions of at "
        "most 12; the model reads 80"
    ) in capsys.readouterr().out
    too_long = ["tasks.mine.params.max_chars=60", "tasks.mine.params.max_tokens=13"]
    assert main(["check", file, f"model.name={folder}", *too_long]) == 2
    assert "example 'data.csv:22' needs 81 tokens at least" in capsys.readouterr().err
    assert main(["check", file, f"model.name={folder}", "tasks.mine.params.max_tokens=4"]) == 0
    assert "longest gold answer takes 5 tokens, more than max_tokens" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_finds_no_room_is_one_line_and_code_1() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastslow", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("No space left where the output goes to")
    assert len(done.stderr.splitlines()) == 1


def test_check_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "trl", "peft", "dspy", "datasets", "mlflow"}
    before = heavy & set(sys.modules)
    assert main(["check", DEMO]) == 0
    assert heavy & set(sys.modules) == before


def test_models_list_says_what_is_fetched(
    model_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("smollm2-135m-instruct  134.5 M parameters  Apache-2.0")
    assert line.endswith("it is not fetched yet")


def test_tasks_list_shows_the_tasks_of_the_working_directory(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"echo", "generous", "word_valence"} <= set(names)


def test_tasks_list_names_a_broken_task_and_lists_the_others(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, code in (("broken", "import no_such_module"), ("torn", "def f(:")):
        (task_folder / "tasks" / name).mkdir()
        (task_folder / "tasks" / name / "task.py").write_text(code)
    assert main(["tasks", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"echo", "generous", "word_valence"} <= set(lines)
    assert "BROKEN: " in lines["broken"]
    assert "broken/task.py:1: task 'broken' cannot be loaded, got ModuleNot" in lines["broken"]
    assert "SyntaxError" in lines["torn"]
    assert main(["tasks", "show", "broken"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grade", "words"),
    [
        ("Grade(100.0 * (completion == example.answer), 'percent')", "Grade(score=100.0"),
        ("Grade(float(completion == example.answer), None)", "whose reason is not a text"),
        ("completion == example.answer", "returned True, not a Grade"),
    ],
)
def test_tasks_check_shows_what_is_not_a_grade(
    grade: str, words: str, task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task_folder / "tasks" / "echo" / "task.py"
    file.write_text(TASK.format(name="echo", grade=f"return {grade}"))
    assert main(["tasks", "check", "echo"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("task echo@2: train example 'a-0': the gold answer")
    assert words in first


def test_tasks_show_prints_parameters_instruction_sizes_and_three_examples(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", "echo", "size=5"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("echo@2: Say the word.")
    assert "size (a whole number) = 3: Examples in each split." in printed
    assert r"seed instruction: Say it.\nNow." in printed
    assert "train 5, validation 5, test 5" in printed
    assert printed.count("  question: ") == 3


def test_untrusted_text_of_a_task_cannot_act_on_the_terminal(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", "echo"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert r"Say a\u202e0" in printed


def test_a_mistyped_task_parameter_gets_the_nearest_one(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", "echo", "sise=5"]) == 2
    assert capsys.readouterr().err.startswith("override 'sise=5': sise: unknown key, got 'sise'.")


def test_tasks_check_passes_a_task_that_keeps_its_promises(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "check", "echo"]) == 0
    assert capsys.readouterr().out.startswith("echo@2: splits disjoint (3 train, 3 validation")


def test_tasks_check_names_the_broken_promise_and_ends_with_code_2(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "check", "generous"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert (
        first == "task generous@2: train example 'a-0': junk '' scored 1.0, expected 0.0 (always)"
    )


def test_a_card_that_no_longer_fits_its_task_is_a_broken_promise(
    task_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = task_folder / "tasks" / "echo" / "README.md"
    card.write_text("# Echo\n\n## What it asks\nTo say a word.\n")
    assert main(["tasks", "show", "echo"]) == 0
    assert "  To say a word.\n" in capsys.readouterr().out
    assert main(["tasks", "check", "echo"]) == 2
    assert "the change log has no entry for echo@2" in capsys.readouterr().err


def test_report_prints_and_writes_the_report_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "forgetting_chaudhry" in printed
    assert printed.endswith(f"run folder: {run}\n")
    assert (run / "report.json").is_file()


def test_report_of_what_is_no_run_folder_ends_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "gate", "resume", "prompts", "export", "compare"])
def test_a_run_given_by_its_name_gets_its_path(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("runs"))
    other = write_run(Path("runs") / "elsewhere")
    for given in (run.name, run.name[:9], "runs", str(run / "events.jsonl")):
        assert main([command, given]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{given}: not a run folder (no run.json). ")
        assert str(run) in said
        assert str(other) not in said
    assert main(["gate", str(run), "--against", run.name]) == 2
    assert f"Did you mean '{run}'?" in capsys.readouterr().err
    assert main([command, "x" * 300]) == 2
    assert str(run) in capsys.readouterr().err


def test_an_ablation_is_no_experiment_and_the_other_way_round(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ablation = "configs/ablations/channels-tiny.yaml"
    assert main(["train", ablation]) == 2
    assert (
        f"an ablation file (it has arms). To run it: fastslow ablate {ablation}"
        in capsys.readouterr().err
    )
    assert main(["ablate", DEMO]) == 2
    assert f"To run one experiment: fastslow train {DEMO}" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    stop = KeyboardInterrupt()
    stop.add_note("fastslow resume runs/0412-demo")
    with pytest.raises(KeyboardInterrupt), resume_hint():
        raise stop
    assert capsys.readouterr().err == "\nTo continue: fastslow resume runs/0412-demo\n"
