// Ticks, the pointer, and the bars of the proportions.
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
