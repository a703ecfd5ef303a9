// Live parts and keys. Every page can be read, and everything done, without this file.
"use strict";

document.documentElement.classList.add("scripted");
// On a phone the pages stand in one line that is longer than the screen.
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// --- live parts: the server renders them, this only puts them in the place of what they replace ----------------------

function show(place, text) {
  const focused = document.activeElement;
  const focusedAt = place.contains(focused) ? focused.getAttribute("href") : null;
  const parsed = new DOMParser().parseFromString(text, "text/html");
  place.replaceChildren(...parsed.body.childNodes);
  if (focusedAt !== null) {
    const again = [...place.querySelectorAll("a[href]")].find(
      (link) => link.getAttribute("href") === focusedAt && link.getClientRects().length > 0,
    );
    again?.focus({ preventScroll: true });
  }
}

function isSelecting(place) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && place.contains(selection.anchorNode);
}

function follow(place) {
  const pause = document.querySelector("[data-pause]");
  const isPaused = () => pause?.getAttribute("aria-pressed") === "true";
  let source = null;

  function open() {
    if (source !== null || isPaused() || document.hidden) {
      return;
    }
    source = new EventSource(place.dataset.live);
    source.addEventListener("part", (event) => {
      // Who is marking something to copy it would lose it.
      if (!isSelecting(place)) {
        show(place, event.data);
      }
    });
    source.addEventListener("done", () => {
      close();
      location.reload();
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  // A page that nobody sees costs nothing.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  pause?.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!isPaused()));
    pause.textContent = isPaused() ? "Go on" : "Pause";
    if (isPaused()) {
      close();
    } else {
      open();
    }
  });
  open();
}

document.querySelectorAll("[data-live]").forEach(follow);

// --- keys: / searches, g and a letter goes to a page -----------------------------------------------------------------

const GO_MILLISECONDS = 1500;
let goUntil = 0;

function isTyping(target) {
  return target.closest("input, select, textarea, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
    return;
  }
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search !== null) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  } else if (event.key === "g") {
    goUntil = event.timeStamp + GO_MILLISECONDS;
  } else if (event.timeStamp < goUntil) {
    goUntil = 0;
    document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`)?.click();
  }
});

// --- a form is sent once, however often its button is pressed --------------------------------------------------------

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") {
    return;
  }
  if (form.dataset.sent) {
    event.preventDefault();
  }
  form.dataset.sent = "yes";
});

// A page that comes back out of the browser's memory has not sent anything yet.
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
});
