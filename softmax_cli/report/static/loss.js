// The two losses for the evidence of the sliders, their gradients, and the plateau of the squared error.

(() => {
  const body = byId("loss-rows"), target = byId("target");
  const axis = { name: "evidence z of the true class", low: -DATA.span, high: DATA.span, write: (v) => signed(v, 1) };
  const plot = lineChart(byId("plot-push"), "Push of both losses on the evidence of the true class", axis,
    { name: "push", low: 0, high: 1, write: precise });
  let z = [];

  function update() {
    const t = Number(target.value), now = losses(z, t);
    [...body.rows].forEach((row, k) => {
      const values = [precise(now.y[k]), k === t ? "1" : "0", precise(now.ceGradient[k]), precise(now.seGradient[k])];
      values.forEach((text, i) => { row.cells[i + 1].textContent = text; });
      row.classList.toggle("true", k === t);
    });
    show("loss-y", sumOf(now.y).toFixed(4));
    show("loss-ce-sum", sumOf(now.ceGradient).toFixed(4).replace("-0.0000", "0.0000"));
    show("loss-se-sum", sumOf(now.seGradient).toFixed(4).replace("-0.0000", "0.0000"));
    show("loss-ce", now.ce.toFixed(4));
    show("loss-se", now.se.toFixed(4));
    show("loss-verdict", `${CLASSES[t]} has the probability ${precise(now.y[t])}. Cross-entropy pushes its evidence ` +
      `up with ${precise(-now.ceGradient[t])}, squared error with ${precise(-now.seGradient[t])}.`);
    drawPush(t);
  }

  // The push of each loss for all values of the evidence of the true class, the others unchanged.
  function drawPush(t) {
    const at = (value) => losses(z.map((other, k) => (k === t ? value : other)), t), here = at(z[t]);
    const places = Array.from({ length: 81 }, (_, i) => DATA.span * (i / 40 - 1));
    const line = (key) => places.map((value) => [value, -at(value)[key][t]]);
    const dot = (key) => [[clamp(z[t], -DATA.span, DATA.span), -here[key][t]]];
    plot.draw([
      { name: "cross-entropy", kind: "first", points: line("ceGradient") },
      { name: "squared error", kind: "second dashed", points: line("seGradient") },
      { kind: "first", mute: true, radius: 5, points: dot("ceGradient") },
      { kind: "second", mute: true, radius: 5, points: dot("seGradient") },
    ]);
  }

  steps.onChange((values) => {
    z = values;
    update();
  });
  story.onImage(({ label, best, empty, y }) => {
    const wanted = label ?? (empty || !y ? Number(target.value) : best);
    if (wanted < target.options.length) target.value = wanted;
    update();
  });
  target.addEventListener("change", update);
  byId("loss-wrong").addEventListener("click", () => {
    const t = Number(target.value), other = (t + 1) % target.options.length;
    byId("temperature").value = 0;
    steps.set(z.map((_, k) => (k === t ? -10 : k === other ? 10 : 0)),
      () => `The model predicts ${CLASSES[other]}, but ${CLASSES[t]} is true.`);
  });
})();
