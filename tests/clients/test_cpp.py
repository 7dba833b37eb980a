"""The C++ of the client's README."""

import re

import pytest
from support.language_clients import CLIENTS, build


@pytest.mark.slow
def test_the_readmes_code_compiles(builder, tmp_path):
    (program,) = builder("cpp")
    (example,) = re.findall(
        r"```cpp\n(.*?)```", (CLIENTS / "cpp" / "README.md").read_text(), re.DOTALL
    )
    (tmp_path / "readme.cpp").write_text(example)
    headers = program.parents[1] / "cpp"
    build(["g++", "-std=c++17", "-Werror", "-fsyntax-only", "-I", headers, "readme.cpp"], tmp_path)
