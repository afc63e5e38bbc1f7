//! Images: a configuration, the layers under it, the names that point to it.
//!
//! An image's id is the digest of its configuration's bytes. Names are normalised references, whole strings here;
//! their grammar is `image::reference`'s.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::db::{all, from_json, one, parsed};
use super::rows::Row;
use super::{Result, Store, StoreError};
use crate::digest::{DiffId, Digest, LayerId};
use crate::image::platform::Platform;

/// One layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// Which layer.
    pub id: LayerId,
    /// What the configuration calls it. Its blobs: [`Store::layer_blobs`].
    pub diff_id: DiffId,
}

/// An image to be stored.
#[derive(Debug, Clone)]
pub struct NewImage<'a> {
    /// The configuration, byte for byte.
    pub config: &'a [u8],
    /// Its layers, bottom first.
    pub layers: Vec<ImageLayer>,
    /// What it is for.
    pub platform: Platform,
    /// The manifest that it came with, byte for byte.
    pub manifest: Option<&'a [u8]>,
    /// When it came, in unix seconds.
    pub added_secs: i64,
}

/// A stored image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The configuration's digest; the bytes: [`Store::read_blob`].
    pub id: Digest,
    /// What it is for.
    pub platform: Platform,
    /// Its layers, bottom first.
    pub layers: Vec<ImageLayer>,
    /// The manifest that it came with, a blob.
    pub manifest: Option<Digest>,
    /// The names that point to it, sorted.
    pub names: Vec<String>,
    /// `repository@sha256:…`, sorted: under which digests registries know it.
    pub repo_digests: Vec<String>,
    /// When it came, in unix seconds.
    pub added_secs: i64,
}

/// What a registry said a reference stands for, so that FROM works without network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The normalised reference.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// The digest that the registry gave: of the index, or of the manifest.
    pub manifest: Digest,
    /// The image in the store.
    pub image: Digest,
    /// When the registry was asked, in unix seconds.
    pub checked_secs: i64,
}

impl Store {
    /// Stores an image, on the disk when this returns. Its layers are there already, in some form.
    ///
    /// An image that is there already keeps its date and costs no write. It is kept from garbage collection while this
    /// store is open: time to name it.
    pub fn put_image(&self, image: &NewImage<'_>) -> Result<Digest> {
        let id = self.put_bytes(image.config)?;
        self.hold_blob(&id)?;
        let manifest = image.manifest.map(|m| self.put_bytes(m)).transpose()?;
        let layers: Vec<LayerId> = image.layers.iter().map(|l| l.id).collect();
        self.hold(&layers)?;
        for layer in &layers {
            if !self.layer_known(layer)? {
                return Err(StoreError::NoLayer(*layer));
            }
        }
        let old = self.image(&id)?;
        let same = |old: &Image| old.layers == image.layers && (manifest.is_none() || old.manifest == manifest);
        if !old.as_ref().is_some_and(same) {
            let platform = serde_json::to_string(&image.platform).expect("a platform is strings");
            let layers = serde_json::to_string(&image.layers).expect("layers are strings");
            let manifest = manifest.or(old.and_then(|o| o.manifest));
            self.committer.push(Row::Image { id, platform, layers, manifest, added: image.added_secs })?;
        }
        self.flush()?;
        Ok(id)
    }

    /// Points `name` to an image; it no longer points to another. On the disk when this returns.
    pub fn tag(&self, name: &str, image: &Digest) -> Result<()> {
        let sql = "SELECT image FROM names WHERE name=?1";
        let old = self.one(sql, [name], |r| r.get::<_, String>(0))?;
        if old.is_some_and(|o| o == image.to_string()) {
            return Ok(());
        }
        if self.image(image)?.is_none() {
            return Err(StoreError::NoImage(image.to_string()));
        }
        self.committer.push(Row::Name { name: name.to_string(), image: *image })?;
        self.flush()?;
        // The row is not written when the image was removed in between.
        match self.one(sql, [name], |r| r.get::<_, String>(0))? {
            Some(now) if now == image.to_string() => Ok(()),
            _ => Err(StoreError::NoImage(image.to_string())),
        }
    }

    /// Keeps an image and all its parts from garbage collection while this store is open.
    pub fn hold_image(&self, image: &Image) -> Result<()> {
        self.hold_blob(&image.id)?;
        if let Some(manifest) = &image.manifest {
            self.hold_blob(manifest)?;
        }
        let layers: Vec<_> = image.layers.iter().flat_map(|l| [l.id, LayerId::Diff(l.diff_id)]).collect();
        self.hold(&layers)
    }

