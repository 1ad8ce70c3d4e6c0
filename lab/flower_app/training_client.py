"""A phone that trains: Flower's own PyTorch quickstart, with the shard in memory in place of a DataLoader."""

from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy

from featherfed.learning.models import build
from featherfed.problem_loading import load_problem

# As our phones: more threads than cores would only wait for each other.
torch.set_num_threads(1)
app = ClientApp()


def shard(folder: Path, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and labels of a shard, normalised: copied from files that are mapped."""
    start, end = np.load(folder / "starts.npy")[index : index + 2]
    images = np.load(folder / "images.npy", mmap_mode="r")[start:end]
    labels = np.load(folder / "labels.npy", mmap_mode="r")[start:end]
    return torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the weights after some epochs of SGD on this phone's shard."""
    config = context.run_config
    images, labels = shard(Path(config["data"]), int(context.node_config["partition-id"]))
    model = build(load_problem(config["problem"]), 0)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    model.train()
    for _ in range(config["epochs"]):
        for chosen in torch.randperm(len(labels)).split(config["batch-size"]):
            optimizer.zero_grad()
            loss = cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
    metrics = MetricRecord({"num-examples": len(labels), "train-loss": loss.item()})
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}
    return Message(content=RecordDict(content), reply_to=message)
