// The mathematics of the model for one image, as in softmax_cli/model.py and softmax_cli/features/.

// The bytes, or the little-endian float32 numbers, behind a base64 text.
function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
function floatsOf(text) {
  const view = new DataView(bytesOf(text).buffer);
  return Float64Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

const WEIGHTS = DATA.weights && floatsOf(DATA.weights); // (pixels, classes), row by row

// y_k = exp(z_k - m) / sum_j exp(z_j - m), m the largest z.
function softmax(z) {
  const most = Math.max(...z);
  const e = z.map((value) => Math.exp(value - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
}

// The contribution of each pixel to the evidence for class k: weight times intensity.
function contributions(image, k) {
  return Float64Array.from(image, (value, p) => (WEIGHTS[p * CLASSES.length + k] * value) / 255);
}

// The evidence for every class: its bias plus the contributions of all pixels. Without weights, the biases.
function evidence(image) {
  if (!WEIGHTS) return Array.from(DATA.bias);
  return CLASSES.map((_, k) => contributions(image, k).reduce((a, b) => a + b, DATA.bias[k]));
}

// The feature stages that redraw an image.
const STAGES = { deskew };

// The image after the feature stages.
function prepared(image) {
  return DATA.imageStages.reduce((drawn, name) => STAGES[name](drawn, ROWS, COLS), image);
}

// The image sheared by its moments, with its centre of mass in the middle, as in features/deskew.py.
function deskew(image, rows, cols) {
  const middleRow = Math.floor(rows / 2), middleCol = Math.floor(cols / 2);
  let mass = 0, row = 0, col = 0, squares = 0, products = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const ink = image[r * cols + c], dr = r - middleRow, dc = c - middleCol;
      mass += ink; row += ink * dr; col += ink * dc; squares += ink * dr * dr; products += ink * dr * dc;
    }
  }
  mass = Math.max(mass, 1);
  [row, col, squares, products] = [row, col, squares, products].map((sum) => sum / mass);
  const variance = squares - row * row;
  const slope = variance < 1e-9 ? 0 : (products - row * col) / variance;
  const centred = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = (i) => (i >= 0 && i < rows ? image[i * cols + c] : 0);
      centred[r * cols + c] = between(at, r, row);
    }
  }
  return Uint8Array.from(centred, (_, p) => {
    const r = Math.floor(p / cols), c = p % cols;
    const at = (j) => (j >= 0 && j < cols ? centred[r * cols + j] : 0);
    return Math.fround(between(at, c, col + slope * (r - middleRow)) + 0.5);
  });
}

// The value at place + offset, linear between the two whole places round it.
function between(at, place, offset) {
  const whole = Math.floor(offset), share = Math.fround(offset - whole);
  const left = Math.fround(at(place + whole) * Math.fround(1 - share));
  return Math.fround(left + Math.fround(at(place + whole + 1) * share));
}

// Cross-entropy and squared error of evidence z if class t is true, and their gradients by z.
function losses(z, t) {
  const y = softmax(z);
  const residual = y.map((value, k) => value - (k === t ? 1 : 0));
  const along = residual.reduce((sum, r, k) => sum + r * y[k], 0);
  const most = Math.max(...z);
  return {
    y,
    ce: Math.log(sumOf(z.map((value) => Math.exp(value - most)))) + most - z[t],
    se: residual.reduce((sum, r) => sum + r * r, 0),
    ceGradient: residual,
    seGradient: residual.map((r, k) => 2 * y[k] * (r - along)),
  };
}
