// The figures that follow the slider: curves by layer, and the map of layer by frequency.
const FEW = 12; // layers that a reader can tell apart as lines

function shownLayers(run) {
  const all = run.layers.map((_, i) => i);
  if (state.all || all.length <= FEW) return all;
  const some = new Set(Array.from({ length: FEW }, (_, i) => Math.round((i * (all.length - 1)) / (FEW - 1))));
  if (state.focus >= 0) some.add(state.focus);
  return all.filter((i) => some.has(i));
}

function joined() {
  const line = { x: [], y: [] };
  line.add = (x, y) => { line.x.push(...x, null); line.y.push(...y, null); };
  return line;
}

// Thins the points of a curve where very many curves are drawn: a pixel holds no more.
function drawSpectra() {
  const run = runs[state.run], scale = state.scale, extent = extentOf(run, scale), times = perOctave();
  const layers = shownLayers(run), focus = state.focus;
  const traces = [], peaks = { x: [], y: [], color: [], symbol: [], open: [], text: [] };
  const unresolved = [joined(), joined()], chance = [joined(), joined()];
  let last = -Infinity, floor = NaN;
  for (const layer of layers) {
    const record = recordOf(run, scale, state.at, layer);
    if (record < 0) continue;
    const curves = curvesOf(record), x = toAxis(curves.x);
    const density = Array.from(curves.density, (v) => v * times), lfr = Array.from(curves.lfr);
    const limit = Math.log2(held.resolution[record]);
    const mine = focus < 0 || focus === layer;
    let end = 0;
    while (end < x.length && curves.x[end] <= limit) end++;
    const colour = colourOf(layer, run.layers.length), name = label(run.layers[layer]);
    const common = {
      type: "scatter", mode: "lines", name, opacity: mine ? 1 : 0.22,
      line: { color: colour, width: focus === layer ? 3 : state.all && layers.length > FEW ? 1.2 : 2, dash: DASHES[layer % DASHES.length] },
      hovertemplate: `${name}<br>%{x:.4g}: %{y:.4f}<extra></extra>`,
    };
    traces.push({ ...common, x: x.slice(0, end), y: density.slice(0, end) });
    traces.push({ ...common, x: x.slice(0, end), y: lfr.slice(0, end), yaxis: "y2" });
    if (mine) {
      const from = Math.max(0, end - 1);
      unresolved[0].add(x.slice(from), density.slice(from));
      unresolved[1].add(x.slice(from), lfr.slice(from));
      chance[0].add(x, curves.chanceDensity.map((v) => v * times));
      chance[1].add(x, curves.chance);
      last = Math.max(last, limit);
      floor = held.floor[record];
    }
    const top = density.indexOf(Math.max(...density));
    peaks.x.push(x[top]); peaks.y.push(density[top]); peaks.color.push(mine ? colour : ink("faint"));
    peaks.symbol.push(SYMBOLS[layer % SYMBOLS.length] + (top < end ? "" : "-open")); peaks.text.push(name);
  }
  const quiet = ink("quiet"), still = { type: "scatter", mode: "lines", hoverinfo: "skip" };
  for (const i of [0, 1]) {
    const at = { yaxis: i ? "y2" : "y" };
    traces.push({ ...still, ...at, x: unresolved[i].x, y: unresolved[i].y, line: { color: ink("faint"), width: 1.5 } });
    traces.push({ ...still, ...at, x: chance[i].x, y: chance[i].y, line: { color: quiet, width: focus < 0 ? 0.8 : 1.6, dash: "5px,3px" } });
  }
  const ends = toAxis([extent.low, extent.high]);
  traces.push({ ...still, yaxis: "y2", x: ends, y: [floor, floor], line: { color: quiet, width: 1.5, dash: "1.5px,3px" } });
  traces.push({
    type: "scatter", mode: "markers", x: peaks.x, y: peaks.y, text: peaks.text, marker: { color: peaks.color, symbol: peaks.symbol, size: 9 },
    hovertemplate: "%{text}<br>highest at %{x:.4g}<extra></extra>",
  });
  const begin = toAxis([Math.min(Math.max(last, extent.low), extent.high)])[0];
  const shade = { type: "rect", xref: "x", x0: begin, x1: ends[1], yref: "paper", layer: "below", line: { width: 0 }, fillcolor: ink("shade") };
  return Plotly.react("spectra", traces, layout({
    xaxis: frequencyAxis(extent, { anchor: "y2" }),
    yaxis: { domain: [0.42, 1], range: [Math.min(0, extent.least * times) * 1.05, extent.room * 1.06 * times], title: { text: narrow.matches ? "RDF per octave" : `RDF: energy per octave of ${state.axis === "k" ? "k" : "1/δ"}`, standoff: 6 } },
    yaxis2: { domain: [0, 0.36], range: [0, extent.lfr * 1.03], title: { text: "LFR", standoff: 6 } },
    shapes: [{ ...shade, y0: 0.42, y1: 1 }, { ...shade, y0: 0, y1: 0.36 }],
    uirevision: `${state.run}${state.scale}${state.axis}`,
  }), PLAIN);
}

