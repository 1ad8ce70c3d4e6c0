/** The types of docs/PROTOCOL.md, "Messages": what a field may be, and what is said of one that is not. */

import { FaultError } from "../codec/fault.ts";

const MOST = Number.MAX_SAFE_INTEGER;
export const MAX_CHUNK_BYTES = 131072;

/** Reads the fields of one message in their order; whatever is not as the page says is a fault. */
export class Fields {
  private at = 1;

  constructor(
    private readonly message: string,
    private readonly elements: readonly unknown[],
    least: number,
    most: number,
  ) {
    const count = elements.length - 1;
    if (count < least || count > most) throw new FaultError(`${message} with ${count} fields, not ${least} to ${most}`);
  }

  fault(value: unknown, wanted: string): never {
    const shown = value instanceof Uint8Array ? `${value.length} bytes` : String(value).slice(0, 40);
    throw new FaultError(`${this.message}: field ${this.at} is ${shown}, not ${wanted}`);
  }

  get left(): boolean {
    return this.at < this.elements.length;
  }

  int(least = 0, most = MOST): number {
    const value = this.elements[this.at];
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number !== "number" || !Number.isSafeInteger(number) || number < least || number > most) {
      this.fault(value, `a whole number from ${least} to ${most}`);
    }
    this.at++;
    return number;
  }

  unsigned64(): bigint {
    const value = this.elements[this.at];
    if (typeof value !== "bigint" && !Number.isSafeInteger(value)) this.fault(value, "a whole number");
    const number = BigInt(value as number | bigint);
    if (number < 0n) this.fault(value, "0 or more");
    this.at++;
    return number;
  }

  float(least: number, most: number): number {
    const value = this.elements[this.at];
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number !== "number" || !(number >= least && number <= most)) {
      this.fault(value, `a number from ${least} to ${most}`);
    }
    this.at++;
    return number;
  }

  bool(): boolean {
    const value = this.elements[this.at];
    if (typeof value !== "boolean") this.fault(value, "true or false");
    this.at++;
    return value;
  }

  str(least: number, most: number, bad?: RegExp): string {
    const value = this.elements[this.at];
    // Limits count characters, not the halves of surrogate pairs.
    if (typeof value !== "string" || [...value].length < least || [...value].length > most || bad?.test(value)) {
      this.fault(value, `a text of ${least} to ${most} characters`);
    }
    this.at++;
    return value;
  }

  bin(least = 0, most = MAX_CHUNK_BYTES): Uint8Array {
    const value = this.elements[this.at];
    if (!(value instanceof Uint8Array) || value.length < least || value.length > most) {
      this.fault(value, `${least} to ${most} bytes`);
    }
    this.at++;
    // A copy: what msgpack returns is a view of the whole frame.
    return value.slice();
  }

  array(least: number, most: number): readonly unknown[] {
    const value = this.elements[this.at];
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      this.fault(value, `an array of ${least} to ${most}`);
    }
    this.at++;
    return value as unknown[];
  }

  map(): ReadonlyMap<string, unknown> {
    const value = this.elements[this.at];
    if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array) {
      this.fault(value, "a map");
    }
    this.at++;
    const map = new Map(Object.entries(value));
    if (map.size > 64) this.fault(value, "a map of at most 64");
    return map;
  }
}
