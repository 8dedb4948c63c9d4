// The image that the page is about, and the class that is looked at. Parts of the page subscribe to changes.

const story = (() => {
  const blank = new Uint8Array(ROWS * COLS);
  const now = {
    picture: blank, // as the data set would have it
    seen: blank, // after the feature stages
    z: null, // evidence, or null if the page cannot compute it
    y: null, // probabilities, or null
    best: 0, // the most probable class
    label: null, // the true class, if it is known
    empty: true,
    shown: 0, // the class whose evidence is shown: hovered or focused, else chosen, else the best
    terms: null, // contributions of the pixels to its evidence, or null
  };
  const onImage = [], onClass = [];
  let chosen = null, hovered = null;

  // Show an image. `known` has { label, image }: its class and its row number in the test images, if any.
  function setImage(picture, empty = false, known = {}) {
    const seen = MODEL ? MODEL.redraw(picture) : picture;
    const z = MODEL ? MODEL.evidence(seen) : empty ? DATA.bias : (DATA.known[known.image] ?? null);
    const y = z && softmax(z);
    Object.assign(now, { picture, seen, z, y, best: y ? argmax(y) : 0, label: known.label ?? null, empty });
    onImage.forEach((call) => call(now));
    update();
  }

  function update() {
    now.shown = hovered ?? chosen ?? (now.empty || !now.y ? 0 : now.best);
    now.terms = MODEL && MODEL.contributions(now.seen, now.shown);
    onClass.forEach((call) => call(now, { chosen, hovered }));
  }

  function choose(k) {
    chosen = chosen === k ? null : k;
    update();
  }

  function hover(k) {
    hovered = k;
    update();
  }

  return { now, setImage, choose, hover, onImage: (call) => onImage.push(call), onClass: (call) => onClass.push(call) };
})();
