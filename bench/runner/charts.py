"""The charts, drawn by gnuplot: ratios of time and memory, latency, RSS over time, scaling."""

import os
import shutil
import subprocess

from report import Report
from statistic import mean_of_groups

COLOURS = {"poolmalloc": "#d00000", "system": "#555555", "jemalloc": "#0072b2", "mimalloc": "#009e73",
           "tcmalloc": "#e69f00", "tbbmalloc": "#cc79a7", "null": "#999999"}
SPARE = ("#56b4e9", "#882255", "#117733", "#999933", "#332288", "#aa4499", "#88ccee", "#661100")
POINTS = (7, 5, 9, 11, 13, 4, 6, 8, 10, 12)
FONT = "DejaVu Sans,12"


class Charts:
    def __init__(self, bench):
        self.bench, self.report = bench, Report(bench)
        self.results, self.subject = self.report.results, self.report.subject
        self.names = [a.name for a in bench.allocators if not a.measures_only]

    def colour(self, name):
        return COLOURS.get(name) or SPARE[self.names.index(name) % len(SPARE)]

    def width(self, name):
        return 3 if name == self.subject else 1.6

    def script(self, file, size, body):
        path = os.path.join(self.bench.arguments.out, file)
        return (f'set terminal svg size {size} font "{FONT}" background "white"\nset output "{path}"\n'
                f"set grid back lc rgb '#dddddd'\nset border lc rgb '#555555'\n{body}")

    # ---- ratios ----

    def ratio_points(self, cases, peer, metric):
        """`row ratio low high`; the rows count from the top."""
        for row, case in enumerate(cases):
            ratio = self.report.ratio(case, peer, metric)
            if ratio:
                yield f"{len(cases) - row} {ratio[0]:.4f} {ratio[1]:.4f} {ratio[2]:.4f}"

    def ratio_script(self, file, metric, title):
        cases = self.report.cases("workload") + self.report.cases("program")
        peers = [p for p in self.report.peers if any(self.ratio_points(cases, p, metric))]
        if not peers:
            return None
        blocks = "".join(f"$p{i} << EOD\n" + "\n".join(self.ratio_points(cases, p, metric)) + "\nEOD\n"
                         for i, p in enumerate(peers))
        ticks = ", ".join(f'"{c.name}" {len(cases) - i}' for i, c in enumerate(cases))
        plots = ", ".join(f'$p{i} using 2:($1+{0.12 * (i - (len(peers) - 1) / 2):.2f}) with points pt {POINTS[i % len(POINTS)]} ps 0.7 '
                          f'lc rgb "{self.colour(p)}" title "{p}"' for i, p in enumerate(peers))
        programs = len(self.report.cases("program"))
        return self.script(file, f"900,{140 + 22 * len(cases)}", f"""{blocks}
set title "{title}: {self.subject} ÷ peer" noenhanced
set xlabel "{self.subject} ÷ peer, logarithmic (left of 1: {self.subject} is ahead)" noenhanced
set logscale x 2
set xtics ("1/16" 0.0625, "1/8" 0.125, "1/4" 0.25, "1/2" 0.5, "0.7" 0.7071, "1" 1, "1.4" 1.4142, "2" 2, "4" 4, "8" 8, "16" 16)
set yrange [0.3:{len(cases) + 0.7}]
set ytics ({ticks}) noenhanced
set key outside top center horizontal noenhanced
set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb "#000000" back
{f'set arrow from graph 0, first {programs + 0.5} to graph 1, first {programs + 0.5} nohead dt 2 lc rgb "#555555"' if 0 < programs < len(cases) else ''}
plot {plots}
""")

    # ---- means ----

    def means_script(self, file):
        cases, programs = self.report.cases("workload"), self.report.cases("program")
        rows = {peer: [self.mean(c, peer, m) for c in (cases, programs) for m in ("time", "memory")]
                for peer in self.report.peers}
        known = [i for i in range(4) if any(cells[i] != "nan" for cells in rows.values())]
        if not known:
            return None
        blocks = "$m << EOD\n" + "\n".join(f'"{p}" ' + " ".join(cells) for p, cells in rows.items()) + "\nEOD\n"
        bars = (("workloads, CPU time", "#0072b2"), ("workloads, peak memory", "#56b4e9"),
                ("programs, CPU time", "#e69f00"), ("programs, peak memory", "#f0c674"))
        plots = ", ".join(f'$m using {i + 2}:xtic(1) lc rgb "{bars[i][1]}" title "{bars[i][0]}"' for i in known)
        return self.script(file, "900,460", f"""{blocks}
set title "{self.subject} against each peer: geometric means (below 1: {self.subject} is ahead)" noenhanced
set ylabel "{self.subject} ÷ peer" noenhanced
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set yrange [0:*]
set xtics noenhanced
set key outside bottom center horizontal
set arrow from graph 0, first 1 to graph 1, first 1 nohead lw 2 lc rgb "#000000" front
plot {plots}
""")

    def mean(self, cases, peer, metric):
        value = mean_of_groups(cases, lambda c: (self.report.ratio(c, peer, metric) or [None])[0])
        return "nan" if value is None else f"{value:.4f}"

    # ---- curves ----

    def curves(self, points, style=""):
        """Data blocks and plot clauses for every allocator that has points."""
        blocks, plots = "", []
        for i, name in enumerate(self.names):
            rows = points(name)
            if not rows:
                continue
            blocks += f"$c{i} << EOD\n" + "\n".join(rows) + "\nEOD\n"
            plots.append(f'$c{i} using 1:2 with {style or "lines"} lw {self.width(name)} '
                         f'{f"pt {POINTS[i % len(POINTS)]} ps 0.6" if style else ""} lc rgb "{self.colour(name)}" title "{name}"')
        return blocks, ", ".join(plots)

    def latency_rows(self, name, call):
        """`ns share-of-calls-that-take-longer`, from all repeats' histograms together."""
        counts = {}
        for run in self.results.all("latency", name):
            for value, count in run["printed"][f"{call}_ns"]["buckets"]:
                counts[round(max(value, 4) * 2)] = counts.get(round(max(value, 4) * 2), 0) + count
        left, total, rows = sum(counts.values()), sum(counts.values()), []
        for value in sorted(counts):
            left -= counts[value]
            rows.append(f"{value / 2} {max(left, 0.5) / total:.9f}")
        return rows

    def panels_script(self, file, size, title, common, panels):
        """Several plots side by side; the legend stands in the first."""
        if not any(plots for _, _, plots in panels):
            return None
        body = "".join(blocks.replace("$c", f"${chr(97 + i)}c") for i, (_, blocks, _) in enumerate(panels))
        body += f'set multiplot layout 1,{len(panels)} title "{title}" noenhanced\n{common}\n'
        for i, (name, _, plots) in enumerate(panels):
            if plots:
                body += f'set title "{name}" noenhanced\nplot {plots.replace("$c", f"${chr(97 + i)}c")}\nunset ylabel\n'
        return self.script(file, size, body + "unset multiplot\n")

    def latency_script(self, file):
        panels = [(call, *self.curves(lambda n, c=call: self.latency_rows(n, c))) for call in ("malloc", "free")]
        return self.panels_script(file, "1000,480", "Latency of single calls", """
set logscale xy
set xrange [8:1e6]
set yrange [1e-6:1]
set format y "10^{%T}"
set xtics ("10 ns" 10, "100 ns" 100, "1 µs" 1000, "10 µs" 1e4, "100 µs" 1e5, "1 ms" 1e6)
set xlabel "time of the call"
set ylabel "share of calls that take longer"
set key top right noenhanced""", panels)

    def phases_script(self, file):
        def rows(name, column):
            runs = self.results.all("phases", name)
            if not runs:
                return []
            printed = runs[0]["printed"]
            base = printed["base_rss_kib"] if column == 1 else 0
            return [f"{r[0]:.4f} {max(r[column] - base, 0) / 1024:.2f}" for r in printed["rss"]]
        blocks, plots = self.curves(lambda n: rows(n, 1))
        live = next((rows(n, 2) for n in self.names if rows(n, 2)), None)
        if not live:
            return None
        blocks += "$live << EOD\n" + "\n".join(live) + "\nEOD\n"
        return self.script(file, "900,480", f"""{blocks}
set title "phases: resident memory over time, start-up's taken off"
set xlabel "seconds"
set ylabel "MiB"
set yrange [0:*]
set key outside right center noenhanced
plot $live using 1:2 with filledcurves y1=0 fs transparent solid 0.25 noborder lc rgb "#777777" title "live bytes", {plots}
""")

    def scaling_rows(self, name, workload):
        rows = []
        for case in self.report.cases("scaling"):
            _, which, threads = case.name.split("/")
            runs = self.results.all(case.name, name)
            if which == workload and runs:
                rates = sorted(r["printed"]["operations_per_second"] for r in runs)
                rows.append(f"{threads} {rates[len(rates) // 2] / 1e6:.3f}")
        return rows

    def scaling_script(self, file):
        panels = [(w, *self.curves(lambda n, w=w: self.scaling_rows(n, w), "linespoints")) for w in ("churn", "tree")]
        return self.panels_script(file, "1000,520", f"Scaling over threads ({os.cpu_count()} processors)", """
set logscale x 2
set xrange [0.9:70]
set yrange [0:*]
set xtics (1, 2, 4, 8, 16, 32, 64)
set xlabel "threads"
set ylabel "million pairs per second"
set bmargin 7
set key outside bottom center horizontal maxrows 2 noenhanced""", panels)


def chart_draw(bench, file, script):
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, timeout=60)
    if done.returncode:
        bench.missing[file] = "gnuplot: " + (done.stderr.strip().splitlines() or ["failed"])[-1]
    return done.returncode == 0


def charts_draw(bench):
    """Draws those charts that have data; returns their names."""
    if not shutil.which("gnuplot"):
        bench.missing["charts"] = "gnuplot is not installed (package gnuplot-nox)"
        return []
    c = Charts(bench)
    scripts = {"means.svg": c.means_script("means.svg"),
               "time.svg": c.ratio_script("time.svg", "time", "CPU time"),
               "memory.svg": c.ratio_script("memory.svg", "memory", "Peak memory"),
               "latency.svg": c.latency_script("latency.svg"),
               "phases.svg": c.phases_script("phases.svg"),
               "scaling.svg": c.scaling_script("scaling.svg")}
    return [file for file, script in scripts.items() if script and chart_draw(bench, file, script)]
