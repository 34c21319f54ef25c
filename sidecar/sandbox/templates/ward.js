// Puts the server's rows in place. Without it the page is complete and reloads itself.
"use strict";
(() => {
  const SILENT_MS = 90000; // the ward clock alone changes the page every minute
  const byId = (id) => document.getElementById(id);
  const list = byId("rows"), link = byId("link"), held = byId("held"), stale = byId("stale");
  const rows = new Map(), levels = new Map();
  let order = [], source, heardAt = 0, pointed = false;

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

  // A patient whose score lapsed keeps the level last known: coming back to it is not news.
  function announce(states) {
    const worse = states.filter(({ id, level }) => level >= 2 && level > (levels.get(id) || 0));
    for (const { id, level } of states) if (level > 0) levels.set(id, level);
    if (worse.length) byId("announcer").textContent = `Escalation. ${worse.map((row) => row.announcement).join(". ")}.`;
  }

  const touched = () => pointed || list.matches(":focus-within");

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
    byId("nobody").hidden = order.length > 0;
    announce(state.rows);
    arrange(false);
  }

  function connected(live, starting = false) {
    link.dataset.link = live ? "live" : "lost";
    link.textContent = live ? "live" : starting ? "connecting" : "reconnecting";
    if (!live && stale.hidden) byId("since").textContent = document.querySelector("[data-field=clock]").textContent;
    stale.hidden = live || starting;
    document.body.classList.toggle("stale", !stale.hidden);
  }

  function connect() {
    if (source) source.close();
    source = new EventSource("/ward/feed");
    source.onmessage = (event) => {
      heardAt = Date.now();
      show(JSON.parse(event.data));
      connected(true);
    };
    source.onerror = () => connected(false);
  }

  // A finger has no place to rest: after a tap only focus holds the order.
  list.addEventListener("pointerenter", (event) => { pointed = event.pointerType !== "touch"; });
  list.addEventListener("pointerleave", () => { pointed = false; arrange(false); });
  list.addEventListener("focusout", () => setTimeout(arrange, 0, false));
  byId("sort").addEventListener("click", () => arrange(true));
  setInterval(() => {
    const closed = source.readyState === EventSource.CLOSED;
    if (!closed && Date.now() - heardAt < SILENT_MS) return;
    connected(false);
    connect();
  }, 10000);
  connected(false, true);
  connect();
})();
