// The weights of a class, or without weights of pixels its contributions, laid over the image on the board while
// the class is pointed at or focused.

function layOver(button, k) {
  const on = () => story.hover(k), off = () => story.hover(null);
  for (const name of ["pointerenter", "focus"]) button.addEventListener(name, on);
  for (const name of ["pointerleave", "blur"]) button.addEventListener(name, off);
}

(() => {
  if (!MODEL) return;
  story.onClass(({ seen, terms }, { hovered }) => {
    byId("overlay").hidden = hovered === null;
    if (hovered === null) return;
    drawGrey(byId("over-seen"), seen);
    if (MODEL.hasPixels) drawSigned(byId("over-weights"), MODEL.weightsOf(hovered), largest(MODEL.weights));
    else drawSigned(byId("over-weights"), terms, largest(terms));
  });
  for (const button of document.querySelectorAll("[data-class]")) {
    const k = Number(button.dataset.class);
    layOver(button, k);
    button.addEventListener("click", () => story.choose(k));
  }
})();
