/* Draws the figures of a report from the JSON beside it, sorts and filters its tables.  No library, no network.
   Start reading at the end: `main` calls one function for each kind of figure. */
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 960;

function node(tag, attributes = {}, parent = null, text = null) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  if (text !== null) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// -- numbers -----------------------------------------------------------------------------------------------------

function short(value, digits = 5) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  return String(Number(value.toPrecision(digits)));
}

const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);

function unitOf(seconds) {
  if (seconds >= 3 * 86400) return { size: 86400, name: "days" };
  if (seconds >= 3 * 3600) return { size: 3600, name: "hours" };
  return seconds >= 180 ? { size: 60, name: "minutes" } : { size: 1, name: "seconds" };
}

function ticks(low, high, n) {
  if (!(high > low)) return [low];
  const raw = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

// The index of the last value that is not above x; -1 if there is none.
function below(sorted, x) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// -- a chart: layers over one pair of axes, with zoom to the right and what the pointer is at ------------------------

const tip = { show() {}, hide() {} };

function makeTip() {
  const box = node("div", { id: "tip", role: "status", hidden: "" }, document.body);
  tip.show = (lines, x, y) => {
    box.replaceChildren(...lines.map((line) => node("div", {}, null, line)));
    box.hidden = false;
    const width = box.offsetWidth;
    const left = x + 16 + width > window.innerWidth ? x - width - 12 : x + 16;
    box.style.left = `${Math.max(4, left + window.scrollX)}px`;
    box.style.top = `${Math.max(4, y + window.scrollY - 8)}px`;
  };
  tip.hide = () => { box.hidden = true; };
}

class Chart {
  constructor(place, options) {
    this.options = { height: 300, left: 64, right: 14, top: 10, bottom: 40, ...options };
    const { height } = this.options;
    this.svg = node("svg:svg", {
      viewBox: `0 0 ${WIDTH} ${height}`, class: "chart", tabindex: "0", role: "img", "aria-label": options.label,
    }, place);
    const [low, high] = options.xDomain;
    this.full = [low, high > low ? high : low + 1];
    this.domain = [...this.full];
    this.reset = node("button", { type: "button", class: "reset", hidden: "" }, place, "whole range");
    this.reset.addEventListener("click", () => this.zoom(...this.full));
    this.listen();
    this.draw();
  }

  zoom(low, high) {
    const whole = low <= this.full[0] && high >= this.full[1];
    this.domain = whole ? [...this.full] : [Math.max(low, this.full[0]), Math.min(high, this.full[1])];
    this.reset.hidden = whole;
    this.draw();
  }

  get inner() {
    const { height, left, right, top, bottom } = this.options;
    return { x0: left, x1: WIDTH - right, y0: height - bottom, y1: top };
  }

  px(x) {
    const { x0, x1 } = this.inner;
    return x0 + (x1 - x0) * (x - this.domain[0]) / (this.domain[1] - this.domain[0]);
  }

  py(y) {
    const { y0, y1 } = this.inner;
    return y0 + (y1 - y0) * (y - this.range[0]) / (this.range[1] - this.range[0]);
  }

  // The values that are in sight, with a little room, unless the chart says which.
  findRange() {
    if (this.options.yDomain) return this.options.yDomain;
    const [low, high] = this.domain;
    let least = Infinity;
    let most = -Infinity;
    const floor = this.options.floor ?? -Infinity;
    for (const layer of this.options.layers) {
      for (const values of [layer.y, layer.low, layer.high]) {
        if (!values) continue;
        const first = layer.step || layer.kind === "line" ? Math.max(0, below(layer.x, low)) : 0;
        for (let i = first; i < values.length; i += 1) {
          const value = values[i];
          if (value === null || value < floor || layer.x[i] > high) continue;
          if (layer.x[i] < low && i !== first) continue;
          least = Math.min(least, value);
          most = Math.max(most, value);
        }
      }
    }
    if (least > most) return [0, 1];
    const room = 0.06 * (most - least) || Math.abs(most) * 0.05 || 1;
    return [least - room, most + room];
  }

  draw() {
    this.range = this.findRange();
    this.svg.replaceChildren();
    const { x0, x1, y0, y1 } = this.inner;
    const id = `clip${Chart.count += 1}`;
    const clip = node("svg:clipPath", { id }, node("svg:defs", {}, this.svg));
    node("svg:rect", { x: x0, y: y1, width: x1 - x0, height: y0 - y1 }, clip);
    this.drawAxes();
    const body = node("svg:g", { "clip-path": `url(#${id})` }, this.svg);
    for (const layer of this.options.layers) if (!layer.hidden) this.drawLayer(layer, body);
    for (const x of this.options.boundaries ?? []) {
      node("svg:line", { x1: this.px(x), x2: this.px(x), y1: y0, y2: y1, class: "boundary" }, body);
    }
    this.cross = node("svg:line", { y1: y0, y2: y1, class: "cross", visibility: "hidden" }, this.svg);
    this.spot = node("svg:circle", { r: 5, class: "spot", visibility: "hidden" }, this.svg);
    this.brush = node("svg:rect", { y: y1, height: y0 - y1, class: "brush", visibility: "hidden" }, this.svg);
  }

  drawAxes() {
    const { x0, x1, y0, y1 } = this.inner;
    const { xFormat = short, yFormat = short, xLabel = "", yLabel = "" } = this.options;
    const scale = this.options.xUnit ?? 1;
    const marks = this.options.xMarks?.filter(({ at }) => at >= this.domain[0] && at <= this.domain[1])
      ?? ticks(this.domain[0] / scale, this.domain[1] / scale, 8).map((tick) => ({ at: tick * scale, text: xFormat(tick) }));
    for (const { at, text } of marks) {
      const x = this.px(at);
      node("svg:line", { x1: x, x2: x, y1: y0, y2: y0 + 4, class: "axis" }, this.svg);
      node("svg:text", { x, y: y0 + 17, class: "tick", "text-anchor": "middle" }, this.svg, text);
    }
    for (const tick of ticks(...this.range, 5)) {
      const y = this.py(tick);
      node("svg:line", { x1: x0, x2: x1, y1: y, y2: y, class: "grid" }, this.svg);
      node("svg:text", { x: x0 - 7, y: y + 4, class: "tick", "text-anchor": "end" }, this.svg, yFormat(tick));
    }
    node("svg:path", { d: `M${x0},${y1}V${y0}H${x1}`, class: "axis" }, this.svg);
    node("svg:text", { x: (x0 + x1) / 2, y: y0 + 34, class: "label", "text-anchor": "middle" }, this.svg, xLabel);
    const middle = (y0 + y1) / 2;
    node("svg:text", {
      x: 13, y: middle, class: "label", "text-anchor": "middle", transform: `rotate(-90 13 ${middle})`,
    }, this.svg, yLabel);
  }

  drawLayer(layer, parent) {
    const { kind, x, cls, dash } = layer;
    const at = (i, values) => `${this.px(x[i]).toFixed(1)},${this.py(values[i]).toFixed(1)}`;
    if (kind === "points") {
      let d = "";
      for (let i = 0; i < x.length; i += 1) if (layer.y[i] !== null) d += `M${at(i, layer.y)}h0`;
      const size = layer.size ?? (x.length < 300 ? 6 : x.length < 1500 ? 4 : 3);
      node("svg:path", { d, class: `points ${cls}`, "stroke-width": size }, parent);
    } else if (kind === "rug") {
      const { y0 } = this.inner;
      const d = x.map((value) => `M${this.px(value).toFixed(1)},${y0}v-9`).join("");
      node("svg:path", { d, class: `rug ${cls}` }, parent);
    } else if (kind === "band") {
      this.drawBand(layer, parent);
    } else {
      let d = "";
      let open = false;
      for (let i = 0; i < x.length; i += 1) {
        if (layer.y[i] === null) { open = false; continue; }
        if (open && layer.step) d += `H${this.px(x[i]).toFixed(1)}`;
        d += `${open ? "L" : "M"}${at(i, layer.y)}`;
        open = true;
      }
      node("svg:path", { d, class: `line ${cls}`, "stroke-dasharray": dash }, parent);
    }
  }

  // Between two rows of values; as steps where there is one value for each of the stretches between edges.
  drawBand({ x, low, high, cls, stairs }, parent) {
    const known = low.map((value, i) => value !== null && high[i] !== null);
    let begin = 0;
    while (begin < low.length) {
      if (!known[begin]) { begin += 1; continue; }
      let end = begin;
      while (end < low.length && known[end]) end += 1;
      const up = [];
      const down = [];
      for (let i = begin; i < end; i += 1) {
        const places = stairs ? [x[i], x[i + 1]] : [x[i]];
        for (const place of places) {
          up.push(`${this.px(place).toFixed(1)},${this.py(high[i]).toFixed(1)}`);
          down.push(`${this.px(place).toFixed(1)},${this.py(low[i]).toFixed(1)}`);
        }
      }
      node("svg:path", { d: `M${up.join("L")}L${down.reverse().join("L")}Z`, class: `band ${cls}` }, parent);
      begin = end;
    }
  }

  // -- pointer and keys

  place(event) {
    const box = this.svg.getBoundingClientRect();
    const { x0, x1 } = this.inner;
    const pixel = Math.min(x1, Math.max(x0, (event.clientX - box.left) * WIDTH / box.width));
    const y = (event.clientY - box.top) * this.options.height / box.height;
    return { x: this.domain[0] + (this.domain[1] - this.domain[0]) * (pixel - x0) / (x1 - x0), pixel, y };
  }

  listen() {
    let from = null;
    this.svg.addEventListener("pointerdown", (event) => { from = this.place(event); });
    this.svg.addEventListener("pointermove", (event) => {
      const here = this.place(event);
      if (from && Math.abs(here.pixel - from.pixel) > 4) {
        this.brush.setAttribute("x", Math.min(from.pixel, here.pixel));
        this.brush.setAttribute("width", Math.abs(here.pixel - from.pixel));
        this.brush.setAttribute("visibility", "visible");
      }
      this.point(here.x, here.y, event.clientX, event.clientY);
    });
    this.svg.addEventListener("pointerup", (event) => {
      const here = this.place(event);
      const start = from;
      from = null;
      if (start && Math.abs(here.pixel - start.pixel) > 8) {
        this.zoom(Math.min(start.x, here.x), Math.max(start.x, here.x));
      }
      this.brush.setAttribute("visibility", "hidden");
    });
    this.svg.addEventListener("pointerleave", () => { from = null; this.leave(); });
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("dblclick", () => this.zoom(...this.full));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const [low, high] = this.domain;
    const middle = this.at ?? (low + high) / 2;
    const span = high - low;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const x = Math.min(high, Math.max(low, middle + (event.key === "ArrowLeft" ? -0.01 : 0.01) * span));
      const box = this.svg.getBoundingClientRect();
      this.point(x, null, box.left + this.px(x) * box.width / WIDTH, box.top + 20);
    } else if (event.key === "+") this.zoom(middle - span / 4, middle + span / 4);
    else if (event.key === "-") this.zoom(middle - span, middle + span);
    else if (event.key === "0" || event.key === "Escape") this.zoom(...this.full);
    else return;
    event.preventDefault();
  }

  point(x, y, clientX, clientY) {
    this.at = x;
    const found = this.options.hover?.(x, y, this);
    if (!found) { this.leave(); return; }
    this.cross.setAttribute("x1", this.px(found.x ?? x));
    this.cross.setAttribute("x2", this.px(found.x ?? x));
    this.cross.setAttribute("visibility", "visible");
    const spotted = found.y !== undefined && found.y !== null;
    if (spotted) {
      this.spot.setAttribute("cx", this.px(found.x));
      this.spot.setAttribute("cy", this.py(found.y));
    }
    this.spot.setAttribute("visibility", spotted ? "visible" : "hidden");
    tip.show(found.lines, clientX, clientY);
  }

  leave() {
    tip.hide();
    this.cross?.setAttribute("visibility", "hidden");
    this.spot?.setAttribute("visibility", "hidden");
  }
}
Chart.count = 0;

