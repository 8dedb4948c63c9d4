// The feature stages that compute features, as in softmax_cli/features/gradients.py, pca.py and fourier.py.
// `forward` returns the outputs for one input x, `backward` the gradient by x, given that by the outputs.
// A step is homogeneous if its outputs for a * x are a times those for x, for every a > 0.

const DIRECTIONS = 8, DELTA = 0.01, EPSILON_SQUARED = 0.1;
const ROUNDING = 1e-9; // above the rounding errors of gradients, below all other gradients of 256 grey levels

// Gradient-direction features, first step: how much edge of each direction there is in each region.
const edges = {
  isHomogeneous: true,
  forward(x, { rows, columns }) {
    return joined(directionsOf(...sobel(x)).map((map) => averaged(map, rows, columns)));
  },
  backward(x, gradient, { rows, columns }) {
    const regions = gradient.length / DIRECTIONS;
    const byMaps = Array.from({ length: DIRECTIONS }, (_, k) =>
      spread(gradient.subarray(k * regions, (k + 1) * regions), rows, columns));
    return sobelBackward(...directionsBackward(...sobel(x), byMaps));
  },
};

// Second step: the root, and the division by the norm.
const contrast = {
  forward(averages) {
    const { roots, norm } = rootsOf(averages);
    return roots.map((root) => root / norm);
  },
  backward(averages, gradient) {
    const { roots, norm } = rootsOf(averages), along = dot(gradient, roots) / norm;
    return gradient.map((value, j) =>
      (value - (roots[j] / norm) * along) / norm / (2 * (roots[j] + Math.sqrt(DELTA))));
  },
};

function rootsOf(averages) {
  const roots = averages.map((value) => Math.sqrt(value + DELTA) - Math.sqrt(DELTA));
  return { roots, norm: Math.sqrt(EPSILON_SQUARED + dot(roots, roots)) };
}

const pca = {
  forward: (x, { mean, components }) => times(x.map((value, i) => value - mean[i]), components),
  backward: (x, gradient, { components }) => timesTransposed(gradient, components),
};

const fourier = {
  forward(x, { projection, phase }) {
    const scale = Math.sqrt(2 / phase.length);
    return times(x, projection).map((value, j) => scale * Math.cos(value + phase[j]));
  },
  backward(x, gradient, { projection, phase }) {
    const scale = Math.sqrt(2 / phase.length);
    const byAngles = times(x, projection).map((value, j) => -scale * gradient[j] * Math.sin(value + phase[j]));
    return timesTransposed(byAngles, projection);
  },
};

// Sobel's operator: sums with the weights 1, 2, 1 along one axis, differences along the other; zeros outside.
function sobel(x) {
  const at = (r, c) => (r >= 0 && r < ROWS && c >= 0 && c < COLS ? x[r * COLS + c] : 0);
  const column = (r, c) => at(r - 1, c) + at(r + 1, c) + at(r, c) + at(r, c);
  const row = (r, c) => at(r, c - 1) + at(r, c + 1) + at(r, c) + at(r, c);
  const each = (value) => Float64Array.from(x, (_, p) => value(Math.floor(p / COLS), p % COLS));
  return [each((r, c) => column(r, c + 1) - column(r, c - 1)), each((r, c) => row(r + 1, c) - row(r - 1, c))];
}

// The transpose of Sobel's operator is its negative.
function sobelBackward(byX, byY) {
  const [x] = sobel(byX), [, y] = sobel(byY);
  return x.map((value, p) => -value - y[p]);
}

// The axes beside a gradient and the diagonal between them, as directions, and its parts along the axes.
function octant(gx, gy) {
  const x = gx > 0 ? 0 : 4, y = gy > 0 ? 2 : 6;
  return { x, y, diagonal: x === 0 && y === 6 ? 7 : (x + y) / 2, a: Math.abs(gx), b: Math.abs(gy) };
}

// The parts of a gradient along eight directions, 45 degrees apart, as eight maps.
function directionsOf(gx, gy) {
  const maps = Array.from({ length: DIRECTIONS }, () => new Float64Array(gx.length));
  gx.forEach((_, p) => {
    const { x, y, diagonal, a, b } = octant(gx[p], gy[p]), less = Math.min(a, b);
    maps[x][p] = a - less;
    maps[y][p] = b - less;
    maps[diagonal][p] = Math.SQRT2 * less;
  });
  return maps;
}

// The gradient by (gx, gy). On an axis or a diagonal, up to rounding, it is the mean of those on both sides.
function directionsBackward(gx, gy, byMaps) {
  const byX = new Float64Array(gx.length), byY = new Float64Array(gx.length);
  gx.forEach((_, p) => {
    const { x, y, diagonal, a, b } = octant(gx[p], gy[p]);
    const toX = byMaps[x][p], toY = byMaps[y][p], toBoth = Math.SQRT2 * byMaps[diagonal][p];
    const xIsLess = Math.abs(a - b) < ROUNDING ? 0.5 : Number(a < b);
    if (a > ROUNDING) byX[p] = Math.sign(gx[p]) * (xIsLess * (toBoth - toY) + (1 - xIsLess) * toX);
    if (b > ROUNDING) byY[p] = Math.sign(gy[p]) * (xIsLess * toY + (1 - xIsLess) * (toBoth - toX));
  });
  return [byX, byY];
}

// The averages of a map around the centres of a grid: rows' * map * columns, with the weights of each axis.
function averaged(map, rows, columns) {
  const grid = rows.length / ROWS, made = new Float64Array(grid * grid);
  for (let r = 0; r < ROWS; r++) {
    const line = times(map.subarray(r * COLS, (r + 1) * COLS), columns);
    for (let i = 0; i < grid; i++) {
      for (let j = 0; j < grid; j++) made[i * grid + j] += rows[r * grid + i] * line[j];
    }
  }
  return made;
}

// The transpose of `averaged`: rows * values * columns'.
function spread(values, rows, columns) {
  const grid = rows.length / ROWS, map = new Float64Array(ROWS * COLS);
  for (let r = 0; r < ROWS; r++) {
    map.set(timesTransposed(times(rows.subarray(r * grid, (r + 1) * grid), values), columns), r * COLS);
  }
  return map;
}
