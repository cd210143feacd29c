from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from inferd.schemas.codec import (
    check_manifest,
    check_manifest_key,
    decode_alias,
    decode_manifest,
    encode_alias,
    encode_manifest,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models.model import (
    Alias,
    AliasKey,
    ArtifactKey,
    Category,
    ClaimKey,
    Feature,
    FileCategories,
    LeaseKey,
    Manifest,
    ModelKey,
    VersionKey,
    parse_artifact_key,
    parse_model_key,
)
from tests.unit.schemas.sample_records import ALIAS, MANIFEST

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)


def manifest_with(**fields: Any) -> bytes:
    return msgspec.msgpack.encode({**msgspec.to_builtins(MANIFEST), **fields})


def rejection(value: bytes | None, limits: Limits = DEFAULT_LIMITS, codec: Codec = MSGPACK) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        decode_manifest(value, limits, codec)
    return caught.value


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_records_round_trip(codec: Codec) -> None:
    assert decode_manifest(encode_manifest(MANIFEST, codec), codec=codec) == MANIFEST
    assert decode_alias(encode_alias(ALIAS, codec), codec=codec) == ALIAS


def test_equal_manifests_give_equal_bytes() -> None:
    other = msgspec.structs.replace(MANIFEST, labels={"env": "prod", "team": "ops"})
    assert other == MANIFEST
    assert encode_manifest(other) == encode_manifest(MANIFEST)


@pytest.mark.parametrize(
    ("value", "codec", "code", "says"),
    [
        (None, MSGPACK, "malformed", "no value"),
        (b"", MSGPACK, "malformed", "empty value"),
        (b"\xc1", MSGPACK, "malformed", "0xc1"),
        (b"[]", JSON, "malformed", "got `array`"),
        (encode_manifest(MANIFEST) + b"\x00", MSGPACK, "malformed", "trailing"),
        (b'{"version":1,"version":1}', JSON, "malformed", "'version' at byte 13 appears twice"),
        (b"\x82\xa1a\x01\xa1a\x01", MSGPACK, "malformed", "'a' at byte 4 appears twice"),
        (b"\x81\xa1a" + b"\x91" * 20, MSGPACK, "too_deep", "16 levels"),
        (b'{"features":[{"name":"x","name":"y"}]}', JSON, "malformed", "appears twice"),
        (manifest_with(colour="red"), MSGPACK, "malformed", "`colour`"),
        (manifest_with(signature="ed25519:…"), MSGPACK, "malformed", "`signature`"),
        (manifest_with(runtime="Pickle"), MSGPACK, "malformed", "$.runtime"),
        (manifest_with(version="3"), MSGPACK, "malformed", "$.version"),
        (manifest_with(version=3.0), MSGPACK, "malformed", "$.version"),
        (manifest_with(features=[{"name": "x", "dtype": "float16"}]), MSGPACK, "malformed", "dtype"),
        (manifest_with(features=[{"name": "x", "unit": "m"}]), MSGPACK, "malformed", "`unit`"),
        (b" " * 1_000_001, JSON, "too_large", "1000000 are allowed"),
    ],
)
def test_bytes_that_are_not_a_manifest(value: bytes | None, codec: Codec, code: str, says: str) -> None:
    error = rejection(value, codec=codec)
    assert (error.code, says in error.message) == (code, True), error.message


