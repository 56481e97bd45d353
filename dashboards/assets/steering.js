/* What the page writes: star and note of the selected trial, its config to be tried with changes, cancelling it, stopping
   the search. Each shows the command that does the same. A page that may not write says why, and still shows them. */
(function () {
  "use strict";

  const { state, node, say, at, copy, parts } = window.CondenseryPage;
  const PAUSE_MS = 250;  // of typing, before the server is asked what it would do
  const HEADERS = { "Content-Type": "application/json", "X-Condensery": "write" };
  const PLAIN = /^[\w@%+=:,./-]+$/;

  let known = null;            // what the server said last
  let built = "";              // of what the trial's actions were built
  let asked = 0;

  const addressed = (more) => {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries({ study: state.view.study, ...more })) {
      if (value !== null && value !== undefined) { words.set(name, value); }
    }
    return words.toString();
  };
  const quoted = (text) => (PLAIN.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

  // ---- asking and writing -----------------------------------------------------------------------------------

  /** Ask what may be done now, and show it; an answer that a later question has overtaken is dropped. */
  async function refreshSteering() {
    if (state.stale || state.away) { return; }  // asked again when the database is back
    const mine = ++asked, [first, ...others] = state.chosen;
    const trial = first !== undefined && !others.length ? first : null;
    try {
      const answer = await fetch(`/steering?${addressed({ trial })}`);
      if (!answer.ok || mine !== asked) { if (mine === asked && trial !== null) { showTrial(null); } return; }
      known = await answer.json();
    } catch (error) { return; }  // the page's badge says that the server is away
    if (mine !== asked) { return; }
    say("writes", known.read_only || "Condensery. All that this page writes: stars, notes, and what you ask of the search.");
    showSearch();
    showTrial(known.trial || null);
  }

  /** Have something written; return what the server said of it. */
  async function write(name, body, button) {
    button.disabled = true;
    try {
      const answer = await fetch(`/do/${name}?${addressed({})}`, { method: "POST", headers: HEADERS, body: JSON.stringify(body) });
      const kind = answer.headers.get("Content-Type") || "", text = await answer.text();
      if (kind.startsWith("application/json")) { return { done: answer.ok, ...JSON.parse(text) }; }
      return { done: answer.ok, said: kind.startsWith("text/plain") ? text : "Nothing was written: open the printed address again." };
    } catch (error) {
      return { done: false, said: "The server doesn't answer; look again whether this was written." };
    } finally {
      button.disabled = false;
      refreshSteering();
    }
  }

  // ---- pieces -------------------------------------------------------------------------------------------------

  /** Return a command with the button that copies it; its text may be changed by `set`. */
  function commandLine(text) {
    const code = node("code", {}, text), button = node("button", { type: "button", class: "small" }, "Copy command");
    button.addEventListener("click", () => copy(code.textContent, button, "Copy command"));
    return { line: node("div", { class: "command" }, code, button), set: (now) => { code.textContent = now; } };
  }

  /** Return a button that can't be used where the page may not write. */
  function writer(text, attributes, act) {
    const button = node("button", { type: "button", ...attributes }, text);
    if (known.read_only) { button.disabled = true; button.title = known.read_only; }
    button.addEventListener("click", () => act(button));
    return button;
  }

  const saidLine = () => node("p", { class: "said", role: "status" });

  // ---- the search -----------------------------------------------------------------------------------------------

  let searchKey = "";
  function showSearch() {
    const key = JSON.stringify([known.search, known.waiting, known.read_only]);
    if (key === searchKey) { return; }
    searchKey = key;
    const place = at("search-actions"), { search, waiting } = known, told = place.querySelector(".said");
    const said = told || saidLine(), wasOpen = place.querySelector("details")?.open, focused = document.activeElement?.dataset?.act;
    const stop = writer("Stop the search", { "data-act": "stop" }, async (button) => { tell(said, await write("stop", {}, button)); });
    if (search.state !== "searching") { stop.disabled = true; }
    const goOn = search.state === "searching" ? [] : [
      node("p", {}, search.state === "finished" ? "With more trainings in its study file, this goes on:"
        : search.state === "stopping" ? "Afterwards, this goes on:" : "This goes on:"),
      commandLine(search.go_on).line,
      node("p", { class: "muted" }, "The page can't start a search, which may run on another machine: run this where it was "
        + "launched, with its study file and the same --set options."),
    ];
    const shown = node("details", wasOpen ? { open: "" } : {},
      node("summary", {}, search.text),
      node("div", { class: "steps" }, node("p", {}, search.note),
        node("div", { class: "buttons" }, stop), commandLine(search.stop).line, ...goOn,
        ...(waiting.length ? [node("p", {}, "Enqueued, and waiting to be tried:"),
          node("ul", {}, ...waiting.map((one) => node("li", {}, `${one.number}: ${one.text} `,
            writer("Take back", { class: "small", "data-act": `withdraw-${one.number}` },
              async (button) => { tell(said, await write("withdraw", { number: one.number }, button)); }),
            commandLine(one.withdraw).line)))] : []),
        said));
    shown.addEventListener("toggle", () => { if (shown.open) { refreshSteering(); } });  // a killed search is no news
    place.replaceChildren(shown);
    if (focused) { place.querySelector(`[data-act="${focused}"]`)?.focus(); }
  }

  function tell(place, { done, said }) {
    place.textContent = said;
    place.classList.toggle("wrong", !done);
  }

  // ---- the selected trial -----------------------------------------------------------------------------------------

  let live = null;  // updates what is built of a trial, when the server says something new of it
  function showTrial(trial) {
    const place = at("trial-actions"), key = trial ? `${state.view.study} ${trial.number} ${known.read_only}` : "";
    if (key !== built) {
      built = key;
      live = null;
      place.replaceChildren();
      if (trial) { live = buildTrial(place, trial); }
    }
    if (live) { live(trial); }
  }

  function buildTrial(place, trial) {
    const { number } = trial, said = saidLine(), star = commandLine(trial.star);
    const panels = { note: notePanel(trial, said, star.line), change: changePanel(trial), cancel: cancelPanel(number, said) };
    const starButton = writer("", { id: "star", class: "star-button" }, async (button) => {
      tell(said, await write("star", { trial: number, starred: button.getAttribute("aria-pressed") !== "true" }, button));
    });
    const opener = (name, text) => {
      const button = node("button", { type: "button", "aria-expanded": "false", "aria-controls": `panel-${name}` }, text);
      button.addEventListener("click", () => show(panels[name].panel.hidden ? name : null));
      return button;
    };
    const openers = { note: opener("note", "Note"), change: opener("change", "Try with changes"), cancel: opener("cancel", "Cancel") };
    const show = (name) => {
      for (const [other, { panel, opened }] of Object.entries(panels)) {
        panel.hidden = other !== name;
        openers[other].setAttribute("aria-expanded", String(other === name));
        note.classList.toggle("unseen", name === "note");  // the panel has it
        if (other === name && opened) { opened(); }
      }
    };
    const note = node("p", { class: "note" });
    const why = known.read_only ? [node("details", {}, node("summary", {}, "Why can't I write here?"), node("p", {}, known.read_only))] : [];
    place.append(node("div", { class: "buttons" }, starButton, ...Object.values(openers)), ...why, note,
      ...Object.values(panels).map(({ panel }) => panel), said);
    show(null);
    return (now) => {
      starButton.textContent = now.starred ? "⚑ Starred" : "⚐ Star";
      starButton.setAttribute("aria-pressed", String(now.starred));
      star.set(now.star);
      note.textContent = now.note;
      note.hidden = !now.note;
      openers.cancel.hidden = !now.cancel;
      openers.cancel.textContent = now.cancelling ? "Is being cancelled" : "Cancel";
      if (!now.cancel) { panels.cancel.panel.hidden = true; }
      Object.values(panels).forEach(({ update }) => update(now));
    };
  }

  const panelOf = (name, title, ...children) =>
    node("div", { class: "panel", id: `panel-${name}`, role: "group", "aria-label": title, hidden: "" }, ...children);

  function notePanel(trial, said, starLine) {
    const command = commandLine(""), text = node("textarea", { id: "note-text", rows: 3, maxlength: 2000 });
    let before = trial.note;
    text.value = before;
    const showCommand = () => {
      const [start, end] = trial.noting, words = text.value.trim();
      command.set(words.startsWith("-") ? `${start} ${end} -- ${quoted(words)}` : `${start} ${quoted(words)} ${end}`);
    };
    text.addEventListener("input", showCommand);
    const save = writer("Save note", { class: "primary" }, async (button) => {
      const answer = await write("note", { trial: trial.number, text: text.value, before }, button);
      if (answer.done) { before = text.value = answer.note; }
      if (answer.now !== undefined) { before = answer.now; }
      tell(said, answer.now === undefined ? answer : { done: false, said: `${answer.said} Theirs: ${answer.now}` });
      showCommand();
    });
    if (known.read_only) { text.readOnly = true; }
    const panel = panelOf("note", "Note", node("label", { for: "note-text" }, `Note about trial ${trial.number}`), text,
      node("div", { class: "buttons" }, save), command.line, starLine);
    const update = (now) => {
      if (now.note !== before && text.value.trim() === before) { before = text.value = now.note; }
      showCommand();
    };
    return { panel, update, opened: () => text.focus() };
  }

  function cancelPanel(number, said) {
    const command = commandLine("");
    const act = writer(`Cancel trial ${number}`, { class: "danger" }, async (button) => {
      tell(said, await write("cancel", { trial: number }, button));
    });
    const panel = panelOf("cancel", "Cancel", node("p", {}, "It is given up, with what it has been trained so far."),
      node("div", { class: "buttons" }, act), command.line);
    return { panel, update: (now) => { if (now.cancel) { command.set(now.cancel); } } };
  }

  // ---- a config with changes ------------------------------------------------------------------------------------

  /** Return a field's value: JSON, a list written as 3-1-1, or a text; undefined where it is empty. */
  function valueOf(text) {
    const words = text.trim();
    if (!words) { return undefined; }
    if (/^\d+(-\d+)+$/.test(words)) { return words.split("-").map(Number); }
    try { return JSON.parse(words); } catch (error) { return words; }
  }
  const shownValue = (value) =>
    (value === null ? "" : Array.isArray(value) && value.length > 1 && value.every(Number.isInteger) ? value.join("-")
      : typeof value === "string" && typeof valueOf(value) === "string" ? value : JSON.stringify(value));

  function changePanel(trial) {
    const inputs = { config: {}, training: {} }, command = commandLine("");
    const plan = node("p", { class: "plan", role: "status" }), said = saidLine();
    let sent = "", pause = null;
    const field = (part, name, value) => {
      const id = `change-${part}-${name}`, input = node("input", { type: "text", id, spellcheck: "false", autocomplete: "off" });
      input.value = shownValue(value);
      if (value === null) { input.placeholder = "none"; }
      input.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(look, PAUSE_MS); });
      inputs[part][name] = input;
      return node("div", { class: "change" }, node("label", { for: id }, name.replaceAll("_", " ")), input);
    };
    const wanted = () => {
      const read = (part) => Object.fromEntries(Object.entries(inputs[part])
        .map(([name, input]) => [name, trial[part][name] === null && !input.value.trim() ? null : valueOf(input.value)])
        .filter(([, value]) => value !== undefined));
      return { ...read("config"), training: read("training") };
    };
    async function look() {
      const config = JSON.stringify(wanted());
      sent = config;
      act.disabled = true;
      try {
        const answer = await fetch(`/steering/plan?${addressed({ config })}`), said = await answer.json();
        if (config !== sent) { return; }
        plan.textContent = said.wrong || said.said;
        plan.classList.toggle("wrong", Boolean(said.wrong));
        command.line.hidden = !said.command;
        if (said.command) { command.set(said.command); }
        act.disabled = Boolean(said.wrong || known.read_only);
      } catch (error) { plan.textContent = "The server doesn't answer."; }
    }
    const act = writer("Enqueue", { class: "primary" }, async (button) => {
      tell(said, await write("enqueue", { config: wanted() }, button));
    });
    const rows = (part, values) => Object.entries(values).map(([name, value]) => field(part, name, value));
    const panel = panelOf("change", "Try with changes",
      node("p", { class: "muted" }, `Trial ${trial.number}'s config, to be tried next with your changes; a field left empty is chosen as near to the best network as is valid.`),
      node("div", { class: "changes" }, ...rows("config", trial.config)),
      node("details", {}, node("summary", {}, "Training settings"), node("div", { class: "changes" }, ...rows("training", trial.training))),
      plan, node("div", { class: "buttons" }, act), said, command.line);
    return { panel, update: () => {}, opened: look };
  }

  Object.assign(parts, { refreshSteering });
})();
