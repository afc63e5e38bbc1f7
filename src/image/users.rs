//! From `USER` and `--chown` texts to numbers, with the image's passwd and group files as plain bytes.
//!
//! Pure: who opens the files confines the path and caps the size. What a newcomer would get wrong: a numeric text is
//! always an ID, also when a user has that name; an ID that does not fit is an error and never wraps to root
//! (CVE-2024-40635); and an entry of the files whose numbers do not parse does not exist.

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User ID.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// Supplementary group IDs, in the group file's order; empty when the group was given explicitly.
    pub groups: Vec<u32>,
    /// The home directory of the user ID's entry, else `/`.
    pub home: String,
    /// The user's name, if the file has an entry.
    pub name: Option<String>,
}

/// Who a copied file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// A user or group that can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No entry of that name.
    #[error("unable to find user `{name}`: {}", missing(*.file_exists, "/etc/passwd"))]
    UnknownUser {
        /// The name looked for.
        name: String,
        /// Whether the image has the file at all.
        file_exists: bool,
    },
    /// No entry of that name.
    #[error("unable to find group `{name}`: {}", missing(*.file_exists, "/etc/group"))]
    UnknownGroup {
        /// The name looked for.
        name: String,
        /// Whether the image has the file at all.
        file_exists: bool,
    },
    /// A number that is no ID.
    #[error("`{text}` is out of the range of user and group IDs (0 to {MAX_ID})")]
    OutOfRange {
        /// The number as written.
        text: String,
    },
}

/// The largest ID: 2^32-1 means "don't change" to chown(2) and setresuid(2).
const MAX_ID: u32 = u32::MAX - 1;

impl ResolvedUser {
    /// Returns the groups that the process gets: the supplementary ones and, as with docker, its own.
    pub fn process_groups(&self) -> Vec<u32> {
        let mut groups = self.groups.clone();
        if !groups.contains(&self.gid) {
            groups.push(self.gid);
        }
        groups
    }
}

fn missing(file_exists: bool, file: &str) -> String {
    if file_exists { format!("no entry in the image's {file}") } else { format!("the image has no {file}") }
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `USER`: `user`, `user:group`, names or numbers; empty means root.
pub fn resolve_user(spec: &str, passwd: Option<&[u8]>, group: Option<&[u8]>) -> Result<ResolvedUser, UserError> {
    let (user_text, group_text) = split(spec);
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let id = numeric(user_text)?;
    let entry = users(passwd).find(|u| id.map_or(u.name == user_text, |id| u.uid == id));
    let (uid, gid) = match (&entry, id) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(id)) => (id, 0),
        (None, None) => return Err(UserError::UnknownUser { name: user_text.to_string(), file_exists: passwd.is_some() }),
    };
    let (gid, supplementary) = match (group_text.is_empty(), &entry) {
        (false, _) => (resolve_group(group_text, group)?, Vec::new()),
        (true, Some(entry)) => (gid, groups(group).filter(|g| g.members.contains(&entry.name)).map(|g| g.gid).collect()),
        (true, None) => (gid, Vec::new()),
    };
    let home = entry.as_ref().map(|e| e.home.clone()).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".to_string());
    Ok(ResolvedUser { uid, gid, groups: supplementary, home, name: entry.map(|e| e.name) })
}

/// Resolves `--chown`: `user[:group]`. A number alone is user and group; a name alone brings its primary group;
/// `:group` leaves the user root. `root` needs no file.
///
/// BuildKit takes 0 for an unknown name; the reference says that the build fails, and so does this.
pub fn resolve_chown(spec: &str, passwd: Option<&[u8]>, group: Option<&[u8]>) -> Result<Owner, UserError> {
    let (user_text, group_text) = split(spec);
    let mut owner = match (user_text, numeric(user_text)?) {
        ("", _) => Owner { uid: 0, gid: 0 },
        (_, Some(id)) => Owner { uid: id, gid: id },
        (name, None) => match users(passwd).find(|u| u.name == name) {
            Some(entry) => Owner { uid: entry.uid, gid: entry.gid },
            None if name == "root" => Owner { uid: 0, gid: 0 },
            None => return Err(UserError::UnknownUser { name: name.to_string(), file_exists: passwd.is_some() }),
        },
    };
    match (spec.contains(':'), group_text) {
        (false, _) => {}
        // `--chown=$U:$G` with an empty `G`: root's group, as in BuildKit.
        (true, "") => owner.gid = 0,
        (true, name) => owner.gid = resolve_group(name, group)?,
    }
    Ok(owner)
}

/// Tells whether `--chown` can be resolved without the image's files.
pub fn chown_is_numeric(spec: &str) -> bool {
    let (user, group) = split(spec);
    [user, group].iter().all(|t| t.is_empty() || *t == "root" || matches!(numeric(t), Ok(Some(_))))
}

fn resolve_group(text: &str, group: Option<&[u8]>) -> Result<u32, UserError> {
    if let Some(id) = numeric(text)? {
        return Ok(id);
    }
    match groups(group).find(|g| g.name == text) {
        Some(entry) => Ok(entry.gid),
        None if text == "root" => Ok(0),
        None => Err(UserError::UnknownGroup { name: text.to_string(), file_exists: group.is_some() }),
    }
}

