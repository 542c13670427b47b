/* The plain client: a first chat behind any firewall, over the same protocol as ChatKit. It is a
   development tool: no Markdown, no HTML. What was said becomes text nodes: none of it can run. */
import { GREETING, PROMPTS, Refused, address, call, config, events, h, headersFor, openThread,
  read } from "./page.js";

const at = (id) => /** @type {any} */ (document.getElementById(id));
at("main").append(at("plain").content);
const [log, status, files, text, submit] = ["log", "status", "files", "text", "submit"].map(at);

/** The open chat, a new object each time to detect late replies: its id (null: a new one),
    the answer under way, the items by id, oldest first, the cursor before them. @type {any} */
let chat = { id: null, turn: null, items: new Map(), before: null };
/** @type {Map<string, any>} the answers under way in all chats; those left behind go on unseen */
const running = new Map();
let [atEnd, top] = [true, 0];

const PAGE = { limit: 50, order: "desc" };
const toEnd = () => atEnd && (log.scrollTop = log.scrollHeight);
const nearTop = () =>
  chat.before && log.clientHeight && log.scrollTop < 200 && showOlder().catch(fail);
/** The files of the message being written; one without an id is still on its way. */
const attached = () => [...files.children].map((row) => row.dataset.id);
/** Whether an item is an answer with something to read; steps alone do not count. */
const told = ({ node }) => node.matches(".theirs:has(> :not(.actions, details, p:empty))");

/** Show the status: an "error", a "wait" until there is more to see, or a note. */
function tell(message, kind = "", remedy) {
  if (status.contains(document.activeElement)) log.focus(); // its button goes away
  status.className = `status ${kind}`;
  status.replaceChildren(message, " ", remedy || "");
}

function fail(error, remedy) {
  if (error instanceof Refused) return tell(error.message, "error", remedy);
  console.warn("plain client", error); // a TypeError is the network's, or a bug in here
  const unreachable = error instanceof TypeError && "The server cannot be reached.";
  tell(unreachable || String(error), "error", remedy);
}

/** Put a node in another's place; the focus stays on the same button or goes to the messages. */
function swap(old, fresh) {
  const held = /** @type {any} */ (document.activeElement);
  const like = (node) =>
    [...node.querySelectorAll("button, summary")].filter(({ value }) => value === held.value);
  const place = like(old).indexOf(held);
  if (old.querySelector("[open]")) fresh.querySelector("details")?.setAttribute("open", "");
  old.replaceWith(fresh);
  if (place >= 0) (like(fresh)[place] ?? log).focus();
}

/** Show what depends on whether an answer is under way. */
function paint() {
  log.ariaBusy = String(Boolean(chat.turn));
  submit.textContent = chat.turn ? "Stop" : "Send";
  submit.disabled = text.disabled || (chat.turn ? chat.turn.fixed : !attached().every(Boolean));
  toEnd();
}

// ---- chats ----

async function listChats(wanted = at("chats").children.length) {
  const list = h("ul", { id: "chats" });
  let page = { after: null, has_more: true };
  do {
    page = await read("threads.list", { ...PAGE, after: page.after });
    list.append(...page.data.map(chatRow));
  } while (page.has_more && list.children.length < wanted);
  swap(at("chats"), list);
  at("older").hidden = !page.has_more;
}

function chatRow({ id, title }) {
  const name = title || "New chat";
  const rename = () => {
    const title = prompt("Rename this chat", name)?.trim();
    if (title) call("threads.update", { thread_id: id, title }).then(() => listChats()).catch(fail);
  };
  const left = () => (id === chat.id ? openChat(null) : listChats());
  const remove = () => confirm(`Delete “${name}”? It cannot be brought back.`) &&
    call("threads.delete", { thread_id: id }).then(left).catch(fail);
  const row = h("li", {}, button(name, () => void openChat(id), "open"));
  if (id === chat.id) row.firstElementChild.ariaCurrent = "true";
  row.append(button("✎", rename, "icon", `Rename ${name}`));
  row.append(button("✕", remove, "icon", `Delete ${name}`));
  for (const each of row.children) Object.assign(each, { value: id, dir: "auto" });
  return row;
}

/** Open a chat, or a new one; an answer under way in the previous one goes on unseen. */
async function openChat(id) {
  const mine = (chat = { id, turn: running.get(id), items: new Map(), before: null });
  [atEnd, start.hidden] = [true, Boolean(id)];
  log.replaceChildren(start);
  tell(mine.turn ? "Thinking…" : "", "wait");
  openThread.set(id);
  text.disabled = at("attach").disabled = false;
  at("menu").ariaExpanded = "false";
  paint();
  if (!id) text.focus();
  try {
    const thread = id && (await read("threads.get_by_id", { thread_id: id }));
    if (mine === chat) await Promise.all([id && showOlder(), listChats()]);
    if (mine !== chat || !thread) return;
    const open = mine.items.size && !mine.turn && !replies().some(told);
    if (open) tell("There is no answer yet.", "", button("Try again", () => void retry()));
    if (thread.status.type === "active") return text.focus();
    text.disabled = at("attach").disabled = submit.disabled = true;
    tell(thread.status.reason ?? `This chat is ${thread.status.type}.`);
  } catch (error) {
    if (mine !== chat) return;
    if (error instanceof Refused && error.status === 404) void openChat(null);
    fail(error, chat.id && button("Try again", () => void openChat(id)));
  }
}

