"""Faults injected for real: a full disk, a read-only one, no memory, broken numbers, graders."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.group_settings import AnswerGuidance
from fastslow.channels.slow.settings import DistillConfig, GrpoConfig
from fastslow.core.errors import CheckpointError, EvaluationError, StageError, TaskError
from fastslow.core.files import damage
from fastslow.core.types import Example, Grade
from fastslow.loop import launch
from fastslow.loop.preflight import require_fit
from fastslow.policy.policy import Policy, load_policy, seed_program
from fastslow.records.events import CycleEvent, GraderEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.lock import read_state
from fastslow.results.report import write_report
from fastslow.task.definition import Task, TaskConfig, task
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest, newest_point, no_report, outcome, start
from tests.support.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk of its own, and mounts it again with other options."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk of its own needs the right to mount: {done.stderr.strip()}")
        return place

    place.mkdir()
    yield mount
    while os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_the_run_at_its_last_resume_point_and_room_lets_it_go_on(
    tmp_path: Path,
    tiny_folder: Path,
    disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = [f"model.name={tiny_folder}", "fast=null"]
    undisturbed = start(tmp_path, shape)
    place = disk("size=16m")
    inner, calls = SlowChannel.adapt, iter(range(9))

    def filling(*args: Any) -> Any:
        result = inner(*args)
        if next(calls) == 1:
            with (place / "ballast").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 4096)
                except OSError:
                    pass
        return result

    with monkeypatch.context() as patch:
        patch.setattr(SlowChannel, "adapt", filling)
        with pytest.raises(StageError, match=r"No space left on device.*fastslow resume") as end:
            start(place, shape)
    assert end.value.exit_code == 1
    run = newest(place)
    assert read_state(run) == "failed"
    assert newest_point(run).name == "000-001"
    assert damage(newest_point(run)) is None
    assert [path.name for path in (run / "resume").glob(".tmp-*")] == []

    (place / "ballast").unlink()
    assert outcome(launch.resume(run, no_report)) == outcome(undisturbed)


def test_a_read_only_folder_is_said_before_any_training(
    tmp_path: Path, tiny_folder: Path, disk: Callable[[str], Path]
) -> None:
    place = disk("size=1m")
    (place / "toy.yaml").write_text(TOY)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(CheckpointError, match="Read-only file system") as end:
        start(tmp_path, [f"model.name={tiny_folder}", f"runs_dir={place / 'runs'}"])
    assert end.value.exit_code == 2
    assert [path.name for path in place.iterdir()] == ["toy.yaml"]


@pytest.mark.parametrize("key", ["slow.lr=1e30", "slow.kl_coefficient=1e39"])
def test_numbers_that_are_not_finite_stop_the_run_name_the_batch_and_keep_the_last_good_point(
    tmp_path: Path, tiny_folder: Path, key: str
) -> None:
    with pytest.raises(StageError, match="is not finite") as end:
        start(tmp_path, [f"model.name={tiny_folder}", "fast=null", key])
    words = str(end.value)
    assert "stage 1/2 (first)" in words
    assert words.count("train-") == 2  # the problems of the batch
    run = newest(tmp_path)
    assert read_state(run) == "failed"
    assert damage(newest_point(run)) is None


NO_HOARD = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""Freed tensors go back to the system: what glibc hoards would be room beyond the limit."""
SCARCE = """
import ctypes, gc, json, resource, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from fastslow.channels.slow import grpo, sft
from fastslow.channels.slow.settings import GrpoConfig, SftConfig
from fastslow.policy.policy import load_policy, with_adapter
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Sampling
from tests.support.toy_tasks import letters
from tests.support.updates import batch_of, ending, set_texts

kind, model = sys.argv[1:]
policy = with_adapter(
    load_policy(model), rank=4, alpha=8, target_modules="all-linear", seed=1
)
task = letters.build("letters")
texts = [PromptProgram(f"{index} " + "x" * 900) for index in range(16)]
if kind != "sft":
    settings = GrpoConfig(
        loss=kind, group=16, kl_coefficient=0.1, rows_per_forward=64, tokens_per_forward=10**6
    )
    make = lambda: grpo.FastSlowTrainer(policy, {task.name: task}, 4, settings)
else:
    make = lambda: sft.GoldTrainer(
        policy, {task.name: task}, 4, SftConfig(rows_per_forward=64, tokens_per_forward=10**6)
    )
set_texts(policy, task, *texts)
batch = batch_of(task, task.train[:4])
parameters = [p for p in policy.model.parameters() if p.requires_grad]
start = [p.detach().clone() for p in parameters]


def gradient(trainer):
    plain = torch.optim.SGD(parameters, lr=1.0)  # its step is the gradient
    trainer.update(batch, 1, ending(policy, task, batch, plain, max_norm=1e9))
    found = torch.cat([(b - p.detach()).flatten() for b, p in zip(start, parameters)])
    with torch.no_grad():
        for before, parameter in zip(start, parameters):
            parameter.copy_(before)
    return found


def size(name):
    words = Path("/proc/self/status").read_text().split(name + ":")[1].split()
    return int(words[0]) * 1024


def trim():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


torch.set_float32_matmul_precision("highest")  # MKL raises where oneDNN would crash
first = make()
policy.sampler.sample([(1, 2)], Sampling(2), [0])
trim()
before = size("VmSize")
whole = gradient(first)
peak = size("VmPeak") - before
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for share in (0.3, 0.1, 0.05):  # of what all rows at once took
    second = make()
    trim()
    limit = size("VmSize") + int(share * peak)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    split = gradient(second)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if second.pass_size.rows < 64:
        break
print(json.dumps({
    "peak": peak,
    "norm": float(whole.norm()),
    "error": float((whole - split).norm() / whole.norm()),
    "rows": [first.pass_size.rows, second.pass_size.rows],
    "notes": [first.pass_size.take_notes(), second.pass_size.take_notes()],
}))
"""


