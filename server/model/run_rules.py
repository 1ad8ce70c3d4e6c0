"""The rules and plugins that a run's configuration names, and whether they go together with the rest of it."""

from featherfed.by_round import ByRound
from featherfed.codec.downlink_grammar import parse_downlink, pipeline_of
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.trial import try_out
from featherfed.rules.naming import load_aggregate, load_select, load_server_optimizer
from featherfed.rules.ruleset import RuleSet
from featherfed.server.config import RunConfig
from featherfed.user_modules import import_plugins


def load_plugins(config: RunConfig) -> None:
    """Import the user's own modules, which register codec stages; raises `ConfigError` or `ProblemError`."""
    import_plugins(config.plugin)


def rules_of(config: RunConfig) -> RuleSet:
    """Return a run's rules; raises `ConfigError` for an unknown one, `ProblemError` for a fault in a user's file."""
    return RuleSet(
        load_aggregate(config.aggregate),
        load_server_optimizer(config.server_optimizer, config.server_lr),
        load_select(config.select),
    )


def uplinks_of(config: RunConfig) -> ByRound[Pipeline]:
    """Return the pipeline of each round's updates; raises `SpecError`."""
    return config.by_round(config.uplink_at).map(Pipeline.parse)


def check_codecs(config: RunConfig) -> None:
    """Raise `ConfigError` for a spec that is none, and `ProblemError` for a stage of the user's own that fails."""
    for pipeline in (*uplinks_of(config).values, pipeline_of(parse_downlink(config.downlink))):
        if pipeline is not None and pipeline.foreign:
            try_out(pipeline)


def check_rules(config: RunConfig) -> None:
    """Raise `ConfigError` for rules, uplink and mode that do not go together, naming both."""
    rules = rules_of(config)
    for uplink in uplinks_of(config).values:
        rules.check(
            uplink,
            asynchronous=config.mode == "async",
            gateways=config.gateways,
            min_updates=config.min_updates,
            beforehand=config.connect == "when-chosen",
        )
