// Arrays as pictures on a <canvas>, and pictures as arrays.

const FOR = [37, 105, 235], AGAINST = [216, 58, 52];

// Values as a picture: blue above zero, red below; `most` is full strength.
function drawSigned(canvas, values, most, power = 0.5) {
  const pixels = new ImageData(COLS, ROWS);
  values.forEach((value, p) => {
    pixels.data.set(value > 0 ? FOR : AGAINST, 4 * p);
    pixels.data[4 * p + 3] = Math.round(255 * Math.min(1, Math.abs(value) / most) ** power);
  });
  putPixels(canvas, pixels);
}

// The largest magnitude, as the full strength of such a picture.
const largest = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);

function drawGrey(canvas, image) {
  const pixels = new ImageData(COLS, ROWS);
  image.forEach((value, p) => pixels.data.set([value, value, value, 255], 4 * p));
  putPixels(canvas, pixels);
}

function putPixels(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Copies of canvases are read, not the canvases themselves: reading slows drawing down.
function copyOf(picture, width, height) {
  const paper = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  paper.drawImage(picture, 0, 0, width, height);
  return paper;
}

// The grey values of a picture, row by row.
function greyOf(picture, width = COLS, height = ROWS) {
  const rgba = copyOf(picture, width, height).getImageData(0, 0, width, height).data;
  return Uint8Array.from({ length: width * height }, (_, p) => rgba[4 * p]);
}

// Image `at` of a picture that holds many, DATA.atlasColumns side by side.
const placeInAtlas = (at) => [(at % DATA.atlasColumns) * COLS, Math.floor(at / DATA.atlasColumns) * ROWS];

// The first `count` images of such a picture, one after the other.
function imagesOf(picture, count) {
  const width = picture.naturalWidth, grey = greyOf(picture, width, picture.naturalHeight);
  const images = new Uint8Array(count * ROWS * COLS);
  for (let i = 0; i < count; i++) {
    const [left, top] = placeInAtlas(i);
    for (let r = 0; r < ROWS; r++) {
      const from = (top + r) * width + left;
      images.set(grey.subarray(from, from + COLS), (i * ROWS + r) * COLS);
    }
  }
  return images;
}
