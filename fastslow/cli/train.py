"""`train` and `resume`."""

from fastslow.cli.arguments import (
    FilesAndOverrides,
    Full,
    Run,
    print_report,
    resume_hint,
    split_words,
)
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible


def train(words: FilesAndOverrides, full: Full = False) -> None:
    """Take a model through the stages of FILE, then report.

    Makes a run folder with a resume point after every cycle, and prints the forgetting report.
    """
    from fastslow.config.loading.load import load_config
    from fastslow.results.ablation import is_ablation

    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(
            f"train: expected one configuration file, got {len(files)}. Combine files with "
            "`extends`, or give key=value overrides."
        )
    if is_ablation(files[0]):
        file = visible(str(files[0]))
        raise ConfigError(
            f"{file}: an ablation file (it has arms). To run it: fastslow ablate {file}"
        )
    loaded = load_config(files, overrides)
    with resume_hint():
        from fastslow.loop.launch import train as start
        from fastslow.results.report import write_report

        folder = start(loaded, ["fastslow", "train", *words], write_report)
    print_report(folder, full=full)


def resume(run: Run, full: Full = False) -> None:
    """Continue a run from its last resume point, then report."""
    with resume_hint():
        from fastslow.loop.launch import resume as continue_run
        from fastslow.results.report import write_report

        folder = continue_run(run, write_report)
    print_report(folder, full=full)
