"""The pages are true: their links lead somewhere, their commands exist, and their examples run."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import ram_client.bulk.command
import ram_client.cli
import ram_client.http.command
import ram_client.page.command
from ram_triton.check_system import SUPPORTED
from ram_triton.cli import COMMANDS, load, parser_of
from ram_triton.repository.layout import DEFAULT_REPOSITORY, MODELS, OPTIONAL_MODELS

ROOT = Path(__file__).parents[2]
FOLDERS = (
    ".",
    "docs",
    "deploy",
    "deploy/*",
    "loadtest",
    "clients",
    "clients/*",
    "build/demo",
    "build/demo/*",
)
PAGES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
README = ROOT / "README.md"
API = ROOT / "docs" / "api.md"
CLIENT = ROOT / "clients" / "python" / "README.md"
# What the examples name of the demo's model, and of the tiny one that the tests serve.
IN_THE_TESTS = {
    "vegetable": "tag 1",
    "水果": "标签2",
    '"fruit"': '"tag 1"',
    "苹果": "标签2",
    '"boat"': '"tag 3"',
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path, *, inline: bool = True) -> Iterator[list[str]]:
    """The words of each command on a page: of its shell blocks and of the code in its text."""
    lines = [
        line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines()
    ]
    if inline:
        lines += re.findall(r"`([^`\n]+)`", prose(page))
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a part of a here document
            continue
        if words[1:4] == ["run", "--rm", "ram"]:  # what the container runs
            words = words[4:]
        if words:
            yield [Path(words[0]).name, *words[1:]]


def flags(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}


def arguments_of(words: list[str]) -> list[str]:
    """What `make` passes on in ARGS."""
    passed = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    return shlex.split(" ".join(passed))


@pytest.fixture(scope="module")
def load_options() -> set[str]:
    """Locust's options and the load test's own, which locust's help does not list."""
    locust = Path(sys.executable).with_name("locust")
    command = [locust, "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    known += (ROOT / "loadtest" / "ram_load" / "options.py").read_text()
    return flags(re.findall(r"--[a-z0-9-]+", known))


@pytest.fixture
def in_root(monkeypatch) -> None:
    """Examples name the demo's pictures, from the repository's root."""
    monkeypatch.chdir(ROOT)


@every_page
def test_every_link_leads_somewhere(page):
    text = prose(page)
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@every_page
def test_every_file_that_is_named_exists(page):
    folders = "build|clients|deploy|docs|loadtest|model_repository|tests"
    for name in re.findall(
        rf"(?<![\w/.-])(?:\./)?((?:{folders})/[\w./*-]*[\w*/])", page.read_text()
    ):
        assert list(ROOT.glob(name.rstrip("/"))), name
    for name in re.findall(r"`(ram\w*/[\w./]+\.(?:pbtxt|py))`", page.read_text()):
        assert (ROOT / "model_repository" / name).exists(), name


@every_page
def test_every_make_target_and_variable_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    variables = set(re.findall(r"[A-Z][A-Z_0-9]+", MAKEFILE))
    variables |= {word.upper().replace("-", "_") for word in re.findall(r"[a-z][a-z-]+", MAKEFILE)}
    for name, *words in commands(page):
        if name == "make" and words:
            assert set(re.findall(r"^[a-z-]+$", "\n".join(words), re.M)) <= targets, words
            assert set(re.findall(r"^([A-Z_]+)=", "\n".join(words), re.M)) <= variables, words


@every_page
def test_make_takes_every_command_of_a_shell_block(page):
    """Variables that a target does not know, and those that it needs, are make's to report."""
    for name, *words in commands(page, inline=False):
        if name == "make":
            command = ["make", "--dry-run", *words]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            assert done.returncode == 0, done.stderr


@every_page
def test_every_command_and_option_of_ram_triton_exists(page):
    for name, *words in commands(page):
        if name == "make" and words[:1] == ["bench"]:
            name, words = "ram-triton", ["bench", *arguments_of(words)]
        if name == "ram-triton" and words and words[0] in COMMANDS:
            parser = parser_of(words[0], load(words[0]))
            assert flags(words) <= flags(re.findall(r"--[a-z-]+", parser.format_help())), words
        elif name == "ram-triton" and words:
            assert words[0] in ("X", "SUBCOMMAND", "--version"), words


@every_page
def test_every_module_that_is_run_and_its_options_exist(page):
    shared = (ROOT / "build" / "ram_triton" / "arguments.py").read_text()
    for name, *words in commands(page):
        if name.startswith("python") and words[:1] == ["-m"] and words[1] not in ("venv", "pytest"):
            spec = importlib.util.find_spec(words[1])
            assert spec is not None, words[1]
            source = Path(spec.origin).read_text() + shared
            assert all(f'"{flag}"' in source for flag in flags(words)), words


@every_page
def test_every_option_of_the_load_test_exists(page, load_options):
    for name, *words in commands(page):
        if name == "make" and words[:1] == ["load"]:
            name, words = "locust", arguments_of(words)
        if name == "locust":
            assert flags(words) <= load_options, words


@every_page
def test_every_option_of_the_client_exists(page, capsys):
    known = {}
    for command, module in (
        ("ram-bulk", ram_client.bulk.command),
        ("ram-http", ram_client.http.command),
        ("ram-page", ram_client.page.command),
        ("ram-tag", ram_client.cli),
    ):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        known[command] = flags(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for name, *words in commands(page):
        if name in known:
            assert flags(words) <= known[name], words


@every_page
def test_every_extra_that_is_installed_exists(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"\.\[(\w+)\]", page.read_text())) <= set(
        project["optional-dependencies"]
    )


@every_page
def test_the_language_is_plain_where_a_program_can_tell(page):
    found = re.findall(
        r"\b(?:can't|anew|by turns|so many|mend|tells of|stands there)\b", prose(page)
    )
    assert not found


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_the_pages_name_the_pythons_that_set_up_takes():
    versions = " or ".join(".".join(map(str, version)) for version in SUPPORTED)
    for page in (README, ROOT / "CONTRIBUTING.md"):
        assert f"Python {versions}" in page.read_text(), page
    reasons = (ROOT / "docs" / "troubleshooting.md").read_text()
    taken = re.findall(r"^\| (3\.\d+) \| yes \|", reasons, re.MULTILINE)
    assert taken == [".".join(map(str, version)) for version in SUPPORTED]


def test_the_index_of_the_docs_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_the_table_of_models_and_that_of_their_settings_are_complete():
    models = (ROOT / "docs" / "architecture.md").read_text()
    settings = (ROOT / "docs" / "operations.md").read_text()
    for name, model in MODELS.items():
        assert f"`{name}`" in models, name
        folder = OPTIONAL_MODELS if model.optional else DEFAULT_REPOSITORY
        config = folder / name / "config.pbtxt"
        for number in model.numbers:
            pattern = rf'"{number}" value {{ string_value: "([\d.]+)" }}'
            (value,) = re.findall(pattern, config.read_text())
            (row,) = (row for row in settings.splitlines() if f"`{number}`" in row)
            assert value in row and f"`{name}`" in row, number


def test_what_a_smaller_scale_of_a_jpeg_costs_is_written_once():
    source = (ROOT / "model_repository" / "ram_preprocess" / "1" / "preprocess.py").read_text()
    assert "faster" not in source and "docs/images.md" in source


def ask(command: str, server) -> subprocess.CompletedProcess[str]:
    """Run an example, with the tiny model's server and its names, in the repository's root."""
    for tool in ("curl", "jq", "base64"):
        if tool in command and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for name, tiny in IN_THE_TESTS.items():
        command = command.replace(name, tiny)
    command = command.replace("localhost:8000", server.http)
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )


CURL = [(page, block) for page in (README, API) for block in blocks(page, "sh") if "curl" in block]


@pytest.mark.parametrize("example", [block for _, block in CURL])
def test_the_curl_examples_are_answered_with_tags(example, server):
    answer = ask(example, server)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert re.search(r'"tag \d+"', answer.stdout)
    assert "embedding" not in answer.stdout and not answer.stderr


@pytest.mark.parametrize("example", [block for _, block in CURL])
def test_the_curl_examples_show_an_error(example, server):
    answer = ask(example.replace("apple.png", "missing.png"), server)
    assert "image: empty" in answer.stdout


PYTHON = [(page, block) for page in (README, API, CLIENT) for block in blocks(page, "python")]


@pytest.mark.parametrize("example", [block for _, block in PYTHON])
def test_the_python_examples_print_tags(example, server, capsys, in_root):
    example = example.replace("localhost:8001", server.grpc).replace("vegetable", "tag 1")
    exec(example, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert re.search(r"tag \d+.*标签\d+", printed) and re.search(r"0\.\d\d\d", printed)
