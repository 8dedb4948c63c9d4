// From a drawing to the image that the model's data set would have drawn, as softmax_cli/pictures draws it:
// crop, stroke width and centring. A drawing has no lines, frames or shadows, so nothing is removed.
// Pictures are { width, height, data }, data row by row.

const FINE = 3, BOX = 20; // the stroke width is changed in a drawing FINE * BOX pixels long
const MARGIN = 2 * FINE;
const STROKE = 2.4; // width of strokes in pixels of the box
const THINNEST = 0.3; // share of its width that a stroke may lose on each side
const SOFTNESS = 1.5; // width of the outline of strokes
const LEAST = 2; // strength of ink that is rounding
const SIDE = 256; // longest side of a picture in which the digit is first searched for
const LANCZOS_REACH = 3; // of the interpolation of small ink, in its pixels

// The lightness of what is on a canvas, in whole numbers from 0 to 255 (ITU-R BT.601).
function luminance(canvas) {
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height);
  for (let p = 0; p < data.length; p++) {
    const [r, g, b] = rgba.subarray(4 * p, 4 * p + 3);
    data[p] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
  }
  return { width, height, data };
}

function draw(gray) {
  return DATA.preparation === "digit" ? drawDigit(gray) : drawPlain(gray);
}

// A large picture is first reduced; if the digit is then small, or not found, its full size is used.
function drawDigit(gray) {
  const factor = Math.ceil(Math.max(gray.width, gray.height) / SIDE);
  let box = factor > 1 ? inkBox(reduce(gray, factor)) : null;
  if (!box || Math.max(box.width, box.height) < FINE * BOX) box = inkBox(gray);
  if (!box) return new Uint8Array(ROWS * COLS);
  const small = fit(normaliseStroke(box), Math.max(1, Math.floor((Math.min(ROWS, COLS) * 20) / 28 + 0.5)));
  const most = small.data.reduce((a, b) => Math.max(a, b), 0);
  return rounded(centre(small).map((value) => value * (255 / most)));
}

// The cropped ink of a picture; null where there is none.
function inkBox(gray) {
  const { width, height } = gray;
  return crop({ width, height, data: keepShapes(inkOf(gray), width, height) });
}

// The means over squares of `factor` pixels, in whole numbers.
function reduce({ width, height, data }, factor) {
  const made = { width: Math.ceil(width / factor), height: Math.ceil(height / factor) };
  const sums = new Float64Array(made.width * made.height), counts = new Float64Array(sums.length);
  data.forEach((value, p) => {
    const to = Math.floor(p / width / factor) * made.width + Math.floor((p % width) / factor);
    sums[to] += value;
    counts[to] += 1;
  });
  return { ...made, data: Uint8Array.from(sums, (sum, p) => Math.floor(sum / counts[p] + 0.5)) };
}

// The picture with its longest side at `longest` pixels. Ink that is enlarged is on a blank sheet.
function fit(picture, longest) {
  const scale = longest / Math.max(picture.width, picture.height);
  const side = (length) => Math.max(1, Math.floor(length * scale + 0.5));
  const made = resize(picture, side(picture.width), side(picture.height), scale > 1 ? lanczos : shares);
  return { ...made, data: made.data.map((value) => Math.max(value, 0)) };
}

// Cropped ink, in [0, 1], with strokes as wide as those of MNIST: the outline is moved along the distance.
function normaliseStroke(box) {
  const full = padded(fit(box, FINE * BOX), MARGIN);
  const most = full.data.reduce((a, b) => Math.max(a, b), 0);
  const body = percentile(full.data.filter((value) => value > 0.3 * most), 0.75);
  const clip = (value) => Math.min(Math.max(value, 0), 1);
  const mask = { ...full, data: full.data.map((value) => clip(4 * (clip(value / body) - 0.5) + 0.5)) };
  const width = strokeWidth(mask);
  const growth = Math.max((FINE * STROKE - width) / 2, -THINNEST * width);
  const distance = signedDistance(mask, Math.ceil(Math.abs(growth) + SOFTNESS) + 1);
  const drawn = { ...full, data: distance.map((value) => clip(0.5 - (value - growth) / SOFTNESS)) };
  return cut(drawn, (value) => value > 0.3) || mask;
}

function padded({ width, height, data }, margin) {
  const made = { width: width + 2 * margin, height: height + 2 * margin };
  made.data = new Float64Array(made.width * made.height);
  data.forEach((value, p) => {
    made.data[(Math.floor(p / width) + margin) * made.width + (p % width) + margin] = value;
  });
  return made;
}

