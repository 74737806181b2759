"""Remedies against forgetting, on a tiny model: their gradients, what they keep, whole runs."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Memory,
    Remedy,
    Stage,
    TaughtRow,
    Update,
    Weights,
)
from fastslow.channels.slow.remedies.ewc import EwcConfig, ewc, fisher_diagonal
from fastslow.channels.slow.remedies.replay import ReplayConfig, replay
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.channels.slow.trainer import Finish, finish_update
from fastslow.core.plugins import CustomUse
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Batch, Grade, TokenIds
from fastslow.loop import launch
from fastslow.loop.build import build_remedies
from fastslow.policy.policy import Policy
from fastslow.records.events import CycleEvent, RemedyEvent
from fastslow.records.jsonl import read_events
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import BAD, GOOD, GRPO, Recorded
from tests.integration.channels.test_losses import BATCH, row_logprobs, scripted
from tests.integration.channels.test_sft import RAGGED, SFT
from tests.support.runs import newest_point, no_report, outcome, start, whole_and_cut
from tests.support.toy_tasks import letters, parity
from tests.support.updates import changed, set_texts, trainable

DEPLOYED = PromptProgram("Deployed for the earlier task.")


@pytest.fixture
def exact(moved: Policy) -> Policy:
    """In double precision, so that sums of any order agree."""
    moved.model.double()
    set_texts(moved, letters.build("letters"), GOOD, BAD)
    moved.live["earlier"] = DEPLOYED
    return moved


@pytest.fixture
def earlier() -> Task:
    return letters.build("earlier")


def stage_of(policy: Policy, task: Task, *earlier: Task, seed: int = 0) -> Stage:
    return Stage(policy, task, len(earlier), earlier, seed)


def ended(stage: Stage) -> Ended:
    return Ended(stage, lambda task: {}, lambda task: None)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def gold_loss(policy: Policy) -> Tensor:
    """Of `RAGGED` under both texts, row by row and without the trie."""
    logprobs = [
        row_logprobs(
            policy,
            policy.renderer.prompt_ids(text, example.question),
            policy.renderer.answer_ids(example.answer),
        )
        for example in RAGGED.examples
        for text in (GOOD, BAD)
    ]
    return -torch.cat(logprobs).mean()


def taught_loss(policy: Policy, rows: Sequence[TaughtRow]) -> Tensor:
    """Weighted mean over rows of the mean over tokens, row by row and without the trie."""
    terms = [
        -row.weight * row_logprobs(policy, row.prompt, tuple(row.completion)).mean() for row in rows
    ]
    return torch.stack(terms).sum() / sum(row.weight for row in rows)


class Gradients:
    """Remedies next to one that copies the whole gradient, and what they were asked to add."""

    def __init__(self, policy: Policy, stage: Stage, names: Sequence[str]) -> None:
        self.policy, self.stage = policy, stage
        self.rows: list[TaughtRow] = []
        self.whole: Tensor | None = None
        shipped = {
            "replay": replay.build(ReplayConfig(target="gold", rows=5, keep=8, strength=0.7)),
            "ewc": ewc.build(EwcConfig(strength=40.0)),
            "weighted": Remedy(rows=self.weighted_rows, strength=2.0),
        }
        chosen = [(name, self.watched(shipped[name])) for name in names]
        self.remedies = Remedies([*chosen, ("copy", Remedy(project=self.copy))])
        for name, memory in self.remedies._memories.items():
            self.fill(name, memory)

    def watched(self, remedy: Remedy) -> Remedy:
        if remedy.rows is None:
            return remedy
        inner = remedy.rows

        def rows(update: Update, memory: Memory) -> Sequence[TaughtRow]:
            self.rows = list(inner(update, memory))
            return self.rows

        return replace(remedy, rows=rows)

    def weighted_rows(self, update: Update, memory: Memory) -> Sequence[TaughtRow]:
        return [TaughtRow((5, 6, 7), (8, 9), 1.0), TaughtRow((5, 9), (4, 4, 3), 3.0)]

    def copy(self, weights: Weights, memory: Memory) -> None:
        grads = [weight.grad for weight in weights.values()]
        self.whole = flat([grad.clone() for grad in grads if grad is not None])

    def fill(self, name: str, memory: Memory) -> None:
        """What an earlier stage would have left in this memory."""
        [task] = self.stage.earlier
        if name == "replay":
            answer = self.policy.renderer.answer_ids
            memory.facts[task.name] = {e.id: list(answer(e.answer)) for e in task.train[:8]}
        if name == "ewc":
            generator = torch.Generator().manual_seed(1)
            for weight_name, weight in self.policy.adapters.trainable().items():
                noise = torch.randn(2, *weight.shape, generator=generator, dtype=torch.float64)
                memory.tensors[f"fisher/{weight_name}"] = noise[0] ** 2
                memory.tensors[f"anchor/{weight_name}"] = weight.detach() + 0.1 * noise[1]

    def finish(self, batch: Batch) -> Finish:
        optimizer = torch.optim.SGD(trainable(self.policy), lr=0.0)
        update = Update(self.stage, batch, step=0, seed=5, lr=0.0, rows=list)
        return lambda: finish_update(1e9, optimizer, self.remedies, update)

    def added(self) -> dict[str, Tensor]:
        """The terms by name, each with its strength."""
        terms: dict[str, Tensor] = {}
        memories = self.remedies._memories
        for name, strength in (("replay", 0.7), ("weighted", 2.0)):
            if name in memories:
                terms[name] = strength * taught_loss(self.policy, self.rows)
        if "ewc" in memories:
            tensors = memories["ewc"].tensors
            squares = [
                (tensors[f"fisher/{name}"] * (w - tensors[f"anchor/{name}"]) ** 2).sum()
                for name, w in self.policy.adapters.trainable().items()
            ]
            terms["ewc"] = 40.0 / 2 * torch.stack(squares).sum()
        return terms


@pytest.mark.parametrize("rows_at_once", [64, 2])
@pytest.mark.parametrize("names", [["replay"], ["ewc"], ["replay", "ewc"], ["weighted"]])
def test_the_gradient_is_that_of_the_sum_of_all_losses(
    exact: Policy,
    task: Task,
    earlier: Task,
    names: list[str],
    rows_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastslow.channels.slow.teaching.ROWS_AT_ONCE", rows_at_once)
    gradients = Gradients(exact, stage_of(exact, task, earlier), names)
    trainer = GoldTrainer(exact, {task.name: task}, 3, SFT)
    figures = trainer.update(RAGGED, 0, gradients.finish(RAGGED))
    task_loss, added = gold_loss(exact), gradients.added()
    assert set(added) == set(names)
    weights = trainable(exact)
    task_gradient = flat(torch.autograd.grad(task_loss, weights, retain_graph=True))
    expected = flat(torch.autograd.grad(sum(added.values(), task_loss), weights, retain_graph=True))
    assert gradients.whole is not None
    assert (gradients.whole - expected).norm() / expected.norm() < 1e-6
    assert (expected - task_gradient).norm() / task_gradient.norm() > 1e-3
    strengths = {"replay": 0.7, "ewc": 40.0, "weighted": 2.0}
    for name, term in added.items():
        loss, share = figures[f"remedy/{name}/loss"], figures[f"remedy/{name}/gradient_share"]
        assert loss == pytest.approx(term.item() / strengths[name], rel=1e-6)
        gradient = flat(torch.autograd.grad(term, weights, retain_graph=True))
        assert share == pytest.approx(float(gradient.norm() / task_gradient.norm()), rel=1e-5)
    assert figures["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-6)


@pytest.mark.parametrize("names", [["replay"], ["ewc"], ["replay", "ewc"]])
def test_the_gradient_of_rollouts_gets_the_same_terms_in_any_number_of_passes(
    exact: Policy, task: Task, earlier: Task, names: list[str]
) -> None:
    def gradient(names: list[str]) -> tuple[Tensor, Gradients]:
        scripted(exact)
        gradients = Gradients(exact, stage_of(exact, task, earlier), names)
        settings = changed(GRPO, rows_per_forward=4)
        trainer = FastSlowTrainer(exact, {task.name: task}, 3, settings)
        trainer.update(BATCH, 0, gradients.finish(BATCH))
        assert gradients.whole is not None
        return gradients.whole, gradients

    plain, _ = gradient([])
    total, gradients = gradient(names)
    terms = torch.stack(list(gradients.added().values())).sum()
    expected = flat(torch.autograd.grad(terms, trainable(exact)))
    assert ((total - plain) - expected).norm() / expected.norm() < 1e-6


def test_the_fisher_is_the_mean_of_squared_gradients_of_own_completions(
    exact: Policy, earlier: Task
) -> None:
    exact.sampler = sampler = Recorded(exact.sampler)
    rows: list[tuple[TokenIds, TokenIds]] = []
    inner = sampler.sample

    def spy(prompts: Any, sampling: Any, seeds: Any, *, adapter: bool = True) -> Any:
        assert adapter
        assert (sampling.temperature, sampling.max_tokens) == (1.0, earlier.max_tokens)
        completions = inner(prompts, sampling, seeds, adapter=adapter)
        rows.extend(zip(prompts, [c.token_ids for c in completions], strict=True))
        return completions

    sampler.sample = spy  # type: ignore[method-assign]  # what is drawn is the test's own to see
    fisher = fisher_diagonal(ended(stage_of(exact, earlier)), num_examples=5)
    assert len(set(rows)) == 5
    prompts = {exact.renderer.prompt_ids(DEPLOYED, e.question) for e in earlier.train}
    assert {prompt for prompt, _ in rows} <= prompts
    weights = exact.adapters.trainable()
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for prompt, completion in rows:
        logprob = row_logprobs(exact, prompt, completion).sum()
        gradient = torch.autograd.grad(logprob, list(weights.values()))
        for name, of_weight in zip(weights, gradient, strict=True):
            expected[name] += of_weight**2 / 5
    assert fisher.keys() == expected.keys()
    for name, values in fisher.items():
        assert values.norm() > 0
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-12)


def test_ewc_adds_up_what_mattered_and_moves_its_anchor(exact: Policy, earlier: Task) -> None:
    remedy, memory = ewc.build(EwcConfig(examples=3, decay=0.5)), Memory()
    assert remedy.end is not None
    stage = stage_of(exact, earlier)
    first = fisher_diagonal(ended(stage), 3)
    figures = remedy.end(ended(stage), memory)
    for name, values in first.items():
        assert torch.equal(memory.tensors[f"fisher/{name}"], values)
    mean = float(flat(list(first.values())).mean())
    assert figures == {"fisher_mean": pytest.approx(mean), "examples": 3.0}

    for weight in trainable(exact):
        weight.data.mul_(0.9)
    later = replace(stage, index=1, seed=9)
    second = fisher_diagonal(ended(later), 3)
    remedy.end(ended(later), memory)
    for name, weight in exact.adapters.trainable().items():
        expected = 0.5 * first[name] + second[name]
        torch.testing.assert_close(memory.tensors[f"fisher/{name}"], expected)
        assert torch.equal(memory.tensors[f"anchor/{name}"], weight.detach())


def test_ewc_counts_the_examples_that_there_are(exact: Policy, earlier: Task) -> None:
    few = replace(earlier, train=earlier.train[:2])
    remedy = ewc.build(EwcConfig(examples=32))
    assert remedy.end is not None
    figures = remedy.end(ended(stage_of(exact, few)), Memory())
    assert isinstance(figures, dict)
    assert figures["examples"] == 2.0


def test_in_a_fresh_adapter_only_b_matters(policy: Policy, earlier: Task) -> None:
    for name, values in fisher_diagonal(ended(stage_of(policy, earlier)), 2).items():
        assert (float(values.sum()) > 0) == (".lora_B." in name), name


def end_of_stage(
    policy: Policy, task: Task, memory: Memory, config: ReplayConfig
) -> dict[str, Any]:
    """Figures of the end of a stage of `task`, the first."""
    remedy = replay.build(config)
    assert remedy.end is not None
    report = remedy.end(ended(stage_of(policy, task)), memory)
    assert isinstance(report, EndReport)
    return {"notes": report.notes, **report.figures}


def test_replayed_rows_are_right_answers_to_training_examples_under_their_tasks_texts(
    moved: Policy, task: Task
) -> None:
    """Two earlier tasks, one of them with a text of its own."""
    config = ReplayConfig(rows=6, keep=20)
    first, second = parity.build("first"), parity.build("second")
    moved.live["first"] = DEPLOYED
    memory = Memory()
    counts = {t.name: end_of_stage(moved, t, memory, config) for t in (first, second)}
    allowed: set[tuple[TokenIds, TokenIds]] = set()
    for past in (first, second):
        answers = memory.facts[past.name]
        figures = counts[past.name]
        assert (figures["tried"], figures["kept"]) == (20, len(answers))
        assert 0 < len(answers) < 20
        train = {example.id: example for example in past.train}
        assert set(answers) <= set(train)
        text = moved.live_program(past)
        for example, tokens in answers.items():
            assert past.grade(train[example], moved.renderer.decode(tokens)).score == 1
            allowed.add((moved.renderer.prompt_ids(text, train[example].question), tuple(tokens)))

    rows = replay.build(config).rows
    assert rows is not None
    stage = stage_of(moved, task, first, second)
    update = Update(stage, Batch(()), step=0, seed=3, lr=0.1, rows=list)
    chosen = rows(update, memory)
    assert len(chosen) == len({(row.prompt, row.completion) for row in chosen}) == 6
    assert {(row.prompt, row.completion) for row in chosen} <= allowed
    assert {row.weight for row in chosen} == {1.0}
    draws = [rows(replace(update, seed=seed), memory) for seed in range(4, 12)]
    assert any(draw != chosen for draw in draws)
    seen = {row.prompt for draw in draws for row in draw}
    assert seen & {moved.renderer.prompt_ids(DEPLOYED, e.question) for e in first.train}
    moved.live["first"] = GOOD  # the text that is deployed now, not when it was learned
    renamed = rows(update, memory)
    assert [row.completion for row in renamed] == [row.completion for row in chosen]
    assert renamed != chosen


def test_gold_answers_are_replayed_without_a_rollout(moved: Policy, task: Task) -> None:
    memory, past = Memory(), letters.build("first")
    figures = end_of_stage(moved, past, memory, ReplayConfig(target="gold", keep=50))
    assert figures == {"notes": (), "tried": 40, "kept": 40}
    assert moved.sampler.num_rollouts == 0
    answers = {e.id: list(moved.renderer.answer_ids(e.answer)) for e in past.train}
    assert memory.facts == {"first": answers}


def test_a_task_of_which_nothing_was_right_is_said_and_leaves_no_row(
    moved: Policy, task: Task
) -> None:
    memory = Memory()
    hopeless = replace(letters.build("first"), grade=lambda *unused: Grade(0.0, "always"))
    figures = end_of_stage(moved, hopeless, memory, ReplayConfig(keep=3))
    assert (figures["tried"], figures["kept"]) == (3, 0)
    assert figures["notes"] == (
        "replay: no right answer of first was drawn, so none will be replayed.",
    )
    rows = replay.build(ReplayConfig()).rows
    assert rows is not None
    stage = stage_of(moved, task, hopeless)
    assert rows(Update(stage, Batch(()), 0, 0, 0.1, list), memory) == []


def test_a_task_that_is_visited_again_is_not_replayed_into_itself(moved: Policy) -> None:
    first, second, text_only = (letters.build(name) for name in ("first", "second", "text_only"))
    visits = [(first, True), (text_only, False), (second, True), (first, True), (second, True)]
    channel = SlowChannel(GRPO, FastSlowTrainer, visits=visits)
    stages = [channel._visit(moved, visited, index) for index, (visited, _) in enumerate(visits)]
    assert [[past.name for past in stage.earlier] for stage in stages] == [
        *([], ["first"], ["first"], ["second"], ["first"])
    ]
    memory = Memory()
    for past in (first, second):
        end_of_stage(moved, past, memory, ReplayConfig(target="gold", keep=40))
    rows = replay.build(ReplayConfig(rows=100)).rows
    assert rows is not None
    chosen = rows(Update(stages[3], Batch(()), 0, 0, 0.1, list), memory)
    text = moved.live_program(second)
    prompts = {moved.renderer.prompt_ids(text, example.question) for example in second.train}
    assert {row.prompt for row in chosen} == prompts


PARITY = (
    "stages=[{task: first, cycles: 2}, {task: third, cycles: 2}]",
    "tasks.first={use: 'tests.support.toy_tasks:parity'}",
    "tasks.third={use: 'tests.support.toy_tasks:parity'}",
)
"""Two stages of two cycles, on tasks of which the tiny model gets some right."""
OWN = "{kind: replay, rows: 4, keep: 40, strength: 0.5}"
GOLD = "{kind: replay, target: gold, rows: 4, keep: 8}"
EWC = "{kind: ewc, examples: 4, strength: 10.0}"


@pytest.fixture
def toy(tiny_folder: Path) -> list[str]:
    """Overrides that every run of this module gets."""
    return [f"model.name={tiny_folder}", *PARITY]


def with_remedies(*remedies: str) -> str:
    return f"slow.remedies=[{', '.join(remedies)}]"


def custom(name: str) -> str:
    return f"{{kind: custom, use: 'tests.support.remedies:{name}'}}"


def adapters(run: Path) -> dict[str, bytes]:
    """The adapter's file of every stage."""
    files = sorted((run / "stages").glob("*/adapter_model.safetensors"))
    return {path.parent.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, bytes]:
    """The adapters of a run that has no remedy."""
    overrides = [f"model.name={tiny_folder}", *PARITY, "slow.remedies=[]"]
    return adapters(start(tmp_path_factory.mktemp("without"), overrides))


