"use strict";
// The error browser. Data come from two places of the page: #data, what is known of each image,
// and #p0, #p1, ..., the pictures, which are unpacked when they come into view.
const $ = id => document.getElementById(id);
const { classes, colours, keys, levels, ignored, images } = JSON.parse($("data").textContent);
const KINDS = ["image", "truth", "prediction", "errors", "uncertainty"];
const WORST_IS_HIGH = { uncertainty: true, wrong: true, sure: true };
const list = $("list"), form = $("controls"), tip = $("tip"), large = $("large"), help = $("help");

function element(tag, values = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(values)) key in made ? made[key] = value : made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const swatch = id => element("i", { className: "swatch", style: `background: ${css(colours[id] || [128, 128, 128])}` });
const className = id => id === ignored ? "ignored" : classes[id] ?? `class ${id}`;
const number = value => value === null ? "-" : value.toFixed(3);

// ---- Painting: a pixel is one 32-bit number, 0xAABBGGRR.
const ink = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
const RED = ink([230, 0, 38]), INK = new Uint32Array(256).fill(ink([128, 128, 128]));
colours.forEach((colour, id) => INK[id] = ink(colour));
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const RAMP = Uint32Array.from({ length: levels + 1 }, (_, step) => {
  const at = step / levels * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  return ink(STOPS[low].map((value, c) => Math.round(value + (at - low) * (STOPS[low + 1][c] - value))));
});
$("ramp").style.background = `linear-gradient(to right, ${STOPS.map(css).join(", ")})`;

const unpacked = new Map();  // index to a promise of its pixels, for what is in view
function pixels(index) {
  if (!unpacked.has(index)) unpacked.set(index, unpack(index));
  return unpacked.get(index);
}
async function unpack(index) {
  const [address, maps] = $(`p${index}`).textContent.split(" "), photo = new Image();
  photo.src = address;
  const bytes = Uint8Array.from(atob(maps), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer());
  await photo.decode();
  const [w, h] = images[index].size, n = w * h, doubt = all.subarray(2 * n);
  for (let i = 0; i < n; i++) {  // from differences of neighbours to values, modulo 256
    const left = i % w ? doubt[i - 1] : 0, up = i >= w ? doubt[i - w] : 0;
    doubt[i] += left + up - (i % w && i >= w ? doubt[i - w - 1] : 0);
  }
  return { w, h, photo, truth: all.subarray(0, n), prediction: all.subarray(n, 2 * n), doubt };
}
function layer(kind, p) {  // what is not the photo, as a canvas; right pixels of errors are clear
  const canvas = element("canvas", { width: p.w, height: p.h }), context = canvas.getContext("2d");
  const drawn = context.createImageData(p.w, p.h), out = new Uint32Array(drawn.data.buffer), red = $("red").checked;
  for (let i = 0; i < out.length; i++) {
    const truth = p.truth[i], predicted = p.prediction[i];
    if (kind === "truth") out[i] = INK[truth];
    else if (kind === "prediction") out[i] = INK[predicted];
    else if (kind === "uncertainty") out[i] = RAMP[p.doubt[i]];
    else out[i] = truth === ignored ? INK[ignored] : truth === predicted ? 0 : red ? RED : INK[predicted];
  }
  context.putImageData(drawn, 0, 0);
  return canvas;
}
function paint(kind, p, { blend = 1 } = {}) {  // blend: how much of the layer lies over the photo
  const canvas = element("canvas", { width: p.w, height: p.h, className: kind === "image" ? "photo" : "", role: "img", ariaLabel: kind });
  const context = canvas.getContext("2d");
  context.drawImage(p.photo, 0, 0, p.w, p.h);
  context.globalAlpha = blend;
  if (kind === "errors") {  // the pale photo
    context.fillStyle = "rgb(255 255 255 / 0.75)";
    context.fillRect(0, 0, p.w, p.h);
  }
  if (kind !== "image") context.drawImage(layer(kind, p), 0, 0);
  return canvas;
}
function fit(canvas) {  // as large as its square allows
  const { width: w, height: h } = canvas, side = Math.max(w, h);
  return element("span", { className: "fit", style: `width: ${100 * w / side}%; height: ${100 * h / side}%` }, canvas);
}

