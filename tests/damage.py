"""Ways to break files, and to read them as somebody who may not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

SOAK = bool(os.environ.get("SOFTMAX_SOAK"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user whom permissions bind; root is above them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def mutated(generator: np.random.Generator, content: bytes) -> bytes:
    """Return bytes with one to three changes: set, cut out, put in, repeated, or overwritten."""
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        at, other = (int(place) for place in generator.integers(0, len(data), 2))
        length = int(generator.integers(1, 9))
        match generator.integers(5):
            case 0:
                data[at] = generator.integers(256)
            case 1:
                data[at : at + length] = b""
            case 2:
                data[at:at] = generator.bytes(length)
            case 3:
                data[at:at] = data[other : other + 8 * length]
            case _:
                data[at : at + length] = (b"\0" if generator.integers(2) else b"\xff") * length
    return bytes(data)
