/** What this browser keeps, in IndexedDB: the phone's memory and its owner's drawings. None of it is sent as it is. */

import { EMPTY, type Memory, type Store } from "../life/memory.ts";
import type { Stroke } from "../learning/drawing.ts";

const NAME = "featherfed-phone";

export interface Drawn {
  readonly label: number;
  readonly pixels: Uint8Array;
  readonly strokes: readonly Stroke[];
}

/** Whether this browser is a phone now, and of which examples. */
export interface Choice {
  readonly joined: boolean;
  readonly source: "drawn" | "digits";
}

export class Database implements Store {
  private constructor(private readonly db: IDBDatabase) {}

  /** `forgotten` is called when another tab forgets everything: nothing can be kept here then. */
  static open(forgotten: () => void): Promise<Database> {
    return new Promise((done, fail) => {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("memory");
        request.result.createObjectStore("drawings", { autoIncrement: true });
      };
      request.onsuccess = () => {
        // Another tab that forgets everything must not wait for this one.
        request.result.onversionchange = () => {
          request.result.close();
          forgotten();
        };
        done(new Database(request.result));
      };
      request.onerror = () => fail(request.error ?? new Error("this browser keeps nothing"));
    });
  }

  /** Forget all of it. */
  static forget(): Promise<void> {
    return new Promise((done, fail) => {
      const request = indexedDB.deleteDatabase(NAME);
      request.onsuccess = () => done();
      request.onerror = () => fail(request.error ?? new Error("what is kept cannot be deleted"));
    });
  }

  async load(): Promise<Partial<Memory>> {
    const store = this.db.transaction("memory").objectStore("memory");
    const names = Object.keys(EMPTY);
    const values = await Promise.all(names.map((name) => result(store.get(name))));
    return Object.fromEntries(names.map((name, i) => [name, values[i]]).filter(([, value]) => value !== undefined));
  }

  save(changes: Partial<Memory>): Promise<void> {
    return this.write("memory", (store) => {
      for (const [name, value] of Object.entries(changes)) store.put(value, name);
    });
  }

  async choice(): Promise<Choice> {
    const kept = await result(this.db.transaction("memory").objectStore("memory").get("choice"));
    return { joined: false, source: "drawn", ...(kept as Choice | undefined) };
  }

  choose(choice: Choice): Promise<void> {
    return this.write("memory", (store) => store.put(choice, "choice"));
  }

  drawings(): Promise<Drawn[]> {
    return result(this.db.transaction("drawings").objectStore("drawings").getAll()) as Promise<Drawn[]>;
  }

  draw(drawn: Drawn): Promise<void> {
    return this.write("drawings", (store) => store.add(drawn));
  }

  /** Take back the newest drawing. */
  undraw(): Promise<void> {
    return this.write("drawings", (store) => {
      const last = store.openKeyCursor(null, "prev");
      last.onsuccess = () => {
        if (last.result) store.delete(last.result.primaryKey);
      };
    });
  }

  /** Returns when it is on the disk, all of it. */
  private write(name: string, act: (store: IDBObjectStore) => void): Promise<void> {
    return new Promise((done, fail) => {
      const transaction = this.db.transaction(name, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => done();
      transaction.onabort = () => fail(transaction.error ?? new Error("this browser keeps nothing more"));
      act(transaction.objectStore(name));
    });
  }
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((done, fail) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error ?? new Error("what is kept cannot be read"));
  });
}
