"""`README.md`: the dataset card as model and dataset hubs read it, with the page's figures in short."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markupsafe import Markup

from curate.card.environment import markdown
from curate.card.facts import Facts

# Identifiers that the Hugging Face Hub knows, of those that media of the web usually carry.
HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0"}
    | {"cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"}
    | {"cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"}
    | {"gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "odbl", "pddl"}
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip


def render_readme(facts: Facts) -> str:
    """Markdown with YAML front matter; every value is escaped, so none of it is markup."""
    head = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    return markdown().get_template("README.md").render(facts=facts, head=Markup(head))


def front_matter(facts: Facts) -> dict[str, Any]:
    """What a hub reads: licences, tags, size, and where each split's shards are."""
    stated = [name for name, _ in facts.licences if name != "not stated"]
    known = [hub_licence(name) for name in stated]
    licences = sorted({k for k in known if k is not None} | ({"other"} if None in known else set()))
    kinds = [kind for kind, _, _ in facts.kinds]
    return {
        "pretty_name": facts.recipe.name,
        **({"license": licences} if licences else {"license": "unknown"}),
        "tags": ["curate", "multimodal", "discrete-tokens", *kinds],
        "size_categories": [size_category(facts.funnel.samples.parts["kept"])],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": s.name, "path": f"tokens/{s.name}/*.arrow"} for s in facts.manifest.splits if s.samples
                ],
            }
        ],
    }


def hub_licence(name: str) -> str | None:
    """The hub's identifier of a licence as people write it: `CC BY 4.0` is `cc-by-4.0`; None for others."""
    short = re.sub(r"[\s_]+", "-", name.strip().lower()).removeprefix("creativecommons-")
    short = {"public-domain": "pddl", "cc0": "cc0-1.0", "bsd-license": "bsd"}.get(short, short)
    return short if short in HUB_LICENCES else None


def size_category(samples: int) -> str:
    """The hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if samples < limit), "n>1B")
