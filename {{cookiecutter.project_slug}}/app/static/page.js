/**
 * The page: mounts OpenAI's `<openai-chatkit>` on this app's `/chatkit`. When the component does
 * not start (no network, a blocked CDN, a wrong key), it says so and offers the plain client.
 */

// ---- yours to change: the login, the first prompts, the browser's tools ----

/**
 * Your login: return the user's bearer token, or "" while a cookie says who is calling.
 *
 * Called before every request, so keep the token in memory and renew it here when it is about to
 * expire. With a usual OpenID Connect library this is the whole change:
 *
 *     const user = (await manager.getUser()) ?? (await manager.signinRedirect());
 *     return user.access_token;
 *
 * Serve the library from `static/` and add its issuer to `connect-src` in `app/page.py`.
 *
 * @returns {Promise<string>}
 */
async function token() {
  return "";
}

export const GREETING = "What can I help with today?";

/** @type {import("@openai/chatkit").StartScreenPrompt[]} */
export const PROMPTS = [
  { label: "What can you do?", prompt: "What can you do?", icon: "circle-question" },
  { label: "What time is it?", prompt: "What time is it in UTC?", icon: "clock" },
  { label: "Explain something", prompt: "Explain how rain is made.", icon: "lightbulb" },
];

/**
 * What the agent may ask of the browser: the client tools of `app/assistant.py`, by their names.
 *
 * @typedef {Record<string, unknown>} Values
 * @type {Record<string, (params: Values) => Values | Promise<Values>>}
 */
const CLIENT_TOOLS = {
  get_time_zone: () => ({ time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone }),
};

/**
 * Answer the agent; an unknown or failed tool is an answer, too, so that the turn goes on.
 *
 * @param {{ name: string, params: Values }} call
 * @returns {Promise<Values>}
 */
export const runClientTool = async ({ name, params }) => {
  try {
    return (await CLIENT_TOOLS[name]?.(params)) ?? { error: `This page has no tool ${name}.` };
  } catch (error) {
    return { error: String(error) };
  }
};

// ---- ChatKit's protocol: who asks, in which language, under which id ----

/**
 * What the server says about itself; see `app/page.py`.
 * @type {{
 *   scriptUrl: string, domainKey: string, waitSeconds: number,
 *   plainClient: boolean, stopByRequest: boolean,
 *   uploadStrategy: "direct" | "two_phase", maxFiles: number, maxFileBytes: number,
 *   accept: Record<string, string[]>,
 *   models: string[], tools: string[], dictation: boolean,
 * }}
 */
export const config = /** @type {any} */ ({});

export const address = (/** @type {string} */ path) => new URL(path, document.baseURI).href;

/** The id of the newest request, for a user who asks for help. */
let requestId = "";

/**
 * The headers of a request: login, locale and request id, for this app only.
 * @param {string} url
 * @param {HeadersInit} [given]
 */
export async function headersFor(url, given) {
  const headers = new Headers(given);
  if (new URL(url, document.baseURI).origin !== location.origin) return headers;
  const bearer = await token();
  if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  requestId = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  headers.set("X-Request-ID", requestId);
  headers.set("Accept-Language", navigator.languages.join(","));
  return headers;
}

/** @type {typeof fetch} */
async function chatFetch(input, init = {}) {
  const request = input instanceof Request ? input : undefined;
  const headers = await headersFor(request?.url ?? String(input), init.headers ?? request?.headers);
  if (config.stopByRequest && /"threads\.(create|add_|retry_|custom_)/.test(String(init.body))) {
    init.signal?.addEventListener("abort", stopAnswer, { once: true });
  }
  return fetch(input, { ...init, headers });
}

/** With ON_DISCONNECT=finish a closed connection stops nothing, so Stop is a request of its own. */
function stopAnswer() {
  const id = openThread.get();
  if (id) void chatFetch(address(`threads/${encodeURIComponent(id)}/stop`), { method: "POST" });
}

/** What the server refused, in its own words. */
export class Refused extends Error {
  status = 0;
}

/**
 * One call; the answer is JSON or, for a turn, a stream of events.
 * @param {string} type
 * @param {object} params
 * @param {AbortSignal} [signal]
 */
export async function call(type, params, signal) {
  const response = await chatFetch(address("chatkit"), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ type, params, metadata: {} }),
    signal,
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const refused = new Refused(error?.message ?? `The server answered ${response.status}.`);
  throw Object.assign(refused, { status: response.status });
}

export const read = async (type, params) => (await call(type, params)).json();

/** The events of a turn, and of what follows when it asks something of this browser. */
export async function* events(type, params, signal) {
  const { body } = /** @type {any} */ (await call(type, params, signal));
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, tool] = ["", /** @type {any} */ (null)];
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const blocks = (rest + chunk.value).split("\n\n");
    rest = blocks.pop() ?? ""; // blocks without data only keep the connection open
    for (const block of blocks.filter((each) => each.startsWith("data: "))) {
      const event = JSON.parse(block.slice(6));
      if (event.item?.type === "client_tool_call") tool = event.item;
      yield event;
    }
  }
  if (tool?.status !== "pending") return;
  yield { type: "progress_update", text: "Thinking…" };
  const result = await runClientTool({ name: tool.name, params: tool.arguments });
  yield* events("threads.add_client_tool_output", { thread_id: tool.thread_id, result }, signal);
}

