//! A value may arrive with quotes around it: the original's documentation puts
//! them around paths, scripts that were written for another shell have them,
//! and text that went through a word processor has its own kind.

const PAIRS: [(char, char); 4] = [
    ('\'', '\''),
    ('"', '"'),
    ('\u{2018}', '\u{2019}'),
    ('\u{201c}', '\u{201d}'),
];

/// The value without one pair of quotes around it.
pub(crate) fn strip(text: &str) -> &str {
    PAIRS
        .into_iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pair_of_quotes_goes() {
        for (with, without) in [
            ("'c:\\x'", "c:\\x"),
            ("‘c:\\x’", "c:\\x"),
            ("“a b”", "a b"),
            ("\"a\"", "a"),
            ("''a''", "'a'"),
            ("'", "'"),
            ("'a", "'a"),
            ("", ""),
        ] {
            assert_eq!(strip(with), without);
        }
    }
}
