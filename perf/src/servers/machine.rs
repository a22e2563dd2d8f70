//! What a table was measured on.

use std::fmt;
use std::fs;
use std::process::Command;

use super::{Bench, Kind};

/// The machine, and the versions of what was compared.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that are there.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory, GiB.
    pub memory_gib: u64,
    /// Runs under a hypervisor.
    pub is_virtual: bool,
    /// File system of the image, for files.
    pub file_system: Option<String>,
    /// Moment of the report.
    pub date: String,
}

impl Machine {
    /// Looks around. What cannot be told is said to be unknown.
    pub fn look(bench: &Bench) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (info, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let unknown = || "unknown".to_owned();
        let flags = field(&info, "flags").unwrap_or_default();
        let kib = field(&memory, "MemTotal").and_then(|m| m.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu: field(&info, "model name").map_or_else(unknown, str::to_owned),
            cores: info
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            is_virtual: flags.split(' ').any(|flag| flag == "hypervisor"),
            file_system: file_system(&read("/proc/mounts"), &bench.image.display().to_string()),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let virtual_words = if self.is_virtual {
            "a virtual machine with "
        } else {
            ""
        };
        let (cores, cpu, memory) = (self.cores, &self.cpu, self.memory_gib);
        let kernel = &self.kernel;
        write!(
            f,
            "{virtual_words}{cores} cores of {cpu}, {memory} GiB, Linux {kernel}"
        )
    }
}

/// The value behind `name :` in files such as `/proc/cpuinfo`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Kind of the file system that holds `path`: the one with the longest mount point before it.
fn file_system(mounts: &str, path: &str) -> Option<String> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
        let holds = path
            .strip_prefix(point)
            .is_some_and(|rest| point == "/" || rest.starts_with('/'));
        holds.then_some((point.len(), kind))
    });
    // Of equal ones the last mounted is on top.
    mounted
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

/// What a server says of itself.
pub fn version(kind: Kind, bench: &Bench) -> String {
    if kind == Kind::TokioUring {
        return "tokio-uring 0.5".to_owned();
    }
    let argument = if kind == Kind::NbdServer {
        "-V"
    } else {
        "--version"
    };
    let output = Command::new(kind.program(bench)).arg(argument).output();
    let text = output.map(|output| {
        let both = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&both).into_owned();
        let line = text.lines().next().unwrap_or_default().trim();
        line.trim_start_matches("This is ").to_owned()
    });
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "version unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: AMD EPYC: x\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC: x"));
        assert_eq!(field(text, "name"), None);
    }

    #[test]
    fn the_closest_mount_holds_a_path() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/b /dev/shmx xfs rw 0 0\n";
        let kind = |path| file_system(mounts, path);
        assert_eq!(kind("/dev/shm/a").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/dev/shm2/a").as_deref(), Some("ext4"));
        assert_eq!(kind("/srv/a").as_deref(), Some("ext4"));
    }
}
