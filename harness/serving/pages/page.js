// The page: games side by side, one for each policy.
import { answered, begin, codeOf, label } from "/assets/play.js";

const PAUSE = 700; // milliseconds between the answers of a simulated user
const element = (id) => document.getElementById(id);
let policies = [];
let games = [];
let watching = null;

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (response.status === 401) {
    const given = prompt("The server asks for its token:");
    if (given) {
      sessionStorage.setItem("token", given);
      return ask(path, body);
    }
  }
  const result = await response.json();
  if (!response.ok) throw new Error(result.error);
  return result;
}

function told(error) {
  element("message").textContent = error ? error.message : "";
}

function make(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

class Game {
  constructor(facts) {
    this.facts = facts;
    this.section = element("game").content.cloneNode(true).firstElementChild;
    this.section.setAttribute("aria-label", `Policy ${facts.policy}`);
    this.part("h2").textContent = facts.policy;
    facts.answers.values.forEach((value, code) => {
      const button = make("button", label(value));
      button.type = "button";
      button.addEventListener("click", () => this.answer(code));
      this.part(".answers").append(button);
    });
    this.restart();
  }

  part(selector) {
    return this.section.querySelector(selector);
  }

  restart() {
    this.state = begin();
    this.part(".past").replaceChildren();
    return this.next();
  }

  async next() {
    this.busy(true);
    const turn = (this.turn = (this.turn || 0) + 1);
    try {
      const body = { history: [], session: this.state.session, k: Math.min(5, this.facts.k), shown: 1, policy: this.facts.policy };
      const list = await ask("/recommend", { ...body, paths: this.facts.paths });
      if (turn !== this.turn) return; // started again meanwhile
      this.decision = list.decision;
      this.item = list.items[0] || null;
      this.show(list.items);
      told(null);
    } catch (error) {
      told(error);
      this.item = null;
    } finally {
      if (turn === this.turn) this.busy(false);
    }
  }

  show(items) {
    const { state, item } = this;
    const steps = state.session.length;
    this.part(".title").textContent = item ? item.title : "Nothing is left";
    this.part(".categories").textContent = item ? item.categories : "";
    this.part(".reward").textContent = state.reward.toFixed(2);
    this.part(".mean").textContent = steps ? (state.reward / steps).toFixed(2) : "–";
    const streak = state.positive || -state.negative;
    this.part(".streak").textContent = streak > 0 ? `+${streak}` : String(streak);
    this.part(".steps").textContent = String(steps);
    this.think(items);
  }

  think(items) {
    const path = this.item && this.item.path;
    const list = this.part(".thoughts");
    list.replaceChildren();
    this.part(".meaning").textContent = path ? `The way through the tree; ${this.facts.path_score}` : `Best items; ${this.facts.score}`;
    for (const step of path || []) {
      const row = make("li", "");
      row.append(make("b", step.score.toFixed(3)), ` ${step.items} item${step.items === 1 ? "" : "s"}`);
      if (step.such_as.length) row.append(`, such as ${step.such_as.join("; ")}`);
      list.append(row);
    }
    for (const item of path ? [] : items) {
      const row = make("li", "");
      row.append(make("b", item.score.toFixed(3)), ` ${item.title}`);
      list.append(row);
    }
  }

  async answer(code) {
    if (!this.item || this.waits) return;
    const { item, decision, facts } = this;
    this.state = answered(this.state, item.item, item.title, code, facts.answers);
    const last = this.state.titles.at(-1);
    const row = make("li", `${last.title}: ${label(last.answer)} `);
    row.append(make("span", last.reward.toFixed(2), last.reward > 0 ? "good" : last.reward < 0 ? "bad" : ""));
    this.part(".past").prepend(row);
    this.busy(true);
    const body = { item: item.item, answer: facts.answers.values[code], decision, policy: facts.policy };
    ask("/answer", body).catch(told);
    await this.next();
  }

  /** One answer of the simulated user; false at the end of an episode. */
  async watch(user) {
    if (!this.item || this.state.session.length >= this.facts.episode_length) return false;
    const given = await ask("/simulated_answer", { user, item: this.item.item, policy: this.facts.policy });
    await this.answer(this.facts.answers.values.indexOf(given.answer));
    return true;
  }

  busy(waits) {
    this.waits = waits;
    this.section.classList.toggle("busy", waits);
    for (const button of this.part(".answers").children) button.disabled = waits;
  }
}

function arrange() {
  stop();
  const wanted = [element("first").value, element("second").value].filter(Boolean);
  games = wanted.map((name) => new Game(policies.find((facts) => facts.policy === name)));
  element("games").replaceChildren(...games.map((game) => game.section));
}

function stop() {
  clearTimeout(watching);
  watching = null;
  element("watch").setAttribute("aria-pressed", "false");
}

function watch() {
  if (watching !== null) return stop();
  const user = element("user").value;
  if (!user) return told(new Error("The export knows no users (users=false)."));
  element("watch").setAttribute("aria-pressed", "true");
  const step = async () => {
    try {
      const going = await Promise.all(games.map((game) => game.watch(user)));
      if (watching === null) return;
      if (going.some(Boolean)) watching = setTimeout(step, PAUSE);
      else stop();
    } catch (error) {
      told(error);
      stop();
    }
  };
  watching = setTimeout(step, 0);
}

function restart() {
  stop();
  games.forEach((game) => game.restart());
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const place = Math.max(games.findIndex((game) => game.section.contains(document.activeElement)), 0);
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const other = games[(place + 1) % games.length];
    other.section.focus();
  } else if (event.key.toLowerCase() === "w") watch();
  else if (event.key.toLowerCase() === "r") restart();
  else {
    const game = games[place];
    const code = game ? codeOf(event.key, game.facts.answers.values) : -1;
    if (code < 0) return;
    game.answer(code);
  }
  event.preventDefault();
}

async function load() {
  try {
    policies = (await ask("/policies")).policies;
    for (const { policy } of policies) {
      element("first").append(new Option(policy, policy));
      element("second").append(new Option(policy, policy));
    }
    element("second").prepend(new Option("none", ""));
    element("second").value = policies.length > 1 ? policies[1].policy : "";
    const { users } = await ask("/users?limit=50");
    for (const user of users) element("user").append(new Option(user, user));
    if (!users.length) element("watch").disabled = true;
    arrange();
  } catch (error) {
    told(error);
  }
}

element("first").addEventListener("change", arrange);
element("second").addEventListener("change", arrange);
element("user").addEventListener("change", restart);
element("watch").addEventListener("click", watch);
element("restart").addEventListener("click", restart);
element("settings").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", pressed);
load();
