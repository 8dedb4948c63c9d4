// Charts of the scores of the model: losses and accuracy by epoch, accuracy by confidence.

(() => {
  const fixed = (value) => value.toFixed(4), whole = (value) => String(Math.round(value));
  const share = { text: (value) => `${Math.round(100 * value)} %`, write: (value) => percent(value) };
  const epochs = { name: "epoch", text: (value) => (Number.isInteger(value) ? whole(value) : "") };
  const known = (points) => points.filter(([, value]) => value !== null);
  if (DATA.history.length) {
    const radius = DATA.history.length < 30 ? 2.5 : 0;
    const losses = lineChart(byId("plot-loss"), "Loss by epoch", { ...epochs, low: DATA.history[0][0] },
      { name: "loss", write: fixed });
    losses.draw([
      { name: "training", kind: "first", line: true, radius, points: DATA.history.map(([at, loss]) => [at, loss]) },
      { name: "validation", kind: "first dashed", line: true, radius,
        points: known(DATA.history.map(([at, , loss]) => [at, loss])) },
    ].filter((one) => one.points.length));
    const accuracy = known(DATA.validationAccuracy);
    if (byId("plot-accuracy")) {
      const low = Math.floor(20 * Math.min(...accuracy.map(([, value]) => value)) - 0.2) / 20;
      lineChart(byId("plot-accuracy"), "Validation accuracy by epoch", { ...epochs, low: DATA.history[0][0] },
        { name: "accuracy", ...share, low: Math.max(0, low), write: (value) => percent(value, 2) })
        .draw([{ name: "validation", kind: "first dashed", line: true, radius, points: accuracy }]);
    }
  }
  const largest = Math.max(...DATA.bins.map(([, , images]) => images));
  lineChart(byId("plot-reliability"), "Accuracy by confidence", { name: "confidence", low: 0, high: 1, ...share },
    { name: "accuracy", low: 0, high: 1, ...share }).draw([
    { name: "perfect calibration", kind: "second dashed", mute: true, points: [[0, 0], [1, 1]] },
    { name: "accuracy", kind: "first", line: true, radius: ([, , , images]) => 2 + 8 * Math.sqrt(images / largest),
      points: DATA.bins.map(([, , images, confidence, correct]) =>
        [confidence, correct, `of ${images.toLocaleString("en-US")} images`, images]) },
  ]);
})();
