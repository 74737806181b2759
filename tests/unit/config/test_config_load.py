"""Reading, layering and checking configurations; messages word for word."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastslow.channels.slow.settings import GrpoConfig
from fastslow.config.loading import layers
from fastslow.config.loading.layers import MAX_BYTES, merge, read_layers
from fastslow.config.loading.load import (
    LoadedConfig,
    check_fragment,
    config_hash,
    dump_resolved,
    leaves,
    load_config,
    load_resolved,
)
from fastslow.config.loading.yaml_nodes import Node, Origin, compose
from fastslow.core.errors import ConfigError
from fastslow.core.files import open_regular
from fastslow.results.ablation import is_ablation, read_plan
from fastslow.task.definition import Task, TaskConfig, task
from tests.support.paths import ROOT

REPOSITORY = ROOT
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
SHELF = f"{__name__}:shelf"
Load = Callable[..., LoadedConfig]


class Shelf(TaskConfig):
    data: str | None = None
    """Where the books are."""
    books: int = 3
    """Books on it."""
    labels: tuple[str, ...] = ()
    """What the spines say."""
    boards: Literal[2, 3] = 2
    """Boards it has."""


@task(name="shelf", version=1, source="made here")
def shelf(config: Shelf) -> Task:
    """Never built in these tests."""
    raise NotImplementedError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write `run.yaml` in an empty working directory and load it."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str, *overrides: str) -> LoadedConfig:
        Path("run.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
        return load_config((Path("run.yaml"),), overrides)

    return write_and_load


@pytest.fixture
def refusal(load: Load) -> Callable[..., list[str]]:
    """The lines of the error that loading a text gives."""

    def lines(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value).splitlines()

    return lines


Refusal = Callable[..., list[str]]
WHOLE = "Expected a whole number >= 0 (seed)."
RUN = f"name: run\nstages:\n  - task: {SHELF}\n"


def test_three_mistakes_are_three_lines_with_file_line_and_advice(refusal: Refusal) -> None:
    text = RUN + "fast:\n  populaton: 2\nseed: first\nslow:\n  group: 1\n"
    assert refusal(text) == [
        "run.yaml:5: fast.populaton: unknown key, got 'populaton'. Did you mean 'population'?",
        "run.yaml:6: seed: wrong type, got 'first' (text). Expected a whole number >= 0 (seed).",
        "run.yaml:8: slow.group: out of range, got 1. Expected a whole number >= 2 (rollouts per "
        "problem).",
    ]


def test_rules_between_keys_are_checked_when_the_keys_are_right(refusal: Refusal) -> None:
    broken = "slow:\n  group: 6\n"
    assert refusal(RUN + broken) == [
        "run.yaml:5: slow.group: fast.population (K = 4) must divide slow.group (G = 6), so that "
        "every prompt gets the same number of rollouts. Known divisors of G: 1, 2, 3, 6.",
    ]
    (line,) = refusal(RUN + broken + "seed: first\n")
    assert line.startswith("run.yaml:6: seed: wrong type")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "lr: 1",
            "4: lr: unknown key, got 'lr'. It belongs at slow.lr or probe.lr or stages.<i>.lr.",
        ),
        (
            "slow.lr: 1",
            "4: slow.lr: unknown key. Dots belong to overrides; in a file, nest the keys.",
        ),
        ("seed: -1", f"4: seed: out of range, got -1. {WHOLE}"),
        ("seed: true", f"4: seed: wrong type, got true. {WHOLE}"),
        ("seed: '8'", f"4: seed: wrong type, got '8' (text). {WHOLE}"),
        ("seed: 0x1f", f"4: seed: wrong type, got '0x1f' (text). {WHOLE}"),
        ("seed: 1.5", f"4: seed: wrong type, got 1.5. {WHOLE}"),
        (
            "slow: {lr: .inf}",
            "4: slow.lr: wrong type, got '.inf' (text). Expected a number > 0 (1 / update).",
        ),
        (
            "slow: {kind: sft, group: 8}",
            "4: slow.group: unknown key here, got 'group'. It needs kind: grpo.",
        ),
        (
            "slow: {kind: sft, warmup: 1}",
            "4: slow.warmup: unknown key, got 'warmup'. Did you mean 'warmup_steps'?",
        ),
        (
            "slow: {kind: sft, rows_per_forward: 0}",
            "4: slow.rows_per_forward: out of range, got 0. Expected a whole number > 0 (rows).",
        ),
        (
            "slow: {kind: dpo}",
            "4: slow.kind: unknown word, got 'dpo' (text). Expected 'grpo', 'sft' or 'distill'.",
        ),
        ("slow: 5", "4: slow: wrong type, got 5. Expected a mapping of keys or null."),
        (
            "runs_dir: ''",
            "4: runs_dir: too short, got '' (text). Expected text, not empty (folder).",
        ),
        (
            "slow: {loss: cisp}",
            "4: slow.loss: unknown word, got 'cisp' (text). Expected 'cispo', 'grpo', 'dr_grpo' or "
            "'dapo'. Did you mean 'cispo'?",
        ),
        (
            "slow: {lora: {target_modules: 3}}",
            "4: slow.lora.target_modules: wrong type, got 3. Expected 'all-linear' or a list of "
            "text (module names).",
        ),
        (
            "slow: {lora: {target_modules: [q_proj, 3]}}",
            "4: slow.lora.target_modules.1: wrong type, got 3. Expected text.",
        ),
        (
            "tasks: {../up: {}}",
            "4: tasks.../up: not a usable name, got '../up'. Expected text (letters, digits, and "
            "- _ . : inside, at most 100).",
        ),
        (
            f"tasks:\n  {SHELF}:\n    params: {{books: many}}",
            "6: tasks.{}.params.books: wrong type, got 'many' (text). Expected a whole number.",
        ),
        (
            f"tasks:\n  {SHELF}:\n    params: {{bocks: 1}}",
            "6: tasks.{}.params.bocks: unknown key, got 'bocks'. Did you mean 'books'?",
        ),
        (
            f"tasks:\n  {SHELF}:\n    params: {{boards: two}}",
            "6: tasks.{}.params.boards: unknown word, got 'two' (text). Expected 2 or 3.",
        ),
        ("a: &x 3", "4: a: anchors are refused, got '&x'. Write the value where it is used."),
        ("a: *x", "4: a: aliases are refused, got '*x'. Write the value out."),
        (
            "a: !!python/name:os.system x",
            "4: a: tags are refused, got 'tag:yaml.org,2002:python/name:os.system'. Write the "
            "value alone; quotes make it text.",
        ),
        (
            "<<: {a: 1}",
            "4: merge keys (<<) are refused. Put the shared part in a file and extend it.",
        ),
        (
            "name: again",
            "4: name: duplicate key, it is set already on line 1. Keep one of the two.",
        ),
        ("[a]: 1", "4: a key must be a word, got a mapping or a list. Write a word."),
        ("---\na: 1", "4: a second document starts here, expected one. Remove the '---' line."),
        (
            "a: [1",
            "5: not valid YAML: while parsing a flow sequence expected ',' or ']', but got "
            "'<stream end>'. Correct this line.",
        ),
        ('seed: "\\0"', "4: seed: text holds a NUL character. Remove it."),
        ('seed: "\\ud800"', "4: seed: text holds half of a surrogate pair. Remove it."),
        ("seed: 1e999", "4: seed: the number 1e999 is too large, the limit is 2**63. Write less."),
        ("extends: 3", "4: extends: expected a path or a list of paths, relative to this file."),
    ],
)
def test_a_mistake_is_explained_in_one_line(refusal: Refusal, text: str, line: str) -> None:
    assert refusal(RUN + text + "\n")[0] == "run.yaml:" + line.replace("{}", SHELF)


def test_every_unknown_task_is_reported_where_it_is_named(refusal: Refusal) -> None:
    text = "name: run\nstages:\n  - {task: no_such_task}\ntasks:\n  b: {use: 'no.such:task'}\n"
    lines = refusal(text)
    assert lines[0].startswith("run.yaml:3: stages.0.task: task: no task.py for 'no_such_task' in ")
    assert lines[1] == (
        "run.yaml:5: tasks.b.use: task: no.such:task: no module 'no'. It must be importable: "
        "install it, or put its folder on PYTHONPATH."
    )
    assert len(lines) == 2


def test_required_keys_are_missed_at_the_section_that_lacks_them(refusal: Refusal) -> None:
    assert refusal("seed: 1\nstages:\n  - {cycles: 1}\n") == [
        "run.yaml:1: name: missing, and it has no default. Expected text (lower-case letters, "
        "digits, - and _; first a letter or digit; at most 64).",
        "run.yaml:3: stages.0.task: missing, and it has no default. Expected text (letters, "
        "digits, and - _ . : inside, at most 100).",
    ]


def test_a_rule_is_not_blamed_on_a_value_that_was_wrong_itself(refusal: Refusal) -> None:
    lines = refusal(RUN + "slow: {group: 6}\nfast: {population: three}\n")
    assert lines == [
        "run.yaml:5: fast.population: wrong type, got 'three' (text). "
        "Expected a whole number > 0 (prompts)."
    ]


def test_a_wrong_list_entry_does_not_shift_the_lines_of_the_others(refusal: Refusal) -> None:
    text = f"name: run\nstages:\n  - 7\n  - {{task: {SHELF}, cycles: 0}}\n"
    assert refusal(text) == [
        "run.yaml:3: stages.0: wrong type, got 7. Expected a mapping of keys.",
        "run.yaml:4: stages.1.cycles: out of range, got 0. Expected a whole number > 0 (cycles).",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=abc", f"seed: wrong type, got 'abc' (text). {WHOLE}"),
        ("slow.grup=1", "slow.grup: unknown key, got 'grup'. Did you mean 'group'?"),
        ("seed", "expected key=value, as in slow.lr=1e-4."),
        ("seed=", "no value. Write null for none, or '\"\"' for empty text."),
        ("stages.1.cycles=3", "expected a position from 0 to 0 in the list, got '1'."),
        (
            "data=there",
            "data: no task of this run would read it, got 'there' (text). "
            "Override tasks.x.params.data instead.",
        ),
    ],
)
def test_a_mistake_in_an_override_names_the_override(
    refusal: Refusal, override: str, line: str
) -> None:
    text = f"name: run\nstages: [task: x]\ntasks: {{x: {{use: '{SHELF}', params: {{data: d}}}}}}"
    assert refusal(text, override) == [f"override {override!r}: {line}"]


def test_overrides_are_plain_words_unless_they_open_like_yaml(load: Load) -> None:
    loaded = load(
        RUN,
        "slow.lr=1e-4",
        "data=/a path: with #signs",
        "stages.0.cycles=3",
        "slow.lora={rank: 2, target_modules: [q_proj]}",
        "tracking=null",
        "model.name='null'",
    )
    config = loaded.config
    assert config.slow is not None
    assert (config.slow.lr, config.data) == (1e-4, "/a path: with #signs")
    assert (config.stages[0].cycles, config.stages[0].task) == (3, SHELF)
    assert config.slow.lora.target_modules == ("q_proj",)
    assert (config.tracking, config.model.name) == (None, "null")


def test_words_and_numbers_are_those_of_yaml_1_2(load: Load) -> None:
    text = "tasks:\n  x:\n    use: {}\n    params: {{labels: [{}]}}\n"
    words = "no, on, Off, y, 010, 0o7, 0x1f, 1_000, 1:30, .inf, .nan, 2001-01-01, 'true', '1'"
    loaded = load(RUN + text.format(SHELF, words) + "slow: {lr: 1e-4}\nseed: 0\n")
    params = loaded.task_params["x"]
    assert isinstance(params, Shelf)
    assert params.labels == tuple(word.strip(" '") for word in words.split(","))
    assert loaded.config.slow is not None
    assert loaded.config.slow.lr == 1e-4


def test_extended_files_merge_depth_first_and_the_later_wins(load: Load) -> None:
    Path("low.yaml").write_text("seed: 1\nslow: {lr: 0.1, group: 4}\nname: low\n")
    Path("mid.yaml").write_text("extends: low.yaml\nslow: {lr: 0.2}\nstages: [{task: gone}]\n")
    Path("side.yaml").write_text("seed: 3\n")
    loaded = load(f"extends: [mid.yaml, side.yaml]\nname: run\nstages: [{{task: '{SHELF}'}}]\n")
    config = loaded.config
    assert isinstance(config.slow, GrpoConfig)
    assert (config.name, config.seed) == ("run", 3)
    assert (config.slow.lr, config.slow.group) == (0.2, 4)
    assert [stage.task for stage in config.stages] == [SHELF]
    assert loaded.sources["slow.lr"] == "mid.yaml:2"
    assert loaded.sources["slow.group"] == "low.yaml:2"
    assert set(loaded.layers) == {"run.yaml", "mid.yaml", "low.yaml", "side.yaml"}


def test_a_cycle_of_extends_names_the_chain(refusal: Refusal) -> None:
    Path("other.yaml").write_text("extends: run.yaml\n")
    assert refusal("extends: other.yaml\n") == [
        "other.yaml:1: extends: a cycle, got run.yaml -> other.yaml -> run.yaml. "
        "Break it at one of them."
    ]


def test_a_missing_extended_file_is_reported_where_it_is_named(refusal: Refusal) -> None:
    Path("laptop.yaml").write_text("")
    assert refusal("name: x\nextends:\n  - laptob.yaml\n  - no/such.yaml\n") == [
        "run.yaml:3: extends: cannot read laptob.yaml: no such file. Did you mean 'laptop.yaml'?",
        "run.yaml:4: extends: cannot read no/such.yaml: no such file, and no such folder.",
    ]


def test_a_run_is_made_of_no_more_than_64_files(refusal: Refusal) -> None:
    for level in range(80):
        Path(f"{level}.yaml").write_text(f"extends: [{level + 1}.yaml]\n")
    assert refusal("extends: 0.yaml\n") == [
        "62.yaml:1: extends: more than 64 files are extended. Use fewer."
    ]


def test_a_file_that_is_extended_again_and_again_is_read_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in range(40):
        Path(f"{level}.yaml").write_text(f"extends: [{level + 1}.yaml, {level + 1}.yaml]\n")
    Path("40.yaml").write_text("seed: 7\n")
    opened: list[Path] = []

    def note_and_open(path: Path) -> BinaryIO:
        opened.append(path)
        return open_regular(path)

    monkeypatch.setattr(layers, "open_regular", note_and_open)
    assert load(RUN + "extends: 0.yaml\n").config.seed == 7
    assert len(opened) == len(set(opened)) == 42


def test_a_file_that_is_no_text_or_too_large_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"seed: 1\nname: \xff\n")
    assert refusal("extends: bytes.yaml\n") == [
        "bytes.yaml:2: not UTF-8 text, got byte 0xff. Save the file as UTF-8."
    ]
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert refusal("extends: large.yaml\n") == [
        "large.yaml:1: larger than 1000000 bytes, too large for a configuration. Make it smaller."
    ]


@pytest.mark.parametrize(
    ("opener", "text"),
    [
        ("[", "nested deeper than 32 levels. Flatten it."),
        ("{a: ", "nested deeper than 32 levels. Flatten it."),
        ("- ", "nested deeper than 32 levels. Flatten it."),
        ("? ", "a key must be a word, got a mapping or a list. Write a word."),
    ],
)
def test_nesting_without_end_is_refused_quickly(refusal: Refusal, opener: str, text: str) -> None:
    assert refusal(opener * 100_000) == [f"run.yaml:1: {text}"]


def test_a_mapping_of_another_kind_replaces_instead_of_merging() -> None:
    def node(text: str) -> Node:
        return compose(text, Origin("file", 1))

    base = node("slow: {kind: grpo, lr: 1, lora: {rank: 8}}")
    assert merge(base, node("slow: {kind: sft, epochs: 2}")).plain() == {
        "slow": {"kind": "sft", "epochs": 2}
    }
    assert merge(base, node("slow: {kind: grpo, lora: {alpha: 1}}")).plain() == {
        "slow": {"kind": "grpo", "lr": 1, "lora": {"rank": 8, "alpha": 1}}
    }
    mine = node("a: {kind: custom, use: 'm:f', params: {x: 1}}")
    other = node("a: {kind: custom, use: 'm:g'}")
    assert merge(mine, other).plain() == other.plain()
    assert merge(mine, node("a: {params: {y: 2}}")).plain() == {
        "a": {"kind": "custom", "use": "m:f", "params": {"x": 1, "y": 2}}
    }


def test_the_source_of_a_default_is_that_of_its_kind(load: Load) -> None:
    grpo = load(RUN)
    sft = load(RUN, "slow.kind=sft")
    assert grpo.sources["slow.lr"] == "default: ours, docs/decisions.md"
    assert sft.sources["slow.lr"] == "default: TRL's PEFT guide: ten times its default"
    assert sft.sources["slow.lora.rank"] == "default: PEFT's default"
    assert sft.sources["slow.kind"] == "override"
    assert sft.sources.keys() == leaves(sft.config).keys()


def test_a_resolved_config_of_either_kind_is_read_back(load: Load, tmp_path: Path) -> None:
    for kind in ("grpo", "sft"):
        config = load(RUN, f"slow.kind={kind}").config
        (tmp_path / "config.json").write_text(dump_resolved(config))
        assert load_resolved(tmp_path / "config.json").config == config


def test_an_override_of_the_kind_drops_the_keys_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("slow: {kind: grpo, lr: 1}")
    root = read_layers((tmp_path / "a.yaml",), ("slow.kind=sft", "slow.epochs=2")).root
    assert root.plain() == {"slow": {"kind": "sft", "epochs": 2}}


names = st.text("xyz", min_size=1, max_size=1)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner),
    max_leaves=8,
)
mappings = st.dictionaries(names, trees)


def as_node(value: object) -> Node:
    return compose(json.dumps(value), Origin("file", 1))


def at(value: object, path: tuple[str, ...]) -> object:
    for part in path:
        assert isinstance(value, dict)
        value = value[part]
    return value


def paths(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not (isinstance(value, dict) and value):
        return [path]
    return [p for name, inner in value.items() for p in paths(inner, (*path, name))]


@settings(max_examples=50, deadline=None)
@given(mappings, mappings)
def test_merging_keeps_all_of_the_top_and_what_it_does_not_name(
    base: dict[str, object], top: dict[str, object]
) -> None:
    merged = merge(as_node(base), as_node(top)).plain()
    assert isinstance(merged, dict)
    assert set(merged) == set(base) | set(top)
    assert all(at(merged, path) == at(top, path) for path in paths(top) if at(top, path) != {})
    assert all(merged[name] == base[name] for name in set(base) - set(top))
    assert merge(as_node(base), as_node(base)).plain() == base


def only_config_errors(path: Path, overrides: tuple[str, ...] = ()) -> None:
    try:
        loaded = load_config((path,), overrides)
    except ConfigError as err:
        message = str(err)
    else:
        assert set(loaded.sources) == set(leaves(loaded.config))
        return
    assert message.encode()


fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


@fuzz
@given(text=st.text() | st.text("{}[]:-?&*!|>'\"%@`#, \n\tab01"), override=st.text(max_size=20))
def test_any_text_loads_or_is_a_config_error(tmp_path: Path, text: str, override: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    only_config_errors(path)
    only_config_errors(path, (override,))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.dictionaries(
        st.sampled_from(
            ["name", "seed", "stages", "tasks", "slow", "fast", "data", "model", "evaluation"]
        ),
        trees,
    )
)
def test_any_value_of_any_key_loads_or_is_a_config_error(
    tmp_path: Path, values: dict[str, object]
) -> None:
    path = tmp_path / "any.json"
    run = {"name": "run", "stages": [{"task": SHELF}]}
    path.write_text(json.dumps(run | values))
    only_config_errors(path)


def test_every_leaf_has_a_source(load: Load) -> None:
    text = f"name: run\nstages: [{{task: a}}]\ntasks:\n  a:\n    use: {SHELF}\n    params:\n"
    loaded = load(text + "      books: 4\ndata: here\n", "slow.lora.rank=4")
    assert set(loaded.sources) == set(leaves(loaded.config))
    assert loaded.sources["name"] == "run.yaml:1"
    assert loaded.sources["tasks.a.params.books"] == "run.yaml:7"
    assert loaded.sources["tasks.a.params.data"] == "run.yaml:8"
    assert loaded.sources["tasks.a.params.labels"] == "default: the task's card"
    assert loaded.sources["slow.lora.rank"] == "override"
    assert loaded.sources["slow.lora.alpha"] == "default: twice the rank, as is usual"
    assert all(source for source in loaded.sources.values())


def test_the_data_of_the_run_reaches_tasks_that_read_files_and_set_none(load: Load) -> None:
    text = f"tasks:\n  own:\n    use: {SHELF}\n    params: {{data: mine}}\n"
    loaded = load(RUN + text, "data=shared")
    assert loaded.task_params[SHELF] == Shelf(data="shared")
    assert loaded.task_params["own"] == Shelf(data="mine")
    params = {"data": "mine", "books": 3, "labels": [], "boards": 2}
    assert loaded.config.tasks["own"].params == params
    assert loaded.config.task_names == (SHELF, "own")


def test_config_json_reads_back_equal(load: Load, tmp_path: Path) -> None:
    loaded = load(RUN + "fast: null\n", "data=\U0001f600/é\x85", "slow.lr=1e-05")
    path = tmp_path / "config.json"
    path.write_text(dump_resolved(loaded.config))
    again = load_resolved(path)
    assert again.config == loaded.config
    assert again.task_params == loaded.task_params
    assert dump_resolved(again.config) == path.read_text()
    assert json.loads(path.read_text())["fast"] is None
    assert config_hash(again.config) == config_hash(loaded.config)


def test_the_hash_follows_results_and_not_places(load: Load) -> None:
    plain = config_hash(load(RUN).config)
    assert config_hash(load(RUN, "runs_dir=else", "tracking=null", "name=other").config) == plain
    assert config_hash(load(RUN, "seed=1").config) != plain
    assert config_hash(load(RUN, f"tasks={{'{SHELF}': {{params: {{books: 4}}}}}}").config) != plain


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_config_file_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    if path.parent.name == "base":
        check_fragment(path)
    elif is_ablation(path):
        read_plan(path)
    else:
        load_config((path,))


def test_a_fragment_is_still_checked(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(f"tasks: {{a: {{use: '{SHELF}'}}}}\n")
    check_fragment(path)
    for text, place in (
        ("seed: x", "seed"),
        ("slow: {group: 6}", "slow.group"),
        ("stages: [{task: no_such_task}]", "stages.0.task"),
        ("tasks: {a: {use: no_such_task}}", "tasks.a.use"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"part.yaml:1: {place}: "):
            check_fragment(path)


def test_shipped_configs_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config((Path("configs/tests/tiny.yaml"),)).config.name == "tiny"


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, fastslow.config.loading.load, fastslow.config.cost\n"
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'peft', 'dspy', 'mlflow', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
