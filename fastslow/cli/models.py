"""`models list`, `models fetch` and `models where`."""

from typing import Annotated

import typer

app = typer.Typer(help="The base models there are.", no_args_is_help=True)


@app.command("list")
def models_list() -> None:
    """List the named models and whether they are fetched."""
    from fastslow.policy.model_store import MODELS, complaint_about, models_folder

    for model in MODELS.values():
        state = complaint_about(models_folder() / model.name, checksums=False) or "fetched"
        size = f"{model.num_parameters / 1e6:.1f} M parameters"
        print(f"{model.name}  {size}  {model.license}  {model.origin}  {state}")
    print("Any local folder with safetensors weights, or a hub id, works as model.name too.")


@app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Bring a named model into the cache, once.

    The cache is the folder FASTSLOW_HOME, or `fastslow` in the user's cache folder.
    """
    from fastslow.policy.model_fetch import fetch

    fetch(name, log=lambda line: print(line, flush=True))


@app.command("where")
def models_where(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Verify a fetched model and print its folder."""
    from fastslow.policy.model_store import where

    print(where(name))
