/* The columns of the trials table: which of them there is room for, which the reader chooses, and how their cells look. */
(function () {
  "use strict";

  const { state, node, at, remember, parts } = window.CondenseryPage;

  const NARROW_PX = 520, TICKS_PX = 42, NARROW_TICKS_PX = 30, ROW_PX = 36, TALL_ROW_PX = 50, LEAST_FLEX_PX = 150;
  let grid = null, shownFor = "";

  // ---- cells ----------------------------------------------------------------------------------------------

  const element = (...parts_) => window.React.createElement(...parts_);
  const cells = (window.dashAgGridComponentFunctions ??= {}), rules = (window.dashAgGridFunctions ??= {});

  cells.TrialNumber = ({ value }) => element("span", {}, Number(value) === state.recommended
    ? element("span", { className: "recommended-mark", role: "img", "aria-label": "recommended", title: "recommended" }, "★")
    : null, value);

  /** A state with its mark, the one that charts draw the trial with. */
  cells.TrialState = ({ value, data }) => {
    const kind = data && data.front ? "front" : value;
    return element("span", { className: `state-cell state-${value}` },
      element("i", { className: `state-mark mark-${kind}`, "aria-hidden": true }), value,
      data && data.front ? element("span", { className: "unseen" }, ", on the front") : null);
  };

  /** A latency; one that can't be compared with the others of its column says what it is before its interval. */
  cells.TrialLatency = ({ value }) => {
    const [, median, kind, interval] = /^(\S+) ([^[]*)(\[.*)$/.exec(value || "") || [];
    return median === undefined ? value : element("span", { className: "latency-cell", title: kind ? value : undefined },
      element("b", {}, median), " ", kind ? element("em", {}, kind) : null, element("span", {}, interval));
  };

  rules.isRecommended = ({ data }) => Boolean(data) && Number(data.number) === state.recommended;
  rules.isOutside = ({ data }) => Boolean(data) && data["·inside"] === false;

  // ---- which are shown ------------------------------------------------------------------------------------

  const definitions = () => grid.getColumnDefs().filter((column) => column.context);
  const isNarrow = () => at("grid-box").clientWidth < NARROW_PX;

  /** Return the columns that there is room for, the most important ones first. */
  function fitting() {
    const narrow = isNarrow(), wanted = definitions().sort((a, b) => a.context.rank - b.context.rank);
    let left = at("grid-box").clientWidth - (narrow ? NARROW_TICKS_PX : TICKS_PX) - 4;
    const fit = [];
    for (const { colId, flex, context } of wanted) {
      const width = flex ? LEAST_FLEX_PX : (narrow && context.narrow_px) || context.width_px;
      if (width > left && fit.length >= 4) { break; }
      fit.push(colId);
      left -= width;
    }
    return fit;
  }

  /** Show the columns that the reader chose, else those that there is room for. */
  function showColumns() {
    if (!grid || !at("grid-box").clientWidth) { return; }
    const shown = state.columns || fitting(), narrow = isNarrow(), key = JSON.stringify([shown, narrow, definitions().length]);
    if (key !== shownFor) {
      shownFor = key;
      grid.applyColumnState({ state: [{ colId: "ag-Grid-SelectionColumn", width: narrow ? NARROW_TICKS_PX : TICKS_PX }, ...definitions().map(({ colId, context, flex }) => ({
        colId, hide: !shown.includes(colId), ...(flex ? {} : { width: (narrow && context.narrow_px) || context.width_px }),
      }))] });
      at("trials-grid").classList.toggle("narrow", narrow);
      setRowHeight(narrow ? TALL_ROW_PX : ROW_PX);
      buildChooser(shown);
    }
    setTimeout(hints, 0);
  }

  /** Rows that are there keep their places when the height changes, and would overlap: they are asked for again. */
  function setRowHeight(height) {
    if (grid.getGridOption("rowHeight") === height) { return; }
    grid.setGridOption("rowHeight", height);
    grid.purgeInfiniteCache();
  }

  function buildChooser(shown) {
    const boxes = definitions().map(({ colId, headerName }) => node("label", {}, node("input", {
      type: "checkbox", value: colId, checked: shown.includes(colId), onchange: changed,
    }), headerName));
    const own = node("button", { type: "button", onclick: () => choose(null) }, "Those that fit");
    at("columns-choice").replaceChildren(...boxes, own);
  }

  function changed() {
    const ticked = [...at("columns-choice").querySelectorAll("input:checked")].map((box) => box.value);
    if (ticked.length) { choose(ticked); }
  }

  function choose(columns) {
    state.columns = columns;
    const focused = document.activeElement && document.activeElement.value;
    showColumns();
    const again = [...at("columns-choice").querySelectorAll("input")].find((box) => box.value === focused);
    if (again) { again.focus(); }
    remember();
  }

  // ---- the filters' inputs --------------------------------------------------------------------------------

  const filterOf = (name) => document.querySelector(`#trials-grid input[aria-label="${CSS.escape(name)} Filter Input"]`);

  /** Say in each empty filter what can be typed there. */
  function hints() {
    if (!grid) { return; }
    for (const { headerName, context } of definitions()) {
      const input = filterOf(headerName);
      if (input) { input.placeholder = context.hint; }
    }
  }

  function markFilters(wrong) {
    for (const { colId, headerName } of definitions()) {
      const input = filterOf(headerName);
      if (input && colId in wrong) { input.setAttribute("aria-invalid", "true"); }
      else if (input) { input.removeAttribute("aria-invalid"); }
    }
    hints();
  }

  function startColumns(api) {
    grid = api;
    shownFor = "";
    new ResizeObserver(showColumns).observe(at("grid-box"));
    grid.addEventListener("virtualColumnsChanged", () => setTimeout(hints, 0));
    const chooser = at("columns-chooser");
    chooser.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && chooser.open) {
        event.preventDefault();
        chooser.open = false;
        chooser.querySelector("summary").focus();
      }
    });
    document.addEventListener("pointerdown", (event) => { if (!chooser.contains(event.target)) { chooser.open = false; } });
    showColumns();
  }

  /** The columns as the address has them: nothing where the reader chose none. */
  const columnWords = () => ({ columns: state.columns ? state.columns.join(",") : null });

  Object.assign(parts, { startColumns, showColumns, markFilters, columnWords });
})();
