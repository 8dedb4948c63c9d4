"""Softmax regression: train, evaluate, predict and explain.

Example:
    >>> import softmax_cli as softmax
    >>> checkpoint = softmax.train(softmax.TrainConfig(epochs=5), "model.npz")
    >>> classifier = softmax.Classifier(checkpoint)
    >>> softmax.evaluate(classifier, softmax.load_dataset("mnist", "test")).scores.accuracy
    >>> classifier.predict_picture("digit.png").class_name

Names are imported when they are first used, so that importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softmax_cli.batch import predict_file as predict_file
    from softmax_cli.checkpoint import Checkpoint as Checkpoint
    from softmax_cli.checkpoint import load_checkpoint as load_checkpoint
    from softmax_cli.checkpoint import save_checkpoint as save_checkpoint
    from softmax_cli.classifier import Classifier as Classifier
    from softmax_cli.classifier import Prediction as Prediction
    from softmax_cli.classifier import predict_pictures as predict_pictures
    from softmax_cli.comparison import compare as compare
    from softmax_cli.config import TrainConfig as TrainConfig
    from softmax_cli.data.dataset import Dataset as Dataset
    from softmax_cli.data.dataset import hold_out as hold_out
    from softmax_cli.data.download import Source as Source
    from softmax_cli.data.loading import load_dataset as load_dataset
    from softmax_cli.data.place import cache_folder as cache_folder
    from softmax_cli.data.readers import ReadOptions as ReadOptions
    from softmax_cli.errors import SoftmaxError as SoftmaxError
    from softmax_cli.estimator import SoftmaxRegression as SoftmaxRegression
    from softmax_cli.evaluation import Evaluation as Evaluation
    from softmax_cli.evaluation import compare_evaluations as compare_evaluations
    from softmax_cli.evaluation import evaluate as evaluate
    from softmax_cli.explanation import explain as explain
    from softmax_cli.export import export_onnx as export_onnx
    from softmax_cli.features import FeatureMap as FeatureMap
    from softmax_cli.features import fit_features as fit_features
    from softmax_cli.model import Model as Model
    from softmax_cli.model import evidence as evidence
    from softmax_cli.model import log_softmax as log_softmax
    from softmax_cli.model import softmax as softmax
    from softmax_cli.pictures import find_digits as find_digits
    from softmax_cli.pictures import find_pictures as find_pictures
    from softmax_cli.pictures import prepare_picture as prepare_picture
    from softmax_cli.runs import resume_run as resume_run
    from softmax_cli.runs import run_epochs as run_epochs
    from softmax_cli.runs import start_run as start_run
    from softmax_cli.runs import train as train
    from softmax_cli.training import State as State
    from softmax_cli.training import fit as fit
    from softmax_cli.training import start as start

__version__ = "0.2.0"

_MODULES = {
    "batch": ("predict_file",),
    "checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
    "classifier": ("Classifier", "Prediction", "predict_pictures"),
    "comparison": ("compare",),
    "config": ("TrainConfig",),
    "data.dataset": ("Dataset", "hold_out"),
    "data.download": ("Source",),
    "data.loading": ("load_dataset",),
    "data.place": ("cache_folder",),
    "data.readers": ("ReadOptions",),
    "errors": ("SoftmaxError",),
    "estimator": ("SoftmaxRegression",),
    "evaluation": ("Evaluation", "compare_evaluations", "evaluate"),
    "explanation": ("explain",),
    "export": ("export_onnx",),
    "features": ("FeatureMap", "fit_features"),
    "model": ("Model", "evidence", "log_softmax", "softmax"),
    "pictures": ("find_digits", "find_pictures", "prepare_picture"),
    "runs": ("resume_run", "run_epochs", "start_run", "train"),
    "training": ("State", "fit", "start"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

_EXTRAS = {"SoftmaxRegression", "export_onnx"}
"""Names that need an extra; ``import *``, which has to work without it, leaves them out."""

__all__ = ["__version__", *(name for name in _HOMES if name not in _EXTRAS)]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
