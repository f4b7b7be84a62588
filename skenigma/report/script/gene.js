// The expression of a gene.
// Search, a curve per cell type, a table and a file.
class GeneViewer {
  constructor(root, state) {
    Object.assign(this, { root, ...state, n: state.genes.length, current: -1, order: orderOfSamples() });
    this.kinds = this.expression.types.map((t) => stored.types[t]);
    // which of the genes with values of every sample a gene is
    this.row = new Map();
    this.expression.curves.genes.forEach((gene, number) => this.row.set(gene, number));
    this.input = el("input", { type: "search", autocomplete: "off", spellcheck: "false", list: null });
    this.choices = el("div", { class: "choices", role: "group", "aria-label": "Genes that match" });
    this.heading = el("h3", { tabindex: "-1", id: "gene-name" });
    this.panels = el("div", { class: "panels" });
    this.line = el("p", { class: "plotline", role: "status" });
    this.values = el("button", { type: "button", onclick: () => this.save() }, "Download its values as CSV");
    const below = el("div", {});
    root.append(el("div", { class: "tools" }, el("label", {}, "Search a gene", this.input), this.values), this.choices, this.heading, this.panels, this.line, below);
    if (stored.groups?.classes) root.insertBefore(el("ul", { class: "legend" }, ...stored.groups.classes.map((name, c) => el("li", {}, el("span", { class: `key key${stored.groups.colours[c]}` }), name))), this.panels);
    this.input.addEventListener("input", () => this.offer());
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const found = this.offer();
      if (found.length) this.show(found[0]);
    });
    this.summary = new Table(below, this.columns(), { caption: "The gene by cell type", searchLabel: "Search cell type", size: 40 });
  }
  columns() {
    const { test, expression } = this, here = (values) => (t) => values[t * this.n + this.current];
    const number = (label, values, say, more = {}) => ({ label, value: here(values), text: (t) => say(here(values)(t)), ...more });
    return [
      { label: "cell type", value: (t) => stored.types[t], text: (t) => stored.types[t] },
      ...[["mean", "mean", shown], ["reference", "reference", shown], ["share of the bulk", "share", shownShare], ["reliability", "reliability", shownReliability]]
        .filter(([, name]) => expression[name])
        .map(([label, name, say]) => number(label, expression[name], say, { downFirst: true })),
      ...(test?.effect ? [number(test.effectName, test.effect, shown)] : []),
      ...(test ? [number("q", test.q, shownP)] : []),
    ];
  }
  offer() {
    const { genes } = this, needle = this.input.value.trim().toLowerCase(), found = [];
    if (needle) {
      const exact = genes.findIndex((name) => name.toLowerCase() === needle);
      if (exact >= 0) found.push(exact);
      for (let g = 0; g < this.n && found.length < 12; g++) if (g !== exact && genes[g].toLowerCase().includes(needle)) found.push(g);
    }
    this.choices.replaceChildren(...(needle && !found.length ? [el("span", {}, "No gene matches.")] : found.map((g) => el("button", { type: "button", onclick: () => this.show(g) }, genes[g]))));
    return found;
  }
  // Curves of the current gene: one per cell type, and the bulk; none where its values are not in the page.
  curves() {
    const number = this.row.get(this.current), { curves } = this.expression, count = stored.samples.length;
    if (number === undefined) return [];
    const part = (array, k) => array?.subarray((number * this.kinds.length + k) * count, (number * this.kinds.length + k + 1) * count);
    const found = this.kinds.map((name, k) => ({ name, numbers: part(curves.values, k), lows: part(curves.low, k), highs: part(curves.high, k) }));
    if (curves.bulk) found.push({ name: "bulk", title: "bulk, as measured", numbers: curves.bulk.subarray(number * count, (number + 1) * count) });
    return found;
  }
  show(gene, jump = false) {
    this.current = gene;
    this.heading.textContent = this.genes[gene];
    this.choices.replaceChildren();
    const curves = this.curves(), say = (text) => { this.line.textContent = text; };
    this.values.disabled = !curves.length;
    say(curves.length ? "Point at a dot to see its sample." : "");
    const figures = curves.map((curve) => curveFigure({ ...curve, name: curve.title ?? curve.name }, this.order, say));
    this.panels.replaceChildren(...(figures.length ? figures : [el("p", { class: "note" }, "The values for every sample of this gene are not in this page: the files of the run hold them.")]));
    this.summary.set([...this.expression.types], `${fileName(this.genes[gene])}_by_cell_type.csv`);
    if (jump) { this.heading.scrollIntoView({ block: "start" }); this.heading.focus({ preventScroll: true }); }
  }
  save() {
    const curves = this.curves(), { groups } = stored;
    const head = curves.flatMap(({ name, lows }) => [name, ...(lows ? [`${name} low`, `${name} high`] : [])]);
    const cells = (i) => curves.flatMap(({ numbers, lows, highs }) => [numbers[i], ...(lows ? [lows[i], highs[i]] : [])]);
    download(`${fileName(this.genes[this.current])}.csv`, ["sample", ...(groups ? [groups.name] : []), ...head],
      this.order.map((i) => [stored.samples[i], ...(groups ? [groupOf(i)] : []), ...cells(i)]));
  }
}

// Returns what shows a gene, by its position.
function geneViewer(state) {
  const root = byId("gene");
  if (!root || !state.expression) return () => {};
  root.hidden = false;
  const viewer = new GeneViewer(root, state), n = state.genes.length;
  const first = state.test ? best(state.test) : -1;
  viewer.show(first >= 0 ? first % n : (state.expression.curves.genes[0] ?? 0));
  return (gene, jump) => viewer.show(gene, jump);
}
