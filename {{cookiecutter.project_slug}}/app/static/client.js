/**
 * The plain client: a first chat behind any firewall, over the same protocol as ChatKit. It is a
 * development tool: no Markdown, no HTML. What was said becomes text nodes, so none of it can run.
 */
import { Refused, address, call, config, headersFor, openThread } from "./api.js";
import { GREETING, PROMPTS, runClientTool } from "./custom.js";
import { button, find, h, render } from "./items.js";

const PAGE = 50;

const list = h("ul", {});
const older = button("Older chats", () => void listChats(chatsAfter), "quiet");
const side = h("nav", { id: "side", "aria-label": "Chats" });
side.append(button("New chat", newChat), list, older);
const log = h("div", { class: "log", role: "log", tabIndex: 0, "aria-label": "Messages" });
const status = h("p", { class: "status", role: "status" });
const files = h("ul", { class: "files" });
const text = h("textarea", { rows: 1, placeholder: "Write a message", "aria-label": "Message" });
const picker = h("input", { type: "file", multiple: true, hidden: true });
const attach = button("+", () => picker.click(), "icon", "Attach files");
const submit = h("button", { class: "primary" }, "Send");
const composer = h("form", { class: "composer" }, files, picker, attach, text, submit);

/** @type {string | null} the open chat; null: a new one */
let current = null;
/** @type {AbortController | null} the answer being shown; one left behind goes on unseen */
let turn = null;
/** @type {Map<string, {item: any, node: HTMLElement}>} the open chat's items, oldest first */
let shown = new Map();
/** @type {string | null} the cursor of the messages before those */
let before = null;
let chatsAfter = "";
let atEnd = true;
/** @type {Set<{id?: string}>} files of the message being written; no id: still on their way */
const attached = new Set();

const tell = (message, ...buttons) => status.replaceChildren(message, ...buttons);

function fail(error, ...buttons) {
  if (error instanceof Refused) return tell(error.message, ...buttons);
  if (!(error instanceof TypeError)) console.warn("plain client", error);
  tell("The server cannot be reached. ", ...buttons);
}

/** Show what depends on whether an answer is under way. */
function paint() {
  log.setAttribute("aria-busy", String(turn !== null));
  submit.textContent = turn ? "Stop" : "Send";
  submit.disabled = text.disabled || (!turn && [...attached].some(({ id }) => !id));
  log.querySelector(".start")?.remove();
  if (!turn && !shown.size) {
    const start = h("div", { class: "start" }, h("h2", {}, GREETING));
    start.append(...PROMPTS.map((it) => button(it.label, () => void say(String(it.prompt)))));
    log.append(start);
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// ---- chats ----

async function listChats(after = "") {
  const params = { limit: PAGE, order: "desc", ...(after && { after }) };
  const page = await (await call("threads.list", params)).json();
  if (!after) list.replaceChildren();
  list.append(...page.data.map(chatRow));
  chatsAfter = page.after;
  older.hidden = !page.has_more;
}

function chatRow({ id, title }) {
  const name = title || "New chat";
  const row = h("li", {}, button(name, () => void openChat(id), "open"));
  if (id === current) row.firstElementChild?.setAttribute("aria-current", "true");
  const change = async (type, more) => {
    await call(type, { thread_id: id, ...more }).catch(fail);
    if (type === "threads.delete" && id === current) newChat();
    await listChats().catch(fail);
  };
  const rename = async () => {
    const typed = await ask("Rename this chat", "Rename", name);
    if (typed) await change("threads.update", { title: typed });
  };
  const remove = async () => {
    const sure = await ask(`Delete “${name}”? It cannot be brought back.`, "Delete");
    if (sure !== null) await change("threads.delete");
  };
  row.append(button("✎", rename, "icon", `Rename ${name}`));
  row.append(button("✕", remove, "icon", `Delete ${name}`));
  return row;
}

/**
 * Ask in a dialog, for a text when there is one to begin with.
 * @returns {Promise<string | null>} null when it was left
 */
function ask(question, verb, value = null) {
  const field = h("input", { value: value ?? "", maxLength: 200, "aria-label": question });
  field.hidden = value === null;
  const dialog = h("dialog", { "aria-label": question });
  const yes = h("button", { value: "yes", class: "primary" }, verb);
  const row = h("div", { class: "row" }, button("Cancel", () => dialog.close()), yes);
  dialog.append(h("form", { method: "dialog" }, h("p", {}, question), field, row));
  document.body.append(dialog);
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue ? field.value.trim() : null);
    });
  });
}