function legend(place, entries, chart = null) {
  const list = node("ul", { class: "legend" }, place);
  for (const { name, cls, mark = "box", layers = null } of entries) {
    const item = node("li", {}, list);
    const owner = layers && chart ? node("button", { type: "button", "aria-pressed": "true" }, item) : item;
    node("span", { class: `mark ${mark} ${cls}` }, owner);
    owner.append(name);
    if (owner === item) continue;
    owner.addEventListener("click", () => {
      const hide = owner.getAttribute("aria-pressed") === "true";
      owner.setAttribute("aria-pressed", String(!hide));
      for (const layer of layers) layer.hidden = hide;
      chart.draw();
    });
  }
}

// Buttons of which one is pressed.
function choice(place, label, names, choose) {
  const group = node("div", { class: "choice", role: "group", "aria-label": label }, place);
  names.forEach((name, i) => {
    const button = node("button", { type: "button", "aria-pressed": String(i === 0) }, group, name);
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      choose(name);
    });
  });
}

// -- the figures -------------------------------------------------------------------------------------------------

function drawAccount(place, { usage }) {
  const unit = unitOf(usage.length);
  const n = usage.edges.length - 1;
  const xLabel = `${unit.name} since the start${usage.boundaries.length ? ", without the time between launches" : ""}`;
  const common = { xDomain: [0, usage.length || 1], xUnit: unit.size, xLabel, boundaries: usage.boundaries };
  const at = (x) => Math.min(n - 1, Math.max(0, below(usage.edges, x)));
  const when = (x) => `${short(x / unit.size, 4)} ${unit.name}`;
  const middles = usage.edges.slice(0, n).map((edge, i) => (edge + usage.edges[i + 1]) / 2);

  const lines = [
    { kind: "line", name: "in flight", cls: "s0", x: middles, y: usage.shares["in flight"] },
    { kind: "line", name: "completed", cls: "s1", x: middles, y: usage.shares.completed, dash: "6 4" },
  ];
  const top = new Chart(place, {
    ...common, height: 200, layers: lines, yDomain: [0, 1.03], yFormat: (v) => `${Math.round(100 * v)} %`,
    yLabel: "utilisation", label: `Utilisation over time. ${usage.sentence}`,
    hover: (x) => {
      const i = at(x);
      return { x, lines: [when(x), ...lines.map((l) => `${l.name}: ${percent(l.y[i])}`)] };
    },
  });
  legend(place, lines.map((l) => ({ name: `${l.name}: ${percent(usage.totals[l.name])}`, cls: l.cls, mark: "stroke",
    layers: [l] })), top);

  let base = Array(n).fill(0);
  const layers = [];
  for (const word of usage.order) {
    const share = usage.shares[word].map((value) => value ?? 0);
    const high = base.map((value, i) => value + share[i]);
    layers.push({ kind: "band", stairs: true, name: word, cls: `a-${word}`, x: usage.edges, low: base, high });
    base = high;
  }
  const bottom = new Chart(place, {
    ...common, height: 280, layers, yDomain: [0, 1], yFormat: (v) => `${Math.round(100 * v)} %`,
    yLabel: "part of evaluators' time", label: "What evaluators did over time, stacked; the table below has the totals.",
    hover: (x) => {
      const i = at(x);
      return { x, lines: [when(x), ...usage.order.map((w) => `${w}: ${percent(usage.shares[w][i])}`)] };
    },
  });
  legend(place, layers.map((l) => ({ name: `${l.name}: ${percent(usage.totals[l.name])}`, cls: l.cls })), bottom);
}

