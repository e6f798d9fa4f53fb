// Asks the server what is new, as often as it says, with the ETag of the last answer: 304 costs nothing to draw.

const RETRY = 5000;

export class Poller {
  // `onAnswer(payload)` for each new answer; `onContact(ok)` after every request, also after a 304.
  constructor(url, { since, onAnswer, onContact }) {
    Object.assign(this, { url, since, onAnswer, onContact });
    this.etag = "";
    this.interval = RETRY;
    this.timer = 0;
    this.asking = false;
    document.addEventListener("visibilitychange", () => !document.hidden && this.interval && this.ask());
  }

  async ask() {
    if (this.asking) return;
    this.asking = true;
    clearTimeout(this.timer);
    let wait = RETRY;
    try {
      wait = await this.fetchAll();
      this.onContact(true);
    } catch {
      this.onContact(false); // the server or the network is away: say so, and try again
    }
    this.interval = wait;
    this.asking = false;
    if (wait && !document.hidden) this.timer = setTimeout(() => this.ask(), wait);
  }

  async fetchAll() {
    let page = "";
    for (;;) {
      const headers = { Accept: "application/json" };
      if (this.etag && !page) headers["If-None-Match"] = this.etag;
      const response = await fetch(`${this.url}${this.url.includes("?") ? "&" : "?"}since=${this.since()}${page}`, { headers, cache: "no-store" });
      if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
      if (response.status === 304) return this.interval;
      if (!response.ok) throw new Error(`status ${response.status}`);
      const payload = await response.json();
      this.onAnswer(payload);
      if (!payload.more) {
        this.etag = response.headers.get("ETag") ?? "";
        return payload.poll_after ?? 0;
      }
      page = "&page=1";
    }
  }
}
