//! Rewritings of a Dockerfile: what may be moved where, by what the text says.
//!
//! Pure. Each is a rule that is applied to every Dockerfile of the history that it fits, and leaves the others alone.

use crate::dockerfile::instruction::{CommandLine, Kind, Run};

use super::sheet::{Placed, Sheet, context_copy, paths};
use super::shell::{self, Install};

/// A way to rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// In a stage: manifests are copied and installed before the first broad copy.
    InstallFirst {
        /// The stage.
        stage: String,
    },
    /// In a stage: RUNs that look at no copied file go before the copies.
    HoistRuns {
        /// The stage.
        stage: String,
    },
    /// An ARG, ENV or LABEL goes down to where its name is first mentioned.
    SinkVariable {
        /// The stage.
        stage: String,
        /// The variable.
        name: String,
    },
    /// In a stage: of copies that follow each other, those that change seldom come first.
    OrderCopies {
        /// The stage.
        stage: String,
        /// Titles (`COPY a b`) with how often each changed.
        churn: Vec<(String, u64)>,
    },
    /// Copies get `--link`.
    Link {
        /// The stage.
        stage: String,
    },
}

/// What came of a move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// The new text.
    pub text: String,
    /// A RUN that was parted: the new titles' commands, and the old one.
    pub parted: Option<([String; 2], String)>,
}

impl Move {
    /// Applies the move; none: it doesn't fit this text. `exists`: whether a path is in the context.
    pub fn apply(&self, text: &str, exists: &mut dyn FnMut(&str) -> bool) -> Option<Moved> {
        let sheet = Sheet::of(text)?;
        let plain = |sheet: Option<Sheet>| sheet.map(|sheet| Moved { text: sheet.text(), parted: None });
        let moved = match self {
            Self::InstallFirst { stage } => install_first(sheet, stage, exists),
            Self::HoistRuns { stage } => plain(hoist_runs(sheet, stage)),
            Self::SinkVariable { stage, name } => plain(sink_variable(sheet, stage, name)),
            Self::OrderCopies { stage, churn } => plain(order_copies(sheet, stage, churn)),
            Self::Link { stage } => plain(link(sheet, stage)),
        }?;
        (moved.text != text).then_some(moved)
    }
}

/// Where the broad copies of a stage and its install are.
struct Found {
    /// Places of the copies that need not come before the install, in order.
    copies: Vec<usize>,
    install: usize,
    /// The commands up to the install, and after it.
    commands: (Vec<String>, Vec<String>),
    what: Install,
}

fn install_first(mut sheet: Sheet, stage: &str, exists: &mut dyn FnMut(&str) -> bool) -> Option<Moved> {
    let found = find_install(&sheet, stage)?;
    let first = *found.copies.first()?;
    let manifests = missing_manifests(&sheet, stage, &found, exists)?;
    let mut parted = None;
    let run = sheet.pieces[found.install].clone();
    if !found.commands.1.is_empty() {
        let (before, after) = (found.commands.0.join(" && "), found.commands.1.join(" && "));
        let flags = flags_of(&run.text)?;
        let whole = found.commands.0.iter().chain(&found.commands.1).cloned().collect::<Vec<_>>().join(" && ");
        parted = Some(([before.clone(), after.clone()], whole));
        let rest = super::sheet::Piece { text: format!("RUN {flags}{}\n", after.replace(" && ", " \\\n    && ")), of: run.of.clone() };
        sheet.pieces[found.install].text = format!("RUN {flags}{}\n", before.replace(" && ", " \\\n    && "));
        sheet.pieces.insert(found.install + 1, rest);
    }
    // The copies go behind the install, in their order.
    for (moved, copy) in found.copies.iter().enumerate() {
        sheet.shift(copy - moved, found.install + 1);
    }
    if let Some((sources, dest)) = manifests {
        let copy = sheet_copy_flags(&sheet, &found, first);
        let text = format!("COPY {copy}{} {dest}\n", sources.join(" "));
        sheet.pieces.insert(first, super::sheet::Piece { text, of: None });
    }
    Some(Moved { text: sheet.text(), parted })
}

