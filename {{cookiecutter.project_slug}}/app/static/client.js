/* The plain client: a first chat behind any firewall, over the same protocol as ChatKit. It is a
   development tool: no Markdown, no HTML. What was said becomes text nodes: none of it can run. */
import { GREETING, PROMPTS, Refused, address, call, config, headersFor, openThread, runClientTool }
  from "./page.js";

const at = (id) => /** @type {any} */ (document.getElementById(id));
at("main").append(at("plain").content);
document.body.classList.add("plain");
const [log, status, files, text, submit] = ["log", "status", "files", "text", "submit"].map(at);

/** @type {string | null} the open chat; null: a new one */
let current = null;
/** @type {AbortController | null} the answer being shown; one left behind goes on unseen */
let turn = null;
/** @type {Map<string, {item: any, node: HTMLElement}>} the open chat's items, oldest first */
let shown = new Map();
/** @type {string | null} the cursor of the messages before those */
let before = null;
let atEnd = true;

const PAGE = { limit: 50, order: "desc" };
const read = async (type, params) => (await call(type, params)).json();
const tell = (message, ...buttons) => status.replaceChildren(message, ...buttons);
/** The files of the message being written; one without an id is still on its way. */
const attached = () => [...files.children].map((row) => row.dataset.id);

function fail(error, ...buttons) {
  if (error instanceof Refused) return tell(error.message, ...buttons);
  if (!(error instanceof TypeError)) console.warn("plain client", error);
  tell("The server cannot be reached. ", ...buttons);
}