// ---- What is sorted by, and the filters.
const SORTS = {
  mean_iou: ["mean IoU", image => image.mean_iou],
  accuracy: ["pixel accuracy", image => image.accuracy],
  ...Object.fromEntries(classes.map((name, id) => [`iou${id}`, [`IoU of ${name}`, image => image.iou[id]]])),
  uncertainty: ["mean uncertainty", image => image.uncertainty],
  wrong: ["share of wrong pixels", image => image.wrong],
  sure: ["wrong though certain", image => image.sure],
  name: ["name", image => image.name],
};
for (const [key, [label]] of Object.entries(SORTS)) $("sort").append(new Option(label, key));
const filters = keys.map((key, at) => ({ key, at, values: [...new Set(images.map(image => image.values[at]))].sort() }))
  .filter(({ values }) => values.length > 1);
for (const filter of filters) {
  filter.select = element("select", { name: `by.${filter.key}`, ariaLabel: filter.key }, new Option(`any ${filter.key}`, ""));
  filter.values.forEach(value => filter.select.append(new Option(value || "(none)", value || "(none)")));
  $("filters").append(filter.select, " ");
}
const invented = (image, id) => image.iou[id] !== null && !image.holds.includes(id);
for (const [label, word, mark, test] of [["the truth has it", "with", "", (image, id) => image.holds.includes(id)], ["predicted, though not there", "wrongly", "!", invented]]) {
  const group = element("optgroup", { label });
  classes.forEach((name, id) => {
    const count = images.filter(image => test(image, id)).length;
    if (count) group.append(new Option(`${word} ${name} (${count})`, mark + id));
  });
  if (group.children.length) $("class").append(group);
}
KINDS.forEach((kind, at) => $("panels").append(element("label", { title: `key ${at + 1}` },
  element("input", { type: "checkbox", value: String(at + 1), defaultChecked: true }), kind)));
const panels = [...$("panels").querySelectorAll("input")];
const kinds = () => KINDS.filter((_, at) => panels[at].checked);

const valueOf = (image, filter) => image.values[filter.at] || "(none)";
function matcher() {  // a function that says whether an image passes all filters but one
  const query = $("q").value.trim().toLowerCase(), chosen = $("class").value, id = parseInt(chosen.replace("!", ""));
  const below = $("below").valueAsNumber, has = chosen[0] === "!" ? invented : (image, of) => image.holds.includes(of);
  const set = filters.filter(filter => filter.select.value).map(filter => ({ filter, value: filter.select.value }));
  return (image, except) => {
    if (query && !image.name.toLowerCase().includes(query)) return false;
    if (set.some(({ filter, value }) => filter !== except && value !== valueOf(image, filter))) return false;
    if (chosen && !has(image, id)) return false;
    const value = chosen ? image.iou[id] : image.mean_iou;
    return isNaN(below) || (value !== null && value < below);
  };
}
const collator = new Intl.Collator(undefined, { numeric: true });
function comparer() {  // of indices; what has no value comes last, in either order
  const key = $("sort").value, value = SORTS[key][1], best = form.elements.order.value === "best";
  const sign = best === Boolean(WORST_IS_HIGH[key]) ? 1 : -1;
  return (a, b) => {
    const x = value(images[a]), y = value(images[b]);
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return sign * (key === "name" ? collator.compare(x, y) : x - y) || a - b;
  };
}

// ---- The list.
let shown = [], current = 0;
const cards = images.map((image, index) => element("li", {
  id: `entry${index}`, className: "entry", role: "option", tabIndex: -1,
  ariaLabel: `${image.name}, ${image.values.filter(Boolean).join(", ")}, mean IoU ${number(image.mean_iou)}`,
}, element("div", { className: "head" }, element("strong", { title: image.name }, image.name),
  element("span", { className: "faint" }, image.values.filter(Boolean).join(", ")), element("span", { className: "score" })),
element("div", { className: "panels", style: "aspect-ratio: var(--panels, 5) / 1" }), element("div", { className: "captions" }),
element("div", { className: "ious" }, ...classes.flatMap((name, id) => image.iou[id] === null ? [] : [element("span", {}, swatch(id), `${name} ${number(image.iou[id])}`)]))));
const at = card => Number(card.id.slice(5));
const inView = new Set();
async function fill(card) {
  const p = await pixels(at(card));
  if (!inView.has(card)) return;
  card.querySelector(".panels").replaceChildren(...kinds().map(kind => element("div", { className: "panel" }, fit(paint(kind, p)))));
  card.querySelector(".captions").replaceChildren(...kinds().map(kind => element("span", {}, kind)));
}
const watcher = new IntersectionObserver(changes => changes.forEach(({ target, isIntersecting }) => {
  if (isIntersecting) { inView.add(target); fill(target); return; }
  inView.delete(target);
  unpacked.delete(at(target));
  target.querySelector(".panels").replaceChildren();
}), { rootMargin: "700px" });
cards.forEach(card => watcher.observe(card));

