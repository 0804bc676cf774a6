//! The names of users.
//!
//! A name may come from a directory server far away, so the system's name
//! service is asked on a thread of its own and the caller waits only so long.
//! When an answer is late once, nobody waits again until the helper has shown
//! that it is back: a dead directory server costs the recorder one short wait,
//! not one for each user. A late answer is kept for the next time.
//!
//! Where the name service knows nothing, `/etc/passwd` is read: a program that
//! is linked statically may have no name service that works.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use event::{Degradation, text};

use super::cache::Cache;
use super::file;
use super::parse;

/// How long a caller waits for a name.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a name is believed.
const KEEP_NAME: Duration = Duration::from_mins(10);
/// How long it is believed that there is none.
const KEEP_NONE: Duration = Duration::from_mins(1);
/// How many users are remembered at least.
const REMEMBER: usize = 4096;
/// How many questions may wait for the helper.
const QUEUE: usize = 64;
/// No user table is longer than that.
const PASSWD_LIMIT: usize = 16 * 1024 * 1024;

/// Asks a name service; runs on the helper thread.
type Lookup = fn(u32) -> Option<Vec<u8>>;

#[derive(Debug)]
pub(super) struct Users {
    passwd: PathBuf,
    patience: Duration,
    known: Cache<u32, Entry>,
    service: Service,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Option<Arc<str>>,
    until: Instant,
}

/// The name service.
#[derive(Debug)]
enum Service {
    /// Not to be asked.
    Off,
    /// Could not be started.
    Failed(String),
    /// Has its thread.
    Running(Helper),
}

#[derive(Debug)]
struct Helper {
    questions: SyncSender<u32>,
    answers: Receiver<(u32, Option<Vec<u8>>)>,
    asked: HashSet<u32>,
    late: bool,
}

impl Users {
    /// Users by the system's name service and this table.
    pub(super) fn new(passwd: PathBuf, name_service: bool) -> Self {
        let lookup: Option<Lookup> = name_service.then_some(super::name_service::user_name);
        Self::with(passwd, lookup, PATIENCE)
    }

    fn with<L>(passwd: PathBuf, lookup: Option<L>, patience: Duration) -> Self
    where
        L: Fn(u32) -> Option<Vec<u8>> + Send + 'static,
    {
        Self {
            passwd,
            patience,
            known: Cache::new(REMEMBER),
            service: lookup.map_or(Service::Off, Service::start),
        }
    }

    /// The name of a user; none if there is none or if it is not known in time.
    pub(super) fn name(&mut self, uid: u32, now: Instant) -> Option<Arc<str>> {
        self.take_answers(now);
        let stale = match self.known.get(&uid) {
            Some(entry) if now < entry.until => return entry.name.clone(),
            Some(entry) => entry.name.clone(),
            None => None,
        };
        if self.ask(uid, now)
            && let Some(entry) = self.known.get(&uid)
            && now < entry.until
        {
            return entry.name.clone();
        }
        // No answer (yet). What the table says is no worse than what the
        // service would say; what was known is better than nothing.
        let name = self.in_table(uid).or(stale);
        self.keep(uid, name.clone(), KEEP_NONE, now);
        name
    }

    /// What is wrong with the sources of names.
    pub(super) fn degradations(&self) -> Vec<Degradation> {
        let mut found = Vec::new();
        if let Err(error) = file::open(&self.passwd) {
            found.push(Degradation {
                what: "user table".to_owned(),
                why: format!("cannot read {}: {error}", self.passwd.display()),
                consequence: "names of local users may be missing; their numbers are recorded"
                    .to_owned(),
                remedy: None,
            });
        }
        let why = match &self.service {
            Service::Failed(why) => Some(why.clone()),
            Service::Running(helper) if helper.late => {
                Some("the system's name service does not answer in time".to_owned())
            }
            Service::Running(_) | Service::Off => None,
        };
        if let Some(why) = why {
            found.push(Degradation {
                what: "name service".to_owned(),
                why,
                consequence: "only users of the local table have names".to_owned(),
                remedy: None,
            });
        }
        found
    }

