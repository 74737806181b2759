"""The shape of the package: its folders, its size, and names that say what they hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

PACKAGE = ROOT / "fastslow"
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
FOLDERS = "api channels cli config core loop measure policy records results task"
TOP_LEVEL = {*FOLDERS.split(), "__init__.py", "__main__.py", "plugins.py", "py.typed"}
MAX_MODULE_LINES = 360
MAX_LINES = 51_280
EMPTY_NAMES = (
    "found made said wanted one other given kept known own shown done asked drawn left told of at "
    "here whole beside parts"
)
"""Names that do not say what they hold."""
KEYS_OF_FILES = {
    "fastslow/records/events.py": {"of", "at"},
    "fastslow/records/state.py": {"done"},
    "fastslow/results/ablation/records_file.py": {"at"},
    "fastslow/results/report/sections/plasticity.py": {"at"},
}
"""Fields that are keys of files made by earlier versions: a report still reads them."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for module, path in MODULES.items():
        yield module, ast.parse(path.read_text(encoding="utf-8"))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that binds a name: targets, fields, arguments, functions."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands alone: docstrings of modules, fields and all."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def test_the_walk_sees_every_way_to_bind_a_name() -> None:
    code = (
        "async def a(b, *c, d=0):\n    for e, (f, *g) in h: i: int = 0\n"
        "    try: (j := 1)\n    except E as k: l = [m for m in n]\n"
        "    with o as p: pass\n    match q:\n        case [r, *_] | {'s': r}: pass"
    )
    names = {name for _, name in bound_names(ast.parse(code))}
    assert names == set("abcdefgijklmpr")
    assert list(docstrings(ast.parse('"""One."""\nx = "two"\n"""Three."""'))) == [
        (1, "One."),
        (3, "Three."),
    ]


def test_names_say_what_they_hold() -> None:
    empty = [
        f"{module}:{line} {name}"
        for module, tree in trees()
        for line, name in bound_names(tree)
        if name in EMPTY_NAMES.split() and name not in KEYS_OF_FILES.get(module, ())
    ]
    assert empty == []


def test_docstrings_do_not_list_callers() -> None:
    lists = [
        f"{module}:{line}"
        for module, tree in trees()
        for line, text in docstrings(tree)
        if "Called by" in text
    ]
    assert lists == []


def test_no_module_is_longer_than_a_chapter() -> None:
    long = {module: lines_of(path) for module, path in MODULES.items()}
    assert {m: n for m, n in long.items() if n > MAX_MODULE_LINES} == {}


def test_the_package_does_not_outgrow_its_limit() -> None:
    assert sum(map(lines_of, MODULES.values())) <= MAX_LINES


def test_json_that_others_may_have_written_is_read_by_one_bounded_reader() -> None:
    """`core.files.read_json` stands pipes, nesting and numbers without end; `json` alone hangs."""
    assert [
        f"{module}:{number}"
        for module, path in MODULES.items()
        if module != "fastslow/core/files.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"json\.loads\(.*\.read_(text|bytes)\(", line)
    ] == []


def test_only_the_policy_touches_its_torch_model() -> None:
    outside = [module for module in MODULES if not module.startswith("fastslow/policy/")]
    uses = [
        f"{module}:{number}"
        for module in outside
        for number, line in enumerate(MODULES[module].read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bpolicy\.model(?!\w)", line)
    ]
    assert uses == []


def test_the_package_has_eleven_folders_and_nothing_loose() -> None:
    entries = {
        path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "shipped")
    }
    assert entries == TOP_LEVEL