/** Show what depends on whether an answer is under way. */
function paint() {
  log.setAttribute("aria-busy", String(turn !== null));
  submit.textContent = turn ? "Stop" : "Send";
  submit.disabled = text.disabled || (!turn && !attached().every(Boolean));
  log.querySelector(".start")?.remove();
  if (!turn && !shown.size) {
    const prompts = PROMPTS.map((it) => button(it.label, () => void say(String(it.prompt))));
    log.append(h("div", { class: "start" }, h("h2", {}, GREETING), ...prompts));
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// ---- chats ----

async function listChats(after = null) {
  const page = await read("threads.list", { ...PAGE, after });
  at("chats")[after ? "append" : "replaceChildren"](...page.data.map(chatRow));
  at("older").onclick = () => void listChats(page.after).catch(fail);
  at("older").hidden = !page.has_more;
}

function chatRow({ id, title }) {
  const name = title || "New chat";
  const row = h("li", {}, button(name, () => void openChat(id), "open"));
  if (id === current) row.firstElementChild.setAttribute("aria-current", "true");
  const rename = () => {
    const title = prompt("Rename this chat", name)?.trim();
    if (title) call("threads.update", { thread_id: id, title }).then(() => listChats()).catch(fail);
  };
  const left = () => (id === current ? newChat() : listChats());
  const remove = () => {
    const sure = confirm(`Delete “${name}”? It cannot be brought back.`);
    if (sure) call("threads.delete", { thread_id: id }).then(left).catch(fail);
  };
  row.append(button("✎", rename, "icon", `Rename ${name}`));
  row.append(button("✕", remove, "icon", `Delete ${name}`));
  return row;
}

/** Clear the page for a chat; an answer under way in the one before goes on unseen. */
function clear(id) {
  [turn, current, before, shown, atEnd] = [null, id, null, new Map(), true];
  log.replaceChildren();
  tell("");
  openThread.set(id);
  text.disabled = at("attach").disabled = false;
  document.body.classList.remove("side-open");
  paint();
}

function newChat() {
  clear(null);
  void listChats().catch(fail);
  text.focus();
}

async function openChat(id) {
  clear(id);
  try {
    const thread = await read("threads.get_by_id", { thread_id: id });
    await Promise.all([showOlder(), listChats()]);
    if (thread.status.type === "active") return text.focus();
    text.disabled = at("attach").disabled = submit.disabled = true;
    tell(thread.status.reason ?? `This chat is ${thread.status.type}.`);
  } catch (error) {
    if (id !== current) return;
    if (error instanceof Refused && error.status === 404) newChat();
    fail(error, ...(current ? [button("Try again", () => void openChat(id))] : []));
  }
}

/** Put the messages before those shown above them, without moving what is being read. */
async function showOlder() {
  const [id, after] = [current, before];
  before = null; // one request at a time
  const page = await read("items.list", { ...PAGE, thread_id: id, after });
  if (id !== current) return;
  const below = log.scrollHeight - log.scrollTop;
  const found = page.data.reverse().map((item) => [item.id, { item, node: render(item, act) }]);
  log.prepend(...found.map(([, { node }]) => node));
  shown = new Map([...found, ...shown]);
  before = page.has_more ? page.after : null;
  paint();
  if (!atEnd) log.scrollTop = log.scrollHeight - below;
  if (before && log.scrollHeight <= log.clientHeight) await showOlder();
}

// ---- an answer ----

async function say(words) {
  const attachments = attached();
  if (turn || !(words || attachments.length)) return;
  const content = words ? [{ type: "input_text", text: words }] : [];
  const input = { content, attachments, quoted_text: "", inference_options: {} };
  const sent = () => {
    text.value = ""; // not before the server has it
    files.replaceChildren();
  };
  atEnd = true;
  if (!current) return answer("threads.create", { input }, sent);
  return answer("threads.add_user_message", { thread_id: current, input }, sent);
}

async function answer(type, params, begun = () => {}) {
  const mine = (turn = new AbortController());
  let id = current;
  tell("");
  paint();
  try {
    for await (const event of events(await call(type, params, mine.signal))) {
      begun();
      begun = () => {};
      id = event.type === "thread.created" ? event.thread.id : id;
      if (turn === mine) apply(event);
    }
  } catch (error) {
    if (mine.signal.aborted) tell("Stopped.");
    else if (turn === mine && id) fail(error, button("Reload the chat", () => void openChat(id)));
    else if (turn === mine) fail(error);
  }
  if (turn !== mine) return current === id && openChat(id); // its end came unseen
  turn = null;
  paint();
  const last = [...shown.values()].at(-1)?.item;
  if (last?.type !== "client_tool_call" || last.status !== "pending") return;
  last.status = "completed";
  const result = await runClientTool({ name: last.name, params: last.arguments });
  await answer("threads.add_client_tool_output", { thread_id: id, result });
}

/** Read the events of a stream; the comments between them only keep the connection open. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const blocks = (rest + chunk.value).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
  }
}

function apply(event) {
  if (event.type === "thread.created") openThread.set((current = event.thread.id));
  if (event.thread) void listChats().catch(fail);
  if (event.type === "thread.item.added") tell(""); // the end of what was in progress
  if (event.item) put(event.item);
  if (event.type === "thread.item.updated") update(event.item_id, event.update);
  if (event.type === "thread.item.removed") drop(event.item_id);
  if (["progress_update", "notice"].includes(event.type)) tell(event.text ?? event.message);
  if (event.type === "stream_options") submit.disabled = !event.stream_options.allow_cancel;
  if (event.type === "error") {
    const again = event.allow_retry ? [button("Try again", retry)] : [];
    tell(event.message ?? "The answer could not be finished. ", ...again);
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function put(item) {
  const node = render(item, act);
  const known = shown.get(item.id);
  if (known) known.node.replaceWith(node);
  else log.append(node);
  shown.set(item.id, { item, node });
}

function drop(id) {
  shown.get(id)?.node.remove();
  shown.delete(id);
}

function update(id, change) {
  const { item, node } = shown.get(id) ?? {};
  if (!item) return;
  const part = item.content?.[change.content_index];
  if (part && change.type.endsWith("text_delta")) {
    part.text += change.delta;
    return node?.querySelectorAll(".text")[change.content_index].append(change.delta);
  }
  if (change.content) item.content[change.content_index] = change.content;
  if (change.widget) item.widget = change.widget;
  if (change.task) item.workflow.tasks[change.task_index] = change.task;
  if (change.image) item.image = change.image;
  const found = change.component_id && find(item.widget, change.component_id);
  if (found && change.component) Object.assign(found, change.component);
  else if (found) found.value = (found.value ?? "") + change.delta;
  put(item);
}

/** Send a thumb; say whether the server took it. */
const rate = ({ id, thread_id }, kind) =>
  call("items.feedback", { thread_id, item_ids: [id], kind }).then(() => true, fail);

function retry() {
  const ids = [...shown.keys()];
  const asked = ids.findLastIndex((id) => shown.get(id)?.item.type === "user_message");
  if (turn || asked < 0) return;
  ids.slice(asked + 1).forEach(drop);
  void answer("threads.retry_after_item", { thread_id: current, item_id: ids[asked] });
}

async function run({ type, payload, handler, streaming }, item) {
  const params = { thread_id: current, item_id: item.id, action: { type, payload } };
  if (turn) return;
  if (handler === "client") return tell(`“${type}” is for the page's own code.`);
  if (streaming !== false) return answer("threads.custom_action", params);
  const sent = read("threads.sync_custom_action", params);
  await sent.then(({ updated_item }) => updated_item && put(updated_item), fail);
}

const act = { rate, retry, run };

/** Send a file and show how far it is: `fetch` cannot tell, the older XMLHttpRequest can. */
async function upload(file) {
  const request = new XMLHttpRequest();
  const bar = h("progress", { value: 0, "aria-label": `Upload of ${file.name}` });
  const leave = (error) => {
    row.remove();
    paint();
    if (error) fail(error);
  };
  const remove = () => {
    request.abort();
    leave();
    const { id: attachment_id } = row.dataset;
    if (attachment_id) call("attachments.delete", { attachment_id }).catch(fail);
  };
  const row = h("li", {}, file.name, bar, button("✕", remove, "icon", `Remove ${file.name}`));
  files.append(row);
  paint();
  const headers = await headersFor(address("files"));
  request.open("POST", address("files"));
  headers.forEach((value, name) => request.setRequestHeader(name, value));
  request.upload.onprogress = ({ loaded, total }) => (bar.value = loaded / total);
  request.onerror = () => leave(new TypeError("network"));
  request.responseType = "json";
  request.onload = () => {
    const { status, response: it } = request;
    if (status >= 300) return leave(new Refused(it?.error?.message ?? `Refused (${status}).`));
    row.dataset.id = it.id;
    bar.remove();
    if (it.preview_url) row.prepend(h("img", { src: it.preview_url, alt: "" }));
    paint();
  };
  const form = new FormData();
  form.append("file", file);
  request.send(form);
}

// ---- what each item shows: text nodes, images and buttons, no HTML ----

/** Make an element: properties by their names, other names as attributes. @returns {any} */
function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) Reflect.set(node, name, value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** A button; with a label of its own its text is a sign. */
function button(text, onclick, kind = "", label = "") {
  const named = label && { title: label, "aria-label": label };
  return h("button", { type: "button", class: kind, onclick, ...named }, text);
}

const paragraph = (words, kind = "text") => h("p", { class: kind, dir: "auto" }, words);

/** An item as an element, hidden when it has nothing to show; `act` is what its buttons do. */
function render(item, act) {
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
const find = (part, id) =>
  part.id === id ? part : inside(part).reduce((found, it) => found ?? find(it, id), undefined);

// ---- the start ----

at("home").onclick = ({ target }) => (target.hash = location.hash);
at("menu").onclick = () => document.body.classList.toggle("side-open");
at("new").onclick = newChat;
at("attach").onclick = () => at("picker").click();
at("attach").hidden = !config.maxFiles;
at("picker").accept = Object.entries(config.accept).flat(2).join();
at("picker").onchange = ({ target }) => {
  for (const file of target.files) void upload(file);
  target.value = "";
};
text.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!turn && !submit.disabled) at("composer").requestSubmit();
};
at("composer").onsubmit = (event) => {
  event.preventDefault();
  if (turn) turn.abort();
  else void say(text.value.trim());
};
document.onkeydown = ({ key }) => void (key === "Escape" && turn?.abort());
log.onscroll = () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (before && log.scrollTop < 200) void showOlder().catch(fail);
};
const remembered = openThread.get();
await (remembered ? openChat(remembered) : newChat());
