/** Why a connection ends: docs/PROTOCOL.md, "Why a connection ends". */

import { utf8 } from "../codec/text.ts";

export const DONE = 1000;
export const PROTOCOL_FAULT = 4001;
export const PAYLOAD = 4003;
export const PAUSED = 4006;
export const UNABLE = 4010;
export const UNTRAINED = 4012;
export const RESTS = 4013;

/** 1000, 4002 VERSION, 4004 REFUSED, 4005 REPLACED, 4007 NO_SHARD: the same request is answered so again. */
const FINAL = new Set([DONE, 4002, 4004, 4005, 4007]);

/** Whether a phone that is told this does not come back. */
export function isFinal(code: number): boolean {
  return FINAL.has(code);
}

/** Return a sentence of at most 123 bytes, as a close frame carries it. */
export function short(sentence: string): string {
  const characters = [...sentence];
  while (utf8(characters.join("")).length > 123) characters.pop();
  return characters.join("");
}

/** Return after how many seconds a phone that rests is asked again, from the close frame's `ROUND SECONDS`. */
export function restS(reason: string): number {
  const seconds = Number(/^[0-9]+ ([0-9.]+)$/.exec(reason)?.[1] ?? 0);
  return Math.min(Math.max(seconds, 1), 604800);
}
