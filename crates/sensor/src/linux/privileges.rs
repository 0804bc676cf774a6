//! Which rights the engine `ebpf` needs, which of them this process lacks, and
//! how it gets them.
//!
//! The kernel answers a program without them with "Operation not permitted" at
//! whatever comes first, which tells an administrator nothing. Rights that
//! cannot be read are not said to be missing.

use std::path::Path;

/// The capabilities by name and number. `CAP_SYS_ADMIN` includes them all.
const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_NET_ADMIN", 12)];
const SYS_ADMIN: u32 = 21;

/// What a process lacks to load and attach the programs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing(Vec<&'static str>);

impl Missing {
    /// What this process lacks, if anything; `proc` is where `/proc` is.
    pub(super) fn of_this_process(proc: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(proc.join("self/status")).ok()?;
        Self::of(effective(&status)?)
    }

    fn of(held: u64) -> Option<Self> {
        let holds = |number: u32| held >> number & 1 == 1;
        let missing: Vec<&str> = NEEDED
            .into_iter()
            .filter(|&(_, number)| !holds(number) && !holds(SYS_ADMIN))
            .map(|(name, _)| name)
            .collect();
        (!missing.is_empty()).then_some(Self(missing))
    }

    /// Why it does not work, in words.
    pub(super) fn why(&self) -> String {
        match self.0.as_slice() {
            [one] => format!("the capability {one} is missing"),
            several => format!("the capabilities {} are missing", several.join(", ")),
        }
    }

    /// What the administrator can do about it. The last two capabilities are for
    /// what follows: the owners of sockets that are older than the recorder.
    pub(super) fn remedy() -> String {
        let program = std::env::current_exe()
            .map_or_else(|_| "portreporter".into(), |path| path.display().to_string());
        format!(
            "run as root, or as root allow the program: `setcap cap_bpf,cap_perfmon,\
             cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep {program}`"
        )
    }
}

/// The effective capabilities in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process_with(mask: &str) -> Option<Missing> {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("self")).unwrap();
        let status = format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n");
        std::fs::write(proc.path().join("self/status"), status).unwrap();
        Missing::of_this_process(proc.path())
    }

    #[test]
    fn what_is_missing_is_named() {
        let nobody = process_with("0000000000000000").unwrap();
        assert_eq!(
            nobody.why(),
            "the capabilities CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN are missing"
        );
        let almost = process_with("000000c000000000").unwrap();
        assert_eq!(almost.why(), "the capability CAP_NET_ADMIN is missing");
    }

    #[test]
    fn what_is_there_or_cannot_be_read_is_not_missing() {
        for mask in ["000001ffffffffff", "000000c000001000", "0000000000200000"] {
            assert_eq!(process_with(mask), None, "{mask}");
        }
        for odd in ["", "many", "1ffffffffffffffffffff"] {
            assert_eq!(process_with(odd), None, "{odd}");
        }
        assert_eq!(Missing::of_this_process(Path::new("/nowhere")), None);
    }
}
