"""Tests of the script's own logic: what is a median, a ratio, a dropped run, and whose process is whose. No builder is run."""
import os, tempfile, unittest
from types import SimpleNamespace
import data, measure, schedule, table
from measure import Process, Sample
from table import AsRatio, Below, Faster, Result, Verdict, Within


def results(**medians):
    """Results with these seconds; a name that begins with `bare` is a baseline."""
    return {who: Result(who, [s], [s / 2], baseline=who.startswith("bare")) for who, s in medians.items()}


class Samples(unittest.TestCase):
    def test_a_run_is_disturbed_by_more_than_a_share_of_its_time_and_more_than_two_ticks(self):
        cases = [((10.0, 0.4), False), ((10.0, 0.6), True), ((0.1, 0.02), False), ((0.1, 0.03), True), ((0.0, 0.0), False)]
        for (seconds, other), disturbed in cases:
            self.assertEqual(Sample(seconds, 0.0, other).disturbed(), disturbed, (seconds, other))
        self.assertFalse(Sample(0.1, 0.0, 99.0).disturbed(float("inf")))

    def test_disturbed_runs_are_dropped_and_counted_and_memory_runs_give_no_times(self):
        r = Result("ply")
        for sample in (Sample(3.0, 1.0, 0.0), Sample(1.0, 0.5, 0.0), Sample(9.0, 1.0, 5.0), Sample(2.0, 0.7, 0.0), Sample(50.0, 9.0, 5.0, 7_000_000), Sample(50.0, 9.0, 0.0, 9_000_000)):
            r.add(sample, measure.TOLERATED_SHARE)
        self.assertEqual((r.seconds, r.cpu, r.memory, r.dropped, r.disturbed), ([3.0, 1.0, 2.0], [1.0, 0.5, 0.7], [7_000_000, 9_000_000], 1, [9.0]))
        self.assertEqual((r.median, r.peak), (2.0, 9_000_000))
        self.assertEqual(table.spread(r), "2.00 (1.00-3.00)")
        self.assertEqual((Result("x").median, Result("x").peak, table.spread(Result("x"))), (None, None, "-"))


class Verdicts(unittest.TestCase):
    def test_each_kind_of_wish_is_judged_on_medians(self):
        sizes = {("row", "ply"): 102, ("row", "bare"): 100}
        some = results(ply=2.0, docker=10.0, buildah=8.0, bare=1.0)
        self.assertEqual(Faster(4).judge(some, sizes), Verdict("4 x as fast as the best peer", "4.00 x (buildah)", True))
        self.assertEqual(Faster(5).judge(some, sizes).met, False)
        self.assertEqual(Within(2, "bare").judge(some, sizes), Verdict("at most 2 x the time of bare", "2.00 x", True))
        self.assertEqual(Within(1.5, "bare").judge(some, sizes).met, False)
        self.assertEqual(Below(0.008, "s").judge(some, sizes), Verdict("below 8.0 ms", "2.00 s", False))
        self.assertEqual(AsRatio("row", 1.03, "bare").judge(some, sizes), Verdict("at most 1.03 x the bytes of bare", "1.020 x", True))

    def test_a_missing_side_is_never_met(self):
        for want in (Faster(1), Within(1, "bare"), Below(1, "s"), Below(1, "bytes"), AsRatio("row", 1, "bare")):
            for some in ({}, results(docker=1.0), {"ply": Result("ply"), "docker": Result("docker")}):
                self.assertEqual((want.judge(some, {}).got, want.judge(some, {}).met), ("-", None), (want, some))

    def test_the_best_peer_is_no_baseline_and_did_the_same_work(self):
        some = results(ply=9.0, bare=0.1, docker=3.0, kaniko=1.0)
        some["kaniko"].unlike = "gzips"
        some["buildah"] = Result("buildah", failed="status 1")
        self.assertEqual(table.best_peer(some).who, "docker")
        self.assertIsNone(table.best_peer(results(ply=1.0, bare=1.0)))

    def test_a_step_costs_what_many_cost_more_than_one(self):
        one, many = {"ply": Result("ply", [1.0, 2.0], [0.5, 0.5])}, {"ply": Result("ply", [5.0, 10.0], [2.5, 4.5]), "docker": Result("docker", [1.0])}
        self.assertEqual(table.derive_step(one, many, 5), {"ply": Result("ply", [1.0, 2.0], [0.5, 1.0])})

    def test_memory_over_all_is_the_largest_of_each_builder(self):
        rows = {"a": {"ply": Result("ply", memory=[5, 9]), "cp": Result("cp", memory=[99], baseline=True)}, "b": {"ply": Result("ply", memory=[7])}}
        self.assertEqual({w: r.peak for w, r in table.derive_memory(rows).items()}, {"ply": 9})