@pytest.mark.parametrize("names", [["empty"], ["idle"], ["empty", "idle"]])
def test_a_remedy_that_does_nothing_changes_no_bit_of_the_adapter(
    tmp_path: Path, toy: list[str], without: dict[str, bytes], names: list[str]
) -> None:
    run = start(tmp_path, [*toy, with_remedies(*map(custom, names))])
    assert list(without) == ["000-first", "001-third"]
    assert adapters(run) == without


@pytest.mark.parametrize(
    ("remedies", "names"),
    [
        ([OWN], ["replay"]),
        ([GOLD], ["replay"]),
        ([EWC], ["ewc"]),
        ([OWN, EWC], ["replay", "ewc"]),
        ([GOLD, OWN], ["replay", "replay-2"]),
    ],
    ids=["own", "gold", "ewc", "own and ewc", "two replays"],
)
def test_resuming_with_a_remedy_equals_never_stopping(
    tmp_path: Path,
    toy: list[str],
    without: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    remedies: list[str],
    names: list[str],
) -> None:
    """Cut in the second cycle of the second stage, where memories of the first matter."""
    overrides = [*toy, with_remedies(*remedies)]
    undisturbed, broken = whole_and_cut(4, tmp_path, overrides, monkeypatch)
    expected = outcome(undisturbed)
    memories = {f for f in expected["files"] if f.endswith("memory.json")}
    assert memories
    assert {Path(file).parent.name for file in memories} == set(names)
    assert outcome(launch.resume(broken, no_report)) == expected

    events = read_events(undisturbed / "events.jsonl")
    slow = [e for e in events if isinstance(e, CycleEvent) and "slow" in e.rollouts]
    for name in names:
        losses = [e.metrics.get(f"slow/remedy/{name}/loss") for e in slow]
        assert losses[:2] == [None, None]  # nothing is earlier
        assert losses[2] is not None  # 0 where the weights are still the anchor
        assert losses[3] is not None
        assert losses[3] > 0
    reports = [e for e in events if isinstance(e, RemedyEvent)]
    assert [(e.stage, e.name) for e in reports] == [(i, name) for i in (0, 1) for name in names]
    assert all(e.figures.get("kept") != 0 for e in reports)
    assert adapters(undisturbed)["000-first"] == without["000-first"]
    assert adapters(undisturbed)["001-third"] != without["001-third"]


