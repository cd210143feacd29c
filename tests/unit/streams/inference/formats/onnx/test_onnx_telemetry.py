"""ONNX Runtime sends no telemetry, and leaves no file for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from onnx import TensorProto, helper

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from inferd.streams.inference.formats.onnx.library import library
session = library().session(Path(sys.argv[1]).read_bytes(), 1)
assert library().run(session, ["y"], {"x": np.ones((1, 1), np.float32)})[0] == [[2.0]]
"""


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model.onnx")]
    subprocess.run(command, env={**kept, "TMPDIR": str(temporary)}, check=True, timeout=300)
    assert list(temporary.iterdir()) == []
