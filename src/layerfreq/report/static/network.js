// Sections that take the network: frequencies along an axis, image frequency, suspects. A page has those that some run has.
function rowsOf(name, layers) {
  const all = held[name], size = all.length / layers;
  return Array.from({ length: layers }, (_, layer) => Array.from(all.subarray(layer * size, (layer + 1) * size), (v) => (Number.isFinite(v) ? v : null)));
}

function lineOf(layer, layers) {
  const few = layers <= FEW;
  return { color: colourOf(layer, layers), width: few ? 2 : 1.2, dash: few ? DASHES[layer % DASHES.length] : "solid" };
}

// Which layer is which, of many the first and the last; and what is chance.
function layersKey(layers, chance) {
  const named = layers.length <= FEW ? layers.map((_, i) => i) : [0, layers.length - 1];
  return [...keyOf(named.map((i) => [layers[i], lineOf(i, layers.length)])), ...keyOf([[chance, { color: ink("quiet"), dash: "5px,3px" }]])];
}

// What the run that is chosen has of each section.
function showSections() {
  for (const part of document.querySelectorAll("[data-kind]")) part.hidden = !(part.dataset.kind in runs[state.run].sections);
  for (const part of document.querySelectorAll("[data-run]")) part.hidden = Number(part.dataset.run) !== state.run;
  redraw(...["axis", "images", "suspects"].filter((kind) => kind in runs[state.run].sections));
}

function drawAxis() {
  const i = state.run, run = runs[i], { layers } = run.sections.axis, steps = Array.from(held[`axis.${i}.steps`]), { to, axis } = stepAxis(run);
  const traces = [], few = layers.length <= FEW, one = steps.length === 1;
  const part = (name) => rowsOf(`axis.${i}.${name}`, layers.length);
  for (const [name, yaxis] of [["focus", "y"], ["centroid", "y2"]]) {
    const values = part(name), chance = part(`chance_${name}`);
    const add = (x, y, text, line, says) => traces.push({
      type: "scatter", mode: says || steps.length > 40 ? "lines" : "lines+markers", x, y, yaxis, line, marker: { size: 4 }, customdata: text,
      hovertemplate: `%{customdata}: %{y:.3g}${says ?? ""}<extra></extra>`,
    });
    if (one) { // nothing moves: layer by layer
      const x = layers.map((_, layer) => layer + 1), text = layers.map((layer) => label(layer));
      add(x, values.map(([v]) => v), text, { color: ink("accent"), width: 2 });
      add(x, chance.map(([v]) => v), text, { color: ink("quiet"), width: 1.2, dash: "5px,3px" }, " (chance)");
      continue;
    }
    layers.forEach((layer, at) => {
      const text = steps.map((step) => `${label(layer)}<br>${about.unit} ${step}`);
      add(steps.map(to), values[at], text, lineOf(at, layers.length));
      if (few) add(steps.map(to), chance[at], text, { color: colourOf(at, layers.length), width: 1, dash: "5px,3px" }, " (chance)");
    });
  }
  document.getElementById("axis-key").replaceChildren(...(one ? keyOf([["chance: positions shuffled", { color: ink("quiet"), dash: "5px,3px" }]]) : layersKey(layers, "chance: positions shuffled")));
  return Plotly.react("axis", traces, layout({
    xaxis: { ...(one ? { title: { text: "layer, input to output", standoff: 8 }, dtick: few ? 1 : undefined } : { ...axis, showspikes: false }), anchor: "y2" },
    yaxis: { domain: [0.55, 1], rangemode: "tozero", title: { text: "focus", standoff: 6 } },
    yaxis2: { domain: [0, 0.45], range: [0, 0.5], title: { text: "centroid (1/position)", standoff: 6 } },
    shapes: one ? [] : cursor(run, to), uirevision: `${i}`,
  }), PLAIN);
}

function drawImages() {
  const i = state.run, { classes, size: [h, w] } = runs[i].sections.images, loss = held[`images.${i}.loss`], axes = {}, traces = [], annotations = [];
  const columns = Math.min(classes.length, narrow.matches ? 3 : 5), rows = Math.ceil(classes.length / columns), top = Math.max(...Array.from(loss, Math.abs)) || 1;
  const colours = [[0, "#2166ac"], [0.5, ink("card")], [1, "#b2182b"]];
  classes.forEach((name, at) => {
    const n = at ? at + 1 : "", left = (at % columns) / columns, up = 1 - Math.floor(at / columns) / rows;
    const z = Array.from({ length: h }, (_, row) => Array.from(loss.subarray((at * h + row) * w, (at * h + row + 1) * w)));
    const hide = { showline: false, showgrid: false, zeroline: false, showticklabels: false, ticks: "", fixedrange: true };
    axes[`xaxis${n}`] = { ...hide, domain: [left, left + 0.92 / columns], anchor: `y${n}`, constrain: "domain" };
    axes[`yaxis${n}`] = { ...hide, domain: [up - 1 / rows, up - 0.16 / rows], anchor: `x${n}`, scaleanchor: `x${n}`, constrain: "domain", autorange: "reversed" };
    traces.push({
      type: "heatmap", z, x0: -Math.floor(w / 2), y0: -Math.floor(h / 2), xaxis: `x${n}`, yaxis: `y${n}`, zmin: -top, zmax: top, colorscale: colours, showscale: false,
      hovertemplate: `class ${name}<br>frequency (%{y}, %{x}): %{z:.3g}<extra></extra>`,
    });
    annotations.push({ text: `class ${name}`, xref: "paper", yref: "paper", x: left + 0.46 / columns, y: up - 0.14 / rows, xanchor: "center", yanchor: "bottom", showarrow: false });
  });
  document.getElementById("images").style.height = `${rows * (narrow.matches ? 130 : 220)}px`;
  document.getElementById("images-key").replaceChildren(el("li", { class: "bar" }, `−${short(Number(top.toPrecision(2)))}`, el("i", { style: `background: linear-gradient(to right, ${colours.map(([, colour]) => colour).join(", ")})` }), `${short(Number(top.toPrecision(2)))} rise of the loss`));
  return Plotly.react("images", traces, layout({ ...axes, annotations, margin: { l: 4, r: 4, t: 4, b: 4 }, uirevision: `${i}` }), PLAIN);
}

function drawSuspects() {
  const i = state.run, { layers } = runs[i].sections.suspects, ranks = Array.from(held[`suspects.${i}.ranks`]), traces = [], few = layers.length <= FEW;
  const score = rowsOf(`suspects.${i}.score`, layers.length), chance = rowsOf(`suspects.${i}.chance`, layers.length);
  layers.forEach((layer, at) => {
    const add = (y, line, says) => traces.push({ type: "scatter", mode: "lines", x: ranks, y, line, hovertemplate: `${label(layer)}${says}<br>rank %{x}: %{y:.3g}<extra></extra>` });
    add(score[at], lineOf(at, layers.length), "");
    if (few || at === layers.length - 1) add(chance[at], { color: colourOf(at, layers.length), width: 1, dash: "5px,3px" }, " (chance)");
  });
  document.getElementById("suspects-key").replaceChildren(...layersKey(layers, "chance: another point's target"));
  return Plotly.react("suspects", traces, layout({
    xaxis: { type: "log", title: { text: "points, the most suspicious first", standoff: 8 }, dtick: 1 }, yaxis: { rangemode: "tozero", title: { text: "squared residual", standoff: 6 } }, uirevision: `${i}`,
  }), PLAIN);
}