    /// Asks the service and waits for it. Has it answered?
    fn ask(&mut self, uid: u32, now: Instant) -> bool {
        let Service::Running(helper) = &mut self.service else {
            return false;
        };
        if !helper.asked.contains(&uid) {
            if helper.questions.try_send(uid).is_err() {
                return false;
            }
            helper.asked.insert(uid);
        }
        if helper.late {
            return false;
        }
        let deadline = Instant::now() + self.patience;
        loop {
            let Service::Running(helper) = &mut self.service else {
                return false;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match helper.answers.recv_timeout(left) {
                Ok((answered, name)) => {
                    self.learn(answered, name, now);
                    if answered == uid {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    helper.late = true;
                    return false;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.service = Service::Failed("the thread that asks it has ended".to_owned());
                    return false;
                }
            }
        }
    }

    /// Takes in what has been answered since.
    fn take_answers(&mut self, now: Instant) {
        while let Service::Running(helper) = &self.service
            && let Ok((uid, name)) = helper.answers.try_recv()
        {
            self.learn(uid, name, now);
        }
    }

    fn learn(&mut self, uid: u32, name: Option<Vec<u8>>, now: Instant) {
        if let Service::Running(helper) = &mut self.service {
            helper.asked.remove(&uid);
            helper.late = false;
        }
        let name = name
            .filter(|name| !name.is_empty())
            .map(|name| Arc::from(text::from_bytes(&name)))
            .or_else(|| self.in_table(uid));
        let keep = if name.is_some() { KEEP_NAME } else { KEEP_NONE };
        self.keep(uid, name, keep, now);
    }

    fn keep(&mut self, uid: u32, name: Option<Arc<str>>, keep: Duration, now: Instant) {
        let until = now + keep;
        self.known.insert(uid, Entry { name, until });
    }

    fn in_table(&self, uid: u32) -> Option<Arc<str>> {
        table_name(&self.passwd, uid)
    }
}

impl Service {
    fn start<L>(lookup: L) -> Self
    where
        L: Fn(u32) -> Option<Vec<u8>> + Send + 'static,
    {
        let (questions, incoming) = mpsc::sync_channel::<u32>(QUEUE);
        let (outgoing, answers) = mpsc::channel();
        // Nobody joins this thread: it may hang in the name service for as
        // long as that likes. It ends when its questioner is gone.
        let thread = std::thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || {
                while let Ok(uid) = incoming.recv() {
                    if outgoing.send((uid, lookup(uid))).is_err() {
                        break;
                    }
                }
            });
        match thread {
            Ok(_) => Self::Running(Helper {
                questions,
                answers,
                asked: HashSet::new(),
                late: false,
            }),
            Err(error) => Self::Failed(format!("cannot start a thread for it: {error}")),
        }
    }
}

fn table_name(passwd: &Path, uid: u32) -> Option<Arc<str>> {
    let content = file::read_regular(passwd, PASSWD_LIMIT).ok().flatten()?;
    parse::user_name(&content, uid).map(|name| Arc::from(text::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Mutex;

    use super::*;

    const NO_SERVICE: Option<Lookup> = None;
    const AGES: Duration = Duration::from_hours(1);

    fn table(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    impl Users {
        /// Waits for the helper's next answer, without asking.
        fn await_answer(&mut self, now: Instant) {
            let Service::Running(helper) = &self.service else {
                panic!("no service");
            };
            let (uid, name) = helper.answers.recv().unwrap();
            self.learn(uid, name, now);
        }
    }

    #[test]
    fn the_table_answers_without_a_service() {
        let passwd = table("root:x:0:0:::\n");
        let mut users = Users::with(passwd.path().into(), NO_SERVICE, AGES);
        let now = Instant::now();
        assert_eq!(users.name(0, now).as_deref(), Some("root"));
        assert_eq!(users.name(1, now), None);
        assert!(users.degradations().is_empty());
    }

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let passwd = table("root:x:0:0:::\n");
        let mut users = Users::with(passwd.path().into(), NO_SERVICE, AGES);
        let start = Instant::now();
        assert_eq!(users.name(7, start), None);
        passwd.as_file().write_all_at_start(b"seven:x:7:7:::\n");
        assert_eq!(users.name(7, start + KEEP_NONE / 2), None);
        assert_eq!(users.name(7, start + KEEP_NONE).as_deref(), Some("seven"));
    }

    #[test]
    fn the_service_goes_before_the_table() {
        let passwd = table("table:x:5:0:::\nonly:x:6:0:::\n");
        let lookup = |uid| (uid == 5).then(|| b"service\xff".to_vec());
        let mut users = Users::with(passwd.path().into(), Some(lookup), AGES);
        let now = Instant::now();
        assert_eq!(users.name(5, now).as_deref(), Some("service\\xff"));
        assert_eq!(users.name(6, now).as_deref(), Some("only"));
        assert_eq!(users.name(7, now), None);
    }

    #[test]
    fn a_late_answer_is_used_the_next_time() {
        let passwd = table("table:x:5:0:::\n");
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let lookup = move |_| {
            let _ = gate.lock().unwrap().recv();
            Some(b"service".to_vec())
        };
        let mut users = Users::with(passwd.path().into(), Some(lookup), Duration::ZERO);
        let now = Instant::now();
        assert_eq!(users.name(5, now).as_deref(), Some("table"));
        assert_eq!(users.degradations().len(), 1);
        // Nobody waits while the service is late, whatever the patience.
        users.patience = AGES;
        assert_eq!(users.name(6, now), None);

        open.send(()).unwrap();
        users.await_answer(now);
        assert_eq!(users.name(5, now).as_deref(), Some("service"));
        assert!(users.degradations().is_empty());
        open.send(()).unwrap();
        users.await_answer(now);
        assert_eq!(users.name(6, now).as_deref(), Some("service"));
    }

    #[test]
    fn a_known_name_outlives_a_service_that_fell_silent() {
        let passwd = table("");
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let lookup = move |_| gate.lock().unwrap().recv().ok().map(|()| b"ada".to_vec());
        let mut users = Users::with(passwd.path().into(), Some(lookup), AGES);
        let start = Instant::now();
        open.send(()).unwrap();
        assert_eq!(users.name(5, start).as_deref(), Some("ada"));
        users.patience = Duration::ZERO;
        assert_eq!(users.name(5, start + KEEP_NAME).as_deref(), Some("ada"));
    }

    #[test]
    fn more_questions_than_fit_do_not_block() {
        let passwd = table("");
        let (_open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let lookup = move |_| {
            let _ = gate.lock().unwrap().recv();
            None
        };
        let mut users = Users::with(passwd.path().into(), Some(lookup), Duration::ZERO);
        for uid in 0..1000 {
            assert_eq!(users.name(uid, Instant::now()), None);
        }
    }

    #[test]
    fn a_missing_table_is_reported() {
        let users = Users::with("/nonexistent/passwd".into(), NO_SERVICE, AGES);
        let found = users.degradations();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "user table");
    }

    trait WriteAtStart {
        fn write_all_at_start(&self, content: &[u8]);
    }

    impl WriteAtStart for std::fs::File {
        fn write_all_at_start(&self, content: &[u8]) {
            std::os::unix::fs::FileExt::write_all_at(self, content, 0).unwrap();
        }
    }
}
