"""Plug-ins of the user's own in a configuration: found, checked where written, completed."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt

from fastslow.channels.slow.remedies.base import RemedyDefinition
from fastslow.config.loading import load as load_module
from fastslow.config.loading import plugins
from fastslow.config.loading.load import LoadedConfig, dump_resolved, leaves, load_config
from fastslow.config.loading.reference import model_keys
from fastslow.config.models import RunConfig
from fastslow.core.errors import ConfigError
from fastslow.core.keys import Model, key
from fastslow.core.plugins import CustomUse, Definition, PluginConfig
from fastslow.core.tracker import TrackerDefinition
from fastslow.measure.base import MeasureDefinition
from fastslow.policy.signals import SignalDefinition
from fastslow.task.definition import Task, TaskConfig, task

HERE = __name__
LETTERS = f"{HERE}:letters"


class Knobs(PluginConfig):
    rate: float = Field(0.1, gt=0)
    """How fast."""
    layers: tuple[str, ...] = ("all",)
    """Which layers."""


@dataclass(frozen=True)
class GadgetDefinition(Definition[str]):
    noun: ClassVar[str] = "gadget"


gadget = GadgetDefinition(lambda knobs: f"{knobs.rate}", "gadget", "made here", Knobs, "")
other_kind = Definition(lambda knobs: None, "other", "made here", Knobs, "")


class Built(Model):
    """A gadget that is shipped."""

    kind: Literal["built"] = key(..., "name", "required")
    """Which gadget."""
    size: PositiveInt = key(1, "units", "made here")
    """How large."""


class RunWithGadgets(RunConfig):
    gadgets: tuple[Annotated[Built | CustomUse, Field(discriminator="kind")], ...] = key(
        (), "gadgets", "none"
    )
    """Some gadgets."""
    spare: CustomUse | None = key(None, "gadget", "none")
    """One more."""


NOTHING: dict[type[Definition[Any]], Definition[Any]] = {
    kind: kind(lambda knobs: None, "nothing", "made here", Knobs, "")
    for kind in plugins.PLACES.values()
}
remedy = NOTHING[RemedyDefinition]
signal = NOTHING[SignalDefinition]
measure = NOTHING[MeasureDefinition]
tracker = NOTHING[TrackerDefinition]


@task(name="letters", version=1, source="made here")
def letters(config: TaskConfig) -> Task:
    """Never built in these tests."""
    raise NotImplementedError


Load = Callable[..., LoadedConfig]
Refusal = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a run with gadgets, written from line 3 of `run.yaml` on."""
    places = {("gadgets", "*"): GadgetDefinition, ("spare",): GadgetDefinition}
    monkeypatch.setattr(plugins, "PLACES", places)
    monkeypatch.setattr(plugins, "RunConfig", RunWithGadgets)
    monkeypatch.setattr(load_module, "RunConfig", RunWithGadgets)
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str, *overrides: str) -> LoadedConfig:
        head = f"name: run\nstages: [{{task: '{LETTERS}'}}]\n"
        Path("run.yaml").write_text(head + textwrap.dedent(text), encoding="utf-8")
        return load_config((Path("run.yaml"),), overrides)

    return write_and_load


@pytest.fixture
def refusal(load: Load) -> Refusal:
    """The lines of the error that loading a text gives."""

    def lines(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value).replace(HERE, "HERE").splitlines()

    return lines


def written(params: str, use: str = f"{HERE}:gadget") -> str:
    return f"gadgets:\n  - {{kind: built, size: 2}}\n  - kind: custom\n    use: '{use}'\n{params}"


def test_parameters_are_completed_and_every_value_says_where_it_is_from(load: Load) -> None:
    loaded = load(
        written("    params:\n      rate: 2\n") + f"spare: {{kind: custom, use: {HERE}:gadget}}\n"
    )
    config = loaded.config
    assert isinstance(config, RunWithGadgets)
    built, custom = config.gadgets
    assert built == Built(kind="built", size=2)
    assert isinstance(custom, CustomUse)
    assert custom.params == {"rate": 2.0, "layers": ["all"]}
    assert config.spare is not None
    assert config.spare.params == {"rate": 0.1, "layers": ["all"]}
    assert loaded.sources["gadgets.1.params.rate"] == "run.yaml:8"
    assert loaded.sources["gadgets.1.params.layers.0"] == "default: the plug-in"
    assert loaded.sources["spare.params.rate"] == "default: the plug-in"
    assert loaded.sources.keys() == leaves(config).keys()
    assert GadgetDefinition.build(gadget, custom.params) == "2.0"


