// The controls, and what is drawn when.
const state = { run: 0, at: 0, scale: -1, axis: "u", focus: -1, all: false };
const find = (id) => document.getElementById(id);
let timer = 0, waiting = false;

// Figures far from the screen wait until they are scrolled to.
const figures = {
  spectra: { draw: () => drawSpectra() }, map: { draw: () => drawMap() }, history: { draw: () => drawHistory() }, errors: { draw: () => drawErrors() }, energies: { draw: () => drawEnergies() },
  weights: { draw: () => drawWeights() }, axis: { draw: () => drawAxis() }, images: { draw: () => drawImages() }, suspects: { draw: () => drawSuspects() }, compare: { draw: () => drawCompare() },
};
for (const name of Object.keys(figures)) if (!find(name)) delete figures[name]; // of sections that no run has
const watcher = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  figures[target.id].near = isIntersecting;
  if (isIntersecting && figures[target.id].due) redraw(target.id);
}), { rootMargin: "200px" });

function redraw(...names) {
  for (const name of names) {
    const figure = figures[name];
    figure.due = !figure.near;
    if (figure.near) figure.draw();
  }
}

function show(at) {
  const run = runs[state.run];
  state.at = Math.min(Math.max(at, 0), Math.max(0, run.moments.length - 1));
  find("step").value = String(state.at);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; drawStep(); });
}

function drawStep() {
  const run = runs[state.run], count = run.moments.length;
  const words = count ? `${about.unit} ${run.moments[state.at]}` : "nothing measured";
  find("step").setAttribute("aria-valuetext", words);
  find("now").replaceChildren(words, ...(count ? [" ", el("small", {}, `${state.at + 1}/${count}`)] : []));
  if (run.steps.length) redraw("spectra", "map");
  if (run.errors) redraw("energies");
  if (count) moveCursors();
  if (find("only").checked) drawTable(true);
}

function drawAll() {
  const run = runs[state.run], measured = run.steps.length > 0;
  const scales = [...document.querySelectorAll('[name="scale"]')];
  if (measured && !run.scales[state.scale]) state.scale = scales.map((input) => Number(input.value)).find((scale) => run.scales[scale]);
  for (const input of scales) {
    input.disabled = !run.scales[Number(input.value)];
    input.checked = Number(input.value) === state.scale;
  }
  find("scale-says").textContent = measured ? about.explained[state.scale] : "";
  find("step").max = String(Math.max(0, run.moments.length - 1));
  find("step").disabled = find("play").disabled = run.moments.length < 2;
  find("part-spectra").hidden = find("part-map").hidden = !measured;
  for (const choice of document.querySelectorAll("#controls fieldset, #focus-choice")) choice.hidden = !measured;
  find("all-choice").hidden = run.layers.length <= FEW;
  find("status").textContent = !measured ? `No layer was measured in this run; it has only ${run.errors ? "the network's error" : "training curves"}.`
    : run.moments.length === 1 ? "Only one measurement so far." : "";
  find("focus").replaceChildren(el("option", { value: "-1" }, "all alike"), ...run.layers.map((name, i) => el("option", { value: String(i), dir: "auto" }, `${i + 1} · ${name}`)));
  find("focus").value = String(state.focus);
  show(state.at);
  drawLegend();
  find("part-history").hidden = !measured && !run.errors && !groupsOf(run).length;
  find("part-errors").hidden = find("says-learned").hidden = !run.errors;
  find("says-median").hidden = !measured;
  find("part-weights").hidden = !run.kept;
  showSections();
  if (runs.every((one) => one.errors && !one.steps.length)) find("part-table").hidden = true; // nothing to list
  redraw("history", ...(run.errors ? ["errors", "energies"] : []), ...(run.kept ? ["weights"] : []), ...(runs.length > 1 ? ["compare"] : []));
  drawTable(true);
}

