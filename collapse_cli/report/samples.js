"use strict";
/* The browser of samples: what page.js chose, a search, filters and an order; texts are only ever written as text. */
(() => {
  const page = globalThis.collapsePage;
  const kept = JSON.parse(document.getElementById("texts-kept").textContent);
  const place = document.getElementById("browser");
  if (!place || !kept.texts) return;
  const STEP = 12;
  const [SERIES, SEED, GENERATION, PROMPT, TEXT, NLL, SPANS, FLAGS] = [0, 1, 2, 3, 4, 5, 6, 7];
  const one = (tag, kind, text) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const unique = (at) => [...new Set(kept.texts.map((text) => text[at]))].sort((a, b) => a - b);
  const flags = [...new Set(kept.texts.flatMap((text) => text[FLAGS]))].sort();
  const measured = kept.texts.some((text) => text[NLL] !== null);

  /* --- what is asked for -------------------------------------------------------------------------------------------- */

  const fields = {};
  const field = (name, label, options) => {
    const box = one("label", "", label), input = one(options ? "select" : "input");
    input.id = `browse-${name}`;
    if (options) options.forEach(([value, said]) => { const option = one("option", "", said); option.value = value; input.append(option); });
    else Object.assign(input, { type: "search", placeholder: "words in a prompt or a text", autocomplete: "off", spellcheck: false });
    box.append(input);
    fields[name] = input;
    return box;
  };
  const all = (said, values, say) => [["", said], ...values.map((value) => [String(value), say(value)])];
  const filters = one("div", "filters");
  filters.append(
    field("find", "search"),
    field("policy", "policy", all("all", unique(SERIES), (s) => page.data.series[s].label)),
    field("generation", "generation", all("all", unique(GENERATION), String)),
    field("seed", "seed", all("all", unique(SEED), String)),
    field("only", "what is odd", all("all", flags, String)),
    field("order", "order", [["", "by generation"], ...(measured ? [["likely", "likeliest under generation 0 first"], ["odd", "most surprising first"]] : []), ["long", "longest first"]]),
  );
  const count = one("p", "reading"), list = one("ol", "found"), more = one("button", "", "more");
  more.type = "button";
  count.setAttribute("role", "status");
  place.append(filters, count, list, more);
  let shown = STEP;

  /* --- a text ------------------------------------------------------------------------------------------------------- */

  /* line breaks, tabs and runs of spaces are to be seen, as in text.py */
  const white = (into, text, kind) => {
    const home = kind ? one("span", kind) : into;
    text.split(/(\n+|\t| {2,})/).forEach((part, i) => {
      if (i % 2 === 0) { if (part) home.append(part); return; }
      const sign = { "\n": "⏎", "\t": "⇥", " ": "␣" }[part[0]];
      home.append(one("span", "ws", part.length > (part[0] === "\n" ? 2 : 8) ? `${sign}×${part.length}` : sign.repeat(part.length)));
      if (part[0] === "\n") home.append("\n");
    });
    if (kind) into.append(home);
  };
  const found = (text, words) => { /* where the words that are searched for stand */
    const lower = text.toLowerCase(), spans = [];
    words.forEach((word) => {
      for (let at = lower.indexOf(word); at >= 0 && spans.length < 200; at = lower.indexOf(word, at + word.length)) spans.push([at, at + word.length, "hit"]);
    });
    return lower.length === text.length ? spans.sort((a, b) => a[0] - b[0]) : [];
  };
  const write = (into, text, spans) => {
    let end = 0;
    spans.forEach(([start, stop, kind]) => {
      if (start < end) return;
      white(into, text.slice(end, start));
      if (kind === "hit") into.append(one("mark", "", text.slice(start, stop)));
      else white(into, text.slice(start, stop), kind);
      end = stop;
    });
    white(into, text.slice(end));
  };
  const item = (text, words) => {
    const made = one("li"), head = one("header"), body = one("p"), said = one("span", "said");
    head.append(one("b", "", page.data.series[text[SERIES]].label), one("span", "", `generation ${text[GENERATION]}`), one("span", "", `seed ${text[SEED]}`));
    if (text[NLL] !== null) head.append(one("span", "", `perplexity under generation 0: ${Number(Math.exp(Math.min(text[NLL], 690)).toPrecision(3)).toLocaleString("en-US")}`));
    text[FLAGS].forEach((flag) => head.append(one("span", "tag", flag)));
    const prompt = kept.prompts[text[PROMPT]];
    write(said, prompt, found(prompt, words));
    body.append(said);
    write(body, text[TEXT], words.length ? found(text[TEXT], words) : text[SPANS]);
    made.append(head, body);
    return made;
  };

  /* --- the list ----------------------------------------------------------------------------------------------------- */

  const asked = () => {
    const value = (name) => fields[name].value;
    const words = value("find").toLowerCase().split(/\s+/).filter(Boolean);
    const is = (name, at) => (text) => value(name) === "" || String(text[at]) === value(name);
    const tests = [
      (text) => !page.off(text[SERIES]) && !page.hidden.seed.has(text[SEED]),
      is("policy", SERIES), is("generation", GENERATION), is("seed", SEED),
      (text) => value("only") === "" || text[FLAGS].includes(value("only")),
      (text) => words.every((word) => text[TEXT].toLowerCase().includes(word) || kept.prompts[text[PROMPT]].toLowerCase().includes(word)),
    ];
    const texts = kept.texts.filter((text) => tests.every((test) => test(text)));
    const by = {
      likely: (a, b) => (a[NLL] ?? Infinity) - (b[NLL] ?? Infinity), odd: (a, b) => (b[NLL] ?? -Infinity) - (a[NLL] ?? -Infinity),
      long: (a, b) => b[TEXT].length - a[TEXT].length, "": (a, b) => a[GENERATION] - b[GENERATION],
    }[value("order")];
    return [texts.sort(by ?? (() => 0)), words];
  };
  const show = () => {
    const [texts, words] = asked();
    count.textContent = `${texts.length.toLocaleString("en-US")} of ${kept.texts.length.toLocaleString("en-US")} texts${texts.length > shown ? `, the first ${shown} shown` : ""}`;
    list.replaceChildren(...texts.slice(0, shown).map((text) => item(text, words)));
    more.hidden = texts.length <= shown;
  };
  const names = Object.keys(fields);
  const changed = () => {
    shown = STEP;
    names.forEach((name) => page.said.set(`text-${name}`, fields[name].value));
    show();
    page.keep();
  };
  names.forEach((name) => fields[name].addEventListener("input", changed));
  more.addEventListener("click", () => { shown += 4 * STEP; show(); });
  document.addEventListener("chosen", show);
  const given = page.parts();
  names.forEach((name) => {
    const value = given.get(`text-${name}`) ?? "";
    fields[name].value = value;
    if (fields[name].value === value) page.said.set(`text-${name}`, value);
    else fields[name].value = "";
  });
  show();
})();
