//! `ply stats`: hit rates, seconds saved and lost, and bytes, over the builds of the log.

use std::collections::BTreeMap;
use std::collections::HashMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cache::log::Step;
use crate::cache::log::stats::{OfDockerfile, Stats, Sums};
use crate::cli::builds::{self, Chosen, secs};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::stored;
use crate::ui::table::{Align, Table};
use crate::ui::{human, out, prometheus, text};

/// How many of the most expensive steps are shown.
const SHOWN_STEPS: usize = 10;

/// Show hit rates and what the cache saved, over the recorded builds
#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Only builds since then: 30m, 24h, 7d ago, or a date
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only builds of Dockerfiles with this in their place or name
    #[arg(short = 'f', long, visible_alias = "file", value_name = "TEXT")]
    pub dockerfile: Option<String>,
    /// table, json or prometheus
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json", "prometheus"])]
    pub format: String,
}

/// Prints the statistics.
pub fn run(args: &StatsArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let since_secs = args.since.as_deref().map(|s| builds::since(s, session.env.now_secs)).transpose()?;
    let chosen = builds::chosen(&store, args.dockerfile.as_deref(), &Chosen { since_secs, ..Chosen::default() })?;
    let mut read: HashMap<String, Vec<Step>> = HashMap::new();
    let mut stats = Stats::default();
    for build in &chosen {
        if !read.contains_key(build.body_id()) {
            let steps = build.body(&store).map_err(|e| Failure::of(&e))?.map(|b| b.steps).unwrap_or_default();
            read.insert(build.body_id().to_owned(), steps);
        }
        stats.add(build, &read[build.body_id()]);
    }
    let text = match args.format.as_str() {
        "json" => json_of(&stats).to_string() + "\n",
        "prometheus" => metrics(&stats),
        _ => table(&stats),
    };
    Ok(out::result(&text)?)
}

fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_string(), |r| format!("{:.0}%", r * 100.0))
}

fn table(stats: &Stats) -> String {
    let columns = [
        ("DOCKERFILE", Align::Left),
        ("BUILDS", Align::Right),
        ("FAILED", Align::Right),
        ("STEPS", Align::Right),
        ("HITS", Align::Right),
        ("BY TIME", Align::Right),
        ("SAVED", Align::Right),
        ("RAN", Align::Right),
        ("RAN AGAIN", Align::Right),
        ("MADE", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for (name, of) in &stats.dockerfiles {
        let s = &of.sums;
        table.row([
            builds::shown(name),
            of.builds.iter().sum::<u64>().to_string(),
            of.builds[1].to_string(),
            (s.hits + s.remote + s.built + s.failed).to_string(),
            percent(s.rate()),
            percent(s.weighed_rate()),
            secs(s.saved_secs),
            secs(s.ran_secs),
            secs(s.lost_secs),
            human::size(s.made_bytes),
        ]);
    }
    let mut steps =
        Table::new(&[("MOST EXPENSIVE STEPS", Align::Left), ("RAN", Align::Right), ("TOOK", Align::Right), ("HITS", Align::Right)]);
    for (stage, title, s) in most_expensive(stats) {
        let shown = text::cut(&text::one_line(&format!("[{stage}] {title}")), 60);
        steps.row([shown, (s.built + s.failed).to_string(), secs(s.ran_secs), percent(s.rate())]);
    }
    let mut causes = Table::new(&[("CAUSE", Align::Left), ("MISSES", Align::Right), ("TOOK", Align::Right)]);
    for (kind, (count, took)) in by_cost(&causes_of(stats)) {
        causes.row([kind.to_string(), count.to_string(), secs(took)]);
    }
    format!("{}\n{}\n{}", table.render(), steps.render(), causes.render())
}

/// The steps that ran longest in all, longest first.
fn most_expensive(stats: &Stats) -> Vec<(&str, &str, Sums)> {
    let steps = stats.dockerfiles.values().flat_map(|of| &of.steps).map(|((stage, title), sums)| (stage.as_str(), title.as_str(), *sums));
    let mut steps: Vec<_> = steps.filter(|(_, _, s)| s.built + s.failed > 0).collect();
    steps.sort_by(|a, b| b.2.ran_secs.total_cmp(&a.2.ran_secs));
    steps.truncate(SHOWN_STEPS);
    steps
}

fn causes_of(stats: &Stats) -> BTreeMap<&'static str, (u64, f64)> {
    let mut all = BTreeMap::new();
    for (kind, (count, took)) in stats.dockerfiles.values().flat_map(|of| &of.causes) {
        let sum: &mut (u64, f64) = all.entry(*kind).or_default();
        sum.0 += count;
        sum.1 += took;
    }
    all
}

fn by_cost(causes: &BTreeMap<&'static str, (u64, f64)>) -> Vec<(&'static str, (u64, f64))> {
    let mut list: Vec<_> = causes.iter().map(|(kind, sum)| (*kind, *sum)).collect();
    list.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    list
}

fn sums_json(s: &Sums) -> Value {
    json!({
        "hits": s.hits, "remote_hits": s.remote, "built": s.built, "failed": s.failed, "hit_rate": s.rate(),
        "hit_rate_by_secs": s.weighed_rate(), "saved_secs": s.saved_secs, "ran_secs": s.ran_secs, "lost_secs": s.lost_secs,
        "made_bytes": s.made_bytes,
    })
}

fn json_of(stats: &Stats) -> Value {
    let causes = |c: &BTreeMap<&'static str, (u64, f64)>| -> Vec<Value> {
        by_cost(c).iter().map(|(kind, (count, took))| json!({"kind": kind, "misses": count, "secs": took})).collect()
    };
    let step = |((stage, title), sums): (&(String, String), &Sums)| json!({"stage": stage, "title": title, "sums": sums_json(sums)});
    let dockerfile = |(name, of): (&String, &OfDockerfile)| {
        let (context, file) = builds::place(name);
        json!({
            "context": context, "dockerfile": file, "secs": of.secs,
            "builds": {"done": of.builds[0], "failed": of.builds[1], "cancelled": of.builds[2]},
            "sums": sums_json(&of.sums), "steps": of.steps.iter().map(step).collect::<Vec<_>>(), "causes": causes(&of.causes),
        })
    };
    json!({"dockerfiles": stats.dockerfiles.iter().map(dockerfile).collect::<Vec<_>>(), "causes": causes(&causes_of(stats))})
}

