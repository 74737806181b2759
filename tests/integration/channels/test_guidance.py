"""Guidance on unsolved groups: hints that get longer, and a teacher that knows the answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fastslow.channels.slow.difficulty import Group
from fastslow.channels.slow.group_settings import (
    AnswerGuidance,
    DifficultyConfig,
    HintsGuidance,
)
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.guidance import HINT
from fastslow.channels.slow.remedies.base import Memory, Remedy, Weights
from fastslow.channels.slow.rollouts import Rollout
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.trl_rows import unpad
from fastslow.cli.main import main
from fastslow.config.ledger import Ledger
from fastslow.config.loading.load import load_config
from fastslow.config.models import RunConfig
from fastslow.core.prompts import BARE, Demonstration, PromptProgram
from fastslow.core.types import Batch, Completion, Example, Sampling, TokenIds
from fastslow.loop import launch
from fastslow.loop.probe import _learner
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.policy import Policy
from fastslow.policy.render import chat_messages
from fastslow.policy.signals import ShippedSignalToActOn
from fastslow.records.events import CycleEvent
from fastslow.records.jsonl import read_events
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match
from tests.integration.channels.test_channels import BAD, GOOD, GRPO, Recorded
from tests.support.runs import TOY, no_report, outcome, start, whole_and_cut
from tests.support.updates import changed, ending, set_texts, trainable

LONG = "abcdefghijklmnopqrstuvwx"
"""A gold answer of 24 tokens: every byte is a token."""
HINTS = changed(GRPO, guidance=HintsGuidance())
Answer = Callable[[str, int], str]
"""What is written under what is seen of the answer, the n-th time that this is asked."""


class Writer(Recorded):
    """A sampler whose answers follow from the hint it is given, empty without one."""

    def __init__(self, policy: Policy, write: Answer) -> None:
        super().__init__(policy.sampler)
        self.policy, self.write = policy, write
        self.hints: list[str] = []

    def sample(
        self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
    ) -> list[Completion]:
        assert len(set(seeds)) == len(seeds) == len(prompts)
        self.prompts += prompts
        self.num_rollouts += len(prompts)
        completions = []
        for prompt in prompts:
            question = self.policy.tokenizer.decode(prompt).rpartition("<|im_start|>user\n")[2]
            hint = question.partition("<|im_end|>")[0].partition(HINT)[2]
            text = self.write(hint, self.hints.count(hint))
            self.hints.append(hint)
            ids = tuple(self.policy.tokenizer(text)["input_ids"])
            completions.append(Completion(ids, (-1.0,) * len(ids), text, "length"))
        return completions


def from_share(share: float) -> Answer:
    """Right every other time where at least this share of the answer is seen, else wrong."""

    def write(hint: str, number: int) -> str:
        return LONG if len(hint) >= share * len(LONG) and number % 2 else f"wrong {number % 7}"

    return write


def batch(*answers: str) -> Batch:
    """A problem for each gold answer."""
    examples = (Example(f"e{i}", f"question {i}", answer) for i, answer in enumerate(answers))
    return Batch(tuple(("exact", example) for example in examples))


@pytest.fixture
def exact(task: Task) -> Task:
    """Full marks for the gold answer alone."""
    return replace(task, name="exact", grade=exact_match, max_tokens=30)


class Update:
    """One update of problems of `exact` with these answers, drawn from a `Writer`."""

    def __init__(
        self,
        policy: Policy,
        exact: Task,
        settings: GrpoConfig,
        write: Answer,
        *answers: str,
        lr: float = 0.01,
        prepare: Callable[[FastSlowTrainer], None] = lambda trainer: None,
    ) -> None:
        policy.sampler = self.sampler = Writer(policy, write)
        set_texts(policy, exact, GOOD, BAD)
        self.trainer = FastSlowTrainer(policy, {exact.name: exact}, len(answers), settings)
        prepare(self.trainer)
        self.scored: list[set[TokenIds]] = []
        inner = self.trainer._get_per_token_logps_and_entropies

        def spy(model: Any, ids: Tensor, mask: Tensor, keep: int, **rest: Any) -> Any:
            self.scored.append(set(unpad(ids, mask, keep)[0]))
            return inner(model, ids, mask, keep, **rest)

        self.trainer._get_per_token_logps_and_entropies = spy  # type: ignore[method-assign,assignment]
        problems, before = batch(*answers), policy.weights_fingerprint()
        self.gradient: Tensor | None = None
        plain, copy = torch.optim.SGD(trainable(policy), lr), Remedy(project=self.copy)
        finish = ending(policy, exact, problems, plain, ("copy", copy), max_norm=1e9)
        self.figures = self.trainer.update(problems, 1, finish)
        self.moved = policy.weights_fingerprint() != before

    def copy(self, weights: Weights, memory: Memory) -> None:
        """Keep the whole gradient of the update."""
        grads = [weight.grad for weight in weights.values()]
        self.gradient = torch.cat([grad.clone().flatten() for grad in grads if grad is not None])

    def guidance(self) -> dict[str, float]:
        prefix = "guidance/"
        figures = self.figures.items()
        return {n.removeprefix(prefix): v for n, v in figures if n.startswith(prefix)}


def test_hints_get_longer_until_one_rescues_the_group(moved: Policy, exact: Task) -> None:
    update = Update(moved, exact, HINTS, from_share(0.5), LONG)
    assert update.guidance() == {
        "hinted_groups": 1,
        "rescued_at_0.25": 0,
        "rescued_at_0.5": 1,
        "rescued_at_0.75": 0,
        "extra_rollouts": 2 * GRPO.group,
    }
    assert update.sampler.hints == [""] * 4 + [LONG[:6]] * 4 + [LONG[:12]] * 4
    assert update.sampler.num_rollouts == 3 * GRPO.group
    assert update.moved
    assert update.figures["effective_groups"] == 1
    assert update.figures["skipped_updates"] == 0


def test_the_hinted_prompt_is_the_one_in_the_loss(moved: Policy, exact: Task) -> None:
    update = Update(moved, exact, HINTS, from_share(0.5), LONG)
    render = moved.renderer.prompt_ids
    hinted = {render(text, f"question 0{HINT}{LONG[:12]}") for text in (GOOD, BAD)}
    reference, loss = update.scored
    assert reference == loss == hinted


def test_a_bare_loss_has_no_hint(moved: Policy, exact: Task) -> None:
    settings = changed(HINTS, gradient_context="bare")
    update = Update(moved, exact, settings, from_share(0.5), LONG)
    assert update.scored[-1] == {moved.renderer.prompt_ids(BARE, "question 0")}
    assert update.moved


def test_each_group_climbs_by_itself(moved: Policy, exact: Task) -> None:
    """Solved, rescued at once, never rescued, too short: only what climbs on is drawn again."""

    def write(hint: str, number: int) -> str:
        if not hint:
            return "solved" if number == 0 else "wrong"
        return "now with a hint it is right" if hint[0] == "n" and number else "wrong still"

    answers = ("solved", "now with a hint it is right", LONG, "abc")
    update = Update(moved, exact, HINTS, write, *answers)
    assert update.guidance() == {
        "hinted_groups": 2,
        "rescued_at_0.25": 1,
        "rescued_at_0.5": 0,
        "rescued_at_0.75": 0,
        "extra_rollouts": 4 * GRPO.group,
    }
    assert update.figures["effective_groups"] == 2
    chosen = [r.hint.removeprefix(HINT) for r in update.trainer.loss_rollouts[:: GRPO.group]]
    assert chosen == ["", "now wi", "", ""]


def test_an_answer_of_three_tokens_is_left_alone(moved: Policy, exact: Task) -> None:
    update = Update(moved, exact, HINTS, from_share(0.5), "abc")
    assert update.sampler.num_rollouts == GRPO.group
    assert update.guidance()["hinted_groups"] == update.guidance()["extra_rollouts"] == 0
    assert update.figures["skipped_updates"] == 1
    assert not update.moved


@pytest.mark.parametrize(("least", "hinted"), [(24, 1), (25, 0)])
def test_the_shortest_answer_that_is_hinted_at_is_a_key(
    moved: Policy, exact: Task, least: int, hinted: int
) -> None:
    settings = changed(GRPO, guidance=HintsGuidance(rungs=(0.5,), min_tokens=least))
    assert Update(moved, exact, settings, from_share(0.5), LONG).guidance() == {
        "hinted_groups": hinted,
        "rescued_at_0.5": hinted,
        "extra_rollouts": hinted * GRPO.group,
    }


def test_a_signal_has_its_hardest_problems_drawn_again_solved_or_not(
    moved: Policy, exact: Task
) -> None:
    signal = ShippedSignalToActOn(kind="hoyer", trusted=True)
    settings = changed(HINTS, guidance=HintsGuidance(rungs=(0.25,), signal=signal))
    values = [3.0, 9.0, 5.0, 1.0, 7.0]

    def read(trainer: FastSlowTrainer) -> None:
        of_problem = {f"e{place}": value for place, value in enumerate(values)}
        trainer.signal_bands["guidance"].values = {exact.name: of_problem}

    update = Update(moved, exact, settings, from_share(0.0), *[LONG] * 5, prepare=read)
    assert update.figures["zero_variance_frac"] == 0  # every group is solved in part
    hinted = {rollout.example.id for rollout in update.trainer.loss_rollouts if rollout.hint}
    assert hinted == {"e1"}
    assert update.guidance() == {
        "hinted_groups": 1,
        "rescued_at_0.25": 1,
        "extra_rollouts": GRPO.group,
    }


def test_a_hint_makes_no_problem_look_easy(moved: Policy, exact: Task) -> None:
    """Rates, bands, rewards and what the fast channel is shown are of the plain draws."""
    update = Update(moved, exact, HINTS, from_share(0.25), LONG, LONG)
    bands = update.trainer.gate.bands
    assert bands.to_json() == {"rates": {"exact": {"e0": 0.0, "e1": 0.0}}}
    figures = update.figures
    assert (figures["band_unsolved_frac"], figures["zero_variance_frac"]) == (1, 1)
    assert (figures["reward"], figures["reward_std"]) == (0, 0)
    assert figures["completion_tokens"] == len("wrong 0")
    assert figures["effective_groups"] == 2
    assert {evidence.score for evidence in update.trainer.evidence()} == {0.0}
    prompts = {prompt for prompt, _ in update.trainer.scored_rows()}
    assert all(HINT not in moved.tokenizer.decode(prompt) for prompt in prompts)
    lines = update.trainer.sample_lines()
    assert ["begins like this" in line for line in lines] == [False, False, True, True]


@pytest.mark.parametrize(("bands", "trained"), [(("medium",), 1), (("unsolved", "hard"), 0)])
def test_a_rescued_group_is_judged_by_what_it_does_under_the_hint(
    moved: Policy, exact: Task, bands: Any, trained: int
) -> None:
    settings = changed(HINTS, difficulty=DifficultyConfig(train_bands=bands))
    update = Update(moved, exact, settings, from_share(0.5), LONG)
    assert update.guidance()["rescued_at_0.5"] == 1
    assert update.figures["effective_groups"] == trained
    assert update.moved == bool(trained)


def test_a_demonstration_of_the_problem_itself_stays_out_of_its_hinted_prompt(
    moved: Policy, exact: Task
) -> None:
    """The hint changes the question's words, and must not let the whole answer in by them."""
    own, other = Demonstration("Question  0 ", LONG), Demonstration("question 7", "seven")
    shown = moved.renderer.prompt_ids(PromptProgram("x", (own, other)), "question 0", HINT + "abc")
    plain = moved.renderer.prompt_ids(PromptProgram("x", (other,)), f"question 0{HINT}abc")
    assert shown == plain


