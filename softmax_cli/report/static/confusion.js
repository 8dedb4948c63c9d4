// The confusion matrix: a number opens the mistakes behind it.

(() => {
  const panel = document.getElementById("cell");
  const atlas = new Image();
  if (DATA.atlas) atlas.src = DATA.atlas;

  async function open(button) {
    const key = button.dataset.cell, [true_, guess] = key.split(",").map(Number);
    const shown = DATA.cells[key] || [];
    await atlas.decode();
    const place = (at) => [(at % DATA.atlasColumns) * COLS, Math.floor(at / DATA.atlasColumns) * ROWS];
    const items = shown.map(([at, index, share, trueShare]) => {
      const canvas = element("canvas", { class: "pixels dark", width: COLS, height: ROWS, role: "img",
        "aria-label": `Image ${index}` });
      canvas.getContext("2d").drawImage(atlas, ...place(at), COLS, ROWS, 0, 0, COLS, ROWS);
      const text = `${CLASSES[true_]} ${percent(trueShare)}, ${CLASSES[guess]} ${percent(share)}`;
      return element("li", {}, element("figure", {}, canvas, element("figcaption", {}, text)));
    });
    const title = `${CLASSES[true_]} taken for ${CLASSES[guess]}: ${shown.length} of ${button.textContent}`;
    panel.replaceChildren(element("h3", {}, title), element("ul", { class: "pictures" }, ...items));
    panel.hidden = false;
    panel.focus();
  }

  for (const button of document.querySelectorAll("[data-cell]")) {
    const [actual, guess] = button.dataset.cell.split(",").map((k) => CLASSES[k]);
    button.setAttribute("aria-label", `${actual} taken for ${guess}: ${button.textContent}`);
    button.addEventListener("click", () => open(button));
  }
})();
