//! How many files this process may have open at a time.
//!
//! The kernel's programs, their maps and their places each take a descriptor.
//! Too few of them fail one hook here and one table there, each with a cause of
//! its own that leads nowhere; so the limit is looked at once, before anything
//! is opened. Raising the soft limit to the hard one needs no right and is what
//! the soft limit is for; the hard one is the administrator's word.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::UserError;

/// With so many, and one for each processor (where mappings are told), a
/// recording was seen to lack nothing: the end-to-end tests run one.
const TO_RECORD: u64 = 80;

/// Raises the limit as far as everybody may.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        // Where it is forbidden all the same, the limit stays as it is.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Is there room for a recording?
pub(crate) fn suffice_to_record() -> Result<(), UserError> {
    check(getrlimit(Resource::Nofile).current)
}

fn to_record() -> u64 {
    let processors = std::thread::available_parallelism();
    TO_RECORD + processors.map_or(1, |number| number.get() as u64)
}

fn check(limit: Option<u64>) -> Result<(), UserError> {
    match limit {
        Some(limit) if limit < to_record() => Err(UserError::Descriptors {
            limit,
            needed: to_record(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_are_told_with_limit_need_and_remedy() {
        assert!(check(None).is_ok());
        assert!(check(Some(to_record())).is_ok());
        let error = check(Some(20)).unwrap_err().to_string();
        for part in ["20", "needed", "ulimit -n", "LimitNOFILE="] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
