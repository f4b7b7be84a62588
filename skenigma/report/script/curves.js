// A gene over the samples, in one cell type or the bulk.
const CURVE = { width: 300, height: 170, left: 48, right: 6, top: 8, bottom: 22 };

// Samples in the order of their groups, or of the number that is known of them.
function orderOfSamples() {
  const order = [...stored.samples.keys()], classes = stored.groups?.classes, label = (i) => stored.groups.values[i];
  if (classes) order.sort((a, b) => (classes.indexOf(label(a)) + 1 || 99) - (classes.indexOf(label(b)) + 1 || 99));
  else if (stored.groups) order.sort((a, b) => Number(label(a)) - Number(label(b)));
  return order;
}
const groupOf = (i) => stored.groups?.values[i] ?? "";

// Where the axis begins and ends, and whether bands are cut; null where there are no values.
function rangeOf({ numbers, lows, highs }) {
  let low = Infinity, high = -Infinity;
  for (let j = 0; j < numbers.length; j++) {
    for (const v of [numbers[j], lows?.[j], highs?.[j]]) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  }
  if (!Number.isFinite(low)) return null;
  // where bands reach far beyond all estimates, they are cut: the estimates must still be told apart
  const largest = numbers.reduce((most, v) => Math.max(most, v), 0), cut = largest > 0 && high > 4 * largest;
  if (cut) high = 4 * largest;
  if (low > 0 && low < 0.6 * high) low = 0;
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { low -= 0.5 * (Math.abs(low) || 1); high += 0.5 * (Math.abs(high) || 1); }
  return { low, high, cut };
}

// A figure of a curve {name, numbers, lows, highs}; say(text) tells of the sample that is pointed at.
function curveFigure(curve, order, say) {
  const title = el("b", {}, curve.name), range = rangeOf(curve);
  if (!range) return el("figure", {}, el("figcaption", {}, title, " no values"));
  const { width, height, left, right, top, bottom } = CURVE, { low, high, cut } = range, count = order.length;
  const y = (v) => top + (height - top - bottom) * (high - v) / (high - low);
  const x = (j) => left + (width - left - right) * (j + 0.5) / count;
  const grid = ticks(low, high, 4).flatMap((tick, _, all) => [
    svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick end", x: left - 5, y: y(tick) + 4 }, shownTick(tick, all))]);
  const label = svg("text", { class: "tick", x: (left + width) / 2, y: height - 6 }, "samples");
  const guide = svg("line", { class: "guide", x1: -9, x2: -9, y1: top, y2: height - bottom });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${curve.name}: expression over the samples` }, ...grid, ...curveMarks(curve, order, x, y, high), label, guide);
  picture.addEventListener("pointermove", (event) => {
    const j = Math.floor((place(picture, event)[0] - left) / (width - left - right) * count);
    if (j < 0 || j >= count) return;
    guide.setAttribute("x1", x(j));
    guide.setAttribute("x2", x(j));
    say(describeSample(curve, order[j]));
  });
  return el("figure", {}, el("figcaption", {}, title, cut ? " some bands reach further up" : ""), picture);
}

// One path for all bands, and one for the dots of each group, however many samples there are.
function curveMarks({ numbers, lows, highs }, order, x, y, high) {
  const at = (v) => y(v).toFixed(1), bands = [], dots = new Map(), classes = stored.groups?.classes;
  order.forEach((i, j) => {
    if (lows && Number.isFinite(lows[i])) bands.push(`M${x(j).toFixed(1)} ${at(lows[i])}V${at(Math.min(highs[i], high))}`);
    const group = classes ? classes.indexOf(groupOf(i)) : 0;
    if (Number.isFinite(numbers[i])) dots.set(group, (dots.get(group) ?? "") + `M${x(j).toFixed(1)} ${at(numbers[i])}h0`);
  });
  return [svg("path", { class: "band", d: bands.join("") }),
    ...[...dots].map(([group, moves]) => svg("path", { class: `dots ${group < 0 ? "" : `line${stored.groups?.colours?.[group] ?? 0}`}`, d: moves, "stroke-width": order.length > 120 ? 3 : 5 }))];
}

function describeSample({ name, numbers, lows, highs }, i) {
  const interval = lows ? ` (${shown(lows[i])} to ${shown(highs[i])})` : "";
  return `${stored.samples[i]}${groupOf(i) ? `, ${groupOf(i)}` : ""}: ${name} ${shown(numbers[i])}${interval}`;
}
