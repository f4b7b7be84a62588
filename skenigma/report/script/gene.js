// The expression of a gene.
// One gene over the samples.
function geneViewer(state) {
  const { genes, expression } = state, root = byId("gene");
  if (!root || !expression) return () => {};
  root.hidden = false;
  const n = genes.length, samples = stored.samples.length, { curves } = expression;
  const row = new Map();
  curves.genes.forEach((gene, number) => row.set(gene, number));
  const input = el("input", { type: "search", autocomplete: "off", spellcheck: "false", list: null });
  const choices = el("div", { class: "choices", role: "group", "aria-label": "Genes that match" });
  const heading = el("h3", { tabindex: "-1", id: "gene-name" }), panels = el("div", { class: "panels" });
  const line = el("p", { class: "plotline", role: "status" }), values = el("button", { type: "button" }, "Download its values as CSV");
  const place2 = el("div", {});
  root.append(el("div", { class: "tools" }, el("label", {}, "Search a gene", input), values), choices, heading, panels, line, place2);
  const order = [...stored.samples.keys()];
  const classes = stored.groups?.classes, label = (i) => stored.groups?.values[i] ?? "";
  if (classes) order.sort((a, b) => (classes.indexOf(label(a)) + 1 || 99) - (classes.indexOf(label(b)) + 1 || 99));
  else if (stored.groups) order.sort((a, b) => Number(label(a)) - Number(label(b)));

  function offer() {
    const needle = input.value.trim().toLowerCase();
    const found = [];
    if (needle) {
      const exact = genes.findIndex((name) => name.toLowerCase() === needle);
      if (exact >= 0) found.push(exact);
      for (let g = 0; g < n && found.length < 12; g++) if (g !== exact && genes[g].toLowerCase().includes(needle)) found.push(g);
    }
    choices.replaceChildren(...(needle && !found.length ? [el("span", {}, "No gene matches.")] : found.map((g) => el("button", { type: "button", onclick: () => show(g) }, genes[g]))));
    return found;
  }
  input.addEventListener("input", offer);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const found = offer();
    if (found.length) show(found[0]);
  });

  function panel(name, numbers, lows, highs) {
    const width = 300, height = 170, left = 48, bottom = 22, top = 8;
    let low = Infinity, high = -Infinity;
    for (let j = 0; j < samples; j++) {
      for (const v of [numbers[j], lows?.[j], highs?.[j]]) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
    }
    if (!Number.isFinite(low)) return el("figure", {}, el("figcaption", {}, el("b", {}, name), " no values"));
    // where bands reach far beyond all estimates, they are cut: the estimates must still be told apart
    const largest = numbers.reduce((most, v) => Math.max(most, v), 0), cut = largest > 0 && high > 4 * largest;
    if (cut) high = 4 * largest;
    if (low > 0 && low < 0.6 * high) low = 0;
    if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { low -= 0.5 * (Math.abs(low) || 1); high += 0.5 * (Math.abs(high) || 1); }
    const y = (v) => top + (height - top - bottom) * (high - v) / (high - low);
    const x = (j) => left + (width - left - 6) * (j + 0.5) / samples;
    const parts = ticks(low, high, 4).flatMap((tick, _, all) => [
      svg("line", { class: "grid", x1: left, x2: width - 6, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick end", x: left - 5, y: y(tick) + 4 }, shownTick(tick, all))]);
    // one path for all bands, and one for the dots of each group, however many samples there are
    const at = (v) => y(v).toFixed(1), bands = [], dots = new Map();
    order.forEach((i, j) => {
      if (lows && Number.isFinite(lows[i])) bands.push(`M${x(j).toFixed(1)} ${at(lows[i])}V${at(Math.min(highs[i], high))}`);
      const group = classes ? classes.indexOf(label(i)) : 0;
      if (Number.isFinite(numbers[i])) dots.set(group, (dots.get(group) ?? "") + `M${x(j).toFixed(1)} ${at(numbers[i])}h0`);
    });
    parts.push(svg("path", { class: "band", d: bands.join("") }));
    for (const [group, moves] of dots) parts.push(svg("path", { class: `dots ${group < 0 ? "" : `line${stored.groups?.colours?.[group] ?? 0}`}`, d: moves, "stroke-width": samples > 120 ? 3 : 5 }));
    parts.push(svg("text", { class: "tick", x: (left + width) / 2, y: height - 6 }, "samples"));
    const guide = svg("line", { class: "guide", x1: -9, x2: -9, y1: top, y2: height - bottom });
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: expression over the samples` }, ...parts, guide);
    picture.addEventListener("pointermove", (event) => {
      const j = Math.floor((place(picture, event)[0] - left) / (width - left - 6) * samples);
      if (j < 0 || j >= samples) return;
      const i = order[j];
      guide.setAttribute("x1", x(j));
      guide.setAttribute("x2", x(j));
      const interval = lows ? ` (${shown(lows[i])} to ${shown(highs[i])})` : "";
      line.textContent = `${stored.samples[i]}${label(i) ? `, ${label(i)}` : ""}: ${name} ${shown(numbers[i])}${interval}`;
    });
    return el("figure", {}, el("figcaption", {}, el("b", {}, name), cut ? " some bands reach further up" : ""), picture);
  }

  const kinds = expression.types.map((t) => stored.types[t]);
  let current = -1;
  const summary = new Table(place2, [
    { label: "cell type", value: (t) => stored.types[t], text: (t) => stored.types[t] },
    { label: "mean", value: (t) => expression.mean[t * n + current], text: (t) => shown(expression.mean[t * n + current]), downFirst: true },
    ...[["reference", "reference", shown], ["share of the bulk", "share", shownShare], ["reliability", "reliability", shownReliability]]
      .filter(([, name]) => expression[name])
      .map(([text, name, say]) => ({ label: text, value: (t) => expression[name][t * n + current], text: (t) => say(expression[name][t * n + current]), downFirst: true })),
    ...(state.test?.effect ? [{ label: state.test.effectName, value: (t) => state.test.effect[t * n + current], text: (t) => shown(state.test.effect[t * n + current]) }] : []),
    ...(state.test ? [{ label: "q", value: (t) => state.test.q[t * n + current], text: (t) => shownP(state.test.q[t * n + current]) }] : []),
  ], { caption: "The gene by cell type", searchLabel: "Search cell type", size: 40 });
  function show(gene, jump = false) {
    current = gene;
    heading.textContent = genes[gene];
    choices.replaceChildren();
    line.textContent = "";
    const number = row.get(gene);
    values.disabled = number === undefined;
    if (number === undefined) {
      panels.replaceChildren(el("p", { class: "note" }, "The values for every sample of this gene are not in this page: the files of the run hold them."));
    } else {
      line.textContent = "Point at a dot to see its sample.";
      const slice = (array, k) => array?.subarray((number * kinds.length + k) * samples, (number * kinds.length + k + 1) * samples);
      const made = kinds.map((kind, k) => panel(kind, slice(curves.values, k), slice(curves.low, k), slice(curves.high, k)));
      if (curves.bulk) made.push(panel("bulk, as measured", curves.bulk.subarray(number * samples, (number + 1) * samples)));
      panels.replaceChildren(...made);
      values.onclick = () => {
        const head = ["sample", ...(stored.groups ? [stored.groups.name] : []), ...kinds.flatMap((kind) => [kind, ...(curves.low ? [`${kind} low`, `${kind} high`] : [])]), ...(curves.bulk ? ["bulk"] : [])];
        download(`${fileName(genes[gene])}.csv`, head, order.map((i) => [stored.samples[i], ...(stored.groups ? [label(i)] : []),
          ...kinds.flatMap((_, k) => [slice(curves.values, k)[i], ...(curves.low ? [slice(curves.low, k)[i], slice(curves.high, k)[i]] : [])]),
          ...(curves.bulk ? [curves.bulk[number * samples + i]] : [])]));
      };
    }
    summary.set([...expression.types], `${fileName(genes[gene])}_by_cell_type.csv`);
    if (jump) { heading.scrollIntoView({ block: "start" }); heading.focus({ preventScroll: true }); }
  }
  if (classes) root.insertBefore(el("ul", { class: "legend" }, ...classes.map((name, c) => el("li", {}, el("span", { class: `key key${stored.groups.colours[c]}` }), name))), panels);
  const first = state.test ? best(state.test, n) : -1;
  show(first >= 0 && first % n < n ? first % n : (curves.genes[0] ?? 0));
  return show;
}
