"""What each remedy adds to a loss or does to the weights, on a tiny model and by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastslow.channels.slow.remedies.adapter_policy import adapter_policy
from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Memory,
    Remedy,
    Stage,
    TaughtRow,
    Teacher,
    Update,
)
from fastslow.channels.slow.remedies.consolidate import ConsolidateConfig, consolidate
from fastslow.channels.slow.remedies.core_rows import CoreRowsConfig, core_rows, row_energy
from fastslow.channels.slow.remedies.interpolate import InterpolateConfig, interpolate
from fastslow.channels.slow.remedies.kl_start import KlStartConfig, kl_start
from fastslow.channels.slow.remedies.l2 import L2Config, l2
from fastslow.channels.slow.remedies.merge import MergeConfig, merge
from fastslow.channels.slow.remedies.movement import MovementConfig, movement
from fastslow.channels.slow.remedies.orthogonal import OrthogonalConfig, orthogonal
from fastslow.channels.slow.remedies.renew import RenewConfig, recycled, renew
from fastslow.channels.slow.remedies.replay import ReplayConfig, replay
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.channels.slow.teaching import teach
from fastslow.channels.slow.trainer import finish_update
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import TokenIds
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import BAD, GOOD
from tests.integration.channels.test_sft import RAGGED, SFT
from tests.support.adapters import move
from tests.support.toy_tasks import letters
from tests.support.updates import set_texts, trainable

DEPLOYED = PromptProgram("Deployed for the earlier task.")
A, B = ".lora_A.", ".lora_B."


@pytest.fixture
def earlier() -> Task:
    return letters.build("earlier")


@pytest.fixture
def exact(moved: Policy) -> Policy:
    """In double precision, as a stage found it, then moved on from there."""
    moved.model.double()
    set_texts(moved, letters.build("letters"), GOOD, BAD)
    moved.live["earlier"] = DEPLOYED
    return moved


def stage_of(policy: Policy, task: Task, *earlier: Task, seed: int = 0) -> Stage:
    return Stage(policy, task, len(earlier), earlier, seed)


def ended(stage: Stage, score: Any = lambda task, text=None: {}) -> Ended:
    return Ended(stage, score, lambda task: None)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def logits(policy: Policy, prompt: TokenIds, completion: TokenIds) -> Tensor:
    """Before every completion token, row by row and without the trie, [tokens, vocab]."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        every: Tensor = policy.model(input_ids=ids, use_cache=False).logits[0]
    return every[len(prompt) - 1 : -1]


def taught_by_hand(policy: Policy, rows: Sequence[TaughtRow]) -> Tensor:
    """Weighted mean over rows of the mean over tokens, row by row; teachers first."""
    predictions = []
    for row in rows:
        with torch.no_grad(), policy.as_of(row.teacher.weights if row.teacher else "present"):
            prompt = row.teacher.prompt if row.teacher else row.prompt
            predictions.append(torch.log_softmax(logits(policy, prompt, row.completion), -1))
    terms = []
    for row, teacher in zip(rows, predictions, strict=True):
        student = torch.log_softmax(logits(policy, row.prompt, row.completion), -1)
        if row.teacher is None:
            value = -student[torch.arange(len(student)), torch.tensor(row.completion)]
        elif row.teacher.divergence == "forward":
            value = (teacher.exp() * (teacher - student)).sum(-1)
        else:
            value = (student.exp() * (student - teacher)).sum(-1)
        terms.append(row.weight * value.mean())
    return torch.stack(terms).sum() / sum(row.weight for row in rows)


ROWS = [
    TaughtRow((5, 6, 7), (8, 9), 1.0),
    TaughtRow((5, 9), (4, 4, 3), 3.0, Teacher("base", (5, 9))),
    TaughtRow((5, 9), (4, 4, 3), 2.0, Teacher("start", (7, 5, 9), "forward")),
    TaughtRow((5, 6, 7), (4,), 1.0, Teacher("present", (9, 6, 7))),
    TaughtRow((5, 6, 7), (4, 8), 1.0, Teacher("present", (5, 6, 7))),
    TaughtRow((2, 6), (1, 8), 1.5, Teacher("start", (2, 6))),
]


