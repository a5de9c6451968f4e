// Copy buttons, tabs, and forgetting a shown key. Works on plain http too, where the Clipboard API is not there.
"use strict";

(() => {
  const select = (element) => {
    if (element instanceof HTMLInputElement) {
      element.focus();
      element.select();
      return;
    }
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };

  const copy = async (element) => {
    const text = element instanceof HTMLInputElement ? element.value : element.textContent;
    if (navigator.clipboard && window.isSecureContext) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch {
        // Permission denied: the older way below may still be allowed.
      }
    }
    select(element);
    return document.execCommand("copy");
  };

  const answer = (button, words, done) => {
    button.dataset.label ??= button.textContent;
    button.textContent = words;
    button.classList.toggle("kd-copied", done);
    clearTimeout(Number(button.dataset.timer));
    button.dataset.timer = setTimeout(() => {
      button.textContent = button.dataset.label;
      button.classList.remove("kd-copied");
    }, 2000);
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const done = await copy(document.getElementById(button.dataset.copy));
    answer(button, done ? "Copied" : "Press Ctrl+C", done); // where nothing is allowed, the text is selected at least
  });

  const show = (tab) => {
    for (const other of tab.parentElement.children) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
    }
  };

  document.addEventListener("click", (event) => {
    const tab = event.target.closest(".kd-tabs [role=tab]");
    if (tab) show(tab);
  });

  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.(".kd-tabs [role=tab]");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!tab || !step) return;
    const tabs = [...tab.parentElement.children];
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    show(next);
    next.focus();
  });

  // A double click makes one key, not two of which one is never seen.
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("#apikey_form, .kd-page form, .kd-toolbar form");
    if (!form) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
  });

  // "Select all" over a list of check boxes.
  document.addEventListener("change", (event) => {
    const all = event.target.closest("[data-select-all]");
    if (!all) return;
    const boxes = document.querySelectorAll(`#${all.dataset.selectAll} input[type=checkbox]:not(:disabled)`);
    for (const box of boxes) box.checked = all.checked;
  });

  // A page with a key must not come back by the back button: the browser may have kept it whole in memory.
  window.addEventListener("pagehide", () => {
    for (const part of document.querySelectorAll("[data-secret]")) part.remove();
  });
  window.addEventListener("pageshow", (event) => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
    if (event.persisted && document.body.classList.contains("kd-new-key")) window.location.reload();
  });
})();
