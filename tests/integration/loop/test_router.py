"""Routers in real runs: where inputs go, what they score there, and what that costs."""

from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from fastslow.config.ledger import MEAN_QUESTIONS as MEAN_QUESTIONS_COUNTED
from fastslow.config.ledger import Ledger
from fastslow.config.loading.load import load_resolved
from fastslow.core.types import Example, Grade, Sampling
from fastslow.loop import launch
from fastslow.loop.build import build_policy, build_tasks
from fastslow.measure.evaluator import Evaluator
from fastslow.measure.model.router import MEAN_QUESTIONS
from fastslow.measure.stats.intervals import wilson
from fastslow.policy.policy import Policy
from fastslow.records.events import EvaluationEvent, FiguresEvent
from fastslow.records.jsonl import read_events
from fastslow.results.report import build_report
from fastslow.task.definition import Task, TaskConfig, task
from tests.support.runs import no_report, outcome, start, whole_and_cut
from tests.support.tiny import save_outspoken

NAMES = ("first", "second", "third")
USE = "{{use: 'tests.integration.loop.test_router:hashed', params: {{wanted: '{0}', limit: {1}}}}}"
OFF = ("channel_split", "neutral", "geometry", "proxies")
BOTH = "evaluation.routers=[surprisal, nearest_mean]"


class Hashed(TaskConfig):
    """Parameters of `hashed`."""

    wanted: str = "?"
    """Begins every question; the key of `letters`, whose place it takes."""
    limit: int = 5
    """Tokens of an answer at most."""


@task(name="hashed", version=1, source="made here")
def hashed(config: Hashed) -> Task:
    """A score that every other answer changes, and every other limit: any policy gets some."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        questions = (f"{config.wanted} {split} {i}" for i in range(count))
        return tuple(Example(f"{split}-{i}", q, "a") for i, q in enumerate(questions))

    def grade(example: Example, text: str) -> Grade:
        return Grade((sum(text.encode()) + config.limit) % 8 / 7, "by a sum")

    return Task(
        train=examples("train", 40),
        validation=examples("validation", 4),
        test=examples("test", 8),
        instruction="Write.",
        grade=grade,
        max_tokens=config.limit,
    )


def three(*shapes: str) -> list[str]:
    """Overrides of a run through three tasks whose questions begin so."""
    stages = ", ".join(f"{{task: {name}, cycles: 1}}" for name in NAMES)
    uses = [
        f"tasks.{n}={USE.format(s, 4 + i)}"
        for i, (n, s) in enumerate(zip(NAMES, shapes, strict=True))
    ]
    light = [*(f"evaluation.{name}=false" for name in OFF), "evaluation.kl_examples=0"]
    return [
        f"stages=[{stages}]",
        *uses,
        *light,
        "slow.adapter_policy=new-per-stage",
        "slow.lr=0.01",
    ]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of every run: the tiny model with larger weights, so that answers differ."""
    return [f"model.name={save_outspoken(tmp_path_factory.mktemp('base'))}"]


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory, toy: list[str]) -> Path:
    """A run through three tasks with the same questions and graders of their own."""
    return start(tmp_path_factory.mktemp("alike"), [*toy, *three("same", "same", "same"), BOTH])


def router_events(run: Path) -> dict[tuple[int, str], FiguresEvent]:
    events = [e for e in read_events(run / "events.jsonl") if isinstance(e, FiguresEvent)]
    return {(event.row, event.of): event for event in events if event.kind == "router"}


def values(event: FiguresEvent) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in event.figures}


def kept(run: Path, stage: str) -> tuple[Any, dict[str, Any], Policy]:
    """Configuration, tasks, and the policy as a stage left it."""
    loaded = load_resolved(run / "config.json")
    policy = build_policy(loaded.config, loaded.config.model.name, date(2026, 1, 2))
    policy.load(run / "stages" / stage)
    return loaded.config, build_tasks(loaded, loaded.config.task_names), policy