@pytest.mark.parametrize(
    ("rewards", "unsolved"),
    [
        ((0.0, 0.0), True),
        ((0.2, 0.2), True),  # equal, and no success: nothing to learn from
        ((0.2, 0.0), False),  # the better one is learned from
        ((0.5, 0.5), False),
        ((1.0, 0.0), False),
    ],
)
def test_unsolved_is_a_group_without_success_that_teaches_nothing(
    rewards: tuple[float, ...], unsolved: bool
) -> None:
    assert Group("t", "p", rewards, ((1,), (2,))).is_unsolved(success_score=0.5) == unsolved


@pytest.fixture
def double(moved: Policy) -> Policy:
    """In double precision, with other weights now than at the start of the stage."""
    moved.model.double()
    moved.adapters.start = moved.adapters.copied()
    for weight in trainable(moved):
        weight.data.mul_(1.5)
    return moved


SOME = ("right", "abc", "never", LONG)
"""Answers of four problems; the second and the last are never written."""


WRITTEN = (
    *("right", "left", "wrong", "right"),
    *("bad", "bad", "worse", "worst"),
    *("never", "left", "wrong", "never"),
    *("w", "x", "y", "z"),
)
"""Of the first and the third problem of `SOME` two rollouts are right."""


def some_right(hint: str, number: int) -> str:
    return WRITTEN[number]


