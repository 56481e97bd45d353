/* What page and report do in the reader's browser: answer a budget, move its marks, colour the figures.

   The answers are those of dashboards/budget/table.py, looked up in the same table; a test compares the two. Nothing here
   asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  // ---- answering a budget ---------------------------------------------------------------------------------

  const MORE_MS = 2.0, MORE_SHARE = 0.2;
  const ms = (value) => (value === null || value === undefined ? Infinity : value);

  function moreThan(limit) {
    if (limit >= MORE_MS / MORE_SHARE) { return MORE_MS; }
    const fifth = MORE_SHARE * limit;
    const unit = 10 ** Number(fifth.toExponential(16).split("e")[1]);
    return Math.floor(fifth / unit + 0.5) * unit;
  }

  function limitText(value) {
    if (value >= 1e-4 && value < 1e6) { return String(Number(value.toPrecision(6))); }
    return value >= 1e6 ? value.toFixed(0) : value.toFixed(6).replace(/0+$/, "").replace(/\.$/, "");
  }

  /** Return which offers a budget gets; `limits` has ms by device, null or absent is no limit. */
  function answer(table, limits) {
    const targets = table.controls.map((control) => control.target);
    const ceiling = targets.map((name) => ms(limits[name]));
    const moreMs = {};
    targets.forEach((name, i) => { if (ceiling[i] !== Infinity) { moreMs[name] = moreThan(ceiling[i]); } });
    const raised = ceiling.map((limit, i) => limit + (moreMs[targets[i]] || 0));
    const inside = (highs, limit) => highs.every((high, i) => ms(high) <= limit[i]);
    const fitting = [];
    let more = null;
    table.offers.forEach((offer, i) => {
      if (fitting.length < 2 && inside(offer.high_ms, ceiling)) { fitting.push(i); }
      if (more === null && inside(offer.high_ms, raised)) { more = i; }
    });
    const best = fitting.length ? fitting[0] : null;
    const better = more !== null && (best === null || table.offers[more].score > table.offers[best].score);
    return {
      fits: table.highs_ms.reduce((number, highs) => number + inside(highs, ceiling), 0),
      best, runner_up: fitting.length > 1 ? fitting[1] : null, more: better ? more : null, more_ms: moreMs,
    };
  }

  /** Return the answer in words, sentence by sentence. */
  function sentences(table, limits) {
    if (!table.trained) { return [table.why_none]; }
    const answered = answer(table, limits), many = table.controls.length > 1;
    const on = (name) => (many ? ` on ${name}` : "");
    const at = (offer) => (offer.latency ? ` at ${offer.latency}` : "");
    const limited = table.controls.filter((control) => ms(limits[control.target]) !== Infinity);
    const budget = limited.map((control) => `${limitText(limits[control.target])} ms${on(control.target)}`);
    if (table.fixed) { budget.push(table.fixed); }
    const english = (number) => number.toLocaleString("en");
    const networks = `${english(table.trained)} trained ${table.trained === 1 ? "network" : "networks"}`;
    const parts = [
      `${english(answered.fits)} of ${networks} ${answered.fits === 1 ? "fits" : "fit"} ${budget.join(" and ") || "no limit"}.`];
    if (answered.best !== null) {
      const best = table.offers[answered.best];
      parts.push(`Best: ${best.name}, ${best.accuracy}${at(best)}.`, ...best.remarks);
    }
    if (answered.runner_up !== null) {
      const second = table.offers[answered.runner_up];
      const noise = second.as_good.includes(answered.best) ? ", as good within noise" : "";
      parts.push(`Runner-up: ${second.name}, ${second.score_text}${noise}${at(second)}.`);
    }
    if (answered.best === null) {
      const least = limited.filter((control) => control.least)
        .map((control) => `${control.least}${on(control.target)}`);
      if (least.length) { parts.push(`The fastest needs ${least.join(" and ")}.`); }
    }
    const steps = limited.map((control) => `${limitText(answered.more_ms[control.target])} ms more${on(control.target)}`);
    if (steps.length && answered.more === null) { parts.push(`${steps.join(" and ")} would buy nothing better.`); }
    if (steps.length && answered.more !== null) {
      const more = table.offers[answered.more];
      const noise = more.as_good.includes(answered.best) ? ", no more than noise" : "";
      parts.push(`${steps.join(" and ")} would buy ${more.score_text}${noise}: ${more.name}${at(more)}.`);
    }
    return parts;
  }

  const sentence = (table, limits) => sentences(table, limits).join(" ");

  /** Return the command that picks under these limits; `words` name the study in it. */
  function pickCommand(table, limits, words) {
    const many = table.controls.length > 1 || table.controls.some(({ target }) => target !== table.judged_by);
    const options = table.controls.filter((control) => ms(limits[control.target]) !== Infinity).map((control) =>
      `--max-latency-ms ${many ? `${control.target}=` : ""}${limitText(limits[control.target])}`);
    return ["condensery pick", words, ...options, "--out bundle"].filter(Boolean).join(" ");
  }

  /** Return the command to show for an offer: it picks, or where the study was replayed it trains the network for real. */
  const commandFor = (offer, table, limits, { words, instead }) =>
    !instead ? pickCommand(table, limits, words) : offer ? instead.command.replace("{trial}", offer.number) : "";

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
    const best = answer(table, limits).best, offer = best === null ? null : table.offers[best];
    const x = offer && valueOf(offer, meta.x, target), y = offer && valueOf(offer, meta.y, target);
    const away = offer && (meta.x === "latency" || meta.y === "latency") ? whyAway(offer, target, meta) : "";
    const placed = !away && Number.isFinite(x) && Number.isFinite(y);
    return {
      axis: meta.x === "latency" ? "x" : meta.y === "latency" ? "y" : null,
      limit: target < 0 ? Infinity : ms(limits[meta.target]),
      star: placed ? { x, y } : null,
      name: offer ? `recommended: trial ${offer.number}${away}` : "recommended",
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

  /** Put values into the address, so that it can be shared; null, undefined or "" removes one. */
  function remember(values) {
    const words = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") { words.delete(name); } else { words.set(name, value); }
    }
    const text = words.toString();
    window.history.replaceState(window.history.state, "", text ? `?${text}` : window.location.pathname);
  }

  /** Draw WebGL as sharp as the screen; Plotly's default is twice as sharp, which is slow without a graphics card. */
  function asSharpAsTheScreen() {
    window.Plotly.setPlotConfig({ plotGlPixelRatio: Math.max(1, window.devicePixelRatio) });
  }

  window.Condensery = { answer, sentence, sentences, commandFor, moreThan, limitText, moveBudget, placeBudget, BudgetOverlay, themed, colour, shown,
    remember, asSharpAsTheScreen };
})();
