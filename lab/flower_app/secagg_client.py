"""A phone that does not train, with Flower's SecAgg+: noise of the model's size, and a note of each answer's length."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.serde import recorddict_to_proto


class Noise(NumPyClient):
    """Returns the weights and some noise."""

    def fit(self, parameters, config):  # type: ignore[no-untyped-def]
        """Train nothing."""
        weights = parameters[0]
        noise = np.random.default_rng().standard_normal(weights.shape, dtype=np.float32) * np.float32(1e-3)
        return [weights + noise], 1, {}


def counted(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Note how long the content of an answer is, as it is serialised: without gRPC, TLS, and what is around it."""
    reply = call_next(message, context)
    length = len(recorddict_to_proto(reply.content).SerializeToString())
    with open(Path(str(context.run_config["notes"])), "a") as notes:
        notes.write(json.dumps({"what": "answer", "bytes": length}) + "\n")
    return reply


def client(context: Context):  # type: ignore[no-untyped-def]
    """Return a phone."""
    return Noise().to_client()


app = ClientApp(client_fn=client, mods=[counted, secaggplus_mod])
