/** What cannot be built or read: a payload, a spec, a message. The sentence is for people. */
export class FaultError extends Error {
  override name = "FaultError";
}

/** What this phone cannot do, though another could: a stage, a downlink, a model. */
export class UnableError extends Error {
  override name = "UnableError";
}
