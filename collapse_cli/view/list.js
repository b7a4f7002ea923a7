"use strict";
/* Follows the list: its lines are asked for again and replaced when they say something else. */
(() => {
  const lines = document.getElementById("lines"), told = document.getElementById("told");
  const button = document.getElementById("together");
  const ticked = new Set();
  let last = "";

  const show = () => {
    lines.querySelectorAll("input").forEach((one) => { one.checked = ticked.has(one.value); });
    button.disabled = ticked.size < 2;
  };
  lines.addEventListener("change", (event) => {
    if (event.target.checked) ticked.add(event.target.value);
    else ticked.delete(event.target.value);
    show();
  });
  button.addEventListener("click", () => { location.href = `/run/${[...ticked].join(",")}`; });

  const replace = (text) => {
    if (text === last) return;
    last = text;
    const at = document.activeElement, focused = lines.contains(at) ? at.value || at.getAttribute("href") : "";
    lines.innerHTML = text; /* escaped by the server, and no script runs that is not one of its files */
    const there = new Set([...lines.querySelectorAll("input")].map((one) => one.value));
    ticked.forEach((name) => { if (!there.has(name)) ticked.delete(name); });
    show();
    if (focused) [...lines.querySelectorAll("input, a")].find((one) => (one.value || one.getAttribute("href")) === focused)?.focus();
  };
  const step = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch("/lines", { cache: "no-store" });
        if (!answer.ok) throw new Error(String(answer.status));
        replace(await answer.text());
        told.textContent = "";
      } catch {
        told.textContent = "nobody answers: `collapse view` has ended; this is the last it said";
      }
    }
    setTimeout(step, 2000);
  };
  setTimeout(step, 2000);
})();
