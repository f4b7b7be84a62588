// The volcano plot of a cell type.
const logP = (p) => -Math.log10(Math.max(p, 1e-300));

// draw(entries, name) makes it, point(entry) moves its mark; onPick(entry) and onOpen(entry) tell what the reader does.
class Volcano {
  constructor(holder, test, { onPick, onOpen }) {
    Object.assign(this, { holder, test, onPick, onOpen, points: [], mark: null, chosen: -1 });
  }
  point(entry) {
    this.chosen = entry;
    if (!this.mark) return;
    const point = this.points.find((other) => other.e === entry);
    this.mark.setAttribute("cx", point ? point.x : -99);
    this.mark.setAttribute("cy", point ? point.y : -99);
  }
  draw(tested, name, available) {
    const { test } = this, usable = test.effect ? tested.filter((e) => Number.isFinite(test.effect[e])) : [];
    this.points = [];
    this.mark = null;
    this.holder.replaceChildren();
    if (!usable.length) return;
    const frame = this.frame(usable, available);
    this.points = usable.map((e) => ({ e, x: frame.x(test.effect[e]), y: frame.y(logP(test.p[e])) }));
    this.mark = svg("circle", { class: "mark", r: 6, cx: -99, cy: -99 });
    const picture = svg("svg", { viewBox: `0 0 ${frame.width} ${frame.height}`, role: "img", tabindex: "0", "aria-label": `Volcano plot of ${name}: ${test.effectName} against the p-value; arrow keys go through the genes by p-value` }, ...this.axes(frame), ...this.cloud(frame), this.mark);
    this.listen(picture, usable);
    this.holder.append(picture, this.legend());
  }
  // Sizes and scales: effects to both sides of none, p-values from 1 upwards.
  frame(usable, available) {
    const { test } = this, width = Math.max(330, Math.min(720, available)), height = Math.round(Math.max(280, 0.53 * width)), left = 52, right = 14, top = 12, bottom = 44;
    let reach = 0, high = 0;
    for (const e of usable) { reach = Math.max(reach, Math.abs(test.effect[e] - test.neutral)); high = Math.max(high, logP(test.p[e])); }
    reach = reach * 1.05 || 1;
    high = Math.max(high * 1.05, 1.5);
    const x = (v) => left + (width - left - right) * (v - test.neutral + reach) / (2 * reach);
    const y = (v) => top + (height - top - bottom) * (1 - v / high);
    return { width, height, left, right, top, bottom, reach, high, x, y };
  }
  axes({ width, height, left, right, top, bottom, reach, high, x, y }) {
    const { test } = this, label = test.contrast.startsWith("log2") ? test.contrast : `${test.effectName}: ${test.contrast}`;
    return [
      ...ticks(test.neutral - reach, test.neutral + reach, width / 90).flatMap((tick) => [svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }), svg("text", { class: "tick", x: x(tick), y: height - bottom + 16 }, shown(tick))]),
      ...ticks(0, high, 5).flatMap((tick) => [svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }), svg("text", { class: "tick end", x: left - 6, y: y(tick) + 4 }, shown(tick))]),
      svg("text", { class: "label", x: (left + width) / 2, y: height - 6 }, label),
      svg("text", { class: "label", x: 0, y: 0, transform: `translate(13 ${(height - bottom) / 2}) rotate(-90)` }, "−log10 p"),
    ];
  }
  // One path for all dots of a kind, however many there are, and a line below the last that was found.
  cloud({ width, left, right, y }) {
    const { test } = this, paths = { rest: [], up: [], down: [] };
    let limit = -1;
    for (const point of this.points) {
      const found = test.q[point.e] < SIGNIFICANT;
      if (found) limit = Math.max(limit, test.p[point.e]);
      paths[found ? (test.effect[point.e] >= test.neutral ? "up" : "down") : "rest"].push(`M${point.x.toFixed(1)} ${point.y.toFixed(1)}h0`);
    }
    return [
      ...(limit > 0 ? [svg("line", { class: "threshold", x1: left, x2: width - right, y1: y(-Math.log10(limit)), y2: y(-Math.log10(limit)) })] : []),
      ...Object.entries(paths).map(([kind, moves]) => svg("path", { class: `cloud ${kind}`, d: moves.join("") })),
    ];
  }
  listen(picture, usable) {
    picture.addEventListener("pointermove", (event) => {
      const near = this.nearest(...place(picture, event));
      if (near) this.onPick(near.e);
    });
    const open = () => { if (this.chosen >= 0) this.onOpen(this.chosen); };
    picture.addEventListener("click", open);
    const ranked = [...usable].sort((a, b) => this.test.p[a] - this.test.p[b]);
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) {
        const at = ranked.indexOf(this.chosen);
        this.onPick(ranked[Math.min(Math.max(at + step, 0), ranked.length - 1)]);
        event.preventDefault();
      } else if (event.key === "Enter") open();
    });
  }
  nearest(x, y) {
    let near = null, distance = 15 ** 2;
    for (const point of this.points) {
      const d = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (d < distance) [near, distance] = [point, d];
    }
    return near;
  }
  legend() {
    const [down, up] = [this.test.directions[1], this.test.directions[0]];
    const words = up === down ? [["up", up]] : [["up", up], ["down", down]];
    return el("ul", { class: "legend" }, ...words.map(([kind, text]) => el("li", {}, el("span", { class: `key ${kind === "up" ? "key1" : "key0"}` }), `${text}, q < ${SIGNIFICANT}`)));
  }
}
