"""Every other command, killed and given again."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.killing.folders import content, digests, faults, tracked
from benchmarks.killing.process import Child, in_fork, last_line
from benchmarks.killing.stores import new_store, old_store, write_wheel
from benchmarks.killing.train import differences, run_of
from fastslow.core.seeds import named_random
from fastslow.policy import model_store

ABLATION = """
name: arms
base: {place}/killed.yaml
seeds: [0, 1]
common:
  fast: null
  slow: {{kind: sft, lr: 0.02}}
  tracking: null
  probe: null
  stages: [{{task: first, cycles: 1}}]
  evaluation: {{neutral: false, geometry: false, proxies: false, channel_split: false}}
arms:
  trained: {{}}
  base: {{slow: null}}
"""


@dataclass(frozen=True)
class Kind:
    """A command to be killed, in the folder `{place}` of a finished run `{run}`."""

    words: str
    first: str = ""
    """A command that comes before it, undisturbed."""
    store: str = ""
    """MLflow store of `Commands` that lies there instead of the run's, and is compared."""
    removed: tuple[str, ...] = ()
    """Files of the run that are not there yet; patterns."""
    result: str = ""
    """What is whole once it is there, and is not made a second time; a pattern."""
    has_children: bool = False
    """Whether it starts processes, which are killed with it."""


REPORT = ("report.*", "scores.csv", "figures")
KINDS = {
    "gate": Kind("gate {run}"),
    "gate --recompute": Kind("gate {run} --recompute", first="gate {run}"),
    "report": Kind("report {run}", removed=REPORT),
    "report --paper": Kind("report {run} --paper {place}/paper"),
    "export": Kind("export {run}", result="export/[!.]*"),
    "export --merge": Kind("export {run} --merge", result="export/[!.]*"),
    "rollback": Kind("rollback {run} --to 1"),
    "push": Kind("push {run} file://{place}/published"),
    "conversion": Kind("models fetch killed"),
    "track": Kind("track {run}", store="new"),
    "migration": Kind("track {run}", store="old"),
    "ablate": Kind("ablate {place}/arms.yaml --workers 2", has_children=True),
}
"""By name. `conversion` is that of a GGUF file, `migration` that of a store of MLflow that an
older version made."""


@dataclass(frozen=True)
class CommandKill:
    """One command that was killed and given again."""

    moment: float
    """Seconds after it was started."""
    too_late: int
    """Times before that it had done all when the kill came."""
    differs: tuple[str, ...]
    """What is not as after an undisturbed one, and what was half written; empty if nothing."""

    def __str__(self) -> str:
        result = f"DIFFERS in {', '.join(self.differs)}" if self.differs else "identical"
        return f"killed after {self.moment:.2f} s; given again: {result}"


class Commands:
    """The folder in which commands are killed, put back as it was before each.

    Args:
        case: Of a finished run.
        folder: Where a copy of it and what commands need is kept.
    """

    def __init__(self, case: Path, folder: Path) -> None:
        self.place, self._copy, self._stores = case, folder / "case", folder
        self._log = folder / "commands.log"
        run = run_of(case)
        assert run is not None
        self.run = run
        (case / "arms.yaml").write_text(ABLATION.format(place=case))
        shutil.copytree(case, self._copy)

    def prepare(self, kinds: Mapping[str, Kind]) -> None:
        """Make what these kinds need besides the run."""
        if any(kind.store for kind in kinds.values()):
            in_fork(lambda: new_store(self._stores / "new.db"))
            in_fork(lambda: old_store(self._stores / "old.db"))
        if "conversion" in kinds:
            index = self._stores / "index"
            models = cast(dict[str, model_store.NamedModel], model_store.MODELS)
            models["killed"] = write_wheel(index)
            os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}

    def start(self, words: str) -> Child:
        """Start a command on the run."""
        given = words.format(run=self.run, place=self.place)
        return Child(given.split(), self._log)

    def restore(self, kind: Kind) -> None:
        """Put everything back as it was, ready for this command."""
        shutil.rmtree(self.place)
        shutil.copytree(self._copy, self.place)
        if kind.store:
            shutil.copy(self._stores / f"{kind.store}.db", self.place / "mlflow.db")
        for pattern in kind.removed:
            for path in self.run.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind.first:
            self.start(kind.first).wait()

    def undisturbed(self, kind: Kind) -> tuple[int, dict[str, str], float]:
        """Exit code, what is there after, and seconds, of a command that nothing disturbs."""
        self.restore(kind)
        began = time.monotonic()
        code = self.start(kind.words).wait()
        seconds = time.monotonic() - began
        return code, self.result(kind), seconds

    def result(self, kind: Kind) -> dict[str, str]:
        """Digests of all that is compared."""
        if kind.has_children:
            return digests(_of_ablation(self.place / "runs" / "arms"))
        digest: dict[str, str] = in_fork(lambda: digests(self._compared(kind)))
        return digest

    def _compared(self, kind: Kind) -> dict[str, Any]:
        store = {"mlflow": tracked(self.place / "mlflow.db", self.run)} if kind.store else {}
        return content(self.place) | store

    def kills(self, name: str, count: int, seed: int) -> Iterator[CommandKill]:
        """Kill a command so many times."""
        kind = KINDS[name]
        code, expected, _ = self.undisturbed(kind)
        again = self.undisturbed(kind)
        assert again[:2] == (code, expected), (code, again[0], *differences(again[1], expected))
        print(f"{name}: takes {again[2]:.1f} s, ends with {code}", flush=True)
        for part in range(count):
            draws = named_random(seed, name, part)
            moment, too_late = again[2] * (part + draws.random()) / count, 0
            while not self._is_killed(kind, moment):
                too_late, moment = too_late + 1, again[2] * draws.random()
            differs = [f"right after the kill: {fault}" for fault in faults(self.place)]
            if (code_after := self.start(kind.words).wait()) != code:
                differs.append(f"ended with {code_after}: {last_line(self._log)}")
            differs += differences(self.result(kind), expected)
            yield CommandKill(moment, too_late, tuple(differs))

    def _is_killed(self, kind: Kind, moment: float) -> bool:
        """Start the command and kill it after so many seconds; whether it had more to do."""
        self.restore(kind)
        child = self.start(kind.words)
        time.sleep(moment)
        is_killed = child.kill(with_children=kind.has_children)
        return is_killed and not (kind.result and any(self.run.glob(kind.result)))


def _of_ablation(folder: Path) -> dict[str, Any]:
    """What an ablation says, and which of its runs there are; logs and times aside."""
    runs = sorted(path.name.split("-", 2)[2] for path in folder.glob("[0-9]*/"))
    tops = {name: value for name, value in content(folder).items() if name.split("/")[0] in SHOWN}
    return {"runs": runs, "others": sorted(path.name for path in folder.glob(".*")), **tops}


SHOWN = (
    *("ablation.html", "ablation.md", "ablation.json", "records.jsonl", "figures"),
    *("arms.csv", "differences.csv", "configs"),
)
"""Files and folders of an ablation that have no times in them."""
