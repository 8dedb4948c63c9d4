"""Write the bundled sample of 5,000 training and 1,000 test digits of MNIST.

    python scripts/make_sample.py FOLDER_WITH_THE_FOUR_FILES

Each split is drawn from its own split of MNIST with `hold_out`, stratified by class. The files are the same
in each run; their digests are in softmax_cli/data/catalog.py.
"""

import sys
from pathlib import Path

from softmax_cli.data.catalog import SAMPLE, SPLITS
from softmax_cli.data.dataset import hold_out
from softmax_cli.data.readers.idx import encode_header, read_idx, write_idx
from softmax_cli.files import sha256

SIZES = {"train": 5_000, "test": 1_000}


def main(source: Path) -> None:
    """Write the sample's files into the package and print their digests."""
    assert SAMPLE.bundled
    for split, names in SPLITS.items():
        images, labels = (
            read_idx(source / f"{name}.gz", kind)
            for name, kind in zip(names, ("images", "labels"), strict=True)
        )
        _, drawn = hold_out(labels, SIZES[split] / len(labels), seed=0)
        for name, array in zip(names, (images[drawn], labels[drawn]), strict=True):
            write_idx(SAMPLE.bundled / f"{name}.gz", array)
            print(name, len(array), sha256(encode_header(array.shape), array.data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