X = {"name": "x"}


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"model_id": "a/b"}, "invalid_id", "'a/b'"),
        ({"model_id": "a:1"}, "invalid_id", "'a:1'"),
        ({"version": 0}, "invalid_value", "version 0"),
        ({"version": 10**9}, "invalid_value", "999999999"),
        ({"sha256": "A" * 64}, "invalid_value", "sha256"),
        ({"sha256": "a" * 63}, "invalid_value", "sha256"),
        ({"sha256": "a" * 64 + "\n"}, "invalid_value", "sha256"),
        ({"size": 0}, "invalid_value", "size 0"),
        ({"size": 512 * 1_048_576 + 1}, "too_large", "size"),
        ({"features": []}, "schema_mismatch", "at least one"),
        ({"features": [X, X]}, "schema_mismatch", "'x' is named twice"),
        ({"features": [{"name": ""}]}, "invalid_value", "is empty"),
        ({"features": [{**X, "min": 2, "max": 1}]}, "invalid_value", "'x': min 2.0, max 1.0"),
        ({"features": [{**X, "min": float("nan")}]}, "invalid_value", "not finite"),
        ({"features": [{**X, "max": float("inf")}]}, "invalid_value", "not finite"),
        ({"features": [{**X, "dtype": "category", "min": 0}]}, "invalid_value", "only numbers"),
        ({"features": [{**X, "dtype": "bool", "max": 1}]}, "invalid_value", "only numbers"),
        ({"features": [{**X, "categories": ["a"]}]}, "invalid_value", "float64"),
        ({"features": [{**X, "dtype": "category", "categories": []}]}, "invalid_value", "empty"),
        ({"features": [{**X, "dtype": "category", "categories": ["a", "a"]}]}, "invalid_value", "twice"),
        ({"features": [{**X, "dtype": "category", "categories": [1, True]}]}, "invalid_value", "same value"),
        ({"features": [{**X, "dtype": "category", "categories": [float("nan")]}]}, "invalid_value", "nan"),
        (
            {"features": [{**X, "file_categories": {"kind": "text", "count": 1}}]},
            "invalid_value",
            "only dtype category",
        ),
        (
            {"features": [{**X, "dtype": "category", "file_categories": {"kind": "text", "count": 0, "first": ["a"]}}]},
            "invalid_value",
            "count 0, but first has 1",
        ),
        ({"model_id": "."}, "invalid_id", "only dots"),
        ({"model_id": "..."}, "invalid_id", "only dots"),
        ({"outputs": 0}, "invalid_value", "outputs 0"),
        ({"output_names": []}, "invalid_value", "output_names: an empty list"),
        ({"output_names": ["a", "a"]}, "invalid_value", "'a' is named twice"),
        ({"output_names": ["a", "row"]}, "invalid_value", "'row' is reserved"),
        ({"output_names": ["raw"]}, "invalid_value", "'raw' is reserved"),
        ({"output_names": [""]}, "invalid_value", "'' is reserved, empty"),
        ({"preprocess": {"order": ["hour", "carrier"]}}, "schema_mismatch", "'dep_delay' is missing"),
        ({"preprocess": {"order": ["hour", "carrier", "dep_delay", "x"]}}, "schema_mismatch", "'x' is unknown"),
        ({"preprocess": {"order": ["hour", "carrier", "hour"]}}, "schema_mismatch", "'hour' is named twice"),
        ({"preprocess": {"defaults": {"x": 1}}}, "schema_mismatch", "no feature 'x'"),
        ({"preprocess": {"defaults": {"hour": 1.5}}}, "invalid_value", "int64"),
        ({"preprocess": {"defaults": {"hour": True}}}, "invalid_value", "int64"),
        ({"preprocess": {"defaults": {"hour": "1"}}}, "invalid_value", "int64"),
        ({"preprocess": {"defaults": {"dep_delay": float("nan")}}}, "invalid_value", "float64"),
        ({"preprocess": {"defaults": {"dep_delay": float("inf")}}}, "invalid_value", "float64"),
        ({"preprocess": {"defaults": {"dep_delay": -61}}}, "invalid_value", "outside of -60.0..1500.0"),
        ({"preprocess": {"defaults": {"carrier": "ZZ"}}}, "invalid_value", "'carrier': 'ZZ' is not one"),
        ({"preprocess": {"unknown_category": "guess"}}, "malformed", "unknown_category"),
        ({"postprocess": {"labels": ["a"]}}, "schema_mismatch", "2 classes"),
        ({"postprocess": {"labels": ["a", "b", "c"]}}, "schema_mismatch", "2 classes"),
        ({"postprocess": {"labels": ["a", "a"]}}, "invalid_value", "'a' is named twice"),
        ({"postprocess": {"labels": ["a", "b"]}, "outputs": 3}, "schema_mismatch", "3 classes"),
        ({"postprocess": {"labels": ["a"]}, "outputs": None}, "invalid_value", "at least 2"),
        ({"postprocess": {"threshold": 1.1}}, "invalid_value", "threshold 1.1"),
        ({"postprocess": {"threshold": float("nan")}}, "invalid_value", "threshold nan"),
        ({"postprocess": {"top_k": 0}}, "invalid_value", "top_k 0"),
        ({"postprocess": {"top_k": 3}}, "invalid_value", "2 classes"),
        ({"cache": {"ttl_s": 0, "max_entries": 1}}, "invalid_value", "ttl_s"),
        ({"cache": {"ttl_s": float("inf"), "max_entries": 1}}, "invalid_value", "ttl_s"),
        ({"cache": {"ttl_s": 1, "max_entries": 0}}, "invalid_value", "max_entries"),
        ({"warmup": [[1, [2]]]}, "malformed", "warmup"),
        ({"warmup": [[1], [1, 2]]}, "malformed", "warmup"),
        ({"warmup": [1, 2, 3]}, "malformed", "warmup"),
        ({"warmup": [[1, "AA"]]}, "schema_mismatch", "rows of 2 values, but the model has 3 features"),
    ],
)
def test_manifests_that_make_no_sense(fields: dict[str, Any], code: str, says: str) -> None:
    keep = {} if "features" not in fields else {"preprocess": None, "warmup": None}
    error = rejection(manifest_with(**keep, **fields))
    assert (error.code, says in error.message) == (code, True), error.message


