/** What the plain client shows of each item: text nodes, images and buttons, no HTML. */

/**
 * Make an element: properties by their names, other names as attributes, strings as text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} props
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
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

/**
 * An item as an element; one that has nothing to show is hidden.
 * @param {{rate: Function, retry: () => void, run: Function}} act what its buttons do
 */
export function render(item, act) {
  const [kind, name] = item.type === "user_message" ? ["mine", "You"] : ["theirs", "Assistant"];
  const node = h("article", { class: `item ${kind}`, "aria-label": name }, ...body(item, act));
  node.hidden = !node.hasChildNodes();
  return node;
}

/** @returns {Node[]} */
function body(item, act) {
  switch (item.type) {
    case "user_message":
      return [
        ...item.content.map((part) => paragraph(part.text)),
        ...item.attachments.map(({ name, preview_url: src }) =>
          src ? h("img", { src, alt: name }) : paragraph(name, "file"),
        ),
      ];
    case "assistant_message":
      return [
        ...item.content.map((part) => paragraph(part.text)),
        ...item.content.flatMap((part) => part.annotations.map(source)),
        actions(item, act),
      ];
    case "widget":
      return [h("div", { class: "widget" }, ...widget(item.widget, (it) => act.run(it, item)))];
    case "workflow":
      return [steps(item.workflow.summary?.title ?? "Steps", item.workflow.tasks)];
    case "task":
      return [steps("Step", [item.task])];
    case "generated_image":
      return item.image ? [h("img", { src: item.image.url, alt: "Generated image" })] : [];
    case "structured_input":
      return item.inputs.map(({ question }) => paragraph(question));
    case "client_tool_call":
      return [paragraph(`Asked this browser: ${item.name}`, "quiet")];
    default:
      return [];
  }
}

const source = ({ source: { title, filename, url } }) =>
  paragraph(`Source: ${title || filename || url}`, "quiet");

function steps(title, tasks) {
  const lines = tasks.map((task) => paragraph(task.title ?? task.content ?? task.type));
  return h("details", {}, h("summary", {}, title), ...lines);
}

function actions(item, act) {
  const rate = (kind) => async (event) => {
    if (!(await act.rate(item, kind))) return;
    for (const each of row.children) each.ariaPressed = String(each === event.target);
  };
  const row = h("div", { class: "actions" });
  row.append(button("Good", rate("positive"), "small", "Good answer"));
  row.append(button("Bad", rate("negative"), "small", "Bad answer"));
  row.append(button("Again", act.retry, "small", "Answer again"));
  return row;
}

/** A widget's text and buttons; its looks are ChatKit's business. */
function widget(part, run) {
  const words = part.value ?? part.label ?? part.alt ?? "";
  const said = words ? [h("span", { class: part.type, dir: "auto" }, words)] : [];
  const inner = [part.children ?? []].flat().flatMap((child) => widget(child, run));
  const press = (action, ...label) =>
    h("button", { type: "button", onclick: () => void run(action) }, ...label);
  if (part.onClickAction) return [press(part.onClickAction, ...said, ...inner)];
  const choices = [part.confirm, part.cancel].filter(Boolean);
  return [...said, ...inner, ...choices.map(({ label, action }) => press(action, label))];
}

/** The part of a widget that has this id. */
export function find(part, id) {
  if (part.id === id) return part;
  return [part.children ?? []].flat().reduce((found, child) => found ?? find(child, id), undefined);
}
