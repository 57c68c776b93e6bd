"""The report's part about explicit pools: what each contender takes for each task, ours against theirs, and the goals."""

from dataclasses import dataclass
from statistics import median

from cases import POOLS
from markdown import number, table_text
from statistic import interval

# Task, and which of ours stands for us in the table of ratios.
TASKS = {"churn": "pool_none", "threads": "pool_threads", "list": "resource_none", "map": "resource_none",
         "unordered_map": "resource_none", "bulk": "pool_none", "reset": "pool_none", "arena": "arena_resource",
         "memory": "pool_none"}
OURS = [name for name in POOLS if name.startswith(("pool_", "resource_", "arena")) or name == "allocator"]


@dataclass(frozen=True)
class Goal:
    text: str
    task: str
    above: str  # the ratio is above ÷ below; each a contender, or bytes
    below: object
    sign: str
    limit: float


GOALS = (
    Goal("`churn`: unsynchronized_pool_resource ÷ pool_resource (NONE)", "churn", "unsynchronized", "resource_none", "≥", 5),
    Goal("`churn`: synchronized_pool_resource ÷ pool_resource (THREADS)", "churn", "synchronized", "resource_threads", "≥", 8),
    Goal("`threads`: synchronized_pool_resource ÷ pool_resource (THREADS)", "threads", "synchronized", "resource_threads", "≥", 50),
    Goal("`churn`: pm_pool (NONE) ÷ boost::pool, unordered", "churn", "pool_none", "boost_pool", "≤", 1),
    Goal("`churn`: pm_pool (NONE) ÷ an inline list", "churn", "pool_none", "inline_list", "≤", 2.5),
    Goal("`arena`: arena_resource ÷ monotonic_buffer_resource", "arena", "arena_resource", "monotonic", "≤", 1),
    Goal("`memory`: a million 40-byte nodes ÷ 48 MB", "memory", "pool_none", 48.0, "≤", 1.03),
    Goal("`memory`: the same with block_align 8 ÷ 40 MB", "memory", "pool_packed", 40.0, "≤", 1.03),
)


class PoolsReport:
    def __init__(self, results, allocators):
        self.results = results
        preloaded = [f"malloc, {a.name}" for a in allocators if not a.measures_only and a.interposer]
        names = [*POOLS, *preloaded]
        self.runs = {name: self.runs_of(name) for name in names if self.runs_of(name)}

    def runs_of(self, name):
        """{repeat: {task: figure}}; a name is a contender's, or "malloc, ALLOCATOR"."""
        contender, _, allocator = name.partition(", ")
        runs = self.results.runs.get((f"pools/{contender}", allocator or "system"), {})
        return {repeat: run["printed"]["tasks"] for repeat, run in runs.items()}

    def figure(self, name, task):
        values = [tasks[task] for tasks in self.runs.get(name, {}).values() if task in tasks]
        return median(values) if values else None

    def ratio(self, task, above, below):
        """(median, low, high) over the repeats that both ran; None if there is none. `below` may be a number."""
        bottom = (lambda repeat: below) if isinstance(below, float) else \
            (lambda repeat: self.runs.get(below, {}).get(repeat, {}).get(task))
        ratios = [tasks[task] / bottom(repeat) for repeat, tasks in sorted(self.runs.get(above, {}).items())
                  if task in tasks and bottom(repeat)]
        return (median(ratios), *interval(ratios)) if ratios else None

    def figures_table(self):
        rows = [[name, *(number(self.figure(name, task), 1) for task in TASKS)] for name in self.runs]
        return table_text(["", *TASKS], rows)

    def ratios_table(self):
        rows = []
        for name in (n for n in self.runs if n not in OURS):
            ratios = [self.ratio(task, ours, name) for task, ours in TASKS.items()]
            rows.append([name, *(number(r and r[0]) for r in ratios)])
        return table_text(["ours ÷", *(f"{task} ({ours})" for task, ours in TASKS.items())], rows)

    def goals_table(self):
        rows = []
        for goal in GOALS:
            ratio = self.ratio(goal.task, goal.above, goal.below)
            met = ratio and (ratio[0] >= goal.limit if goal.sign == "≥" else ratio[0] <= goal.limit)
            shown = f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]" if ratio else "n/a"
            rows.append([goal.text, f"{goal.sign} {goal.limit:g}", shown, "n/a" if met is None else "yes" if met else "**no**"])
        return table_text(["goal", "limit", "ratio [95 %]", "met"], rows)

    def text(self):
        if not self.runs:
            return "Not run.\n"
        return ("ns an operation: a block of 64 bytes taken and given back, or an element inserted, visited and erased. `reset` takes "
                "blocks and gives all back at once; `threads`: each of two gives back what the other took; `memory`: resident bytes "
                "for each 40-byte node of a million. Medians; none of this is in the means above.\n\n"
                + self.figures_table() + "\nOurs ÷ the other's, below 1 ours is ahead:\n\n" + self.ratios_table()
                + "\n" + self.goals_table())
