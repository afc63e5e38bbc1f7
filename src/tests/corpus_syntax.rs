//! Compares verdicts on thirty thousand Dockerfiles with BuildKit's.
//!
//! The corpus (`PLY_CORPUS`, default `../shared/corpus`; archives, or folders already unpacked) is data of its
//! own and no part of the project; without it the test says so and passes. Compared are: accepted or not, the
//! line of the error, the findings of the checks that need the text alone, and, where BuildKit's parse tree is
//! recorded, each instruction.

// A test's report goes to the terminal.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use plywood::dockerfile;
use plywood::dockerfile::check::{self, Rule, StageFacts};
use plywood::dockerfile::instruction::{CommandLine, CopyArg, CopyArgs, File, Instruction, Kind, Pair, Word};
use plywood::dockerfile::source::{Diagnostic, Source};
use rayon::prelude::*;
use serde_json::Value;

/// Where the corpus is, if it is.
fn corpus() -> Option<PathBuf> {
    let folder =
        std::env::var_os("PLY_CORPUS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    folder.join("ref.tar.zst").is_file().then_some(folder)
}

/// Reads all files of an archive.
fn unpack(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(archive).expect("the archive opens");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("a zstd archive"));
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("a tar entry");
        if entry.header().entry_type().is_file() {
            let path = entry.path().expect("a path").into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("the entry's bytes");
            let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
            files.insert(name, bytes);
        }
    }
    files
}

/// What is compared, each counted by itself.
const ASPECTS: [&str; 5] = ["verdict", "error line", "tree", "dump", "checks"];

/// As many differences as an aspect of a set may have: one mutant spells an instruction over two lines, and we
/// name the second, where the error is.
const ALLOWED: usize = 1;

/// What a file's comparison gave.
#[derive(Default)]
struct Comparison {
    differences: Vec<(&'static str, String)>,
    /// The whole tree could be printed and compared.
    printed: bool,
}

fn compare(row: &Value, bytes: &[u8]) -> Comparison {
    let source = Source::new("Dockerfile", String::from_utf8_lossy(bytes));
    let error = row["error"].as_str().unwrap_or_default();
    // No FROM at all is an error of its planner; for us it is one of the text.
    let accepted = row["parse"] == "ok" && row["instr"] == "ok" && error != "dockerfile contains no stages to build";
    let mut comparison = Comparison::default();
    match (dockerfile::parse(&source), accepted) {
        (Ok(_), false) => comparison.differences.push(("verdict", format!("accepted; BuildKit: {error}"))),
        (Err(ours), true) => comparison.differences.push(("verdict", format!("refused: {ours}"))),
        (Err(ours), false) => comparison.differences.extend(line_of_error(&ours, error).map(|what| ("error line", what))),
        (Ok(file), true) => {
            let printed = dump::print(&file);
            comparison.printed = printed.is_some();
            comparison.differences.extend(tree::compare(&file, row).map(|what| ("tree", what)));
            comparison.differences.extend(printed.and_then(|text| dump::compare(text, row)).map(|what| ("dump", what)));
            comparison.differences.extend(checks(&file, row).map(|what| ("checks", what)));
        }
    }
    comparison
}

/// Compares the line where BuildKit names one.
fn line_of_error(ours: &Diagnostic, theirs: &str) -> Option<String> {
    let line: usize = theirs.split_once("on line ")?.1.split(':').next()?.parse().ok()?;
    let source = ours.source.as_ref()?;
    (!is_line(source, source.line(ours.span.start), line)).then(|| format!("{ours}; BuildKit: {theirs}"))
}

/// Tells whether two line numbers mean one instruction: BuildKit starts one at a lone continuation mark above,
/// or at comments and empty lines after that; we point at its text.
fn is_line(source: &Source, ours: usize, theirs: usize) -> bool {
    let lines: Vec<&str> = source.text().lines().collect();
    let nothing = |line: &&str| matches!(line.trim().trim_start_matches('\u{FEFF}'), "" | "\\" | "`") || line.trim_start().starts_with('#');
    theirs == ours || (theirs < ours && lines[theirs - 1..ours - 1].iter().all(nothing))
}

/// Compares the findings that the text alone decides: rule and line. Where BuildKit could not plan the build,
/// it stopped looking.
fn checks(file: &File, row: &Value) -> Option<String> {
    if row["plan_status"] != "ok" {
        return None;
    }
    let mut theirs: Vec<(&str, usize)> = row["lint"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|finding| finding.as_str()?.split_once(':'))
        .filter(|(rule, _)| OF_THE_TEXT.iter().any(|known| known.name() == *rule))
        .map(|(rule, line)| (rule, line.parse().unwrap_or_default()))
        .collect();
    theirs.sort_unstable();
    theirs.dedup();
    let mut ours: Vec<(&str, usize)> = check::settle(file, &facts(file))
        .iter()
        .map(|found| (found.rule.unwrap_or_default(), file.source.line(instruction_at(file, found.span.start))))
        .collect();
    ours.sort_unstable();
    ours.dedup();
    // An empty line is reported where it is, not at the end of its instruction.
    let same = |ours: &(&str, usize), theirs: &(&str, usize)| {
        ours.0 == theirs.0 && (ours.0 == "NoEmptyContinuation" || is_line(&file.source, ours.1, theirs.1))
    };
    let missing: Vec<_> = theirs.iter().filter(|theirs| !ours.iter().any(|ours| same(ours, theirs))).collect();
    let extra: Vec<_> = ours.iter().filter(|ours| !theirs.iter().any(|theirs| same(ours, theirs))).collect();
    (!missing.is_empty() || !extra.is_empty()).then(|| format!("missing {missing:?}, extra {extra:?}"))
}

/// Returns the start of the instruction that holds a place.
fn instruction_at(file: &File, place: u32) -> u32 {
    instructions(file).map(|instruction| instruction.span.start).filter(|start| *start <= place).max().unwrap_or_default()
}

fn instructions(file: &File) -> impl Iterator<Item = &Instruction> {
    file.global_args.iter().chain(file.stages.iter().flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.instructions)))
}

