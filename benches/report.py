#!/usr/bin/env python3
"""The table and the picture of a file that scripts/bench left in benches/results/.

report.py FILE.tsv [FILE.svg]: prints the rows with goal, figure and verdict, and draws how far each
figure is from its goal.
"""
import statistics
import sys
from html import escape
from math import log2

UNITS = {"ms": 1000, "MiB": 1024, "bytes": 1}


def read(path):
    about, rows, values, absent = {}, [], {}, set()
    with open(path) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == "# row":
                rows.append(fields[2:7])
            elif line.startswith("# "):
                about[fields[0][2:]] = fields[1]
            elif fields[2] == "absent":
                absent.add(fields[0])
            elif fields[0] != "thing":
                values.setdefault(fields[0], []).append(int(fields[2]))
    return about, rows, {thing: statistics.median(found) for thing, found in values.items()}, absent


def duration(micros):
    if micros >= 1e6:
        return f"{micros / 1e6:.2f} s"
    if micros < 100:
        return f"{micros:.0f} us"
    return f"{micros / 1e3:.1f} ms" if micros < 1e4 else f"{micros / 1e3:.0f} ms"


def judged(row, values, absent):
    """What a row says: goal, both values, figure, and how much better than the goal it is."""
    goal, ours, theirs, work, against = row
    words = goal.split()
    if ours in absent or theirs in absent:
        return [work, against, goal, "", "", "", "not there", None]
    if ours not in values or (theirs != "-" and theirs not in values):
        return None
    own = values[ours]
    if words[0] == "below":
        own /= UNITS[words[2]]
        limit = float(words[1])
        better = (limit + 1) / (own + 1) if limit == 0 else limit / max(own, 1e-9)
        figure = f"{own:.3g} {words[2]}" if own < 1000 else f"{own:.0f} {words[2]}"
        return [work, "", f"<= {words[1]} {words[2]}", "", "", figure, own <= limit, better]
    other = values[theirs]
    times = [duration(other), duration(own)]
    if words[0] == "faster" or words[0] == "none":
        ratio = other / own
        figure = f"{ratio:.2f} times as fast"
        if words[0] == "none":
            return [work, against, "", *times, figure, "", None]
        return [work, against, f">= {words[1]}", *times, figure,
                ratio >= float(words[1]), ratio / float(words[1])]
    ratio = own / other
    figure = f"{ratio:.2f} times as long"
    return [work, against, f"<= {words[1]}", *times, figure,
            ratio <= float(words[1]), float(words[1]) / ratio]


def table(about, lines):
    quick = " Quick: small data, few rounds." if about.get("quick") == "1" else ""
    print(f"{about['stratafs']}, Docker {about['docker']}, Linux {about['kernel']}, "
          f"{about['cores']} cores, {about['date']}; medians of one run.{quick}\n")
    print("| what | beside | goal | takes | stratafs | that is | |")
    print("|---|---|---:|---:|---:|---|---|")
    for *cells, verdict, _ in lines:
        word = {True: "met", False: "MISSED"}.get(verdict, verdict)
        print("| " + " | ".join([*cells, word]) + " |")


def picture(about, lines):
    """Bars from the goal: to the right as much better as they are long, to the left worse."""
    lines = [line for line in lines if line[-1] is not None]
    name, middle, width, step, top = 470, 640, 1000, 20, 56
    height = top + step * len(lines) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15">stratafs, by its goals ({escape(about["date"][:10])}, '
        f'{about["cores"]} cores)</text>',
        f'<text x="{middle}" y="44" text-anchor="middle" fill="#555">goal</text>',
        f'<text x="{middle + 8}" y="44" dx="20" fill="#555">better</text>',
        f'<text x="{middle - 8}" y="44" dx="-20" text-anchor="end" fill="#555">worse</text>',
    ]
    for number, (work, against, goal, _, _, figure, verdict, better) in enumerate(lines):
        y = top + step * number
        # A factor of two is 60 long; a bar stops at four.
        length = max(-2, min(2, log2(max(better, 1e-9)))) * 60
        colour = "#3a7d44" if verdict else "#b3432b"
        label = f"{work} / {against}" if against else work
        out += [
            f'<text x="{name}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{middle + min(0, length):.1f}" y="{y + 2}" width="{abs(length):.1f}" '
            f'height="{step - 6}" fill="{colour}"/>',
            f'<text x="{middle + 130}" y="{y + 13}">{escape(figure)} (goal {escape(goal)})</text>',
        ]
    out += [f'<line x1="{middle}" y1="50" x2="{middle}" y2="{height - 8}" stroke="#222"/>', "</svg>"]
    return "\n".join(out) + "\n"


def main():
    about, rows, values, absent = read(sys.argv[1])
    lines = [line for row in rows if (line := judged(row, values, absent))]
    table(about, lines)
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            file.write(picture(about, lines))


main()
