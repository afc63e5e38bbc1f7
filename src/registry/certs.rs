//! The certificates that a machine's owner gives for one registry: `certs.d/HOST[:PORT]`, as docker and containers read it.
//!
//! `*.crt` are trusted besides the system's, `NAME.cert` and `NAME.key` are shown to the registry. The first directory that
//! has something for the host counts, alone.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

use super::RegistryError;

/// The largest file; a bundle of a whole system's certificates has a quarter of a megabyte.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What is given for a host.
pub(super) struct HostCerts {
    /// Trusted besides.
    pub roots: Vec<Certificate<'static>>,
    /// Shown to it.
    pub client: Option<ClientCert>,
}

/// Reads what the first of `dirs` that knows `host[:port]` has for it; none: nobody knows it.
pub(super) fn load(dirs: &[PathBuf], authority: &str) -> Result<Option<HostCerts>, RegistryError> {
    if authority.contains('/') || !authority.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let Some(dir) = dirs.iter().map(|d| d.join(authority)).find(|d| d.is_dir()) else { return Ok(None) };
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(unreadable(&dir))? {
        names.push(entry.map_err(unreadable(&dir))?.path());
    }
    names.sort();
    let of = |extension: &'static str| names.iter().filter(move |n| n.extension().is_some_and(|e| e == extension));
    let mut roots = Vec::new();
    for file in of("crt") {
        roots.extend(certificates(file)?);
    }
    let mut client = None;
    for file in of("cert") {
        if client.is_some() {
            return Err(RegistryError::Certificate { path: file.clone(), why: "only one client certificate can be shown" });
        }
        let key = file.with_extension("key");
        if !names.contains(&key) {
            return Err(RegistryError::Certificate { path: file.clone(), why: "its key, of the same name with `.key`, is missing" });
        }
        client = Some(ClientCert::new_with_certs(&certificates(file)?, private_key(&key)?));
    }
    if let Some(key) = of("key").find(|k| !names.contains(&k.with_extension("cert"))) {
        return Err(RegistryError::Certificate { path: key.clone(), why: "its certificate, of the same name with `.cert`, is missing" });
    }
    Ok(Some(HostCerts { roots, client }))
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> RegistryError + '_ {
    |source| RegistryError::Read { what: path.display().to_string(), source }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable(path))?;
    file.take(FILE_MAX_BYTES).read_to_end(&mut text).map_err(unreadable(path))?;
    Ok(text)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let malformed = |why| RegistryError::Certificate { path: path.into(), why };
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| malformed("it is not PEM"))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(malformed("it holds no certificate in PEM form")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, RegistryError> {
    let key = PrivateKey::from_pem(&read(path)?);
    key.map_err(|_| RegistryError::Certificate {
        path: path.into(),
        why: "it holds no private key in PEM form (one with a password can't be used)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = include_str!("../../testdata/tls/server.crt");
    const KEY: &str = include_str!("../../testdata/tls/server.key");

    #[test]
    fn a_hosts_directory_is_read_whole_or_refused() {
        for (files, want) in [
            (&[("ca.crt", CERT), ("b.crt", CERT), ("client.cert", CERT), ("client.key", KEY), ("README", "x")][..], Ok((2, true))),
            (&[], Ok((0, false))),
            (&[("ca.crt", "nothing")], Err("ca.crt can't be used: it holds no certificate in PEM form")),
            (&[("c.cert", CERT)], Err("c.cert can't be used: its key, of the same name with `.key`, is missing")),
            (&[("c.key", KEY)], Err("c.key can't be used: its certificate, of the same name with `.cert`, is missing")),
            (
                &[("c.cert", CERT), ("c.key", CERT)],
                Err("c.key can't be used: it holds no private key in PEM form (one with a password can't be used)"),
            ),
        ] {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let dir = dirs[1].path().join("r.example:5000");
            std::fs::create_dir(&dir).unwrap();
            for (name, text) in files {
                std::fs::write(dir.join(name), text).unwrap();
            }
            let dirs = dirs.each_ref().map(|d| d.path().to_path_buf());
            match (load(&dirs, "r.example:5000"), want) {
                (Ok(Some(found)), Ok(want)) => assert_eq!((found.roots.len(), found.client.is_some()), want, "{files:?}"),
                (Err(e), Err(want)) => assert!(e.to_string().ends_with(want), "{e}"),
                (Ok(_), want) => panic!("{files:?}: {want:?} was expected"),
                (Err(e), want) => panic!("{files:?}: {e} instead of {want:?}"),
            }
            assert!(load(&dirs, "r.example").unwrap().is_none());
            assert!(load(&dirs, "..").unwrap().is_none());
        }
    }
}
