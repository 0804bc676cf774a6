//! How watching is ended: by a signal, or by Escape on a terminal.
//!
//! To hear of one key the terminal must not wait for a whole line, and what is
//! typed must not show among the changes. Everything else stays: Ctrl-C still
//! makes a signal. What was changed is put back when watching ends, however it
//! ends: the guard is dropped also while a panic unwinds, signals are caught, and a
//! stop from the keyboard (Ctrl-Z) puts it back for the shell.
//!
//! A program in the background may not read from the terminal; it does not
//! try.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recorder::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

const ESCAPE: u8 = 0x1b;
/// What follows an escape in this time was sent by the same key.
const SEQUENCE: Duration = Duration::from_millis(50);
/// The exit code of a program that had to be ended by a second signal.
const KILLED: i32 = 130;

/// Whether it was ended, and how.
#[derive(Default)]
pub(crate) struct Stop {
    how: AtomicU8,
    control: Mutex<Option<Control>>,
}

const BY_KEY: u8 = 1;
const BY_INTERRUPT: u8 = 2;
const BY_SIGNAL: u8 = 3;

impl Stop {
    /// How it was ended, as the original said it.
    pub(crate) fn how(&self) -> &'static str {
        match self.how.load(Ordering::Acquire) {
            BY_KEY => "escape key pressed",
            BY_INTERRUPT => "Ctrl-C pressed",
            BY_SIGNAL => "signal received",
            _ => "output closed",
        }
    }

    /// What is ended when this is stopped.
    pub(super) fn governs(&self, control: Control) {
        let mut slot = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(control);
    }

    /// Was it stopped? Whoever begins to watch has to ask: a stop from before
    /// cannot be handed over, because the queue may be full already and nobody
    /// empties it yet.
    pub(super) fn is_asked(&self) -> bool {
        self.how.load(Ordering::Acquire) != 0
    }

    /// Stops. Returns whether that is news.
    fn now(&self, how: u8) -> bool {
        let first = self
            .how
            .compare_exchange(0, how, Ordering::AcqRel, Ordering::Acquire);
        let control = {
            let slot = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            slot.clone()
        };
        if first.is_ok()
            && let Some(control) = control
        {
            control.stop();
        }
        first.is_ok()
    }
}

/// The terminal's guard.
pub(super) struct Keys {
    pub(super) stop: Arc<Stop>,
    terminal: Arc<Terminal>,
}

impl Keys {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP])?;
        let keys = Self {
            stop: Arc::default(),
            terminal: Arc::new(Terminal::take()),
        };
        let (stop, terminal) = (Arc::clone(&keys.stop), Arc::clone(&keys.terminal));
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || heed(signals, &stop, &terminal))?;
        if keys.terminal.is_ours() {
            let (stop, terminal) = (Arc::clone(&keys.stop), Arc::clone(&keys.terminal));
            std::thread::Builder::new()
                .name("keys".to_owned())
                .spawn(move || read(&stop, &terminal))?;
        }
        Ok(keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.terminal.give_back();
    }
}

/// Standard input, if it is a terminal.
struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    fn take() -> Self {
        let terminal = Self {
            before: tcgetattr(io::stdin()).ok(),
        };
        terminal.set();
        terminal
    }

    /// Single keys, and none of them shown.
    fn set(&self) {
        if let Some(before) = &self.before
            && self.is_ours()
        {
            let mut modes = before.clone();
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            // Without it Escape is not heard; Ctrl-C is.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
    }

    fn give_back(&self) {
        if let Some(before) = &self.before
            && self.is_ours()
        {
            // What was typed ahead is not meant for the shell.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }

    /// Is it a terminal, and are we in its foreground?
    fn is_ours(&self) -> bool {
        self.before.is_some()
            && tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
    }
}

fn heed(mut signals: Signals, stop: &Stop, terminal: &Terminal) {
    for signal in signals.forever() {
        if signal == SIGTSTP {
            terminal.give_back();
            // Returns when the shell lets it go on.
            let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
            terminal.set();
            continue;
        }
        let how = if signal == SIGINT {
            BY_INTERRUPT
        } else {
            BY_SIGNAL
        };
        if !stop.now(how) {
            // It was told before and does not come to an end: somebody does not
            // read what it writes.
            terminal.give_back();
            std::process::exit(KILLED);
        }
    }
}

/// Waits for Escape.
fn read(stop: &Stop, terminal: &Terminal) {
    loop {
        match wait(None) {
            Ok(true) if terminal.is_ours() => {}
            // Brought to the background: what is typed is for somebody else.
            Ok(true) => {
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
            Ok(false) => continue,
            Err(_) => return,
        }
        let mut keys = [0; 64];
        let Ok(length) = rustix::io::read(io::stdin(), &mut keys) else {
            return;
        };
        match keys.get(..length) {
            None | Some([]) => return,
            // Arrow keys and their like begin with an escape, too.
            Some([.., ESCAPE]) if !matches!(wait(Some(SEQUENCE)), Ok(true)) => {
                stop.now(BY_KEY);
                return;
            }
            _ => {}
        }
    }
}

/// Waits for a key; at most so long.
fn wait(longest: Option<Duration>) -> io::Result<bool> {
    let longest = longest.map(|wait| Timespec {
        tv_sec: 0,
        tv_nsec: wait.subsec_nanos().into(),
    });
    let input = io::stdin();
    let mut fds = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
    match poll(&mut fds, longest.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
