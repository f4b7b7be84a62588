// The genes that differ.
// The entry with the smallest p-value.
function best(test) {
  let found = -1;
  for (let e = 0; e < test.p.length; e++) if (!Number.isNaN(test.p[e]) && (found < 0 || test.p[e] < test.p[found])) found = e;
  return found;
}

// All genes of a test: volcano and table. An entry e is a cell type and a gene: type times the number of genes, plus gene.
class Explorer {
  constructor(root, state, showGene) {
    Object.assign(this, { root, showGene, ...state, n: state.genes.length, chosen: -1 });
    const { test, n } = this;
    this.counts = stored.types.map((_, t) => { let c = 0; for (let g = 0; g < n; g++) c += test.q[t * n + g] < SIGNIFICANT; return c; });
    this.there = stored.types.map((_, t) => t).filter((t) => test.present.subarray(t * n, (t + 1) * n).some((v) => v));
    this.select = el("select", { onchange: () => this.turn(Number(this.select.value)) },
      ...this.there.map((t) => el("option", { value: t }, `${stored.types[t]} (${this.counts[t].toLocaleString("en")} with q < ${SIGNIFICANT})`)));
    this.summary = el("p", {});
    this.line = el("p", { class: "plotline", role: "status" });
    const holder = el("div", { class: "volcano" });
    root.append(el("h3", {}, "All genes"), el("div", { class: "tools" }, el("label", {}, "Cell type", this.select)), this.summary, holder, this.line);
    this.volcano = new Volcano(holder, test, { onPick: (e) => this.pick(e), onOpen: (e) => this.open(e) });
    this.table = this.makeTable();
  }
  makeTable() {
    const columns = this.columns();
    const only = el("input", { type: "checkbox", onchange: () => {
      this.table.filter = only.checked ? (e) => this.test.q[e] < SIGNIFICANT : null;
      this.table.page = 0;
      this.table.draw();
    } });
    return new Table(this.root, columns, {
      caption: "Genes of the chosen cell type", searchLabel: "Search gene", chosen: () => this.chosen,
      sorted: { number: columns.findIndex((column) => column.label === "p"), down: false },
      tools: [el("label", { class: "inline" }, only, `only q < ${SIGNIFICANT}`)],
    });
  }
  columns() {
    const { test, expression, genes, n } = this, low = (e) => this.bound(e, -1), high = (e) => this.bound(e, 1);
    const number = (label, value, say) => ({ label, value, text: (e) => say(value(e)), downFirst: true });
    const link = (e) => el("button", { type: "button", class: "link", onclick: () => { this.pick(e); this.open(e); } }, genes[e % n]);
    return [
      { label: "gene", value: (e) => genes[e % n], cell: (e) => (expression ? link(e) : genes[e % n]) },
      ...(test.effect ? [number(test.effectName, (e) => test.effect[e], shown)] : []),
      ...(test.error ? [number("95% low", low, shown), number("95% high", high, shown)] : []),
      { label: "p", value: (e) => test.p[e], text: (e) => shownP(test.p[e]) },
      { label: "q", value: (e) => test.q[e], text: (e) => shownP(test.q[e]) },
      ...(expression?.share ? [number("share of the bulk", (e) => expression.share[e], shownShare)] : []),
      ...(expression?.reliability ? [number("reliability", (e) => expression.reliability[e], shownReliability)] : []),
      { label: "note", value: (e) => test.flags[test.flag[e]], text: (e) => test.flags[test.flag[e]], words: true },
    ];
  }
  bound(e, sign) { return this.test.effect[e] + sign * Z * this.test.error[e]; }
  describe(e) {
    const { test } = this;
    const interval = test.error ? ` (${shown(this.bound(e, -1))} to ${shown(this.bound(e, 1))})` : "";
    const effect = test.effect ? `${test.effectName} ${shown(test.effect[e])}${interval}, ` : "";
    return `${this.genes[e % this.n]}: ${effect}p ${shownP(test.p[e])}, q ${shownP(test.q[e])}`;
  }
  pick(e) {
    this.chosen = e;
    this.line.textContent = e < 0 ? "" : this.describe(e);
    this.volcano.point(e);
  }
  open(e) { this.showGene(e % this.n, true); }
  turn(t) {
    const { test, n } = this, rows = [];
    for (let g = 0; g < n; g++) if (test.present[t * n + g]) rows.push(t * n + g);
    const tested = rows.filter((e) => !Number.isNaN(test.p[e]));
    this.summary.textContent = this.summarise(stored.types[t], this.counts[t], tested.length);
    this.volcano.draw(tested, stored.types[t], this.root.clientWidth);
    this.chosen = -1;
    this.table.set(rows, `${fileName(stored.types[t])}_genes.csv`);
    this.pick(-1);
    this.line.textContent = tested.length && test.effect ? "Point at a dot, or use the arrow keys in the picture, to see its gene." : "";
  }
  summarise(name, found, tested) {
    if (!tested) return `Nothing could be tested in ${name}. That is neither a yes nor a no.`;
    const all = tested.toLocaleString("en");
    return found ? `${found.toLocaleString("en")} of ${all} tested genes have q < ${SIGNIFICANT} in ${name}.`
      : `Nothing was found in ${name}: none of ${all} tested genes has q < ${SIGNIFICANT}.`;
  }
}

function explorer(state, showGene) {
  const root = byId("explorer");
  if (!root || !state.test) return;
  root.hidden = false;
  document.documentElement.classList.add("scripted");
  const made = new Explorer(root, state, showGene), { there, counts } = made;
  const start = there.find((t) => counts[t] === Math.max(...there.map((u) => counts[u]))) ?? there[0];
  if (start === undefined) return;
  made.select.value = start;
  made.turn(start);
}
