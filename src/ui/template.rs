//! The part of Go's templates that people use with `--format`: `{{.ID}}`, `{{json .Config.Env}}`, `{{.RootFS.Layers}}`.
//!
//! Pure. Text, field paths, `json`, `index .Map "key"`, `join .List ","`, `println`, `upper`, `lower`; no loops, no conditions, no variables: a
//! template that needs more is better served by `--format json` and a JSON tool. An unknown field is an error, as in Go.

use serde_json::Value;

/// A template that can't be read or doesn't fit the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("template: an action `{{{{` is not closed")]
    Unclosed,
    /// Something in an action that is not among what is supported.
    #[error("template: `{{{{{0}}}}}` is not supported: use .Field paths, json, index, join, upper or lower, or `--format json`")]
    Unsupported(String),
    /// A path that the value doesn't have.
    #[error("template: no field `{field}`{}", if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) })]
    Field {
        /// The missing name.
        field: String,
        /// The names that are there.
        known: Vec<String>,
    },
}

/// Fills `template` from `value`; `\t` and `\n` in the text are what they name, as with docker.
pub fn render(template: &str, value: &Value) -> Result<String, TemplateError> {
    let template = template.replace("\\t", "\t").replace("\\n", "\n");
    let (mut out, mut rest) = (String::new(), template.as_str());
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, more) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        out.push_str(text);
        out.push_str(&run(action, value)?);
        rest = more;
    }
    out.push_str(rest);
    Ok(out)
}

fn run(action: &str, value: &Value) -> Result<String, TemplateError> {
    let unsupported = || TemplateError::Unsupported(action.trim().to_owned());
    let words = words(action).ok_or_else(unsupported)?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [path] => Ok(show(lookup(path, value, action)?)),
        ["json", path] => Ok(lookup(path, value, action)?.to_string()),
        ["println", path] => Ok(show(lookup(path, value, action)?) + "\n"),
        ["upper", path] => Ok(show(lookup(path, value, action)?).to_uppercase()),
        ["lower", path] => Ok(show(lookup(path, value, action)?).to_lowercase()),
        ["join", path, separator] => {
            let Value::Array(items) = lookup(path, value, action)? else { return Err(unsupported()) };
            Ok(items.iter().map(show).collect::<Vec<_>>().join(&unquote(separator).ok_or_else(unsupported)?))
        }
        ["index", path, key] => {
            let inner = lookup(path, value, action)?;
            let found = match (unquote(key), key.parse::<usize>()) {
                (Some(key), _) => inner.get(key.as_str()),
                (None, Ok(at)) => inner.get(at),
                _ => return Err(unsupported()),
            };
            Ok(found.map(show).unwrap_or_default())
        }
        _ => Err(unsupported()),
    }
}

/// Splits an action at blanks outside of quotes; the trim marks of Go (`{{-`, `-}}`) are not supported.
fn words(action: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in action.trim().chars() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '`' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    (quote.is_none() && words.iter().all(|w| w != "-" && w != "|")).then_some(words)
}

fn unquote(word: &str) -> Option<String> {
    ['"', '`'].iter().find_map(|q| word.strip_prefix(*q)?.strip_suffix(*q)).map(str::to_owned)
}

fn lookup<'v>(path: &str, value: &'v Value, action: &str) -> Result<&'v Value, TemplateError> {
    let Some(fields) = path.strip_prefix('.') else { return Err(TemplateError::Unsupported(action.trim().to_owned())) };
    let mut at = value;
    for field in fields.split('.').filter(|f| !f.is_empty()) {
        at = match at {
            Value::Object(map) => map.get(field),
            _ => None,
        }
        .ok_or_else(|| TemplateError::Field {
            field: field.to_owned(),
            known: at.as_object().map(|m| m.keys().cloned().collect()).unwrap_or_default(),
        })?;
    }
    Ok(at)
}

/// Shows a value as Go's `%v` does.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled() {
        let value =
            serde_json::json!({"ID": "sha256:1", "Size": 5, "Config": {"Env": ["A=1", "B=2"], "Labels": {"a.b": "c"}, "Cmd": null}});
        let cases = [
            ("{{.ID}}", "sha256:1"),
            (r"{{ .ID }}\t{{.Size}}", "sha256:1\t5"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            (r#"{{join .Config.Env ", "}}"#, "A=1, B=2"),
            (r#"{{index .Config.Labels "a.b"}}{{index .Config.Labels "no"}}"#, "c"),
            ("{{index .Config.Env 1}}", "B=2"),
            ("{{.Config.Labels}} {{.Config.Cmd}}", "map[a.b:c] <nil>"),
            ("{{upper .ID}}", "SHA256:1"),
            ("plain", "plain"),
        ];
        for (template, want) in cases {
            assert_eq!(render(template, &value), Ok(want.to_owned()), "{template}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let value = serde_json::json!({"ID": 1});
        let cases = [
            ("{{.Id}}", "template: no field `Id`; there are ID"),
            ("{{.ID", "template: an action `{{` is not closed"),
            (
                "{{if .ID}}a{{end}}",
                "template: `{{if .ID}}` is not supported: use .Field paths, json, index, join, upper or lower, or `--format json`",
            ),
        ];
        for (template, want) in cases {
            assert_eq!(render(template, &value).unwrap_err().to_string(), want, "{template}");
        }
    }
}
