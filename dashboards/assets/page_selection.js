/* The selected trials of the live page: one selection for charts, table and drawer. It is in the address, each change of
   it an entry that *Back* undoes. Selecting never moves the page. */
(function () {
  "use strict";

  const { MOST_COMPARED, state, node, say, at, set, remember, rememberEntry, trialsIn, parts } = window.CondenseryPage;

  let opener = null;  // returns the focus to what the selection began from

  /** Select trials, at most `MOST_COMPARED`; with `go` the focus moves to the drawer. */
  function choose(numbers, go) {
    const wanted = [...new Set(numbers)], chosen = wanted.slice(0, MOST_COMPARED), beyond = wanted.slice(MOST_COMPARED);
    const focused = document.activeElement;
    if (!at("drawer").contains(focused) && focused !== document.body) { opener = () => focused; }
    if (String(chosen) !== String(state.chosen)) {
      apply(chosen);
      rememberEntry();
    }
    say("drawer-said", beyond.length ? `Trial ${beyond.join(", ")} is not added: four trials are compared at most. Close one first.` : "");
    if (go && chosen.length) { at("drawer-title").focus({ preventScroll: true }); }
  }

  /** Show a selection everywhere at once; the drawer's content follows from the server. */
  function apply(chosen) {
    state.chosen = chosen;
    set("chosen", { data: [...chosen] });
    show();
    parts.selectRows();
  }

  /** Select the trial of a chart's point. */
  function choosePoint(number, chart) {
    opener = () => at(`${chart}-box`);
    choose([...state.chosen.filter((other) => other !== number), number], true);
  }

  function close() {
    const back = opener && opener();
    choose([]);
    opener = null;
    if (back && back.isConnected) { back.focus({ preventScroll: true }); }
  }

  function show() {
    const { chosen } = state, [first] = chosen;
    at("page").classList.toggle("has-selection", chosen.length > 0);
    at("drawer-close").hidden = !chosen.length;
    say("drawer-title", !chosen.length ? "No trial selected" : chosen.length === 1 ? `Trial ${first}`
      : `Trials ${chosen.slice(0, -1).join(", ")} and ${chosen[chosen.length - 1]}`);
    at("chosen-list").replaceChildren(...(chosen.length < 2 ? [] : chosen).map((number) =>
      node("li", { class: "chip" }, `Trial ${number}`, node("button", {
        type: "button", class: "plain remove", "aria-label": `Close trial ${number}`,
        onclick: () => choose(state.chosen.filter((other) => other !== number)),
      }, "×"))));
    parts.refreshSteering();
  }

  function buildDrawer() {
    const input = node("input", { type: "number", id: "add-trial", min: 0, step: 1 });
    const form = node("form", { class: "field", onsubmit: (event) => {
      event.preventDefault();
      if (/^\d+$/.test(input.value)) { choose([...state.chosen, Number(input.value)]); input.value = ""; }
    } }, node("label", { for: "add-trial" }, "Trial number"), input, node("button", { type: "submit" }, "Show"));
    at("drawer-controls").append(node("ul", { id: "chosen-list", class: "chips", "aria-label": "Trials compared" }), form);
    at("drawer-close").addEventListener("click", close);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && state.chosen.length) { close(); }
    });
    window.history.scrollRestoration = "manual";  // or *Back* would move the page, too
    window.addEventListener("popstate", () => {
      const chosen = trialsIn(window.Condensery.shown());
      if (String(chosen) !== String(state.chosen)) { apply(chosen); }
      remember();  // the entry may be older than the budget that is set now
    });
    show();
  }

  // ---- the sections ---------------------------------------------------------------------------------------

  /** Let the links to the sections scroll to them without entries in the history, and mark the one in sight. */
  function buildPlaces() {
    const links = [...document.querySelectorAll("#places a")];
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        for (const link of links) {
          if (link.hash === `#${entry.target.id}`) { link.setAttribute("aria-current", "location"); }
          else { link.removeAttribute("aria-current"); }
        }
      }
    }, { rootMargin: "-45% 0px -50% 0px" });
    for (const link of links) {
      const section = document.querySelector(link.hash);
      seen.observe(section);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        section.scrollIntoView({ block: "start" });
        section.focus({ preventScroll: true });
      });
    }
    new ResizeObserver(([{ target }]) => {
      document.documentElement.style.setProperty("--bar-height", `${target.offsetHeight}px`);
    }).observe(at("bar"));
  }

  Object.assign(parts, { choose, choosePoint, buildDrawer, buildPlaces });
})();
