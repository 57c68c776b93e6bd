"""report.md: what was compared, the goals, every ratio, and whatever did not run."""

import os
from statistics import median

import callgrind
import count
from markdown import number, table_text
from pools import PoolsReport
from statistic import Results, mean_geometric, mean_of_groups

PAIRS = ("pair/16", "pair/64", "pair/256", "pair/1024")


def ratio_text(ratio):
    return "n/a" if ratio is None else f"{ratio[0]:.2f}"


def interval_text(ratio):
    return "n/a" if ratio is None else f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]"


class Report:
    def __init__(self, bench):
        self.bench, self.results = bench, Results(bench)
        self.subject = bench.arguments.subject
        self.peers = [a.name for a in bench.allocators if not a.measures_only and a.name != self.subject]
        self.present = any(a.name == self.subject for a in bench.allocators)

    def cases(self, kind):
        return [c for c in self.bench.cases if c.kind == kind]

    def ratio(self, case, other, metric):
        return self.results.ratio(case.name, self.subject, other, metric)

    def best_ratio(self, case, metric):
        best = self.results.best(case.name, [p for p in self.peers if p not in case.not_rivals], metric)
        return best, best and self.ratio(case, best, metric)

    def mark(self, ratio):
        """behind: beyond the noise; behind?: the interval holds 1, or there are too few runs to tell."""
        if ratio is None or ratio[0] <= 1:
            return ""
        return "**behind**" if ratio[1] > 1 and ratio[3] > 2 else "behind?"

    # ---- tables of ratios ----

    def ratio_row(self, case, metric):
        best, ratio = self.best_ratio(case, metric)
        cells = [ratio_text(self.ratio(case, peer, metric)) for peer in self.peers]
        null = [ratio_text(self.ratio(case, "null", metric))] if case.kind == "workload" else []
        return [case.name, *cells, f"{interval_text(ratio)} {best or ''}", *null, self.mark(ratio)]

    def mean_row(self, cases, metric):
        first = lambda ratio: ratio[0] if ratio else None
        cells = [number(mean_of_groups(cases, lambda c, p=p: first(self.ratio(c, p, metric)))) for p in self.peers]
        best = number(mean_of_groups(cases, lambda c: first(self.best_ratio(c, metric)[1])))
        null = [number(mean_of_groups(cases, lambda c: first(self.ratio(c, "null", metric))))] if cases[0].kind == "workload" else []
        return ["**geometric mean**", *(f"**{c}**" for c in (*cells, best, *null)), ""]

    def ratios(self, kind, metric):
        cases = self.cases(kind)
        if not cases:
            return "None chosen.\n"
        head = [kind, *self.peers, "best peer [95 %]", *(["null"] if kind == "workload" else []), ""]
        return table_text(head, [self.ratio_row(c, metric) for c in cases] + [self.mean_row(cases, metric)])

    # ---- absolute figures ----

    def costs(self):
        names = [a.name for a in self.bench.allocators if a.name != "empty"]
        rows = []
        for case in self.cases("workload") + self.cases("program"):
            values = [self.results.median(case.name, n, "time") for n in names]
            rows.append([case.name, *(number(v and v * 1e9, 1) for v in values)])
        return table_text(["CPU ns per operation", *names], rows)

    def distances(self):
        names = [n for n in [self.subject, *self.peers] if n]
        rows = [[c.name, *(ratio_text(self.results.ratio(c.name, n, "null", "time")) for n in names)]
                for c in self.cases("workload") if c.null]
        return table_text(["CPU time ÷ null", *names], rows)

    def latencies(self):
        rows = []
        for name in [a.name for a in self.bench.allocators if a.name != "empty"]:
            runs = [r["printed"] for r in self.results.all("latency", name)]
            for call in ("malloc", "free"):
                if runs:
                    rows.append([f"{name} {call}", *(number(median(r[f"{call}_ns"][q] for r in runs), 0)
                                                     for q in ("p50", "p99", "p99.9", "p99.99", "max"))])
        return table_text(["ns", "p50", "p99", "p99.9", "p99.99", "max"], rows) if rows else "Not run.\n"

    def start_us(self, name):
        """The lower tenth of single starts, which the workload prints."""
        return self.printed_median("startup", name, lambda p: p["start_us"])

    def starts(self):
        names = [a.name for a in self.bench.allocators]
        rows = [["a start, µs", *(number(self.start_us(n), 0) for n in names)],
                ["over preloading an empty object", *(number(self.goal_start(n), 0) for n in names)]]
        return table_text(["", *names], rows)

    def shares(self):
        rows = [[case.name, *self.share_row(totals)] for case in self.bench.cases
                if (totals := self.bench.results.get(f"share|{case.name}|poolmalloc|0"))]
        if not rows:
            return "n/a: poolmalloc did not run, or wrote no statistics.\n"
        return table_text(["", "served by pools", "forwarded", "remote frees", "messages"], rows)

    @staticmethod
    def share_row(result):
        totals = result["totals"]
        forwarded, pooled = totals.get("forwarded_calls"), totals.get("pool_calls")
        if pooled is None and forwarded is not None and result.get("allocations"):
            pooled = max(result["allocations"] - forwarded, 0)
        share = pooled / (pooled + forwarded) if pooled is not None and pooled + forwarded else None
        text = "n/a" if share is None else f"{share:.1%}" + (" **low**" if share < 0.5 else "")
        return [text, *(totals.get(k, "n/a") for k in ("forwarded_calls", "remote_frees", "remote_messages"))]

    def instructions(self):
        names = [a.name for a in self.bench.allocators if a.name != "empty"]
        rows = [[pattern, *(number(self.instructions_of(pattern, n), 1) for n in names), number(self.instructions_ratio(pattern))]
                for pattern in callgrind.PATTERNS]
        if all(cell == "n/a" for row in rows for cell in row[1:]):
            return "Not counted (a full run counts, or `--callgrind`).\n"
        return table_text(["instructions per operation", *names, f"{self.subject} ÷ best peer"], rows)

    def instructions_of(self, pattern, name):
        return self.bench.results.get(f"callgrind|{pattern}|{name}|0", {}).get("instructions")

    def instructions_ratio(self, pattern):
        """The C library grows a block in place, where it lies between others of all sizes: no rival there."""
        peers = [p for p in self.peers if not (pattern == "realloc_growth" and p == "system")]
        rivals = [n for p in peers if (n := self.instructions_of(pattern, p))]
        ours = self.instructions_of(pattern, self.subject)
        return ours / min(rivals) if ours and rivals else None

    def problems(self):
        lines = [f"* missing: {name}: {why}" for name, why in self.bench.missing.items()]
        lines += [f"* {case} under {allocator}: {why}" for (case, allocator), why in sorted(self.bench.failed.items())]
        return "\n".join(lines or ["None."]) + "\n"

    def traffic(self):
        """{workload: what was counted of it}"""
        return {c.name: r for c in self.bench.cases if (r := self.bench.results.get(f"count|{c.name}|poolmalloc|0"))}

    # ---- goals ----

    def throughput(self, case, name):
        """Of the best run: wall time suffers from whatever else this machine does."""
        runs = self.results.all(case, name)
        return max(r["operations"] / r["printed"]["seconds"] for r in runs) if runs else None

    def throughput_ratio(self, above, below, name):
        above, below = self.throughput(above, name), self.throughput(below, name)
        return above / below if above and below else None

    def goal_throughput(self, case):
        """Blocks a second ÷ the best peer's."""
        rivals = [t for t in (self.throughput(case, p) for p in self.peers) if t]
        ours = self.throughput(case, self.subject)
        return ours / max(rivals) if ours and rivals else None

    def goal_blocks_a_message(self, _name):
        totals = self.bench.results.get("share|many_producers/32|poolmalloc|0", {}).get("totals", {})
        return totals["remote_frees"] / totals["remote_messages"] if totals.get("remote_messages") else None

    def goal_many(self, name):
        """ns a free of 32 threads' blocks in turn, in parts of that of 8 threads'."""
        many, few = (self.printed_median(f"many_producers/{n}", name, lambda p: p["free_ns"]) for n in (32, 8))
        return many / few if many and few else None

    def goal_instructions(self, _name):
        ratios = [r for r in map(self.instructions_ratio, callgrind.PATTERNS) if r]
        return max(ratios) if ratios else None

    def goal_locks(self, _name):
        rows = self.traffic()
        return max(map(count.shared_locks, rows.values())) if rows else None

    def printed_median(self, case, name, value):
        values = [value(r["printed"]) for r in self.results.all(case, name)]
        return median(values) if values else None

    def goal_mean(self, kind, metric):
        return mean_of_groups(self.cases(kind), lambda c: (self.best_ratio(c, metric)[1] or [None])[0])

    def goal_start(self, name):
        return self.printed_median("startup_over_empty", name, lambda p: p["start_us"] - p["empty_us"])

    def goal_twins(self, workload):
        """Two threads' throughput in parts of two processes', run by run."""
        def figure(name):
            threads, processes = (self.results.runs.get((f"{case}/{workload}", name), {}) for case in ("two_threads", "two_processes"))
            ratios = [processes[i]["wall_s"] / threads[i]["printed"]["seconds"] for i in threads if i in processes]
            return median(ratios) if ratios else None
        return figure

    def goal_start_rank(self, _name):
        """Of preloaded ones: the C library alone has nothing to preload."""
        times = {n: self.start_us(n) for n in [self.subject, *self.peers] if n != "system"}
        rivals = [t for n, t in times.items() if t and n != self.subject]
        return times[self.subject] / min(rivals) if rivals and times.get(self.subject) else None

    def goal_messages(self, _name):
        """Each message is at least one atomic operation on another thread's line."""
        totals = self.bench.results.get("share|producer_consumer/1:1|poolmalloc|0", {}).get("totals", {})
        return 16 * totals["remote_messages"] / totals["remote_frees"] if totals.get("remote_frees") else None

    def goal_pair(self, name):
        return mean_geometric([(self.results.ratio(n, name, "null", "time") or [None])[0] for n in PAIRS])

    def goal_beyond(self, name):
        ratio = self.results.ratio("mixed_size/beyond", name, "system", "time")
        return ratio and ratio[0]

    def goal_settled(self, name):
        return self.printed_median("phases", name, lambda p: (p["rss"][-1][1] - p["base_rss_kib"]) / p["rss"][-1][2])

    def goal_idle(self, variant):
        return lambda name: self.printed_median(f"idle_threads/{variant}", name, lambda p: p["idle_thread_kib"])

    def behind_count(self):
        marks = [self.mark(self.best_ratio(c, "time")[1]) for c in self.cases("workload")]
        return sum(m == "**behind**" for m in marks) if marks and self.present else None

    def goals_single(self):
        """Goals that every allocator has a figure for: (text, figure of an allocator, limit's sign, limit)."""
        over = lambda above, below: lambda name: self.throughput_ratio(above, below, name)
        return [("`pair` 16 to 1024 B ÷ null", self.goal_pair, "≤", 1.25),
                ("start-up over preloading an empty object, µs", self.goal_start, "≤", 40),
                ("two threads ÷ two processes, `churn`", self.goal_twins("churn"), "≥", 0.95),
                ("two threads ÷ two processes, `tree`", self.goal_twins("tree"), "≥", 0.95),
                ("64 threads ÷ 2 threads, `churn`", over("scaling/churn/64", "scaling/churn/2"), "≥", 0.90),
                ("64 threads ÷ 2 threads, `tree`", over("scaling/tree/64", "scaling/tree/2"), "≥", 0.90),
                ("a sleeping thread that made a few allocations, KiB", self.goal_idle("few"), "≤", 64),
                ("a sleeping thread that filled every bin, KiB", self.goal_idle("every"), "≤", 600),
                ("`phases`: settled RSS ÷ live bytes", self.goal_settled, "≤", 1.20),
                ("`many_producers`: ns a free of 32 threads' blocks ÷ of 8 threads'", self.goal_many, "≤", 1.2),
                ("beyond the pools: CPU time ÷ the C library's", self.goal_beyond, "≤", 1.03)]

    def goals_against_peers(self):
        mean = lambda kind, metric: lambda _name: self.goal_mean(kind, metric)
        return [("workloads, CPU time ÷ best peer on each, geometric mean", mean("workload", "time"), "≤", 0.85),
                ("workloads, peak memory ÷ leanest peer on each, geometric mean", mean("workload", "memory"), "≤", 0.90),
                ("workloads behind their best peer beyond the noise", lambda _name: self.behind_count(), "≤", 0),
                ("programs, CPU time ÷ best peer on each, geometric mean", mean("program", "time"), "≤", 1.00),
                ("programs, peak memory ÷ leanest peer on each, geometric mean", mean("program", "memory"), "≤", 1.00),
                ("start-up ÷ best peer's", self.goal_start_rank, "≤", 1.00),
                ("instructions ÷ best peer, worst of the patterns", self.goal_instructions, "≤", 1.00),
                *((f"`handover/{n}`, blocks a second ÷ best peer's", lambda _name, n=n: self.goal_throughput(f"handover/{n}"), "≥", 1.00)
                  for n in (2, 8)),
                ("`many_producers/32`, blocks a message", self.goal_blocks_a_message, "≥", 16),
                ("depot and registry locks per 1,000 operations, worst workload", self.goal_locks, "≤", 1),
                ("messages per 16 remote frees, `producer_consumer/1:1`", self.goal_messages, "≤", 1.00)]

    def goals(self):
        rows = []
        for goals, peers in ((self.goals_against_peers(), None), (self.goals_single(), self.peers)):
            for text, figure, sign, limit in goals:
                value = figure(self.subject)
                met = "n/a" if value is None else "yes" if (value <= limit if sign == "≤" else value >= limit) else "**no**"
                others = [number(figure(p)) for p in peers] if peers is not None else [""] * len(self.peers)
                rows.append([text, f"{sign} {limit:g}", number(value), met, *others])
        return table_text(["goal", "limit", self.subject, "met", *self.peers], rows)

    # ---- the page ----

    def head(self, machine):
        counts = [len(runs) for runs in self.results.runs.values()] or [0]
        quick = " --quick" if self.bench.arguments.quick else ""
        lines = [f"Made by `./scripts/bench{quick}`: {len(self.bench.cases)} cases, {min(counts)} to {max(counts)} runs of each, interleaved.", ""]
        lines += [f"* {name}: {value}" for name, value in machine.items()]
        if not self.present:
            lines += ["", f"**{self.subject} was not there: every ratio below is n/a.**"]
        return "\n".join(lines) + "\n"

    def sections(self, machine, charts):
        who = self.subject
        yield f"# {who} against its peers", self.head(machine)
        yield "## Not run, not in force, missing", self.problems()
        yield "## Goals", self.goals()
        yield "## Charts", "\n\n".join(f"![{os.path.splitext(c)[0]}]({c})" for c in charts) + "\n" if charts else "gnuplot is missing.\n"
        yield ("## Time: workloads", f"CPU time of {who} ÷ the peer's, medians of paired runs; below 1 {who} is ahead. The last columns: "
               "the best peer on that row with a 95 % interval, and the null allocator, which no allocator can beat.\n\n" + self.ratios("workload", "time"))
        yield "## Time: programs", self.ratios("program", "time")
        yield "## Peak memory: workloads", self.ratios("workload", "memory")
        yield "## Peak memory: programs", self.ratios("program", "memory")
        yield "## Distance from the null allocator", self.distances()
        yield "## Explicit pools", PoolsReport(self.results, self.bench.allocators).text()
        yield "## Latency of single calls", self.latencies()
        yield "## Start-up", "A program that makes one pair: the lower tenth of single starts, wall time.\n\n" + self.starts()
        yield "## Served by pools", "Allocations in one unmeasured run of poolmalloc with its statistics on.\n\n" + self.shares()
        yield count.TITLE, count.section(self.traffic())
        yield "## Instructions", ("Executed outside the workload itself, for one malloc and its free, or one realloc. The best peer of "
                                  "`realloc_growth` is the best but for the C library, which grows blocks in place.\n\n") + self.instructions()
        yield "## Absolute costs", self.costs()


def report_write(bench, machine, charts):
    path = os.path.join(bench.arguments.out, "report.md")
    with open(path, "w") as file:
        file.write("\n".join(f"{title}\n\n{text}" for title, text in Report(bench).sections(machine, charts)))
    return path
