// Tables with search, order, pages and a file.
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
