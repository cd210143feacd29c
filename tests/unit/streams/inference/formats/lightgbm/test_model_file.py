"""The structural reader: accepts every real model, and describes the fault of a damaged one."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable

import lightgbm
import numpy as np
import pytest

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.formats.lightgbm.model_trees import DEPTH_MAX
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from tests.unit.streams.inference.trained_models import FAST, KINDS, PandasTrained, Trained, matrix

Train = Callable[[str], Trained]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_read(trained: Train, name: str) -> None:
    model = trained(name)
    file = read_model_file(model.text)
    booster = model.booster
    assert file.shape == (booster.num_feature(), booster.num_model_per_iteration(), booster.num_trees())
    assert file.feature_names == tuple(booster.feature_name())
    assert file.linear == ("linear" in name)
    assert (file.sha256, file.size) == (hashlib.sha256(model.text).hexdigest(), len(model.text))
    objective = re.search(rb"^objective=(\w+)", model.text, re.MULTILINE)
    assert file.objective == (objective and objective[1].decode())


def test_custom_objectives_have_no_name(trained: Train) -> None:
    assert read_model_file(trained("custom_multi").text).objective is None


def test_models_as_other_tools_write_them(trained: Train) -> None:
    text = trained("binary").text
    without_categories = text[: text.index(b"\npandas_categorical")]
    assert read_model_file(without_categories).tree_count == 4
    # Windows: what lightgbm's Python appends in text mode.
    windows = text.replace(b"\npandas_categorical:null\n", b"\r\npandas_categorical:null\r\n")
    assert windows != text
    assert read_model_file(windows).tree_count == 4
    # Before 4.0.
    v3 = re.sub(rb"is_linear=0\n", b"", text).replace(b"version=v4", b"version=v3")
    sizes = [len(block) for block in re.findall(rb"Tree=\d+\n.*?\n\n\n", v3, re.DOTALL)]
    v3 = re.sub(rb"tree_sizes=.*", b"tree_sizes=" + b" ".join(b"%d" % size for size in sizes), v3)
    assert read_model_file(v3).tree_count == 4
    LightGBMRuntime(v3)


def test_models_that_are_loaded_and_saved_again(trained: Train, pandas_trained: PandasTrained) -> None:
    for text in (trained("binary").text, pandas_trained.text):
        again = lightgbm.Booster(model_str=text.decode()).model_to_string().encode()
        assert read_model_file(again).categories == read_model_file(text).categories


def test_continued_and_refitted_models() -> None:
    x = matrix()
    first = lightgbm.train({**FAST, "objective": "binary"}, lightgbm.Dataset(x, x[:, 1] > 0), 3)
    more = lightgbm.train({**FAST, "objective": "binary"}, lightgbm.Dataset(x, x[:, 1] > 0), 3, init_model=first)
    assert read_model_file(more.model_to_string().encode()).tree_count == 6
    refitted = first.refit(matrix(2), matrix(2)[:, 1] > 0)
    assert read_model_file(refitted.model_to_string().encode()).tree_count == 3


def test_feature_names_are_unicode() -> None:
    x = matrix()
    data = lightgbm.Dataset(x, x[:, 1], feature_name=["größe", "a=b", "名前", "d", "e", "f"])
    text = lightgbm.train({**FAST, "objective": "regression"}, data, 2).model_to_string().encode()
    assert read_model_file(text).feature_names[:3] == ("größe", "a=b", "名前")
    LightGBMRuntime(text)


def test_reading_takes_milliseconds() -> None:
    x = matrix(rows=4_000)
    big = lightgbm.train(
        {**FAST, "num_leaves": 31, "objective": "regression"}, lightgbm.Dataset(x, x[:, 1] * x[:, 2]), 100
    )
    text = big.model_to_string().encode()
    fastest = min(_seconds(lambda: read_model_file(text)) for _ in range(5))
    assert fastest < 0.05  # 3.5 ms on an idle machine


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# Categories


def test_pandas_categories_belong_to_their_columns(pandas_trained: PandasTrained) -> None:
    file = read_model_file(pandas_trained.text)
    assert file.categories == {
        "carrier": ("9E", "AA", "B6", "ü x", "never"),
        "gate": (3, 5, 90),
        "night": (False, True),
        "factor": (-2.0, 0.5, 1.5),
    }
    assert [type(value) for value in (file.categories or {})["night"]] == [bool, bool]
    assert {each.name for each in file.features if each.dtype == "int64"} == {"carrier", "gate", "night", "factor"}


# Damage: each of these makes LightGBM 4.7 crash, hang or predict nonsense, or may do so.


def _edit(pattern: bytes, replacement: bytes) -> Callable[[bytes], bytes]:
    def edit(text: bytes) -> bytes:
        edited, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert count == 1, pattern
        # The sizes are corrected, so that the damage itself is detected.
        sizes = [len(block) for block in re.findall(rb"Tree=\d+\n.*?\n\n\n", edited, re.DOTALL)]
        return re.sub(
            rb"^tree_sizes=.*", b"tree_sizes=" + b" ".join(b"%d" % s for s in sizes), edited, flags=re.MULTILINE
        )

    return edit


DAMAGE: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("binary", lambda text: b"", "does not begin"),
    ("binary", lambda text: b"\x80\x04\x95" + text, "pickles are not accepted"),
    ("binary", lambda text: text[:100], "no trees"),
    ("binary", lambda text: text.replace(b"num_leaves", b"num_\0eaves", 1), "NUL"),
    ("binary", lambda text: text[: text.index(b"Tree=3") + 200], "cut off|empty line|first line"),
    ("binary", lambda text: text[: text.index(b"end of trees")], "cut off"),
    ("binary", lambda text: text[: text.index(b"end of parameters")], "cut off"),
    ("binary", lambda text: text.replace(b"tree_sizes=", b"tree_sizes=1"), "first line|empty line"),
    ("binary", lambda text: re.sub(rb"tree_sizes=\d+", b"tree_sizes=99999999999999", text), "empty line|cut off"),
    ("binary", lambda text: text.replace(b"tree_sizes=", b"tree_sizes=-"), "whole number"),
    ("binary", _edit(rb"^version=v4", b"version=v9"), "version 'v9'"),
    ("binary", _edit(rb"^objective=binary", b"objective=bindry"), "objective 'bindry'"),
    ("binary", _edit(rb"^objective=binary sigmoid:1", b"objective=binary sigmoid:x"), "damaged parameters"),
    ("binary", _edit(rb"^objective=", b"objectlve="), "'objectlve' is unknown"),
    ("binary", _edit(rb"^num_class=1", b"num_class=1\nnum_class=1"), "repeated"),
    ("binary", _edit(rb"^num_class=1", b"num_class=0"), "differ or are 0"),
    ("binary", _edit(rb"^num_class=1", b"num_class=2"), "differ or are 0"),
    ("binary", _edit(rb"^num_tree_per_iteration=1", b"num_tree_per_iteration=-1"), "whole number"),
    (
        "binary",
        _edit(rb"^num_class=1\nnum_tree_per_iteration=1", b"num_class=2\nnum_tree_per_iteration=2"),
        "one output",
    ),
    ("custom", _edit(rb"^num_class=1\nnum_tree_per_iteration=1", b"num_class=3\nnum_tree_per_iteration=3"), "multiple"),
    ("multiclass", _edit(rb"num_class:3", b"num_class:4"), "disagree"),
    ("multiclass", _edit(rb" num_class:3", b""), "disagree"),
    ("binary", _edit(rb"^max_feature_idx=5", b"max_feature_idx=4"), "feature_names has 6 values for 5"),
    ("binary", _edit(rb"^max_feature_idx=5", b"max_feature_idx=50000"), "at most 10000"),
    ("binary", _edit(rb"^feature_names=Column_0 ", b"feature_names=Column_1 "), "repeats a name"),
    ("binary", _edit(rb"^feature_names=Column_0", b"feature_names=Colum\xff_0"), "not UTF-8"),
    ("binary", _edit(rb"^feature_infos=\S+ ", b"feature_infos="), "feature_infos has 5"),
    ("binary", _edit(rb"^feature_infos=", b"feature_infos=="), "two values"),
    ("monotone", _edit(rb"^monotone_constraints=1 ", b"monotone_constraints="), "monotone_constraints has 5"),
    ("rf", _edit(rb"^average_output", b"average_output=0"), "average_output has a value"),
    ("binary", _edit(rb"^Tree=2", b"Tree=7"), "tree 2 tree_sizes"),
    ("binary", _edit(rb"^num_leaves=7", b"num_leaves=8"), "tree 0 num_leaves and leaf_value disagree"),
    ("binary", _edit(rb"^num_leaves=7", b"num_leaves=999999999999999999"), "tree 0 num_leaves and leaf_value"),
    ("binary", _edit(rb"^num_leaves=7", b"num_leaves=99999999999999999999999"), "num_leaves is out of range"),
    ("binary", _edit(rb"^num_leaves=7", b"num_leaves=-7"), "disagree"),
    ("binary", _edit(rb"^num_leaves=7", b"num_leaves=7 7"), "wrong number"),
    ("binary", _edit(rb"^num_cat=0", b"num_cat=1"), "tree 0 has no cat_boundaries"),
    ("binary", _edit(rb"^left_child=", b"left_chi1d="), "'left_chi1d' is unknown"),
    ("binary", _edit(rb"^left_child=.*\n", b""), "tree 0 has no left_child"),
    ("binary", _edit(rb"^left_child=(.*)", rb"left_child=\1\nleft_child=\1"), "repeated"),
    ("binary", _edit(rb"^left_child=\S+", b"left_child=6"), "out of range"),
    ("binary", _edit(rb"^left_child=\S+", b"left_child=-8"), "out of range"),
    ("binary", _edit(rb"^left_child=\S+", b"left_child=0"), "out of range"),
    ("binary", _edit(rb"^left_child=\S+", b"left_child=2x"), "damaged number"),
    ("binary", _edit(rb"^left_child=(\S+) ", rb"left_child=\1\t"), "wrong number"),
    ("binary", _edit(rb"^left_child=", b"left_child=\t"), "damaged number"),
    ("binary", _edit(rb"^left_child=(\S+) (\S+)", rb"left_child=\1 \1"), "not a tree"),
    ("binary", _edit(rb"^split_feature=\S+", b"split_feature=6"), "names no column"),
    ("binary", _edit(rb"^split_feature=\S+", b"split_feature=-1"), "names no column"),
    ("binary", _edit(rb"^split_feature=\S+", b"split_feature=1.5"), "damaged number"),
    ("binary", _edit(rb"^split_feature=\S+ ", b"split_feature="), "wrong number"),
    ("binary", _edit(rb"^decision_type=\S+", b"decision_type=12"), "decision_type is out of range"),
    ("binary", _edit(rb"^decision_type=\S+", b"decision_type=-1"), "decision_type is out of range"),
    ("binary", _edit(rb"^decision_type=\S+", b"decision_type=3"), "decision_type and num_cat"),
    ("binary", lambda text: text.replace(b"\n", b"\r"), "begin with the line"),
    ("binary", lambda text: text.replace(b"\nlabel_index", b"\rlabel_index"), "copy it in binary"),
    ("binary", _edit(rb"^threshold=\S+", b"threshold=n"), "damaged number"),
    ("binary", _edit(rb"^threshold=\S+", b"threshold=na"), "damaged number"),
    ("binary", _edit(rb"^leaf_value=\S+", b"leaf_value=0.1.2"), "damaged number"),
    ("binary", _edit(rb"^leaf_value=\S+", b"leaf_value=null"), "damaged number"),
    ("int_coded", _edit(rb"^threshold=\S+", b"threshold=nan"), "not an index of a set"),
    ("binary", _edit(rb"^internal_value=\S+", b"internal_value=-nan(ind)"), "damaged number"),
    ("binary", _edit(rb"^shrinkage=\S+", b"shrinkage=1.#INF"), "damaged number"),
    ("linear", _edit(rb"^leaf_const=\S+", b"leaf_const=none"), "damaged number"),
    ("binary", _edit(rb"^leaf_count=\S+", b"leaf_count=-4"), "leaf_count is out of range"),
    ("binary", _edit(rb"^leaf_weight=\S+", b"leaf_weight="), "wrong number|damaged"),
    ("binary", _edit(rb"^internal_value=\S+", b"internal_value=zero"), "damaged number"),
    ("binary", _edit(rb"^shrinkage=\S+", b"shrinkage="), "wrong number"),
    ("binary", _edit(rb"^is_linear=0", b"is_linear=2"), "is_linear is neither"),
    ("binary", _edit(rb"^is_linear=0", b"is_linear=1"), "has no leaf_coeff, leaf_const, leaf_features, num_features"),
    ("binary", _edit(rb"^is_linear=0", b"is_linear=0" + b"\nx=1" * 9), "unknown|empty line"),
    ("int_coded", _edit(rb"^num_cat=\d", b"num_cat=1"), "disagree"),
    ("int_coded", _edit(rb"^threshold=\S+", b"threshold=77"), "not an index of a set"),
    ("int_coded", _edit(rb"^threshold=\S+", b"threshold=0.5"), "not an index of a set"),
    ("int_coded", _edit(rb"^cat_boundaries=0 1 2", b"cat_boundaries=0 2 1"), "not ranges"),
    ("int_coded", _edit(rb"^cat_boundaries=0 ", b"cat_boundaries=1 "), "not ranges"),
    ("int_coded", _edit(rb"^cat_boundaries=0 ", b"cat_boundaries="), "not ranges"),
    ("int_coded", _edit(rb"^cat_threshold=", b"cat_threshold=7 "), "does not match cat_boundaries"),
    ("int_coded", _edit(rb"^cat_threshold=\S+", b"cat_threshold=4294967296"), "does not match cat_boundaries"),
    ("int_coded", _edit(rb"^cat_threshold=\S+", b"cat_threshold=!"), "damaged number"),
    ("int_coded", _edit(rb"categorical_feature: 4,5", b"categorical_feature: 4,6"), "names column 6 of 6"),
    ("linear", _edit(rb"^num_features=\S+", b"num_features=9"), "does not match num_features"),
    ("linear", _edit(rb"^num_features=\S+", b"num_features=-1"), "not one number a leaf"),
    ("linear", _edit(rb"^leaf_const=\S+ ", b"leaf_const="), "not one number a leaf"),
    ("linear", _edit(rb"^(leaf_features= *)\d+", rb"\g<1>6"), "names no column"),
    ("linear", _edit(rb"^(leaf_coeff= *)[-0-9]\S*", rb"\g<1>1e"), "damaged number"),
    ("binary", _edit(rb"^\[objective: binary\]", b"[objective binary"), "not .name: value."),
    ("binary", _edit(rb"^\[linear_tree: 0\]", b"[linear_tree: 31]"), "linear_tree is '31'"),
    ("binary", _edit(rb"^\[linear_tree: 0\]", b"[linear_tree: 0]\n[linear_tree: 0]"), "repeated"),
    ("binary", _edit(rb"^parameters:", b"parametres:"), "'parametres:' after the trees"),
    ("binary", _edit(rb"^pandas_categorical:null", b"pandas_categorical:[[null]]"), "not lists of categories"),
    ("binary", _edit(rb"^pandas_categorical:null", b"pandas_categorical:["), "not lists of categories"),
    ("binary", lambda text: text + b"\n\xff", "not UTF-8"),
    ("binary", lambda text: text + text[text.index(b"parameters:") :], "after the trees is unknown|repeated"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_damage_is_named(trained: Train, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    damaged = damage(trained(name).text)
    assert damaged != trained(name).text
    with pytest.raises((MalformedError, TooLargeError), match=message):
        read_model_file(damaged)


def _joined(values: Iterable[int]) -> bytes:
    return " ".join(map(str, values)).encode()


def _chain(depth: int, last: int) -> bytes:
    """A model of one tree that is a chain of `depth` splits, whose last split has the right child `last`."""
    rights = [*range(1, depth), last]
    fields = {
        b"num_leaves": b"%d" % (depth + 1),
        b"num_cat": b"0",
        b"split_feature": _joined([0] * depth),
        b"threshold": _joined(range(depth)),
        b"decision_type": _joined([2] * depth),
        b"left_child": _joined(-1 - leaf for leaf in range(depth)),
        b"right_child": _joined(rights),
        b"leaf_value": _joined(range(depth + 1)),
    }
    tree = b"Tree=0\n" + b"".join(b"%s=%s\n" % field for field in fields.items()) + b"\n\n"
    return (
        b"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=0\n"
        b"objective=regression\nfeature_names=x\nfeature_infos=[0:9]\ntree_sizes=%d\n\n" % len(tree)
    ) + (tree + b"end of trees\n")


def test_depth_is_bounded() -> None:
    read_model_file(_chain(DEPTH_MAX, -1 - DEPTH_MAX))
    with pytest.raises(MalformedError, match=f"more than {DEPTH_MAX} levels"):
        read_model_file(_chain(DEPTH_MAX + 1, -2 - DEPTH_MAX))
    deepest = LightGBMRuntime(_chain(DEPTH_MAX, -1 - DEPTH_MAX))
    deepest.predict(np.array([[3.0]]), ("prediction", "contributions", "leaves"))


def test_a_cycle_apart_from_the_root_is_found() -> None:
    text = _chain(3, -4)
    # Split 0 has two leaves, splits 1 and 2 each other: every node has one parent, and two are never reached.
    text = text.replace(b"left_child=-1 -2 -3", b"left_child=-1 2 1").replace(
        b"right_child=1 2 -4", b"right_child=-2 -3 -4"
    )
    sizes = len(text[text.index(b"Tree=") : text.index(b"end of trees")])
    text = re.sub(rb"tree_sizes=\d+", b"tree_sizes=%d" % sizes, text)
    with pytest.raises(MalformedError, match="cycle"):
        read_model_file(text)


def test_many_trees_are_taken_in_groups(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_model_file(trained("int_coded").text)
    monkeypatch.setattr("inferd.streams.inference.formats.lightgbm.model_file._TREES_TEXT_MAX", 1)
    assert read_model_file(trained("int_coded").text) == whole
    damaged = _edit(rb"(Tree=3\n(?:.*\n)*?left_child=)\S+", rb"\g<1>99")(trained("int_coded").text)
    with pytest.raises(MalformedError, match="tree 3 left_child"):
        read_model_file(damaged)
