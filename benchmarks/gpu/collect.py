"""Command line that makes a sample of a campaign: ``python -m benchmarks.gpu.collect RESULTS data/samples``.

RESULTS is the campaign's folder, or the one with its archives. It becomes SAMPLES/gpu_<card>/: `<stage>.jsonl.gz` (a line per
unit), the stages' files, `expected.csv`, `scores.csv` and `provenance.json`. A rehearsal is refused.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import results
from benchmarks.gpu.names import without_paths
from benchmarks.samples import limits

MOST_BYTES: Final = 3_000_000
"""Of one card's sample; traces of pairs that find no room are left out and named in its provenance."""

LEAST_SHARE: Final = 0.08
"""A fault that costs less is none that a detector has to find (the truth of a positive, shared/design, detectors 6.1)."""

_LEAST_TOLERANCE: Final = 0.02  # that of the samples recorded on a CPU


class CollectError(Exception):
    """Results that make no sample."""


def collect(found: Path, samples: Path, *, most_bytes: int = MOST_BYTES, accept_rehearsal: bool = False) -> Path:
    """Write the sample of a campaign.

    Parameters
    ----------
    found
        Folder of the campaign, loose or packed.
    samples
        Folder of the samples.
    most_bytes
        Of the new sample.
    accept_rehearsal
        For the tests of the code that replays samples: nothing of a rehearsal is a measurement.

    Returns
    -------
    Path
        The sample's folder.

    Raises
    ------
    CollectError
        If the results are those of a rehearsal, of no GPU, or of none at all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        loose = results.unpack(found, Path(scratch) / "campaign")
        if not (loose / results.CAMPAIGN).exists():
            message = f"{found} holds no {results.CAMPAIGN}: name the folder of a campaign, or the one with its archives"
            raise CollectError(message)
        told = json.loads((loose / results.CAMPAIGN).read_text(encoding="utf-8"))
        if told["rehearsed"] and not accept_rehearsal:
            message = f"{found} is a rehearsal: its numbers are of tiny models, and no measurement of a GPU"
            raise CollectError(message)
        lines = list(results.lines(loose))
        environments = [line["result"]["environment"] for line in lines if line.get("result", {}).get("environment")]
        card = _card(environments, told)
        target = samples / f"gpu_{card}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        left_out = _copy_files(loose, lines, target, most_bytes)
        for stage in sorted({line["stage"] for line in lines}):
            _write_lines(target / f"{stage}.jsonl.gz", (line for line in lines if line["stage"] == stage))
        _write_expected(target / "expected.csv", lines)
        _write_provenance(target, told, lines, environments, left_out)
    return target


def _card(environments: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> str:
    """Name of the card, as part of a folder's name.

    Raises
    ------
    CollectError
        If no unit ran on a GPU, or two cards were used.
    """
    cards = {each["device"] for each in environments} - ({"cpu"} if not told["rehearsed"] else set())
    if len(cards) != 1:
        message = f"the results are of {len(cards)} cards ({', '.join(sorted(cards)) or 'none'}): a sample is of one"
        raise CollectError(message)
    return re.sub(r"[^a-z0-9]+", "_", next(iter(cards)).lower()).strip("_")


def _copy_files(loose: Path, lines: Sequence[dict[str, Any]], target: Path, most_bytes: int) -> list[str]:
    """Copy the stages' files; of the pairs each trace of a config once, those before the change first."""
    total = sum(path.stat().st_size for path in loose.glob(f"*/{results.LINES}")) // 3  # gzipped later
    for path in sorted(loose.rglob("*")):
        place = path.relative_to(loose)
        if not path.is_file() or len(place.parts) < 2 or place.parts[0] in ("pairs", "packed") or _is_scaffold(place):  # noqa: PLR2004 - stage and file
            continue
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / place)
        total += path.stat().st_size
    left_out: list[str] = []
    first_of: dict[str, str] = {}
    for side, line in [(side, line) for side in ("before", "after") for line in _pairs(lines)]:
        trace = line["result"]["traces"][side]
        if not trace["file"]:
            continue
        before = line["result"]["before"]
        config = json.dumps(before if side == "before" else before | line["result"]["changes"], sort_keys=True)
        if config in first_of:
            trace["file"] = first_of[config]
            continue
        source = loose / "pairs" / trace["file"]
        if not source.exists() or total + source.stat().st_size > most_bytes:
            left_out.append(f"pairs/{trace['file']}")
            trace |= {"file": None, "reason": "no room in the sample"}
            continue
        (target / "pairs").mkdir(exist_ok=True)
        shutil.copyfile(source, target / "pairs" / trace["file"])
        total += source.stat().st_size
        first_of[config] = trace["file"]
    return left_out