def test_too_many_features() -> None:
    manifest = Manifest("m", 1, "lightgbm", "a" * 64, 1, [Feature(f"f{n}") for n in range(4)])
    with pytest.raises(InferenceError) as caught:
        check_manifest(manifest, Limits(features_max=3))
    assert caught.value.code == "too_large"


def test_defaults_that_fit() -> None:
    features = [{"name": name, "dtype": name} for name in ("float64", "float32", "int64", "bool", "category")]
    for defaults in (
        {"float64": 1, "float32": 1.5, "int64": 2.0, "bool": True, "category": "x"},
        dict.fromkeys(("float64", "float32", "int64", "bool", "category")),
    ):
        value = manifest_with(features=features, preprocess={"defaults": defaults}, warmup=None)
        preprocess = decode_manifest(value).preprocess
        assert preprocess is not None
        assert preprocess.defaults == defaults


def test_named_warm_up_rows() -> None:
    rows = [{"hour": 1, "carrier": "AA"}]
    assert decode_manifest(manifest_with(warmup=rows)).warmup == rows


def test_a_manifest_and_its_key() -> None:
    check_manifest_key(VersionKey("flights", 3), MANIFEST)
    for key in (VersionKey("flights", 4), VersionKey("other", 3)):
        with pytest.raises(InferenceError, match=f"flights/3, but the key is {key}"):
            check_manifest_key(key, MANIFEST)


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({}, "invalid_value", "exactly one"),
        ({"version": 1, "split": [{"version": 1, "weight": 1}]}, "invalid_value", "exactly one"),
        ({"version": 0}, "invalid_value", "version 0"),
        ({"version": True}, "malformed", "$.version"),
        ({"split": []}, "invalid_value", "empty"),
        ({"split": [{"version": 1, "weight": 0}]}, "invalid_value", "weight 0.0"),
        ({"split": [{"version": 1, "weight": -1}]}, "invalid_value", "weight -1.0"),
        ({"split": [{"version": 1, "weight": float("nan")}]}, "invalid_value", "weight nan"),
        (
            {"split": [{"version": 1, "weight": 1e308}, {"version": 2, "weight": 1e308}]},
            "invalid_value",
            "the sum of the weights",
        ),
        ({"split": [{"version": 0, "weight": 1}]}, "invalid_value", "split: version 0"),
        ({"split": [{"version": 1, "weight": 1}] * 2}, "invalid_value", "'1' is named twice"),
        ({"version": 1, "shadow": [0]}, "invalid_value", "shadow: version 0"),
        ({"version": 1, "shadow": [2, 2]}, "invalid_value", "'2' is named twice"),
        ({"split": [{"version": 1, "weight": 1}], "sticky": "key"}, "malformed", "`sticky`"),
        ({"version": 1, "stiky": "key"}, "malformed", "`stiky`"),
    ],
)
def test_aliases_that_make_no_sense(fields: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(InferenceError) as caught:
        decode_alias(msgspec.msgpack.encode(fields))
    assert (caught.value.code, says in caught.value.message) == (code, True), caught.value.message


def test_an_alias_in_json() -> None:
    assert decode_alias(json.dumps({"version": 3}).encode(), codec=JSON).version == 3


@pytest.mark.parametrize(
    "key",
    [
        VersionKey("flights", 3),
        AliasKey("flights", "champion"),
        VersionKey("a.b-c_D", 999_999_999),
        ClaimKey("flights", 3, "0123456789abcdef" * 2),
        LeaseKey("a" * 64, "b" * 32),
        LeaseKey("a" * 64, "b" * 32, collecting=True),
    ],
)
def test_keys_round_trip(key: ModelKey) -> None:
    assert parse_model_key(str(key).encode()) == key
    assert parse_artifact_key(str(ArtifactKey("a" * 64, 12)).encode()) == ArtifactKey("a" * 64, 12)


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"m",
        b"m/0",
        b"m/01",
        b"m/1\n",
        b"m@",
        b"m/1/2",
        b"../m/1",
        b"m@a@b",
        b"\xff/1",
        "м/1".encode(),
        b"m/1#",
        b"m/1#" + b"g" * 32,
        b"m/1!" + b"a" * 32,
        b"a" * 64,
        b"a" * 64 + b"#1",
    ],
)
def test_invalid_keys(key: bytes | None) -> None:
    for parse in (parse_model_key, parse_artifact_key):
        with pytest.raises(InferenceError) as caught:
            parse(key)
        assert caught.value.code == "malformed"


