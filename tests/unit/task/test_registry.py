"""Tasks are found by name, in the working directory before the shipped copies."""

import sys
from pathlib import Path

import pytest

from fastslow.core.errors import TaskError
from fastslow.task.registry import build_task, find_task, shipped_root, task_folder, task_names

SOURCE = '''
from fastslow.task.graders import exact_match
from fastslow.task import Task, TaskConfig, task
from fastslow.core.types import Example


class Config(TaskConfig):
    """Parameters."""

    answer: str = "yes"
    """Every answer."""


@task(name="{name}", version=1, source="{source}")
def build(config: Config) -> Task:
    """A task."""
    train, validation, test = ((Example(s, s, config.answer),) for s in "abc")
    return Task(train, validation, test, "Answer.", exact_match, 4)
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_task(here: Path, name: str, source: str | None = None) -> Path:
    file = here / "tasks" / name / "task.py"
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE.format(name=name, source="here") if source is None else source)
    return file


def test_a_task_of_the_working_directory_is_built_by_its_folder_name(here: Path) -> None:
    write_task(here, "mine")
    built = build_task("again", "mine", {"answer": "no"})
    assert (built.name, built.version, built.test[0].answer) == ("again", "mine@1", "no")
    assert build_task("mine", None, None).test[0].answer == "yes"
    assert "mine" in task_names()


def test_shipped_tasks_are_found_from_any_folder(here: Path) -> None:
    assert not list(here.iterdir())
    assert "country_continent" in task_names()
    assert task_folder("country_continent") == shipped_root() / "tasks" / "country_continent"
    assert find_task("country_continent").name == "country_continent"


def test_the_working_directory_comes_before_the_shipped_copy(here: Path) -> None:
    write_task(here, "country_continent")
    assert find_task("country_continent").source == "here"


def test_a_definition_is_loaded_once_and_tells_its_folder_apart(here: Path) -> None:
    write_task(here, "mine")
    first = find_task("mine")
    assert find_task("mine") is first
    other = here / "other"
    file = write_task(other, "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(other)
        second = find_task("mine")
    assert second is not first
    assert second.config_class is not first.config_class
    assert sys.modules[second.config_class.__module__].__file__ == str(file)
    assert find_task("mine") is first


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "", "Mine", "a.b", "a:", ":a", "/etc", "a\n", "ü"]
)
def test_a_malformed_name_is_refused_before_any_path_is_built(here: Path, name: str) -> None:
    file = here / "up" / "task.py"
    file.parent.mkdir()
    file.write_text("raise AssertionError")
    (here / "tasks").mkdir()
    with pytest.raises(TaskError, match=r"Expected the name of a folder under tasks/"):
        find_task(name)


def test_a_miss_names_the_folders_searched_and_the_nearest_task(here: Path) -> None:
    write_task(here, "arithmetic")
    with pytest.raises(TaskError) as caught:
        find_task("arithmetik")
    message = str(caught.value)
    assert message.startswith(f"task: no task.py for 'arithmetik' in {here / 'tasks'}, ")
    assert "Did you mean 'arithmetic'?" in message
    assert message.endswith("To add it, write tasks/arithmetik/task.py.")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ZeroDivisionError('mine')", "ZeroDivisionError: mine"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_broken_task_is_named_with_its_line_and_leaves_no_module(
    here: Path, code: str, words: str
) -> None:
    file = write_task(here, "broken", f"\n{code}")
    before = set(sys.modules)
    with pytest.raises(TaskError) as caught:
        find_task("broken")
    message = str(caught.value)
    assert message.startswith(f"{file}:2: task 'broken' cannot be loaded, got {words}")
    assert {name for name in set(sys.modules) - before if "broken" in name} == set()


def test_a_broken_task_beside_it_does_not_stop_another(here: Path) -> None:
    write_task(here, "broken", "raise ZeroDivisionError")
    write_task(here, "mine")
    assert find_task("mine").name == "mine"


@pytest.mark.parametrize(
    ("source", "got"),
    [
        ("", r"\[\]"),
        (SOURCE.format(name="other", source=""), r"\['other'\]"),
        (SOURCE.format(name="mine", source="") + "\nalso = task(name='two', version=1, "
         "source='')(build.build_task)\n", r"\['mine', 'two'\]"),
    ],
)  # fmt: skip
def test_a_file_holds_exactly_the_task_of_its_folder(here: Path, source: str, got: str) -> None:
    write_task(here, "mine", source)
    with pytest.raises(TaskError, match=f"expected exactly one @task, named 'mine'.*got {got}"):
        find_task("mine")


def test_an_importable_module_is_reached_by_reference(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "outside_tasks.py").write_text(SOURCE.format(name="outside", source="there"))
    monkeypatch.syspath_prepend(here)
    assert find_task("outside_tasks:build").source == "there"
    with pytest.raises(TaskError, match="expected a function decorated with @task, got Model"):
        find_task("outside_tasks:Config")
    with pytest.raises(TaskError, match=r"got NoneType\. Did you mean 'build'\?"):
        find_task("outside_tasks:biuld")


@pytest.mark.parametrize("reference", ["no_such_pkg:f", "no_such_pkg.sub:f", "json.no_such:f"])
def test_a_module_that_cannot_be_imported_is_named(reference: str) -> None:
    with pytest.raises(TaskError, match=r"no module '.*no_such.*PYTHONPATH"):
        find_task(reference)


def test_a_module_that_lacks_another_raises_its_own_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "needy_tasks.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(here)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_task("needy_tasks:build")
