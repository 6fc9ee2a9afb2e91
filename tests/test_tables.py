"""Schemas: what conform gives, and what it refuses."""

from __future__ import annotations

import pandas as pd
import pytest

from perfnb.errors import TableError
from perfnb.tables import SCHEMAS, conform, empty, table_from_text


@pytest.mark.parametrize("table", list(SCHEMAS))
def test_an_empty_table_conforms_to_itself(table: str) -> None:
    made = conform(table, empty(table))

    assert made.empty
    assert {name: str(dtype) for name, dtype in made.dtypes.items()} == dict(SCHEMAS[table])


def test_a_missing_measurement_becomes_missing_never_zero() -> None:
    phases = table_from_text("phases", "rank step phase wall_us\n0 1 data 10")

    assert phases["cpu_us"].isna().all()


def test_a_missing_start_is_refused_by_name() -> None:
    with pytest.raises(TableError, match="steps lacks the column 'start_us'"):
        conform("steps", pd.DataFrame({"rank": [0], "step": [0], "duration_us": [1.0]}))


def test_text_where_a_number_belongs_is_refused_by_name() -> None:
    frame = pd.DataFrame({"rank": ["zero"], "step": [0], "start_us": [0.0], "duration_us": [1.0]})

    with pytest.raises(TableError, match="column 'rank' of table steps"):
        conform("steps", frame)


def test_an_unknown_table_and_an_unknown_column_are_refused() -> None:
    with pytest.raises(TableError, match="no table named 'kernels'"):
        conform("kernels", pd.DataFrame())
    with pytest.raises(TableError, match="no column colour"):
        table_from_text("steps", "rank step start_us duration_us colour\n0 0 0 1 red")
