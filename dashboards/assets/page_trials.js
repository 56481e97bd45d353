/* The trials table of the live page, which asks for its rows as they are scrolled to. */
(function () {
  "use strict";

  const { state, say, at, question, remember, parts } = window.CondenseryPage;

  // ---- trials table -------------------------------------------------------------------------------------------

  let grid = null, selecting = false;

  /** Find the grid, once it has columns (rows that come before them are never drawn), and give it its rows.

      This runs at every poll too: the component may have made its grid again. */
  function startTable() {
    if (!document.querySelector("#trials-grid .ag-root")) { return false; }  // asked for earlier, the component complains
    const api = window.dash_ag_grid.getApi("trials-grid");
    if (!api || api.isDestroyed() || !(api.getColumnDefs() || []).length) { return false; }
    if (api === grid) {
      ensureSource();
      followBudget();
      return true;
    }
    grid = api;
    grid.addEventListener("rowSelected", ticked);
    grid.addEventListener("cellClicked", rowClicked);
    grid.addEventListener("cellKeyDown", ({ event, node: row }) => {
      if (event.key === "Enter" && row.id !== undefined) { parts.chooseRow(Number(row.id), event, true); }
    });
    grid.addEventListener("modelUpdated", selectRows);
    grid.addEventListener("filterChanged", markCsv);
    grid.addEventListener("sortChanged", () => { markCsv(); showOrder(); });
    ensureSource();
    parts.startColumns(grid);
    markCsv();
    showOrder();
    return true;
  }

  /** A box was ticked or unticked: the trial joins the others, or leaves them. */
  function ticked(event) {
    if (selecting || event.source === "api" || event.node.id === undefined) { return; }
    const number = Number(event.node.id), others = state.chosen.filter((other) => other !== number);
    parts.choose(event.node.isSelected() ? [...others, number] : others);
  }

  function rowClicked({ event, node: row, column }) {
    const marking = String(window.getSelection());  // a text that the reader has just marked stays
    if (row.id === undefined || marking || column.getColId() === "ag-Grid-SelectionColumn") { return; }
    parts.chooseRow(Number(row.id), event, false);
  }

  const source = { getRows: (asked) => rows(asked) };

  /** Set our source of rows; the component sets its own when the grid is ready, which may be later than this. */
  function ensureSource() {
    if (grid.getGridOption("datasource") !== source) { grid.setGridOption("datasource", source); }
  }

  const newColumns = (columns) => { if (grid) { grid.setGridOption("columnDefs", columns); parts.showColumns(); } };

  let looks = 0;
  function awaitTable() { if (!startTable() || looks++ < 30) { setTimeout(awaitTable, 100); } }

  function tableQuestion() {
    const sort = grid.getColumnState().filter((column) => column.sort)
      .sort((a, b) => a.sortIndex - b.sortIndex).map(({ colId, sort: way }) => ({ colId, sort: way }));
    const filter = typed();
    return {
      sort: sort.length ? JSON.stringify(sort) : null, filter: Object.keys(filter).length ? JSON.stringify(filter) : null,
      brush: state.brush ? JSON.stringify(state.brush) : null, ...parts.budgetWords(),
    };
  }

  /** What is typed into the filters, by column; the server reads it in the column's units. */
  const typed = () => Object.fromEntries(Object.entries(grid.getFilterModel()).map(([name, { filter }]) => [name, filter]));

  let loads = 0, told = 0;
  async function rows(asked) {
    const table = tableQuestion(), load = ++loads;
    try {
      const answer = await fetch(`/rows?${question({ ...table, start: asked.startRow, end: asked.endRow })}`);
      if (!answer.ok) { throw new Error(await answer.text()); }
      const page = await answer.json();
      asked.successCallback(page.rows, page.total);
      // The table may have other filters by now, or have been told the total of a later request.
      if (load > told && question(table) === question(tableQuestion())) { told = load; showTotal(page); }
    } catch (error) {
      asked.failCallback();
    }
  }

  function showTotal({ total, all, wrong }) {
    const filtered = state.brush || Object.keys(grid.getFilterModel()).length;
    say("rows-shown", filtered ? `${total.toLocaleString("en")} of ${all.toLocaleString("en")} trials${state.brush ? ", brushed" : ""}` : "");
    say("rows-wrong", Object.values(wrong).join(" "));
    parts.markFilters(wrong);
    at("clear-filters").hidden = !filtered;
    if (total === 0) { grid.showNoRowsOverlay(); } else { grid.hideOverlay(); }
  }

  /** Say in which order the rows are; without a sorted column the best within the budget come first. */
  function showOrder() {
    const sorted = grid.getColumnState().some((column) => column.sort);
    at("best-first").hidden = !sorted;
    say("rows-order", sorted || !state.table ? "" : `Best ${state.table.score_name} within the budget first.`);
  }

  const bestFirst = () => { if (grid) { grid.applyColumnState({ defaultState: { sort: null } }); } };

  let followed = "";
  /** Sort and mark the rows again when the budget has moved, or another network is recommended. */
  function followBudget() {
    if (!grid || !state.table) { return; }
    const number = recommended(), now = JSON.stringify([number, parts.budgetWords()]);
    if (now === followed) { return; }
    followed = now;
    state.recommended = number;
    markCsv();
    showOrder();
    grid.redrawRows();
    refreshRows();
  }

  const recommended = () => (at("open-best").hidden ? null : Number(at("open-best").dataset.number));

  const refreshRows = () => { if (grid) { grid.refreshInfiniteCache(); } };
  const purgeRows = () => { if (grid) { grid.purgeInfiniteCache(); markCsv(); } };
  function markCsv() { if (grid && state.head) { at("csv").href = `/trials.csv?${question(tableQuestion())}`; } }

  function clearFilters() {
    grid.setFilterModel(null);
    say("rows-wrong", "");
    const graph = parts.graphOf("parallel");
    if (state.brush && graph) {
      const change = {};
      graph.data[0].dimensions.forEach((_, i) => { change[`dimensions[${i}].constraintrange`] = null; });
      window.Plotly.restyle(graph, change, [0]);
    }
    if (state.brush) { state.brush = null; parts.offerEnds(); purgeRows(); remember(); }
  }

  function selectRows() {
    selecting = true;
    grid.forEachNode((row) => {
      if (row.id === undefined || !row.data) { return; }
      const wanted = state.chosen.includes(Number(row.id));
      if (row.isSelected() !== wanted) { row.setSelected(wanted, false, "api"); }
    });
    selecting = false;
  }

  Object.assign(parts, { awaitTable, newColumns, startTable, refreshRows, purgeRows, markCsv, clearFilters, bestFirst, followBudget, selectRows: () => { if (grid) { selectRows(); } } });
})();
