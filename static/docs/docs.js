// Copy buttons, language tabs that move together, and the mark of the section in view.
// The page is complete without this file: the buttons stay hidden then.
"use strict";

const words = document.body.dataset;
const toast = document.querySelector(".toast");
let toastTimer;

function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    toast.classList.remove("shown");
    toast.textContent = "";
  }, 2000);
}

// Browsers give navigator.clipboard to https and localhost only; a gateway on a plain-http host needs the old way.
function copyBySelection(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.className = "hide";
  document.body.append(field);
  const focused = document.activeElement;
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // refused (permission, frame): the old way may still work
    }
  }
  return copyBySelection(text);
}

function textOf(button) {
  if (button.classList.contains("copy-all")) {
    const ids = button.closest(".vendor").querySelectorAll(".model-id");
    return Array.from(ids, (id) => id.textContent).join("\n");
  }
  return button.dataset.copy ?? button.closest(".code").querySelector("code").textContent;
}

async function onCopy(event) {
  const button = event.currentTarget;
  if (!(await copy(textOf(button)))) {
    say(words.failed);
    return;
  }
  say(words.copied);
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1600);
}

for (const button of document.querySelectorAll(".copy, .copy-all")) {
  button.hidden = false;
  button.addEventListener("click", onCopy);
}

const languages = document.querySelectorAll(".tabs input");
for (const input of languages) {
  input.addEventListener("change", () => {
    const before = input.getBoundingClientRect().top;
    for (const other of languages) other.checked = other.value === input.value;
    // Panels above may have grown: keep what was clicked where it was.
    scrollBy({ top: input.getBoundingClientRect().top - before, behavior: "instant" });
  });
}

const links = new Map();
for (const link of document.querySelectorAll(".contents a")) links.set(link.hash.slice(1), link);
const sections = Array.from(links.keys(), (id) => document.getElementById(id));
const strip = document.querySelector(".contents");
let current;

function markSection() {
  const line = innerHeight * 0.3;
  const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
  const passed = sections.filter((section) => section.getBoundingClientRect().top <= line);
  const link = links.get((atEnd ? sections.at(-1) : (passed.at(-1) ?? sections[0])).id);
  if (link === current) return;
  current?.removeAttribute("aria-current");
  link.setAttribute("aria-current", "location");
  current = link;
  if (strip.scrollWidth > strip.clientWidth) {
    strip.scrollTo({ left: link.offsetLeft - strip.clientWidth / 2 + link.offsetWidth / 2 });
  }
}

let waiting = false;
addEventListener(
  "scroll",
  () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      markSection();
    });
  },
  { passive: true },
);
markSection();
