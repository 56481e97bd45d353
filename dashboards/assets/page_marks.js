/* The selected trials in the charts: a ring around each point, a line along each curve, and the trial's number.

   They lie above a drawn chart and move without it, so that a selection is seen at once however much the chart holds. */
(function () {
  "use strict";

  const { state, parts } = window.CondenseryPage;
  const SVG = "http://www.w3.org/2000/svg", RING_PX = 9, ROOM_PX = 2;

  function shape(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) { element.setAttribute(name, value); }
    if (text !== undefined) { element.textContent = text; }
    return element;
  }

  /** Return the number of the trial that a value of a trace's customdata belongs to. */
  const numberIn = (carried) => Number(carried !== null && typeof carried === "object" ? carried[0] : carried);

  const places = new WeakMap();  // of a graph's traces: where each trial is
  /** Return where a drawn chart shows each trial: [trace, indices of its points], by number. */
  function placesIn(graph) {
    const traces = graph._fullData;
    if (places.has(traces)) { return places.get(traces); }
    const found = new Map();
    for (const trace of traces) {
      const carried = trace.customdata;
      if (!carried || trace.visible !== true || trace.meta === "recommended") { continue; }
      const own = new Map();
      for (let i = 0; i < carried.length; i++) {
        const number = numberIn(carried[i]);
        if (own.has(number)) { own.get(number).push(i); } else { own.set(number, [i]); }
      }
      for (const [number, indices] of own) {
        if (!found.has(number)) { found.set(number, []); }
        found.get(number).push([trace, indices]);
      }
    }
    places.set(traces, found);
    return found;
  }

  const axisOf = (graph, id) => graph._fullLayout[`${id[0]}axis${id.slice(1)}`];

  /** Return the pixels of a trace's points inside its axes. */
  function pixels(graph, trace, indices) {
    const x = axisOf(graph, trace.xaxis || "x"), y = axisOf(graph, trace.yaxis || "y");
    if (!x || !y || !x.d2p || !trace.x || !trace.y) { return []; }
    return indices.map((i) => [x.d2p(trace.x[i]), y.d2p(trace.y[i])])
      .filter(([px, py]) => px >= -1 && px <= x._length + 1 && py >= -1 && py <= y._length + 1)
      .map(([px, py]) => [x._offset + px, y._offset + py]);
  }

  /** Return the pixels of a network's line through parallel axes, which the reader may have put into another order. */
  function parallelPixels(graph, trace, index) {
    const frame = graph.getBoundingClientRect();
    return [...graph.querySelectorAll(".parcoords .y-axis")].map((axis, place) => {
      const { visibleIndex } = axis.__data__ || {}, line = axis.querySelector(".domain");
      const dimension = trace.dimensions.filter((one) => one.visible !== false)[visibleIndex ?? place];
      if (!line || !dimension) { return null; }
      const box = line.getBoundingClientRect(), [low, high] = dimension.range;
      const share = (dimension.values[index] - low) / (high - low || 1);
      return [box.left + box.width / 2 - frame.left, box.bottom - share * box.height - frame.top];
    }).filter(Boolean).sort((a, b) => a[0] - b[0]);
  }

  const path = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

  function markOf(graph, number) {
    const group = shape("g", { "data-trial": number });
    const line = (points) => group.append(shape("polyline", { points: path(points), class: "halo" }),
      shape("polyline", { points: path(points), class: "line" }));
    let last = null;
    for (const [trace, indices] of placesIn(graph).get(number) || []) {
      if (trace.type === "parcoords") {
        const points = parallelPixels(graph, trace, indices[0]);
        line(points);
        last = points[points.length - 1] || last;
        continue;
      }
      const points = pixels(graph, trace, indices);
      if (!points.length) { continue; }
      last = points[points.length - 1];
      if (points.length > 1 && /lines/.test(trace.mode || "")) { line(points); continue; }
      for (const [cx, cy] of points) {
        group.append(shape("circle", { cx, cy, r: RING_PX, class: "halo" }), shape("circle", { cx, cy, r: RING_PX, class: "line" }));
      }
    }
    if (last) {
      const right = last[0] > graph.clientWidth - 50;
      group.append(shape("text", {
        x: last[0] + (right ? -1 : 1) * (RING_PX + ROOM_PX), y: last[1] - RING_PX + 2, "text-anchor": right ? "end" : "start",
      }, number));
    }
    return group;
  }

  /** Select the trial of a point that was clicked; its number is in what the point carries, or in the curve's name.
      Plotly tells it at once, a double click before the second of its clicks; Dash would tell it later. */
  function clicked(graph, click) {
    const point = click && click.points && click.points[0];
    if (!point) { return; }
    const trace = graph._fullData[point.curveNumber], named = /^trial (\d+)/.exec(trace.name || "");
    const carried = trace.customdata && trace.customdata[point.pointNumber];  // the click has no values of packed arrays
    const number = named ? Number(named[1]) : numberIn(carried);
    if (Number.isInteger(number)) { parts.choosePoint(number, graph.parentElement.id.replace(/-graph$/, "")); }
  }

  const layers = new WeakMap();

  function layerOf(graph) {
    let layer = layers.get(graph);
    if (!layer || !layer.isConnected) {
      layer = shape("svg", { class: "selected-marks", "aria-hidden": "true" });
      graph.parentElement.append(layer);
      if (!layers.has(graph)) {
        for (const event of ["plotly_afterplot", "plotly_relayouting", "plotly_restyle"]) { graph.on(event, () => draw(graph)); }
        graph.on("plotly_click", (click) => clicked(graph, click));
        graph.on("plotly_doubleclick", () => parts.doubleClicked());
        graph.on("plotly_hover", () => layers.get(graph).classList.add("behind"));  // a tooltip is read through it
        graph.on("plotly_unhover", () => layers.get(graph).classList.remove("behind"));
      }
      layers.set(graph, layer);
    }
    return layer;
  }

  function draw(graph) {
    if (!graph._fullLayout || !graph._fullData) { return; }
    layerOf(graph).replaceChildren(...state.chosen.map((number) => markOf(graph, number)));
  }

  /** Mark the selected trials in every chart of the study that is drawn. */
  function showMarks() {
    for (const graph of document.querySelectorAll("main .js-plotly-plot")) { if (graph.on) { draw(graph); } }
    parts.placeStars();
  }

  /** Mark them in charts that have come since, too. */
  function followCharts() {
    for (const graph of document.querySelectorAll("main .js-plotly-plot")) {
      if (graph.on && graph._fullLayout && !layers.has(graph)) { draw(graph); }
    }
  }

  Object.assign(parts, { showMarks, followCharts });
})();