function drawTrajectory(place, run) {
  const { trajectory } = run;
  const controls = node("div", { class: "controls" }, place);
  const holder = node("div", {}, place);
  let by = "time";
  let all = false;
  const show = () => {
    holder.replaceChildren();
    const time = by === "time";
    const unit = time ? unitOf(trajectory.length) : { size: 1, name: "evaluations" };
    const points = { kind: "points", cls: "p-all", x: time ? trajectory.seconds : trajectory.number,
      y: trajectory.objective };
    const best = { kind: "line", step: true, cls: "s0 strong", x: trajectory.best[by].x, y: trajectory.best[by].y };
    const layers = [];
    const entries = [];
    if (trajectory.bands) {
      const b = trajectory.bands[by];
      const band = { kind: "band", cls: "b-all", x: b.x, low: b.low, high: b.high };
      const median = { kind: "line", cls: "s2", x: b.x, y: b.median };
      layers.push(band, median);
      entries.push({ name: "a tenth and nine tenths of all, and the median", cls: "b-all", layers: [band, median] });
    }
    layers.push(points);
    entries.push({ name: trajectory.said, cls: "p-all", mark: "dot", layers: [points] });
    if (trajectory.average) {
      const line = { kind: "line", cls: "s1", x: trajectory.average[by].x, y: trajectory.average[by].y };
      layers.push(line);
      entries.push({ name: `mean of the last ${trajectory.window}`, cls: "s1", mark: "stroke", layers: [line] });
    }
    layers.push(best);
    entries.push({ name: "best so far", cls: "s0", mark: "stroke", layers: [best] });
    if (trajectory.failed.n) {
      const rug = { kind: "rug", cls: "p-failed", x: trajectory.failed[by] };
      layers.push(rug);
      entries.push({ name: `failed (${trajectory.failed.n})`, cls: "p-failed", mark: "dot", layers: [rug] });
    }
    const chart = new Chart(holder, {
      height: 380, layers, xUnit: unit.size, xDomain: [0, (time ? trajectory.length : trajectory.n) || 1],
      xLabel: time ? `${unit.name} since the start` : "evaluations", yLabel: "objective",
      boundaries: time ? run.usage?.boundaries : [], floor: all ? null : trajectory.floor,
      label: `Objective of every evaluation and the best so far. ${trajectory.sentence}`,
      hover: (x, y, c) => nearest(trajectory, points.x, x, y, c, unit, time),
    });
    legend(holder, entries, chart);
    if (trajectory.floor !== null) {
      const words = all ? "leave out hopeless ones" : `show the ${trajectory.n_below} below ${short(trajectory.floor, 3)}`;
      const button = node("button", { type: "button", class: "reset" }, holder, words);
      button.addEventListener("click", () => { all = !all; show(); });
    }
  };
  choice(controls, "what goes to the right", ["time", "evaluations"], (name) => { by = name; show(); });
  show();
}

