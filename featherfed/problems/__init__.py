"""The problems that come with featherfed, each with models that suit it: `mnist/2nn`, or `mnist` for its first model.

They are made as a user's own is, from `featherfed.Problem`; what a name stands for is imported when it is asked for.
"""

OURS = {
    "mnist": "featherfed.problems.mnist:mnist",
    "mnist-tuning": "featherfed.problems.mnist:mnist_tuning",
    "digits": "featherfed.problems.digits:digits",
    "fashion-mnist": "featherfed.problems.mnist:fashion_mnist",
    "kmnist": "featherfed.problems.mnist:kmnist",
    "emnist": "featherfed.problems.emnist:balanced",
    "emnist-letters": "featherfed.problems.emnist:letters",
    "emnist-digits": "featherfed.problems.emnist:digits",
    "emnist-mnist": "featherfed.problems.emnist:mnist",
    "emnist-bymerge": "featherfed.problems.emnist:bymerge",
    "emnist-byclass": "featherfed.problems.emnist:byclass",
    "cifar10": "featherfed.problems.cifar10:cifar10",
}
"""Where each is: a function from a model's name (empty: its first) to a `Problem`."""
