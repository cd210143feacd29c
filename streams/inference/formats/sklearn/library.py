"""scikit-learn, skops and pandas, imported when the first model needs them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from inferd.schemas.errors import InferenceError, MalformedError
from inferd.streams.inference.libraries import installed_version, missing_library

_NAME, EXTRA = "scikit-learn (with skops and pandas)", "sklearn"
_HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: of classes that Python code defines."""
_OWNERS = ("builtins", "collections", "functools", "numpy", "scipy", "sklearn")
_COMPILED = frozenset(
    {"sklearn.tree._tree.Tree", "functools.partial", "collections.defaultdict", "collections.OrderedDict"}
)
_COMPILED_MODULES = ("builtins.", "numpy.", "sklearn._loss._loss.", "sklearn.linear_model._sgd_fast.")


class Library:
    """The functions of the three libraries that a model needs."""

    def __init__(self) -> None:
        with _quiet():
            self._skops = import_module("skops.io")
            self.pandas = import_module("pandas")
            base = import_module("sklearn.base")
            controller = import_module("threadpoolctl").ThreadpoolController()
        self.base_estimator: type[Any] = base.BaseEstimator
        self._linear_algebra, self._openmp = (controller.select(user_api=kind) for kind in ("blas", "openmp"))

    def load(self, content: bytes, types: Collection[str], more: Collection[str]) -> Any:
        """Loads the estimator in a `.skops` file whose types were checked by name. `MalformedError` if skops rejects
        it.

        `more`: types that the operator allows, besides those of the libraries.
        """
        for name in types:
            _check_type(name, more)
        with _quiet():
            try:
                return self._skops.loads(content, trusted=sorted(types))
            except (MemoryError, InferenceError):
                raise
            except Exception as error:  # noqa: BLE001  # whatever it raises, the file is to blame
                raise MalformedError(f"model file: skops cannot load it: {type(error).__name__}: {error}") from None

    def limit_linear_algebra(self, threads: int) -> None:
        """Sets the number of BLAS threads for the whole process."""
        self._linear_algebra.limit(limits=threads)

    def limited(self, threads: int) -> Any:
        """A context that sets the number of OpenMP threads for calls of this thread."""
        return self._openmp.limit(limits=threads)


def _check_type(name: str, more: Collection[str]) -> None:
    """Checks that a name refers to a type or function of its own library, and not to a compiled class that does not
    validate its state."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MalformedError(f"model file: names {name[:120]!r}, which is not installed here: {error}") from None
    if name in more:
        return
    owner = str(getattr(found, "__module__", None) or module).partition(".")[0]
    compiled = isinstance(found, type) and not found.__flags__ & _HEAP_TYPE
    if owner not in _OWNERS or (compiled and name not in _COMPILED and not name.startswith(_COMPILED_MODULES)):
        raise MalformedError(
            f"model file: names {name[:120]!r}, which is compiled code that does not validate its input: allow it "
            "with INFERD_MODEL_TYPES_ALLOWED if you trust where the file comes from"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the libraries' warnings, such as that a model was saved by another version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def library() -> Library:
    """The libraries, imported by the first call; an error that names the extra if one is not installed."""
    try:
        return Library()
    except ImportError:
        raise missing_library(_NAME, EXTRA) from None


@cache
def library_version() -> str:
    """The version of scikit-learn, and of the other libraries that affect predictions."""
    others = ", ".join(
        f"{name} {installed_version(_NAME, EXTRA, name)}" for name in ("skops", "numpy", "scipy", "pandas")
    )
    return f"{installed_version(_NAME, EXTRA, 'scikit-learn')} ({others})"
