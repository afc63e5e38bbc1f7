//! `--format`: `json`, or a template.

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::ui::template;

/// Returns the lines for a value in the form that `format` names; `table` is the caller's.
pub fn one(format: &str, value: &Value) -> Result<String, Failure> {
    let text = match format {
        "json" | "{{json .}}" => value.to_string(),
        template => template::render(template, value).map_err(|e| Failure::usage(format!("--format: {e}")))?,
    };
    Ok(text + "\n")
}

/// Returns the lines of several values, a line or more each.
pub fn each(format: &str, values: &[Value]) -> Result<String, Failure> {
    values.iter().map(|v| one(format, v)).collect()
}
