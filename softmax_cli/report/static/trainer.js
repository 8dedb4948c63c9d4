// Training of softmax regression on pixels, with the formulas of softmax_cli/model.py.

// Gradients of each loss by the evidence, for one image, in place of the probabilities y.
const RESIDUALS = {
  ce(y, label) { // y - t
    y[label] -= 1;
  },
  se(y, label) { // 2 y_j (r_j - sum_k r_k y_k) with r = y - t
    let along = -y[label];
    for (let k = 0; k < y.length; k++) along += y[k] * y[k];
    for (let k = 0; k < y.length; k++) y[k] *= 2 * (y[k] - (k === label ? 1 : 0) - along);
  },
};

const zeroModel = (features, classes) =>
  ({ weights: new Float64Array(features * classes), bias: new Float64Array(classes) });

// Images (n * D bytes) and labels, with the positions of the pixels that are not 0.
function imageSet(pixels, labels, features) {
  const inked = labels.map((_, i) =>
    Uint32Array.from({ length: features }, (_, p) => p).filter((p) => pixels[i * features + p]));
  return { pixels, labels, features, inked };
}

// The evidence for image i, into z.
function evidenceInto(z, model, set, i) {
  const { weights, bias } = model, classes = bias.length, start = i * set.features;
  z.set(bias);
  for (const p of set.inked[i]) {
    const x = set.pixels[start + p] / 255;
    for (let k = 0; k < classes; k++) z[k] += x * weights[p * classes + k];
  }
}

// Replace evidence by probabilities; return log sum_j exp(z_j).
function softmaxInPlace(z) {
  let most = -Infinity, sum = 0;
  for (const value of z) most = Math.max(most, value);
  for (let k = 0; k < z.length; k++) sum += z[k] = Math.exp(z[k] - most);
  for (let k = 0; k < z.length; k++) z[k] /= sum;
  return most + Math.log(sum);
}

// One step of gradient descent on the images of `batch`, in place: W -= rate (gradient + l2 W), the bias without l2.
function descend(model, set, batch, loss, rate, l2, gradient) {
  const classes = model.bias.length, y = new Float64Array(classes), residual = RESIDUALS[loss];
  gradient.weights.fill(0);
  gradient.bias.fill(0);
  for (const i of batch) {
    evidenceInto(y, model, set, i);
    softmaxInPlace(y);
    residual(y, set.labels[i]);
    for (let k = 0; k < classes; k++) gradient.bias[k] += y[k] / batch.length;
    for (const p of set.inked[i]) {
      const x = set.pixels[i * set.features + p] / 255 / batch.length;
      for (let k = 0; k < classes; k++) gradient.weights[p * classes + k] += x * y[k];
    }
  }
  const { weights, bias } = model;
  for (let j = 0; j < weights.length; j++) weights[j] -= rate * (gradient.weights[j] + l2 * weights[j]);
  for (let k = 0; k < classes; k++) bias[k] -= rate * gradient.bias[k];
}

// Mean cross-entropy, mean squared error and accuracy on all images of a set.
function assess(model, set) {
  const z = new Float64Array(model.bias.length), n = set.labels.length;
  let ce = 0, se = 0, correct = 0;
  for (let i = 0; i < n; i++) {
    const label = set.labels[i];
    evidenceInto(z, model, set, i);
    const own = z[label], total = softmaxInPlace(z);
    ce += total - own;
    for (let k = 0; k < z.length; k++) se += (z[k] - (k === label ? 1 : 0)) ** 2;
    if (argmax(z) === label) correct += 1;
  }
  return { ce: ce / n, se: se / n, accuracy: correct / n };
}

// The order of the images in an epoch: a shuffle (Fisher and Yates) from a seeded generator (mulberry32).
function shuffled(count, seed, epoch) {
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b)) >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// Two models that see the same batches, one for each loss.
function startTraining(train, classes, seed) {
  const models = { ce: zeroModel(train.features, classes), se: zeroModel(train.features, classes) };
  const gradient = zeroModel(train.features, classes), n = train.labels.length;
  const run = { models, step: 0, epoch: 0, used: n, order: null, last: [], finite: { ce: true, se: true } };
  run.next = ({ rate, size, l2 }) => {
    if (run.used >= n) [run.order, run.used] = [shuffled(n, seed, run.epoch), 0];
    run.last = run.order.slice(run.used, run.used + (size || n));
    run.used += run.last.length;
    run.step += 1;
    if (run.used >= n) run.epoch += 1;
    for (const loss of ["ce", "se"]) {
      if (!run.finite[loss]) continue;
      descend(models[loss], train, run.last, loss, rate, l2, gradient);
      run.finite[loss] = models[loss].bias.every(Number.isFinite);
    }
  };
  return run;
}
