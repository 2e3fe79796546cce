"""The index of the litmus corpus in ``litmus/README.md``: ``python tools/litmus_index.py`` writes it anew."""

from pathlib import Path

from tlbcore.litmus_check import SUFFIX, load

FOLDER = Path(__file__).parents[1] / "litmus"
PAGE = FOLDER / "README.md"
HEADING = "## Index\n\n"


def index() -> str:
    """The table: a row for each file."""
    rows = ["| file | kernel | programs | exists | result |", "|---|---|---|---|---|"]
    for path in sorted(FOLDER.rglob(f"*{SUFFIX}")):
        litmus = load(path)
        programs = [call.operation for call in litmus.threads]
        programs += [f"{count} {what}" for count, what in ((litmus.faults, "faults"), (litmus.users, "user")) if count]
        cells = [
            f"[{litmus.name}]({path.relative_to(FOLDER)})",
            litmus.changed_kernel,
            ", ".join(programs),
            " ".join(litmus.exists),
            litmus.result,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "".join(f"{row}\n" for row in rows)


def page() -> str:
    """The page with the index as it is now."""
    head, heading, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    return head + heading + index()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
