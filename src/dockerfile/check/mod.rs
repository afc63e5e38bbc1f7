//! Build checks: the rules, how they are worded, and those that the text alone decides.
//!
//! The other rules need variables, a stage's state, base images or the context; the graph finds them and asks
//! [`enabled`] with the same configuration. [`of_text`] looks at every stage, the graph at those that are built.

mod text;

pub(super) use text::of_text;

use super::instruction::CheckConfig;

/// A build check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// Returns the name that directives and reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JSONArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::UndefinedVar => "UndefinedVar",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// Returns what the rule is for, in one sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "stage names should be lowercase",
            Self::FromAsCasing => "the `as` keyword should match the case of the `from` keyword",
            Self::NoEmptyContinuation => "empty continuation lines will become errors in a future release",
            Self::ConsistentInstructionCasing => "all instructions within the Dockerfile should use the same casing",
            Self::DuplicateStageName => "stage names should be unique",
            Self::ReservedStageName => "reserved words should not be used as stage names",
            Self::JSONArgsRecommended => "JSON arguments make ENTRYPOINT and CMD receive signals",
            Self::MaintainerDeprecated => "MAINTAINER is deprecated, a label says the same",
            Self::UndefinedArgInFrom => "FROM must use declared ARGs",
            Self::WorkdirRelativePath => "a relative WORKDIR without an absolute one before it changes with the base image",
            Self::UndefinedVar => "variables should be defined before their use",
            Self::MultipleInstructionsDisallowed => "only the last of several such instructions in a stage is used",
            Self::LegacyKeyValueFormat => "the key/value format with white space between should not be used",
            Self::InvalidBaseImagePlatform => "the base image's platform does not match the target platform",
            Self::RedundantTargetPlatform => "$TARGETPLATFORM is the default platform of FROM",
            Self::SecretsUsedInArgOrEnv => "secrets should not be used in ARG or ENV: they stay in the image",
            Self::InvalidDefaultArgInFrom => "a global ARG's default gives an empty or invalid base image name",
            Self::FromPlatformFlagConstDisallowed => "FROM --platform should not use a constant value",
            Self::CopyIgnoredFile => "the file is excluded by the ignore file",
            Self::InvalidDefinitionDescription => "a comment above FROM or ARG should describe it: `# <name> <description>`",
            Self::ExposeProtoCasing => "protocols in EXPOSE should be lowercase",
            Self::ExposeInvalidFormat => "EXPOSE should hold no IP address and no host port",
        }
    }

    /// Tells whether the rule runs only when asked for.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}

/// Tells whether findings of `rule` are wanted; `skipped` are the instruction's own `skip_checks`.
pub fn enabled(rule: Rule, config: &CheckConfig, skipped: &[String]) -> bool {
    let listed = |list: &[String]| list.iter().any(|name| name == rule.name());
    if rule.is_experimental() {
        return config.experimental_all || listed(&config.experimental);
    }
    !config.skip_all && !listed(&config.skip) && !listed(skipped) && !skipped.iter().any(|name| name == "all")
}

/// Every rule.
pub const ALL: [Rule; 22] = {
    use Rule::*;
    [
        StageNameCasing,
        FromAsCasing,
        NoEmptyContinuation,
        ConsistentInstructionCasing,
        DuplicateStageName,
        ReservedStageName,
        JSONArgsRecommended,
        MaintainerDeprecated,
        UndefinedArgInFrom,
        WorkdirRelativePath,
        UndefinedVar,
        MultipleInstructionsDisallowed,
        LegacyKeyValueFormat,
        InvalidBaseImagePlatform,
        RedundantTargetPlatform,
        SecretsUsedInArgOrEnv,
        InvalidDefaultArgInFrom,
        FromPlatformFlagConstDisallowed,
        CopyIgnoredFile,
        InvalidDefinitionDescription,
        ExposeProtoCasing,
        ExposeInvalidFormat,
    ]
};

