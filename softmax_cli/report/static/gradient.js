// One step of gradient descent on the image of the board alone.

(() => {
  if (!MODEL) return;
  const rate = byId("gradient-rate"), target = byId("target"), own = byId("gradient-target"), body = byId("gradient-rows");
  for (const name of CLASSES) {
    body.append(element("tr", {}, element("th", { scope: "row" }, name), ...[1, 2, 3].map(() => element("td"))));
  }

  function update() {
    const { seen, y, z, empty, shown } = story.now, t = Number(own.value), eta = 10 ** Number(rate.value);
    const error = y.map((value, k) => value - (k === t ? 1 : 0));
    // The step changes the evidence by -eta * error * (gain * |features|^2 + 1): weights and bias.
    const features = MODEL.featuresOf(seen), factor = MODEL.gain * dot(features, features) + 1;
    const after = softmax(z.map((value, k) => value - eta * error[k] * factor));
    showOf(rate, eta < 0.1 ? eta.toFixed(4) : eta.toFixed(2));
    [...body.rows].forEach((row, k) => {
      [signed(error[k], 4), percent(y[k]), percent(after[k])].forEach((text, i) => { row.cells[i + 1].textContent = text; });
      row.classList.toggle("true", k === t);
    });
    if (MODEL.hasPixels) {
      drawSigned(byId("gradient-picture"), features.map((value) => -error[shown] * value), largest(error));
      show("gradient-text", `What the step adds to the weights of ${CLASSES[shown]}: η times the image times ` +
        `${signed(-error[shown], 4)}. Full colour is the largest error of all classes.`);
    }
    show("gradient-verdict", empty ? "The board is empty: only the biases change."
      : `One step with η = ${byId("gradient-rate-text").textContent} changes the probability of ${CLASSES[t]}, ` +
        `the true class, from ${percent(y[t])} to ${percent(after[t])}.`);
  }

  story.onImage(({ label, best, empty }) => {
    own.value = label ?? (empty ? own.value : best);
  });
  story.onClass(update);
  target.addEventListener("change", () => {
    own.value = target.value;
    update();
  });
  own.addEventListener("change", () => { // the section on the loss has fewer classes if there are many
    if (Number(own.value) >= target.options.length) return update();
    target.value = own.value;
    target.dispatchEvent(new Event("change"));
  });
  rate.addEventListener("input", update);
})();
