"""A phone that does not train: noise of the model's size, as `fl-edge run --train none` sends."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the weights and some noise."""
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    noise = np.random.default_rng().standard_normal(weights.shape, dtype=np.float32) * np.float32(1e-3)
    content = {"arrays": ArrayRecord([weights + noise]), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)
