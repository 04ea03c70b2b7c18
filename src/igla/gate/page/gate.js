// The review queue, one key a decision; versions with their figures and reasons; how learning goes.

import { $, ask, begin, element, format, moment, word } from "/page/common.js";
import { drawCurve } from "/page/curve.js";
import { marked, spelled } from "/page/signs.js";

const WORDS = {
  en: {
    review: "Waiting for a person", who: "Your name", every: "all of these", empty: "Nothing waits.",
    chosen: "chosen: allow or block decides all of them", allow: "Allow", block: "Block",
    skip: "Later", undo: "Undo", probability: "chance that it is to be allowed", tool: "call of",
    course: "How learning goes", versions: "Versions", rollback: "Roll back", promote: "Let it serve",
    version: "version", made: "made", holdout: "PR-AUC before → after", learned: "lessons", reason: "why",
    serving: "serves", damaged: "damaged", nothing: "This gate learns nothing: start it with --learn.",
    curve: "PR-AUC on the frozen test part; filled: serves; beside the line: did not pass",
    few: "A curve needs two versions; there are", running: "The learner runs", stopped: "The learner does not run",
    fresh: "new feedback that no version has learned from",
    agreed: "decisions that people agree with", heard: "feedbacks to decisions", loss: "mean loss", alerts: "drift",
    none: "none", decided: "decisions", feedback: "feedbacks", sure: "Let this version serve now?",
    surely: "Go back to the version before?",
  },
  ru: {
    review: "Ждут человека", who: "Ваше имя", every: "все эти", empty: "Ничего не ждёт.",
    chosen: "выбрано: решение будет для всех", allow: "Пропустить", block: "Заблокировать",
    skip: "Позже", undo: "Отменить", probability: "вероятность, что надо пропустить", tool: "вызов",
    course: "Как идёт обучение", versions: "Версии", rollback: "Откатить", promote: "Включить",
    version: "версия", made: "создана", holdout: "PR-AUC до → после", learned: "уроков", reason: "почему",
    serving: "отвечает", damaged: "повреждена", nothing: "Этот шлюз не учится: запустите его с --learn.",
    curve: "PR-AUC на неизменной тестовой части; закрашена — отвечает; в стороне от линии — не прошла",
    few: "Для кривой нужны две версии; есть", running: "Обучение работает", stopped: "Обучение не работает",
    fresh: "новых отзывов, на которых ещё не училась ни одна версия",
    agreed: "решений, с которыми люди согласны", heard: "отзывов на решения", loss: "средняя потеря", alerts: "дрейф",
    none: "нет", decided: "решений", feedback: "отзывов", sure: "Включить эту версию?",
    surely: "Вернуться к предыдущей версии?",
  },
};
const HELD = 50; // decisions that the page has at hand
const PAUSE = 700; // ms in which nobody has yet seen that another decision is shown
const KEYS = { KeyA: "allow", KeyB: "block", KeyS: "skip", KeyU: "undo" };

let queue = []; // the first one is shown whole
let chosen = new Set(); // ids of those ticked
let pending = new Set(); // of which an answer, or its taking back, is on its way
let changes = 0; // how often one was sent or arrived: what the server was asked before is out of date
let swapped = -Infinity; // when the shown one gave way because it was answered elsewhere
let done = []; // what undo takes back: feedbacks and the decisions that they were to
let learning = null; // versions and the learner, if there are any
let counts = { waiting: 0 };

async function trying(work) {
  try {
    await work();
    $("error").hidden = true;
  } catch (error) {
    $("error").textContent = error instanceof TypeError ? word("away") : error.message;
    $("error").hidden = false;
  }
}

// Lets the queue hold what waits at the server: what was answered or erased elsewhere goes.
async function readQueue() {
  const before = changes;
  const { waiting } = await ask("GET", `/v1/gate/review?most=${HELD}`);
  if (before !== changes) return;
  const waits = new Set(waiting.map((one) => one.decision));
  const end = waiting.length < HELD ? Infinity : waiting.at(-1).seq; // it was not asked for more
  const [shown] = queue;
  queue = queue.filter((one) => waits.has(one.decision) || one.seq > end);
  const known = new Set(queue.map((one) => one.decision));
  queue.push(...waiting.filter((one) => !known.has(one.decision) && !pending.has(one.decision)));
  chosen = new Set(queue.map((one) => one.decision).filter((one) => chosen.has(one)));
  if (shown && shown !== queue[0]) swapped = performance.now();
}

