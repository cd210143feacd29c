"""Reads and checks XGBoost model files without the library.

The format is that of `Learner::SaveModel` in XGBoost's `learner.cc`, `GBTreeModel::SaveModel` in `gbtree_model.cc` and
`RegTree::SaveModel` in `tree_model.cc`, as JSON or UBJSON. XGBoost writes it since version 1.0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inferd.schemas.errors import InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import DType
from inferd.streams.inference.features import FileFeature, Values
from inferd.streams.inference.formats.xgboost import objectives
from inferd.streams.inference.formats.xgboost.categories import Categories, read_categories
from inferd.streams.inference.formats.xgboost.document import Part, decode, first_key
from inferd.streams.inference.formats.xgboost.model_trees import TreeShape, check_tree
from inferd.streams.inference.model_format import ModelFile

NAME = "xgboost"
BEGINS = "the object of an XGBoost model, JSON or UBJSON (save one with save_model('model.ubj'))"
_SNIFFED_BYTES = 256
_NUMBER, _CATEGORY = "float", "c"
_DTYPES: dict[str, DType] = {"int": "int64", "i": "bool", _CATEGORY: "int64"}
_SNAPSHOT = frozenset({b"Config", b"Model"})

Booster = Literal["gbtree", "dart", "gblinear"]


@dataclass(frozen=True, kw_only=True)
class XGBoostFile(ModelFile):
    """A model file that passed `read_model_file`."""

    booster: Booster
    tree_count: int
    """Trees that predict: those up to the best iteration if `rounds` is not 0."""
    rounds: int
    """Rounds of boosting that predict; 0 for all."""
    vector_leaves: bool
    """Whether leaves are vectors: such models have no contributions."""


def sniff(content: bytes) -> bool:
    """Whether `content` is a JSON or UBJSON document of XGBoost, by its first key."""
    return first_key(content[:_SNIFFED_BYTES]) is not None


def read_model_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> XGBoostFile:
    """Reads and checks a model file; `MalformedError` or `TooLargeError` say what is wrong and where.

    `InvalidValueError` for a snapshot of unfinished training.
    """
    if first_key(content[:_SNIFFED_BYTES]) in _SNAPSHOT:
        raise InvalidValueError("model file: a snapshot of an XGBoost booster (a pickle's content): use save_model")
    document = decode(content)
    learner = document["learner"]
    count = _feature_count(learner, limits)
    objective = _objective(learner)
    boosted = _read_booster(learner, count, objective)
    return XGBoostFile(
        runtime=NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        objective=objective,
        outputs_per_row=boosted.outputs,
        features=_features(learner, count, boosted.categories),
        named=bool(_names(learner)),
        classes=tuple(range(boosted.outputs)) if objective == objectives.SOFTMAX else (),
        booster=boosted.booster,
        tree_count=boosted.count,
        rounds=boosted.rounds,
        vector_leaves=boosted.vectors,
    )


def _feature_count(learner: Part, limits: Limits) -> int:
    count = learner["learner_model_param"]["num_feature"].natural()
    if not count:
        raise MalformedError("model file: has no features")
    if count > limits.features_max:
        raise TooLargeError(f"model file: {count} features: at most {limits.features_max} are allowed")
    return count


def _objective(learner: Part) -> str:
    part = learner["objective"]["name"]
    if (name := part.text()) not in objectives.KNOWN:
        part.fail(
            f"is {name[:40]!r}, which XGBoost does not know; a model with an objective of your own keeps its name"
        )
    return name


def _names(learner: Part) -> tuple[str, ...]:
    return learner["feature_names"].texts() if learner.has("feature_names") else ()


def _features(learner: Part, count: int, categories: Categories) -> tuple[FileFeature, ...]:
    """The features, with XGBoost's default names if the file has none."""
    names = _names(learner) or tuple(f"f{column}" for column in range(count))
    if len(names) != count or len(set(names)) < count:
        learner["feature_names"].fail(f"has {len(set(names))} names for {count} features")
    types = learner["feature_types"].texts() if learner.has("feature_types") else ()
    if types and len(types) != count:
        learner["feature_types"].fail(f"has {len(types)} types for {count} features")
    return tuple(
        _feature(name, kind, values)
        for name, kind, values in zip(names, types or (_NUMBER,) * count, categories or (None,) * count, strict=True)
    )


