//! Where commands come from: a terminal, with an editor for lines, or anything
//! else, line by line.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::thread;

use anyhow::Context as _;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

use super::command;

const PROMPT: &str = "> ";
/// So many lines are remembered.
const REMEMBERED: usize = 1000;

/// What came.
pub(super) enum Typed {
    Line(String),
    /// A line that was taken back.
    Nothing,
    End,
}

/// The source of commands.
pub(super) enum Input {
    Terminal(Box<Editor<Complete, MemHistory>>),
    Other(io::StdinLock<'static>),
}

impl Input {
    pub(super) fn open() -> anyhow::Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Other(io::stdin().lock()));
        }
        give_back_when_ended()?;
        let config = Config::builder()
            .max_history_size(REMEMBERED)
            .map(|config| config.completion_type(CompletionType::List).build())
            .context("cannot edit lines")?;
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).context("cannot edit lines")?;
        editor.set_helper(Some(Complete));
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// Waits for the next line.
    pub(super) fn read(&mut self) -> anyhow::Result<Typed> {
        match self {
            Self::Terminal(editor) => match editor.readline(PROMPT) {
                Ok(line) => {
                    // A line that is not remembered is no reason to stop.
                    let _ = editor.add_history_entry(&line);
                    Ok(Typed::Line(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
                Err(ReadlineError::Eof) => Ok(Typed::End),
                Err(error) => Err(error).context("cannot read commands"),
            },
            Self::Other(input) => {
                let mut line = Vec::new();
                let length = input
                    .read_until(b'\n', &mut line)
                    .context("cannot read commands")?;
                if length == 0 {
                    return Ok(Typed::End);
                }
                let line = event::text::from_bytes(line.trim_ascii_end());
                Ok(Typed::Line(line))
            }
        }
    }
}

/// The editor gives the terminal back when a line is finished. A signal that
/// ends the program while one is typed has to do it for it.
fn give_back_when_ended() -> anyhow::Result<()> {
    let before = tcgetattr(io::stdin()).context("cannot ask the terminal")?;
    let mut signals = Signals::new([SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            // The terminal may be gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("cannot start a thread")?;
    Ok(())
}

/// Completes commands, services and options with Tab.
pub(super) struct Complete;

impl Completer for Complete {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let (start, words) = command::completions(line.get(..at).unwrap_or(line));
        Ok((start, words.into_iter().map(str::to_owned).collect()))
    }
}

impl Hinter for Complete {
    type Hint = String;
}

impl Highlighter for Complete {}

impl Validator for Complete {}

impl Helper for Complete {}
