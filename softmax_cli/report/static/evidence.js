// The evidence, pixel by pixel: intensities times weights are contributions, or integrated gradients are.

(() => {
  const bars = CLASSES.map((name) => {
    const bar = element("span", { class: "bar" }), number = element("span", { class: "number" });
    const row = element("div", { class: "bar-row" }, element("span", { class: "name" }, name),
      element("span", { class: "track middle" }, bar), number);
    return { row, bar, number };
  });
  byId("evidence-rows").append(...bars.map((one) => one.row));

  story.onImage(({ z }) => {
    bars.forEach(({ bar, number }, k) => {
      const share = z ? clamp(z[k] / DATA.span, -1, 1) : 0;
      bar.style.width = `${50 * Math.abs(share)}%`;
      bar.style.left = share < 0 ? `${50 - 50 * Math.abs(share)}%` : "50%";
      bar.classList.toggle("minus", share < 0);
      number.textContent = z ? signed(z[k]) : "–";
    });
    const text = z ? CLASSES.slice(0, 20).map((name, k) => `${name} ${signed(z[k])}`).join(", ") : "not known";
    byId("evidence-rows").setAttribute("aria-label", `Evidence for each class: ${text}`);
  });
  story.onClass(({ shown }) => bars.forEach(({ row }, k) => row.classList.toggle("shown", k === shown)));
  if (!MODEL) return;

  const canvas = byId("seen"), pictures = [...document.querySelectorAll(".trio canvas")];
  const chips = CLASSES.map((name, k) => {
    const chip = element("button", { type: "button", class: "chip", "aria-pressed": "false" }, name);
    chip.addEventListener("click", () => story.choose(k));
    byId("evidence-classes").append(chip);
    return chip;
  });
  let pixel = null; // the place that is pointed at

  story.onImage(({ seen }) => drawGrey(canvas, seen));
  story.onClass(({ terms, shown }) => {
    if (MODEL.hasPixels) drawSigned(byId("applied"), MODEL.weightsOf(shown), largest(MODEL.weights));
    drawSigned(byId("speaks"), terms, largest(MODEL.hasPixels ? MODEL.weights : terms));
    for (const name of document.querySelectorAll(".shown-class")) name.textContent = CLASSES[shown];
    show("speaks-text", `Evidence for ${CLASSES[shown]}: ${signed(sumOf(terms))} from pixels, ` +
      `${signed(MODEL.blank[shown])} from ${MODEL.hasPixels ? "the bias" : "a blank image"}`);
    chips.forEach((chip, k) => chip.setAttribute("aria-pressed", String(k === shown)));
    showPixel();
  });

  function showPixel() {
    if (pixel === null) return show("pixel", "Point at a pixel to read its intensity and contribution.");
    const { seen, shown, terms } = story.now, x = (seen[pixel] / 255).toFixed(2);
    const weight = MODEL.weights[pixel * CLASSES.length + shown];
    show("pixel", `Row ${Math.floor(pixel / COLS) + 1}, column ${(pixel % COLS) + 1}: intensity ${x}` +
      (MODEL.hasPixels ? ` × weight ${signed(weight)} = ` : ", contribution ") +
      `${signed(terms[pixel])} for ${CLASSES[shown]}`);
  }

  for (const one of pictures) {
    one.addEventListener("pointermove", (event) => {
      const box = one.getBoundingClientRect();
      const at = (place, side) => clamp(Math.floor(place * side), 0, side - 1);
      pixel = at((event.clientY - box.top) / box.height, ROWS) * COLS + at((event.clientX - box.left) / box.width, COLS);
      showPixel();
    });
    one.addEventListener("pointerleave", () => {
      pixel = null;
      showPixel();
    });
  }
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const from = pixel ?? Math.floor(ROWS / 2) * COLS + Math.floor(COLS / 2);
    pixel = clamp(Math.floor(from / COLS) + move[0], 0, ROWS - 1) * COLS + clamp((from % COLS) + move[1], 0, COLS - 1);
    showPixel();
  });
  canvas.addEventListener("blur", () => {
    pixel = null;
    showPixel();
  });
})();