/// The statistics in Prometheus's text format. Gauges: the log forgets old builds, so sums may fall.
#[allow(clippy::cast_precision_loss)] // Prometheus knows no other numbers
fn metrics(stats: &Stats) -> String {
    let mut page = prometheus::Page::default();
    let each = || stats.dockerfiles.iter().map(|(name, of)| (builds::shown(name), of));
    page.family("ply_builds", "Recorded builds by how they ended.");
    for (name, of) in each() {
        for (outcome, count) in ["done", "failed", "cancelled"].iter().zip(of.builds) {
            page.sample("ply_builds", &[("dockerfile", &name), ("outcome", outcome)], count as f64);
        }
    }
    page.family("ply_build_seconds", "Time that recorded builds took.");
    each().for_each(|(name, of)| page.sample("ply_build_seconds", &[("dockerfile", &name)], of.secs));
    page.family("ply_steps", "Steps of recorded builds by what became of them.");
    for (name, of) in each() {
        let s = of.sums;
        for (outcome, count) in [("hit", s.hits), ("remote_hit", s.remote), ("built", s.built), ("failed", s.failed)] {
            page.sample("ply_steps", &[("dockerfile", &name), ("outcome", outcome)], count as f64);
        }
    }
    type Value = fn(&Sums) -> Option<f64>;
    let families: [(&str, &str, Value); 6] = [
        ("ply_hit_ratio", "Share of steps that were taken from a cache.", |s| s.rate()),
        ("ply_hit_seconds_ratio", "Share of steps that were taken from a cache, weighed by the time that each costs.", |s| {
            s.weighed_rate()
        }),
        ("ply_saved_seconds", "Time that hits saved.", |s| Some(s.saved_secs)),
        ("ply_ran_seconds", "Time that steps took which ran.", |s| Some(s.ran_secs)),
        ("ply_lost_seconds", "Of that, steps that had been built before with other inputs.", |s| Some(s.lost_secs)),
        ("ply_made_bytes", "Size of the layers that steps made.", |s| Some(s.made_bytes as f64)),
    ];
    for (family, help, value) in families {
        page.family(family, help);
        for (name, of) in each() {
            if let Some(value) = value(&of.sums) {
                page.sample(family, &[("dockerfile", &name)], value);
            }
        }
    }
    type OfCause = fn(&(u64, f64)) -> f64;
    let families: [(&str, &str, OfCause); 2] = [
        ("ply_misses", "Steps that ran, by the kind of the first cause.", |c| c.0 as f64),
        ("ply_miss_seconds", "Time that steps took which ran, by the kind of the first cause.", |c| c.1),
    ];
    for (family, help, value) in families {
        page.family(family, help);
        for (name, of) in each() {
            for (kind, sum) in &of.causes {
                page.sample(family, &[("dockerfile", &name), ("cause", kind)], value(sum));
            }
        }
    }
    page.text()
}
