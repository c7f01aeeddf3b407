// Colours, dashes and texts of the figures.
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const DASHES = ["solid", "6px,2px", "8px,2px,2px,2px", "3px,2px", "1.5px,2px"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-left", "triangle-right", "pentagon", "star", "x"];
const PLAIN = { displayModeBar: false, responsive: true, doubleClick: "reset" };
const narrow = matchMedia("(max-width: 640px)");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : prefersDark.matches;
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Dark to light with depth on a light ground; on a dark one the darkest colours are left out instead of the lightest.
function colourOf(layer, layers) {
  const share = layers <= 1 ? 0.3 : layer / (layers - 1);
  const place = (isDark() ? 0.28 + 0.72 * share : 0.8 * share) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const [a, b] = [VIRIDIS[low], VIRIDIS[low + 1]].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * (place - low))).join(",")})`;
}

// Plotly reads tags, entities and %{...} in texts: what is not ours goes through here, cut short, its direction its own.
function label(name, length = 28) {
  const letters = [...name];
  const short = letters.length > length ? [...letters.slice(0, length - 9), "…", ...letters.slice(-8)].join("") : name;
  return `\u2068${short.replace(/[&<>%$]/g, (c) => `&#${c.charCodeAt(0)};`)}\u2069`;
}

function layout(more) {
  const axis = { gridcolor: ink("grid"), linecolor: ink("line"), zerolinecolor: ink("grid"), automargin: true };
  const full = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, autosize: true,
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", size: narrow.matches ? 11 : 13, color: ink("ink") },
    hoverlabel: { bgcolor: ink("card"), bordercolor: ink("line"), font: { color: ink("ink") }, align: "left" },
    dragmode: narrow.matches ? false : "zoom", hovermode: "closest",
    margin: narrow.matches ? { l: 46, r: 8, t: 12, b: 44 } : { l: 64, r: 16, t: 14, b: 52 },
    ...more,
  };
  for (const key of Object.keys(full)) if (/^[xy]axis/.test(key)) full[key] = { ...axis, ...full[key] };
  return full;
}

// A logarithmic axis with a tick at each power of ten, or at 1, 2 and 5 where the values span little.
function logTicks(values) {
  const known = values.filter((v) => v > 0);
  const span = known.length ? Math.log10(Math.max(...known) / Math.min(...known)) : 0;
  if (known.length && span < 0.5) return { type: "log", tickformat: "~g", tickvals: evenTicks(Math.min(...known), Math.max(...known)) };
  return { type: "log", tickformat: "~g", dtick: span > 6 ? 2 : span > 2 ? 1 : "D2" };
}

// Round numbers between two close ones, where 1, 2 and 5 may all be outside.
function evenTicks(low, high) {
  if (high - low < 1e-4 * high) return [Number(high.toPrecision(4))];
  const raw = (high - low) / 4, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * (raw > 5 * unit ? 10 : raw > 2 * unit ? 5 : raw > unit ? 2 : 1);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
  return ticks.length > 1 ? ticks : [low, high].map((value) => Number(value.toPrecision(3)));
}

function short(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "–";
}

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function bdi(name) {
  return el("bdi", { title: name }, name);
}

// Frequencies from log2(1/delta), on the axis that is chosen; densities per octave of it.
function toAxis(x) {
  const power = state.axis === "k" ? 0.5 : 1;
  return Array.from(x, (v) => 2 ** (v * power));
}
function perOctave() {
  return state.axis === "k" ? 2 : 1;
}
const AXES = { raw: "", rms: " (unit RMS features)", maxabs: " (maxabs, the paper's)" };
function frequencyAxis(extent, more) {
  const power = (state.axis === "k" ? 0.5 : 1) * Math.log10(2);
  const scale = AXES[about.scales[state.scale]];
  return {
    type: "log", range: [extent.low * power, extent.high * power], tickformat: "~g", minor: { ticks: "outside", ticklen: 3, tickcolor: ink("line") },
    dtick: (extent.high - extent.low) * power > 8 ? 2 : 1, ticks: "outside", tickcolor: ink("line"),
    title: { text: state.axis === "k" ? `k = δ<sup>−1/2</sup>${scale}` : `1/δ${scale}`, standoff: 8 }, ...more,
  };
}
