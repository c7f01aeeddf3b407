// Error by frequency, of runs that measured it: the map over training, the energies at a step, and what is learned.
function edges(places) {
  const inner = places.slice(1).map((place, i) => (place + places[i]) / 2), end = places.length - 1;
  const first = inner.length ? 2 * places[0] - inner[0] : places[0] - 0.5, last = inner.length ? 2 * places[end] - inner[end - 1] : places[end] + 0.5;
  return [first, ...inner, last];
}

function drawErrors() {
  const i = state.run, run = runs[i], steps = Array.from(held[`error.${i}.steps`]), k = Array.from(held[`error.${i}.k`]);
  const cells = held[`error.${i}.cells`], blind = held[`error.${i}.blind`], { to, axis } = stepAxis(run);
  const rows = (value) => k.map((_, row) => steps.map((_, at) => value(row * steps.length + at)));
  const x = edges(steps.map(to)), y = edges(k.map(Math.log10));
  const colours = [...VIRIDIS].reverse();
  document.getElementById("errors-bar").style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  const done = Plotly.react("errors", [
    {
      type: "heatmap", x, y, z: rows((at) => (cells[at] === 255 ? null : cells[at] / 100)), zmin: 0, zmax: 1, zsmooth: false, showscale: false, hoverongaps: false,
      customdata: k.map((value) => steps.map((step) => `${about.unit} ${step}, k ${short(value)}`)),
      colorscale: colours.map((colour, n) => [n / (colours.length - 1), colour]), hovertemplate: "%{customdata}: %{z:.2f}<extra></extra>",
    },
    { type: "heatmap", x, y, z: rows((at) => (blind[at] ? 1 : null)), colorscale: [[0, "#b2182b"], [1, "#b2182b"]], zsmooth: false, showscale: false, hoverinfo: "skip" },
  ], layout({
    xaxis: { ...axis, range: [x[0], x[x.length - 1]], showgrid: false, showspikes: false },
    yaxis: { range: [y[0], y[y.length - 1]], title: { text: "k", standoff: 8 }, showgrid: false, ticks: "outside", tickcolor: ink("line"), ...ticksOf(y) },
    plot_bgcolor: ink("grid"), uirevision: `${i}`, shapes: cursor(run, to),
  }), PLAIN);
  const figure = document.getElementById("errors");
  figure.removeAllListeners("plotly_click");
  figure.on("plotly_click", ({ points }) => show(nearest(run.moments, steps[points[0].pointIndex[1]])));
  return done;
}

// The energies at the step nearest to the slider's; the axis is that of all steps, so that nothing jumps.
function drawEnergies() {
  const i = state.run, run = runs[i], steps = held[`error.${i}.steps`], k = held[`error.${i}.bands`], size = k.length;
  const at = nearest(Array.from(steps), run.moments[state.at]);
  const rowOf = (name) => { const all = held[`error.${i}.${name}`], row = all.length > size ? at : 0; return Array.from(all.subarray(row * size, (row + 1) * size), (v) => (v > 0 ? v : null)); };
  let top = 0, least = Infinity;
  for (const name of ["target", "error"]) for (const v of held[`error.${i}.${name}`]) { top = Math.max(top, v); if (v > 0) least = Math.min(least, v); }
  least = Math.max(least, top * 1e-8);
  const x = Array.from(k, Math.log10), ends = edges(x), texts = Array.from(k, (v) => `k ${short(v)}`);
  const line = { type: "scatter", mode: "lines+markers", x, customdata: texts, marker: { size: size > 40 ? 4 : 6 } };
  document.getElementById("energies-now").textContent = `${about.unit} ${steps[at]}`;
  const looks = energyLooks();
  document.getElementById("energies-key").replaceChildren(...keyOf(Object.values(looks)));
  return Plotly.react("energies", [
    { ...line, y: rowOf("chance"), mode: "markers", marker: { symbol: "line-ew-open", size: 9, color: ink("quiet") }, hovertemplate: "%{customdata}, by chance %{y:.3g}<extra></extra>" },
    { ...line, y: rowOf("target"), line: { ...looks.target[1], width: 2 }, hovertemplate: "%{customdata}, target %{y:.3g}<extra></extra>" },
    { ...line, y: rowOf("error"), line: { ...looks.error[1], width: 2 }, hovertemplate: "%{customdata}, error %{y:.3g}<extra></extra>" },
  ], layout({
    xaxis: { range: [ends[0], ends[ends.length - 1]], title: { text: "k", standoff: 8 }, ticks: "outside", tickcolor: ink("line"), ...ticksOf(ends) },
    yaxis: { ...logTicks([least, top]), range: [Math.log10(least) - 0.2, Math.log10(top || 1) + 0.2], title: { text: "energy", standoff: 6 } },
    uirevision: `${i}`,
  }), PLAIN);
}

