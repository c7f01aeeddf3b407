// Training: medians by layer, loss and accuracy on one axis of steps; and runs side by side.
const LOSS = /loss|error|nll|mse/i, SCORE = /acc/i;

// Rare late steps (1, 2, 4, ... 1000) are spread by a logarithm of 1 + step; even ones are left as they are.
function stepAxis(run) {
  const steps = run.moments, end = Math.max(...steps, ...(run.series.step ?? []).slice(-1), 1);
  const middle = steps.length ? steps[steps.length >> 1] : end;
  const bent = steps.length > 5 && end > 20 * Math.max(1, middle);
  const to = bent ? (step) => Math.log10(1 + step) : (step) => step;
  const axis = { title: { text: about.unit, standoff: 8 }, range: [to(0) - 0.02 * to(end), to(end) * 1.02], showspikes: true, spikemode: "across", spikesnap: "hovered data", spikethickness: 1, spikecolor: ink("quiet"), spikedash: "solid" };
  if (bent) {
    const ticks = [0];
    for (let tick = 1; tick <= end; tick *= 10) ticks.push(tick);
    Object.assign(axis, { tickvals: ticks.map(to), ticktext: ticks.map(String) });
  }
  return { to, axis };
}

function groupsOf(run) {
  const names = run.metrics.filter((name) => name !== "step");
  const losses = names.filter((name) => LOSS.test(name)), scores = names.filter((name) => SCORE.test(name) && !LOSS.test(name));
  const groups = [["loss", losses], ["accuracy", scores]].filter(([, found]) => found.length);
  return groups.length || !names.length ? groups : [["metrics", names.slice(0, 2)]];
}

function drawHistory() {
  const run = runs[state.run], { to, axis } = stepAxis(run), groups = groupsOf(run), own = { median: `median ${state.axis === "k" ? "k" : "1/δ"}`, learned: "learned k" };
  const panels = [...(run.steps.length ? ["median"] : []), ...(run.errors ? ["learned"] : []), ...groups.map(([name]) => name)];
  if (!panels.length) return null;
  const weights = panels.map((name) => (name === "median" ? 1.7 : 1)), sum = weights.reduce((a, b) => a + b, 0), gap = 0.06;
  const axes = {}, traces = [];
  let top = 1;
  panels.forEach((name, i) => {
    const height = (weights[i] / sum) * (1 - gap * (panels.length - 1)), key = i ? `yaxis${i + 1}` : "yaxis";
    axes[key] = { domain: [Math.max(0, top - height), top], title: { text: own[name] ?? name, standoff: 6 } };
    top -= height + gap;
    if (name === "median") { addMedians(traces, run, to); Object.assign(axes[key], logTicks(traces.flatMap((trace) => trace.y))); }
    else if (name === "learned") addLearned(traces, state.run, to, `y${i ? i + 1 : ""}`, axes[key]);
    else addMetrics(traces, run, groups.find(([group]) => group === name)[1], to, `y${i ? i + 1 : ""}`, name, axes[key]);
  });
  axes.xaxis = { ...axis, anchor: panels.length > 1 ? `y${panels.length}` : "y" };
  const done = Plotly.react("history", traces, layout({
    ...axes, hovermode: shownLayers(run).length <= 8 ? "x" : "closest", hoversubplots: "axis", shapes: cursor(run, to), uirevision: `${state.run}${state.scale}${state.axis}`,
  }), PLAIN);
  document.getElementById("history-key").replaceChildren(...(run.errors ? learnedKey() : []), ...keyOf(groups.filter(([, names]) => names.length > 1).flatMap(([, names]) => names.map((name, i) => [name, metricLook(i)]))));
  const figure = document.getElementById("history"), steps = run.series.step ?? [];
  tell(run, run.moments.length ? run.moments[state.at] : steps[steps.length - 1]);
  figure.removeAllListeners("plotly_hover");
  figure.removeAllListeners("plotly_click");
  figure.on("plotly_hover", (event) => tell(run, event.points[0].customdata));
  figure.on("plotly_click", (event) => show(nearest(run.moments, event.points[0].customdata)));
  return done;
}

function addMedians(traces, run, to) {
  const layers = shownLayers(run), many = layers.length > FEW + 1, few = run.steps.length <= 40 && !many;
  for (const layer of layers) {
    const records = run.steps.map((_, at) => recordOf(run, state.scale, at, layer));
    const name = label(run.layers[layer]), mine = state.focus < 0 || state.focus === layer;
    traces.push({
      type: "scatter", mode: few ? "lines+markers" : "lines", x: run.steps.map(to), customdata: run.steps, name, opacity: mine ? 1 : 0.22,
      y: records.map((record) => (record < 0 || !Number.isFinite(held.median[record]) ? null : toAxis([Math.log2(held.median[record])])[0])),
      line: { color: colourOf(layer, run.layers.length), width: state.focus === layer ? 3 : many ? 1.2 : 2, dash: many ? "solid" : DASHES[layer % DASHES.length] },
      marker: { symbol: records.map((record) => SYMBOLS[layer % SYMBOLS.length] + openAt(record)), size: 6 },
      text: records.map((record) => (openAt(record) ? " (unresolved)" : "")), hovertemplate: `${name} %{y:.4g}%{text}<extra></extra>`,
    });
  }
}

