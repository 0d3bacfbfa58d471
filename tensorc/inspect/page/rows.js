"use strict";

/* Small things to build the page with, and lists of any length of which only what is in sight is in the document. */

const byId = id => document.getElementById(id);

const escaped = text => String(text).replace(/[&<>"]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "html") made.innerHTML = value;
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

const plural = (count, word) => `${count.toLocaleString("en-GB")} ${word}${count === 1 ? "" : "s"}`;

const round = (number, digits = 3) => number.toLocaleString("en-GB", { maximumSignificantDigits: digits });

function duration(seconds) {
  const [unit, scale] = [["s", 1], ["ms", 1e3], ["µs", 1e6]].find(([, s]) => seconds * s >= 0.9995) ?? ["ns", 1e9];
  return `${round(seconds * scale)} ${unit}`;
}

/* `html(i)` is the inside of row i and `classes(i)` its classes; all rows have one height, that of the style sheet. */
class Rows {
  static height = 20;

  constructor(host, { html, classes = () => "" }) {
    this.host = host;
    this.html = html;
    this.classes = classes;
    this.count = 0;
    this.inside = element("div", { class: "rows" });
    this.host.replaceChildren(this.inside);
    this.host.classList.add("scroll");
    this.host.onscroll = () => this.draw();
    new ResizeObserver(() => this.draw()).observe(this.host);
  }

  /* Shows `count` rows, the longest of which has so many characters. */
  show(count, characters = 0) {
    this.count = count;
    this.inside.style.height = `${count * Rows.height + 8}px`;
    this.inside.style.minWidth = characters ? `${characters + 8}ch` : "";
    this.drawn = null;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.host;
    const first = Math.max(0, Math.floor(scrollTop / Rows.height) - 10);
    const last = Math.min(this.count, Math.ceil((scrollTop + clientHeight) / Rows.height) + 10);
    if (this.drawn && this.drawn[0] === first && this.drawn[1] === last) return;
    this.drawn = [first, last];
    let text = "";
    for (let i = first; i < last; i++) {
      text += `<div class="row ${this.classes(i)}" data-row="${i}" style="top:${i * Rows.height + 4}px">${this.html(i)}</div>`;
    }
    this.inside.innerHTML = text;
  }

  /* What rows look like has changed, not what they are. */
  restyle() {
    for (const row of this.inside.children) row.className = `row ${this.classes(+row.dataset.row)}`;
  }

  redraw() {
    this.drawn = null;
    this.draw();
  }

  /* Scrolls only as far as needed, or to the middle where the row is out of sight. */
  reveal(i) {
    const top = i * Rows.height;
    const { scrollTop, clientHeight } = this.host;
    if (top < scrollTop + Rows.height || top > scrollTop + clientHeight - 2 * Rows.height) {
      this.host.scrollTop = Math.max(0, top - clientHeight / 2);
    }
    this.draw();
  }

  rowOf(event) {
    const row = event.target.closest?.(".row");
    return row ? +row.dataset.row : null;
  }
}
