/* The report in the reader's browser: unpack what the page carries, answer the budget, draw the charts, list the trials.

   The first chart is drawn at once, the others when the reader comes near. */
(function () {
  "use strict";

  const { unpacked, parsed, run } = window.CondenseryPacked;
  const C = window.Condensery, { BudgetControl, showAnswer, copyText, node } = window.CondenseryBudget;
  const at = (id) => document.getElementById(id);
  const state = {
    core: null, charts: null, networks: null, limits: {}, view: 0, views: new Map(), trials: null, drawn: new Set(),
    overlays: new Map(), log: null, frontOnly: false,
  };

  // ---- budget ---------------------------------------------------------------------------------------------

  let control = null;

  function startBudget() {
    control = new BudgetControl(state.limits, moved, state.core.own);
    control.show(state.core.table);
    at("copy-pick").addEventListener("click", copyCommand);
    answerBudget();
  }

  function moved() {
    answerBudget();
    state.overlays.forEach((overlay, name) => mark(name));
    performance.mark("condensery-budget");
    remember();
  }

  let writing = null;
  function remember() {
    clearTimeout(writing);
    writing = setTimeout(() => {
      try { C.remember(control.words()); } catch (error) { /* a browser may refuse it to a file */ }
    }, 250);
  }

  function answerBudget() {
    const { table } = state.core, offer = showAnswer(table, state.limits, control);
    at("answer-buttons").hidden = at("command-box").hidden = offer === null;
    at("trial").textContent = offer ? `Trial ${offer.number}` : "";
    at("command").textContent = C.commandFor(offer, table, state.limits, state.core);
    if (state.trials) { state.trials.mark(offer && offer.number); }
  }

  async function copyCommand() {
    const done = await copyText(at("command").textContent);
    at("copied").textContent = done ? "Copied." : "It can't be copied here; select the text below.";
    setTimeout(() => { at("copied").textContent = ""; }, 4000);
  }

  // ---- charts ---------------------------------------------------------------------------------------------

  const graphOf = (name) => at(`${name}-chart`);
  const inView = (name) => state.views.get(state.view)?.[name] ?? state.charts[name];

  /** Draw a chart as the chosen view has it, in the page's colours, with the budget above it. */
  async function draw(name) {
    const graph = graphOf(name), chart = inView(name);
    if (!graph || !chart || !chart.figure) { return; }
    const box = graph.parentElement, least = (chart.figure.layout.meta || {}).min_width_px || 0;
    const width = Math.max(least, box.clientWidth);
    const layout = C.themed(chart.figure.layout, width, C.entriesOf(chart.figure.data));
    if (name === "front") { openFront(layout); }
    const figure = linesShown(name, { data: chart.figure.data, layout });
    C.withoutMarks(figure);
    at(`${name}-state`).hidden = true;
    graph.hidden = false;
    graph.style.height = `${figure.layout.height}px`;
    graph.style.minWidth = least > box.clientWidth ? `${least}px` : "";
    await window.Plotly.react(graph, figure.data, figure.layout, state.core.config);
    mark(name);
    if (name === "parallel" && !state.drawn.has(name)) { graph.on("plotly_restyle", () => brush(graph)); }
    state.drawn.add(name);
  }

  /** Show the budget above a chart that has marks for it; they move without the chart. */
  function mark(name) {
    const graph = graphOf(name);
    if (!graph.data.some((trace) => trace.meta === "recommended")) { return; }
    if (!state.overlays.has(name)) { state.overlays.set(name, new C.BudgetOverlay()); }
    state.overlays.get(name).show(graph, state.core.table, state.limits);
  }

  // ---- what a reader chooses in a chart ---------------------------------------------------------------------

  /** Put the front on the scale that was chosen, near the budget unless the reader wants to see all. */
  function openFront(layout) {
    const possible = !(layout.meta && layout.meta.extent) || layout.meta.extent[0] > 0, overlay = state.overlays.get("front");
    if (state.log !== null && possible) { C.setLog(layout, state.log); }
    at("front-log").checked = layout.xaxis.type === "log";
    at("front-log").disabled = !possible;
    if (!(overlay && overlay.all)) { C.openNear(layout, state.limits); }
  }

  const linesShown = (name, figure) =>
    (name === "parallel" && state.frontOnly ? C.onlyLines(figure, (figure.layout.meta || {}).front) : figure);

  /** Return which trials the lines that are drawn belong to. */
  function lineNumbers() {
    const { lines, figure } = inView("parallel");
    return state.frontOnly ? figure.layout.meta.front.map((place) => lines[place]) : lines;
  }

  function startSwitches() {
    const log = node("input", { type: "checkbox", id: "front-log", onchange: () => { state.log = log.checked; draw("front"); } });
    at("front-controls").append(node("label", { class: "field", for: "front-log" }, log, "Log scale"));
    if (!graphOf("parallel")) { return; }
    const only = node("input", { type: "checkbox", id: "parallel-front", onchange: () => {
      state.frontOnly = only.checked;
      clearBrush();
      if (state.trials) { state.trials.brushed(null); }
    } });
    at("parallel-controls").append(node("label", { class: "field", for: "parallel-front" }, only, "Front only"));
  }

  const redraw = () => Promise.all([...state.drawn].map(draw));

  function drawWhenNear() {
    const names = [...Object.keys(state.charts), "networks"].filter((name) => graphOf(name) && !state.drawn.has(name));
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries.filter(({ isIntersecting }) => isIntersecting)) {
        watcher.unobserve(entry.target);
        (entry.target.id === "networks" ? startNetworks() : draw(entry.target.id));
      }
    }, { rootMargin: "600px" });
    names.forEach((name) => watcher.observe(at(name)));
    window.addEventListener("beforeprint", () => names.filter((name) => !state.drawn.has(name)).forEach(draw));
    window.matchMedia("print").addEventListener("change", redraw);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  /** Return what a picture of a graph is called and headed. */
  function pictured(graph) {
    const name = graph.id.replace(/-chart$/, ""), chart = state.charts[name] && inView(name);
    return chart ? { name, heading: chart.heading, table: state.core.table, limits: state.limits } : null;
  }

  // ---- views ----------------------------------------------------------------------------------------------

  function startViews() {
    const { views, left_out: left } = state.core;
    if (!graphOf("front") || views.length < 2) { return; }
    const select = node("select", { id: "view", onchange: () => choose(Number(select.value)) },
      ...views.map((name, i) => node("option", { value: i }, name)));
    at("front-controls").append(node("span", { class: "field" }, node("label", { for: "view" }, "Accuracy against"), select));
    if (left.length) {
      at("front-controls").append(node("span", { class: "muted" }, `Left out, to keep this file small: ${left.join("; ")}.`));
    }
  }

  async function choose(view) {
    if (view !== 0 && !state.views.has(view)) { state.views.set(view, await parsed(`view-${view}`)); }
    state.view = view;
    for (const name of Object.keys(state.views.get(view) ?? state.charts)) {
      const chart = inView(name);
      say(name, chart);
      if (state.drawn.has(name)) { window.Plotly.purge(graphOf(name)); state.overlays.delete(name); await draw(name); }
    }
    performance.mark("condensery-view");
  }

  /** Show a chart's caption, its table, and why it can't be drawn. */
  function say(name, chart) {
    const table = at(`${name}-data-table`), { headers = [], rows = [], rest = "" } = chart.table;
    const how = at(`${name}-how`), sentences = chart.how || [];
    at(`${name}-caption`).textContent = chart.caption;
    if (how) {
      how.hidden = !sentences.length;
      how.querySelector("ul").replaceChildren(...sentences.map((text) => node("li", {}, text)));
    }
    if (chart.reason) { at(`${name}-state`).replaceChildren(node("p", {}, chart.reason)); }
    at(`${name}-state`).hidden = !chart.reason;
    if (graphOf(name)) { graphOf(name).hidden = Boolean(chart.reason); }
    table.hidden = !rows.length;
    table.querySelector("table").replaceChildren(
      node("thead", {}, node("tr", {}, ...headers.map((header) => node("th", { scope: "col" }, header)))),
      node("tbody", {}, ...rows.map((row) => node("tr", {}, ...row.map((cell) => node("td", {}, cell))))));
    table.querySelector("p").textContent = rest;
  }

  /** List the trials inside the ranges that are drawn on the parallel axes. */
  function brush(graph) {
    if (!state.trials) { return; }
    const axes = graph._fullData[0].dimensions.filter(({ constraintrange }) => constraintrange);
    const ranges = axes.map(({ constraintrange: range }) => (Array.isArray(range[0]) ? range : [range]));
    const holds = (place) => axes.every((axis, i) =>
      ranges[i].some(([low, high]) => axis.values[place] >= low && axis.values[place] <= high));
    state.trials.brushed(axes.length ? lineNumbers().filter((number, place) => holds(place)) : null);
  }

  function clearBrush() {
    const graph = graphOf("parallel");
    if (!state.drawn.has("parallel")) { return; }
    window.Plotly.purge(graph);
    state.drawn.delete("parallel");
    for (const axis of inView("parallel").figure.data[0].dimensions) { delete axis.constraintrange; }  // which Plotly has added
    draw("parallel");
  }

  // ---- networks -------------------------------------------------------------------------------------------

  async function startNetworks() {
    state.networks = await parsed("networks");
    if (!state.networks.length) { say("networks", { reason: "None of the front's rows can be read.", table: {}, caption: "" }); return; }
    const select = node("select", { id: "network", onchange: () => showNetwork(Number(select.value)) },
      ...state.networks.map(({ title }, i) => node("option", { value: i }, title)));
    at("networks-controls").append(node("span", { class: "field" }, node("label", { for: "network" }, "Network"), select));
    const best = state.networks.findIndex(({ number }) => state.trials && number === state.trials.pick);
    select.value = Math.max(0, best);
    await showNetwork(Number(select.value));
  }

  async function showNetwork(place) {
    const network = state.networks[place];
    state.charts.networks = { ...network.chart, caption: `${network.sentence} ${network.note}` };
    say("networks", state.charts.networks);
    at("networks-settings").hidden = false;
    at("networks-settings").querySelector("pre").textContent = network.settings;
    await draw("networks");
  }

  // ---- trials ---------------------------------------------------------------------------------------------

  async function startTrials() {
    if (!at("trials-table")) { return; }
    const trials = await parsed("trials");
    const front = new Set(trials.front), trained = new Set(trials.trained), { controls } = state.core.table;
    const valuesOf = (names) => controls.map(({ target }) => trials.columns.find(({ name }) => name === names[target]).values);
    const held = Object.fromEntries(Object.entries(trials.held).map(([statistic, names]) => [statistic, valuesOf(names)]));
    const inside = (row) => {
      const values = held[C.askedOf(state.core.table).statistic];
      return trained.has(row) && controls.every(({ target }, i) => (values[i][row] ?? Infinity) <= (state.limits[target] ?? Infinity));
    };
    state.trials = window.CondenseryTable.start(trials, { "on the front": (row) => front.has(row), "inside the budget": inside });
    state.trials.onclear = clearBrush;
    answerBudget();
  }

  // ---- start ----------------------------------------------------------------------------------------------

  function cannot(text) {
    at("cannot").textContent = text;
    at("cannot").hidden = false;
    for (const place of document.querySelectorAll(".state[id$='-state']")) {
      if (graphOf(place.id.slice(0, -"-state".length))) { place.replaceChildren(node("p", {}, text)); }
    }
  }

  async function start() {
    if (typeof DecompressionStream === "undefined") {
      cannot("This browser can't unpack the charts (that takes Chrome 80, Firefox 113, Safari 16.4 or newer); the answer " +
        "and the tables can still be read.");
      return;
    }
    const code = unpacked("plotly"), charts = parsed("charts");
    state.core = await parsed("core");
    startBudget();
    state.charts = await charts;
    if (Object.keys(state.charts).some(graphOf)) {
      run(await code);
      window.Condensery.asSharpAsTheScreen();
      startSwitches();
      await draw("front");
      C.savePictures(pictured);
      performance.mark("condensery-front");
      startViews();
      drawWhenNear();
    }
    await startTrials();
    performance.mark("condensery-ready");
  }

  start().catch((error) => {
    cannot(`The charts can't be drawn here: ${error.message}; the answer and the tables can still be read.`);
    throw error;
  });
})();