def test_the_completed_configuration_is_read_back(load: Load, tmp_path: Path) -> None:
    config = load(written("")).config
    (tmp_path / "config.json").write_text(dump_resolved(config))
    assert load_config((tmp_path / "config.json",)).config == config


@pytest.mark.parametrize(
    ("params", "line"),
    [
        (
            "    params:\n      rat: 1",
            "8: gadgets.1.params.rat: unknown key, got 'rat'. Did you mean 'rate'?",
        ),
        (
            "    params: {layers: all}",
            "7: gadgets.1.params.layers: wrong type, got 'all' (text). Expected a list of text.",
        ),
        (
            "    params: {rate: 0}",
            "7: gadgets.1.params.rate: out of range, got 0. Expected a number > 0.",
        ),
        (
            "    params: 3",
            "7: gadgets.1.params: wrong type, got 3. Expected a mapping of keys (the plug-in's "
            "own).",
        ),
        (
            "    parms: {}",
            "7: gadgets.1.parms: unknown key, got 'parms'. Did you mean 'params'?",
        ),
    ],
)
def test_a_wrong_parameter_is_reported_where_it_is_written(
    refusal: Refusal, params: str, line: str
) -> None:
    assert refusal(written(params)) == [f"run.yaml:{line}"]


def test_a_wrong_parameter_in_an_override_names_the_override(refusal: Refusal) -> None:
    assert refusal(written(""), "gadgets.1.params.rate=fast") == [
        "override 'gadgets.1.params.rate=fast': gadgets.1.params.rate: wrong type, got 'fast' "
        "(text). Expected a number > 0."
    ]


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (
            f"{HERE}:gadgt",
            "gadget: HERE:gadgt: expected a function decorated with @gadget, got NoneType. "
            "Did you mean 'gadget'?",
        ),
        (
            f"{HERE}:other_kind",
            "gadget: HERE:other_kind: expected a function decorated with @gadget, got Definition. "
            "Known: gadget.",
        ),
        (
            "no.such:gadget",
            "gadget: no.such:gadget: no module 'no'. It must be importable: install it, or put "
            "its folder on PYTHONPATH.",
        ),
        (
            "gad/get",
            "not of the expected form, got 'gad/get' (text). Expected text "
            "(name of a file of yours, or package.module:function).",
        ),
    ],
)
def test_a_plug_in_that_is_not_found_is_reported_at_its_name(
    refusal: Refusal, use: str, text: str
) -> None:
    assert refusal(written("", use)) == [f"run.yaml:6: gadgets.1.use: {text}"]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            "{kind: biult}",
            "kind: unknown word, got 'biult' (text). Expected 'built' or 'custom'. "
            "Did you mean 'built'?",
        ),
        ("{size: 1}", "kind: missing, and it has no default. Expected 'built' or 'custom'."),
        ("{kind: built, use: a}", "use: unknown key here, got 'use'. It needs kind: custom."),
        (
            "{kind: custom}",
            "use: missing, and it has no default. Expected text (name of a file of yours, or "
            "package.module:function).",
        ),
    ],
)
def test_an_entry_of_a_list_of_several_kinds_is_checked_as_its_kind(
    refusal: Refusal, entry: str, line: str
) -> None:
    assert refusal(f"gadgets:\n  - {entry}\n") == [f"run.yaml:4: gadgets.0.{line}"]


def test_the_reference_lists_the_keys_of_every_kind_in_a_list() -> None:
    keys = [key for key in model_keys(RunWithGadgets) if key.pattern[0] == "gadgets"]
    assert [(key.name, key.type, key.kinds) for key in keys] == [
        ("gadgets", "a list", ()),
        ("gadgets.<i>.kind", "'built' or 'custom'", ()),
        ("gadgets.<i>.size", "a whole number > 0", ("built",)),
        (
            "gadgets.<i>.use",
            "text (name of a file of yours, or package.module:function)",
            ("custom",),
        ),
        ("gadgets.<i>.params", "a mapping of keys", ("custom",)),
    ]
    assert [key.default for key in keys] == ["", None, "1", None, "{}"]


