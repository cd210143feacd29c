"""Coverage-guided inputs, where the package atheris is installed: `uv pip install atheris`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.child import Run
from tests.fuzz.target import Target

LENGTH_MAX = 4_096
RESIDENT_MB_MAX = 2_048


def available() -> bool:
    """Whether atheris is available for this Python."""
    return importlib.util.find_spec("atheris") is not None


def instrument() -> None:
    """Imports the code under test so that its branches are counted."""
    atheris: Any = importlib.import_module("atheris")
    records = ("compression", "record_batches")
    packages = ["inferd.schemas", "inferd.streams.inference", *(f"inferd.streams.kafka.{name}" for name in records)]
    with atheris.instrument_imports(include=packages):
        importlib.import_module("inferd.schemas.codec")
        importlib.import_module("inferd.streams.inference.scoring")
        importlib.import_module("inferd.streams.kafka.record_batches")
        importlib.import_module("tests.fuzz.targets")


def guide(target: Target, run: Run, seeds: list[bytes], random: Random) -> None:
    """Runs libFuzzer over the target; its corpus stays in the directory of the run. Ends the process."""
    from tests.fuzz.mutators import mutate

    atheris: Any = importlib.import_module("atheris")
    directory = Path(run.directory) / "corpus"
    directory.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (directory / f"seed-{number}").write_bytes(seed)

    def examine(data: bytes) -> None:
        if run.over():
            run.finish()
        run(data)

    def change(data: bytes, size_max: int, number: int) -> bytes:
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, len(data)))[:size_max]
        return mutate(random, data, target.shape, lambda: random.choice(seeds))[:size_max]

    options = [f"-max_len={LENGTH_MAX}", f"-rss_limit_mb={RESIDENT_MB_MAX}", f"-seed={random.getrandbits(31)}"]
    atheris.Setup([sys.argv[0], str(directory), *options, "-verbosity=0"], examine, custom_mutator=change)
    atheris.Fuzz()