/** Make an element of properties and children. @returns {any} */
export function h(tag, props, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

/** The open thread is in the address: a reload, a bookmark and a second tab find it. */
export const openThread = {
  get: () => new URLSearchParams(`id=${location.hash.slice(1)}`).get("id") || null,
  set(/** @type {string | null} */ id) {
    const here = location.pathname + location.search;
    history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : here);
  },
};

// ---- the component ----

/** @typedef {import("@openai/chatkit").OpenAIChatKit} ChatKit */
/** @typedef {import("@openai/chatkit").ChatKitOptions} Options */

const dark = matchMedia("(prefers-color-scheme: dark)");
const notice = /** @type {HTMLElement} */ (document.getElementById("notice"));
const element = /** @type {ChatKit} */ (document.getElementById("chatkit"));

/** @param {...(Node | string)} content shown above the chat; without any, the line is hidden */
function tell(...content) {
  notice.replaceChildren(...content);
  notice.hidden = content.length === 0;
}

/**
 * All options together: setOptions replaces, it never merges.
 * @param {string | null} threadId
 * @returns {Options}
 */
function options(threadId) {
  const { uploadStrategy, maxFiles, maxFileBytes, accept, models, tools, dictation } = config;
  return {
    api: {
      url: address("chatkit"),
      domainKey: config.domainKey,
      fetch: chatFetch,
      uploadStrategy:
        uploadStrategy === "direct"
          ? { type: "direct", uploadUrl: address("files") }
          : { type: "two_phase" },
    },
    locale: /** @type {Options["locale"]} */ (navigator.language), // unknown ones become English
    theme: { colorScheme: dark.matches ? "dark" : "light" },
    frameTitle: document.title,
    initialThread: threadId,
    history: { enabled: true, showDelete: true, showRename: true },
    startScreen: { greeting: GREETING, prompts: PROMPTS },
    threadItemActions: { feedback: true, retry: true },
    thread: { autoScroll: true },
    composer: {
      ...(maxFiles && {
        attachments: { enabled: true, maxCount: maxFiles, maxSize: maxFileBytes, accept },
      }),
      ...(models.length && { models: models.map((id, n) => ({ id, label: id, default: !n })) }),
      ...(tools.length && { tools: tools.map((id) => ({ id, label: id, icon: "bolt" })) }),
      dictation: { enabled: dictation },
    },
    onClientTool: runClientTool,
    entities: {
      onTagSearch: findChats,
      onClick: (entity) => void element.setThreadId(entity.id),
    },
  };
}

/**
 * `@` in the composer names an earlier chat. Search your own things here.
 * @param {string} query
 */
async function findChats(query) {
  const { data } = await read("threads.list", { limit: 100, order: "desc" });
  return data
    .filter(({ title }) => title?.toLowerCase().includes(query.toLowerCase()))
    .map(({ id, title }) => ({ id, title: title ?? "", group: "Chats", interactive: true }));
}

/** @returns {Promise<string | null>} the thread in the address, or null when it is gone */
async function rememberedThread() {
  const id = openThread.get();
  const without = ({ status }) => (status === 404 ? null : id); // other failures may pass
  return id && call("threads.get_by_id", { thread_id: id }).then(() => id, without);
}

/** @param {string} url */
const load = (url) =>
  new Promise((onload, reject) => {
    const onerror = () => reject(new Error("the script did not load"));
    document.head.append(h("script", { onload, onerror, src: url }));
  });

function offerPlainClient() {
  const link = h("a", { href: `?plain${location.hash}` }, "Open the plain client");
  const why = "ChatKit did not start: no network, a blocked CDN or a wrong CHATKIT_DOMAIN_KEY. ";
  tell(why, ...(config.plainClient ? [link] : []));
}

async function mount() {
  tell("Loading ChatKit…");
  const timer = setTimeout(offerPlainClient, config.waitSeconds * 1000);
  element.addEventListener("chatkit.ready", () => {
    clearTimeout(timer);
    tell(); // it may have come late
  });
  element.addEventListener("chatkit.thread.change", ({ detail }) => {
    openThread.set(detail.threadId);
  });
  element.addEventListener("chatkit.response.start", () => tell());
  element.addEventListener("chatkit.error", ({ detail }) => {
    console.warn("chatkit.error", detail.error.name, requestId); // never what was said
    tell(`Something went wrong. Try again; if it happens again, report ${requestId}.`);
  });
  try {
    await load(config.scriptUrl);
    await customElements.whenDefined("openai-chatkit");
    element.setOptions(options(await rememberedThread()));
    dark.addEventListener("change", () => element.setOptions(options(openThread.get())));
  } catch (error) {
    console.warn("chatkit.load", error);
    clearTimeout(timer);
    offerPlainClient();
  }
}

try {
  const response = await chatFetch(address("config.json"));
  if (!response.ok) throw new Error(`config.json: ${response.status}`);
  Object.assign(config, await response.json());
} catch (error) {
  tell("The server cannot be reached. Reload the page in a moment.");
  throw error;
}
addEventListener("hashchange", () => location.reload()); // a bookmark: `openThread.set` fires none
const plain = config.plainClient && new URLSearchParams(location.search).has("plain");
if (plain) element.remove();
void (plain ? import("./client.js") : mount()); // not awaited: the client imports this module
