"""The known data sets: files and digests, mirrors, class names, usual accuracies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from softmax_cli.files import sha256

SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""For each split, the names of the files with its images and its labels (``.gz`` may follow)."""

FILE_NAMES = tuple(name for pair in SPLITS.values() for name in pair)


class IdxFile(NamedTuple):
    """One file of a data set: name, size and SHA-256 of the uncompressed content."""

    name: str
    size: int
    sha256: str


class Usual(NamedTuple):
    """Usual range of the test accuracy, from `dimension` features on."""

    low: float
    high: float
    dimension: int = 0


@dataclass(frozen=True)
class Entry:
    """One known data set.

    Attributes:
        name: Its name on the command line.
        title: Its name in a sentence.
        credit: Authors and licence.
        files: Its four files, in the order of `FILE_NAMES`.
        class_names: One name per class.
        preparation: How a picture becomes an image of this data set: ``digit`` or ``plain``.
        reference: The usual test accuracy for a value of `TrainConfig.features`.
        mirrors: Base URLs of the files.
        bundled: The folder in the package that holds the files, if there is one.
    """

    name: str
    title: str
    credit: str
    files: tuple[IdxFile, ...]
    class_names: tuple[str, ...]
    preparation: str
    reference: dict[str, Usual] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    bundled: Path | None = None

    @property
    def digest(self) -> str:
        """Digest of the training split, which identifies the data set."""
        return self.split_digest("train")

    def split_digest(self, split: str) -> str:
        """Return the digest of a split, as `content_digest` computes it."""
        images, labels = SPLITS[split]
        return combine_digests(self.file(images).sha256, self.file(labels).sha256)

    @property
    def format1_digest(self) -> str:
        """The digest by which checkpoints of format 1 identify the data set."""
        return sha256("".join(file.sha256 for file in self.files).encode())

    def file(self, name: str) -> IdxFile:
        """Return the file of that name."""
        return next(file for file in self.files if file.name == name)


def combine_digests(images: str, labels: str) -> str:
    """Return the digest of a split from the SHA-256 of its two IDX files."""
    return sha256(f"{images}{labels}".encode())


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
    reference={
        "pixels": Usual(0.92, 0.928),
        "deskew": Usual(0.953, 0.961),
        "deskew,fourier": Usual(0.98, 0.99, dimension=1000),
        "normalize,gradients": Usual(0.988, 0.995, dimension=392),
        "normalize,gradients,pca,fourier": Usual(0.993, 0.9965, dimension=2000),
    },
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
    reference={
        "pixels": Usual(0.835, 0.85),
        "deskew": Usual(0.83, 0.845),
        "deskew,fourier": Usual(0.87, 0.895, dimension=1000),
        "gradients,pca,fourier": Usual(0.92, 0.935, dimension=4000),
    },
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
    reference={
        "pixels": Usual(0.88, 0.91),
        "deskew": Usual(0.925, 0.95),
        "deskew,fourier": Usual(0.955, 0.98, dimension=1000),
    },
    bundled=Path(__file__).parent / "sample",
)

CATALOG = {entry.name: entry for entry in (MNIST, FASHION_MNIST, SAMPLE)}


def known_dataset(digest: str) -> Entry | None:
    """Return the known data set whose training split has this digest, or None."""
    return next((entry for entry in CATALOG.values() if entry.digest == digest), None)


def usual_accuracy(digest: str, test_digest: str, features: str, dimension: int) -> Usual | None:
    """Return the usual accuracy of features on a test split, or None if unknown.

    Args:
        digest: Digest of the training split.
        test_digest: Digest of the test split.
        features: As in `TrainConfig.features`.
        dimension: Number of features.
    """
    entry = known_dataset(digest)
    if entry is None or entry.split_digest("test") != test_digest:
        return None
    usual = entry.reference.get(features)
    return usual if usual and dimension >= usual.dimension else None


def compare_accuracy(accuracy: float, usual: Usual) -> str:
    """Return how an accuracy compares with the usual range, in words."""
    if accuracy < usual.low:
        return "below the usual range"
    return "above the usual range" if accuracy > usual.high else "within the usual range"
