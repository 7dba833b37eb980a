"""Each comparison with PyTorch: its figures, and all of them as a table."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ram_triton.parity.compare import Agreement, Limits

WIDTH = 200  # where the output is no terminal


@dataclass(frozen=True)
class Comparison:
    """What came of comparing one thing with PyTorch.

    Attributes:
        name: the file, or the server's address.
        engine: what computed its logits.
        limits: what it may differ by.
        agreement: the figures; None where it could not be compared.
        problem: why not, or what is wrong beside the figures, in one line; empty where nothing is.
    """

    name: str
    engine: str
    limits: Limits
    agreement: Agreement | None
    problem: str = ""

    @property
    def faults(self) -> list[str]:
        """What is wrong, a phrase each; none where it agrees with PyTorch."""
        beyond = self.agreement.beyond(self.limits) if self.agreement else []
        return [*beyond, *filter(None, [self.problem])]


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print a row for each comparison."""
    table = Table(
        "",
        "what",
        "computed by",
        "largest logit difference",
        "tags that flip",
        "farthest from its threshold",
        "tag F1",
    )
    for comparison in comparisons:
        agreement, limits = comparison.agreement, comparison.limits
        mark = Text("differs", "bold red") if comparison.faults else Text("agrees", "green")
        figures = ["", "", "", ""]
        if agreement is None:
            mark = Text("not compared", "bold red")
        else:
            figures = [
                f"{agreement.largest_logit_difference:.2g} (limit {limits.logit_difference:g})",
                str(agreement.flipped_tags),
                f"{agreement.largest_flip_distance:.2g} (limit {limits.flip_distance:g})",
                f"{agreement.tag_f1:.4f} (limit {limits.tag_f1:g})",
            ]
        table.add_row(mark, *map(Text, (comparison.name, comparison.engine, *figures)))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
