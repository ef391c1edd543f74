'use strict';
// The data of the page, and what can be asked about it.
//
// data.stages[i]   a text of the graph: of each part of it, a line or a few, its kind (g header,
//                  s stage or state, q descriptor, c constant, o op, e end), the number of the
//                  entity it is about, which is the same in all stages, and its text, an index
//                  into data.text. `stats` has an index into data.stats for each constant, in
//                  order; `errors` [entity, SQNR in dB, largest, how many differ] of constants that
//                  are not what they were in the stage before.
// data.steps[i]    a pass: name, result, ms, and of those that changed something the stage, and how
//                  many ops were added, removed, changed, and constants changed.
// data.kernels     [entity, text] about ops of the last stage.
// data.ops         name -> [family, summary].
const data = JSON.parse(document.getElementById('data').textContent);

const NAME = '(?:"(?:[^"\\\\]|\\\\.)*"|[A-Za-z_][A-Za-z0-9_.]*)';
const TOKENS = new RegExp('[%@#]' + NAME + '|"(?:[^"\\\\]|\\\\.)*"|;.*', 'g');
const OP = new RegExp('^((?:%' + NAME + ': [^=]*?(?:, (?=%)| (?==)))*)(?:= )?([a-z_0-9]+)');
const OPERANDS = new RegExp('^(?:,? (?:[a-z_][a-z_0-9]*=)?[%@]' + NAME + ')*');
const RESULT = new RegExp('(%' + NAME + '): (.*?)(?:, (?=%)| $)', 'g');
const VALUE = new RegExp('[%@]' + NAME, 'g');
const INPUT = new RegExp('(%' + NAME + '): [^\\]]*\\]', 'g');
const DECLARATION = new RegExp('^(?:const|quant) ([@#]' + NAME + ')(?:: ([^=]*?\\]) =)?');
const STRING = /"(?:[^"\\]|\\.)*"/g;
const WORD = /"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_.-]*/g;
const ORIGIN = new RegExp('^(?: at (' + STRING.source + '(?: \\+ ' + STRING.source + ')*))?' +
  '(?: via ((?:' + WORD.source + ')(?:, (?:' + WORD.source + '))*))?(?: in [a-z]+[a-z0-9 ,]*)?$');
// Behind the data of a constant: elements in braces, a splat, or what was left out.
const DATA = /= (?:\{[^}]*\}|blob "(?:[^"\\]|\\.)*"\S* hash \S+|elided \d+ bytes hash \S+|splat \S+|random\([^)]*\))/;
const BRACES = /^ (\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})/;

// What the text inside quotes stands for.
function unquote(text) {
  if (text[0] !== '"') return text;
  return text.slice(1, -1).replace(/\\(x[0-9a-f]{2}|.)/g, (all, c) =>
    c.length === 3 ? String.fromCharCode(parseInt(c.slice(1), 16)) : c);
}

// ` at "a" + "b" via x, y in slot 3` at the end of a line: {at, via}.
function originOf(text) {
  const m = ORIGIN.exec(text);
  const list = (part, item) => part ? (part.match(item) || []).map(unquote) : [];
  return { at: list(m && m[1], STRING), via: list(m && m[2], WORD) };
}

const parsedLines = []; // by index into data.text

// One part of a stage. `names` are the values it makes, `takes` those it reads.
class Part {
  constructor(stage, index) {
    this.stage = stage;
    this.index = index;
    this.kind = stage.kinds[index];
    this.entity = stage.entities[index];
    this.text = data.text[stage.lines[index]];
  }

  // Parts of equal text share what it says.
  get parsed() {
    const line = this.stage.lines[this.index];
    if (!parsedLines[line]) parsedLines[line] = this.kind === 'o' ? this.parseOp() : this.parseOther();
    return parsedLines[line];
  }

  parseOp() {
    const text = this.text.trimStart(), m = OP.exec(text);
    if (!m) return { op: '', names: [], types: [], takes: [], at: [], via: [], attributes: '' };
    const names = [], types = [];
    for (const r of m[1].matchAll(RESULT)) {
      names.push(r[1]);
      types.push(r[2]);
    }
    const operands = OPERANDS.exec(text.slice(m[0].length))[0];
    const behind = text.slice(m[0].length + operands.length), braces = BRACES.exec(behind);
    const takes = [...operands.matchAll(VALUE)].map(x => x[0]);
    const attributes = braces ? braces[1] : '', end = braces ? behind.slice(braces[0].length) : behind;
    return { op: m[2], names, types, takes, ...originOf(end), attributes };
  }