// Symbols are open where a median is beyond the resolution.
function openAt(record) {
  return record >= 0 && beyond(record) ? "-open" : "";
}

function addMetrics(traces, run, names, to, yaxis, group, axis) {
  const steps = Array.from(run.series.step ?? []);
  let positive = group === "loss";
  names.forEach((metric, i) => {
    const values = Array.from(run.series[metric], (v) => (Number.isFinite(v) ? v : null));
    if (values.some((v) => v !== null && v <= 0)) positive = false;
    const name = label(metric);
    traces.push({
      type: "scatter", mode: steps.length > 40 ? "lines" : "lines+markers", x: steps.map(to), customdata: steps, y: values, yaxis, name,
      line: { ...metricLook(i), width: 1.8 }, marker: { size: 4 },
      hovertemplate: `${name} %{y:.4g}<extra></extra>`,
    });
  });
  if (positive) Object.assign(axis, logTicks(names.flatMap((metric) => Array.from(run.series[metric]))));
}

function metricLook(i) {
  return { color: [ink("ink"), ink("accent"), ink("no"), ink("quiet")][i % 4], dash: DASHES[i % DASHES.length] };
}

// Which line of a panel is which; a panel of one line says so on its axis.
function keyOf(entries) {
  return entries.map(([name, look]) => el("li", {}, stroke(look.color, look.dash), bdi(name)));
}

function cursor(run, to) {
  if (!run.moments.length) return [];
  const x = to(run.moments[state.at]);
  return [{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: ink("accent"), width: 1.5, dash: "dot" } }];
}

// In the figures over steps that are drawn; one that waits to be seen is drawn with it.
function moveCursors() {
  const run = runs[state.run], shapes = cursor(run, stepAxis(run).to);
  tell(run, run.moments[state.at]);
  for (const name of ["history", "errors", "weights", "axis"]) {
    const figure = document.getElementById(name);
    if (figure?.data && !figures[name].due) Plotly.relayout(figure, { shapes });
  }
}

function nearest(steps, wanted) {
  let best = 0;
  steps.forEach((step, i) => { if (Math.abs(step - wanted) < Math.abs(steps[best] - wanted)) best = i; });
  return best;
}

// Everything at one step in a line of text, for eyes and for screen readers.
function tell(run, step) {
  const parts = [`${about.unit} ${step}`];
  if (run.steps.length) {
    const at = nearest(run.steps, step), ends = [0, run.layers.length - 1].map((layer) => recordOf(run, state.scale, at, layer));
    const [first, last] = ends.map((record) => (record < 0 ? "–" : short(toAxis([Math.log2(held.median[record])])[0]) + (beyond(record) ? " (unresolved)" : "")));
    parts.push(`median ${first} at the first layer, ${last} at the last`);
  }
  if (run.errors) parts.push(tellLearned(run, step));
  const steps = run.series.step;
  if (steps?.length) {
    const row = nearest(Array.from(steps), step);
    for (const name of groupsOf(run).flatMap(([, names]) => names)) if (Number.isFinite(run.series[name][row])) parts.push(`${name} ${short(run.series[name][row])}`);
  }
  document.getElementById("readout").textContent = parts.join(" · ");
}

// The first step at which a metric has got where it should; null if it never does.
function stepsTo(run, metric, threshold) {
  const values = run.series[metric], steps = run.series.step;
  if (!values) return null;
  const rising = SCORE.test(metric) && !LOSS.test(metric);
  const at = Array.from(values).findIndex((v) => (rising ? v >= threshold : v <= threshold));
  return at < 0 ? null : steps[at];
}

