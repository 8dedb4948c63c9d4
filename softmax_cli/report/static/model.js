// The model of the page: from a picture to the image that it sees, to features, to evidence, and back to pixels.

const STAGES = {
  deskew: [{ redraw: deskew }],
  normalize: [{ redraw: normalize }],
  gradients: [edges, contrast],
  pca: [pca],
  fourier: [fourier],
};

const MODEL = DATA.model && modelOf(DATA.model, DATA.bias);

function modelOf(data, bias) {
  const arraysOf = (arrays) => Object.fromEntries(Object.entries(arrays).map(([key, one]) => [key, numbersOf(one)]));
  const steps = data.stages.flatMap(({ name, arrays }) => {
    const own = arraysOf(arrays);
    return STAGES[name].map((step) => ({ ...step, arrays: own }));
  });
  const redrawing = steps.filter((step) => step.redraw), computing = steps.filter((step) => step.forward);
  const homogeneous = computing.filter((step) => step.isHomogeneous); // they come first
  const others = computing.slice(homogeneous.length);
  const weights = numbersOf(data.weights); // (features, classes), row by row
  const weightsOf = (k) => weights.filter((_, j) => j % CLASSES.length === k);
  const intensities = (image) => Float64Array.from(image, (value) => value / 255);
  const forward = (x, step) => step.forward(x, step.arrays);

  // The image after the stages that redraw it.
  const redraw = (image) => redrawing.reduce((drawn, step) => step.redraw(drawn, step.arrays), image);

  // The features of a redrawn image: without other stages, its intensities.
  const featuresOf = (image) => computing.reduce(forward, intensities(image));

  // The evidence of a redrawn image for every class: the contributions of all features and the bias.
  const evidence = (image) => Array.from(times(featuresOf(image), weights), (sum, k) => sum + bias[k]);

  // The gradient by x of what some steps compute, given that by their outputs.
  function gradientBy(x, steps, gradient) {
    const inputs = [x];
    for (const step of steps.slice(0, -1)) inputs.push(forward(inputs.at(-1), step));
    return steps.reduceRight((by, step, i) => step.backward(inputs[i], by, step.arrays), gradient);
  }

  // The contributions of the pixels to the evidence for class k, which add up to its change from a blank image:
  // integrated gradients, as in softmax_cli/explanation.py. Pixels as features contribute intensity times weight.
  // The gradient of homogeneous steps is the same along the whole path, so that it is computed once.
  function contributions(image, k) {
    const x = intensities(image), own = weightsOf(k);
    const end = homogeneous.reduce(forward, x), mean = new Float64Array(end.length);
    for (const [tau, share] of data.path) {
      const gradient = gradientBy(end.map((value) => tau * tau * value), others, own);
      gradient.forEach((value, i) => { mean[i] += share * tau * value; });
    }
    return gradientBy(x, homogeneous, mean).map((value, p) => value * x[p]);
  }

  const hasPixels = !computing.length; // the features are pixels, whose weights are pictures
  const blank = evidence(new Uint8Array(ROWS * COLS));
  return { redraw, featuresOf, evidence, contributions, weights, weightsOf, hasPixels, blank, gain: data.gain };
}
