//! What unpacking means, said a second time: a file system in memory, after the OCI image spec and umoci.
//!
//! It knows no kernel, no overlay and no descriptor; what it says of a list of entries is what every way in and every driver
//! must give. An archive that it refuses must be refused.

use std::collections::BTreeMap;

use super::tar::Entry;

/// As many links are followed on one way.
const LINKS: usize = 40;

#[derive(Debug, Clone)]
enum Kind {
    /// Names, and whether the layer that is unpacked has them.
    Dir(BTreeMap<Vec<u8>, (usize, bool)>),
    Link(Vec<u8>),
    Leaf(u8, Vec<u8>, (u32, u32)),
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
}

/// How an archive is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A layer upon others: `.wh.` names remove.
    Layer,
    /// The lowest layer: there is nothing to be removed.
    Lowest,
    /// ADD or a context: `.wh.` names are names, which no image may have.
    Plain,
}

#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// Why an archive is refused; for failures only.
type Refusal = &'static str;

impl Tree {
    pub fn new() -> Self {
        Self { nodes: vec![Node { kind: Kind::Dir(BTreeMap::new()), mode: 0o755, owner: (0, 0) }] }
    }

    /// Unpacks all entries; the tree is worth nothing after a refusal.
    pub fn unpack(&mut self, entries: &[Entry], reading: Reading) -> Result<(), Refusal> {
        for node in &mut self.nodes {
            if let Kind::Dir(names) = &mut node.kind {
                names.values_mut().for_each(|(_, own)| *own = false);
            }
        }
        entries.iter().try_for_each(|e| self.entry(e, reading))?;
        if reading == Reading::Plain
            && self.nodes.iter().any(|n| matches!(&n.kind, Kind::Dir(names) if names.keys().any(|n| n.starts_with(b".wh."))))
        {
            return Err("a reserved name");
        }
        Ok(())
    }

    fn entry(&mut self, e: &Entry, reading: Reading) -> Result<(), Refusal> {
        if e.name.contains(&0) || e.link.contains(&0) {
            return Err("zero byte");
        }
        let mut path = clean(&e.name);
        let Some(name) = path.pop() else {
            if e.kind != b'5' {
                return Err("the root");
            }
            if reading != Reading::Plain {
                (self.nodes[0].mode, self.nodes[0].owner) = (e.mode, (e.uid, e.gid));
            }
            return Ok(());
        };
        if reading != Reading::Plain {
            if path.iter().any(|p| p.starts_with(b".wh.")) {
                return Err("in a whiteout");
            }
            if let Some(gone) = name.strip_prefix(b".wh.") {
                return match gone {
                    b".wh..opq" => self.remove(&path, None, reading),
                    _ if gone.starts_with(b".wh.") => Ok(()),
                    b"" | b"." | b".." => Err("a whiteout of no name"),
                    _ => self.remove(&path, Some(gone), reading),
                };
            }
        }
        if e.kind == b'3' && e.dev == (0, 0) {
            return Ok(());
        }
        let way = self.walk(&path, true)?.ok_or("no directory")?;
        let at = *way.last().expect("the root");
        if name.len() > 255 {
            return Err("a long name");
        }
        let here = self.names(at).get(&name).map(|(n, _)| *n);
        let made = match e.kind {
            b'1' => {
                let mut target = clean(&e.link);
                let last = target.pop().ok_or("a link to the root")?;
                let parent = self.walk(&target, false)?.ok_or("no target")?;
                let found = self.names(*parent.last().expect("the root")).get(&last).map(|(n, _)| *n).ok_or("no target")?;
                if matches!(self.nodes[found].kind, Kind::Dir(_)) {
                    return Err("a link to a directory");
                }
                if here.is_some_and(|here| here != found && self.holds(here, parent.last().copied().expect("the root"))) {
                    return Err("it replaces its target");
                }
                found
            }
            b'5' if here.is_some_and(|n| matches!(self.nodes[n].kind, Kind::Dir(_))) => here.expect("just seen"),
            kind => {
                let kind = match kind {
                    b'5' => Kind::Dir(BTreeMap::new()),
                    b'2' if e.link.is_empty() || e.link.len() > 4095 => return Err("a link that can't be"),
                    b'2' => Kind::Link(e.link.clone()),
                    b'0' | b'7' | 0 => Kind::Leaf(b'0', e.data.clone(), (0, 0)),
                    b'3' | b'4' => Kind::Leaf(kind, Vec::new(), e.dev),
                    b'6' => Kind::Leaf(kind, Vec::new(), (0, 0)),
                    _ => return Err("unknown type"),
                };
                self.nodes.push(Node { kind, mode: 0, owner: (0, 0) });
                self.nodes.len() - 1
            }
        };
        if e.kind != b'1' {
            (self.nodes[made].mode, self.nodes[made].owner) = (e.mode, (e.uid, e.gid));
        }
        self.put(at, name, made);
        self.own(&way);
        Ok(())
    }

    fn names(&self, dir: usize) -> &BTreeMap<Vec<u8>, (usize, bool)> {
        match &self.nodes[dir].kind {
            Kind::Dir(names) => names,
            _ => unreachable!("a directory"),
        }
    }

