/** Keeps the screen on while the phone takes part, and says when the tab sleeps. */

import { find } from "./view.ts";

export class Awake {
  private lock: { release(): Promise<void> } | null = null;
  private wanted = false;

  /** `back` is called when its owner looks at the page again. */
  constructor(back: () => void) {
    document.addEventListener("visibilitychange", () => {
      const hidden = document.visibilityState === "hidden";
      find("asleep").hidden = !(hidden && this.wanted);
      document.title = hidden && this.wanted ? "asleep: featherfed phone" : "featherfed phone";
      if (hidden) return;
      void this.hold();
      back();
    });
  }

  keep(): void {
    this.wanted = true;
    void this.hold();
  }

  rest(): void {
    this.wanted = false;
    void this.lock?.release().catch(() => undefined);
    this.lock = null;
  }

  /** The browser takes the lock back whenever the page is out of sight, and gives none where power is low. */
  private async hold(): Promise<void> {
    if (!this.wanted || document.visibilityState === "hidden") return;
    try {
      const lock = (await navigator.wakeLock?.request("screen")) ?? null;
      this.lock = lock;
      // Its owner may have left while the browser thought about it.
      if (!this.wanted) this.rest();
    } catch {
      this.lock = null;
    }
  }
}
