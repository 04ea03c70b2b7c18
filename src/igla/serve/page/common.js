// What the server's pages share: words in two languages, light and dark, keys, requests.

const SHARED = {
  en: {
    theme: "Light or dark", other: "Русский", key: "Key", away: "The server does not answer.",
    gate: "Review and versions", home: "Try a text",
  },
  ru: {
    theme: "Светлая или тёмная", other: "English", key: "Ключ", away: "Сервер не отвечает.",
    gate: "Проверка и версии", home: "Оценить текст",
  },
};

const kept = (name, other) => localStorage.getItem(name) ?? other;
let language = kept("language", navigator.language.startsWith("ru") ? "ru" : "en");
let theme = kept("theme", "");
let words = SHARED;

export const $ = (id) => document.getElementById(id);
export const word = (name) => words[language][name] ?? SHARED[language][name];
export const format = (value, digits = 0) =>
  Number.isFinite(value) ? value.toLocaleString(language, { maximumFractionDigits: digits }) : "–";
export const moment = (date) =>
  date.toLocaleString(language, { dateStyle: "short", timeStyle: "short" });

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The content of an answer; an Error with the server's sentence, and the status, for any but 2xx.
export async function ask(method, path, body, signal) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  const content = await answer.json();
  if (answer.status === 401) $("key-field").hidden = false;
  if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
  return content;
}

// Translates the page, paints it, and again upon the reader's wish. `changed` shows what the page
// itself has to, at first and whenever the language or the key is another.
export function begin(ofPage, changed) {
  words = ofPage;
  const translate = () => {
    document.documentElement.lang = language;
    document.querySelectorAll("[data-t]").forEach((one) => { one.textContent = word(one.dataset.t); });
    document.querySelectorAll("[data-t-label]").forEach((one) => { one.ariaLabel = one.title = word(one.dataset.tLabel); });
    $("language").textContent = word("other");
    changed();
  };
  const paint = () => {
    document.documentElement.dataset.theme = theme;
    $("theme").textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
  };
  $("language").addEventListener("click", () => {
    language = language === "ru" ? "en" : "ru";
    localStorage.setItem("language", language);
    translate();
  });
  $("theme").addEventListener("click", () => {
    theme = { "": "light", light: "dark", dark: "" }[theme];
    localStorage.setItem("theme", theme);
    paint();
  });
  $("key").addEventListener("change", () => {
    sessionStorage.setItem("key", $("key").value.trim());
    changed();
  });
  paint();
  translate();
}
