/* Brushing the parallel coordinates, with the pointer along an axis or with three lists: the trials table keeps what is
   inside. */
(function () {
  "use strict";

  const { state, node, at, keep, parts } = window.CondenseryPage;

  const ROUNDING = 1e-6, BEYOND = 1e300;
  const ranges = (one) => {
    const found = one.constraintrange || [];
    return !found.length ? [] : Array.isArray(found[0]) ? found : [found];
  };

  /** An end at the end of its axis is open: a network beyond it, that comes later, is inside too. */
  const ends = ([from, to], { range: [low, high] }, [least, most]) =>
    [from <= low + ROUNDING ? least : from, to >= high - ROUNDING ? most : to];

  function keepBrush(figure) {
    offer(figure.data[0]);
    const graph = parts.graphOf("parallel"), before = graph && graph.data && graph.data[0];
    const trace = figure.data[0];
    if (!before || !before.dimensions || !trace || !trace.dimensions) { return; }
    const known = new Map(before.dimensions.map((dimension) => [dimension.name, dimension]));
    figure.data = [{ ...trace, dimensions: trace.dimensions.map((dimension) => {
      const kept = known.get(dimension.name), set = kept ? ranges(kept) : [];
      return set.length ? { ...dimension, constraintrange: set.map((one) => ends(one, kept, dimension.range)) } : dimension;
    }) }, ...figure.data.slice(1)];
  }

  function brushed() {
    const graph = parts.graphOf("parallel"), trace = graph && graph.data && graph.data[0];
    const found = ((trace && trace.dimensions) || []).filter((one) => ranges(one).length)
      .map((one) => [one.name, ranges(one).map((range) => ends(range, one, [-BEYOND, BEYOND]))]);
    const brush = found.length ? found : null;
    if (JSON.stringify(brush) !== JSON.stringify(state.brush)) { state.brush = brush; offerEnds(); parts.purgeRows(); }
    return keep();
  }

  // ---- the same by keyboard -----------------------------------------------------------------------------------

  let dimensions = [];

  function build() {
    const list = (id, text, onchange) =>
      node("span", { class: "field" }, node("label", { for: id }, text), node("select", { id, onchange }));
    at("parallel-controls").append(list("brush-axis", "Keep", offerEnds), list("brush-from", "from", brush),
      list("brush-to", "to", brush));
  }

  const options = (list, pairs, chosen) => {
    list.replaceChildren(...pairs.map(([value, text]) => node("option", { value }, text)));
    list.value = pairs.some(([value]) => String(value) === chosen) ? chosen : String(pairs[0][0]);
  };

  /** Offer the axes that are drawn. */
  function offer(trace) {
    dimensions = (trace && trace.dimensions) || [];
    const axis = at("brush-axis");
    at("parallel-controls").hidden = !dimensions.length;
    if (!dimensions.length) { return; }
    options(axis, dimensions.map((one) => [one.name, one.label]), axis.value);
    offerEnds();
  }

  /** Offer an axis's ticks as the ends of what is kept. */
  function offerEnds() {
    const one = dimensions.find(({ name }) => name === at("brush-axis").value);
    if (!one) { return; }
    const ticks = one.tickvals.map((value, i) => [value, one.ticktext[i]]).filter(([, text]) => text);
    const set = (state.brush || []).find(([name]) => name === one.name), now = set ? set[1][0] : [];
    ["brush-from", "brush-to"].forEach((id, i) =>
      options(at(id), [["", i ? "the highest" : "the lowest"], ...ticks], String(nearest(ticks, now[i]))));
  }

  const nearest = (ticks, end) => (ticks.find(([value]) => Math.abs(value - end) < 10 * ROUNDING) || [""])[0];

  async function brush() {
    const graph = parts.graphOf("parallel"), place = dimensions.findIndex(({ name }) => name === at("brush-axis").value);
    if (!graph || place < 0) { return; }
    const [from, to] = ["brush-from", "brush-to"].map((id) => at(id).value), [low, high] = dimensions[place].range;
    const range = [from === "" ? low : Number(from) - ROUNDING, to === "" ? high : Number(to) + ROUNDING];
    const none = from === "" && to === "";
    await window.Plotly.restyle(graph, { [`dimensions[${place}].constraintrange`]: none ? null : [range] }, [0]);
    brushed();
  }

  Object.assign(parts, { keepBrush, buildBrush: build, offerEnds });
  Object.assign(window.dash_clientside.page, { brushed });
})();
