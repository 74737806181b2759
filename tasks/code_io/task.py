"""What a program returns for an input, or an input for which it returns an output: CodeI/O."""

import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isclose
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, PositiveInt

from fastslow.core.errors import EvaluationError, TaskError
from fastslow.core.files import parse_json
from fastslow.core.types import Example, Grade
from fastslow.task.data_config import DataConfig
from fastslow.task.definition import Task, task
from fastslow.task.graders import CORRECT, quote
from fastslow.task.labelled import Labelled, without_copies
from fastslow.task.problems import quoted, read_items, text_of
from fastslow.task.sandbox.run import ProgramResult, run_program
from fastslow.task.splits import Splits, content_id
from fastslow.task.table_files import Row

TOLERANCE = 1e-3
"""Share by which numbers with a decimal point may differ. Source: `is_close` of CodeI/O."""
MOST_OBJECTS = 50
"""Objects of an answer that are looked at, from its end."""
HARNESS = """
import contextlib, io, json, sys, types
arguments = json.loads(sys.stdin.read())
program = sys.modules["program"] = types.ModuleType("program")
with contextlib.redirect_stdout(io.StringIO()):
    exec({code!r}, program.__dict__)
    returned = getattr(program, {name!r})(**arguments)
print(json.dumps(returned))
"""
"""Calls a program's function with what is read; what it prints itself is dropped."""

Direction = Literal["output", "input"]


@dataclass(frozen=True)
class Program:
    """A function with calls of it."""

    code: str
    name: str
    question: str
    """What it computes, and what goes in and out."""
    calls: tuple[tuple[dict[str, Any], Any], ...]
    """Arguments by name, and what is returned."""


class CodeIo(DataConfig):
    """Parameters of `code_io`. Splits part programs, and limits count examples."""

    predict: Literal["output", "input", "both"] = "both"
    """What is asked for. An input counts if the program returns the output for it."""
    per_program: PositiveInt = 2
    """Calls of one program that are asked about, in each direction; they share a cluster."""
    max_chars: PositiveInt = 4000
    """Programs whose question is longer are left out, and counted."""
    instruction: str = (
        'Work out what is asked for without running code. Give it as JSON, {"output": ...} or '
        '{"input": {...}}.'
    )
    """The seed text."""
    max_tokens: PositiveInt = Field(128, ge=8)
    """Limit of one completion, in tokens; reasoning needs more."""

    @property
    def variant(self) -> str:
        """One direction alone is another task than both."""
        return "" if self.predict == "both" else f"+{self.predict}"

    @property
    def directions(self) -> tuple[Direction, ...]:
        """What is asked for of each call."""
        return ("output", "input") if self.predict == "both" else (self.predict,)


@task(
    name="code_io",
    version=1,
    source="CodeI/O, arXiv 2502.07316 (ODC-BY), in the files or hub dataset named by `data`",
    runs_code=True,
)
def code_io(config: CodeIo) -> Task:
    """Output of a program, or an input that gives it, as JSON. Score in [0, 1], higher is better.

    Outputs are compared as JSON, an input by running the program in the sandbox.
    """
    programs: dict[str, Program] = {}

    def item(row: Row) -> Labelled:
        program = _program(row)
        programs[program.code] = program
        return Labelled(program.code, program.name, row.where, len(program.code))

    items, notes = read_items(config.tables("code_io"), item)
    for split, members in items.items():
        usable = [item for item in members if _is_usable(programs[item.text], config)]
        if dropped := len(members) - len(usable):
            notes.append(
                f"{dropped:,} of {len(members):,} programs of {split} left out: no call, more than "
                f"max_chars = {config.max_chars:,} characters, or, for inputs, packages beyond the "
                "standard library."
            )
        if not usable:
            raise TaskError(f"task code_io: no program of {split} can be used. {notes[-1]}")
        items[split] = usable
    splits = config.carved(without_copies(items, notes))
    parts = {
        split: tuple(
            example for item in members for example in _examples(item, programs[item.text], config)
        )[: config.limits[split]]
        for split, members in splits.items()
    }
    return Task(
        *Splits(**parts),
        instruction=config.instruction,
        grade=grade,
        max_tokens=config.max_tokens,
        notes=tuple(notes),
    )


def grade(example: Example, text: str) -> Grade:
    """Score 1 if an answer's last JSON object holds what is asked for, 0 otherwise."""
    asked = str(example.metadata["predict"])
    answer = _answer(text, asked)
    if answer is None:
        return Grade(0.0, f'Give one JSON object, {{"{asked}": ...}}; {quote(text)} holds none.')
    gold = _answer(example.answer, asked)
    assert gold is not None
    if is_same(answer[0], gold[0]):
        return Grade(1.0, CORRECT)
    if asked == "output":
        wrote = quote(json.dumps(answer[0]))
        return Grade(0.0, f"The output is {quote(json.dumps(gold[0]))}, not {wrote}.")
    return _grade_input(example, answer[0])


