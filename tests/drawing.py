"""Generate pictures of digits, as if drawn, scanned or photographed, by kind.

A 28x28 digit is thinned to a skeleton (Zhang and Suen 1984). Its segments are drawn with a pen of any
width, at any size and position. The kind adds a change such as lines on the paper, a shadow or noise.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Gray = NDArray[np.uint8]
Floats = NDArray[np.float64]

SIDE = 200
FINE = 4
"""Resolution at which a digit is thinned, in pixels per pixel of MNIST."""


class Strokes(NamedTuple):
    """A digit as segments: points (n, 2) in units of its box, and pairs (m, 2).

    A point is (x, y); a pair holds the indices of the two ends of a segment.
    """

    points: Floats
    pairs: NDArray[np.intp]


def strokes_of(image: Gray) -> Strokes:
    """Return the smoothed skeleton of an image, light on black."""
    size = (FINE * image.shape[1], FINE * image.shape[0])
    fine = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    rows, columns = np.nonzero(np.pad(thin(fine > 90), 1))
    index = np.full((rows.max() + 2, columns.max() + 2), -1)
    index[rows, columns] = np.arange(len(rows))
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = index[rows + down, columns + right]
        pairs.append(np.stack([np.arange(len(rows)), other], 1)[other >= 0])
    linked = np.concatenate(pairs)
    points = smooth(np.stack([columns, rows], 1).astype(float), linked)
    low, high = points.min(axis=0), points.max(axis=0)
    return Strokes((points - (low + high) / 2) / max(1e-6, (high - low).max()), linked)


def smooth(points: Floats, pairs: NDArray[np.intp], rounds: int = 4) -> Floats:
    """Move each point halfway to the mean of its neighbours, `rounds` times.

    The ends of lines do not move.
    """
    count = np.bincount(pairs.ravel(), minlength=len(points))[:, None]
    for _ in range(rounds):
        total = np.zeros_like(points)
        np.add.at(total, pairs[:, 0], points[pairs[:, 1]])
        np.add.at(total, pairs[:, 1], points[pairs[:, 0]])
        points = np.where(count > 1, (points + total / np.maximum(count, 1)) / 2, points)
    return points


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the skeleton of a mask, one pixel wide (Zhang and Suen 1984)."""
    ink = np.pad(mask, 1)
    while True:
        before = ink.sum()
        for step in (0, 1):
            around = [np.roll(ink, shift, (0, 1)) for shift in
                      ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))]  # fmt: skip
            north, _, east, _, south, _, west, _ = around
            neighbours = sum(one.astype(int) for one in around)
            changes = sum((~a & b).astype(int) for a, b in zip(around, [*around[1:], around[0]], strict=True))
            if step == 0:
                sides = ~(north & east & south) & ~(east & south & west)
            else:
                sides = ~(north & east & west) & ~(north & south & west)
            ink = ink & ~((neighbours >= 2) & (neighbours <= 6) & (changes == 1) & sides)
        if ink.sum() == before:
            return ink[1:-1, 1:-1]


class Pose(NamedTuple):
    """Position of a digit on its sheet, turn in degrees, and perspective.

    Box and position are fractions of the side of the sheet.
    """

    box: float = 0.65
    x: float = 0.5
    y: float = 0.5
    turn: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)


def ink_of(strokes: Strokes, shape: tuple[int, int], pen: float, pose: Pose) -> Floats:
    """Return the fraction (h, w) of each pixel that a round pen covers.

    `pen` is its width in pixels.
    """
    side = min(shape)
    times = max(1, round(800 / max(side, 100)))
    angle = np.deg2rad(pose.turn)
    turned = strokes.points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    seen = turned / (1 + turned @ np.array(pose.tilt))[:, None] * (pose.box * side)
    places = (seen + np.array([pose.x * shape[1], pose.y * shape[0]])) * times
    sheet = Image.new("L", (shape[1] * times, shape[0] * times))
    draw, width = ImageDraw.Draw(sheet), pen * times
    for first, second in strokes.pairs:
        draw.line([*places[first], *places[second]], fill=255, width=max(1, round(width)))
    if width > 2:
        for x, y in places:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(sheet.reduce(times) if times > 1 else sheet) / 255.0


