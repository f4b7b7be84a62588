// What happens when the page is there.
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
// In the frame of a notebook a link to a part of the page would lead to the notebook: what "#" means there is the
// address of the page around the frame.
if (location.protocol === "about:") {
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]'), part = link && byId(link.getAttribute("href").slice(1));
    if (!part) return;
    event.preventDefault();
    part.scrollIntoView();
  });
}
