"use strict";
(() => {
  const EVERY = 2000, PATIENCE = 5000, FEW = 8;
  const root = document.documentElement, notice = document.getElementById("notice");
  const filter = document.getElementById("filter");
  let timer, asking = false, answered = new Date();

  /* Replaces a section that changed, unless text in it is selected; keeps what was open or focused. */
  function swap(old, fresh) {
    const selection = getSelection();
    if (old.isEqualNode(fresh) || (!selection.isCollapsed && selection.containsNode(old, true))) return;
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    for (const before of old.querySelectorAll("[id]")) {
      const after = fresh.querySelector("#" + CSS.escape(before.id));
      if (after && before.open) after.open = true;
    }
    old.replaceWith(fresh);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function show(page) {
    if (page.documentElement.dataset.run !== root.dataset.run) return location.reload();
    for (const fresh of page.querySelectorAll("[data-live]")) swap(document.getElementById(fresh.id), fresh);
    document.title = page.title;
    document.getElementById("icon").href = page.getElementById("icon").href;
    showInterval();
    applyFilter();
    tick();
  }

  function showInterval() { document.getElementById("refreshing").textContent = "every " + EVERY / 1000 + " s"; }

  /* Shows the partitions whose name, state or wait has every word of the filter, folded ones too. */
  function applyFilter() {
    if (!filter) return;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean), rows = document.querySelectorAll("#partitions tbody tr");
    const calm = document.getElementById("calm");
    let shown = 0;
    for (const row of rows) {
      const text = [0, 1, 7].map((index) => row.cells[index].textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    for (const table of document.querySelectorAll("#partitions table"))
      table.hidden = words.length > 0 && !table.querySelector("tbody tr:not([hidden])");
    if (calm && words.length) {
      if (!("unfiltered" in filter.dataset)) filter.dataset.unfiltered = calm.open;
      calm.open = true;
    } else if (calm && "unfiltered" in filter.dataset) {
      calm.open = filter.dataset.unfiltered === "true";
    }
    if (!words.length) delete filter.dataset.unfiltered;
    const count = words.length ? `${shown} of ${rows.length}` : "", place = document.getElementById("filter-count");
    if (place.textContent !== count) place.textContent = count;
    document.getElementById("filter-box").hidden = rows.length <= FEW && !words.length;
  }

  /* As the server writes durations: their two largest units. */
  function span(seconds) {
    let left = Math.max(0, Math.round(seconds));
    if (left < 60) return left + " s";
    const found = [];
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      const count = Math.floor(left / length);
      left -= count * length;
      if (count || found.length) found.push([count, unit]);
      if (found.length === 2) break;
    }
    return found.filter(([count]) => count).map((each) => each.join(" ")).join(" ");
  }

  /* Counts ages up and waits down between two refreshes; while no answer comes, they stand still like the rest. */
  function tick() {
    if (document.body.classList.contains("gone")) return;
    for (const each of document.querySelectorAll("[data-up], [data-down]")) {
      each.shownAt ??= performance.now();
      const passed = (performance.now() - each.shownAt) / 1000;
      if (passed < 0.5) continue;
      const text = span("down" in each.dataset ? each.dataset.down - passed : +each.dataset.up + passed);
      if (each.textContent !== text) each.textContent = text;
    }
  }

  async function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      answered = new Date();
      notice.textContent = "";
      document.body.classList.remove("gone");
      show(page);
    } catch {
      document.body.classList.add("gone");
      const since = answered.toISOString().slice(11, 19);
      const text = `The daemon has not answered since ${since} UTC. This page shows its state at that time and tries again.`;
      if (notice.textContent !== text) notice.textContent = text;
      document.title = "No answer · " + document.title.replace(/^No answer · /, "");
    }
    asking = false;
    timer = setTimeout(ask, EVERY);
  }

  document.addEventListener("visibilitychange", ask);
  filter?.addEventListener("input", applyFilter);
  showInterval();
  applyFilter();  /* a reload may keep the filter's text */
  tick();
  setInterval(tick, 1000);
  timer = setTimeout(ask, EVERY);
})();
