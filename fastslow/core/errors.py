"""The errors a user can meet. Each message says where, what was got, what is known, what to do.

`cli.main` prints these without a traceback and exits with `exit_code`; any other exception is
our bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

_LONGEST, _MOST = 100, 100
"""Characters of a name, and names, that a message repeats: names may come from hostile files."""


class FastSlowError(Exception):
    """Base of every error that is the user's or the run's, not a bug of ours."""

    exit_code: ClassVar[int] = 1
    """Exit code of the process: 1 the run failed, 2 the input is wrong, 3 the gate says no."""


class ConfigError(FastSlowError, ValueError):
    """A configuration cannot be used. Raised before any model loads; nothing was written."""

    exit_code = 2


class TaskError(FastSlowError):
    """A task cannot be found, built or trusted. Raised before training; nothing was written."""

    exit_code = 2


class MissingDataError(TaskError):
    """A task waits for the user to say where its data is."""


class UnreachableDataError(TaskError):
    """The data of a task lies on a hub that does not answer from here."""


class SandboxError(TaskError):
    """Programs that answers are cannot be run safely on this machine."""


class ModelError(FastSlowError):
    """A model cannot be found, fetched or loaded. The model cache is left as it was."""

    exit_code = 2


class UnreachableModelError(ModelError):
    """A model lies on a hub that does not answer from here."""


class ChannelError(FastSlowError):
    """A channel could not adapt the policy. The last resume point of the run is intact."""


class EvaluationError(FastSlowError):
    """A score could not be measured. Rows recorded stay; the last resume point is intact."""


class EngineError(FastSlowError):
    """What draws completions failed, or does not have the weights it should.

    The last resume point of the run is intact.
    """


class CheckpointError(FastSlowError):
    """A resume point or run folder cannot be used. Nothing in it was changed."""

    exit_code = 2


class LeaseError(CheckpointError):
    """A run folder was taken over by another process. This one wrote nothing to it since."""

    exit_code = 1


class GateError(FastSlowError):
    """The gate cannot judge: a baseline, a score or the end of a run is missing. Nothing ships."""

    exit_code = 2


class TrackerError(FastSlowError):
    """A tracker did not take all that a run recorded. The run folder is complete all the same."""


class PublishError(FastSlowError):
    """A store did not take all of what was pushed. The next push sends the rest."""


class StageError(FastSlowError):
    """A stage failed; names stage, task and channel, and the resume point that was kept."""


class AblationError(FastSlowError):
    """Runs of an ablation failed; names them. Those that ended are kept and compared."""


def nearest(got: str, names: Iterable[str]) -> str:
    """Suggest the name closest to `got`, as ` Did you mean 'x'?`, or list the known ones.

    The sentence starts with a space, ready to be appended to an error message.
    """
    shortened = sorted(name[:_LONGEST] for name in names)
    close = difflib.get_close_matches(got[:_LONGEST], shortened, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    more = f" and {len(shortened) - _MOST} more" if len(shortened) > _MOST else ""
    return f" Known: {', '.join(shortened[:_MOST])}{more}." if shortened else " None are known."
