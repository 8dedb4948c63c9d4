// The board: draw with pointer or keyboard, choose an example, open, drop or paste a picture.

const PEN_WIDTH = 22; // on a sheet of 280 pixels, as thick as the pens of MNIST
const STEP = 10; // pixels that an arrow key moves the pen
const PAUSE = 80; // milliseconds between two looks at an unfinished stroke
const LARGEST = 1024; // longest side at which a picture is read

const board = (() => {
  const sheet = byId("sheet");
  const paper = sheet.getContext("2d", { willReadFrequently: true });
  const deeds = []; // what undo reverts: { points } of a stroke, { sample }, { canvas, gray } of a picture, or { clear }
  let stroke = null; // the points of the pointer that is drawing, and which pointer that is
  let pointer = null;
  let due = 0; // when the unfinished stroke is next looked at
  let keyed = null; // the points of the keyboard's pen, while it is down
  const pen = { x: 140, y: 140 };

  // What is on the sheet: what was done since it was last cleared.
  const drawn = () => deeds.slice(deeds.findLastIndex((deed) => deed.clear) + 1);

  function paint() {
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    for (const deed of drawn()) {
      if (deed.points) paintStroke(deed.points);
      else if (deed.canvas) paintPicture(deed.canvas);
      else paintSample(deed.sample);
    }
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

  // An image of the data set, enlarged, dark on light.
  function paintSample(image) {
    const small = document.createElement("canvas");
    drawGrey(small, image.map((value) => 255 - value));
    const scale = Math.min(sheet.width / COLS, sheet.height / ROWS);
    paper.drawImage(small, 0, 0, COLS * scale, ROWS * scale);
  }

  // Show the story what the board holds. The model sees an example or a picture itself until something is drawn on it.
  function look() {
    const last = stroke ? { points: stroke } : drawn().at(-1);
    byId("hint").hidden = Boolean(last);
    if (last && last.sample) story.setImage(last.sample, false, last.known);
    else if (last && last.gray) story.setImage(draw(last.gray));
    else story.setImage(draw(luminance(sheet)), !last);
    show("origin", last && last.origin ? last.origin : "");
  }

  // While a stroke is drawn, as often as leaves time for drawing.
  function lookWhileDrawing() {
    const start = performance.now();
    if (start < due) return;
    look();
    const end = performance.now();
    due = end + Math.max(PAUSE, end - start);
  }

  function done(deed) {
    deeds.push(deed);
    paint();
    look();
  }

  // Put an image of the test images on the board.
  function load(image, known, origin = `Test image ${known.image}.`) {
    lift();
    done({ sample: image, known, origin });
    const box = sheet.getBoundingClientRect();
    if (box.bottom > 0 && box.top < innerHeight) return;
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    byId("desk").scrollIntoView({ behavior });
  }

  // Put a picture on the board: on white, at most LARGEST pixels long.
  async function read(file) {
    try {
      const picture = await createImageBitmap(file);
      const scale = Math.min(1, LARGEST / Math.max(picture.width, picture.height));
      const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
      const canvas = element("canvas", { width, height }), pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, width, height);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(picture, 0, 0, width, height);
      lift();
      done({ canvas, gray: luminance(canvas), origin: `Your picture, ${picture.width} × ${picture.height} pixels.` });
    } catch {
      show("origin", "This file is not a picture that the browser can read.");
    }
  }

  function paintPicture(canvas) {
    const scale = Math.min(sheet.width / canvas.width, sheet.height / canvas.height);
    const [width, height] = [canvas.width * scale, canvas.height * scale];
    paper.drawImage(canvas, (sheet.width - width) / 2, (sheet.height - height) / 2, width, height);
  }

  for (const { label, image, pixels } of DATA.samples) {
    const button = element("button", { type: "button", class: "chip" }, CLASSES[label]);
    button.addEventListener("click", () => load(bytesOf(pixels), { label, image }, `Example: test image ${image}.`));
    byId("samples").append(button);
  }

  const fileInput = byId("file"), desk = byId("paper");
  fileInput.addEventListener("change", () => {
    if (fileInput.files[0]) read(fileInput.files[0]);
    fileInput.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // or the browser would open the file
      desk.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => desk.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    read(file);
  });

  byId("clear").addEventListener("click", () => {
    lift();
    if (drawn().length) done({ clear: true });
  });
  byId("undo").addEventListener("click", () => {
    lift();
    if (!stroke) deeds.pop(); // else only the unfinished stroke is dropped
    stroke = null;
    paint();
    look();
  });

  // Mouse, finger and pen: one pointer draws at a time.
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
    lookWhileDrawing();
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
    showPen();
  });
  sheet.addEventListener("blur", lift);

  function lower() {
    keyed = [[pen.x, pen.y]];
    done({ points: keyed });
  }

  function lift() {
    keyed = null;
    showPen();
  }

  function showPen() {
    const mark = byId("mark");
    mark.style.left = `${(100 * pen.x) / sheet.width}%`;
    mark.style.top = `${(100 * pen.y) / sheet.height}%`;
    mark.classList.toggle("down", Boolean(keyed));
    const text = `The pen is ${keyed ? "down" : "up"}, ${pen.x} from the left, ${pen.y} from the top.`;
    if (byId("pen").textContent !== text) show("pen", text);
  }

  return {
    load,
    start() {
      showPen();
      paint();
      look();
    },
  };
})();