/// Finds the first install of a stage that comes after a copy of more than manifests.
fn find_install(sheet: &Sheet, stage: &str) -> Option<Found> {
    let mut copies: Vec<usize> = Vec::new();
    let mut workdir_between = false;
    for at in sheet.stage(stage) {
        match sheet.pieces[at].kind()? {
            Kind::Run(run) => {
                let commands = commands(run)?;
                let install = commands.iter().position(|c| shell::install(c).is_some());
                let Some(install) = install.filter(|n| commands[..*n].iter().all(|c| shell::needs_no_files(c))) else {
                    // A RUN that may look at the files: they have to be there.
                    match commands.iter().all(|c| shell::needs_no_files(c)) || copies.is_empty() {
                        true => continue,
                        false => return None,
                    }
                };
                let what = shell::install(&commands[install])?;
                // Further installs of other tools in the same RUN would need manifests of their own.
                let last = install + 1 + commands[install + 1..].iter().take_while(|c| shell::needs_no_files(c)).count();
                if copies.is_empty() {
                    continue;
                }
                let commands = (commands[..last].to_vec(), commands[last..].to_vec());
                return (!workdir_between).then_some(Found { copies, install: at, commands, what });
            }
            kind @ (Kind::Copy(_) | Kind::Add(_)) => {
                let Some(copy) = context_copy(kind) else {
                    // From another stage, or from elsewhere: it may be what is installed.
                    if !copies.is_empty() {
                        return None;
                    }
                    continue;
                };
                let is_manifest = |path: &str| {
                    let name = path.rsplit('/').next().unwrap_or(path);
                    name.contains("requirements") || shell::is_manifest(name)
                };
                if !paths(copy).all(is_manifest) {
                    copies.push(at);
                }
            }
            Kind::Workdir(_) | Kind::Shell(_) => workdir_between |= !copies.is_empty(),
            _ => {}
        }
    }
    None
}

/// The manifests that the install reads and that no earlier copy brings, and where to; none: it can't be told.
#[allow(clippy::type_complexity)] // an optional answer to an optional question
fn missing_manifests(
    sheet: &Sheet,
    stage: &str,
    found: &Found,
    exists: &mut dyn FnMut(&str) -> bool,
) -> Option<Option<(Vec<String>, String)>> {
    let earlier = |at: &usize| *at < found.install && !found.copies.contains(at);
    let earlier: Vec<String> = sheet
        .stage(stage)
        .iter()
        .filter(|at| earlier(at))
        .filter_map(|at| context_copy(sheet.pieces[*at].kind()?))
        .flat_map(paths)
        .map(|path| path.trim_start_matches("./").to_owned())
        .collect();
    let names: Vec<String> = match found.what.named.is_empty() {
        true => found.what.tool.manifests.iter().map(|m| (*m).to_owned()).collect(),
        false => found.what.named.clone(),
    };
    if names.iter().any(|n| n.starts_with('/') || n.contains(['$', '*'])) {
        return None;
    }
    let brought =
        |path: &str| earlier.iter().any(|e| e == path || crate::dockerfile::ignore::path_match(e, path.as_bytes()).unwrap_or(false));
    // The copy that brings them now says where they lie and where they go.
    for at in &found.copies {
        let copy = context_copy(sheet.pieces[*at].kind()?)?;
        let [source] = paths(copy).collect::<Vec<_>>()[..] else { continue };
        let source = source.trim_start_matches("./").trim_matches('/');
        let source = if source == "." { "" } else { source };
        let dest = copy.dest.as_ref()?.value.trim_end_matches('/').to_owned();
        if source.contains(['*', '?', '[', '$']) {
            continue;
        }
        let in_context = |name: &str| if source.is_empty() { name.to_owned() } else { format!("{source}/{name}") };
        let there: Vec<String> = names.iter().map(|n| in_context(n)).filter(|p| exists(p)).collect();
        if there.is_empty() {
            continue;
        }
        let missing: Vec<String> = there.into_iter().filter(|p| !brought(p)).collect();
        // Manifests in directories would be copied flat.
        if missing.iter().any(|p| p[source.len()..].trim_start_matches('/').contains('/')) {
            return None;
        }
        let dest = if dest.is_empty() && copy.dest.as_ref()?.value.starts_with('/') { String::new() } else { dest };
        return Some((!missing.is_empty()).then(|| (missing, format!("{dest}/"))));
    }
    names.iter().filter(|n| exists(n)).all(|n| brought(n)).then_some(None)
}

