/* The charts of the live page, drawn in the reader's colours, with the budget's marks, brushes and tables. */
(function () {
  "use strict";

  const { state, node, at, set, keep, question, markAway, parts } = window.CondenseryPage;

  // ---- charts ---------------------------------------------------------------------------------------------

  const graphOf = (name) => document.querySelector(`#${CSS.escape(name)}-graph .js-plotly-plot`);

  const hasWebGL = (() => {
    let known = null;
    return () => (known ??= Boolean(document.createElement("canvas").getContext("webgl")));
  })();

  /** Replace what needs WebGL where the browser has none: points become SVG, which is slow; parallel lines a sentence. */
  function withoutWebGL(payload) {
    if (hasWebGL() || !payload.figure) { return payload; }
    const { data } = payload.figure;
    if (data.some((trace) => trace.type === "parcoords")) {
      return { reason: "This chart needs WebGL, which this browser doesn't have; its table has the same networks." };
    }
    const plain = data.map((trace) => (trace.type === "scattergl" ? { ...trace, type: "scatter" } : trace));
    return { ...payload, figure: { ...payload.figure, data: plain } };
  }

  const last = {};  // the charts as they were sent

  /** Draw a chart again with what the reader has chosen for it since. */
  const redraw = (name) => { if (last[name]) { set(`${name}-payload`, { data: { ...last[name] } }); } };

  function draw(given, theme, id) {
    const payload = given && withoutWebGL(given);
    const name = id.replace(/-graph$/, "");
    last[name] = given;
    if (!payload) { return [keep(), keep(), keep(), keep(), keep()]; }
    if (name === "front" && !state.drawn) { afterFront(); }
    refillTable(name);
    showBeside(name, payload);
    markAway(at(`${name}-state`), payload);
    parts.offerChoices(name, payload);
    showHow(name, payload.reason ? [] : payload.how);
    if (payload.reason) {
      at(`${name}-state`).classList.toggle("wrong", Boolean(payload.wrong));
      return [keep(), true, false, payload.reason, ""];
    }
    headings[name] = payload.heading;
    const box = at(name), C = window.Condensery;
    const layout = C.themed(payload.figure.layout, box.clientWidth - 44, C.entriesOf(payload.figure.data));
    layout.uirevision = payload.shows || "constant";
    parts.scaled(name, layout);
    if (name === "front" && !(overlays.front && overlays.front.all)) { C.openNear(layout, state.limits); }
    keepZoom(name, layout);
    at(id).style.height = `${layout.height}px`;
    const least = (layout.meta || {}).min_width_px || 0;  // narrower, a chart of many axes scrolls
    at(id).style.minWidth = `${least}px`;
    at(`${name}-box`).classList.toggle("wide", least > 0);
    const figure = parts.linesShown(name, { data: payload.figure.data, layout });
    if (MARKED.includes(name)) { C.withoutMarks(figure); setTimeout(() => mark(name), 0); }
    if (name === "parallel") { parts.keepBrush(figure); }
    return [figure, false, true, keep(), payload.caption || ""];
  }

  const sent = {}, headings = {};

  /** Show what a caption has no room for, behind "How to read this". */
  function showHow(name, sentences) {
    const details = at(`${name}-how`);
    details.hidden = !(sentences || []).length;
    details.querySelector("ul").replaceChildren(...(sentences || []).map((text) => node("li", {}, text)));
  }

  /** Keep the ranges that the reader has zoomed or panned to. Plotly does so by `uirevision`, but the Graph component
      writes them into its figure, and then they count as the figure's own. */
  function keepZoom(name, layout) {
    const graph = graphOf(name), before = sent[name];
    const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
    sent[name] = { shows: layout.uirevision, ranges: Object.fromEntries(axes.map((key) => [key, layout[key].range])) };
    if (!graph || !graph.layout || !before || before.shows !== layout.uirevision) { return; }
    for (const key of axes) {
      const now = graph.layout[key];
      if (!now || !now.range || now.autorange || JSON.stringify(now.range) === JSON.stringify(before.ranges[key])) {
        continue;
      }
      Object.assign(layout[key], { range: [...now.range], autorange: false });
    }
  }

  const zooms = {}, opened = new Set();  // in the trials below, which are made again as they go on

  /** Remember what the reader zooms a trial's figure to; the figure may be made again with another graph. */
  function zoomed(change) {
    const { of } = window.dash_clientside.callback_context.inputs_list[0].id;
    const ranges = (zooms[of] ??= {});
    for (const [key, value] of Object.entries(change || {})) {
      const [, axis, what, place] = key.match(/^([xy]axis\d*)\.(range|autorange)(?:\[(\d)\])?$/) || [];
      if (what === "autorange") { delete ranges[axis]; }
      else if (what === "range" && place !== undefined) { (ranges[axis] ??= [])[Number(place)] = value; }
      else if (what === "range") { ranges[axis] = [...value]; }
    }
    return keep();
  }

  /** Keep open what the reader has opened in the trials below when they are made again. */
  function keepOpen() {
    const body = at("comparison-body");
    body.addEventListener("toggle", (event) => {
      const key = event.target.dataset.key;
      if (event.target.open) { opened.add(key); } else if (event.target.isConnected) { opened.delete(key); }
    }, true);
    new MutationObserver(() => {
      for (const details of body.querySelectorAll("details[data-key]:not([open])")) {
        if (opened.has(details.dataset.key) && !details.dataset.seen) { details.open = true; }
        details.dataset.seen = "yes";
      }
    }).observe(body, { childList: true, subtree: true });
  }

  /** Return a figure of one trial in the page's colours. */
  function part(payload) {
    if (!payload) { return keep(); }
    const { data, layout } = payload.figure, width = at("comparison-body").clientWidth;
    const themed = window.Condensery.themed(layout, width, window.Condensery.entriesOf(data));
    const { of, type } = window.dash_clientside.callback_context.outputs_list.id;
    themed.uirevision = of;
    for (const [key, range] of Object.entries(zooms[of] || {})) {
      if (themed[key]) { Object.assign(themed[key], { range, autorange: false }); }
    }
    const graph = at(JSON.stringify({ of, type }));
    if (graph) { graph.style.height = `${themed.height}px`; }
    return { data, layout: themed };
  }

  /** Show what is beside a chart: facts in words, and tables. */
  function showBeside(name, payload) {
    const box = at(`${name}-beside`), key = JSON.stringify([payload.facts, payload.tables]);
    if (!payload.facts || box.dataset.key === key) { return; }
    box.dataset.key = key;
    const before = new Map([...box.querySelectorAll("details")].map((one) => [one.dataset.title, one.open]));
    const isOpen = (table) => before.get(table.title) ?? Boolean(table.open);
    box.replaceChildren(
      node("dl", { class: "facts" }, ...payload.facts.map(([name, value]) =>
        node("div", {}, node("dt", {}, name), node("dd", {}, value)))),
      ...payload.tables.map((table) => node("details", { "data-title": table.title, open: isOpen(table) },
        node("summary", {}, `${table.title} (${table.rows.length})`),
        node("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": table.title }, ...tableOf(table)))));
  }

  function tableOf({ headers, rows, rest }) {
    const cell = (text) => node("td", { class: text.length > 40 ? "wrap" : null }, text);
    return [
      node("table", {}, node("thead", {}, node("tr", {}, ...headers.map((text) => node("th", { scope: "col" }, text)))),
        node("tbody", {}, ...rows.map((row) => node("tr", {}, ...row.map(cell))))),
      ...(rest ? [node("p", { class: "muted" }, rest)] : []),
    ];
  }

  /** Let the other charts come, which wait until the front is there. */
  function afterFront() {
    state.drawn = true;
    setTimeout(() => set("late", { data: { ...state.view } }), 60);
  }

  const MARKED = ["front", "macs-latency"], overlays = {};

  /** Show the budget above a chart, as soon as it has been drawn. */
  function mark(name, tries = 200) {
    const graph = graphOf(name);
    if (!graph || !graph._fullLayout || !graph.on) {
      if (tries > 0) { setTimeout(() => mark(name, tries - 1), 50); }
      return;
    }
    overlays[name] ??= new window.Condensery.BudgetOverlay((range) => {
      if (sent[name]) { sent[name].ranges.xaxis = range ? [...range] : undefined; }  // it isn't the reader's own zoom
    }, (number) => state.chosen.includes(number));
    if (state.table) { overlays[name].show(graph, state.table, state.limits); }
  }

  /** Name the star's trial, unless it is selected and has its number there already. */
  const placeStars = () => { for (const overlay of Object.values(overlays)) { if (overlay.graph) { overlay.place(); } } };

  function moveMarks() {
    for (const name of MARKED) { if (graphOf(name)) { mark(name, 0); } }
  }

  window.Condensery.savePictures((graph) => {
    const name = Object.keys(headings).find((chart) => graphOf(chart) === graph);
    return name ? { name, heading: headings[name], table: state.table, limits: state.limits } : null;
  });

  // ---- tables of the charts -----------------------------------------------------------------------------------

  async function fillTable(details) {
    const box = details.querySelector(".scroll");
    try {
      const answer = await fetch(`/chart-table/${details.dataset.chart}?${question({})}`);
      if (!answer.ok) { throw new Error(await answer.text()); }
      const table = await answer.json();
      box.replaceChildren(...tableOf(table));
    } catch (error) {
      box.replaceChildren(node("p", { class: "muted" }, `The table can't be shown now: ${error.message}`));
    }
  }

  function refillTable(name) {
    const details = at(`${name}-data-table`);
    if (details && details.open) { fillTable(details); }
  }

  function fillOpenTables() {
    for (const details of document.querySelectorAll("details[data-chart][open]")) { fillTable(details); }
  }

  Object.assign(parts, { fillTable, fillOpenTables, keepOpen, graphOf, moveMarks, placeStars, redraw });
  Object.assign(window.dash_clientside.page, { draw, part, zoomed });
})();
