"""Write test images of MNIST as files to classify: 1,000 PNG files, and a CSV file with all 10,000.

python benchmarks/prepare.py MNIST_FOLDER OUTPUT_FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 1000


def main(data: Path, output: Path) -> None:
    """Write ``pictures/`` and ``test.csv`` into a folder."""
    raw = np.fromfile(data / "t10k-images-idx3-ubyte", np.uint8, offset=16)
    images, pictures = raw.reshape(-1, 28, 28), output / "pictures"
    pictures.mkdir()
    for number, image in enumerate(images[:PICTURES]):
        Image.fromarray(image).save(pictures / f"{number:04}.png")
    np.savetxt(output / "test.csv", images.reshape(len(images), -1), fmt="%d", delimiter=",")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
