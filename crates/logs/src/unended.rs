//! A run that did not end in order, as the next one tells of it.
//!
//! What happened after its last line was recorded by nobody, and how much that
//! was nobody can know: the gap has a beginning, an end and a reason, but no
//! number. Found by [`crate::recover`], written into the first set by the
//! writer.

use event::WallTime;

use crate::stamp::Stamp;

/// The end of a run that did not end in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unended {
    /// When the last thing was written that is still there.
    pub(crate) last: Option<WallTime>,
    /// In which boot of the machine the run was.
    pub(crate) boot_id: Option<String>,
    /// The set that was to follow and is not there.
    pub(crate) missing: Option<Stamp>,
}

impl Unended {
    /// Why events are missing, said by a run in this boot of the machine.
    pub(crate) fn reason(&self, boot_id: &str) -> String {
        if let Some(missing) = self.missing {
            return format!("the log set {missing} that came next is not there");
        }
        let cause = match self.boot_id.as_deref() {
            Some(before) if before == boot_id => {
                "killed, or it could not write its end; the machine was not restarted"
            }
            Some(_) if !boot_id.is_empty() => "the machine was restarted since",
            _ => "killed, or the machine went down",
        };
        format!("the recorder did not stop in order ({cause})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_says_whether_the_machine_was_restarted() {
        let reason = |before: Option<&str>, now| {
            let unended = Unended {
                last: None,
                boot_id: before.map(str::to_owned),
                missing: None,
            };
            unended.reason(now)
        };
        assert!(reason(Some("a"), "a").contains("not restarted"));
        assert!(reason(Some("a"), "b").contains("machine was restarted"));
        let unknown = "the recorder did not stop in order (killed, or the machine went down)";
        assert_eq!(reason(None, "b"), unknown);
        assert_eq!(reason(Some("a"), ""), unknown);
    }
}