// Linear between the two nearest of the sorted values, as numpy.percentile.
function percentile(values, share) {
  const sorted = Float64Array.from(values).sort(), at = share * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

// Mean width of strokes: twice the area over the length of the outline, the sum of the gradient's magnitude.
function strokeWidth({ width, height, data }) {
  const slope = (p, i, length, step) => {
    if (length < 2) return 0;
    if (i === 0) return data[p + step] - data[p];
    if (i === length - 1) return data[p] - data[p - step];
    return (data[p + step] - data[p - step]) / 2;
  };
  let area = 0, outline = 0;
  data.forEach((value, p) => {
    area += value;
    outline += Math.hypot(slope(p, Math.floor(p / width), height, width), slope(p, p % width, width, 1));
  });
  return (2 * area) / Math.max(outline, 1e-6);
}

// Distance to the outline of what is at least a half, negative inside, exact up to `reach`.
function signedDistance({ width, height, data }, reach) {
  const inside = Uint8Array.from(data, (value) => value >= 0.5);
  const to = [0, 1].map((side) => distanceTo(inside, side, width, height, reach));
  return Float64Array.from(inside, (is, p) => (is ? 0.5 - to[0][p] : to[1][p] - 0.5));
}

// Distance from each pixel to the nearest one that is `side`: along rows first, then over rows.
function distanceTo(inside, side, width, height, reach) {
  const squares = new Float64Array(inside.length);
  for (let p = 0; p < inside.length; p++) {
    const left = p - (p % width);
    let nearest = 2 * reach;
    for (let q = Math.max(left, p - reach); q <= Math.min(left + width - 1, p + reach); q++) {
      if (inside[q] === side) nearest = Math.min(nearest, Math.abs(q - p));
    }
    squares[p] = nearest ** 2;
  }
  return squares.map((best, p) => {
    for (let shift = -reach; shift <= reach; shift++) {
      const q = p + shift * width;
      if (q >= 0 && q < squares.length) best = Math.min(best, squares[q] + shift ** 2);
    }
    return Math.min(Math.sqrt(best), reach);
  });
}

function drawPlain(gray) {
  const background = lowerMedian(border(gray));
  const dark = background > 127;
  const scale = Math.max(gray.height / ROWS, gray.width / COLS);
  const [width, height] = [COLS, ROWS].map((side, i) =>
    Math.max([gray.width, gray.height][i], halfToEven(side * scale)));
  const whole = { width, height, data: new Float64Array(width * height).fill(dark ? 255 - background : background) };
  const left = Math.floor((width - gray.width) / 2), top = Math.floor((height - gray.height) / 2);
  gray.data.forEach((value, p) => {
    const r = Math.floor(p / gray.width) + top, c = (p % gray.width) + left;
    whole.data[r * width + c] = dark ? 255 - value : value;
  });
  return rounded(resize(whole, COLS, ROWS).data);
}

// The outermost rows and columns.
function border({ width, height, data }) {
  const values = [];
  for (let c = 0; c < width; c++) values.push(data[c], data[(height - 1) * width + c]);
  for (let r = 0; r < height; r++) values.push(data[r * width], data[r * width + width - 1]);
  return values;
}

function lowerMedian(values) {
  return [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
}

// Strength of the ink, 0 to 255: how far a pixel is from the tone of the paper. Dark ink is relative to the
// tone, light ink is not. Polarity is the sign of the third powers of the differences.
function inkOf(gray) {
  const tone = lowerMedian(border(gray));
  const cubes = gray.data.reduce((sum, value) => sum + (value - tone) ** 3, 0);
  const scale = cubes < 0 ? -255 / Math.max(tone, 40) : 1;
  return Int32Array.from(gray.data, (value) => {
    const ink = halfToEven(Math.min(Math.max(scale * (value - tone), 0), 255));
    return ink > LEAST ? ink : 0;
  });
}

// Otsu's threshold t: it maximises the variance between values < t and values >= t.
function otsu(ink) {
  const counts = new Float64Array(256);
  let sum = 0;
  for (const value of ink) {
    counts[value] += 1;
    sum += value;
  }
  let best = 1, most = -1, below = 0, moment = 0;
  for (let t = 1; t < 256; t++) {
    below += counts[t - 1];
    moment += counts[t - 1] * (t - 1);
    const difference = sum * below - moment * ink.length, above = ink.length - below;
    const variance = below && above ? difference ** 2 / (below * above) : 0;
    if (variance > most) [best, most] = [t, variance];
  }
  return best;
}

// Only shapes that somewhere reach Otsu's threshold, of ink that is at least half of it and 8-connected, with
// the weaker pixels round them.
function keepShapes(ink, width, height) {
  const threshold = otsu(ink), weak = Math.max(1, halfToEven(0.5 * threshold));
  const kept = new Int32Array(ink.length), seen = new Uint8Array(ink.length);
  const around = function* (p) {
    const r = Math.floor(p / width), c = p % width;
    for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, height - 1); y++) {
      for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, width - 1); x++) yield y * width + x;
    }
  };
  for (let start = 0; start < ink.length; start++) {
    if (ink[start] < weak || seen[start]) continue;
    const shape = [start];
    let strongest = 0;
    seen[start] = 1;
    for (let i = 0; i < shape.length; i++) {
      strongest = Math.max(strongest, ink[shape[i]]);
      for (const p of around(shape[i])) {
        if (ink[p] >= weak && !seen[p]) {
          seen[p] = 1;
          shape.push(p);
        }
      }
    }
    if (strongest < threshold) continue;
    for (const p of shape) {
      kept[p] = ink[p];
      for (const q of around(p)) if (ink[q] < weak) kept[q] = ink[q];
    }
  }
  return kept;
}