function nearest(trajectory, xs, x, y, chart, unit, time) {
  let found = -1;
  let distance = Infinity;
  for (let i = 0; i < xs.length; i += 1) {
    if (xs[i] < chart.domain[0] || xs[i] > chart.domain[1]) continue;
    const dy = y === null ? 0 : (chart.py(trajectory.objective[i]) - y);
    const d = (chart.px(xs[i]) - chart.px(x)) ** 2 + dy ** 2;
    if (d < distance) { distance = d; found = i; }
  }
  if (found < 0 || distance > 60 ** 2) return null;
  const i = found;
  return {
    x: xs[i], y: trajectory.objective[i],
    lines: [`trial ${trajectory.trial[i]}: ${short(trajectory.objective[i], 7)}`,
      `evaluation ${trajectory.number[i]}, after ${short(trajectory.seconds[i] / unitOf(trajectory.length).size, 4)} `
        + unitOf(trajectory.length).name],
  };
}

function drawGantt(place, { gantt }) {
  const unit = unitOf(gantt.length);
  const n = gantt.rows.length;
  const size = Math.max(1, Math.min(18, Math.floor(560 / n)));
  const wrap = node("div", { class: "gantt" }, place);
  const labels = node("div", { class: "ranks", "aria-hidden": "true" }, wrap);
  const every = Math.max(1, Math.ceil(14 / size));
  gantt.rows.forEach((row, i) => {
    if (i % every === 0) {
      node("span", { style: `top:${(i + 0.5) * size}px` }, labels, row.label);
    }
  });
  const canvas = node("canvas", {
    width: gantt.n_bins, height: n, role: "img", tabindex: "0",
    "aria-label": `What each of ${gantt.n_evaluators} evaluators did over time; the table below has the sums.`,
  }, wrap);
  canvas.style.height = `${n * size}px`;
  labels.style.height = canvas.style.height;
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const colours = gantt.codes.map((code) => rgb(style.getPropertyValue(`--${code.replace(/ /g, "-")}`).trim()));
    const context = canvas.getContext("2d");
    const image = context.createImageData(gantt.n_bins, n);
    gantt.rows.forEach(({ codes }, y) => {
      for (let x = 0; x < gantt.n_bins; x += 1) {
        const colour = colours[codes.charCodeAt(x) - 48] ?? [0, 0, 0, 0];
        image.data.set(colour, 4 * (y * gantt.n_bins + x));
      }
    });
    context.putImageData(image, 0, 0);
  };
  paint();
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    window.matchMedia(query).addEventListener("change", paint);
  }
  const scale = node("div", { class: "scale", "aria-hidden": "true" }, wrap);
  for (const tick of ticks(0, gantt.length / unit.size, 8)) {
    node("span", { style: `left:${100 * tick * unit.size / (gantt.length || 1)}%` }, scale, short(tick));
  }
  node("p", { class: "axis-label" }, place, `${unit.name} since the start`);
  const used = gantt.codes.map((name, i) => ({ name, cls: `a-${name.replace(/ /g, "-")}`, i }));
  legend(place, used.filter(({ i }) => gantt.present.includes(i)));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const y = Math.min(n - 1, Math.floor((event.clientY - box.top) * n / box.height));
    const x = Math.min(gantt.n_bins - 1, Math.floor((event.clientX - box.left) * gantt.n_bins / box.width));
    if (x < 0 || y < 0) return;
    const row = gantt.rows[y];
    const time = short((x + 0.5) * gantt.length / gantt.n_bins / unit.size, 4);
    tip.show([`${row.name}`, `${time} ${unit.name}: mostly ${gantt.codes[row.codes.charCodeAt(x) - 48] ?? "nothing"}`,
      `evaluating ${percent(row.share)} of its time`], event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", () => tip.hide());
}

