// The figures that follow the slider: curves by layer, and the map of layer by frequency.
const FEW = 12; // layers that a reader can tell apart as lines

function shownLayers(run) {
  const all = run.layers.map((_, i) => i);
  if (state.all || all.length <= FEW) return all;
  const some = new Set(Array.from({ length: FEW }, (_, i) => Math.round((i * (all.length - 1)) / (FEW - 1))));
  if (state.focus >= 0) some.add(state.focus);
  return all.filter((i) => some.has(i));
}

// Of very many curves, points that move a line by less than a pixel are left out.
function thinned(x, y, step) {
  const kept = { x: [], y: [] };
  for (let i = 0; i < x.length; i++) {
    const far = Math.abs(y[i] - kept.y[kept.y.length - 1]) > step;
    if (i === 0 || i === x.length - 1 || far) {
      if (far && i > 0 && kept.x[kept.x.length - 1] !== x[i - 1]) { kept.x.push(x[i - 1]); kept.y.push(y[i - 1]); }
      kept.x.push(x[i]); kept.y.push(y[i]);
    }
  }
  return kept;
}

// Lines of one look are one trace, with gaps: a trace for each of a hundred layers would be too slow to play.
class Lines {
  constructor() { this.looks = new Map(); }
  add(look, x, y) {
    const key = JSON.stringify(look);
    if (!this.looks.has(key)) this.looks.set(key, { type: "scatter", mode: "lines", ...look, x: [], y: [] });
    const trace = this.looks.get(key);
    for (let i = 0; i < x.length; i++) { trace.x.push(x[i]); trace.y.push(y[i]); }
    trace.x.push(null); trace.y.push(null);
  }
  get traces() { return [...this.looks.values()]; }
}

function drawSpectra() {
  const run = runs[state.run], scale = state.scale, extent = extentOf(run, scale), times = perOctave();
  const layers = shownLayers(run), focus = state.focus, many = layers.length > FEW + 1;
  const lines = new Lines(), under = new Lines(), peaks = { x: [], y: [], color: [], symbol: [], text: [] };
  const quiet = ink("quiet"), still = { hoverinfo: "skip" };
  const unresolved = { ...still, line: { color: ink("faint"), width: 1.5 } };
  const chance = { ...still, line: { color: quiet, width: focus < 0 ? 0.8 : 1.6, dash: "5px,3px" } };
  const stride = Math.ceil(layers.length / FEW), rough = (y) => (many ? (extent.top * times) / 200 : 0) * y;
  let last = -Infinity, floor = NaN;
  layers.forEach((layer, nth) => {
    const record = recordOf(run, scale, state.at, layer);
    if (record < 0) return;
    const curves = curvesOf(record), x = toAxis(curves.x), density = Array.from(curves.density, (v) => v * times);
    const limit = Math.log2(held.resolution[record]), mine = focus < 0 || focus === layer;
    let end = 0;
    while (end < x.length && curves.x[end] <= limit) end++;
    const place = many ? Math.round((layer / run.layers.length) * 20) / 20 * (run.layers.length - 1) : layer;
    const colour = colourOf(focus === layer ? layer : place, run.layers.length), name = label(run.layers[layer]);
    const look = { opacity: mine ? 1 : 0.22, line: { color: colour, width: focus === layer ? 3 : many ? 1.2 : 2, dash: many ? "solid" : DASHES[layer % DASHES.length] } };
    Object.assign(look, many && focus !== layer ? still : { hovertemplate: `${name}<br>%{x:.4g}: %{y:.4f}<extra></extra>` });
    for (const [y, yaxis, step] of [[density, "y", rough(1)], [curves.lfr, "y2", many ? 0.005 : 0]]) {
      const clear = many ? thinned(x.slice(0, end), y.slice(0, end), step) : { x: x.slice(0, end), y: y.slice(0, end) };
      lines.add({ ...look, yaxis }, clear.x, clear.y);
      if (!mine) continue;
      const from = Math.max(0, end - 1), rest = many ? thinned(x.slice(from), y.slice(from), step) : { x: x.slice(from), y: y.slice(from) };
      under.add({ ...unresolved, yaxis }, rest.x, rest.y);
      if (!many || focus === layer || (focus < 0 && nth % stride === 0)) under.add({ ...chance, yaxis }, x, yaxis === "y" ? curves.chanceDensity.map((v) => v * times) : curves.chance);
    }
    if (mine) { last = Math.max(last, limit); floor = held.floor[record]; }
    const top = density.indexOf(Math.max(...density));
    peaks.x.push(x[top]); peaks.y.push(density[top]); peaks.color.push(mine ? colour : ink("faint"));
    peaks.symbol.push((many ? "circle" : SYMBOLS[layer % SYMBOLS.length]) + (top < end ? "" : "-open")); peaks.text.push(name);
  });
  const ends = toAxis([extent.low, extent.high]);
  under.add({ ...still, yaxis: "y2", line: { color: quiet, width: 1.5, dash: "1.5px,3px" } }, ends, [floor, floor]);
  const tops = {
    type: "scatter", mode: "markers", x: peaks.x, y: peaks.y, text: peaks.text, marker: { color: peaks.color, symbol: peaks.symbol, size: many ? 6 : 9 },
    hovertemplate: "%{text}<br>highest at %{x:.4g}<extra></extra>",
  };
  const begin = toAxis([Math.min(Math.max(last, extent.low), extent.high)])[0];
  const shade = { type: "rect", xref: "x", x0: begin, x1: ends[1], yref: "paper", layer: "below", line: { width: 0 }, fillcolor: ink("shade") };
  return Plotly.react("spectra", [...under.traces, ...lines.traces, tops], layout({
    xaxis: frequencyAxis(extent, { anchor: "y2" }),
    yaxis: { domain: [0.42, 1], range: [Math.min(0, extent.least * times) * 1.05, extent.room * 1.06 * times], title: { text: narrow.matches ? "RDF per octave" : `RDF: energy per octave of ${state.axis === "k" ? "k" : "1/δ"}`, standoff: 6 } },
    yaxis2: { domain: [0, 0.36], range: [0, extent.lfr * 1.03], title: { text: "LFR", standoff: 6 } },
    shapes: [{ ...shade, y0: 0.42, y1: 1 }, { ...shade, y0: 0, y1: 0.36 }],
    uirevision: `${state.run}${state.scale}${state.axis}`,
  }), PLAIN);
}

