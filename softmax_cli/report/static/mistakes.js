// Misclassified images: those behind a number of the confusion matrix, and the most confident ones. Each can be
// put on the board.

(() => {
  const panel = byId("cell"), atlas = new Image();
  if (DATA.atlas) atlas.src = DATA.atlas;

  async function open(button) {
    const key = button.dataset.cell, [actual, guess] = key.split(",").map(Number);
    const shown = DATA.cells[key] || [];
    await atlas.decode();
    const items = shown.map(([at, image, share, trueShare]) => {
      const canvas = element("canvas", { class: "pixels grey", width: COLS, height: ROWS, role: "img",
        "aria-label": `Image ${image}` });
      canvas.getContext("2d").drawImage(atlas, ...placeInAtlas(at), COLS, ROWS, 0, 0, COLS, ROWS);
      const tile = element("button", { type: "button", class: "tile" }, canvas,
        element("span", {}, `${CLASSES[actual]} ${percent(trueShare)}, ${CLASSES[guess]} ${percent(share)}`));
      tile.addEventListener("click", () => board.load(greyOf(canvas), { label: actual, image }));
      return element("li", {}, tile);
    });
    const title = `${CLASSES[actual]} classified as ${CLASSES[guess]}: ${shown.length} of ${button.textContent}`;
    panel.replaceChildren(element("h3", {}, title), element("ul", { class: "tiles" }, ...items));
    panel.hidden = false;
    panel.focus();
  }

  for (const button of document.querySelectorAll("[data-cell]")) {
    const [actual, guess] = button.dataset.cell.split(",").map((k) => CLASSES[k]);
    button.setAttribute("aria-label", `${actual} classified as ${guess}: ${button.textContent}`);
    button.addEventListener("click", () => open(button));
  }

  const tiles = [...document.querySelectorAll("#mistake-tiles .tile")];
  for (const tile of tiles) {
    const known = { label: Number(tile.dataset.label), image: Number(tile.dataset.image) };
    tile.addEventListener("click", () => board.load(greyOf(tile.querySelector("img")), known));
  }
  const more = byId("mistakes-more");
  if (more) {
    more.addEventListener("click", () => {
      const next = tiles.find((tile) => tile.parentElement.hidden);
      tiles.forEach((tile) => { tile.parentElement.hidden = false; });
      more.hidden = true;
      next.focus();
    });
  }
})();
