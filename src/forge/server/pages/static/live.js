// What a page does by itself: it renews its main part when the server says that something changed, asks before
// what cannot be taken back, and knows some keys. Without this file everything works, by loading pages.
"use strict";

const body = document.body;
const main = () => document.getElementById("main");

document.addEventListener("click", (event) => {
  if (!event.target.closest("#theme")) return;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("forge-theme", next);
  document.dispatchEvent(new Event("forge:theme"));
});

// Questions.
let asked = null;
document.addEventListener("submit", (event) => {
  const form = event.target;
  const button = event.submitter;
  const words = (button && button.dataset.confirm) || form.dataset.confirm;
  if (!words || form === asked) return;
  event.preventDefault();
  const dialog = document.getElementById("confirm");
  const typed = dialog.querySelector("input");
  dialog.querySelector("#confirm-words").textContent = words;
  dialog.querySelector("#confirm-name").hidden = !form.dataset.type;
  dialog.querySelector("#confirm-what").textContent = form.dataset.type || "";
  typed.value = "";
  dialog.returnValue = "no";
  dialog.onclose = () => {
    const meant = dialog.returnValue === "yes" && (!form.dataset.type || typed.value === form.dataset.type);
    if (!meant) return;
    asked = form;
    form.requestSubmit(button && button.isConnected ? button : undefined);
    asked = null;
  };
  dialog.showModal();
});

// News.
let due = 0;
let busy = false;
async function renew() {
  if (busy) { later(); return; }
  const field = document.activeElement;
  if (document.querySelector("dialog[open]") || (field && field.matches("main input, main select, main textarea"))) { later(1500); return; }
  busy = true;
  try {
    await htmx.ajax("GET", location.pathname + location.search, { target: "#main", select: "#main", swap: "outerMorph" });
    document.dispatchEvent(new Event("forge:renewed"));
  } finally {
    busy = false;
  }
}
function later(wait) {
  clearTimeout(due);
  due = setTimeout(renew, wait || 150 + Math.random() * 250);
}
function say(state, words) {
  const place = document.getElementById("live-state");
  if (!place) return;
  place.dataset.state = state;
  place.textContent = words;
}
if (body.dataset.live) {
  let wasAway = false;
  const source = new EventSource(body.dataset.live);
  source.addEventListener("open", () => { say("live", "● live"); if (wasAway || !body.dataset.live.includes("after=")) later(); wasAway = false; });
  source.addEventListener("changed", (event) => {
    document.dispatchEvent(new CustomEvent("forge:changed", { detail: event.data }));
    later();
  });
  source.addEventListener("error", () => { wasAway = true; say("away", "○ not live: the server does not answer"); });
  addEventListener("pagehide", () => source.close());
}
setInterval(() => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    if (!/ago$|^just now$/.test(time.textContent)) continue;
    const past = (Date.now() - Date.parse(time.dateTime)) / 1000;
    const [size, word] = past >= 86400 ? [86400, "days"] : past >= 3600 ? [3600, "h"] : past >= 60 ? [60, "min"] : [1, "s"];
    const count = Math.floor(past / size);
    time.textContent = past < 10 ? "just now" : `${count} ${word === "days" && count === 1 ? "day" : word} ago`;
  }
}, 10000);

// Keys.
let before = "";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement.closest("[data-row]"));
  const go = (step) => { const row = rows[Math.max(0, Math.min(rows.length - 1, at + step))]; if (row) row.focus(); };
  if (event.key === "?") document.getElementById("keys").showModal();
  else if (before === "g" && event.key === "h") location.href = "/";
  else if (before === "g" && event.key === "v") location.href = "/velocity";
  else if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (event.key === "f") {
    const failures = [...document.querySelectorAll("[data-failed]")];
    const next = failures[(failures.indexOf(document.activeElement) + 1) % failures.length];
    if (next) next.focus();
  } else if (event.key === "/") {
    const field = document.querySelector("input[type=search]");
    if (field) { event.preventDefault(); field.focus(); }
  }
  before = event.key;
});
