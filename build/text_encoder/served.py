"""The file that the server runs, for the build to run too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).with_name("models") / "ram_text" / "1"))

from label_text import LabelText, Memory, pad

__all__ = ["LabelText", "Memory", "pad"]
