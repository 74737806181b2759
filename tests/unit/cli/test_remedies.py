"""`fastslow remedies`: the shipped ones and those in the folder where it is asked."""

from pathlib import Path

import pytest
import yaml

from fastslow.channels.slow.remedies.shipped import SHIPPED_REMEDIES
from fastslow.cli.main import main

REMEDY = '''
from pydantic import Field

from fastslow.plugins import Remedy, RemedyConfig, remedy


class Pull(RemedyConfig):
    rate: float = Field(gt=0)
    """How hard it pulls."""
    layers: tuple[str, ...] = ("all",)
    """Which layers."""


@remedy(name="{name}", source="mine")
def build(config: Pull) -> Remedy:
    """Pulls the weights back.

    By a share of them after every step.
    """
    return Remedy()
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a remedy `pull`."""
    (tmp_path / "remedies").mkdir()
    (tmp_path / "remedies" / "pull.py").write_text(REMEDY.format(name="pull"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["remedies", *words]) == 0
    return capsys.readouterr().out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["remedies", *words]) == 2
    return capsys.readouterr().err.strip()


def test_the_list_has_every_shipped_remedy_and_the_users_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines(capsys, "list")}
    for definition in SHIPPED_REMEDIES.values():
        first = definition.doc.strip().splitlines()[0]
        assert rows.pop(definition.name) == ["shipped", first]
    assert rows == {"pull": ["remedies/pull.py", "Pulls the weights back."]}


def test_without_a_folder_the_list_has_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(lines(capsys, "list")) == len(SHIPPED_REMEDIES)


def test_a_broken_file_is_listed_with_why_and_the_others_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "remedies" / "torn.py").write_text("\nx = (")
    (here / "remedies" / "named.py").write_text(REMEDY.format(name="otherwise"))
    (here / "remedies" / "My-own.py").write_text(REMEDY.format(name="my_own"))
    (here / "remedies" / "esc\x1b[31m.py").write_text("")
    (here / "remedies" / "_shared.py").write_text("raise AssertionError")
    own = lines(capsys, "list")[len(SHIPPED_REMEDIES) :]
    assert "\x1b" not in "".join(own)
    rows = {line.split()[0]: line for line in own}
    assert len(rows) == 5
    assert "BROKEN: " in rows["torn"]
    assert f"{here}/remedies/torn.py:2: remedy 'torn' cannot be loaded, got Syn" in rows["torn"]
    assert "BROKEN: " in rows["named"]
    assert "named 'named' as its path says, got ['otherwise']" in rows["named"]
    assert "BROKEN: remedy: got 'My-own'. Expected the name of a file in" in rows["My-own"]
    assert rows["pull"].endswith("remedies/pull.py         Pulls the weights back.")


def test_show_says_what_a_remedy_does_and_how_to_name_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(lines(capsys, "show", "pull"))
    assert text == (
        "pull: Pulls the weights back.\n\nBy a share of them after every step.\nsource: mine\n"
        "in a configuration: slow: {remedies: [{kind: custom, use: pull, params: {rate: …}}]}\n"
        "slow.adapter_policy: continue or merge-then-new or new-per-stage\n\n"
        "parameters\n  rate (a number > 0) required: How hard it pulls.\n"
        '  layers (a list of text) = ["all"]: Which layers.'
    )


@pytest.mark.parametrize("definition", SHIPPED_REMEDIES.values(), ids=lambda d: d.name)
def test_show_explains_every_shipped_remedy(
    here: Path, capsys: pytest.CaptureFixture[str], definition: object
) -> None:
    shipped = next(d for d in SHIPPED_REMEDIES.values() if d is definition)
    printed = lines(capsys, "show", shipped.name)
    assert printed[0] == f"{shipped.name}: {shipped.doc.strip().splitlines()[0]}"
    entry = next(line for line in printed if line.startswith("in a configuration: "))
    slow = yaml.safe_load(entry.removeprefix("in a configuration: "))["slow"]
    assert slow["remedies"][0]["kind"] == shipped.name
    names = [name for name in shipped.config_class.model_fields if name != "kind"]
    parameters = printed[printed.index("parameters") + 1 :]
    assert [line.split()[0] for line in parameters] == names or parameters == ["  none"]


def test_a_remedy_in_a_module_is_shown_with_its_reference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = lines(capsys, "show", "tests.support.remedies:idle")
    assert printed[0] == "idle: Has every hook; none does anything."
    use = '{kind: custom, use: "tests.support.remedies:idle"}'
    assert f"in a configuration: slow: {{remedies: [{use}]}}" in printed
    assert printed[-2:] == ["parameters", "  none"]


def test_a_file_of_a_shipped_name_is_shown_after_the_shipped_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "remedies" / "ewc.py").write_text(REMEDY.format(name="ewc"))
    printed = lines(capsys, "show", "ewc")
    uses = [line.partition("[")[2] for line in printed if line.startswith("in a configuration")]
    assert uses == ["{kind: ewc}]}", "{kind: custom, use: ewc, params: {rate: …}}]}"]


def test_a_name_that_is_not_there_is_refused_with_the_nearest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = f"is shipped, or in {here}/remedies."
    elsewhere = "One elsewhere is package.module:function."
    assert refusal(capsys, "show", "pul") == (
        f"remedies: no remedy 'pul' {places} Did you mean 'pull'? {elsewhere}"
    )
    assert "Did you mean 'replay'?" in refusal(capsys, "show", "reply")
    assert refusal(capsys, "show", "../remedies/pull").startswith(
        f"remedies: no remedy '../remedies/pull' {places}"
    )
    assert "no module 'no_such'" in refusal(capsys, "show", "no_such:pull")
    assert "expected a function decorated with @remedy" in refusal(capsys, "show", "json:loads")