/** Put the messages before those shown above them, without moving what is being read. */
async function showOlder() {
  const [mine, after] = [chat, chat.before];
  mine.before = null; // one request at a time
  const asked = read("items.list", { ...PAGE, thread_id: mine.id, after });
  const page = await asked.finally(() => (mine.before = after)); // asked again if it failed
  mine.before = page.has_more ? page.after : null;
  if (mine !== chat) return;
  const below = log.scrollHeight - log.scrollTop;
  const fresh = page.data.reverse().filter(({ id }) => !mine.items.has(id));
  const found = fresh.map((item) => [item.id, { item, node: render(item) }]);
  start.after(...found.map(([, { node }]) => node));
  mine.items = new Map([...found, ...mine.items]);
  paint();
  if (!atEnd) log.scrollTop = log.scrollHeight - below;
  nearTop();
}

// ---- an answer ----

async function say(words) {
  const attachments = attached().filter(Boolean);
  const said = words.replace(/^\s*\n|\s+$/g, "");
  if (chat.turn || !(said || attachments.length)) return;
  const content = said ? [{ type: "input_text", text: said }] : [];
  const input = { content, attachments, quoted_text: "", inference_options: {} };
  const sent = () => {
    if (text.value === words) text.value = ""; // not before the server has it
    for (const row of [...files.children]) if (attachments.includes(row.dataset.id)) row.remove();
  };
  if (start.contains(document.activeElement)) log.focus();
  atEnd = true;
  if (!chat.id) return answer("threads.create", { input }, sent);
  return answer("threads.add_user_message", { thread_id: chat.id, input }, sent);
}

/** Show an answer while its chat is open; `begun` is called with its first item. */
async function answer(type, params, begun = () => {}) {
  const [mine, turn] = [chat, new AbortController()];
  let came = false;
  mine.turn = turn;
  if (mine.id) running.set(mine.id, turn);
  tell("Thinking…", "wait");
  paint();
  try {
    for await (const event of events(type, params, turn.signal)) {
      if (event.item && !came) begun();
      came ||= Boolean(event.item);
      if (event.thread) running.set((mine.id = event.thread.id), turn);
      if (event.thread) void listChats().catch(fail);
      if (chat.turn === turn) apply(event);
    }
  } catch (error) {
    const stopped = turn.signal.aborted;
    const missed = stopped ? !came || mine !== chat : !(error instanceof Refused);
    const reload = mine.id && missed && button("Reload the chat", () => void openChat(mine.id));
    if (chat.turn === turn && stopped) tell("Stopped.", "", reload);
    else if (chat.turn === turn) fail(error, reload);
    if (!mine.id) void listChats().catch(fail); // it may have been created anyway
  }
  running.delete(mine.id);
  if (chat.turn !== turn) return;
  chat.turn = null;
  if (status.matches(".wait")) tell("");
  paint();
}

function apply(event) {
  if (event.type === "thread.created") openThread.set(event.thread.id);
  if (event.item) put(event.item);
  if (event.type === "thread.item.updated") update(event.item_id, event.update);
  if (event.type === "thread.item.removed") drop(event.item_id);
  const entry = chat.items.get(event.item?.id ?? event.item_id);
  if (status.matches(".wait") && entry && told(entry)) tell("");
  if (event.type === "progress_update") tell(event.text, "wait");
  if (event.type === "notice") tell(event.message, event.level === "info" ? "" : "error");
  if (event.type === "stream_options") chat.turn.fixed = !event.stream_options.allow_cancel;
  const again = event.allow_retry && button("Try again", () => void retry());
  if (event.type === "error") tell(event.message ?? "The answer broke off.", "error", again);
  paint();
}

function put(item) {
  const [known, node] = [chat.items.get(item.id), render(item)];
  if (known) swap(known.node, node);
  else log.append(node);
  chat.items.set(item.id, { item, node });
}

function drop(id) {
  const { node } = chat.items.get(id) ?? {};
  if (node) swap(node, new DocumentFragment());
  chat.items.delete(id);
}

