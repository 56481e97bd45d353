/* The report's table of all trials: sorted, filtered and paged in the browser, and saved as CSV without a server.

   Texts go into the page as text, never as HTML. */
(function () {
  "use strict";

  const PAGE = 50, NONE = "-", { node } = window.CondenseryBudget;

  // ---- numbers as people read them, as in dashboards/formats.py -------------------------------------------

  const digits = (value, number) => {
    const text = value.toPrecision(number);
    return text.includes("e") ? value.toFixed(value >= 1 ? 0 : 6) : text;
  };
  const seconds = (value) => {
    if (value < 59.95) { return `${value.toFixed(1)} s`; }
    const two = (parts, partsOfOne, unit, part) => {
      const units = `${Math.floor(parts / partsOfOne).toLocaleString("en")} ${unit}`, rest = parts % partsOfOne;
      return rest ? `${units} ${rest} ${part}` : units;
    };
    const whole = Math.round(value), minutes = Math.round(value / 60), hours = Math.round(value / 3600);
    if (whole < 3600) { return two(whole, 60, "min", "s"); }
    return minutes < 1440 ? two(minutes, 60, "h", "min") : two(hours, 24, "d", "h");
  };
  const SHOWN = {
    percent: (value) => `${(100 * value).toFixed(2)} %`, ms: (value) => digits(value, 4), count: window.CondenseryAnswer.countText, seconds, number: String,
    text: String, state: String,
  };

  /** Return the value of a row in a column: a number, a text, or null. */
  const valueOf = (column, row) => (column.texts ? column.texts[column.values[row]] : column.values[row]);
  const shownOf = (column, row) => {
    const value = valueOf(column, row);
    return value === null ? NONE : SHOWN[column.kind](value);
  };

  /** Return a latency with its interval and its marks. */
  function latency(column, row, byName) {
    if (column.values[row] === null) { return NONE; }
    const [low, high] = [column.low, column.high].map((name) => shownOf(byName.get(name), row));
    return `${shownOf(column, row)} [${low}, ${high}]${valueOf(column.marks, row)}`;
  }

  // ---- what is shown, and in which order ------------------------------------------------------------------

  /** Return the rows in the order of a column; rows without a value come last either way, and so do latencies that can't
      be compared with the column's. */
  function ordered(rows, column, up) {
    const keys = new Map();
    if (column.texts) {  // compare each text once, not each row
      const places = column.texts.map((text, i) => i).filter((i) => column.texts[i] !== null);
      places.sort((a, b) => (column.texts[a] < column.texts[b] ? -1 : 1));
      places.forEach((place, rank) => keys.set(place, rank));
    }
    const apart = new Set(column.apart);
    const key = (row) => (apart.has(row) ? null : column.texts ? keys.get(column.values[row]) ?? null : column.values[row]);
    return rows.map((row) => [key(row), row]).sort(([a, i], [b, j]) => {
      if (a === null || b === null) { return (a === null) - (b === null) || i - j; }
      return (up ? a - b : b - a) || i - j;
    }).map(([, row]) => row);
  }

  /** Return a test of rows: whether each word is in one of the row's columns of text, or is its number. */
  function matcher(columns, text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const readable = columns.filter((column) => column.texts && column.title);
    const lower = readable.map((column) => column.texts.map((text) => (text === null ? "" : text.toLowerCase())));
    return (row) => words.every((word) => String(columns[0].values[row]) === word ||
      readable.some((column, i) => lower[i][column.values[row]].includes(word)));
  }

  // ---- CSV ------------------------------------------------------------------------------------------------

  /** Return a value as a field of CSV; a text that a spreadsheet would take for a formula gets an apostrophe in front. */
  function field(value) {
    if (value === null) { return ""; }
    if (typeof value === "number") { return String(value); }
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv(columns, rows) {
    const lines = [columns.map((column) => field(column.name)).join(",")];
    for (const row of rows) { lines.push(columns.map((column) => field(valueOf(column, row))).join(",")); }
    return `${lines.join("\r\n")}\r\n`;
  }

  function save(name, text) {
    const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    const link = node("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // ---- the table ------------------------------------------------------------------------------------------

  /** Put the table into the page. `special` maps the names of further choices to tests of a row. */
  function start(trials, special) {
    const columns = trials.columns, seen = columns.filter((column) => column.title);
    const byName = new Map(columns.map((column) => [column.name, column]));
    const all = columns[0].values.map((number, row) => row);
    const state = { sort: null, up: true, text: "", show: "all", brushed: null, page: 0, rows: all };
    const stateOf = columns.find((column) => column.kind === "state");
    const body = node("tbody"), heads = seen.map((column) => node("th", {
      scope: "col", class: isNumber(column) ? "n" : null,
    }, node("button", { type: "button", onclick: () => sortBy(column) }, column.title)));
    document.getElementById("trials-table").append(node("table", {}, node("thead", {}, node("tr", {}, ...heads)), body));

    const note = node("span", { class: "muted", role: "status", id: "trials-note" });
    const brush = node("button", { type: "button", hidden: true, onclick: () => { table.onclear(); brushed(null); } }, "Clear the chart's selection");
    const filter = node("input", {
      type: "text", id: "trials-filter", size: 22, placeholder: "words in any column", spellcheck: "false",
      oninput: () => { state.text = filter.value; refresh(); },
    });
    const shows = ["all", ...Object.keys(special), ...stateOf.texts.filter((name) => name !== null)];
    const show = node("select", { id: "trials-show", onchange: () => { state.show = show.value; refresh(); } },
      ...shows.map((name) => node("option", { value: name }, name)));
    document.getElementById("trials-controls").append(
      node("span", { class: "field" }, node("label", { for: "trials-show" }, "Show"), show),
      node("span", { class: "field" }, node("label", { for: "trials-filter" }, "Filter"), filter), brush,
      node("button", { type: "button", id: "trials-csv", onclick: () => save(trials.file, csv(columns, state.rows)) }, "Download CSV"));
    const turn = (text, name, step) => node("button", {
      type: "button", "aria-label": name, onclick: () => { state.page += step; render(); },
    }, text);
    const before = turn("Previous", "Previous page", -1), after = turn("Next", "Next page", 1);
    document.getElementById("trials-pages").append(before, after, note, node("span", { class: "muted" }, trials.note));

    function isNumber(column) { return !column.texts; }

    function sortBy(column) {
      state.up = state.sort === column ? !state.up : true;
      state.sort = column;
      refresh();
    }

    function brushed(numbers) {  // of trials, or null: all
      state.brushed = numbers === null ? null : new Set(numbers);
      brush.hidden = numbers === null;
      refresh();
    }

    function refresh() {
      const fits = special[state.show], matches = matcher(columns, state.text);
      let rows = all;
      if (state.show !== "all") {
        rows = rows.filter((row) => (fits ? fits(row) : valueOf(stateOf, row) === state.show));
      }
      if (state.brushed !== null) { rows = rows.filter((row) => state.brushed.has(columns[0].values[row])); }
      if (state.text.trim()) { rows = rows.filter(matches); }
      state.rows = state.sort === null ? rows : ordered(rows, state.sort, state.up);
      state.page = 0;
      render();
    }

    function render() {
      const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
      state.page = Math.min(Math.max(0, state.page), pages - 1);
      const first = state.page * PAGE, rows = state.rows.slice(first, first + PAGE);
      heads.forEach((head, i) => {
        if (seen[i] === state.sort) { head.setAttribute("aria-sort", state.up ? "ascending" : "descending"); }
        else { head.removeAttribute("aria-sort"); }
      });
      body.replaceChildren(...rows.map((row) => node("tr", {
        class: columns[0].values[row] === table.pick ? "pick" : null, "data-number": columns[0].values[row],
      }, ...seen.map((column) => cell(column, row)))));
      before.disabled = state.page === 0;
      after.disabled = state.page >= pages - 1;
      const english = (number) => number.toLocaleString("en");
      const of = state.rows.length === all.length ? english(all.length) : `${english(state.rows.length)} (${english(all.length)} in all)`;
      note.textContent = rows.length ? `${english(first + 1)} to ${english(first + rows.length)} of ${of}` : "No trial matches.";
    }

    function cell(column, row) {
      const kind = column.kind === "state" ? `state-${valueOf(column, row)}` : isNumber(column) ? "n" :
        column.name === "architecture" ? "config" : null;
      return node("td", { class: kind }, column.low ? latency(column, row, byName) : shownOf(column, row));
    }

    const table = {
      pick: null, refresh, render, brushed, onclear: () => {},
      /** Mark a trial's row, and filter again. */
      mark(number) {
        table.pick = number;
        if (special[state.show]) { refresh(); } else { render(); }
      },
      rows: () => state.rows.map((row) => columns[0].values[row]),
      csv: () => csv(columns, state.rows),
    };
    refresh();
    return table;
  }

  window.CondenseryTable = { start, SHOWN };
})();
