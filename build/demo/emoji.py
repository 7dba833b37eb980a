"""The emoji: their names in two languages, and the concepts that they share."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Unicode's subgroups of text: letters, digits, buttons, flags of countries. The demo recognises
# things, and does not read.
_TEXT_SUBGROUPS = frozenset(
    re.split(
        r"\s+",
        "keycap alphanum math punctuation currency other-symbol av-symbol gender "
        "country-flag subdivision-flag skin-tone hair-style",
    )
)

# Words by which variants of one thing differ.
_VARIANT_WORDS = frozenset(
    re.split(
        r"\s+",
        "red orange yellow green blue purple black white brown pink grey light dark "
        "large medium small low high volume muted done not oncoming "
        "man woman men women person people boy girl and "
        "facing left right leftwards rightwards up down tilted pointed pointing "
        "raised lowered closed 1st 2nd 3rd yen dollar euro pound increasing decreasing",
    )
)

# The same, if the words are not enough: a pattern in the label → the concept.
_CONCEPTS = {
    r"o’clock|-thirty$": "clock face",
    r"^family|busts? in silhouette": "family",
    r"\bclaus$": "claus",
    r"^mer(man|maid|person)$": "merperson",
    r"^princ(e|ess)$": "prince",
    r"^old(er)? (man|woman|person)$": "old person",
    r"moon face$": "moon face",
    r"moon$": "moon",
    r"^(?!.* (with|and) ).*\barrows?\b": "arrow",
    r"locked": "lock",
    r"^camera": "camera",
    r"^speech balloon|^left speech": "speech balloon",
    r" (frowning|pouting)$": "frowning",
    r"\bsuit$": "card suit",
    r"^musical notes?$": "musical note",
    r"^mobile phone": "mobile phone",
    r"^snowman": "snowman",
    r"^bell$|^bell with": "bell",
    r"^(open|closed) mailbox": "mailbox",
    r"^(closed|open|green|blue|orange) book$": "book",
    r"^(incoming )?envelope": "envelope",
}


@dataclass(frozen=True)
class Emoji:
    """An emoji without skin tone.

    Attributes:
        hexcode: its code points in lower case, joined by "-", without variation selectors.
        label: its English name in Unicode.
        concept: the name that all variants of one thing share (gender, direction, colour): a
            split by concept keeps them together.
        subgroup: Unicode's subgroup, such as "animal-bird".
        keywords: its English keywords in Unicode's common locale data.
        keywords_zh: its Chinese keywords, its Chinese name first.
        version: the version of the emoji standard that introduced it.
    """

    hexcode: str
    label: str
    concept: str
    subgroup: str
    keywords: tuple[str, ...]
    keywords_zh: tuple[str, ...]
    version: float = 1


def to_hexcode(code: str) -> str:
    """Return a hexcode in the one spelling used here.

    Vendors spell variation selectors (FE0F) and case differently; neither makes another emoji.
    """
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def name_concept(label: str) -> str:
    """Return the name that all variants of a labelled emoji share.

    Args:
        label: an English label, such as "woman running: facing right".

    Returns:
        The concept, such as "running".
    """
    label = label.lower()
    for pattern, concept in _CONCEPTS.items():
        if re.search(pattern, label):
            return concept
    # After a colon is a person ("kiss: woman, man") or a detail ("person: red hair").
    words = re.findall(r"[^\s,:-]+", re.sub(r"^(kiss|couple with heart|globe .*):.*", r"\1", label))
    if words[0] == "globe":
        return "globe"
    return " ".join(word for word in words if word not in _VARIANT_WORDS) or "person"


def read_emoji(package: Path) -> list[Emoji]:
    """Read the emoji that the demo uses, in Unicode's order.

    Args:
        package: the unpacked package of names.

    Returns:
        All emoji except flags of countries, letters, digits, buttons, and families by their
        members; without skin tones.
    """
    subgroups = _read(package, "meta/groups.json")["subgroups"]
    chinese = {entry["hexcode"]: entry for entry in _read(package, "zh/data.json")}
    found = []
    for entry in sorted(_read(package, "en/data.json"), key=lambda entry: entry.get("order", 0)):
        # Only the letters of country flags have no subgroup.
        subgroup = subgroups.get(str(entry.get("subgroup")), "alphanum")
        # Two dozen families differ in their members, and newer drawings of them are outlines.
        if subgroup in _TEXT_SUBGROUPS or re.match("family: (man|woman)", entry["label"]):
            continue
        translation = chinese[entry["hexcode"]]
        found.append(
            Emoji(
                hexcode=to_hexcode(entry["hexcode"]),
                label=entry["label"],
                concept=name_concept(entry["label"]),
                subgroup=subgroup,
                keywords=tuple(entry.get("tags", ())),
                keywords_zh=(translation["label"], *translation.get("tags", ())),
                version=entry["version"],
            )
        )
    return found


def _read(package: Path, name: str) -> Any:
    return json.loads((package / name).read_text("utf-8"))
