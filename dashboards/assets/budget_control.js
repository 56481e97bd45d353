/* The budget's controls and its answer on page and report: sliders and numbers, sentences, tiles, copying.

   Nothing here asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const LEAST_MS = 1e-6, MOST_MS = 1e6, DOUBT_MS = 500;
  const at = (id) => document.getElementById(id);
  const isLimit = (text) => Boolean(text) && Number(text) >= LEAST_MS && Number(text) <= MOST_MS;

  function node(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) { element.addEventListener(name.slice(2), value); }
      else if (value === true) { element.setAttribute(name, ""); }
      else if (value !== false && value !== null && value !== undefined) { element.setAttribute(name, value); }
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function say(id, text) {
    const place = at(id);
    if (place && place.textContent !== text) { place.textContent = text; }
  }

  /** One slider and one number for each device, in the element "budget". `limits` has their values in ms by device
      (null: no limit), and is changed; `moved` is called once a frame after that; `own` has text and name of the button
      that restores the first limit. */
  class BudgetControl {
    constructor(limits, moved, own = ["Study's limit", "The study's own limit"]) {
      Object.assign(this, { limits, moved, own, table: null, frame: null, doubt: null });
    }

    /** Show a table's controls; a new device starts with the limit in the address, else with its own. */
    show(table) {
      const words = window.Condensery.shown(), box = at("budget");
      const targets = JSON.stringify(table.controls.map((control) => control.target));
      this.table = table;
      for (const control of table.controls) {
        if (control.target in this.limits) { continue; }
        const word = words[`budget.${control.target}`];
        this.limits[control.target] = word === "none" ? null : isLimit(word) ? Number(word) : control.limit_ms;
      }
      if (box.dataset.targets !== targets) {
        box.dataset.targets = targets;
        box.replaceChildren(...table.controls.map((control, i) => this.row(control, i)));
      }
      table.controls.forEach((control, i) => {
        at(`range-${i}`).step = control.step_ms;
        say(`kind-${i}`, ` (${control.kind})`);
        at(`own-${i}`).hidden = control.limit_ms === null;
        const number = at(`number-${i}`);  // what the reader is typing stays
        this.place(i, number === document.activeElement || number.hasAttribute("aria-invalid") ? number : null);
      });
    }

    row(control, i) {
      const range = node("input", {
        type: "range", id: `range-${i}`, "aria-describedby": "sentence", oninput: () => this.set(i, Number(range.value)),
      });
      const number = node("input", {
        type: "number", id: `number-${i}`, min: 0, step: "any", placeholder: "none", inputmode: "decimal",
        "aria-label": `Latency limit on ${control.target} in ms; empty is no limit`,
        "aria-describedby": `wrong-${i}`, oninput: () => this.typed(i, number),
      });
      const button = (id, name, text, limit) => node("button", {
        type: "button", class: "plain", id: `${id}-${i}`, "aria-label": `${name} on ${control.target}`,
        onclick: () => this.set(i, limit()),
      }, text);
      return node("div", { class: "budget-row" },
        node("label", { for: `range-${i}` }, `Latency limit on ${control.target}`,
          node("span", { class: "muted", id: `kind-${i}` })),
        range,
        node("span", { class: "field" }, number, node("span", {}, "ms"),
          button("own", this.own[1], this.own[0], () => this.table.controls[i].limit_ms),
          button("none", "No limit", "No limit", () => null),
          node("span", { class: "wrong", id: `wrong-${i}`, role: "status" })));
    }

    place(i, source) {
      const control = this.table.controls[i], limit = this.limits[control.target];
      const range = at(`range-${i}`), number = at(`number-${i}`);
      const text = limit === null ? "" : window.Condensery.limitText(limit);
      if (number !== source && number.value !== text) { number.value = text; }
      range.min = Math.min(control.low_ms, limit ?? Infinity);  // far enough for the limit, and no further
      range.max = Math.max(control.high_ms, limit ?? 0);
      range.value = limit === null ? range.max : limit;
      range.setAttribute("aria-valuetext", limit === null ? "no limit" : `${text} ms`);
    }

    /** Accept a limit that was typed; if it can't be one, say so and keep the limit before it. */
    typed(i, number) {
      clearTimeout(this.doubt);
      const empty = number.value === "" && !number.validity.badInput;
      if (empty || isLimit(number.value)) { this.set(i, empty ? null : Number(number.value), number); return; }
      this.doubt = setTimeout(() => this.refuse(i, number), DOUBT_MS);  // "0" may become "0.3"
    }

    refuse(i, number) {
      const before = this.limits[this.table.controls[i].target];
      number.setAttribute("aria-invalid", "true");
      say(`wrong-${i}`, `A limit is a number of ms from 0.000001 to 1,000,000; ${
        before === null ? "there is still none" : `${window.Condensery.limitText(before)} ms still holds`}.`);
    }

    set(i, limit, source) {
      this.limits[this.table.controls[i].target] = limit === null ? null : Number(window.Condensery.limitText(limit));
      clearTimeout(this.doubt);
      at(`number-${i}`).removeAttribute("aria-invalid");
      say(`wrong-${i}`, "");
      this.place(i, source);
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(this.moved);
    }

    /** The limits as the address has them: nothing for a limit that is the device's own. */
    words() {
      return Object.fromEntries(this.table.controls.map(({ target, limit_ms: own }) => {
        const limit = this.limits[target];
        return [`budget.${target}`, limit === own ? null : limit === null ? "none" : limit];
      }));
    }
  }

  /** Show the answer to the limits in words and tiles; return the best offer, null where none fits. */
  function showAnswer(table, limits) {
    const C = window.Condensery, { best } = C.answer(table, limits), offer = best === null ? null : table.offers[best];
    const [fits, first, ...rest] = C.sentences(table, limits);
    at("sentence").replaceChildren(node("p", {}, [fits, first].filter(Boolean).join(" ")),
      ...rest.map((text) => node("p", { class: "more" }, text)));
    at("answer").classList.toggle("none", offer === null);
    at("tiles").replaceChildren(...(offer === null ? [] : tiles(table, limits, offer)));
    return offer;
  }

  function tiles(table, limits, offer) {
    const tile = (name, value, note) =>
      node("div", {}, node("dt", {}, name), node("dd", {}, value, node("small", {}, note)));
    const left = (high, limit) => (limit === null || high === null ? ""
      : `; ${Math.max(0, 100 * (1 - high / limit)).toFixed(0)} % of the limit is left`);
    return [
      tile(`${table.score_name[0].toUpperCase()}${table.score_name.slice(1)}, validation`, offer.score_text, "of the deployed network"),
      ...table.controls.map(({ target }, i) =>
        tile(table.controls.length > 1 ? `Latency on ${target}` : "Latency, median", offer.median_texts[i],
          `${offer.kinds[i]}${left(offer.high_ms[i], limits[target])}`)),
      tile("Multiply-adds", offer.macs_text, offer.macs.toLocaleString("en")),
      tile("Parameters", offer.params_text, offer.params.toLocaleString("en")),
    ];
  }

  /** Put a text on the clipboard; return whether that worked. */
  async function copyText(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch (error) { return copyBySelection(text); }
  }

  function copyBySelection(text) {  // pages without TLS can't use the clipboard
    const box = node("textarea", { class: "unseen", "aria-hidden": "true" });
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }

  window.CondenseryBudget = { BudgetControl, showAnswer, copyText, node };
})();
