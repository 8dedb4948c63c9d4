// Softmax, step by step: sliders for the evidence, and what follows from it.

const steps = (() => {
  const body = document.getElementById("steps-rows");
  const sliders = [...body.querySelectorAll("input")];
  const target = document.getElementById("steps-target");
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  let before = null; // the probabilities before the last change

  const values = () => sliders.map((slider) => Number(slider.value));
  const sign = (text) => text.replace("-0.0000", "0.0000").replace(/^-/, "−");
  const number = (value) =>
    sign(value !== 0 && Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(4));
  const large = (value) =>
    (value >= 5e-4 && value < 1000 ? value.toFixed(3) : value.toExponential(1).replace("e+", "e"));

  // Cross-entropy and squared error of evidence z where class t is true, and their gradients by z.
  function losses(z, t) {
    const y = softmax(z);
    const residual = y.map((value, k) => value - (k === t ? 1 : 0));
    const along = residual.reduce((sum, r, k) => sum + r * y[k], 0);
    const most = Math.max(...z);
    return {
      y,
      ce: Math.log(z.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most - z[t],
      se: residual.reduce((sum, r) => sum + r * r, 0),
      ceGradient: residual,
      seGradient: residual.map((r, k) => 2 * y[k] * (r - along)),
    };
  }

  function update(changed = null) {
    const z = values(), t = Number(target.value), now = losses(z, t);
    const e = z.map(Math.exp), total = (list) => list.reduce((a, b) => a + b, 0);
    [...body.rows].forEach((row, k) => {
      const cells = row.cells;
      cells[2].textContent = sign(z[k].toFixed(1));
      cells[3].textContent = large(e[k]);
      cells[4].querySelector(".bar").style.width = `${100 * now.y[k]}%`;
      cells[4].querySelector(".number").textContent = number(now.y[k]);
      cells[5].textContent = number(now.ceGradient[k]);
      cells[6].textContent = number(now.seGradient[k]);
      row.classList.toggle("true", k === t);
    });
    show("steps-sum", large(total(e)));
    show("steps-total", total(now.y).toFixed(4));
    show("steps-ce-total", sign(total(now.ceGradient).toFixed(4)));
    show("steps-se-total", sign(total(now.seGradient).toFixed(4)));
    show("steps-ce", now.ce.toFixed(4));
    show("steps-se", now.se.toFixed(4));
    show("steps-verdict", `The true class has probability ${number(now.y[t])}. Cross-entropy pushes it up with ` +
      `${number(-now.ceGradient[t])}, squared error with ${number(-now.seGradient[t])}.`);
    if (before && changed !== null) show("steps-change", changeText(now.y, changed));
    before = now.y;
    plot(z, t);
  }

  // What the last change did, in words.
  function changeText(y, changed) {
    if (changed < 0) {
      const most = Math.max(...y.map((value, k) => Math.abs(value - before[k])));
      return `All evidence changed by the same: no probability moved by more than ${most.toExponential(0)}.`;
    }
    const gained = y[changed] - before[changed];
    const lost = y.reduce((sum, value, k) => sum + (k === changed ? 0 : value - before[k]), 0);
    return `${CLASSES[changed]} ${signed(gained, 4)}, all others together ${signed(lost, 4)}.`;
  }

  // How strongly each loss pushes the true class up, for its evidence from -12 to 12, all else as it is.
  function plot(z, t) {
    const svg = document.getElementById("steps-plot"), name = "http://www.w3.org/2000/svg";
    const x = (value) => 180 + 13.5 * value, y = (value) => 180 - 150 * value;
    const part = (kind, attributes, text = "") => {
      const made = document.createElementNS(name, kind);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      made.textContent = text;
      return made;
    };
    const at = (value) => losses(z.map((other, k) => (k === t ? value : other)), t);
    const places = Array.from({ length: 97 }, (_, i) => at(-12 + i / 4));
    const line = (key) => places.map((one, i) => `${x(-12 + i / 4)},${y(-one[key][t])}`).join(" ");
    const here = at(z[t]);
    svg.replaceChildren(
      part("path", { class: "axis", d: `M18,${y(0)}H346M18,${y(0)}V${y(1) - 8}` }),
      part("text", { x: 346, y: 197, "text-anchor": "end" }, "evidence for the true class, −12 to 12"),
      part("text", { x: 4, y: y(1) + 4 }, "1"),
      part("text", { x: 4, y: y(0) + 4 }, "0"),
      part("polyline", { class: "ce", points: line("ceGradient") }),
      part("polyline", { class: "se", points: line("seGradient") }),
      part("circle", { class: "ce", cx: x(z[t]), cy: y(-here.ceGradient[t]), r: 4 }),
      part("circle", { class: "se", cx: x(z[t]), cy: y(-here.seGradient[t]), r: 4 }),
      part("text", { class: "ce", x: 24, y: y(1) - 10 }, "cross-entropy"),
      part("text", { class: "se", x: 24, y: y(0) - 8 }, "squared error"),
    );
  }

  function set(z, changed = null) {
    z.forEach((value, k) => { sliders[k].value = value; });
    update(changed);
  }

  // The evidence of the first sample, where the sliders reach: all moved by the same, which changes nothing.
  function reset() {
    target.value = DATA.target < sliders.length ? DATA.target : 0;
    before = null;
    const shown = DATA.evidence.slice(0, sliders.length);
    const most = Math.max(...shown), fits = most <= 8 && Math.min(...shown) >= -12;
    set(shown.map((value) => Math.max(-12, fits ? value : value - most + 8)));
    show("steps-change", "Move a slider.");
  }

  sliders.forEach((slider, k) => slider.addEventListener("input", () => update(k)));
  target.addEventListener("change", () => update());
  const room = (by) => values().every((value) => Math.abs(value + by) <= 12);
  const shift = (by) => () => {
    if (room(by)) set(values().map((value) => value + by), -1);
    else show("steps-change", "A slider is at its end: go the other way.");
  };
  document.getElementById("steps-more").addEventListener("click", shift(1));
  document.getElementById("steps-less").addEventListener("click", shift(-1));
  document.getElementById("steps-reset").addEventListener("click", reset);
  document.getElementById("steps-wrong").addEventListener("click", () => {
    const t = Number(target.value), other = (t + 1) % sliders.length;
    set(sliders.map((_, k) => (k === t ? -10 : k === other ? 10 : 0)));
    show("steps-change", `The model is sure of ${CLASSES[other]}, but ${CLASSES[t]} is true.`);
  });
  reset();
  return { losses };
})();
