//! Changes as JSON Lines: those of PR-EVENTS, so that what reads the log sets
//! reads these.

use event::{Action, WallTime};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::{EventsEncoder, Gap, Opening};
use recorder::Change;

use super::watcher::{Head, Printer, Seen};
use crate::host;
use crate::tee::Tee;

pub(super) struct Json {
    encoder: EventsEncoder,
    clock: LocalClock,
    line: Vec<u8>,
}

impl Json {
    pub(super) fn new() -> Self {
        Self {
            encoder: EventsEncoder::new(0),
            clock: LocalClock::new(TimeZone::system()),
            line: Vec::new(),
        }
    }

    fn put(&mut self, out: &mut Tee) {
        out.bytes(&self.line);
        self.line.clear();
    }
}

impl Printer for Json {
    fn begin(&mut self, out: &mut Tee, now: WallTime, head: &Head, seen: &[Seen<'_>]) {
        let (line, clock) = (&mut self.line, &mut self.clock);
        let opening = Opening {
            version: env!("CARGO_PKG_VERSION"),
            host: &host::name(),
            os: &host::system(),
            boot_id: &host::boot_id(),
            run: &host::run_id(),
            engine: head.engine,
            hooks: &head.hooks,
            degraded: &head.degraded,
            ..Opening::default()
        };
        self.encoder.open(line, clock, now, &opening);
        for seen in seen {
            let owner = seen.owner.text;
            self.encoder.socket(
                line,
                clock,
                now,
                &Action::Snapshot,
                seen.socket,
                seen.attribution,
                owner,
                None,
            );
        }
        let sockets = seen.len() as u64;
        self.encoder.snapshot_end(line, clock, now, sockets);
        self.put(out);
    }

    fn change(&mut self, out: &mut Tee, change: &Change<'_>) {
        self.encoder.socket(
            &mut self.line,
            &mut self.clock,
            change.time,
            &change.action,
            change.socket,
            change.attribution,
            change.owner.text,
            change.error,
        );
        self.put(out);
    }

    fn gap(&mut self, out: &mut Tee, now: WallTime, gap: &Gap<'_>) {
        self.encoder.gap(&mut self.line, &mut self.clock, now, gap);
        self.put(out);
    }
}
