//! What a rule says, in the words of `nft`, and what it comes to.

use super::Truth;
use crate::linux::firewall::registers::{Registers, in_words, prefix, states};
use crate::linux::firewall::rule::Verdict;
use crate::linux::firewall::ruleset::Set;

/// What a rule says and comes to.
pub(super) struct Reading {
    pub(super) truth: Truth,
    pub(super) verdict: Option<Verdict>,
    pub(super) rejects: bool,
    pub(super) packets: Option<u64>,
    pub(super) words: Vec<String>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            truth: Truth::Yes,
            verdict: None,
            rejects: false,
            packets: None,
            words: Vec::new(),
        }
    }
}

impl Reading {
    pub(super) fn decide(&mut self, verdict: Verdict) {
        let chain = |word: &str, to: &str| format!("{word} {}", event::text::escape(to));
        self.words.push(match &verdict {
            Verdict::Drop => "drop".to_owned(),
            Verdict::Accept => "accept".to_owned(),
            Verdict::Queue => "queue".to_owned(),
            Verdict::Continue => "continue".to_owned(),
            Verdict::Return => "return".to_owned(),
            Verdict::Jump(to) => chain("jump", to),
            Verdict::Goto(to) => chain("goto", to),
        });
        self.verdict = Some(verdict);
    }

    /// Says a comparison in the words of `nft`.
    pub(super) fn say(
        &mut self,
        registers: &Registers,
        from: usize,
        sign: &str,
        values: &[&Vec<u8>],
    ) {
        let label = registers.label(from);
        let mask = registers.mask(from);
        // That one of several bits is set is a test for not being zero.
        if label == "ct state"
            && sign == "!= "
            && let [value] = values
            && value.iter().all(|byte| *byte == 0)
            && let Some(states) = mask.and_then(states)
        {
            self.words.push(format!("{label} {states}"));
            return;
        }
        let length = mask.filter(|_| label.ends_with("addr")).and_then(prefix);
        let length = length.map_or_else(String::new, |bits| format!("/{bits}"));
        let value = |value: &&Vec<u8>| in_words(label, value) + &length;
        let values: Vec<_> = values.iter().map(value).collect();
        // Which protocol it is says the next condition as well.
        if !matches!(label, "meta l4proto" | "meta nfproto") {
            self.words
                .push(format!("{label} {sign}{}", values.join("-")));
        }
    }

    pub(super) fn say_set(
        &mut self,
        registers: &Registers,
        from: usize,
        sign: &str,
        name: &str,
        set: Option<&Set>,
    ) {
        const SHOWN: usize = 6;
        let label = registers.label(from);
        let set = match set {
            Some(set) if set.anonymous && !set.concatenated => {
                let mut values = values_of(set, label);
                if values.len() > SHOWN {
                    values.truncate(SHOWN);
                    values.push("…".to_owned());
                }
                format!("{{ {} }}", values.join(", "))
            }
            _ => format!("@{}", event::text::escape(name)),
        };
        self.words.push(format!("{label} {sign}{set}"));
    }
}

/// The elements of a set in words.
fn values_of(set: &Set, label: &str) -> Vec<String> {
    let mut values = Vec::new();
    for (at, element) in set.elements.iter().enumerate() {
        if element.ends || element.catch_all {
            continue;
        }
        let first = in_words(label, &element.key);
        // An interval's last value is the one before the element that ends it.
        let end = set.elements.get(at + 1).filter(|next| next.ends);
        let last = end.and_then(|end| before(&end.key));
        let last = last.or_else(|| element.key_end.clone());
        match last.map(|last| in_words(label, &last)) {
            Some(last) if last != first => values.push(format!("{first}-{last}")),
            _ => values.push(first),
        }
    }
    values
}

/// The number one less.
fn before(number: &[u8]) -> Option<Vec<u8>> {
    let mut less = number.to_vec();
    for byte in less.iter_mut().rev() {
        let borrowed;
        (*byte, borrowed) = byte.overflowing_sub(1);
        if !borrowed {
            return Some(less);
        }
    }
    None
}
