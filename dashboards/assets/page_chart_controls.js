/* What a reader chooses in a chart's own lists: the front's axes and scale, the settings of contour and slice, which lines
   the parallel coordinates show. It is in the address, too. */
(function () {
  "use strict";

  const { state, node, at, changeView, remember, parts } = window.CondenseryPage;

  const ASKED = ["x", "y", "first", "second", "outcome"];  // what the server computes a chart by
  const shown = { log: null, lines: null };  // log: true, false or null for as the values call for it

  /** Take what the address has; called before anything is asked for. */
  function readCharts(words) {
    for (const key of ASKED) { if (words[key]) { state.view[key] = words[key]; } }
    shown.log = words.log === "yes" ? true : words.log === "no" ? false : null;
    shown.lines = words.lines === "front" ? "front" : null;
  }

  const chartWords = () => ({
    ...Object.fromEntries(ASKED.map((key) => [key, state.view[key]])), lines: shown.lines,
    log: shown.log === null ? null : shown.log ? "yes" : "no", ...parts.brushWords(),
  });

  function list(id, text, onchange) {
    return node("span", { class: "field" }, node("label", { for: id }, text), node("select", { id, onchange }));
  }

  function fill(id, pairs, chosen) {
    const select = at(id), key = JSON.stringify([pairs, chosen]);
    if (select.dataset.key === key) { return; }
    select.dataset.key = key;
    select.replaceChildren(...pairs.map(([value, text]) => node("option", { value }, text)));
    select.value = chosen ?? "";
  }

  function build() {
    const choose = (key) => (event) => changeView({ [key]: event.target.value });
    const log = node("input", { type: "checkbox", id: "front-log", onchange: () => {
      shown.log = log.checked;
      parts.redraw("front");
      remember();
    } });
    at("front-controls").append(
      node("label", { class: "field", for: "front-log" }, log, "Log scale"),
      node("details", { class: "axes", id: "front-axes" }, node("summary", {}, "Other axes"),
        list("front-x", "Across", choose("x")), list("front-y", "Up", choose("y"))));
    const only = node("input", { type: "checkbox", id: "parallel-front", checked: shown.lines === "front", onchange: () => {
      shown.lines = only.checked ? "front" : null;
      parts.redraw("parallel");
      remember();
    } });
    at("parallel-controls").append(node("label", { class: "field", for: "parallel-front" }, only, "Front only"));
    for (const name of ["contour", "slice"]) {
      at(`${name}-controls`).append(list(`${name}-first`, "Setting", choose("first")),
        list(`${name}-second`, "and", choose("second")), list(`${name}-outcome`, "show", choose("outcome")));
    }
  }

  /** Offer what the server says can be chosen, with what it shows now. */
  function offerChoices(name, { choices, chosen }) {
    if (!choices) { return; }
    if (name === "front") {
      fill("front-x", choices.axes, chosen.x);
      fill("front-y", choices.axes, chosen.y);
      const { axis, x, y } = state.view;  // what the reader chose last: the answer may be of an earlier choice
      for (const radio of document.querySelectorAll("input[name=axis]")) {
        radio.checked = (y || "score") === "score" && radio.value === (x || axis);
      }
      return;
    }
    fill(`${name}-first`, choices.settings, chosen.first);
    fill(`${name}-second`, choices.settings, chosen.second);
    fill(`${name}-outcome`, choices.outcomes, chosen.outcome);
  }

  /** Put the front's cost axis on the scale that was chosen; the switch shows what it is. */
  function scaled(name, layout) {
    if (name !== "front") { return; }
    const possible = !(layout.meta && layout.meta.extent) || layout.meta.extent[0] > 0;
    if (shown.log !== null && possible) { window.Condensery.setLog(layout, shown.log); }
    at("front-log").checked = layout.xaxis.type === "log";
    at("front-log").disabled = !possible;
  }

  /** Return the figure of parallel coordinates with the lines that are asked for. */
  function linesShown(name, figure) {
    if (name !== "parallel") { return figure; }
    return window.Condensery.onlyLines(figure, shown.lines === "front" ? (figure.layout.meta || {}).front : null);
  }

  Object.assign(parts, { readCharts, chartWords, buildCharts: build, offerChoices, scaled, linesShown });
})();
