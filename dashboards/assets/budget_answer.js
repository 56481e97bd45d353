/* The rule that answers a budget, as dashboards/budget/table.py has it, looked up in the same table; a test compares the two.

   Nothing here asks the network for anything. */
(function () {
  "use strict";

  const MORE_MS = 2.0, MORE_SHARE = 0.2;
  const ms = (value) => (value === null || value === undefined ? Infinity : value);

  function moreThan(limit) {
    if (limit >= MORE_MS / MORE_SHARE) { return MORE_MS; }
    const fifth = MORE_SHARE * limit;
    const unit = 10 ** Number(fifth.toExponential(16).split("e")[1]);
    return Math.floor(fifth / unit + 0.5) * unit;
  }

  function limitText(value) {
    if (value >= 1e-4 && value < 1e6) { return String(Number(value.toPrecision(6))); }
    return value >= 1e6 ? value.toFixed(0) : value.toFixed(6).replace(/0+$/, "").replace(/\.$/, "");
  }

  /** Return which offers a budget gets; `limits` has ms by device, null or absent is no limit. */
  function answer(table, limits) {
    const targets = table.controls.map((control) => control.target);
    const ceiling = targets.map((name) => ms(limits[name]));
    const moreMs = {};
    targets.forEach((name, i) => { if (ceiling[i] !== Infinity) { moreMs[name] = moreThan(ceiling[i]); } });
    const raised = ceiling.map((limit, i) => limit + (moreMs[targets[i]] || 0));
    const inside = (highs, limit) => highs.every((high, i) => ms(high) <= limit[i]);
    const fitting = [];
    let more = null;
    table.offers.forEach((offer, i) => {
      if (fitting.length < 2 && inside(offer.high_ms, ceiling)) { fitting.push(i); }
      if (more === null && inside(offer.high_ms, raised)) { more = i; }
    });
    const best = fitting.length ? fitting[0] : null;
    const better = more !== null && (best === null || table.offers[more].score > table.offers[best].score);
    return {
      fits: table.highs_ms.reduce((number, highs) => number + inside(highs, ceiling), 0),
      best, runner_up: fitting.length > 1 ? fitting[1] : null, more: better ? more : null, more_ms: moreMs,
    };
  }

  /** Return the answer in words, sentence by sentence. */
  function sentences(table, limits) {
    if (!table.trained) { return [table.why_none]; }
    const answered = answer(table, limits), many = table.controls.length > 1;
    const on = (name) => (many ? ` on ${name}` : "");
    const at = (offer) => (offer.latency ? ` at ${offer.latency}` : "");
    const limited = table.controls.filter((control) => ms(limits[control.target]) !== Infinity);
    const budget = limited.map((control) => `${limitText(limits[control.target])} ms${on(control.target)}`);
    if (table.fixed) { budget.push(table.fixed); }
    const english = (number) => number.toLocaleString("en");
    const networks = `${english(table.trained)} trained ${table.trained === 1 ? "network" : "networks"}`;
    const parts = [
      `${english(answered.fits)} of ${networks} ${answered.fits === 1 ? "fits" : "fit"} ${budget.join(" and ") || "no limit"}.`];
    if (answered.best !== null) {
      const best = table.offers[answered.best];
      parts.push(`Best: ${best.name}, ${best.accuracy}${at(best)}.`, ...best.remarks);
    }
    if (answered.runner_up !== null) {
      const second = table.offers[answered.runner_up];
      const noise = second.as_good.includes(answered.best) ? ", as good within noise" : "";
      parts.push(`Runner-up: ${second.name}, ${second.score_text}${noise}${at(second)}.`);
    }
    if (answered.best === null) {
      const least = limited.filter((control) => control.least)
        .map((control) => `${control.least}${on(control.target)}`);
      if (least.length) { parts.push(`The fastest needs ${least.join(" and ")}.`); }
    }
    const steps = limited.map((control) => `${limitText(answered.more_ms[control.target])} ms more${on(control.target)}`);
    if (steps.length && answered.more === null) { parts.push(`${steps.join(" and ")} would buy nothing better.`); }
    if (steps.length && answered.more !== null) {
      const more = table.offers[answered.more];
      const noise = more.as_good.includes(answered.best) ? ", no more than noise" : "";
      parts.push(`${steps.join(" and ")} would buy ${more.score_text}${noise}: ${more.name}${at(more)}.`);
    }
    return parts;
  }

  const sentence = (table, limits) => sentences(table, limits).join(" ");

  /** Return the command that picks under these limits; `words` name the study in it. */
  function pickCommand(table, limits, words) {
    const many = table.controls.length > 1 || table.controls.some(({ target }) => target !== table.judged_by);
    const options = table.controls.filter((control) => ms(limits[control.target]) !== Infinity).map((control) =>
      `--max-latency-ms ${many ? `${control.target}=` : ""}${limitText(limits[control.target])}`);
    return ["condensery pick", words, ...options, "--out bundle"].filter(Boolean).join(" ");
  }

  /** Return the command to show for an offer: it picks, or where the study was replayed it trains the network for real. */
  const commandFor = (offer, table, limits, { words, instead }) =>
    !instead ? pickCommand(table, limits, words) : offer ? instead.command.replace("{trial}", offer.number) : "";

  window.CondenseryAnswer = { answer, sentence, sentences, commandFor, moreThan, limitText, ms };
})();