@pytest.mark.parametrize("kind", ["cispo", "sft"])
def test_memory_that_runs_out_makes_passes_smaller_and_leaves_the_gradient_as_it_is(
    tiny_folder: Path, kind: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCARCE, kind, str(tiny_folder)],
        env=os.environ | NO_HOARD | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["norm"] > 0
    assert found["error"] < 1e-4
    assert found["rows"][0] == 64 > found["rows"][1], found
    assert found["notes"][0] == []
    assert found["notes"][1][0].startswith("out of memory with 64 rows in one pass; at most 32")
    assert found["notes"][1][0].endswith("The gradient is the same.")


def test_a_tokenizer_without_chat_template_and_pad_token_trains(tmp_path: Path) -> None:
    folder, tokenizer = tmp_path / "plain", tiny_tokenizer()
    tokenizer.chat_template = tokenizer.pad_token = None
    tiny_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = json.loads((folder / "tokenizer_config.json").read_text())
    assert found.get("chat_template") is found.get("pad_token") is None
    assert not (folder / "chat_template.jinja").exists()
    run = start(tmp_path, [f"model.name={folder}", "fast=null"])
    assert read_state(run) == "finished"
    assert len({row.sample.weights for row in read_scores(run / "scores.jsonl")}) > 3


class Odd(TaskConfig):
    """Parameters of the tasks below."""

    length: int = 8
    """Characters of the longest question."""
    fails: int = 3
    """One in so many answers cannot be graded."""


@task(name="lengthy", version=1, source="made here")
def lengthy(config: Odd) -> Task:
    """One test question is long."""

    def examples(split: str, count: int, length: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{i}", f"{split} {i} ".ljust(length, "x"), "a") for i in range(count)
        )

    return Task(
        train=examples("train", 20, 8),
        validation=examples("validation", 4, 8),
        test=(*examples("test", 7, 8), *examples("long", 1, config.length)),
        instruction="Write.",
        grade=lambda example, text: Grade(float(len(text) % 2), "odd"),
        max_tokens=4,
    )