def test_rollouts_of_a_remedy_are_counted_as_the_slow_channels(
    tmp_path: Path, toy: list[str]
) -> None:
    run = start(tmp_path, [*toy, with_remedies(OWN, EWC)])
    events = read_events(run / "events.jsonl")
    reports = [e for e in events if isinstance(e, RemedyEvent)]
    assert [(e.name, e.rollouts) for e in reports] == [("replay", 40), ("ewc", 4)] * 2
    rollouts = sum(e.rollouts.get("slow", 0) for e in events if isinstance(e, CycleEvent))
    state = json.loads((newest_point(run) / "state.json").read_text())
    assert state["rollouts"]["slow"] == rollouts + 2 * (40 + 4)


TOWARDS_BASE = '''
from fastslow.plugins import Memory, Remedy, RemedyConfig, Update, Weights, remedy

class TowardsBase(RemedyConfig):
    rate: float = 0.01

@remedy(name="towards_base", source="mine")
def towards_base(config: TowardsBase) -> Remedy:
    """Pulls the update towards nothing after every step."""
    def settle(weights: Weights, memory: Memory, update: Update, optimizer: object) -> None:
        for name, weight in weights.items():
            if ".lora_B." in name:
                weight.data.mul_(1 - update.lr * config.rate)
    return Remedy(settle=settle)
'''


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of the user's own, importable in this test alone."""
    package = tmp_path / "code" / "mylab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "towards_base.py").write_text(TOWARDS_BASE)
    monkeypatch.syspath_prepend(str(package.parent))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.mark.usefixtures("mylab")
