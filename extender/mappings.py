"""YAML whose mappings have each key once: of a key that stands twice, readers disagree which one counts."""

from __future__ import annotations

from typing import Any

import yaml

from policy.errors import InvalidInputError


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as kube-scheduler does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises `InvalidInputError` if a key stands twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise InvalidInputError(f"line {key.start_mark.line + 1}: {key.value[:60]!a} stands twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)