@pytest.mark.parametrize("rows_at_once", [64, 1])
def test_taught_rows_have_the_loss_and_gradient_of_the_sum_written_out(
    exact: Policy, rows_at_once: int
) -> None:
    exact.adapters.start = exact.adapters.copied()
    move(exact, seed=4)
    given = {name: weight * 0.5 for name, weight in exact.adapters.copied().items()}
    rows = [*ROWS, TaughtRow((3, 3), (2, 5), 0.5, Teacher(given, (3, 1, 3)))]
    weights = trainable(exact)
    before = exact.weights_fingerprint()
    loss, gradient = 0.0, torch.zeros(sum(weight.numel() for weight in weights))
    for summand in teach(exact, rows, rows_at_once):
        loss += float(summand.detach())
        parts = torch.autograd.grad(summand, weights, materialize_grads=True)
        gradient = gradient + flat(parts)
    assert exact.weights_fingerprint() == before
    total = taught_by_hand(exact, rows)
    expected = flat(torch.autograd.grad(total, weights))
    assert loss == pytest.approx(float(total.detach()), rel=1e-6)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-6


def whole_gradient(
    policy: Policy, task: Task, earlier: Task, remedy: Remedy, memory: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, float], Update]:
    """Of one update on gold answers with the remedy, and its figures."""
    copies: list[Tensor] = []

    def copy(weights: Mapping[str, Any], memory: Memory) -> None:
        copies.append(flat([weight.grad.clone() for weight in weights.values()]))

    remedies = Remedies([("under_test", remedy), ("copy", Remedy(project=copy))])
    remedies._memories["under_test"].tensors = dict(memory)
    trainer = GoldTrainer(policy, {task.name: task}, 3, SFT)
    optimizer = torch.optim.SGD(trainable(policy), lr=0.0)
    update = Update(stage_of(policy, task, earlier), RAGGED, 0, 5, 0.0, trainer.scored_rows)
    finish = lambda: finish_update(1e9, optimizer, remedies, update)  # noqa: E731
    figures = trainer.update(RAGGED, 0, finish)
    return copies[0], figures, update


def noise_like(policy: Policy, seed: int, size: float = 0.1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight.detach()
        + size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        for name, weight in policy.adapters.trainable().items()
    }


@pytest.mark.parametrize("kind", ["l2", "movement", "kl_start", "orthogonal"])
def test_the_gradient_is_that_of_the_sum_of_both_losses(
    exact: Policy, task: Task, earlier: Task, kind: str
) -> None:
    weights = exact.adapters.trainable()
    anchor = noise_like(exact, seed=1)
    exact.adapters.start = anchor
    loss: Any
    if kind == "l2":
        remedy, memory = l2.build(L2Config(strength=3.0)), anchor
        loss = sum(((w - anchor[n]) ** 2).sum() for n, w in weights.items()) / 2
    elif kind == "movement":
        masks = {name: other > weights[name] for name, other in noise_like(exact, 2).items()}
        memory = {f"anchor/{n}": t for n, t in anchor.items()}
        memory |= {f"mask/{n}": mask for n, mask in masks.items()}
        remedy = movement.build(MovementConfig(strength=3.0))
        moved = sum(((w - anchor[n]).abs() * masks[n]).sum() for n, w in weights.items())
        loss = moved / sum(int(mask.sum()) for mask in masks.values())
    elif kind == "orthogonal":
        memory = {name: tensor for name, tensor in noise_like(exact, 3).items() if A in name}
        remedy = orthogonal.build(OrthogonalConfig(form="penalty", strength=3.0))
        loss = sum((taken @ weights[n].T).abs().sum() for n, taken in memory.items())
    else:
        remedy, memory = kl_start.build(KlStartConfig(strength=3.0, rows=4)), {}
        loss = torch.zeros(())
    plain, _, _ = whole_gradient(exact, task, earlier, Remedy(), {})
    total, figures, update = whole_gradient(exact, task, earlier, remedy, memory)
    if kind == "kl_start":
        assert remedy.rows is not None
        rows = remedy.rows(replace(update, seed=derived(update)), Memory())
        assert len(rows) == 4
        loss = taught_by_hand(exact, rows)
    expected = 3.0 * flat(torch.autograd.grad(loss, list(weights.values()), materialize_grads=True))
    assert float((total - plain - expected).norm() / expected.norm()) < 1e-6
    assert figures["remedy/under_test/loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    share = float(expected.norm() / plain.norm())
    assert figures["remedy/under_test/gradient_share"] == pytest.approx(share, rel=1e-5)


def derived(update: Update) -> int:
    """The seed that the stack gives its remedy."""
    from fastslow.channels.slow.remedies.stack import _of

    return _of(update, "under_test").seed


def test_movement_of_the_hand_example() -> None:
    remedy = movement.build(MovementConfig())
    weight = torch.nn.Parameter(torch.tensor([0.2, -0.1, 0.4]))
    memory = Memory({"anchor/w": torch.zeros(3), "mask/w": torch.tensor([True, True, False])})
    assert remedy.penalty is not None
    penalty = remedy.penalty({"w": weight}, memory)
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.15)
    [gradient] = torch.autograd.grad(penalty, [weight])
    assert gradient.tolist() == [0.5, -0.5, 0.0]


