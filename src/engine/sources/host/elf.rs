//! Reads from an ELF file what its loader needs to find: the interpreter, the libraries, where it looks for them.
//!
//! Only the program headers are read, never the sections: a stripped file may have none, and the loader doesn't
//! look at them either. All offsets come from the file, so each one is checked.

/// A file that begins as ELF and then isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ELF file is malformed ({0})")]
pub struct ElfError(&'static str);

/// What matters of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elf {
    /// Word size and machine: a library must have the same to be loaded.
    pub kind: (u8, u16),
    /// PT_INTERP: the loader.
    pub interpreter: Option<String>,
    /// DT_NEEDED, in order.
    pub needed: Vec<String>,
    /// DT_RPATH, split at colons; ignored by the loader when there is a RUNPATH.
    pub rpath: Vec<String>,
    /// DT_RUNPATH, split at colons.
    pub runpath: Vec<String>,
}

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const HEADERS_MAX: u64 = 1024;
const DYNAMIC_MAX: u64 = 4096;

/// Parses an ELF file; none: it is something else.
pub fn parse(file: &[u8]) -> Result<Option<Elf>, ElfError> {
    if !file.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let reader = Reader::new(file)?;
    let segments = reader.segments()?;
    let mut elf = Elf { kind: (reader.class, reader.machine()?), ..Elf::default() };
    for segment in &segments {
        match segment.kind {
            PT_INTERP => {
                let bytes = reader.range(segment.offset, segment.file_size)?;
                elf.interpreter = Some(text(bytes.split(|b| *b == 0).next().unwrap_or_default())?);
            }
            PT_DYNAMIC => reader.dynamic(segment, &segments, &mut elf)?,
            _ => {}
        }
    }
    Ok(Some(elf))
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    file_size: u64,
}

struct Reader<'a> {
    file: &'a [u8],
    /// 1: 32 bits, 2: 64.
    class: u8,
    little: bool,
}

impl<'a> Reader<'a> {
    fn new(file: &'a [u8]) -> Result<Self, ElfError> {
        let (Some(&class), Some(&order)) = (file.get(4), file.get(5)) else { return Err(ElfError("too short")) };
        if !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
            return Err(ElfError("unknown class or byte order"));
        }
        Ok(Self { file, class, little: order == 1 })
    }

    fn wide(&self) -> bool {
        self.class == 2
    }

    fn range(&self, offset: u64, len: u64) -> Result<&'a [u8], ElfError> {
        let start = usize::try_from(offset).map_err(|_| ElfError("offset"))?;
        let len = usize::try_from(len).map_err(|_| ElfError("length"))?;
        let end = start.checked_add(len).ok_or(ElfError("length"))?;
        self.file.get(start..end).ok_or(ElfError("points past its end"))
    }

    fn number(&self, offset: u64, len: u64) -> Result<u64, ElfError> {
        let bytes = self.range(offset, len)?;
        let fold = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Ok(if self.little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    }

    fn machine(&self) -> Result<u16, ElfError> {
        Ok(u16::try_from(self.number(18, 2)?).expect("two bytes"))
    }

    fn segments(&self) -> Result<Vec<Segment>, ElfError> {
        let (at_table, at_size, at_count) = if self.wide() { (32, 54, 56) } else { (28, 42, 44) };
        let word = if self.wide() { 8 } else { 4 };
        let table = self.number(at_table, word)?;
        let size = self.number(at_size, 2)?;
        let count = self.number(at_count, 2)?;
        if count > HEADERS_MAX {
            return Err(ElfError("too many program headers"));
        }
        (0..count)
            .map(|n| {
                let at = table.checked_add(n * size).ok_or(ElfError("offset"))?;
                let field = |wide: u64, narrow: u64| {
                    self.number(at.checked_add(if self.wide() { wide } else { narrow }).ok_or(ElfError("offset"))?, word)
                };
                Ok(Segment { kind: self.number(at, 4)?, offset: field(8, 4)?, address: field(16, 8)?, file_size: field(32, 16)? })
            })
            .collect()
    }

    fn dynamic(&self, segment: &Segment, segments: &[Segment], elf: &mut Elf) -> Result<(), ElfError> {
        let word = if self.wide() { 8 } else { 4 };
        let mut entries = Vec::new();
        for n in 0..(segment.file_size / (2 * word)).min(DYNAMIC_MAX) {
            let at = segment.offset.checked_add(n * 2 * word).ok_or(ElfError("offset"))?;
            match self.number(at, word)? {
                0 => break,
                tag => entries.push((tag, self.number(at + word, word)?)),
            }
        }
        let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(()) };
        let load = segments.iter().find(|s| s.kind == PT_LOAD && (s.address..s.address.saturating_add(s.file_size)).contains(strings));
        let load = load.ok_or(ElfError("the string table is not loaded"))?;
        let table = load.offset.checked_add(strings - load.address).ok_or(ElfError("offset"))?;
        for (tag, value) in &entries {
            let string = || self.string(table.checked_add(*value).ok_or(ElfError("offset"))?);
            let list = |s: String| s.split(':').filter(|p| !p.is_empty()).map(String::from).collect();
            match *tag {
                DT_NEEDED => elf.needed.push(string()?),
                DT_RPATH => elf.rpath = list(string()?),
                DT_RUNPATH => elf.runpath = list(string()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn string(&self, offset: u64) -> Result<String, ElfError> {
        let start = usize::try_from(offset).map_err(|_| ElfError("offset"))?;
        let rest = self.file.get(start..).ok_or(ElfError("points past its end"))?;
        let end = rest.iter().take(4096).position(|b| *b == 0).ok_or(ElfError("a string does not end"))?;
        text(&rest[..end])
    }
}

fn text(bytes: &[u8]) -> Result<String, ElfError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ElfError("a string is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_itself_is_understood() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = parse(&file).unwrap().unwrap();
        assert!(elf.interpreter.as_deref().is_some_and(|i| i.starts_with('/')), "{elf:?}");
        assert!(elf.needed.iter().any(|n| n.starts_with("libc.")), "{elf:?}");
    }

    #[test]
    fn broken_files_are_errors_and_never_panics() {
        assert_eq!(parse(b"#!/bin/sh\n"), Ok(None));
        assert_eq!(parse(b""), Ok(None));
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in [4, 5, 6, 19, 20, 40, 63, 64, 100, 300, 1000] {
            assert!(parse(&whole[..len]).is_err(), "{len}");
        }
        // Every byte of the headers replaced, one at a time: any result will do, a panic won't.
        let mut head = whole[..whole.len().min(1 << 20)].to_vec();
        for at in 4..1024 {
            for value in [0, 0x7f, 0xff] {
                let old = std::mem::replace(&mut head[at], value);
                let _ = parse(&head);
                head[at] = old;
            }
        }
    }
}