function rgb(colour) {
  const digits = colour.replace("#", "");
  return [0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16)).concat(255);
}

function drawDurations(place, { durations }) {
  const { edges, counts } = durations;
  const unit = unitOf(edges[edges.length - 1]);
  const layer = { kind: "band", stairs: true, cls: "s0", x: edges, low: counts.map(() => 0), high: counts };
  new Chart(place, {
    height: 220, layers: [layer], xUnit: unit.size, xDomain: [edges[0], edges[edges.length - 1]],
    yDomain: [0, 1.05 * Math.max(...counts)], xLabel: `${unit.name} that an evaluation took`, yLabel: "evaluations",
    label: `How long evaluations took. ${durations.sentence}`,
    hover: (x) => {
      const i = Math.min(counts.length - 1, Math.max(0, below(edges, x)));
      const [low, high] = [edges[i], edges[i + 1]].map((edge) => short(edge / unit.size, 3));
      return { x, lines: [`${low} to ${high} ${unit.name}`, `${counts[i]} evaluations`] };
    },
  });
}

function drawPolicy(place, { updates }) {
  const x = updates.reward_mean.map((_, i) => i + 1);
  for (const [name, words, cls] of [["reward_mean", "mean reward of a batch", "s0"],
    ["entropy_share", "entropy, of the largest possible", "s1"]]) {
    const y = updates[name];
    new Chart(place, {
      height: 220, layers: [{ kind: "line", cls, x, y }, { kind: "points", cls, x, y }], xDomain: [1, Math.max(2, x.length)],
      yDomain: name === "entropy_share" ? [0, 1.03] : null, xLabel: "updates of the policy", yLabel: words,
      label: `${words} over updates of the policy: from ${short(y[0], 4)} to ${short(y[y.length - 1], 4)}.`,
      hover: (at) => {
        const i = Math.min(x.length, Math.max(1, Math.round(at))) - 1;
        return { x: x[i], y: y[i], lines: [`update ${x[i]}`, `${words}: ${short(y[i], 5)}`] };
      },
    });
  }
}

