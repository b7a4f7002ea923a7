"use strict";
/*
 * The plots, and all that chooses what they show: policies, lineages, runs, seeds, axes, light or dark, paper. What is chosen is in the address.
 * `collapsePage` is what samples.js needs of this.
 */
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const hidden = { policy: new Set(), lineage: new Set(), run: new Set(), seed: new Set() };
  const log = { ...data.log };
  const places = new Map([...document.querySelectorAll(".plot")].map((place) => [place.dataset.figure, place]));
  const drawn = new Set();
  const dashes = ["solid", "9px,6px", "2px,4px", "9px,4px,2px,4px", "16px,5px", "9px,3px,2px,3px,2px,3px"];
  const symbols = ["circle", "square", "diamond", "triangle-up", "x", "cross"];
  const NAMED = 8; /* lines that a legend names */
  const said = new Map(); /* what others keep in the address, by name: samples.js */
  let printing = false;

  const off = (s) => {
    const one = data.series[s];
    return one !== undefined && ["policy", "lineage", "run"].some((kind) => hidden[kind].has(one[kind]));
  };

  /* what is of all lineages of a policy (p) of a run (r) is of no series */
  const gone = ({ s, p, r, seed }) => off(s) || hidden.policy.has(p) || hidden.run.has(r) || (seed !== undefined && hidden.seed.has(seed));

  /* --- how it looks ------------------------------------------------------------------------------------------------- */

  /* colours come from the style sheet, so that theme and print are decided in one place */
  const theme = () => {
    const style = getComputedStyle(root);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: get("ink"), muted: get("muted"), grid: get("grid"), card: get("card"), line: get("line"),
      series: [0, 1, 2, 3, 4, 5].map((i) => get(`s${i}`)), wave: get("wave").split(/\s+/),
      fall: get("fall"), middle: get("middle"), rise: get("rise"), deep: get("deep"), font: get("sans"),
    };
  };
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const alpha = (hex, share) => `rgba(${rgb(hex).join(",")},${share})`;
  const between = (stops, t) => {
    const at = t * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), part = at - low;
    const [a, b] = [rgb(stops[low]), rgb(stops[low + 1])];
    return `#${a.map((x, i) => Math.round(x + (b[i] - x) * part).toString(16).padStart(2, "0")).join("")}`;
  };
  /* a lineage's shade of its policy's hue: towards the paper, or towards the ink */
  const shaded = (hue, shade, look) => (shade ? between([hue, shade > 0 ? look.card : look.ink], Math.abs(shade)) : hue);
  /* 0 is pale wherever it stands, and the shorter side has no stronger colours than its values deserve */
  const heat = (look, low, high) => {
    const width = high - low || 1, zero = -low / width, most = Math.max(-low, high) || 1;
    const up = [look.middle, look.rise, look.deep], down = [look.middle, look.fall];
    const stops = zero > 0 ? [[0, between(down, -low / most)], [zero, look.middle]] : [[0, look.middle]];
    if (zero < 1) [0.25, 0.5, 0.75, 1].forEach((t) => stops.push([zero + (1 - zero) * t, between(up, t * (high / most))]));
    stops[stops.length - 1][0] = 1;
    return stops;
  };

  const paint = (trace, look, crowd) => {
    const { s, role, t, base, c, d } = trace.meta;
    const one = data.series[s] || { colour: c || 0, dash: d || 0, shade: 0 };
    const colour = shaded(look.series[one.colour % look.series.length], one.shade, look);
    const dash = dashes[one.dash];
    const away = gone(trace.meta);
    delete trace.meta;
    if (innerWidth < 500 && s !== undefined && !printing) trace.showlegend = false; /* the buttons above say it in less room */
    trace.visible = !away && trace.x.length > 0;
    if (role === "mean") {
      trace.line = { color: colour, width: 2.4, dash };
      trace.marker = { color: colour, size: trace.x.length > 25 ? 4 : 7, symbol: symbols[(one.shade ? one.colour + one.dash : one.colour) % symbols.length] };
      if (trace.error_y) Object.assign(trace.error_y, { color: colour, thickness: 1.4, width: 3 });
    } else if (role === "theory") {
      trace.line = { color: look.ink, width: 1.5, dash: "5px,4px" };
    } else if (role === "edge" || role === "band") {
      trace.line = { color: colour, width: 0 };
      trace.fillcolor = alpha(colour, 0.16 * crowd);
    } else if (role === "ahead") {
      trace.line = { color: colour, width: 2, dash: "dot" };
    } else if (role === "seed") {
      trace.line = { color: alpha(colour, 0.42 * crowd), width: 1, dash };
    } else if (role === "floor" || role === "ceiling") {
      trace.line = { color: look.muted, width: 1.5, dash: role === "floor" ? "8px,5px" : "dot" };
    } else if (role === "part") {
      trace.marker = { color: between(look.wave, t), line: { color: look.card, width: 0.8 } };
    } else if (role === "tone") {
      const tone = between(look.wave, t);
      Object.assign(trace, { line: { color: tone, width: 2 }, marker: { color: tone, size: 6 } });
    } else if (role === "ridge") {
      const tone = between(look.wave, t);
      trace.line = { color: base === 0 || t === 0 ? tone : alpha(tone, 0.95), width: 1.6 };
      Object.assign(trace, { fill: "toself", fillcolor: alpha(tone, 0.55) });
    } else if (role === "matrix") {
      trace.colorscale = look.wave.map((hue, i) => [i / (look.wave.length - 1), hue]);
      trace.textfont = { size: 10 }; /* in the ink that each cell needs */
      Object.assign(trace.colorbar, { tickfont: { color: look.muted, size: 11 } });
      trace.colorbar.title.font = { color: look.muted, size: 11 };
    } else if (role === "heat") {
      trace.colorscale = heat(look, trace.zmin, trace.zmax);
      trace.textfont = { color: look.muted, size: 14 };
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

  /* --- seeds that are chosen ---------------------------------------------------------------------------------------- */

  const short = (x) => {
    if (x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-4)) return x.toExponential(2);
    return Math.abs(x) >= 100 ? Math.round(x).toLocaleString("en-US") : String(Number(x.toPrecision(3)));
  };
  /* mean and 95% interval as metrics/intervals.py has them, of the seeds that are left */
  const over = (values, mean) => {
    const [to, from] = mean.log ? [Math.log, Math.exp] : [(x) => x, (x) => x];
    const [low, high] = mean.bounds.map((end, i) => end ?? (i ? Infinity : -Infinity));
    const cut = (x) => Math.min(high, Math.max(low, from(x)));
    const logs = values.map(to), n = logs.length, middle = logs.reduce((a, b) => a + b, 0) / n;
    if (n === 1) return { mean: from(middle) };
    const half = data.t[n - 2] * Math.sqrt(logs.reduce((a, b) => a + (b - middle) ** 2, 0) / (n - 1) / n);
    return { mean: from(middle), low: cut(middle - half), high: cut(middle + half) };
  };
  const chosen = (traces) => {
    if (!hidden.seed.size) return traces;
    const means = traces.filter((one) => one.meta.role === "mean" && one.meta.bounds);
    means.forEach((mean) => {
      const own = traces.filter((one) => one.meta.s === mean.meta.s);
      const seeds = own.filter((one) => one.meta.role === "seed" && !hidden.seed.has(one.meta.seed) && data.series[mean.meta.s].counted.includes(one.meta.seed));
      if (!own.some((one) => one.meta.role === "seed")) return;
      const by = seeds.map((one) => new Map(one.x.map((x, i) => [x, one.y[i]])));
      const xs = mean.x.filter((x) => by.length && by.every((one) => one.has(x)));
      const found = xs.map((x) => over(by.map((one) => one.get(x)), mean.meta));
      const form = (mean.hovertemplate.match(/^[^%]*/) || [""])[0];
      const share = own.some((one) => one.meta.share);
      const say = (x) => (share ? `${Number((100 * x).toPrecision(3))}%` : short(x));
      Object.assign(mean, {
        x: xs, y: found.map((one) => one.mean), hovertemplate: `${form}%{customdata}<extra></extra>`,
        customdata: found.map((one) => (one.low === undefined ? `${say(one.mean)}, one seed` : `${say(one.mean)} (${say(one.low)} to ${say(one.high)})`)),
      });
      own.forEach((one) => {
        if (one.meta.role !== "edge" && one.meta.role !== "band") return;
        const there = found[0]?.low === undefined ? [] : xs;
        Object.assign(one, { x: there, y: there.map((_, i) => found[i][one.meta.role === "edge" ? "low" : "high"]) });
      });
    });
    return traces;
  };

  /* --- drawing ------------------------------------------------------------------------------------------------------ */

  const paper = (place) => {
    const grid = place.closest(".grid");
    if (!grid) return { width: 660, height: 270 };
    return grid.classList.contains("pairs") ? { width: 325, height: place.classList.contains("small") ? 150 : 240 } : { width: 212, height: place.classList.contains("small") ? 135 : 215 };
  };
  const build = (name) => {
    const figure = structuredClone(data.figures[name]);
    const look = theme();
    const layout = figure.layout;
    const group = figure.group;
    const { tickvals, ticktext, logrange, ridges, ...y } = layout.yaxis;
    layout.yaxis = y;
    if (ridges) {
      Object.assign(y, { tickvals, ticktext });
      const { peak, least, overlap } = ridges;
      const high = (share) => overlap * (log[group] ? Math.max(0, Math.log(share / least) / Math.log(peak / least)) : share / peak);
      figure.traces.forEach((one) => { one.y = one.y.map((share) => one.meta.base + (share ? high(share) : 0)); });
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
    if (printing) {
      Object.assign(layout, { ...paper(places.get(name)), autosize: false });
      layout.legend.font = { size: 9 }; /* a row of a few names, and titles no longer than their axes */
      [layout.xaxis, layout.yaxis].forEach((one) => { if (one.title) one.title.font.size = 9; });
    }
    const lines = new Set(figure.traces.filter((one) => one.meta.role === "mean" && !gone(one.meta)).map((one) => one.meta.s)).size;
    if (data.lineages.length > 1 && lines > NAMED && !printing) layout.showlegend = false; /* the buttons above say it in less room */
    const crowd = data.lineages.length > 1 ? Math.min(1, NAMED / lines) : 1; /* of many lines bands and single seeds are fainter, or nothing is seen */
    return [chosen(figure.traces).map((trace) => paint(trace, look, crowd)), layout];
  };

  const options = {
    responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtons: [["toImage"]], toImageButtonOptions: { format: "svg" },
  };
  const folded = (place) => place.closest("details:not([open])") !== null;
  const draw = (name) => {
    const place = places.get(name);
    if (place.closest("[hidden]") || folded(place)) return;
    drawn.add(name);
    Plotly.react(place, ...build(name), options);
  };
  const again = () => {
    const look = theme();
    document.querySelectorAll("[data-tone]").forEach((one) => one.setAttribute("fill", between(look.wave, Number(one.dataset.tone))));
    drawn.forEach(draw);
  };
  const near = () => places.forEach((place, name) => {
    /* hidden while it came into sight, it was not drawn */
    const box = place.getBoundingClientRect();
    if (!drawn.has(name) && box.height > 0 && box.top < innerHeight + 500 && box.bottom > -500) draw(name);
  });

  const watcher = new IntersectionObserver(
    (entries) => entries.forEach((entry) => {
      if (!entry.isIntersecting || folded(entry.target)) return;
      watcher.unobserve(entry.target);
      draw(entry.target.dataset.figure);
    }),
    { rootMargin: "500px" },
  );
  places.forEach((place) => watcher.observe(place));
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", near));

  /* --- what is chosen, and the address that says it ------------------------------------------------------------------ */

  const names = { policy: (key) => data.policies[key], lineage: (key) => data.lineages[key], run: (key) => data.runs[key], seed: String };
  const keep = () => {
    const parts = new URLSearchParams();
    Object.entries(hidden).forEach(([kind, keys]) => keys.forEach((key) => parts.append(`no-${kind}`, names[kind](key))));
    Object.keys(log).forEach((group) => { if (log[group] !== data.log[group]) parts.append("axis", `${group}-${log[group] ? "log" : "linear"}`); });
    if (root.dataset.theme && !printing) parts.append("theme", root.dataset.theme);
    said.forEach((value, name) => { if (value) parts.append(name, value); });
    const section = location.hash.slice(1).split("&")[0].split("=")[0];
    const known = document.getElementById(decodeURIComponent(section)) ? section : "";
    const all = [known, parts.toString()].filter(Boolean).join("&");
    if (all !== location.hash.slice(1)) history.replaceState(null, "", all ? `#${all}` : location.pathname + location.search);
    document.dispatchEvent(new Event("kept"));
  };
  const shown = () => {
    document.querySelectorAll("button.chip").forEach((button) => {
      button.setAttribute("aria-pressed", String(!hidden[button.dataset.toggle].has(Number(button.dataset.key))));
    });
    document.querySelectorAll("button[data-log]").forEach((button) => {
      button.setAttribute("aria-pressed", String(log[button.dataset.log]));
    });
    document.querySelectorAll("[data-series]").forEach((element) => { element.hidden = off(Number(element.dataset.series)); });
    document.querySelectorAll("[data-policy]").forEach((element) => { element.hidden = hidden.policy.has(Number(element.dataset.policy)); });
    document.querySelectorAll("[data-run]").forEach((element) => { element.hidden = hidden.run.has(Number(element.dataset.run)); });
    /* what goes on counting what is hidden says so, where it stands */
    const less = { seeds: hidden.seed.size > 0, policies: hidden.policy.size > 0, lineages: hidden.lineage.size > 0 };
    document.querySelectorAll(".of-all").forEach((element) => {
      const of = element.dataset.of.split(" ").flatMap((what) => (what === "policies" ? ["policies", "lineages"] : [what])).filter((what) => less[what]);
      element.textContent = of.length ? ` of all ${of.join(" and ")}` : "";
    });
    const some = document.getElementById("some");
    const left = data.seeds.filter((seed) => !hidden.seed.has(seed));
    if (some) some.textContent = hidden.seed.size ? `lines: ${left.length ? `seed${left.length > 1 ? "s" : ""} ${left.join(", ")}` : "no seed"}; what is of all seeds says so` : "";
    again();
    near();
    document.dispatchEvent(new Event("chosen"));
  };
  const read = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    Object.values(hidden).forEach((keys) => keys.clear());
    const lists = { policy: data.policies, lineage: data.lineages, run: data.runs, seed: data.seeds };
    Object.entries(lists).forEach(([kind, list]) => parts.getAll(`no-${kind}`).forEach((name) => {
      const at = list.map(String).indexOf(name);
      if (at >= 0) hidden[kind].add(kind === "seed" ? list[at] : at);
    }));
    Object.assign(log, data.log);
    parts.getAll("axis").forEach((one) => {
      const [group, kind] = one.split("-");
      if (group in log) log[group] = kind === "log";
    });
    if (["light", "dark"].includes(parts.get("theme"))) root.dataset.theme = parts.get("theme");
    return parts;
  };
  addEventListener("hashchange", () => {
    if (location.hash.includes("=")) { read(); shown(); } /* an address that was pasted; a link to a section keeps what is chosen */
    keep();
  });

  document.querySelectorAll("button.chip").forEach((button) =>
    button.addEventListener("click", () => {
      const set = hidden[button.dataset.toggle], key = Number(button.dataset.key);
      if (!set.delete(key)) set.add(key);
      shown();
      keep();
    }),
  );
  document.querySelectorAll("button[data-log]").forEach((button) =>
    button.addEventListener("click", () => {
      const group = button.dataset.log;
      log[group] = !log[group];
      shown();
      keep();
    }),
  );
  document.querySelectorAll("button[data-all]").forEach((button) =>
    button.addEventListener("click", () => {
      const few = document.getElementById(button.dataset.all).classList.toggle("few");
      button.setAttribute("aria-pressed", String(!few));
    }),
  );

  /* --- the numbers of a plot ---------------------------------------------------------------------------------------- */

  /* a cell that a spreadsheet would take for a formula is text */
  const cell = (value) => {
    if (value === undefined || value === null) return "";
    if (typeof value === "number") return String(value);
    const text = String(value).replace(/^([=+\-@\t\r])/, "'$1");
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const plain = (name) => new DOMParser().parseFromString(name ?? "", "text/html").documentElement.textContent;
  const csv = (name) => { /* of what is shown: no hidden policy, no hidden seed */
    const figure = structuredClone(data.figures[name]), { layout } = figure;
    const traces = chosen(figure.traces).filter((one) => !gone(one.meta));
    const x = layout.xaxis?.title?.text ?? "x", y = layout.yaxis?.title?.text || "value";
    const rows = [];
    if (traces[0]?.type === "heatmap") {
      traces.forEach((one) => one.customdata.forEach((line) => line.forEach((at, i) => rows.push([one.x[i], ...at]))));
      return [[x, data.figures[name].row ?? "decile", "value"], ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
    }
    const ends = (mean, role, at) => traces.find((one) => one.meta.role === role && one.meta.s === mean.meta.s && traces.indexOf(one) < traces.indexOf(mean) + 1)?.y[at];
    traces.forEach((one) => {
      const role = one.meta.role;
      if (role === "edge" || role === "band") return;
      one.x.forEach((at, i) => {
        const banded = role === "mean" ? traces.find((other) => other.meta.role === "edge" && other.meta.s === one.meta.s)?.x.indexOf(at) ?? -1 : -1;
        const error = one.error_y;
        const low = banded >= 0 ? ends(one, "edge", banded) : error ? one.y[i] - (error.arrayminus ?? error.array)[i] : "";
        const high = banded >= 0 ? ends(one, "band", banded) : error ? one.y[i] + error.array[i] : "";
        rows.push([plain(one.name), role === "ridge" ? Math.exp(at) : at, one.y[i], low, high]);
      });
    });
    const first = traces[0]?.meta.role === "ridge" ? ["perplexity", "share of samples"] : [x, y];
    return [["line", ...first, "low (95%)", "high (95%)"], ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  };
  const tell = (button, text) => {
    const before = button.textContent;
    button.textContent = text;
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { /* not allowed: the older way */
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  document.querySelectorAll("button[data-csv]").forEach((button) =>
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([`\ufeff${csv(button.dataset.csv)}\r\n`], { type: "text/csv" }));
      link.download = `${button.dataset.csv}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }),
  );
  document.querySelectorAll("button[data-copy]").forEach((button) =>
    button.addEventListener("click", async () => { await copy(csv(button.dataset.copy)); tell(button, "copied"); }),
  );
  document.getElementById("link")?.addEventListener("click", async (event) => { await copy(location.href); tell(event.target, "copied"); });

  /* --- light, dark, paper ------------------------------------------------------------------------------------------- */

  const system = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    again();
    keep();
  });
  system.addEventListener("change", again);

  let before = null;
  addEventListener("beforeprint", () => {
    const shut = [...document.querySelectorAll("header details:not([open])")].filter((one) => one.querySelector(".remarks"));
    before = { theme: root.dataset.theme, shut };  // what a check says is not left out on paper
    shut.forEach((one) => { one.open = true; });
    root.dataset.theme = "light";
    printing = true;
    places.forEach((place, name) => draw(name));
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    if (before.theme) root.dataset.theme = before.theme;
    else delete root.dataset.theme;
    before.shut.forEach((one) => { one.open = false; });
    printing = false;
    before = null;
    again();
  });

  const parts = read();
  globalThis.collapsePage = { data, off, hidden, said, keep, csv, parts: () => new URLSearchParams(location.hash.slice(1)) };
  shown();
  const [section] = location.hash.slice(1).split("&");
  if (parts.size > 1 && section && !section.includes("=")) document.getElementById(decodeURIComponent(section))?.scrollIntoView({ behavior: "instant" });
})();
