// What a user has answered and earned, without the page: pure functions.

/** A user who has not answered yet. */
export function begin() {
  return { session: [], titles: [], reward: 0, positive: 0, negative: 0 };
}

/** The state after an answer; `code` is its place among `answers.values`. A streak pays as in the simulator. */
export function answered(state, item, title, code, answers) {
  const own = answers.rewards[code];
  const reward = own + answers.streak_weight * (state.positive - state.negative);
  return {
    session: [...state.session, [item, answers.values[code]]],
    titles: [...state.titles, { title, answer: answers.values[code], reward }],
    reward: state.reward + reward,
    positive: own > 0 ? state.positive + 1 : 0,
    negative: own < 0 ? state.negative + 1 : 0,
  };
}

/** What the button of an answer says. */
export function label(value) {
  if (value === null) return "Skip";
  return typeof value === "number" ? String(value) : value[0].toUpperCase() + value.slice(1);
}

/** The code that a key stands for, or -1: S and 0 skip, a digit is a rating of that value, else the place of an answer. */
export function codeOf(key, values) {
  if (key.toLowerCase() === "s" || key === "0") return values[0] === null || values[0] === "skip" ? 0 : -1;
  if (!/^[1-9]$/.test(key)) return -1;
  const number = Number(key);
  if (values.some((value) => typeof value === "number")) return values.indexOf(number);
  return number < values.length ? number : -1;
}
