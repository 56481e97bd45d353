/* The answer on the live page: its control, its card and its buttons. */
(function () {
  "use strict";

  const { state, node, say, at, keep, remember, question, markAway, parts } = window.CondenseryPage;
  const { BudgetControl, showAnswer } = window.CondenseryBudget;

  // ---- budget ---------------------------------------------------------------------------------------------

  function budget(payload) {
    if (!payload) { return keep(); }
    markAway(at("sentence"), payload);
    if (payload.reason) { say("sentence", payload.reason); return keep(); }
    const first = state.table === null;
    state.table = payload.table;
    control.show(payload.table);
    answerBudget();
    parts.moveMarks();  // the front may have been drawn before
    return first ? true : keep();
  }

  const control = new BudgetControl(state.limits, () => { answerBudget(); parts.moveMarks(); remember(); });

  function answerBudget() {
    const { table } = state, offer = showAnswer(table, state.limits, control);
    at("command-box").hidden = at("copy-pick").hidden = !table.trained;
    at("open-best").hidden = offer === null;
    at("copy-pick").disabled = offer === null;
    if (offer) {
      at("bundle").dataset.number = offer.number;
      at("bundle").setAttribute("aria-label", `Download bundle of trial ${offer.number}`);
      at("open-best").textContent = `Trial ${offer.number}`;
      at("open-best").setAttribute("aria-label", `Open trial ${offer.number}`);
      at("open-best").dataset.number = offer.number;
    }
    showCommand();
  }

  const MOST_TEXT = 400;

  /** Fetch the bundle before it is saved: if it can't be made, the reason is shown here and the page stays. */
  async function download() {
    const limits = { statistic: window.Condensery.askedOf(state.table).statistic };
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

  /** Show the command for the answer; of a replayed study there is no bundle, and the command is another. */
  function showCommand() {
    if (!state.head || !state.table) { return; }
    const { instead } = state.head, { chosen } = window.Condensery.answer(state.table, state.limits);
    const offer = chosen === null ? null : state.table.offers[chosen];
    say("command", window.Condensery.commandFor(offer, state.table, state.limits, state.head));
    state.copyText = instead ? "Copy training command" : "Copy pick command";
    if (at("copy-pick").textContent.startsWith("Copy ")) { at("copy-pick").textContent = state.copyText; }
    at("bundle").hidden = offer === null || Boolean(instead);
    at("no-network").hidden = !instead;
    say("no-network", instead ? instead.note : "");
  }

  Object.assign(parts, { showCommand, download, budgetWords: () => (state.table ? control.words() : {}) });
  Object.assign(window.dash_clientside.page, { budget });
})();
