"""How a plug-in is declared and found: a function under a decorator, one per kind of plug-in.

The function takes one argument, annotated with the class of its parameters: that class is the
schema a configuration is checked against. `Definition` is what the decorator leaves; tasks,
remedies, signals, measures and trackers each have a subclass, which names the kind.

A lookup by name builds one path and loads one file; folders are read only when the name is missed.
Names are checked before any path is built, so a name can never leave its folder.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, get_type_hints

from fastslow.core.errors import ConfigError, FastSlowError, nearest
from fastslow.core.files import is_file
from fastslow.core.keys import Model, key
from fastslow.core.text import shorten

REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", re.ASCII)
"""`package.module:function`."""
FILE_NAME = re.compile(r"^[a-z0-9][a-z0-9_]*$", re.ASCII)
"""A plug-in of the user's own by the name of its file, which is its own name too."""
USE = re.compile(f"{FILE_NAME.pattern}|{REFERENCE.pattern}", re.ASCII)
"""Either form."""
MODULE_PATHS: dict[str, str] = {}
"""Path of every file that was loaded as a plug-in, by the name of its module."""


class PluginConfig(Model):
    """Parameters of a plug-in. Subclass it; its fields are the schema YAML is checked against."""


class CustomUse(Model):
    """A plug-in of the user's own, wherever a configuration lists several kinds."""

    kind: Literal["custom"] = key(..., "name", "required")
    """Says that the code is the user's own."""
    use: str = key(..., "name", "required", pattern=USE.pattern)
    """A file by its name, in `remedies/`, `signals/`, `measures/` or `trackers/` where the run is
    started; or `package.module:function`, importable there."""
    params: dict[str, Any] = key({}, "the plug-in's own", "the plug-in", validate_default=True)
    """Its parameters, checked against the class its function is annotated with."""


Product = TypeVar("Product")


@dataclass(frozen=True)
class Definition(Generic[Product]):
    """A plug-in: its function with name, source and parameter schema."""

    make: Callable[[Any], Product]
    name: str
    """Its name in records and reports."""
    source: str
    """The paper or person it comes from."""
    config_class: type[PluginConfig]
    doc: str

    noun: ClassVar[str] = "plug-in"
    """What users call this kind, as in `@noun`."""
    folder: ClassVar[str] = "plugins"
    """Where the user's own are found by name: `folder/NAME.py` in the working directory."""
    error: ClassVar[type[FastSlowError]] = ConfigError
    """Raised where one is not found."""

    @classmethod
    def declare(
        cls, base: type[PluginConfig], name: str, source: str
    ) -> Callable[[Callable[[Any], Product]], Self]:
        """The decorator that makes a definition of a function; see `parameter_class`."""
        return lambda function: cls(
            function,
            name,
            source,
            parameter_class(function, cls.noun, name, base),
            function.__doc__ or "",
        )

    def build(self, params: Mapping[str, Any] | PluginConfig | None = None) -> Product:
        """Make the remedy, signal, measure or tracker that it declares; None takes the defaults.

        Raises:
            pydantic.ValidationError: `params` is plain data that does not fit the schema.
        """
        is_checked = isinstance(params, PluginConfig)
        return self.make(params if is_checked else self.config_class(**dict(params or {})))


class Declared(Protocol):
    """What a decorator leaves of a function: a `Definition`, or that of a task."""

    noun: ClassVar[str]
    folder: ClassVar[str]
    error: ClassVar[type[FastSlowError]]

    @property
    def name(self) -> str:
        """Its name in records and reports."""
        ...


D = TypeVar("D", bound=Declared)
C = TypeVar("C", bound=PluginConfig)


def find(kind: type[D], use: str) -> D:
    """The definition of this kind that `use` names: a file by its name, or a function in a module.

    Raises:
        FastSlowError: Of the kind's own class; the name is malformed, there is no such file or
            module, it holds no such definition, or the file cannot be loaded.
        Exception: Whatever a broken module raises, unchanged.
    """
    if REFERENCE.fullmatch(use):
        return from_module(kind, use)
    if not FILE_NAME.fullmatch(use):
        raise kind.error(
            f"{kind.noun}: got {use!r}. Expected the name of a file in {kind.folder}/ (a-z, 0-9, "
            f"_) or package.module:function.{_suggestion(kind, use)}"
        )
    file = Path.cwd() / kind.folder / f"{use}.py"
    if not is_file(file):
        raise kind.error(
            f"{kind.noun}: no {use}.py in {file.parent}.{_suggestion(kind, use)} To add "
            f"it, write {kind.folder}/{use}.py; a function elsewhere is package.module:function."
        )
    return from_file(kind, file, use)