/** Clear the page for a chat; an answer under way in the one before goes on unseen. */
function clear(id) {
  [turn, current, before, shown, atEnd] = [null, id, null, new Map(), true];
  log.replaceChildren();
  tell("");
  openThread.set(id);
  text.disabled = attach.disabled = false;
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
    const thread = await (await call("threads.get_by_id", { thread_id: id })).json();
    await Promise.all([showOlder(), listChats()]);
    if (thread.status.type === "active") return text.focus();
    text.disabled = attach.disabled = submit.disabled = true;
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
  const params = { thread_id: id, limit: PAGE, order: "desc", ...(after && { after }) };
  const page = await (await call("items.list", params)).json();
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
  const attachments = [...attached].map(({ id }) => id);
  if (turn || !(words || attachments.length)) return;
  const content = words ? [{ type: "input_text", text: words }] : [];
  const input = { content, attachments, quoted_text: "", inference_options: {} };
  const [type, thread] = current
    ? ["threads.add_user_message", { thread_id: current }]
    : ["threads.create", {}];
  atEnd = true;
  await answer(type, { ...thread, input }, () => {
    text.value = ""; // not before the server has it
    files.replaceChildren();
    attached.clear();
  });
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
  if (event.type === "progress_update") tell(event.text);
  if (event.type === "notice") tell(event.message);
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

function retry() {
  const ids = [...shown.keys()];
  const asked = ids.findLastIndex((id) => shown.get(id)?.item.type === "user_message");
  if (turn || asked < 0) return;
  ids.slice(asked + 1).forEach(drop);
  void answer("threads.retry_after_item", { thread_id: current, item_id: ids[asked] });
}

// ---- what is pressed ----

const act = { rate, retry, run };

/** Send a thumb; say whether the server took it. */
async function rate({ id, thread_id }, kind) {
  const sent = call("items.feedback", { thread_id, item_ids: [id], kind });
  return sent.then(() => true, (error) => void fail(error));
}

async function run({ type, payload, handler, streaming }, item) {
  const params = { thread_id: current, item_id: item.id, action: { type, payload } };
  if (turn) return;
  if (handler === "client") return tell(`“${type}” is for the page's own code.`);
  if (streaming !== false) return answer("threads.custom_action", params);
  try {
    const { updated_item } = await (await call("threads.sync_custom_action", params)).json();
    if (updated_item) put(updated_item);
  } catch (error) {
    fail(error);
  }
}

// ---- files ----

async function upload(file) {
  const entry = /** @type {{id?: string}} */ ({});
  const request = new XMLHttpRequest(); // fetch cannot say how far it is
  const bar = h("progress", { value: 0, "aria-label": `Upload of ${file.name}` });
  const leave = () => {
    attached.delete(entry);
    row.remove();
    paint();
  };
  const remove = () => {
    request.abort();
    if (entry.id) call("attachments.delete", { attachment_id: entry.id }).catch(fail);
    leave();
  };
  const row = h("li", {}, file.name, bar);
  row.append(button("✕", remove, "icon", `Remove ${file.name}`));
  attached.add(entry);
  files.append(row);
  paint();
  try {
    entry.id = await transfer(file, request, bar);
    bar.remove();
    if (file.type.startsWith("image/")) {
      row.prepend(h("img", { src: URL.createObjectURL(file), alt: "" }));
    }
    paint();
  } catch (error) {
    leave();
    fail(error);
  }
}

async function transfer(file, request, bar) {
  if (config.uploadStrategy === "direct") {
    const form = new FormData();
    form.append("file", file);
    return JSON.parse(await send(request, bar, "POST", address("files"), form)).id;
  }
  const { name, size, type } = file;
  const mime_type = type || "application/octet-stream";
  const made = await call("attachments.create", { name, size, mime_type });
  const { id, upload_descriptor: to } = await made.json();
  await send(request, bar, to.method, to.url, file, to.headers);
  return id;
}

/** @returns {Promise<string>} the answer's text */
async function send(request, bar, method, url, content, given = {}) {
  const headers = await headersFor(url, given);
  return new Promise((resolve, reject) => {
    request.open(method, url);
    headers.forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => (bar.value = loaded / total);
    request.onerror = () => reject(new TypeError("network"));
    request.onabort = () => reject(new Refused("The upload was cancelled."));
    request.onload = () => {
      if (request.status < 300) return resolve(request.responseText);
      const said = /"message": ?"([^"]+)"/.exec(request.responseText)?.[1];
      reject(new Refused(said ?? `The file was refused (${request.status}).`));
    };
    request.send(content);
  });
}

// ---- the start ----

const home = h("a", { href: `./${location.hash}` }, "Use ChatKit");
const about = h("p", { class: "about" }, "A plain client for development: text only. ", home);
const chat = h("section", { class: "chat", "aria-label": "Chat" }, about, log, status, composer);
document.getElementById("main")?.append(side, chat);
const menu = button("Chats", () => document.body.classList.toggle("side-open"), "menu");
document.querySelector("header")?.prepend(menu);
document.body.classList.add("plain");
attach.hidden = !config.maxFiles;
picker.onchange = () => {
  for (const file of picker.files ?? []) void upload(file);
  picker.value = "";
};
text.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!turn && !submit.disabled) composer.requestSubmit();
};
composer.onsubmit = (event) => {
  event.preventDefault();
  if (turn) turn.abort();
  else void say(text.value.trim());
};
document.onkeydown = ({ key }) => {
  if (key === "Escape" && !document.querySelector("dialog")) turn?.abort();
};
log.onscroll = () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (before && log.scrollTop < 200) void showOlder().catch(fail);
};
const remembered = openThread.get();
if (remembered) await openChat(remembered);
else newChat();
