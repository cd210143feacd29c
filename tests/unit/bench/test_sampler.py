"""The sampling profiler finds the function that uses the CPU time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.profiling import tables
from bench.sampler import Frame, StackCount, read_samples

PROGRAM = """
import os, signal, time

def burn():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))

os.kill(os.getpid(), signal.SIGUSR1)
burn()
os.kill(os.getpid(), signal.SIGUSR2)
"""


def test_samples_name_the_busy_function(tmp_path: Path) -> None:
    script = tmp_path / "busy_program.py"
    script.write_text(PROGRAM)
    path = tmp_path / "samples.json"
    command = [sys.executable, "-m", "bench.sampler", str(path), str(script)]
    subprocess.run(command, check=True, timeout=60, env={"PYTHONPATH": str(Path.cwd())})
    samples = read_samples(path)
    busy = sum(each.count for each in samples if any(frame.function == "burn" for frame in each.stack))
    assert busy > 0.9 * sum(each.count for each in samples) > 10


def test_modules_are_named_without_their_directories() -> None:
    samples = [
        StackCount([Frame("/venv/lib/python3.11/site-packages/lightgbm/basic.py", "predict", 9), _lane(5)], 3),
        StackCount([_lane(7)], 1),
    ]
    by_module, by_place, by_own = ([list(column.cells) for column in table.columns] for table in tables(samples))
    assert by_module == [["75.0%", "25.0%"], ["lightgbm.basic", "inferd.streams.lane.lane"]]
    assert by_place[1] == ["lightgbm.basic.predict:9", "inferd.streams.lane.lane.run:7"]
    assert by_own == [["100.0%"], ["inferd.streams.lane.lane.run"]]


def _lane(line: int) -> Frame:
    return Frame("/somewhere/inferd/inferd/streams/lane/lane.py", "run", line)


def test_sampling_does_not_begin_by_itself(tmp_path: Path) -> None:
    script = tmp_path / "quiet_program.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGUSR2)\n")
    path = tmp_path / "samples.json"
    command = [sys.executable, "-m", "bench.sampler", str(path), str(script)]
    subprocess.run(command, check=True, timeout=60, env={"PYTHONPATH": str(Path.cwd())})
    assert read_samples(path) == []