/// `--chown=… ` of the copy that brought the manifests before.
fn sheet_copy_flags(sheet: &Sheet, found: &Found, first: usize) -> String {
    let at = found.install + usize::from(!found.commands.1.is_empty());
    let moved = sheet.pieces[first..=at.min(sheet.pieces.len() - 1)].iter().filter_map(|p| context_copy(p.kind()?));
    let chown = moved.filter_map(|copy| copy.chown.as_ref()).next();
    chown.map(|word| format!("--chown={} ", word.value)).unwrap_or_default()
}

fn hoist_runs(mut sheet: Sheet, stage: &str) -> Option<Sheet> {
    let places = sheet.stage(stage);
    let mut copy: Option<usize> = None;
    let mut between: Vec<String> = Vec::new();
    for at in places {
        match sheet.pieces[at].kind()? {
            Kind::Copy(_) | Kind::Add(_) => {
                copy = copy.or(Some(at));
            }
            Kind::Run(run) if copy.is_some() => {
                let fit = commands(run).is_some_and(|c| c.iter().all(|c| shell::needs_no_files(c))) && run.mounts.iter().all(is_cache);
                let text = sheet.pieces[at].text.clone();
                if fit && !between.iter().any(|name| mentions(&text, name)) {
                    let to = copy?;
                    sheet.shift(at, to);
                    copy = Some(to + 1);
                }
            }
            Kind::User(_) | Kind::Shell(_) | Kind::Workdir(_) if copy.is_some() => break,
            Kind::Arg(args) if copy.is_some() => between.extend(args.iter().map(|a| a.name.value.clone())),
            Kind::Env(pairs) if copy.is_some() => {
                // PATH and the like need no mention to matter.
                if pairs.iter().any(|p| matches!(p.key.value.as_str(), "PATH" | "LD_LIBRARY_PATH" | "DEBIAN_FRONTEND")) {
                    break;
                }
                between.extend(pairs.iter().map(|p| p.key.value.clone()));
            }
            _ => {}
        }
    }
    Some(sheet)
}

fn is_cache(mount: &crate::dockerfile::instruction::MountFlag) -> bool {
    mount.fields.iter().any(|(key, value)| key == "type" && matches!(value.as_deref(), Some("cache" | "tmpfs")))
}

fn sink_variable(mut sheet: Sheet, stage: &str, name: &str) -> Option<Sheet> {
    let places = sheet.stage(stage);
    let declares = |kind: &Kind| match kind {
        Kind::Arg(args) => args.iter().any(|a| a.name.value == name),
        Kind::Env(pairs) | Kind::Label(pairs) => pairs.iter().any(|p| p.key.value == name),
        _ => false,
    };
    let from = places.iter().position(|at| sheet.pieces[*at].kind().is_some_and(declares))?;
    let (at, kind) = (places[from], sheet.pieces[places[from]].kind()?.clone());
    let names: Vec<String> = match &kind {
        Kind::Arg(args) => args.iter().map(|a| a.name.value.clone()).collect(),
        Kind::Env(pairs) => pairs.iter().map(|p| p.key.value.clone()).collect(),
        _ => Vec::new(),
    };
    // PATH matters without being mentioned, and so do switches of package managers.
    if names.iter().any(|n| matches!(n.as_str(), "PATH" | "LD_LIBRARY_PATH" | "DEBIAN_FRONTEND" | "HOME" | "LANG")) {
        return None;
    }
    let used = |at: &&usize| names.iter().any(|n| mentions(&sheet.pieces[**at].text, n));
    let to = match places[from + 1..].iter().find(used) {
        Some(first) => *first,
        // For the image alone: behind the last instruction that makes files.
        None => {
            let makes =
                |at: &&usize| matches!(sheet.pieces[**at].kind(), Some(Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_)));
            places[from + 1..].iter().rev().find(makes)? + 1
        }
    };
    sheet.shift(at, to);
    Some(sheet)
}

