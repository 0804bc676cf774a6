//! Puts questions to ports that (may) listen, on threads that may wait.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use event::Protocol;

use crate::question::{Asked, Question};
use crate::verdict::Reason;
use crate::{Answer, Datagrams, Fault, Status, Stream, Unconnected, Verdict, system};

/// How many conversations are held at once.
pub(super) const AT_ONCE: usize = 256;

/// A port and the question for it.
pub(super) struct Interview {
    /// As the user named the host.
    pub(super) host: Arc<str>,
    pub(super) question: &'static dyn Question,
    pub(super) community: Arc<str>,
    pub(super) secret: Arc<str>,
    pub(super) wait: Duration,
    pub(super) line: Line,
    /// To be completed.
    pub(super) verdict: Verdict,
}

/// What the question is asked over.
pub(super) enum Line {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

/// The threads; they end when this is dropped, each after its conversation.
pub(super) struct Interviewers {
    jobs: Sender<Interview>,
    queue: Arc<Mutex<Receiver<Interview>>>,
    done: Receiver<Verdict>,
    report: Sender<Verdict>,
    threads: usize,
    /// Handed out and not yet taken back.
    pub(super) open: usize,
    /// What is known of the ports that are being asked.
    pending: HashMap<(SocketAddr, Protocol), Verdict>,
}

impl Interviewers {
    pub(super) fn new() -> Self {
        let (jobs, queue) = mpsc::channel();
        let (report, done) = mpsc::channel();
        Self {
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            done,
            report,
            threads: 0,
            open: 0,
            pending: HashMap::new(),
        }
    }

    /// Has the question asked.
    pub(super) fn hold(&mut self, interview: Interview) -> io::Result<()> {
        if self.open >= self.threads && self.threads < AT_ONCE {
            let (queue, report) = (Arc::clone(&self.queue), self.report.clone());
            let work = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(interview) = next else { return };
                    if report.send(interview.conduct()).is_err() {
                        return;
                    }
                }
            };
            let started = thread::Builder::new()
                .name("question".to_owned())
                .spawn(work);
            match started {
                Ok(_) => self.threads += 1,
                // Those that there are take it as well, only later.
                Err(_) if self.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        self.open += 1;
        let known = interview.verdict.without_answer(interview.question.name());
        self.pending.insert((known.address, known.protocol), known);
        // The receiver lives as long as `self`.
        let _ = self.jobs.send(interview);
        Ok(())
    }

    /// A verdict that has been completed.
    pub(super) fn done(&mut self) -> Option<Verdict> {
        let verdict = self.done.try_recv().ok()?;
        Some(self.taken(verdict))
    }

    /// The same, waited for.
    pub(super) fn wait(&mut self, timeout: Duration) -> Option<Verdict> {
        let verdict = self.done.recv_timeout(timeout).ok()?;
        Some(self.taken(verdict))
    }

    /// What is known although the question has not come to its end: a TCP port
    /// listens, whatever is said there.
    pub(super) fn unfinished(&mut self) -> Vec<Verdict> {
        let pending = self.pending.drain().map(|(_, verdict)| verdict);
        pending
            .filter(|verdict| verdict.status == Status::Listening)
            .collect()
    }

    fn taken(&mut self, verdict: Verdict) -> Verdict {
        self.open -= 1;
        self.pending.remove(&(verdict.address, verdict.protocol));
        verdict
    }
}

impl Interview {
    fn conduct(self) -> Verdict {
        let Self {
            host,
            question,
            community,
            secret,
            wait,
            line,
            mut verdict,
        } = self;
        let asked = Asked {
            host: &host,
            address: verdict.address,
            community: &community,
            secret: &secret,
        };
        verdict.asked = Some(question.name());
        let begun = Instant::now();
        match line {
            Line::Stream(stream) => {
                let mut stream = Stream::new(stream, wait);
                verdict.answer = Some(question.ask_stream(&asked, &mut stream));
            }
            Line::Datagrams(socket) => {
                let answer = over_datagrams(question, &asked, &socket, wait);
                conclude(&mut verdict, question, &answer, &socket, asked.address);
                if verdict.status == Status::Listening {
                    verdict.round_trip = Some(begun.elapsed());
                }
                verdict.answer = Some(answer);
            }
        }
        verdict
    }
}

fn over_datagrams(
    question: &dyn Question,
    asked: &Asked<'_>,
    socket: &UdpSocket,
    wait: Duration,
) -> Result<Answer, Fault> {
    let mut datagrams = if question.answered_elsewhere() {
        system::disconnect(socket)?;
        Datagrams::new(Unconnected::new(socket, asked.address), wait)
    } else {
        Datagrams::new(socket, wait)
    };
    match question.ask_datagrams(asked, &mut datagrams) {
        // Whatever came did not answer, but somebody is there.
        Err(Fault::Silent(wait)) if datagrams.has_heard() => Err(Fault::Slow(wait)),
        outcome => outcome,
    }
}

/// What the outcome of a question says about a UDP port.
fn conclude(
    verdict: &mut Verdict,
    question: &dyn Question,
    answer: &Result<Answer, Fault>,
    socket: &UdpSocket,
    asked: SocketAddr,
) {
    let reason = match answer {
        Ok(_) => Reason::Reply,
        Err(fault) if fault.proves_listener() => Reason::Reply,
        Err(Fault::Io(error)) => match (system::last_message(socket), Reason::of(error)) {
            (Some(icmp), _) => Reason::Icmp(icmp),
            (None, Some(reason)) => reason,
            (None, None) => Reason::Silence,
        },
        Err(_) => Reason::Silence,
    };
    let status = reason.status(verdict.protocol, asked.ip());
    verdict.first = match status {
        Status::Listening => Status::ListeningOrFiltered,
        status => status,
    };
    verdict.status = match status {
        // The right question had no answer.
        Status::ListeningOrFiltered if !question.may_be_ignored() => Status::Filtered,
        status => status,
    };
    verdict.reason = reason;
}
