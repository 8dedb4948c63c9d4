"""Compare full passes over 8.1 million images on a local cluster with those in this process.

    OPENBLAS_NUM_THREADS=1 python benchmarks/cluster.py --mnist FOLDER --big FOLDER

`--mnist` is a folder with the four files of MNIST. `--big` gets 6.4 GB of images made from them, once.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from softmax_cli.backend import cores
from softmax_cli.cluster import open_cluster
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import FILE_NAMES, SPLITS
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.loading import load_dataset
from softmax_cli.data.readers.idx import encode_header, kind_of, read_idx
from softmax_cli.model import Model
from softmax_cli.solvers.objective import Objective
from softmax_cli.training import TRAINING, make_examples, start

RECORDS = Path(__file__).with_name("cluster.jsonl")

COPIES = 135
SHIFT = 2
"""Largest displacement of a copy, in pixels."""


def write_copies(mnist: Path, big: Path, copies: int = COPIES) -> None:
    """Write copies of the training images of MNIST, each displaced at random, as a data set.

    The displacements of copy i are drawn by ``default_rng((0, i))``. The test images are those of MNIST.
    """
    big.mkdir(parents=True, exist_ok=True)
    for name in FILE_NAMES:
        values = read_idx(_find(mnist, name), kind_of(name))
        count = copies if name in SPLITS["train"] else 1
        target = big / name
        if target.exists():
            continue
        with open(f"{target}.part", "wb") as file:
            file.write(encode_header((count * len(values), *values.shape[1:])))
            for copy in range(count):
                file.write(
                    _displaced(values, copy).tobytes() if values.ndim == 3 and count > 1 else values.tobytes()
                )
        os.replace(f"{target}.part", target)


def _find(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else folder / f"{name}.gz"


def _displaced(images: np.ndarray, copy: int) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], (1, 2))
    down, right = np.random.default_rng((0, copy)).integers(0, 2 * SHIFT + 1, (2, len(images)))
    return np.asarray(windows[np.arange(len(images)), down, right])


def measure(data: Dataset, workers: int, passes: int) -> dict[str, Any]:
    """Return seconds of a full pass here and on a local cluster, by turns, and the memory of its workers.

    The best pass of each kind counts. Seconds of the first pass on the cluster include reading and checking
    the data.
    """
    config = TrainConfig(solver="newton", validation_size=0.0)
    features = start(config, data).features
    make = partial(make_examples, config, features, None, data)
    rng = np.random.default_rng(0)
    model = Model(rng.normal(0, 0.01, (features.dimension, 10)).astype(np.float32), np.zeros(10, np.float32))
    began = time.perf_counter()
    with open_cluster(f"local:{workers}") as cluster:
        assert cluster
        cluster.connect()
        started = time.perf_counter() - began
        here, there = (Objective.of(make(one)[TRAINING], config.l2) for one in (None, cluster))
        first, *_ = _timed(there, model)
        times: dict[str, list[float]] = {"here": [], "cluster": []}
        work: dict[str, list[float]] = {"here": [], "cluster": []}
        gradients: dict[str, bytes] = {}
        for _ in range(passes):
            for name, objective in (("here", here), ("cluster", there)):
                seconds, processor, value = _timed(objective, model)
                times[name].append(seconds)
                work[name].append(processor)
                gradients[name] = value.gradient.weights.tobytes()
            assert gradients["here"] == gradients["cluster"]
        memory = [process.memory_full_info() for process in _workers()]
    best, used = ({name: min(found) for name, found in one.items()} for one in (times, work))
    return {
        "images": len(data),
        "workers": workers,
        "threads in one process": cores(),
        "start of the cluster, s": started,
        "first pass, s": first,
        "pass on the cluster, s": best["cluster"],
        "pass in one process, s": best["here"],
        "processor time on the cluster, s": used["cluster"],
        "in one process, s": used["here"],
        "private MiB of a worker": max(round(one.uss / 2**20) for one in memory),
        "with mapped files": max(round(one.rss / 2**20) for one in memory),
    }


def _timed(objective: Objective, model: Model) -> tuple[float, float, Any]:
    """Return the seconds of a pass, the processor time of all processes, and the value."""
    began, used = time.perf_counter(), _processor_time()
    value = objective.full(model)
    return time.perf_counter() - began, _processor_time() - used, value


def _processor_time() -> float:
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *_workers()))


def _workers() -> Iterator[psutil.Process]:
    """Yield the processes of the local cluster."""
    for process in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()):
            yield process


def main() -> None:
    """Run the comparison, and write the records that the report of the benchmark shows as a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--big", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    write_copies(options.mnist, options.big)
    lines = []
    for folder, passes in ((options.mnist, 20), (options.big, options.passes)):
        lines.append(json.dumps(measure(load_dataset(folder), options.workers, passes)))
        print(lines[-1], flush=True)
    RECORDS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
