// Watch it learn: the controls, the curves, and the weights as they grow.

const SLICE = 12; // milliseconds of work between two frames
const KEPT = 400; // points of a curve; beyond, every other one is dropped

// Steps from one measurement to the next: the curves change most at the start, and measuring costs several steps.
const interval = (step) => (step < 10 ? 1 : step < 100 ? 2 : 5);

const watch = (() => {
  if (!DATA.lesson) return null;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const labels = ["train", "test"], field = (name) => byId(`watch-${name}`);
  const features = ROWS * COLS, sets = {};
  const whole = (value) => String(Math.round(value));
  const share = (value) => `${Math.round(100 * value)} %`;
  const x = { name: "step", low: 0, text: (value) => (Number.isInteger(value) ? whole(value) : "") };
  const plots = {
    ce: lineChart(byId("plot-watch-loss"), "Cross-entropy of both models by step", x,
      { name: "cross-entropy", low: 0, write: (value) => value.toFixed(3) }),
    accuracy: lineChart(byId("plot-watch-accuracy"), "Accuracy of both models by step", x,
      { name: "accuracy", low: 0, high: 1, text: share, write: (value) => percent(value) }),
  };
  let run = null, curve = [], playing = false, painted = 0, due = 0, job = 0;

  const options = () => ({
    rate: 10 ** Number(field("rate").value),
    size: Number(field("batch").value),
    l2: Number(field("l2").value),
  });

  const cards = CLASSES.map((name) => {
    const canvas = element("canvas", { class: "pixels signed", width: COLS, height: ROWS, "aria-hidden": "true" });
    const bar = element("span", { class: "bar" }), number = element("span", { class: "number" });
    field("classes").append(element("li", {}, canvas, element("div", { class: "live-row" },
      element("strong", {}, name), number), element("span", { class: "track", "aria-hidden": "true" }, bar)));
    return { canvas, bar, number };
  });

  function reset() {
    playing = false;
    job += 1;
    run = startTraining(sets.train, CLASSES.length, Number(field("seed").value) || 0);
    curve = [];
    measure();
    paint();
  }

  // Add the losses and accuracies of this step to the curves.
  function measure() {
    const point = { step: run.step };
    for (const loss of ["ce", "se"]) {
      for (const name of labels) point[`${loss} ${name}`] = assess(run.models[loss], sets[name]);
    }
    curve.push(point);
    if (curve.length > KEPT) curve = curve.filter((_, i) => i % 2 === 0);
  }

  function advance() {
    run.next(options());
    if (run.step % interval(run.step) === 0) measure();
  }

  function paint() {
    painted = performance.now();
    if (!playing && curve.at(-1).step !== run.step) measure();
    const series = (key) => [["ce", "first", "cross-entropy"], ["se", "second", "squared error"]].flatMap(
      ([loss, kind, name]) => labels.map((part) => ({ name: `${name}, ${part}`, kind: part === "test" ? kind : `${kind} dashed`,
        points: curve.map((point) => [point.step, point[`${loss} ${part}`][key]]) })));
    const finite = curve.flatMap((point) => labels.map((part) => point[`ce ${part}`].ce)).filter(Number.isFinite);
    plots.ce.draw(series("ce"), { y: { high: Math.max(LN_CLASSES, ...finite) * 1.05 } });
    plots.accuracy.draw(series("accuracy"));
    const now = curve.at(-1);
    for (const loss of ["ce", "se"]) {
      const train = now[`${loss} train`], test = now[`${loss} test`], decimals = (value) =>
        (Number.isFinite(value) ? value.toFixed(3) : "–");
      [decimals(train.ce), decimals(test.ce), decimals(test.se), percent(train.accuracy), percent(test.accuracy)]
        .forEach((text, i) => { field(loss).cells[i + 1].textContent = text; });
    }
    field("count").textContent = `step ${run.step} · epoch ${run.epoch}`;
    field("play").textContent = playing ? "Pause" : "Play";
    paintModel();
  }

  function paintModel() {
    const model = run.models[field("shown").value], classes = CLASSES.length;
    const most = model.weights.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    const y = softmax(Array.from(evidenceOf(model)));
    cards.forEach(({ canvas, bar, number }, k) => {
      const own = Float64Array.from({ length: features }, (_, p) => model.weights[p * classes + k]);
      drawSigned(canvas, own, most, 0.7);
      bar.style.width = `${100 * (y[k] || 0)}%`;
      number.textContent = percent(y[k]);
      number.dataset.probability = y[k];
    });
  }

  // The evidence of the image on the board for a model of this section.
  function evidenceOf(model) {
    const z = new Float64Array(CLASSES.length);
    evidenceInto(z, model, imageSet(story.now.picture, [0], features), 0);
    return z;
  }

  function verdict() {
    const at = curve.at(-1), best = at["ce test"].accuracy;
    if (!run.step) return "All weights are 0: every class has the same probability.";
    const broken = ["ce", "se"].filter((loss) => !run.finite[loss]);
    if (broken.length) return "The weights are not finite any more: training diverged. Reset, and lower the learning rate.";
    const high = at["ce train"].ce > LN_CLASSES ? " The loss is above that of zero weights: the learning rate is too large." : "";
    return `After ${run.step} steps, cross-entropy gives ${percent(best)} on the test images, ` +
      `squared error ${percent(at["se test"].accuracy)}.${high}`;
  }

  function stop() {
    playing = false;
    paint();
    show("watch-verdict", verdict());
  }

  // Work in slices, so that the page stays responsive.
  function frame(time) {
    if (!playing) return;
    const pace = Number(field("speed").value), until = performance.now() + SLICE;
    if (!pace) {
      do advance(); while (performance.now() < until);
    } else if (time >= due) {
      due = Math.max(due + 1000 / pace, time - 100);
      advance();
    }
    if (!run.finite.ce && !run.finite.se) return stop();
    if (performance.now() - painted > (still.matches ? 500 : 60)) paint();
    requestAnimationFrame(frame);
  }

  // Take steps in slices until `done`, and then stop.
  function until(done) {
    const own = ++job;
    playing = false;
    const work = () => {
      if (job !== own) return; // another button was pressed
      const end = performance.now() + SLICE;
      do advance(); while (!done() && performance.now() < end);
      if (done()) return stop();
      paint();
      setTimeout(work);
    };
    work();
  }

  field("play").addEventListener("click", () => {
    if (playing) return stop();
    playing = true;
    job += 1;
    due = 0;
    field("play").textContent = "Pause";
    show("watch-verdict", "Training.");
    requestAnimationFrame(frame);
  });
  field("step").addEventListener("click", () => until(() => true));
  field("epoch").addEventListener("click", () => {
    const epoch = run.epoch;
    until(() => run.epoch > epoch);
  });
  field("reset").addEventListener("click", () => {
    reset();
    show("watch-verdict", verdict());
  });
  field("seed").addEventListener("change", () => {
    reset();
    show("watch-verdict", verdict());
  });
  field("rate").addEventListener("input", showRate);
  field("shown").addEventListener("change", paintModel);
  story.onImage(() => run && paintModel());

  function showRate() {
    showOf(field("rate"), Number(options().rate.toPrecision(2)).toString());
  }

  async function load() {
    for (const name of labels) {
      const picture = byId(`lesson-${name}`);
      await picture.decode();
      sets[name] = imageSet(imagesOf(picture, DATA.lesson[name].length), DATA.lesson[name], features);
    }
    reset();
  }

  showRate();
  return { ready: load(), get run() { return run; }, advance, paint, options };
})();