@pytest.mark.parametrize(
    ("text", "path", "use"),
    [
        ("slow: {{remedies: [{}]}}", "slow.remedies.0", "remedy"),
        (
            "evaluation: {{signals: [{{kind: prompt_length}}, {}]}}",
            "evaluation.signals.1",
            "signal",
        ),
        ("evaluation: {{measures: [{}]}}", "evaluation.measures.0", "measure"),
        ("tracking: {}", "tracking", "tracker"),
        ("tracking: [{{kind: wandb}}, {}]", "tracking.1", "tracker"),
    ],
)
def test_every_place_takes_plug_ins_of_its_own_kind(
    tmp_path: Path, text: str, path: str, use: str
) -> None:
    def load(name: str, params: str) -> LoadedConfig:
        entry = f"{{kind: custom, use: '{HERE}:{name}', params: {params}}}"
        stages = f"name: run\nstages: [{{task: '{LETTERS}'}}, {{task: b}}]\n"
        tasks = f"tasks: {{b: {{use: '{LETTERS}'}}}}\n"
        (tmp_path / "run.yaml").write_text(stages + tasks + text.format(entry))
        return load_config((tmp_path / "run.yaml",))

    config = load(use, "{rate: 2}").config
    assert leaves(config)[f"{path}.params.rate"] == 2
    assert leaves(config)[f"{path}.params.layers.0"] == "all"
    with pytest.raises(ConfigError, match=rf"run.yaml:4: {path}.params.rat: unknown key"):
        load(use, "{rat: 2}")
    with pytest.raises(ConfigError, match=rf"run.yaml:4: {path}.use: {use}: .*got GadgetDef"):
        load("gadget", "{}")


OWN_REMEDY = """
from fastslow.plugins import Remedy, RemedyConfig, remedy

class Knobs(RemedyConfig):
    rate: float = 0.1
    adapter_policies = ("continue",)
    why_not = "pulls towards the same weights in every stage"

@remedy(name="own", source="mine")
def build(config: Knobs) -> Remedy:
    return Remedy()
"""


def test_a_plug_in_is_named_by_its_file_and_checked_where_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("remedies").mkdir()
    Path("remedies/own.py").write_text(OWN_REMEDY)
    Path("remedies/torn.py").write_text("x = (")

    def load(use: str, params: str = "{}") -> LoadedConfig:
        stages = f"name: run\nstages: [{{task: '{LETTERS}'}}, {{task: b}}]\n"
        tasks = f"tasks: {{b: {{use: '{LETTERS}'}}}}\nslow:\n  remedies:\n"
        entry = f"    - kind: custom\n      use: {use}\n      params: {params}\n"
        Path("run.yaml").write_text(stages + tasks + entry)
        return load_config((Path("run.yaml"),))

    config = load("own").config
    assert leaves(config)["slow.remedies.0.use"] == "own"
    assert leaves(config)["slow.remedies.0.params.rate"] == 0.1
    Path("config.json").write_text(dump_resolved(config))
    assert load_config((Path("config.json"),)).config == config
    for use, params, mistake in [
        ("own", "{rat: 2}", "8: slow.remedies.0.params.rat: unknown key, got 'rat'. Did you mean"),
        ("ownn", "{}", f"7: slow.remedies.0.use: remedy: no ownn.py in {tmp_path}/remedies. Did"),
        ("torn", "{}", f"7: slow.remedies.0.use: {tmp_path}/remedies/torn.py:1: remedy 'torn' ca"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(use, params)
        assert str(caught.value).startswith(f"run.yaml:{mistake}")
    load("own")
    with pytest.raises(ConfigError) as caught:
        load_config((Path("run.yaml"),), ["slow.adapter_policy=new-per-stage"])
    assert str(caught.value) == (
        "run.yaml:7: slow.remedies.0.use: own pulls towards the same weights in every stage, which "
        "does not go with slow.adapter_policy (new-per-stage). Set that to continue, or remove own "
        "from slow.remedies."
    )


def test_the_mistakes_of_all_plug_ins_come_together(refusal: Refusal) -> None:
    lines = refusal(written("    params: {a: 1, b: 2}\n") + "spare: {kind: custom, use: 'a:b'}\n")
    assert [line.split(": ")[1] for line in lines] == [
        "gadgets.1.params.a",
        "gadgets.1.params.b",
        "spare.use",
    ]
