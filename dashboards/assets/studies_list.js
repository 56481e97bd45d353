/* The list of all studies: sorted, filtered, ticked to be compared; rows that haven't changed stay as they are.

   Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { node, copyText } = window.CondenseryBudget;
  const at = (id) => document.getElementById(id);
  const MOST = 4, FIRST_ROWS = 100;
  const COLUMNS = [  // key, heading, value to sort by, whether the largest comes first
    ["study", "study", (one) => one.shown.toLowerCase(), false],
    ["state", "state", (one) => one.state, false],
    ["best", "best within budget", (one) => (one.best ? one.best.score : null), true],
    ["latency", "its latency", (one) => (one.best ? one.best.latency_ms : null), false],
    ["trainings", "trainings", (one) => one.trainings, true],
    ["newest", "newest activity", (one) => one.newest_at ?? one.created_at, true],
    ["data", "data set", (one) => one.data.toLowerCase(), false],
    ["device", "device", (one) => one.devices.toLowerCase(), false],
  ];
  const parts = {};  // functions of the page: remember, hrefOf, compare
  const state = {
    list: JSON.parse(at("studies-data").textContent), listedAt: performance.now(), rows: new Map(), chosen: [], compared: [],
    sort: "newest", down: true, filter: "", most: FIRST_ROWS,
  };

  // ---- list -----------------------------------------------------------------------------------------------

  function buildList() {
    const heads = COLUMNS.map(([key, text]) => node("th", { scope: "col", "data-column": key },
      node("button", { type: "button", onclick: () => sortBy(key) }, text)));
    at("list-head").replaceChildren(node("th", { scope: "col" }, node("span", { class: "unseen" }, "compare")), ...heads,
      node("th", { scope: "col" }, "next command"));
    const order = at("order");
    order.replaceChildren(...COLUMNS.map(([key, text]) => node("option", { value: key }, text)));
    order.addEventListener("change", () => sortBy(order.value));
    at("filter").addEventListener("input", () => { state.filter = at("filter").value; fillList(); parts.remember(); });
    at("compare").addEventListener("click", () => { parts.compare(state.chosen); });
    at("more").addEventListener("click", () => {
      const first = state.most;
      state.most = Infinity;
      fillList();
      at("list-body").rows[first].querySelector("th a").focus();
    });
    at("clear").addEventListener("click", () => { state.chosen = []; showChosen(); parts.remember(); });
  }

  function sortBy(key) {
    const [, , , largestFirst] = COLUMNS.find(([other]) => other === key);
    state.down = state.sort === key ? !state.down : largestFirst;
    state.sort = key;
    fillList();
    parts.remember();
  }

  function ordered(list) {
    const [, , value] = COLUMNS.find(([key]) => key === state.sort), sign = state.down ? -1 : 1;
    return list.map((one, place) => [value(one), place, one]).sort(([a, i], [b, j]) => {
      if (a === null || b === null) { return (a === null) - (b === null) || i - j; }
      return (a < b ? -sign : a > b ? sign : 0) || i - j;
    }).map(([, , one]) => one);
  }

  const asked = () => state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (one, wanted) => {
    const text = `${one.shown} ${one.state} ${one.data} ${one.devices}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  };

  /** Fill the table; rows of studies that haven't changed stay as they are, with the reader's focus. */
  function fillList() {
    const wanted = asked(), shown = ordered(state.list.studies.filter((one) => matches(one, wanted)));
    for (const head of at("list-head").querySelectorAll("[data-column]")) {
      if (head.dataset.column === state.sort) { head.setAttribute("aria-sort", state.down ? "descending" : "ascending"); }
      else { head.removeAttribute("aria-sort"); }
    }
    at("order").value = state.sort;
    const known = new Set(state.list.studies.map(({ name }) => name));
    for (const name of state.rows.keys()) { if (!known.has(name)) { state.rows.delete(name); } }
    const body = at("list-body"), rows = shown.slice(0, state.most).map((one) => rowOf(one).row), focused = document.activeElement;
    if (rows.length !== body.children.length || rows.some((row, i) => row !== body.children[i])) {
      body.replaceChildren(...rows);
      if (focused && focused !== document.activeElement && body.contains(focused)) { focused.focus(); }
    }
    const { length } = state.list.studies, studies = length === 1 ? "study" : "studies";
    at("list-count").textContent = wanted.length ? `${shown.length.toLocaleString("en")} of ${length.toLocaleString("en")} ${studies}`
      : `${length.toLocaleString("en")} ${studies}`;
    at("more").hidden = shown.length <= state.most;
    at("more").textContent = `Show ${(shown.length - state.most).toLocaleString("en")} more`;
    at("nothing").hidden = shown.length > 0;
    at("nothing").textContent = length ? "No study matches." : "The database holds no study yet; this page shows the first one that is launched.";
    at("list-table").hidden = !shown.length;
    tick();
  }

  function rowOf(one) {
    const key = JSON.stringify(one), before = state.rows.get(one.name);
    if (before && before.key === key) { return before; }
    const made = { key, name: one.name, newest: one.newest_at, ...rowParts(one) };
    if (before && before.row.isConnected) {
      const held = before.row.contains(document.activeElement) ? [...before.row.querySelectorAll("a, button, input")].indexOf(document.activeElement) : -1;
      before.row.replaceWith(made.row);
      if (held >= 0) { made.row.querySelectorAll("a, button, input")[held]?.focus(); }
    }
    state.rows.set(one.name, made);
    return made;
  }

  function rowParts(one) {
    const box = node("input", { type: "checkbox", "aria-label": `Compare ${one.shown}`, onchange: () => choose(one.name, box) });
    box.checked = state.chosen.includes(one.name);
    const link = node("a", { href: parts.hrefOf(one.name) }, one.shown);
    const newest = node("span", { title: one.newest_at ? new Date(1000 * one.newest_at).toLocaleString("en-GB") : "" });
    const cell = (key, label, ...content) => node("td", { class: key, "data-label": label }, ...content);
    const row = node("tr", {},
      node("td", { class: "tick" }, box),
      node("th", { scope: "row", class: "study-link" }, link),
      cell("doing", "state", node("span", { class: `study-state is-${one.state.replace(" ", "-")}`, title: one.state_note }, one.state),
        node("span", { class: "unseen" }, ` ${one.state_note}`)),
      cell("best", "best within budget", ...bestParts(one)),
      cell("n", "its latency", node("span", { title: one.best ? one.best.latency_note : "" }, one.best ? one.best.latency_text : "")),
      cell("n", "trainings", trainings(one)),
      cell("newest", "newest activity", newest),
      cell("wrap data", "data set", one.data),
      cell("wrap", "device", one.devices),
      cell("next", "next command", nextParts(one)));
    return { row, box, link, ago: newest };
  }

  function bestParts(one) {
    if (!one.is_read && !one.best) { return [node("span", { class: "muted" }, "…")]; }
    if (!one.best) { return [node("span", { class: "muted", title: one.why_none }, "none"), node("span", { class: "unseen" }, ` ${one.why_none}`)]; }
    return [node("span", {}, `${one.best.score_text}, `, node("a", { href: parts.hrefOf(one.name, one.best.number) }, `trial ${one.best.number}`))];
  }

  function nextParts(one) {
    if (!one.next) { return node("span", { class: "muted", title: one.next_note }, "…"); }
    return node("div", {}, copyButton(one), node("code", { title: one.next_note }, one.next));
  }

  const trainings = ({ trainings: done, wanted }) =>
    (wanted === null ? done.toLocaleString("en") : `${done.toLocaleString("en")} of ${wanted.toLocaleString("en")}`);

  function copyButton(one) {
    const button = node("button", { type: "button", class: "copy", title: one.next_note, "aria-label": `Copy: ${one.next}`, onclick: async () => {
      button.textContent = await copyText(one.next) ? "Copied" : "Failed";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    } }, "Copy");
    return button;
  }

  function ago(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 60) { return whole < 10 ? "just now" : `${10 * Math.floor(whole / 10)} s ago`; }
    const [size, unit] = whole < 3600 ? [60, "min"] : whole < 86400 ? [3600, "h"] : [86400, "d"];
    return `${Math.floor(whole / size).toLocaleString("en")} ${unit} ago`;
  }

  /** Say how long ago each study's newest activity was, by the server's clock. */
  function tick() {
    const now = state.list.now + (performance.now() - state.listedAt) / 1000;
    for (const { ago: place, newest } of state.rows.values()) {
      const text = newest === null ? "no trials" : ago(now - newest);
      if (place.textContent !== text) { place.textContent = text; }
    }
  }

  // ---- choosing -------------------------------------------------------------------------------------------

  function choose(name, box) {
    const others = state.chosen.filter((other) => other !== name);
    const full = box.checked && others.length >= MOST;
    if (full) { box.checked = false; } else { state.chosen = box.checked ? [...others, name] : others; }
    showChosen(full ? `${MOST} studies are chosen, the most that can be compared: take one off first.` : "");
    parts.remember();
  }

  function showChosen(note = "") {
    for (const { box, name } of state.rows.values()) { box.checked = state.chosen.includes(name); }
    at("chosen-bar").hidden = state.compared.length > 0 || !state.chosen.length;
    at("chosen-names").textContent = state.chosen.join(", ");
    at("compare").disabled = state.chosen.length < 2;
    at("chosen-note").textContent = note || (state.chosen.length < 2 ? "Choose a second study to compare it with." : "");
  }

  window.CondenseryList = { COLUMNS, MOST, state, parts, buildList, fillList, showChosen, tick };
})();
