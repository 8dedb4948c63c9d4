// The board: what is drawn is prepared and weighed at each stroke.

const PEN_WIDTH = 22; // on a sheet of 280 pixels, as thick as the pens of MNIST
const STEP = 10; // pixels that an arrow key moves the pen

const sheet = document.getElementById("sheet");
if (sheet) startBoard();

function startBoard() {
  const paper = sheet.getContext("2d", { willReadFrequently: true });
  const deeds = []; // what undo takes back: strokes (lists of points) and samples
  let stroke = null; // the one being drawn
  let chosen = null; // the class whose evidence is shown, where one was clicked
  let seen = new Uint8Array(ROWS * COLS);
  const pen = { x: 140, y: 140, down: false };

  function paint() {
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    for (const deed of deeds) deed.points ? paintStroke(deed.points) : paintSample(deed.sample);
  }

  function paintStroke(points) {
    paper.strokeStyle = paper.fillStyle = "#000";
    paper.lineWidth = PEN_WIDTH;
    paper.lineCap = paper.lineJoin = "round";
    paper.beginPath();
    paper.arc(...points[0], PEN_WIDTH / 2, 0, 2 * Math.PI); // a stroke of one point is a dot
    paper.fill();
    paper.beginPath();
    for (const point of points) paper.lineTo(...point);
    paper.stroke();
  }

  // A sample, enlarged, dark on light; the model sees the sample itself until something is drawn on it.
  function paintSample(image) {
    const small = document.createElement("canvas");
    drawGrey(small, image.map((value) => 255 - value));
    const scale = Math.min(sheet.width / COLS, sheet.height / ROWS);
    paper.drawImage(small, 0, 0, COLS * scale, ROWS * scale);
  }

  function look() {
    const last = deeds[deeds.length - 1];
    seen = prepared(last && last.sample ? last.sample : draw(luminance(sheet)));
    const z = evidence(seen), y = softmax(z);
    const best = y.indexOf(Math.max(...y));
    drawGrey(document.getElementById("seen"), seen);
    document.getElementById("answer").textContent = deeds.length
      ? `${CLASSES[best]}, ${percent(y[best])} sure`
      : "The board is empty: only the biases speak.";
    const most = Math.max(1, ...z.map(Math.abs));
    rows.forEach((row, k) => {
      const [, track, value, shareTrack, share] = row.children;
      const bar = track.firstChild;
      bar.style.width = `${(50 * Math.abs(z[k])) / most}%`;
      bar.style.left = z[k] < 0 ? `${50 - (50 * Math.abs(z[k])) / most}%` : "50%";
      bar.classList.toggle("minus", z[k] < 0);
      value.textContent = signed(z[k]);
      shareTrack.firstChild.style.width = `${100 * y[k]}%`;
      share.textContent = percent(y[k]);
      row.dataset.evidence = z[k];
      row.dataset.probability = y[k];
    });
    showEvidence(chosen ?? best);
  }

  function showEvidence(k) {
    const all = CLASSES.map((_, j) => contributions(seen, j));
    const most = Math.max(1e-9, ...all.map((one) => one.reduce((a, b) => Math.max(a, Math.abs(b)), 0)));
    const sum = all[k].reduce((a, b) => a + b, 0);
    drawSigned(document.getElementById("speaks"), all[k], most);
    document.getElementById("speaks-text").textContent =
      `Evidence for ${CLASSES[k]}: ${signed(sum)} from pixels, ${signed(DATA.bias[k])} from the bias`;
  }

  function done(deed) {
    deeds.push(deed);
    paint();
    look();
  }

  const rows = CLASSES.map((name, k) => {
    const part = (className) => element("span", { class: className });
    const track = () => element("span", { class: "track", "aria-hidden": "true" }, part("bar"));
    const label = element("span", { class: "name" }, name);
    const row = element("button", { type: "button", class: "answer", "aria-pressed": "false" },
      label, track(), part("number"), track(), part("number"));
    row.addEventListener("pointerenter", () => showEvidence(k));
    row.addEventListener("pointerleave", () => look());
    row.addEventListener("click", () => {
      chosen = chosen === k ? null : k;
      rows.forEach((other, j) => other.setAttribute("aria-pressed", String(j === chosen)));
      look();
    });
    document.getElementById("answers").append(row);
    return row;
  });

  DATA.samples.forEach(({ label, pixels }) => {
    const button = element("button", { type: "button" }, CLASSES[label]);
    button.addEventListener("click", () => done({ sample: bytesOf(pixels) }));
    document.getElementById("samples").append(button);
  });

  document.getElementById("clear").addEventListener("click", () => {
    deeds.length = 0;
    paint();
    look();
  });
  document.getElementById("undo").addEventListener("click", () => {
    deeds.pop();
    paint();
    look();
  });

  // Mouse, finger and pen.
  const place = (event) => {
    const box = sheet.getBoundingClientRect();
    const x = ((event.clientX - box.left) * sheet.width) / box.width;
    return [x, ((event.clientY - box.top) * sheet.height) / box.height];
  };
  sheet.addEventListener("pointerdown", (event) => {
    sheet.setPointerCapture(event.pointerId);
    stroke = [place(event)];
    paintStroke(stroke);
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    stroke.push(place(event));
    paintStroke(stroke.slice(-2));
  });
  const lift = () => {
    if (stroke) done({ points: stroke });
    stroke = null;
  };
  sheet.addEventListener("pointerup", lift);
  sheet.addEventListener("pointercancel", lift);

  // The keyboard: arrows move the pen, the space bar lowers and lifts it.
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  sheet.addEventListener("keydown", (event) => {
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) done({ points: [[pen.x, pen.y]] });
    } else if (moves[event.key]) {
      pen.x = Math.min(Math.max(pen.x + moves[event.key][0], 0), sheet.width);
      pen.y = Math.min(Math.max(pen.y + moves[event.key][1], 0), sheet.height);
      const last = deeds[deeds.length - 1];
      if (pen.down && last && last.points) {
        last.points.push([pen.x, pen.y]);
        paint();
        look();
      }
    } else return;
    event.preventDefault();
    document.getElementById("pen").textContent =
      `The pen is ${pen.down ? "down" : "up"}, ${pen.x} from the left, ${pen.y} from the top.`;
  });

  paint();
  look();
}
