// Scores a text while it is typed, tells which words drive the score, compares two versions, shows
// the server's figures and writes a curl command for each protocol.

import { $, ask, begin, element, format, word } from "/page/common.js";

const WORDS = {
  en: {
    text: "Text to score", model: "Model", compare: "Compare with", nothing: "nothing",
    live: "This server, now", clients: "Ask from elsewhere", copy: "Copy", copied: "Copied",
    load: "Requests a second, the last two minutes",
    allow: "allow", review: "review", block: "block", windows: "windows, mean",
    words: "What each word does to", raises: "raises", lowers: "lowers",
    served: "scored requests", rate: "requests a second", p50: "median, ms", p99: "99 in 100 within, ms",
    waiting: "tokens waiting", batch: "tokens a batch", errors: "refused or failed",
    example: "What a wonderful day, thank you!",
  },
  ru: {
    text: "Текст для оценки", model: "Модель", compare: "Сравнить с", nothing: "ничем",
    live: "Этот сервер сейчас", clients: "Запрос из других мест", copy: "Скопировать", copied: "Скопировано",
    load: "Запросов в секунду за последние две минуты",
    allow: "пропустить", review: "проверить", block: "заблокировать", windows: "окон, среднее",
    words: "Что каждое слово меняет для", raises: "повышает", lowers: "понижает",
    served: "оценено запросов", rate: "запросов в секунду", p50: "медиана, мс", p99: "99 из 100 за, мс",
    waiting: "токенов в очереди", batch: "токенов в пакете", errors: "отказов и ошибок",
    example: "Какой чудесный день, спасибо!",
  },
};
const PROTOCOLS = {
  igla: ["/igla/v1/score", (text) => ({ texts: [text] })],
  Perspective: ["/v1alpha1/comments:analyze",
    (text) => ({ comment: { text }, requestedAttributes: { TOXICITY: {} } })],
  OpenAI: ["/v1/moderations", (text) => ({ input: text })],
  TEI: ["/predict", (text) => ({ inputs: text })],
  KServe: ["/v2/models/{model}/infer",
    (text) => ({ inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: [text] }] })],
};

let protocol = "igla";
let served = [];
let models = []; // those of them that score
let asking = new AbortController();

const titled = (model) => `${model.name} ${model.version}`;

// What is chosen in the two lists: name and version of one model, or of two.
function chosen() {
  const values = [$("first").value, $("second").value];
  return values.map((value) => models.find((one) => titled(one) === value)).filter(Boolean);
}

function choose(select, options, empty) {
  const before = select.value;
  select.replaceChildren(...(empty ? [element("option", { value: "", textContent: empty })] : []));
  select.append(...options.map((one) => element("option", { value: titled(one), textContent: titled(one) })));
  if (options.some((one) => titled(one) === before)) select.value = before;
}

async function readModels() {
  const { models: found, pages } = await (await fetch("/igla/v1/models")).json();
  $("gate").hidden = !pages.includes("/gate");
  const same = JSON.stringify(found) === JSON.stringify(served);
  served = found;
  models = found.filter((one) => one.classes.length);
  if (!same) listModels();
  return !same;
}

function listModels() {
  choose($("first"), models);
  choose($("second"), models, word("nothing"));
}

async function scoreText() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const text = $("text").value;
  showCurl();
  $("results").querySelectorAll(".result").forEach((one) => one.classList.add("waiting"));
  if (!text.trim() || !models.length) return $("results").replaceChildren();
  try {
    const asked = chosen();
    const found = await Promise.all(asked.map((one) =>
      ask("POST", "/igla/v1/score", { texts: [text], model: one.name, version: one.version }, signal)));
    const cards = found.map((one, at) => resultCard(one, asked[at]));
    $("results").replaceChildren(...cards);
    $("error").hidden = true;
    for (const [at, one] of asked.entries()) {
      const why = await ask("POST", "/igla/v1/explain", { text, model: one.name, version: one.version }, signal);
      showWords(cards[at], text, why, one.grave);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    $("error").textContent = error instanceof TypeError ? word("away") : error.message;
    $("error").hidden = false;
  }
}

function resultCard(found, model) {
  const [result] = found.results;
  const card = element("div", { className: "result" });
  card.append(
    element("span", { className: `verdict ${result.decision}`, textContent: word(result.decision) }),
    element("span", { className: "version", textContent: `${found.model} ${found.version}` }));
  result.labels.forEach((one, column) => {
    const row = element("button", { className: "label", type: "button" },
      element("span", { textContent: one.label, title: one.label }),
      element("progress", { max: 1, value: one.probability, ariaLabel: one.label }),
      element("span", { textContent: format(one.probability, 3) }));
    row.addEventListener("click", () => card.why && showWords(card, card.text, card.why, column));
    card.append(row);
  });
  if (result.windows > 1) {
    const mean = format(result.labels[model.grave].mean, 3);
    card.append(element("p", { className: "note", textContent: `${result.windows} ${word("windows")} ${mean}` }));
  }
  return card;
}

