/* The rule that answers a budget, and its words, as dashboards/budget has them (answers.py, sentences.py); a test compares
   the two. `table` is what BudgetTable.to_dict returns; `limits` has ms by device, null or absent is no limit. What else
   the reader has asked for is with the table: `table.asked` has `statistic` (what of a latency is held to a limit) and
   `take` (best, fastest, smallest, knee).

   Nothing here asks the network for anything. */
(function () {
  "use strict";

  const MORE_MS = 2.0, MORE_SHARE = 0.2, KNEE_LEAST = 0.1, TAKES = ["best", "fastest", "smallest", "knee"];
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

  /** Return macs or params with three digits, as `count` in dashboards/formats.py: "0.92 M", "12.3 k". */
  function countText(value) {
    const [unit, name] = value >= 1e9 ? [1e9, " G"] : value >= 1e5 ? [1e6, " M"] : value >= 1e3 ? [1e3, " k"] : [1, ""];
    const scaled = value / unit;
    return unit === 1 ? value.toFixed(0) : scaled.toFixed(scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0) + name;
  }

  /** Return what the reader has asked for beside the limits; the table's own where it isn't possible. */
  function askedOf(table) {
    const { statistic, take } = table.asked || {};
    return {
      statistic: statistic in table.statistics ? statistic : table.statistic,
      take: TAKES.includes(take) ? take : "best",
    };
  }

  // ---- the rule -------------------------------------------------------------------------------------------

  const inside = (values, ceiling) => values.every((value, i) => ms(value) <= ceiling[i]);

  /** Return what a budget gets: how many networks fit, and offers by their place in the table (null: there is none). */
  function answer(table, limits) {
    const { statistic, take } = askedOf(table), targets = table.controls.map((control) => control.target);
    const ceiling = targets.map((name) => ms(limits[name])), moreMs = {};
    targets.forEach((name, i) => { if (ceiling[i] !== Infinity) { moreMs[name] = moreThan(ceiling[i]); } });
    const raised = ceiling.map((limit, i) => limit + (moreMs[targets[i]] || 0));
    const held = table.offers.map((offer) => offer.held_ms[statistic].map(ms));
    const fitting = [...held.keys()].filter((place) => inside(held[place], ceiling));
    const best = fitting.length ? fitting[0] : null;
    const choices = { best, ...cheaper(table, fitting, held), knee: kneeOf(table, fitting, held) };
    const first = held.findIndex((values) => inside(values, raised));
    const better = first >= 0 && (best === null || table.offers[first].score > table.offers[best].score);
    const more = better ? first : null, chosen = choices[take];
    return {
      fits: fitsOf(table.held_ms[statistic], table.networks, ceiling), best,
      runner_up: fitting.length > 1 ? fitting[1] : null,
      fastest: choices.fastest, smallest: choices.smallest, knee: choices.knee,
      chosen: chosen === null ? best : chosen, more, more_ms: moreMs,
      beyond: beyondOf(table, ceiling, statistic), unknown: beyondOf(table, more === null ? raised : ceiling, statistic),
      predicted: predictedOf(table, raised, [best, more]),
    };
  }

  /** Count the networks inside; `values` has a network's ms on each device after those of the one before. */
  function fitsOf(values, networks, ceiling) {
    const devices = ceiling.length;
    let fits = 0;
    for (let network = 0; network < networks; network += 1) {
      let fit = true;
      for (let i = 0; fit && i < devices; i += 1) { fit = ms(values[network * devices + i]) <= ceiling[i]; }
      fits += fit;
    }
    return fits;
  }

  /** Return the place of the device by which networks are called fast; -1 where there is no latency. */
  function judging(table) {
    const place = table.controls.findIndex(({ target }) => target === table.judged_by);
    return place < 0 && table.controls.length ? 0 : place;
  }

  /** Return the place with the lowest cost, the first of equal ones; null of none. */
  function cheapest(places, cost) {
    let found = null;
    for (const place of places) { if (found === null || cost(place) < cost(found)) { found = place; } }
    return found;
  }

  function cheaper(table, fitting, held) {
    if (!fitting.length) { return { fastest: null, smallest: null }; }
    const best = fitting[0], { offers } = table, device = judging(table);
    const alike = fitting.filter((place) => offers[best].as_good.includes(place));
    const faster = device < 0 ? [] : alike.filter((place) => held[place][device] < held[best][device]);
    const smaller = alike.filter((place) => offers[place].params < offers[best].params);
    return {
      fastest: cheapest(faster, (place) => held[place][device]),
      smallest: cheapest(smaller, (place) => offers[place].params),
    };
  }

  function kneeOf(table, fitting, held) {
    const device = judging(table), { offers } = table, front = [];
    if (device < 0) { return null; }
    const known = fitting.filter((place) => held[place][device] !== Infinity);
    for (const place of known.sort((a, b) => held[a][device] - held[b][device] || a - b)) {
      if (!front.length || offers[place].score > offers[front[front.length - 1]].score) { front.push(place); }
    }
    if (front.length < 3) { return null; }
    const first = front[0], last = front[front.length - 1];
    const rangeMs = held[last][device] - held[first][device], rangeOfScore = offers[last].score - offers[first].score;
    const above = (place) => (offers[place].score - offers[first].score) / rangeOfScore
      - (held[place][device] - held[first][device]) / rangeMs;
    const farthest = cheapest(front, (place) => -above(place));
    return above(farthest) >= KNEE_LEAST ? farthest : null;
  }

  function beyondOf(table, ceiling, statistic) {
    return table.controls.filter((control, i) => {
      const most = control.trained[statistic].most_ms;
      return most !== null && !(ceiling[i] === Infinity && control.study_limit_ms === null) && ceiling[i] >= most;
    }).map(({ target }) => target);
  }

  function predictedOf(table, raised, places) {
    const scores = places.filter((place) => place !== null).map((place) => table.offers[place].score);
    const score = Math.max(0, ...scores);
    const found = table.predicted.findIndex((one) => one.score > score && inside(one.latencies_ms, raised));
    return found < 0 ? null : found;
  }

  // ---- its words ------------------------------------------------------------------------------------------

  const english = (number) => number.toLocaleString("en");
  const counted = (number, noun) => `${english(number)} ${noun}${number === 1 ? "" : "s"}`;
  const on = (table, name) => (table.controls.length > 1 ? ` on ${name}` : "");
  const nameOf = (offer) => `trial ${offer.number} (${offer.code})`;
  const at = (offer) => (offer.latency ? ` at ${offer.latency}` : "");
  const BY = { upper: "", median: " by the median", p90: " by p90" };

  /** Return how two networks that are as good as each other were compared. */
  const asGood = (best, other) => (best.paired && other.paired ? "as good within noise" : "as good by the intervals");

  /** Return the answer in words: [what it is about, text], a sentence at a time. */
  function sentences(table, limits) {
    if (!table.trained) { return [["none", table.why_none]]; }
    const answered = answer(table, limits);
    return [
      fitsSentence(table, answered, limits), ...namedSentences(table, answered, limits),
      ...leastSentence(table, answered, limits), ...moreSentences(table, answered),
    ];
  }

  function fitsSentence(table, { fits }, limits) {
    const limited = table.controls.filter(({ target }) => ms(limits[target]) !== Infinity);
    const budget = limited.map(({ target }) => `${limitText(limits[target])} ms${on(table, target)}`);
    const by = budget.length ? BY[askedOf(table).statistic] : "";
    if (table.fixed) { budget.push(table.fixed); }
    const networks = `${english(fits)} of ${counted(table.trained, "trained network")}`;
    return ["fits", `${networks} ${fits === 1 ? "fits" : "fit"} ${budget.join(" and ") || "no limit"}${by}.`];
  }

  function namedSentences(table, answered, limits) {
    if (answered.best === null) { return []; }
    const { offers } = table, best = offers[answered.best], found = [];
    const lead = isPastStudy(table, answered, limits) ? "Best of what was trained" : "Best";
    found.push(["best", `${lead}: ${nameOf(best)}, ${best.accuracy}${at(best)}.`]);
    found.push(...doubts(table, best, limits), ...best.remarks.map((text) => ["remark", text]));
    if (answered.runner_up !== null) {
      const second = offers[answered.runner_up];
      const noise = best.as_good.includes(answered.runner_up) ? `, ${asGood(best, second)}` : "";
      found.push(["runner-up", `Runner-up: ${nameOf(second)}, ${second.score_text}${noise}${at(second)}.`]);
    }
    const { fastest, smallest } = answered, same = fastest !== null && fastest === smallest;
    const alike = (which, place) => {
      const other = offers[place];
      found.push(["alike", `The ${which} ${asGood(best, other)}: ${nameOf(other)}, ${other.score_text}${at(other)}.`]);
    };
    if (same) { alike("fastest and smallest", fastest); }
    if (!same && fastest !== null) { alike("fastest", fastest); }
    if (!same && smallest !== null) { alike("smallest", smallest); }
    if (answered.knee !== null && answered.knee !== answered.best) {
      const knee = offers[answered.knee];
      found.push(["knee", `Knee of the front: ${nameOf(knee)}, ${knee.score_text}${at(knee)}.`]);
    }
    if (answered.chosen !== answered.best) { found.push(["taken", `Taken: trial ${offers[answered.chosen].number}.`]); }
    return found;
  }

  /** Return where the best was over a limit when `pick` measured it again, which doesn't rule it out yet. */
  function doubts(table, { verified }, limits) {
    const { statistic } = askedOf(table);
    return table.controls.flatMap(({ target }, i) => {
      const again = verified[i] && verified[i][statistic];
      return again && again.ms > ms(limits[target])
        ? [["doubt", `Measured again it took ${again.text}${on(table, target)}, over the limit, which isn't decided yet.`]] : [];
    });
  }

  /** Whether a limit is beyond the study's own, and beyond all that was trained. */
  const isPastStudy = (table, { beyond }, limits) => table.controls.some(({ target, study_limit_ms: own }) =>
    beyond.includes(target) && own !== null && ms(limits[target]) > own);

  function leastSentence(table, { best }, limits) {
    const { statistic } = askedOf(table);
    const least = table.controls.filter(({ target, trained }) => trained[statistic].least && ms(limits[target]) !== Infinity)
      .map(({ target, trained }) => `${trained[statistic].least}${on(table, target)}`);
    return best === null && least.length ? [["least", `The fastest needs ${least.join(" and ")}.`]] : [];
  }

  function moreSentences(table, answered) {
    const { offers } = table, { statistic } = askedOf(table), found = [];
    const steps = table.controls.filter(({ target }) => target in answered.more_ms && !answered.beyond.includes(target))
      .map(({ target }) => `${limitText(answered.more_ms[target])} ms more${on(table, target)}`).join(" and ");
    if (answered.more !== null) {
      const more = offers[answered.more], alike = answered.best !== null && more.as_good.includes(answered.best);
      const noise = alike ? `, ${asGood(offers[answered.best], more)}` : "";
      found.push(["more", `${steps} would buy ${more.score_text}${noise}: ${nameOf(more)}${at(more)}.`]);
    } else if (steps) { found.push(["more", `${steps} would buy nothing better of what was trained.`]); }
    const ends = table.controls.filter(({ target }) => answered.unknown.includes(target)).map(({ target, trained }) => {
      const { most, refused } = trained[statistic], nothing = `nothing above ${most} ms${on(table, target)} was trained`;
      return refused ? `${nothing}; ${counted(refused, "candidate")} ${refused === 1 ? "was" : "were"} refused there` : nothing;
    });
    if (ends.length) { found.push(["unknown", `What more would buy is not known: ${ends.join("; ")}.`]); }
    if (answered.predicted !== null) {
      const { words, code } = table.predicted[answered.predicted];
      found.push(["predicted", `Predicted for a network that was not trained: ${words} (${code}).`]);
    }
    return found;
  }

  const sentence = (table, limits) => sentences(table, limits).map(([, text]) => text).join(" ");

  // ---- its command ----------------------------------------------------------------------------------------

  /** Return the command that picks under these limits; `words` name the study in it, `offer` is the network taken. */
  function pickCommand(offer, table, limits, words) {
    const many = table.controls.length > 1 || table.controls.some(({ target }) => target !== table.judged_by);
    const options = table.controls.filter((control) => ms(limits[control.target]) !== Infinity).map((control) =>
      `--max-latency-ms ${many ? `${control.target}=` : ""}${limitText(limits[control.target])}`);
    const { best, chosen } = answer(table, limits), { statistic } = askedOf(table);
    if (options.length && statistic !== table.study_statistic) { options.push(`--latency-statistic ${statistic}`); }
    if (offer && chosen !== best) { options.push(`--trial ${offer.number}`); }
    return ["condensery pick", words, ...options, "--out bundle"].filter(Boolean).join(" ");
  }

  /** Return the command to show for an offer: it picks, or where the study was replayed it trains the network for real. */
  const commandFor = (offer, table, limits, { words, instead }) =>
    !instead ? pickCommand(offer, table, limits, words) : offer ? instead.command.replace("{trial}", offer.number) : "";

  window.CondenseryAnswer = { TAKES, answer, askedOf, asGood, commandFor, countText, isPastStudy, limitText, moreThan, ms, sentence, sentences };
})();
