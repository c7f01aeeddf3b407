// What became of the weights that a run kept, by layer: their distance to the last ones, and whether neurons align.
function drawWeights() {
  const i = state.run, run = runs[i], layers = run.kept, { to, axis } = stepAxis(run), steps = Array.from(held[`kept.${i}.steps`]);
  const rowOf = (name, layer) => Array.from(held[`kept.${i}.${name}`].subarray(layer * steps.length, (layer + 1) * steps.length));
  const aligned = layers.map((_, layer) => rowOf("similarity", layer).some(Number.isFinite)), two = aligned.some(Boolean);
  const few = layers.length <= FEW, traces = [];
  const line = (y, yaxis, look, name, more) => traces.push({
    type: "scatter", mode: steps.length > 40 ? "lines" : "lines+markers", connectgaps: true, x: steps.map(to), customdata: steps, yaxis, marker: { size: 4 }, line: look, y, ...more,
    hovertemplate: `${name}<br>${about.unit} %{customdata}: %{y:.3g}<extra></extra>`,
  });
  const look = (layer) => ({ color: colourOf(layer, layers.length), width: few ? 2 : 1.2, dash: few ? DASHES[layer % DASHES.length] : "solid" });
  const chance = { color: ink("quiet"), width: 1.2, dash: "5px,3px" };
  layers.forEach((name, layer) => {
    line(rowOf("distance", layer).map((v) => (v > 0 ? v : null)), "y", look(layer), label(name));
    if (!aligned[layer]) return;
    line(rowOf("similarity", layer).map((v) => (Number.isFinite(v) ? v : null)), "y2", look(layer), label(name));
    if (few) line(steps.map(() => held[`kept.${i}.chance`][layer]), "y2", { ...chance, color: colourOf(layer, layers.length), width: 1 }, `${label(name)}, random directions`, { mode: "lines" });
  });
  line(Array.from(held[`kept.${i}.walk`], (v) => (v > 0 ? v : null)), "y", chance, "a random walk", { mode: "lines" });
  const shown = traces.filter((trace) => trace.yaxis === "y").flatMap((trace) => trace.y).filter((v) => v > 0);
  document.getElementById("weights-key").replaceChildren(
    ...(few ? keyOf(layers.map((name, layer) => [name, look(layer)])) : keyOf([[layers[0], look(0)], [layers[layers.length - 1], look(layers.length - 1)]])),
    ...keyOf([["by chance: a random walk, random directions", chance]]),
  );
  return Plotly.react("weights", traces, layout({
    xaxis: { ...axis, showspikes: false, anchor: two ? "y2" : "y" },
    yaxis: { domain: two ? [0.46, 1] : [0, 1], ...logTicks(shown), title: { text: "distance left", standoff: 6 } },
    ...(two ? { yaxis2: { domain: [0, 0.4], range: [0, 1.03], title: { text: "mean |cosine|", standoff: 6 } } } : {}),
    shapes: cursor(run, to), uirevision: `${i}`,
  }), PLAIN);
}