def test_movement_protects_what_moved_most_and_never_lets_go(exact: Policy, task: Task) -> None:
    remedy, memory = movement.build(MovementConfig(share=0.05)), Memory()
    stage = stage_of(exact, task)
    assert remedy.begin is not None
    assert remedy.end is not None
    masks = []
    for index in range(2):
        remedy.begin(stage, memory)
        before = exact.adapters.copied()
        move(exact, seed=20 + index)
        figures = remedy.end(ended(stage), memory)
        now = exact.adapters.copied()
        moves = flat([(now[n] - before[n]).abs() for n in now])
        mask = flat([memory.tensors[f"mask/{n}"] for n in now])
        top = moves >= moves.sort(descending=True).values[int(0.05 * len(moves)) - 1]
        assert bool(mask[top].all())
        assert isinstance(figures, dict)
        assert figures["protected_share"] == pytest.approx(float(mask.float().mean()))
        masks.append(mask)
    assert bool((masks[1] | ~masks[0]).all())
    assert masks[0].float().mean() < masks[1].float().mean() < 0.11


def test_l2_pulls_to_the_end_of_the_last_stage(exact: Policy, task: Task) -> None:
    remedy, memory = l2.build(L2Config()), Memory()
    assert remedy.end is not None
    assert remedy.penalty is not None
    assert remedy.penalty(exact.adapters.trainable(), memory) is None
    assert remedy.end(ended(stage_of(exact, task)), memory) == {}
    end_of_first = flat(list(exact.adapters.copied().values()))
    move(exact, seed=3)
    penalty = remedy.penalty(exact.adapters.trainable(), memory)
    distance = float((flat(list(exact.adapters.copied().values())) - end_of_first).norm())
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(distance**2 / 2)
    figures = remedy.end(ended(stage_of(exact, task)), memory)
    assert isinstance(figures, dict)
    assert figures["moved"] == pytest.approx(distance)


def begin_fresh(policy: Policy, task: Task, seed: int = 7) -> Stage:
    """A second stage under a fresh adapter, the first one frozen."""
    policy.adapters.owner = "earlier"
    stage = stage_of(policy, task, letters.build("earlier"))
    fresh = adapter_policy("merge-then-new", lambda index: seed)
    assert fresh.begin is not None
    fresh.begin(stage, Memory())
    return stage


def test_hard_orthogonal_updates_stay_so_after_every_step(exact: Policy, task: Task) -> None:
    earlier = {name: weight for name, weight in exact.adapters.copied().items() if A in name}
    stage = begin_fresh(exact, task)
    remedies = Remedies([("orthogonal", orthogonal.build(OrthogonalConfig()))])
    remedies.begin(stage)
    weights = exact.adapters.trainable()
    optimizer = torch.optim.AdamW(list(weights.values()), lr=0.05)
    trainer = GoldTrainer(exact, {task.name: task}, 3, SFT)
    update = Update(stage, RAGGED, 0, 0, 0.05, trainer.scored_rows)
    drift = []
    for _ in range(5):
        before = exact.adapters.copied()
        trainer.update(RAGGED, 0, lambda: finish_update(1.0, optimizer, remedies, update))
        overlap = max(
            float((taken @ weights[n].detach().T).abs().max()) for n, taken in earlier.items()
        )
        assert overlap < 1e-6
        drift.append(max(float((before[n] - weights[n].detach()).abs().max()) for n in earlier))
    assert min(drift[1:]) > 1e-3  # A is trained all the same, once B is not 0
    report = remedies.end(ended(stage))[0]
    assert 0 <= float(report.figures["largest_overlap"] or 0) < 1e-6