function send(matters) {
  matters.forEach((one) => pending.add(one.decision));
  changes += 1;
}

function arrived(matters) {
  matters.forEach((one) => pending.delete(one.decision));
  changes += 1;
}

async function readStanding() {
  const found = await ask("GET", "/v1/gate/status");
  counts = { waiting: found.review.waiting, decided: total(found.decisions), said: total(found.feedback) };
  learning = found.learns ? await ask("GET", "/v1/gate/versions") : null;
}

const total = (table) => Object.values(table).reduce((sum, one) => sum + one, 0);

// Says of the ticked decisions, or of the one that is shown, what they are; at once on the page,
// and taken back there if the server does not keep it.
async function answer(verdict) {
  if (!chosen.size && performance.now() - swapped < PAUSE) return;
  const matters = chosen.size ? queue.filter((one) => chosen.has(one.decision)) : queue.slice(0, 1);
  if (!matters.length) return;
  queue = queue.filter((one) => !matters.includes(one));
  send(matters);
  chosen.clear();
  showQueue();
  const given = [];
  await trying(async () => {
    const sent = await Promise.allSettled(matters.map((one) => sendOne(one, `confirmed_${verdict}`)));
    sent.forEach((one, at) => { if (one.status === "fulfilled") given.push([one.value.feedback, matters[at]]); });
    arrived(matters);
    const lost = sent.flatMap((one, at) => one.status === "rejected" ? [matters[at]] : []);
    putBack(lost);
    if (lost.length) throw sent.find((one) => one.status === "rejected").reason;
  });
  if (given.length) done.push(given);
  counts.waiting = Math.max(0, counts.waiting - given.length);
  showQueue();
  if (queue.length < HELD / 2) await trying(readQueue).then(showQueue);
}

// Said again after an answer was lost on its way, it is the same feedback.
function sendOne(matter, outcome) {
  matter.mark ??= [...crypto.getRandomValues(new Uint32Array(3))].map((one) => one.toString(36)).join("");
  const said = { decision: matter.decision, outcome, who: $("who").value.trim() };
  return ask("POST", "/v1/gate/feedback", { ...said, idempotency_key: `page-${matter.mark}-${outcome}` });
}

// What could not be taken back is the first that the next undo tries, unless there is none of it.
async function undo() {
  const last = done.pop();
  if (!last) return;
  send(last.map(([, matter]) => matter));
  await trying(async () => {
    const sent = await Promise.allSettled(last.map(([feedback]) => ask("DELETE", `/v1/gate/feedback/${feedback}`)));
    const back = last.flatMap(([, matter], at) => sent[at].status === "fulfilled" ? [matter] : []);
    back.forEach((one) => delete one.mark); // what is said next is another feedback
    putBack(back);
    counts.waiting += back.length;
    const left = last.filter((_, at) => sent[at].status === "rejected" && sent[at].reason.status !== 404);
    if (left.length) done.push(left);
    if (back.length < last.length) throw sent.find((one) => one.status === "rejected").reason;
  });
  arrived(last.map(([, matter]) => matter));
  showQueue();
}

// At the head of the queue, and once, should it have come back already.
function putBack(matters) {
  const names = new Set(matters.map((one) => one.decision));
  queue = [...matters, ...queue.filter((one) => !names.has(one.decision))];
}

function skip() {
  if (queue.length > 1) queue.push(queue.shift());
  showQueue();
}

function showQueue() {
  $("waiting").textContent = counts.waiting ? format(counts.waiting) : "";
  for (const [code, name] of Object.entries(KEYS)) {
    $(name).replaceChildren(word(name), element("kbd", { textContent: code.slice(3) }));
  }
  for (const name of ["allow", "block", "skip"]) $(name).disabled = !queue.length;
  $("undo").disabled = !done.length;
  const [first, ...rest] = queue;
  $("current").replaceChildren(...(first ? described(first) : [element("p", { className: "note", textContent: word("empty") })]));
  $("rest-head").hidden = !rest.length;
  $("every").checked = Boolean(rest.length) && queue.every((one) => chosen.has(one.decision));
  $("batch").textContent = chosen.size ? `${format(chosen.size)} ${word("chosen")}` : "";
  $("rest").replaceChildren(...rest.map(row));
}

