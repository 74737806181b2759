"""A verdict in words and as gate.json, and the proof that the files still give the same one.

`gate/gate.json` in the run folder holds the demands, every figure, and the SHA-256 of every
file that was read. It has no clock in it: the same files give the same bytes. Nothing else of the
folder is touched.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, parse_json, read_regular, write_file
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.policy.model_store import sha256_of
from fastslow.records.deployments import DEPLOYED_FILE
from fastslow.results.deploy.gate import GateOptions, GateVerdict, judge
from fastslow.results.deploy.standing import Standing
from fastslow.results.render.encoding import json_text
from fastslow.results.report.gate_rules import RuleResult

GATE_FILE = "gate/gate.json"
SCHEMA_VERSION = 2
"""Raised when a key of gate.json changes its meaning or goes. Losses of version 1 were since the
best of the stages since a task's own."""
READ_FILES = ("run.json", "scores.jsonl", "events.jsonl", DEPLOYED_FILE)
"""Files that a verdict is computed from."""
SHOWN = 20
"""Rules that hold, and notes, that a terminal gets at most; gate.json has all."""
MEANINGS = {
    "forgetting": "mean loss of earlier tasks since their own stage (-bwt_gem)",
    "task_forgetting": "loss since the task's own stage",
    "below_base": "loss since the untouched base",
    "against": "mean loss since the baseline",
    "task_against": "loss since the baseline",
    "min_score": "score",
}
"""Quantity that each rule compares."""


def verdict_text(verdict: GateVerdict) -> str:
    """The text of gate.json; docs/deploy.md describes it."""
    options = verdict.options
    data = {
        "schema_version": SCHEMA_VERSION,
        "verdict": "yes" if verdict.passed else "no",
        "failed": [_name(rule) for rule in verdict.failed],
        "compared": "upper ends of 95 % intervals" if options.strict else "estimates",
        "options": asdict(options),
        "rules": [{**asdict(rule), "compares": MEANINGS[rule.rule]} for rule in verdict.rules],
        "notes": list(verdict.notes),
        "run": _standing(verdict.standing),
        "stage_files": verdict.weights_seen,
        "baseline": None if verdict.baseline is None else _standing(verdict.baseline),
    }
    return json_text(data)


def write_verdict(run: Path, verdict: GateVerdict) -> Path:
    """Write gate.json, replacing an older one; `CheckpointError` if it cannot be written."""
    failure = "cannot be written, and without the file a verdict cannot be checked later"
    with disk_errors(run / GATE_FILE, failure, "judge again"):
        return write_file(run, GATE_FILE, verdict_text(verdict))


def recompute_verdict(run: Path) -> GateVerdict:
    """Judge again as gate.json says, and compare the result with it.

    Raises:
        CheckpointError: There is no gate.json, or the files do not give it any more.
        GateError: As `judge`.
    """
    path = run / GATE_FILE
    try:
        content = read_regular(path)
        before: dict[str, Any] = parse_json(content)
        options = TypeAdapter(GateOptions).validate_python(before["options"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {type(error).__name__}: {error}. Write it with: "
            f"fastslow gate {run}"
        ) from error
    verdict = judge(run, options)
    text = verdict_text(verdict)
    if text.encode() != content:
        after = json.loads(text)
        differing = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        raise CheckpointError(
            f"{path}: not what the files say, it differs in {', '.join(differing) or 'layout'}; "
            f"the files say {after['verdict']}. Records, stage files or gate.json were changed, "
            f"or another version wrote it; judge again with: fastslow gate {run}"
        )
    return verdict


def shown_rules(verdict: GateVerdict) -> list[RuleResult]:
    """Rules that failed, and of others the mean's and the nearest to their limits; in order."""

    def room(rule: RuleResult) -> tuple[bool, float]:
        above = rule.value - rule.limit
        return rule.task is not None, above if rule.rule == "min_score" else -above

    nearest = sorted((rule for rule in verdict.rules if rule.passed), key=room)[:SHOWN]
    return [rule for rule in verdict.rules if not rule.passed or rule in nearest]


def verdict_lines(verdict: GateVerdict) -> Iterator[str]:
    """The verdict for a terminal, safe to print: a sentence, a line per rule, notes."""
    failed, rules = verdict.failed, verdict.rules
    standing = verdict.standing
    answer = (
        f"NO, {len(failed)} of {len(rules)} rules failed" if failed else "YES, every rule holds"
    )
    yield (
        f"gate: {answer}; {shorten(standing.run, 120)}, policy "
        f"after stage {standing.row} of {len(standing.stages)}; compared: "
        + ("upper ends of the 95 % intervals" if verdict.options.strict else "estimates")
    )
    listed = shown_rules(verdict)
    for rule in listed:
        yield f"  {'ok  ' if rule.passed else 'FAIL'} {_line(rule)}"
    if more := len(rules) - len(listed):
        yield f"  ok   {more} more rules, further from their limits; all are in {GATE_FILE}"
    losses = [rule for rule in rules if rule.passed and rule.rule != "min_score"]
    excess = [rule.high for rule in losses if rule.high is not None and rule.high > rule.limit]
    if excess and not verdict.options.strict:
        most = max(excess)
        yield (
            f"  note: {len(excess)} of the rules that hold do so by their estimates alone; with so "
            f"few examples a loss of up to {most:.3f} is not excluded (--strict demands that it is)"
        )
    for note in verdict.notes[:SHOWN]:
        yield f"  note: {shorten(note, 500)}"
    if (more := len(verdict.notes) - SHOWN) > 0:
        yield f"  note: {more} more notes are in {GATE_FILE}"
    yield f"  note: adapter and prompts of the stage: {verdict.weights_seen}"


def _line(rule: RuleResult) -> str:
    sign = ">=" if rule.rule == "min_score" else "<="
    low, high = ("-" if end is None else f"{end:+.3f}" for end in (rule.low, rule.high))
    detectable = ""
    if rule.smallest_detectable is not None:
        detectable = f", smallest detectable {rule.smallest_detectable:.3f}"
    return (
        f"{shorten(_name(rule), 140)}: {rule.value:+.3f} [{low}, {high}] {sign} {rule.limit:.3f} "
        f"({rule.limit_from}); {MEANINGS[rule.rule]}; n = {rule.n}{detectable}"
    )


def _name(rule: RuleResult) -> str:
    return rule.rule if rule.task is None else f"{rule.rule} {rule.task}"


def _standing(standing: Standing) -> dict[str, Json]:
    files = [standing.path / name for name in READ_FILES]
    return {
        "run": standing.run,
        "config_hash": standing.config_hash,
        "row": standing.row,
        "stages": list(standing.stages),
        "weights": {task.task: task.weights for task in standing.tasks},
        "texts": {task.task: task.text for task in standing.tasks},
        "scores": {task.task: task.now.score for task in standing.tasks},
        "files": {file.name: sha256_of(file) for file in files if file.is_file()},
    }
