// From a drawing to the image that the model's data set would have drawn: softmax_cli/image.py again, whose
// text defines each step. Pictures are { width, height, data }, data row by row.

const TIE = 1e-9; // what is as near as this to a half is one, in whatever order it was added up

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

function drawDigit(gray) {
  const { width, height } = gray;
  const ink = { width, height, data: keepShapes(inkOf(gray), width, height) };
  const box = crop(ink);
  if (!box) return new Uint8Array(ROWS * COLS);
  const longest = Math.round((Math.min(ROWS, COLS) * 20) / 28);
  const scale = longest / Math.max(box.width, box.height);
  const side = (length) => Math.max(1, Math.floor(length * scale + 0.5));
  const small = resize(box, side(box.width), side(box.height));
  const most = small.data.reduce((a, b) => Math.max(a, b), 0);
  return rounded(centre(small).map((value) => value * (255 / most)));
}

function drawPlain(gray) {
  const background = lowerMedian(border(gray));
  const dark = background > 127;
  const scale = Math.max(gray.height / ROWS, gray.width / COLS);
  const [width, height] = [COLS, ROWS].map((side, i) =>
    Math.max([gray.width, gray.height][i], halfToEven(side * scale)));
  const padded = { width, height, data: new Float64Array(width * height).fill(dark ? 255 - background : background) };
  const left = Math.floor((width - gray.width) / 2), top = Math.floor((height - gray.height) / 2);
  gray.data.forEach((value, p) => {
    const r = Math.floor(p / gray.width) + top, c = (p % gray.width) + left;
    padded.data[r * width + c] = dark ? 255 - value : value;
  });
  return rounded(resize(padded, COLS, ROWS).data);
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

// Each pixel's distance from the background on the side of the ink; 0 where it is no more than noise.
function inkOf(gray) {
  const edge = border(gray), background = lowerMedian(edge);
  const noise = 3 * lowerMedian(edge.map((value) => Math.abs(value - background)));
  let below = 0, above = 0;
  for (const value of gray.data) {
    const square = (value - background) ** 2;
    if (value < background) below += square;
    else above += square;
  }
  const sign = below > above ? -1 : 1;
  return Int32Array.from(gray.data, (value) => {
    const ink = sign * (value - background);
    return ink > noise ? ink : 0;
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

// Only the ink that hangs together, at corners too, with some that reaches the threshold.
function keepShapes(ink, width, height) {
  const threshold = otsu(ink), kept = new Int32Array(ink.length), seen = new Uint8Array(ink.length);
  for (let start = 0; start < ink.length; start++) {
    if (!ink[start] || seen[start]) continue;
    const shape = [start];
    let strongest = 0;
    seen[start] = 1;
    for (let i = 0; i < shape.length; i++) {
      const r = Math.floor(shape[i] / width), c = shape[i] % width;
      strongest = Math.max(strongest, ink[shape[i]]);
      for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, height - 1); y++) {
        for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, width - 1); x++) {
          const p = y * width + x;
          if (ink[p] && !seen[p]) {
            seen[p] = 1;
            shape.push(p);
          }
        }
      }
    }
    if (strongest >= threshold) for (const p of shape) kept[p] = ink[p];
  }
  return kept;
}

// The box round the ink that has at least a third of the strongest; null where there is none.
function crop({ width, height, data }) {
  const most = data.reduce((a, b) => Math.max(a, b), 0);
  if (!most) return null;
  let top = height, bottom = 0, left = width, right = 0;
  data.forEach((value, p) => {
    if (3 * value < most) return;
    const r = Math.floor(p / width), c = p % width;
    top = Math.min(top, r); bottom = Math.max(bottom, r);
    left = Math.min(left, c); right = Math.max(right, c);
  });
  const box = { width: right - left + 1, height: bottom - top + 1 };
  box.data = Float64Array.from({ length: box.width * box.height }, (_, p) =>
    data[(top + Math.floor(p / box.width)) * width + left + (p % box.width)]);
  return box;
}

function resize({ width, height, data }, newWidth, newHeight) {
  const down = shares(height, newHeight), across = shares(width, newWidth);
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

// The picture on the model's canvas, by whole pixels as near to the centre of mass as there is room.
function centre({ width, height, data }) {
  let mass = 0, row = 0, col = 0;
  data.forEach((value, p) => {
    mass += value;
    row += value * Math.floor(p / width);
    col += value * (p % width);
  });
  const corner = (side, found, middle) =>
    Math.min(Math.max(Math.ceil(side / 2 - 0.5 - middle - TIE), 0), side - found);
  const top = corner(ROWS, height, row / mass), left = corner(COLS, width, col / mass);
  const canvas = new Float64Array(ROWS * COLS);
  data.forEach((value, p) => {
    canvas[(top + Math.floor(p / width)) * COLS + left + (p % width)] = value;
  });
  return canvas;
}

function rounded(values) {
  return Uint8Array.from(values, (value) => Math.min(Math.max(Math.floor(value + (0.5 + TIE)), 0), 255));
}

// As Python rounds: halves to the even neighbour.
function halfToEven(value) {
  const below = Math.floor(value), rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}
