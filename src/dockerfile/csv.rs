//! One record of comma-separated fields (RFC 4180), as in `--mount=type=cache,"target=/a,b"`.

/// Why a text is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A quote inside a field that does not start with one.
    #[error("a double quote inside a field that is not quoted")]
    BareQuote,
    /// Text after a closing quote, or none.
    #[error("a quoted field that is not closed, or goes on after its closing quote")]
    Quote,
}

/// Splits a record into its fields; quotes are taken away, `""` inside them is one quote.
///
/// White space is part of a field. An empty text has no fields.
pub fn fields(record: &str) -> Result<Vec<String>, Malformed> {
    let mut fields = Vec::new();
    let mut rest = record;
    while !rest.is_empty() || !fields.is_empty() {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') { unquote(quoted)? } else { plain(rest)? };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => break,
        }
    }
    Ok(fields)
}

fn plain(text: &str) -> Result<(String, Option<&str>), Malformed> {
    let (field, after) = text.split_once(',').map_or((text, None), |(field, after)| (field, Some(after)));
    if field.contains('"') { Err(Malformed::BareQuote) } else { Ok((field.to_owned(), after)) }
}

/// Reads up to the closing quote, and the comma after it.
fn unquote(mut text: &str) -> Result<(String, Option<&str>), Malformed> {
    let mut field = String::new();
    loop {
        let (part, after) = text.split_once('"').ok_or(Malformed::Quote)?;
        field.push_str(part);
        if let Some(next) = after.strip_prefix('"') {
            field.push('"');
            text = next;
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            return Ok((field, Some(after.strip_prefix(',').ok_or(Malformed::Quote)?)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_record() {
        let cases: [(&str, Result<&[&str], Malformed>); 11] = [
            ("", Ok(&[])),
            ("a", Ok(&["a"])),
            ("a,b=c", Ok(&["a", "b=c"])),
            ("a,", Ok(&["a", ""])),
            (",a", Ok(&["", "a"])),
            ("\"a,b\",c", Ok(&["a,b", "c"])),
            ("\"a\"\"b\"", Ok(&["a\"b"])),
            (" a , b", Ok(&[" a ", " b"])),
            ("a\"b", Err(Malformed::BareQuote)),
            ("\"a", Err(Malformed::Quote)),
            ("\"a\"b", Err(Malformed::Quote)),
        ];
        for (record, expected) in cases {
            assert_eq!(fields(record), expected.map(|fields| fields.iter().map(|field| field.to_string()).collect()), "{record}");
        }
    }
}
