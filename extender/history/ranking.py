"""All nodes of one decision, best first, a page at a time. Pure."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.history.contenders import Recalled

PAGE: Final = 50
"""Rows of a table on one page."""


def page_of(count: int, page: int) -> tuple[slice, int, int]:
    """Return the rows of a page, how many pages there are, and the page's number within them."""
    pages = max(-(-count // PAGE), 1)
    page = min(max(page, 1), pages)
    return slice((page - 1) * PAGE, page * PAGE), pages, page


def ranking(field: Recalled | None, usual: NDArray[Any], page: int) -> dict[str, Any]:
    """Return one page of the nodes of a decision, best first.

    Args:
        field: the nodes; None where none is remembered.
        usual: what kube-default prefers, ``[n]``.
        page: from 1.
    """
    if field is None:
        return {"rows": [], "page": 1, "pages": 1, "count": 0}
    part, pages, page = page_of(len(field.names), page)
    _, inverse, counts = np.unique(-usual, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts + 1)[inverse]
    low, high = float(field.preferences.min()), float(field.preferences.max())
    return {
        "rows": [
            {
                "rank": i + 1,
                "node": field.names[i],
                "preference": float(field.preferences[i]),
                "priority": int(field.priorities[i]),
                "usual": float(usual[i]),
                "usual_rank": int(ranks[i]),
                "share": 100.0 * (float(field.preferences[i]) - low) / ((high - low) or 1.0),
            }
            for i in range(len(field.names))[part]
        ],
        "page": page,
        "pages": pages,
        "count": len(field.names),
    }
