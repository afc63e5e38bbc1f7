//! `--chmod`: octal or symbolic, as chmod(1) understands it with an umask of zero.
//!
//! The directory that COPY makes for its destination takes an octal mode without its special bits, and no
//! symbolic one: BuildKit does so, recorded by running it.

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// `0644`.
    Octal(u32),
    /// `u=rwX,go=rX`.
    Symbolic(Vec<Clause>),
}

/// One change of a symbolic mode: `go-w`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    op: Op,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Permissions for all classes, masked by who; X still open.
    Bits { bits: u32, x_if_any: bool },
    /// What this class has now: 6, 3, 0 are the shifts of user, group, other.
    Copy(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mode: expected octal digits up to 7777 or a form like `u=rwX,go=rX`")]
pub struct ChmodError {
    /// As written.
    pub text: String,
}

impl Chmod {
    /// Parses an octal or symbolic mode.
    pub fn parse(text: &str) -> Result<Self, ChmodError> {
        let bad = || ChmodError { text: text.to_owned() };
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).map(Self::Octal).ok_or_else(bad);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut clauses).ok_or_else(bad)?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// Returns the mode that a file of `mode` gets.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode & 0o7777, |mode, c| c.apply(mode, directory)),
        }
    }

    /// Returns the mode of directories that are made for the destination.
    pub fn made_directory(chmod: Option<&Self>) -> u32 {
        match chmod {
            Some(Self::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        }
    }
}

fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let ops = part.find(['+', '-', '='])?;
    let mut who = 0;
    for c in part[..ops].chars() {
        who |= match c {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHER,
            'a' => 0o7777,
            _ => return None,
        };
    }
    // Nobody named: everybody, since the umask is zero.
    let who = if who == 0 { 0o7777 } else { who };
    let mut rest = &part[ops..];
    while let Some(op) = rest.chars().next() {
        let op = match op {
            '+' => Op::Add,
            '-' => Op::Remove,
            '=' => Op::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |i| i + 1);
        clauses.push(Clause { who, op, what: parse_what(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Copy(6)),
        "g" => return Some(What::Copy(3)),
        "o" => return Some(What::Copy(0)),
        _ => {}
    }
    let (mut bits, mut x_if_any) = (0, false);
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => x_if_any = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, x_if_any })
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let bits = match self.what {
            What::Copy(shift) => ((mode >> shift) & 7) * 0o111,
            What::Bits { bits, x_if_any } => bits | if x_if_any && (directory || mode & 0o111 != 0) { 0o111 } else { 0 },
        };
        let bits = bits & self.who;
        match self.op {
            Op::Add => mode | bits,
            Op::Remove => mode & !bits,
            // GNU chmod keeps a directory's special bits unless they are named.
            Op::Set if directory => (mode & !(self.who & 0o777)) | bits,
            Op::Set => (mode & !self.who) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_by_chmod() {
        for (text, from, directory, to) in [
            ("755", 0o600, false, 0o755),
            ("0640", 0o777, true, 0o640),
            ("4711", 0o644, false, 0o4711),
            ("0", 0o644, false, 0),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o644, false, 0o444),
            ("go-r,u+x", 0o644, false, 0o700),
            ("go-r,u+x", 0o755, false, 0o711),
            ("u+s,g+s", 0o644, false, 0o6644),
            ("u=rw,g=u,o=", 0o644, false, 0o660),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o755, false, 0o755),
            ("a=rX,u+w", 0o600, false, 0o644),
            ("a=rX,u+w", 0o755, false, 0o755),
            ("u=rwx,g=rx,o=", 0o644, false, 0o750),
            ("u=rwx,go=", 0o2755, true, 0o2700),
            ("u=rwx,go=", 0o6755, false, 0o700),
            ("+t", 0o755, true, 0o1755),
            ("u+x-w", 0o644, false, 0o544),
            ("o=g", 0o640, false, 0o644),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(from, directory), to, "{text} on {from:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "789", "10000", "u=q", "u", "z+x", "u+rwx,", "=x,+y", "u++q", "99999999999999999999"] {
            assert_eq!(Chmod::parse(text), Err(ChmodError { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn made_directories_take_octal_permissions_only() {
        for (text, mode) in [("700", 0o700), ("1777", 0o777), ("2750", 0o750), ("u=rwx,go=", 0o755)] {
            assert_eq!(Chmod::made_directory(Some(&Chmod::parse(text).unwrap())), mode, "{text}");
        }
        assert_eq!(Chmod::made_directory(None), 0o755);
    }
}