  parseOther() {
    const text = this.text.trimStart(), filled = this.kind === 'c' && DATA.exec(text);
    const o = originOf(filled ? text.slice(filled.index + filled[0].length) : '');
    const declared = DECLARATION.exec(text), names = declared ? [declared[1]] : [];
    if (this.kind === 'g') for (const m of text.slice(text.indexOf('(')).matchAll(INPUT)) names.push(m[1]);
    const takes = this.kind === 'q' ? [...text.matchAll(VALUE)].map(m => m[0]) : [];
    return { op: '', names, types: declared && declared[2] ? [declared[2]] : [], takes, ...o, attributes: '' };
  }
}

// Parts are made, and understood, when they are needed: opening a page of many stages, and going
// from one to another, is then a matter of their numbers.
class Stage {
  constructor(raw, index) {
    Object.assign(this, raw);
    this.index = index;
    this.made = [];
  }

  part(i) { return this.made[i] || (this.made[i] = new Part(this, i)); }
  get parts() { return this.all || (this.all = this.entities.map((_, i) => this.part(i))); }
  get positions() { return this.places || (this.places = new Map(this.entities.map((e, i) => [e, i]))); }
  has(entity) { return this.positions.has(entity); }

  // The part that is about an entity, or null.
  of(entity) {
    const i = this.places ? this.places.get(entity) : this.entities.indexOf(entity);
    return i >= 0 ? this.part(i) : null;
  }

  statsOf(constant) { return data.stats[this.stats[constant.index - this.kinds.indexOf('c')]]; }

  // [entity, SQNR, largest, how many] of a constant that is not what it was, or undefined.
  errorOf(constant) {
    if (!this.changed) this.changed = new Map(this.errors.map(e => [e[0], e]));
    return this.changed.get(constant.entity);
  }

  // Parts whose text holds `text`, for which `good` is true.
  find(text, good) {
    const out = [];
    this.lines.forEach((line, i) => {
      if (data.text[line].includes(text) && good(this.part(i))) out.push(this.part(i));
    });
    return out;
  }

  // Who makes a value, and who takes it.
  maker(name) { return this.find(name, p => p.parsed.names.includes(name))[0]; }
  users(name) { return this.find(name, p => p.parsed.takes.includes(name)); }

  // The ops that stand for an ONNX node.
  ofNode(node) {
    if (!this.nodes) {
      this.nodes = new Map();
      this.lines.forEach((line, i) => {
        if (this.kinds[i] !== 'o') return;
        const text = data.text[line], at = text.lastIndexOf(' at "');
        if (at < 0) return;
        const quick = originOf(text.slice(at)).at;
        for (const n of quick.length ? quick : this.part(i).parsed.at)
          if (this.nodes.has(n)) this.nodes.get(n).push(i);
          else this.nodes.set(n, [i]);
      });
    }
    return (this.nodes.get(node) || []).map(i => this.part(i));
  }
}

const stages = data.stages.map((raw, i) => new Stage(raw, i));
const kernels = new Map(data.kernels);
const lastStage = stages[stages.length - 1];

// What the ops of the last stage that came of a part say about their code.
function kernelsOf(part) {
  const x = part.parsed;
  const same = lastStage.of(part.entity);
  const found = same ? [same] : [];
  for (const node of x.at)
    for (const p of lastStage.ofNode(node)) if (!found.includes(p)) found.push(p);
  return found.filter(p => p.kind === 'o' && p.parsed.op !== 'return');
}

// The first and second text of each entity: [old part, new part], in the order of the second
// stage, what is gone behind what it followed. `from` null: all of the second, unmarked.
function mergeStages(from, to) {
  if (merged.from !== from || merged.to !== to) merged = { from, to, pairs: pairsOf(from, to) };
  return merged.pairs;
}

let merged = {};

function pairsOf(from, to) {
  if (!from || from === to) return to.parts.map(p => [p, p]);
  const gone = new Map();
  let last = null;
  for (const p of from.parts) {
    if (to.has(p.entity)) {
      last = p.entity;
    } else {
      if (!gone.has(last)) gone.set(last, []);
      gone.get(last).push([p, null]);
    }
  }
  const out = [...(gone.get(null) || [])];
  for (const p of to.parts) {
    out.push([from.has(p.entity) ? from.of(p.entity) : null, p]);
    for (const g of gone.get(p.entity) || []) out.push(g);
  }
  return out;
}

// 'same', 'new', 'gone' or 'changed'.
function markOf([a, b]) {
  if (!a) return 'new';
  if (!b) return 'gone';
  return a.text === b.text ? 'same' : 'changed';
}