def rounded(values: Floats) -> Gray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def usual_pose(rng: np.random.Generator) -> Pose:
    return Pose(rng.uniform(0.5, 0.75), *rng.uniform(0.44, 0.56, 2))


def sheet(rng: np.random.Generator, strokes: Strokes, pen: float | None = None, **pose: Any) -> Floats:
    """Return dark ink on light paper, as levels (200, 200)."""
    pen = rng.uniform(3, 10) if pen is None else pen
    ink = ink_of(strokes, (SIDE, SIDE), pen, usual_pose(rng)._replace(**pose))
    paper, tone = rng.uniform(200, 255), rng.uniform(0, 70)
    return paper * (1 - ink) + tone * ink


Kind = Callable[[np.random.Generator, Strokes], Any]


def pen(width: float) -> Kind:
    return lambda rng, strokes: rounded(sheet(rng, strokes, width))


def white_on_black(rng: np.random.Generator, strokes: Strokes) -> Gray:
    return rounded(255 - sheet(rng, strokes))


def tight(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture that is cropped close to the digit."""
    gray = rounded(sheet(rng, strokes))
    rows, columns = np.nonzero(gray < 128)
    return gray[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def grain(rng: np.random.Generator, shape: tuple[int, int], coarse: float, fine: float) -> Floats:
    """Return the texture of paper: smooth waves and fine grain.

    `coarse` and `fine` are their standard deviations.
    """
    small = Image.fromarray(rng.normal(0, 1, (shape[0] // 12 + 2, shape[1] // 12 + 2)).astype(np.float32))
    waves = np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)).astype(float)
    return coarse * waves + fine * rng.normal(0, 1, shape)


def paper(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture on coloured paper with a texture."""
    gray = sheet(rng, strokes) + grain(rng, (SIDE, SIDE), rng.uniform(1, 4), rng.uniform(1, 4))
    tint = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.7, 1)])
    return rounded(gray[:, :, None] * tint)


def gradient(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture in light that decreases by up to 60 % from side to side."""
    angle, loss = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6)
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2)
    along = (x * np.cos(angle) + y * np.sin(angle)) / (abs(np.cos(angle)) + abs(np.sin(angle)))
    return rounded(sheet(rng, strokes) * (1 - loss * (along + 1) / 2))


def shadow(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture with a shadow on a part of the sheet.

    Its edge is straight, and sharp or soft.
    """
    angle, where = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2)
    along = (x * np.cos(angle) + y * np.sin(angle) - where) / rng.uniform(0.02, 0.3)
    return rounded(sheet(rng, strokes) * (1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-along))))


def rule(rng: np.random.Generator, gray: Floats, angle: float, gap: float, tone: float) -> Floats:
    """Return the sheet with parallel lines of a tone, drawn where it is lighter."""
    rows, columns = np.indices(gray.shape)
    place = rows * np.cos(angle) - columns * np.sin(angle) + rng.uniform(0, gap)
    width = rng.uniform(1, 2.5)
    share = np.clip(width / 2 + 0.5 - np.abs((place + gap / 2) % gap - gap / 2), 0, 1)
    return np.minimum(gray, gray * (1 - share) + tone * share)


def lined(rng: np.random.Generator, strokes: Strokes) -> Gray:
    angle = np.deg2rad(rng.uniform(-3, 3))
    return rounded(rule(rng, sheet(rng, strokes), angle, rng.uniform(22, 60), rng.uniform(90, 190)))