function energyLooks() {
  return {
    target: ["target", { color: ink("ink"), dash: "solid" }], error: ["error: target − output", { color: ink("accent"), dash: "6px,2px" }],
    chance: ["error by chance (outputs shuffled over the points)", { color: ink("quiet"), dash: "1.5px,2px" }],
  };
}

// Up to which k the relative error is below a threshold; bars where it has standard errors.
function addLearned(traces, i, to, yaxis, axis) {
  const steps = Array.from(held[`error.${i}.steps`]), lines = learnedOf(i);
  about.learned.forEach((threshold, n) => {
    const [value, low, high] = lines[n], sure = value.every((v, at) => !Number.isFinite(v) || (low[at] === v && high[at] === v));
    traces.push({
      type: "scatter", mode: steps.length > 40 ? "lines" : "lines+markers", x: steps.map(to), customdata: steps, yaxis, name: `under ${threshold}`,
      y: value.map((v) => (Number.isFinite(v) ? v : null)), line: { ...metricLook(n), width: 1.8, shape: "hv" }, marker: { size: 4 },
      ...(sure ? {} : { error_y: { type: "data", symmetric: false, array: value.map((v, at) => high[at] - v || 0), arrayminus: value.map((v, at) => v - low[at] || 0), thickness: 1, width: 2 } }),
      hovertemplate: `error under ${threshold} up to k %{y:.4g}<extra></extra>`,
    });
  });
  const k = held[`error.${i}.k`];
  Object.assign(axis, logTicks([k[0], k[k.length - 1]]), { range: [Math.log10(k[0]) - 0.08, Math.log10(k[k.length - 1]) + 0.08] });
}

// For each threshold what is learned over steps, with the ends of its interval; NaN where nothing is.
function learnedOf(i) {
  const all = held[`error.${i}.learned`], size = held[`error.${i}.steps`].length;
  return about.learned.map((_, n) => [0, 1, 2].map((line) => Array.from(all.subarray((3 * n + line) * size, (3 * n + line + 1) * size))));
}

function learnedKey() {
  return keyOf(about.learned.map((threshold, n) => [`relative error under ${threshold} up to this k`, metricLook(n)]));
}

function tellLearned(run, step) {
  const i = runs.indexOf(run), at = nearest(Array.from(held[`error.${i}.steps`]), step);
  return about.learned.map((threshold, n) => [threshold, learnedOf(i)[n][0][at]])
    .map(([threshold, k]) => (Number.isFinite(k) ? `error under ${threshold} up to k ${short(k)}` : `error nowhere under ${threshold}`)).join(" · ");
}

// Powers of ten, and 2 and 5 of them where there are few.
function ticksOf(y) {
  const low = y[0], high = y[y.length - 1];
  if (high - low > 3) return decades(low, high);
  const tickvals = [];
  for (let tick = Math.floor(low); tick <= high; tick++) for (const times of [1, 2, 5]) tickvals.push(tick + Math.log10(times));
  const inside = tickvals.filter((tick) => tick >= low && tick <= high);
  return { tickvals: inside, ticktext: inside.map((tick) => short(10 ** tick)) };
}
