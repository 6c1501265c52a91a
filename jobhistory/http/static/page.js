// What a page cannot do without a script: times in the viewer's zone, what runs counting on, news as they come.
"use strict";

const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function localise() {
  for (const time of document.querySelectorAll("time:not([title])")) {
    time.title = time.dateTime.replace("T", " ").replace("Z", " UTC");
    time.textContent = whole.format(new Date(time.dateTime));
  }
}

function span(seconds) {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86400)}d ${Math.floor((seconds % 86400) / 3600)}h`;
}

function tick() {
  for (const running of document.querySelectorAll("[data-since]")) {
    const seconds = Math.floor((Date.now() - Date.parse(running.dataset.since)) / 1000);
    running.textContent = span(Math.max(0, seconds));
  }
}

// The page as it is now takes the place of what is shown; where the reader stands is kept.
async function renew() {
  const response = await fetch(location.href, { cache: "no-cache" });
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const main = document.getElementById("main");
  const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const open = [...main.querySelectorAll("details")].map((details) => details.open);
  main.replaceChildren(...fresh.getElementById("main").childNodes);
  main.querySelectorAll("details").forEach((details, n) => { if (open[n]) details.open = true; });
  if (focused) [...main.querySelectorAll("a[href]:not([tabindex])")].find((a) => a.getAttribute("href") === focused)?.focus();
  document.title = fresh.title;
  localise();
  tick();
}

// Only while somebody looks: a browser has few connections to one server, and each stream holds one.
let source = null;

function follow() {
  const shown = document.getElementById("live");
  let due = null;
  let isFirst = document.readyState !== "complete";
  source ??= Object.assign(new EventSource(document.body.dataset.live), {
    onopen() {
      shown.hidden = false;
      if (!isFirst) renew();
      isFirst = false;
    },
    onerror() {
      shown.hidden = true;
      // A browser comes back by itself where nobody answered, but not where a proxy, or the server, said no.
      if (this.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(() => { if (!document.hidden) follow(); }, 3000);
      }
    },
    onmessage() { due ??= setTimeout(() => { due = null; renew(); }, 500); },
  });
}

function rest() {
  source?.close();
  source = null;
}

localise();
tick();
setInterval(tick, 1000);
if (document.body.dataset.live) {
  follow();
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : follow()));
}
