"""Writes the pages of docs/ that are rendered from the code; with --check only says whether they are as the code gives them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from perfnb.catalogue import detectors, fixes
from perfnb.detector import Detector
from perfnb.fix import Fix

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_HEAD: Final = "<!-- Rendered by scripts/render_docs.py from the code: edit the files in perfnb/, then run it. -->\n\n"


def detectors_page() -> str:
    """Page on every detector: what it is, when it fires, what proves it."""
    rows = ["| detector | kind | fires from | claims | answered by |", "|---|---|---|---|---|"]
    for each in detectors():
        links = [f"[{fix.name}](fixes.md#{fix.name})" for fix in fixes() if each.name in fix.answers]
        claims = ", ".join(f"`{part}`" for part in each.claims) or "excess of the critical rank"
        name = f"[{each.name}](#{each.name})"
        cells = (name, each.family, _threshold(each), claims, ", ".join(links) or "a person")
        rows.append(f"| {' | '.join(cells)} |")
    intro = (
        "# Detectors\n\nA finding needs its share of step time at or above the threshold and a low end of its interval (80 %) of "
        "at least 3 %. What stays below is listed as not limiting, with its number; what could not be looked at is listed with\n"
        "the reason.\n\n"
    )
    return _HEAD + intro + "\n".join(rows) + "\n" + "".join(map(_detector, detectors()))


def fixes_page() -> str:
    """Page on every fix: what it changes, when it applies, what to check first."""
    rows = ["| fix | knobs | answers |", "|---|---|---|"]
    for each in fixes():
        answers = ", ".join(f"[{name}](detectors.md#{name})" for name in each.answers)
        rows.append(f"| [{each.name}](#{each.name}) | {', '.join(f'`{knob}`' for knob in each.knobs)} | {answers} |")
    return _HEAD + "# Fixes\n\n" + "\n".join(rows) + "\n" + "".join(map(_fix, fixes()))


PAGES: Final[Mapping[str, Callable[[], str]]] = {"detectors.md": detectors_page, "fixes.md": fixes_page}


def main() -> int:
    """Write the pages, or with --check return 1 where one is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is not as the code gives it")
    stale = []
    check = parser.parse_args().check
    for name, page in PAGES.items():
        file = DOCS / name
        if check:
            stale += [] if file.is_file() and file.read_text(encoding="utf-8") == page() else [name]
        else:
            DOCS.mkdir(exist_ok=True)
            file.write_text(page(), encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}; run python scripts/render_docs.py", file=sys.stderr)
    return 1 if stale else 0


def _threshold(each: Detector) -> str:
    host = "" if each.flag_above_on_host is None else f" ({each.flag_above_on_host:.0%} on the host clock)"
    return f"{each.flag_above:.0%}{host}"


def _detector(each: Detector) -> str:
    cases = "\n".join(f"- {case.title}: {case.lost_share:.0%} of the step" for case in each.examples)
    recorded = f"\n\nNo recorded run shows it yet: {each.recorded_only_when}." if each.recorded_only_when else ""
    return (
        f"\n## {each.name}\n\n{each.doc}\n\n**Threshold.** {_threshold(each)}. Source: {each.source}.\n\n"
        f"**Not to be confused with** {', '.join(each.not_to_confuse_with)}: their examples leave it silent.\n\n"
        f"**Examples** (each is a test):\n\n{cases}{recorded}\n"
    )


def _fix(each: Fix) -> str:
    cases = "\n".join(
        f"- {case.title}: {'applies' if case.after is not None else 'does not apply (' + case.reason + ')'}"
        for case in each.examples
    )
    caution = f"\n\n**Check first.** {each.caution[:1].upper()}{each.caution[1:]}." if each.caution else ""
    why = f"{each.reason[:1].upper()}{each.reason[1:]}"
    return (
        f"\n## {each.name}\n\n{each.doc}\n\n**Why.** {why}. Source: {each.source}.{caution}\n\n"
        f"**Examples** (each is a test):\n\n{cases}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
