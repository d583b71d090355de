// The stream of events: connects, notices silence, and connects again.

const SILENCE = 10_000; // ms; the worker says something every 5 s at the least
const AGAIN = [1000, 2000, 4000, 5000];
const HIDDEN = 60_000; // ms after which a page that nobody sees hangs up

export class Stream {
  #told;
  #source = null;
  #silence = 0;
  #again = 0;
  #tries = 0;
  #hidden = 0;

  // `told` has `overview`, `series`, `connected` and `broken`.
  constructor(told) {
    this.#told = told;
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#hangUp());
    addEventListener("pageshow", (event) => event.persisted && this.connect());
    this.connect();
  }

  connect() {
    this.#hangUp();
    const source = (this.#source = new EventSource("events"));
    source.addEventListener("overview", (event) => {
      this.#heard();
      this.#told.overview(JSON.parse(event.data));
    });
    source.addEventListener("series", (event) => this.#told.series(JSON.parse(event.data)));
    // Not left to EventSource, which gives up for good when it is answered with an error.
    source.addEventListener("error", () => this.#lost());
    this.#listen();
  }

  #heard() {
    this.#tries = 0;
    this.#listen();
    this.#told.connected();
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE);
  }

  #lost() {
    this.#hangUp();
    this.#told.broken();
    const wait = AGAIN[Math.min(this.#tries, AGAIN.length - 1)];
    this.#tries += 1;
    this.#again = setTimeout(() => this.connect(), wait);
  }

  #hangUp() {
    clearTimeout(this.#silence);
    clearTimeout(this.#again);
    this.#source?.close();
    this.#source = null;
  }

  #seen() {
    clearTimeout(this.#hidden);
    if (document.hidden) {
      this.#hidden = setTimeout(() => {
        this.#hangUp();
        this.#told.broken();
      }, HIDDEN);
    } else if (!this.#source) {
      this.connect();
    }
  }
}
