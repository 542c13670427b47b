/** What the plain client shows of each item: text nodes, images and buttons, no HTML. */

/** Make an element: properties by their names, other names as attributes. @returns {any} */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) Reflect.set(node, name, value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** A button; with a label of its own its text is a sign. */
export function button(text, onclick, kind = "", label = "") {
  const named = label && { title: label, "aria-label": label };
  return h("button", { type: "button", class: kind, onclick, ...named }, text);
}

const paragraph = (words, kind = "text") => h("p", { class: kind, dir: "auto" }, words);

/** An item as an element, hidden when it has nothing to show; `act` is what its buttons do. */
export function render(item, act) {
  const [kind, name] = item.type === "user_message" ? ["mine", "You"] : ["theirs", "Assistant"];
  const body = bodies[item.type]?.(item, act) ?? [];
  return h("article", { class: `item ${kind}`, "aria-label": name, hidden: !body.length }, ...body);
}

/** @type {Record<string, (item: any, act: any) => Node[]>} */
const bodies = {
  user_message: ({ content, attachments }) => [
    ...content.map((part) => paragraph(part.text)),
    ...attachments.map(({ name, preview_url: src }) =>
      src ? h("img", { src, alt: name }) : paragraph(name, "file"),
    ),
  ],
  assistant_message: (item, act) => [
    ...item.content.map((part) => paragraph(part.text)),
    ...item.content.flatMap((part) => part.annotations).map(({ source: it }) =>
      paragraph(`Source: ${it.title || it.filename || it.url}`, "quiet"),
    ),
    actions(item, act),
  ],
  widget: (item, act) => [
    h("div", { class: "widget" }, ...widget(item.widget, (action) => act.run(action, item))),
  ],
  workflow: ({ workflow: { summary, tasks } }) => [steps(summary?.title ?? "Steps", tasks)],
  task: ({ task }) => [steps("Step", [task])],
  generated_image: ({ image }) =>
    image ? [h("img", { src: image.url, alt: "Generated image" })] : [],
  structured_input: ({ inputs }) => inputs.map(({ question }) => paragraph(question)),
  client_tool_call: ({ name }) => [paragraph(`Asked this browser: ${name}`, "quiet")],
};

function steps(title, tasks) {
  const lines = tasks.map((task) => paragraph(task.title ?? task.content ?? task.type));
  return h("details", {}, h("summary", {}, title), ...lines);
}

function actions(item, act) {
  const rate = (kind) => async (event) => {
    if (!(await act.rate(item, kind))) return;
    const { parentElement: row } = event.target;
    for (const each of row.children) each.ariaPressed = String(each === event.target);
  };
  const good = button("Good", rate("positive"), "small", "Good answer");
  const bad = button("Bad", rate("negative"), "small", "Bad answer");
  const again = button("Again", act.retry, "small", "Answer again");
  return h("div", { class: "actions" }, good, bad, again);
}

/** A widget's text and buttons; its looks are ChatKit's business. */
function widget(part, run) {
  const words = part.value ?? part.label ?? part.alt;
  const said = words ? [h("span", { class: part.type, dir: "auto" }, words)] : [];
  const inner = inside(part).flatMap((child) => widget(child, run));
  const press = (action, ...label) =>
    h("button", { type: "button", onclick: () => void run(action) }, ...label);
  if (part.onClickAction) return [press(part.onClickAction, ...said, ...inner)];
  const choices = [part.confirm, part.cancel].filter(Boolean);
  return [...said, ...inner, ...choices.map(({ label, action }) => press(action, label))];
}

const inside = (part) => [part.children ?? []].flat();

/** The part of a widget that has this id. */
export const find = (part, id) =>
  part.id === id ? part : inside(part).reduce((found, it) => found ?? find(it, id), undefined);
