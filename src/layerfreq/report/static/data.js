"use strict";
// What the page holds: numbers unpacked once, curves decoded when they are needed.
const about = JSON.parse(document.getElementById("about").textContent);
const runs = about.runs;
let held = null; // name -> typed array

const TYPES = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u2: Uint16Array, u1: Uint8Array };

// What an element holds as base64 of a zlib stream; the element goes.
async function inflate(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove();
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream);
}

async function unpack() {
  const buffer = await (await inflate("data")).arrayBuffer();
  held = {};
  for (const [name, [type, first, length]] of Object.entries(about.index)) held[name] = new TYPES[type](buffer, first, length);
  held.first = new Int32Array(held.size.length); // of each curve, its first entry in the long arrays
  for (let i = 1; i < held.size.length; i++) held.first[i] = held.first[i - 1] + held.size[i - 1];
  const starts = [0];
  for (const size of held["shape.size"]) starts.push(starts[starts.length - 1] + size);
  held.shapes = starts.slice(0, -1).map((start, i) => held["shape.points"].subarray(start, starts[i + 1]));
  runs.forEach((run, i) => {
    run.series = {};
    run.moments = run.steps.length ? run.steps : Array.from(held[`error.${i}.steps`] ?? []); // where the slider goes
    run.metrics.forEach((name, j) => { run.series[name] = held[`metric.${i}.${j}`]; });
    run.records = new Int32Array(about.scales.length * run.steps.length * run.layers.length).fill(-1);
  });
  for (let i = 0; i < held.run.length; i++) {
    const run = runs[held.run[i]];
    run.records[(held.scale[i] * run.steps.length + held.step[i]) * run.layers.length + held.layer[i]] = i;
  }
  for (const run of runs) run.scales = about.scales.map((_, scale) => recordsAt(run, scale).some((record) => record >= 0));
}

// The records of a run in one scale, step by step; -1 where there is none.
function recordsAt(run, scale) {
  const size = run.records.length / about.scales.length;
  return run.records.subarray(scale * size, (scale + 1) * size);
}

function recordOf(run, scale, at, layer) {
  return run.records[(scale * run.steps.length + at) * run.layers.length + layer];
}

// Whether a median lies beyond the resolution of its layer, and so tells nothing.
function beyond(record) {
  return held.median[record] > held.resolution[record];
}

function decode(name, curve) {
  const bytes = held[`${name}.bytes`], half = bytes.length / 2;
  const first = held.first[curve], size = held.size[curve];
  const low = held[`${name}.low`][curve], width = (held[`${name}.high`][curve] - low) / about.levels;
  const values = new Float64Array(size);
  for (let i = 0, slope = 0, value = 0; i < size; i++) {
    const zigzag = bytes[first + i] | (bytes[half + first + i] << 8);
    slope += (zigzag >>> 1) ^ -(zigzag & 1);
    value = (value + slope) & 0xffff;
    values[i] = low + value * width;
  }
  return values;
}

// The curves of one record: x (m,) log2 of 1/delta, the density per octave, LFR, chance and the density of chance.
function curvesOf(record) {
  const curve = held.curve[record], low = held.low[record], width = held.high[record] - low;
  const x = Float64Array.from(held.shapes[held.shape[curve]], (share) => low + share * width);
  const chance = decode("chance", curve);
  return { x, density: decode("density", curve), lfr: decode("lfr", curve), chance, chanceDensity: slopeOf(chance, x) };
}

function slopeOf(y, x) {
  return y.map((_, i) => {
    const a = Math.max(0, i - 1), b = Math.min(y.length - 1, i + 1);
    return b > a ? (y[b] - y[a]) / (x[b] - x[a]) : 0;
  });
}

// Values of a curve at other places, linear between its points; NaN outside.
function resample(x, y, places) {
  const out = new Float64Array(places.length);
  for (let i = 0, j = 0; i < places.length; i++) {
    const place = places[i];
    if (place < x[0] || place > x[x.length - 1]) { out[i] = NaN; continue; }
    while (j < x.length - 2 && x[j + 1] < place) j++;
    const share = x.length > 1 ? (place - x[j]) / (x[j + 1] - x[j]) : 0;
    out[i] = x.length > 1 ? y[j] + share * (y[j + 1] - y[j]) : y[0];
  }
  return out;
}

// The extent of a run in one scale over all steps: log2 of the first and last cutoff, and the highest density.
function extentOf(run, scale) {
  run.extent ??= [];
  if (!run.extent[scale]) {
    let low = Infinity, high = -Infinity, top = 0, steepest = 0, least = 0, lfr = 1;
    for (const record of recordsAt(run, scale)) {
      if (record < 0) continue;
      const curve = held.curve[record];
      low = Math.min(low, held.low[record]);
      high = Math.max(high, held.high[record]);
      top = Math.max(top, held["density.high"][curve]);
      steepest = Math.max(steepest, held.steepest[curve]);
      least = Math.min(least, held["density.low"][curve]);
      lfr = Math.max(lfr, held["lfr.high"][curve]);
    }
    if (high <= low) { low -= 1; high += 1; }
    run.extent[scale] = { low, high, top: top || 1, least, lfr, room: Math.max(top, Math.min(steepest, 1.6 * top)) || 1 };
  }
  return run.extent[scale];
}
