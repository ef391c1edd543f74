// A list of which only the rows in sight are elements, so that its length costs nothing.

const ROW_HEIGHT = 18; // as in style.css

class List {
  // `onPick(row, name)` is called with the row that was clicked, and the name in it, or ''.
  constructor(element, onPick) {
    this.element = element;
    this.inner = document.createElement('div');
    this.window = document.createElement('div');
    this.inner.className = 'list-inner';
    this.window.className = 'list-window';
    this.inner.append(this.window);
    element.append(this.inner);
    this.rows = [];
    this.query = '';
    this.selected = 0; // an entity
    element.addEventListener('scroll', () => this.draw());
    new ResizeObserver(() => this.draw()).observe(element);
    this.window.addEventListener('click', event => {
      const line = event.target.closest('.row');
      if (!line) return;
      const name = event.target.closest('.value, .constant, .quant');
      onPick(this.rows[Number(line.dataset.row)], name ? name.dataset.name : '');
    });
  }

  show(rows) {
    this.rows = rows;
    let longest = 0;
    for (const r of rows) longest = Math.max(longest, r.text.length);
    this.inner.style.height = rows.length * ROW_HEIGHT + 'px';
    this.inner.style.width = 'max(100%, ' + (longest + 8) + 'ch)';
    this.draw(true);
  }

  draw(anew) {
    const top = Math.max(0, Math.floor(this.element.scrollTop / ROW_HEIGHT) - 10);
    const end = Math.min(this.rows.length, top + Math.ceil(this.element.clientHeight / ROW_HEIGHT) + 20);
    if (!anew && top === this.top && end === this.end) return;
    this.top = top;
    this.end = end;
    this.window.style.transform = 'translateY(' + top * ROW_HEIGHT + 'px)';
    const lines = [];
    for (let i = top; i < end; i++) {
      const row = this.rows[i], line = document.createElement('div');
      const picked = this.selected && row.part && row.part.entity === this.selected;
      line.className = 'row ' + row.mark + (picked ? ' picked' : '') + (i === this.current ? ' current' : '');
      line.dataset.row = i;
      fillRow(line, row, this.query);
      lines.push(line);
    }
    this.window.replaceChildren(...lines);
  }

  reveal(i) {
    const middle = i * ROW_HEIGHT - this.element.clientHeight / 2;
    const top = this.element.scrollTop, inside = top < i * ROW_HEIGHT &&
      (i + 2) * ROW_HEIGHT < top + this.element.clientHeight;
    if (!inside) this.element.scrollTop = Math.max(0, middle);
    this.draw(true);
  }

  // The row of an entity, the newer one if there are two, or -1.
  rowOf(entity) {
    let found = -1;
    for (let i = 0; i < this.rows.length; i++) {
      const p = this.rows[i].part;
      if (p && p.entity === entity && (found < 0 || this.rows[found].mark === 'old')) found = i;
    }
    return found;
  }

  select(entity) {
    this.selected = entity;
    const i = this.rowOf(entity);
    if (i >= 0)
      this.reveal(i);
    else
      this.draw(true);
  }

  // Rows that hold the text, in any case.
  search(query) {
    this.query = query.toLowerCase();
    this.hits = [];
    if (this.query)
      this.rows.forEach((r, i) => r.text.toLowerCase().includes(this.query) && this.hits.push(i));
    this.current = -1;
    this.draw(true);
    return this.hits.length;
  }

  // To the next hit, or the one before, round the ends; its number from 1 on, 0: there is none.
  nextHit(step) {
    if (!this.hits || !this.hits.length) return 0;
    const here = this.hits.indexOf(this.current), n = this.hits.length;
    const next = here < 0 ? this.firstHitBelow(step) : (here + step + n) % n;
    this.current = this.hits[next];
    this.reveal(this.current);
    const found = this.window.querySelector('.current .found');
    if (found) found.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    return next + 1;
  }

  firstHitBelow(step) {
    const top = this.element.scrollTop / ROW_HEIGHT;
    const i = this.hits.findIndex(h => h >= top);
    return step < 0 ? (i + this.hits.length - 1) % this.hits.length : Math.max(0, i);
  }

  firstChange() {
    this.current = -1;
    this.element.scrollTop = 0;
    if (this.nextChange(1)) this.current = -1;
    this.draw(true);
  }

  // The row where the next run of marked rows begins, in a direction.
  nextChange(step) {
    const marked = i => ['new', 'gone', 'old', 'changed'].includes(this.rows[i] && this.rows[i].mark);
    const here = this.current >= 0 ? this.current : Math.floor(this.element.scrollTop / ROW_HEIGHT) - (step > 0);
    for (let i = here + step; i >= 0 && i < this.rows.length; i += step) {
      if (!marked(i) || marked(i - 1)) continue;
      this.current = i;
      this.reveal(i);
      return true;
    }
    return false;
  }
}
