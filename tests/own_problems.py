"""Problems as users write them, small: each stands for a kind of model that is none of ours."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import featherfed as ff


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(seed: int, count: int = 120) -> ff.Examples:
    inputs = torch.randn(count, 4, generator=generator(seed))
    return ff.Examples(inputs, (inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])).unsqueeze(1))


@ff.metric(higher_is_better=False)
def mae(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs()


regression = ff.Problem(
    lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)),
    examples=lambda place: table(100 + place.index),
    test=lambda: table(7, 250),
    loss=mse_loss,
    metrics={"mae": mae},
    name="regression",
)


class TwoInputs(nn.Module):
    """Numbers and a category, of which the one is embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(5, 3)
        self.out = nn.Linear(2 + 3, 3)

    def forward(self, numbers: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.out(torch.cat([numbers, self.kinds(kind)], 1))
        return scores


def mixed(seed: int, count: int = 90) -> ff.Examples:
    numbers = torch.randn(count, 2, generator=generator(seed))
    kind = torch.randint(0, 5, (count,), generator=generator(seed + 1))
    return ff.Examples((numbers, kind), torch.where(numbers[:, 0] > 1, 0, kind.remainder(3)))


two_inputs = ff.Problem(
    TwoInputs,
    examples=lambda place: mixed(place.index),
    test=lambda: mixed(50),
    loss=cross_entropy,
    metrics={"accuracy": ff.accuracy},
    name="two-inputs",
)


class Language(nn.Module):
    """Guesses the next token; what embeds tokens also scores them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.score = nn.Linear(8, 11, bias=False)
        self.score.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.embed(tokens))
        scores: torch.Tensor = self.score(self.drop(hidden)).transpose(1, 2)  # (batch, tokens, places)
        return scores


def text(seed: int, count: int = 60) -> ff.Examples:
    first = torch.randint(0, 11, (count, 1), generator=generator(seed))
    tokens = (first + 2 * torch.arange(7)) % 11
    return ff.Examples(tokens[:, :-1], tokens[:, 1:])


tokens = ff.Problem(
    Language,
    examples=lambda place: text(place.index),
    test=lambda: text(90),
    loss=cross_entropy,
    metrics={"accuracy": ff.accuracy},
    name="tokens",
)


class Adapted(nn.Module):
    """A frozen body with BatchNorm in it, and a head that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.body.requires_grad_(False)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(inputs))
        return outputs


frozen = ff.Problem(
    Adapted,
    examples=lambda place: table(place.index),
    test=lambda: table(7),
    loss=mse_loss,
    metrics={"mae": mae},
    name="frozen",
)

ALL = (regression, two_inputs, tokens, frozen)
