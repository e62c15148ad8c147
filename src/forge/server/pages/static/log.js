// A log of any length: only the lines in sight are in the page. Follows while the step runs; colours, search, links to
// lines. Text goes in as text, never as markup.
"use strict";

const LINE = 20;
const PIECE = 524288;

function startLog(view) {
  const pane = view.querySelector(".log");
  const tools = view.querySelector(".log-tools");
  const field = tools.querySelector("input[type=search]");
  const told = tools.querySelector("[role=status]");
  const follow = tools.querySelector("[data-do=follow]");
  const size = document.createElement("div");
  size.className = "size";
  pane.append(size);
  pane.hidden = tools.hidden = false;
  const lines = [];
  let rest = "";
  let offset = 0;
  let here = Number((location.hash.match(/^#L(\d+)$/) || [])[1] || 0);
  let found = [];
  let atFound = -1;
  let drawn = false;
  if (here) follow.checked = false;
  const over = new AbortController();
  const listen = (name, act) => addEventListener(name, act, { signal: over.signal });

  function add(text) {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    for (const line of parts) lines.push(line.endsWith("\r") ? line.slice(0, -1) : line);
    later();
  }
  function later() {
    if (drawn) return;
    drawn = true;
    requestAnimationFrame(draw);
  }
  function draw() {
    drawn = false;
    const count = lines.length + (rest ? 1 : 0);
    size.style.height = `${count * LINE}px`;
    if (follow.checked) pane.scrollTop = count * LINE;
    const from = Math.max(0, Math.floor(pane.scrollTop / LINE) - 20);
    const to = Math.min(count, from + Math.ceil(pane.clientHeight / LINE) + 40);
    const fresh = document.createDocumentFragment();
    for (let number = from; number < to; number++) fresh.append(row(number));
    for (const old of pane.querySelectorAll(".line")) old.remove();
    pane.append(fresh);
  }
  function row(number) {
    const line = document.createElement("div");
    line.className = number + 1 === here ? "line here" : "line";
    line.style.top = `${number * LINE}px`;
    const link = document.createElement("a");
    link.href = `#L${number + 1}`;
    link.textContent = number + 1;
    link.tabIndex = -1;
    line.append(link);
    paint(line, number < lines.length ? lines[number] : rest);
    return line;
  }
  function paint(line, text) {
    let marks = [];
    // Colours are read; whatever else steers a terminal (ECMA-48: other sequences, titles, links) is left out.
    for (const part of text.split(/(\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?)/)) {
      const code = /^\x1b\[([0-9;]*)m$/.exec(part);
      if (code) {
        const numbers = code[1].split(";").map(Number);
        while (numbers.length) {
          const number = numbers.shift();
          if (number === 38 || number === 48) numbers.splice(0, numbers[0] === 5 ? 2 : 4);
          else if (number === 0) marks = [];
          else if (number === 22) marks = marks.filter((mark) => mark !== "a1" && mark !== "a2");
          else if (number === 23 || number === 24) marks = marks.filter((mark) => mark !== `a${number - 20}`);
          else if (number >= 1 && number <= 4) marks.push(`a${number}`);
          else if ((number >= 30 && number <= 37) || (number >= 90 && number <= 97)) {
            marks = marks.filter((mark) => mark[0] !== "c");
            marks.push(`c${number % 10}`);
          } else if (number === 39) marks = marks.filter((mark) => mark[0] !== "c");
        }
      } else if (part && part[0] !== "\x1b") {
        const span = document.createElement("span");
        span.className = marks.join(" ");
        highlight(span, part);
        line.append(span);
      }
    }
  }
  function highlight(span, text) {
    const word = field.value;
    if (!word) { span.textContent = text; return; }
    const low = text.toLowerCase();
    let at = 0;
    for (let next = low.indexOf(word.toLowerCase()); next >= 0; next = low.indexOf(word.toLowerCase(), at)) {
      span.append(text.slice(at, next));
      const mark = document.createElement("mark");
      mark.textContent = text.slice(next, next + word.length);
      span.append(mark);
      at = next + word.length;
    }
    span.append(text.slice(at));
  }
  function search() {
    const word = field.value.toLowerCase();
    found = [];
    if (word) lines.forEach((line, number) => { if (line.toLowerCase().includes(word)) found.push(number); });
    atFound = -1;
    told.textContent = word ? `${found.length} lines` : "";
    later();
  }
  function next() {
    if (!found.length) return;
    atFound = (atFound + 1) % found.length;
    told.textContent = `${atFound + 1} of ${found.length} lines`;
    show(found[atFound] + 1);
  }
  function show(number) {
    follow.checked = false;
    here = number;
    pane.scrollTop = Math.max(0, (number - 1) * LINE - pane.clientHeight / 3);
    later();
  }

  pane.addEventListener("scroll", () => {
    if (pane.scrollTop + pane.clientHeight < pane.scrollHeight - 3 * LINE) follow.checked = false;
    later();
  });
  field.addEventListener("input", search);
  field.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); next(); } });
  tools.querySelector("[data-do=next]").addEventListener("click", next);
  follow.addEventListener("change", later);
  listen("hashchange", () => {
    const number = Number((location.hash.match(/^#L(\d+)$/) || [])[1] || 0);
    if (number) show(number);
  });
  listen("resize", later);

  async function load() {
    const decoder = new TextDecoder();
    for (;;) {
      const answer = await fetch(`${view.dataset.url}?offset=${offset}&limit=${PIECE}`, { signal: over.signal });
      if (!answer.ok) { told.textContent = `the log cannot be read (${answer.status})`; return; }
      const data = new Uint8Array(await answer.arrayBuffer());
      offset += data.length;
      add(decoder.decode(data, { stream: true }));
      if (offset >= Number(answer.headers.get("X-Forge-Log-Size"))) {
        if (here) show(here);
        if (answer.headers.get("X-Forge-Log-Ended") !== "true") grow();
        return;
      }
    }
  }
  function grow() {
    if (over.signal.aborted) return;
    const source = new EventSource(`${view.dataset.url}?after=${offset}`);
    over.signal.addEventListener("abort", () => source.close());
    source.addEventListener("message", (event) => {
      const piece = JSON.parse(event.data);
      add(piece.text);
    });
    source.addEventListener("end", () => source.close());
    listen("pagehide", () => source.close());
  }
  load().catch((error) => { if (error.name !== "AbortError") told.textContent = "the log cannot be read"; });
  return () => over.abort();
}

let shownLog = null;
let endLog = () => {};
function showLog() {
  const view = document.querySelector(".log-view");
  if (view === shownLog) return;
  endLog();
  shownLog = view;
  endLog = view ? startLog(view) : () => {};
}
showLog();
document.addEventListener("forge:renewed", showLog);
