"""perfnb's values by their faces: registered with IPython by name, so that nothing is loaded before the first is shown."""

from __future__ import annotations

from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

SHOWN: Final = (
    ("perfnb.findings", "Diagnosis"),
    ("perfnb.findings", "Finding"),
    ("perfnb.fix", "Suggestion"),
    ("perfnb.prediction", "Prediction"),
    ("perfnb.prediction", "Unknown"),
    ("perfnb.run", "Run"),
    ("perfnb.verify", "Outcome"),
)
"""Module and name of each type that has a face of its own."""


def register_display(shell: InteractiveShell) -> None:
    """Show Diagnosis, Finding, Suggestion, Prediction, Unknown, Run and Outcome by their faces, alone and within a list.

    Types are named, not imported: nothing is loaded before the first value is shown.

    Parameters
    ----------
    shell
        The running IPython.
    """
    plain, bundles = _formatters(shell)
    for module, name in SHOWN:
        plain.for_type_by_name(module, name, _pretty)
        bundles.for_type_by_name(module, name, _bundle)


def forget_display(shell: InteractiveShell) -> None:
    """Take back what `register_display` did.

    Parameters
    ----------
    shell
        The running IPython.
    """
    for module, name in SHOWN:
        for formatter in _formatters(shell):
            formatter.pop(f"{module}.{name}", None)


def _formatters(shell: InteractiveShell) -> tuple[Any, Any]:
    """Those of plain text, which also shows what stands in a list, and of whole bundles."""
    formatter: Any = shell.display_formatter
    return formatter.formatters["text/plain"], formatter.mimebundle_formatter


def _bundle(value: Any) -> dict[str, str]:
    from perfnb.report import face  # noqa: PLC0415 - loading the extension must stay cheap

    return face(value).mimebundle()


def _pretty(value: Any, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG001 - the signature that IPython calls
    from perfnb.report import face  # noqa: PLC0415 - loading the extension must stay cheap

    printer.text(face(value).plain)