// The map's axis is linear in log10, with ticks of its own: even bricks are drawn many times faster.
function drawMap() {
  const run = runs[state.run], scale = state.scale, extent = extentOf(run, scale), times = perOctave();
  const wide = 140, power = (state.axis === "k" ? 0.5 : 1) * Math.log10(2), count = run.layers.length, few = count <= FEW;
  const places = Float64Array.from({ length: wide }, (_, i) => extent.low + ((extent.high - extent.low) * i) / (wide - 1));
  const z = [], median = { x: [], y: [], customdata: [] }, limit = { x: [], y: [], customdata: [] };
  const mark = (line, value, layer) => {
    if (!(value > 0)) return;
    line.x.push(Math.log2(value) * power); line.y.push(layer + 1); line.customdata.push(short(toAxis([Math.log2(value)])[0]));
  };
  for (let layer = 0; layer < count; layer++) {
    const record = recordOf(run, scale, state.at, layer);
    if (record < 0) { z.push(new Array(wide).fill(null)); continue; }
    const curves = curvesOf(record);
    z.push(Array.from(resample(curves.x, curves.density, places), (v) => (Number.isNaN(v) ? null : v * times)));
    mark(median, held.median[record], layer);
    mark(limit, held.resolution[record], layer);
  }
  const key = `${state.run} ${scale} ${state.axis}`;
  if (drawMap.key !== key) {
    const named = toAxis(places).map(short);
    drawMap.texts = run.layers.map((name) => named.map((value) => `${label(name)}<br>${value}`));
    drawMap.key = key;
  }
  const line = { type: "scatter", mode: few ? "lines+markers" : "lines" }, { title } = frequencyAxis(extent);
  const colours = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"]; // Cividis
  document.getElementById("map-bar").style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  document.getElementById("map-top").textContent = `${short(Number((extent.top * times).toPrecision(2)))} per octave`;
  return Plotly.react("map", [
    {
      type: "heatmap", x: Array.from(places, (v) => v * power), y: run.layers.map((_, i) => i + 1), z, customdata: drawMap.texts, zmin: 0, zmax: extent.top * times,
      colorscale: colours.map((colour, i) => [i / (colours.length - 1), colour]), zsmooth: false, showscale: false, hovertemplate: "%{customdata}: %{z:.4f}<extra></extra>",
    },
    { ...line, ...median, line: { color: "#ffffff", width: 2 }, marker: { size: 7, color: "#ffffff", line: { color: "#000000", width: 1 } }, hovertemplate: "median %{customdata}<extra></extra>" },
    { ...line, mode: few ? "markers" : "lines", ...limit, line: { color: "#ffffff", width: 1.5, dash: "1.5px,3px" }, marker: { size: 6, symbol: "circle-open", color: "#ffffff", line: { width: 1.5 } }, hovertemplate: "resolved up to %{customdata}<extra></extra>" },
  ], layout({
    xaxis: { range: [extent.low * power, extent.high * power], title, showgrid: false, ticks: "outside", tickcolor: ink("line"), ...decades(extent.low * power, extent.high * power) },
    yaxis: {
      range: [0.5, count + 0.5], showgrid: false, title: { text: narrow.matches ? "" : few ? "layer" : "layer, input to output", standoff: 8 },
      ...(few ? { tickvals: run.layers.map((_, i) => i + 1), ticktext: run.layers.map((name) => label(name, narrow.matches ? 14 : 22)) } : {}),
    },
    uirevision: `${state.run}${state.scale}${state.axis}`,
  }), PLAIN);
}

function decades(low, high) {
  const step = high - low > 8 ? 2 : 1, tickvals = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) tickvals.push(tick);
  return { tickvals, ticktext: tickvals.map((tick) => String(Number((10 ** tick).toPrecision(3)))) };
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
