//! The digest of BuildKit's printed parse tree, which is recorded for all files. It covers flags, which the tree
//! of `tree.rs` does not; what it can't print (odd characters, quoted flags) is left out.

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
