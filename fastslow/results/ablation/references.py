"""The reference runs of an arm: those of its own method, trained on other stages.

Held against another method, an arm would show what the methods differ in, not what it failed to
learn or owes to earlier tasks.
"""

from fastslow.config.ablation import AblationConfig, ReferencesConfig
from fastslow.config.loading.load import leaves

OWN_KEYS = ("stages", "probe", "evaluation", "publish", "tracking")
"""Keys in which a reference may differ: what is visited, and what is measured."""
BUDGETS = ("fast.metric_calls", "cycle.optimizer_steps")
"""Those of a joint arm besides, which deals an equal budget out over more stages."""


def reference_arms(metric: str, references: ReferencesConfig) -> tuple[str, ...]:
    """The arms that this metric is measured against; of their own they have no value.

    Where a joint arm is named, intransigence is measured against no other: arms held against
    references of two kinds could not be compared.
    """
    isolated = tuple(arm for arms in references.arms_alone().values() for arm in arms)
    if metric == "intransigence":
        return isolated if references.joint is None else (references.joint,)
    return isolated if metric == "fwt_isolated" else ()


def is_reference_of(config: AblationConfig, reference: str, arm: str) -> bool:
    """Whether `arm` is of the method of this reference: they differ in no key but its own."""
    ignored = (*OWN_KEYS, *(BUDGETS if reference == config.references.joint else ()))
    arm_keys, reference_keys = (
        {
            path: value
            for path, value in leaves(config.arms[name]).items()
            if value != {} and path not in ignored and path.partition(".")[0] not in ignored
        }
        for name in (arm, reference)
    )
    return arm_keys == reference_keys


def idle_references(config: AblationConfig) -> dict[tuple[str, ...], str]:
    """By key path, the references whose method no other arm shares."""
    named: dict[tuple[str, ...], tuple[str, ...]] = {
        ("references", "isolated", task): arms
        for task, arms in config.references.arms_alone().items()
    }
    if config.references.joint is not None:
        named["references", "joint"] = (config.references.joint,)
    others = config.arms.keys() - {arm for arms in named.values() for arm in arms}
    return {
        path: arm
        for path, arms in named.items()
        for arm in arms
        if not any(is_reference_of(config, arm, name) for name in others)
    }
