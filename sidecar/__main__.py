"""`python -m sidecar` and the `sidecar` command."""

import sys

from sidecar import cli

READ_CHARTS = frozenset({"score", "models", "deid"})
"""Commands that read files of others and import much that may speak; `serve` and `demo` see to their log themselves."""


def main() -> None:
    """Run a command. What libraries and the interpreter say meanwhile may quote a chart: only its kind is logged."""
    if READ_CHARTS.intersection(sys.argv[1:2]):
        from sidecar import log  # noqa: PLC0415 -- a third of a second that help and status must not pay

        log.configure("warning")
    cli.main()


if __name__ == "__main__":
    main()
