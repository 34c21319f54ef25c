// Puts the server's rows in place. Without it the page is complete and reloads itself.
"use strict";
(() => {
  const SILENT_MS = 10000; // the server speaks at least every 3 s
  const LOOK_MS = 1000;
  const AGAIN_MS = 10000;
  const byId = (id) => document.getElementById(id);
  const list = byId("rows"), link = byId("link"), held = byId("held"), stale = byId("stale");
  const rows = new Map(), levels = new Map();
  let order = [], source, heardAt = 0, triedAt = 0, pointed = false;

  for (const row of list.children) {
    rows.set(row.dataset.row, row);
    levels.set(row.dataset.row, Number(row.dataset.level));
  }

  function parse(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    return holder.content.firstElementChild;
  }

  // Only what differs is touched, so an open row stays open and focus stays where it is.
  function patch(id, html) {
    const fresh = parse(html), row = rows.get(id);
    if (!row) {
      rows.set(id, fresh);
      list.append(fresh);
      return;
    }
    row.className = fresh.className;
    for (const part of ["summary", ".detail"]) {
      const old = row.querySelector(part), now = fresh.querySelector(part);
      if (old.innerHTML !== now.innerHTML) old.innerHTML = now.innerHTML;
    }
  }

  // While the order is held, who is off the page keeps a place in it, and no score.
  function empty(row) {
    row.className = "row none left";
    row.querySelector(".points").textContent = "—";
    row.querySelector(".verdict").textContent = "No current score, because this patient is not on the page any more.";
    row.querySelector(".trend")?.remove();
    row.querySelector(".vitals").textContent = "";
    row.querySelector(".detail").textContent = "";
  }

  // A patient whose score lapsed keeps the level last known: coming back to it is not news.
  function announce(states) {
    const worse = states.filter(({ id, level }) => level >= 2 && level > (levels.get(id) || 0));
    for (const { id, level } of states) if (level > 0) levels.set(id, level);
    if (worse.length) byId("announcer").textContent = `Escalation. ${worse.map((row) => row.announcement).join(". ")}.`;
  }

  const inside = (element) => element !== list && (list.contains(element) || held.contains(element));

  const touched = () => pointed || inside(document.activeElement);

  const arranged = () => list.children.length === order.length && order.every((id, i) => list.children[i] === rows.get(id));

  function arrange(force) {
    if (arranged()) {
      held.hidden = true;
      return;
    }
    if (touched() && !force) {
      held.hidden = false;
      return;
    }
    const focused = document.activeElement;
    held.hidden = true;
    for (const [id, row] of rows) {
      if (!order.includes(id)) {
        row.remove();
        rows.delete(id);
        levels.delete(id);
      }
    }
    order.forEach((id, i) => {
      const row = rows.get(id);
      if (list.children[i] !== row) list.insertBefore(row, list.children[i] || null);
    });
    // A moved row loses focus, and so does a button that was hidden.
    if (inside(focused)) (list.contains(focused) ? focused : list).focus();
  }

  function show(state) {
    for (const [name, text] of Object.entries(state.fields)) {
      for (const field of document.querySelectorAll(`[data-field="${name}"]`)) {
        if (field.textContent !== text) field.textContent = text;
      }
    }
    document.title = state.fields.title;
    for (const { id, html } of state.rows) if (html !== null) patch(id, html);
    order = state.rows.map(({ id }) => id);
    for (const [id, row] of rows) if (!order.includes(id)) empty(row);
    byId("nobody").hidden = order.length > 0;
    announce(state.rows);
    arrange(false);
  }

  function connected(live) {
    link.dataset.link = live ? "live" : "lost";
    link.textContent = live ? "live" : "not live";
    if (!live && stale.hidden) byId("since").textContent = document.querySelector("[data-field=clock]").textContent;
    stale.classList.remove("starting");
    stale.hidden = live;
    document.body.classList.toggle("stale", !live);
    if (!live) document.title = `Not live: ${document.title.replace(/^(Not live: )?(\(\d+\) )?/, "")}`;
  }

  function connect() {
    if (source) source.close();
    triedAt = Date.now();
    source = new EventSource("/ward/feed");
    source.onmessage = (event) => {
      heardAt = Date.now();
      show(JSON.parse(event.data));
      connected(true);
    };
    source.addEventListener("beat", () => { heardAt = Date.now(); });
    source.onerror = () => connected(false);
  }

  // Also when the machine wakes up or the tab is looked at again: timers stood still, and so did the page.
  function look() {
    if (Date.now() - heardAt < SILENT_MS && source.readyState !== EventSource.CLOSED) return;
    if (heardAt) connected(false);
    if (Date.now() - triedAt >= AGAIN_MS) connect();
  }

  // A finger has no place to rest: after a tap only focus holds the order.
  list.addEventListener("pointerenter", (event) => { pointed = event.pointerType !== "touch"; });
  list.addEventListener("pointerleave", () => { pointed = false; arrange(false); });
  for (const part of [list, held]) part.addEventListener("focusout", () => setTimeout(arrange, 0, false));
  byId("sort").addEventListener("click", () => arrange(true));
  // Escape closes the row that focus is in; where none is open it lets the order go.
  list.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = document.activeElement.closest("details[open]");
    if (open) open.open = false;
    else arrange(true);
  });
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pageshow", look);
  setInterval(look, LOOK_MS);
  link.textContent = "connecting";
  connect();
})();
