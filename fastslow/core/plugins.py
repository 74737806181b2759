"""How a plug-in is declared and found: a function under a decorator, one per kind of plug-in.

The function takes one argument, annotated with the class of its parameters: that class is the
schema a configuration is checked against. `Definition` is what the decorator leaves; tasks,
remedies, signals, measures and trackers each have a subclass, which names the kind.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_type_hints

from fastslow.core.errors import ConfigError, FastSlowError, nearest
from fastslow.core.keys import Model, key

REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", re.ASCII)
"""`package.module:function`."""


class PluginConfig(Model):
    """Parameters of a plug-in. Subclass it; its fields are the schema YAML is checked against."""


class CustomUse(Model):
    """A plug-in of the user's own, wherever a configuration lists several kinds."""

    kind: Literal["custom"] = key(..., "name", "required")
    """Says that the code is the user's own."""
    use: str = key(..., "name", "required", pattern=REFERENCE.pattern)
    """`package.module:function`, importable where the run is started."""
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


D = TypeVar("D")
C = TypeVar("C", bound=PluginConfig)


def find(kind: type[D], use: str) -> D:
    """The definition of this kind that `package.module:function` names.

    Raises:
        FastSlowError: Of the kind's own class; the name is malformed, there is no such module,
            or it holds no such definition.
        Exception: Whatever a broken module raises, unchanged.
    """
    noun: str = kind.noun  # type: ignore[attr-defined]  # a Definition, or a TaskDefinition
    error: type[FastSlowError] = kind.error  # type: ignore[attr-defined]
    if not REFERENCE.fullmatch(use):
        raise error(f"{noun}: got {use!r}. Expected package.module:function.")
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
