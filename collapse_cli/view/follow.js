"use strict";
/*
 * Follows runs: asks for their state, and when the page about them would be another one, loads it behind the one that is
 * shown, puts it into the same state (what is open, pressed, typed, zoomed, where it is scrolled to), and shows it instead.
 */
(() => {
  const runs = document.body.dataset.runs;
  const place = document.getElementById("place"), told = document.getElementById("told"), list = document.getElementById("runs");
  const OFTEN = 1000, SELDOM = 5000, DRAWN = 2500; /* milliseconds: between questions, the same of ended runs, for plots to be drawn */
  const BELOW = 110; /* pixels from the top in which a heading counts as the one that is read */
  let shown = null, version = "", loading = false, pointer = false, zooms = [];

  /* --- where the reader is ------------------------------------------------------------------------------------------ */

  /* elements by names that they have in the next page too: their id, or what they say, below the nearest id */
  const named = (root, selector) => {
    const found = new Map(), times = new Map();
    root.querySelectorAll(selector).forEach((one) => {
      const label = one.matches("details") ? one.querySelector("summary")?.textContent : one.matches("button") ? one.textContent : "";
      const home = one.parentElement?.closest("[id]")?.id ?? "";
      const said = (label ?? "").replace(/\d[\d.,]*/g, "#").slice(0, 80);
      const name = one.id ? `#${one.id}` : `${home} ${one.tagName} ${said}`;
      const count = times.get(name) ?? 0;
      times.set(name, count + 1);
      found.set(`${name} ${count}`, one);
    });
    return found;
  };
  const moves = (view, one) => { /* with the page, which what is sticky or fixed does not */
    for (let at = one; at; at = at.parentElement) {
      if (["sticky", "fixed"].includes(view.getComputedStyle(at).position)) return false;
    }
    return true;
  };
  const anchor = (view) => {
    const near = [...view.document.querySelectorAll("[id]:not(svg *)")]
      .map((one) => [one, one.getBoundingClientRect()])
      .filter(([one, box]) => box.height > 0 && box.top <= BELOW)
      .sort(([, a], [, b]) => b.top - a.top);
    const found = near.find(([one]) => moves(view, one));
    return found ? { id: found[0].id, top: found[1].top } : null;
  };
  const scrolled = "main :is(div, section, ul, ol, pre, table, textarea):not(.plot *)";
  const zoomed = (view) => {
    const found = [];
    view.document.querySelectorAll(".js-plotly-plot").forEach((plot) => {
      const change = {};
      ["xaxis", "yaxis"].forEach((name) => {
        const axis = plot._fullLayout?.[name];
        const first = axis && [axis._rangeInitial0, axis._rangeInitial1];
        if (!first || first[0] === undefined || !axis.range) return;
        const width = Math.abs(first[1] - first[0]) || 1;
        if (axis.range.some((end, i) => Math.abs(end - first[i]) > width * 1e-6)) change[`${name}.range`] = [...axis.range];
      });
      if (Object.keys(change).length) found.push({ plot: plot.dataset.figure ?? plot.id, change });
    });
    const drawn = new Set(found.map((one) => one.plot));
    return [...found, ...zooms.filter((one) => !drawn.has(one.plot))]; /* and those that were not drawn again yet */
  };
  const state = (view) => {
    const all = (selector, of) => new Map([...named(view.document, selector)].map(([name, one]) => [name, of(one)]));
    const inner = new Map();
    named(view.document, scrolled).forEach((one, name) => {
      if (one.scrollTop || one.scrollLeft) inner.set(name, [one.scrollLeft, one.scrollTop]);
    });
    return {
      top: view.scrollY, anchor: view.scrollY < 10 ? null : anchor(view), theme: view.document.documentElement.dataset.theme,
      open: all("details", (one) => one.open), pressed: all("button[aria-pressed]", (one) => one.getAttribute("aria-pressed")),
      values: all("input, select, textarea", (one) => (one.type === "checkbox" || one.type === "radio" ? one.checked : one.value)),
      inner, zooms: zoomed(view), focus: [...named(view.document, "a, button, input, select, textarea, summary, [tabindex]")].find(([, one]) => one === view.document.activeElement)?.[0],
    };
  };
  const dress = (view, was) => {
    const root = view.document.documentElement, theme = view.document.getElementById("theme");
    for (let i = 0; i < 3 && theme && root.dataset.theme !== was.theme; i += 1) theme.click();
    const each = (selector, map, act) => named(view.document, selector).forEach((one, name) => { if (map.has(name)) act(one, map.get(name)); });
    each("input, select, textarea", was.values, (one, value) => {
      const part = typeof value === "boolean" ? "checked" : "value";
      if (one[part] === value) return;
      one[part] = value;
      ["input", "change"].forEach((kind) => one.dispatchEvent(new view.Event(kind, { bubbles: true })));
    });
    each("button[aria-pressed]", was.pressed, (one, pressed) => { if (one.getAttribute("aria-pressed") !== pressed) one.click(); });
    each("details", was.open, (one, open) => { if (one.open !== open) one.open = open; });
  };
  const go = (view, was) => {
    if (was.anchor) {
      const one = view.document.getElementById(was.anchor.id);
      const top = one && one.getBoundingClientRect().height ? view.scrollY + one.getBoundingClientRect().top - was.anchor.top : was.top;
      view.scrollTo({ left: 0, top, behavior: "instant" });
    } else {
      view.scrollTo({ left: 0, top: was.top, behavior: "instant" });
    }
    const inner = named(view.document, scrolled);
    was.inner.forEach(([left, top], name) => inner.get(name)?.scrollTo({ left, top, behavior: "instant" }));
  };
  const zoom = (view) => {
    zooms = zooms.filter(({ plot, change }) => {
      const one = [...view.document.querySelectorAll(".js-plotly-plot")].find((other) => (other.dataset.figure ?? other.id) === plot);
      if (!one?._fullLayout || !view.Plotly) return true;
      view.Plotly.relayout(one, change);
      return false;
    });
  };

  /* --- the page ----------------------------------------------------------------------------------------------------- */

  const wait = (time) => new Promise((done) => { setTimeout(done, time); });
  const made = (hash) => {
    const frame = document.createElement("iframe");
    frame.title = `report on ${runs}`;
    frame.className = "coming";
    frame.src = `/page/${runs}${hash}`;
    return frame;
  };
  const loaded = (frame) => new Promise((done) => { frame.addEventListener("load", done, { once: true }); });
  const drawn = async (view) => {
    const began = performance.now();
    while (performance.now() - began < DRAWN) {
      const missing = [...view.document.querySelectorAll(".plot")].some((one) => {
        const box = one.getBoundingClientRect();
        return box.height > 0 && box.bottom > 0 && box.top < view.innerHeight && !one.querySelector(".main-svg");
      });
      if (!missing) return;
      await wait(30);
    }
  };
  const busy = (view) => pointer || !(view.getSelection()?.isCollapsed ?? true);
  const print = (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "p" || !shown) return;
    event.preventDefault(); /* the page, not the window that it is shown in */
    shown.contentWindow.print();
  };
  const link = (view) => { /* to what is followed, where the page would copy an address of its own */
    view.document.getElementById("link")?.addEventListener("click", async (event) => {
      event.stopImmediatePropagation();
      event.preventDefault();
      const button = event.currentTarget, said = button.textContent;
      try {
        await view.navigator.clipboard.writeText(location.origin + location.pathname + view.location.hash);
        button.textContent = "copied";
        setTimeout(() => { button.textContent = said; }, 1500);
      } catch { /* it stands in the browser's own address line, too */ }
    }, { capture: true });
  };
  const listen = (view) => {
    link(view);
    const root = view.document.documentElement;
    const theme = () => {
      if (root.dataset.theme) document.documentElement.dataset.theme = root.dataset.theme;
      else delete document.documentElement.dataset.theme;
    };
    new MutationObserver(theme).observe(root, { attributeFilter: ["data-theme"] });
    theme();
    view.addEventListener("keydown", print);
    view.addEventListener("pointerdown", () => { pointer = true; });
    ["pointerup", "pointercancel", "blur"].forEach((kind) => view.addEventListener(kind, () => { pointer = false; }));
  };
  const show = async (next) => {
    const old = shown?.contentWindow, hash = old ? old.location.hash : location.hash;
    const frame = made(hash);
    place.append(frame);
    await loaded(frame);
    const view = frame.contentWindow;
    let there = false;
    try { there = view.document.querySelector("main") !== null; } catch { /* the browser's own page: nobody answered */ }
    if (!there) { frame.remove(); return false; }
    if (old) {
      dress(view, state(old));
      go(view, state(old));
      await drawn(view);
      while (busy(old)) await wait(200);
      const was = state(old); /* the reader may have gone on meanwhile */
      dress(view, was);
      go(view, was);
      zooms = was.zooms;
      const within = document.activeElement === shown;
      frame.className = "";
      shown.remove();
      if (within) {
        view.focus();
        named(view.document, "a, button, input, select, textarea, summary, [tabindex]").get(was.focus)?.focus({ preventScroll: true });
      }
      zoom(view);
    } else {
      frame.className = "";
      if (document.activeElement === document.body) view.focus();
    }
    pointer = false;
    shown = frame;
    version = next;
    listen(view);
    return true;
  };

  /* --- the runs ----------------------------------------------------------------------------------------------------- */

  const say = (text, bad) => {
    if (told.textContent !== text) told.textContent = text;
    told.className = bad ? "bad" : "";
  };
  const line = (one) => {
    const item = document.createElement("li");
    const parts = [["b", "", one.name], ["span", `pill ${one.kind}`, one.said], ["span", "quiet", one.done], ["span", "quiet changed", one.doing || (one.changed && `changed ${one.changed}`)]];
    parts.forEach(([tag, kind, text]) => {
      if (!text) return;
      const part = document.createElement(tag);
      part.className = kind;
      part.textContent = text;
      item.append(part);
    });
    return item;
  };
  const follow = async () => {
    let pause = OFTEN;
    try {
      const answer = await fetch(`/state/${runs}`, { cache: "no-store" });
      if (answer.status === 404) throw new Error("gone");
      const now = await answer.json();
      list.replaceChildren(...now.runs.map(line));
      document.title = `${now.title} · ${now.runs.map((one) => one.said).join(", ")}`;
      if (now.version !== version && !loading) {
        loading = true;
        show(now.version).finally(() => { loading = false; });
      }
      say(now.ended ? "" : "following", false);
      if (now.ended) pause = SELDOM;
    } catch (error) {
      say(error.message === "gone" ? "this run is gone; this is the last that was seen of it" : "nobody answers: `collapse view` has ended; this is the last it showed", true);
    }
    if (shown) {
      try {
        zoom(shown.contentWindow);
        const hash = shown.contentWindow.location.hash;
        if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname);
      } catch { /* the reader follows a link within */ }
    }
    return pause;
  };
  const turn = async () => {
    const pause = document.hidden && shown ? OFTEN : await follow();
    setTimeout(turn, pause);
  };
  addEventListener("keydown", print);
  addEventListener("hashchange", () => { if (shown) shown.contentWindow.location.hash = location.hash; });
  turn();
})();
