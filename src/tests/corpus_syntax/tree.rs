//! BuildKit's parse tree, recorded for the short files, beside ours: node by node, comments and lines too.

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
