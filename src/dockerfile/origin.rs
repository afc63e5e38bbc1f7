//! Which line of a Dockerfile a step's variable, user or directory comes from.
//!
//! For messages only: nothing is expanded, the latest instruction above the step that sets the thing is meant. What comes
//! from a base image or the command line has no line.

use super::instruction::{File, Instruction, Kind, Stage};

/// What a step has from an earlier instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<'a> {
    /// A variable: ENV or ARG.
    Variable(&'a str),
    /// USER.
    User,
    /// WORKDIR.
    Directory,
    /// SHELL.
    Shell,
}

/// Returns the line (from 1) that a step in a stage (by its place in the file) has a setting from. `before` is where the
/// step's instruction begins; none: the stage's end.
pub fn line_of(file: &File, stage: usize, before: Option<u32>, setting: Setting<'_>) -> Option<usize> {
    let mut stage = stage;
    let mut before = before;
    loop {
        let here = file.stages.get(stage)?;
        let above = here.instructions.iter().filter(|i| before.is_none_or(|end| i.span.start < end));
        if let Some(found) = above.rev().find_map(|i| start_of(file, i, setting)) {
            return Some(file.source.line(found));
        }
        stage = base_of(file, stage, here)?;
        before = None;
    }
}

/// The stage that a stage starts from.
fn base_of(file: &File, stage: usize, here: &Stage) -> Option<usize> {
    let image = here.from.image.value.to_lowercase();
    file.stages[..stage].iter().rposition(|s| s.name.as_deref() == Some(&image))
}

fn start_of(file: &File, instruction: &Instruction, setting: Setting<'_>) -> Option<u32> {
    match (&instruction.kind, setting) {
        (Kind::Env(pairs), Setting::Variable(name)) => pairs.iter().rfind(|p| p.key.value == name).map(|p| p.key.span.start),
        (Kind::Arg(declared), Setting::Variable(name)) => {
            let own = declared.iter().rfind(|d| d.name.value == name)?;
            // Without a default it has the value that stands above all stages.
            let global = |name: &str| file.global_args.iter().rev().find_map(|i| start_of(file, i, Setting::Variable(name)));
            let above = if own.default.is_none() && instruction.span.start > first_stage(file) { global(name) } else { None };
            Some(above.unwrap_or(own.name.span.start))
        }
        (Kind::User(_), Setting::User) | (Kind::Workdir(_), Setting::Directory) | (Kind::Shell(_), Setting::Shell) => {
            Some(instruction.span.start)
        }
        _ => None,
    }
}

fn first_stage(file: &File) -> u32 {
    file.stages.first().map_or(u32::MAX, |s| s.instruction.span.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;
    use crate::dockerfile::source::Source;

    #[test]
    fn a_setting_has_the_line_of_the_last_instruction_above_that_makes_it() {
        let text = "ARG V=1\nARG W=1\nFROM a AS one\nARG V\nENV A=1 \\\n  B=2\nUSER u\nFROM ONE\nARG W=2\nWORKDIR /d\nENV A=3\nRUN x\nENV A=4\n\
                    SHELL [\"sh\"]\nRUN y\n";
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let run = |n: usize| text.match_indices("RUN").nth(n).map(|(at, _)| at as u32);
        for (stage, before, setting, want) in [
            (1, run(0), Setting::Variable("A"), Some(11)),
            (1, run(1), Setting::Variable("A"), Some(13)),
            (1, run(0), Setting::Variable("B"), Some(6)),
            (1, run(0), Setting::Variable("V"), Some(1)),
            (1, run(0), Setting::Variable("W"), Some(9)),
            (1, run(0), Setting::Variable("PATH"), None),
            (1, run(0), Setting::User, Some(7)),
            (1, run(0), Setting::Directory, Some(10)),
            (0, None, Setting::Directory, None),
            (1, run(0), Setting::Shell, None),
            (1, run(1), Setting::Shell, Some(14)),
            (9, None, Setting::User, None),
        ] {
            assert_eq!(line_of(&file, stage, before, setting), want, "{stage} {before:?} {setting:?}");
        }
    }
}
