"""The command `ram-triton`: finds the subcommand, runs it, and reports what went wrong in one line.

A subcommand is a module of `ram_triton.commands` with `add_arguments(parser)` and `run(arguments)`,
which returns an exit status or None for 0. It imports what is slow inside `run`, so that mistakes
in arguments are reported at once.
"""

import argparse
import importlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from types import FrameType, ModuleType

from ram_triton import __version__
from ram_triton.errors import RamTritonError
from ram_triton.signals import is_heeded

COMMANDS = {
    "model": "build a model repository from a RAM checkpoint",
    "vocabulary": "make a checkpoint that recognises a list of names",
    "labels": "embed a list of names as the labels of a training",
    "text-encoder": "add a text encoder to a repository, so that it takes any label",
    "plans": "make TensorRT plans on the GPU that will run them",
    "verify": "compare a repository or a server with its checkpoint in PyTorch",
    "doctor": "report what is right and wrong with a repository on this machine",
    "serve": "serve a repository until Ctrl-C, and bring it back if it fails",
    "demo": "serve a repository, tag some pictures, stop the server",
    "bench": "measure PyTorch, the engine and the server in one run",
    "train": "train a RAM as a configuration file specifies",
    "evaluate": "measure a trained RAM and choose its tags' thresholds",
}
RUN_AGAIN = "run it again"
RESUMABLE = {"train": "the same command resumes it"}
HELP_WIDTH = 79
TERMINATED = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: treated as Ctrl-C, with its own exit status."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: the command line without the program's name; None: the process's own.

    Returns:
        The exit status: 0; 1 for an error, 2 for wrong arguments, 128 + N after signal N.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        overview().print_help()
        return 2
    if arguments[0] not in COMMANDS:
        overview().parse_args(arguments)  # --help, --version, or an error: it does not return
    name = arguments[0]
    program = f"ram-triton {name}"
    remedy = RESUMABLE.get(name, RUN_AGAIN)
    return guarded(program, lambda: _run(program, load(name), arguments[1:]), remedy)


def run_module(program: str, command: ModuleType, arguments: Sequence[str] | None = None) -> int:
    """Run a module that has what a subcommand has, such as one of `experiments`, as a program.

    Args:
        program: what it is called in its help and messages.
        command: the module.
        arguments: its command line; None: the process's own.

    Returns:
        The exit status, as `main` does.
    """
    return guarded(program, lambda: _run(program, command, arguments))


def guarded(program: str, function: Callable[[], int | None], remedy: str = RUN_AGAIN) -> int:
    """Call a function, and report each error that a user can meet in a line on stderr.

    Args:
        program: begins each line.
        function: returns an exit status, or None for 0.
        remedy: what to do after an interruption.

    Returns:
        The exit status: the function's; 1 for an error, 128 + N after signal N.
    """
    for number in filter(is_heeded, TERMINATED):
        signal.signal(number, _terminate)
    # Their progress bars and hub look-ups are of no use here.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Lines reach a pipe at once; a tag need not be a letter of the terminal's encoding.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        return int(function() or 0)
    except RamTritonError as error:
        for line in str(error).splitlines():
            print(f"{program}: {line}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Python flushes stdout once more on exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"{program}: interrupted, {remedy}", file=sys.stderr)
        return 128 + getattr(interrupt, "number", signal.SIGINT)


def overview() -> argparse.ArgumentParser:
    """Return the parser of the program itself, whose help lists the subcommands."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="ram-triton",
        usage="ram-triton COMMAND [OPTIONS]",
        description="Build, check, serve and measure a Triton model repository for RAM.",
        epilog="commands:\n"
        + "".join(f"  {name:{width}}  {summary}\n" for name, summary in COMMANDS.items())
        + "\n'ram-triton COMMAND --help' describes a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ram-triton {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def load(name: str) -> ModuleType:
    """Import a subcommand's module, by its name on the command line."""
    return importlib.import_module(f"ram_triton.commands.{name.replace('-', '_')}")


def parser_of(program: str, command: ModuleType) -> argparse.ArgumentParser:
    """Return a subcommand's parser; its description is the module's docstring."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=_filled(command.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def _run(program: str, command: ModuleType, arguments: Sequence[str] | None) -> int | None:
    status: int | None = command.run(parser_of(program, command).parse_args(arguments))
    return status


def _filled(text: str) -> str:
    """Paragraphs in lines of a terminal's width; those with indented lines stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        part if "\n " in part else textwrap.fill(part, HELP_WIDTH) for part in paragraphs
    )


def _terminate(number: int, _: FrameType | None) -> None:
    raise Terminated(number)