// The box round the ink that has at least a third of the strongest; null where there is none.
function crop(ink) {
  const most = ink.data.reduce((a, b) => Math.max(a, b), 0);
  return most ? cut(ink, (value) => 3 * value >= most) : null;
}

// The box round the pixels for which `holds`; null where there are none.
function cut({ width, height, data }, holds) {
  let top = height, bottom = -1, left = width, right = -1;
  data.forEach((value, p) => {
    if (!holds(value)) return;
    const r = Math.floor(p / width), c = p % width;
    top = Math.min(top, r); bottom = Math.max(bottom, r);
    left = Math.min(left, c); right = Math.max(right, c);
  });
  if (bottom < 0) return null;
  const box = { width: right - left + 1, height: bottom - top + 1 };
  box.data = Float64Array.from({ length: box.width * box.height }, (_, p) =>
    data[(top + Math.floor(p / box.width)) * width + left + (p % box.width)]);
  return box;
}

function resize({ width, height, data }, newWidth, newHeight, along = shares) {
  const down = along(height, newHeight), across = along(width, newWidth);
  const lines = new Float64Array(newHeight * width);
  down.forEach((row, i) => row.forEach(([r, share]) => {
    for (let c = 0; c < width; c++) lines[i * width + c] += share * data[r * width + c];
  }));
  const made = new Float64Array(newHeight * newWidth);
  across.forEach((column, j) => column.forEach(([c, share]) => {
    for (let i = 0; i < newHeight; i++) made[i * newWidth + j] += share * lines[i * width + c];
  }));
  return { width: newWidth, height: newHeight, data: made };
}

// For each new pixel along one axis, the old ones that it is made of and the share of each.
function shares(old, made) {
  const scale = old / made;
  return Array.from({ length: made }, (_, i) => {
    const centre = Math.min(Math.max((i + 0.5) * scale - 0.5, 0), old - 1);
    const found = [];
    for (let j = 0; j < old; j++) {
      const share = made < old
        ? Math.min(i * scale + scale, j + 1) - Math.max(i * scale, j)
        : 1 - Math.abs(centre - j);
      if (share > 0) found.push([j, share]);
    }
    const sum = found.reduce((total, [, share]) => total + share, 0);
    return found.map(([j, share]) => [j, share / sum]);
  });
}

// As shares, for more pixels on a blank sheet: Lanczos interpolation, which keeps thin strokes even.
function lanczos(old, made) {
  const sinc = (x) => (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1);
  return Array.from({ length: made }, (_, i) => {
    const centre = ((i + 0.5) * old) / made - 0.5;
    const found = [];
    for (let j = Math.ceil(centre - LANCZOS_REACH); j <= centre + LANCZOS_REACH; j++) {
      found.push([j, sinc(j - centre) * sinc((j - centre) / LANCZOS_REACH)]);
    }
    const sum = found.reduce((total, [, share]) => total + share, 0);
    return found.filter(([j]) => j >= 0 && j < old).map(([j, share]) => [j, share / sum]);
  });
}

// The picture on the model's canvas, by whole pixels as near to the centre of mass as there is room.
function centre({ width, height, data }) {
  let mass = 0, row = 0, col = 0;
  data.forEach((value, p) => {
    mass += value;
    row += value * Math.floor(p / width);
    col += value * (p % width);
  });
  const corner = (side, found, middle) =>
    Math.min(Math.max(Math.ceil(Number((side / 2 - 0.5 - middle).toFixed(6))), 0), side - found);
  const top = corner(ROWS, height, row / mass), left = corner(COLS, width, col / mass);
  const canvas = new Float64Array(ROWS * COLS);
  data.forEach((value, p) => {
    canvas[(top + Math.floor(p / width)) * COLS + left + (p % width)] = value;
  });
  return canvas;
}

function rounded(values) {
  return Uint8Array.from(values, (value) => Math.min(Math.max(Math.floor(value + 0.5), 0), 255));
}

// As Python rounds: halves to the even neighbour.
function halfToEven(value) {
  const below = Math.floor(value), rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}
