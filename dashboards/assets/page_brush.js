/* Brushing the parallel coordinates, with the pointer along an axis or by three lists: the trials table keeps the trials
   inside. */
(function () {
  "use strict";

  const { state, node, at, keep, remember, parts } = window.CondenseryPage;

  const ROUNDING = 1e-6, BEYOND = 1e300;
  const ranges = (dimension) => {
    const range = dimension.constraintrange || [];
    return !range.length ? [] : Array.isArray(range[0]) ? range : [range];
  };

  /** Return a range whose ends at an end of the axis are open: a network beyond it that comes later is inside too. */
  const ends = ([from, to], { range: [low, high] }, [least, most]) =>
    [from <= low + ROUNDING ? least : from, to >= high - ROUNDING ? most : to];

  function keepBrush(figure) {
    offer(figure.data[0]);
    const graph = parts.graphOf("parallel"), before = graph && graph.data && graph.data[0];
    const trace = figure.data[0];
    if (!trace || !trace.dimensions) { return; }
    if (!before || !before.dimensions) { figure.data = [withBrush(trace), ...figure.data.slice(1)]; return; }
    const known = new Map(before.dimensions.map((dimension) => [dimension.name, dimension]));
    figure.data = [{ ...trace, dimensions: trace.dimensions.map((dimension) => {
      const kept = known.get(dimension.name), set = kept ? ranges(kept) : [];
      return set.length ? { ...dimension, constraintrange: set.map((range) => ends(range, kept, dimension.range)) } : dimension;
    }) }, ...figure.data.slice(1)];
  }

  // ---- in the address -----------------------------------------------------------------------------------------

  /** Return the brush as the address has it: "growth_1:8..16,20..24;G:0..0.301"; an open end is left out. */
  function words() {
    const end = (value) => (Math.abs(value) >= BEYOND ? "" : String(Number(value.toPrecision(6))));
    return { brush: (state.brush || []).map(([key, ranges]) =>
      `${key}:${ranges.map(([low, high]) => `${end(low)}..${end(high)}`).join(",")}`).join(";") };
  }

  /** Take the brush from the address; what can't be read is left out. */
  function readBrush({ brush }) {
    const number = (text, beyond) => (text === "" ? beyond : Number(text));
    const brushes = (brush || "").split(";").slice(0, 20).map((part) => part.split(":")).filter((pair) => pair.length === 2)
      .map(([key, ranges]) => [key, ranges.split(",").map((range) => range.split(".."))
        .filter((ends) => ends.length === 2)
        .map(([low, high]) => [number(low, -BEYOND), number(high, BEYOND)])
        .filter((ends) => ends.every((end) => !Number.isNaN(end)))])
      .filter(([, ranges]) => ranges.length);
    state.brush = brushes.length ? brushes : null;
  }

  /** Return the lines with the brush that the address brought. */
  function withBrush(trace) {
    const known = new Map(state.brush || []);
    return { ...trace, dimensions: trace.dimensions.map((dimension) => {
      const set = known.get(dimension.name), [low, high] = dimension.range;
      return set ? { ...dimension, constraintrange: set.map(([from, to]) => [Math.max(from, low), Math.min(to, high)]) } : dimension;
    }) };
  }

  // ---- by pointer ---------------------------------------------------------------------------------------------

  function brushed() {
    const graph = parts.graphOf("parallel"), trace = graph && graph.data && graph.data[0];
    const brushes = ((trace && trace.dimensions) || []).filter((dimension) => ranges(dimension).length)
      .map((dimension) => [dimension.name, ranges(dimension).map((range) => ends(range, dimension, [-BEYOND, BEYOND]))]);
    const brush = brushes.length ? brushes : null;
    if (JSON.stringify(brush) !== JSON.stringify(state.brush)) { state.brush = brush; offerEnds(); parts.purgeRows(); remember(); }
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
    options(axis, dimensions.map(({ name, label }) => [name, label]), axis.value);
    offerEnds();
  }

  /** Offer an axis's ticks as the ends of the range to keep. */
  function offerEnds() {
    const axis = dimensions.find(({ name }) => name === at("brush-axis").value);
    if (!axis) { return; }
    const ticks = axis.tickvals.map((value, i) => [value, axis.ticktext[i]]).filter(([, text]) => text);
    const set = (state.brush || []).find(([name]) => name === axis.name), now = set ? set[1][0] : [];
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

  Object.assign(parts, { keepBrush, buildBrush: build, offerEnds, readBrush, brushWords: words });
  Object.assign(window.dash_clientside.page, { brushed });
})();
