"use strict";
(() => {
  const EVERY = 2000, PATIENCE = 5000;
  const root = document.documentElement, notice = document.getElementById("notice");
  let timer, asking = false, answered = new Date();

  /* Replaces a section that changed, unless text in it is selected; keeps what was open, scrolled or focused. */
  function swap(old, fresh) {
    const selection = getSelection();
    if (old.isEqualNode(fresh) || (!selection.isCollapsed && selection.containsNode(old, true))) return;
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    for (const before of old.querySelectorAll("[id]")) {
      const after = fresh.querySelector("#" + CSS.escape(before.id));
      if (after && before.open) after.open = true;
    }
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.id, box.scrollTop, box.scrollLeft]);
    old.replaceWith(fresh);
    for (const [id, top, left] of scrolled) document.getElementById(id)?.scrollTo({ top, left, behavior: "instant" });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function show(page) {
    if (page.documentElement.dataset.run !== root.dataset.run) return location.reload();
    for (const fresh of page.querySelectorAll("[data-live]")) swap(document.getElementById(fresh.id), fresh);
    document.title = page.title;
    document.getElementById("icon").href = page.getElementById("icon").href;
    showInterval();
  }

  function showInterval() { document.getElementById("refreshing").textContent = "every " + EVERY / 1000 + " s"; }

  async function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.status);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      answered = new Date();
      notice.textContent = "";
      document.body.classList.remove("gone");
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
  showInterval();
  timer = setTimeout(ask, EVERY);
})();
