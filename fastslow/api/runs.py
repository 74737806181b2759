"""`train` and `resume`: runs, started and continued."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from fastslow.api.folder import RunFolder
from fastslow.api.words import override_words, quiet
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible


def train(
    config: str | PathLike[str], overrides: Mapping[str, object] | None = None, /, **keys: object
) -> RunFolder:
    """Take a model through the stages of a configuration file, report, and open the run.

    Overrides are keywords, or a mapping where keys have dots. Progress is printed to stderr. Ctrl-C
    lets the step in hand end, saves, and raises `KeyboardInterrupt`, whose note says how to go on.

    Examples:
        >>> run = fastslow.train("configs/tests/tiny.yaml", {"slow.lr": 0.01}, seed=1)
        ... # doctest: +SKIP

    Raises:
        FastSlowError: What is wrong with configuration, data or model, before anything is written;
            or why the run failed, with what continues it.
    """
    return RunFolder(start(config, override_words(overrides, keys)))


def resume(
    run: str | PathLike[str],
    overrides: Mapping[str, object] | None = None,
    /,
    *,
    trust: bool = False,
    **keys: object,
) -> RunFolder:
    """Continue a run from its last resume point; see `train`.

    `trust` says that addresses and code which a folder names that you did not make may be used.

    Raises:
        ConfigError: An override could change results; names the key.
        FastSlowError: As `train`; or the folder cannot be continued.
    """
    return RunFolder(go_on(run, override_words(overrides, keys), trust))


def fetch_model(name: str) -> Path:
    """Bring a model of `fastslow models list` into the cache, once, and give its folder.

    Raises:
        ModelError: There is no such model, or it cannot be had.
    """
    from fastslow.policy.model_fetch import fetch

    with quiet():
        return fetch(name, log=print)


def start(
    file: str | PathLike[str], words: Sequence[str], command: Sequence[str] | None = None
) -> Path:
    """`train` with overrides as words; `command` is for the record. Gives the run's folder."""
    from fastslow.config.loading.load import load_config
    from fastslow.results.ablation import is_ablation

    path = Path(file)
    if is_ablation(path):
        name = visible(str(path))
        raise ConfigError(
            f"{name}: an ablation file (it has arms). To run it: fastslow ablate {name}"
        )
    loaded = load_config([path], words)
    with quiet():
        from fastslow.loop import launch
        from fastslow.results.report import write_report

        return launch.train(
            loaded, command or ["fastslow", "train", str(path), *words], write_report
        )


def go_on(run: str | PathLike[str], words: Sequence[str], trust: bool = False) -> Path:
    """`resume` with overrides as words. Gives the run's folder."""
    with quiet():
        from fastslow.loop import launch
        from fastslow.results.report import write_report

        return launch.resume(Path(run), write_report, words, trust)
