// The map of the error by frequency over training, of runs that measured it.
function edges(places) {
  const inner = places.slice(1).map((place, i) => (place + places[i]) / 2), end = places.length - 1;
  const first = inner.length ? 2 * places[0] - inner[0] : places[0] - 0.5, last = inner.length ? 2 * places[end] - inner[end - 1] : places[end] + 0.5;
  return [first, ...inner, last];
}

function drawErrors() {
  const i = state.run, run = runs[i], steps = Array.from(held[`error.${i}.steps`]), k = Array.from(held[`error.${i}.k`]);
  const cells = held[`error.${i}.cells`], blind = held[`error.${i}.blind`], { to, axis } = stepAxis({ ...run, steps });
  const rows = (value) => k.map((_, row) => steps.map((_, at) => value(row * steps.length + at)));
  const x = edges(steps.map(to)), y = edges(k.map(Math.log10));
  const colours = [...VIRIDIS].reverse();
  document.getElementById("errors-bar").style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  return Plotly.react("errors", [
    {
      type: "heatmap", x, y, z: rows((at) => (cells[at] === 255 ? null : cells[at] / 100)), zmin: 0, zmax: 1, zsmooth: false, showscale: false, hoverongaps: false,
      customdata: k.map((value) => steps.map((step) => `${about.unit} ${step}, k ${short(value)}`)),
      colorscale: colours.map((colour, n) => [n / (colours.length - 1), colour]), hovertemplate: "%{customdata}: %{z:.2f}<extra></extra>",
    },
    { type: "heatmap", x, y, z: rows((at) => (blind[at] ? 1 : null)), colorscale: [[0, "#b2182b"], [1, "#b2182b"]], zsmooth: false, showscale: false, hoverinfo: "skip" },
  ], layout({
    xaxis: { ...axis, range: [x[0], x[x.length - 1]], showgrid: false, showspikes: false },
    yaxis: { range: [y[0], y[y.length - 1]], title: { text: "k", standoff: 8 }, showgrid: false, ticks: "outside", tickcolor: ink("line"), ...ticksOf(y) },
    plot_bgcolor: ink("grid"), uirevision: `${i}`,
  }), PLAIN);
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
