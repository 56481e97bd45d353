/* The budget's controls on page and report: sliders and numbers, which figure of a latency is held to a limit, which
   network is taken; and copying.

   Nothing here asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const STATISTICS = { upper: "upper end", median: "median", p90: "p90" };
  const LEAST_MS = 1e-6, MOST_MS = 1e6, DOUBT_MS = 500;
  const at = (id) => document.getElementById(id);
  const isLimit = (text) => Boolean(text) && Number(text) >= LEAST_MS && Number(text) <= MOST_MS;

  /** Return a limit in as many digits as it is shown with. */
  const cut = (limit) => Number(window.Condensery.limitText(limit));

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
      (null: no limit), and is changed, as are `asked.statistic` and `asked.take` (see budget_answer.js); `moved` is
      called once a frame after that; `own` has text and name of the button that restores the first limit. */
  class BudgetControl {
    constructor(limits, moved, own = ["Study's limit", "The study's own limit"]) {
      const { statistic, take } = window.Condensery.shown();
      Object.assign(this, { limits, moved, own, asked: { statistic, take }, table: null, frame: null, doubt: null });
    }

    /** Show a table's controls; a new device starts with the limit in the address, else with its own. */
    show(table) {
      const words = window.Condensery.shown(), box = at("budget");
      const targets = JSON.stringify(table.controls.map((control) => control.target));
      this.table = table;
      table.asked = this.asked;
      for (const control of table.controls) {
        if (control.target in this.limits) { continue; }
        const word = words[`budget.${control.target}`];
        this.limits[control.target] = word === "none" ? null : isLimit(word) ? cut(Number(word)) : control.limit_ms;
      }
      if (box.dataset.targets !== targets) {
        box.dataset.targets = targets;
        box.replaceChildren(...table.controls.map((control, i) => this.row(control, i)));
        const field = table.controls.length === 1 ? box.querySelector(".field") : box;
        if (table.controls.length) { field.append(this.statisticField()); }
      }
      this.showStatistics();
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

    /** Return the choice of what of a latency is held to a limit. */
    statisticField() {
      const many = this.table.controls.length > 1;
      const select = node("select", { id: "statistic", title: "What of a latency must keep its limit: the upper end of its 95 % interval, the median, or p90", onchange: () => { this.asked.statistic = select.value; this.changed(); } },
        ...Object.entries(STATISTICS).map(([value, text]) => node("option", { value }, text)));
      return node("span", { class: "field", id: "statistic-field" },
        node("label", { for: "statistic" }, many ? "The limits are on" : "on"), select);
    }

    showStatistics() {
      const select = at("statistic");
      if (!select) { return; }
      for (const option of select.options) {
        option.disabled = !(option.value in this.table.statistics);
        option.title = option.disabled ? "Nothing was timed on every device: estimates and predictions have no p90." : "";
      }
      select.value = window.Condensery.askedOf(this.table).statistic;
    }

    /** Take another network than the best: the fastest or the smallest that is as good, or the knee. */
    take(which) {
      this.asked.take = which;
      this.changed();
    }

    changed() {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(this.moved);
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
      this.limits[this.table.controls[i].target] = limit === null ? null : cut(limit);
      clearTimeout(this.doubt);
      at(`number-${i}`).removeAttribute("aria-invalid");
      say(`wrong-${i}`, "");
      this.place(i, source);
      this.changed();
    }

    /** What was chosen as the address has it: nothing for what the page opens with anyway. */
    words() {
      const { statistic, take } = window.Condensery.askedOf(this.table);
      const limits = this.table.controls.map(({ target, limit_ms: own }) => {
        const limit = this.limits[target];
        return [`budget.${target}`, limit === own ? null : limit === null ? "none" : limit];
      });
      return {
        ...Object.fromEntries(limits), take: take === "best" ? null : take,
        statistic: statistic === this.table.statistic ? null : statistic,
      };
    }
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

  window.CondenseryBudget = { BudgetControl, copyText, node, say };
})();
