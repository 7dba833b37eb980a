"""OpenVINO on the CPU: the engine alone and the server have to compile graphs alike."""

import ast
from pathlib import Path

from ram_triton.engines import openvino
from ram_triton.server import STAND_INS

BACKEND = Path(STAND_INS, "openvino", "model.py")
SHARED = {"PRECISION": "PRECISION", "PROPERTIES": "PROPERTIES", "TYPES": "NAMES"}


def test_the_servers_backend_knows_the_same_properties_and_precisions():
    tree = ast.parse(BACKEND.read_text())
    tree.body = [
        node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id in SHARED
    ]
    served: dict[str, object] = {}
    exec(compile(tree, BACKEND, "exec"), served)
    for theirs, ours in SHARED.items():
        assert served[theirs] == getattr(openvino, ours)