WRITTEN: dict[str, dict[str, Any]] = {
    "no features": {"features": []},
    "dots": {"model_id": ".."},
    "size": {"size": 0},
    "labels": {"labels": {"note": "x" * 1_000_000}},
    "an integer beyond 64 bits": {"features": [Feature("x", "category", [2**70])]},
}


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("what", WRITTEN)
def test_undecodable_manifests_are_not_encoded(what: str, codec: Codec) -> None:
    least = Manifest("m", 1, "lightgbm", "0" * 64, 10, [Feature("x")])
    with pytest.raises(InferenceError):
        encode_manifest(msgspec.structs.replace(least, **WRITTEN[what]), codec)


def test_an_alias_that_could_not_be_read_is_not_written() -> None:
    for alias in (Alias(), Alias(version=0), Alias(split=[])):
        with pytest.raises(InferenceError):
            encode_alias(alias)


def test_names_of_any_length_and_many_categories_are_read() -> None:
    described = FileCategories("text", 60_000, ["a"])
    features = [Feature("x" * 5_000), Feature("y", "category", file_categories=described), Feature("a\tb\u00a0c\u3000")]
    manifest = Manifest("m", 1, "lightgbm", "0" * 64, 10, features)
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_a_manifest_may_have_more_values_than_a_request() -> None:
    category = Feature("y", "category", file_categories=FileCategories("text", 1, ["a"]))
    features = [category, *(Feature(str(number)) for number in range(200))]
    manifest = Manifest("m", 1, "lightgbm", "0" * 64, 10, features)
    limits = Limits(values_max=10, depth_max=4)
    assert decode_manifest(encode_manifest(manifest, limits=limits), limits) == manifest


def test_a_description_made_by_another_release_still_describes_its_categories() -> None:
    described = FileCategories.of(["", "NA", "x"])
    assert described.na == ["", "NA"]
    assert msgspec.structs.replace(described, na=["NA", "n.v."]).describes(["", "NA", "x"])
    others: tuple[list[Category], ...] = (["", "NA", "y"], ["", "NA"], ["", "NA", "x", "z"], ["", "NA", 1])
    assert not any(map(described.describes, others))
