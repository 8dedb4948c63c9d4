"""Labels as indices of class names."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.model import Labels


def index_labels(values: NDArray[Any], *others: NDArray[Any]) -> tuple[Labels, tuple[str, ...]]:
    """Return the labels (n,) for values (n,), and the class names that they index.

    The classes are the distinct values, whole numbers or texts, of all given arrays, so that the splits of a
    data set share them. Labels with gaps and labels that start from 1 are therefore numbered from 0 on
    without gaps. Names that are numbers are sorted as numbers.
    """
    distinct = np.unique(np.concatenate([np.unique(one) for one in (values, *others)]))
    if distinct.dtype.kind in "iu":
        index = np.searchsorted(distinct, values)
        return as_labels(index), tuple(map(str, distinct.tolist()))
    names = sorted(map(str, distinct.tolist()), key=natural_key)
    rank = np.empty(len(names), np.intp)
    rank[np.searchsorted(distinct, np.array(names, distinct.dtype))] = np.arange(len(names))
    return as_labels(rank[np.searchsorted(distinct, values)]), tuple(names)


def as_labels(index: Iterable[int]) -> Labels:
    """Return indices (n,) in the smallest unsigned type that holds them."""
    values = np.asarray(index)
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def natural_key(name: str) -> list[str | int]:
    """Return a key that sorts the numbers in names as numbers: ``9`` before ``10``."""
    parts: list[str | int] = list(re.split(r"([0-9]{1,18})", name))
    parts[1::2] = map(int, parts[1::2])
    return parts
