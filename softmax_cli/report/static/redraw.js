// The feature stages that redraw an image, as in softmax_cli/features/deskew.py and normalize.py.

// Offset of the centre of mass from the middle, slant and size, in pixels; a blank image has the size 1.
function momentsOf(image) {
  let mass = 0, row = 0, column = 0, rr = 0, rc = 0, cc = 0;
  image.forEach((ink, p) => {
    const r = Math.floor(p / COLS) - MIDDLE_ROW, c = (p % COLS) - MIDDLE_COL;
    mass += ink; row += ink * r; column += ink * c;
    rr += ink * r * r; rc += ink * r * c; cc += ink * c * c;
  });
  mass = Math.max(mass, 1);
  [row, column, rr, rc, cc] = [row, column, rr, rc, cc].map((sum) => sum / mass);
  const height = rr - row * row, both = rc - row * column, width = cc - column * column;
  const slant = height < 1e-9 ? 0 : both / height;
  return { row, column, slant, size: Math.sqrt(Math.max(height + width - slant * both, 1)) };
}

// The image drawn anew: pixel (r, c) is read at place(r, c), both relative to the middle, linearly in between.
function resampled(image, place) {
  const at = (r, c) => (r >= 0 && r < ROWS && c >= 0 && c < COLS ? image[r * COLS + c] : 0);
  return Uint8Array.from(image, (_, p) => {
    const [r, c] = place(Math.floor(p / COLS) - MIDDLE_ROW, (p % COLS) - MIDDLE_COL);
    const top = Math.floor(r), left = Math.floor(c), down = r - top, right = c - left;
    const [row, col] = [top + MIDDLE_ROW, left + MIDDLE_COL];
    const upper = (1 - right) * at(row, col) + right * at(row, col + 1);
    const lower = (1 - right) * at(row + 1, col) + right * at(row + 1, col + 1);
    return Math.floor((1 - down) * upper + down * lower + 0.5);
  });
}

function deskew(image) {
  const { row, column, slant } = momentsOf(image);
  return resampled(image, (r, c) => [r + row, c + column + slant * r]);
}

function normalize(image, { size: [mean] }) {
  const { row, column, slant, size } = momentsOf(image), zoom = size / mean;
  return resampled(image, (r, c) => [zoom * r + row, zoom * (c + slant * r) + column]);
}