    fn put(&mut self, dir: usize, name: Vec<u8>, node: usize) {
        let Kind::Dir(names) = &mut self.nodes[dir].kind else { unreachable!("a directory") };
        names.insert(name, (node, true));
    }

    /// Marks the directories of a way as the layer's.
    fn own(&mut self, way: &[usize]) {
        for pair in way.windows(2) {
            let Kind::Dir(names) = &mut self.nodes[pair[0]].kind else { unreachable!("a directory") };
            names.values_mut().filter(|(n, _)| *n == pair[1]).for_each(|(_, own)| *own = true);
        }
    }

    fn holds(&self, node: usize, sought: usize) -> bool {
        node == sought || matches!(&self.nodes[node].kind, Kind::Dir(names) if names.values().any(|(n, _)| self.holds(*n, sought)))
    }

    /// Returns the directories on the way to `path`, the root first; none: there is no such way, and it is not to be made.
    fn walk(&mut self, path: &[Vec<u8>], make: bool) -> Result<Option<Vec<usize>>, Refusal> {
        let mut todo: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut way = vec![0];
        let mut links = 0;
        while let Some(part) = todo.pop() {
            let at = *way.last().expect("the root");
            if part == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            if part.len() > 255 {
                return Err("a long name");
            }
            match self.names(at).get(&part).map(|(n, _)| (*n, self.nodes[*n].kind.clone())) {
                Some((node, Kind::Dir(_))) => way.push(node),
                Some((_, Kind::Link(target))) => {
                    links += 1;
                    if links > LINKS {
                        return Err("too many links");
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(target.split(|&c| c == b'/').filter(|p| !matches!(*p, b"" | b".")).rev().map(<[u8]>::to_vec));
                }
                Some(_) => return Err("through a file"),
                None if !make => return Ok(None),
                None => {
                    self.nodes.push(Node { kind: Kind::Dir(BTreeMap::new()), mode: 0o755, owner: (0, 0) });
                    let node = self.nodes.len() - 1;
                    self.put(at, part, node);
                    self.own(&way);
                    way.push(node);
                }
            }
        }
        Ok(Some(way))
    }

    fn remove(&mut self, path: &[Vec<u8>], name: Option<&[u8]>, reading: Reading) -> Result<(), Refusal> {
        if reading == Reading::Lowest {
            return Ok(());
        }
        let way = match self.walk(path, false) {
            Ok(Some(way)) => way,
            Ok(None) | Err("through a file") => return Ok(()),
            Err(e) => return Err(e),
        };
        let at = *way.last().expect("the root");
        match name {
            None => self.prune(at),
            Some(name) => match self.names(at).get(name) {
                Some((node, true)) if matches!(self.nodes[*node].kind, Kind::Dir(_)) => self.prune(*node),
                Some((_, false)) => {
                    let Kind::Dir(names) = &mut self.nodes[at].kind else { unreachable!("a directory") };
                    names.remove(name);
                }
                _ => {}
            },
        }
        Ok(())
    }

    /// Leaves what the layer itself has.
    fn prune(&mut self, dir: usize) {
        let Kind::Dir(names) = &mut self.nodes[dir].kind else { unreachable!("a directory") };
        names.retain(|_, (_, own)| *own);
        let left: Vec<usize> = names.values().map(|(n, _)| *n).collect();
        left.into_iter()
            .filter(|n| matches!(self.nodes[*n].kind, Kind::Dir(_)))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|n| self.prune(n));
    }

    /// One line a name, but for the root: path, type, and what belongs to it.
    pub fn listing(&self) -> BTreeMap<Vec<u8>, String> {
        let mut out = BTreeMap::new();
        let mut todo = vec![(Vec::new(), 0)];
        while let Some((path, node)) = todo.pop() {
            for (name, (child, _)) in self.names(node) {
                let path = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], name].concat() };
                let n = &self.nodes[*child];
                let text = match &n.kind {
                    Kind::Dir(_) => {
                        todo.push((path.clone(), *child));
                        format!("5 {:o} {:?}", n.mode, n.owner)
                    }
                    Kind::Link(target) => format!("2 {}", target.escape_ascii()),
                    Kind::Leaf(kind, data, dev) => leaf(*kind, data, *dev, n.mode, n.owner),
                };
                out.insert(path, text);
            }
        }
        out
    }
}

/// The line of a file or a device.
pub fn leaf(kind: u8, data: &[u8], dev: (u32, u32), mode: u32, owner: (u32, u32)) -> String {
    match kind {
        b'0' => format!("0 {mode:o} {owner:?} {}", data.escape_ascii()),
        b'6' => format!("6 {mode:o}"),
        kind => format!("{} {mode:o} {owner:?} {dev:?}", char::from(kind)),
    }
}

/// An archive's name: `.`, `..` and doubled slashes resolved without a look at anything.
fn clean(name: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for part in name.split(|&c| c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            part => out.push(part.to_vec()),
        }
    }
    out
}