def test_an_example_longer_than_the_context_is_an_error_before_training_with_the_number(
    tmp_path: Path, tiny_folder: Path
) -> None:
    policy: Policy = load_policy(str(tiny_folder))
    assert policy.context_length == 2048
    frame = len(policy.renderer.message_ids([{"role": "system", "content": "Write."},
                                             {"role": "user", "content": ""}]))  # fmt: skip
    text = TOY.replace("tests.support.toy_tasks:letters", f"{__name__}:lengthy")
    text = text.replace('"mnopqrst"', "").replace("{wanted: }", "{length: LENGTH}")
    fitting = 2048 - 4 - frame
    with pytest.raises(TaskError, match=r"'long-0' needs 2049 tokens.*the model reads 2048") as end:
        start(tmp_path, [f"model.name={tiny_folder}"], text.replace("LENGTH", str(fitting + 1)))
    assert "task second" in str(end.value)
    assert not (tmp_path / "runs").exists()
    shape = [f"model.name={tiny_folder}", "fast=null", "stages.0.cycles=1", "slow.group=2"]
    run = start(tmp_path, shape, text.replace("LENGTH", str(fitting)))
    assert read_state(run) == "finished"


def test_training_problems_must_fit_with_their_answers_shown_where_they_are(
    tiny_folder: Path,
) -> None:
    policy: Policy = load_policy(str(tiny_folder))
    toy = lengthy.build("toy", Odd())
    renderer, program = policy.renderer, seed_program(toy)
    frame = len(renderer.informed_ids(program, "", "a"))
    longest = (2048 - toy.max_tokens - frame) // 2

    def with_question(size: int) -> Task:
        return replace(toy, train=(Example("train-long", "x" * size, "a"), *toy.train))

    require_fit(policy, [with_question(longest)], teaches_gold=False, shows_answer=True)
    too_long = with_question(longest + 1)
    require_fit(policy, [too_long], teaches_gold=False)
    with pytest.raises(TaskError, match=r"'train-long' needs 20(49|50) tokens"):
        require_fit(policy, [too_long], teaches_gold=False, shows_answer=True)
    assert not GrpoConfig().shows_answer
    assert GrpoConfig(guidance=AnswerGuidance()).shows_answer
    assert DistillConfig(teacher="success").shows_answer
    assert not DistillConfig().shows_answer


@task(name="moody", version=1, source="made here")
def moody(config: Odd) -> Task:
    """A grader that fails on one in `fails` answers, by their question."""

    def grade(example: Example, text: str) -> Grade:
        if int(example.id.rpartition("-")[2]) % config.fails == 1:
            raise LookupError("moody")
        return Grade(float(len(text) % 2), "odd")

    made = lengthy.build("moody", config)
    return Task(made.train, made.validation, made.test, "Write.", grade, 4)


MOODY = TOY.replace("tests.support.toy_tasks:letters", f"{__name__}:moody").replace(
    ', params: {wanted: "mnopqrst"}', ""
)


def test_a_grader_that_fails_now_and_then_costs_scores_that_are_counted(
    tmp_path: Path, tiny_folder: Path
) -> None:
    shape = [f"model.name={tiny_folder}", "graders.max_failures_frac=0.9"]
    run = start(tmp_path, shape, MOODY)
    failed = [
        row.sample
        for row in read_scores(run / "scores.jsonl")
        if row.sample.reason.startswith("The grader failed: it raised LookupError: moody.")
    ]
    assert failed
    assert {sample.score for sample in failed} == {0}
    events = read_events(run / "events.jsonl")
    told = [event for event in events if isinstance(event, GraderEvent)]
    assert {event.step for event in told} >= {"score", "fast", "slow"}
    assert sum(event.failures for event in told) >= len(failed)
    write_report(run)
    notes = json.loads((run / "report.json").read_text())["notes"]
    assert any("could not be graded and count as 0" in note["text"] for note in notes)
    assert "grader of first" in (run / "report.md").read_text()


@pytest.mark.parametrize("channels", ["fast=null", "slow=null"])
def test_past_a_set_share_of_failures_the_stage_stops(
    tmp_path: Path, tiny_folder: Path, channels: str
) -> None:
    text = MOODY.replace("test_examples: 4", "test_examples: 1")
    shape = [f"model.name={tiny_folder}", channels, "graders.max_failures_frac=0.2"]
    with pytest.raises((StageError, EvaluationError), match=r"could not grade .* of this stage"):
        start(tmp_path, shape, text)
    run = newest(tmp_path)
    assert read_state(run) == "failed"
    cycles = [e for e in read_events(run / "events.jsonl") if isinstance(e, CycleEvent)]
    assert len(cycles) <= 1
