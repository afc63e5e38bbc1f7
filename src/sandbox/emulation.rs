//! Whether this kernel starts programs of another machine: the emulators registered with binfmt_misc.
//!
//! Only for messages: the kernel decides at execve(2) by the program's own header, whatever an image says that it is
//! for, so nothing is refused because of what stands here. Registrations are inherited by user namespaces (Linux 6.7).

use std::path::Path;

/// Where the kernel shows the registrations.
const REGISTRATIONS: &str = "/proc/sys/fs/binfmt_misc";
/// As much of an ELF header as says which machine it is for.
const HEADER_BYTES: usize = 20;

/// What there is for the programs of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emulator {
    /// Nothing, or binfmt_misc is not mounted.
    Missing,
    /// A registration of this name that is switched off.
    Disabled(String),
    /// This interpreter, looked for inside of the sandbox: the registration lacks the flag `F`.
    InsideOnly(String),
    /// An interpreter that the kernel holds open, for every root.
    Ready,
}

impl Emulator {
    /// Looks for the emulator of an architecture, by its name in platforms (`arm64`).
    pub fn look(architecture: &str) -> Self {
        Self::look_in(Path::new(REGISTRATIONS), architecture)
    }

    fn look_in(dir: &Path, architecture: &str) -> Self {
        let (Some(header), Ok(entries)) = (elf_header(architecture), std::fs::read_dir(dir)) else { return Self::Missing };
        let switched_off = std::fs::read_to_string(dir.join("status")).is_ok_and(|status| status.trim() == "disabled");
        let mut found = Self::Missing;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            match Registration::parse(&text).filter(|r| r.takes(&header)) {
                None => {}
                Some(r) if !r.enabled || switched_off => found = Self::Disabled(name),
                Some(r) if r.fixed => return Self::Ready,
                Some(r) => found = Self::InsideOnly(r.interpreter),
            }
        }
        found
    }
}

/// A file below `binfmt_misc`, as the kernel writes it (`fs/binfmt_misc.c`, `entry_status`).
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    enabled: bool,
    interpreter: String,
    fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    /// Empty: every bit counts.
    mask: Vec<u8>,
}

impl Registration {
    /// Reads a registration by magic; none: by extension, or no registration.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let enabled = lines.next()? == "enabled";
        let mut out = Self { enabled, interpreter: String::new(), fixed: false, offset: 0, magic: Vec::new(), mask: Vec::new() };
        for (key, value) in lines.filter_map(|line| line.split_once(' ')) {
            match key {
                "interpreter" => out.interpreter = value.into(),
                "flags:" => out.fixed = value.contains('F'),
                "offset" => out.offset = value.parse().ok()?,
                "magic" => out.magic = bytes(value)?,
                "mask" => out.mask = bytes(value)?,
                _ => {}
            }
        }
        (!out.magic.is_empty() && (out.mask.is_empty() || out.mask.len() == out.magic.len())).then_some(out)
    }

    fn takes(&self, header: &[u8]) -> bool {
        let Some(place) = header.get(self.offset..self.offset.saturating_add(self.magic.len())) else { return false };
        let mask = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        place.iter().zip(&self.magic).zip(mask).all(|((there, wanted), mask)| there & mask == wanted & mask)
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Returns the beginning of an executable of an architecture (elf(5)); none: not known here.
fn elf_header(architecture: &str) -> Option<[u8; HEADER_BYTES]> {
    // Class (32 or 64 bits), byte order (1: little, 2: big), machine.
    let (bits, order, machine): (u8, u8, u16) = match architecture {
        "386" => (32, 1, 3),
        "amd64" => (64, 1, 62),
        "arm" => (32, 1, 40),
        "arm64" => (64, 1, 183),
        "loong64" => (64, 1, 258),
        "mips64le" => (64, 1, 8),
        "ppc64le" => (64, 1, 21),
        "riscv64" => (64, 1, 243),
        "s390x" => (64, 2, 22),
        _ => return None,
    };
    const EXECUTABLE: u16 = 2;
    let number = |n: u16| if order == 1 { n.to_le_bytes() } else { n.to_be_bytes() };
    let mut header = [0; HEADER_BYTES];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', bits / 32, order, 1]);
    header[16..18].copy_from_slice(&number(EXECUTABLE));
    header[18..20].copy_from_slice(&number(machine));
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Debian's qemu-user-static registers.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn look(registrations: &[(&str, &str)], architecture: &str) -> Emulator {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in registrations {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Emulator::look_in(dir.path(), architecture)
    }

    #[test]
    fn a_registration_counts_when_its_magic_fits_and_it_is_enabled() {
        let status = ("status", "enabled\n");
        let off = ARM64.replace("enabled", "disabled");
        let inside = ARM64.replace("POCF", "");
        let no_mask = ARM64.split("mask").next().unwrap();
        let script = "enabled\ninterpreter /usr/bin/python\nflags: \nextension .py\n";
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, &str, Emulator); 9] = [
            (&[], "arm64", Emulator::Missing),
            (&[status, ("qemu-aarch64", ARM64)], "arm64", Emulator::Ready),
            (&[status, ("qemu-aarch64", no_mask)], "arm64", Emulator::Ready),
            (&[status, ("qemu-aarch64", ARM64)], "arm", Emulator::Missing),
            (&[status, ("qemu-aarch64", ARM64)], "sparc64", Emulator::Missing),
            (&[("status", "disabled\n"), ("qemu-aarch64", ARM64)], "arm64", Emulator::Disabled("qemu-aarch64".into())),
            (&[status, ("off", &off)], "arm64", Emulator::Disabled("off".into())),
            (&[status, ("old", &inside)], "arm64", Emulator::InsideOnly("/usr/libexec/qemu-binfmt/aarch64-binfmt-P".into())),
            (&[status, ("python", script), ("bad", "enabled\nmagic 7f4\n"), ("register", "")], "arm64", Emulator::Missing),
        ];
        for (registrations, architecture, want) in cases {
            assert_eq!(look(registrations, architecture), want, "{registrations:?} {architecture}");
        }
        assert_eq!(Emulator::look_in(Path::new("/nonexistent"), "arm64"), Emulator::Missing);
    }

    #[test]
    fn this_program_has_the_header_that_is_looked_for() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let expected = elf_header(architecture).unwrap();
        // Between them: the system's ABI, and a type that is another for position-independent programs.
        assert_eq!((&own[..7], &own[18..HEADER_BYTES]), (&expected[..7], &expected[18..]));
    }
}
