"""Medians, paired ratios with 95 % intervals, geometric means: from the runner's results."""

import math
import random
from statistics import median

RESAMPLES = 1000
METRICS = {"time": lambda r: r["cpu_s"] / max(r["operations"], 1), "memory": lambda r: r["peak_rss_kib"]}


def interval(values):
    """95 % of the medians of resamples; with few values, about their range."""
    if len(values) < 2:
        return values[0], values[0]
    chance = random.Random(1)
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]


def mean_geometric(values):
    values = [v for v in values if v and v > 0]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


class Results:
    """Results of measured runs by case and allocator."""

    def __init__(self, bench):
        self.runs = {}
        for key, result in bench.results.items():
            kind, case, allocator, repeat = key.split("|")
            if kind == "measure" and (case, allocator) not in bench.failed:
                self.runs.setdefault((case, allocator), {})[int(repeat)] = result

    def all(self, case, allocator):
        return list(self.runs.get((case, allocator), {}).values())

    def median(self, case, allocator, metric):
        values = [METRICS[metric](r) for r in self.all(case, allocator)]
        return median(values) if values else None

    def ratio(self, case, subject, other, metric):
        """(median, low, high, number) of subject/other over the repeats that both ran; None if there is none."""
        ours, theirs = self.runs.get((case, subject), {}), self.runs.get((case, other), {})
        value = METRICS[metric]
        ratios = [value(ours[i]) / value(theirs[i]) for i in sorted(ours) if i in theirs and value(theirs[i]) > 0]
        return (median(ratios), *interval(ratios), len(ratios)) if ratios else None

    def best(self, case, peers, metric):
        """The peer with the least median."""
        known = {p: self.median(case, p, metric) for p in peers}
        known = {p: v for p, v in known.items() if v}
        return min(known, key=known.get) if known else None


def mean_of_groups(cases, figure):
    """Geometric mean over workloads; a workload's variants are averaged first, so that none counts more for having many."""
    groups = {}
    for case in cases:
        value = figure(case)
        if value:
            groups.setdefault(case.group, []).append(value)
    return mean_geometric([mean_geometric(values) for values in groups.values()])
