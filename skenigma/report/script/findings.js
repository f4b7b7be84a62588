// The genes that differ.
// The entry with the smallest p-value.
function best(test) {
  let found = -1;
  for (let e = 0; e < test.p.length; e++) if (!Number.isNaN(test.p[e]) && (found < 0 || test.p[e] < test.p[found])) found = e;
  return found;
}

// All genes of a test: volcano and table.
function explorer(state, showGene) {
  const root = byId("explorer"), { test, genes, expression } = state;
  if (!root || !test) return;
  root.hidden = false;
  document.documentElement.classList.add("scripted");
  const n = genes.length;
  const counts = stored.types.map((_, t) => { let c = 0; for (let g = 0; g < n; g++) c += test.q[t * n + g] < SIGNIFICANT; return c; });
  const there = stored.types.map((_, t) => t).filter((t) => test.present.subarray(t * n, (t + 1) * n).some((v) => v));
  const select = el("select", { onchange: () => turn(Number(select.value)) },
    ...there.map((t) => el("option", { value: t }, `${stored.types[t]} (${counts[t].toLocaleString("en")} with q < ${SIGNIFICANT})`)));
  const only = el("input", { type: "checkbox", onchange: () => { table.filter = only.checked ? (e) => test.q[e] < SIGNIFICANT : null; table.page = 0; table.draw(); } });
  const state2 = el("p", {}), holder = el("div", { class: "volcano" }), line = el("p", { class: "plotline", role: "status" });
  root.append(el("h3", {}, "All genes"), el("div", { class: "tools" }, el("label", {}, "Cell type", select)), state2, holder, line);
  let chosen = -1, mark = null, points = [];
  const bound = (e, sign) => test.effect[e] + sign * Z * test.error[e];
  const columns = [
    { label: "gene", value: (e) => genes[e % n], cell: (e) => expression ? el("button", { type: "button", class: "link", onclick: () => { pick(e); showGene(e % n, true); } }, genes[e % n]) : genes[e % n] },
    ...(test.effect ? [{ label: test.effectName, value: (e) => test.effect[e], text: (e) => shown(test.effect[e]), downFirst: true }] : []),
    ...(test.error ? [{ label: "95% low", value: (e) => bound(e, -1), text: (e) => shown(bound(e, -1)), downFirst: true }, { label: "95% high", value: (e) => bound(e, 1), text: (e) => shown(bound(e, 1)), downFirst: true }] : []),
    { label: "p", value: (e) => test.p[e], text: (e) => shownP(test.p[e]) },
    { label: "q", value: (e) => test.q[e], text: (e) => shownP(test.q[e]) },
    ...(expression?.share ? [{ label: "share of the bulk", value: (e) => expression.share[e], text: (e) => shownShare(expression.share[e]), downFirst: true }] : []),
    ...(expression?.reliability ? [{ label: "reliability", value: (e) => expression.reliability[e], text: (e) => shownReliability(expression.reliability[e]), downFirst: true }] : []),
    { label: "note", value: (e) => test.flags[test.flag[e]], text: (e) => test.flags[test.flag[e]], words: true },
  ];
  const pNumber = columns.findIndex((column) => column.label === "p");
  const table = new Table(root, columns, {
    caption: "Genes of the chosen cell type", searchLabel: "Search gene", sorted: { number: pNumber, down: false }, chosen: () => chosen,
    tools: [el("label", { class: "inline" }, only, `only q < ${SIGNIFICANT}`)],
  });

  function describe(e) {
    const interval = test.error ? ` (${shown(bound(e, -1))} to ${shown(bound(e, 1))})` : "";
    const effect = test.effect ? `${test.effectName} ${shown(test.effect[e])}${interval}, ` : "";
    return `${genes[e % n]}: ${effect}p ${shownP(test.p[e])}, q ${shownP(test.q[e])}`;
  }
  function pick(e) {
    chosen = e;
    line.textContent = e < 0 ? "" : describe(e);
    const point = points.find((entry) => entry.e === e);
    if (mark) {
      mark.setAttribute("cx", point ? point.x : -99);
      mark.setAttribute("cy", point ? point.y : -99);
    }
  }
  function turn(t) {
    chosen = -1;
    const rows = [];
    for (let g = 0; g < n; g++) if (test.present[t * n + g]) rows.push(t * n + g);
    const tested = rows.filter((e) => !Number.isNaN(test.p[e]));
    state2.textContent = !tested.length ? `Nothing could be tested in ${stored.types[t]}. That is neither a yes nor a no.`
      : counts[t] ? `${counts[t].toLocaleString("en")} of ${tested.length.toLocaleString("en")} tested genes have q < ${SIGNIFICANT} in ${stored.types[t]}.`
        : `Nothing was found in ${stored.types[t]}: none of ${tested.length.toLocaleString("en")} tested genes has q < ${SIGNIFICANT}.`;
    volcano(tested, stored.types[t]);
    table.set(rows, `${fileName(stored.types[t])}_genes.csv`);
    pick(-1);
    line.textContent = tested.length && test.effect ? "Point at a dot, or use the arrow keys in the picture, to see its gene." : "";
  }
  function volcano(tested, name) {
    points = [];
    mark = null;
    holder.replaceChildren();
    const usable = test.effect ? tested.filter((e) => Number.isFinite(test.effect[e])) : [];
    if (!usable.length) return;
    const width = Math.max(330, Math.min(720, root.clientWidth)), height = Math.round(Math.max(280, 0.53 * width)), left = 52, right = 14, top = 12, bottom = 44;
    let reach = 0, high = 0;
    for (const e of usable) { reach = Math.max(reach, Math.abs(test.effect[e] - test.neutral)); high = Math.max(high, -Math.log10(Math.max(test.p[e], 1e-300))); }
    reach = reach * 1.05 || 1;
    high = Math.max(high * 1.05, 1.5);
    const x = (v) => left + (width - left - right) * (v - test.neutral + reach) / (2 * reach);
    const y = (v) => top + (height - top - bottom) * (1 - v / high);
    const paths = { rest: [], up: [], down: [] };
    let limit = -1;
    points = usable.map((e) => ({ e, x: x(test.effect[e]), y: y(-Math.log10(Math.max(test.p[e], 1e-300))) }));
    for (const point of points) {
      const found = test.q[point.e] < SIGNIFICANT;
      if (found) limit = Math.max(limit, test.p[point.e]);
      paths[found ? (test.effect[point.e] >= test.neutral ? "up" : "down") : "rest"].push(`M${point.x.toFixed(1)} ${point.y.toFixed(1)}h0`);
    }
    const parts = [
      ...ticks(test.neutral - reach, test.neutral + reach, width / 90).flatMap((tick) => [svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }), svg("text", { class: "tick", x: x(tick), y: height - bottom + 16 }, shown(tick))]),
      ...ticks(0, high, 5).flatMap((tick) => [svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }), svg("text", { class: "tick end", x: left - 6, y: y(tick) + 4 }, shown(tick))]),
      svg("text", { class: "label", x: (left + width) / 2, y: height - 6 }, test.contrast.startsWith("log2") ? test.contrast : `${test.effectName}: ${test.contrast}`),
      svg("text", { class: "label", x: 0, y: 0, transform: `translate(13 ${(height - bottom) / 2}) rotate(-90)` }, "−log10 p"),
      ...(limit > 0 ? [svg("line", { class: "threshold", x1: left, x2: width - right, y1: y(-Math.log10(limit)), y2: y(-Math.log10(limit)) })] : []),
      ...Object.entries(paths).map(([kind, moves]) => svg("path", { class: `cloud ${kind}`, d: moves.join("") })),
    ];
    mark = svg("circle", { class: "mark", r: 6, cx: -99, cy: -99 });
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", "aria-label": `Volcano plot of ${name}: ${test.effectName} against the p-value; arrow keys go through the genes by p-value` }, ...parts, mark);
    picture.addEventListener("pointermove", (event) => {
      const [px, py] = place(picture, event);
      let near = null, distance = 15 ** 2;
      for (const point of points) {
        const d = (point.x - px) ** 2 + (point.y - py) ** 2;
        if (d < distance) [near, distance] = [point, d];
      }
      if (near) pick(near.e);
    });
    picture.addEventListener("click", () => { if (chosen >= 0) showGene(chosen % n, true); });
    const ranked = [...usable].sort((a, b) => test.p[a] - test.p[b]);
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) {
        const at = ranked.indexOf(chosen);
        pick(ranked[Math.min(Math.max(at + step, 0), ranked.length - 1)]);
        event.preventDefault();
      } else if (event.key === "Enter" && chosen >= 0) showGene(chosen % n, true);
    });
    const words = test.directions[0] === test.directions[1] ? [["up", test.directions[0]]] : [["up", test.directions[0]], ["down", test.directions[1]]];
    holder.append(picture, el("ul", { class: "legend" }, ...words.map(([kind, text]) => el("li", {}, el("span", { class: `key ${kind === "up" ? "key1" : "key0"}` }), `${text}, q < ${SIGNIFICANT}`))));
  }
  const start = there.find((t) => counts[t] === Math.max(...there.map((u) => counts[u]))) ?? there[0];
  if (start === undefined) return;
  select.value = start;
  turn(start);
}