def test_the_penalty_form_turns_a_away(exact: Policy, task: Task) -> None:
    stage = begin_fresh(exact, task)
    remedy = orthogonal.build(OrthogonalConfig(form="penalty", strength=50.0))
    remedies = Remedies([("orthogonal", remedy)])
    remedies.begin(stage)
    weights = exact.adapters.trainable()
    optimizer = torch.optim.AdamW(list(weights.values()), lr=0.01)
    trainer = GoldTrainer(exact, {task.name: task}, 3, SFT)
    update = Update(stage, RAGGED, 0, 0, 0.01, trainer.scored_rows)
    losses = []
    for _ in range(6):
        finish = lambda: finish_update(1.0, optimizer, remedies, update)  # noqa: E731
        losses.append(trainer.update(RAGGED, 0, finish)["remedy/orthogonal/loss"])
    assert losses[-1] < 0.8 * losses[0]


def test_row_energy_is_that_of_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(9, 3, generator=generator), torch.randn(3, 6, generator=generator)
    torch.testing.assert_close(row_energy(left, right), (left @ right).pow(2).sum(-1))


def test_core_rows_of_an_earlier_task_never_change_again(exact: Policy, task: Task) -> None:
    remedy = core_rows.build(CoreRowsConfig(share=0.2))
    remedies = Remedies([("core_rows", remedy)])
    first = stage_of(exact, letters.build("earlier"))
    weights = exact.adapters.trainable()
    changes = {n: weights[n] @ weights[n.replace(B, A)] for n in weights if B in n}
    [report] = remedies.end(ended(first))
    cores = dict(remedies._memories["core_rows"].tensors)
    energies = flat([change.detach().pow(2).sum(-1) for change in changes.values()])
    mask = flat([cores[name] for name in changes])
    assert float(energies[mask].min()) >= float(energies[~mask].max())
    assert report.figures["core_frac"] == pytest.approx(float(mask.float().mean()))
    share = float(energies[mask].sum() / energies.sum())
    assert report.figures["core_energy"] == pytest.approx(share, rel=1e-6)

    stage = begin_fresh(exact, task)
    remedies.begin(stage)
    optimizer = torch.optim.AdamW(trainable(exact), lr=0.05)
    trainer = GoldTrainer(exact, {task.name: task}, 3, SFT)
    update = Update(stage, RAGGED, 0, 0, 0.05, trainer.scored_rows)
    for _ in range(3):
        trainer.update(RAGGED, 0, lambda: finish_update(1.0, optimizer, remedies, update))
    for name, core in cores.items():
        left = exact.adapters.trainable()[name].detach()
        assert float(left[core].abs().sum()) == 0.0
        assert float(left[~core].abs().min()) > 0
    [report] = remedies.end(ended(stage))
    assert float(report.figures["core_frac"] or 0) == pytest.approx(0.4, abs=0.02)