/// What the graph would know, as far as names tell: the stages whose base stage sets a SHELL. The findings were
/// recorded by BuildKit's own lint command, which looks at all stages, built or not.
fn facts(file: &File) -> Vec<StageFacts> {
    let mut facts: Vec<StageFacts> = Vec::new();
    for (at, stage) in file.stages.iter().enumerate() {
        let image = default_value(file, &stage.from.image.value);
        let base = file.stages[..at].iter().rposition(|earlier| earlier.name.as_deref() == Some(&image));
        let base_has_shell = base.is_some_and(|base| {
            let sets = file.stages[base].instructions.iter().any(|instruction| matches!(instruction.kind, Kind::Shell(_)));
            sets || facts[base].base_has_shell
        });
        facts.push(StageFacts { built: true, base_has_shell });
    }
    facts
}

/// Replaces a name that is one variable by its global default.
fn default_value(file: &File, image: &str) -> String {
    let Some(name) = image.strip_prefix('$') else { return image.to_owned() };
    let name = name.trim_matches(['{', '}']);
    let mut declared = file.global_args.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Arg(list) => list.iter().find(|argument| argument.name.value == name),
        _ => None,
    });
    declared
        .next_back()
        .and_then(|argument| argument.default.as_ref())
        .map_or(image.to_owned(), |value| value.value.trim_matches(['"', '\'']).to_owned())
}

const OF_THE_TEXT: [Rule; 14] = [
    Rule::StageNameCasing,
    Rule::FromAsCasing,
    Rule::NoEmptyContinuation,
    Rule::ConsistentInstructionCasing,
    Rule::DuplicateStageName,
    Rule::ReservedStageName,
    Rule::JSONArgsRecommended,
    Rule::MaintainerDeprecated,
    Rule::MultipleInstructionsDisallowed,
    Rule::LegacyKeyValueFormat,
    Rule::SecretsUsedInArgOrEnv,
    Rule::InvalidDefinitionDescription,
    Rule::ExposeProtoCasing,
    Rule::ExposeInvalidFormat,
];

/// BuildKit's parse tree beside ours.
mod tree {
    use super::*;

    pub fn compare(file: &File, row: &Value) -> Option<String> {
        let theirs = row["tree"]["children"].as_array()?;
        let ours: Vec<&Instruction> = instructions(file).collect();
        if ours.len() != theirs.len() {
            return Some(format!("{} instructions; BuildKit: {}", ours.len(), theirs.len()));
        }
        ours.iter().zip(theirs).find_map(|(ours, theirs)| node(file, ours, theirs))
    }

