"""The order in which a stage meets its training examples."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.config.loading.load import load_config
from fastslow.core.errors import TaskError
from fastslow.core.types import Example
from fastslow.loop.stream import Stream, require_problems, stage_stream
from fastslow.results.ablation import read_plan
from fastslow.task.registry import build_task
from tests.support.paths import ROOT


def stream(
    size: int, *, seed: int = 0, stage: int = 0, start: int = 0, problems: int = 3, pool: int = 4
) -> Stream:
    train = [Example(str(i), f"q{i}", "a") for i in range(size)]
    return Stream(
        "t",
        train,
        seed=seed,
        stage=stage,
        start=start,
        num_cycles=3,
        steps=2,
        problems=problems,
        pool=pool,
    )


def batches(source: Stream, cycles: int) -> list[tuple[str, ...]]:
    return [
        tuple(example.id for example in batch.examples)
        for cycle in range(cycles)
        for batch in source.anchor(cycle).batches
    ]


@given(size=st.integers(7, 40), seed=st.integers(0, 5))
def test_batches_are_distinct_problems_that_never_touch_the_pool(size: int, seed: int) -> None:
    source = stream(size, seed=seed)
    pool = {example.id for example in source.anchor(0).pool}
    assert len(pool) == 4
    for batch in batches(source, 6):
        assert len(set(batch)) == 3
        assert not pool & set(batch)


def test_no_problem_comes_again_before_the_others_had_their_turn() -> None:
    first_pass = [i for batch in batches(stream(4 + 12), 2) for i in batch]
    assert len(set(first_pass)) == 12
    second_pass = [i for batch in batches(stream(4 + 12), 4)[4:] for i in batch]
    assert set(second_pass) == set(first_pass)
    assert second_pass != first_pass


def test_an_anchor_depends_on_seed_and_position_alone() -> None:
    source = stream(40)
    late = source.anchor(2)
    assert stream(40).anchor(2) == late
    assert stream(40, seed=1).anchor(2) != late
    assert stream(40, stage=1).anchor(2).batches == late.batches


def test_a_task_that_is_visited_again_goes_on_with_its_own_pool() -> None:
    first, again = stream(40), stream(40, stage=2, start=6)
    assert again.pool == first.pool
    assert batches(again, 2) == batches(first, 5)[6:]


def test_examples_that_repeat_a_question_count_once() -> None:
    train = [Example(str(i), f"q{i // 2}", "a") for i in range(20)]
    source = Stream("t", train, seed=0, stage=0, start=0, num_cycles=1, steps=2, problems=3, pool=4)
    shown = {example.question for example in source.pool}
    asked = [example.question for example in source.anchor(0).examples]
    assert len(set(asked)) == len(asked)
    assert not shown & set(asked)


def test_all_arms_of_an_ablation_learn_from_the_same_problems_under_one_seed() -> None:
    plan = read_plan(ROOT / "configs/ablations/channels-demo.yaml")
    asked: dict[str, dict[str, list[str]]] = {}
    for run in plan.runs:
        config = run.config
        if config.seed != 1 or (config.fast is None and config.slow is None):
            continue
        for index, stage in enumerate(config.stages):
            task = build_task(stage.task, None, None)
            source = stage_stream(config, task, index, stage.cycles)
            ids = [
                e.id
                for c in range(stage.cycles)
                for b in source.anchor(c).batches
                for e in b.examples
            ]
            asked.setdefault(stage.task, {}).setdefault(run.arm, []).extend(ids)
    for task_name, of_arms in asked.items():
        firsts = {tuple(ids[:20]) for ids in of_arms.values()}
        assert len(firsts) == 1, task_name
        assert len(of_arms) >= 8


def test_the_anchor_set_is_the_problems_of_all_its_batches_once() -> None:
    anchor = stream(8).anchor(0)  # four problems for six places: one comes twice
    ids = [example.id for example in anchor.examples]
    assert len(ids) == len(set(ids))
    assert set(ids) == {example.id for batch in anchor.batches for example in batch.examples}


def test_too_little_data_is_refused_with_the_number_needed() -> None:
    with pytest.raises(TaskError, match=r"task t: 6 training examples .* Needs at least 7"):
        stream(6)


def test_ordered_examples_are_met_once_and_the_pool_moves_with_them() -> None:
    train = [Example(str(i), f"q{i}", "a") for i in range(4 + 18)]

    def ordered(size: int) -> Stream:
        return Stream(
            "t",
            train[:size],
            seed=3,
            stage=0,
            start=0,
            num_cycles=3,
            steps=2,
            problems=3,
            pool=4,
            is_ordered=True,
        )

    source = ordered(22)
    assert [i for batch in batches(source, 3) for i in batch] == [str(i) for i in range(4, 22)]
    pools = [[e.id for e in source.anchor(cycle).pool] for cycle in range(3)]
    assert pools == [[str(i) for i in range(first, first + 4)] for first in (0, 6, 12)]
    with pytest.raises(TaskError, match="met once; 22 are needed until the end of this visit"):
        ordered(21)


def test_a_drifting_task_is_met_in_its_order() -> None:
    task = build_task("w", "word_language", {"words": 80, "drift": "answers"})
    assert task.is_ordered
    answers = [example.answer for example in task.train]
    third = -(-len(answers) // 3)
    assert {len(answer) == 2 for answer in answers[2 * third :]} == {True}
    assert "français" in answers[third : 2 * third]
    assert "French" in answers[:third]
    assert {len(example.answer) for example in task.test} == {2}
    forms = build_task("w", "word_language", {"words": 80, "drift": "questions"})
    assert forms.version == "word_language@1+drift-questions"
    assert all("-" in example.question for example in (*forms.train[2 * third :], *forms.test))
    assert [e.answer for e in forms.test] == [
        e.answer for e in build_task("w", "word_language", {"words": 80}).test
    ]


SEQUENCE = (
    "name=sequence",
    "model.name=tiny-random",
    "stages=[{task: dated, cycles: 6}, {task: other, cycles: 1}]",
    "tasks.dated={use: word_language, params: {drift: answers}}",  # 156 examples
    "tasks.other.use=tests.support.toy_tasks:letters",
    "tasks.held.use=tests.support.toy_tasks:letters",
    "probe={task: held}",
    "cycle={optimizer_steps: 5, problems: 4, pool: 32}",
)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], None),
        (["tasks.other.params.train=5"], "task other: 5 training examples are too few"),
        (["tasks.held.params.train=3"], "task held: 3 training examples are too few"),
        (["cycle.schedule=fast_first"], "task dated: .* 272 are needed until"),
        (["evaluation.reoptimize=true"], "task dated: .* 172 are needed until"),
        (["evaluation.reoptimize=true", "fast=null"], None),
        (
            [
                "stages=[{task: dated, cycles: 2}, {task: dated, cycles: 2}]",
                "cycle.schedule=slow_first",
            ],
            "task dated: .* 192 are needed until",
        ),
        (
            ["tasks.held.params.train=3", "tasks.other.params.train=5"],
            "(?s)task other: 5 .*\ntask held: 3 ",
        ),
    ],
)
def test_what_any_phase_lacks_is_said_before_the_first(
    words: list[str], problem: str | None
) -> None:
    config = load_config((), [*SEQUENCE, *words]).config
    tasks = {
        name: build_task(name, use.use, use.params)
        for name, use in config.tasks.items()
        if name in (*config.task_names, "held")
    }
    if problem is None:
        require_problems(config, tasks)
        return
    with pytest.raises(TaskError, match=problem):
        require_problems(config, tasks)


def test_examples_that_repeat_a_question_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config((), SEQUENCE).config
    tasks = {name: build_task(name, use.use, use.params) for name, use in config.tasks.items()}
    train = tasks["other"].train[:40]
    twice = replace(tasks["other"], train=(*train, *(replace(e, id=f"{e.id}-2") for e in train)))
    require_problems(config, tasks | {"other": twice})
    assert caplog.messages == ["task other: 40 training examples repeat a question."]
