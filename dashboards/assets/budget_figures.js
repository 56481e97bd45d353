/* The answer as a card, on page and report: the network's name with its badges, its figures, the networks that may be taken
   instead, and what more budget would buy. Its words are those of budget_answer.js.

   Nothing here asks the network for anything, and texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { node } = window.CondenseryBudget;
  const at = (id) => document.getElementById(id);
  const SEEN = ["none", "fits", "doubt", "least", "more", "unknown", "predicted"];  // sentences that no figure says
  const RULES = {
    paired: (table) => `Compared image by image on the ${(table.images || 0).toLocaleString("en")} validation images, by ` +
      "McNemar's exact test: equally good networks differ as much in more than 5 of 100 cases.",
    intervals: () => "Their 95 % intervals overlap; without recorded predictions they can't be compared image by image.",
    knee: () => "Of the networks that are the most accurate at their latency, the one farthest above the straight line from " +
      "the fastest to the best: beyond it, latency buys less accuracy.",
    best: () => "The network with the best score that keeps every limit.",
  };

  /** Show the answer to the limits; return the network that is taken, null where none fits. */
  function showAnswer(table, limits, control) {
    const C = window.Condensery, answered = C.answer(table, limits), { chosen } = answered;
    const offer = chosen === null ? null : table.offers[chosen];
    showWords(window.CondenseryAnswer.sentences(table, limits));
    at("answer").classList.toggle("none", offer === null);
    fill("headline", offer === null ? noHeadline(table) : headline(table, answered, offer, limits));
    fill("tiles", offer === null ? [] : tiles(table, limits, offer));
    showChoices(table, answered, control);
    showRules(table, answered);
    return offer;
  }

  /** Fill an element, unless it has the same content already: what has the focus there keeps it. */
  function fill(id, children) {
    const place = at(id), draft = node("div", {}, ...children), known = place.dataset.content, content = draft.textContent;
    if (known === content) { return false; }
    place.dataset.content = content;
    place.replaceChildren(...draft.childNodes);
    if (at("tip")) { hideTip(); }
    return true;
  }

  /** Put the sentences into the card: those that its figures say as well are there for screen readers. */
  function showWords(sentences) {
    const spans = sentences.map(([about, text]) => node("span", { class: SEEN.includes(about) ? `about-${about}` : "unseen" }, text));
    at("sentence").replaceChildren(node("p", {}, ...spans.flatMap((span) => [span, " "])));
    const rest = sentences.filter(([about]) => !SEEN.includes(about));
    at("answer-words").hidden = !rest.length;
    fill("words-said", rest.map(([, text]) => node("p", {}, text)));
  }

  const noHeadline = (table) => (table.trained ? [node("strong", {}, "No trained network fits")] : []);

  function headline(table, answered, offer, limits) {
    const badges = offer.badges.map((name) => badge(name, table.badges[name]));
    if (window.CondenseryAnswer.isPastStudy(table, answered, limits)) {
      badges.unshift(badge("beyond what was trained", "This limit is above the study's own: candidates above that were " +
        "refused, not trained, so a better network may well exist."));
    }
    if (offer.remarks.length) { badges.push(badge(offer.remarks.length === 1 ? "1 remark" : `${offer.remarks.length} remarks`, offer.remarks.join(" "))); }
    const taken = answered.chosen === answered.best ? "" : "taken";
    return [
      ...(taken ? [node("strong", {}, taken)] : []), explained("code", offer.code, table.code_legend),
      node("span", { class: "badges" }, ...badges),
    ];
  }

  // ---- figures --------------------------------------------------------------------------------------------

  const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function tiles(table, limits, offer) {
    const { statistic } = window.Condensery.askedOf(table), many = table.controls.length > 1;
    const tile = (name, value, note) =>
      node("div", {}, node("dt", {}, name), node("dd", {}, node("b", {}, value), note ? node("small", {}, note) : null));
    const left = (held, limit) => (limit === null || limit === undefined || held === null || held > limit ? ""
      : `${(100 * (1 - held / limit)).toFixed(0)} % left`);
    const latencies = table.controls.map(({ target }, i) => {
      const { median, interval, p90, kind } = offer.figures[i], name = many ? `Latency on ${target}` : "Latency, median";
      const note = [interval, p90 && `p90 ${p90}`, left(offer.held_ms[statistic][i], limits[target])].filter(Boolean).join(", ");
      return tile(kind ? `${name} (${kind})` : name, median, note);
    });
    return [
      tile(`${upper(table.score_name)}, validation`, offer.score_text, offer.interval || "of the deployed network"),
      ...(offer.tested ? [tile("Top-1, test", offer.tested.value, offer.tested.images)] : []),
      ...latencies,
      tile("Multiply-adds", offer.macs_text, offer.macs.toLocaleString("en")),
      tile("Parameters", offer.params_text, offer.params.toLocaleString("en")),
      ...(offer.file ? [tile("File", offer.file, "model.onnx")] : []),
      ...(offer.memory ? [tile("Peak memory", offer.memory, "with runtime")] : []),
    ];
  }

  // ---- networks to take -----------------------------------------------------------------------------------

  function choices(table, answered) {
    const { offers } = table, { statistic } = window.Condensery.askedOf(table), { best, fastest, smallest, knee } = answered;
    const device = Math.max(0, table.controls.findIndex(({ target }) => target === table.judged_by));
    const latencyOf = (place) => offers[place].figures[device]?.median ?? "";
    const alike = (place) => RULES[offers[best].paired && offers[place].paired ? "paired" : "intervals"](table);
    const lasts = statistic === "median" ? "" : ` By ${table.statistics[statistic]}.`;
    const found = [];
    const add = (take, place, name, value, rule) => found.push({ take, place, name, value, rule });
    add("best", best, "Most accurate", offers[best].score_text, RULES.best());
    if (fastest !== null && fastest === smallest) {
      add("fastest", fastest, "Fastest and smallest as good", `${latencyOf(fastest)}, ${offers[fastest].params_text}`, alike(fastest));
    } else {
      if (fastest !== null) { add("fastest", fastest, "Fastest as good", latencyOf(fastest), alike(fastest) + lasts); }
      if (smallest !== null) { add("smallest", smallest, "Smallest as good", `${offers[smallest].params_text} params`, alike(smallest)); }
    }
    if (knee !== null && knee !== best) {
      add("knee", knee, "Knee", `${offers[knee].score_text}, ${latencyOf(knee)}`, RULES.knee());
    }
    return found;
  }

  function showChoices(table, answered, control) {
    const found = answered.best === null ? [] : choices(table, answered), box = at("choices");
    box.hidden = found.length < 2;
    const { take } = window.Condensery.askedOf(table);
    const taken = found.find((one) => one.take === take) || found.find((one) => one.place === answered.chosen);
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.take : null;
    fill("choices", found.map((one) => {
      const button = explained("take", [node("b", {}, one.name), ` ${one.value}`], `Trial ${table.offers[one.place].number}. ${one.rule}`);
      button.dataset.take = one.take;
      button.addEventListener("click", () => control.take(one.take));
      return button;
    }));
    for (const button of box.children) { button.setAttribute("aria-pressed", String(button.dataset.take === taken?.take)); }
    if (focused && !box.contains(document.activeElement)) {
      (box.querySelector(`[data-take="${focused}"]`) || box.firstElementChild)?.focus({ preventScroll: true });
    }
  }

  /** Say how the answer was found, and what a network's short line means. */
  function showRules(table, answered) {
    const { statistic } = window.Condensery.askedOf(table), rules = [];
    rules.push(`A limit is held against ${table.statistics[statistic]} of a latency.`);
    if (answered.best !== null) {
      rules.push(...new Set(choices(table, answered).map(({ name, rule }) => `${name}: ${rule}`)));
      rules.push(`A network's line: ${table.code_legend}.`);
    }
    fill("rules", rules.map((text) => node("p", { class: "muted" }, text)));
  }

  // ---- what is explained where it is pointed at -------------------------------------------------------------

  let numbered = 0;

  /** Return a button whose explanation is shown on hover and on focus, and is its accessible description. */
  function explained(kind, content, text) {
    const id = `tip-${numbered = (numbered + 1) % 1000}`;
    const button = node("button", { type: "button", class: kind, "aria-describedby": id },
      ...[content].flat(), node("span", { id, class: "tip-text", hidden: true }, text));
    const show = () => showTip(button, text);
    for (const event of ["mouseenter", "focus", "click"]) { button.addEventListener(event, show); }
    for (const event of ["mouseleave", "blur"]) { button.addEventListener(event, hideTip); }
    return button;
  }

  const badge = (name, text) => explained(`mark-badge ${["not steady", "extrapolated", "beyond what was trained", "not surely inside"].includes(name)
    || /remark/.test(name) ? "doubtful" : ["tested", "verified on device"].includes(name) ? "sure" : ""}`, name, text);

  const tip = () => at("tip") || document.body.appendChild(node("div", { id: "tip", role: "presentation", "aria-hidden": "true", hidden: true }));

  function showTip(button, text) {
    const place = tip(), box = button.getBoundingClientRect(), width = document.documentElement.clientWidth;
    place.textContent = text;
    place.hidden = false;
    const left = Math.min(Math.max(8, box.left), Math.max(8, width - place.offsetWidth - 8));
    const below = box.bottom + 6, above = box.top - place.offsetHeight - 6;
    place.style.left = `${left}px`;
    place.style.top = `${below + place.offsetHeight > window.innerHeight && above > 0 ? above : below}px`;
  }

  function hideTip() { tip().hidden = true; }

  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && at("tip") && !at("tip").hidden) { hideTip(); event.stopImmediatePropagation(); }
  }, true);
  window.addEventListener("scroll", () => { if (at("tip")) { hideTip(); } }, { passive: true });

  Object.assign(window.CondenseryBudget, { showAnswer });
})();