    fn node(file: &File, ours: &Instruction, theirs: &Value) -> Option<String> {
        let different =
            |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| Some(format!("{what}: {ours:?}; BuildKit: {theirs:?}"));
        let name = theirs["value"].as_str().unwrap_or_default();
        if ours.name.value != name {
            return different("name", &ours.name.value, &name);
        }
        let heredocs = theirs["heredocs"].as_array().cloned().unwrap_or_default();
        let mut text = theirs["original"].as_str().unwrap_or_default().trim().to_owned();
        for heredoc in &heredocs {
            text += &format!("\n{}{}", heredoc["content"].as_str().unwrap_or_default(), heredoc["name"].as_str().unwrap_or_default());
        }
        if ours.text != text {
            return different("text", &ours.text, &text);
        }
        let first = theirs["lines"][0].as_u64().unwrap_or_default() as usize;
        if !theirs["lines"].is_null() && !is_line(&file.source, file.source.line(ours.span.start), first) {
            return different("line", &file.source.line(ours.span.start), &first);
        }
        let theirs_args: Vec<String> = args(theirs);
        let ours_args = our_args(file, ours);
        let same = match &ours.kind {
            Kind::Onbuild(onbuild) if onbuild.trigger.is_none() => true,
            Kind::Healthcheck(_) => ours_args.iter().map(|arg| arg.to_uppercase()).eq(theirs_args.iter().map(|arg| arg.to_uppercase())),
            _ => ours_args == theirs_args,
        };
        if !same {
            return different("arguments", &ours_args, &theirs_args);
        }
        let comments: Vec<String> = theirs["prev_comment"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str())
            .map(|text| text.trim_start_matches('#').trim().to_owned())
            .collect();
        let ours_comments: Vec<String> = ours.comments.iter().map(|text| text.trim_start_matches('#').trim().to_owned()).collect();
        if ours_comments != comments {
            return different("comments", &ours_comments, &comments);
        }
        None
    }

    /// The arguments of a node; those of an ONBUILD trigger are flattened into one list.
    fn args(node: &Value) -> Vec<String> {
        let mut list = Vec::new();
        for arg in node["args"].as_array().into_iter().flatten() {
            match arg.as_str() {
                Some(text) => list.push(text.to_owned()),
                None => {
                    let child = &arg["children"][0];
                    list.push(child["value"].as_str().unwrap_or_default().to_owned());
                    list.extend(args(child));
                }
            }
        }
        list
    }

    pub fn our_args(file: &File, instruction: &Instruction) -> Vec<String> {
        let command = |command: &CommandLine| match command {
            CommandLine::Exec(words) => words.value.clone(),
            CommandLine::Shell(text) if text.value.is_empty() => Vec::new(),
            CommandLine::Shell(text) => vec![text.value.clone()],
        };
        let words = |words: &[Word]| words.iter().map(|word| word.value.clone()).collect();
        let pairs = |pairs: &[Pair]| {
            pairs
                .iter()
                .flat_map(|pair| [pair.key.value.clone(), pair.value.value.clone(), if pair.legacy { "" } else { "=" }.to_owned()])
                .collect()
        };
        let copy = |copy: &CopyArgs| {
            let source = |source: &CopyArg| match source {
                CopyArg::Path(word) => word.value.clone(),
                CopyArg::Heredoc(heredoc) => file.source.text()[heredoc.span.start as usize..heredoc.span.end as usize].to_owned(),
            };
            copy.sources.iter().map(source).chain(copy.dest.iter().map(|dest| dest.value.clone())).collect()
        };
        match &instruction.kind {
            Kind::From(from) => [Some(&from.image), from.as_keyword.as_ref(), from.alias.as_ref()]
                .into_iter()
                .flatten()
                .map(|word| word.value.clone())
                .collect(),
            Kind::Run(run) => command(&run.command),
            Kind::Cmd(line) | Kind::Entrypoint(line) => command(line),
            Kind::Shell(words) => words.clone(),
            Kind::Env(list) | Kind::Label(list) => pairs(list),
            Kind::Arg(list) => list
                .iter()
                .map(|arg| arg.default.as_ref().map_or(arg.name.value.clone(), |default| format!("{}={}", arg.name.value, default.value)))
                .collect(),
            Kind::Copy(args) | Kind::Add(args) => copy(args),
            Kind::Workdir(word) | Kind::User(word) | Kind::StopSignal(word) | Kind::Maintainer(word) => vec![word.value.clone()],
            Kind::Volume(list) | Kind::Expose(list) => words(list),
            Kind::Healthcheck(check) => match check.test[0].as_str() {
                "CMD-SHELL" => vec!["CMD".to_owned(), check.test[1].clone()],
                _ => check.test.clone(),
            },
            Kind::Onbuild(onbuild) => match &onbuild.trigger {
                Some(trigger) => std::iter::once(trigger.name.value.clone()).chain(our_args(file, trigger)).collect(),
                None => Vec::new(),
            },
        }
    }
}

