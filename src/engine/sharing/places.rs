//! Why a step missed, told by what another machine had in its place; and what this build leaves for the others.
//!
//! Local places are told apart by the context's path; machines don't share paths, so these go by the Dockerfile's base
//! name, stage and instruction. Two projects in one repository that have the same ones explain each other's misses
//! badly; they are never the reason for a hit.

use std::sync::Arc;

use super::place::SharingError;
use super::{Sharing, Sink, locked};
use crate::cache::files::FileList;
use crate::cache::index::Index as _;
use crate::cache::miss::{self, Reason};
use crate::cache::record::Slot;
use crate::cache::remote::object::Kind;
use crate::cache::remote::{Places, tag};
use crate::digest::ContentDigest;
use crate::engine::error::BuildError;
use crate::engine::places::Group;
use crate::engine::session::Build;
use crate::graph::NodeId;
use crate::image::manifest::Descriptor;

const LIST_TYPE: &str = "application/vnd.plywood.cache.files.v2";
/// Longer lists of files are left out: a reason then names the source only.
const LIST_MAX_BYTES: usize = 1 << 20;

impl Sharing<'_> {
    /// Returns what the sources have of these places, each with the source's number. Asked once.
    fn places(&self, dockerfile: &str, stage: &str, kind: &str) -> Vec<(usize, Places)> {
        let key = tag::of_places("", dockerfile, stage, kind);
        let once = Arc::clone(locked(&self.places).entry(key).or_default());
        let found = once.get_or_init(|| {
            let mut found = Vec::new();
            for (number, source) in self.asked() {
                let tag = tag::of_places(&source.name, dockerfile, stage, kind);
                let object = self.answer(number, Kind::Places, &tag);
                let places = object.and_then(|(parts, body)| Places::parse(&parts, &body).ok());
                found.extend(places.map(|p| (number, p)));
            }
            found
        });
        found.clone()
    }

    /// Returns a tree's list of files as a source has it.
    fn list(&self, source: usize, places: &Places, tree: &ContentDigest) -> Option<FileList> {
        let (_, blob) = places.lists.iter().find(|(t, _)| t == tree)?;
        // It only makes a reason more telling.
        FileList::decode(&self.sources[source].place.small_blob(blob).ok()?)
    }
}

impl Build<'_> {
    /// Returns why a step misses by what a shared cache had in its place; none: no cache knows the place.
    pub(super) fn explained_elsewhere(&self, id: NodeId, slot: &Slot) -> Result<Option<Reason>, BuildError> {
        let group = self.group_of(id);
        for (source, places) in self.sharing.places(self.dockerfile_name(), &self.stage_text(group), group.1) {
            let old = places.slots.iter().cloned().map(|s| s.map(Box::new)).collect();
            let past = self.aligned(group, old).into_iter().find(|(node, _)| *node == id).and_then(|(_, slot)| slot);
            let Some(past) = past else { continue };
            let store = self.engine.store;
            let lists = |tree: &ContentDigest| store.files(tree).ok().flatten().or_else(|| self.sharing.list(source, &places, tree));
            let reason = miss::explain(slot, Some(&*past), &self.parent_name(id), &lists);
            return self.located(id, reason, None).map(Some);
        }
        Ok(None)
    }

    /// Leaves the inputs of this build's steps for other machines, where a result was new to a cache.
    pub fn send_places(&self) {
        let noted = self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut groups: Vec<Group> = Vec::new();
        for (id, _, _) in &noted {
            let group = self.group_of(*id);
            if self.sharing.is_news(self.at, *id) && !groups.contains(&group) {
                groups.push(group);
            }
        }
        for group in groups {
            let slot = |node| noted.iter().find(|(id, _, _)| *id == node).map(|(_, _, slot)| slot.clone());
            let slots: Vec<Option<Slot>> = self.group(group).map(slot).collect();
            for sink in self.sharing.sinks.iter().filter(|s| !s.broken.load(std::sync::atomic::Ordering::Relaxed)) {
                if let Err(e) = self.send_group(sink, group, &slots) {
                    sink.fail(&e);
                }
            }
        }
    }

    fn send_group(&self, sink: &Sink<'_>, group: Group, slots: &[Option<Slot>]) -> Result<(), SharingError> {
        let mut lists = Vec::new();
        for tree in slots.iter().flatten().flat_map(|slot| slot.inputs.trees()) {
            let Some(list) = self.engine.store.files(&tree).ok().flatten() else { continue };
            let bytes = list.encode();
            if bytes.len() > LIST_MAX_BYTES || lists.iter().any(|(t, _)| *t == tree) {
                continue;
            }
            let blob = Descriptor::of(LIST_TYPE, &bytes);
            sink.place.put_blob(&blob, &[], &|from| {
                let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
                Ok(Box::new(std::io::Cursor::new(rest.to_vec())))
            })?;
            lists.push((tree, blob));
        }
        let tag = tag::of_places(&sink.name, self.dockerfile_name(), &self.stage_text(group), group.1);
        sink.place.put(&tag, &Places { slots: slots.to_vec(), lists }.to_object())
    }

    /// The Dockerfile's base name: what machines have in common of it.
    pub(super) fn dockerfile_name(&self) -> &str {
        let name = self.graph.source.name();
        name.rsplit_once('/').map_or(name, |(_, base)| base)
    }
}
