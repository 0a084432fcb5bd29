"use strict";
// The page of tools/look.py. Its numbers stand in the page as JSON (see report_of and pack there);
// nothing is computed here but sums of attention over the pieces of a word.

const data = JSON.parse(document.getElementById("numbers").textContent);
const SPACE = "▁"; // begins a piece that begins a word
const IN_WORDS = /[\p{L}\p{M}\p{N}]/u;
const OTHERS = {
  shared: "shared",
  end: "end of text",
  unseen: "not counted",
};
const CATEGORIES = [...data.languages, ...Object.keys(OTHERS)];
const COLORS = 8; // of languages, in look.css

// What is shown now.
const shown = {
  ...firstForeign(), // {model: of the token, place: of the token in its output}
  cross: {layer: 0, plane: 0, pieces: false},
  own: {model: data.models.length - 1, layer: 0, plane: 0, pieces: false, unit: 0},
};

// ------------------------------------------------------------------------------ small things

function byId(id) {
  return document.getElementById(id);
}

// An element with attributes (class, style, aria-label, ...) and children (elements or texts).
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function percent(share) {
  if (share === 0) {
    return "0%";
  }
  if (share < 0.001) {
    return "<0.1%";
  }
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
}

// The place of the category in the palette: a CSS value.
function colorOf(category) {
  const place = data.languages.indexOf(category);
  return place < 0 ? `var(--color-${category})` : `var(--color-${place % COLORS})`;
}

function nameOf(category) {
  return OTHERS[category] || category;
}

// A piece as people read it: without the sign of a word's beginning.
function textOf(piece) {
  return piece.replaceAll(SPACE, "") || "␣";
}

// "runs/full (recipe full)"
function titleOf(model) {
  const title = element("h3", {}, `${model.name} `);
  title.append(element("small", {}, roleOf(model)));
  return title;
}

function roleOf(model) {
  if (model.moved === null) {
    return "the base, before finetuning";
  }
  return model.recipe ? `recipe ${model.recipe}` : "";
}

// One stop for the Tab key in a group of elements; arrow keys move within. vertical(index, step)
// gives the element above (step -1) or below, if there is one.
function moveByArrows(group, elements, vertical) {
  elements.forEach((each) => each.setAttribute("tabindex", "-1"));
  elements[0].setAttribute("tabindex", "0");
  group.addEventListener("focusin", (event) => {
    if (elements.includes(event.target)) {
      elements.forEach((each) => each.setAttribute("tabindex", "-1"));
      event.target.setAttribute("tabindex", "0");
    }
  });
  group.addEventListener("keydown", (event) => {
    const index = elements.indexOf(event.target);
    const goal = index < 0 ? undefined : goalOf(event.key, index);
    if (goal) {
      event.preventDefault();
      goal.focus();
    }
  });

  function goalOf(key, index) {
    const forward = getComputedStyle(group).direction === "rtl" ? -1 : 1;
    switch (key) {
      case "ArrowRight":
        return elements[index + forward];
      case "ArrowLeft":
        return elements[index - forward];
      case "ArrowDown":
        return vertical(index, 1);
      case "ArrowUp":
        return vertical(index, -1);
      case "Home":
        return elements[0];
      case "End":
        return elements[elements.length - 1];
    }
    return undefined;
  }
}

// Calls chosen(element) when one of them is pointed at or reached by the keyboard. A click holds
// it: the mouse may then pass over others on its way, until a second click.
function whenPointedAt(elements, chosen) {
  let held = null;
  const hold = (element) => {
    held = element;
    elements.forEach((each) => each.classList.toggle("held", each === held));
  };
  for (const each of elements) {
    each.addEventListener("mouseenter", () => {
      if (held === null) {
        chosen(each);
      }
    });
    each.addEventListener("focus", () => {
      if (held !== each) {
        hold(null);
      }
      chosen(each);
    });
    each.addEventListener("click", () => {
      hold(held === each ? null : each);
      chosen(each);
    });
  }
}

