"""The sentences that RAM's labels were embedded in: those of ViLD (Gu et al. 2021, appendix)."""

from collections.abc import Iterator

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


def ram_templates() -> list[str]:
    """Return all sentences, with `{name}` for the name and `{a}` for its article."""
    return list(_sentences())


def _sentences() -> Iterator[str]:
    yield from ("There is {a} {name} in the scene.", "There is the {name} in the scene.")
    yield from (
        f"This is a photo of {which} {{name}} in the scene." for which in ("{a}", "the", "one")
    )
    yield from (f"itap of {which} {{name}}." for which in ("{a}", "my", "the"))
    yield from (f"This is a photo of {w} {{name}}." for w in ("{a}", "my", "the", "one", "many"))
    for kind in PHOTOS:
        yield from (f"This is a {kind} photo of {which} {{name}}." for which in ("{a}", "the"))
    for kind in THINGS:
        yield from (f"This is a photo of {which} {kind} {{name}}." for which in ("a", "the"))
    yield from (f"This is {made} {{name}}." for made in MADE_AS)
