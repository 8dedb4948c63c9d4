"""Softmax regression, from the evidence for each class to a checkpoint you can trust.

The library is complete without the command line:

    from softmax_cli import Source, TrainConfig, cache_folder, fit, hold_out, load, start

    config = TrainConfig()
    data = load("auto", "train", Source(cache_folder()))
    split = hold_out(data.labels, config.validation_size, config.seed)
    for state in fit(config, data, split, start(config, data)):
        print(state.epoch, state.history[-1].validation_accuracy)
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "checkpoint",
    "Dataset": "data.dataset",
    "Model": "model",
    "SoftmaxError": "errors",
    "Source": "data.download",
    "State": "training",
    "TrainConfig": "config",
    "cache_folder": "data.dataset",
    "compare": "comparison",
    "deskew": "deskew",
    "evaluate": "training",
    "evidence": "model",
    "explain": "explanation",
    "find_digits": "pictures",
    "fit": "training",
    "hold_out": "data.dataset",
    "judge": "training",
    "load": "data.dataset",
    "load_checkpoint": "checkpoint:load",
    "log_softmax": "model",
    "evidence_of": "features",
    "pixels": "features",
    "prepare_picture": "pictures",
    "save_checkpoint": "checkpoint:save",
    "softmax": "model",
    "start": "training",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