def test_a_remedy_of_the_users_own_runs_and_resumes_without_more_code(
    tmp_path: Path, toy: list[str], without: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    use = '{kind: custom, use: "mylab.towards_base:towards_base", params: {rate: 0.1}}'
    overrides = [*toy, f"slow.remedies=[{use}]"]
    undisturbed, broken = whole_and_cut(4, tmp_path, overrides, monkeypatch)
    changed_adapters = adapters(undisturbed)
    assert changed_adapters.keys() == without.keys()
    assert all(changed_adapters[name] != without[name] for name in without)
    assert outcome(launch.resume(broken, no_report)) == outcome(undisturbed)


@pytest.mark.usefixtures("mylab")
def test_a_misspelt_parameter_of_a_remedy_of_the_users_own_is_refused() -> None:
    def built(params: dict[str, Any]) -> Remedies:
        use = CustomUse(kind="custom", use="mylab.towards_base:towards_base", params=params)
        return build_remedies(GrpoConfig(remedies=(use,)), 0)

    assert list(built({"rate": 0.1})._remedies) == ["towards_base"]
    with pytest.raises(ValidationError, match=r"rat\n.*not permitted"):
        built({"rat": 0.1})
    with pytest.raises(ValidationError, match=r"rate\n.*valid number"):
        built({"rate": "fast"})
