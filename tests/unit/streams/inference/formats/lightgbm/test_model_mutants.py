"""Hundreds of damaged model files: each is rejected with a typed error, or loads and predicts; none ends a process."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.mutations import Mutate, cut_off, cut_out, double_a_part, flip_a_bit
from tests.unit.streams.inference.trained_models import PandasTrained, Trained

Train = Callable[[str], Trained]

SEEDS = range(12)
NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"2",
    b"31",
    b"-7",
    b"1e300",
    b"nan",
    b"inf",
    b"2147483648",
    b"4294967296",
    b"99999999999",
)
_NUMBER = re.compile(rb"(?<=[ =:\[])-?[0-9][0-9.e+-]*")


def change_a_byte(text: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(text))
    return text[:place] + bytes([chance.choice(b"0123456789-.e =\n\t\x00,x")]) + text[place + 1 :]


def delete_a_line(text: bytes, chance: random.Random) -> bytes:
    lines = text.split(b"\n")
    del lines[chance.randrange(len(lines))]
    return b"\n".join(lines)


def swap_two_lines(text: bytes, chance: random.Random) -> bytes:
    lines = text.split(b"\n")
    i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def change_a_number(text: bytes, chance: random.Random) -> bytes:
    match = chance.choice(list(_NUMBER.finditer(text)))
    return text[: match.start()] + chance.choice(NUMBERS) + text[match.end() :]


def swap_two_numbers(text: bytes, chance: random.Random) -> bytes:
    first, second = sorted(chance.sample(list(_NUMBER.finditer(text)), 2), key=lambda match: match.start())
    return b"".join(
        (text[: first.start()], second[0], text[first.end() : second.start()], first[0], text[second.end() :])
    )


def change_a_count(text: bytes, chance: random.Random) -> bytes:
    names = rb"^(num_leaves|num_cat|num_class|num_tree_per_iteration|max_feature_idx|num_features|is_linear)=\d+"
    match = chance.choice(list(re.finditer(names, text, re.MULTILINE)))
    return text[: match.end(1) + 1] + chance.choice(NUMBERS) + text[match.end() :]


MUTATIONS: tuple[Mutate, ...] = (
    flip_a_bit,
    change_a_byte,
    cut_off,
    cut_out,
    double_a_part,
    delete_a_line,
    swap_two_lines,
    change_a_number,
    swap_two_numbers,
    change_a_count,
)


def with_true_sizes(text: bytes) -> bytes:
    """Corrects `tree_sizes`, so that damage is not detected by it alone."""
    blocks = re.findall(rb"Tree=\d+\n.*?\n\n\n", text, re.DOTALL)
    sizes = b"tree_sizes=" + b" ".join(b"%d" % len(block) for block in blocks)
    return re.sub(rb"^tree_sizes=.*", sizes, text, count=1, flags=re.MULTILINE)


def mutants(text: bytes, name: str) -> list[bytes]:
    """Half of them with corrected sizes."""
    damaged = [
        mutate(text, random.Random(f"{name} {mutate.__name__} {seed}")) for mutate in MUTATIONS for seed in SEEDS
    ]
    return [*damaged, *map(with_true_sizes, damaged)]


def passes(text: bytes) -> bool:
    try:
        manifest_of(text, "m", 1, file=read_model_file(text))
    except (MalformedError, TooLargeError):
        return False
    return True


def test_no_damaged_model_is_accepted_or_ends_the_process(trained: Train, pandas_trained: PandasTrained) -> None:
    names = ("binary", "multiclass", "int_coded", "linear", "rf", "one_leaf")
    texts = {**{name: trained(name).text for name in names}, "pandas": pandas_trained.text}
    damaged = [mutant for name, text in texts.items() for mutant in mutants(text, name) if mutant != text]
    assert len(damaged) > 1_500
    passed = [mutant for mutant in damaged if passes(mutant)]
    # Most damage is detected; the rest changes a number, a name or a parameter to another valid one.
    assert 0.05 < len(passed) / len(damaged) < 0.35
    verdicts = try_models([TrialCase(mutant) for mutant in passed], TrialLimits(wall_s=5, cpu_s=5))
    assert len(verdicts) == len(passed)
    reasons = {verdict.reason for verdict in verdicts if not verdict.ok}
    assert reasons <= {"predicts a value that is not finite"}


def test_unchecked_mutants_crash_only_the_trial(trained: Train) -> None:
    damaged = mutants(trained("int_coded").text, "unchecked")[5::16]
    verdicts = try_models(
        [TrialCase(mutant) for mutant in damaged],
        TrialLimits(wall_s=3, cpu_s=1),
        child=("-m", "tests.unit.streams.models.unchecked_trial"),
    )
    assert len(verdicts) == len(damaged)
    assert any("SIG" in (verdict.reason or "") for verdict in verdicts)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_mutations_change_something(trained: Train, mutate: Mutate) -> None:
    text = trained("binary").text
    assert any(mutate(text, random.Random(seed)) != text for seed in range(3))
