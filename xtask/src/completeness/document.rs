//! Puts the tables into `docs/completeness.md`, exactly as they are printed.

use std::path::PathBuf;

use anyhow::Context;

const BEGIN: &str = "<!-- tables -->\n";
const END: &str = "<!-- end of tables -->";

/// Replaces the tables of the document.
pub(super) fn write(command: &str, tables: &str) -> anyhow::Result<()> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/completeness.md"
    ));
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(&path).with_context(name)?;
    let text = replace(&text, &format!("`{command}`:\n\n{tables}")).with_context(name)?;
    std::fs::write(&path, text).with_context(name)
}

/// The text with other tables between its marks.
fn replace(text: &str, tables: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("no place for tables")?;
    let (_, after) = rest.split_once(END).context("the tables have no end")?;
    Ok(format!("{before}{BEGIN}{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_are_replaced() {
        let text = "a\n<!-- tables -->\nold\n<!-- end of tables -->\nb\n";
        let new = replace(text, "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert!(replace("a\n", "new\n").is_err());
    }
}