def test_a_gradient_set_to_zero_does_not_stop_adamw() -> None:
    """Why core rows are set to zero after the step as well."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.ones(2)
    optimizer.step()
    weight.grad = torch.tensor([0.0, 1.0])
    optimizer.step()
    moved = (0.9 - weight).tolist()
    assert moved[0] > 0.5 * moved[1] > 0


def test_recycled_ranks_are_the_weakest_and_a_rank_without_effect_changes_no_logit(
    exact: Policy, task: Task
) -> None:
    weights = exact.adapters.copied()
    for name, weight in weights.items():
        if B in name:
            weight[:, 1] = 0
    exact.adapters.put(weights)
    before = logits(exact, (5, 6, 7), (8, 9)).detach()
    remedy = renew.build(RenewConfig(share=0.25))
    exact.adapters.owner = "earlier"
    assert remedy.begin is not None
    remedy.begin(stage_of(exact, task, letters.build("earlier"), seed=3), Memory())
    after = exact.adapters.copied()
    assert torch.equal(logits(exact, (5, 6, 7), (8, 9)).detach(), before)
    for name, weight in after.items():
        same = [
            bool(torch.equal(*pair))
            for pair in zip(rank(name, weight), rank(name, weights[name]), strict=True)
        ]
        assert same == ([True] * 4 if B in name else [True, False, True, True])


def rank(name: str, weight: Tensor) -> list[Tensor]:
    return list(weight.T if B in name else weight)


def test_recycling_a_rank_that_matters_takes_its_update_away() -> None:
    left, right = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    names = f"m{B}default.weight", f"m{A}default.weight"
    fresh = dict(zip(names, (torch.zeros(1, 2), torch.full((2, 2), 9.0)), strict=True))
    renewed = recycled(dict(zip(names, (left, right), strict=True)), fresh, 0.5)
    assert renewed[names[0]].tolist() == [[3.0, 0.0]]
    assert renewed[names[1]].tolist() == [[1.0, 0.0], [9.0, 9.0]]


def test_shrink_and_perturb_and_l2_init(exact: Policy, task: Task) -> None:
    first, later = stage_of(exact, task), stage_of(exact, task, letters.build("earlier"))
    exact.adapters.owner = None
    shrinking, memory = renew.build(RenewConfig(action="shrink_perturb", noise=0.1)), Memory()
    start = exact.adapters.copied()
    assert shrinking.begin is not None
    shrinking.begin(first, memory)
    assert all(torch.equal(w, start[n]) for n, w in exact.adapters.copied().items())
    pulling = renew.build(RenewConfig(action="l2_init", rate=0.5))
    assert pulling.begin is not None
    assert pulling.settle is not None
    pulling.begin(first, memory)
    exact.adapters.owner = "earlier"
    shrinking.begin(later, memory)
    now = exact.adapters.copied()
    noise = flat([now[n] - start[n] for n in now if A in n])
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)
    assert all(torch.equal(now[n], 0.8 * start[n]) for n in now if B in n)
    update = Update(later, RAGGED, 0, 0, 0.2, list)
    pulling.settle(exact.adapters.trainable(), memory, update, torch.optim.SGD(trainable(exact)))
    for name, weight in exact.adapters.copied().items():
        torch.testing.assert_close(weight, now[name] + 0.1 * (start[name] - now[name]))


def test_interpolation_takes_the_smallest_of_the_best_factors(exact: Policy, task: Task) -> None:
    earlier = letters.build("earlier")
    stage = begin_fresh(exact, task)
    move(exact, seed=8)
    moved = exact.adapters.copied()

    def score(asked: Task, text: object = None) -> dict[str, float]:
        name = next(name for name in moved if B in name)
        factor = float((exact.adapters.copied()[name] / moved[name]).mean())
        return {"e": min(1.0, 2 * factor) if asked is stage.task else 1 - factor / 4}

    remedy = interpolate.build(InterpolateConfig())
    assert remedy.end is not None
    figures = remedy.end(ended(stage, score), Memory())
    assert figures == {
        "factor": 0.5,
        "validation_before": pytest.approx((1 + 0.75) / 2),
        "validation_after": pytest.approx((1 + 0.875) / 2),
    }
    assert remedy.end(ended(stage_of(exact, earlier), score), Memory()) == {"factor": 1.0}
    flat_score = lambda asked, text=None: {"e": 0.5}  # noqa: E731
    figures = remedy.end(ended(stage, flat_score), Memory())
    assert isinstance(figures, dict)
    assert figures["factor"] == 0.0


def test_merging_deploys_the_combination_and_trains_from_the_base(
    exact: Policy, task: Task
) -> None:
    """Two stages, each from the base; logits with the mean of the dense updates, by hand."""
    remedy, memory = merge.build(MergeConfig()), Memory()
    apart = adapter_policy("new-per-stage", lambda index: 5)
    assert apart.begin is not None
    assert remedy.begin is not None
    assert remedy.end is not None
    exact.adapters.begin("earlier", trains=True, keep_start=False)
    first = stage_of(exact, letters.build("earlier"))
    assert remedy.end(ended(first), memory) == {"adapters": 1.0}
    alone = logits(exact, (5, 6, 7), (8, 9)).detach()
    one = deltas(exact)

    second = stage_of(exact, task, letters.build("earlier"))
    apart.begin(second, Memory())
    remedy.begin(second, memory)
    exact.adapters.begin(task.name, trains=True, keep_start=False)
    with exact.as_of("base"):
        base = logits(exact, (5, 6, 7), (8, 9)).detach()
    torch.testing.assert_close(logits(exact, (5, 6, 7), (8, 9)).detach(), base)
    with exact.adapters.serving("earlier"):
        torch.testing.assert_close(logits(exact, (5, 6, 7), (8, 9)).detach(), alone)
    move(exact, seed=30)
    two = deltas(exact)
    assert remedy.end(ended(second), memory) == {"adapters": 2.0}
    assert not exact.adapters.is_aside("earlier")
    merged = deltas(exact)
    for name, change in merged.items():
        torch.testing.assert_close(change, (one[name] + two[name]) / 2, rtol=1e-4, atol=1e-6)

    third = replace(second, index=2)
    apart.begin(third, Memory())
    remedy.begin(third, memory)
    torch.testing.assert_close(logits(exact, (5, 6, 7), (8, 9)).detach(), base)


def deltas(policy: Policy) -> dict[str, Tensor]:
    return {delta.name: delta.dense() for delta in policy.adapters.deltas(None, None)}


def test_replay_of_the_start_keeps_every_answer_and_asks_the_start(
    moved: Policy, task: Task
) -> None:
    earlier = letters.build("earlier")
    remedy, memory = replay.build(ReplayConfig(target="start", keep=6, rows=4)), Memory()
    assert remedy.end is not None
    assert remedy.rows is not None
    report = remedy.end(ended(stage_of(moved, earlier)), memory)
    assert isinstance(report, EndReport)
    assert report.figures == {"tried": 6, "kept": 6}
    rows = remedy.rows(Update(stage_of(moved, task, earlier), RAGGED, 0, 0, 0.1, list), memory)
    assert len(rows) == 4
    assert all(row.teacher == Teacher("start", row.prompt, "forward") for row in rows)
    assert remedy.needs_start


def test_consolidation_carries_a_texts_predictions_into_the_weights(
    moved: Policy, task: Task
) -> None:
    """Its divergence falls; the text goes or stays as asked; the policy's texts are as before."""
    shown = (Demonstration("zz", "bbbb"),) * 3
    moved.live[task.name] = replace(DEPLOYED, demonstrations=shown)
    set_texts(moved, task, GOOD, BAD)
    moved.adapters.start = start = moved.adapters.copied()
    texts = moved.texts_fingerprint()
    scores = iter([0.1, 0.6, 0.5, 0.55])
    config = ConsolidateConfig(updates=8, problems=8, group=4, lr=3e-4, keep_text=False)
    remedy = consolidate.build(config)
    assert remedy.end is not None
    report = remedy.end(ended(stage_of(moved, task), lambda *_: {"e": next(scores)}), Memory())
    assert isinstance(report, EndReport)
    figures = dict(report.figures)
    assert figures["updates"] == 8
    assert 0 < (figures["loss_last"] or 0) < 0.8 * (figures["loss_first"] or 0)
    assert (figures["without_text_before"], figures["with_text_before"]) == (0.1, 0.6)
    assert (figures["without_text_after"], figures["with_text_after"]) == (0.5, 0.55)
    assert report.text == seed_program(task)
    assert moved.adapters.start is start
    assert moved.texts_fingerprint() == texts
    moved.live.pop(task.name)
    report = remedy.end(ended(stage_of(moved, task)), Memory())
    assert isinstance(report, EndReport)
    assert report.figures == {"updates": 0.0}
    assert report.text is None
