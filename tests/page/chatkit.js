// Stands in for OpenAI's component, which only its CDN has: keeps its options, speaks the protocol.
class StandIn extends HTMLElement {
  setOptions(options) {
    this.options = options;
    this.dataset.scheme = options.theme.colorScheme;
    (window.recorded ??= []).push(options);
    if (window.recorded.length > 1) return;
    this.textContent = options.startScreen.greeting;
    this.emit("chatkit.ready");
  }

  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  async post(type, params, signal) {
    const { url, fetch } = this.options.api;
    const body = JSON.stringify({ type, params });
    const headers = { "Content-Type": "application/json" };
    return fetch(url, { method: "POST", headers, body, signal });
  }

  async sendUserMessage({ text, attachments = [] }) {
    const content = [{ type: "input_text", text }];
    const input = { content, attachments: attachments.map(({ id }) => id), inference_options: {} };
    this.emit("chatkit.response.start");
    const answer = await (await this.post("threads.create", { input })).text();
    const events = answer.split("\n\n").filter(Boolean).map((line) => JSON.parse(line.slice(6)));
    this.emit("chatkit.thread.change", { threadId: events[0].thread.id });
    const last = events.findLast(({ type }) => type === "thread.item.done");
    this.textContent = last.item.content[0].text;
    this.emit("chatkit.response.end");
    return this.textContent;
  }

  async upload(file) {
    const form = new FormData();
    form.append("file", file);
    const { fetch, uploadStrategy } = this.options.api;
    return (await fetch(uploadStrategy.uploadUrl, { method: "POST", body: form })).json();
  }

  setThreadId(threadId) {
    this.emit("chatkit.thread.change", { threadId });
  }
}
customElements.define("openai-chatkit", StandIn);
