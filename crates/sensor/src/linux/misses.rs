//! What the engines without a program in the kernel miss, in words for the
//! administrator: which part does not work or cannot, what the records lack
//! because of it, and what would help.

use std::time::Duration;

use event::Degradation;

use super::destroy::Deaths;
use super::ebpf::explain;
use crate::Error;

/// What no interval can mend.
pub(super) fn what_polling_misses(interval: Duration) -> Degradation {
    Degradation {
        what: "capture".to_owned(),
        why: format!(
            "the socket tables are looked at every {} ms, the kernel does not report",
            interval.as_millis()
        ),
        consequence: "sockets that live shorter than that are not seen, times are that exact, \
                      and reason, bytes and duration of a close are not known"
            .to_owned(),
        remedy: Some(
            "the engine sock-diag is told of the end of every socket; run as root, or with \
             CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN for the engine ebpf, which sees all"
                .to_owned(),
        ),
    }
}

pub(super) fn without_deaths(error: &Error, interval: Duration) -> Degradation {
    Degradation {
        what: "sock_diag destroy".to_owned(),
        why: explain(error),
        consequence: format!(
            "sockets that live shorter than the {} ms between two looks are not seen, times are \
             that exact, and reason, bytes and duration of a close are not known",
            interval.as_millis()
        ),
        remedy: Some("run as root or grant CAP_NET_ADMIN".to_owned()),
    }
}

/// What even the end of every socket does not tell.
pub(super) fn what_the_end_does_not_tell(interval: Duration) -> Degradation {
    Degradation {
        what: "capture".to_owned(),
        why: format!(
            "the kernel reports the end of sockets; their beginning is looked for every {} ms",
            interval.as_millis()
        ),
        consequence: "a socket that lives shorter than that has no owner unless a listener's, \
                      and is not seen if it was a listener that nobody called or a refused \
                      connection; durations are not known, and why a connection failed is not \
                      either"
            .to_owned(),
        remedy: Some("run as root, or with CAP_BPF and CAP_PERFMON".to_owned()),
    }
}

pub(super) fn without_programs(error: &Error) -> Degradation {
    Degradation {
        what: "proc connector".to_owned(),
        why: explain(error),
        consequence: "a process that is gone before it is looked at has no name".to_owned(),
        remedy: Some("run as root or grant CAP_NET_ADMIN, in the initial PID namespace".to_owned()),
    }
}

/// Namespaces in which the kernel tells us nothing.
pub(super) fn not_entered(deaths: &Deaths) -> Option<Degradation> {
    let refused: Vec<String> = deaths.refused().map(|netns| netns.to_string()).collect();
    (!refused.is_empty()).then(|| Degradation {
        what: "sock_diag destroy".to_owned(),
        why: format!(
            "it cannot be heard in the network namespaces {}",
            refused.join(", ")
        ),
        consequence: "sockets in there that live shorter than a look are not seen, and how \
                      the others end is not known"
            .to_owned(),
        remedy: Some("run as root or grant CAP_SYS_ADMIN".to_owned()),
    })
}
