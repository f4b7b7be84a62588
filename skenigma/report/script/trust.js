// Which genes deserve trust.
// All genes of the expression, by what can be known of them.
function trust(state, showGene) {
  const root = byId("trust"), { genes, expression } = state;
  if (!root || !expression) return;
  root.hidden = false;
  const n = genes.length;
  const select = el("select", { onchange: () => turn(Number(select.value)) }, ...expression.types.map((t) => el("option", { value: t }, stored.types[t])));
  const measure = ["reliability", "share"].find((name) => expression[name]);
  const columns = [
    { label: "gene", value: (e) => genes[e % n], cell: (e) => el("button", { type: "button", class: "link", onclick: () => showGene(e % n, true) }, genes[e % n]) },
    ...(expression.reliability ? [{ label: "reliability", value: (e) => expression.reliability[e], text: (e) => shownReliability(expression.reliability[e]), downFirst: true }] : []),
    ...(expression.share ? [{ label: "share of the bulk", value: (e) => expression.share[e], text: (e) => shownShare(expression.share[e]), downFirst: true }] : []),
    { label: "mean expression", value: (e) => expression.mean[e], text: (e) => shown(expression.mean[e]), downFirst: true },
    ...(expression.reference ? [{ label: "reference", value: (e) => expression.reference[e], text: (e) => shown(expression.reference[e]), downFirst: true }] : []),
  ];
  root.append(el("h3", {}, "All genes"));
  const table = new Table(root, columns, { caption: "Genes of the chosen cell type, by what can be known of them", searchLabel: "Search gene", sorted: measure ? { number: 1, down: true } : null, tools: [el("label", {}, "Cell type", select)] });
  function turn(t) {
    const rows = [];
    for (let g = 0; g < n; g++) if (!Number.isNaN(expression.mean[t * n + g])) rows.push(t * n + g);
    table.set(rows, `${fileName(stored.types[t])}_reliability.csv`);
  }
  turn(expression.types[0]);
}