function drawCompare() {
  const metric = document.getElementById("metric").value, threshold = Number(document.getElementById("threshold").value);
  const traces = [], cases = [...new Set(runs.map((run) => run.case))], axes = {};
  const withSpectra = runs.some((run) => run.steps.length), counts = new Set(runs.map((run) => run.layers.length));
  const byDepth = new Set(runs.map((run) => run.depth)).size > 1 && runs.every((run) => run.depth !== null);
  const others = withSpectra ? runs.filter((run) => run.steps.length && !run.scales[state.scale]).map((run) => run.name) : [];
  document.getElementById("compare-without").replaceChildren(...(others.length ? [`Not measured at ${about.scales[state.scale]} scale: `, bdi(others.join(", "))] : []));
  if (withSpectra) runs.forEach((run, i) => {
    if (!run.scales[state.scale]) return;
    const at = run.steps.length - 1, colour = colourOf(cases.indexOf(run.case), cases.length);
    traces.push({
      type: "scatter", mode: "lines+markers", name: label(run.name), x: run.layers.map((_, layer) => layer + 1), xaxis: "x", yaxis: "y", opacity: i === state.run ? 1 : 0.65,
      y: run.layers.map((_, layer) => { const record = recordOf(run, state.scale, at, layer); return record < 0 || !Number.isFinite(held.median[record]) ? null : toAxis([Math.log2(held.median[record])])[0]; }),
      line: { color: colour, width: i === state.run ? 3 : 1.6, dash: DASHES[cases.indexOf(run.case) % DASHES.length] }, marker: { symbol: run.layers.map((_, layer) => SYMBOLS[cases.indexOf(run.case) % SYMBOLS.length] + openAt(recordOf(run, state.scale, at, layer))), size: 7 },
      text: run.layers.map((name, layer) => label(name) + (openAt(recordOf(run, state.scale, at, layer)) ? " (unresolved)" : "")), hovertemplate: `${label(run.name)}<br>%{text}: %{y:.4g}<extra></extra>`,
    });
  });
  const points = metric ? runs.map((run) => [run, stepsTo(run, metric, threshold)]) : [];
  const places = points.map(([run]) => (byDepth ? run.depth : label(run.case, narrow.matches ? 14 : 24)));
  const reached = points.map(([, step]) => step !== null), end = (run) => run.series.step?.[run.series.step.length - 1] ?? null;
  if (points.length) traces.push({
    type: "scatter", mode: "markers", xaxis: "x2", yaxis: "y2", x: places, y: points.map(([run, step]) => step ?? end(run)),
    marker: { size: 9, color: points.map(([run]) => colourOf(cases.indexOf(run.case), cases.length)), symbol: reached.map((yes) => (yes ? "circle" : "triangle-up-open")) },
    text: points.map(([run, step]) => `${label(run.name)}<br>${step === null ? "not reached" : `${about.unit} ${step}`}`), hovertemplate: "%{text}<extra></extra>",
  });
  const side = withSpectra && points.length, stacked = narrow.matches;
  if (withSpectra) {
    axes.xaxis = { domain: side && !stacked ? [0, 0.46] : [0, 1], anchor: "y", title: { text: "layer, input to output", standoff: 8 }, dtick: Math.max(...counts) <= FEW ? 1 : undefined };
    axes.yaxis = { domain: side && stacked ? [0.6, 1] : [0, 1], ...logTicks(traces.flatMap((trace) => trace.y)), title: { text: `median ${state.axis === "k" ? "k" : "1/δ"}, last ${about.unit}`, standoff: 6 } };
  }
  if (points.length) {
    axes.xaxis2 = { domain: side && !stacked ? [0.58, 1] : [0, 1], anchor: "y2", title: { text: byDepth ? "depth" : "", standoff: 8 }, ...(byDepth ? { dtick: 1 } : { type: "category" }) };
    axes.yaxis2 = { domain: side && stacked ? [0, 0.38] : [0, 1], anchor: "x2", rangemode: "tozero", title: { text: `${about.unit}s to ${label(metric, 18)}`, standoff: 6 } };
  }
  document.getElementById("compare-key").replaceChildren(...(withSpectra ? keyOf(cases.map((name, i) => [name, { color: colourOf(i, cases.length), dash: DASHES[i % DASHES.length] }]).filter(([name]) => runs.some((run) => run.case === name && run.scales[state.scale]))) : []));
  return Plotly.react("compare", traces, layout(axes), PLAIN);
}

// What may be asked of all runs, and a threshold that each of them reaches if any does.
function prepareCompare() {
  const metric = document.getElementById("metric");
  const names = [...new Set(runs.flatMap((run) => groupsOf(run).flatMap(([, found]) => found)))];
  metric.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  metric.closest(".choices").hidden = !names.length;
  proposeThreshold();
}

function proposeThreshold() {
  const metric = document.getElementById("metric").value, rising = SCORE.test(metric) && !LOSS.test(metric);
  document.getElementById("relation").textContent = rising ? "is at least" : "is at most";
  const best = runs.filter((run) => run.series[metric]).map((run) => {
    const values = Array.from(run.series[metric]).filter(Number.isFinite);
    return rising ? Math.max(...values) : Math.min(...values);
  }).filter(Number.isFinite);
  const wanted = rising ? Math.min(...best) : Math.max(...best);
  const digits = (value, round) => { const unit = 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - 2); return round(value / unit) * unit; };
  if (metric === "loss" && about.error) { document.getElementById("threshold").value = String(about.error); return; }
  document.getElementById("threshold").value = best.length ? String(Number(digits(wanted, rising ? Math.floor : Math.ceil).toPrecision(3))) : "";
}