def _feature(name: str, kind: str, categories: Values | None) -> FileFeature:
    """A feature. The library rounds numbers to float32. A category whose values are not in the file is given by its
    code."""
    if kind == _CATEGORY and categories is not None:
        return FileFeature(name=name, dtype="category", categories=categories, coded=True)
    return FileFeature(name=name, dtype=_DTYPES.get(kind, "float32"))


@dataclass(frozen=True, slots=True)
class _Trees:
    booster: Booster
    outputs: int
    count: int = 0
    rounds: int = 0
    vectors: bool = False
    categories: Categories = ()


def _read_booster(learner: Part, features: int, objective: str) -> _Trees:
    part = learner["gradient_booster"]
    name, outputs = part["name"].text(), _outputs(learner, objective)
    if name == "gblinear":
        return _read_linear(part["model"], features, outputs)
    if name == "dart":
        return _read_trees(part["gbtree"]["model"], learner, features, outputs, part["weight_drop"])
    if name != "gbtree":
        part["name"].fail(f"is {name[:40]!r}: known are gbtree, dart, gblinear")
    return _read_trees(part["model"], learner, features, outputs, None)


def _outputs(learner: Part, objective: str) -> int:
    """Number of raw scores per row: one per class or target."""
    param = learner["learner_model_param"]
    classes = param["num_class"].natural()
    targets = param["num_target"].natural() if param.has("num_target") else 1
    if (objective in objectives.MULTICLASS) != (classes > 1) or (classes > 1 and targets > 1):
        param.fail(f"has {classes} classes and {targets} targets, which objective {objective} does not allow")
    return max(classes, targets, 1)


def _read_linear(model: Part, features: int, outputs: int) -> _Trees:
    if (found := len(model["weights"].floats())) != (features + 1) * outputs:
        model["weights"].fail(f"has {found} values: expected {(features + 1) * outputs}")
    return _Trees("gblinear", outputs)


def _read_trees(model: Part, learner: Part, features: int, outputs: int, drop: Part | None) -> _Trees:
    trees, groups = model["trees"].items(), model["tree_info"].ints()
    param = model["gbtree_model_param"]
    count = len(trees)
    if not count or count != param["num_trees"].natural() or count != len(groups):
        model.fail(f"has {count} trees, and other numbers of them in gbtree_model_param or tree_info")
    if ((groups < 0) | (groups >= outputs)).any():
        model["tree_info"].fail(f"names an output beyond the {outputs} of the model")
    if drop is not None and len(drop.floats()) != count:
        drop.fail(f"has {len(drop.floats())} weights for {count} trees")
    vectors = [check_tree(tree, TreeShape(features, outputs)) for tree in trees]
    if any(vectors) and not all(vectors):
        model.fail("has both trees with vectors and trees with numbers as leaves")
    ends = _round_ends(model, count, 1 if any(vectors) else outputs)
    rounds = _best_rounds(learner, len(ends))
    used = int(ends[rounds - 1]) if rounds else count
    categories = read_categories(model["cats"], features) if model.has("cats") else ()
    return _Trees("gbtree" if drop is None else "dart", outputs, used, rounds, any(vectors), categories)


def _round_ends(model: Part, count: int, groups: int) -> list[int]:
    """The number of trees after each round; derived for files before version 2.0, which do not contain it."""
    if model.has("iteration_indptr"):
        ends = model["iteration_indptr"].ints()
        if len(ends) < 2 or ends[0] != 0 or ends[-1] != count or (np.diff(ends) < 1).any():
            model["iteration_indptr"].fail(f"does not divide the {count} trees into rounds")
        return [int(end) for end in ends[1:]]
    a_round = model["gbtree_model_param"]["num_parallel_tree"].natural() * groups
    if not a_round or count % a_round:
        model.fail(f"has {count} trees, which are not a multiple of {a_round} a round")
    return list(range(a_round, count + 1, a_round))


def _best_rounds(learner: Part, rounds: int) -> int:
    """The number of rounds that `XGBModel.predict` uses; 0 if the file is of a `Booster`, or has no best iteration."""
    attributes = learner["attributes"]
    if not (attributes.has("scikit_learn") and attributes.has("best_iteration")):
        return 0
    best = attributes["best_iteration"].natural() + 1
    if best > rounds:
        attributes["best_iteration"].fail(f"is beyond the {rounds} rounds of the model")
    return best
