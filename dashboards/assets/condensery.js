/* What page and report do in the reader's browser: move a budget's marks, colour the figures, keep the address.

   Nothing here asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { answer, askedOf, sentence, sentences, commandFor, moreThan, limitText, ms } = window.CondenseryAnswer;

  // ---- a budget's marks in a figure -----------------------------------------------------------------------

  const valueOf = (offer, axis, target) => ({
    latency: offer.median_ms[target], macs: offer.macs / 1e6, params: offer.params / 1e6, score: 100 * offer.score,
  })[axis];

  /** Return why an offer has no place among a figure's latencies, in brackets; "" where it has one. Python says the same
      (panels/study/points.py). */
  function whyAway(offer, target, meta) {
    const kind = target < 0 ? "" : offer.kinds[target].split(",")[0];
    if (kind && offer.groups[target] === meta.group) { return ""; }
    return !kind ? " (no latency here)" : kind !== meta.kind ? ` (${kind}: not shown here)`
      : ` (${kind} with another runtime or device: not shown here)`;
  }

  /** Return what a budget marks in a figure: the limit on one of its axes (`axis` null: on neither; `limit` Infinity:
      none), and the star's place. The figure's `layout.meta` names its axes and the device of its latencies. */
  function marksOf(figure, table, limits) {
    const meta = figure.layout && figure.layout.meta;
    if (!meta || !figure.data) { return null; }
    const target = table.controls.findIndex((control) => control.target === meta.target);
    const { best, chosen } = answer(table, limits), offer = chosen === null ? null : table.offers[chosen];
    const x = offer && valueOf(offer, meta.x, target), y = offer && valueOf(offer, meta.y, target);
    const away = offer && (meta.x === "latency" || meta.y === "latency") ? whyAway(offer, target, meta) : "";
    const placed = !away && Number.isFinite(x) && Number.isFinite(y);
    return {
      axis: meta.x === "latency" ? "x" : meta.y === "latency" ? "y" : null,
      limit: target < 0 ? Infinity : ms(limits[meta.target]),
      star: placed ? { x, y } : null,
      name: offer ? `${chosen === best ? "recommended" : "taken"}: trial ${offer.number}${away}` : "recommended",
      trace: figure.data.findIndex((trace) => trace.meta === "recommended"),
    };
  }

  /** Put the marks into a figure before it is drawn; its layout is changed. */
  function placeBudget(figure, table, limits) {
    const marks = marksOf(figure, table, limits);
    if (marks === null) { return; }
    for (const [path, value] of Object.entries(layoutOf(figure, marks))) {
      const [, list, place, name] = path.match(/^(\w+)\[(\d+)\]\.(\w+)$/);
      figure.layout[list][place][name] = value;
    }
    figure.data = figure.data.map((trace, i) => (i === marks.trace ? { ...trace, ...traceOf(marks) } : trace));
  }

  /** Return the star's trace; an offer without a place keeps the legend's entry, which says why there is no star. */
  function traceOf({ star, name }) {
    const none = name === "recommended" ? [] : [null];
    return { x: star ? [star.x] : none, y: star ? [star.y] : none, name };
  }

  /** Return the changes to line and label in a figure's layout, by path. */
  function layoutOf(figure, { axis, limit }) {
    const change = {}, visible = limit !== Infinity;
    if (axis === null) { return change; }
    const log = (figure.layout[`${axis}axis`] || {}).type === "log";
    (figure.layout.shapes || []).forEach((shape, i) => {
      if (shape.name !== "budget") { return; }
      change[`shapes[${i}].visible`] = visible;
      if (visible) { change[`shapes[${i}].${axis}0`] = limit; change[`shapes[${i}].${axis}1`] = limit; }
    });
    (figure.layout.annotations || []).forEach((note, i) => {
      if (note.name !== "budget") { return; }
      change[`annotations[${i}].visible`] = visible;
      if (visible) {
        change[`annotations[${i}].${axis}`] = log ? Math.log10(limit) : limit;
        change[`annotations[${i}].text`] = budgetText(limit);
      }
    });
    return change;
  }

  const budgetText = (limit) => `budget ${limitText(limit)} ms`;

  /** Move the marks of a drawn figure. With thousands of points this draws them all again: see `BudgetOverlay`. */
  function moveBudget(graph, table, limits) {
    const marks = marksOf(graph, table, limits);
    if (marks === null) { return Promise.resolve(); }
    const trace = Object.fromEntries(Object.entries(traceOf(marks)).map(([name, value]) => [name, [value]]));
    const drawn = marks.trace >= 0 ? [trace, [marks.trace]] : [{}, []];
    return window.Plotly.update(graph, drawn[0], layoutOf(graph, marks), drawn[1]);
  }

  /** Line, label and star above a drawn figure. They move without the figure, at once however much it holds; the
      figure's own marks stay empty (`BudgetOverlay.empty`) except for the legend. */
  class BudgetOverlay {
    constructor(box) {
      const make = (name) => {
        const mark = document.createElement("div");
        mark.className = `mark ${name}`;
        return mark;
      };
      this.line = make("line"); this.label = make("label"); this.star = make("star");
      this.root = make("marks");
      this.root.setAttribute("aria-hidden", "true");
      this.root.append(this.line, this.star, this.label);
      box.append(this.root);
      this.graph = null;
      this.naming = null;
      this.again = () => this.place();
    }

    /** Take the marks out of a figure before it is drawn; the legend keeps its entry. */
    static empty(figure) {
      for (const list of [figure.layout.shapes, figure.layout.annotations]) {
        for (const mark of list || []) { if (mark.name === "budget" && figure.layout.meta) { mark.visible = false; } }
      }
      figure.data = figure.data.map((trace) =>
        (trace.meta === "recommended" ? { ...trace, x: [null], y: [null] } : trace));
    }

    /** Show a budget's marks above a graph, now and whenever it is drawn, panned or zoomed. */
    show(graph, table, limits) {
      this.marks = marksOf(graph, table, limits);
      this.graph = graph;
      for (const event of ["plotly_afterplot", "plotly_relayouting"]) {
        graph.removeListener(event, this.again);
        graph.on(event, this.again);
      }
      this.place();
      clearTimeout(this.naming);
      this.naming = setTimeout(() => this.name(), 250);
    }

    name() {
      const trace = this.marks && this.graph.data && this.graph.data[this.marks.trace];
      if (trace && trace.name !== this.marks.name) {
        window.Plotly.restyle(this.graph, { name: [this.marks.name] }, [this.marks.trace]);
      }
    }

    place() {
      const full = this.graph._fullLayout, marks = this.marks;
      const ready = marks && full && full.xaxis && full.xaxis.d2p;
      this.root.hidden = !ready;
      if (!ready) { return; }
      const size = full._size, area = { x: size.l, y: size.t, w: size.w, h: size.h };
      const at = (axis, value) => axis._offset + axis.d2p(value);
      const low = full.yaxis._offset, high = low + full.yaxis._length;
      const px = marks.star && { x: at(full.xaxis, marks.star.x), y: at(full.yaxis, marks.star.y) };
      const inside = (x, y) => x >= area.x - 1 && x <= area.x + area.w + 1 && y >= low - 1 && y <= high + 1;
      this.star.hidden = !px || !inside(px.x, px.y);
      if (!this.star.hidden) { this.star.style.transform = `translate(${px.x}px, ${px.y}px) translate(-50%, -50%)`; }
      this.line.hidden = this.label.hidden = marks.axis === null || marks.limit === Infinity;
      if (this.line.hidden) { return; }
      const upright = marks.axis === "x", along = at(full[`${marks.axis}axis`], marks.limit);
      const start = upright ? area.x : area.y, end = start + (upright ? area.w : area.h);
      const off = along < start - 1 ? -1 : along > end + 1 ? 1 : 0;  // beyond an end, where the label says so
      this.line.hidden = off !== 0;
      const where = Math.min(Math.max(along, start), end);
      this.line.className = `mark line ${upright ? "upright" : "level"}`;
      this.line.style.transform = upright ? `translate(${where}px, ${area.y}px)` : `translate(${area.x}px, ${where}px)`;
      this.line.style[upright ? "height" : "width"] = `${upright ? area.h : area.w}px`;
      this.line.style[upright ? "width" : "height"] = "0px";
      const text = budgetText(marks.limit), arrow = upright ? ["\u2190 ", " \u2192"] : ["\u2191 ", " \u2193"];
      this.label.textContent = off < 0 ? arrow[0] + text : off > 0 ? text + arrow[1] : text;
      this.placeLabel(upright, where, area);
    }

    placeLabel(upright, where, area) {
      if (!upright) {
        this.label.style.transform = `translate(${area.x + area.w}px, ${where}px) translate(-100%, -110%)`;
        return;
      }
      const half = this.label.offsetWidth / 2, full = this.root.clientWidth;
      const middle = Math.min(Math.max(where, half), full - half);
      this.label.style.transform = `translate(${middle}px, ${area.y}px) translate(-50%, -105%)`;
    }
  }

  // ---- colours --------------------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** Return a figure's layout in the page's colours (light or dark), fit for its width in pixels. */
  function themed(layout, width, entries) {
    const out = structuredClone(layout), ink = colour("--ink"), line = colour("--line"), narrow = width < 520;
    out.font = { ...out.font, color: ink, size: narrow ? 11 : 13 };
    out.hoverlabel = { ...out.hoverlabel, bgcolor: colour("--surface"), bordercolor: line, font: { color: ink } };
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink };
    for (const key of Object.keys(out).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(out[key], { gridcolor: line, linecolor: line, tickfont: { color: colour("--muted") } });
    }
    if (narrow) {
      out.margin = { ...out.margin, l: 40, r: 6 };
      if (entries > 6) {
        out.legend = { ...out.legend, entrywidth: 0.46, entrywidthmode: "fraction", maxheight: 1 };
        out.height += 14 * entries;
      }
    }
    return out;
  }

  // ---- what is shown, in the address ----------------------------------------------------------------------

  /** Return what the address has after "?", as a plain object. */
  const shown = () => Object.fromEntries(new URLSearchParams(window.location.search));

  /** Put values into the address, so that it can be shared; null, undefined or "" removes one. With "pushState" that is
      an entry of its own in the browser's history, which *Back* undoes. */
  function remember(values, entry = "replaceState") {
    const words = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") { words.delete(name); } else { words.set(name, value); }
    }
    const text = words.toString();
    window.history[entry](window.history.state, "", text ? `?${text}` : window.location.pathname);
  }

  /** Draw WebGL as sharp as the screen; Plotly's default is twice as sharp, which is slow without a graphics card. */
  function asSharpAsTheScreen() {
    window.Plotly.setPlotConfig({ plotGlPixelRatio: Math.max(1, window.devicePixelRatio) });
  }

  window.Condensery = { answer, askedOf, sentence, sentences, commandFor, moreThan, limitText, moveBudget, placeBudget, BudgetOverlay, themed, colour, shown,
    remember, asSharpAsTheScreen };
})();