def _is_scaffold(place: Path) -> bool:
    return place.name == results.LINES or "logs" in place.parts or any(part.startswith(".") for part in place.parts)


def _pairs(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["stage"] == "pairs" and line["state"] == "ok"]


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(gzip.compress(without_paths(text).encode(), 9, mtime=0))


def _write_expected(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """One row per fault that costs enough of the step, in the columns of data/samples/expected.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["run", "detector", "severity", "tolerance"])
        for line in lines:
            if line["stage"] != "faults" or line["state"] != "ok" or not line["result"]["detector"]:
                continue
            truth = line["result"]["truth"]
            if truth["of"] == "step" and truth["share"] is not None and truth["share"] >= LEAST_SHARE:
                tolerance = max(_LEAST_TOLERANCE, _spread(line["result"]["times"]))
                row = [f"faults/{line['unit']}/faulty", line["result"]["detector"], f"{truth['share']:.4f}", f"{tolerance:.4f}"]
                table.writerow(row)


def _spread(times: Mapping[str, Mapping[str, Any]]) -> float:
    """How much the share differs between the turns."""
    pairs = zip(times["clean"]["wall_us"], times["faulty"]["wall_us"], strict=False)
    shares = [1.0 - clean / faulty for clean, faulty in pairs]
    return max(shares) - min(shares)


def _write_provenance(
    target: Path,
    told: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    environments: Sequence[Mapping[str, Any]],
    left_out: Sequence[str],
) -> None:
    states: dict[str, dict[str, int]] = {}
    for line in lines:
        own = states.setdefault(line["stage"], {})
        own[line["state"]] = own.get(line["state"], 0) + 1
    files = {path.relative_to(target).as_posix(): path.stat().st_size for path in sorted(target.rglob("*")) if path.is_file()}
    drivers = [line["result"]["driver"] for line in lines if line.get("result", {}).get("driver")]
    provenance = {
        **told,
        "machine": environments[0] if environments else {},
        "driver": drivers[0] if drivers else {},
        "units": states,
        "left_out": list(left_out),
        "bytes": sum(files.values()),
        "files": files,
    }
    (target / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    """Make the sample and say how large all samples are; 1 where there is none to make."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.collect", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of a campaign, or of its archives")
    parser.add_argument("samples", type=Path, metavar="SAMPLES", help="folder of the samples: data/samples")
    parser.add_argument("--most-bytes", type=int, default=MOST_BYTES, help="of the new sample")
    chosen = parser.parse_args(words)
    try:
        target = collect(chosen.results, chosen.samples, most_bytes=chosen.most_bytes)
    except CollectError as error:
        print(f"not collected: {error}", file=sys.stderr)
        return 1
    from benchmarks.gpu import replay  # noqa: PLC0415 - needs perfnb, which refusing does not

    replay.write_scores(replay.Sample(target))
    own = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target.name}: {own:,} bytes; all samples: {sum(limits.sizes(chosen.samples).values()):,} bytes")
    for sentence in limits.exceeded(chosen.samples):
        print(f"{sentence} by benchmarks/samples/limits.py: raise it to what was measured, or collect with --most-bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