function focusOn(layer) {
  state.focus = layer;
  find("focus").value = String(layer);
  drawLegend();
  redraw("spectra", "history");
}

function play(on) {
  clearTimeout(timer);
  timer = 0;
  find("play").setAttribute("aria-pressed", String(on));
  find("play").replaceChildren(el("span", { "aria-hidden": "true" }, on ? "❚❚" : "▶"), on ? " Pause" : " Play");
  if (!on) return;
  const count = runs[state.run].moments.length;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const wait = calm ? 1500 : Math.min(800, Math.max(60, 9000 / count));
  if (state.at >= count - 1) show(0);
  const next = () => {
    if (state.at >= count - 1) { play(false); return; }
    show(state.at + 1);
    timer = setTimeout(next, wait);
  };
  timer = setTimeout(next, wait);
}

function choose(run) {
  play(false);
  const step = runs[state.run].moments[state.at];
  state.run = run;
  state.at = nearest(runs[run].moments, step ?? 0);
  state.focus = -1;
  drawAll();
}

function listen() {
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("step").addEventListener("input", () => { if (timer) play(false); show(Number(find("step").value)); });
  find("play").addEventListener("click", () => play(!timer));
  find("run").addEventListener("change", () => choose(Number(find("run").value)));
  find("focus").addEventListener("change", () => focusOn(Number(find("focus").value)));
  find("all").addEventListener("change", () => { state.all = find("all").checked; drawAll(); });
  document.querySelectorAll('[name="scale"]').forEach((input) => input.addEventListener("change", () => { state.scale = Number(input.value); drawAll(); }));
  document.querySelectorAll('[name="axis"]').forEach((input) => input.addEventListener("change", () => { state.axis = input.value; drawAll(); }));
  find("legend").addEventListener("click", (event) => {
    const layer = event.target.closest("button")?.dataset.layer;
    if (layer !== undefined) focusOn(Number(layer) === state.focus ? -1 : Number(layer));
  });
  find("only").addEventListener("change", () => drawTable());
  find("previous").addEventListener("click", () => { table.page--; drawTable(true); });
  find("next").addEventListener("click", () => { table.page++; drawTable(true); });
  find("csv").addEventListener("click", downloadCsv);
  find("metric").addEventListener("change", () => { proposeThreshold(); redraw("compare"); });
  find("threshold").addEventListener("change", () => redraw("compare"));
  find("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; looksChanged(); });
  prefersDark.addEventListener("change", looksChanged);
  narrow.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { for (const figure of Object.values(figures)) figure.near = true; drawAll(); });
}

function looksChanged() {
  find("theme").textContent = isDark() ? "Light theme" : "Dark theme";
  if (held) drawAll();
}

async function begin() {
  looksChanged();
  find("levels").textContent = about.levels;
  if (runs.some((run) => run.thinned)) find("thinned").textContent = "Long series of metrics are thinned to every k-th value.";
  find("run-choice").hidden = find("part-compare").hidden = runs.length < 2;
  find("run").replaceChildren(...runs.map((run, i) => el("option", { value: String(i), dir: "auto" }, run.name)));
  await unpack();
  state.run = Math.max(0, runs.findIndex((run) => run.steps.length));
  state.at = Math.max(0, runs[state.run].moments.length - 1);
  find("run").value = String(state.run);
  const plotly = document.createElement("script");
  plotly.textContent = await (await inflate("plotly")).text();
  document.head.append(plotly);
  if (runs.length > 1) prepareCompare();
  listen();
  drawAll();
  for (const name of Object.keys(figures)) watcher.observe(find(name));
  requestAnimationFrame(() => { document.documentElement.dataset.ready = "yes"; performance.mark("ready"); });
}

// Words first: the figures' library is large, so the page is painted before it runs.
requestAnimationFrame(() => setTimeout(() => begin().catch((error) => {
  find("status").textContent = `The figures could not be drawn: ${error.message}`;
  throw error;
})));
