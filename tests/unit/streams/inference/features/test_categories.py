"""Which columns the categories of a file belong to: verified with LightGBM's own predictions, or left open."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.models.model import Feature, FileCategories
from inferd.schemas.requests.request import NamedRows
from inferd.streams.inference.features.categories import CategoryLists
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.manifests import manifest_of, reconcile

ROWS = 120
TRAINING: dict[str, Any] = {
    "objective": "regression", "verbosity": -1, "num_threads": 1, "num_leaves": 8, "min_data_in_leaf": 3,
    "min_data_per_group": 2, "cat_smooth": 1.0, "seed": 7,
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "text": ["a", "b", "c", "d", "e", "f"],
    "integer": [1, 2, 3, 4, 5, 6],
    "codes": [0, 1, 2, 3, 4, 5],
    "float": [0.5, 1.0, 2.0, 2.5, 3.0, 7.5],
    "date": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-02-01", "2024-03-01", "2025-01-01"],
    "boolean": [False, True],
}


@dataclass(frozen=True)
class Column:
    """A column of a training frame: a pandas category, or numbers."""

    kind: str
    values: tuple[Any, ...]
    used: tuple[Any, ...] = ()
    """The values that training saw, where these are categories."""
    ordered: bool = False


@st.composite
def columns(draw: st.DrawFn) -> Column:
    if draw(st.booleans()):
        kind = draw(st.sampled_from(sorted(VALUES)))
        values = VALUES[kind][: draw(st.integers(2, 6))]
        used = draw(st.one_of(st.just(values), st.lists(st.sampled_from(values), min_size=1, unique=True)))
        return Column(kind, tuple(values), tuple(used), draw(st.integers(0, 3)) == 0)
    low, width = draw(st.integers(0, 2)), draw(st.integers(0, 5))
    return draw(st.sampled_from([Column("real", ()), Column("whole", tuple(range(low, low + width + 1)))]))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Column], list[int] | None]:
    """Columns of a frame, and which of them are listed as `categorical_feature` (None: the default)."""
    drawn = draw(st.lists(columns(), min_size=1, max_size=5))
    can_be_listed = [place for place, column in enumerate(drawn) if column.kind != "real"]
    listed = st.lists(st.sampled_from(can_be_listed), unique=True) if can_be_listed else st.just([])
    return drawn, draw(st.one_of(st.none(), listed))


def frame_of(drawn: list[Column], seed: int, *, every_value: bool) -> Any:
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for place, column in enumerate(drawn):
        if column.used:
            texts = random.choice(np.array(column.values if every_value else column.used, dtype=object), ROWS)
            made[f"f{place}"] = pd.Categorical(texts, categories=list(column.values), ordered=column.ordered)
        else:
            made[f"f{place}"] = (
                random.normal(size=ROWS) if column.kind == "real" else random.choice(column.values, ROWS)
            )
    return pd.DataFrame(made)


def trained(drawn: list[Column], listed: list[int] | None) -> bytes:
    frame = frame_of(drawn, 1, every_value=False)
    numbers = [frame[c].cat.codes if frame[c].dtype == "category" else frame[c] for c in frame]
    label = sum(values * (place + 1) for place, values in enumerate(numbers)) % 3
    how: Any = "auto" if listed is None else [f"f{place}" for place in listed]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = lightgbm.Dataset(frame, label, categorical_feature=how)
        return bytes(lightgbm.train(TRAINING, data, 4).model_to_string(), "utf-8")


def rows_of(frame: Any) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return None
        return value.item() if hasattr(value, "item") else value

    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def scored(text: bytes, frame: Any, overrides: Mapping[str, Any] | None = None) -> Any:
    """The predictions; raises the error with which the deploy, or a row, is rejected."""
    file = read_model_file(text)
    manifest = reconcile(manifest_of(text, "m", 1, overrides), file)
    matrix = FeatureSchema(manifest).inputs(NamedRows(rows_of(frame), False))
    return LightGBMRuntime(text).predict(matrix, ("prediction",))["prediction"]


@given(layouts())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
def test_predictions_equal_lightgbms_or_the_layout_is_rejected(
    layout: tuple[list[Column], list[int] | None],
) -> None:
    drawn, listed = layout
    text = trained(drawn, listed)
    frame = frame_of(drawn, 2, every_value=True)
    expected = lightgbm.Booster(model_str=text.decode()).predict(frame, num_threads=1)
    categories = {f"f{place}": column for place, column in enumerate(drawn) if column.used}
    named = {"features": [{"name": name, "dtype": "category"} for name in categories]}
    assert np.array_equal(scored(text, frame, named), expected)
    try:
        assert np.array_equal(scored(text, frame), expected)
    except SchemaMismatchError as error:
        event("left open")
        assert "pandas categories of" in error.message  # noqa: PT017
    except InvalidValueError:
        # A list of texts at the wrong column rejects every row.
        event("refused by row")
        assert any(isinstance(value, str | bool) for column in categories.values() for value in column.values)


ORDINARY = Column("real", ())
PLAN = Column("text", ("a", "b", "c"), ("a", "b", "c"))
FLAG = Column("whole", (0, 1))
SEX = Column("text", ("F", "M"), ("F", "M"))


@pytest.mark.parametrize(
    "drawn",
    [
        [ORDINARY, PLAN],
        [FLAG, PLAN, ORDINARY],
        [Column("whole", tuple(range(6))), PLAN, FLAG],
        [SEX, FLAG, SEX, PLAN],
        [FLAG, PLAN, Column("text", ("S", "M", "L", "XL"), ("S", "M", "L", "XL"), ordered=True)],
        [Column("integer", (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)), ORDINARY, Column("whole", tuple(range(9)))],
        [Column("boolean", (False, True), (False, True)), ORDINARY, Column("float", (0.5, 2.0), (0.5, 2.0))],
        [ORDINARY, Column("text", ("a", "b"), ("a",))],
    ],
)
def test_ordinary_frames_need_no_manifest(drawn: list[Column]) -> None:
    text = trained(drawn, None)
    frame = frame_of(drawn, 2, every_value=True)
    assert np.array_equal(scored(text, frame), lightgbm.Booster(model_str=text.decode()).predict(frame, num_threads=1))


GRADE = Column("integer", (1, 2, 3, 4, 5), (1, 2, 3, 4, 5))
ZONE = Column("whole", (1, 2, 3, 4))


@pytest.mark.parametrize("kind", ["integer", "float", "text"])
def test_a_listed_column_next_to_a_category_is_never_guessed(kind: str) -> None:
    grade = Column(kind, tuple(VALUES[kind][:5]), tuple(VALUES[kind][:5]))
    text = trained([grade, ZONE, ORDINARY], [1])
    with pytest.raises(SchemaMismatchError, match=r"pandas categories of 1 features.*--manifest"):
        manifest_of(text, "m", 1)
    assert read_model_file(text).categories is None


def test_one_word_about_another_column_is_enough() -> None:
    text = trained([GRADE, ZONE, ORDINARY], [1])
    manifest = manifest_of(text, "m", 1, {"features": [{"name": "f1", "dtype": "int64"}]})
    assert manifest.features[:2] == [
        Feature("f0", "category", file_categories=FileCategories("integer", 5, [1, 2, 3, 4, 5])),
        Feature("f1", "int64"),
    ]
    assert manifest_of(text, "m", 1, msgspec.to_builtins(manifest)) == manifest
    assert reconcile(manifest, read_model_file(text)).features[0].categories == [1, 2, 3, 4, 5]


def test_a_column_that_cannot_have_the_categories_is_rejected() -> None:
    text = trained([GRADE, ORDINARY], None)
    with pytest.raises(SchemaMismatchError, match="are not those of 'f1'"):
        manifest_of(text, "m", 1, {"features": [{"name": "f1", "dtype": "category"}]})


@pytest.mark.parametrize(
    ("infos", "coded", "sizes", "expected"),
    [
        (["0:1", "[0:1]"], {0}, [2], None),
        (["[0:2]", "-1:0:1:2"], {1}, [3], None),
        (["[0:1]", "-1:0:1:2"], {1}, [3], {1: 0}),
        (["[0:5]", "[0:1]", "[0.5:1]"], set(), [2], {1: 0}),
        (["[0:1]", "[0:1]"], set(), [2], None),
        (["[0:1]", "[0:1]"], set(), [2, 2], {0: 0, 1: 1}),
        (["[0:1]", "[-1:1]", "none"], set(), [2, 1], {0: 0, 2: 1}),
        (["0:9"], {0}, [2], None),
        (["0:1", "0:1:2"], {0, 1}, [], {}),
        (["0:1", "0:1:2"], {0, 1}, [2], {0: 0}),
        (["0:1", "0:1"], {0, 1}, [2], None),
        (["none", "[0:3]"], set(), [0], {0: 0}),
        (["-1:0:1", "[0:1]", "-1:1:0"], {0, 2}, [2, 2], {0: 0, 2: 1}),
    ],
)
def test_placing_of_texts(infos: list[str], coded: set[int], sizes: list[int], expected: dict[int, int] | None) -> None:
    lists = tuple(tuple(f"{place}-{code}" for code in range(size)) for place, size in enumerate(sizes))
    placed = CategoryLists(lists, tuple(infos), frozenset(coded)).place()
    assert placed == (expected if expected is None else {column: lists[place] for column, place in expected.items()})


@pytest.mark.parametrize(
    ("infos", "coded", "fractional", "expected"),
    [
        (["-1:0:1:2", "[0:1]"], {0}, set(), None),
        (["-1:0:1:2", "[0:1]"], {0}, {1}, {0: (7, 8, 9)}),
        (["-1:0:1:2", "[0:3]", "[1:5]"], {0}, set(), {0: (7, 8, 9)}),
        (["-1:0:1:2", "none"], {0}, set(), None),
    ],
)
def test_placing_of_numbers(
    infos: list[str], coded: set[int], fractional: set[int], expected: dict[int, Any] | None
) -> None:
    assert CategoryLists(((7, 8, 9),), tuple(infos), frozenset(coded), frozenset(fractional)).place() == expected


def test_many_columns_take_no_time() -> None:
    lists = tuple((f"a{place}", f"b{place}") for place in range(5_000))
    file = CategoryLists(lists, ("-1:0:1",) * 5_000 + ("[0:1]",) * 100, frozenset(range(5_000)))
    assert file.place() == dict(enumerate(lists))


def test_sixty_thousand_categories_stay_in_the_file() -> None:
    values = [f"user-{number:07d}-{'x' * 40}" for number in range(60_000)]
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"u": pd.Categorical(random.choice(values, 5_000), categories=values), "x": random.normal(size=5_000)}
    )
    text = bytes(lightgbm.train(TRAINING, lightgbm.Dataset(frame, frame.x), 2).model_to_string(), "utf-8")
    manifest = manifest_of(text, "m", 1)
    assert manifest.features[0] == Feature(
        "u", "category", file_categories=FileCategories("text", 60_000, [*values[:5]])
    )
    assert reconcile(manifest, read_model_file(text)).features[0].categories == values
    some = frame.head(50)
    expected = lightgbm.Booster(model_str=text.decode()).predict(some, num_threads=1)
    assert np.array_equal(scored(text, some), expected)


def test_a_column_without_any_value_is_always_missing() -> None:
    frame = pd.DataFrame(
        {"x": np.arange(50.0), "promo": pd.Categorical([None] * 50), "plan": pd.Categorical(["a", "b"] * 25)}
    )
    text = bytes(lightgbm.train(TRAINING, lightgbm.Dataset(frame, frame.x), 2).model_to_string(), "utf-8")
    manifest = manifest_of(text, "m", 1)
    assert manifest.features[1] == Feature("promo", "category", file_categories=FileCategories("text", 0))
    assert np.array_equal(scored(text, frame), lightgbm.Booster(model_str=text.decode()).predict(frame, num_threads=1))
    with pytest.raises(InvalidValueError, match="not one of its 0 categories"):
        scored(text, pd.DataFrame({"x": [1.0], "promo": ["a"], "plan": ["a"]}))
