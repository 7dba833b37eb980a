"""The worked example of docs/api.md, in bytes, is what the server's own protocol makes of it."""

import re
from pathlib import Path

import pytest
from ram_client import Tag
from ram_client.protocol import read_tags
from tritonclient.grpc import InferResult, service_pb2

API = Path(__file__).parents[2] / "docs" / "api.md"
DATATYPES = {"tags": "BYTES", "tags_zh": "BYTES", "scores": "FP32"}


@pytest.fixture
def example() -> dict[str, list[tuple[bytes, str]]]:
    """By output: the bytes of each element, and what they mean."""
    section = API.read_text().partition("### The bytes of an answer")[2]
    outputs: dict[str, list[tuple[bytes, str]]] = {}
    for line in section.split("```")[1].strip().splitlines():
        name, digits, meaning = re.fullmatch(r"(\w*) +((?:[0-9a-f]{2} )+) *(\S+)", line).groups()
        name = name or list(outputs)[-1]
        outputs.setdefault(name, []).append((bytes.fromhex(digits), meaning))
    return outputs


def test_the_bytes_of_the_example_are_its_tags(example):
    response = service_pb2.ModelInferResponse()
    for name, elements in example.items():
        shape = [2, len(elements) // 2]
        response.outputs.add(name=name, datatype=DATATYPES.get(name, "INT32"), shape=shape)
        response.raw_output_contents.append(b"".join(element for element, _ in elements))
    rows = read_tags(InferResult(response))

    columns = zip(
        *([meaning for _, meaning in example[name]] for name in list(example)[:4]), strict=True
    )
    names = [column for column in columns if column[0] != "padding"]
    tags = [Tag(name, zh, float(score), int(number)) for name, zh, score, number in names]
    assert rows == [tags[:2], tags[2:]]
    assert [len(row) for row in rows] == [int(meaning) for _, meaning in example["count"]]
