"""The allowed types in a `.skops` file: those of numpy, scipy and scikit-learn, by the kind of the node.

skops takes a list of trusted types and imports the types that a file names. So each kind of node is allowed only types
that are safe for it: a node that calls its type has fewer than one that restores the attributes of an object.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

import numpy as np

_NUMPY_SCALARS = frozenset(
    f"numpy.{name}"
    for name in (
        "bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
        "float32", "float64", "longdouble", "str_", "bytes_", "datetime64", "timedelta64",
    )
)  # fmt: skip
_PRIMITIVES = frozenset({"builtins.str", "builtins.int", "builtins.float", "builtins.bool"})
_BY_LOADER: dict[str, frozenset[str]] = {
    "BytearrayNode": frozenset({"builtins.bytearray"}),
    "BytesNode": frozenset({"builtins.bytes"}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "DefaultDictNode": frozenset({"collections.defaultdict"}),
    "DictNode": frozenset({"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}),
    "ListNode": frozenset({"builtins.list"}),
    "MaskedArrayNode": frozenset({"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}),
    "NdArrayNode": _NUMPY_SCALARS | {"numpy.ndarray"},
    "PartialNode": frozenset({"functools.partial"}),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "SetNode": frozenset({"builtins.set"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": _PRIMITIVES | _NUMPY_SCALARS | {"builtins.list", "builtins.set", "builtins.tuple"},
}
_FUNCTIONS = frozenset(
    {
        "numpy.clip",
        "numpy.nan_to_num",
        "numpy.round",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "sklearn.utils.validation.check_array",
    }
)
_LOSSES = re.compile(r"sklearn\.(?:_loss\._loss|linear_model\._sgd_fast)\.[A-Za-z]\w*", re.ASCII)
_SPARSE = re.compile(r"scipy\.sparse\.(?:_\w+\.)?(?:csr|csc|coo)_(?:matrix|array)", re.ASCII)
_SPECIAL = re.compile(r"scipy\.special\.(?:_ufuncs\.)?[A-Za-z]\w*", re.ASCII)
_ESTIMATORS = re.compile(r"sklearn(?:\.[A-Za-z_]\w*)+\.[A-Za-z_]\w*", re.ASCII)
_OTHER_OBJECTS = frozenset({"scipy.interpolate._bsplines.BSpline"})
_NOT_ESTIMATORS = ("sklearn.datasets.", "sklearn.externals.")


def is_allowed(loader: str, name: str, more: Collection[str]) -> bool:
    """Whether a node of this kind may have this type. `more`: types that the operator allows."""
    if name in more or name in _BY_LOADER.get(loader, ()):
        return True
    if loader == "FunctionNode":
        return name in _FUNCTIONS or name in _numpy_ufuncs() or _SPECIAL.fullmatch(name) is not None
    if loader == "LossNode":
        return _LOSSES.fullmatch(name) is not None
    if loader == "SparseMatrixNode":
        return _SPARSE.fullmatch(name) is not None
    if loader == "ObjectNode":
        is_estimator = _ESTIMATORS.fullmatch(name) is not None and not name.startswith(_NOT_ESTIMATORS)
        return is_estimator or name in _OTHER_OBJECTS
    return False


@cache
def _numpy_ufuncs() -> frozenset[str]:
    return frozenset(f"numpy.{name}" for name in dir(np) if isinstance(getattr(np, name), np.ufunc))
