/** ChatKit's protocol as the page speaks it: who asks, in which language, under which id. */
import { token } from "./custom.js";

/**
 * What the server says of itself; see `app/page.py`.
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
export let requestId = "";

/**
 * The headers of a request: login, locale and request id, for this app and nobody else.
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
export async function chatFetch(input, init = {}) {
  const request = input instanceof Request ? input : undefined;
  const headers = await headersFor(request?.url ?? String(input), init.headers ?? request?.headers);
  if (config.stopByRequest && init.method === "POST") {
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
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
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
  const { status } = response;
  throw new Refused(error?.message ?? `The server answered ${status}.`, status);
}

/** The open thread stands in the address: a reload, a bookmark and a second tab find it. */
export const openThread = {
  get: () => decodeURIComponent(location.hash.slice(1)) || null,
  set(/** @type {string | null} */ id) {
    const here = location.pathname + location.search;
    history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : here);
  },
};

Object.assign(config, await (await chatFetch(address("config.json"))).json());
