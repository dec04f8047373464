"""values.yaml is the one source of the chart's schema and of its table of values."""

import subprocess
import sys

import pytest

from extender.settings import Settings
from helm import reference
from tests.control_plane.toolchain import REPOSITORY


def test_generated_files_are_up_to_date() -> None:
    stale = [path.name for path, text in reference.render().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make reference`"


def test_command_says_what_is_out_of_date() -> None:
    done = subprocess.run([sys.executable, "-m", "helm.reference", "--check"], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("group:\n  leaf: 1\n", "group.leaf"),
        ("# not a meaning\nleaf: 1\n", "leaf"),
        ('# -- a meaning\n# @schema {"minimum": }\nleaf: 1\n', "leaf"),
    ],
    ids=["leaf without a comment", "comment that is no meaning", "schema that is not JSON"],
)
def test_value_that_is_not_documented_is_refused_by_its_path(text: str, named: str) -> None:
    with pytest.raises(reference.ChartReferenceError, match=named):
        reference.read_values(text)


def test_default_without_a_type_is_refused_by_its_path() -> None:
    with pytest.raises(reference.ChartReferenceError, match=r"group\.leaf"):
        reference.schema(reference.read_values("group:\n  # -- a meaning\n  leaf: null\n"))


def test_meaning_and_narrowing_are_read_from_the_comment() -> None:
    (value,) = reference.read_values('a:\n  # -- First line,\n  # second line.\n  # @schema {"minimum": 1}\n  b: 2\n')
    assert (value.name, value.default, value.meaning) == ("a.b", 2, "First line, second line.")
    assert reference.schema([value])["properties"]["a"]["properties"]["b"]["minimum"] == 1


def test_every_setting_of_the_service_can_be_set_or_is_the_charts_business() -> None:
    settable = set(reference.settings_schema()["properties"])
    assert settable | reference.OWNED == set(Settings.model_fields)
    assert not settable & reference.OWNED