function drawDependence(place, { importance }) {
  const grid = node("div", { class: "panels" }, place);
  const values = importance.dependence.flatMap(({ y }) => y);
  const room = 0.08 * (Math.max(...values) - Math.min(...values)) || 1;
  const yDomain = [Math.min(...values) - room, Math.max(...values) + room];
  for (const { name, x, y, categories, log, marks } of importance.dependence) {
    const panel = node("div", { class: "panel" }, grid);
    node("h4", {}, panel, name);
    if (categories) {
      const table = node("div", { class: "bars" }, panel);
      categories.forEach((category, i) => {
        node("span", { class: "category", title: category }, table, category);
        const bar = node("span", { class: "bar" }, table);
        node("i", { style: `width:${100 * (y[i] - yDomain[0]) / (yDomain[1] - yDomain[0])}%` }, bar);
        node("span", { class: "value" }, table, short(y[i], 4));
      });
      continue;
    }
    const places = log ? x.map(Math.log10) : x;
    const back = (at) => (log ? 10 ** at : at);
    const low = places[0];
    const high = places[places.length - 1];
    const layers = [{ kind: "line", cls: "s0", x: places, y }];
    if (marks) layers.push({ kind: "points", cls: "s0", x: places, y, size: 14 });
    const xMarks = marks?.map(([value, text]) => ({ at: log ? Math.log10(value) : value, text }));
    new Chart(panel, {
      height: 420, left: 130, bottom: 90, layers, yDomain, xMarks,
      xDomain: [low, high > low ? high : low + 1], xLabel: "", yLabel: "",
      xFormat: (at) => (log && !Number.isInteger(at) ? "" : short(back(at), 3)),
      label: `Mean prediction over ${name}`,
      hover: (at) => {
        const i = Math.max(0, below(places, at));
        return { x: places[i], y: y[i], lines: [`${name} = ${short(x[i], 4)}`, `mean prediction ${short(y[i], 5)}`] };
      },
    });
  }
}

