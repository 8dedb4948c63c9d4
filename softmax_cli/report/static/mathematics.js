// The mathematics of softmax regression for one image, as in softmax_cli/model.py, and products with matrices.

// The bytes behind a base64 text.
function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// The numbers of an array of the model, little-endian: float32, or whole numbers of 16 bits times `unit`.
function numbersOf({ text, unit }) {
  const view = new DataView(bytesOf(text).buffer), size = unit ? 2 : 4;
  const read = unit ? (at) => unit * view.getInt16(at, true) : (at) => view.getFloat32(at, true);
  return Float64Array.from({ length: view.byteLength / size }, (_, i) => read(size * i));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// Arrays, one after the other.
function joined(arrays) {
  const made = new Float64Array(sumOf(arrays.map((one) => one.length)));
  let at = 0;
  for (const one of arrays) {
    made.set(one, at);
    at += one.length;
  }
  return made;
}

// x * matrix, whose numbers are given row by row; one row for each number of x.
function times(x, matrix) {
  const width = matrix.length / x.length, made = new Float64Array(width);
  for (let i = 0; i < x.length; i++) {
    const factor = x[i], row = i * width;
    if (factor) for (let j = 0; j < width; j++) made[j] += factor * matrix[row + j];
  }
  return made;
}

// matrix * y.
function timesTransposed(y, matrix) {
  const width = y.length, made = new Float64Array(matrix.length / width);
  for (let i = 0; i < made.length; i++) made[i] = dot(matrix.subarray(i * width, (i + 1) * width), y);
  return made;
}

// y_k = exp(z_k - m) / sum_j exp(z_j - m), m the largest z.
function softmax(z) {
  const most = Math.max(...z);
  const e = z.map((value) => Math.exp(value - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
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
