/** Text as UTF-8, in browsers, workers and Node: none of them is in the language's own library. */
declare const TextEncoder: new () => { encode(text: string): Uint8Array };

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
