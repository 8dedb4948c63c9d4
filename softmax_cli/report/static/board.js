// The board: what is drawn is prepared and weighed at each stroke.

const PEN_WIDTH = 22; // on a sheet of 280 pixels, as thick as the pens of MNIST
const STEP = 10; // pixels that an arrow key moves the pen

const sheet = document.getElementById("sheet");
if (sheet) startBoard();

function startBoard() {
  const paper = sheet.getContext("2d", { willReadFrequently: true });
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  const deeds = []; // what undo takes back: { points } for a stroke, { sample }, or { clear }
  let stroke = null; // the points of the pointer that is drawing, and which pointer that is
  let pointer = null;
  let keyed = null; // the points of the keyboard's pen, while it is down
  const pen = { x: 140, y: 140 };
  let chosen = null; // the class whose evidence is shown, where one was clicked
  let seen = new Uint8Array(ROWS * COLS), best = 0;

  // What there is on the sheet: what was done since it was last cleared.
  const drawn = () => deeds.slice(deeds.findLastIndex((deed) => deed.clear) + 1);

  function paint() {
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    for (const deed of drawn()) deed.points ? paintStroke(deed.points) : paintSample(deed.sample);
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
    const last = drawn().at(-1);
    seen = prepared(last && last.sample ? last.sample : draw(luminance(sheet)));
    const z = evidence(seen), y = softmax(z);
    best = y.indexOf(Math.max(...y));
    drawGrey(document.getElementById("seen"), seen);
    show("answer", last ? `${CLASSES[best]}, ${percent(y[best])} sure` : "The board is empty: only the biases speak.");
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
    show("speaks-text", `Evidence for ${CLASSES[k]}: ${signed(sum)} from pixels, ${signed(DATA.bias[k])} from the bias`);
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
    row.addEventListener("pointerleave", () => showEvidence(chosen ?? best));
    row.addEventListener("click", () => {
      chosen = chosen === k ? null : k;
      rows.forEach((other, j) => other.setAttribute("aria-pressed", String(j === chosen)));
      showEvidence(chosen ?? best);
    });
    document.getElementById("answers").append(row);
    return row;
  });

  DATA.samples.forEach(({ label, pixels }) => {
    const button = element("button", { type: "button" }, CLASSES[label]);
    button.addEventListener("click", () => {
      lift();
      done({ sample: bytesOf(pixels) });
    });
    document.getElementById("samples").append(button);
  });

  document.getElementById("clear").addEventListener("click", () => {
    lift();
    if (drawn().length) done({ clear: true });
  });
  document.getElementById("undo").addEventListener("click", () => {
    lift();
    if (!stroke) deeds.pop(); // else it is the stroke being drawn that goes
    stroke = null;
    paint();
    look();
  });

  // Mouse, finger and pen: the first pointer that comes draws, others wait until it has gone.
  const place = (event) => {
    const box = sheet.getBoundingClientRect();
    const x = ((event.clientX - box.left) * sheet.width) / box.width;
    return [x, ((event.clientY - box.top) * sheet.height) / box.height];
  };
  const end = (event) => {
    if (!stroke || event.pointerId !== pointer) return;
    const points = stroke;
    stroke = null;
    done({ points });
  };
  sheet.addEventListener("pointerdown", (event) => {
    if (stroke || event.button !== 0 || !event.isPrimary) return;
    lift();
    pointer = event.pointerId;
    sheet.setPointerCapture(pointer);
    stroke = [place(event)];
    paintStroke(stroke);
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!stroke || event.pointerId !== pointer) return;
    if (!(event.buttons & 1)) return end(event);
    stroke.push(place(event));
    paintStroke(stroke.slice(-2));
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) sheet.addEventListener(name, end);

  // The keyboard: arrows move the pen, the space bar lowers and lifts it.
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  sheet.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === " ") {
      if (!event.repeat) keyed ? lift() : lower();
    } else if (moves[event.key]) {
      pen.x = Math.min(Math.max(pen.x + moves[event.key][0], 0), sheet.width);
      pen.y = Math.min(Math.max(pen.y + moves[event.key][1], 0), sheet.height);
      if (keyed) {
        keyed.push([pen.x, pen.y]);
        paint();
        look();
      }
    } else return;
    event.preventDefault();
    tellPen();
  });
  sheet.addEventListener("blur", lift);

  function lower() {
    keyed = [[pen.x, pen.y]];
    done({ points: keyed });
  }

  function lift() {
    keyed = null;
    tellPen();
  }

  function tellPen() {
    const mark = document.getElementById("mark");
    mark.style.left = `${(100 * pen.x) / sheet.width}%`;
    mark.style.top = `${(100 * pen.y) / sheet.height}%`;
    mark.classList.toggle("down", Boolean(keyed));
    const text = `The pen is ${keyed ? "down" : "up"}, ${pen.x} from the left, ${pen.y} from the top.`;
    if (document.getElementById("pen").textContent !== text) show("pen", text);
  }

  tellPen();
  paint();
  look();
}
