/** The digest of a model that both ends know: docs/PROTOCOL.md, "Models". */

import type { Tensor } from "../codec/layout.ts";
import { utf8 } from "../codec/text.ts";
import { digestOf } from "../wire/digest.ts";

/** `tensors` all travel: a phone in a browser holds none that does not. */
export function modelDigest(tensors: readonly Tensor[]): Uint8Array {
  return digestOf(utf8(tensors.map(({ name, shape }) => `${name}/${shape.join("x")}/`).join("\n")));
}
