// Line charts in SVG. A cursor follows the pointer or the arrow keys, and its values are shown as text.

// Round numbers that cover low to high, about `count` of them.
function ticksOf(low, high, count = 5) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

const tickText = (value) => Number(value.toPrecision(6)).toLocaleString("en-US").replace("-", "−");

// A chart in the element `host`. x and y are { name, low, high, text }: name of the axis, its ends (by default,
// those of the data), and a function that writes a value. The result has draw(series, extra); a series is
// { name, kind, points: [[x, y, note], ...], radius, mute }, with `kind` one of the classes in report.css, and
// extra is { x, y, still }: ends that change, and whether the cursor is left where it is.
function lineChart(host, label, xAxis, yAxis) {
  const svg = shape("svg", { class: "chart", tabindex: 0, role: "slider", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 0, "aria-valuetext": "no values yet" });
  const keys = element("p", { class: "legend" }), readout = element("p", { class: "values" });
  host.append(keys, svg, readout);
  const height = 240, left = 46, right = 12, top = 10, bottom = 40;
  let series = [], extra = {}, width = 420, at = null, places = [], scale = null;

  function ends(axis, index) {
    const values = series.flatMap((one) => one.points.map((point) => point[index])).filter(Number.isFinite);
    const low = axis.low ?? Math.min(...values, 0), high = axis.high ?? Math.max(...values, low);
    return high > low ? [low, high] : [low, low + 1];
  }

  function draw(newSeries = series, newExtra = extra) {
    [series, extra] = [newSeries, newExtra];
    width = Math.max(240, host.clientWidth || 420);
    const [x0, x1] = ends({ ...xAxis, ...extra.x }, 0), [y0, y1] = ends({ ...yAxis, ...extra.y }, 1);
    const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
    const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
    scale = { x, y, x0, x1 };
    places = [...new Set(series.filter((one) => !one.mute).flatMap((one) => one.points.map(([px]) => px)))]
      .sort((a, b) => a - b);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [];
    for (const tick of ticksOf(y0, y1)) {
      parts.push(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      parts.push(shape("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, (yAxis.text || tickText)(tick)));
    }
    for (const tick of ticksOf(x0, x1, width < 320 ? 3 : 5)) {
      parts.push(shape("text", { x: x(tick), y: height - bottom + 16, "text-anchor": "middle" },
        (xAxis.text || tickText)(tick)));
    }
    parts.push(shape("text", { class: "axis", x: width - right, y: height - 6, "text-anchor": "end" }, xAxis.name));
    for (const one of series) parts.push(...lineOf(one, x, y));
    parts.push(shape("g", { class: "cursor" }));
    svg.replaceChildren(...parts);
    const named = series.filter((one) => one.name);
    const listed = named.map((one) => `${one.kind} ${one.name}`).join();
    if (keys.dataset.listed !== listed) {
      keys.dataset.listed = listed;
      keys.replaceChildren(...named.map((one) =>
        element("span", { class: "key" }, shape("svg", { class: "swatch", viewBox: "0 0 22 8", "aria-hidden": "true" },
          shape("path", { class: `line ${one.kind}`, d: "M1 4H21" })), one.name)));
    }
    if (!extra.still) at = null;
    point(at === null ? places.length - 1 : Math.min(at, places.length - 1), at !== null);
  }

  function lineOf(one, x, y) {
    const inside = (value) => clamp(value, top - 20, height - bottom + 20); // values beyond the ends
    let open = false;
    const path = one.points.map(([px, py]) => {
      if (!Number.isFinite(py)) return (open = false) || "";
      const move = open ? "L" : "M";
      open = true;
      return `${move}${x(px).toFixed(1)} ${inside(y(py)).toFixed(1)}`;
    }).join("");
    const parts = one.radius && !one.line ? [] : [shape("path", { class: `line ${one.kind}`, d: path })];
    if (one.radius) {
      for (const place of one.points) {
        const r = typeof one.radius === "function" ? one.radius(place) : one.radius;
        parts.push(shape("circle", { class: `dot ${one.kind}`, cx: x(place[0]), cy: y(place[1]), r }));
      }
    }
    return parts;
  }

  // Put the cursor on the place with that index and write what is there.
  function point(index, visible = true) {
    const cursor = svg.querySelector(".cursor");
    if (!places.length || !cursor) return;
    const place = places[clamp(index, 0, places.length - 1)];
    const found = series.filter((one) => !one.mute).map((one) => [one, one.points.find(([px]) => px === place)])
      .filter(([, one]) => one);
    const write = (axis, value) => (Number.isFinite(value) ? (axis.write || axis.text || tickText)(value) : "not finite");
    const text = `${xAxis.name} ${write(xAxis, place)}: ` + found.map(([one, [, py, note]]) =>
      `${one.name ? `${one.name} ` : ""}${write(yAxis, py)}${note ? ` ${note}` : ""}`).join(", ");
    if (visible) {
      cursor.replaceChildren(
        shape("line", { x1: scale.x(place), x2: scale.x(place), y1: top, y2: height - bottom }),
        ...found.filter(([, [, py]]) => Number.isFinite(py)).map(([one, [px, py]]) =>
          shape("circle", { class: `dot ${one.kind}`, cx: scale.x(px), cy: scale.y(py), r: 4 })));
    }
    readout.textContent = text;
    for (const [key, value] of [["valuemax", places.length - 1], ["valuenow", clamp(index, 0, places.length - 1)],
      ["valuetext", text]]) svg.setAttribute(`aria-${key}`, value);
  }

  const go = (index) => {
    at = clamp(index, 0, places.length - 1);
    point(at);
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) * width) / box.width;
    go(places.reduce((best, place, i) =>
      (Math.abs(scale.x(place) - px) < Math.abs(scale.x(places[best]) - px) ? i : best), 0));
  });
  svg.addEventListener("pointerleave", () => {
    at = null;
    draw();
  });
  const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10,
    Home: -Infinity, End: Infinity };
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    go((at ?? places.length - 1) + moves[event.key]);
  });
  new ResizeObserver(() => {
    if (host.clientWidth && Math.abs(host.clientWidth - width) > 1) draw(series, { ...extra, still: true });
  }).observe(host);
  return { draw };
}
