"""The demo model's vocabulary: its tags in two languages, and the emoji that each describes.

`.venv/bin/python -m demo.vocabulary PACKAGES` prints what a reviewer needs, and writes the tag
lists that the model is trained and served with.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ram_triton.vocabulary.tag_lists import write_names

from demo.emoji import Emoji, read_emoji
from demo.packages import NAMES, fetch_package

FOLDER = Path(__file__).parent / "vocabulary"


@dataclass(frozen=True)
class Tag:
    """A tag, and the rule for the emoji that it describes: see vocabulary/rules.toml.

    Attributes:
        name: in English.
        name_zh: in Chinese.
        words: words of an emoji's label; "=word" is the whole label.
        subgroups: Unicode's subgroups.
        not_words: words of the labels of emoji that it does not describe.
    """

    name: str
    name_zh: str
    words: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    not_words: tuple[str, ...] = ()

    def describes(self, emoji: Emoji) -> bool:
        """Return whether the tag describes a picture of the emoji."""
        if any(_matches(words, emoji.label) for words in self.not_words):
            return False
        return emoji.subgroup in self.subgroups or any(
            _matches(words, emoji.label) for words in self.words
        )


def read_tags(rules: Path = FOLDER / "rules.toml") -> list[Tag]:
    """Read the vocabulary in its order.

    Args:
        rules: the file of rules.

    Returns:
        The tags, English and Chinese names unique.

    Raises:
        ValueError: a rule has an unknown setting, or two tags share a name.
    """
    tags = []
    for name, rule in tomllib.loads(rules.read_text("utf-8")).items():
        if unknown := set(rule) - {"zh", "words", "subgroups", "not_words"}:
            raise ValueError(f"{rules.name}: {name!r} has unknown settings {sorted(unknown)}")
        lists = {key: tuple(words) for key, words in rule.items() if key != "zh"}
        if not {"words", "subgroups"} & set(lists):
            lists["words"] = (name,)
        tags.append(Tag(name, rule["zh"], **lists))
    for language in ("name", "name_zh"):
        names = [getattr(tag, language) for tag in tags]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{rules.name}: two tags are named {', '.join(twice)}")
    return tags


def rank_chinese_name(tag: Tag, emoji: list[Emoji]) -> tuple[int | None, list[str]]:
    """Rank a tag's Chinese name among the Chinese keywords of the emoji that it describes.

    A keyword's score is the Jaccard index of its emoji and the tag's emoji. A name with a low rank,
    or without one, should be reviewed.

    Args:
        tag: the tag.
        emoji: all emoji.

    Returns:
        The name's rank (0 is the best), None if no such emoji has the keyword; and the three best
        keywords.
    """
    described = {one.hexcode for one in emoji if tag.describes(one)}
    keywords: dict[str, set[str]] = {}
    for one in emoji:
        for keyword in one.keywords_zh:
            keywords.setdefault(keyword, set()).add(one.hexcode)
    score = {
        keyword: len(described & found) / len(described | found)
        for keyword, found in keywords.items()
        if described & found
    }
    ranked = sorted(score, key=lambda keyword: (-score[keyword], keyword))
    return ranked.index(tag.name_zh) if tag.name_zh in score else None, ranked[:3]


def _matches(words: str, label: str) -> bool:
    if words.startswith("="):
        return _split(words[1:]) == _split(label)
    return _split(words) in _split(label)


def _split(text: str) -> str:
    """Return the words of a text between spaces, so that "in" finds only whole words."""
    return " " + " ".join(re.findall(r"[^\s:,()!-]+", text.lower())) + " "


def main(packages: Path) -> None:
    """Print each tag with its emoji and how well its Chinese name fits, and write the lists.

    Args:
        packages: folder that keeps the fetched packages.
    """
    emoji = read_emoji(fetch_package(NAMES, packages))
    tags = read_tags()
    for tag in tags:
        found = [one.label for one in emoji if tag.describes(one)]
        place, best = rank_chinese_name(tag, emoji)
        fit = f"place {place + 1}" if place is not None else f"no keyword; best {' '.join(best)}"
        print(f"{tag.name} {tag.name_zh} ({fit}) on {len(found)}: {', '.join(found)}")
        for words in (*tag.words, *tag.not_words):
            if not any(_matches(words, one.label) for one in emoji):
                print(f"  warning: none of the emoji has the label {words!r}")
    write_names([tag.name for tag in tags], [tag.name_zh for tag in tags], FOLDER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
