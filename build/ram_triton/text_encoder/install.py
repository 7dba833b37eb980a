"""A text encoder to two models of a repository: export, check, install."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ram_triton.engines.openvino import CompiledGraph
from ram_triton.errors import TextEncoderError
from ram_triton.graphs.export import export_module
from ram_triton.repository import layout as places
from ram_triton.repository.repository import Repository
from ram_triton.server_code import LabelText, pad
from ram_triton.text_encoder.checkpoint import TextEncoder

SETTINGS = "text_encoder.json"
CHECKED = ("cat", "hot dog", "a very long name of something that nobody has ever seen", "猫")
TOLERANCE = 1e-4  # between numbers of vectors of length 1


def install_text_encoder(
    encoder: TextEncoder,
    templates: Sequence[str],
    root: Path,
    name: str,
    say: Callable[[str], None] = print,
) -> None:
    """Add `ram_open_text` and `ram_open_text_encoder` to a repository that has a model.

    Args:
        encoder: the text encoder that produced the embeddings of the model's labels.
        templates: the sentences, as `LabelText` takes them.
        root: the repository.
        name: of the checkpoint, for the settings file.
        say: called with a line per step.

    Raises:
        RepositoryError: no model is installed, or the folder cannot be written.
        TextEncoderError: the width of its embeddings is not that of the model's labels, or the
            exported graph differs from PyTorch.
    """
    repository = Repository(root)
    manifest = repository.require_manifest()
    width = manifest["variant"]["label_width"]
    if encoder.tower.width != width:
        raise TextEncoderError(
            f"its embeddings are {encoder.tower.width} wide, but the model in {root} has labels of "
            f"{width}: use the text encoder that produced those"
        )
    settings = {
        "checkpoint": name,
        "kind": encoder.kind,
        "width": width,
        "max_tokens": encoder.max_tokens,
        "templates": list(templates),
    }
    with repository.staging() as staging:
        shutil.copytree(
            places.OPTIONAL_MODELS,
            staging,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        folder = staging / "ram_open_text" / "1"
        encoder.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        say("exporting the text encoder to ONNX")
        graph = staging / places.TEXT_ENCODER
        example = torch.ones(3, 9, dtype=torch.int32)
        sizes = ("sentences", "tokens")
        inputs = {"input_ids": (example, sizes), "attention_mask": (example.clone(), sizes)}
        export_module(encoder.tower, inputs, ["embeds"], graph)  # (sentences, width), float32
        difference = measure(encoder, graph, LabelText.load(folder))
        say(f"largest difference from PyTorch {difference:.2g}")
        if not difference <= TOLERANCE:  # so that NaN fails too
            raise TextEncoderError(
                f"the exported graph is off by {difference:.2g}, the limit is {TOLERANCE:g}"
            )
        marker = root / places.LABELS / SETTINGS
        marker.unlink(missing_ok=True)  # so that the files are not asked for while they are moved
        for model in ("ram_open_text_encoder", "ram_open_text"):
            _install(staging / model, root / model)
        (staging / SETTINGS).write_text(
            json.dumps({"model": "ram_open_text", "width": width}) + "\n"
        )
        (staging / SETTINGS).replace(marker)
    say(f"{root}: ram_open now takes names that are not in the vocabulary")


def measure(encoder: TextEncoder, graph: Path, text: LabelText) -> float:
    """Return the graph's largest difference from PyTorch, on sentences of several lengths."""
    run = CompiledGraph(graph)
    tokens = [e.ids for e in text.tokenizer.encode_batch([*CHECKED, *text.sentences("cat")])]
    worst = 0.0
    for batch in ([tokens[0]], tokens):
        ids, mask = pad(batch)
        with torch.inference_mode():
            expected = encoder.tower(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        found = run(input_ids=ids, attention_mask=mask)["embeds"]
        worst = float(np.maximum(worst, np.abs(found - expected).max()))
    return worst


def _install(source: Path, target: Path) -> None:
    """Move a model's folder to its place, but keep a config that is there: it may be edited."""
    if not target.exists():
        source.replace(target)
        return
    for name in (places.PLAN, places.FACTS):  # of the previous graph
        (target / "1" / name).unlink(missing_ok=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        if place.suffix != ".pbtxt" or not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