function described(one) {
  const about = [`${format(one.probability * 100)} % ${word("probability")}`, `${one.model} ${one.version}`, moment(new Date(one.at))];
  if (one.tool) about.unshift(`${word("tool")} ${one.tool}`);
  return [
    element("p", { className: "matter" }, ...marked(one.text)),
    element("p", { className: "note", textContent: about.join(" · ") }),
  ];
}

function row(one) {
  const box = element("input", { type: "checkbox", checked: chosen.has(one.decision) });
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(one.decision); else chosen.delete(one.decision);
    showQueue();
  });
  return element("li", {}, element("label", {}, box,
    element("span", { title: spelled(one.text) }, ...marked(one.text)),
    element("span", { textContent: `${format(one.probability * 100)} %` })));
}

function showLearning() {
  const status = learning?.learner ?? {};
  const { alignment = {}, drift = {} } = status;
  const figures = { decided: format(counts.decided), feedback: format(counts.said) };
  if (learning) {
    Object.assign(figures, {
      agreed: Number.isFinite(alignment.alignment) ? `${format(alignment.alignment * 100, 1)} %` : "–",
      heard: format(alignment.heard), loss: format(alignment.mean_loss, 3),
      alerts: drift.alerts?.length ? drift.alerts.join(", ") : word("none"),
    });
  }
  $("figures").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: word(name) }), element("dd", { textContent: value }))));
  const versions = learning?.versions ?? [];
  const drawn = drawCurve($("curve"), versions, learning?.serving.name, { format, moment });
  $("curve-note").textContent = !learning ? word("nothing") : drawn > 1 ? word("curve") : `${word("few")} ${drawn}.`;
  $("history").hidden = !learning;
  if (!learning) return;
  const state = status.fault ?? `${word(status.running ? "running" : "stopped")}. ${format(status.new ?? 0)} ${word("fresh")}.`;
  $("learner").textContent = state;
  $("rollback").hidden = !versions.find((one) => one.version === learning.serving.name)?.parent;
  $("versions").replaceChildren(...versions.map(versionRow));
}

function versionRow(one) {
  const serves = one.version === learning.serving.name;
  const { holdout, learned } = one.figures ?? {};
  const change = holdout ? [holdout.before, holdout.after].filter(Number.isFinite).map((value) => format(value, 3)).join(" → ") : "–";
  const cells = [one.version, one.made ? moment(new Date(one.made * 1000)) : "–", change, format(learned), one.damaged ?? one.reason];
  const row = element("tr", { className: serves ? "serving" : "" }, ...cells.map((text) => element("td", { textContent: text })));
  const last = element("td");
  if (serves) last.textContent = word("serving");
  else if (!one.damaged) {
    const button = element("button", { type: "button", textContent: word("promote") });
    button.addEventListener("click", () => change_("promote", { version: one.version }, word("sure")));
    last.append(button);
  }
  row.append(last);
  return row;
}

async function change_(what, body, question) {
  if (!confirm(question)) return;
  await trying(async () => {
    await ask("POST", `/v1/gate/${what}`, body);
    await readStanding();
  });
  showLearning();
}

async function refresh() {
  await trying(async () => {
    await Promise.all([readQueue(), readStanding()]);
    $("state").textContent = learning ? `${word("serving")} ${learning.serving.name}` : "";
  });
  showQueue();
  showLearning();
}

async function watch() {
  if (!document.hidden) await refresh();
  setTimeout(watch, 4000);
}

$("who").value = localStorage.getItem("who") ?? "";
$("who").addEventListener("change", () => localStorage.setItem("who", $("who").value.trim()));
for (const verdict of ["allow", "block"]) $(verdict).addEventListener("click", () => answer(verdict));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("rollback").addEventListener("click", () => change_("rollback", {}, word("surely")));
$("every").addEventListener("change", () => {
  chosen = new Set($("every").checked ? queue.map((one) => one.decision) : []);
  showQueue();
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox])");
  if (typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.code]) return;
  event.preventDefault();
  $(KEYS[event.code]).click();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
let started = false;
begin(WORDS, () => { showQueue(); showLearning(); if (started) refresh(); });
started = true;
watch();
