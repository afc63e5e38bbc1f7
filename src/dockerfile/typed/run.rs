//! RUN: its flags, its command in shell or exec form, its heredocs.
//!
//! A `--mount` is only split into its fields here; what they mean is `graph`'s.

use super::Reader;
use super::flags::{self, Takes};
use crate::dockerfile::csv;
use crate::dockerfile::instruction::{Heredoc, MountFlag, Run, Word};
use crate::dockerfile::source::Diagnostic;
use crate::dockerfile::suggest;

const RUN: [(&str, Takes); 4] = [("mount", Takes::Texts), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::Texts)];
const NETWORKS: [&str; 3] = ["default", "none", "host"];
const SECURITIES: [&str; 2] = ["sandbox", "insecure"];

impl Reader<'_, '_> {
    pub(super) fn run(&self, heredocs: Vec<Heredoc>) -> Result<Run, Diagnostic> {
        let flags = flags::read(self.source, &self.shape.flags, &RUN)?;
        let network = flags.written("network");
        let security = flags.written("security");
        self.one_of(network.as_ref(), "network mode", &NETWORKS)?;
        self.one_of(security.as_ref(), "security mode", &SECURITIES)?;
        let mounts = flags.texts("mount").iter().map(|flag| self.mount(flag)).collect::<Result<_, _>>()?;
        let devices = flags.texts("device");
        for device in &devices {
            csv::fields(&device.value).map_err(|reason| self.malformed("--device", device, reason))?;
        }
        Ok(Run { command: self.command(), heredocs, mounts, network, security, devices })
    }

    fn one_of(&self, value: Option<&Word>, what: &str, known: &[&'static str]) -> Result<(), Diagnostic> {
        let Some(value) = value.filter(|value| !known.contains(&value.value.as_str())) else { return Ok(()) };
        let error = Diagnostic::error(self.source, value.span, format!("invalid {what} `{}`: must be {}", value.value, known.join(" or ")));
        Err(match suggest::nearest(&value.value, known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("it is one of {}", known.join(", "))),
        })
    }

    /// Splits a mount; its keys and values are checked when variables are known, but for `from`.
    fn mount(&self, flag: &Word) -> Result<MountFlag, Diagnostic> {
        let split = csv::fields(&flag.value).map_err(|reason| self.malformed("--mount", flag, reason))?;
        let fields: Vec<(String, Option<String>)> = split
            .into_iter()
            .map(|field| match field.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (field, None),
            })
            .collect();
        let variable = |value: &str| value.find('$').is_some_and(|at| at + 1 < value.len());
        let from = fields.iter().find(|(key, value)| key.eq_ignore_ascii_case("from") && value.as_deref().is_some_and(variable));
        match from {
            None => Ok(MountFlag { fields, span: flag.span }),
            Some((_, value)) => {
                let message = format!("variables are not expanded in the `from` of a mount: `{}`", value.as_deref().unwrap_or_default());
                Err(Diagnostic::error(self.source, flag.span, message)
                    .hint("define a stage with `FROM $VARIABLE AS name` and mount from that"))
            }
        }
    }

    fn malformed(&self, flag: &str, value: &Word, reason: csv::Malformed) -> Diagnostic {
        let hint = "a field that holds a comma or a quote stands in double quotes as a whole: \"target=/a,b\"";
        Diagnostic::error(self.source, value.span, format!("invalid {flag} `{}`: {reason}", value.value)).hint(hint)
    }
}