def squared(rng: np.random.Generator, strokes: Strokes) -> Gray:
    angle, gap, tone = np.deg2rad(rng.uniform(-3, 3)), rng.uniform(15, 40), rng.uniform(110, 190)
    gray = rule(rng, sheet(rng, strokes), angle, gap, tone)
    return rounded(rule(rng, gray, angle + np.pi / 2, gap, tone))


def frame(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture with a frame 1 to 4 pixels wide, at the edge or near it."""
    gray = sheet(rng, strokes, box=rng.uniform(0.45, 0.65))
    width, inset = rng.integers(1, 5), rng.choice([0, 0, rng.integers(1, 12)])
    edge = np.ones((SIDE, SIDE), bool)
    edge[inset : SIDE - inset, inset : SIDE - inset] = False
    rim = np.ones((SIDE, SIDE), bool)
    rim[inset + width : SIDE - inset - width, inset + width : SIDE - inset - width] = False
    return rounded(np.where(rim & ~edge, rng.uniform(0, 90), gray))


def specks(rng: np.random.Generator, strokes: Strokes) -> Gray:
    gray = Image.fromarray(rounded(sheet(rng, strokes, box=rng.uniform(0.5, 0.65))))
    draw = ImageDraw.Draw(gray)
    for _ in range(rng.integers(1, 6)):
        place, size = rng.uniform(4, SIDE - 8), rng.uniform(1, 5)
        x, y = rng.permutation([place, rng.choice([rng.uniform(3, 18), rng.uniform(SIDE - 22, SIDE - 8)])])
        draw.ellipse((x, y, x + size, y + size), fill=int(rng.integers(0, 60)))
    return np.asarray(gray)


def edge(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture with the dark band that a scanner leaves along the edges."""
    gray = sheet(rng, strokes, box=rng.uniform(0.45, 0.65))
    for turn in rng.choice(4, rng.integers(1, 3), replace=False):
        gray = np.rot90(gray, turn).copy()
        depth = rng.uniform(2, 12) + rng.uniform(-0.02, 0.02) * np.arange(SIDE)
        gray = np.where(np.arange(SIDE)[None] < depth[:, None], rng.uniform(0, 90), gray)
        gray = np.rot90(gray, -turn)
    return rounded(gray)


def desk(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a picture of a slightly turned sheet on a dark desk."""
    side = int(SIDE * rng.uniform(1.25, 1.6))
    table = rounded(rng.uniform(20, 90) + grain(rng, (side, side), 4, 3))
    page = Image.fromarray(rounded(sheet(rng, strokes))).convert("LA")
    page = page.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)
    picture = Image.fromarray(table)
    free = [max(1, side - length) for length in page.size]
    picture.paste(page.convert("L"), tuple(int(rng.integers(0, room)) for room in free), page.getchannel("A"))
    return np.asarray(picture)


def vignette(rng: np.random.Generator, strokes: Strokes) -> Gray:
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2)
    return rounded(sheet(rng, strokes) * (1 - rng.uniform(0.2, 0.5) * (x**2 + y**2) / 2))


def corner(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return a digit of 9 to 13 pixels in a corner of a black sheet of 28 x 28."""
    x, y = rng.choice([0.27, 0.73], 2)
    ink = ink_of(strokes, (28, 28), rng.uniform(1, 2), Pose(rng.uniform(0.32, 0.46), x, y))
    return rounded(255 * ink)


def transparent(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return white or coloured ink on a transparent sheet, (h, w, 4)."""
    ink = ink_of(strokes, (SIDE, SIDE), rng.uniform(3, 10), usual_pose(rng))
    colour = rng.choice([[255, 255, 255], [250, 220, 60], [20, 30, 120]])
    return np.dstack([*(np.full((SIDE, SIDE), value) for value in colour), rounded(255 * ink)]).astype(
        np.uint8
    )


def coloured(rng: np.random.Generator, strokes: Strokes) -> Gray:
    """Return ink and paper of different colours and equal luminance, (h, w, 3)."""
    ink = ink_of(strokes, (SIDE, SIDE), rng.uniform(3, 10), usual_pose(rng))[:, :, None]
    sheet_colour, pen_colour = rng.permutation(np.array([[200.0, 60, 60], [29, 131, 160]]))
    return rounded(sheet_colour * (1 - ink) + pen_colour * ink + rng.normal(0, 1, (SIDE, SIDE, 3)))


def blurred(rng: np.random.Generator, strokes: Strokes) -> Gray:
    gray = Image.fromarray(rounded(sheet(rng, strokes)))
    return np.asarray(gray.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))))


def jpeg(rng: np.random.Generator, strokes: Strokes) -> bytes:
    return encode(Image.fromarray(rounded(sheet(rng, strokes))).convert("RGB"), "JPEG", quality=50)


def noisy(rng: np.random.Generator, strokes: Strokes) -> Gray:
    return rounded(sheet(rng, strokes) + rng.normal(0, 5, (SIDE, SIDE)))


def rotated(rng: np.random.Generator, strokes: Strokes) -> Gray:
    return rounded(sheet(rng, strokes, turn=rng.uniform(-15, 15)))


def perspective(rng: np.random.Generator, strokes: Strokes) -> Gray:
    return rounded(sheet(rng, strokes, tilt=tuple(rng.uniform(-0.35, 0.35, 2))))


def sized(low: int, high: int) -> Kind:
    """Return a function that draws pictures of `low` to `high` pixels per side."""

    def draw(rng: np.random.Generator, strokes: Strokes) -> Gray:
        side = round(np.exp(rng.uniform(np.log(low), np.log(high))))
        ink = ink_of(strokes, (side, side), max(1, rng.uniform(3, 10) * side / SIDE), usual_pose(rng))
        return rounded(rng.uniform(200, 255) * (1 - ink) + rng.uniform(0, 70) * ink)

    return draw


KINDS: dict[str, Kind] = {
    "pen 1": pen(1), "pen 2": pen(2), "pen 4": pen(4), "pen 8": pen(8), "pen 12": pen(12),
    "white on black": white_on_black, "tight": tight, "paper": paper, "gradient": gradient,
    "shadow": shadow, "vignette": vignette, "lined": lined, "squared": squared, "frame": frame,
    "specks": specks, "edge": edge, "desk": desk, "corner": corner, "transparent": transparent,
    "coloured": coloured, "blurred": blurred, "jpeg": jpeg, "noisy": noisy, "rotated": rotated,
    "perspective": perspective, "12 to 16": sized(12, 16), "16 to 40": sized(16, 40),
    "40 to 400": sized(40, 400), "400 to 3000": sized(400, 3000),
}  # fmt: skip
"""Kinds of pictures by name; each function takes a generator and a digit's strokes."""


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def draw_kind(kind: str, image: Gray, seed: int) -> bytes:
    """Return a picture of a digit of one kind as the bytes of a file."""
    drawn = KINDS[kind](np.random.default_rng((seed, list(KINDS).index(kind))), strokes_of(image))
    return drawn if isinstance(drawn, bytes) else encode(Image.fromarray(drawn), compress_level=1)


def draw_row(images: Sequence[Gray], seed: int) -> bytes:
    """Return a picture of digits in a row, with gaps between them, dark on light."""
    rng = np.random.default_rng(seed)
    width, height = rng.uniform(3, 9), 150
    gray, at = np.zeros((height, 110 * len(images) + 60)), 30.0
    for image in images:
        strokes = strokes_of(image)
        box = rng.uniform(0.5, 0.6)
        half = box * height * np.ptp(strokes.points[:, 0]) / 2
        at += half
        pose = Pose(box, at / gray.shape[1], rng.uniform(0.46, 0.54))
        gray = np.maximum(gray, ink_of(strokes, gray.shape, width, pose))
        at += half + width + rng.uniform(8, 30)
    drawn = (
        rng.uniform(200, 255) * (1 - gray[:, : int(at) + 20]) + rng.uniform(0, 70) * gray[:, : int(at) + 20]
    )
    return encode(Image.fromarray(rounded(drawn + rng.normal(0, 2, drawn.shape))), compress_level=1)


# Pictures of other things


def curve(rng: np.random.Generator, points: int, smoothness: int = 30) -> Strokes:
    """Return a random smooth line through `points` points."""
    corners = rng.uniform(-0.5, 0.5, (points, 2))
    at = np.linspace(0, points - 1, points * smoothness)
    path = np.stack([np.interp(at, np.arange(points), axis) for axis in corners.T], 1)
    pairs = np.stack([np.arange(len(path) - 1), np.arange(1, len(path))], 1)
    return Strokes(smooth(path, pairs, 60), pairs)


def joined(*parts: Strokes) -> Strokes:
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    pairs = [part.pairs + start for part, start in zip(parts, starts, strict=False)]
    return Strokes(np.concatenate([part.points for part in parts]), np.concatenate(pairs))


def arc(x: float, y: float, radius: float, start: float = 0, end: float = 2 * np.pi) -> Strokes:
    angle = np.linspace(start, end, 40)
    path = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)
    return Strokes(path, np.stack([np.arange(39), np.arange(1, 40)], 1))


def line(rng: np.random.Generator) -> Gray:
    """Return a picture of a horizontal line; a vertical one would be a 1."""
    tilt = rng.uniform(-0.2, 0.2)
    strokes = Strokes(np.array([[-0.5, -tilt], [0.5, tilt]]), np.array([[0, 1]]))
    return rounded(sheet(rng, strokes))


def scribble(rng: np.random.Generator) -> Gray:
    return rounded(sheet(rng, curve(rng, int(rng.integers(8, 20)))))


def letter(rng: np.random.Generator) -> Gray:
    """Return a letter that resembles no digit, thinned and drawn with a pen."""
    glyph = Image.new("L", (28, 28))
    font = ImageFont.load_default(24)
    ImageDraw.Draw(glyph).text((14, 14), str(rng.choice([*"AEFHKMNRTWXahkmnrw"])), 255, font, anchor="mm")
    return rounded(sheet(rng, strokes_of(np.asarray(glyph)), turn=rng.uniform(-8, 8)))


def face(rng: np.random.Generator) -> Gray:
    eyes = rng.uniform(0.12, 0.2)
    mouth = arc(0, rng.uniform(0.0, 0.1), rng.uniform(0.2, 0.3), 0.2 * np.pi, 0.8 * np.pi)
    parts = (arc(0, 0, 0.5), arc(-eyes, -0.15, 0.05), arc(eyes, -0.15, 0.05), mouth)
    return rounded(sheet(rng, joined(*parts)))


def photograph(rng: np.random.Generator) -> Gray:
    """Return a scene without paper, with large and small things in shades of grey."""
    waves = np.zeros((SIDE, SIDE))
    for cells in (3, 6, 12, 25, 50):
        small = Image.fromarray(rng.normal(0, 120 / cells**0.7, (cells, cells)).astype(np.float32))
        waves = waves + np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    picture = Image.fromarray(rounded(128 + waves))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 6)):
        x, y = rng.uniform(-20, SIDE, 2)
        wide, high = rng.uniform(10, 120, 2)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + wide, y + high), fill=int(rng.integers(0, 256)))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1)))


OTHERS: dict[str, Callable[[np.random.Generator], Gray]] = {
    "line": line, "scribble": scribble, "letter": letter, "face": face, "photograph": photograph,
}  # fmt: skip
"""Pictures that do not show a digit, by name."""


def draw_other(name: str, seed: int) -> bytes:
    """Return a picture of a thing that is not a digit as the bytes of a PNG file."""
    rng = np.random.default_rng((seed, list(OTHERS).index(name)))
    return encode(Image.fromarray(OTHERS[name](rng)), compress_level=1)