// Marks each word by how far it raises (red) or lowers (blue) a class's probability.
function showWords(card, text, why, column) {
  Object.assign(card, { text, why });
  card.querySelectorAll(".words, .legend").forEach((one) => one.remove());
  const letters = Array.from(text);
  const most = Math.max(0.2, ...why.words.map((one) => Math.abs(one.effects[column])));
  const line = element("p", { className: "words" });
  let at = 0;
  for (const { begin, end, effects } of why.words) {
    const effect = effects[column];
    const mark = element("mark", { textContent: letters.slice(begin, end).join("") });
    mark.style.setProperty("--tone", `var(--${effect > 0 ? "up" : "down"})`);
    mark.style.setProperty("--share", Math.min(0.75, (Math.abs(effect) / most) * 0.75).toFixed(3));
    mark.title = `${word(effect > 0 ? "raises" : "lowers")} ${format(Math.abs(effect), 3)}`;
    line.append(letters.slice(at, begin).join(""), mark);
    at = end;
  }
  line.append(letters.slice(at).join(""));
  const legend = `${word("words")} ${why.classes[column]}`;
  card.append(line, element("p", { className: "note legend", textContent: legend }));
}

function showCurl() {
  const [path, body] = PROTOCOLS[protocol];
  const name = chosen()[0]?.name ?? "default";
  const content = JSON.stringify(body($("text").value || word("example"))).replaceAll("'", "'\\''");
  const key = sessionStorage.getItem("key") ? ` -H "authorization: Bearer $IGLA_KEY"` : "";
  const address = location.origin + path.replace("{model}", encodeURIComponent(name));
  $("curl").textContent = `curl ${address} -H 'content-type: application/json'${key} \\\n  -d '${content}'`;
  $("protocols").replaceChildren(...Object.keys(PROTOCOLS).map((one) => {
    const tab = element("button", { type: "button", role: "tab", textContent: one });
    tab.setAttribute("aria-selected", String(one === protocol));
    tab.addEventListener("click", () => { protocol = one; showCurl(); });
    return tab;
  }));
}

// Prometheus' text: name → [labels, value] of each sample.
function samples(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const [, name, labels, value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)$/) ?? [];
    if (!name) continue;
    const pairs = [...(labels ?? "").matchAll(/(\w+)="((?:\\.|[^"\\])*)"/g)];
    (found[name] ??= []).push([Object.fromEntries(pairs.map((one) => one.slice(1))), Number(value)]);
  }
  return found;
}

// The time within which a share of the requests were answered, in a histogram's buckets.
function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return NaN;
  const at = buckets.findIndex(([, count]) => count >= share * total);
  const [high, upTo] = buckets[at];
  const [low, before] = at ? buckets[at - 1] : [0, 0];
  if (!Number.isFinite(high)) return low;
  return low + (high - low) * ((share * total - before) / Math.max(1, upTo - before));
}

const history = [];
async function readMetrics() {
  const found = samples(await (await fetch("/metrics")).text());
  const sum = (name, wanted) => (found[name] ?? []).reduce((all, [labels, value]) => all + (wanted(labels) ? value : 0), 0);
  const buckets = (found.igla_seconds_bucket ?? [])
    .filter(([labels]) => labels.stage === "total")
    .map(([labels, value]) => [labels.le === "+Inf" ? Infinity : Number(labels.le), value]);
  const answered = sum("igla_seconds_count", (labels) => labels.stage === "total");
  history.push([performance.now(), answered]);
  if (history.length > 61) history.shift();
  const rates = history.slice(1).map(([time, count], at) =>
    Math.max(0, (count - history[at][1]) / ((time - history[at][0]) / 1000)));
  const tokens = sum("igla_batch_tokens_sum", () => true);
  const batches = sum("igla_batch_tokens_count", () => true);
  show({
    served: format(answered), rate: format(rates.at(-1) ?? 0, 1),
    p50: format(quantile(buckets, 0.5) * 1000, 1), p99: format(quantile(buckets, 0.99) * 1000, 1),
    waiting: format(sum("igla_waiting_tokens", () => true)),
    batch: format(batches ? tokens / batches : NaN),
    errors: format(sum("igla_requests_total", (labels) => Number(labels.status) >= 400)),
  });
  const top = Math.max(1, ...rates);
  const points = rates.map((rate, at) => `${(at / 59) * 300},${58 - (rate / top) * 54}`);
  $("load").firstElementChild.setAttribute("d", points.length > 1 ? `M${points.join(" L")}` : "");
}

function show(figures) {
  $("figures").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: word(name) }), element("dd", { textContent: value }))));
}

async function watch() {
  try {
    if (!document.hidden) {
      if (await readModels()) scoreText();
      await readMetrics();
      $("state").textContent = served.map(titled).join(" · ");
    }
  } catch {
    $("state").textContent = word("away");
  }
  setTimeout(watch, 2000);
}

let typing;
$("text").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(scoreText, 250); });
for (const id of ["first", "second"]) $(id).addEventListener("change", scoreText);
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("curl").textContent);
  $("copy").textContent = word("copied");
  setTimeout(() => { $("copy").textContent = word("copy"); }, 1500);
});
begin(WORDS, () => {
  $("text").placeholder = word("example");
  listModels();
  scoreText();
});
watch();