    /// Removes a name; returns the image that it pointed to.
    pub fn untag(&self, name: &str) -> Result<Option<Digest>> {
        let old = self.one("SELECT image FROM names WHERE name=?1", [name], |r| r.get::<_, String>(0))?;
        let Some(old) = old else { return Ok(None) };
        self.committer.push(Row::Unname { name: name.to_string() })?;
        self.flush()?;
        parsed("image id", &old).map(Some)
    }

    /// Removes an image and all its names. Its blobs and layers go with the next [`Store::prune`].
    pub fn remove_image(&self, id: &Digest) -> Result<()> {
        self.flush()?;
        let id = id.to_string();
        let remove = |tx: &rusqlite::Transaction<'_>| {
            for sql in [
                "DELETE FROM names WHERE image=?1",
                "DELETE FROM repo_digests WHERE image=?1",
                "DELETE FROM sources WHERE image=?1",
                "DELETE FROM images WHERE id=?1",
            ] {
                tx.execute(sql, [&id])?;
            }
            Ok(())
        };
        self.with_reserve(|| self.durably("removing an image", remove))
    }

    /// Notes that a registry knows an image as `repository@sha256:…`.
    pub fn put_repo_digest(&self, image: &Digest, name: &str) -> Result<()> {
        self.committer.push(Row::RepoDigest { image: *image, name: name.to_string() })
    }

    /// Notes what a registry said.
    pub fn put_source(&self, source: Source) -> Result<()> {
        let platform = source.platform.to_string();
        self.committer.push(Row::Source(source, platform))
    }

    /// Returns what a registry last said of a reference, when the image is still here.
    pub fn source(&self, reference: &str, platform: &Platform) -> Result<Option<Source>> {
        let platform_text = platform.to_string();
        let queued = self.committer.find(|row| match row {
            Row::Source(s, p) if s.reference == reference && *p == platform_text => Some(s.clone()),
            _ => None,
        })?;
        if queued.is_some() {
            return Ok(queued);
        }
        let row = self.one(
            "SELECT manifest,image,checked FROM sources WHERE reference=?1 AND platform=?2 AND image IN (SELECT id FROM images)",
            [reference, &platform_text],
            |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get(2)?)),
        )?;
        let Some((manifest, image, checked_secs)) = row else { return Ok(None) };
        let (manifest, image) = (parsed("digest", &manifest)?, parsed("digest", &image)?);
        Ok(Some(Source { reference: reference.into(), platform: platform.clone(), manifest, image, checked_secs }))
    }

    /// Finds the image that `text` means: a name, `repository@sha256:…`, an id or the beginning of one, a manifest's digest.
    pub fn resolve(&self, text: &str) -> Result<Option<Image>> {
        let by_name = "SELECT image FROM names WHERE name=?1
            UNION ALL SELECT image FROM repo_digests WHERE name=?1 UNION ALL SELECT id FROM images WHERE manifest=?1 LIMIT 1";
        if let Some(id) = self.one(by_name, [text], |r| r.get::<_, String>(0))? {
            return self.image(&parsed("image id", &id)?);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let ids = self.all("SELECT id FROM images WHERE id GLOB ?1", [format!("sha256:{hex}*")], |r| r.get::<_, String>(0))?;
        match ids.as_slice() {
            [] => Ok(None),
            [id] => self.image(&parsed("image id", id)?),
            _ => Err(StoreError::Ambiguous { prefix: text.to_string(), count: ids.len() }),
        }
    }

    /// Returns the image with this id.
    pub fn image(&self, id: &Digest) -> Result<Option<Image>> {
        let key = id.to_string();
        let db = self.db();
        let row = one(&db, "SELECT platform,layers,manifest,added FROM images WHERE id=?1", [&key], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<String>>(2)?, r.get(3)?))
        })?;
        let Some((platform, layers, manifest, added_secs)) = row else { return Ok(None) };
        let texts = |sql| all(&db, sql, params![key], |r| r.get::<_, String>(0));
        Ok(Some(Image {
            id: *id,
            platform: from_json("platform", &platform)?,
            layers: from_json("list of layers", &layers)?,
            manifest: manifest.map(|m| parsed("digest", &m)).transpose()?,
            names: texts("SELECT name FROM names WHERE image=?1 ORDER BY name")?,
            repo_digests: texts("SELECT name FROM repo_digests WHERE image=?1 ORDER BY name")?,
            added_secs,
        }))
    }

    /// Returns all images, newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        let ids = self.all("SELECT id FROM images ORDER BY added DESC, id", [], |r| r.get::<_, String>(0))?;
        let mut images = Vec::with_capacity(ids.len());
        for id in ids {
            images.extend(self.image(&parsed("image id", &id)?)?);
        }
        Ok(images)
    }
}