/// The digest of BuildKit's printed parse tree, which is recorded for all files.
mod dump {
    use std::fmt::Write as _;

    use sha2::{Digest, Sha256};

    use super::*;

    /// Returns the text when its digest is another.
    pub fn compare(text: String, row: &Value) -> Option<String> {
        let digest = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        (row["dump_sha256"] != digest).then_some(text)
    }

    /// Prints a file; none when it holds an invalid trigger, or flags with quotes or escapes.
    pub fn print(file: &File) -> Option<String> {
        let mut text = String::new();
        instructions(file).try_for_each(|instruction| node(file, instruction, &mut text))?;
        Some(text)
    }

    /// Prints `(name ["--flag"] "argument")` and a line end; none when it can't.
    fn node(file: &File, instruction: &Instruction, text: &mut String) -> Option<()> {
        let _ = write!(text, "({}", instruction.name.value.to_lowercase());
        flags(instruction, text)?;
        if let Kind::Onbuild(onbuild) = &instruction.kind {
            text.push(' ');
            node(file, onbuild.trigger.as_ref()?, text)?;
            text.truncate(text.trim_end().len());
        } else {
            let mut words = tree::our_args(file, instruction);
            if let Kind::Healthcheck(_) = instruction.kind {
                // Our type does not keep how NONE or CMD was spelt.
                let spelt = instruction.text.split_whitespace().skip(1).find(|word| !word.starts_with("--"))?;
                words[0] = spelt.to_owned();
            }
            for word in words {
                let _ = write!(text, " {}", quote(&word)?);
            }
        }
        text.push_str(")\n");
        Some(())
    }

    fn flags(instruction: &Instruction, text: &mut String) -> Option<()> {
        let words = instruction.text.split_whitespace().skip(1).take_while(|word| word.starts_with("--"));
        let words: Vec<&str> = words.collect();
        if words.is_empty() {
            return Some(());
        }
        if words.iter().any(|word| *word == "--" || word.contains(['"', '\'', '\\', '`'])) {
            return None;
        }
        let _ = write!(text, " [{}]", words.iter().map(|word| quote(word)).collect::<Option<Vec<_>>>()?.join(" "));
        Some(())
    }

    /// Quotes as Go does; none for characters of which it is not plain whether Go prints them.
    fn quote(word: &str) -> Option<String> {
        let mut quoted = String::from('"');
        for c in word.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\t' => quoted.push_str("\\t"),
                '\r' => quoted.push_str("\\r"),
                '\n' => quoted.push_str("\\n"),
                ' '..='~' => quoted.push(c),
                _ if c.is_alphanumeric() => quoted.push(c),
                _ => return None,
            }
        }
        quoted.push('"');
        Some(quoted)
    }
}

#[test]
fn verdicts_agree_with_buildkit() {
    let Some(folder) = corpus() else {
        eprintln!("skipped: no corpus; set PLY_CORPUS to its folder");
        return;
    };
    let reference = unpack(&folder.join("ref.tar.zst"));
    for set in ["wild", "micro", "fuzz"] {
        let files = unpack(&folder.join(format!("{set}.tar.zst")));
        let rows: Vec<Value> =
            String::from_utf8_lossy(&reference[set]).lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let compared: Vec<(&str, Comparison)> = rows
            .par_iter()
            .map(|row| {
                let file = row["file"].as_str().expect("a name");
                let bytes = files.get(file).unwrap_or_else(|| panic!("{set}/{file} is missing"));
                (file, compare(row, bytes))
            })
            .collect();
        let printed = compared.iter().filter(|(_, comparison)| comparison.printed).count();
        eprintln!("{set}: {printed} whole trees compared");
        assert!(printed >= rows.len() / 3, "{set}: too few trees are compared");
        for aspect in ASPECTS {
            let of_aspect = |(file, comparison): &(&str, Comparison)| {
                let found = comparison.differences.iter().filter(|(name, _)| *name == aspect);
                found.map(|(_, what)| format!("  {set}/{file}: {what}")).collect::<Vec<_>>()
            };
            let differences: Vec<String> = compared.iter().flat_map(of_aspect).collect();
            eprintln!("{set}: {aspect}: {} of {} files differ", differences.len(), rows.len());
            for difference in differences.iter().take(20) {
                eprintln!("{difference}");
            }
            assert!(differences.len() <= ALLOWED, "{set}: {aspect}");
        }
    }
}
