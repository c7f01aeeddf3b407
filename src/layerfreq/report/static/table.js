// The table with everything: sorted and filtered by record number, a page of it at a time in the document.
const PAGE = 20;
const table = { order: null, key: "", down: false, page: 0 };

function columns() {
  const metrics = [...new Set(runs.flatMap((run) => run.metrics.filter((name) => name !== "step")))];
  const number = (name, key = name) => ({ name, value: (i) => held[key][i], number: true });
  return [
    ...(runs.length > 1 ? [{ name: "run", value: (i) => runs[held.run[i]].name }] : []),
    { name: about.unit, value: (i) => runs[held.run[i]].steps[held.step[i]], number: true },
    { name: "layer", value: (i) => runs[held.run[i]].layers[held.layer[i]] },
    { name: "depth", value: (i) => held.layer[i] + 1, number: true },
    { name: "scale", value: (i) => about.scales[held.scale[i]] },
    { ...number("median"), shown: (i) => short(held.median[i]) + (beyond(i) ? " *" : "") },
    { name: "median is", value: (i) => (Number.isFinite(held.median[i]) ? (beyond(i) ? "unresolved" : "resolved") : ""), hidden: true },
    { ...number("RDF peak", "peak"), shown: (i) => ["≤ ", "", "≥ "][held.edge[i] + 1] + short(held.peak[i]) + (held.peak[i] > held.resolution[i] ? " *" : "") },
    { name: "peak is", value: (i) => ["upper bound", "inside", "lower bound"][held.edge[i] + 1], hidden: true },
    number("resolution"), number("floor"),
    ...metrics.map((name) => ({ name, number: true, value: (i) => metricAt(runs[held.run[i]], name, held.step[i]) })),
  ];
}

function metricAt(run, name, at) {
  run.rows ??= new Map(Array.from(run.series.step ?? [], (step, row) => [step, row]));
  const row = run.rows.get(run.steps[at]);
  return row === undefined || !run.series[name] ? NaN : run.series[name][row];
}

function rowsShown() {
  const only = document.getElementById("only").checked, step = runs[state.run].steps[state.at];
  let rows = Array.from(held.run, (_, i) => i);
  if (only) rows = rows.filter((i) => held.scale[i] === state.scale && runs[held.run[i]].steps[held.step[i]] === step);
  const column = columns().find(({ name }) => name === table.key);
  if (!column) return rows;
  const values = held.run.length ? Array.from(held.run, (_, i) => column.value(i)) : [];
  const sign = table.down ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (!column.number) return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Number.isFinite(y) - Number.isFinite(x) || a - b; // gaps last, either way
    return sign * (x - y) || a - b;
  });
}

function drawTable(keep) {
  const shown = columns().filter((column) => !column.hidden);
  table.order = rowsShown();
  const pages = Math.max(1, Math.ceil(table.order.length / PAGE));
  table.page = keep ? Math.min(Math.max(table.page, 0), pages - 1) : 0;
  const head = document.querySelector("#table thead tr"), active = document.activeElement?.closest?.("#table th")?.dataset.key;
  head.replaceChildren(...shown.map((column) => {
    const sorted = table.key === column.name, arrow = sorted ? (table.down ? " ↓" : " ↑") : "";
    const cell = el("th", { scope: "col", "aria-sort": sorted ? (table.down ? "descending" : "ascending") : "none", class: column.number ? "number" : "", "data-key": column.name });
    cell.append(el("button", { type: "button", onclick: () => sortBy(column.name) }, bdi(column.name), el("span", { "aria-hidden": "true" }, arrow)));
    return cell;
  }));
  if (active !== undefined) [...head.children].find((cell) => cell.dataset.key === active)?.firstChild.focus();
  document.querySelector("#table tbody").replaceChildren(...table.order.slice(table.page * PAGE, (table.page + 1) * PAGE).map((i) =>
    el("tr", {}, ...shown.map((column) => {
      if (column.number) return el("td", { class: "number" }, column.shown ? column.shown(i) : short(column.value(i)));
      return el("td", { class: "name" }, bdi(column.value(i)));
    }))));
  document.getElementById("page").textContent = `${table.order.length} rows, page ${table.page + 1} of ${pages}`;
  document.getElementById("previous").disabled = table.page === 0;
  document.getElementById("next").disabled = table.page >= pages - 1;
}

function sortBy(name) {
  table.down = table.key === name && !table.down;
  table.key = name;
  drawTable();
}

// Quoted where the format asks for it; what a spreadsheet would take for a formula gets a quote in front.
function cell(value) {
  if (typeof value === "number") return Number.isFinite(value) ? String(Number(value.toPrecision(8))) : "";
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function downloadCsv() {
  const every = columns();
  const lines = [every.map(({ name }) => cell(name)).join(",")];
  for (const i of table.order) lines.push(every.map((column) => cell(column.value(i))).join(","));
  const link = el("a", { href: URL.createObjectURL(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" })), download: "layerfreq.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