/// Returns what is to say about one port of EXPOSE, its variables expanded.
pub fn expose(port: &str) -> Vec<(Rule, String)> {
    let mut findings = Vec::new();
    let (host, container) = port.rsplit_once(':').map_or((None, port), |(host, container)| (Some(host), container));
    if let Some((_, protocol)) = container.split_once('/')
        && protocol != protocol.to_lowercase()
    {
        findings.push((Rule::ExposeProtoCasing, format!("defined protocol `{port}` in EXPOSE instruction should be lowercase")));
    }
    if host.is_some_and(|host| host.bytes().any(|b| b != b':')) {
        let message = format!("EXPOSE instruction should not define an IP address or host-port mapping, found `{port}`");
        findings.push((Rule::ExposeInvalidFormat, message));
    }
    findings
}

/// Tells whether a variable's name sounds like a secret: a word of it does, and none says that it is public.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const PUBLIC: [&str; 3] = ["public", "file", "version"];
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(&SECRET) && !has(&PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;
    use crate::dockerfile::source::Source;

    fn found(text: &str) -> Vec<(&'static str, usize)> {
        let source = Source::new("Dockerfile", text);
        let file = parse(&source).unwrap_or_else(|error| panic!("{error}"));
        file.warnings.iter().map(|found| (found.rule.unwrap_or_default(), source.line(found.span.start))).collect()
    }

    #[test]
    fn finds_what_the_text_alone_decides() {
        let cases: [(&str, &[(&str, usize)]); 11] = [
            ("FROM a AS Base\n", &[("StageNameCasing", 1)]),
            ("FROM a as base\n", &[("FromAsCasing", 1)]),
            ("from a as base\n", &[]),
            ("FROM a\nRUN a \\\n\n b\n", &[("NoEmptyContinuation", 3)]),
            ("FROM a\nRun b\nUSER c\n", &[("ConsistentInstructionCasing", 2)]),
            ("FROM a AS b\nFROM a AS B\n", &[("StageNameCasing", 2), ("DuplicateStageName", 2)]),
            ("FROM a AS context\n", &[("ReservedStageName", 1)]),
            ("FROM a\nMAINTAINER b\n", &[("MaintainerDeprecated", 2)]),
            ("FROM a\n# no name\nARG b\n", &[]),
            ("# check=experimental=all\nFROM a\n# no name\nARG b\n# b is b\nARG b\n", &[("InvalidDefinitionDescription", 4)]),
            ("FROM a\n# check=experimental=InvalidDefinitionDescription\nARG b\n", &[("InvalidDefinitionDescription", 3)]),
        ];
        for (text, expected) in cases {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn leaves_out_what_is_switched_off() {
        let cases: [(&str, &[(&str, usize)]); 6] = [
            ("# check=skip=all\nFROM a as b\nMAINTAINER c\n", &[]),
            ("# check=skip=FromAsCasing, CMD\nFROM a as b\nMAINTAINER c\n", &[("MaintainerDeprecated", 3)]),
            ("# check=skip=fromascasing\nFROM a as b\n", &[("FromAsCasing", 2)]),
            ("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER b\nMAINTAINER d\n", &[("MaintainerDeprecated", 4)]),
            ("FROM a\n# check=skip=all\n\nMAINTAINER b\n", &[]),
            ("FROM a\n# check=nonsense\nMAINTAINER b\n", &[("MaintainerDeprecated", 3)]),
        ];
        for (text, expected) in cases {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn knows_names_that_sound_secret() {
        for (name, expected) in [
            ("API_KEY", true),
            ("auth", true),
            ("db_Password_x", true),
            ("APIKEY", true),
            ("PUBLIC_KEY", false),
            ("TOKEN_FILE", false),
            ("KEYBOARD", false),
            ("MONKEY", false),
            ("", false),
        ] {
            assert_eq!(is_secret(name), expected, "{name}");
        }
    }

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
