"use strict";
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const hidden = { policy: new Set(), run: new Set() };
  const log = { ...data.log };
  const places = new Map([...document.querySelectorAll(".plot")].map((place) => [place.dataset.figure, place]));
  const drawn = new Set();
  const dashes = ["solid", "9px,6px", "2px,4px", "9px,4px,2px,4px", "16px,5px", "9px,3px,2px,3px,2px,3px"];
  const symbols = ["circle", "square", "diamond", "triangle-up", "x", "cross"];
  let printing = false;

  const off = (s) => {
    const one = data.series[s];
    return one !== undefined && (hidden.policy.has(one.policy) || hidden.run.has(one.run));
  };

  /* colours come from the style sheet, so that theme and print are decided in one place */
  const theme = () => {
    const style = getComputedStyle(root);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: get("ink"), muted: get("muted"), grid: get("grid"), card: get("card"), line: get("line"),
      series: [0, 1, 2, 3, 4, 5].map((i) => get(`s${i}`)), wave: get("wave").split(/\s+/),
      heat: [[0, get("fall")], [0.5, get("middle")], [1, get("rise")]], font: get("sans"),
    };
  };
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const alpha = (hex, share) => `rgba(${rgb(hex).join(",")},${share})`;
  const between = (stops, t) => {
    const at = t * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), part = at - low;
    const [a, b] = [rgb(stops[low]), rgb(stops[low + 1])];
    return `#${a.map((x, i) => Math.round(x + (b[i] - x) * part).toString(16).padStart(2, "0")).join("")}`;
  };

  const paint = (trace, look) => {
    const { s, role, t, g, last } = trace.meta;
    const { c, d } = trace.meta;
    const one = data.series[s] || { colour: c || 0, dash: d || 0 };
    const colour = look.series[one.colour % look.series.length];
    const dash = dashes[one.dash];
    delete trace.meta;
    trace.visible = !off(s);
    if (role === "mean") {
      trace.line = { color: colour, width: 2.4, dash };
      trace.marker = { color: colour, size: trace.x.length > 25 ? 4 : 7, symbol: symbols[one.colour % symbols.length] };
      if (trace.error_y) Object.assign(trace.error_y, { color: colour, thickness: 1.4, width: 3 });
    } else if (role === "theory") {
      trace.line = { color: look.ink, width: 1.5, dash: "5px,4px" };
    } else if (role === "edge" || role === "band") {
      trace.line = { color: colour, width: 0 };
      trace.fillcolor = alpha(colour, 0.16);
    } else if (role === "ahead") {
      trace.line = { color: colour, width: 2, dash: "dot" };
    } else if (role === "seed") {
      trace.line = { color: alpha(colour, 0.42), width: 1, dash };
    } else if (role === "floor") {
      trace.line = { color: look.muted, width: 1.5, dash: "longdash" };
    } else if (role === "wave") {
      const tone = between(look.wave, t);
      Object.assign(trace.line, { color: tone, width: g === 0 || last ? 2.4 : 1.2 });
      if (g === 0) Object.assign(trace, { fill: "tozeroy", fillcolor: alpha(tone, 0.3) });
    } else if (role === "heat") {
      trace.colorscale = look.heat;
      trace.textfont = { color: look.ink, size: 14 };
      Object.assign(trace.colorbar, { tickfont: { color: look.muted, size: 11 } });
      trace.colorbar.title.font = { color: look.muted, size: 11 };
    }
    return trace;
  };

  const axis = (given, look) => ({
    gridcolor: look.grid, zerolinecolor: look.muted, zeroline: false, linecolor: look.line, automargin: true,
    tickfont: { color: look.muted }, ticklabelstandoff: 3, ...given,
    title: { ...given.title, font: { color: look.muted, size: 12 }, standoff: 8 },
  });

  const build = (name) => {
    const figure = structuredClone(data.figures[name]);
    const look = theme();
    const layout = figure.layout;
    const group = figure.group;
    const { tickvals, ticktext, logrange, ...y } = layout.yaxis;
    layout.yaxis = y;
    if (group === "histograms") {
      if (log[group]) Object.assign(y, { type: "log", range: logrange, dtick: 1, tickformat: ".2~%" });
    } else if (group && !log[group]) {
      Object.assign(y, { type: "linear" });
      if (logrange) y.range = [0, 10 ** logrange[1]];
    } else if (tickvals) {
      Object.assign(y, { tickvals, ticktext });
      if (logrange) y.range = logrange;
    }
    layout.xaxis = { ...axis(layout.xaxis, look), showgrid: group === "histograms" };
    layout.yaxis = axis(layout.yaxis, look);
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 14, t: 12, b: 42 },
      font: { family: look.font, size: 12, color: look.ink }, showlegend: layout.showlegend === true,
      legend: { traceorder: "normal", orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      hoverlabel: { bgcolor: look.card, bordercolor: look.line, font: { color: look.ink, family: look.font } },
    });
    if (printing) Object.assign(layout, { width: places.get(name).closest(".grid") ? 300 : 640, autosize: false });
    return [figure.traces.map((trace) => paint(trace, look)), layout];
  };

  const options = {
    responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtons: [["toImage"]], toImageButtonOptions: { format: "svg" },
  };
  const draw = (name) => {
    const place = places.get(name);
    if (place.closest("[hidden]")) return;
    drawn.add(name);
    Plotly.react(place, ...build(name), options);
  };
  const again = () => drawn.forEach(draw);

  const watcher = new IntersectionObserver(
    (entries) => entries.forEach((entry) => {
      if (!entry.isIntersecting) return;
      watcher.unobserve(entry.target);
      draw(entry.target.dataset.figure);
    }),
    { rootMargin: "500px" },
  );
  places.forEach((place) => watcher.observe(place));

  document.querySelectorAll("button[data-toggle]").forEach((button) =>
    button.addEventListener("click", () => {
      const set = hidden[button.dataset.toggle], key = Number(button.dataset.key);
      if (!set.delete(key)) set.add(key);
      button.setAttribute("aria-pressed", String(!set.has(key)));
      document.querySelectorAll("[data-series]").forEach((element) => {
        element.hidden = off(Number(element.dataset.series));
      });
      again();
      places.forEach((place, name) => {
        /* hidden while it came into sight, it was not drawn */
        const box = place.getBoundingClientRect();
        if (!drawn.has(name) && box.height > 0 && box.top < innerHeight + 500 && box.bottom > -500) draw(name);
      });
    }),
  );
  document.querySelectorAll("button[data-log]").forEach((button) =>
    button.addEventListener("click", () => {
      const group = button.dataset.log;
      log[group] = !log[group];
      button.setAttribute("aria-pressed", String(log[group]));
      again();
    }),
  );
  document.querySelectorAll("button[data-all]").forEach((button) =>
    button.addEventListener("click", () => {
      const few = document.getElementById(button.dataset.all).classList.toggle("few");
      button.setAttribute("aria-pressed", String(!few));
    }),
  );

  const system = matchMedia("(prefers-color-scheme: dark)");
  const waves = () => {
    const look = theme();
    document.querySelectorAll("[data-wave]").forEach((one) => one.setAttribute("fill", between(look.wave, Number(one.dataset.wave))));
  };
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    waves();
    again();
  });
  system.addEventListener("change", () => { waves(); again(); });
  waves();

  let before = null;
  addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.closest(".card"));
    before = { theme: root.dataset.theme, closed };
    closed.forEach((one) => { one.open = true; });
    root.dataset.theme = "light";
    printing = true;
    waves();
    places.forEach((place, name) => draw(name));
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    before.closed.forEach((one) => { one.open = false; });
    if (before.theme) root.dataset.theme = before.theme;
    else delete root.dataset.theme;
    printing = false;
    before = null;
    waves();
    again();
  });
})();