def test_of_identical_tasks_a_third_is_sent_right_and_ties_go_to_the_task_visited_first(
    alike: Path,
) -> None:
    events = router_events(alike)
    assert list(events) == [
        (2, "first"),
        (2, "second"),
        *((3, n) for n in ("first", "second", "third")),
    ]
    of_row = [events[3, name] for name in NAMES]
    for router in ("nearest_mean", "surprisal"):
        accuracies = [values(event)[f"{router}/accuracy"] or 0.0 for event in of_row]
        assert fmean(accuracies) == pytest.approx(1 / 3)
        sent = [[e.numbers[f"{router}/sent/{to.of}"] for to in of_row] for e in of_row]
        assert sent[0] == sent[1] == sent[2]
        assert sum(sent[0]) == pytest.approx(1)
    assert [event.numbers["nearest_mean/sent/first"] for event in of_row] == [1, 1, 1]
    interval = wilson(4, 4)
    assert of_row[0].numbers["nearest_mean/accuracy/low"] == interval.low
    assert of_row[0].numbers["nearest_mean/accuracy/high"] == interval.high


def test_tasks_whose_questions_differ_are_told_apart(tmp_path: Path, tiny_folder: Path) -> None:
    shapes = three("aaaaaaaa", "~~~~~~~~", "00000000")
    run = start(tmp_path, [f"model.name={tiny_folder}", *shapes, BOTH])
    events = router_events(run)
    accuracies = [values(events[3, name])["nearest_mean/accuracy"] for name in NAMES]
    assert accuracies == [1, 1, 1]


def question_logprob(policy: Policy, question: str) -> float:
    """Mean over the question's tokens in a plain pass over the chat that has nothing else."""
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([ids])).logits[0].double()
    # every byte is a token: the mark, "user" and the line break come before the question
    own = range(6, 6 + len(question))
    return fmean(torch.log_softmax(logits[i - 1], -1)[ids[i]].item() for i in own)


def test_every_figure_is_that_of_the_kept_policy_worked_by_hand(alike: Path) -> None:
    config, tasks, policy = kept(alike, "002-third")
    ends, events, matrix = set(), router_events(alike), build_report(alike).cells
    for column, name in enumerate(NAMES):
        sample = Evaluator(config.evaluation.test_examples, 1).test_sample(tasks[name])
        logprobs: dict[str, list[float]] = {}
        scores: dict[str, list[float]] = {}
        for end in NAMES:
            program, sampling = policy.live_program(tasks[end]), Sampling(tasks[end].max_tokens)
            requests = [(program, example) for example in sample]
            with policy.adapters.serving(end):
                drawn = policy.complete(requests, sampling, [0] * len(sample))
                logprobs[end] = [question_logprob(policy, example.question) for example in sample]
            pairs = zip(sample, drawn, strict=True)
            scores[end] = [tasks[name].grade(e, c.text).score for e, c in pairs]
        assert len(set(map(tuple, scores.values()))) == 3  # no deployment passes for another
        routes = [max(NAMES, key=lambda end: logprobs[end][i]) for i in range(len(sample))]
        ends |= set(routes)
        figures = values(events[3, name])
        assert figures["surprisal/accuracy"] == routes.count(name) / len(sample)
        assert figures["surprisal/score"] == fmean(scores[end][i] for i, end in enumerate(routes))
        assert figures["nearest_mean/score"] == fmean(scores["first"])
        assert figures["latest/score"] == fmean(scores["third"])
        assert figures["own/score"] == fmean(scores[name])
        assert figures["own/score"] == pytest.approx(matrix[3][column].score)
    assert len(ends) > 1