// Configurations as lines over parallel axes.  Dragging along an axis keeps the lines that cross it there.
function drawParallel(place, { parallel }) {
  const { axes, lines, quality } = parallel;
  const height = 380;
  const top = 24;
  const foot = height - 66;
  const step = (WIDTH - 120) / Math.max(1, axes.length - 1);
  const px = (i) => 50 + i * step;
  const py = (value) => foot - value * (foot - top);
  const svg = node("svg:svg", {
    viewBox: `0 0 ${WIDTH} ${height}`, class: "chart parallel", role: "img", tabindex: "0",
    "aria-label": "Configurations as lines over their hyperparameters; the table of the best has their values.",
  }, place);
  const drawn = lines.map((line, i) => {
    const d = `M${line.map((value, j) => `${px(j).toFixed(1)},${py(value).toFixed(1)}`).join("L")}`;
    const path = node("svg:path", { d, class: "parallel-line", style: `--q:${quality[i]}` }, svg);
    path.addEventListener("pointerenter", (event) => {
      path.classList.add("here");
      tip.show([`trial ${parallel.trial[i]}: ${short(parallel.objective[i], 6)}`,
        ...axes.map((axis, j) => `${axis.name}: ${parallel.values[i][j]}`)], event.clientX, event.clientY);
    });
    path.addEventListener("pointerleave", () => { path.classList.remove("here"); tip.hide(); });
    return path;
  });
  const kept = axes.map(() => null);
  const apply = () => {
    drawn.forEach((path, i) => {
      const out = kept.some((range, j) => range && !(lines[i][j] >= range[0] && lines[i][j] <= range[1]));
      path.classList.toggle("out", out);
    });
    reset.hidden = kept.every((range) => range === null);
  };
  axes.forEach((axis, j) => {
    const x = px(j);
    node("svg:line", { x1: x, x2: x, y1: top, y2: foot, class: "axis" }, svg);
    for (const { at, text } of axis.ticks) {
      node("svg:text", { x: x + 5, y: py(at) + 4, class: "tick halo" }, svg, text);
    }
    const name = axis.name.length > 22 ? `${axis.name.slice(0, 21)}…` : axis.name;
    const words = node("svg:text", {
      x, y: foot + 26, class: "label", transform: `rotate(${axes.length > 6 ? 18 : 0} ${x} ${foot + 26})`,
      "text-anchor": axes.length > 6 ? "start" : "middle",
    }, svg, name);
    node("svg:title", {}, words, axis.name);
    const brush = node("svg:rect", { x: x - 7, width: 14, class: "brush", visibility: "hidden" }, svg);
    const grip = node("svg:rect", { x: x - 10, y: top - 14, width: 20, height: foot - top + 40, class: "grip" }, svg);
    let from = null;
    const value = (event) => {
      const box = svg.getBoundingClientRect();
      return (foot - (event.clientY - box.top) * height / box.height) / (foot - top);
    };
    grip.addEventListener("pointerdown", (event) => { from = value(event); grip.setPointerCapture(event.pointerId); });
    grip.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const range = [Math.min(from, value(event)), Math.max(from, value(event))];
      brush.setAttribute("y", py(range[1]));
      brush.setAttribute("height", Math.max(0, py(range[0]) - py(range[1])));
    });
    grip.addEventListener("pointerup", (event) => {
      const range = [Math.min(from, value(event)), Math.max(from, value(event))];
      from = null;
      kept[j] = range[1] - range[0] > 0.02 ? range : null;
      brush.setAttribute("visibility", kept[j] ? "visible" : "hidden");
      apply();
    });
  });
  const reset = node("button", { type: "button", class: "reset", hidden: "" }, place, "all configurations");
  reset.addEventListener("click", () => {
    kept.fill(null);
    for (const brush of svg.querySelectorAll(".brush")) brush.setAttribute("visibility", "hidden");
    apply();
  });
}

