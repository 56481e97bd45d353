/* The live page in the reader's browser: what Dash's callbacks of the browser do (namespace "page"), and the controls.

   The state is what the reader has chosen (view, limits, trials, colours); it stands in the address too. The server is
   asked for what follows from it. Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const state = {
    view: { study: null, group: null, axis: "latency" }, limits: {}, chosen: [], theme: "auto", brush: null,
    head: null, table: null, drawn: false, stale: null, away: false,
  };
  const AXES = { latency: "Latency", macs: "Macs", params: "Params" };
  const THEMES = { auto: "system", light: "light", dark: "dark" };
  const MOST_COMPARED = 4;
  const keep = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const at = (id) => document.getElementById(id);

  function node(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) { made.addEventListener(name.slice(2), value); }
      else if (value === true) { made.setAttribute(name, ""); }
      else if (value !== false && value !== null && value !== undefined) { made.setAttribute(name, value); }
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function say(id, text) {
    const place = at(id);
    if (place && place.textContent !== text) { place.textContent = text; }
  }

  let writing = null;
  /** Put what is chosen into the address, once the reader pauses: browsers limit how often that may be done. */
  function remember() {
    clearTimeout(writing);
    writing = setTimeout(() => {
      const limits = {};
      for (const control of state.table ? state.table.controls : []) {
        const limit = state.limits[control.target], own = control.limit_ms;
        limits[`budget.${control.target}`] = limit === own ? null : limit === null ? "none" : limit;
      }
      window.Condensery.remember({
        group: state.view.group, axis: state.view.axis === "latency" ? null : state.view.axis,
        trials: state.chosen.join(","), theme: state.theme === "auto" ? null : state.theme, ...limits,
      });
    }, 250);
  }

  // ---- colours ------------------------------------------------------------------------------------------

  function applyTheme() {
    if (state.theme === "auto") { delete document.documentElement.dataset.theme; }
    else { document.documentElement.dataset.theme = state.theme; }
    const dark = state.theme === "dark" ||
      (state.theme === "auto" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset.agThemeMode = dark ? "dark" : "light";
    say("theme", `Colours: ${THEMES[state.theme]}`);
    return dark ? "dark" : "light";
  }

  function nextTheme() {
    const names = Object.keys(THEMES);
    state.theme = names[(names.indexOf(state.theme) + 1) % names.length];
    set("theme-data", { data: applyTheme() });
    remember();
  }

  // ---- start --------------------------------------------------------------------------------------------

  function start() {
    const words = window.Condensery.shown();
    state.view = {
      study: words.study ?? null, group: words.group ?? null, axis: words.axis in AXES ? words.axis : "latency",
    };
    state.theme = words.theme in THEMES ? words.theme : "auto";
    state.chosen = [...new Set((words.trials || "").split(",").filter((text) => /^\d{1,9}$/.test(text)).map(Number))]
      .slice(0, MOST_COMPARED);
    const theme = applyTheme();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (state.theme === "auto") { set("theme-data", { data: applyTheme() }); }
    });
    at("theme").addEventListener("click", nextTheme);
    at("share").addEventListener("click", () => copy(window.location.href, at("share"), "Copy link"));
    at("copy-pick").addEventListener("click", () => copy(at("command").textContent, at("copy-pick"), "Copy pick command"));
    at("open-best").addEventListener("click", () => choose([Number(at("open-best").dataset.number)], true));
    at("clear-filters").addEventListener("click", clearFilters);
    for (const details of document.querySelectorAll("details[data-twin]")) {
      details.addEventListener("toggle", () => { if (details.open) { fillTwin(details); } });
    }
    buildAxisSwitch();
    buildChosen();
    awaitTable();
    return [state.view, state.chosen, theme];
  }

  async function copy(text, button, label) {
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch (error) { done = copyBySelection(text); }
    button.textContent = done ? "Copied" : "Copy failed";
    setTimeout(() => { button.textContent = label; }, 1600);
  }

  function copyBySelection(text) {  // a page without TLS has no clipboard
    const box = node("textarea", { class: "unseen", "aria-hidden": "true" });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }

  // ---- view: axis and group -------------------------------------------------------------------------------

  function changeView(change) {
    Object.assign(state.view, change);
    set("view", { data: { ...state.view } });
    if (state.drawn) { set("late", { data: { ...state.view } }); }
    remember();
  }

  function buildAxisSwitch() {
    const inputs = Object.entries(AXES).map(([value, text]) => node("label", {},
      node("input", {
        type: "radio", name: "axis", value, checked: value === state.view.axis,
        onchange: () => changeView({ axis: value }),
      }), text));
    at("front-controls").append(
      node("fieldset", { class: "segments" }, node("legend", { class: "unseen" }, "Accuracy against"), ...inputs),
      node("span", { id: "group-field", class: "field" }));
  }

  function buildGroups(head) {
    const field = at("group-field"), key = JSON.stringify([head.groups, head.group]);
    if (!field || field.dataset.key === key) { return; }
    field.dataset.key = key;
    field.replaceChildren();
    if (!head.groups.length) { return; }
    const select = node("select", { id: "group", onchange: () => changeView({ group: select.value }) },
      ...head.groups.map((group) => node("option", { value: group.token }, group.text)));
    select.value = head.group;
    field.append(node("label", { for: "group" }, "Latency"), select);
  }

  // ---- heading --------------------------------------------------------------------------------------------

  function head(payload) {
    if (!payload) { return keep(); }
    if (payload.reason) { say("subtitle", payload.reason); return keep(); }
    const before = state.head;
    state.head = payload;
    document.title = `${payload.name} - Condensery`;
    say("name", payload.name);
    say("subtitle", payload.subtitle);
    at("all-studies").hidden = !payload.choosable;
    at("counts").className = "chips";
    const chip = (name, number) =>
      node("li", { class: "chip" }, node("b", { class: `state-${name}` }, number.toLocaleString("en")), name);
    at("counts").replaceChildren(chip("trials", payload.trials),
      ...Object.entries(payload.counts).map(([name, number]) => chip(name, number)));
    buildGroups(payload);
    showCommand();
    markCsv();
    return before && JSON.stringify(before.columns) === JSON.stringify(payload.columns) ? keep() : payload.columns;
  }

  // ---- budget ---------------------------------------------------------------------------------------------

  function budget(payload) {
    if (!payload) { return keep(); }
    if (payload.reason) { say("sentence", payload.reason); return keep(); }
    const first = state.table === null;
    state.table = payload.table;
    const words = window.Condensery.shown();
    for (const control of payload.table.controls) {
      if (control.target in state.limits) { continue; }
      const word = words[`budget.${control.target}`], number = Number(word);
      state.limits[control.target] =
        word === "none" ? null : word !== undefined && number > 0 ? number : control.limit_ms;
    }
    buildBudget(payload.table);
    answerBudget();
    return first ? true : keep();
  }

  function buildBudget(table) {
    const box = at("budget"), targets = JSON.stringify(table.controls.map((control) => control.target));
    if (box.dataset.targets !== targets) {
      box.dataset.targets = targets;
      box.replaceChildren(...table.controls.map(budgetRow));
    }
    table.controls.forEach((control, i) => {
      const range = at(`range-${i}`), limit = state.limits[control.target];
      const high = Math.max(control.high_ms, limit || 0), low = Math.min(control.low_ms, limit || Infinity);
      range.min = low; range.max = high; range.step = control.step_ms;
      say(`kind-${i}`, ` (${control.kind})`);
      at(`own-${i}`).hidden = control.limit_ms === null;
      showLimit(control, i);
    });
  }

  function budgetRow(control, i) {
    const many = state.table.controls.length > 1;
    const range = node("input", {
      type: "range", id: `range-${i}`, "aria-describedby": "sentence",
      oninput: () => setLimit(i, Number(range.value)),
    });
    const number = node("input", {
      type: "number", id: `number-${i}`, min: 0, step: "any", placeholder: "none", inputmode: "decimal",
      "aria-label": `Latency limit on ${control.target} in ms; empty is no limit`,
      oninput: () => setLimit(i, number.value === "" || !(Number(number.value) > 0) ? null : Number(number.value), number),
    });
    return node("div", { class: "budget-row" },
      node("label", { for: `range-${i}` }, `Latency limit on ${control.target}`, node("span", { class: "muted", id: `kind-${i}` })),
      range,
      node("span", { class: "field" }, number, node("span", {}, "ms"),
        node("button", { type: "button", class: "plain", id: `own-${i}`,
          "aria-label": `The study's own limit on ${control.target}`,
          onclick: () => setLimit(i, state.table.controls[i].limit_ms) }, "Study's limit"),
        node("button", { type: "button", class: "plain", id: `none-${i}`,
          "aria-label": `No limit on ${control.target}`, onclick: () => setLimit(i, null) }, "No limit")));
  }

  function showLimit(control, i, source) {
    const limit = state.limits[control.target], range = at(`range-${i}`), number = at(`number-${i}`);
    const text = limit === null ? "" : window.Condensery.limitText(limit);
    if (number !== source && number.value !== text) { number.value = text; }
    if (limit !== null && limit > Number(range.max)) { range.max = limit; }
    if (limit !== null && limit < Number(range.min)) { range.min = limit; }
    range.value = limit === null ? range.max : limit;
    range.setAttribute("aria-valuetext", limit === null ? "no limit" : `${text} ms`);
  }

  let frame = null;
  function setLimit(i, limit, source) {
    const control = state.table.controls[i];
    state.limits[control.target] = limit === null ? null : Number(window.Condensery.limitText(limit));
    showLimit(control, i, source);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => { answerBudget(); moveMarks(); remember(); });
  }

  function answerBudget() {
    const table = state.table, C = window.Condensery;
    const [fits, best, ...rest] = C.sentences(table, state.limits), found = C.answer(table, state.limits);
    at("sentence").replaceChildren(node("p", {}, [fits, best].filter(Boolean).join(" ")),
      ...rest.map((text) => node("p", { class: "more" }, text)));
    at("answer").classList.toggle("none", found.best === null);
    at("answer-buttons").hidden = at("command-box").hidden = !table.trained;
    const offer = found.best === null ? null : table.offers[found.best];
    showTiles(table, offer);
    for (const id of ["bundle", "open-best"]) { at(id).hidden = offer === null; }
    at("copy-pick").disabled = offer === null;
    if (offer) {
      at("bundle").href = `/bundle/${offer.number}.zip?${question({})}`;
      at("bundle").textContent = `Download bundle of trial ${offer.number}`;
      at("open-best").textContent = `Open trial ${offer.number}`;
      at("open-best").dataset.number = offer.number;
    }
    showCommand();
  }

  function showCommand() {
    if (state.head && state.table) { say("command", window.Condensery.pickCommand(state.table, state.limits, state.head.words)); }
  }

  function showTiles(table, offer) {
    const tile = (name, value, note) => node("div", {}, node("dt", {}, name), node("dd", {}, value, node("small", {}, note)));
    const C = window.Condensery;
    at("tiles").replaceChildren(...(offer === null ? [] : [
      tile("Top-1, validation", offer.top1_text, offer.accuracy_note || ""),
      ...table.controls.map((control, i) => {
        const high = offer.high_ms[i], limit = state.limits[control.target], median = offer.median_ms[i];
        return tile(table.controls.length > 1 ? `Latency on ${control.target}` : "Latency, median",
          median === null ? "-" : `${C.limitText(Number(median.toPrecision(3)))} ms`,
          limit === null || high === null ? control.kind
            : `${control.kind}; ${Math.max(0, 100 * (1 - high / limit)).toFixed(0)} % of the limit is left`);
      }),
      tile("Multiply-adds", short(offer.macs), offer.macs.toLocaleString("en")),
      tile("Parameters", short(offer.params), offer.params.toLocaleString("en")),
    ]));
  }

  const short = (value) => {
    const [size, unit] = value >= 1e9 ? [1e9, " G"] : value >= 1e5 ? [1e6, " M"] : value >= 1e3 ? [1e3, " k"] : [1, ""];
    return `${Number((value / size).toPrecision(3))}${unit}`;
  };

  // ---- charts ---------------------------------------------------------------------------------------------

  const graphOf = (name) => document.querySelector(`#${CSS.escape(name)}-graph .js-plotly-plot`);

  function draw(payload, theme, id) {
    const name = id.replace(/-graph$/, "");
    if (!payload) { return [keep(), keep(), keep(), keep(), keep()]; }
    if (name === "front" && !state.drawn) { afterFront(); }
    refillTwin(name);
    if (payload.reason) {
      at(`${name}-state`).classList.toggle("wrong", Boolean(payload.wrong));
      return [keep(), true, false, payload.reason, ""];
    }
    const box = at(name), C = window.Condensery;
    const layout = C.themed(payload.figure.layout, box.clientWidth - 44, payload.figure.data.length);
    layout.uirevision = payload.shows || "constant";
    const figure = { data: payload.figure.data, layout };
    if (state.table) { C.placeBudget(figure, state.table, state.limits); }
    if (name === "parallel") { keepBrush(figure); }
    return [figure, false, true, keep(), payload.caption || ""];
  }

  /** The other charts wait until the front is there. */
  function afterFront() {
    state.drawn = true;
    setTimeout(() => set("late", { data: { ...state.view } }), 60);
  }

  let moving = false, again = false;
  /** Move line and star of both charts; while they are drawn later steps are put together. */
  async function moveMarks() {
    if (moving) { again = true; return; }
    moving = true;
    try {
      for (const graph of ["front", "macs-latency"].map(graphOf)) {
        if (graph && graph.offsetParent) { await window.Condensery.moveBudget(graph, state.table, state.limits); }
      }
    } finally { moving = false; }
    if (again) { again = false; moveMarks(); }
  }

  function clicked(click) {
    const point = click && click.points && click.points[0];
    const data = point && point.customdata, number = Array.isArray(data) ? data[0] : data;
    if (Number.isInteger(number)) { choose([...state.chosen.filter((other) => other !== number), number], true); }
    return click ? null : keep();
  }

  // ---- brushing the parallel coordinates --------------------------------------------------------------------

  function keepBrush(figure) {
    const graph = graphOf("parallel"), before = graph && graph.data && graph.data[0];
    const trace = figure.data[0];
    if (!before || !before.dimensions || !trace || !trace.dimensions) { return; }
    const ranges = new Map(before.dimensions.map((dimension) => [dimension.name || dimension.label, dimension.constraintrange]));
    figure.data = [{ ...trace, dimensions: trace.dimensions.map((dimension) => {
      const range = ranges.get(dimension.name || dimension.label);
      return range ? { ...dimension, constraintrange: range } : dimension;
    }) }, ...figure.data.slice(1)];
  }

  function brushed() {
    const graph = graphOf("parallel"), trace = graph && graph.data && graph.data[0];
    const found = ((trace && trace.dimensions) || []).filter((one) => one.constraintrange && one.constraintrange.length)
      .map((one) => [one.name, Array.isArray(one.constraintrange[0]) ? one.constraintrange : [one.constraintrange]]);
    const brush = found.length ? found : null;
    if (JSON.stringify(brush) !== JSON.stringify(state.brush)) { state.brush = brush; purgeRows(); }
    return keep();
  }

  // ---- tables of the charts -----------------------------------------------------------------------------------

  const question = (more) => {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...state.view, ...more })) {
      if (value !== null && value !== undefined) { words.set(name, value); }
    }
    return words.toString();
  };

  async function fillTwin(details) {
    const box = details.querySelector(".scroll");
    try {
      const answer = await fetch(`/twin/${details.dataset.twin}?${question({})}`);
      if (!answer.ok) { throw new Error(await answer.text()); }
      const twin = await answer.json();
      box.setAttribute("aria-label", details.querySelector("summary").textContent);
      box.setAttribute("role", "region");
      box.replaceChildren(
        node("table", {}, node("thead", {}, node("tr", {}, ...twin.headers.map((text) => node("th", { scope: "col" }, text)))),
          node("tbody", {}, ...twin.rows.map((row) => node("tr", {}, ...row.map((text) =>
            node("td", { class: text.length > 40 ? "wrap" : null }, text)))))),
        twin.rest ? node("p", { class: "muted" }, twin.rest) : null);
    } catch (error) {
      box.replaceChildren(node("p", { class: "muted" }, `The table can't be shown now: ${error.message}`));
    }
  }

  function refillTwin(name) {
    const details = at(`${name}-twin`);
    if (details && details.open) { fillTwin(details); }
  }

  // ---- trials table -------------------------------------------------------------------------------------------

  let grid = null, selecting = false;

  /** Find the grid, once it has columns (rows that come before them are never drawn), and give it its rows.

      Asked at every poll, too: the component may have made its grid anew. */
  function startTable() {
    if (!document.querySelector("#trials-grid .ag-root")) { return false; }  // asked before, it complains
    const found = window.dash_ag_grid.getApi("trials-grid");
    if (!found || found.isDestroyed() || !(found.getColumnDefs() || []).length) { return false; }
    if (found === grid) { return true; }
    grid = found;
    grid.addEventListener("rowSelected", (event) => {
      if (selecting || event.source === "api") { return; }
      const number = Number(event.node.id), others = state.chosen.filter((one) => one !== number);
      choose(event.node.isSelected() ? [...others, number] : others);
    });
    grid.addEventListener("modelUpdated", selectRows);
    grid.addEventListener("filterChanged", markCsv);
    grid.addEventListener("sortChanged", markCsv);
    grid.setGridOption("datasource", { getRows: rows });
    markCsv();
    return true;
  }

  function awaitTable() { if (!startTable()) { setTimeout(awaitTable, 100); } }

  function tableQuestion() {
    const sort = grid.getColumnState().filter((column) => column.sort)
      .sort((a, b) => a.sortIndex - b.sortIndex).map(({ colId, sort: way }) => ({ colId, sort: way }));
    const filter = grid.getFilterModel();
    return {
      sort: sort.length ? JSON.stringify(sort) : null, filter: Object.keys(filter).length ? JSON.stringify(filter) : null,
      brush: state.brush ? JSON.stringify(state.brush) : null,
    };
  }

  async function rows(asked) {
    try {
      const answer = await fetch(`/rows?${question({ ...tableQuestion(), start: asked.startRow, end: asked.endRow })}`);
      if (!answer.ok) { throw new Error(await answer.text()); }
      const found = await answer.json();
      asked.successCallback(found.rows, found.total);
      showTotal(found.total);
    } catch (error) {
      asked.failCallback();
    }
  }

  function showTotal(total) {
    const all = state.head ? state.head.trials : total;
    const filtered = state.brush || Object.keys(grid.getFilterModel()).length;
    say("rows-shown", filtered ? `${total.toLocaleString("en")} of ${all.toLocaleString("en")} trials${state.brush ? ", brushed" : ""}` : "");
    at("clear-filters").hidden = !filtered;
    if (total === 0) { grid.showNoRowsOverlay(); } else { grid.hideOverlay(); }
  }

  const refreshRows = () => { if (grid) { grid.refreshInfiniteCache(); } };
  const purgeRows = () => { if (grid) { grid.purgeInfiniteCache(); markCsv(); } };
  function markCsv() { if (grid && state.head) { at("csv").href = `/trials.csv?${question(tableQuestion())}`; } }

  function clearFilters() {
    grid.setFilterModel(null);
    const graph = graphOf("parallel");
    if (state.brush && graph) {
      const change = {};
      graph.data[0].dimensions.forEach((_, i) => { change[`dimensions[${i}].constraintrange`] = null; });
      window.Plotly.restyle(graph, change, [0]);
    }
    if (state.brush) { state.brush = null; purgeRows(); }
  }

  function selectRows() {
    selecting = true;
    grid.forEachNode((row) => {
      if (row.id === undefined || !row.data) { return; }
      const wanted = state.chosen.includes(Number(row.id));
      if (row.isSelected() !== wanted) { row.setSelected(wanted, false, "api"); }
    });
    selecting = false;
  }

  // ---- chosen trials ------------------------------------------------------------------------------------------

  function choose(numbers, go) {
    state.chosen = [...new Set(numbers)].slice(-MOST_COMPARED);
    set("chosen", { data: [...state.chosen] });
    showChosen();
    if (grid) { selectRows(); }
    remember();
    if (go) { at("compared").scrollIntoView({ block: "start" }); }
  }

  function buildChosen() {
    const input = node("input", { type: "number", id: "add-trial", min: 0, step: 1 });
    const form = node("form", { class: "field", onsubmit: (event) => {
      event.preventDefault();
      if (/^\d+$/.test(input.value)) { choose([...state.chosen, Number(input.value)]); input.value = ""; }
    } }, node("label", { for: "add-trial" }, "Trial number"), input, node("button", { type: "submit" }, "Show"));
    at("compared-controls").append(node("ul", { id: "chosen-list", class: "chips", "aria-label": "Trials shown" }), form);
    showChosen();
  }

  function showChosen() {
    at("chosen-list").replaceChildren(...state.chosen.map((number) => node("li", { class: "chip" }, `Trial ${number}`,
      node("button", { type: "button", class: "plain remove", "aria-label": `Close trial ${number}`,
        onclick: () => choose(state.chosen.filter((other) => other !== number)) }, "×"))));
  }

  // ---- news ---------------------------------------------------------------------------------------------------

  async function poll(_, fast, slow, pulse) {
    const nothing = [keep(), keep(), keep()];
    startTable();
    if (document.hidden) { return nothing; }
    const known = { fast, slow, pulse, stale: state.stale ? state.stale.since : null };
    let answer;
    try { answer = await fetch(`/news?${question(known)}`); } catch (error) { badge(null, true); return nothing; }
    if (answer.status === 204) { badge(state.stale, false); return nothing; }
    if (!answer.ok) { badge(null, true, answer.status === 401); return nothing; }
    const news = await answer.json();
    badge(news.stale, false);
    return [news.fast === fast ? keep() : news.fast, news.slow === slow ? keep() : news.slow,
      news.pulse === pulse ? keep() : news.pulse];
  }

  const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");

  function badge(stale, away, locked) {
    if (away && !state.away) { state.awaySince = Date.now() / 1000; }
    state.stale = stale; state.away = away;
    const place = at("badge");
    place.className = stale || away ? "badge stale" : "badge";
    place.title = stale ? stale.reason : "";
    say("badge", locked ? "The token is no longer valid: open the printed address"
      : away ? `No answer from the server since ${clock(state.awaySince)}`
        : stale ? `Stale: the database is away since ${clock(stale.since)}` : "Live");
  }

  function news() {
    refreshRows();
    return keep();
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    page: { start, poll, head, budget, draw, clicked, brushed, news },
  });
})();
