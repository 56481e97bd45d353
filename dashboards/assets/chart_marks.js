/* The budget's marks in the charts of page and report: its line, the star of the recommended network, and the cost axis
   that opens near the budget. They move without the figure being drawn again. */
(function () {
  "use strict";

  const { answer, limitText, ms } = window.CondenseryAnswer;
  const NEAR_MS = 250;  // the axis follows a budget that has come to rest
  const ON_CHART = ["budget", "star", "beyond"];  // notes of a figure that the marks here stand in for

  // ---- where a budget's marks are -------------------------------------------------------------------------

  /** Return an offer's place on an axis, null where the offer doesn't say it. */
  function valueOf(offer, axis, target, units) {
    if (axis === "latency") { return offer.median_ms[target]; }
    if (axis === "macs" || axis === "params") { return offer[axis] / ((units || {})[axis] || 1); }
    return axis === "score" ? 100 * offer.score : null;
  }

  /** Return where a trial is drawn; its number comes first in what a point carries. */
  function drawnAt(graph, number) {
    for (const trace of graph._fullData || []) {
      if (trace.meta === "recommended" || trace.yaxis === "y2" || !trace.customdata || !trace.x) { continue; }
      for (let i = 0; i < trace.customdata.length; i += 1) {
        if (trace.customdata[i][0] === number) { return { x: trace.x[i], y: trace.y[i] }; }
      }
    }
    return null;
  }

  /** Return why an offer has no place among a figure's latencies, in brackets; "" where it has one. Python says the same
      (panels/study/points.py). */
  function whyAway(offer, target, meta) {
    const kind = target < 0 ? "" : offer.kinds[target].split(",")[0];
    if (kind && offer.groups[target] === meta.group) { return ""; }
    return !kind ? " (no latency here)" : kind !== meta.kind ? ` (${kind}: not shown here)`
      : ` (${kind} with another runtime or device: not shown here)`;
  }

  /** Return what a budget marks in a figure: the limits on its axes in ms, and the star's place and name. The figure's
      `layout.meta` names its axes and the devices of its latencies. */
  function marksOf(figure, table, limits) {
    const meta = figure.layout && figure.layout.meta;
    if (!meta || !meta.x || !figure.data) { return null; }
    const { best, chosen } = answer(table, limits), offer = chosen === null ? null : table.offers[chosen];
    const target = table.controls.findIndex((control) => control.target === meta.target);
    const away = offer && (meta.x === "latency" || meta.y === "latency") ? whyAway(offer, target, meta) : "";
    const known = offer && !away && { x: valueOf(offer, meta.x, target, meta.units), y: valueOf(offer, meta.y, target, meta.units) };
    const place = !known ? null : Number.isFinite(known.x) && Number.isFinite(known.y) ? known : drawnAt(figure, offer.number);
    const lines = Object.entries(meta.targets || {}).map(([axis, device]) => ({ axis, limit: ms(limits[device]) }))
      .filter(({ limit }) => limit !== Infinity);
    return {
      lines, star: place, number: offer && offer.number,
      name: offer ? `${chosen === best ? "recommended" : "taken"}: trial ${offer.number}${away}` : "recommended",
      trace: figure.data.findIndex((trace) => trace.meta === "recommended"),
    };
  }

  const budgetText = (limit) => `budget ${limitText(limit)} ms`;

  /** Take a figure's own marks out before it is drawn; the legend keeps the star's entry. */
  function withoutMarks(figure) {
    for (const list of [figure.layout.shapes, figure.layout.annotations]) {
      for (const mark of list || []) { if (ON_CHART.includes(mark.name) && figure.layout.meta) { mark.visible = false; } }
    }
    figure.data = figure.data.map((trace) => (trace.meta === "recommended" ? { ...trace, x: [null], y: [null] } : trace));
  }

  /** Return a copy of a drawn figure that has the marks in itself: for a picture of it. */
  function withMarks(graph, table, limits) {
    const marks = table && marksOf(graph, table, limits), layout = structuredClone(graph.layout);
    if (!marks) { return { data: graph.data, layout }; }
    const log = (axis) => (layout[`${axis}axis`] || {}).type === "log";
    const onAxis = (axis, value) => (log(axis) ? Math.log10(value) : value);
    const lineOf = (mark) => marks.lines.find(({ axis }) => `${axis}ref` in mark ? mark[`${axis}ref`] !== "paper" : true);
    for (const mark of [...(layout.shapes || []), ...(layout.annotations || [])].filter(({ name }) => name === "budget")) {
      const line = lineOf(mark);
      mark.visible = Boolean(line);
      if (!line) { continue; }
      if ("text" in mark) { Object.assign(mark, { text: budgetText(line.limit), [line.axis]: onAxis(line.axis, line.limit) }); }
      else { mark[`${line.axis}0`] = mark[`${line.axis}1`] = line.limit; }
    }
    if (marks.star) {
      (layout.annotations ??= []).push({
        text: `<b>trial ${marks.number}</b>`, x: onAxis("x", marks.star.x), y: onAxis("y", marks.star.y),
        showarrow: false, xanchor: "left", xshift: 10, yshift: -10, font: { size: 12 },
      });
    }
    const star = { x: marks.star ? [marks.star.x] : [null], y: marks.star ? [marks.star.y] : [null], name: marks.name };
    return { data: graph.data.map((trace, i) => (i === marks.trace ? { ...trace, ...star } : trace)), layout };
  }

  // ---- the cost axis near the budget ----------------------------------------------------------------------

  /** Return the range that the x axis opens with under these limits; null where all is shown. Python does the same
      (panels/study/front_drawing.py). */
  function opening(layout, limits) {
    const { extent, clip, room, inside, targets, limit: fixed } = layout.meta || {};
    const limit = targets && targets.x ? ms(limits[targets.x]) : ms(fixed), right = clip * limit;
    if (!extent || !(right < extent[1]) || right < inside) { return null; }
    const low = extent[0];
    if ((layout.xaxis || {}).type === "log") {
      const [least, most] = [Math.log10(low), Math.log10(right)];
      return [least - room * (most - least), most];
    }
    return [low >= 0 ? Math.max(0, low - room * (right - low)) : low, right];
  }

  /** Open a figure's layout near the budget. */
  function openNear(layout, limits) {
    if (!layout.meta || !layout.meta.clip) { return; }
    const range = opening(layout, limits);
    if (range) { Object.assign(layout.xaxis, { range, autorange: false }); }
    else { delete layout.xaxis.range; layout.xaxis.autorange = true; }
  }

  const same = (one, other) => Boolean(one && other) && Math.abs(one[0] - other[0]) + Math.abs(one[1] - other[1]) < 1e-9;

  // ---- the marks above a drawn figure ---------------------------------------------------------------------

  /** Line, label and star above a drawn figure, below its tooltips. They move without the figure, at once however much it
      holds; the figure's own marks stay hidden (`withoutMarks`) except for the legend. */
  class BudgetOverlay {
    /** `moved` is told each range that the x axis is given here; `isNamed` says whether a trial has its number there already. */
    constructor(moved = () => {}, isNamed = () => false) {
      const make = (name, tag = "div") => {
        const mark = document.createElement(tag);
        mark.className = `mark ${name}`;
        return mark;
      };
      this.lines = { x: make("line upright"), y: make("line level") };
      this.labels = { x: make("label upright"), y: make("label level") };
      this.star = make("star"); this.name = make("trial");
      this.root = make("marks");
      this.root.setAttribute("aria-hidden", "true");
      this.root.append(...Object.values(this.lines), this.star, this.name, ...Object.values(this.labels));
      this.beyond = make("beyond", "button");
      this.beyond.type = "button";
      this.beyond.addEventListener("click", () => this.turn());
      Object.assign(this, { graph: null, waiting: null, all: false, moved, isNamed });
      this.again = () => this.place();
    }

    /** Show a budget's marks above a graph, now and whenever it is drawn, panned or zoomed. */
    show(graph, table, limits) {
      this.marks = marksOf(graph, table, limits);
      this.graph = graph;
      this.limits = limits;
      const papers = graph.querySelectorAll(".main-svg"), tooltips = papers[papers.length - 1];
      if (tooltips && tooltips.previousSibling !== this.root) { tooltips.before(this.beyond, this.root); }
      for (const event of ["plotly_afterplot", "plotly_relayouting"]) {
        graph.removeListener(event, this.again);
        graph.on(event, this.again);
      }
      this.place();
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => { this.follow(); this.rename(); }, NEAR_MS);
    }

    rename() {
      const trace = this.marks && this.graph.data && this.graph.data[this.marks.trace];
      if (trace && trace.name !== this.marks.name) {
        window.Plotly.restyle(this.graph, { name: [this.marks.name] }, [this.marks.trace]);
      }
    }

    /** Let the axis follow a budget that has left its middle, unless the reader has zoomed or wants to see all. */
    follow() {
      const { graph, opened } = this, now = graph.layout && graph.layout.xaxis && graph.layout.xaxis.range;
      const wanted = this.range();
      if (this.all || same(wanted, now) || (!wanted && graph.layout.xaxis.autorange !== false)) { return; }
      if (opened === undefined ? !graph.layout.meta.clip : !same(opened, now) && opened !== null) { return; }
      this.open(wanted);
    }

    range() { return this.graph.layout ? opening(this.graph.layout, this.limits) : null; }

    open(range) {
      this.opened = range;
      this.moved(range);
      const change = range ? { "xaxis.range": [...range], "xaxis.autorange": false } : { "xaxis.autorange": true };
      return window.Plotly.relayout(this.graph, change);
    }

    /** See all, or what is near the budget again. */
    turn() {
      this.all = !this.all;
      this.open(this.all ? null : this.range());
    }

    place() {
      const full = this.graph._fullLayout, marks = this.marks;
      const ready = Boolean(marks && full && full.xaxis && full.xaxis.d2p);
      this.root.hidden = !ready;
      this.beyond.hidden = true;
      if (!ready) { return; }
      if (this.opened === undefined) { this.opened = this.graph.layout.xaxis.autorange === false ? this.graph.layout.xaxis.range : null; }
      const size = full._size, area = { x: size.l, y: size.t, w: size.w, h: size.h };
      const at = (axis, value) => axis._offset + axis.d2p(value);
      const low = full.yaxis._offset, high = low + full.yaxis._length;
      const px = marks.star && { x: at(full.xaxis, marks.star.x), y: at(full.yaxis, marks.star.y) };
      const inside = (x, y) => x >= area.x - 1 && x <= area.x + area.w + 1 && y >= low - 1 && y <= high + 1;
      this.star.hidden = !px || !inside(px.x, px.y);
      this.name.hidden = this.star.hidden || this.isNamed(marks.number);
      if (!this.star.hidden) {
        this.star.style.transform = `translate(${px.x}px, ${px.y}px) translate(-50%, -50%)`;
        this.name.textContent = `trial ${marks.number}`;
        const left = px.x > area.x + area.w - 80;  // or the name would leave the chart
        this.name.style.transform = `translate(${px.x + (left ? -12 : 12)}px, ${px.y + 4}px)${left ? " translate(-100%, 0)" : ""}`;
      }
      for (const axis of ["x", "y"]) { this.placeLine(axis, marks.lines.find((line) => line.axis === axis), full, area); }
      this.placeBeyond(full, area, high);
    }

    placeLine(axis, line, full, area) {
      const mark = this.lines[axis], label = this.labels[axis];
      mark.hidden = label.hidden = !line;
      if (!line) { return; }
      const upright = axis === "x", own = full[`${axis}axis`], along = own._offset + own.d2p(line.limit);
      const start = upright ? area.x : area.y, end = start + (upright ? area.w : area.h);
      const off = along < start - 1 ? -1 : along > end + 1 ? 1 : 0;  // beyond an end, where the label says so
      mark.hidden = off !== 0;
      const where = Math.min(Math.max(along, start), end);
      mark.style.transform = upright ? `translate(${where}px, ${area.y}px)` : `translate(${area.x}px, ${where}px)`;
      mark.style[upright ? "height" : "width"] = `${upright ? area.h : area.w}px`;
      const text = budgetText(line.limit), arrow = upright ? ["\u2190 ", " \u2192"] : ["\u2191 ", " \u2193"];
      label.textContent = off < 0 ? arrow[0] + text : off > 0 ? text + arrow[1] : text;
      this.placeLabel(label, upright, where, area);
    }

    placeLabel(label, upright, where, area) {
      if (!upright) {
        label.style.transform = `translate(${area.x + area.w}px, ${where}px) translate(-100%, -110%)`;
        return;
      }
      const half = label.offsetWidth / 2, full = this.root.clientWidth;
      const middle = Math.min(Math.max(where, half), full - half);
      label.style.transform = `translate(${middle}px, ${area.y}px) translate(-50%, -105%)`;
    }

    /** Say at the edge how much lies beyond what is shown, on a button that shows all, or goes back to the budget. */
    placeBeyond(full, area, bottom) {
      const { clip } = this.graph.layout.meta || {};
      if (!clip) { return; }
      const [, right] = full.xaxis.range, end = full.xaxis.type === "log" ? 10 ** right : right;
      let more = 0;
      for (const trace of this.graph._fullData) {
        if (trace.mode !== "markers" || trace.visible !== true) { continue; }
        for (let i = 0; i < trace.x.length; i += 1) { if (trace.x[i] > end) { more += 1; } }
      }
      const back = this.all && this.range();
      this.beyond.hidden = !more && !back;
      this.beyond.textContent = more ? `${more.toLocaleString("en")} more \u2192` : "\u2190 near the budget";
      this.beyond.title = more ? "Show all" : "Show what is near the budget";
      this.beyond.style.transform = `translate(${area.x + area.w - 4}px, ${bottom - 4}px) translate(-100%, -100%)`;
    }
  }

  window.CondenseryMarks = { BudgetOverlay, marksOf, opening, openNear, withMarks, withoutMarks };
})();
