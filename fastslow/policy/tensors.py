"""Tensors that were saved, as they were before."""

from pathlib import Path

from torch import Tensor


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, each in memory of its own.

    As safetensors gives them they lie in the file's bytes and may begin anywhere; on some
    processors a product then rounds otherwise than before, and a resumed run would part in a bit.
    """
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path, device=device).items()}
