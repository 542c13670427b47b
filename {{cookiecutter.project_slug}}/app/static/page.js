/**
 * The page: mounts OpenAI's `<openai-chatkit>` on this app's `/chatkit`. When the component does
 * not come (no network, a blocked CDN, a wrong key), it says so and offers the plain client.
 */
import { address, call, chatFetch, config, openThread, requestId } from "./api.js";
import { GREETING, PROMPTS, runClientTool } from "./custom.js";

/** @typedef {import("@openai/chatkit").OpenAIChatKit} ChatKit */
/** @typedef {import("@openai/chatkit").ChatKitOptions} Options */

const dark = matchMedia("(prefers-color-scheme: dark)");
const notice = /** @type {HTMLElement} */ (document.getElementById("notice"));
const element = /** @type {ChatKit} */ (document.getElementById("chatkit"));

/** @param {...(Node | string)} content shown above the chat; nothing takes the line away */
function tell(...content) {
  notice.replaceChildren(...content);
  notice.hidden = content.length === 0;
}

/**
 * Every option at once: setOptions replaces, it never merges.
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
  const response = await call("threads.list", { limit: 100, order: "desc" });
  const { data } = await response.json();
  return data
    .filter(({ title }) => title?.toLowerCase().includes(query.toLowerCase()))
    .map(({ id, title }) => ({ id, title: title ?? "", group: "Chats", interactive: true }));
}

/** @returns {Promise<string | null>} the thread in the address, or null when it is gone */
async function rememberedThread() {
  const id = openThread.get();
  return id && call("threads.get_by_id", { thread_id: id }).then(() => id, () => null);
}

/** @param {string} url */
const load = (url) =>
  new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error("the script did not load")));
    script.src = url;
    document.head.append(script);
  });

function offerPlainClient() {
  const link = document.createElement("a");
  link.href = `?plain${location.hash}`;
  link.textContent = "Open the plain client";
  tell(
    "ChatKit did not start: no network, a blocked CDN or a wrong CHATKIT_DOMAIN_KEY. ",
    ...(config.plainClient ? [link] : []),
  );
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
    tell(`Something went wrong. Try again; if it stays, report ${requestId}.`);
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

if (config.plainClient && new URLSearchParams(location.search).has("plain")) {
  element.remove();
  await import("./client.js");
} else {
  await mount();
}
