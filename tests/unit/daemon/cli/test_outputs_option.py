"""The option `--outputs` of `inferd predict` and `inferd jobs submit`."""

from __future__ import annotations

import click
import pytest

from inferd.daemon.cli.predict.command import parse_outputs, predict


def parsed(text: str | None) -> tuple[str, ...]:
    (option,) = [each for each in predict.params if each.name == "outputs"]
    return parse_outputs(click.Context(predict), option, text)


def test_outputs_are_in_the_order_of_results() -> None:
    assert parsed(None) == ("prediction",)
    assert parsed("raw, prediction,raw") == ("prediction", "raw")
    assert parsed("embedding,raw,Identity:0,embedding") == ("raw", "embedding", "Identity:0")


@pytest.mark.parametrize(("text", "says"), [("", "'' has 0 characters"), ("raw,,", "'' has"), ("x" * 257, "257 char")])
def test_unknown_output_names_are_rejected(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        parsed(text)
