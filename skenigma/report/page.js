"use strict";
(() => {
  const stored = JSON.parse(document.getElementById("data").textContent);
  const ROWS = 20, SIGNIFICANT = 0.05, Z = 1.959964;

  // Elements: text is always text, never markup.
  const build = (namespace) => (tag, attributes = {}, ...children) => {
    const node = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const el = build(null), svg = build("http://www.w3.org/2000/svg");
  const byId = (id) => document.getElementById(id);

  // Numbers: deflated, the bytes of each place together.
  async function unpack(packed) {
    if (!packed) return null;
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer());
    if (packed.kind === "names") return JSON.parse(new TextDecoder().decode(raw));
    if (packed.kind === "codes") return raw;
    const n = packed.length, whole = new Uint32Array(n);
    for (let plane = 0; plane < 4; plane++)
      for (let i = 0; i < n; i++) whole[i] |= raw[plane * n + i] << (8 * plane);
    return new Float32Array(whole.buffer);
  }

  const minus = (text) => text.replace("-", "−");
  function shown(value, digits = 3) {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return minus(value.toExponential(Math.max(0, digits - 1)));
    return minus(size >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(digits)));
  }
  const shownP = (p) => (Number.isNaN(p) ? "–" : p < 1e-36 ? "< 1e-36" : p >= 1e-3 ? String(+p.toPrecision(2)) : p.toExponential(1));
  const shownReliability = (r) => (Number.isNaN(r) ? "–" : r.toFixed(2));
  const shownShare = (s) => (Number.isNaN(s) ? "–" : `${+(100 * s).toPrecision(2)}%`);

  // Files: names that a spreadsheet would compute are made text.
  const field = (value) => {
    let text = typeof value === "number" ? (Number.isFinite(value) ? String(+value.toPrecision(4)) : "") : String(value);
    if (typeof value !== "number" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  function download(name, head, rows) {
    const lines = [head, ...rows].map((row) => row.map(field).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    const link = el("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  const fileName = (text) => text.replace(/[^\w.-]+/g, "_").slice(0, 60) || "table";

  // Order of two values, what is missing always last.
  function compare(a, b, down) {
    const lacking = (v) => v === "" || Number.isNaN(v);
    if (lacking(a) || lacking(b)) return lacking(a) - lacking(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
  }

  // A table with search, order, pages and a file of all its rows.
  // columns: {label, value(i), text(i), cell(i)}; the first names the row.
  class Table {
    constructor(place, columns, options) {
      Object.assign(this, { columns, rows: [], needle: "", sorted: options.sorted ?? null, page: 0, size: options.size ?? ROWS, chosen: options.chosen, filter: null, file: options.file });
      this.search = el("input", { type: "search", autocomplete: "off", spellcheck: "false", oninput: () => { this.needle = this.search.value.trim().toLowerCase(); this.page = 0; this.draw(); } });
      this.count = el("span", { role: "status" });
      this.tools = el("div", { class: "tools" }, el("label", {}, options.searchLabel, this.search), ...(options.tools ?? []),
        el("button", { type: "button", onclick: () => this.save() }, "Download all as CSV"));
      this.heads = columns.map((column, number) => el("th", { scope: "col", class: column.words ? "text" : null }, el("button", { type: "button", onclick: () => this.sort(number) }, column.label)));
      this.body = el("tbody");
      this.back = el("button", { type: "button", onclick: () => this.turn(-1) }, "Previous");
      this.next = el("button", { type: "button", onclick: () => this.turn(1) }, "Next");
      place.append(this.tools,
        el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": options.caption },
          el("table", {}, el("caption", {}, el("span", {}, options.caption)), el("thead", {}, el("tr", {}, ...this.heads)), this.body)),
        el("div", { class: "pager" }, this.back, this.next, this.count));
    }
    set(rows, file) {
      const few = rows.length <= 12;
      this.tools.firstChild.hidden = few;
      this.back.hidden = this.next.hidden = rows.length <= this.size;
      this.count.hidden = few;
      this.rows = rows;
      this.file = file ?? this.file;
      this.page = 0;
      this.draw();
    }
    sort(number) {
      const column = this.columns[number];
      const down = this.sorted && this.sorted.number === number ? !this.sorted.down : Boolean(column.downFirst);
      this.sorted = { number, down };
      this.page = 0;
      this.draw();
    }
    turn(step) { this.page += step; this.draw(); }
    order() {
      let rows = this.rows;
      const name = this.columns[0].value;
      if (this.filter) rows = rows.filter(this.filter);
      if (this.needle) rows = rows.filter((i) => String(name(i)).toLowerCase().includes(this.needle));
      if (this.sorted) {
        const { value } = this.columns[this.sorted.number], { down } = this.sorted;
        rows = [...rows].sort((a, b) => compare(value(a), value(b), down));
      }
      return rows;
    }
    draw() {
      const rows = this.order(), pages = Math.max(1, Math.ceil(rows.length / this.size));
      this.page = Math.min(Math.max(this.page, 0), pages - 1);
      const start = this.page * this.size, part = rows.slice(start, start + this.size);
      this.heads.forEach((head, number) => {
        const on = this.sorted && this.sorted.number === number;
        if (on) head.setAttribute("aria-sort", this.sorted.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
        head.firstChild.textContent = this.columns[number].label + (on ? (this.sorted.down ? " ▼" : " ▲") : "");
      });
      this.body.replaceChildren(...part.map((i) => el("tr", { class: this.chosen && this.chosen() === i ? "chosen" : null },
        ...this.columns.map((column, number) => {
          const content = column.cell ? column.cell(i) : column.text(i);
          return number ? el("td", { class: column.words ? "text" : null }, content) : el("th", { scope: "row" }, content);
        }))));
      this.back.disabled = this.page === 0;
      this.next.disabled = this.page >= pages - 1;
      this.count.textContent = rows.length ? `${(start + 1).toLocaleString("en")} to ${(start + part.length).toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "No row matches.";
    }
    save() {
      download(this.file, this.columns.map((column) => column.label), this.rows.map((i) => this.columns.map((column) => column.value(i))));
    }
  }

  // Tables that the page has whole: the same, from their cells.
  async function enhance(table) {
    const caption = table.caption.textContent, whole = table.parentElement.querySelector("script.rows");
    const labels = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const cells = whole ? await packedRows(JSON.parse(whole.textContent)) : [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => {
      const exact = (cell.querySelector("[data-value]") ?? cell).dataset.value;
      const text = cell.textContent;
      return { text, value: exact === undefined ? text : exact === "" ? NaN : Number(exact), words: cell.classList.contains("text") };
    }));
    const columns = labels.map((label, c) => ({ label, value: (i) => cells[i][c].value, text: (i) => cells[i][c].text, words: cells.length > 0 && cells[0][c].words, downFirst: cells.length > 0 && typeof cells[0][c].value === "number" }));
    const place = el("div", {});
    const scroll = table.closest(".scroll");
    if (whole) scroll.nextElementSibling.remove(); // the note that these are the first rows only
    scroll.replaceWith(place);
    const made = new Table(place, columns, { caption, searchLabel: `Search ${labels[0]}`, file: `${fileName(caption)}.csv`, size: cells.length <= 40 ? 40 : ROWS });
    made.set(cells.map((_, i) => i));
  }

  // Rows of a table that is too long to be in the page as one.
  async function packedRows({ columns, shares }) {
    const unpacked = await Promise.all(columns.map(unpack));
    const say = (value) => (shares && !Number.isInteger(value) ? shownShare(value) : shown(value));
    return unpacked[0].map((_, i) => unpacked.map((column) => {
      const value = column[i];
      return typeof value === "number" ? { value, text: say(value), words: false } : { value, text: value, words: true };
    }));
  }

  // Ticks at round numbers.
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
    return found;
  }
  // As many digits as tell neighbouring ticks apart.
  function shownTick(tick, all) {
    const step = all.length > 1 ? all[1] - all[0] : Math.abs(tick);
    const digits = tick && step ? Math.max(1, Math.floor(Math.log10(Math.abs(tick)) + 1e-9) - Math.floor(Math.log10(step) + 1e-9) + 1) : 1;
    return shown(tick, digits);
  }

  // Where the pointer is, in the units of a picture.
  function place(picture, event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    return [point.x, point.y];
  }

  function bars(shares) {
    const figure = byId("bars"), kinds = shares.length / stored.samples.length;
    const picture = figure.querySelector("svg"), line = el("p", { class: "plotline" }, "Point at a bar to see its sample.");
    figure.append(line);
    picture.addEventListener("pointermove", (event) => {
      const i = stored.bars[Math.floor(place(picture, event)[0])];
      if (i === undefined) return;
      const parts = stored.types.slice(0, kinds).map((kind, k) => [kind, shares[i * kinds + k]]).sort((a, b) => b[1] - a[1]);
      const group = stored.groups ? ` (${stored.groups.values[i] || "no group"})` : "";
      line.textContent = `${stored.samples[i]}${group}: ${parts.map(([kind, share]) => `${kind} ${shownShare(share)}`).join(", ")}`;
    });
  }

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
      for (const [group, moves] of dots) parts.push(svg("path", { class: `dots ${group < 0 ? "" : `line${group % 12}`}`, d: moves, "stroke-width": samples > 120 ? 3 : 5 }));
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
    if (classes) root.insertBefore(el("ul", { class: "legend" }, ...classes.map((name, c) => el("li", {}, el("span", { class: `key key${c % 12}` }), name))), panels);
    const first = state.test ? best(state.test, n) : -1;
    show(first >= 0 && first % n < n ? first % n : (curves.genes[0] ?? 0));
    return show;
  }

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
      state2.textContent = !tested.length ? `Nothing could be tested in ${stored.types[t]}. This is no answer, neither yes nor no.`
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

  async function start() {
    await Promise.all([...document.querySelectorAll("table.sortable")].map(enhance));
    bars(await unpack(stored.shares));
    if (window.matchMedia("(max-width: 40rem)").matches) document.querySelectorAll("details.how").forEach((part) => { part.open = false; });
    window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
    if (!stored.genes) return;
    const state = { genes: await unpack(stored.genes), test: null, expression: null };
    const all = async (from, names) => Object.fromEntries(await Promise.all(names.map(async (name) => [name, await unpack(from[name])])));
    if (stored.test) state.test = { ...stored.test, ...(await all(stored.test, ["present", "p", "q", "flag", "effect", "error"])) };
    if (stored.expression) {
      state.expression = { ...stored.expression, ...(await all(stored.expression, ["mean", "reference", "share", "reliability"])) };
      state.expression.curves = await all(stored.expression.curves, ["genes", "values", "low", "high", "bulk"]);
    }
    const showGene = geneViewer(state);
    explorer(state, showGene);
    trust(state, showGene);
  }
  start().catch((error) => {
    document.querySelector("main").prepend(el("p", { class: "warnings", role: "alert" }, `The interactive parts could not start (${error.message}). A browser of 2023 or later is needed; all else is below.`));
  }).finally(() => { document.documentElement.dataset.ready = "yes"; });
})();
