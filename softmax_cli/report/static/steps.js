// Softmax, step by step: sliders for the evidence, its exponentials, and the probabilities.

const steps = (() => {
  const body = byId("steps-rows"), sliders = [...body.querySelectorAll("input")], count = sliders.length;
  const onChange = [];
  let z = new Array(count).fill(0), y = softmax(z);
  const large = (value) =>
    (value >= 5e-4 && value < 1000 ? value.toFixed(3) : value.toExponential(1).replace("e+", "e"));
  const temperature = () => 10 ** Number(byId("temperature").value);
  const segments = z.map((_, k) => element("span", { class: "segment" }, count <= 12 ? CLASSES[k].slice(0, 3) : ""));
  byId("whole").append(...segments);

  // Take new evidence. `describe` returns what changed, given the probabilities before.
  function set(newZ, describe = () => "") {
    const before = y, t = temperature();
    z = newZ;
    y = softmax(z.map((value) => value / t));
    const e = z.map((value) => Math.exp(value / t));
    [...body.rows].forEach((row, k) => {
      const cells = row.cells;
      sliders[k].value = z[k];
      cells[2].textContent = signed(z[k], 1);
      cells[3].textContent = large(e[k]);
      cells[4].querySelector(".bar").style.width = `${100 * y[k]}%`;
      cells[4].querySelector(".number").textContent = precise(y[k]);
      segments[k].style.width = `${100 * y[k]}%`;
      segments[k].classList.toggle("best", k === argmax(y));
    });
    show("steps-sum", large(sumOf(e)));
    show("steps-total", sumOf(y).toFixed(4));
    showOf(byId("temperature"), t.toFixed(2));
    const text = describe(before);
    if (text) show("steps-change", text);
    onChange.forEach((call) => call(z.map((value) => value / t)));
  }

  sliders.forEach((slider, k) => slider.addEventListener("input", () => {
    set(z.map((value, j) => (j === k ? Number(slider.value) : value)), (before) => {
      const gained = y[k] - before[k];
      return `${CLASSES[k]} ${signed(gained, 4)}, all others together ${signed(-gained, 4)}.`;
    });
  }));
  const shift = (by) => () => set(z.map((value) => value + by), (before) => {
    const most = Math.max(...y.map((value, k) => Math.abs(value - before[k])));
    return `All evidence changed by ${signed(by, 0)}. The largest change of a probability is ` +
      `${most < 1e-12 ? "0" : most.toExponential(0)}: a constant changes nothing.`;
  });
  byId("steps-more").addEventListener("click", shift(1));
  byId("steps-less").addEventListener("click", shift(-1));
  byId("steps-zero").addEventListener("click", () =>
    set(z.map(() => 0), () => `Every class has the probability 1/${count}: the model is undecided.`));
  byId("steps-reset").addEventListener("click", () => {
    byId("temperature").value = 0;
    follow(story.now);
  });
  byId("temperature").addEventListener("input", () => set(z, () =>
    `At T = ${temperature().toFixed(2)} the largest probability is ${precise(Math.max(...y))}.`));

  // The evidence of the image on the board, or 0 without one.
  function follow(now) {
    const known = !now.empty && now.z;
    set(known ? now.z.slice(0, count) : new Array(count).fill(0), () =>
      (known ? "These are the probabilities of the image on the board. Move a slider."
        : now.empty ? "The board is empty: all evidence is 0. Move a slider."
          : "The page has no evidence for this image: all evidence is 0."));
  }
  story.onImage(follow);

  return { set, values: () => [...z], onChange: (call) => onChange.push(call) };
})();