K = TypeVar("K", bound=Definition[Any])


def chosen(kind: type[K], shipped: Mapping[str, K], use: Any) -> tuple[K, PluginConfig]:
    """What declares a plug-in that a run lists, and its parameters: a shipped one by `use.kind`.

    Raises:
        FastSlowError: The user's own is not found; see `find`.
        pydantic.ValidationError: Its parameters do not fit its schema.
    """
    if not isinstance(use, CustomUse):
        return shipped[use.kind], use
    definition = find(kind, use.use)
    return definition, definition.config_class(**use.params)


def file_names(kind: type[Declared]) -> tuple[str, ...]:
    """Names of the files in the kind's folder of the working directory, sorted.

    Files that begin with `_` are left out: they help others. A name may be one that `find` refuses.
    """
    files = (Path.cwd() / kind.folder).glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def _suggestion(kind: type[Declared], use: str) -> str:
    return nearest(use, filter(FILE_NAME.fullmatch, file_names(kind)))


def from_file(kind: type[D], path: Path, name: str) -> D:
    """The definition in a file, which must be the only one of its kind there and be called `name`.

    The file is loaded under a module name of its own, once per process.

    Raises:
        FastSlowError: Of the kind's own class, with file and line; or what the file raises itself.
    """
    try:
        module = _module(path, f"fastslow_{kind.noun}_{name}")
    except FastSlowError:
        raise
    except (Exception, SystemExit) as error:  # a file of somebody else may raise anything
        words = f"{type(error).__name__}: {shorten(str(error), 200)}"
        raise kind.error(
            f"{_place(error, path)}: {kind.noun} {name!r} cannot be loaded, got {words}."
        ) from error
    definitions = [value for value in vars(module).values() if isinstance(value, kind)]
    if len(definitions) != 1 or definitions[0].name != name:
        names = [definition.name for definition in definitions]
        raise kind.error(
            f"{path}: expected exactly one @{kind.noun}, named {name!r} as its path says, got "
            f"{names}. Rename one of the two, and keep one {kind.noun} in a file."
        )
    return definitions[0]


@cache
def _module(path: Path, name: str) -> ModuleType:
    """Load a file as a module of that name, and of its path; one that fails leaves nothing."""
    module_name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    MODULE_PATHS[module_name] = str(path)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name], MODULE_PATHS[module_name]
        raise
    return module


def _place(error: BaseException, path: Path) -> str:
    """The file, with the last of its lines that the error went through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def from_module(kind: type[D], use: str) -> D:
    """The definition that `package.module:function` names.

    Raises:
        FastSlowError: Of the kind's own class; there is no such module, or no such definition.
        Exception: Whatever a broken module raises, unchanged.
    """
    noun, error = kind.noun, kind.error
    module_name, _, function = use.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        if err.name is None or not f"{module_name}.".startswith(f"{err.name}."):
            raise
        raise error(
            f"{noun}: {use}: no module {err.name!r}. It must be importable: install it, or put "
            "its folder on PYTHONPATH."
        ) from err
    definition = getattr(module, function, None)
    if not isinstance(definition, kind):
        names = [name for name, value in vars(module).items() if isinstance(value, kind)]
        raise error(
            f"{noun}: {use}: expected a function decorated with @{noun}, got "
            f"{type(definition).__name__}.{nearest(function, names)}"
        )
    return definition


def parameter_class(function: Callable[[Any], Any], noun: str, name: str, base: type[C]) -> type[C]:
    """The class that annotates the one argument of a plug-in's function.

    Raises:
        TypeError: There is not exactly one argument, or it is not annotated with a `base`.
    """
    hints = get_type_hints(function)
    hints.pop("return", None)
    classes = list(hints.values())
    if len(classes) != 1 or not issubclass(classes[0], base):
        raise TypeError(
            f"@{noun} {name}: {function.__name__} must take one argument annotated with a "
            f"{base.__name__} subclass, got {hints}."
        )
    config_class: type[C] = classes[0]
    return config_class
