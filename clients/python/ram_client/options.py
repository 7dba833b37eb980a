"""The options of `ram-tag`, and what is wrong with them."""

import argparse
from pathlib import Path

from . import __version__, arguments
from .files import IMAGE_SUFFIXES, STDIN
from .formats import HEIF_SUFFIXES, RAW_SUFFIXES, suffixes
from .output import JsonArray, JsonLines, Nothing, Tables
from .sinks.sidecars import NAMES
from .sinks.sink import LANGUAGES

# Each writes tags into files, and so do without a table on stdout.
SINKS = ("xmp", "txt", "where", "csv", "parquet", "sqlite")


def parse(words: list[str] | None) -> argparse.Namespace:
    """Parse a command line; exits with 2 if it is wrong."""
    parser = _parser()
    options = parser.parse_args(words)
    options.has_sinks = any(getattr(options, name) for name in SINKS)
    if options.output is None:
        options.output = Nothing if options.has_sinks or options.xmp_remove else Tables
    elif options.dry_run or options.xmp_remove:
        parser.error("--json and --jsonl cannot be combined with --dry-run or --xmp-remove")
    if options.xmp_remove and (options.has_sinks or options.skip_existing):
        parser.error("--xmp-remove cannot be combined with options that write tags")
    if options.skip_existing and not options.has_sinks:
        parser.error(f"--skip-existing needs one of --{', --'.join(SINKS)}")
    if options.dry_run and not (options.has_sinks or options.xmp_remove):
        parser.error(f"--dry-run needs --xmp-remove or one of --{', --'.join(SINKS)}")
    if options.where and options.urls:
        parser.error("--where cannot be combined with --urls: it reads the pictures again")
    tables = [path.absolute() for path in (options.csv, options.parquet, options.sqlite) if path]
    if len(set(tables)) < len(tables):
        parser.error("two tables cannot be the same file")
    return options


def _parser() -> argparse.ArgumentParser:
    endings = " ".join(sorted(suffix.removeprefix(".") for suffix in suffixes()))
    parser = arguments.Parser(
        prog="ram-tag",
        description="Tag images in English and Chinese, through a Triton server that serves RAM.",
        epilog="Results go to stdout in the order of the files, one line for each file that "
        "failed to stderr. Exit status: 0 if all files were tagged, 1 if not, 2 for wrong usage.",
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="FILE|FOLDER",
        help=f"an image, or a folder, of which these are tagged: {endings}; {STDIN} reads such "
        "paths from stdin, one per line",
    )
    add("--recursive", "-r", action="store_true", help="look into the subfolders of folders, too")
    add("--null", action="store_true", help=f"{STDIN} reads paths that end with a NUL")
    add("--urls", action="store_true", help="fetch pictures at http:// and https:// addresses")
    add(
        "--max-megabytes",
        type=arguments.megabytes,
        default=20.0,
        metavar="N",
        help="size of the largest picture to fetch (default: %(default)g, the server's own limit)",
    )
    arguments.add_server(add)
    arguments.add_security(parser.add_argument_group("secured servers").add_argument)
    add = parser.add_argument_group("which tags").add_argument
    arguments.add_tags(add)
    add(
        "--exclude-file",
        dest="exclude",
        type=arguments.names,
        action="extend",
        metavar="FILE",
        help="leave out the tags in this file, one name per line",
    )
    _add_output(parser)
    _add_files(parser)
    add = parser.add_argument_group("speed").add_argument
    add(
        "--concurrency",
        type=arguments.positive_count,
        default=8,
        metavar="N",
        help="requests in flight at once (default: %(default)s)",
    )
    add(
        "--timeout",
        type=arguments.seconds,
        default=60.0,
        metavar="S",
        help="seconds per file, retries included (default: %(default)g)",
    )
    parser.add_argument("--version", action="version", version=f"ram-tag {__version__}")
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    forms = group.add_mutually_exclusive_group().add_argument
    forms(
        "--json",
        dest="output",
        action="store_const",
        const=JsonArray,
        help="one JSON array, at the end (default: a table for people, or nothing if tags go "
        "into files)",
    )
    forms(
        "--jsonl",
        dest="output",
        action="store_const",
        const=JsonLines,
        help="one JSON object per file, a line each, as soon as it is known",
    )
    group.add_argument(
        "--quiet", "-q", action="store_true", help="neither progress nor a summary on stderr"
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "tags in files", "Pictures themselves are never changed. Any of these may be combined."
    ).add_argument
    add("--xmp", action="store_true", help="add the tags to XMP sidecars")
    add(
        "--xmp-name",
        choices=NAMES,
        help="photo.jpg.xmp, or photo.xmp (default: the one that exists, or else darktable)",
    )
    add(
        "--xmp-prefix",
        type=_prefix,
        default="ram",
        metavar="NAME",
        help="lr:hierarchicalSubject gets NAME|tag (default: %(default)s)",
    )
    add("--xmp-remove", action="store_true", help="remove what --xmp added; needs no server")
    add("--txt", action="store_true", help="write a caption file, photo.txt, per picture")
    add(
        "--txt-suffix",
        type=_suffix,
        default=".txt",
        metavar="SUFFIX",
        help="suffix of caption files (default: %(default)s)",
    )
    add(
        "--separator",
        type=_separator,
        default=", ",
        metavar="TEXT",
        help="text between a caption's tags (default: '%(default)s')",
    )
    add("--append", action="store_true", help="keep a caption's tags, and add those it lacks")
    add(
        "--where",
        type=Path,
        metavar="DIR",
        help="write, per picture, another that shows where its best tags are",
    )
    add("--csv", type=Path, metavar="FILE", help="a table with a row per tag")
    add("--parquet", type=Path, metavar="FILE", help="the same as Parquet")
    add("--sqlite", type=Path, metavar="FILE", help="a database; the view file_tags has the rows")
    add(
        "--language",
        choices=LANGUAGES,
        default=LANGUAGES[0],
        help="language of sidecars and captions; tables have both (default: %(default)s)",
    )
    add(
        "--skip-existing",
        action="store_true",
        help="leave out pictures whose tags are in all of these files",
    )
    add("--dry-run", action="store_true", help="show what would be written, and write nothing")


_prefix = arguments.checked(
    str, lambda text: text.isprintable() and text.strip("| ") == text != "", "a name"
)
_suffix = arguments.checked(
    str,
    lambda text: (
        len(text) > 1
        and text.startswith(".")
        and not {*"/\\\0"} & {*text}
        and text != ".."
        and text.lower() not in IMAGE_SUFFIXES | RAW_SUFFIXES | HEIF_SUFFIXES
    ),
    "a suffix for captions, as .txt is",
)
_separator = arguments.checked(str, lambda text: text != "", "a separator")
