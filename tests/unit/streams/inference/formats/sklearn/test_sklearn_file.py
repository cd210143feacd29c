"""Damaged or malicious `.skops` files: rejected before the library reads them."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from inferd.schemas.errors import InferenceError, MalformedError, TooDeepError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference import TrialLimits, read_model
from inferd.streams.inference.formats.sklearn.archive import read_array
from inferd.streams.models.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.sklearn.sklearn_models import trained

Schema = dict[str, Any]


def rewritten(content: bytes, change: Callable[[Schema, dict[str, bytes]], None], method: int = 0) -> bytes:
    """A file with its description and members changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    change(schema, members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("schema.json", json.dumps(schema))
    return out.getvalue()


def attributes(schema: Schema) -> Schema:
    found: Schema = schema["content"]["content"]
    return found


def node(loader: str, module: str, name: str, **more: Any) -> Schema:
    return {"__loader__": loader, "__module__": module, "__class__": name, "__id__": random.randrange(10**9), **more}


HOSTILE = {
    "os.system": node("FunctionNode", "os", "system"),
    "subprocess.Popen": node("ObjectNode", "subprocess", "Popen"),
    "builtins.eval": node("FunctionNode", "builtins", "eval"),
    "numpy.load": node("FunctionNode", "numpy", "load"),
    "numpy.memmap": node("ObjectNode", "numpy", "memmap"),
    "sklearn.datasets._base.load_files": node("FunctionNode", "sklearn.datasets._base", "load_files"),
    "sklearn.utils.os": node("TypeNode", "sklearn.utils", "os"),
    "operator.methodcaller": node("OperatorFuncNode", "operator", "methodcaller", attrs={}),
    "sklearn.pipeline.Pipeline": node("ConstructorFromReduceNode", "sklearn.pipeline", "Pipeline", content={}),
    "lightgbm.sklearn.LGBMClassifier": node("ObjectNode", "lightgbm.sklearn", "LGBMClassifier"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_type_that_is_not_allowed_is_rejected_by_name(name: str) -> None:
    content = rewritten(trained("logistic").content, lambda schema, _: attributes(schema).update(x=HOSTILE[name]))
    with pytest.raises(MalformedError, match=f"names '{name}'.*INFERD_MODEL_TYPES_ALLOWED"):
        read_model(content)


def test_an_operator_may_allow_a_type() -> None:
    hostile = HOSTILE["lightgbm.sklearn.LGBMClassifier"]
    content = rewritten(trained("logistic").content, lambda schema, _: attributes(schema).update(x=hostile))
    assert read_model(content, Limits(types_allowed=("lightgbm.sklearn.LGBMClassifier",))).runtime == "sklearn"


def test_a_vectorizer_that_reads_files_is_rejected() -> None:
    def reads_files(schema: Schema, _: dict[str, bytes]) -> None:
        steps = attributes(schema)["steps"]["content"]
        attributes(steps[0]["content"][1])["input"]["content"] = '"filename"'

    with pytest.raises(MalformedError, match="TfidfVectorizer reads files"):
        read_model(rewritten(trained("tfidf").content, reads_files))


def test_a_bomb_is_rejected_before_it_is_decompressed() -> None:
    def bomb(_: Schema, members: dict[str, bytes]) -> None:
        members["zeros.npy"] = bytes(50_000_000)

    content = rewritten(trained("logistic").content, bomb, zipfile.ZIP_DEFLATED)
    assert len(content) < 200_000
    with pytest.raises(TooLargeError, match="decompressed: at most 10000000 are allowed"):
        read_model(content, Limits(artifact_bytes_max=10_000_000))


def test_a_deep_description_is_rejected() -> None:
    def deep(schema: Schema, _: dict[str, bytes]) -> None:
        inner: Schema = node("JsonNode", "builtins", "str", content="1")
        for _level in range(400):
            inner = node("ListNode", "builtins", "list", content=[inner])
        attributes(schema)["x"] = inner

    with pytest.raises((TooDeepError, MalformedError)):
        read_model(rewritten(trained("logistic").content, deep))


@pytest.mark.parametrize(
    "shape", [(10**12,), (2**31, 2**31), (3, -1), (10**30,)], ids=["long", "square", "negative", "beyond"]
)
def test_an_array_that_claims_more_than_its_size_is_rejected(shape: tuple[int, ...]) -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    with pytest.raises(MalformedError):
        read_array(out.getvalue() + bytes(8), "an array")


def test_an_array_of_objects_is_rejected() -> None:
    out = io.BytesIO()
    np.save(out, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(MalformedError, match="Python objects, which only a pickle can hold"):
        read_array(out.getvalue(), "an array")


def _with_nodes(content: bytes, change: Callable[[np.ndarray[Any, Any]], None], field: str) -> bytes:
    """A file with the nodes of its first tree changed."""

    def changed(_: Schema, members: dict[str, bytes]) -> None:
        for name, data in members.items():
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                if field in (array.dtype.names or ()):
                    change(array)
                    out = io.BytesIO()
                    np.save(out, array)
                    members[name] = out.getvalue()
                    return
        raise AssertionError(field)

    return rewritten(content, changed)


@pytest.mark.parametrize(("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 400)])
def test_a_tree_with_invalid_children_is_rejected(field: str, value: int) -> None:
    def damage(nodes: np.ndarray[Any, Any]) -> None:
        nodes[field][0] = value

    with pytest.raises(MalformedError, match="a tree has a"):
        read_model(_with_nodes(trained("tree").content, damage, field))


@pytest.mark.parametrize(("field", "value"), [("left", 60_000), ("right", 0), ("feature_idx", 77)])
def test_a_histogram_tree_with_invalid_children_is_rejected(field: str, value: int) -> None:
    def damage(nodes: np.ndarray[Any, Any]) -> None:
        nodes[field][0] = value

    with pytest.raises(MalformedError, match="a tree has a"):
        read_model(_with_nodes(trained("histogram").content, damage, field))


@pytest.mark.parametrize("content", [pickle.dumps({}), b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_rejected(content: bytes) -> None:
    with pytest.raises(InferenceError):
        read_model(content, DEFAULT_LIMITS, "sklearn")


def mutants(content: bytes, count: int, seed: int) -> list[bytes]:
    """Files with bytes changed, cut or doubled; half of them inside members, with right checksums."""
    chance = random.Random(seed)
    found = []
    for index in range(count):
        if index % 2:
            damaged = bytearray(content)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            cut = chance.randrange(len(damaged)) if chance.random() < 0.2 else len(damaged)
            found.append(bytes(damaged[:cut]))
        else:
            found.append(rewritten(content, lambda schema, members: _damage(schema, members, chance)))
    return found


def _damage(schema: Schema, members: dict[str, bytes], chance: random.Random) -> None:
    nodes: list[Schema] = []
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            nodes.append(value)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    for _ in range(chance.randint(1, 3)):
        if members and chance.random() < 0.5:
            name = chance.choice(sorted(members))
            data = bytearray(members[name])
            data[chance.randrange(len(data))] = chance.randrange(256)
            members[name] = bytes(data)
            continue
        target = chance.choice(nodes)
        if target:
            key = chance.choice(sorted(target))
            target[key] = chance.choice(
                [None, "", "0", -1, 10**20, [], {}, deepcopy(chance.choice(nodes).get("content"))]
            )


def test_mutants_end_no_trial() -> None:
    count = int(os.environ.get("MUTANTS", "500")) // 2
    contents = [
        mutant for seed, name in enumerate(("tree", "tfidf")) for mutant in mutants(trained(name).content, count, seed)
    ]
    verdicts = try_models([TrialCase(content) for content in contents], TrialLimits(start_s=600))
    assert len(verdicts) == 2 * count
    crashed = [verdict.reason for verdict in verdicts if verdict.reason and "SIG" in verdict.reason]
    assert not crashed
    assert 0 < sum(verdict.ok for verdict in verdicts) < 2 * count
