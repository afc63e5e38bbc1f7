//! What must hold for every text, and what `parse_trigger` does.

use proptest::prelude::*;

use super::instruction::{CopyArg, Kind};
use super::source::Source;
use super::{format, parse, parse_trigger};

/// Pieces of which a mutant is made: all that has a meaning to some part of the parser.
const PIECES: &[&str] = &[
    "FROM a AS b\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "LABEL ",
    "ARG ",
    "CMD ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "SHELL ",
    "VOLUME ",
    "EXPOSE ",
    "# check=skip=A;",
    "# escape=`\n",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\u{A0}",
    "\\",
    "`",
    "\"",
    "'",
    "$",
    "${",
    "}",
    ":-",
    "/",
    "<<",
    "<<-",
    "EOF",
    "\nEOF\n",
    "--",
    "--mount=",
    "--from=",
    "[",
    "]",
    ",",
    "\\u00e9",
    "\\ud800",
    "=",
    "a",
    "é",
    "日",
    "\u{FEFF}",
    "\0",
    "#",
    "NONE",
    "CMD",
];

fn text() -> impl Strategy<Value = String> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat());
    let after_from = prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| format!("FROM a\n{}", pieces.concat()));
    prop_oneof![1 => bytes, 2 => pieces, 3 => after_from]
}

/// Returns every span in a value, by way of its debug text: a span that a type gains later is found as well.
fn spans(debug: &str) -> Vec<(usize, usize)> {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>();
    let found =
        debug.split("Span { start: ").skip(1).filter_map(|rest| Some((number(rest).ok()?, number(rest.split_once("end: ")?.1).ok()?)));
    found.collect()
}

fn assert_inside(text: &str, debug: &str) {
    for (start, end) in spans(debug) {
        assert!(text.get(start..end).is_some(), "{start}..{end} is no part of {text:?}: {debug}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_parses_or_is_refused_at_a_place_inside_it(text in text()) {
        let source = Source::new("Dockerfile", text.clone());
        match parse(&source) {
            Ok(file) => assert_inside(&text, &format!("{:?} {:?} {:?} {:?}", file.directives, file.global_args, file.stages, file.warnings.iter().map(|found| found.span).collect::<Vec<_>>())),
            Err(error) => assert_inside(&text, &format!("{:?}", error.span)),
        }
    }

    #[test]
    fn any_trigger_parses_or_is_refused_at_a_place_inside_it(text in text()) {
        match parse_trigger(&text, '\\') {
            Ok(instruction) => assert_inside(&text, &format!("{instruction:?}")),
            Err(error) => assert_inside(&text, &format!("{:?}", error.span)),
        }
    }

    #[test]
    fn every_byte_belongs_to_one_part_and_printing_keeps_the_meaning(text in text()) {
        let source = Source::new("Dockerfile", text.clone());
        let Ok(file) = parse(&source) else {
            prop_assert!(format::format(&source).is_err());
            return Ok(());
        };
        let parts = format::format(&source).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(parts.iter().map(|part| part.before).collect::<String>(), text);
        let printed = format::text(&parts);
        let again = Source::new("Dockerfile", printed.clone());
        let parsed = parse(&again).map_err(|error| TestCaseError::fail(format!("{error}: {printed:?}")))?;
        prop_assert!(format::is_same(&file, &parsed), "{:?}", printed);
        let twice = format::format(&again).map(|parts| format::text(&parts)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(twice, printed);
    }

    #[test]
    fn what_onbuild_stores_parses_to_the_same_instruction(text in text()) {
        let source = Source::new("Dockerfile", format!("FROM a\nONBUILD {}", text.replace('`', "")));
        let Ok(file) = parse(&source) else { return Ok(()) };
        let Some(Kind::Onbuild(onbuild)) = file.stages[0].instructions.first().map(|instruction| &instruction.kind) else { return Ok(()) };
        let again = parse_trigger(&onbuild.text, '\\');
        match &onbuild.trigger {
            Some(trigger) => prop_assert_eq!(&trigger.text, &again.map_err(|error| TestCaseError::fail(error.to_string()))?.text),
            None => prop_assert!(again.is_err()),
        }
    }
}

#[test]
fn a_trigger_has_a_source_of_its_own_and_its_bodies() {
    let trigger = parse_trigger("COPY --from=b <<E x /y\nbody\nE", '\\').expect("a trigger");
    let Kind::Copy(copy) = trigger.kind else { panic!("not COPY: {trigger:?}") };
    let [CopyArg::Heredoc(heredoc), CopyArg::Path(path)] = copy.sources.as_slice() else { panic!("other sources: {copy:?}") };
    assert_eq!((heredoc.name.as_str(), heredoc.body.as_str(), path.value.as_str()), ("E", "body\n", "x"));
}

#[test]
fn a_trigger_is_one_instruction() {
    let cases = [
        ("", "ONBUILD:1:1: the ONBUILD trigger is empty"),
        ("# x\n", "ONBUILD:1:1: the ONBUILD trigger is empty"),
        ("RUN a\nRUN b", "ONBUILD:2:1: an ONBUILD trigger must be a single instruction"),
        ("FROM a", "ONBUILD:1:1: FROM isn't allowed as an ONBUILD trigger"),
        ("WHATEVER x", "ONBUILD:1:1: unknown instruction `WHATEVER`"),
        ("RUN <<E\n", "ONBUILD:1:5: unterminated heredoc: no line `E` follows"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_trigger(text, '\\').map_err(|error| error.to_string()), Err(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn hostile_lines_take_linear_time() {
    // Quadratic code would take minutes here; the shapes are those that nest, repeat, or never close.
    let many = 100_000;
    let texts = [
        format!("RUN cat <<EOF {}\nEOF\n", "${a:-".repeat(many)),
        format!("RUN cat <<EOF {}{}\nEOF\n", "${a:-".repeat(many), "}".repeat(many)),
        format!("RUN {}\n", "[".repeat(many)),
        format!("CMD [\"\"{}\n", ",\"a\"".repeat(many)),
        format!("ENV {}\n", "a=\"b".repeat(many)),
        format!("COPY {}x\n", "--exclude=x ".repeat(many)),
        format!("{}\n", "ONBUILD ".repeat(many)),
        format!("RUN true{}\n", " \\\n && x".repeat(many)),
        "RUN <<E\n".repeat(many),
        format!(
            "COPY {} /x/\n{}",
            (0..20_000).map(|i| format!("<<E{i} ")).collect::<String>(),
            (0..20_000).map(|i| format!("E{i}\n")).collect::<String>()
        ),
    ];
    for text in texts {
        let source = Source::new("Dockerfile", format!("FROM a\n{text}"));
        if let Err(error) = parse(&source) {
            assert!(error.message.len() < 300, "{}", error.message.len());
        }
    }
}
