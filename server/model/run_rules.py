"""The rules and plugins that a run's configuration names, and whether they go together with the rest of it."""

from featherfed.by_round import ByRound
from featherfed.codec.downlink_grammar import parse_downlink, pipeline_of
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.summable import unsummable
from featherfed.codec.trial import try_out
from featherfed.errors import ConfigError
from featherfed.rules.naming import load_aggregate, load_select, load_server_optimizer
from featherfed.rules.ruleset import RuleSet
from featherfed.server.circle_plan import CohortShare, plan_of
from featherfed.server.config import RunConfig
from featherfed.server.privacy_plan import check_privacy
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
    _check_sums(config, rules)
    check_privacy(config, rules, uplinks_of(config).values)
    for uplink in uplinks_of(config).values:
        rules.check(
            uplink,
            asynchronous=config.mode == "async",
            gateways=config.gateways,
            min_updates=config.min_updates,
            beforehand=config.connect == "when-chosen",
        )


def _check_sums(config: RunConfig, rules: RuleSet) -> None:
    """Raise `ConfigError` where sums of circles do not go together with the rest of a run."""
    uplinks = uplinks_of(config)
    summed = [uplink for uplink in uplinks.values if uplink.summed]
    if config.secure:
        for uplink in uplinks.values:
            if (why := unsummable(uplink)) is not None:
                raise ConfigError(f"--secure: --uplink {why}")
    if not summed:
        if config.slices > 1:
            raise ConfigError(f"--slices {config.slices} is for an uplink that ends in grid, like secure-4bit")
        return
    first = summed[0]
    if len(summed) < len(uplinks.values):
        raise ConfigError(f"--uplink {config.spelled('uplink')}: either all rounds sum circles ({first}), or none")
    if rules.aggregate.needs_all:
        raise ConfigError(
            f"--aggregate {rules.aggregate} looks at single updates, and of --uplink {first} the server knows sums"
            " alone; use --aggregate mean, and --clip-norm"
        )
    if config.mode == "async":
        raise ConfigError(f"--uplink {first} is summed within one round, and --mode async sums several; name another")
    if config.gateways and config.slices > 1:
        raise ConfigError(
            f"--slices {config.slices} gives each circle another part of the coordinates, and of --gateways"
            f" {config.gateways} each hands up one sum of all of them; leave one of the two out"
        )
    if config.secure and config.gateways:
        CohortShare.of(config, config.gateways).check()
    for number in (1, *sorted({number for values in config.later.values() for number in values})):
        plan, asked = plan_of(config, number), config.cohort_size_at(number)
        if (there := plan.count(asked)) < config.slices:
            raise ConfigError(
                f"--slices {config.slices} exceeds the {there} circles of {asked} phones (--circle {config.circle}):"
                " some coordinates would never be sent"
            )
