/* The page of all studies: its address, its news, and which of its two views is shown: their list, or up to four of them
   beside each other.

   What the reader has chosen is in the address: `choose` (ticked in the list), `studies` (compared), `view`, `limit`,
   `sort`, `filter`, `theme`. Back undoes what has changed the page. Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { node, copyText } = window.CondenseryBudget, C = window.Condensery;
  const at = (id) => document.getElementById(id);
  const POLL_MS = 2000, CALM_MS = 5000, PATIENCE_MS = 20000, TYPING_MS = 250;
  const THEMES = { auto: "system", light: "light", dark: "dark" };
  const LIVE = ["searching", "stopping", "stuck"];
  const { COLUMNS, MOST, state, parts, buildList, fillList, showChosen, tick } = window.CondenseryList;
  Object.assign(state, { view: null, limit: undefined, theme: "auto", stamp: null, awaySince: null });

  // ---- address --------------------------------------------------------------------------------------------

  // Names are parted by commas; a comma in a name, and the sign that stands for it, are written as in a URL.
  const packed = (names) => names.map((name) => name.replace(/[%,]/g, encodeURIComponent)).join(",");
  const unpacked = (text) => [...new Set((text || "").split(",").filter(Boolean)
    .map((name) => name.replace(/%2C|%25/gi, decodeURIComponent)))].slice(0, MOST);

  function readAddress() {
    const words = C.shown(), [sort, way] = (words.sort || "newest").split("-");
    const column = COLUMNS.find(([key]) => key === sort) ?? COLUMNS[5];
    state.chosen = unpacked(words.choose);
    state.compared = unpacked(words.studies);
    state.view = words.view ?? null;
    state.limit = words.limit === "none" ? null : Number(words.limit) > 0 ? Number(words.limit) : undefined;
    state.sort = column[0];
    state.down = way === "up" ? false : way === "down" ? true : column[3];
    state.filter = words.filter || "";
    state.theme = words.theme in THEMES ? words.theme : "auto";
  }

  function words() {
    const column = COLUMNS.find(([key]) => key === state.sort), compares = state.compared.length > 0;
    const sort = state.sort === "newest" && state.down ? null : state.sort + (state.down === column[3] ? "" : state.down ? "-down" : "-up");
    const all = {
      studies: compares ? packed(state.compared) : null, view: compares ? state.view : null,
      limit: !compares || state.limit === undefined ? null : state.limit ?? "none",
      choose: compares ? null : packed(state.chosen), sort, filter: state.filter, theme: state.theme === "auto" ? null : state.theme,
    };
    return Object.entries(all).filter(([, value]) => value !== null && value !== "");
  }

  const address = () => { const text = new URLSearchParams(words()).toString(); return text ? `/?${text}` : "/"; };
  let writing = null;
  function remember() {  // browsers limit how often the address may change
    clearTimeout(writing);
    writing = setTimeout(() => window.history.replaceState(null, "", address()), TYPING_MS);
  }
  function go() {
    clearTimeout(writing);
    window.history.pushState(null, "", address());
    show(true);
  }
  // What the address was opened with that is meant for a study's page: a link to a view of one, without its study.
  const carried = [...new URLSearchParams(window.location.search)].filter(([key]) => /^(axis|group|trials|budget\..*)$/.test(key));
  const themeWord = () => (state.theme === "auto" ? [] : [["theme", state.theme]]);

  /** Return the address of a study's page, or of one of its trials there. */
  const hrefOf = (name, number) =>
    `/?${new URLSearchParams([["study", name], ...(number === undefined ? carried : [["trials", number]]), ...themeWord()])}`;

  // ---- colours --------------------------------------------------------------------------------------------

  function applyTheme() {
    if (state.theme === "auto") { delete document.documentElement.dataset.theme; }
    else { document.documentElement.dataset.theme = state.theme; }
    at("theme").textContent = `Colours: ${THEMES[state.theme]}`;
    if (compared) { compared.draw(); }
    for (const { name, link } of state.rows.values()) { link.href = hrefOf(name); }
  }

  function nextTheme() {
    const names = Object.keys(THEMES);
    state.theme = names[(names.indexOf(state.theme) + 1) % names.length];
    applyTheme();
    remember();
  }

  // ---- comparing ------------------------------------------------------------------------------------------

  let compared = null, loading = null;
  const plotly = () => (loading ??= new Promise((done, failed) => {
    const script = node("script", { src: at("compared").dataset.plotly });
    script.onload = () => { C.asSharpAsTheScreen(); done(); };
    script.onerror = () => failed(new Error("the charts' program can't be loaded"));
    document.head.append(script);
  }));

  function startCompared() {
    const config = JSON.parse(at("compared").dataset.config);
    compared = new window.CondenseryStudies.StudiesCompared(at("compared-body"), {
      view: (token) => { state.view = token; state.limit = undefined; remember(); loadCompared(); },
      limit: (limit) => { state.limit = limit; remember(); },
      href: hrefOf, plotly,
    }, config);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => compared.draw());
  }

  function showComparedNames() {
    const chip = (name) => node("li", { class: "chip" }, node("a", { href: hrefOf(name) }, name),
      node("button", { type: "button", class: "plain remove", "aria-label": `Take ${name} off`, onclick: () => {
        const left = state.compared.filter((other) => other !== name);
        state.chosen = left;
        state.compared = left.length > 1 ? left : [];
        state.limit = undefined;
        go();
      } }, "×"));
    at("compared-names").replaceChildren(...state.compared.map(chip));
    const others = state.list.studies.map(({ name }) => name).filter((name) => !state.compared.includes(name));
    const add = at("compared-add");
    add.replaceChildren(node("option", { value: "" }, state.compared.length < MOST ? "Add a study …" : "Four at most"),
      ...others.map((name) => node("option", { value: name }, name)));
    add.disabled = state.compared.length >= MOST || !others.length;
    at("to-list").href = `/?${new URLSearchParams([["choose", packed(state.compared)], ...themeWord()])}`;
  }

  let asking = 0;
  async function loadCompared(stamp) {
    const asked = ++asking, names = packed(state.compared), words = new URLSearchParams({ studies: names });
    if (state.view) { words.set("view", state.view); }
    if (stamp) { words.set("stamp", stamp); }
    try {
      const answer = await fetch(`/comparison.json?${words}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (asked !== asking || answer.status === 204) { badge(null); return; }
      if (!answer.ok) { throw new Error(await answer.text()); }
      const shown = await answer.json();
      if (asked !== asking || packed(state.compared) !== names) { return; }
      badge(null);
      at("compared-wrong").hidden = true;
      at("compared-body").hidden = false;
      state.stamp = shown.stamp;
      delete shown.stamp;
      await compared.show(shown, state.limit);
    } catch (error) {
      if (asked !== asking) { return; }
      at("compared-wrong").textContent = `They can't be compared now: ${error.message}`;
      at("compared-wrong").hidden = false;
      at("compared-body").hidden = compared.shown === null;
    }
  }

  // ---- one view or the other ------------------------------------------------------------------------------

  function show(moved) {
    const compares = state.compared.length > 0;
    at("list").hidden = compares;
    at("compared").hidden = !compares;
    document.title = compares ? `${state.compared.join(", ")} - Condensery` : "Studies - Condensery";
    at("filter").value = state.filter;
    applyTheme();
    showChosen();
    fillList();
    if (compares) {
      if (!compared) { startCompared(); }
      compared.limit = undefined;
      compared.shown = null;
      showComparedNames();
      loadCompared();
    }
    if (moved) {
      window.scrollTo(0, 0);
      (compares ? at("compared-title") : at("list-title")).focus({ preventScroll: true });
    }
  }

  // ---- news -----------------------------------------------------------------------------------------------

  function badge(problem) {
    if (problem && state.awaySince === null) { state.awaySince = Date.now(); }
    if (!problem) { state.awaySince = null; }
    at("badge").className = problem ? "badge stale" : "badge";
    at("badge").textContent = problem ? `${problem} since ${new Date(state.awaySince).toLocaleTimeString("en-GB")}` : "Live";
  }

  async function poll() {
    if (document.hidden) { return CALM_MS; }
    try {
      const answer = await fetch(`/studies.json?stamp=${state.list.stamp}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (answer.status === 200) {
        Object.assign(state, { list: await answer.json(), listedAt: performance.now() });
        fillList();
        if (state.compared.length) { showComparedNames(); }
      } else if (answer.status !== 204) {
        badge({ 401: "The token is no longer valid", 503: "The database is away" }[answer.status] ?? "No answer from the server");
        return CALM_MS;
      }
      badge(null);
    } catch (error) { badge("No answer from the server"); return CALM_MS; }
    tick();
    if (state.compared.length && state.stamp) { await loadCompared(state.stamp); }
    if (state.list.studies.some(({ is_read: read }) => !read)) { return 0; }
    return state.list.studies.some((one) => LIVE.includes(one.state)) ? POLL_MS : CALM_MS;
  }

  async function watch() {
    for (;;) {
      const pause_ms = await poll();
      await new Promise((done) => { setTimeout(done, pause_ms); });
    }
  }

  // ---- start ----------------------------------------------------------------------------------------------

  Object.assign(parts, {
    remember, hrefOf,
    compare: (names) => { Object.assign(state, { compared: [...names], view: null, limit: undefined }); go(); },
  });
  readAddress();
  buildList();
  at("theme").addEventListener("click", nextTheme);
  at("share").addEventListener("click", async () => {
    at("share").textContent = await copyText(window.location.href) ? "Copied" : "Copy failed";
    setTimeout(() => { at("share").textContent = "Copy link"; }, 1600);
  });
  at("compared-add").addEventListener("change", () => {
    const name = at("compared-add").value;
    if (name) { state.compared = [...state.compared, name].slice(0, MOST); state.limit = undefined; go(); }
  });
  at("to-list").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) { return; }
    event.preventDefault();
    state.chosen = state.compared;
    state.compared = [];
    go();
  });
  window.addEventListener("popstate", () => { readAddress(); show(true); });
  show(false);
  performance.mark("condensery-studies");
  watch();
})();
