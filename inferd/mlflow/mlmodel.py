"""The description of an MLflow model (its file `MLmodel`): which file can be served, and its signature. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from inferd.schemas.errors import InternalError, MalformedError, SchemaMismatchError
from inferd.schemas.models import DType
from inferd.streams.inference import FileFeature, ModelFile, format_named

T = TypeVar("T")
_DATA = {"lightgbm": "data", "xgboost": "data", "catboost": "data", "onnx": "data", "sklearn": "pickled_model"}
"""The flavours that can be served (the names of their formats), and their field with the path of the model file."""
_VERSION = {"lightgbm": "lgb", "xgboost": "xgb", "catboost": "catboost", "sklearn": "sklearn"}
"""The flavours for which the library's version matters: their field is `<this>_version`."""
_PICKLES = {
    "lightgbm": "log its booster: mlflow.lightgbm.log_model(model.booster_, …)",
    "sklearn": "log it with mlflow.sklearn.log_model(model, …, serialization_format='skops')",
}
_DTYPES: dict[str, DType] = {
    "double": "float64", "float": "float32", "long": "int64", "integer": "int64", "boolean": "bool", "string": "text",
}  # fmt: skip


class Column(msgspec.Struct, frozen=True):
    """One input of a signature."""

    type: str
    name: str | None = None
    required: bool = True
    optional: bool = False
    """Like `required`, in MLflow before 2.6."""


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a model that can be served."""

    flavour: str
    """Also the name of its format in inferd."""
    path: str
    """Path of the model file within the model's folder."""
    library: str | None
    """The version of the library that saved it."""
    columns: tuple[Column, ...]
    """The inputs of the signature that have names."""


def parse_description(text: bytes) -> Description:
    """Parses the content of `MLmodel`. `MalformedError` if it is damaged, or if no flavour can be served."""
    flavours, signature = _sections(text)
    flavour = next((name for name in _DATA if name in flavours), None)
    if flavour is None:
        raise MalformedError(
            f"model of MLflow: has the flavours {', '.join(map(str, flavours)) or 'none'}; inferd serves "
            f"{', '.join(_DATA)}. Convert the model to ONNX, and log it with mlflow.onnx.log_model"
        )
    facts = _typed(flavours[flavour], dict[str, Any], f"flavors.{flavour}")
    path = _typed(facts.get(_DATA[flavour]), str, f"flavors.{flavour}.{_DATA[flavour]}")
    _reject_pickles(flavour, path, facts)
    library = facts.get(f"{_VERSION[flavour]}_version") if flavour in _VERSION else None
    return Description(flavour, path, library if isinstance(library, str) else None, _columns(signature))


def check_library(description: Description) -> None:
    """`InternalError` if predictions of the installed library may differ from those of the library that saved the
    model."""
    saved = _release(description.library)
    text = format_named(description.flavour).library_version()
    installed = _release(text)
    if saved is None or installed is None or saved == installed:
        return
    # Other libraries read files of their earlier versions; scikit-learn does not promise that.
    if description.flavour == "sklearn" or saved > installed:
        raise InternalError(
            f"model of MLflow: saved by {description.flavour} {description.library}, and {text.split(' ')[0]} is "
            f"installed here: install {saved[0]}.{saved[1]} here and where workers run, or save the model again"
        )


def features_of(columns: Sequence[Column], file: ModelFile) -> list[dict[str, Any]]:
    """Features of a manifest from a signature: names if the file has none, dtypes if the file leaves them open, and
    which features are optional.

    `SchemaMismatchError` if the signature has another number of columns than a file without names.
    """
    if not columns:
        return []
    if not file.named and file.features and len(file.features) != len(columns):
        raise SchemaMismatchError(
            f"model of MLflow: its signature has {len(columns)} columns, and the model {len(file.features)} features"
        )
    names = file.feature_names if file.named else [column.name for column in columns]
    in_file: dict[str | None, FileFeature] = dict(zip(names, file.features, strict=False))
    features = []
    for column in columns:
        feature = in_file.get(column.name)
        said: dict[str, Any] = {"name": column.name}
        if feature is not None and not feature.fixed and column.type in _DTYPES:
            said["dtype"] = _DTYPES[column.type]
        if feature is not None and feature.missing and (column.optional or not column.required):
            said["required"] = False
        if not file.named or (feature is not None and len(said) > 1):
            features.append(said)
    return features


def _sections(text: bytes) -> tuple[Mapping[Any, Any], Any]:
    """The flavours and the signature."""
    try:
        import yaml
    except ImportError:
        raise InternalError("PyYAML is not installed here: pip install 'inferd[mlflow]'") from None
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedError(f"MLmodel: is not YAML: {' '.join(str(error).split())[:200]}") from None
    content = _typed(content, dict[Any, Any], "the file")
    return _typed(content.get("flavors"), dict[Any, Any], "flavors"), content.get("signature")


def _reject_pickles(flavour: str, path: str, facts: Mapping[str, Any]) -> None:
    saved = facts.get("serialization_format", "cloudpickle" if path.endswith(".pkl") else None)
    if flavour in _PICKLES and (path.endswith(".pkl") or (flavour == "sklearn" and saved != "skops")):
        what = f"saved with {saved or 'pickle'}, which can run any code"
        raise MalformedError(f"model of MLflow: {what}: {_PICKLES[flavour]}")
    if flavour == "lightgbm" and path.endswith(".skops"):
        raise MalformedError(f"model of MLflow: a {facts.get('model_class', 'wrapper')}: {_PICKLES[flavour]}")


def _columns(signature: Any) -> tuple[Column, ...]:
    """The inputs of a signature; () if it has none, or tensors without names."""
    if not isinstance(signature, dict) or not isinstance(signature.get("inputs"), str):
        return ()
    try:
        columns = msgspec.json.decode(signature["inputs"], type=list[Column])
    except msgspec.MsgspecError:
        return ()
    named = all(column.name is not None and column.type != "tensor" for column in columns)
    return tuple(columns) if named else ()


def _release(version: str | None) -> tuple[int, int] | None:
    """The first two numbers of a version; None if it has none."""
    parts = (version or "").split(" ")[0].split(".")[:2]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None


def _typed(value: Any, wanted: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise MalformedError(f"MLmodel: {where}: {error}") from None