function drawMap() {
  const run = runs[state.run], scale = state.scale, extent = extentOf(run, scale), times = perOctave();
  const wide = 140, places = Float64Array.from({ length: wide }, (_, i) => extent.low + ((extent.high - extent.low) * i) / (wide - 1));
  const z = [], median = { x: [], y: [] }, limit = { x: [], y: [] };
  for (let layer = 0; layer < run.layers.length; layer++) {
    const record = recordOf(run, scale, state.at, layer);
    if (record < 0) { z.push(new Array(wide).fill(null)); continue; }
    const curves = curvesOf(record);
    z.push(Array.from(resample(curves.x, curves.density, places), (v) => (Number.isNaN(v) ? null : v * times)));
    if (Number.isFinite(held.median[record])) { median.x.push(...toAxis([Math.log2(held.median[record])])); median.y.push(layer + 1); }
    if (held.resolution[record] > 0) { limit.x.push(...toAxis([Math.log2(held.resolution[record])])); limit.y.push(layer + 1); }
  }
  const count = run.layers.length, few = count <= FEW;
  const line = { type: "scatter", mode: few ? "lines+markers" : "lines" };
  return Plotly.react("map", [
    {
      type: "heatmap", x: toAxis(places), y: run.layers.map((_, i) => i + 1), z, colorscale: "Cividis", zmin: 0, zmax: extent.top * times, zsmooth: false,
      customdata: run.layers.map((name) => new Array(wide).fill(label(name))), hovertemplate: "%{customdata}<br>%{x:.4g}: %{z:.4f}<extra></extra>",
      colorbar: { title: { text: narrow.matches ? "" : "per octave", side: "right" }, thickness: 12, outlinewidth: 0, len: 1, tickfont: { size: 11 } },
    },
    { ...line, ...median, line: { color: "#ffffff", width: 2 }, marker: { size: 7, color: "#ffffff", line: { color: "#000000", width: 1 } }, hovertemplate: "median %{x:.4g}<extra></extra>" },
    { ...line, mode: few ? "markers" : "lines", ...limit, line: { color: "#ffffff", width: 1.5, dash: "1.5px,3px" }, marker: { size: 6, symbol: "circle-open", color: "#ffffff", line: { width: 1.5 } }, hovertemplate: "resolved up to %{x:.4g}<extra></extra>" },
  ], layout({
    xaxis: frequencyAxis(extent, { showgrid: false }),
    yaxis: {
      range: [0.5, count + 0.5], showgrid: false, title: { text: narrow.matches ? "" : few ? "layer" : "layer, input to output", standoff: 8 },
      ...(few ? { tickvals: run.layers.map((_, i) => i + 1), ticktext: run.layers.map((name) => label(name, narrow.matches ? 14 : 22)) } : {}),
    },
    uirevision: `${state.run}${state.scale}${state.axis}`,
  }), PLAIN);
}

// The legend is made of buttons: one brings its layer out, once more puts it back.
function drawLegend() {
  const run = runs[state.run], layers = shownLayers(run), box = document.getElementById("legend");
  const colours = Array.from({ length: 12 }, (_, i) => colourOf(i, 12)).join(", ");
  const many = run.layers.length > FEW;
  const parts = [];
  if (many) {
    const bar = el("i");
    bar.style.background = `linear-gradient(to right, ${colours})`;
    parts.push(el("span", { class: "bar" }, "layer 1", bar, `layer ${run.layers.length}`));
  }
  if (!many || !state.all) for (const layer of layers) {
    const button = el("button", { type: "button", "aria-pressed": String(state.focus === layer), "data-layer": String(layer) });
    button.append(swatch(layer, run.layers.length), bdi(run.layers[layer]));
    parts.push(button);
  }
  const active = document.activeElement?.closest?.("#legend button")?.dataset.layer;
  box.replaceChildren(...parts);
  if (active !== undefined) box.querySelector(`[data-layer="${active}"]`)?.focus();
}

function swatch(layer, layers) {
  return stroke(colourOf(layer, layers), DASHES[layer % DASHES.length]);
}

function stroke(colour, dash) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("width", "26"); svg.setAttribute("height", "8"); svg.setAttribute("aria-hidden", "true"); svg.style.flex = "none";
  path.setAttribute("d", "M0 4H26"); path.setAttribute("stroke", colour); path.setAttribute("stroke-width", "3");
  if (dash !== "solid") path.setAttribute("stroke-dasharray", dash.replaceAll("px", ""));
  svg.append(path);
  return svg;
}
