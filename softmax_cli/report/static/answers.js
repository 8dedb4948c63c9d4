// The probabilities beside the board, and what follows the board down the page.

(() => {
  const rows = CLASSES.map((name, k) => {
    const part = (className) => element("span", { class: className });
    const row = element("button", { type: "button", class: "answer", "aria-pressed": "false" },
      element("span", { class: "name" }, name),
      element("span", { class: "track", "aria-hidden": "true" }, part("bar")), part("number"));
    row.addEventListener("click", () => story.choose(k));
    layOver(row, k);
    return row;
  });
  byId("answers").append(...rows);
  byId("answers").classList.toggle("single", CLASSES.some((name) => name.length > 3)); // one column on phones

  story.onImage(({ z, y, best, empty, seen, label }) => {
    rows.forEach((row, k) => {
      const [, track, share] = row.children;
      track.firstChild.style.width = `${100 * (y ? y[k] : 0)}%`;
      share.textContent = y ? percent(y[k]) : "–";
      row.dataset.evidence = z ? z[k] : "";
      row.dataset.probability = y ? y[k] : "";
      row.classList.toggle("best", !empty && y && k === best);
    });
    const truth = label === null ? "" : `; the true class is ${CLASSES[label]}`;
    const text = empty ? (MODEL && MODEL.hasPixels ? "The board is empty: biases alone" : "The board is empty.")
      : y ? `${CLASSES[best]}, probability ${percent(y[best])}${truth}` : "The page has no evidence for this image.";
    show("answer", text);
    show("strip-text", text);
    drawGrey(byId("strip-seen"), seen);
  });
  story.onClass((_, { chosen }) => rows.forEach((row, k) => row.setAttribute("aria-pressed", String(k === chosen))));
})();
