"""JSON and MessagePack of routes: values at paths, and the added field."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    SchemaMismatchError,
    TooDeepError,
    VersionNotFoundError,
)
from inferd.schemas.routes import Format, Sink, parse_path
from inferd.streams.routes.formats import Document, FailedRecord, Scored, all_formats, format_named
from inferd.streams.routes.formats.typed_tree import value_at
from tests.fixtures.route_formats import SourceRecord as Record
from tests.fixtures.route_formats import check, written

ENCODE: dict[str, Any] = {"json": lambda tree: json.dumps(tree).encode(), "msgpack": msgpack.packb}
DECODE: dict[str, Any] = {"json": json.loads, "msgpack": lambda data: msgpack.unpackb(data, strict_map_key=False)}
ORDER = {"id": 7, "order": {"amount": 12.5, "items": [{"sku": "a", "price": 3}, {"sku": "b"}], "big": None}, "ok": True}


@pytest.fixture(params=["json", "msgpack"])
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def read(name: str, tree: Any, *paths: str, new_field: str | None = None) -> Any:
    value = tree if isinstance(tree, bytes) else ENCODE[name](tree)
    reader = format_named(name).reader(Format(name), [parse_path(path) for path in paths], new_field, None)
    (read,) = reader.read([Record(value)])
    return list(read.values) if isinstance(read, Document) else read


def enriched(name: str, value: bytes, scored: Scored, sink: Sink | None = None, carried: Any = ()) -> Any:
    writer = format_named(name).writer(Format(name), sink or Sink("t", field="fraud"), None)
    made = written(writer, Record(value), Document(()), scored, carried)
    assert isinstance(made, bytes)
    return made


SCORED = Scored("m", 3, ("prediction",), [[0.25]])
FIELDS = {"prediction": 0.25, "model_id": "m", "version": 3}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("id", 7),
        ("order.amount", 12.5),
        ("order.items[0].sku", "a"),
        ("order.items[1].price", None),
        ("order.items[2].price", None),
        ("order.big", None),
        ("order.big.more", None),
        ("none.at.all", None),
        ("ok", True),
    ],
)
def test_a_path_leads_to_its_value_alone_and_among_others(name: str, path: str, expected: Any) -> None:
    assert read(name, ORDER, path) == [expected]
    assert read(name, ORDER, "id", path) == [7, expected]
    assert read(name, ORDER, path, "order.amount", path, new_field="fraud") == [expected, 12.5, expected]


@pytest.mark.parametrize("path", ["order", "order.items", "id.x", "order[0]", "order.items.sku", "order.items[0]"])
def test_a_path_to_or_through_something_else_is_a_mismatch_that_names_it(name: str, path: str) -> None:
    error = read(name, ORDER, path)
    assert isinstance(error, SchemaMismatchError)
    assert path in error.message


def test_a_record_with_the_new_field_is_a_mismatch(name: str) -> None:
    for fraud in (None, 1, {"x": 1}):
        for path in ("id", "order.items[0].sku"):
            assert isinstance(read(name, ORDER | {"fraud": fraud}, path, new_field="fraud"), SchemaMismatchError)


@pytest.mark.parametrize("tree", [[], 1, "x", None, [{"id": 7}]])
def test_a_record_that_is_no_object_is_malformed(name: str, tree: Any) -> None:
    assert isinstance(read(name, tree, "id"), MalformedError)
    assert isinstance(read(name, tree), MalformedError)


def test_broken_bytes_are_malformed_and_do_not_disturb_their_neighbours(name: str) -> None:
    good = ENCODE[name](ORDER)
    broken = [b"", good[:-1], good + good, b"\xc1", b"{", b"{]"]
    reader = format_named(name).reader(Format(name), [parse_path("id")], "fraud", None)
    results = reader.read([Record(value) for each in broken for value in (good, each)])
    assert all(isinstance(result, MalformedError) for result in results[1::2])
    assert all(isinstance(result, Document) and list(result.values) == [7] for result in results[::2])


def test_a_record_nested_very_deep_is_a_typed_error_or_read(name: str) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert read(name, {"id": 7, "deep": deep}, "id") == [7]
    value = b'{"id":7,"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    if name == "json":
        assert isinstance(read(name, value, "id"), TooDeepError)


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 65_534, 65_535, 65_536])
def test_msgpack_keeps_every_byte_of_the_fields_and_adds_one(count: int) -> None:
    tree = {f"k{number}": number for number in range(count)}
    made = enriched("msgpack", msgpack.packb(tree), SCORED)
    assert msgpack.unpackb(made) == tree | {"fraud": FIELDS}
    assert b"".join(msgpack.packb(each) for item in tree.items() for each in item) in made


def test_several_outputs_and_those_of_the_model(name: str) -> None:
    scored = Scored("m", 3, ("prediction", "raw", "own"), [["yes"], [[1.0, 2.0]], [5]])
    fields = DECODE[name](enriched(name, ENCODE[name]({"a": 1}), scored))["fraud"]
    assert fields == {"prediction": "yes", "raw": [1.0, 2.0], "outputs": {"own": 5}, "model_id": "m", "version": 3}


def test_results_alone_and_with_carried_fields(name: str) -> None:
    assert DECODE[name](enriched(name, b"", SCORED, Sink("t", "result"))) == FIELDS
    sink = Sink("t", "result", carry={"order": "id", "sku": "order.items[0].sku"})
    assert DECODE[name](enriched(name, b"", SCORED, sink, (7, "a"))) == {"order": 7, "sku": "a"} | FIELDS


@pytest.mark.parametrize("mode", ["enrich", "result"])
def test_a_failure_has_its_error_instead_of_a_prediction(name: str, mode: Any) -> None:
    writer = format_named(name).writer(Format(name), Sink("t", mode, field="fraud"), None)
    failed = FailedRecord(VersionNotFoundError("no version 9"), "m")
    made = written(writer, Record(ENCODE[name]({"a": 1})), Document(()), failed)
    assert isinstance(made, bytes)
    fields = {"model_id": "m", "error": {"code": "version_not_found", "message": "no version 9"}}
    assert DECODE[name](made) == ({"a": 1, "fraud": fields} if mode == "enrich" else fields)


NAMES = st.sampled_from(["a", "b", "c", 'x"y', "é"])
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)
PATHS = st.lists(st.lists(NAMES | st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=4)


def text_of(steps: list[str | int]) -> str:
    first, *others = ([step for step in steps if isinstance(step, str)] and steps) or ["a", *steps]
    quoted = [f"[{step}]" if isinstance(step, int) else f"[{json.dumps(step)}]" for step in (first, *others)]
    return "".join(quoted)


@given(st.dictionaries(NAMES, TREES, max_size=4), PATHS, st.sampled_from(["json", "msgpack"]))
def test_the_typed_decoder_reads_what_a_walk_finds(tree: dict[str, Any], steps: Any, name: str) -> None:
    paths = [parse_path(text_of(["a", *each] if isinstance(each[0], int) else each)) for each in steps]
    expected: Any
    try:
        expected = [value_at(tree, path) for path in paths]
    except InferenceError as error:
        expected = type(error)
    result = read(name, tree, *(path.text for path in paths))
    assert (type(result) if isinstance(result, InferenceError) else result) == expected


SPACE = st.text(" \t\r\n", max_size=3).map(str.encode)


@given(st.dictionaries(NAMES, TREES, max_size=5), SPACE, SPACE, SPACE, st.booleans())
@example({}, b"", b"", b"", False)
@example({"a": "}"}, b" ", b"\n", b" \n", True)
def test_json_keeps_every_byte_and_adds_one_field(
    tree: dict[str, Any], front: bytes, within: bytes, after: bytes, fails: bool
) -> None:
    """The original up to its last brace is the beginning, and what follows the brace is the end."""
    members = ENCODE["json"](tree)[:-1]
    value = front + members + within + b"}" + after
    made = failed(value) if fails else enriched("json", value, SCORED)
    kept = front + members + within
    assert made.startswith(kept)
    assert made.endswith(b"}" + after)
    added = made[len(kept) : len(made) - len(after)]
    assert added.startswith(b',"fraud":{' if tree else b'"fraud":{')
    assert added.endswith(b"}}")
    assert json.loads(made).items() > tree.items()


def failed(value: bytes) -> bytes:
    writer = format_named("json").writer(Format("json"), Sink("t", field="fraud"), None)
    made = written(writer, Record(value), Document(()), FailedRecord(VersionNotFoundError("no version 9"), "m"))
    assert isinstance(made, bytes)
    return made


@given(st.dictionaries(NAMES, TREES, max_size=20))
def test_the_added_field_is_all_that_changes(tree: dict[str, Any]) -> None:
    for name in ("json", "msgpack"):
        value = ENCODE[name](tree)
        assert DECODE[name](enriched(name, value, SCORED)) == tree | {"fraud": FIELDS}


def test_formats_are_listed_and_an_unknown_one_is_refused() -> None:
    assert {"json", "msgpack"} <= {each.name for each in all_formats()}
    with pytest.raises(InferenceError, match=r"yaml.*json"):
        format_named("yaml")
    for name in ("json", "msgpack"):
        check(Format(name))
        with pytest.raises(InferenceError, match="schema"):
            check(Format(name, schema="x"))
        with pytest.raises(InferenceError, match="no option 'subjects'"):
            check(Format(name), Sink("t", subjects="record"))


def test_integers_of_any_size_are_read() -> None:
    for digits in ("12345678901234567890123", "1" + "0" * 400):
        assert read("json", b'{"a":' + digits.encode() + b"}", "a") == [int(digits)]
        assert read("json", b'{"a":[' + digits.encode() + b"]}", "a[0]") == [int(digits)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Format("json", registry=True), "format json has no option 'registry'"),
        (Format("msgpack", registry=True), "format msgpack has no option 'registry'"),
        (Format("json", message="Order"), "format json has no option 'message'"),
        (Format("avro", registry=True), "'registry' goes with a schema"),
        (Format("avro", message="Order"), "format avro has no option 'message'"),
        (Format("protobuf", registry=True), "'registry' goes with a schema"),
    ],
)
def test_an_option_without_effect_is_refused(options: Format, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        check(options)
