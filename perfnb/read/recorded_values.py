"""Values that a training told of its steps: the table training for those that it has a column for, metrics for the rest."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.read.recorded_columns import Bools, Columns, Ints, floats, texts
from perfnb.read.recorded_steps import Told, microseconds
from perfnb.record.late_values import BACKWARD_LOSS
from perfnb.schemas import MAYBE, NULLABLE, SCHEMAS

_OF_TRAINING: Final = tuple(name for name in SCHEMAS["training"] if name not in ("rank", "step", "time_us"))
_TELLING: Final = ("loss", "gradient_norm")  # a training whose loss or gradient is not finite has diverged


def values_of(columns: Columns, origin_ns: int, told: Told, *, is_loss_unclear: bool = False) -> None:
    """Put the tables training and metrics of the rows of `values` among a rank's frames, without the rank."""
    step, has_step = columns.integers("step")
    time, has_time = columns.integers("time_ns")
    value, given = floats(columns.values("value"))
    odd = int((~given).sum()) - columns.values("value").count(None)
    if odd:
        told.notes.append(f"{text.count(odd, 'value')} left out: no number")
    rows = pd.DataFrame(
        {
            "step": pd.arrays.IntegerArray(step, ~has_step),
            "time_us": np.where(has_time, microseconds(time, origin_ns), np.nan),
            "name": texts(columns.values("name")),
            "value": value,
        }
    )
    in_training = rows["name"].isin(_OF_TRAINING).to_numpy() & has_step
    told.frames["training"] = _training(rows[in_training & given], told)
    rest = rows[~in_training & given].reset_index(drop=True)
    if not is_loss_unclear:
        _take_loss(rest, told)
    told.frames["metrics"] = rest.assign(name=rest["name"].cat.remove_unused_categories())


def _take_loss(rest: pd.DataFrame, told: Told) -> None:
    """Take for the loss what backward() was called on, where the training told no loss of its own."""
    training = told.frames["training"]
    seen = rest[rest["name"].eq(BACKWARD_LOSS) & rest["step"].notna()]
    if seen.empty or training["loss"].notna().any():
        return
    loss = seen.drop_duplicates("step", keep="last").set_index("step")["value"]
    taken = training["step"].map(loss)
    known = taken.notna() | training["step"].isin(loss.index)
    finite = training["finite"].fillna(value=True) & np.isfinite(taken.to_numpy())
    told.frames["training"] = training.assign(loss=taken, finite=training["finite"].mask(known, finite))
    told.notes.append(
        "the loss is what backward() was called on, the sum over a step's micro-batches: recorder.log(loss=...) gives another"
    )


def _training(rows: pd.DataFrame, told: Told) -> pd.DataFrame:
    """One row per step; the last value of each name counts."""
    rows = rows.assign(step=rows["step"].astype("int64"), name=rows["name"].astype(object))
    repeated = rows.duplicated(["step", "name"], keep="last")
    if repeated.any():
        _say_overlap(rows, repeated.to_numpy(), told)
    rows = rows[~repeated]
    wide = rows.set_index(["step", "name"])["value"].unstack("name").sort_index()  # noqa: PD010 - pivot_table loses NaN
    telling = rows[rows["name"].isin(_TELLING)]
    finite = np.isfinite(telling["value"]).astype("float64").groupby(telling["step"]).min().reindex(wide.index)
    time = rows.groupby("step")["time_us"].max()
    made: dict[str, Any] = {"step": wide.index.to_numpy(), "time_us": time.reindex(wide.index).to_numpy()}
    for name in _OF_TRAINING:
        column = wide[name] if name in wide.columns else pd.Series(np.nan, index=wide.index)
        if name == "finite":
            column = column.fillna(finite)
        made[name] = _typed(column, SCHEMAS["training"][name])
    return pd.DataFrame(made).reset_index(drop=True)


def _typed(column: pd.Series, dtype: str) -> object:
    values = column.to_numpy(dtype=np.float64)
    known: Bools = np.isfinite(values)
    if dtype == MAYBE:
        return pd.arrays.BooleanArray(np.where(known, values, 0.0) != 0.0, ~known)
    if dtype == NULLABLE:
        return pd.arrays.IntegerArray(
            np.rint(np.where(known, np.clip(values, -(2.0**62), 2.0**62), 0.0)).astype(np.int64), ~known
        )
    return values


def _say_overlap(rows: pd.DataFrame, repeated: Bools, told: Told) -> None:
    """Note the steps that were told of twice because the training went back, as one does that resumes from a checkpoint."""
    earlier = rows.groupby("name")["step"].cummax().groupby(rows["name"]).shift(1)
    back = (rows["step"] < earlier).to_numpy()
    if not back.any():  # a value was logged twice in its step
        return
    overlap = np.unique(rows["step"].to_numpy()[repeated])
    told.notes.append(
        f"the training went back to step {int(rows['step'].to_numpy()[back][0])}: steps {_few(overlap)} were told of twice, "
        "the later values count"
    )


def _few(steps: Ints) -> str:
    whole = text.numbers(int(step) for step in steps)
    return text.clean(whole, 200)