function mean(values) {
  const known = values.filter(value => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
function render({ keep = false } = {}) {  // keep: the list only looks different
  const key = $("sort").value, [label, value] = SORTS[key], passes = matcher();
  shown = images.map((_, index) => index).filter(index => passes(images[index])).sort(comparer());
  for (const index of shown) cards[index].querySelector(".score").textContent = key === "name" ? number(images[index].mean_iou) : `${label} ${number(value(images[index]))}`;
  document.documentElement.style.setProperty("--panels", Math.max(kinds().length, 1));
  list.replaceChildren(...shown.map(index => cards[index]));
  [$("worst").textContent, $("best").textContent] = key === "name" ? ["A to Z", "Z to A"] : ["worst first", "best first"];
  for (const f of filters) {
    const counts = new Map(), count = value => counts.set(value, (counts.get(value) || 0) + 1);
    for (const image of images) if (passes(image, f)) count(valueOf(image, f));
    for (const option of [...f.select.options].slice(1)) option.textContent = `${option.value} (${counts.get(option.value) || 0})`;
  }
  $("whose").textContent = $("class").value ? "its IoU" : "mean IoU";
  const of = field => number(mean(shown.map(index => images[index][field])));
  $("summary").textContent = shown.length ? `${shown.length} of ${images.length} images. Their means: mean IoU ${of("mean_iou")}, pixel accuracy ${of("accuracy")}, uncertainty ${of("uncertainty")}`
    : "No image matches: Reset shows all";
  $("wrongly").textContent = $("red").checked ? "red" : "the colour of the predicted class";
  select(keep && shown.includes(current) ? current : shown[0], { focus: false });
}
function select(index, { focus = true } = {}) {
  cards[current]?.setAttribute("aria-selected", "false");
  if (cards[current]) cards[current].tabIndex = -1;
  if (index === undefined) return save();
  current = index;
  const card = cards[current];
  card.setAttribute("aria-selected", "true");
  card.tabIndex = 0;
  if (focus) {
    card.scrollIntoView({ block: "nearest" });
    // Heights out of view are guessed: once more when those on the way are known.
    requestAnimationFrame(() => requestAnimationFrame(() => card === cards[current] && card.scrollIntoView({ block: "nearest" })));
    if (!large.open) card.focus({ preventScroll: true });
  }
  if (large.open) enlarge();
  save();
}
function move(steps) {
  const place = shown.indexOf(current) + steps;
  if (shown.length) select(shown[Math.max(0, Math.min(shown.length - 1, place))]);
}

// ---- The large view.
let over = "prediction";
async function enlarge() {
  const index = current, image = images[index];
  if (!large.open) large.showModal();
  $("name").textContent = image.name;
  $("about").textContent = image.values.filter(Boolean).join(", ");
  $("place").textContent = `${shown.indexOf(index) + 1} of ${shown.length}`;
  $("over").textContent = over;
  const line = (label, value, id) => element("tr", {}, element("th", { scope: "row" }, ...(id === undefined ? [] : [swatch(id)]), label), element("td", { className: "number" }, number(value)));
  $("numbers").replaceChildren(line("mean IoU", image.mean_iou), ...classes.flatMap((name, id) => image.iou[id] === null ? [] : [line(`IoU of ${name}`, image.iou[id], id)]),
    ...["accuracy", "wrong", "sure", "uncertainty"].map(key => line(SORTS[key][0], SORTS[key][1](image))));
  save();
  const p = await pixels(index);
  if (index !== current) return;
  $("stage").style.setProperty("--ratio", p.w / p.h);
  $("stage").replaceChildren(element("span", { className: "fit" }, paint(over, p, { blend: $("blend").value / 100 })));
  $("choices").replaceChildren(...KINDS.map(kind => element("button", {
    className: "panel", ariaPressed: String(kind === over), onclick: () => choose(kind),
  }, fit(paint(kind, p)), kind)));
}
function choose(kind) { over = kind; enlarge(); }
$("blend").addEventListener("input", enlarge);
$("previous").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("close").addEventListener("click", () => large.close());
large.addEventListener("close", () => select(current));
list.addEventListener("click", event => {
  const card = event.target.closest(".entry");
  if (card) { select(at(card)); enlarge(); }
});

// ---- The pointer shows what a pixel is, and the same place in all pictures of the image.
let pointed = null;  // the card, or the large view
function point(target) {
  pointed?.classList.remove("pointed");
  pointed = target;
  pointed?.classList.add("pointed");
  tip.hidden = true;
}
document.addEventListener("scroll", () => point(null), { capture: true, passive: true });
document.addEventListener("pointermove", async event => {
  const canvas = event.target.closest?.("canvas"), target = canvas?.closest(".entry, dialog") ?? null;
  if (target !== pointed) point(target);
  if (!target) return;
  const box = canvas.getBoundingClientRect(), x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  target.style.setProperty("--x", `${100 * x}%`);
  target.style.setProperty("--y", `${100 * y}%`);
  const p = await pixels(target === large ? current : at(target));
  if (target !== pointed) return;
  const i = Math.min(Math.floor(y * p.h), p.h - 1) * p.w + Math.min(Math.floor(x * p.w), p.w - 1);
  tip.replaceChildren("truth ", swatch(p.truth[i]), `${className(p.truth[i])}, prediction `, swatch(p.prediction[i]), `${className(p.prediction[i])}, uncertainty ${(p.doubt[i] / levels).toFixed(2)}`);
  (target === large ? large : document.body).append(tip);  // a dialog covers what isn't in it
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8), low = event.clientY + 18;
  tip.style.transform = `translate(${left}px, ${low + tip.offsetHeight > innerHeight ? event.clientY - 34 : low}px)`;
});

// ---- The keyboard.
document.addEventListener("keydown", event => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (target.matches("input:not([type=checkbox], [type=radio], [type=range]), select")) {
    if (key === "Escape") list.querySelector("[tabindex='0']")?.focus();
    return;
  }
  const arrows = key.startsWith("Arrow");
  if (arrows && target.matches("input")) return;
  if ((key === "Enter" || key === " ") && target.closest("button, input, summary, a")) return;
  const columns = large.open ? 1 : getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const steps = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -images.length, End: images.length }[key];
  const blend = { "[": -10, "]": 10 }[key];
  if (steps) move(steps);
  else if ((key === "Enter" || key === " ") && !large.open && shown.length) { select(current); enlarge(); }
  else if (large.open && KINDS[key - 1]) choose(KINDS[key - 1]);
  else if (large.open && blend) { $("blend").value = Number($("blend").value) + blend; enlarge(); }
  else if (KINDS[key - 1]) panels[key - 1].click();
  else if (key === "r") { $("red").click(); if (large.open) enlarge(); }
  else if (key === "?") help.showModal();
  else if (key === "b" && !large.open) (form.elements.order.value === "best" ? $("worst") : $("best")).click();
  else if (key === "/" && !large.open) $("q").focus();
  else return;
  event.preventDefault();
});
$("ask").addEventListener("click", () => help.showModal());