fn order_copies(mut sheet: Sheet, stage: &str, churn: &[(String, u64)]) -> Option<Sheet> {
    let often = |sheet: &Sheet, at: usize| {
        let title = sheet.pieces[at].of.as_ref().map(title).unwrap_or_default();
        churn.iter().find(|(known, _)| *known == title).map_or(0, |(_, n)| *n)
    };
    let is_copy = |sheet: &Sheet, at: usize| sheet.pieces[at].kind().and_then(context_copy).is_some();
    let places = sheet.stage(stage);
    // One by one, as long as two neighbours stand in the wrong order and go to places that have nothing to do with each other.
    for _ in 0..places.len() {
        for two in places.windows(2) {
            let (a, b) = (two[0], two[1]);
            if b == a + 1 && is_copy(&sheet, a) && is_copy(&sheet, b) && often(&sheet, a) > often(&sheet, b) && apart(&sheet, a, b) {
                sheet.pieces.swap(a, b);
            }
        }
    }
    Some(sheet)
}

/// Whether two copies can't write the same files: each names one destination of its own.
fn apart(sheet: &Sheet, a: usize, b: usize) -> bool {
    let dest = |at: usize| {
        let copy = context_copy(sheet.pieces[at].kind()?)?;
        let dest = copy.dest.as_ref()?.value.clone();
        let path = dest.trim_start_matches("./").trim_end_matches('/').to_owned();
        // A destination that is a directory of many things: then the sources' names tell.
        let named: Vec<String> = paths(copy).map(|p| p.trim_end_matches('/').rsplit('/').next().unwrap_or(p).to_owned()).collect();
        Some((path, named))
    };
    let (Some((a, a_names)), Some((b, b_names))) = (dest(a), dest(b)) else { return false };
    let inside = |outer: &str, inner: &str| outer.is_empty() || outer == "." || inner == outer || inner.starts_with(&format!("{outer}/"));
    if inside(&a, &b) || inside(&b, &a) {
        return a == b
            && !a_names.iter().any(|n| b_names.contains(n) || n.contains(['*', '?', '[']) || n == ".")
            && a_names.len() + b_names.len() > 2;
    }
    true
}

fn link(mut sheet: Sheet, stage: &str) -> Option<Sheet> {
    for at in sheet.stage(stage) {
        let Some(Kind::Copy(copy)) = sheet.pieces[at].kind() else { continue };
        let named = copy.chown.as_ref().is_some_and(|c| !c.value.split(':').all(|p| p.chars().all(|c| c.is_ascii_digit())));
        if copy.link || named {
            continue;
        }
        let text = &sheet.pieces[at].text;
        let start = text.lines().take_while(|line| line.trim_start().starts_with('#')).map(|line| line.len() + 1).sum::<usize>();
        let (comments, rest) = text.split_at(start);
        let word = rest.len() - rest.trim_start().len() + "COPY".len();
        sheet.pieces[at].text = format!("{comments}{} --link{}", &rest[..word], &rest[word..]);
    }
    Some(sheet)
}

/// The commands of a RUN in shell form that are joined by `&&`; none: it is something else.
fn commands(run: &Run) -> Option<Vec<String>> {
    match &run.command {
        CommandLine::Shell(word) if run.heredocs.is_empty() => shell::chain(&word.value),
        CommandLine::Exec(words) => Some(vec![words.value.join(" ")]),
        CommandLine::Shell(_) => None,
    }
}

/// The flags of a RUN as written, with a space behind each.
fn flags_of(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.iter().map(|line| line.trim_end().trim_end_matches('\\')).collect::<Vec<_>>().join(" ");
    let rest = joined.trim_start();
    let rest = rest.get(3..).filter(|_| rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("run")))?;
    Some(rest.split_whitespace().take_while(|word| word.starts_with("--")).map(|word| format!("{word} ")).collect())
}

/// Whether a text mentions a name as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| !word(text[..at].chars().next_back()) && !word(text[at + name.len()..].chars().next()))
}

/// Returns an instruction on one line, as steps are titled.
fn title(placed: &Placed) -> String {
    placed.instruction.text.split_whitespace().collect::<Vec<_>>().join(" ")
}
