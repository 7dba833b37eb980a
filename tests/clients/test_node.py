"""The types of the Node client, and the TypeScript of its README."""

import re

import pytest
from support.language_clients import CLIENTS, PROJECT, run

README = (CLIENTS / "node" / "README.md").read_text()


@pytest.fixture
def node_client(builder):
    """The folder in which the Node client was installed."""
    _, program = builder("node")
    return program.parent


def test_types_and_code_agree_with_the_readmes_typescript(node_client, server):
    (example,) = re.findall(r"```ts\n(.*?)```", README, re.DOTALL)
    for name, tiny in {
        "localhost:8001": server.grpc,
        "vegetable": "tag 1",
        "fruit": "tag 14",
        "boat'": "tag 3'",
    }.items():
        assert name in example
        example = example.replace(name, tiny)
    program = node_client / "readme.mts"  # JavaScript too: it has no annotation
    program.write_text(example)
    done = run(["npx", "tsc"], node_client)
    assert (done.returncode, done.stdout) == (0, "")
    done = run(["node", program.rename(program.with_suffix(".mjs"))], PROJECT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "标签14" in done.stdout and "tag 14" in done.stdout.splitlines()[-1]
