// Elements, numbers, files and order: what the other parts use.
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
