//! SQL Server Browser (MS-SQLR): the instances on a host, and where they listen.
//!
//! One byte asks for all instances (`CLNT_UCAST_EX`); the reply is a line of
//! names and values, with an empty name between two instances. Its text is in
//! the server's own code page, which the reply does not name: what is not UTF-8
//! stays visible as bytes.

use event::{Protocol, text};

use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Reader, Value};

/// Asks for all instances.
#[derive(Debug)]
pub(super) struct SqlBrowser;

/// All instances, to one host (MS-SQLR §2.2.2).
const CLNT_UCAST_EX: u8 = 3;
/// The response (MS-SQLR §2.2.5).
const SVR_RESP: u8 = 5;

impl Question for SqlBrowser {
    fn name(&self) -> &'static str {
        "ms-sql-m"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let reply =
            datagrams.exchange(&[CLNT_UCAST_EX], |reply| reply.first() == Some(&SVR_RESP))?;
        read(&reply)
    }
}

fn read(reply: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(reply);
    reader.u8("SVR_RESP")?;
    let length = reader.u16_le("RESP_SIZE")?;
    let data = reader.bytes(usize::from(length), "RESP_DATA")?;
    let instances = instances(data);
    let mut answer = Answer::of("ms-sql-m");
    let parts: Vec<String> = instances.iter().map(|facts| title(facts)).collect();
    answer.summary = parts.join("; ");
    answer.add(
        "instances",
        i64::try_from(instances.len()).unwrap_or(i64::MAX),
    );
    for instance in instances {
        answer.add("instance", instance);
    }
    answer.text = Some(text::from_bytes(data));
    Ok(answer)
}

/// Names and values in turn; after an empty name comes another instance.
fn instances(data: &[u8]) -> Vec<Vec<Fact>> {
    let mut instances = Vec::new();
    let mut facts = Vec::new();
    let mut tokens = data.split(|byte| *byte == b';');
    while let Some(name) = tokens.next() {
        if name.is_empty() {
            if !facts.is_empty() {
                instances.push(std::mem::take(&mut facts));
            }
            continue;
        }
        facts.push(Fact {
            name: text::from_bytes(name),
            value: text::from_bytes(tokens.next().unwrap_or_default()).into(),
        });
    }
    if !facts.is_empty() {
        instances.push(facts);
    }
    instances
}

/// `SERVER\INSTANCE 8.00.194 tcp 1433`.
fn title(facts: &[Fact]) -> String {
    let part = |name: &str| {
        let fact = facts.iter().find(|fact| fact.name == name)?;
        match &fact.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        }
    };
    let mut title = part("ServerName").unwrap_or_default().to_owned();
    for (before, name) in [("\\", "InstanceName"), (" ", "Version"), (" tcp ", "tcp")] {
        if let Some(text) = part(name) {
            title.push_str(before);
            title.push_str(text);
        }
    }
    title
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::question::{Script, trial};

    /// Two instances, made by the rules of MS-SQLR §2.2.5 in the manner of its
    /// example in §4.2.
    const TWO: &[u8] = b"ServerName;HOST1;InstanceName;YUKONSTD;IsClustered;No;\
        Version;9.00.1399.06;tcp;57137;;ServerName;HOST1;InstanceName;MSSQLSERVER;\
        IsClustered;Yes;Version;8.00.194;tcp;1433;np;\\\\HOST1\\pipe\\sql\\query;;";

    fn response(data: &[u8]) -> Vec<u8> {
        let mut reply = vec![SVR_RESP];
        reply.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
        reply.extend_from_slice(data);
        reply
    }

    #[test]
    fn tells_each_instance() {
        let script = Script::of(&[&response(TWO)]);
        let answer = trial::datagrams(&SqlBrowser, script.clone()).unwrap();
        assert_eq!(script.sent(), [3]);
        assert_eq!(
            answer.summary,
            "HOST1\\YUKONSTD 9.00.1399.06 tcp 57137; HOST1\\MSSQLSERVER 8.00.194 tcp 1433"
        );
        let instances: Vec<_> = answer
            .facts
            .iter()
            .filter(|fact| fact.name == "instance")
            .map(|fact| &fact.value)
            .collect();
        let Value::Facts(second) = instances[1] else {
            panic!("{instances:?}");
        };
        assert_eq!(second[2].name, "IsClustered");
        assert_eq!(second[2].value, "Yes".into());
        assert_eq!(second[5].value, "\\\\HOST1\\pipe\\sql\\query".into());
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let reply = response(TWO);
        for cut in trial::cut(&reply).skip(1) {
            let fault = trial::datagrams(&SqlBrowser, Script::of(&[cut])).unwrap_err();
            assert!(matches!(fault, Fault::Malformed { .. }));
        }
    }

    #[test]
    fn values_may_be_missing_or_not_text() {
        let answer = read(&response(b"ServerName;A\xff;InstanceName")).unwrap();
        assert_eq!(answer.summary, "A\\xff\\");
        let answer = read(&response(b";;;")).unwrap();
        assert_eq!(answer.get("instances"), Some(&Value::from(0_u32)));
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_was_sent(
            pairs in proptest::collection::vec(("[a-zA-Z]{1,8}", "[^;]{0,8}"), 1..8),
        ) {
            let parts = pairs.iter().flat_map(|(name, value)| [name, ";", value, ";"]);
            let data: String = parts.collect();
            let told = instances(data.as_bytes());
            prop_assert_eq!(told.len(), 1);
            for (fact, (name, value)) in told[0].iter().zip(&pairs) {
                prop_assert_eq!(&fact.name, name);
                prop_assert_eq!(&fact.value, &Value::from(value.as_str()));
            }
        }
    }
}
