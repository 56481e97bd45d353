/* The live page in the reader's browser: its clientside callbacks (namespace "page") and its controls.

   The state is what the reader has chosen (view, limits, trials, colours); the address has it too. The server is asked
   for what follows from it. Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { node, copyText } = window.CondenseryBudget;

  const state = {
    view: { study: null, group: null, axis: "latency" }, limits: {}, chosen: [], columns: null, recommended: null, theme: "auto", brush: null,
    head: null, table: null, drawn: false, stale: null, away: null,
    copyText: "Copy pick command",
  };
  const AXES = { latency: "Latency", macs: "Macs", params: "Params" };
  const THEMES = { auto: "system", light: "light", dark: "dark" };
  const PATIENCE_MS = 20000;  // after this time the server is taken to be away
  const MOST_COMPARED = 4, parts = {};  // functions that the other files add: budget, charts, trials
  const keep = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const at = (id) => document.getElementById(id);

  function say(id, text) {
    const place = at(id);
    if (place && place.textContent !== text) { place.textContent = text; }
  }

  /** Return the query of a request to the server: the view, and `more`. */
  const question = (more) => {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...state.view, ...more })) {
      if (value !== null && value !== undefined) { words.set(name, value); }
    }
    return words.toString();
  };

  let writing = null;
  const addressed = () => ({
    study: state.view.study, group: state.view.group, axis: state.view.axis === "latency" ? null : state.view.axis,
    trials: state.chosen.join(","), theme: state.theme === "auto" ? null : state.theme, ...parts.columnWords(), ...parts.budgetWords(),
    ...parts.chartWords(),
  });

  /** Put what is chosen into the address, once the reader pauses: browsers limit how often that is allowed. */
  function remember() {
    clearTimeout(writing);
    writing = setTimeout(() => {
      window.Condensery.remember(addressed());
      parts.followBudget();
    }, 250);
  }

  /** Put what is chosen into the address at once, as an entry of its own, which *Back* undoes. */
  function rememberEntry() {
    clearTimeout(writing);
    try { window.Condensery.remember(addressed(), "pushState"); } catch (error) { remember(); }  // too many at once
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

  /** Return the trials that an address names. */
  const trialsIn = (words) =>
    [...new Set((words.trials || "").split(",").filter((text) => /^\d{1,9}$/.test(text)).map(Number))];

  function start() {
    window.Condensery.asSharpAsTheScreen();
    const words = window.Condensery.shown();
    state.view = {
      study: words.study ?? null, group: words.group ?? null, axis: words.axis in AXES ? words.axis : "latency",
    };
    parts.readCharts(words);
    parts.readBrush(words);
    state.theme = words.theme in THEMES ? words.theme : "auto";
    state.chosen = trialsIn(words).slice(0, MOST_COMPARED);
    state.columns = words.columns ? words.columns.split(",") : null;
    const theme = applyTheme();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (state.theme === "auto") { set("theme-data", { data: applyTheme() }); }
    });
    at("theme").addEventListener("click", nextTheme);
    at("share").addEventListener("click", () => copy(window.location.href, at("share"), "Copy link"));
    at("bundle").addEventListener("click", () => parts.download());
    at("copy-pick").addEventListener("click", () => copy(at("command").textContent, at("copy-pick"), state.copyText));
    at("open-best").addEventListener("click", () => parts.choose([Number(at("open-best").dataset.number)], true));
    at("clear-filters").addEventListener("click", () => parts.clearFilters());
    at("best-first").addEventListener("click", () => parts.bestFirst());
    for (const details of document.querySelectorAll("details[data-chart]")) {
      details.addEventListener("toggle", () => { if (details.open) { parts.fillTable(details); } });
    }
    buildAxisSwitch();
    parts.buildDrawer();
    parts.buildPlaces();
    parts.keepOpen();
    parts.buildBrush();
    parts.buildCharts();
    parts.awaitTable();
    return [state.view, state.chosen, theme];
  }

  async function copy(text, button, label) {
    const done = await copyText(text);
    button.textContent = done ? "Copied" : "Copy failed";
    setTimeout(() => { button.textContent = label; }, 1600);
  }

  // ---- view: axis and group -------------------------------------------------------------------------------

  function changeView(change) {
    Object.assign(state.view, change);
    set("view", { data: { ...state.view } });
    if (state.drawn) { set("late", { data: { ...state.view } }); }
    if ("group" in change) { parts.purgeRows(); }
    remember();
  }

  function buildAxisSwitch() {
    const inputs = Object.entries(AXES).map(([value, text]) => node("label", {},
      node("input", {
        type: "radio", name: "axis", value, checked: value === state.view.axis,
        onchange: () => changeView({ axis: value, x: null, y: null }),
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
    markAway(at("subtitle"), payload);
    if (payload.reason) { say("subtitle", payload.reason); return keep(); }
    const before = state.head;
    state.head = payload;
    if (state.view.study === null) { state.view.study = payload.study; remember(); }  // other studies may come
    document.title = `${payload.name} - Condensery`;
    say("name", payload.name);
    say("subtitle", payload.subtitle);
    at("all-studies").hidden = !payload.choosable;
    at("all-studies").href = state.theme === "auto" ? "/" : `/?theme=${state.theme}`;
    at("counts").className = "chips";
    const chip = (name, number) =>
      node("li", { class: "chip" }, node("b", { class: `state-${name}` }, number.toLocaleString("en")), name);
    at("counts").replaceChildren(chip(payload.trials === 1 ? "trial" : "trials", payload.trials),
      ...Object.entries(payload.counts).map(([name, number]) => chip(name, number)));
    say("table-note", payload.table_note);
    buildGroups(payload);
    parts.showCommand();
    parts.markCsv();
    if (before && JSON.stringify(before.columns) !== JSON.stringify(payload.columns)) { parts.newColumns(payload.columns); }
    return keep();
  }

  // ---- news ---------------------------------------------------------------------------------------------------

  /** Mark an element that waits for the database, so that it is asked for again when the database is back. */
  function markAway(place, payload) {
    if (payload.away) { place.dataset.away = "yes"; } else { delete place.dataset.away; }
  }

  let asking = false, toldAt = 0, owed = false;  // owed: the database is back, and no callback knows yet
  /** Ask for news, unless the last answer is still to come; `busy` says which parts the server is still computing.

      Dash drops the result of a callback whose inputs have changed meanwhile. So nothing is returned here, and no news is
      passed on before the results of the last news are there: with a slow server the page would stand still while a
      study grows. */
  function poll(_, fast, slow, pulse, retry, ...busy) {
    parts.startTable();
    parts.followCharts();
    if (document.hidden || asking) { return; }
    asking = true;
    const now = performance.now(), free = !busy.some(Boolean) || now - toldAt > PATIENCE_MS;
    if (free) { toldAt = now; }
    ask(fast, slow, pulse, retry, free).finally(() => { asking = false; });
  }

  async function ask(fast, slow, pulse, retry, free) {
    const known = { fast, slow, pulse, stale: state.stale ? state.stale.since : null };
    let answer, news;
    try {
      answer = await fetch(`/news?${question(known)}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
      news = answer.status === 200 ? await answer.json() : { fast, slow, pulse, stale: state.stale };
    } catch (error) { badge(null, "server"); return; }
    if (!answer.ok) { badge(null, { 401: "locked", 404: "unknown", 503: "database" }[answer.status] || "server"); return; }
    const wasAway = state.stale || state.away || document.querySelector("[data-away]");
    badge(news.stale, null);
    owed = !news.stale && Boolean(owed || wasAway);
    const catchesUp = owed && free;
    if (catchesUp) { owed = false; parts.fillOpenTables(); parts.refreshSteering(); }
    const tell = (id, now, before) => { if (now !== before && free) { set(id, { data: now }); } };
    tell("fast", news.fast, fast);
    tell("slow", news.slow, slow);
    tell("pulse", news.pulse, pulse);
    if (catchesUp) { set("retry", { data: (retry || 0) + 1 }); }
  }

  const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");
  const AWAY = {
    server: "No answer from the server since", database: "Stale: the database is away since",
    unknown: "The study isn't in the database, since",
  };

  /** Show the page's state: live, stale (what the server says of the database), or away (why there is no answer). */
  function badge(stale, away) {
    if (away && !state.away) { state.awaySince = Date.now() / 1000; }
    state.stale = stale; state.away = away;
    at("badge").className = stale || away ? "badge stale" : "badge";
    say("badge", away === "locked" ? "The token is no longer valid: open the printed address"
      : away ? `${AWAY[away]} ${clock(state.awaySince)}`
        : stale ? `${stale.deleted ? "This study was deleted, seen" : "Stale: the database is away since"} ${clock(stale.since)}`
          : "Live");
    say("stale-reason", !stale ? "" : stale.deleted ? `${upper(stale.reason)} The page shows what the study held last.`
      : `${upper(stale.reason)} The page shows what was read before.`);
    at("stale-reason").hidden = !stale;
  }

  const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function news() {
    parts.refreshRows();
    parts.refreshSteering();
    return keep();
  }

  Object.assign(window.CondenseryPage = {}, {
    MOST_COMPARED, state, node, say, at, set, keep, remember, rememberEntry, trialsIn, question, changeView, copy, markAway, parts,
  });
  window.dash_clientside = Object.assign({}, window.dash_clientside, { page: { start, poll, head, news } });
})();
