"use strict";
// A counterexample, step by step: the row of the step is marked, the state after it is shown, what changed stands out.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("state"), slider = document.getElementById("slider");
  const rows = [...document.querySelectorAll("tr[data-row]")];
  const last = data.states.length - 1;
  let step = 0;
  document.body.classList.add("stepping");

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const keyed = (state) => new Map(state.map(([group, name, value]) => [`${group}\n${name}`, value]));

  function draw() {
    const now = data.states[step], before = step ? keyed(data.states[step - 1]) : null, names = keyed(now);
    const parts = [element("h2", "", step ? `After step ${step}` : "Before the first step")];
    parts.push(element("p", "said", step ? data.says[step - 1] : "Nothing has happened yet."));
    data.groups.forEach((group, index) => {
      const list = element("dl");
      for (const [of, name, value] of now) {
        if (of !== index) continue;
        const old = before && before.get(`${index}\n${name}`), changed = before && old !== value;
        list.append(element("dt", "", name));
        const shown = element("dd", changed ? "changed" : "", value);
        if (changed && old !== undefined) shown.append(element("span", "old", ` (was ${old})`));
        list.append(shown);
      }
      if (before)
        for (const [key, value] of before)
          if (key.startsWith(`${index}\n`) && !names.has(key)) {
            list.append(element("dt", "", key.slice(key.indexOf("\n") + 1)));
            const shown = element("dd", "changed", "—");
            shown.append(element("span", "old", ` (was ${value})`));
            list.append(shown);
          }
      if (list.children.length) parts.push(element("h3", "", group), list);
    });
    panel.replaceChildren(...parts);
    for (const row of rows) row.classList.toggle("now", Number(row.dataset.row) === step);
    slider.value = step;
    document.querySelector("[data-step=back]").disabled = document.querySelector("[data-step=first]").disabled = step === 0;
    document.querySelector("[data-step=next]").disabled = document.querySelector("[data-step=last]").disabled = step === last;
    panel.dataset.step = step;
  }
  function go(to) { step = Math.min(Math.max(to, 0), last); draw(); }
  const moves = { first: () => go(0), back: () => go(step - 1), next: () => go(step + 1), last: () => go(last) };
  for (const button of document.querySelectorAll("[data-step]")) if (moves[button.dataset.step]) button.addEventListener("click", moves[button.dataset.step]);
  slider.addEventListener("input", () => go(Number(slider.value)));
  for (const row of rows) row.addEventListener("click", () => go(Number(row.dataset.row)));
  document.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: moves.back, ArrowRight: moves.next, Home: moves.first, End: moves.last };
    if (event.target === slider || !keys[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    keys[event.key]();
    event.preventDefault();
  });
  draw();
})();
