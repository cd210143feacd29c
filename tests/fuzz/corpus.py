"""Stored inputs: one text file per target, one input per line, written as Python bytes literals."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def kept(target: str, directory: Path = CORPUS) -> list[bytes]:
    """The stored inputs of a target; lines that begin with # name their origin."""
    path = directory / f"{target}.txt"
    if not path.exists():
        return []
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return [bytes(ast.literal_eval(line)) for line in lines]


def keep(target: str, inputs: Iterable[bytes], why: str, directory: Path = CORPUS) -> None:
    """Adds new inputs, below a line that states the reason."""
    have = set(kept(target, directory))
    new = [data for data in dict.fromkeys(inputs) if data not in have]
    if new:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{target}.txt").open("a") as file:
            file.writelines([f"# {ascii(why)[1:-1]}\n", *(f"{data!r}\n" for data in new)])
