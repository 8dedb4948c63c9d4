// The weights of a class, laid over the image on the board while the class is pointed at or focused.

function weightsOf(k) {
  return Float64Array.from({ length: ROWS * COLS }, (_, p) => WEIGHTS[p * CLASSES.length + k]);
}

function layOver(button, k) {
  const on = () => story.hover(k), off = () => story.hover(null);
  for (const name of ["pointerenter", "focus"]) button.addEventListener(name, on);
  for (const name of ["pointerleave", "blur"]) button.addEventListener(name, off);
}

(() => {
  if (!WEIGHTS) return;
  const most = WEIGHTS.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  story.onClass(({ seen }, { hovered }) => {
    byId("overlay").hidden = hovered === null;
    if (hovered === null) return;
    drawGrey(byId("over-seen"), seen);
    drawSigned(byId("over-weights"), weightsOf(hovered), most);
  });
  for (const button of document.querySelectorAll("[data-class]")) {
    const k = Number(button.dataset.class);
    layOver(button, k);
    button.addEventListener("click", () => story.choose(k));
  }
})();
