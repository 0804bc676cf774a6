//! How many files this process may have open at a time.
//!
//! The kernel's programs, their maps and their places each take a descriptor.
//! Too few of them fail one hook here and one table there, each with a cause of
//! its own that leads nowhere; so the limit is looked at once, before anything
//! is opened. Raising the soft limit to the hard one needs no right and is what
//! the soft limit is for; the hard one is the administrator's word.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::UserError;

/// With so many a recording was seen to lack nothing (the end-to-end tests run
/// one); it takes about half of them.
const TO_RECORD: u64 = 64;

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

fn check(limit: Option<u64>) -> Result<(), UserError> {
    match limit {
        Some(limit) if limit < TO_RECORD => Err(UserError::Descriptors {
            limit,
            needed: TO_RECORD,
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
        assert!(check(Some(TO_RECORD)).is_ok());
        let error = check(Some(20)).unwrap_err().to_string();
        for part in ["20", "64", "ulimit -n", "LimitNOFILE="] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
