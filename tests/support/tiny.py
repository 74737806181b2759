"""The tiny model of the package, and one that speaks up."""

from pathlib import Path

from fastslow.policy.tiny_model import save_tiny, tiny_model, tiny_tokenizer

__all__ = ["save_outspoken", "save_tiny", "tiny_model", "tiny_tokenizer"]


def save_outspoken(folder: Path) -> Path:
    """The same with weights twelve times as large, so that answers differ."""
    from safetensors.torch import load_file, save_file

    file = save_tiny(folder) / "model.safetensors"
    larger = {name: w if "norm" in name else w * 12 for name, w in load_file(file).items()}
    save_file(larger, file, {"format": "pt"})
    return folder