// A bar of all categories, as wide as their shares.
function stackedBar(categories, shares) {
  const bar = element("span", {class: "stacked", "aria-hidden": "true"});
  shares.forEach((share, i) => {
    if (share > 0) {
      const style = `flex-grow: ${share}; --color: ${colorOf(categories[i])}`;
      bar.append(element("i", {style}));
    }
  });
  return bar;
}

// ------------------------------------------------------------------------- attention weights

// pack()'s numbers as bytes: {..., weights: Uint8Array}.
async function unpack(block) {
  if (block === null) {
    return null;
  }
  const packed = Uint8Array.from(atob(block.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const weights = new Uint8Array(await new Response(stream).arrayBuffer());
  return {...block, weights};
}

// The weights of one row (a token that looks), a number from 0 to 1 for every token of the source.
function rowOf(block, layer, plane, row) {
  const start = ((layer * block.planes + plane) * block.rows + row) * block.columns;
  const found = block.weights.subarray(start, start + block.columns);
  return Array.from(found, (level) => level / data.levels);
}

// The source as it is shown: words, or single pieces. A word has the tokens from start to end;
// what stands behind it without a space and is neither letter nor digit stands by itself, and so
// does what follows that.
function unitsOf(source, asPieces) {
  const units = [];
  source.forEach((token, place) => {
    const before = source[place - 1];
    const goesOn = !asPieces && place > 0 && token.text && before.text
      && IN_WORDS.test(token.piece) && !token.piece.startsWith(SPACE)
      && (before.piece === SPACE || IN_WORDS.test(before.piece));
    if (goesOn) {
      const word = units[units.length - 1];
      word.text += token.piece;
      word.end = place + 1;
    } else {
      units.push({text: token.piece, start: place, end: place + 1, special: !token.text});
    }
  });
  return units;
}

// What is looked at: weights of tokens summed over those of a unit.
function sumsOf(units, weights) {
  return units.map((unit) => {
    let sum = 0;
    for (let place = unit.start; place < unit.end; place += 1) {
      sum += weights[place];
    }
    return sum;
  });
}

// Puts the source into a box, a <span> or <button> for every unit, and returns these.
function drawUnits(box, units, kind) {
  const made = units.map((unit) => {
    const kinds = unit.special ? "unit special" : "unit";
    const drawn = element(
      kind,
      {class: kinds},
      element("span", {class: "text", dir: "auto"}, textOf(unit.text)),
      element("span", {class: "number"}),
    );
    if (kind === "button") {
      drawn.setAttribute("type", "button");
    }
    return drawn;
  });
  box.replaceChildren(...made);
  return made;
}

// Colours drawn units: the one that is looked at most in full, the others in proportion.
function heat(drawn, sums) {
  const most = Math.max(...sums, 1 / data.levels);
  drawn.forEach((unit, i) => {
    unit.style.setProperty("--share", sums[i] / most);
    unit.dataset.sum = sums[i].toFixed(4);
    unit.querySelector(".number").textContent = sums[i] >= 0.005 ? percent(sums[i]) : "";
  });
}

// A <select> with a label. choices: texts; changed(index) is called for the one chosen.
function selector(name, choices, now, changed) {
  const select = element("select", {});
  choices.forEach((choice, i) => {
    const option = element("option", {value: i}, choice);
    option.selected = i === now;
    select.append(option);
  });
  select.addEventListener("change", () => changed(Number(select.value)));
  return element("label", {}, `${name} `, select);
}

function checkbox(name, now, changed) {
  const box = element("input", {type: "checkbox"});
  box.checked = now;
  box.addEventListener("change", () => changed(box.checked));
  return element("label", {}, box, ` ${name}`);
}

// Layer, head and pieces, for cross-attention and for self-attention alike. block: any model's,
// for all have the same shape; state: where the choice is kept; redraw(): shows it.
function controlsOf(box, block, state, redraw) {
  const layers = block.layers.map((layer) => `${layer}`);
  const planes = ["mean"];
  for (let head = 1; head < block.planes; head += 1) {
    planes.push(`${head}`);
  }
  const set = (key) => (value) => {
    state[key] = value;
    redraw();
  };
  box.append(
    selector("layer", layers, state.layer, set("layer")),
    selector("head", planes, state.plane, set("plane")),
    checkbox("pieces, not words", state.pieces, set("pieces")),
  );
}

// Texts in which spaces are rare (Chinese, Japanese, Thai) are better read by the piece.
function hasFewSpaces(source) {
  const texts = source.filter((token) => token.text);
  const words = texts.filter((token) => token.piece.startsWith(SPACE));
  return words.length * 5 < texts.length;
}

// ---------------------------------------------------------------------- how far each one moved

const FEED_FORWARD = {name: "FFN", matrices: {fc1: "1", fc2: "2"}}; // short: two columns wide
const PROJECTIONS = {q_proj: "q", k_proj: "k", v_proj: "v", out_proj: "o"};
const STACKS = {
  encoder: [{name: "self-attention", part: "self_attn", matrices: PROJECTIONS}, FEED_FORWARD],
  decoder: [
    {name: "self-attention", part: "self_attn", matrices: PROJECTIONS},
    {name: "cross-attention", part: "encoder_attn", matrices: PROJECTIONS},
    FEED_FORWARD,
  ],
};

// The matrices of a layer, from left to right: {key: as in a tensor's name, letter, title}.
function columnsOf(stack) {
  const columns = [];
  for (const group of STACKS[stack]) {
    for (const [matrix, letter] of Object.entries(group.matrices)) {
      const key = group.part ? `${group.part}.${matrix}` : matrix;
      columns.push({key, letter, title: `${group.name} ${letter}`});
    }
  }
  return columns;
}

function layersOf(moved, stack) {
  let count = 0;
  while (`model.${stack}.layers.${count}.fc1.weight` in moved) {
    count += 1;
  }
  return count;
}

function isInMap(name) {
  return /\.layers\..*(_proj|fc1|fc2)\.weight$/.test(name);
}

function movedInWords(value) {
  if (value === null) {
    return "moved from all zeros";
  }
  return value === 0 ? "not moved" : `moved by ${percent(value)}`;
}

function drawMaps() {
  const models = data.models.filter((model) => model.moved !== null);
  let most = 0;
  for (const model of models) {
    for (const [name, value] of Object.entries(model.moved)) {
      if (isInMap(name)) {
        most = Math.max(most, value);
      }
    }
  }
  for (const model of models) {
    const stacks = element("div", {class: "stacks"});
    const card = element("div", {class: "card"}, titleOf(model), stacks, elsewhere(model));
    for (const stack of Object.keys(STACKS)) {
      stacks.append(mapOf(model, stack, most));
    }
    byId("maps").append(card);
  }
  const ramp = element("span", {class: "scale", "aria-hidden": "true"});
  byId("scale").append("0%", ramp, percent(most));
}

function mapOf(model, stack, most) {
  const columns = columnsOf(stack);
  const groups = element("tr", {}, element("th", {}));
  for (const group of STACKS[stack]) {
    const span = Object.keys(group.matrices).length;
    groups.append(element("th", {scope: "colgroup", colspan: span}, group.name));
  }
  const letters = element("tr", {}, element("th", {}));
  for (const column of columns) {
    letters.append(element("th", {scope: "col"}, column.letter));
  }

  const body = element("tbody");
  const cells = [];
  for (let layer = 0; layer < layersOf(model.moved, stack); layer += 1) {
    const row = element("tr", {}, element("th", {scope: "row"}, `${layer + 1}`));
    for (const column of columns) {
      const name = `model.${stack}.layers.${layer}.${column.key}`;
      const value = model.moved[`${name}.weight`];
      const title = `${stack} layer ${layer + 1}, ${column.title}`;
      const share = value === null ? 1 : value / (most || 1);
      const cell = element("td", {
        role: "gridcell",
        "data-name": name,
        "data-title": title,
        "aria-label": `${model.name}, ${title}: ${movedInWords(value)}`,
        style: `--share: ${share}`,
      });
      row.append(cell);
      cells.push(cell);
    }
    body.append(row);
  }
  const table = element(
    "table",
    {class: "map", role: "grid", "aria-label": `${model.name}, ${stack}`},
    element("caption", {}, stack),
    element("thead", {}, groups, letters),
    body,
  );
  moveByArrows(table, cells, (index, step) => cells[index + step * columns.length]);
  whenPointedAt(cells, (cell) => sayMoved(cell.dataset.name, cell.dataset.title));
  return table;
}

// What of a model is in no square, in words.
function elsewhere(model) {
  const largest = {"layer norms": 0, embeddings: 0, biases: 0};
  const fromZeros = new Set();  // the kinds of which a tensor began as all zeros and moved
  for (const [name, value] of Object.entries(model.moved)) {
    let kind = "biases";
    if (/norm/.test(name)) {
      kind = "layer norms";
    } else if (/shared|embed/.test(name)) {
      kind = "embeddings";
    }
    if (isInMap(name)) {
      continue;
    }
    if (value === null) {
      fromZeros.add(kind);
    } else {
      largest[kind] = Math.max(largest[kind], value);
    }
  }
  const told = [];
  for (const [kind, value] of Object.entries(largest)) {
    told.push(`${kind} ${elsewhereInWords(value, fromZeros.has(kind))}`);
  }
  return element("p", {class: "hint"}, `Not in the map: ${told.join(", ")}.`);
}

// The largest movement of a kind of tensors; someFromZeros: one of them moved from all zeros, of
// which there is no share.
function elsewhereInWords(value, someFromZeros) {
  if (value === 0) {
    return someFromZeros ? "moved from all zeros" : "not moved";
  }
  const largest = `by up to ${percent(value)}`;
  return someFromZeros ? `${largest} (some from all zeros)` : largest;
}

function sayMoved(name, title) {
  for (const cell of document.querySelectorAll(".map td")) {
    cell.classList.toggle("pointed", cell.dataset.name === name);
  }
  const told = [];
  for (const model of data.models) {
    if (model.moved !== null && `${name}.weight` in model.moved) {
      const bias = movedInWords(model.moved[`${name}.bias`]);
      told.push(`${model.name} ${movedInWords(model.moved[`${name}.weight`])} (its bias ${bias})`);
    }
  }
  byId("moved-says").textContent = `${title}: ${told.join("; ")}`;
}

// ---------------------------------------------------------------------------------- the outputs

function drawLegend() {
  for (const category of CATEGORIES) {
    const swatch = element("span", {class: "swatch", style: `--color: ${colorOf(category)}`});
    byId("legend").append(element("li", {}, swatch, nameOf(category)));
  }
}

function drawOutputs() {
  const drawn = data.models.map((model, m) => {
    const tokens = element("div", {class: "tokens", role: "toolbar", dir: "auto"});
    tokens.setAttribute("aria-label", `${model.name}: ${model.output}`);
    const buttons = model.tokens.map((token, place) => tokenButton(token, m, place));
    tokens.append(...inWords(buttons, model.tokens));
    byId("outputs").append(element("div", {class: "card"}, titleOf(model), tokens));
    return buttons;
  });
  drawn.forEach((buttons, m) => {
    moveByArrows(buttons[0].closest(".tokens"), buttons, (index, step) => {
      const others = drawn[m + step];
      return others && others[Math.min(index, others.length - 1)];
    });
  });
  whenPointedAt(drawn.flat(), (button) => {
    shown.model = Number(button.dataset.model);
    shown.place = Number(button.dataset.place);
    showToken();
  });
}

// The buttons of an output, those of a word together: no line ends within one.
function inWords(buttons, tokens) {
  const words = [];
  buttons.forEach((button, i) => {
    const begins = tokens[i].piece.startsWith(SPACE) || tokens[i].language === "end";
    if (begins || words.length === 0) {
      words.push(element("span", {class: "word"}));
    }
    words[words.length - 1].append(button);
  });
  return words;
}

function tokenButton(token, m, place) {
  const kinds = ["token"];
  if (isForeign(token)) {
    kinds.push("foreign");
  }
  if (token.language === "end") {
    kinds.push("special");
  }
  const label = `${textOf(token.piece)}, ${percent(token.p)}`;
  return element(
    "button",
    {
      type: "button",
      class: kinds.join(" "),
      style: `--color: ${colorOf(token.language)}`,
      "data-model": m,
      "data-place": place,
      "aria-label": isForeign(token) ? `${label}, ${token.language}` : label,
    },
    element("span", {class: "text"}, textOf(token.piece)),
    stackedBar(CATEGORIES, token.shares),
  );
}

// What a reader came for: the first token in another language than the output's, if there is one.
function firstForeign() {
  for (let model = 1; model < data.models.length; model += 1) { // the base, 0, only copies
    const place = data.models[model].tokens.findIndex(isForeign);
    if (place >= 0) {
      return {model, place};
    }
  }
  return {model: data.models.length - 1, place: 0};
}

function isForeign(token) {
  return data.languages.indexOf(token.language) > 0; // the output's own stands first
}

function showToken() {
  const model = data.models[shown.model];
  const token = model.tokens[shown.place];
  for (const button of byId("outputs").querySelectorAll(".token")) {
    const isChosen = Number(button.dataset.model) === shown.model
      && Number(button.dataset.place) === shown.place;
    button.classList.toggle("chosen", isChosen);
    button.setAttribute("aria-pressed", isChosen);
  }
  const rank = token.rank === 1 ? "the likeliest" : `the ${ordinal(token.rank)} likeliest`;
  byId("token-title").textContent =
    `${model.name}, token ${shown.place + 1} of ${model.tokens.length}: `
    + `“${textOf(token.piece)}”, ${percent(token.p)}, ${rank}`;

  byId("best").replaceChildren(...token.best.map((candidate) => barOf(
    textOf(candidate.piece), candidate.p, candidate.language, candidate.piece === token.piece,
  )));
  const shares = CATEGORIES.map((category, i) => barOf(
    nameOf(category), token.shares[i], category, category === token.language,
  ));
  byId("shares").replaceChildren(...shares);
  showCross();
}

function ordinal(number) {
  const ends = {1: "st", 2: "nd", 3: "rd"};
  const isTeen = Math.floor(number / 10) % 10 === 1;
  return `${number}${(!isTeen && ends[number % 10]) || "th"}`;
}

// A line with a name, a bar and a number.
function barOf(name, share, category, isChosen) {
  const style = `--share: ${share}; --color: ${colorOf(category)}`;
  return element(
    "li",
    {class: isChosen ? "chosen" : "", "data-p": share},
    element("span", {class: "name", dir: "auto", title: name}, name),
    element("span", {class: "bar", style, "aria-hidden": "true"}),
    element("span", {class: "number"}, percent(share)),
  );
}

function showCross() {
  const model = data.models[shown.model];
  const {layer, plane, pieces} = shown.cross;
  const units = unitsOf(model.source, pieces);
  const weights = rowOf(model.cross, layer, plane, shown.place);
  heat(drawUnits(byId("cross"), units, "span"), sumsOf(units, weights));
}

// ----------------------------------------------------------------------------------- the source

// All models read the same text, but one that was trained without a source tag has fewer tokens.
let ownDrawn = [];

function drawOwn() {
  const model = data.models[shown.own.model];
  const units = unitsOf(model.source, shown.own.pieces);
  ownDrawn = drawUnits(byId("own"), units, "button");
  if (model.probe) {
    ownDrawn.forEach((drawn, i) => drawn.append(verdictBar(model.probe, units[i])));
  }
  moveByArrows(byId("own"), ownDrawn, () => undefined);
  whenPointedAt(ownDrawn, (drawn) => {
    shown.own.unit = ownDrawn.indexOf(drawn);
    showOwn();
  });
  shown.own.unit = Math.min(shown.own.unit, units.length - 1);
  showOwn();
}

// Of a word: the mean over its pieces.
function verdictOf(probe, unit) {
  const rows = probe.verdicts.slice(unit.start, unit.end);
  return probe.languages.map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
}

function verdictBar(probe, unit) {
  return stackedBar(probe.languages, verdictOf(probe, unit));
}

function showOwn() {
  const model = data.models[shown.own.model];
  const {layer, plane, pieces, unit} = shown.own;
  const units = unitsOf(model.source, pieces);
  const chosen = units[unit];
  let told = `“${textOf(chosen.text)}”`;
  if (model.own) {
    heat(ownDrawn, sumsOf(units, ownWeights(model.own, layer, plane, chosen)));
    told += ` in layer ${model.own.layers[layer]} looks at the words that are lit`;
  }
  ownDrawn.forEach((drawn, i) => {
    drawn.classList.toggle("chosen", i === unit);
    drawn.setAttribute("aria-pressed", i === unit);
  });
  if (model.probe) {
    const verdict = verdictOf(model.probe, chosen);
    const best = verdict.indexOf(Math.max(...verdict));
    told += `; the probe says ${model.probe.languages[best]}, ${percent(verdict[best])}`;
  }
  byId("own-says").textContent = `${told}.`;
}

// What a word looks at: the mean over its pieces.
function ownWeights(block, layer, plane, unit) {
  const sums = new Array(block.columns).fill(0);
  for (let row = unit.start; row < unit.end; row += 1) {
    rowOf(block, layer, plane, row).forEach((weight, i) => {
      sums[i] += weight / (unit.end - unit.start);
    });
  }
  return sums;
}

// ----------------------------------------------------------------------------------- the start

function writeTexts() {
  const noun = data.stage === "translate" ? "translation" : "summary";
  byId("about").textContent =
    `One text in ${data.source_lang}, its ${noun} in ${data.lang} by ${data.models.length} models.`;
  byId("left-out").textContent = data.left_out.join(" ");
  byId("left-out").hidden = data.left_out.length === 0;
  byId("output-title").textContent = `The ${noun}, token by token`;
  const {beam, no_repeat_ngram: repeat} = data.options;
  const rule = repeat ? `, no ${repeat} tokens in a row twice` : "";
  byId("output-hint").textContent =
    "The bar below a token shows the probability at its place by language; a token of another "
    + `language than ${data.lang} is in colour. Point at one, click to hold it, or use arrow keys. `
    + `Written with ${beam} beams${rule}; the numbers are of the model reading its own ${noun} `
    + "once, without the beam's rules.";
  byId("own-hint").textContent =
    "Point at a word to see where its self-attention looks; a word of several pieces looks where "
    + "its pieces do on average. ";
  const probes = data.models.filter((model) => model.probe);
  if (probes.length) {
    const accuracies = probes.map((model) => `${model.name} ${percent(model.probe.accuracy)}`);
    byId("own-hint").append(
      "The bar below a word is the verdict of a classifier, trained on the states that the "
      + "decoder reads, on which language the word is from; right on held-out texts: "
      + `${accuracies.join(", ")}.`,
    );
  }
  const counted = data.languages.map((lang) => `${lang} ${data.texts[lang]}`);
  byId("footer").textContent =
    `A piece belongs to the language in whose texts it is at least ${data.times} times as `
    + "common as in any other's; else, and where it has no letter, it is shared. Counted in "
    + `training texts of ${data.data}: ${counted.join(", ")}. Attention weights are the model's `
    + `own, to 1/${data.levels}; a word's is the sum over its pieces.`;
}

async function start() {
  for (const model of data.models) {
    model.cross = await unpack(model.cross);
    model.own = await unpack(model.own);
  }
  writeTexts();
  drawMaps();
  drawLegend();
  drawOutputs();
  const last = data.models[data.models.length - 1];
  shown.cross.pieces = hasFewSpaces(last.source);
  shown.own.pieces = shown.cross.pieces;
  shown.cross.layer = last.cross.layers.length - 1;
  controlsOf(byId("cross-controls"), last.cross, shown.cross, showCross);
  showToken();

  const names = data.models.map((model) => model.name);
  byId("own-controls").append(selector("model", names, shown.own.model, (index) => {
    shown.own.model = index;
    drawOwn();
  }));
  if (last.own) {
    controlsOf(byId("own-controls"), last.own, shown.own, drawOwn);
  }
  byId("own-section").hidden = !last.own && !last.probe;
  drawOwn();
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  byId("about").textContent =
    `This page could not be drawn (${error.message}); any browser of 2023 or later should do it.`;
  throw error;
});