def _grade_input(example: Example, arguments: object) -> Grade:
    """The grade of arguments other than the ones the output is from: what do they give?"""
    if not isinstance(arguments, dict):
        return Grade(0.0, "The input is an object with a value for every name, not another value.")
    result = _returned(str(example.metadata["program"]), json.dumps(arguments))
    if result.ending != "done":
        return Grade(0.0, f"The program, given that input, was {result.ending}: {result.complaint}")
    expected = example.metadata["expected"]
    try:
        returned = parse_json(result.output)
    except ValueError:
        return Grade(0.0, "The program, given that input, returns nothing that is JSON.")
    if is_same(returned, expected):
        return Grade(1.0, CORRECT)
    wrong, right = quote(json.dumps(returned)), quote(json.dumps(expected))
    return Grade(0.0, f"The program, given that input, returns {wrong}, not {right}.")


@lru_cache(4096)
def _returned(source: str, stdin: str) -> ProgramResult:
    try:
        return run_program(source, stdin)
    except OSError as error:
        raise EvaluationError(f"grader: a program could not be run: {error}") from error


def is_same(first: object, second: object) -> bool:
    """Whether two JSON values are equal; numbers of which one has a decimal point nearly so."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_same(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(is_same, first, second))
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        if isinstance(first, int) and isinstance(second, int):
            return first == second
        return isclose(first, second, rel_tol=TOLERANCE)
    return type(first) is type(second) and first == second


def _answer(text: str, asked: str) -> tuple[Any] | None:
    """The value under `asked` in the last JSON object of a text that has it; None without one."""
    answer, end = None, 0
    for opening in list(re.finditer(rf'\{{\s*"{asked}"\s*:', text))[-MOST_OBJECTS:]:
        if opening.start() < end:
            continue  # within the one before
        try:
            _, after = json.JSONDecoder().raw_decode(text, opening.start())
            content = parse_json(text[opening.start() : after])
        except (ValueError, RecursionError):
            continue
        end = after
        answer = (content[asked],) if len(content) == 1 else None
    return answer


def _program(row: Row) -> Program:
    """The program of a row, in the format of CodeIO-PyEdu-Reasoning-Raw.

    Raises:
        TaskError: A column is missing or holds something else, its place first.
    """
    code, name = text_of(row, "refcode"), text_of(row, "funcname")
    question = f"{text_of(row, 'problem_description')}\n{text_of(row, 'io_requirements')}"
    calls = row.value("ios", "data")
    if not name.isidentifier() or not isinstance(calls, list):
        raise TaskError(
            f"{row.where}: 'funcname' should be the name of a function and 'ios' a list of "
            f"{{input, output}}, got {quoted(name)} and {quoted(calls)}. Correct the row."
        )
    return Program(code, name, question, tuple(_call(call, row.where) for call in calls))


def _call(call: object, where: str) -> tuple[dict[str, Any], Any]:
    """Arguments and result of a call: JSON values, or both as text that holds JSON."""
    arguments = result = None
    try:
        arguments, result = call["input"], call["output"]  # type: ignore[index]  # caught below
        if isinstance(arguments, str):
            arguments, result = parse_json(arguments), parse_json(result)
        json.dumps(result, allow_nan=False)
    except (KeyError, TypeError, ValueError):
        arguments = None
    if isinstance(arguments, dict):
        return arguments, result
    raise TaskError(
        f"{where}: each of 'ios' should hold an 'input', an object with the arguments, and an "
        f"'output', both JSON, got {quoted(call)}. Correct the row."
    )


def _is_usable(program: Program, config: CodeIo) -> bool:
    size = len(program.code) + len(program.question)
    if not program.calls or size > config.max_chars:
        return False
    return config.predict == "output" or set(_imports(program.code)) <= sys.stdlib_module_names


def _imports(code: str) -> Iterator[str]:
    """Top-level names of the modules that a program imports; an odd one if it cannot be read."""
    try:
        nodes: Sequence[ast.AST] = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "?"
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "?").partition(".")[0]


def _examples(item: Labelled, program: Program, config: CodeIo) -> Iterator[Example]:
    """The questions about a program's calls: after each output its input, if both are asked for."""
    source = HARNESS.format(code=program.code, name=program.name)
    ids = set[str]()
    for arguments, result in program.calls[: config.per_program]:
        values = {"input": arguments, "output": result}
        for predict in config.directions:
            shown = "output" if predict == "input" else "input"
            question = (
                f"{program.question}\nProgram:\n```python\n{program.code}\n```\n"
                f"{shown.capitalize()} of {program.name}: {json.dumps(values[shown])}\n"
                f"What is the {predict}?"
            )
            if (example_id := content_id(question)) in ids:
                continue  # another input with the same output
            ids.add(example_id)
            yield Example(
                id=example_id,
                question=question,
                answer=json.dumps({predict: values[predict]}),
                metadata={
                    "predict": predict,
                    "source": PurePath(item.where).name,
                    "program": source,
                    "expected": result,
                },
                cluster=content_id(program.code),
            )
