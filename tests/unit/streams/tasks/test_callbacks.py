"""Callbacks of futures: their exceptions are passed to a receiver."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

import inferd
from inferd.streams.tasks.callbacks import when_done


async def test_exceptions_of_a_callback_are_passed_on() -> None:
    future, crashes, error = asyncio.get_running_loop().create_future(), list[BaseException](), KeyError("x")

    def callback(done: asyncio.Future[int]) -> None:
        assert done.result() == 1
        raise error

    when_done(future, callback, crashes.append)
    future.set_result(1)
    await asyncio.sleep(0)
    assert crashes == [error]


async def test_a_callback_that_returns_reports_nothing() -> None:
    future, crashes, called = asyncio.get_running_loop().create_future(), list[BaseException](), list[bool]()
    when_done(future, lambda done: called.append(done.cancelled()), crashes.append)
    future.cancel()
    await asyncio.sleep(0)
    assert called == [True]
    assert crashes == []


@pytest.mark.parametrize("package", ["streams", "daemon", "schemas"])
def test_no_other_module_of_the_worker_adds_callbacks(package: str) -> None:
    """asyncio only logs exceptions of a plain callback."""
    root = Path(inferd.__file__).parent / package
    adding = [
        path.relative_to(root.parent).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "add_done_callback"
    ]
    assert adding == (["streams/tasks/callbacks.py"] if package == "streams" else [])
