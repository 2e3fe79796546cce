"use strict";
// The timeline: lanes below each other over one axis of time. Draws SVG, zooms, and says what is under the pointer.
(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const BAR = 104, STRIP = 18, HEAD = 26, AXIS = 26, LEFT = 46, RIGHT = 8, BIN = 4;
  const data = JSON.parse(document.getElementById("data").textContent).timeline;
  const plot = document.getElementById("timeline");
  if (!plot || !data.lanes.length) return;
  const readout = document.getElementById("readout");
  const full = [0, Math.max(data.end, 1)];
  let view = full.slice(), width = 0, select = null, pointers = new Map(), pinch = null;

  for (const lane of data.lanes) {
    let at = 0;
    lane.time = Float64Array.from(lane.t, (step) => (at += step));
    lane.height = lane.form === "bars" ? BAR : STRIP * lane.series.length;
  }

  function make(name, attributes, parent, text) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  }
  const groups = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  function time(us, step) {
    const [unit, size] = step >= 1e5 ? ["s", 1e6] : step >= 100 ? ["ms", 1e3] : ["µs", 1];
    const digits = Math.max(0, Math.min(3, Math.ceil(-Math.log10(step / size) - 1e-9)));
    return (us / size).toFixed(digits) + "\u202f" + unit;
  }
  function nice(range, count) {
    const raw = range / count, power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= raw);
  }
  const x = (us) => LEFT + ((us - view[0]) / (view[1] - view[0])) * (width - LEFT - RIGHT);
  const us = (px) => view[0] + ((px - LEFT) / (width - LEFT - RIGHT)) * (view[1] - view[0]);
  function first(times, value) {
    let low = 0, high = times.length;
    while (low < high) { const mid = (low + high) >> 1; if (times[mid] < value) low = mid + 1; else high = mid; }
    return low;
  }
  // Sums of a lane's points in the bins of the screen: sums[series][bin].
  function binned(lane) {
    const bins = Math.max(1, Math.floor((width - LEFT - RIGHT) / BIN)), scale = bins / (view[1] - view[0]);
    const sums = lane.series.map(() => new Float64Array(bins));
    for (let at = first(lane.time, view[0]); at < lane.time.length && lane.time[at] <= view[1]; at++) {
      const bin = Math.min(bins - 1, Math.floor((lane.time[at] - view[0]) * scale));
      sums[lane.s[at]][bin] += lane.n ? lane.n[at] : 1;
    }
    return sums;
  }

  function bars(lane, top, svg) {
    const sums = binned(lane), bins = sums[0].length, step = (width - LEFT - RIGHT) / bins;
    const total = new Float64Array(bins);
    for (const row of sums) row.forEach((n, bin) => (total[bin] += n));
    const most = Math.max(1, ...total);
    for (const share of [0, 0.5, 1]) {
      const value = most * share, y = top + BAR - BAR * share;
      make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }, svg);
      if (Number.isInteger(value) || share === 1)
        make("text", { class: "small", x: LEFT - 5, y: y + 4, "text-anchor": "end" }, svg, groups(Math.round(value)));
    }
    const base = new Float64Array(bins);
    sums.forEach((row, series) => {
      let path = "";
      row.forEach((n, bin) => {
        if (!n) return;
        const height = (n / most) * BAR, y = top + BAR - (base[bin] / most) * BAR - height;
        base[bin] += n;
        path += `M${(LEFT + bin * step).toFixed(1)},${y.toFixed(1)}h${(step - 0.4).toFixed(1)}v${height.toFixed(1)}h${(0.4 - step).toFixed(1)}z`;
      });
      if (path) make("path", { d: path, fill: `url(#f${lane.p[series]})`, class: "mark" }, svg);
    });
  }
  function strips(lane, top, svg) {
    const sums = binned(lane), bins = sums[0].length, step = (width - LEFT - RIGHT) / bins;
    const most = Math.max(1, ...sums.map((row) => Math.max(...row)));
    sums.forEach((row, series) => {
      const y = top + series * STRIP;
      make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y + STRIP - 1, y2: y + STRIP - 1 }, svg);
      make("text", { class: "small", x: LEFT - 5, y: y + STRIP - 5, "text-anchor": "end" }, svg, lane.series[series]);
      const levels = ["", "", "", ""];
      row.forEach((n, bin) => {
        if (!n) return;
        const level = Math.min(3, Math.floor((4 * n) / most)), height = ((level + 1) / 4) * (STRIP - 3);
        levels[level] += `M${(LEFT + bin * step).toFixed(1)},${(y + STRIP - 1 - height).toFixed(1)}h${step.toFixed(1)}v${height.toFixed(1)}h${(-step).toFixed(1)}z`;
      });
      levels.forEach((path) => { if (path) make("path", { d: path, fill: `url(#f${lane.p[series]})`, class: "mark" }, svg); });
    });
  }

  function draw() {
    width = plot.clientWidth;
    if (!width) return;
    const labels = data.storms.length ? 12 : 0;
    const height = data.lanes.reduce((sum, lane) => sum + lane.height + HEAD, 0) + AXIS + labels;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Flushes and interruptions over time; the tables below have the sums" });
    data.storms.forEach(([begin, end], index) => {
      if (end < view[0] || begin > view[1]) return;
      const from = Math.max(x(begin), LEFT), to = Math.min(Math.max(x(end), from + 2), width - RIGHT);
      make("rect", { class: "storm", x: from, y: 0, width: to - from, height: height - AXIS }, svg);
      make("line", { class: "stormedge", x1: from, x2: to, y1: 1, y2: 1 }, svg);
      if (to - from > 16 || data.storms.length <= 12)
        make("text", { class: "small", x: from + 2, y: 12 }, svg, `⚡${index + 1}`);
    });
    let top = labels;
    for (const lane of data.lanes) {
      top += HEAD;
      make("text", { x: LEFT, y: top - 8, "font-weight": 600 }, svg, lane.title);
      (lane.form === "bars" ? bars : strips)(lane, top, svg);
      lane.top = top;
      top += lane.height;
    }
    const step = nice(view[1] - view[0], Math.max(2, Math.floor(width / 110)));
    const axis = make("g", { class: "axis" }, svg);
    for (let at = Math.ceil(view[0] / step) * step; at <= view[1] + step * 1e-6; at += step) {
      make("line", { class: "grid", x1: x(at), x2: x(at), y1: top, y2: top + 5 }, axis);
      const anchor = x(at) > width - 40 ? "end" : x(at) < LEFT + 20 ? "start" : "middle";
      make("text", { x: x(at), y: top + 19, "text-anchor": anchor }, axis, time(at, step));
    }
    if (select) {
      const [from, to] = [Math.min(...select), Math.max(...select)];
      make("rect", { class: "select", x: from, y: 0, width: to - from, height: height - AXIS }, svg);
    }
    plot.replaceChildren(svg);
    plot.dataset.from = view[0];
    plot.dataset.to = view[1];
    plot.dataset.marks = svg.querySelectorAll(".mark").length;
  }

  function show(from, to) {
    const least = Math.min(20, full[1]), size = Math.min(Math.max(to - from, least), full[1]);
    const begin = Math.min(Math.max(from, 0), full[1] - size);
    view = [begin, begin + size];
    requestAnimationFrame(draw);
  }
  function zoom(factor, center) {
    const middle = center === undefined ? (view[0] + view[1]) / 2 : center;
    show(middle - (middle - view[0]) * factor, middle + (view[1] - middle) * factor);
  }
  const pan = (part) => { const by = part * (view[1] - view[0]); show(view[0] + by, view[1] + by); };

  function say(px) {
    const bins = Math.max(1, Math.floor((width - LEFT - RIGHT) / BIN)), size = (view[1] - view[0]) / bins;
    const bin = Math.floor((us(px) - view[0]) / size);
    if (bin < 0 || bin >= bins) { readout.textContent = ""; return; }
    const from = view[0] + bin * size, lines = [`${time(from, size / 10)}, for ${time(size, size / 10)}`];
    for (const lane of data.lanes) {
      const counts = lane.series.map(() => 0);
      for (let at = first(lane.time, from); at < lane.time.length && lane.time[at] < from + size; at++)
        counts[lane.s[at]] += lane.n ? lane.n[at] : 1;
      const parts = counts.map((n, at) => [n, lane.series[at]]).filter(([n]) => n).sort((a, b) => b[0] - a[0]);
      if (parts.length) lines.push(`${lane.title}: ${parts.map(([n, name]) => `${groups(n)} ${name}`).join(", ")}`);
    }
    readout.textContent = lines.join(" · ");
  }

  const at = (event) => event.clientX - plot.getBoundingClientRect().left;
  plot.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 2) { const [a, b] = [...pointers.values()]; pinch = { a: us(a), b: us(b) }; select = null; }
    else if (event.pointerType === "mouse" && event.button === 0) { select = [at(event), at(event)]; plot.setPointerCapture(event.pointerId); }
  });
  plot.addEventListener("pointermove", (event) => {
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, at(event));
    if (pinch && pointers.size === 2) {
      // Both fingers keep the moments that they took hold of.
      const [a, b] = [...pointers.values()], room = width - LEFT - RIGHT;
      if (Math.abs(b - a) > 8) {
        const scale = (pinch.b - pinch.a) / (b - a), from = pinch.a - (a - LEFT) * scale;
        show(from, from + room * scale);
      }
    } else if (select) { select[1] = Math.min(Math.max(at(event), LEFT), width - RIGHT); requestAnimationFrame(draw); }
    say(at(event));
  });
  function release(event) {
    pointers.delete(event.pointerId);
    if (pointers.size < 2) pinch = null;
    if (!select) return;
    const [from, to] = [Math.min(...select), Math.max(...select)];
    select = null;
    if (to - from > 4) show(us(Math.max(from, LEFT)), us(to)); else draw();
  }
  plot.addEventListener("pointerup", release);
  plot.addEventListener("pointercancel", release);
  plot.addEventListener("dblclick", () => show(...full));
  plot.addEventListener("wheel", (event) => {
    // The plain wheel scrolls the page, as readers expect.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(1.2 ** Math.sign(event.deltaY), us(at(event)));
  }, { passive: false });
  plot.addEventListener("keydown", (event) => {
    const keys = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => show(...full), ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25) };
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
  });
  const buttons = { in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.5), right: () => pan(0.5), all: () => show(...full) };
  for (const button of document.querySelectorAll("button[data-do]")) button.addEventListener("click", () => buttons[button.dataset.do]());
  for (const button of document.querySelectorAll("button[data-storm]"))
    button.addEventListener("click", () => {
      const [begin, end] = data.storms[Number(button.dataset.storm)], room = Math.max(end - begin, 20) * 0.15;
      show(begin - room, end + room);
      plot.scrollIntoView({ block: "center" });
      plot.focus({ preventScroll: true });
    });
  new ResizeObserver(() => { if (plot.clientWidth !== width) draw(); }).observe(plot);
  draw();
})();
