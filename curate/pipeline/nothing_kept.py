"""What is said where a recipe keeps nothing: what became of the samples, which rule dropped most, and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from curate.decide.bounds import thresholds_of
from curate.decide.causes import causes_of, dropped_values, outcomes_of
from curate.decide.ledger import RECORD, SAMPLE
from curate.pipeline.causes import cause_lines
from curate.schema.errors import CurateError
from curate.schema.manifest import Counts
from curate.schema.recipe_file import RecipeFile
from curate.schema.verdict import Outcome
from curate.storage import Store


def nothing_kept(file: RecipeFile, build: Store, counts: Counts, verdicts: Sequence[str]) -> CurateError:
    """The error for it, with the rule's line of the recipe.

    Args:
        counts: of the verdicts.
        verdicts: fragments of LEDGER.
    """
    of, level, what = counts.samples, SAMPLE, "no sample was kept"
    if not counts.records[Outcome.SAMPLED]:
        of, level, what = counts.records, RECORD, "no record could be sampled"
    said = f"{what}: " + ", ".join(f"{n} {outcome}" for outcome, n in of.items() if n and outcome != "total")
    failures = cause_lines(causes_of(build, verdicts))
    there = f"what was computed is kept in {build}"
    dropped = (one for one in outcomes_of(build, verdicts) if (one.level, one.outcome) == (level, Outcome.DROPPED))
    most = next(dropped, None)
    if most is None or most.cause is None:
        return CurateError("\n".join([said, *failures]), f"{there}; change the recipe and run again")
    values = dropped_values(build, verdicts, level, most.cause)
    shown = " to ".join(dict.fromkeys(f"{end:.4g}" for end in values or ()))
    said += f"; `{most.cause}` dropped {most.count}" + (f", whose values are {shown}" if shown else "")
    hint = f"loosen this rule, or take it out, and run the same command again: {there}"
    return file.error(_place_of(file, level, most.cause), "\n".join([said, *failures]), hint)


def _place_of(file: RecipeFile, level: str, name: str) -> Sequence[str | int]:
    """Where the recipe says a rule, by a name of its bounds."""
    recipe = file.recipe
    rules, decided = (recipe.sample_rules, recipe.decide.rules) if level == SAMPLE else ((recipe.decide.records,) * 2)
    owners = [i for i, rule in enumerate(rules) for _ in thresholds_of([rule])]
    at = owners[[bound.name for bound in thresholds_of(rules)].index(name)] - (len(rules) - len(decided))
    if at < 0:
        return "cut", "min_seconds"
    return "decide", "rules" if level == SAMPLE else "records", at
