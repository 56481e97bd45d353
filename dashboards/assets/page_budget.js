/* The budget control of the live page: sliders and numbers, the answer, its tiles and buttons. */
(function () {
  "use strict";

  const { state, node, say, at, keep, remember, question, markAway, parts } = window.CondenseryPage;

  // ---- budget ---------------------------------------------------------------------------------------------

  function budget(payload) {
    if (!payload) { return keep(); }
    markAway(at("sentence"), payload);
    if (payload.reason) { say("sentence", payload.reason); return keep(); }
    const first = state.table === null;
    state.table = payload.table;
    const words = window.Condensery.shown();
    for (const control of payload.table.controls) {
      if (control.target in state.limits) { continue; }
      const word = words[`budget.${control.target}`];
      state.limits[control.target] = word === "none" ? null : isLimit(word) ? Number(word) : control.limit_ms;
    }
    buildBudget(payload.table);
    answerBudget();
    parts.moveMarks();  // of a front that was there first
    return first ? true : keep();
  }

  function buildBudget(table) {
    const box = at("budget"), targets = JSON.stringify(table.controls.map((control) => control.target));
    if (box.dataset.targets !== targets) {
      box.dataset.targets = targets;
      box.replaceChildren(...table.controls.map(budgetRow));
    }
    table.controls.forEach((control, i) => {
      at(`range-${i}`).step = control.step_ms;
      say(`kind-${i}`, ` (${control.kind})`);
      at(`own-${i}`).hidden = control.limit_ms === null;
      const number = at(`number-${i}`);  // what is being typed stays
      const typing = number === document.activeElement || number.hasAttribute("aria-invalid");
      showLimit(control, i, typing ? number : null);
    });
  }

  const LEAST_MS = 1e-6, MOST_MS = 1e6;
  const isLimit = (text) => Boolean(text) && Number(text) >= LEAST_MS && Number(text) <= MOST_MS;

  /** Take a limit that was typed; what can't be one is said, and the limit before it holds. */
  let doubt = null;
  function typed(i, number) {
    clearTimeout(doubt);
    const empty = number.value === "" && !number.validity.badInput;
    if (empty || isLimit(number.value)) { setLimit(i, empty ? null : Number(number.value), number); return; }
    doubt = setTimeout(() => refuse(i, number), 500);  // "0" may become "0.3"
  }

  function refuse(i, number) {
    const before = state.limits[state.table.controls[i].target];
    number.setAttribute("aria-invalid", "true");
    say(`wrong-${i}`, `A limit is a number of ms from 0.000001 to 1,000,000; ${
      before === null ? "there is still none" : `${window.Condensery.limitText(before)} ms still holds`}.`);
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
      "aria-describedby": `wrong-${i}`, oninput: () => typed(i, number),
    });
    return node("div", { class: "budget-row" },
      node("label", { for: `range-${i}` }, `Latency limit on ${control.target}`, node("span", { class: "muted", id: `kind-${i}` })),
      range,
      node("span", { class: "field" }, number, node("span", {}, "ms"),
        node("button", { type: "button", class: "plain", id: `own-${i}`,
          "aria-label": `The study's own limit on ${control.target}`,
          onclick: () => setLimit(i, state.table.controls[i].limit_ms) }, "Study's limit"),
        node("button", { type: "button", class: "plain", id: `none-${i}`,
          "aria-label": `No limit on ${control.target}`, onclick: () => setLimit(i, null) }, "No limit"),
        node("span", { class: "wrong", id: `wrong-${i}`, role: "status" })));
  }

  function showLimit(control, i, source) {
    const limit = state.limits[control.target], range = at(`range-${i}`), number = at(`number-${i}`);
    const text = limit === null ? "" : window.Condensery.limitText(limit);
    if (number !== source && number.value !== text) { number.value = text; }
    range.min = Math.min(control.low_ms, limit ?? Infinity);  // as far as the limit, and no farther than need be
    range.max = Math.max(control.high_ms, limit ?? 0);
    range.value = limit === null ? range.max : limit;
    range.setAttribute("aria-valuetext", limit === null ? "no limit" : `${text} ms`);
  }

  let frame = null;
  function setLimit(i, limit, source) {
    const control = state.table.controls[i];
    state.limits[control.target] = limit === null ? null : Number(window.Condensery.limitText(limit));
    clearTimeout(doubt);
    at(`number-${i}`).removeAttribute("aria-invalid");
    say(`wrong-${i}`, "");
    showLimit(control, i, source);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => { answerBudget(); parts.moveMarks(); remember(); });
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
      at("bundle").dataset.number = offer.number;
      at("bundle").textContent = `Download bundle of trial ${offer.number}`;
      at("open-best").textContent = `Open trial ${offer.number}`;
      at("open-best").dataset.number = offer.number;
    }
    showCommand();
  }

  const MOST_TEXT = 400;

  /** Fetch the bundle first: what can't be made is said here, and the page stays. */
  async function download() {
    const limits = {};
    for (const { target } of state.table.controls) { limits[`budget.${target}`] = state.limits[target] ?? "none"; }
    const number = at("bundle").dataset.number;
    say("said", "The bundle is being put together …");
    try {
      const answer = await fetch(`/bundle/${number}.zip?${question(limits)}`);
      if (!answer.ok) { throw new Error((await answer.text()).slice(0, MOST_TEXT)); }
      const [, name] = (answer.headers.get("Content-Disposition") || "").match(/filename="([^"]+)"/) || [];
      const link = node("a", { href: URL.createObjectURL(await answer.blob()), download: name || `trial-${number}.zip` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      say("said", "");
    } catch (error) { say("said", error.message); }
  }

  function showCommand() {
    if (state.head && state.table) { say("command", window.Condensery.pickCommand(state.table, state.limits, state.head.words)); }
  }

  function showTiles(table, offer) {
    const tile = (name, value, note) => node("div", {}, node("dt", {}, name), node("dd", {}, value, node("small", {}, note)));
    at("tiles").replaceChildren(...(offer === null ? [] : [
      tile("Top-1, validation", offer.top1_text, "of the deployed network"),
      ...table.controls.map((control, i) => {
        const high = offer.high_ms[i], limit = state.limits[control.target];
        return tile(table.controls.length > 1 ? `Latency on ${control.target}` : "Latency, median",
          offer.median_texts[i],
          limit === null || high === null ? offer.kinds[i]
            : `${offer.kinds[i]}; ${Math.max(0, 100 * (1 - high / limit)).toFixed(0)} % of the limit is left`);
      }),
      tile("Multiply-adds", offer.macs_text, offer.macs.toLocaleString("en")),
      tile("Parameters", offer.params_text, offer.params.toLocaleString("en")),
    ]));
  }

  Object.assign(parts, { showCommand, download });
  Object.assign(window.dash_clientside.page, { budget });
})();
