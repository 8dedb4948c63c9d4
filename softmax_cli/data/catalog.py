"""Which data sets exist: their files and digests, mirrors, class names, and what to expect of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from softmax_cli.files import sha256

SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""For each split, the names of its images and of its labels (after which ``.gz`` may follow)."""

FILE_NAMES = tuple(name for pair in SPLITS.values() for name in pair)


class IdxFile(NamedTuple):
    """One file of a data set: its name, and the size in bytes and SHA-256 of its inflated content."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One known data set.

    `reference` maps a kind of features to the test accuracy, lowest and highest, that softmax
    regression usually reaches with them. `preparation` says how a picture becomes an image of this
    data set (see `softmax_cli.pictures`). `bundled` is a folder in the package, where there is one.
    """

    name: str
    title: str
    credit: str
    files: tuple[IdxFile, ...]
    class_names: tuple[str, ...]
    preparation: str
    reference: dict[str, tuple[float, float]] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    bundled: Path | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the files: the identity of the data."""
        return sha256("".join(file.sha256 for file in self.files).encode())

    def file(self, name: str) -> IdxFile:
        """Return the file of that name."""
        return next(file for file in self.files if file.name == name)


def _files(train: int, test: int, digests: tuple[str, str, str, str]) -> tuple[IdxFile, ...]:
    sizes = (16 + 784 * train, 8 + train, 16 + 784 * test, 8 + test)
    return tuple(map(IdxFile, FILE_NAMES, sizes, digests))


_DIGITS = tuple("0123456789")
_MNIST_CREDIT = "Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0"

MNIST = Entry(
    name="mnist",
    title="MNIST",
    credit=_MNIST_CREDIT,
    files=_files(
        60_000,
        10_000,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    class_names=_DIGITS,
    preparation="digit",
    reference={"pixels": (0.92, 0.928), "deskew": (0.953, 0.961), "fourier": (0.98, 0.99)},
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
)

FASHION_MNIST = Entry(
    name="fashion-mnist",
    title="Fashion-MNIST",
    credit="Zalando SE; MIT",
    files=_files(
        60_000,
        10_000,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    preparation="plain",
    reference={"pixels": (0.835, 0.85), "deskew": (0.83, 0.845), "fourier": (0.87, 0.895)},
    mirrors=("https://storage.googleapis.com/tensorflow/tf-keras-datasets/",),
)

SAMPLE = Entry(
    name="sample",
    title="MNIST sample",
    credit=_MNIST_CREDIT,
    files=_files(
        5_000,
        1_000,
        (
            "0e3d8bc41e78b883824d56fa6405c7ae6d13cd9d7228c7fc0ccd2fc012fa3bcd",
            "7df9aa92dd5050ee78c82298f6caa8752c6f25285a820dd1950cccdb782a9977",
            "a8826d03313da217361e768adc0c0ab5f3be9fd4c67317661bf384e553127976",
            "b1cd4ad283c52b101e8317d80f62e36407870132f9aa50f0d70377d0131d7646",
        ),
    ),
    class_names=_DIGITS,
    preparation="digit",
    reference={"pixels": (0.88, 0.91), "deskew": (0.925, 0.95), "fourier": (0.955, 0.98)},
    bundled=Path(__file__).parent / "sample",
)

CATALOG = {entry.name: entry for entry in (MNIST, FASHION_MNIST, SAMPLE)}

USUAL_DIMENSION = 1000
"""Fourier features from which on it is known what to expect of them."""


def usual_accuracy(name: str, digest: str, kind: str, dimension: int) -> tuple[float, float] | None:
    """Return the test accuracy, lowest and highest, that features usually reach on a data set, if known."""
    entry = CATALOG.get(name)
    if entry is None or entry.digest != digest or (kind == "fourier" and dimension < USUAL_DIMENSION):
        return None
    return entry.reference.get(kind)


def compared(accuracy: float, usual: tuple[float, float]) -> str:
    """Return how an accuracy compares with the usual one, in words."""
    low, high = usual
    return "below that" if accuracy < low else "above that" if accuracy > high else "as usual"