// ---- The address keeps what is chosen.
let saving = 0;
function state() {
  const words = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    const fields = form.elements[name], standard = name === "order" ? "worst" : name === "sort" ? "mean_iou" : "";
    if (fields && value !== standard) words.set(name, value);
  }
  const seen = panels.filter(panel => panel.checked).map(panel => panel.value).join("");
  if (seen !== "12345") words.set("panels", seen);
  if (images.length && current !== shown[0]) words.set("image", current);
  if (large.open) words.set("large", over);
  return words;
}
function save() {  // not at each step: browsers limit how often
  clearTimeout(saving);
  saving = setTimeout(() => history.replaceState(null, "", `#${state()}`), 150);
}
function restore(change) {  // the address may be saved between its change and the event
  const words = new URLSearchParams(new URL(change?.newURL ?? location).hash.slice(1));
  form.reset();
  for (const field of [$("q"), $("class"), $("below"), $("sort"), ...filters.map(f => f.select)]) {
    const value = words.get(field.name);
    if (value !== null && (!field.options || [...field.options].some(option => option.value === value))) field.value = value;
  }
  if (words.get("order") === "best") form.elements.order.value = "best";
  $("red").checked = words.has("red");
  if (words.has("panels")) panels.forEach(panel => panel.checked = words.get("panels").includes(panel.value));
  const index = Number(words.get("image") ?? NaN), wanted = words.get("large");
  render();
  if (shown.includes(index)) select(index);
  if (KINDS.includes(wanted) && shown.length) { over = wanted; enlarge(); } else if (large.open) large.close();
}
const redraw = keep => { render({ keep }); inView.forEach(fill); };
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", event => panels.includes(event.target) || event.target.id === "red" ? redraw(true) : render());
$("clear").addEventListener("click", () => { form.reset(); redraw(false); });
addEventListener("hashchange", restore);
if ("DecompressionStream" in window) restore();
else $("summary").textContent = "This browser is too old for this page: it can't unpack its pictures";
