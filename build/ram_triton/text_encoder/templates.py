"""Sentences to embed a name in: RAM's own, which are ViLD's (Gu et al. 2021, appendix), or a file.

A sentence contains `{name}` and optionally `{a}`, the name's article.
"""

from pathlib import Path

from ram_triton.errors import TextEncoderError
from ram_triton.files import read_lines
from ram_triton.text_encoder.checkpoint import CLIP

PHOTOS = (
    "good",
    "bad",
    "bright",
    "dark",
    "low resolution",
    "cropped",
    "close-up",
    "jpeg corrupted",
    "blurry",
    "pixelated",
    "black and white",
)
THINGS = ("nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see")
MADE_AS = (
    "a plastic",
    "the plastic",
    "a toy",
    "the toy",
    "a plushie",
    "the plushie",
    "a cartoon",
    "the cartoon",
    "an embroidered",
    "the embroidered",
    "a painting of the",
    "a painting of a",
)


def choose_templates(kind: str, path: Path | None = None) -> list[str]:
    """Return the sentences for a text encoder.

    Args:
        kind: of the text encoder, as `TextEncoder.kind`.
        path: a file for `read_templates`; None: RAM's sentences, which are for a CLIP.

    Raises:
        TextEncoderError: the file cannot be used, or there is none for another kind than CLIP.
    """
    if path is not None:
        return read_templates(path)
    if kind != CLIP:
        raise TextEncoderError(f"a {kind} needs sentences of its own: TEMPLATES=FILE")
    return ram_templates()


def read_templates(path: Path) -> list[str]:
    """Read sentences, one per line; empty lines are skipped.

    Raises:
        TextEncoderError: there are none, or a line lacks `{name}` or has other braces.
        FileError: the file is not UTF-8.
        OSError: it cannot be read.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_lines(path), 1))
    templates = [(number, line) for number, line in lines if line]
    for number, line in templates:
        try:
            usable = "{name}" in line and bool(line.format(name="name", a="a"))
        except (IndexError, KeyError, ValueError):
            usable = False
        if not usable:
            raise TextEncoderError(
                f"{path}, line {number}: '{line}' is not a sentence with {{name}} and {{a}}"
            )
    if not templates:
        raise TextEncoderError(f"{path}: contains no sentences")
    return [line for _, line in templates]


def ram_templates() -> list[str]:
    """Return RAM's 63 sentences."""
    photo = "This is a photo of"
    return [
        *(f"There is {which} {{name}} in the scene." for which in ("{a}", "the")),
        *(f"{photo} {which} {{name}} in the scene." for which in ("{a}", "the", "one")),
        *(f"itap of {which} {{name}}." for which in ("{a}", "my", "the")),
        *(f"{photo} {which} {{name}}." for which in ("{a}", "my", "the", "one", "many")),
        *(f"This is a {k} photo of {which} {{name}}." for k in PHOTOS for which in ("{a}", "the")),
        *(f"{photo} {which} {kind} {{name}}." for kind in THINGS for which in ("a", "the")),
        *(f"This is {made} {{name}}." for made in MADE_AS),
    ]
