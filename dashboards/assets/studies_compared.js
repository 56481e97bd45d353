/* Several studies beside each other, on the page of all studies and in a report of several: the chart of their fronts, a
   limit for all of them, the best of each inside it, and their networks as a table.

   What is shown comes as one document (dashboards/studies/documents.py) with a figure. The best of each is looked up
   here as dashboards/studies/fronts.py does it; a test compares the two. Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const { node } = window.CondenseryBudget, { countText, limitText, ms } = window.CondenseryAnswer;
  const SHAPES = {  // of the marks of plotly.js, in a square of 20
    circle: "M10 3a7 7 0 1 0 .01 0z", square: "M4 4h12v12H4z", diamond: "M10 1l9 9-9 9-9-9z", "triangle-up": "M10 3l8 14H2z",
  };

  // ---- what a limit gets ----------------------------------------------------------------------------------

  const bestOf = (study, limit) => study.offers.find((offer) => ms(offer.high) <= ms(limit)) ?? null;

  function limitWords(shown, limit) {
    return shown.axis === "latency" ? `${limitText(limit)} ms` : `${countText(limit)} ${shown.axis}`;
  }

  const overlap = (one, other) => Boolean(one.interval && other.interval) &&
    one.interval[0] <= other.interval[1] && other.interval[0] <= one.interval[1];

  /** Return the study whose best inside a limit is the best of all, as its place; -1 where none has one. */
  function leader(shown, limit) {
    let found = -1, best = null;
    shown.studies.forEach((study, place) => {
      const offer = bestOf(study, limit);
      if (!offer) { return; }
      const keys = [-offer.score, offer.cost, offer.macs], other = best && [-best.score, best.cost, best.macs];
      const first = other ? keys.findIndex((key, i) => key !== other[i]) : 0;
      if (!best || (first >= 0 && keys[first] < other[first])) { found = place; best = offer; }
    });
    return found;
  }

  /** Return what a limit gets, and who can't be compared, sentence by sentence. */
  function sentences(shown, limit) {
    const refused = shown.studies.filter(({ refusal }) => refusal).map(({ name, refusal }) => `${name}: ${refusal}`);
    return [shown.reason ?? bestSentence(shown, limit), ...refused, ...shown.doubts];
  }

  function bestSentence(shown, limit) {
    const place = leader(shown, limit), inside = limit === null ? "at any cost" : `inside ${limitWords(shown, limit)}`;
    if (place < 0) { return limit === null ? "None of these studies has a network." : `No trained network of these studies is ${inside}.`; }
    const best = bestOf(shown.studies[place], limit);
    const equal = shown.studies.filter((study, i) => i !== place && bestOf(study, limit) && overlap(best, bestOf(study, limit)));
    const words = `The best ${inside} is trial ${best.number} of ${shown.studies[place].name}, ${best.score_text} ${shown.score_name}`;
    return equal.length ? `${words}; by their 95 % intervals the best of ${equal.map(({ name }) => name).join(", ")} may be as good.`
      : `${words}.`;
  }

  // ---- marks ----------------------------------------------------------------------------------------------

  function mark(look) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 20 20");
    svg.setAttribute("class", "study-mark");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", SHAPES[look.symbol]);
    path.setAttribute("fill", look.colour);
    svg.append(path);
    return svg;
  }

  // ---- the view -------------------------------------------------------------------------------------------

  /** Shows one document after the other in an element. `on.view(token)` is called when the reader wants another view,
      `on.limit(limit)` when the limit moves, `on.href(study, number)` gives a link to a trial (null: none). */
  class StudiesCompared {
    constructor(root, on, config) {
      Object.assign(this, { root, on, config, shown: null, limit: undefined, frame: null, drawn: null });
      const id = (name, tag, attributes, ...children) => (this[name] = node(tag, { id: `compared-${name}`, ...attributes }, ...children));
      root.replaceChildren(
        id("controls", "div", { class: "controls compared-controls" }),
        id("sentences", "div", { class: "sentence", role: "status", "aria-live": "polite" }),
        id("best", "div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "The best of each study" }),
        id("chart", "div", { class: "chart", role: "figure", "aria-labelledby": "compared-title", "aria-describedby": "compared-caption" }),
        id("caption", "p", { class: "caption" }),
        id("clicked", "p", { class: "clicked", role: "status" }),
        node("h3", { id: "compared-table-title" }, "Their networks"),
        id("points", "div", { class: "scroll tall", role: "region", tabindex: 0, "aria-labelledby": "compared-table-title" }));
    }

    /** Show a document; a limit that the reader has set stays as long as the view does. */
    show(shown, limit) {
      const sameView = this.shown && this.shown.view === shown.view;
      if (!sameView || this.limit === undefined) { this.limit = limit === undefined ? shown.limit : limit; }
      if (JSON.stringify(shown) === JSON.stringify(this.shown)) { return Promise.resolve(); }
      this.shown = shown;
      this.buildControls();
      this.answer();
      this.fillPoints();
      return this.draw();
    }

    buildControls() {
      const { views, view, unit, range } = this.shown, held = this.controls.contains(document.activeElement) && document.activeElement.id;
      const select = node("select", { id: "compared-view", onchange: () => this.on.view(select.value) },
        ...views.map(({ token, text }) => node("option", { value: token }, text)));
      select.value = view;
      const field = node("span", { class: "field" }, node("label", { for: "compared-view" }, "Accuracy against"), select);
      this.controls.replaceChildren(field);
      if (range && this.shown.reason === null) { this.controls.append(this.limitField(unit, range)); }
      const focused = held && document.getElementById(held);
      if (focused) { focused.focus(); }
    }

    limitField(unit, [low, high]) {
      const { scale } = this.shown;
      this.slider = node("input", {
        type: "range", id: "compared-range", min: low, max: high, step: (high - low) / 400, "aria-describedby": "compared-sentences",
        oninput: () => this.set(Number(this.slider.value)),
      });
      this.number = node("input", {
        type: "number", id: "compared-limit", min: 0, step: "any", placeholder: "none", inputmode: "decimal",
        "aria-label": `Limit for all in ${unit}; empty is no limit`, oninput: () => this.typed(),
      });
      const field = node("span", { class: "field limit-field" },
        node("label", { for: "compared-range" }, "Limit for all"), this.slider, this.number, node("span", {}, unit),
        node("button", { type: "button", class: "plain", onclick: () => this.set(null) }, "No limit"));
      this.scale = scale;
      this.placeLimit();
      return field;
    }

    typed() {
      const value = Number(this.number.value) * this.scale, empty = this.number.value === "" && !this.number.validity.badInput;
      const wrong = !empty && !(value > 0 && value < 1e15);
      this.number.toggleAttribute("aria-invalid", wrong);
      if (!wrong) { this.set(empty ? null : value, this.number); }
    }

    set(limit, source) {
      this.limit = limit === null ? null : Number(limit.toPrecision(6));
      this.placeLimit(source);
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => { this.answer(); this.place(); });
      this.on.limit(this.limit);
    }

    placeLimit(source) {
      const text = this.limit === null ? "" : window.Condensery.limitText(this.limit / this.scale);
      if (source !== this.number) { this.number.value = text; this.number.removeAttribute("aria-invalid"); }
      this.slider.value = this.limit === null ? this.slider.max : this.limit;
      this.slider.setAttribute("aria-valuetext", this.limit === null ? "no limit" : limitWords(this.shown, this.limit));
    }

    /** Show what the limit gets: in words, and the best of each study as a table. */
    answer() {
      const { shown, limit } = this, first = shown.reason === null ? leader(shown, limit) : -1;
      const [words, ...rest] = sentences(shown, limit);
      this.sentences.replaceChildren(node("p", {}, words), ...rest.map((text) => node("p", { class: "more" }, text)));
      const heads = ["study", `best ${shown.score_name}`, "to the best", "latency, ms", "95 % interval", "macs", "config",
        "trained", "its front", "front of all"];  // what else is known of a network is in the table of all
      const numeric = [1, 2, 3, 5, 7, 8, 9];
      const head = node("tr", {}, ...heads.map((text, i) => node("th", { scope: "col", class: numeric.includes(i) ? "n" : null }, text)));
      const rows = shown.studies.map((study, place) => this.bestRow(study, place, first, numeric));
      this.best.replaceChildren(node("table", {}, node("caption", { class: "unseen" }, "The best of each study"),
        node("thead", {}, head), node("tbody", {}, ...rows)));
    }

    bestRow(study, place, first, numeric) {
      const { shown, limit } = this, name = node("th", { scope: "row", class: "study-name" }, mark(shown.looks[place]), study.name);
      const row = node("tr", { class: place === first ? "pick" : null }, name), trained = study.trained.toLocaleString("en");
      if (study.refusal) {
        row.append(node("td", { colspan: 6, class: "wrap muted" }, "can't be compared, see above"), node("td", { class: "n" }, trained),
          node("td"), node("td"));
        return row;
      }
      const best = bestOf(study, limit), leading = first >= 0 ? bestOf(shown.studies[first], limit) : null;
      const behind = !leading ? "" : best === leading ? "best" : `${(100 * (best.score - leading.score)).toFixed(2)} points`;
      const cells = best === null ? ["none inside", "", "", "", "", ""] : [
        this.linked(study, best), behind, `${best.latency_text}${best.kind ? ` ${best.kind}` : ""}`, best.interval_text,
        best.macs_text, best.config];
      cells.push(trained, study.on_front.toLocaleString("en"), study.on_combined.toLocaleString("en"));
      row.append(...cells.map((cell, i) => node("td", { class: numeric.includes(i + 1) ? "n" : i === 5 ? "wrap" : null }, cell)));
      return row;
    }

    linked(study, best) {
      const href = this.on.href(study.name, best.number), text = `trial ${best.number}`;
      return node("span", {}, `${best.score_text}, `, href ? node("a", { href }, text) : text);
    }

    fillPoints() {
      const { headers, points, studies, looks } = this.shown, places = new Map(studies.map(({ name }, place) => [name, place]));
      const isNumber = (i) => [1, 2, 3, 7, 8].includes(i);
      const cell = (text, i, row) => {
        const href = i === 1 ? this.on.href(row[0], Number(text)) : null;
        const content = i === 0 ? [mark(looks[places.get(text)]), text] : href ? [node("a", { href }, text)] : [text];
        return node("td", { class: i === 0 ? "study-name" : isNumber(i) ? "n" : null }, ...content);
      };
      this.points.hidden = document.getElementById("compared-table-title").hidden = !points.length || this.shown.reason !== null;
      this.points.replaceChildren(node("table", {},
        node("thead", {}, node("tr", {}, ...headers.map((text, i) => node("th", { scope: "col", class: isNumber(i) ? "n" : null }, text)))),
        node("tbody", {}, ...points.map((row) => node("tr", {}, ...row.map((text, i) => cell(text, i, row)))))));
    }

    // ---- chart --------------------------------------------------------------------------------------------

    /** Draw the chart in the page's colours. */
    async draw() {
      const { shown, chart } = this;
      if (!shown) { return; }
      chart.hidden = this.caption.hidden = this.clicked.hidden = shown.reason !== null;
      this.caption.textContent = shown.reason === null ? shown.caption : "";
      if (shown.reason !== null) { return; }
      await this.on.plotly();
      const { themed, entriesOf } = window.Condensery;
      const layout = themed(shown.figure.layout, chart.clientWidth, entriesOf(shown.figure.data));
      const { title } = layout.xaxis;  // broken into lines for a narrow screen
      if (chart.clientWidth > 520) { title.text = title.text.replaceAll("<br>", " "); }
      chart.style.height = `${layout.height}px`;
      await window.Plotly.react(chart, shown.figure.data.map((trace) => ({ ...trace })), layout, this.config);
      if (this.drawn === null) { chart.on("plotly_click", ({ points: [point] }) => this.click(point)); }
      this.drawn = shown.view;
      await this.place();
    }

    /** Put line and stars where the limit has them; the chart is small, so it is simply drawn again. */
    async place() {
      const { shown, limit, chart } = this;
      if (this.drawn === null || !chart.data || shown.reason !== null) { return; }
      const stars = chart.data.map((trace, i) => i).filter((i) => chart.data[i].meta && chart.data[i].meta.best !== undefined);
      const bests = stars.map((i) => bestOf(shown.studies.find(({ name }) => name === chart.data[i].meta.best), limit));
      const x = bests.map((best) => [best ? best.cost / shown.scale : null]);
      const y = bests.map((best) => [best ? 100 * best.score : null]);
      const at = limit === null ? 1 : limit / shown.scale;
      const line = { "shapes[0].visible": limit !== null, "shapes[0].x0": at, "shapes[0].x1": at };
      await window.Plotly.update(chart, { x, y }, line, stars);
      performance.mark("condensery-compared");
    }

    click(point) {
      const study = point.data.meta && point.data.meta.study, number = Number(point.customdata);
      if (!study) { return; }
      const href = this.on.href(study, number), text = `trial ${number} of ${study}`;
      this.clicked.replaceChildren("You clicked ", href ? node("a", { href }, text) : text, ".");
    }
  }

  window.CondenseryStudies = { StudiesCompared, sentences, bestOf, mark };
})();