def row_logits(policy: Policy, prompt: TokenIds, completion: TokenIds) -> Tensor:
    """Log-probabilities over the vocabulary before each completion token, of one row by itself."""
    logits: Tensor = policy.model(input_ids=torch.tensor([prompt + completion])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(dim=-1)


def guidance_by_hand(policy: Policy, rollouts: Sequence[Rollout], context: str) -> Tensor:
    """Mean over the rows of unsolved problems of the mean over tokens of the reverse KL."""
    start, present, losses = policy.adapters.start, policy.adapters.copied(), []
    assert start is not None
    teachers = []
    policy.adapters.put(start)
    for r in rollouts:
        example = r.example
        shown = (*r.program.demonstrations, Demonstration(example.question, example.answer))
        asked = replace(r.program, demonstrations=shown)
        messages = chat_messages(asked, example.question)
        text = policy.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        prompt = tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            teachers.append(row_logits(policy, prompt, r.completion.token_ids))
    policy.adapters.put(present)
    for r, teacher in zip(rollouts, teachers, strict=True):
        program = BARE if context == "bare" else r.program
        prompt = policy.renderer.prompt_ids(program, r.example.question)
        student = row_logits(policy, prompt, r.completion.token_ids)
        losses.append((student.exp() * (student - teacher)).sum(-1).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("rows", [64, 3])
@pytest.mark.parametrize("context", ["with_text", "bare"])
def test_guidance_adds_the_gradient_of_the_sum_written_out(
    double: Policy, exact: Task, context: Any, rows: int
) -> None:
    """Own rollouts of the two unsolved groups; the others learn from their rewards as without."""
    plain = changed(GRPO, gradient_context=context, kl_coefficient=0.1)
    guided = changed(plain, guidance=AnswerGuidance(strength=0.7), rows_per_forward=rows)
    task_gradient = Update(double, exact, plain, some_right, *SOME, lr=0.0).gradient
    update = Update(double, exact, guided, some_right, *SOME, lr=0.0)
    assert task_gradient is not None
    assert update.gradient is not None
    unsolved = [r for r in update.trainer.rollouts if r.example.id in ("e1", "e3")]
    loss = guidance_by_hand(double, unsolved, context)
    parts = torch.autograd.grad(0.7 * loss, trainable(double))
    added = torch.cat([part.flatten() for part in parts])
    assert ((update.gradient - task_gradient) - added).norm() / added.norm() < 1e-6
    assert update.guidance() == {
        "guided_groups": 2,
        "loss": pytest.approx(loss.item(), rel=1e-6),
        "gradient_share": pytest.approx(float(added.norm() / task_gradient.norm()), rel=1e-5),
    }
    assert update.figures["effective_groups"] == 2
    assert update.sampler.num_rollouts == 4 * GRPO.group


@pytest.mark.parametrize("guidance", [None, AnswerGuidance()])
def test_an_update_of_unsolved_groups_alone_is_made_by_guidance_and_else_skipped(
    moved: Policy, exact: Task, guidance: AnswerGuidance | None
) -> None:
    moved.adapters.start = moved.adapters.copied()
    settings = changed(GRPO, guidance=guidance)
    update = Update(moved, exact, settings, from_share(0.5), LONG, "abc")
    assert update.figures["effective_groups"] == 0
    assert update.moved == (guidance is not None)
    assert update.figures["skipped_updates"] == (0 if guidance else 1)
    assert update.trainer.has_signal(update.figures) == (guidance is not None)
    assert "loss" not in update.figures  # no reward teaches anything
    assert "guidance/gradient_share" not in update.figures  # of nothing
    if guidance:
        assert update.guidance() == {"guided_groups": 2, "loss": update.figures["guidance/loss"]}
        assert update.figures["guidance/loss"] > 0
        assert update.figures["grad_norm"] > 0


def test_groups_that_solved_their_problems_are_not_guided(moved: Policy, exact: Task) -> None:
    """Solved by all: no signal, and nothing to be taught."""
    moved.adapters.start = moved.adapters.copied()
    settings = changed(GRPO, guidance=AnswerGuidance())
    update = Update(moved, exact, settings, lambda *unused: "abc", "abc")
    assert update.guidance() == {"guided_groups": 0}
    assert update.figures["skipped_updates"] == 1
    assert not update.moved
    assert not update.trainer.has_signal(update.figures)


def test_the_teacher_reads_the_answer_once_as_the_last_demonstration(moved: Policy) -> None:
    """The one prompt that shows the answer it is asked for; an own demonstration is no second."""
    question, renderer = "question 0", moved.renderer
    own, other = Demonstration("Question  0 ", "stale"), Demonstration("question 7", "seven")
    ids = renderer.informed_ids(PromptProgram("x", (own, other)), question, "gold")
    text = moved.tokenizer.decode(ids)
    turns = [turn.partition("\n")[::2] for turn in text.split("<|im_start|>")[1:]]
    assert [(role, words.removesuffix("<|im_end|>\n")) for role, words in turns] == [
        ("system", "x"),
        ("user", "question 7"),
        ("assistant", "seven"),
        ("user", question),
        ("assistant", "gold"),
        ("user", question),
        ("assistant", ""),
    ]


RARE = (
    "stages=[{task: first, cycles: 2}, {task: third, cycles: 1}]",
    "tasks.first={use: 'tests.support.toy_tasks:rare'}",
    "tasks.third={use: 'tests.support.toy_tasks:rare'}",
)
"""Two stages of problems of which the tiny model solves some, and some under a hint."""
ANSWER = "slow.guidance={kind: answer, strength: 0.5}"
LADDER = "slow.guidance={kind: hints, rungs: [0.2, 0.4]}"


def slow_cycles(run: Path) -> list[CycleEvent]:
    events = read_events(run / "events.jsonl")
    return [e for e in events if isinstance(e, CycleEvent) and "slow" in e.rollouts]


def test_hints_are_drawn_in_updates_alone_and_every_one_is_counted(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, prompts and measures never see a hint; the estimate is an upper bound."""
    prompts: list[str] = []
    inner = TorchEngine.sample

    def spy(engine: TorchEngine, asked: Any, *rest: Any, **options: Any) -> Any:
        prompts.extend(map(engine.renderer.tokenizer.decode, asked))
        return inner(engine, asked, *rest, **options)

    monkeypatch.setattr(TorchEngine, "sample", spy)
    overrides = [f"model.name={tiny_folder}", *RARE, LADDER]
    run = start(tmp_path, overrides)
    cycles = slow_cycles(run)
    updates = 2
    figures = [{n: value or 0.0 for n, value in e.metrics.items()} for e in cycles]
    extra = [round(updates * of_cycle["slow/guidance/extra_rollouts"]) for of_cycle in figures]
    assert sum(HINT in prompt for prompt in prompts) == sum(extra) > 0
    assert sum(of_cycle["slow/guidance/rescued_at_0.2"] for of_cycle in figures) > 0
    plain = 2 * 2 * 4
    assert [e.rollouts["slow"] for e in cycles] == [plain + number for number in extra]
    ledger = Ledger(load_config([tmp_path / "toy.yaml"], overrides).config)
    bounds = [entry.rollouts for entry in ledger.entries if entry.part == "slow"]
    assert bounds == [plain + 2 * plain] * 3
    assert max(extra) <= 2 * plain


@pytest.mark.parametrize("guidance", [LADDER, ANSWER], ids=["hints", "answer"])
def test_resuming_under_guidance_equals_never_stopping(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, guidance: str
) -> None:
    overrides = [f"model.name={tiny_folder}", *RARE, guidance]
    undisturbed, broken = whole_and_cut(2, tmp_path, overrides, monkeypatch)
    assert outcome(launch.resume(broken, no_report)) == outcome(undisturbed)


SHORT = "tasks.third={use: 'tests.support.toy_tasks:parity'}"
"""A task whose gold answers have two tokens."""


def test_hints_that_no_answer_is_long_enough_for_are_refused_before_a_folder_is_made(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rare` has answers of 20 tokens, `parity` of two, which only counts where weights learn."""
    (tmp_path / "toy.yaml").write_text(TOY)
    words = [str(tmp_path / "toy.yaml"), f"model.name={tiny_folder}", *RARE, SHORT]
    reason = "hints shows the beginning of gold answers of at least slow.guidance.min_tokens = "
    hints = "slow.guidance={kind: hints, min_tokens: "
    frozen = "stages=[{task: first, slow: false}, {task: third}]"
    for refused in ([f"{hints}21}}"], [f"{hints}3}}", frozen]):
        for command in ("check", "train"):
            assert main([command, *words, f"runs_dir={tmp_path / 'none'}", *refused]) == 2
            message = capsys.readouterr().err
            assert reason in message
            assert "slow.guidance.kind: answer" in message
    assert not (tmp_path / "none").exists()
    assert main(["check", *words, f"{hints}20}}"]) == 0
    assert "as long: third, with at most 2. Their problems get no hint" in capsys.readouterr().out
    assert main(["check", *words, f"{hints}2}}"]) == 0
    assert "no hint" not in capsys.readouterr().out


def test_every_arm_of_an_ablation_is_asked_for_its_hints(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    arms = "{plain: {}, hinted: {slow: {guidance: {kind: hints}}}}"
    (tmp_path / "arms.yaml").write_text(f"name: a\nbase: toy.yaml\nseeds: [0]\narms: {arms}\n")
    assert main(["check", str(tmp_path / "arms.yaml"), f"model.name={tiny_folder}"]) == 2
    assert "slow.guidance.min_tokens = 16" in capsys.readouterr().err


@pytest.mark.parametrize("rungs", [(0.5, 0.25), (0.5, 0.5), (0.5, 1.0), (0.0,), ()])
def test_rungs_rise_and_never_show_the_whole_answer(rungs: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="rungs"):
        HintsGuidance(rungs=rungs)


@pytest.mark.parametrize("guidance", ["answer", "hints"])
def test_a_probe_has_no_guidance(guidance: str) -> None:
    """It compares starts at the same rollouts, and no stage has begun whose start could teach."""
    config = RunConfig.model_validate(
        {
            "name": "r",
            "stages": [{"task": "a"}],
            "tasks": {"b": {}},
            "slow": {"guidance": {"kind": guidance}},
            "probe": {"task": "b", "kind": "grpo"},
        }
    )
    assert config.probe is not None
    learner = _learner(config, config.probe)
    assert isinstance(learner, GrpoConfig)
    assert learner.guidance is None
    assert learner.kind == "grpo"
