/* The plain client: a first chat behind any firewall, over the same protocol as ChatKit. It is a
   development tool: no Markdown, no HTML. What was said becomes text nodes: none of it can run. */
import { GREETING, PROMPTS, Refused, address, call, config, headersFor, openThread, runClientTool }
  from "./page.js";

const at = (id) => /** @type {any} */ (document.getElementById(id));
at("main").append(at("plain").content);
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
const toEnd = () => atEnd && (log.scrollTop = log.scrollHeight);
/** The files of the message being written; one without an id is still on its way. */
const attached = () => [...files.children].map((row) => row.dataset.id);

/** Say how things are: an "error", a word to "wait" until there is more to see, or a note. */
function tell(message, kind = "", remedy) {
  status.className = `status ${kind}`;
  status.replaceChildren(message, " ", remedy || "");
}

function fail(error, remedy) {
  if (error instanceof Refused) return tell(error.message, "error", remedy);
  if (!(error instanceof TypeError)) console.warn("plain client", error);
  tell("The server cannot be reached.", "error", remedy);
}

/** Put a node in another's place; the focus stays on the same button or goes to the messages. */
function swap(old, fresh) {
  const held = [...old.querySelectorAll("button, summary")].indexOf(document.activeElement);
  old.replaceWith(fresh);
  if (held >= 0) (fresh.querySelectorAll("button, summary")[held] ?? log).focus();
}

/** Show what depends on whether an answer is under way. */
function paint() {
  log.setAttribute("aria-busy", String(turn !== null));
  submit.textContent = turn ? "Stop" : "Send";
  submit.disabled = text.disabled || (!turn && !attached().every(Boolean));
  toEnd();
}

// ---- chats ----

async function listChats(after = null) {
  const page = await read("threads.list", { ...PAGE, after });
  const list = after ? at("chats") : h("ul", { id: "chats" });
  list.append(...page.data.map(chatRow));
  if (!after) swap(at("chats"), list);
  at("older").onclick = () => void listChats(page.after).catch(fail);
  at("older").hidden = !page.has_more;
}

function chatRow({ id, title }) {
  const name = title || "New chat";
  const row = h("li", {}, button(name, () => void openChat(id), "open"));
  if (id === current) row.firstElementChild.ariaCurrent = "true";
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
  log.replaceChildren(start);
  tell("");
  openThread.set(id);
  text.disabled = at("attach").disabled = false;
  at("menu").ariaExpanded = "false";
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
    fail(error, current && button("Try again", () => void openChat(id)));
  }
}

/** Put the messages before those shown above them, without moving what is being read. */
async function showOlder() {
  const [id, after] = [current, before];
  before = null; // one request at a time
  const page = await read("items.list", { ...PAGE, thread_id: id, after });
  if (id !== current) return;
  const below = log.scrollHeight - log.scrollTop;
  const found = page.data.reverse().map((item) => [item.id, { item, node: render(item) }]);
  start.after(...found.map(([, { node }]) => node));
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
  if (start.contains(document.activeElement)) log.focus();
  atEnd = true;
  if (!current) return answer("threads.create", { input }, sent);
  return answer("threads.add_user_message", { thread_id: current, input }, sent);
}

async function answer(type, params, begun = () => {}) {
  const mine = (turn = new AbortController());
  let id = current;
  tell("Thinking…", "wait");
  paint();
  try {
    for await (const event of events(await call(type, params, mine.signal))) {
      begun();
      begun = () => {};
      id = event.type === "thread.created" ? event.thread.id : id;
      if (turn === mine) apply(event);
    }
  } catch (error) {
    const lost = id && !(error instanceof Refused); // a refusal leaves all as it was
    if (mine.signal.aborted) tell("Stopped.");
    else if (turn === mine) fail(error, lost && button("Reload the chat", () => void openChat(id)));
  }
  if (turn !== mine) return current === id && openChat(id); // its end came unseen
  turn = null;
  if (status.matches(".wait")) tell("");
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
  if (event.item) put(event.item);
  if (event.type === "thread.item.updated") update(event.item_id, event.update);
  if (event.type === "thread.item.removed") drop(event.item_id);
  const node = shown.get(event.item?.id ?? event.item_id)?.node;
  if (status.matches(".wait") && node?.matches(".theirs:has(> :not(.actions, p:empty))")) tell("");
  if (event.type === "progress_update") tell(event.text, "wait");
  if (event.type === "notice") tell(event.message, event.level === "info" ? "" : "error");
  if (event.type === "stream_options") submit.disabled = !event.stream_options.allow_cancel;
  const again = event.allow_retry && button("Try again", retry);
  if (event.type === "error") tell(event.message ?? "The answer broke off.", "error", again);
  toEnd();
}

function put(item) {
  const node = render(item);
  const known = shown.get(item.id);
  if (known) swap(known.node, node);
  else log.append(node);
  shown.set(item.id, { item, node });
}

function drop(id) {
  const { node } = shown.get(id) ?? {};
  if (node) swap(node, new DocumentFragment());
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
  for (const key of ["widget", "image"]) item[key] = change[key] ?? item[key];
  if (change.task) item.workflow.tasks[change.task_index] = change.task;
  const spot = parts(item.widget ?? {}).find(({ id }) => id && id === change.component_id);
  if (spot) Object.assign(spot, change.component ?? { value: (spot.value ?? "") + change.delta });
  put(item);
}

