"""Shipped measures in the configuration: rules, names that are taken, and what each costs."""

import pytest

from fastslow.config.cost import REFERENCE, estimate_cost
from fastslow.config.evaluation import EvaluationConfig
from fastslow.config.ledger import PARTS, Ledger
from fastslow.config.price import Price
from fastslow.core.errors import ConfigError
from fastslow.loop.build import build_measures
from fastslow.measure.base import Measure, MeasureConfig, MeasureDefinition, MeasurePrice, RowSize
from fastslow.measure.model.shipped import SHIPPED_MEASURES, measure_of
from tests.unit.config.test_config_models import broken, run_config

STAGES = [{"task": "word_valence"}, {"task": "country_continent"}]


class Pricey(MeasureConfig):
    each: int = 2

    def price(self, size: RowSize) -> MeasurePrice:
        return MeasurePrice(rollouts=self.each * sum(size.tests), extra=sum(size.visited))


def declared(name: str) -> MeasureDefinition:
    """A measure of nothing, of that name."""

    def make(config: Pricey) -> Measure:
        return lambda snapshot: ()

    return MeasureDefinition.declare(MeasureConfig, name, "made here")(make)


pricey, bridge, shrink = declared("pricey"), declared("bridge"), declared("shrink")


def custom(name: str) -> dict[str, object]:
    return {"kind": "custom", "use": f"{__name__}:{name}"}


def test_every_measure_has_a_line_with_the_most_that_it_takes_in_a_row() -> None:
    uses = [{"kind": "adherence"}, {**custom("pricey"), "params": {"each": 3}}, {"kind": "bridge"}]
    evaluation = {"test_examples": 64, "measures": uses}
    config = run_config(stages=STAGES, evaluation=evaluation)
    ledger = Ledger(config)
    assert ledger.measure_prices(0) == [
        ("adherence", MeasurePrice(rollouts=2 * 128)),
        ("pricey", MeasurePrice(rollouts=3 * 128)),
        ("bridge", MeasurePrice()),
    ]
    assert ledger.measure_prices(1)[:2] == [
        ("adherence", MeasurePrice(rollouts=2 * 64, extra=4 * 64)),
        ("pricey", MeasurePrice(rollouts=3 * 128, extra=64)),
    ]
    cost, plain = (
        estimate_cost(run_config(stages=STAGES, evaluation=keys))
        for keys in (evaluation, {"test_examples": 64})
    )
    lines = [line for line in cost.lines() if line.startswith("measure")]
    assert lines[:2] == [
        "measure adherence    at most 256 rollouts a row, and passes that take as long as 512",
        "measure pricey       at most 384 rollouts a row, and passes that take as long as 128",
    ]
    assert lines[2].startswith("measure bridge       at most 0 rollouts a row, and passes")
    assert cost.evaluation_rollouts is not None
    assert plain.evaluation_rollouts is not None
    drawn = (2 * 128 + 2 * 64 + 2 * 128) + 3 * 3 * 128
    assert cost.evaluation_rollouts == plain.evaluation_rollouts + drawn
    assert (cost.minutes or 0) > (plain.minutes or 0)
    remaining = [
        Price(Ledger(run_config(stages=STAGES, evaluation=keys)), {}, REFERENCE).remaining_s(
            True, 1, 0
        )
        for keys in (evaluation, {"test_examples": 64})
    ]
    assert remaining[0] > remaining[1]


def test_reasonings_are_paid_for_in_every_visited_task() -> None:
    evaluation = {"measures": [{"kind": "reference_spread", "rollouts": 3, "examples": 5}]}
    ledger = Ledger(run_config(stages=STAGES, evaluation=evaluation))
    for row in (0, 1, 2):
        price = MeasurePrice(rollouts=15 * row, extra=15 * row)
        assert ledger.measure_prices(row) == [("reference_spread", price)]


def test_shipped_measures_are_listed_once_and_those_of_a_change_need_one() -> None:
    twice = {"measures": [{"kind": "bridge"}, {"kind": "adherence"}, {"kind": "bridge"}]}
    assert broken(stages=STAGES, evaluation=twice) == {
        "evaluation.measures.2.kind": "bridge is listed twice. Remove one of them."
    }
    for kind, definition in SHIPPED_MEASURES.items():
        keys = {"stages": STAGES, "slow": None, "evaluation": {"measures": [{"kind": kind}]}}
        config_class = definition.config_class
        assert issubclass(config_class, MeasureConfig)
        if config_class.needs_change:
            message = broken(**keys)["evaluation.measures.0.kind"]
            assert message.startswith(f"{kind} measures a change of the weights, but `slow` is")
        else:
            run_config(**keys)


def test_measures_that_need_the_whole_base_are_refused_where_it_is_shared_out() -> None:
    for kind in SHIPPED_MEASURES:
        keys = {"stages": STAGES, "evaluation": {"measures": [{"kind": kind}]}}
        run_config(**keys)
        keys |= {"engine": {"sharding": "fsdp2"}}
        if kind in ("bridge", "keep_curve", "perturbation"):
            message = broken(**keys)["evaluation.measures.0.kind"]
            assert message.endswith(f"to none, or remove {kind} from evaluation.measures.")
        else:
            run_config(**keys)


def test_a_name_that_the_package_records_under_is_no_measure_of_the_users_own() -> None:
    for name in ("bridge", "shrink"):
        evaluation = EvaluationConfig.model_validate({"measures": [custom(name)]})
        with pytest.raises(ConfigError, match=f"two of them are called '{name}'. List a shipped"):
            build_measures(evaluation)
    both = EvaluationConfig.model_validate({"measures": [custom("pricey"), {"kind": "bridge"}]})
    assert list(build_measures(both)) == ["pricey", "bridge"]
    definition, params = measure_of(both.measures[1])
    assert definition is SHIPPED_MEASURES["bridge"]
    assert params == both.measures[1]


def test_every_part_of_a_ledger_is_a_name_that_is_taken() -> None:
    entries = Ledger(run_config(stages=STAGES)).entries
    assert {entry.part for entry in entries} <= set(PARTS)
