"""The contract between the core and an array library, and the table of backends.

A namespace is a tier. The core calls the names in `CONTRACT` and the operators of the arrays
(+ − * / unary −, comparisons, & and | of booleans), with the meaning of the array API standard, and
scalars only as scalar·array and scalar+array. `exact(base)` makes the exact tier of any such namespace;
a backend's own `fast` one may use native sums, products and compilers.

A backend is a `Backend`: two namespaces and three functions. To add one, fill in the record and
`register` it: `replay` and the conformance suite then run on it. Native optimizers are what `frameworks`
dispatches to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .errors import MissingFrameworkError, RecipeError, nearest
from .exact import exact
from .executor import Execute, executor
from .recursion import Array, Namespace

Tier = Literal["exact", "fast"]
TIERS: tuple[str, ...] = get_args(Tier)

CONTRACT: Mapping[str, str] = {
    "abs": "elementwise |x|",
    "concat": "join along an axis",
    "finfo": "eps of a dtype",
    "matmul": "batched product of the last two axes",
    "matrix_transpose": "swap the last two axes",
    "max": "maximum over axes, keepdims; exact in any order",
    "ones_like": "ones in shape and dtype of x",
    "permute_dims": "reorder axes",
    "reshape": "the same elements in C order",
    "sign": "−1, 0 or 1",
    "sqrt": "elementwise root, correctly rounded in the exact tier",
    "sum": "sum over axes, keepdims; the exact tier replaces it",
    "where": "elementwise choice between two arrays",
    "zeros": "zeros of a shape and dtype",
    "zeros_like": "zeros in shape and dtype of x",
}
FACTORISING = ("svd", "svdvals")  # of xp.linalg: only for polar = "exact" and for measuring norms


def missing(xp: Namespace) -> list[str]:
    """The names of the contract that `xp` lacks."""
    return [name for name in CONTRACT if not hasattr(xp, name)]


@dataclass(frozen=True)
class Backend:
    """One array library as the core sees it.

    Attributes:
        name: as users write it.
        namespaces: {"exact": ..., "fast": ...}.
        from_numpy: (numpy array, dtype name) -> array.
        to_numpy: array -> numpy array.
        execute: tier -> how one update of a planned group is carried out; may reuse its input arrays.
        dtypes: names of the dtypes that `from_numpy` accepts.
        version: of the library, for manifests.
    """

    name: str
    namespaces: Mapping[str, Namespace]
    from_numpy: Callable[[np.ndarray[Any, Any], str], Array]
    to_numpy: Callable[[Array], np.ndarray[Any, Any]]
    execute: Callable[[str], Execute]
    dtypes: tuple[str, ...] = ("float32",)
    version: str = ""

    def namespace(self, tier: str) -> Namespace:
        """The namespace of a tier; RecipeError for an unknown tier."""
        if tier not in self.namespaces:
            raise RecipeError(f"tier: {tier!r} is not one of {', '.join(self.namespaces)}{nearest(str(tier), TIERS)}")
        return self.namespaces[tier]


def _numpy() -> Backend:
    namespaces = {"exact": exact(np), "fast": np}
    return Backend(
        name="numpy",
        namespaces=namespaces,
        from_numpy=lambda x, dtype: np.array(x, dtype=dtype),
        to_numpy=np.array,
        execute=lambda tier: executor(namespaces[tier]),
        dtypes=("float32", "float64"),
        version=np.__version__,
    )


def _framework(module: str) -> Callable[[], Backend]:
    def load_it() -> Backend:
        found: Backend = importlib.import_module(module).BACKEND
        return found

    return load_it


_LOADERS: dict[str, Callable[[], Backend]] = {
    "numpy": _numpy,
    "torch": _framework("dualopt_torch"),
    "mlx": _framework("dualopt_mlx"),
}
_loaded: dict[str, Backend] = {}


def register(name: str, loader: Callable[[], Backend]) -> None:
    """Make `name` known to `load`, `replay` and the conformance suite; the loader runs on first use."""
    _LOADERS[name] = loader
    _loaded.pop(name, None)


def known() -> tuple[str, ...]:
    """The names of all registered backends, installed or not."""
    return tuple(_LOADERS)


def load(name: str) -> Backend:
    """The backend called `name`.

    Raises:
        RecipeError: the name is not registered.
        MissingFrameworkError: its framework is not installed; the message names the extra.
    """
    if name not in _LOADERS:
        raise RecipeError(f"backend: {name!r} is not one of {', '.join(_LOADERS)}{nearest(str(name), _LOADERS)}")
    if name not in _loaded:
        try:
            _loaded[name] = _LOADERS[name]()
        except ImportError as error:
            raise MissingFrameworkError(
                f"backend {name!r} needs a package that is not installed ({error}); "
                f"run: pip install 'dualopt-optim[{name}]'"
            ) from error
    return _loaded[name]


def installed() -> tuple[str, ...]:
    """The names of the registered backends that load here."""
    found = []
    for name in _LOADERS:
        try:
            load(name)
        except MissingFrameworkError:
            continue
        found.append(name)
    return tuple(found)