def test_what_is_drawn_is_counted_and_no_more_than_was_estimated(alike: Path) -> None:
    parts = [e for e in read_events(alike / "events.jsonl") if isinstance(e, EvaluationEvent)]
    drawn = {e.row: e.rollouts for e in parts if e.part == "router"}
    events = router_events(alike)
    shares = [events[2, name].numbers["surprisal/sent/second"] for name in ("first", "second")]
    # after stage 2: all of the first task's inputs under the second's, the latest; the second's
    # all under the first's, where equal means send them
    assert shares[0] == shares[1]
    assert drawn == {0: 0, 1: 0, 2: 4 + 4, 3: drawn[3]}
    # after stage 3: all under the third's, the latest, and under the first's, where equal means
    # send them; besides, what surprisal sends to the second's and is not the second's own
    to_second = sum(4 * events[3, name].numbers["surprisal/sent/second"] for name in NAMES[::2])
    assert 0 < to_second < 8
    assert drawn[3] == 4 + 4 + 4 + 4 + to_second
    config, tasks, _ = kept(alike, "002-third")
    entries = {e.row: e for e in Ledger(config, tasks).entries if e.part == "router"}
    assert {row: entry.rollouts for row, entry in entries.items()} == {1: 0, 2: 8, 3: 24}
    assert MEAN_QUESTIONS_COUNTED == MEAN_QUESTIONS


def test_states_are_those_of_the_base_whatever_the_adapter(moved: Policy) -> None:
    questions = ["a?", "which letters come next", "é"]
    states = moved.question_states(questions)
    with torch.no_grad(), moved.scorer.base_weights():
        for question, state in zip(questions, states, strict=True):
            text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            ids = moved.tokenizer(text, add_special_tokens=False)["input_ids"]
            outputs = moved.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
            torch.testing.assert_close(state, outputs.hidden_states[-1][0, -1], atol=1e-5, rtol=0)


PLAIN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "before", "own"),
    [
        (None, "<|im_start|>user\n", " so: a\nb "),
        (PLAIN + "{% if add_generation_prompt %}:{% endif %}", " ", "so: a\nb "),
        ("Q:{% for m in messages %}{{ m['content'] | trim }}{% endfor %}b:", "Q:", "so: a\nb"),
    ],
    ids=["chat", "nothing before it", "trimmed, and the end like the question's"],
)
def test_a_questions_own_tokens_are_known_in_every_template(
    moved: Policy, template: str | None, before: str, own: str
) -> None:
    if template is not None:
        moved.tokenizer.chat_template = template
    ids = moved.renderer.question_ids(" so: a\nb ")
    assert tuple(map(moved.tokenizer.decode, ids)) == (before, own)


def test_a_question_without_tokens_is_scored_by_the_token_that_follows(moved: Policy) -> None:
    ids = moved.renderer.question_ids("")
    assert tuple(map(moved.tokenizer.decode, ids)) == ("<|im_start|>user\n", "<|im_end|>")
    assert moved.question_logprobs(["", "a"])[0] < 0


def test_a_run_with_routers_resumes_bit_for_bit_and_keeps_the_means_of_every_task(
    tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*toy, *three("abcd", "bcde", "cdef"), BOTH]
    whole, broken = whole_and_cut(3, tmp_path, overrides, monkeypatch)
    undisturbed = outcome(whole)
    assert outcome(launch.resume(broken, no_report)) == undisturbed
    files = [name for name in undisturbed["files"] if name.endswith("router.safetensors")]
    assert [name for name in sorted(files) if name.startswith("stages")] == [
        "stages/001-second/router.safetensors",
        "stages/002-third/router.safetensors",
    ]
    _, tasks, policy = kept(broken, "002-third")
    assert set(policy.question_means) == {"first", "second", "third"}
    train = [example.question for example in tasks["first"].train]
    states = policy.question_states(train).double().numpy()
    mean, whole = policy.question_means["first"].double().numpy(), states.mean(0)
    cosine = mean @ whole / np.linalg.norm(mean) / np.linalg.norm(whole)
    assert 0.99 < cosine < 1 - 1e-9  # 32 of the 40


def test_the_latest_task_is_that_of_the_stage_not_the_one_visited_last_for_the_first_time(
    tmp_path: Path, toy: list[str]
) -> None:
    stages = (
        "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}, {task: first, cycles: 1}]"
    )
    run = start(tmp_path, [*toy, *three("a", "b", "c"), stages, "evaluation.routers=[surprisal]"])
    events = router_events(run)
    for row, latest in ((2, "second"), (3, "first")):
        figures = values(events[row, latest])
        assert figures["latest/score"] == figures["own/score"]
    assert not list(run.rglob("router.safetensors"))
