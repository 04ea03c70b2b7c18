// The learning curve: a figure of each version over the time at which it was made.

const WIDTH = 520, HEIGHT = 220, LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 26;

function shape(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Draws PR-AUC on the holdout of versions (the newest first) and joins those that passed; returns
// how many there are. With fewer than two nothing is drawn.
export function drawCurve(place, versions, serving, { format, moment }) {
  const points = versions.filter((one) => Number.isFinite(one.figures?.holdout?.after)).reverse();
  if (points.length < 2) {
    place.replaceChildren();
    return points.length;
  }
  const values = points.map((one) => one.figures.holdout.after);
  const [low, high] = padded(Math.min(...values), Math.max(...values));
  const first = points[0].made, last = points.at(-1).made;
  const x = (one) => LEFT + ((one.made - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  drawing.append(shape("title", {}, `PR-AUC ${format(values[0], 3)} → ${format(values.at(-1), 3)}`));
  for (const value of [low, (low + high) / 2, high]) {
    drawing.append(
      shape("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value, 3)));
  }
  for (const [one, anchor] of [[points[0], "start"], [points.at(-1), "end"]]) {
    const when = moment(new Date(one.made * 1000));
    drawing.append(shape("text", { x: x(one), y: HEIGHT - 6, "text-anchor": anchor }, when));
  }
  const passed = points.filter((one) => one.passed);
  const steps = passed.map((one, at) => `${at ? "L" : "M"}${x(one)} ${y(one.figures.holdout.after)}`);
  drawing.append(shape("path", { class: "served", d: steps.join(" ") }));
  for (const one of points) {
    const kind = one.version === serving ? "serving" : one.passed ? "passed" : "";
    const dot = shape("circle", { class: kind, cx: x(one), cy: y(one.figures.holdout.after), r: 5 });
    dot.append(shape("title", {}, `${one.version}: ${format(one.figures.holdout.after, 3)} · ${one.reason}`));
    drawing.append(dot);
  }
  place.replaceChildren(drawing);
  return points.length;
}

// Room above and below, so that a change of nothing is not drawn as a leap.
function padded(low, high) {
  const room = Math.max(0.01, (high - low) * 0.15);
  return [Math.max(0, low - room), Math.min(1, high + room)];
}
