/* What the page and the static report do in the reader's browser: answer a budget, move its marks, colour the figures.

   The answers are those of dashboards/budget.py, looked up in the same table; a test holds the two together. Nothing
   here asks the network for anything, and no text is ever taken for HTML. */
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

  /** Which offers a budget gets; `limits` has ms by device, null or absent is no limit. */
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
    const better = more !== null && (best === null || table.offers[more].top1 > table.offers[best].top1);
    return {
      fits: table.highs_ms.reduce((number, highs) => number + inside(highs, ceiling), 0),
      best, runner_up: fitting.length > 1 ? fitting[1] : null, more: better ? more : null, more_ms: moreMs,
    };
  }

  /** The answer in words, sentence by sentence. */
  function sentences(table, limits) {
    if (!table.trained) { return [table.why_none]; }
    const found = answer(table, limits), many = table.controls.length > 1;
    const on = (name) => (many ? ` on ${name}` : "");
    const at = (offer) => (offer.latency ? ` at ${offer.latency}` : "");
    const limited = table.controls.filter((control) => ms(limits[control.target]) !== Infinity);
    const budget = limited.map((control) => `${limitText(limits[control.target])} ms${on(control.target)}`);
    if (table.fixed) { budget.push(table.fixed); }
    const networks = table.trained === 1 ? "1 trained network" : `${table.trained} trained networks`;
    const parts = [
      `${found.fits} of ${networks} ${found.fits === 1 ? "fits" : "fit"} ${budget.join(" and ") || "no limit"}.`];
    if (found.best !== null) {
      const best = table.offers[found.best];
      parts.push(`Best: ${best.name}, ${best.accuracy}${at(best)}.`);
    }
    if (found.runner_up !== null) {
      const second = table.offers[found.runner_up];
      parts.push(`Runner-up: ${second.name}, ${second.top1_text}${at(second)}.`);
    }
    if (found.best === null) {
      const least = limited.filter((control) => control.least)
        .map((control) => `${control.least}${on(control.target)}`);
      if (least.length) { parts.push(`The fastest needs ${least.join(" and ")}.`); }
    }
    const steps = limited.map((control) => `${limitText(found.more_ms[control.target])} ms more${on(control.target)}`);
    if (steps.length && found.more === null) { parts.push(`${steps.join(" and ")} would buy nothing better.`); }
    if (steps.length && found.more !== null) {
      const more = table.offers[found.more];
      parts.push(`${steps.join(" and ")} would buy ${more.top1_text}: ${more.name}${at(more)}.`);
    }
    return parts;
  }

  const sentence = (table, limits) => sentences(table, limits).join(" ");

  /** The command that picks under these limits; `words` are those after "condensery pick" that name the study. */
  function pickCommand(table, limits, words) {
    const many = table.controls.length > 1;
    const options = table.controls.filter((control) => ms(limits[control.target]) !== Infinity).map((control) =>
      `--max-latency-ms ${many ? `${control.target}=` : ""}${limitText(limits[control.target])}`);
    return ["condensery pick", words, ...options, "--out bundle"].filter(Boolean).join(" ");
  }

  // ---- a budget's marks in a figure -----------------------------------------------------------------------

  const valueOf = (offer, what, target) => ({
    latency: offer.median_ms[target], macs: offer.macs / 1e6, params: offer.params / 1e6, top1: 100 * offer.top1,
  })[what];

  /** What a budget changes in a figure: `layout` by path, `trace` of the star at place `star` (-1: it has none).

      The figure's `layout.meta` says which device its latencies are of, and what stands on its axes. */
  function budgetMarks(figure, table, limits) {
    const layout = figure.layout, meta = layout && layout.meta, change = {};
    if (!meta || !figure.data) { return null; }
    const target = table.controls.findIndex((control) => control.target === meta.target);
    const limit = target < 0 ? Infinity : ms(limits[meta.target]);
    const axis = meta.x === "latency" ? "x" : meta.y === "latency" ? "y" : null;  // null: the limit shown is another
    const visible = limit !== Infinity;
    const log = axis !== null && layout[`${axis}axis`] && layout[`${axis}axis`].type === "log";
    (axis === null ? [] : layout.shapes || []).forEach((shape, i) => {
      if (shape.name !== "budget") { return; }
      change[`shapes[${i}].visible`] = visible;
      if (visible) { change[`shapes[${i}].${axis}0`] = limit; change[`shapes[${i}].${axis}1`] = limit; }
    });
    (axis === null ? [] : layout.annotations || []).forEach((note, i) => {
      if (note.name !== "budget") { return; }
      change[`annotations[${i}].visible`] = visible;
      if (visible) {
        change[`annotations[${i}].${axis}`] = log ? Math.log10(limit) : limit;
        change[`annotations[${i}].text`] = `budget ${limitText(limit)} ms`;
      }
    });
    const best = answer(table, limits).best, offer = best === null ? null : table.offers[best];
    const x = offer && valueOf(offer, meta.x, target), y = offer && valueOf(offer, meta.y, target);
    const known = Number.isFinite(x) && Number.isFinite(y);
    return {
      layout: change,
      star: figure.data.findIndex((trace) => trace.meta === "recommended"),
      trace: { x: known ? [x] : [], y: known ? [y] : [], name: known ? `recommended: trial ${offer.number}` : "recommended" },
    };
  }

  /** Move the budget line and the star of a figure that is drawn. */
  function moveBudget(graph, table, limits) {
    const marks = budgetMarks(graph, table, limits);
    if (marks === null) { return Promise.resolve(); }
    const same = marks.star < 0 || JSON.stringify(graph.data[marks.star].x) === JSON.stringify(marks.trace.x);
    if (same) { return window.Plotly.relayout(graph, marks.layout); }  // the costly half is drawing points anew
    const trace = Object.fromEntries(Object.entries(marks.trace).map(([name, value]) => [name, [value]]));
    return window.Plotly.update(graph, trace, marks.layout, [marks.star]);
  }

  /** Put the budget line and the star into a figure that is yet to be drawn; its layout is changed. */
  function placeBudget(figure, table, limits) {
    const marks = budgetMarks(figure, table, limits);
    if (marks === null) { return; }
    for (const [path, value] of Object.entries(marks.layout)) {
      const [, list, place, name] = path.match(/^(\w+)\[(\d+)\]\.(\w+)$/);
      figure.layout[list][place][name] = value;
    }
    if (marks.star >= 0) {
      figure.data = figure.data.map((trace, i) => (i === marks.star ? { ...trace, ...marks.trace } : trace));
    }
  }

  // ---- colours --------------------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** A figure's layout in the page's colours (light or dark) and fit for the width in pixels it has. */
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

  /** What the address says after "?", as a plain object. */
  const shown = () => Object.fromEntries(new URLSearchParams(window.location.search));

  /** Put values into the address, so that it can be shared; null, undefined or "" takes one out. */
  function remember(values) {
    const words = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") { words.delete(name); } else { words.set(name, value); }
    }
    const text = words.toString();
    window.history.replaceState(window.history.state, "", text ? `?${text}` : window.location.pathname);
  }

  window.Condensery = { answer, sentence, sentences, pickCommand, moreThan, limitText, moveBudget, placeBudget, themed, colour, shown, remember };
})();
