/** What is yours to change in the page: the login, the first prompts, the browser's tools. */

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
export async function token() {
  return "";
}

export const GREETING = "What can I help with today?";

/** @type {import("@openai/chatkit").StartScreenPrompt[]} */
export const PROMPTS = [
  { label: "What can you do?", prompt: "What can you do?", icon: "circle-question" },
  { label: "What time is it?", prompt: "What time is it in Lisbon?", icon: "clock" },
  { label: "Explain something", prompt: "Explain how rain is made.", icon: "lightbulb" },
];

/**
 * What the agent may ask of the browser: the client tools of `app/assistant.py`, by their names.
 *
 * @type {Record<string, (params: Record<string, unknown>) => Record<string, unknown>>}
 */
const CLIENT_TOOLS = {
  get_time_zone: () => ({ time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone }),
};

/**
 * Answer the agent; an unknown tool is an answer too, so that the turn goes on.
 *
 * @type {NonNullable<import("@openai/chatkit").ChatKitOptions["onClientTool"]>}
 */
export const runClientTool = ({ name, params }) =>
  CLIENT_TOOLS[name]?.(params) ?? { error: `This page has no tool ${name}.` };