class Rendering(unittest.TestCase):
    def test_the_table_has_a_line_a_builder_and_one_a_wish(self):
        some = results(ply=0.5, docker=2.0, bare=0.25)
        some["ply"].memory, some["docker"].unlike = [12_000_000], "gzips"
        text = table.render({"copy": "COPY"}, {"copy": [Faster(4), Within(2, "bare")]}, {"copy": some}, {("copy", "bare"): 1_500_000})
        self.assertEqual(text.split("\n"), [
            "| work | who      | seconds: median (least-most) | times ply | CPU s | peak MB | runs | dropped | remark              |",
            "|------|----------|------------------------------|-----------|-------|---------|------|---------|---------------------|",
            "| COPY | ply      | 0.500 (0.500-0.500)          | 1.00      | 0.250 | 12      | 1    | 0       |                     |",
            "|      | docker   | 2.00 (2.00-2.00)             | 4.00      | 1.000 | -       | 1    | 0       | not compared: gzips |",
            "|      | bare     | 0.250 (0.250-0.250)          | 0.50      | 0.125 | -       | 1    | 0       | baseline, 1.5 MB    |",
            "|      | = wanted | 4 x as fast as the best peer | -         |       |         |      |         | can't be said       |",
            "|      | = wanted | at most 2 x the time of bare | 2.00 x    |       |         |      |         | MET                 |",
            "1 of 2 wanted figures met",
        ])


class Processes(unittest.TestCase):
    def test_a_name_with_parentheses_and_blanks_moves_no_field(self):
        line = "7 (a) b (c) S 3 7 7 0 -1 {flags} 1 2 3 4 10 20 30 40 20 0 1 0 5"
        self.assertEqual(measure.parse_stat(line.format(flags=0x400040)), Process(3, 100, False))
        self.assertEqual(measure.parse_stat(line.format(flags=0x208040)).kernel, True)

    def test_a_process_is_counted_by_its_nearest_ancestor_that_means_something(self):
        def p(parent, kernel=False):
            return Process(parent, 1, kernel)
        tree = {1: p(0), 2: p(0, True), 3: p(2, True),  # init, kernel threads
                10: p(1), 11: p(10), 12: p(11),  # this script, a command, its child
                20: p(10), 21: p(20), 30: p(10), 31: p(30), 40: p(10), 41: p(40), 50: p(1)}
        mine, others = measure.divide(tree, 10, {20}, {30}, {40})
        self.assertEqual((sorted(mine), sorted(others)), ([11, 12, 20, 21], [1, 30, 31, 50]))

    def test_a_command_that_works_is_seen_in_the_clocks_and_one_that_fails_tells_its_words(self):
        with tempfile.TemporaryDirectory() as top:
            meter = measure.Meter(f"{top}/log")
            sample = meter.run("x", [["sh", "-c", data.loop(20_000)]], dict(os.environ))
            self.assertTrue(0 < sample.cpu and 0 < sample.seconds and sample.memory is None)
            with self.assertRaisesRegex(measure.CommandFailed, "status 3: .*\nsorry"):
                meter.run("x", [["true"], ["sh", "-c", "echo sorry; exit 3"]], dict(os.environ))


class Turns(unittest.TestCase):
    def test_each_round_begins_with_another_one(self):
        self.assertEqual([schedule.rotate("abc", n) for n in range(4)], [list("abc"), list("bca"), list("cab"), list("abc")])
        self.assertEqual(schedule.rotate([], 3), [])

    def test_a_round_ends_with_the_last_phase_that_somebody_wants(self):
        def ran(rows, independent, with_memory=False):
            seen = []
            phases = [SimpleNamespace(row=r, rows=(), once=lambda r=r: seen.append(r), baselines={}) for r in "abc"]
            options = SimpleNamespace(rows=rows, pause=0)
            group = SimpleNamespace(begin=lambda n: phases, independent=independent, bench=None)
            schedule.Schedule(None, [], options).round(group, 0, lambda r: True, with_memory)
            return "".join(seen)

        self.assertEqual([ran(rows, False) for rows in (None, ["a"], ["b"], ["a", "c"], [])], ["abc", "a", "ab", "abc", ""])
        self.assertEqual([ran(rows, True) for rows in (None, ["b"], ["a", "c"])], ["abc", "b", "ac"])
        self.assertEqual(ran(["memory"], False, with_memory=True), "abc")

    def test_peak_memory_concerns_every_group_and_needs_no_times(self):
        group = SimpleNamespace(rows=("a", "b"))
        for rows, memory, expected in ((None, True, (True, True)), (["memory"], True, (True, False)), (["memory", "b"], True, (True, True)),
                                       (["c"], True, (False, False)), (["memory"], False, (False, False))):
            turns = schedule.Schedule(None, [], SimpleNamespace(rows=rows, memory=memory))
            self.assertEqual((turns.concerns(group), turns.timed(group)), expected, (rows, memory))


class Data(unittest.TestCase):
    def test_a_seed_makes_the_same_bytes_and_another_seed_others(self):
        a, b, c = (list(data.files(seed, 20, 500)) for seed in ("1", "1", "2"))
        self.assertEqual(a, b)
        self.assertEqual({len(t) for t in a}, {500})
        self.assertEqual(len({*a, *c}), 40)

    def test_an_edit_keeps_the_size(self):
        with tempfile.TemporaryDirectory() as top:
            data.tree(f"{top}/t", "s", 20, 100)
            path = f"{top}/t/dir000/file00000.txt"
            with open(path, "rb") as f:
                before = f.read()
            data.edit(path, 5)
            with open(path, "rb") as f:
                after = f.read()
            self.assertEqual((len(after), after[:8], after[8:]), (100, b"00000005", before[8:]))


if __name__ == "__main__":
    unittest.main()
