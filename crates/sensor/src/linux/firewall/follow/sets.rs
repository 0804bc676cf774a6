//! Looks a value up in a set, as far as both are known.

use crate::linux::firewall::registers::Registers;
use crate::linux::firewall::ruleset::{Element, Set};

/// What a set has for a value.
pub(super) enum Found<'a> {
    Element(&'a Element),
    Nothing,
    /// It cannot be said from here.
    Unclear,
}

/// Looks for the value in the register `from`.
pub(super) fn find<'a>(set: &'a Set, registers: &Registers, from: usize) -> Found<'a> {
    let plain = || set.elements.iter().filter(|element| !element.catch_all);
    let rest = set.elements.iter().find(|element| element.catch_all);
    let rest = rest.map_or(Found::Nothing, Found::Element);
    let Some(length) = plain().map(|element| element.key.len()).next() else {
        return rest;
    };
    let Some(value) = registers.get(from, length) else {
        return Found::Unclear;
    };
    let found = if !set.intervals {
        plain().find(|element| element.key == value)
    } else if set.concatenated {
        let exact = |element: &Element| {
            element
                .key_end
                .as_ref()
                .is_none_or(|end| *end == element.key)
        };
        let found = plain().find(|element| element.key == value);
        // The borders of the fields are not known here.
        if found.is_none() && !plain().all(exact) {
            return Found::Unclear;
        }
        found
    } else {
        // Sorted: the last that does not begin after the value.
        plain()
            .take_while(|element| element.key <= value)
            .last()
            .filter(|element| !element.ends)
            .filter(|element| element.key_end.as_ref().is_none_or(|end| value <= *end))
    };
    found.map_or(rest, Found::Element)
}