function update(id, change) {
  const { item, node } = chat.items.get(id) ?? {};
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

/** What comes after the user's last message. */
function replies() {
  const items = [...chat.items.values()];
  return items.slice(items.findLastIndex(({ item }) => item.type === "user_message") + 1);
}

async function retry() {
  const [mine, old] = [chat, replies()];
  const asked = [...mine.items.keys()].at(-1 - old.length);
  if (mine.turn || !asked) return;
  log.focus(); // the button goes away
  const away = (entries) => entries.forEach(({ item }) => drop(item.id));
  await answer("threads.retry_after_item", { thread_id: mine.id, item_id: asked }, () => away(old));
  if (mine !== chat || replies().some(told)) return;
  away(replies());
  old.forEach(({ item }) => put(item)); // the server keeps them too
}

function run({ type, payload, handler, streaming }, item) {
  const params = { thread_id: chat.id, item_id: item.id, action: { type, payload } };
  const show = ({ updated_item: it }) => it?.thread_id === chat.id && put(it);
  if (chat.turn) return;
  if (handler === "client") return tell(`“${type}” is for the page's own code.`);
  if (streaming !== false) return answer("threads.custom_action", params);
  read("threads.sync_custom_action", params).then(show).catch(fail);
}

/** Send a file and show its progress: `fetch` cannot report it, the older XMLHttpRequest can. */
async function upload(file) {
  const request = new XMLHttpRequest();
  const bar = h("progress", { value: 0, ariaLabel: `Upload of ${file.name}` });
  const end = (error) => {
    request.abort();
    row.remove();
    paint();
    if (error) fail(error);
    if (row.dataset.id) call("attachments.delete", { attachment_id: row.dataset.id }).catch(fail);
  };
  const row = h("li", {}, file.name, bar, button("✕", () => end(), "icon", `Remove ${file.name}`));
  files.append(row);
  paint();
  const headers = await headersFor(address("files")).catch(end);
  if (!headers || !row.isConnected) return;
  request.open("POST", address("files"));
  headers.forEach((value, name) => request.setRequestHeader(name, value));
  request.upload.onprogress = ({ loaded, total }) => (bar.value = loaded / total);
  request.onerror = () => end(new TypeError("network"));
  request.responseType = "json";
  request.onload = () => {
    const { status, response: it } = request;
    const said = `${file.name}: ${it?.error?.message ?? `Refused (${status}).`}`;
    const hint = `$& These are: ${Object.values(config.accept).flat().join(", ")}.`;
    if (!it?.id) return end(new Refused(said.replace(/are not accepted\.$/, hint)));
    row.dataset.id = it.id;
    bar.remove();
    if (it.preview_url) row.prepend(h("img", { src: it.preview_url, alt: "" }));
    paint();
  };
  const form = new FormData();
  form.append("file", file);
  request.send(form);
}

/** Send picked, dropped or pasted files; copied cells hold an image and text: the text wins. */
function take(event) {
  const { files: given, types } = event.dataTransfer ?? event.clipboardData ?? event.target;
  if (types && (!types.includes("Files") || types.includes("text/plain"))) return;
  event.preventDefault(); // a dropped file would open in place of the page
  if (config.maxFiles && !text.disabled) [...given].forEach(upload);
}

// ---- what each item shows: text nodes, images and buttons, no HTML ----

/** A button; if it has a label, its content is only a symbol. */
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
  generated_image: ({ image: it }) => it ? [h("img", { src: it.url, alt: "Generated image" })] : [],
  structured_input: ({ inputs }) => inputs.map(({ question, options = [] }) =>
    paragraph([question, ...options.map(({ value }) => value)].join("\n– "))),
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
  const again = button("Again", () => void retry(), "small", "Answer again");
  return h("div", { className: "actions" }, good, bad, again);
}

/** A widget's text and buttons; its looks are ChatKit's business. */
function widget(part, item) {
  const words = part.value ?? part.label ?? part.alt ?? part.status?.text;
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
at("new").onclick = () => void openChat(null);
at("older").onclick = () => void listChats(at("chats").children.length + 1).catch(fail);
at("attach").onclick = () => Object.assign(at("picker"), { value: "" }).click(); // the same again
at("attach").hidden = !config.maxFiles;
at("picker").accept = Object.entries(config.accept).flat(2).join();
at("picker").onchange = document.ondragover = document.ondrop = document.onpaste = take;
submit.onclick = ({ detail }) => // above 1 it is the second half of a double click
  detail < 2 && void (chat.turn ? chat.turn.abort() : say(text.value));
document.onkeydown = (event) => {
  if (event.isComposing || event.keyCode === 229) return; // input methods; in Safari the latter
  if (event.key === "Enter" && event.target === text && !event.shiftKey) {
    event.preventDefault();
    if (!chat.turn) submit.click();
  }
  if (event.key !== "Escape") return;
  if (at("menu").ariaExpanded !== "true") return chat.turn && submit.click();
  at("menu").click();
  at("menu").focus();
};
log.addEventListener("load", toEnd, true); // an image has no height before that
new ResizeObserver(() => [toEnd(), nearTop()]).observe(log); // the composer takes from its height
log.onscroll = ({ target: { scrollTop, scrollHeight, clientHeight } }) => {
  const stays = atEnd && scrollTop >= top; // growing alone is not scrolling away
  [atEnd, top] = [stays || scrollHeight - scrollTop - clientHeight < 40, scrollTop];
  nearTop();
};
await openChat(openThread.get());
