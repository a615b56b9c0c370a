//! The table of attacks: every test that it names exists.

use crate::sources::Source;

/// Tests and scenarios that a row of the table names, and that are not in the sources; and rows that name none.
#[must_use]
pub fn unproven(table: &str, sources: &[Source]) -> Vec<String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let attacks = rows.filter(|row| !row.starts_with("attack |"));
    attacks
        .flat_map(|row| match row.split_once(" | ") {
            Some((_, proof)) if proof.contains('`') => missing(proof, sources),
            _ => vec![format!("no test for: {row}")],
        })
        .collect()
}

/// The names between backticks that no source defines: a test as a function, a scenario by its name.
fn missing(proof: &str, sources: &[Source]) -> Vec<String> {
    let names = proof.split('`').skip(1).step_by(2);
    let exists = |name: &str| {
        let (test, scenario) = (format!("fn {name}("), format!("name: \"{name}\""));
        sources.iter().any(|source| source.text.contains(&test) || source.text.contains(&scenario))
    };
    names.filter(|name| !exists(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_test_and_tests_that_do_not_exist_are_found() {
        let text = "fn forger_is_refused() {}\nScenario { name: \"kick\" }".to_owned();
        let sources = [Source { path: "crates/a/src/lib.rs".into(), text }];
        let table = "| attack | test |\n|---|---|\n| forge | a: `forger_is_refused`; scenario `kick` |\n\
                     | steal | a: `thief_is_refused` |\n| guess | none yet |";
        assert_eq!(unproven(table, &sources), ["thief_is_refused", "no test for: guess | none yet |"]);
    }
}
