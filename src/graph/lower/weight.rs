//! How much the graph holds, so that a small file can't ask for gigabytes ([`Limit::GraphBytes`]).
//!
//! Counted is what repeats: each RUN has the whole environment (shared in the graph, but not in what the engine makes of
//! it) and its arguments in its history, each stage its base's configuration, each FROM the triggers of its base, EXPOSE a
//! string for each port of a range. What grows with the text alone is not. Rough on purpose: a string counts for its bytes
//! and its own record.

use crate::dockerfile::limits::{Limit, MAX_GRAPH_BYTES};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::{CopySource, Node, Op, PlannedHistory};

use super::Lowering;
use super::stage::Finished;

/// A string's record and the allocator's share.
const STRING: usize = 32;
/// A node's, stage's or trigger's record.
const RECORD: usize = 512;

impl Lowering<'_> {
    /// Adds to the graph's weight. Errors: it is more than a graph may hold.
    pub(super) fn weigh(&mut self, bytes: usize, span: Span) -> Result<(), Diagnostic> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight <= MAX_GRAPH_BYTES {
            return Ok(());
        }
        let hint = "variables, triggers and histories are repeated for each step and stage: fewer or shorter ones take less";
        Err(self.error(span, Limit::GraphBytes.to_string()).hint(hint))
    }
}

/// Returns the weight of strings.
pub(super) fn of_strings(strings: &[String]) -> usize {
    strings.iter().map(|s| s.len() + STRING).sum()
}

/// Returns the weight of a trigger that fires.
pub(super) fn of_trigger(text: &str) -> usize {
    RECORD + 2 * text.len()
}

/// Returns the weight of a history entry.
pub(super) fn of_history(entry: &PlannedHistory) -> usize {
    STRING + entry.created_by.len()
}

/// Returns the weight of what a stage starts with: it is copied from the stage or image below.
pub(super) fn of_stage(done: &Finished) -> usize {
    let config = &done.config.config;
    let arguments: usize = done.arguments.iter().map(|(name, value)| 2 * STRING + name.len() + value.as_ref().map_or(0, String::len)).sum();
    let labels: usize = config.labels.iter().map(|(name, value)| 2 * STRING + name.len() + value.len()).sum();
    let names: usize = config.exposed_ports.keys().chain(config.volumes.keys()).map(|name| STRING + name.len()).sum();
    // The environment is in the configuration and in the scope.
    RECORD + arguments + labels + names + 2 * of_strings(&config.env) + of_strings(&config.on_build)
}

/// Returns the weight of a node.
pub(super) fn of_node(node: &Node) -> usize {
    let op = match &node.op {
        Op::Run(run) => {
            let env: usize = run.env.iter().chain(&run.proxy_env).map(|(name, value)| 2 * STRING + name.len() + value.len()).sum();
            env + of_strings(&run.argv) + of_strings(&run.shell) + run.scripts.iter().map(|(_, body)| body.len()).sum::<usize>()
        }
        Op::Copy(copy) => copy.sources.iter().map(of_source).sum(),
        Op::Base(_) | Op::Mkdir(_) => 0,
    };
    RECORD + op + node.title.len() + node.onbuild.as_ref().map_or(0, String::len)
}

fn of_source(source: &CopySource) -> usize {
    STRING
        + match source {
            CopySource::Path(text, _) | CopySource::Http(text, _) => text.len(),
            // Its parts are parts of its text.
            CopySource::Git(address, _) => 2 * address.text.len(),
            CopySource::Inline(name, body) => name.len() + body.len(),
        }
}

#[cfg(test)]
mod tests {
    use crate::graph::lower::tests::error_of;

    /// Returns `line` with `{}` replaced by each number.
    fn lines(count: usize, line: &str) -> String {
        (0..count).map(|n| line.replace("{}", &n.to_string()) + "\n").collect()
    }

    #[test]
    fn small_files_that_ask_for_much_end_in_an_error() {
        let doubled = |name: &str| {
            let first = format!("ARG {name}0=xxxxxxxxxxxxxxxx\n");
            first + &(1..17).map(|n| format!("ARG {name}{n}=${{{name}{m}}}${{{name}{m}}}\n", m = n - 1)).collect::<String>()
        };
        let chain = |name: &str, text: &str, line: &str| format!("FROM scratch\n{}{text}{}", doubled(name), lines(400, line));
        let cases = [
            // One word twice as long with every line: a megabyte after seventeen, and then each line has one.
            ("one word", format!("FROM scratch\n{}ARG b=$a16$a16\n", doubled("a")), "expansion-bytes"),
            ("environments", chain("a", "", "RUN x{}"), "graph-bytes"),
            ("values", chain("a", "", "ENV v{}=$a16"), "expansion-total"),
            ("values that end up empty", chain("a", "", "ENV v=${a16#$a16}"), "expansion-total"),
            ("port ranges", format!("FROM scratch\nEXPOSE{}\n", " 0-65535".repeat(200)), "graph-bytes"),
            ("histories", format!("FROM scratch AS s0\nLABEL a={}\n{}", "x".repeat(1 << 16), stages(5000)), "graph-bytes"),
            ("triggers", format!("FROM scratch AS s\n{}{}", lines(2000, "ONBUILD USER u{}"), fanned(2000)), "graph-bytes"),
        ];
        for (name, text, id) in cases {
            let error = error_of(&text);
            assert!(error.message.ends_with(&format!("(limit {id})")), "{name}: {error}");
            assert!(error.source.is_some() && error.span.end > 0, "{name}: {error}");
        }
    }

    /// Each stage starts from the one before, and so has its history.
    fn stages(count: usize) -> String {
        (1..count).map(|n| format!("FROM s{} AS s{n}\n", n - 1)).collect()
    }

    /// Many stages start from `s`, and the last one needs them all.
    fn fanned(count: usize) -> String {
        lines(count, "FROM s AS t{}") + "FROM scratch\n" + &lines(count, "COPY --from=t{} / /")
    }
}