function retry() {
  const ids = [...shown.keys()];
  const asked = ids.findLastIndex((id) => shown.get(id)?.item.type === "user_message");
  if (turn || asked < 0) return;
  log.focus(); // the button goes
  const begun = () => ids.slice(asked + 1).forEach(drop);
  void answer("threads.retry_after_item", { thread_id: current, item_id: ids[asked] }, begun);
}

function run({ type, payload, handler, streaming }, item) {
  const params = { thread_id: current, item_id: item.id, action: { type, payload } };
  if (turn) return;
  if (handler === "client") return tell(`“${type}” is for the page's own code.`);
  if (streaming !== false) return answer("threads.custom_action", params);
  read("threads.sync_custom_action", params).then(({ updated_item: it }) => it && put(it), fail);
}

/** Send a file and show how far it is: `fetch` cannot tell, the older XMLHttpRequest can. */
async function upload(file) {
  const request = new XMLHttpRequest();
  const bar = h("progress", { value: 0, ariaLabel: `Upload of ${file.name}` });
  const leave = (error) => {
    row.remove();
    paint();
    if (error) fail(error);
  };
  const remove = () => {
    request.abort();
    leave();
    if (row.dataset.id) call("attachments.delete", { attachment_id: row.dataset.id }).catch(fail);
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
    const said = it?.error?.message ?? `Refused (${status}).`;
    const hint = `$& These are: ${Object.values(config.accept).flat().join(", ")}.`;
    if (status >= 300) return leave(new Refused(said.replace(/are not taken\.$/, hint)));
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

/** Make an element of properties and children. @returns {any} */
function h(tag, props, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

/** A button; with a label of its own its content is a sign. */
function button(content, onclick, className = "", label = "") {
  const named = label && { title: label, ariaLabel: label };
  return h("button", { type: "button", className, onclick, ...named }, ...[content].flat());
}

const paragraph = (words, className = "text") => h("p", { className, dir: "auto" }, words);
const cite = ({ source: it }) => paragraph(`Source: ${it.title || it.filename || it.url}`, "quiet");

/** An item as an element, hidden when it has nothing to show. */
function render(item) {
  const [who, ariaLabel] = item.type === "user_message" ? ["mine", "You"] : ["theirs", "Assistant"];
  const body = bodies[item.type]?.(item) ?? [];
  return h("article", { className: `item ${who}`, ariaLabel, hidden: !body.length }, ...body);
}

/** @type {Record<string, (item: any) => Node[]>} */
const bodies = {
  user_message: ({ content, attachments }) => [
    ...content.map((part) => paragraph(part.text)),
    ...attachments.map(({ name, preview_url: src }) =>
      src ? h("img", { src, alt: name }) : paragraph(name, "file"),
    ),
  ],
  assistant_message: (item) => [
    ...item.content.map((part) => paragraph(part.text)),
    ...item.content.flatMap((part) => part.annotations).map(cite),
    actions(item),
  ],
  widget: (item) => [h("div", { className: "widget" }, ...widget(item.widget, item))],
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

function actions({ id, thread_id }) {
  const rate = (kind) => ({ target }) =>
    call("items.feedback", { thread_id, item_ids: [id], kind }).then(() => {
      for (const each of [good, bad]) each.ariaPressed = String(each === target);
    }, fail);
  const good = button("Good", rate("positive"), "small", "Good answer");
  const bad = button("Bad", rate("negative"), "small", "Bad answer");
  const again = button("Again", retry, "small", "Answer again");
  return h("div", { className: "actions" }, good, bad, again);
}

/** A widget's text and buttons; its looks are ChatKit's business. */
function widget(part, item) {
  const words = part.value ?? part.label ?? part.alt;
  const said = words ? [h("span", { className: part.type, dir: "auto" }, words)] : [];
  const inner = inside(part).flatMap((child) => widget(child, item));
  if (part.onClickAction) return [button([...said, ...inner], () => run(part.onClickAction, item))];
  const choices = [part.confirm, part.cancel].filter(Boolean);
  return [...said, ...inner, ...choices.map((it) => button(it.label, () => run(it.action, item)))];
}

const inside = (part) => [part.children ?? []].flat();
const parts = (part) => [part, ...inside(part).flatMap(parts)];

// ---- the start ----

const start = h("div", { className: "start" }, h("h2", {}, GREETING)); // hidden in a chat
start.append(...PROMPTS.map((it) => button(it.label, () => void say(String(it.prompt)))));
at("home").onclick = ({ target }) => (target.hash = location.hash);
at("menu").onclick = () => (at("menu").ariaExpanded = String(at("menu").ariaExpanded !== "true"));
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
document.onkeydown = ({ key }) => {
  if (key !== "Escape") return;
  if (at("menu").ariaExpanded !== "true") return turn?.abort();
  at("menu").click();
  at("menu").focus();
};
new ResizeObserver(toEnd).observe(log); // a growing composer takes of its height
log.onscroll = () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (before && log.scrollTop < 200) void showOlder().catch(fail);
};
const remembered = openThread.get();
await (remembered ? openChat(remembered) : newChat());
