"""Numbers and tables as report.md shows them."""


def number(value, digits=2):
    return "n/a" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def table_text(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"
