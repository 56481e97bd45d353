/* The selected trials of the live page: one selection for charts, table and drawer. It is in the address, each change of
   it an entry that *Back* undoes. Selecting never moves the page.

   A click selects a trial alone. With Ctrl or ⌘, or while *Compare with others* is pressed, it joins the selected ones. */
(function () {
  "use strict";

  const { MOST_COMPARED, state, node, say, at, set, remember, rememberEntry, trialsIn, parts } = window.CondenseryPage;

  const HINT_MS = 3500, SAME_PLACE_PX = 24;
  let opener = null;  // returns the element that the selection began from, to which the focus goes back
  let pointer = { type: "mouse", joins: false, x: 0, y: 0 }, tapped = null, hiding = null;
  let doubled = false;  // whether the newest click was the second of a double click

  // ---- select ---------------------------------------------------------------------------------------------

  /** Select trials, at most `MOST_COMPARED`; with `go` the focus moves to the drawer. */
  function choose(numbers, go) {
    const [chosen, beyond] = placed([...new Set(numbers)]);
    const focused = document.activeElement;
    if (!at("drawer").contains(focused) && focused !== document.body) { opener = () => focused; }
    if (String(chosen) !== String(state.chosen)) {
      apply(chosen);
      rememberEntry();
    } else { parts.selectRows(); }
    sayBeyond(beyond);
    if (go && chosen.length) { at("drawer-title").focus({ preventScroll: true }); }
  }

  /** Return the trials that have a place among those compared, and those beyond. */
  const placed = (numbers) => [numbers.slice(0, MOST_COMPARED), numbers.slice(MOST_COMPARED)];

  /** Return "Trial 3", or "Trials 3, 5 and 8". */
  const named = (numbers) => (numbers.length > 1 ? `Trials ${numbers.slice(0, -1).join(", ")} and ${numbers.at(-1)}`
    : `Trial ${numbers[0]}`);

  /** Say which trials have no place among those compared. */
  function sayBeyond(beyond) {
    say("drawer-said", beyond.length ? `${named(beyond)} ${beyond.length > 1 ? "are" : "is"} not added: at most four trials `
      + "are compared. Close one of them first." : "");
  }

  /** Show a selection everywhere at once; the drawer's content follows from the server. */
  function apply(chosen) {
    state.chosen = chosen;
    show();
    parts.showMarks();
    parts.selectRows();
    requestAnimationFrame(() => setTimeout(tell, 0));  // once the marks are seen
  }

  const tell = () => set("chosen", { data: [...state.chosen] });

  const toggled = (number) =>
    (state.chosen.includes(number) ? state.chosen.filter((other) => other !== number) : [...state.chosen, number]);

  /** Select the trial of a row. */
  function chooseRow(number, event, go) {
    choose(event.ctrlKey || event.metaKey || comparing() ? toggled(number) : [number], go);
  }

  /** Select the trial of a chart's point. The first tap on a touch screen shows the point's tooltip, the second selects.
      Not by a double click, which has moved the chart below the pointer; its first click was for the point that is meant. */
  function choosePoint(number, chart) {
    if (doubled) { return; }
    if (pointer.type === "touch" && !(tapped && tapped.number === number && tapped.chart === chart)) {
      tapped = { number, chart, x: pointer.x, y: pointer.y };
      hint(`Tap again to open trial ${number}.`);
      return;
    }
    select(number, chart);
  }

  /** Two taps on a point that follow each other quickly are a double click for Plotly; they open the point as well. */
  function doubleClicked() {
    if (pointer.type === "touch" && tapped && Math.hypot(pointer.x - tapped.x, pointer.y - tapped.y) < SAME_PLACE_PX) {
      select(tapped.number, tapped.chart);
    }
    doubled = true;
  }

  function select(number, chart) {
    tapped = null;
    hint("");
    opener = () => at(`${chart}-box`);
    choose(pointer.joins || comparing() ? toggled(number) : [number], true);
  }

  function hint(text) {
    clearTimeout(hiding);
    say("tap-hint", text);
    if (text) { hiding = setTimeout(() => say("tap-hint", ""), HINT_MS); }
  }

  function close() {
    const inside = at("drawer").contains(document.activeElement) || document.activeElement === document.body;
    const back = opener && opener();
    choose([]);
    opener = null;
    if (inside && back && back.isConnected) { back.focus({ preventScroll: true }); }
  }

  // ---- the drawer -----------------------------------------------------------------------------------------

  const comparing = () => at("comparing").getAttribute("aria-pressed") === "true";

  function show() {
    const { chosen } = state, many = chosen.length > 1;
    at("page").classList.toggle("has-selection", chosen.length > 0);
    at("drawer").classList.toggle("several", many);
    at("comparison-state").hidden = chosen.length > 0;
    for (const id of ["drawer-close", "comparing"]) { at(id).hidden = !chosen.length; }
    at("same-field").hidden = !many;
    if (!chosen.length) { at("comparing").setAttribute("aria-pressed", "false"); }
    say("drawer-title", chosen.length ? named(chosen) : "No trial selected");
    at("chosen-list").hidden = !many;
    at("chosen-list").replaceChildren(...(many ? chosen : []).map((number) =>
      node("li", { class: "chip" }, `Trial ${number}`, node("button", {
        type: "button", class: "plain remove", "aria-label": `Close trial ${number}`,
        onclick: () => choose(state.chosen.filter((other) => other !== number)),
      }, "×"))));
    follow();
    parts.refreshSteering();
  }

  let shown = "";
  /** Dim what the drawer shows of an earlier selection, until the server's answer is there. */
  function follow() {
    const wanted = state.chosen.join(",");
    for (const id of ["facts-body", "comparison-body"]) {
      const content = at(id).firstElementChild;
      at(id).classList.toggle("waiting", Boolean(wanted) && (!content || content.dataset.trials !== wanted));
      at(id).hidden = !wanted;
    }
    at("drawer-body").setAttribute("aria-busy", String(Boolean(at("drawer").querySelector(".waiting"))));
    if (wanted !== shown) { at("drawer-body").scrollTop = 0; shown = wanted; }
  }

  function buildControls() {
    const input = node("input", { type: "number", id: "add-trial", min: 0, step: 1, placeholder: "12", "aria-label": "Trial number" });
    const form = node("form", { class: "field", onsubmit: (event) => {
      event.preventDefault();
      if (/^\d{1,9}$/.test(input.value)) {
        choose(comparing() ? [...state.chosen, Number(input.value)] : [Number(input.value)]);
        input.value = "";
      }
    } }, node("label", { for: "add-trial" }, "Trial"), input, node("button", { type: "submit" }, "Show"));
    const press = node("button", { type: "button", id: "comparing", "aria-pressed": "false", onclick: () => {
      press.setAttribute("aria-pressed", String(!comparing()));
      say("drawer-said", comparing() ? "The next points, rows or numbers are compared with the selected trial." : "");
    } }, "Compare with others");
    const same = node("label", { id: "same-field", class: "check" }, node("input", {
      type: "checkbox", onchange: (event) => at("drawer").classList.toggle("all-lines", event.target.checked),
    }), "Show what is the same, too");
    at("drawer-controls").append(node("ul", { id: "chosen-list", class: "chips", "aria-label": "Trials compared" }), form, press, same);
  }

  function buildDrawer() {
    buildControls();
    document.body.append(node("p", { id: "tap-hint", role: "status" }));
    at("drawer-close").addEventListener("click", close);
    at("drawer").addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-trial]");
      if (button) { choose([Number(button.dataset.trial)], true); }
    });
    document.addEventListener("pointerdown", (event) => {
      const { clientX: x, clientY: y } = event;
      pointer = { type: event.pointerType, joins: event.ctrlKey || event.metaKey || event.shiftKey, x, y };
      doubled = false;
    }, true);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && state.chosen.length) { close(); }
    });
    for (const id of ["facts-body", "comparison-body"]) { new MutationObserver(follow).observe(at(id), { childList: true }); }
    window.history.scrollRestoration = "manual";  // or *Back* would move the page, too
    window.addEventListener("popstate", () => {
      const [chosen, beyond] = placed(trialsIn(window.Condensery.shown()));
      if (String(chosen) !== String(state.chosen)) { apply(chosen); }
      sayBeyond(beyond);
      remember();  // the entry may be older than the budget that is set now
    });
    show();
    sayBeyond(placed(trialsIn(window.Condensery.shown()))[1]);  // of an address that someone wrote by hand
  }

  // ---- the sections ---------------------------------------------------------------------------------------

  /** Let the links to the sections scroll to them without entries in the history, and mark the one in sight. */
  function buildPlaces() {
    const links = [...document.querySelectorAll("#places a")];
    const sections = links.map((link) => document.querySelector(link.hash));
    let asked = null;
    const mark = () => {
      const top = at("bar").getBoundingClientRect().bottom, line = top + 0.3 * (window.innerHeight - top);
      const seen = sections.findLastIndex((section) => section.getBoundingClientRect().top <= line);
      links.forEach((link, i) => {
        if (i === Math.max(0, seen)) { link.setAttribute("aria-current", "location"); } else { link.removeAttribute("aria-current"); }
      });
    };
    window.addEventListener("scroll", () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(mark); }, { passive: true });
    mark();
    links.forEach((link, i) => {
      const section = sections[i];
      link.addEventListener("click", (event) => {
        event.preventDefault();
        section.scrollIntoView({ block: "start" });
        section.focus({ preventScroll: true });
      });
    });
    new ResizeObserver(([{ target }]) => {
      document.documentElement.style.setProperty("--bar-height", `${target.offsetHeight}px`);
    }).observe(at("bar"));
  }

  Object.assign(parts, { choose, chooseRow, choosePoint, doubleClicked, buildDrawer, buildPlaces });
})();
