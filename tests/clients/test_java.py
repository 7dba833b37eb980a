"""The Java of the client's README."""

import re

import pytest
from support.language_clients import CLIENTS, build


@pytest.mark.slow
def test_the_readmes_code_compiles(builder, tmp_path):
    (command,) = builder("java")
    (classpath,) = re.findall(r"-classpath \"(.*?)\"", command.read_text())
    classpath = classpath.replace("$here", str(command.parent))
    (example,) = re.findall(
        r"```java\n(.*?)```", (CLIENTS / "java" / "README.md").read_text(), re.DOTALL
    )
    (tmp_path / "Readme.java").write_text(example)
    build(
        ["javac", "-Xlint:all,-processing,-classfile", "-Werror", "-cp", classpath, "Readme.java"],
        tmp_path,
    )