function drawComparison(place, { comparison }) {
  const controls = node("div", { class: "controls" }, place);
  const holder = node("div", {}, place);
  const show = (by) => {
    holder.replaceChildren();
    const { grid, groups, floor } = comparison[by];
    const unit = by === "time" ? unitOf(grid[grid.length - 1]) : { size: 1, name: "evaluations" };
    const layers = [];
    const entries = [];
    groups.forEach((group, i) => {
      const cls = `s${i % 7}`;
      const own = [];
      if (group.n > 1) {
        own.push({ kind: "band", cls: `${cls} faint`, x: grid, low: group.low, high: group.high });
        for (const y of group.values) own.push({ kind: "line", cls: `${cls} thin`, x: grid, y });
      }
      const mean = { kind: "line", cls: `${cls} strong`, x: grid, y: group.mean, dash: ["", "7 4", "2 3"][Math.floor(i / 7) % 3] };
      own.push(mean, { kind: "points", cls, x: [grid[group.last]], y: [group.mean[group.last]] });
      layers.push(...own);
      entries.push({ name: `${group.name} (${group.n} run${group.n > 1 ? "s" : ""})`, cls, mark: "stroke", layers: own });
    });
    const chart = new Chart(holder, {
      height: 380, layers, xUnit: unit.size, xDomain: [grid[0], Math.max(grid[grid.length - 1], grid[0] + 1e-9)], floor,
      xLabel: by === "time" ? `${unit.name} since the start` : "evaluations", yLabel: "best objective so far",
      label: "Best objective so far of each run, and of several of one kind the mean and one standard deviation.",
      hover: (x) => {
        const i = Math.max(0, below(grid, x));
        return { x, lines: [`${short(x / unit.size, 4)} ${unit.name}`,
          ...groups.map((group) => `${group.name}: ${short(group.mean[i], 6)}`)] };
      },
    });
    legend(holder, entries, chart);
  };
  choice(controls, "what goes to the right", ["time", "evaluations"], show);
  show("time");
}

// -- tables ------------------------------------------------------------------------------------------------------

function key(cell) {
  const given = cell.dataset.v;
  if (given === undefined) return cell.textContent.trim().toLowerCase();
  return given === "" ? null : Number(given);
}

function compareKeys(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = node("button", { type: "button" }, null, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compareKeys(key(a.cells[column]), key(b.cells[column])) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

function makeFilterable(table) {
  const label = node("label", { class: "filter" }, null, "show rows with ");
  const field = node("input", { type: "search", "aria-label": "show only rows with this text" }, label);
  const said = node("span", { role: "status" }, label);
  table.closest(".table").before(label);
  const rows = [...table.tBodies[0].rows];
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      n += !row.hidden;
    }
    said.textContent = wanted.length ? ` ${n} of ${rows.length}` : "";
  });
}

// -- main --------------------------------------------------------------------------------------------------------

const FIGURES = {
  account: drawAccount, trajectory: drawTrajectory, gantt: drawGantt, durations: drawDurations, policy: drawPolicy,
  dependence: drawDependence, parallel: drawParallel, comparison: drawComparison,
};

function main() {
  makeTip();
  const data = JSON.parse(document.getElementById("data").textContent);
  const whole = { comparison: data.comparison };
  const draw = (place) => {
    const content = place.dataset.run === undefined ? whole : data.runs[Number(place.dataset.run)];
    FIGURES[place.dataset.figure](place, content);
  };
  for (const place of document.querySelectorAll("[data-figure]")) draw(place);
  for (const table of document.querySelectorAll("table.sortable")) {
    makeSortable(table);
    if (table.tBodies[0].rows.length > 7) makeFilterable(table);
  }
  document.documentElement.dataset.drawn = "yes";
}

main();