fn split(spec: &str) -> (&str, &str) {
    spec.split_once(':').unwrap_or((spec, ""))
}

/// Reads a decimal ID; none: it is a name. A sign makes it a number too (`-1` is an error, not a name).
fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match digits.parse::<u32>() {
        Ok(id) if id <= MAX_ID && !text.starts_with('-') => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { text: text.chars().take(100).collect() }),
    }
}

fn lines(file: Option<&[u8]>) -> impl Iterator<Item = Vec<String>> {
    file.unwrap_or_default().split(|b| *b == b'\n').filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        (!line.is_empty() && !line.starts_with('#')).then(|| line.split(':').map(str::to_string).collect())
    })
}

fn entry_id(text: Option<&String>) -> Option<u32> {
    text?.parse().ok().filter(|id| *id <= MAX_ID)
}

/// `name:password:uid:gid:comment:home:shell`
fn users(passwd: Option<&[u8]>) -> impl Iterator<Item = User> {
    lines(passwd).filter_map(|f| {
        let (uid, gid) = (entry_id(f.get(2))?, entry_id(f.get(3))?);
        Some(User { name: f[0].clone(), uid, gid, home: f.get(5).cloned().unwrap_or_default() })
    })
}

/// `name:password:gid:member,member`
fn groups(group: Option<&[u8]>) -> impl Iterator<Item = Group> {
    lines(group).filter_map(|f| {
        let members = f.get(3).map(|m| m.split(',').map(str::to_string).collect()).unwrap_or_default();
        Some(Group { name: f[0].clone(), gid: entry_id(f.get(2))?, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# c\napp:x:1000:50::/home/app:/bin/sh\n7:x:70:70::/:/bin/sh\nbig:x:4294967296:0::/:\nnohome:x:9:9:::\n";
    const GROUP: &[u8] = b"root:x:0:root\nstaff:x:50:\nvideo:x:44:app,other\naudio:x:63:app\nbad:x:99999999999:app\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str, name: Option<&str>) -> ResolvedUser {
        ResolvedUser { uid, gid, groups: groups.to_vec(), home: home.into(), name: name.map(Into::into) }
    }

    #[test]
    fn user_specifications() {
        for (spec, want) in [
            ("", user(0, 0, &[0], "/root", Some("root"))),
            ("app", user(1000, 50, &[44, 63], "/home/app", Some("app"))),
            ("1000", user(1000, 50, &[44, 63], "/home/app", Some("app"))),
            ("app:video", user(1000, 44, &[], "/home/app", Some("app"))),
            ("1000:7", user(1000, 7, &[], "/home/app", Some("app"))),
            ("4242", user(4242, 0, &[], "/", None)),
            ("4242:staff", user(4242, 50, &[], "/", None)),
            ("7", user(7, 0, &[], "/", None)),
            ("nohome", user(9, 9, &[], "/", Some("nohome"))),
            ("4294967294", user(4_294_967_294, 0, &[], "/", None)),
        ] {
            assert_eq!(resolve_user(spec, Some(PASSWD), Some(GROUP)), Ok(want), "{spec}");
        }
        assert_eq!(resolve_user("", None, None), Ok(user(0, 0, &[], "/", None)));
    }

    #[test]
    fn nothing_unclear_becomes_root() {
        let range = |t: &str| UserError::OutOfRange { text: t.into() };
        let who = |n: &str| UserError::UnknownUser { name: n.into(), file_exists: true };
        for (spec, want) in [
            ("4294967295", range("4294967295")),
            ("4294967296", range("4294967296")),
            ("-1", range("-1")),
            ("-0", range("-0")),
            ("0x0", who("0x0")),
            ("big", who("big")),
            ("ghost", who("ghost")),
            ("0:4294967296", range("4294967296")),
            ("1000:bad", UserError::UnknownGroup { name: "bad".into(), file_exists: true }),
        ] {
            assert_eq!(resolve_user(spec, Some(PASSWD), Some(GROUP)), Err(want.clone()), "{spec}");
            assert_eq!(resolve_chown(spec, Some(PASSWD), Some(GROUP)), Err(want), "{spec}");
        }
    }

    #[test]
    fn owners_of_copies() {
        for (spec, uid, gid) in [
            ("12", 12, 12),
            ("12:34", 12, 34),
            ("app", 1000, 50),
            ("app:video", 1000, 44),
            ("1000:video", 1000, 44),
            (":staff", 0, 50),
            (":77", 0, 77),
            ("app:", 1000, 0),
            (":", 0, 0),
            ("root", 0, 0),
        ] {
            assert_eq!(resolve_chown(spec, Some(PASSWD), Some(GROUP)), Ok(Owner { uid, gid }), "{spec}");
        }
        assert_eq!(resolve_chown("root:root", None, None), Ok(Owner { uid: 0, gid: 0 }));
        assert_eq!(resolve_chown("app", None, None).unwrap_err().to_string(), "unable to find user `app`: the image has no /etc/passwd");
        assert!(chown_is_numeric("1:2") && chown_is_numeric("root") && !chown_is_numeric("1:app"));
    }
}
